// Runs in the page of bench.mjs.
const PROMPT = 'The quick brown fox jumps over the lazy dog. '.repeat(12);

/** One measurement of Firecrest: milliseconds to the first token, tokens per second. */
export async function firecrest(model, threads, tokens) {
  const { Firecrest } = await import('/dist/index.js');
  const started = performance.now();
  const loaded = await Firecrest.load(model, { threads, storage: 'none', contextLength: 1024 });
  for await (const _ of loaded.generate('Hi', { maxTokens: 1, temperature: 0, raw: true })) break;
  const first = performance.now() - started;
  const options = { maxTokens: tokens, temperature: 0, raw: true };
  await loaded.generate('Once upon a time', { ...options, maxTokens: 16 }).text();
  await loaded.reset();
  const answer = loaded.generate(PROMPT, options);
  const text = await answer.text();
  const stats = await answer.stats;
  const { variant, parameters, fileBytes } = loaded.info;
  loaded.dispose();
  return { first, prefill: stats.prefillTokensPerSecond, decode: stats.tokensPerSecond, prompt: stats.promptTokens, variant, parameters, fileBytes, text };
}

/** The same of wllama. */
export async function wllama(model, threads, tokens) {
  const { Wllama } = await import('/wllama/esm/index.js');
  const wasm = '/wllama/esm/wasm/wllama.wasm';
  const started = performance.now();
  const instance = new Wllama({ default: wasm });
  await instance.loadModelFromUrl(model, { useCache: false, n_threads: threads, n_ctx: 1024, n_gpu_layers: 0, n_batch: 512 });
  const run = async (prompt, count) => {
    const times = [];
    let timings;
    const options = { prompt, max_tokens: count, temperature: 0, stream: true, cache_prompt: false };
    for await (const chunk of await instance.createCompletion(options)) {
      times.push(performance.now());
      timings = chunk.timings ?? timings;
    }
    return { times, timings };
  };
  await run('Hi', 1);
  const first = performance.now() - started;
  await run('Once upon a time', 16);
  const begun = performance.now();
  const { times, timings } = await run(PROMPT, tokens);
  // By its own figures where it tells them, as for Firecrest.
  const prompt = timings?.prompt_n ?? 0;
  const prefill = timings?.prompt_per_second ?? (1000 * prompt) / (times[0] - begun);
  const decode = timings?.predicted_per_second ?? (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  await instance.exit();
  return { first, prefill, decode, prompt };
}

// 14 words are 16 tokens with those at the ends.
const WORDS = 'the quick brown fox jumps over the lazy dog while a small bird sings'.split(' ');
const SENTENCES = Array.from({ length: 128 }, (_, i) => WORDS.map((_, j) => WORDS[(j * (1 + (i % 13)) + i) % 14]).join(' '));

/** Sentences a second, so many at a time. */
async function speed(embed, batch) {
  const begun = performance.now();
  for (let i = 0; i < SENTENCES.length; i += batch) await embed(SENTENCES.slice(i, i + batch));
  return (1000 * SENTENCES.length) / (performance.now() - begun);
}

/** An encoder by Firecrest: milliseconds to the first vectors, sentences per second. */
export async function firecrestEmbed(url, threads) {
  const { Firecrest } = await import('/dist/index.js');
  const started = performance.now();
  const model = await Firecrest.load(url, { threads, storage: 'none' });
  await model.embed(SENTENCES.slice(0, 16));
  const first = performance.now() - started;
  await speed((texts) => model.embed(texts), 16);
  const [single, batch] = [await speed((texts) => model.embed(texts), 1), await speed((texts) => model.embed(texts), 16)];
  model.dispose();
  return { first, single, batch };
}

/** The same by transformers.js. */
export async function transformersEmbed(name, threads) {
  const { env, AutoModel, AutoTokenizer } = await import('/transformers/transformers.min.js');
  const runtime = '/onnxruntime/ort-wasm-simd-threaded';
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: '/' });
  Object.assign(env.backends.onnx.wasm, { wasmPaths: { mjs: `${runtime}.mjs`, wasm: `${runtime}.wasm` }, numThreads: threads });
  const started = performance.now();
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await AutoModel.from_pretrained(name, { dtype: 'fp32', device: 'wasm' });
  const embed = async (texts) => {
    const inputs = tokenizer(texts, { padding: true, truncation: true });
    if (inputs.input_ids.dims[1] !== 16) throw new Error(`${inputs.input_ids.dims[1]} tokens`);
    return model(inputs);
  };
  await embed(SENTENCES.slice(0, 16));
  const first = performance.now() - started;
  await speed(embed, 16);
  return { first, single: await speed(embed, 1), batch: await speed(embed, 16) };
}
