// Firecrest and its peers in one Chromium, turn by turn: bench.mjs MODEL… [--embed GGUF,ONNX]… [--threads 1,2]
// [--tokens 64] [--rounds 5] [--record], which writes the tables into benchmarks/records. Text is compared with wllama,
// embeddings with transformers.js, whose scripts are at `--peers` and the model's tokenizer at `--tokenizer`.
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { serve } from '../test/serve.mjs';
import { measure, module } from './loop.mjs';
import { peak } from './memory.mjs';

const { values, positionals: models } = parseArgs({
  allowPositionals: true,
  options: {
    embed: { type: 'string', multiple: true, default: [] },
    threads: { type: 'string', default: '1,2' },
    tokens: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '5' },
    record: { type: 'boolean', default: false },
    peers: { type: 'string', default: '' },
    tokenizer: { type: 'string', default: '' },
  },
});
const here = import.meta.dirname;
const threadCounts = values.threads.split(',').map(Number);
const rounds = Number(values.rounds);
const pairs = values.embed.map((pair) => pair.split(','));
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

const blank = join(here, '../test/browser/blank.html');
const routes = { '/ended': blank, '/dist/': join(here, '../dist'), '/wllama/': join(here, '../node_modules/@wllama/wllama'), '/bench/': here };
for (const [i, model] of models.entries()) routes[`/model${i}.gguf`] = model;
for (const [i, [gguf, onnx]] of pairs.entries()) {
  routes[`/encoder${i}.gguf`] = gguf;
  routes[`/encoder${i}/onnx/model.onnx`] = onnx;
  routes[`/encoder${i}/`] = values.tokenizer;
}
if (pairs.length > 0) {
  routes['/transformers/'] = join(values.peers, 'node_modules/@huggingface/transformers/dist');
  routes['/onnxruntime/'] = join(values.peers, 'node_modules/onnxruntime-web/dist');
}
const server = await serve({ routes: { ...routes, '/': blank } });
const executablePath = process.env.FIRECREST_CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });

/** A function of page.mjs in a page of its own, so that none runs in what another left. */
async function inPage(browser, name, ...given) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.on('pageerror', (error) => console.error(`${name}: ${error.message}`));
  await page.goto(server.url);
  const run = await page.evaluate(async ({ name, given }) => (await import('/bench/page.mjs'))[name](...given), { name, given });
  await context.close();
  return run;
}

/** The most memory that a function of page.mjs takes, in a browser of its own. */
async function peakOf(...call) {
  const ended = () => server.requests.filter(({ path }) => path === '/ended').length;
  const before = ended();
  const url = `${server.url}/bench/alone.html#${encodeURIComponent(JSON.stringify(call))}`;
  return peak(executablePath, url, () => ended() > before);
}

/** Rounds of some engines; which one begins changes. */
async function alternate(engines, once) {
  const runs = Object.fromEntries(engines.map((engine) => [engine, []]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < engines.length; i++) {
      const engine = engines[(i + round) % engines.length];
      runs[engine].push(await once(engine));
    }
  }
  return runs;
}

/** Weights of the plain loop. */
const LOOP = 100 << 20;
const loop = [...module(LOOP)];

const text = [];
const empty = models.length > 0 ? await peakOf('nothing') : 0;
for (const [i, model] of models.entries()) {
  const url = `${server.url}/model${i}.gguf`;
  const peaks = {};
  for (const engine of ['firecrest', 'wllama']) peaks[engine] = (await peakOf(engine, url, 1, 16)) - empty;
  for (const threads of threadCounts) {
    const kind = /Q8/.test(basename(model)) ? 'int8' : 'int4';
    const runs = await alternate(['loop', 'firecrest', 'wllama'], async (engine) => {
      if (engine === 'loop') {
        const page = await browser.newPage();
        await page.goto(server.url);
        const speed = await page.evaluate(`(${measure})([${loop}], ${LOOP}, '${kind}')`);
        await page.close();
        return speed;
      }
      const run = await inPage(browser, engine, url, threads, Number(values.tokens));
      console.error(basename(model), threads, engine, run.prompt, run.prefill.toFixed(1), run.decode.toFixed(1), `${run.first.toFixed(0)} ms`);
      return run;
    });
    const of = (engine, figure) => median(runs[engine].map((run) => run[figure]));
    const { variant, parameters } = runs.firecrest[0];
    const row = { model: basename(model), threads, variant, fileBytes: runs.firecrest[0].fileBytes, peaks, loop: median(runs.loop) };
    row.share = (of('firecrest', 'decode') * parameters) / (row.loop * 1e9 * threads);
    for (const figure of ['prefill', 'decode', 'first']) {
      row[figure] = { firecrest: of('firecrest', figure), wllama: of('wllama', figure) };
    }
    text.push(row);
  }
}

const embeddings = [];
for (const [i, files] of pairs.entries()) {
  for (const threads of threadCounts) {
    const runs = await alternate(['firecrest', 'transformers'], async (engine) => {
      const run =
        engine === 'firecrest'
          ? await inPage(browser, 'firecrestEmbed', `${server.url}/encoder${i}.gguf`, threads)
          : await inPage(browser, 'transformersEmbed', `encoder${i}`, threads);
      console.error(files.map((file) => basename(file)).join(' '), threads, engine, JSON.stringify(run));
      return run;
    });
    const of = (engine, figure) => median(runs[engine].map((run) => run[figure]));
    const row = { files: files.map((file) => basename(file)), threads };
    for (const figure of ['single', 'batch', 'first']) {
      row[figure] = { firecrest: of('firecrest', figure), transformers: of('transformers', figure) };
    }
    embeddings.push(row);
  }
}
const version = browser.version();
await browser.close();
server.close();

const pair = (a, b) => `${a.toFixed(1)} | ${b.toFixed(1)} | ${(a / b).toFixed(1)}×`;
const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
const packageOf = (path) => JSON.parse(readFileSync(path)).version;
const lines = [
  '# Firecrest in Chromium',
  '',
  `Chromium ${version}, ${cpus()[0].model}, ${cpus().length} processors, ${new Date().toISOString().slice(0, 10)}. ` +
    `\`cargo xtask bench-web\` with ${threadCounts.join(' and ')} threads, medians of ${rounds} rounds in which the engines take turns.`,
];
if (text.length > 0) {
  lines.push(
    '',
    `## Text: wllama ${packageOf(join(here, '../node_modules/@wllama/wllama/package.json'))}`,
    '',
    'Tokens a second; milliseconds from nothing to the first token.',
    '',
    '| model | threads | build | prefill: Firecrest | wllama | | decode: Firecrest | wllama | | first token: Firecrest | wllama | loop | decode of it |',
    '|---|---|---|---|---|---|---|---|---|---|---|---|---|',
    ...text.map(
      ({ model, threads, variant, prefill, decode, first, loop, share }) =>
        `| ${model} | ${threads} | ${variant} | ${pair(prefill.firecrest, prefill.wllama)} | ${pair(decode.firecrest, decode.wllama)} | ${first.firecrest.toFixed(0)} ms | ${first.wllama.toFixed(0)} ms | ${loop.toFixed(1)} | ${(100 * share).toFixed(0)} % |`,
    ),
    '',
    'The loop multiplies weights of as many bits by one vector with relaxed SIMD on one thread and does nothing else; thousands of millions a second. With two threads decoding is compared with two of them.',
    '',
    '| model | megabytes of the file | peak: Firecrest | wllama |',
    '|---|---|---|---|',
    ...text
      .filter(({ threads }) => threads === threadCounts[0])
      .map(({ model, fileBytes, peaks }) => `| ${model} | ${megabytes(fileBytes)} | ${megabytes(peaks.firecrest)} | ${megabytes(peaks.wllama)} |`),
    '',
    'Megabytes that all processes of the browser take beyond those with an empty page: loading, a prompt of about 120 tokens, 16 tokens; one thread.',
  );
}
if (embeddings.length > 0) {
  lines.push(
    '',
    `## Embeddings: transformers.js ${packageOf(join(values.peers, 'node_modules/@huggingface/transformers/package.json'))}, ONNX Runtime ${packageOf(join(values.peers, 'node_modules/onnxruntime-web/package.json'))}`,
    '',
    'Sentences of 16 tokens a second, one by one and 16 at a time.',
    '',
    '| Firecrest | transformers.js | threads | one by one: Firecrest | transformers.js | | 16 at a time: Firecrest | transformers.js | |',
    '|---|---|---|---|---|---|---|---|---|',
    ...embeddings.map(
      ({ files, threads, single, batch }) =>
        `| ${files.join(' | ')} | ${threads} | ${pair(single.firecrest, single.transformers)} | ${pair(batch.firecrest, batch.transformers)} |`,
    ),
  );
}
const table = `${lines.join('\n')}\n`;
console.log(table);
if (values.record) {
  const name = models.length > 0 ? 'web' : 'web-embed';
  const record = join(here, '../../../benchmarks/records', `${new Date().toISOString().slice(0, 10)}-${name}`);
  writeFileSync(`${record}.md`, table);
  writeFileSync(`${record}.json`, `${JSON.stringify({ chromium: version, cpu: cpus()[0].model, rounds, text, embeddings }, null, 1)}\n`);
}
