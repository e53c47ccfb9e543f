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
  await loaded.generate('Once upon a time', options).text();
  await loaded.reset();
  const answer = loaded.generate(PROMPT, options);
  const text = await answer.text();
  const stats = await answer.stats;
  const memory = await loaded.memory();
  const { variant } = loaded.info;
  loaded.dispose();
  return { first, prefill: stats.prefillTokensPerSecond, decode: stats.tokensPerSecond, prompt: stats.promptTokens, memory, variant, text };
}

/** The same of wllama. */
export async function wllama(model, threads, tokens) {
  const { Wllama } = await import('/wllama/esm/index.js');
  const wasm = '/wllama/esm/wasm/wllama.wasm';
  const started = performance.now();
  const instance = new Wllama({ default: wasm, 'single-thread/wllama.wasm': wasm, 'multi-thread/wllama.wasm': wasm });
  await instance.loadModelFromUrl(model, { useCache: false, n_threads: threads, n_ctx: 1024, n_gpu_layers: 0, n_batch: 512 });
  const run = async (prompt, count) => {
    const times = [];
    await instance.createCompletion(prompt, { nPredict: count, sampling: { temp: 0 }, useCache: false, onNewToken: () => times.push(performance.now()) });
    return times;
  };
  await run('Hi', 1);
  const first = performance.now() - started;
  await run('Once upon a time', tokens);
  const prompt = (await instance.tokenize(PROMPT)).length;
  const begun = performance.now();
  const times = await run(PROMPT, tokens);
  const prefill = (1000 * prompt) / (times[0] - begun);
  const decode = (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  await instance.exit();
  return { first, prefill, decode, prompt };
}
