// The built package in Chromium: every build, loading and its faults, storage, memory, and the demo page.
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { platform, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

import { serve } from '../serve.mjs';

const here = import.meta.dirname;
const dist = join(here, '../../dist');
const data = join(here, '../../../../crates/engine/tests/data');
const tiny = join(data, 'archs/llama-gqa-tied.gguf');
const bert = join(here, '../../../../crates/wasm/tests/data/bert.gguf');
const smollm2 = process.env.FIRECREST_TEST_MODEL;
const screenshots = process.env.FIRECREST_SCREENSHOTS ?? join(tmpdir(), 'firecrest-screenshots');
const VARIANTS = ['relaxed-simd', 'simd128', 'scalar', 'relaxed-simd-threads', 'simd128-threads', 'scalar-threads'];

const built = VARIANTS.filter((name) => existsSync(join(dist, `firecrest-${name}.wasm`)));
const single = built.find((name) => !name.endsWith('-threads'));

const blank = join(here, 'blank.html');
// As long as the module's memory, and all but its beginning a hole.
const temporary = mkdtempSync(join(tmpdir(), 'firecrest-'));
const huge = join(temporary, 'huge.gguf');
let browser;
let server;
let plain;
let faults = {};

before(async () => {
  copyFileSync(tiny, huge);
  truncateSync(huge, 5 * 2 ** 30);
  const routes = {
    '/dist/': dist,
    '/demo/firecrest/': dist,
    '/demo/': join(here, '../../demo'),
    '/wasm/': join(here, '../../wasm', single),
    '/tiny.gguf': tiny,
    '/bert.gguf': bert,
    '/smollm2.gguf': smollm2 ?? tiny,
    '/huge.gguf': huge,
    '/coi-service-worker.js': join(dist, 'coi-service-worker.js'),
    '/': blank,
  };
  const proxy = new Proxy({}, { get: (_, path) => faults[path] });
  server = await serve({ routes, faults: proxy });
  plain = await serve({ routes, isolated: false });
  browser = await chromium.launch({
    executablePath: process.env.FIRECREST_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox'],
  });
});
after(async () => {
  await browser?.close();
  server?.close();
  plain?.close();
  rmSync(temporary, { recursive: true, force: true });
});

/** A page of its own, with its own storage. */
async function open(t, origin = server.url, path = '/') {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.on('pageerror', (error) => t.diagnostic(`page: ${error.message}`));
  await page.goto(origin + path);
  return page;
}

/** Runs `body`, which has `Firecrest` and `given`, in the page. */
const run = (page, body, given = {}) =>
  page.evaluate(
    async ({ body, given }) => {
      const { Firecrest, FirecrestError, probe } = await import('/dist/index.js');
      const run = new (async () => {}).constructor('Firecrest', 'FirecrestError', 'probe', 'given', body);
      return run(Firecrest, FirecrestError, probe, given);
    },
    { body, given },
  );

test('every build that there is answers alike', async (t) => {
  const page = await open(t);
  const answers = new Map();
  for (const variant of built) {
    const { text, info } = await run(
      page,
      `const model = await Firecrest.load('/tiny.gguf', { variant: given.variant, threads: 2, storage: 'none' });
       const text = await model.generate('ab', { maxTokens: 24, temperature: 0, raw: true }).text();
       const { info } = model; model.dispose(); return { text, info };`,
      { variant },
    );
    assert.equal(info.variant, variant);
    assert.equal(info.threads, variant.endsWith('-threads') ? 2 : 1);
    answers.set(variant, text);
  }
  assert.equal(new Set(answers.values()).size, 1, JSON.stringify([...answers]));
});

/**
 * What `firecrest run --raw --temperature 0` writes, on every instruction set: so long as no two tokens are as good as
 * equal, which rounding then decides.
 */
const ANSWERS = [
  ['The capital of France is', 12, ' Paris.\n\nThe United States has a population of approximately'],
  ['The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog. The quick brown', 7, ' fox is a classic example of a'],
];

for (const variant of built) {
  test(`SmolLM2 streams what the engine answers: ${variant}`, { skip: !smollm2, timeout: 300_000 }, async (t) => {
    const page = await open(t);
    const { texts, pieces, stats, info } = await run(
      page,
      `const model = await Firecrest.load('/smollm2.gguf', { storage: 'none', variant: given.variant, threads: 2 });
       const texts = []; let pieces = 0; let stats;
       for (const [prompt, maxTokens] of given.answers) {
         const answer = model.generate(prompt, { maxTokens, temperature: 0, raw: true });
         let text = ''; for await (const piece of answer) { text += piece; pieces++; }
         texts.push(text); stats = await answer.stats;
       }
       const { info } = model; model.dispose(); return { texts, pieces, stats, info };`,
      { variant, answers: ANSWERS },
    );
    t.diagnostic(`${stats.tokensPerSecond?.toFixed(1)} tokens/s, ${info.threads} threads`);
    assert.deepEqual(texts, ANSWERS.map(([, , text]) => text));
    assert.ok(pieces > 15);
  });
}

/** The first values that `firecrest embed "hello world"` gives. */
const HELLO = [0.02958426, 0.09655171, -0.03132011, 0.016569052, 0.3300039, -0.1506082];

test('embeddings are those of the engine', async (t) => {
  const page = await open(t);
  const { vectors, kind, code } = await run(
    page,
    `const model = await Firecrest.load('/bert.gguf');
     const texts = Array.from({ length: 20 }, (_, i) => (i === 17 ? 'hello world' : 'a text of another length ' + 'x'.repeat(i)));
     const vectors = (await model.embed(texts)).map((vector) => [...vector]); const { kind } = model.info;
     const code = await model.generate('a').text().catch((e) => e.code); model.dispose(); return { vectors, kind, code };`,
  );
  assert.equal(kind, 'embedding');
  assert.equal(code, 'unsupported');
  assert.equal(vectors.length, 20);
  for (const [i, value] of HELLO.entries()) assert.ok(Math.abs(vectors[17][i] - value) < 2e-3, `${i}: ${vectors[17][i]}`);
});

test('the classes work without the package', async (t) => {
  const page = await open(t);
  const result = await page.evaluate(async () => {
    const wasm = await import('/wasm/firecrest_wasm.js');
    await wasm.default();
    const config = JSON.stringify({ sparsity: { enabled: true, threshold: 0.5 }, temperature: 0.7, top_k: 40 });
    const engine = await wasm.SparseInferenceEngine.load_streaming('/tiny.gguf', config);
    const { dimension } = engine.metadata();
    const input = new Float32Array(dimension).fill(0.1);
    const output = engine.infer(input);
    const time = wasm.measure_inference_time(engine, input, 3);
    const absent = await wasm.SparseInferenceEngine.load_streaming('/dist/absent.gguf', config).catch((e) => e.code);
    const { average_active_ratio } = engine.sparsity_stats();
    return { length: output.length, dimension, time, absent, average_active_ratio };
  });
  assert.equal(result.length, result.dimension);
  assert.ok(result.time > 0);
  assert.equal(result.absent, 'network');
  assert.ok(Math.abs(result.average_active_ratio - 0.5) < 0.05);
});

test('without isolation everything works on one thread', async (t) => {
  const page = await open(t, plain.url);
  const result = await run(
    page,
    `const model = await Firecrest.load('/tiny.gguf', { threads: 4 });
     const text = await model.generate('ab', { maxTokens: 4, temperature: 0, raw: true }).text();
     return { isolated: crossOriginIsolated, threads: model.info.threads, variant: model.info.variant, text };`,
  );
  assert.equal(result.isolated, false);
  assert.equal(result.threads, 1);
  assert.ok(!result.variant.includes('threads'));
  assert.ok(result.text.length > 0);
});

test('the service worker isolates a page whose host sets no headers', async (t) => {
  const page = await open(t, plain.url);
  assert.equal(await page.evaluate(() => crossOriginIsolated), false);
  // The page that loads it is loaded again.
  const again = page.waitForEvent('load');
  await page.addScriptTag({ url: '/coi-service-worker.js' });
  await again;
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  const { threads, variant } = await run(
    page,
    `const model = await Firecrest.load('/tiny.gguf', { threads: 2 }); const { info } = model; model.dispose(); return info;`,
  );
  const threaded = built.some((name) => name.endsWith('-threads'));
  assert.equal(threads, threaded ? 2 : 1, variant);
});

for (const storage of ['opfs', 'cache']) {
  test(`a model kept in ${storage} loads without the network`, async (t) => {
    const page = await open(t);
    const load = `const seen = []; const model = await Firecrest.load('/tiny.gguf', { storage: given.storage, onProgress: (p) => seen.push(p) });
       const text = await model.generate('ab', { maxTokens: 8, temperature: 0, raw: true }).text(); model.dispose();
       return { text, last: seen.at(-1) };`;
    const first = await run(page, load, { storage });
    assert.equal(first.last.stored, 0);
    const before = server.requests.filter(({ path }) => path === '/tiny.gguf').length;
    const second = await run(page, load, { storage });
    assert.equal(server.requests.filter(({ path }) => path === '/tiny.gguf').length, before);
    assert.equal(second.last.stored, second.last.total);
    assert.equal(second.text, first.text);
  });
}

test('models are listed and deleted', async (t) => {
  const page = await open(t);
  const [kept, left] = await run(
    page,
    `(await Firecrest.load('/tiny.gguf')).dispose(); const kept = await Firecrest.stored();
     await Firecrest.remove(kept[0].url); return [kept, await Firecrest.stored()];`,
  );
  assert.equal(kept.length, 1);
  assert.equal(kept[0].complete, true);
  assert.equal(left.length, 0);
});

test('two tabs download once', async (t) => {
  const page = await open(t);
  const other = await page.context().newPage();
  await other.goto(server.url);
  const before = server.requests.filter(({ path }) => path === '/tiny.gguf').length;
  const load = `const model = await Firecrest.load('/tiny.gguf'); model.dispose(); return true;`;
  await Promise.all([run(page, load), run(other, load)]);
  assert.equal(server.requests.filter(({ path }) => path === '/tiny.gguf').length, before + 1);
});

test('a download that was cut goes on', async (t) => {
  faults = { '/tiny.gguf': (_, range) => (range?.startsWith('bytes=0-') ? { cut: 20_000 } : undefined) };
  t.after(() => (faults = {}));
  const page = await open(t);
  await run(page, `(await Firecrest.load('/tiny.gguf')).dispose();`);
  assert.ok(server.requests.some(({ range }) => range?.startsWith('bytes=20000-')));
});

test('a download that failed goes on where it stopped', { skip: !smollm2, timeout: 120_000 }, async (t) => {
  const block = 4 << 20;
  const gone = 9 * block;
  faults = { '/smollm2.gguf': (_, range) => (range?.startsWith(`bytes=${gone}-`) ? { status: 404 } : undefined) };
  t.after(() => (faults = {}));
  const page = await open(t);
  const load = `try { (await Firecrest.load('/smollm2.gguf', { connections: 2, threads: 1 })).dispose(); return 'loaded'; } catch (e) { return e.code; }`;
  assert.equal(await run(page, load), 'network');
  const [kept] = await run(page, `return Firecrest.stored();`);
  assert.equal(kept.complete, false);
  faults = {};
  const before = server.requests.length;
  // Another page, as after a visit that ended there.
  await page.reload();
  assert.equal(await run(page, load), 'loaded');
  const asked = server.requests.slice(before).filter(({ path }) => path === '/smollm2.gguf');
  // The first block is always asked for: it says whether the file is still the same.
  const blocks = Math.ceil(statSync(smollm2).size / block);
  assert.ok(asked.length <= blocks - 7, `${asked.length} requests of ${blocks}`);
  assert.ok(asked.slice(1).every(({ range }) => Number(/=(\d+)/.exec(range)[1]) >= 8 * block), JSON.stringify(asked));
});

test('what cannot be is refused by kind', async (t) => {
  const page = await open(t);
  const kinds = await run(
    page,
    `const kinds = {}; const given_ = async (name, load) => { try { (await load()).dispose(); kinds[name] = 'loaded'; } catch (e) { kinds[name] = [e.code, e instanceof FirecrestError, e.details?.needed > e.details?.available]; } };
     await given_('absent', () => Firecrest.load('/dist/absent.gguf'));
     await given_('malformed', () => Firecrest.load('/dist/index.js'));
     await given_('blob', () => Firecrest.load(new Blob([new Uint8Array(5000)])));
     await given_('large', () => Firecrest.load('/tiny.gguf', { memoryLimit: 5000 }));
     await given_('huge', () => Firecrest.load('/huge.gguf', { storage: 'none' }));
     return kinds;`,
  );
  assert.deepEqual(kinds.absent.slice(0, 2), ['network', true]);
  assert.deepEqual(kinds.malformed.slice(0, 2), ['parse', true]);
  assert.deepEqual(kinds.blob.slice(0, 2), ['parse', true]);
  assert.deepEqual(kinds.large, ['memory', true, true]);
  assert.deepEqual(kinds.huge, ['memory', true, true]);
  assert.equal(server.requests.filter(({ path }) => path === '/huge.gguf').length, 1);
});

test('an answer is aborted, and the next one works', async (t) => {
  const page = await open(t);
  const result = await run(
    page,
    `const model = await Firecrest.load('/tiny.gguf'); const abort = new AbortController(); const pieces = []; let name;
     try { for await (const piece of model.generate('ab', { maxTokens: 100000, temperature: 0, raw: true, overflow: 'shift', signal: abort.signal })) { pieces.push(piece); if (pieces.length === 5) abort.abort(); } } catch (e) { name = e.name; }
     const text = await model.generate('ab', { maxTokens: 4, temperature: 0, raw: true }).text(); model.dispose();
     return { name, pieces: pieces.length, text };`,
  );
  assert.equal(result.name, 'AbortError');
  assert.equal(result.pieces, 5);
  assert.ok(result.text.length > 0);
});

/**
 * Bytes of memory that the pages' processes have to themselves, as Linux counts them: what browsers measure for pages
 * leaves out the memory of modules. The process of the browser's own controls is none of the pages', and grows while they
 * start.
 */
async function memoryOf(page) {
  await (await page.context().newCDPSession(page)).send('HeapProfiler.collectGarbage');
  const { processInfo } = await (await browser.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
  const read = ({ id }, name) => readFileSync(`/proc/${id}/${name}`, 'utf8');
  const own = (process) => Number(/^Private_Dirty: +(\d+)/m.exec(read(process, 'smaps_rollup'))[1]) * 1024;
  const ofPages = (process) => process.type === 'renderer' && !read(process, 'cmdline').includes('--top-chrome-webui');
  return processInfo.filter(ofPages).reduce((sum, process) => sum + own(process), 0);
}

/** `memoryOf`, when it is below `limit`, or else after a while: workers end in their own time. */
async function memoryBelow(page, limit) {
  for (let attempt = 0; ; attempt++) {
    const bytes = await memoryOf(page);
    if (bytes < limit || attempt === 20) return bytes;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

test('disposing gives memory back', { skip: !smollm2 || platform() !== 'linux', timeout: 120_000 }, async (t) => {
  const page = await open(t);
  await run(page, `(await Firecrest.load('/tiny.gguf', { storage: 'none' })).dispose();`);
  const before = await memoryOf(page);
  await run(page, `globalThis.model = await Firecrest.load('/smollm2.gguf', { storage: 'none', threads: 1 });`);
  const loaded = await memoryOf(page);
  await run(page, `globalThis.model.dispose(); delete globalThis.model;`);
  const after = await memoryBelow(page, before + 20e6);
  t.diagnostic(`${before} bytes before, ${loaded} with the model, ${after} after`);
  assert.ok(loaded - before > statSync(smollm2).size, `${loaded - before} bytes for the model`);
  assert.ok(after < before + 20e6, `${after - before} bytes stay`);
});

test('loading and disposing 200 times takes no memory', { skip: platform() !== 'linux', timeout: 300_000 }, async (t) => {
  const page = await open(t);
  const cycle = (times) =>
    run(
      page,
      `const blob = await (await fetch('/tiny.gguf')).blob();
       for (let i = 0; i < given.times; i++) { const model = await Firecrest.load(blob, { threads: 1 }); await model.generate('ab', { maxTokens: 1, raw: true }).text(); model.dispose(); }`,
      { times },
    );
  await cycle(10);
  const before = await memoryOf(page);
  await cycle(200);
  const after = await memoryBelow(page, before + 20e6);
  t.diagnostic(`${before} bytes before, ${after} after`);
  assert.ok(after < before + 20e6, `${before} bytes before, ${after} after`);
});

test('a worker can be shared, or done without', async (t) => {
  const page = await open(t);
  for (const worker of ['shared', 'none']) {
    const text = await run(
      page,
      `const model = await Firecrest.load('/tiny.gguf', { worker: given.worker, threads: 1 });
       const text = await model.generate('ab', { maxTokens: 4, temperature: 0, raw: true }).text(); model.dispose(); return text;`,
      { worker },
    );
    assert.ok(text.length > 0, worker);
  }
});

test('the demo page', { timeout: 240_000, skip: !smollm2 && 'no model with a chat template' }, async (t) => {
  mkdirSync(screenshots, { recursive: true });
  for (const [name, viewport, colorScheme] of [
    ['desktop-light', { width: 1200, height: 800 }, 'light'],
    ['phone-dark', { width: 390, height: 780 }, 'dark'],
  ]) {
    const page = await open(t, server.url, '/demo/index.html');
    await page.setViewportSize(viewport);
    await page.emulateMedia({ colorScheme });
    const shot = async (step) => writeFileSync(join(screenshots, `${name}-${step}.png`), await page.screenshot());
    await shot('start');
    await page.fill('#url', `${server.url}/smollm2.gguf`);
    await page.click('#load-form button[type=submit]');
    await page.waitForSelector('#prompt:not([disabled])', { timeout: 60_000 });
    await page.fill('#prompt', 'Why is the sky blue?');
    await page.press('#prompt', 'Enter');
    await page.waitForFunction(() => document.querySelector('.assistant')?.textContent.length > 20, null, { timeout: 60_000 });
    await page.click('#stop');
    await page.waitForSelector('#send:visible');
    await shot('chat');
    const speed = await page.textContent('#speed');
    assert.match(speed, /tokens\/s/);
    await page.click('#regenerate');
    await page.waitForFunction(() => document.querySelectorAll('.assistant').length === 1 && document.querySelector('.assistant').textContent.length > 5);
    await page.click('#stop').catch(() => undefined);
    // By keyboard alone to the other tab.
    await page.focus('#tab-chat');
    await page.keyboard.press('ArrowRight');
    assert.equal(await page.isVisible('#panel-search'), true);
    await shot('search');
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(wide, false, 'the page scrolls sideways');
  }
  t.diagnostic(`screenshots in ${screenshots}`);
});

test('the demo page works without a network after one visit', { timeout: 60_000 }, async (t) => {
  const routes = { '/firecrest/': dist, '/tiny.gguf': tiny, '/': join(here, '../../demo') };
  const own = await serve({ routes });
  t.after(() => own.close());
  const page = await open(t, own.url, '/');
  await page.fill('#url', `${own.url}/tiny.gguf`);
  await page.click('#load-form button[type=submit]');
  await page.waitForSelector('#prompt:not([disabled])');
  // The service worker fetches what the page had got before it.
  await page.waitForFunction(async () => await caches.match('style.css'));
  own.close();
  await page.reload();
  await page.click('#stored summary');
  await page.click('#stored-list button');
  await page.waitForSelector('#prompt:not([disabled])');
});
