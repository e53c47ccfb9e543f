// Firecrest and wllama in one Chromium, turn by turn: bench.mjs MODEL… [--threads 1,2] [--tokens 64]
// [--rounds 3] [--record], which writes the table into benchmarks/records.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { serve } from '../test/serve.mjs';
import { measure, module } from './loop.mjs';

const { values, positionals: models } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '1,2' },
    tokens: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '3' },
    record: { type: 'boolean', default: false },
  },
});
const here = import.meta.dirname;
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
const engines = ['firecrest', 'wllama'];
const routes = { '/dist/': join(here, '../dist'), '/wllama/': join(here, '../node_modules/@wllama/wllama'), '/bench/': here };
for (const [i, model] of models.entries()) routes[`/model${i}.gguf`] = model;
const server = await serve({ routes: { ...routes, '/': join(here, '../test/browser/blank.html') } });
const browser = await chromium.launch({
  executablePath: process.env.FIRECREST_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});

/** Weights of the plain loop. */
const LOOP = 100 << 20;
const loop = [...module(LOOP)];

const results = [];
for (const [i, model] of models.entries()) {
  for (const threads of values.threads.split(',').map(Number)) {
    const runs = { firecrest: [], wllama: [] };
    const loops = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      const kind = /Q8/.test(basename(model)) ? 'int8' : 'int4';
      const page = await browser.newPage();
      await page.goto(server.url);
      loops.push(await page.evaluate(`(${measure})([${loop}], ${LOOP}, '${kind}')`));
      await page.close();
      for (const engine of engines) {
        // A page of its own, so that neither runs in what the other left.
        const context = await browser.newContext();
        const page = await context.newPage();
        page.on('pageerror', (error) => console.error(`${engine}: ${error.message}`));
        await page.goto(server.url);
        const given = { engine, url: `${server.url}/model${i}.gguf`, threads, tokens: Number(values.tokens) };
        const run = await page.evaluate(async ({ engine, url, threads, tokens }) => {
          const bench = await import('/bench/page.mjs');
          return bench[engine](url, threads, tokens);
        }, given);
        runs[engine].push(run);
        console.error(basename(model), threads, engine, run.prompt, run.prefill.toFixed(1), run.decode.toFixed(1), `${run.first.toFixed(0)} ms`);
        await context.close();
      }
    }
    const of = (engine, figure) => median(runs[engine].map((run) => run[figure]));
    const { variant, memory, parameters } = runs.firecrest[0];
    const row = { model: basename(model), threads, variant, memory, loop: median(loops) };
    row.share = (of('firecrest', 'decode') * parameters) / (row.loop * 1e9 * threads);
    for (const figure of ['prefill', 'decode', 'first']) {
      row[figure] = { firecrest: of('firecrest', figure), wllama: of('wllama', figure) };
    }
    results.push(row);
  }
}
const version = browser.version();
await browser.close();
server.close();

const lines = [
  '| model | threads | build | prefill: Firecrest | wllama | | decode: Firecrest | wllama | | load to first token: Firecrest | wllama | loop | decode of it |',
  '|---|---|---|---|---|---|---|---|---|---|---|---|---|',
  ...results.map(({ model, threads, variant, prefill, decode, first, loop, share }) => {
    const pair = ({ firecrest, wllama }) => `${firecrest.toFixed(1)} | ${wllama.toFixed(1)} | ${(firecrest / wllama).toFixed(1)}×`;
    return `| ${model} | ${threads} | ${variant} | ${pair(prefill)} | ${pair(decode)} | ${first.firecrest.toFixed(0)} ms | ${first.wllama.toFixed(0)} ms | ${loop.toFixed(1)} | ${(100 * share).toFixed(0)} % |`;
  }),
];
const about = `Chromium ${version}, ${cpus()[0].model}, ${cpus().length} processors, ${new Date().toISOString().slice(0, 10)}; ` +
  `\`cargo xtask bench-web --threads ${values.threads} --tokens ${values.tokens} --rounds ${values.rounds}\`, medians, tokens per second. ` +
  'The loop multiplies weights of as many bits by one vector with relaxed SIMD on one thread and does nothing else; thousands of millions a second.';
const table = `# Firecrest and wllama in Chromium\n\n${about}\n\n${lines.join('\n')}\n`;
console.log(table);
if (values.record) {
  const records = join(here, '../../../benchmarks/records');
  mkdirSync(records, { recursive: true });
  writeFileSync(join(records, `web-${new Date().toISOString().slice(0, 10)}.md`), table);
}
