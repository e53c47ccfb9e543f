// The plain loop that decoding is compared with: products of weights with one vector, and nothing else.
import binaryen from 'binaryen';

/** Weights in a row, and activations. */
const ROW = 1024;

const INT8 = (i) => `(local.set $s${i} (i32x4.relaxed_dot_i8x16_i7x16_add_s
    (v128.load offset=${16 * i} (local.get $w)) (v128.load offset=${16 * i} (local.get $x)) (local.get $s${i})))`;

// 16 bytes hold 32 weights, 16 in their low halves and 16 in their high halves.
const INT4 = (i) => `(local.set $v (v128.load offset=${16 * i} (local.get $w)))
  (local.set $s${2 * i} (i32x4.relaxed_dot_i8x16_i7x16_add_s (v128.load offset=${32 * i} (local.get $x))
    (v128.and (local.get $v) (v128.const i8x16 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15)) (local.get $s${2 * i})))
  (local.set $s${2 * i + 1} (i32x4.relaxed_dot_i8x16_i7x16_add_s (v128.load offset=${32 * i + 16} (local.get $x))
    (v128.and (i16x8.shr_u (local.get $v) (i32.const 4)) (v128.const i8x16 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15 15))
    (local.get $s${2 * i + 1})))`;

/** A pass over rows of weights from $w to $end; each turn of the loop takes $bytes of weights and 64 activations. */
const pass = (name, bytes, body) => `
  (func (export "${name}") (param $w i32) (param $end i32) (result i32)
    (local $x i32) (local $v v128) (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128)
    (loop $rows
      (local.set $x (i32.const 0))
      (loop $row
        ${body}
        (local.set $w (i32.add (local.get $w) (i32.const ${bytes})))
        (br_if $row (i32.lt_u (local.tee $x (i32.add (local.get $x) (i32.const 64))) (i32.const ${ROW}))))
      (br_if $rows (i32.lt_u (local.get $w) (local.get $end))))
    (i32x4.extract_lane 0 (i32x4.add (i32x4.add (local.get $s0) (local.get $s1)) (i32x4.add (local.get $s2) (local.get $s3)))))`;

/** The module, compiled: exports of `int8` and `int4`, and a memory of so many weights after the activations. */
export function module(weights) {
  const pages = Math.ceil((ROW + weights) / 65536);
  const text = `(module (memory (export "memory") ${pages})
    ${pass('int8', 64, [0, 1, 2, 3].map(INT8).join('\n'))}
    ${pass('int4', 32, [0, 1].map(INT4).join('\n'))})`;
  const module = binaryen.parseText(text);
  module.setFeatures(binaryen.Features.All);
  const bytes = module.emitBinary();
  module.dispose();
  return bytes;
}

/** Runs in the page: weights a second, the best of some passes, in thousands of millions. */
export async function measure(bytes, weights, kind) {
  const { instance } = await WebAssembly.instantiate(new Uint8Array(bytes));
  const memory = new Uint8Array(instance.exports.memory.buffer);
  for (let i = 0; i < memory.length; i++) memory[i] = (i * 37) & 127;
  const end = 1024 + weights * (kind === 'int8' ? 1 : 0.5);
  let best = 0;
  for (let round = 0; round < 12; round++) {
    const started = performance.now();
    instance.exports[kind](1024, end);
    best = Math.max(best, weights / (performance.now() - started) / 1e6);
  }
  return best;
}
