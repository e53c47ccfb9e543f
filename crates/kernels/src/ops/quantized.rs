//! Activations as 8-bit integers, the other side of every product with quantized weights.

use crate::format::CHUNK;
use crate::isa::{Isa, IsaKind, Op};

/// [`CHUNK`] activations of one token: integers from -127 to 127 with a scale for each 32.
///
/// Scales and sums stand in vectors of 16 as weights want them: by groups of 32 (8 used) and by groups of 16. A sum is
/// the scale times the sum of the group's codes; it multiplies the offsets of the weights.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct QuantizedChunk {
    pub(crate) codes: [[u8; 64]; CHUNK / 64],
    pub(crate) scale32: [f32; 16],
    pub(crate) sum32: [f32; 16],
    pub(crate) scale16: [f32; 16],
    pub(crate) sum16: [f32; 16],
}

impl QuantizedChunk {
    /// All zero.
    pub const ZERO: Self = Self {
        codes: [[0; 64]; CHUNK / 64],
        scale32: [0.0; 16],
        sum32: [0.0; 16],
        scale16: [0.0; 16],
        sum16: [0.0; 16],
    };

    /// Scales and sums for weights whose groups are of `group` (16 or 32).
    #[inline(always)]
    pub(crate) fn scales(&self, group: usize) -> (&[f32; 16], &[f32; 16]) {
        if group == 16 { (&self.scale16, &self.sum16) } else { (&self.scale32, &self.sum32) }
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

struct Quantize<'a> {
    x: &'a [f32],
    out: &'a mut [QuantizedChunk],
}

impl Op for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (full, rest) = self.x.as_chunks::<CHUNK>();
        let (out_full, out_rest) = self.out.split_at_mut(full.len());
        for (x, out) in full.iter().zip(out_full) {
            quantize_chunk(isa, x, out);
        }
        if let Some(out) = out_rest.first_mut() {
            let mut padded = [0.0; CHUNK];
            padded[..rest.len()].copy_from_slice(rest);
            quantize_chunk(isa, &padded, out);
        }
    }
}

#[inline(always)]
fn quantize_chunk<I: Isa>(isa: I, x: &[f32; CHUNK], out: &mut QuantizedChunk) {
    for run in 0..CHUNK / 32 {
        let halves = x.as_chunks::<16>().0;
        let (a, b) = (isa.load_f32(&halves[2 * run]), isa.load_f32(&halves[2 * run + 1]));
        let largest = isa.max_lane(isa.max(isa.abs(a), isa.abs(b)));
        // The reciprocal of a subnormal is infinite; such activations are as good as zero.
        let scale = if largest > 1e-30 { largest / 127.0 } else { 0.0 };
        let inverse = isa.splat(if largest > 1e-30 { 127.0 / largest } else { 0.0 });
        let (a, b) = (isa.round(isa.mul(a, inverse)), isa.round(isa.mul(b, inverse)));

        let mut codes = [[0; 16]; 2];
        isa.store_i8(a, &mut codes[0]);
        isa.store_i8(b, &mut codes[1]);
        let bytes = out.codes[run / 2].as_chunks_mut::<16>().0;
        bytes[run % 2 * 2] = codes[0].map(|c| c as u8);
        bytes[run % 2 * 2 + 1] = codes[1].map(|c| c as u8);

        let (sum_a, sum_b) = (scale * isa.sum(a), scale * isa.sum(b));
        out.scale32[run] = scale;
        out.sum32[run] = sum_a + sum_b;
        out.scale16[2 * run] = scale;
        out.scale16[2 * run + 1] = scale;
        out.sum16[2 * run] = sum_a;
        out.sum16[2 * run + 1] = sum_b;
    }
}
