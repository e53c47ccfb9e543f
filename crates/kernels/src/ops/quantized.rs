//! Activations as 8-bit integers, the other side of every product with quantized weights.

use crate::format::CHUNK;
use crate::isa::{Isa, IsaKind, ONES, Op};

/// [`CHUNK`] activations of one token: integers from -127 to 127 with a scale for each 32.
///
/// A sum is the scale times the sum of the group's codes; it multiplies the offsets of the weights. The sums of codes alone
/// take off what stands for zero in codes that have no sign.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct QuantizedChunk {
    pub(crate) codes: [[u8; 64]; CHUNK / 64],
    /// For each group of 32.
    pub(crate) scale: [f32; CHUNK / 32],
    /// For each group of 32.
    pub(crate) sum: [f32; CHUNK / 32],
    /// For each group of 16.
    pub(crate) code_sum: [i32; CHUNK / 16],
}

impl QuantizedChunk {
    /// All zero.
    pub const ZERO: Self = Self {
        codes: [[0; 64]; CHUNK / 64],
        scale: [0.0; CHUNK / 32],
        sum: [0.0; CHUNK / 32],
        code_sum: [0; CHUNK / 16],
    };

    /// For each group of 16 the sum of its codes times the scale.
    #[inline(always)]
    pub(crate) fn half_sums<I: Isa>(&self, isa: I) -> I::F32 {
        isa.mul(isa.load_f32(&self.code_sum.map(|sum| sum as f32)), isa.load_doubled(&self.scale))
    }

    /// For each group of 16 a multiple of the sum of its codes.
    #[inline(always)]
    pub(crate) fn code_sums_times(&self, factor: i32) -> [i32; CHUNK / 16] {
        let mut out = [0; CHUNK / 16];
        for (out, sum) in out.iter_mut().zip(&self.code_sum) {
            *out = factor * sum;
        }
        out
    }

    /// Codes `128 * half .. 128 * half + 128`, in quarters of vectors.
    #[inline(always)]
    pub(crate) fn half(&self, half: usize) -> &[[u8; 16]; 8] {
        match self.codes.as_flattened().as_chunks::<16>().0[8 * half..].first_chunk() {
            Some(quarters) => quarters,
            None => unreachable!(),
        }
    }
}

/// Chunks that hold `len` activations.
pub const fn chunks(len: usize) -> usize {
    len.div_ceil(CHUNK)
}

/// Quantizes the activations of one token. The last chunk is filled up with zeros.
///
/// Panics unless `out` has [`chunks`]`(x.len())` entries.
pub fn quantize(isa: IsaKind, x: &[f32], out: &mut [QuantizedChunk]) {
    assert_eq!(out.len(), chunks(x.len()));
    isa.run(Quantize { x, out });
}

/// What [`quantize`] has kept of the activations. Panics unless `x` has [`chunks`]`(out.len())` entries.
pub fn dequantize(x: &[QuantizedChunk], out: &mut [f32]) {
    assert_eq!(x.len(), chunks(out.len()));
    for (x, out) in x.iter().zip(out.chunks_mut(CHUNK)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = f32::from(x.codes[i / 64][i % 64] as i8) * x.scale[i / 32];
        }
    }
}

struct Quantize<'a> {
    x: &'a [f32],
    out: &'a mut [QuantizedChunk],
}

impl Op for Quantize<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (lines, rest) = self.x.as_chunks::<16>();
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        for (c, out) in self.out.iter_mut().enumerate() {
            quantize_chunk(isa, lines.get(CHUNK / 16 * c..).unwrap_or_default(), &last, out);
        }
    }
}

/// Four runs of 32 at a time, whose largest values and sums are found together. After `lines` comes the `last`, and zeros.
#[inline(always)]
fn quantize_chunk<I: Isa>(isa: I, lines: &[[f32; 16]], last: &[f32; 16], out: &mut QuantizedChunk) {
    let zero = isa.splat(0.0);
    let line = |i: usize| match lines.get(i) {
        Some(line) => line,
        None if i == lines.len() => last,
        None => &[0.0; 16],
    };
    for four in 0..CHUNK / 128 {
        let lines = match lines.get(8 * four..).unwrap_or_default().first_chunk() {
            Some(lines) => lines.each_ref(),
            None => core::array::from_fn::<_, 8, _>(|i| line(8 * four + i)),
        };
        let (mut a, mut b, mut sizes) = ([zero; 4], [zero; 4], [zero; 4]);
        for r in 0..4 {
            (a[r], b[r]) = (isa.load_f32(lines[2 * r]), isa.load_f32(lines[2 * r + 1]));
            sizes[r] = isa.max(isa.abs(a[r]), isa.abs(b[r]));
        }
        let largest = isa.max_lane4(sizes);
        // The reciprocal of a subnormal is infinite; such activations are as good as zero.
        let scale = largest.map(|largest| if largest > 1e-30 { largest / 127.0 } else { 0.0 });
        let inverse = largest.map(|largest| if largest > 1e-30 { 127.0 / largest } else { 0.0 });
        let runs = out.codes.as_flattened_mut().as_chunks_mut::<32>().0;
        for r in 0..4 {
            let inverse = isa.splat(inverse[r]);
            (a[r], b[r]) = (isa.round(isa.mul(a[r], inverse)), isa.round(isa.mul(b[r], inverse)));
            let mut codes = [[0; 16]; 2];
            isa.store_i8(a[r], &mut codes[0]);
            isa.store_i8(b[r], &mut codes[1]);
            let halves = runs[4 * four + r].as_chunks_mut::<16>().0;
            halves[0] = codes[0].map(|c| c as u8);
            halves[1] = codes[1].map(|c| c as u8);
        }
        let (sums_a, sums_b) = (isa.sum4(a), isa.sum4(b));
        let (code_sums_a, code_sums_b) = (sums_a.map(to_integer), sums_b.map(to_integer));
        for r in 0..4 {
            let run = 4 * four + r;
            out.scale[run] = scale[r];
            out.sum[run] = scale[r] * (sums_a[r] + sums_b[r]);
            out.code_sum[2 * run] = code_sums_a[r];
            out.code_sum[2 * run + 1] = code_sums_b[r];
        }
    }
}

/// A whole number within ±2^22; without the checks of `as`, which vectors have no steps for.
#[inline(always)]
fn to_integer(x: f32) -> i32 {
    (x + ONES).to_bits() as i32 - ONES.to_bits() as i32
}
