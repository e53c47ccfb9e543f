import { isNode } from './platform.js';

/** A build of the module. */
export type Variant =
  | 'relaxed-simd-threads'
  | 'relaxed-simd'
  | 'simd128-threads'
  | 'simd128'
  | 'scalar-threads'
  | 'scalar';

/** What this page or process can run. */
export interface Features {
  simd: boolean;
  relaxedSimd: boolean;
  /** Shared memory and atomics, which browsers give to cross-origin isolated pages. */
  threads: boolean;
  /** Whether the page is cross-origin isolated; `undefined` outside browsers. */
  crossOriginIsolated: boolean | undefined;
}

// Smallest modules that validate only where a feature exists: one function with one instruction of it.
const module = (...body: number[]) =>
  new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, // magic, version
    1, 5, 1, 96, 0, 1, 123, // type: () -> v128
    3, 2, 1, 0, // one function
    10, body.length + 4, 1, body.length + 2, 0, ...body, 11,
  ]);
// i32.const 0, i8x16.splat
const SIMD = module(65, 0, 253, 15);
// i32.const 0, i8x16.splat, twice, then i8x16.relaxed_swizzle
const RELAXED = module(65, 0, 253, 15, 65, 0, 253, 15, 253, 128, 2);

/** Probes what there is. It takes microseconds. */
export function probe(): Features {
  const isolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
  return {
    simd: WebAssembly.validate(SIMD),
    relaxedSimd: WebAssembly.validate(RELAXED),
    threads: isolated !== false && sharedMemory(),
    crossOriginIsolated: isolated,
  };
}

function sharedMemory(): boolean {
  try {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    return typeof SharedArrayBuffer !== 'undefined' && memory.buffer instanceof SharedArrayBuffer;
  } catch {
    return false;
  }
}

/** The builds that the package was made with: those with threads take a nightly compiler. */
declare const BUILDS: Variant[];

/** The fastest build for these features and this number of threads. */
export function choose(features: Features, threads: number): Variant {
  const simd = [...(features.relaxedSimd ? ['relaxed-simd'] : []), ...(features.simd ? ['simd128'] : []), 'scalar'];
  const threaded = features.threads && threads > 1;
  const wanted = simd.flatMap((name) => [...(threaded ? [`${name}-threads`] : []), name]) as Variant[];
  return wanted.find((variant) => BUILDS.includes(variant)) ?? 'scalar';
}

/**
 * Threads that pay off: half of the logical processors, which are mostly two to a core, and at most 8. One in Node before
 * 22: two threads come to wait for each other for ever in what V8's first compiler makes of them there.
 */
export function defaultThreads(): number {
  if (isNode && Number.parseInt(process.versions.node) < 22) return 1;
  const processors = globalThis.navigator?.hardwareConcurrency ?? 2;
  return Math.max(1, Math.min(8, processors > 2 ? Math.floor(processors / 2) : processors));
}
