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
  const { variant, parameters } = loaded.info;
  loaded.dispose();
  return { first, prefill: stats.prefillTokensPerSecond, decode: stats.tokensPerSecond, prompt: stats.promptTokens, memory, variant, parameters, text };
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
  await run('Once upon a time', tokens);
  const begun = performance.now();
  const { times, timings } = await run(PROMPT, tokens);
  // By its own figures where it tells them, as for Firecrest.
  const prompt = timings?.prompt_n ?? 0;
  const prefill = timings?.prompt_per_second ?? (1000 * prompt) / (times[0] - begun);
  const decode = timings?.predicted_per_second ?? (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
  await instance.exit();
  return { first, prefill, decode, prompt };
}
