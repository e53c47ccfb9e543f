// Bundles the package from `src` and from the modules in `wasm`, which `cargo xtask wasm` makes; into `dist`.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';

process.chdir(import.meta.dirname);
const VARIANTS = readdirSync('wasm');
// Without comments: they number functions, which the builds do not have equally many of.
const glue = (variant) => readFileSync(`wasm/${variant}/firecrest_wasm.js`, 'utf8').replace(/^\s*\/\/.*/gm, '');

// The builds differ in their code, not in their exports, so one piece of glue serves all: of the single-threaded ones,
// and of those with threads.
const single = VARIANTS.filter((variant) => !variant.endsWith('-threads'));
const threaded = VARIANTS.filter((variant) => variant.endsWith('-threads'));
for (const group of [single, threaded]) {
  const other = group.find((variant) => glue(variant) !== glue(group[0]));
  if (other) throw new Error(`the glue of ${other} is not that of ${group[0]}`);
}

rmSync('dist', { recursive: true, force: true });
mkdirSync('dist');
await build({
  entryPoints: ['src/index.ts', 'src/worker.ts', 'src/thread.ts'],
  outdir: 'dist',
  bundle: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  platform: 'neutral',
  chunkNames: 'shared-[hash]',
  define: { BUILDS: JSON.stringify(VARIANTS) },
  alias: {
    'firecrest-glue': `./wasm/${single[0]}/firecrest_wasm.js`,
    'firecrest-glue-threads': `./wasm/${threaded[0] ?? single[0]}/firecrest_wasm.js`,
  },
  logOverride: { 'import-is-undefined': 'silent', 'empty-import-meta': 'silent' },
});
for (const variant of VARIANTS) {
  copyFileSync(`wasm/${variant}/firecrest_wasm_bg.wasm`, `dist/firecrest-${variant}.wasm`);
}
copyFileSync('src/coi-service-worker.js', 'dist/coi-service-worker.js');
execFileSync('node', ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' });
