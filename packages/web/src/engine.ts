import * as single from 'firecrest-glue';
import * as threaded from 'firecrest-glue-threads';

import { FirecrestError } from './errors.js';
import { choose, probe } from './features.js';
import type { Variant } from './features.js';
import { compile, startWorker } from './platform.js';
import type { Port } from './protocol.js';

/** An instance of the module. There is one in a worker: the generated code holds it. */
export interface Engine {
  glue: typeof single;
  memory: WebAssembly.Memory;
  variant: Variant;
  /** Threads that compute, this one among them. */
  threads: number;
}

// Written out so that bundlers find the files.
const URLS: Record<Variant, () => URL> = {
  'relaxed-simd-threads': () => new URL('./firecrest-relaxed-simd-threads.wasm', import.meta.url),
  'relaxed-simd': () => new URL('./firecrest-relaxed-simd.wasm', import.meta.url),
  'simd128-threads': () => new URL('./firecrest-simd128-threads.wasm', import.meta.url),
  simd128: () => new URL('./firecrest-simd128.wasm', import.meta.url),
  'scalar-threads': () => new URL('./firecrest-scalar-threads.wasm', import.meta.url),
  scalar: () => new URL('./firecrest-scalar.wasm', import.meta.url),
};

let engine: Promise<Engine> | undefined;

/** The instance, made at the first call; later calls get the same, whatever they ask for. */
export function getEngine(variant: Variant | undefined, threads: number, wasmUrl: string | undefined): Promise<Engine> {
  engine ??= start(variant, threads, wasmUrl).catch((error: unknown) => {
    engine = undefined;
    throw error;
  });
  return engine;
}

async function start(asked: Variant | undefined, wanted: number, wasmUrl: string | undefined): Promise<Engine> {
  const features = probe();
  let variant = asked ?? choose(features, wanted);
  // A page's own thread must not wait for others, and not every worker may start some.
  const mayWait = isNodeProcess() || (typeof Worker !== 'undefined' && !('document' in globalThis));
  if (variant.endsWith('-threads') && !(features.threads && mayWait)) {
    if (asked) throw new FirecrestError('unsupported', `${variant} needs a cross-origin isolated page, and a worker`);
    variant = choose({ ...features, threads: false }, wanted);
  }
  const url = wasmUrl ? new URL(`firecrest-${variant}.wasm`, wasmUrl) : URLS[variant]();
  const module = await compile(url).catch((error: unknown) => {
    throw new FirecrestError('network', `the module ${url} could not be loaded: ${String(error)}`, {}, error);
  });
  if (!variant.endsWith('-threads')) {
    const { memory } = single.initSync({ module });
    return { glue: single, memory, variant, threads: 1 };
  }
  const { memory } = threaded.initSync({ module });
  const helpers = await Promise.all(
    Array.from({ length: wanted - 1 }, async (_, i): Promise<Port> => {
      const port = await startWorker(new URL('./thread.js', import.meta.url), `firecrest-${i + 1}`);
      await new Promise<void>((resolve, reject) => {
        port.onMessage(() => resolve());
        port.onError(reject);
        port.postMessage({ module, memory });
      });
      return port;
    }),
  );
  return { glue: threaded, memory, variant, threads: helpers.length + 1 };
}

const isNodeProcess = () => typeof process !== 'undefined' && process.versions?.node !== undefined;
