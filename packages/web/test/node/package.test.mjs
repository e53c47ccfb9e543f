// The built package in Node, with the tiny models of the engine's tests, and SmolLM2 where there is one.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';

import { Firecrest, FirecrestError } from '../../dist/index.js';
import { serve } from '../serve.mjs';

const data = join(import.meta.dirname, '../../../../crates/engine/tests/data');
const tiny = join(data, 'archs/llama-gqa-tied.gguf');
const smollm2 = process.env.FIRECREST_TEST_MODEL;
// What `firecrest run --raw --temperature 0 --max-tokens 12 "The capital of France is"` writes.
const PROMPT = 'The capital of France is';

const fails = (code) => (error) => error instanceof FirecrestError && error.code === code;

test('a model loads from a path, with progress, and is disposed of', async () => {
  const stages = [];
  const model = await Firecrest.load(tiny, { onProgress: ({ stage }) => stages.push(stage) });
  assert.equal(model.info.architecture, 'llama');
  assert.equal(stages[0], 'start');
  assert.equal(stages.at(-1), 'ready');
  assert.ok((await model.memory()) > 0);
  model.dispose();
  await assert.rejects(model.memory(), fails('disposed'));
});

test('the answer is the same from path, bytes, URL, and URL without ranges', async () => {
  const server = await serve({
    routes: { '/tiny.gguf': tiny, '/plain.gguf': tiny },
    faults: { '/plain.gguf': () => ({ noRanges: true }) },
  });
  const answers = [];
  for (const source of [tiny, new Blob([readFileSync(tiny)]), `${server.url}/tiny.gguf`, `${server.url}/plain.gguf`]) {
    const model = await Firecrest.load(source);
    const answer = model.generate('ab', { maxTokens: 20, temperature: 0, raw: true });
    answers.push(await answer.text());
    assert.equal((await answer.stats).generatedTokens <= 20, true);
    model.dispose();
  }
  server.close();
  assert.equal(new Set(answers).size, 1);
});

test('tokens go there and back', async () => {
  const model = await Firecrest.load(tiny);
  const tokens = await model.tokenize('ab');
  assert.ok(tokens instanceof Uint32Array && tokens.length > 0);
  assert.equal(typeof (await model.detokenize(tokens)), 'string');
  model.dispose();
});

test('what does not fit is refused by kind', async () => {
  await assert.rejects(Firecrest.load('/nowhere/model.gguf'), fails('storage'));
  await assert.rejects(Firecrest.load(new Blob(['not a model'])), fails('parse'));
  await assert.rejects(Firecrest.load(new Blob([readFileSync(tiny).subarray(0, 1000)])), fails('parse'));
  await assert.rejects(Firecrest.load(tiny, { memoryLimit: 1000 }), (error) => {
    return fails('memory')(error) && error.details.needed > error.details.available;
  });
  await assert.rejects(Firecrest.load(tiny, { sha256: '00' }), fails('checksum'));
  await assert.rejects(Firecrest.load(tiny, { threads: 0 }), fails('config'));
  const model = await Firecrest.load(tiny, { sha256: createHash('sha256').update(readFileSync(tiny)).digest('hex') });
  assert.throws(() => model.generate('ab', { temprature: 1 }), fails('config'));
  await assert.rejects(model.generate('ab', { temperature: -1 }).text(), fails('config'));
  await assert.rejects(model.embed(['ab']), fails('unsupported'));
  model.dispose();
});

test('loading and answering end when they are aborted', async () => {
  await assert.rejects(Firecrest.load(tiny, { signal: AbortSignal.abort() }), { name: 'AbortError' });
  const model = await Firecrest.load(tiny);
  const abort = new AbortController();
  const pieces = [];
  await assert.rejects(
    async () => {
      for await (const piece of model.generate('ab', { maxTokens: 500, temperature: 0, raw: true, signal: abort.signal })) {
        pieces.push(piece);
        if (pieces.length === 3) abort.abort();
      }
    },
    { name: 'AbortError' },
  );
  assert.equal(pieces.length, 3);
  // A reader who leaves ends the answer, and the next one works.
  for await (const _ of model.generate('ab', { maxTokens: 500, raw: true })) break;
  assert.ok((await model.generate('ab', { maxTokens: 5, temperature: 0, raw: true }).text()).length > 0);
  model.dispose();
});

test('a connection that is cut is taken up again', async () => {
  const server = await serve({
    routes: { '/model.gguf': tiny },
    faults: { '/model.gguf': (number) => (number <= 2 ? { cut: 10_000 } : undefined) },
  });
  const model = await Firecrest.load(`${server.url}/model.gguf`);
  model.dispose();
  server.close();
  assert.deepEqual(server.requests.slice(1, 3).map(({ range }) => range?.split('-')[0]), ['bytes=10000', 'bytes=20000']);
});

test('embeddings are those of the engine', async () => {
  const model = await Firecrest.load(join(import.meta.dirname, '../../../../crates/wasm/tests/data/bert.gguf'));
  const [hello, other] = await model.embed(['hello world', 'another text']);
  assert.equal(hello.length, model.info.dimension);
  assert.equal(other.length, model.info.dimension);
  // What `firecrest embed "hello world"` gives.
  for (const [i, value] of [0.02958426, 0.09655171, -0.03132011].entries()) assert.ok(Math.abs(hello[i] - value) < 2e-3);
  model.dispose();
});

test('SmolLM2 answers as in the engine', { skip: !smollm2 }, async () => {
  const model = await Firecrest.load(smollm2);
  const answer = model.generate(PROMPT, { maxTokens: 12, temperature: 0, raw: true });
  assert.match(await answer.text(), /Paris/);
  // A prompt that goes on costs only what is new.
  const again = model.generate(`${PROMPT} Paris`, { maxTokens: 1, temperature: 0, raw: true });
  await again.text();
  assert.ok((await again.stats).reusedTokens >= 4);
  model.dispose();
});
