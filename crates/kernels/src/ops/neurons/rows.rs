//! Sums over some neurons of weights whose rows are neurons.

use core::marker::PhantomData;

use crate::format::{CHUNK, Codes, GROUPS, Quant, widen};
use crate::isa::{Isa, IsaKind, Op, unrolled};
use crate::ops::Weights;
use crate::with_quant;

/// Rows that are added together.
const ROWS: usize = 4;

/// `out += Σ weights[n] · h[n]` over the rows `active` of a matrix `[neurons, outputs]` of any format; `h` has one
/// activation for each of `active`.
///
/// Sums run in the order of `active`. Panics if the shapes do not agree, or if a row is not there.
pub fn add_neurons_f32(isa: IsaKind, weights: Weights<'_>, active: &[u32], h: &[f32], out: &mut [f32]) {
    assert_eq!(active.len(), h.len());
    assert_eq!(out.len(), weights.columns());
    let is_simple = with_quant!(weights.format(), Q => {
        if const { Q::COMMON && Q::FORMAT.block_len() == 32 } {
            isa.run(AddCodes::<Q> { weights, active, h, out: &mut *out, format: PhantomData });
            true
        } else {
            false
        }
    });
    if is_simple != Some(true) {
        isa.run(AddRows { weights, active, h, out });
    }
}

/// The rows `active[at ..]`, [`ROWS`] of them; the last stands for those that are not there.
#[inline(always)]
fn some_rows<'a>(weights: Weights<'a>, active: &[u32], at: usize) -> [&'a [u8]; ROWS] {
    let mut rows = [&[][..]; ROWS];
    for r in 0..ROWS {
        rows[r] = weights.row(active[(at + r).min(active.len() - 1)] as usize);
    }
    rows
}

/// Rows of quantized weights: codes go to floats one by one, a scale and an offset a group. It takes code for each format, so
/// that it is for the simple ones, and not on [compact](Isa::COMPACT) instruction sets: the others have [`AddRows`].
struct AddCodes<'a, Q> {
    weights: Weights<'a>,
    active: &'a [u32],
    h: &'a [f32],
    out: &'a mut [f32],
    format: PhantomData<Q>,
}

impl<Q: Quant> AddCodes<'_, Q> {
    const CHUNK_BYTES: usize = CHUNK / Q::FORMAT.block_len() * Q::FORMAT.block_bytes();

    /// Adds `rows`; `next` come after them.
    #[inline(always)]
    fn rows<I: Isa>(isa: I, [rows, next]: [[&[u8]; ROWS]; 2], h: &[f32; ROWS], out: &mut [f32]) {
        let zero = match Q::CODES {
            Codes::Unsigned { zero, .. } => -f32::from(zero),
            Codes::Signed => 0.0,
        };
        // Else the lane of an offset would not have what the zero adds.
        const { assert!(Q::GROUP == 16 || !Q::OFFSET || matches!(Q::CODES, Codes::Unsigned { zero: 0, .. })) };
        for (c, out) in out.chunks_mut(CHUNK).enumerate() {
            let start = c * Self::CHUNK_BYTES;
            let mut codes = [[0; CHUNK]; ROWS];
            // For each group: what multiplies the codes of each row, and what all rows add besides.
            let mut factors = [[0.0; GROUPS]; ROWS];
            let mut offsets = isa.splat(0.0);
            unrolled!(r in 0 1 2 3, {
                for line in (0..Self::CHUNK_BYTES).step_by(64) {
                    isa.prefetch(next[r], start + line);
                }
                let end = rows[r].len().min(start + Self::CHUNK_BYTES);
                let chunk = &rows[r][start..end];
                for (pair, codes) in
                    codes[r].as_chunks_mut::<64>().0[..out.len().div_ceil(64)].iter_mut().enumerate()
                {
                    isa.store(Q::unpack(isa, chunk, pair), codes);
                }
                let h = isa.splat(h[r]);
                let (scale, offset) = Q::scale_vectors(isa, chunk);
                let scale = isa.mul(scale, h);
                isa.store_f32(scale, &mut factors[r]);
                if Q::GROUP == 16 && Q::OFFSET {
                    offsets = isa.mul_add(offset, h, offsets);
                } else if Q::OFFSET {
                    // Offsets stand beside the scales.
                    offsets = isa.add(offsets, scale);
                }
                if zero != 0.0 {
                    offsets = isa.mul_add(scale, isa.splat(zero), offsets);
                }
            });
            let mut offset = [0.0; GROUPS];
            isa.store_f32(offsets, &mut offset);
            for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let (at, offset) = match (Q::GROUP, Q::OFFSET) {
                    (16, _) => (i, offset[i]),
                    (_, true) => (i / 2 * 2, offset[i / 2 * 2 + 1]),
                    (_, false) => (i / 2 * 2, offset[i / 2 * 2]),
                };
                let mut sum = isa.add(isa.load_f32(out), isa.splat(offset));
                unrolled!(r in 0 1 2 3, {
                    let codes = codes[r].as_chunks::<16>().0[i].map(|code: u8| code as i8);
                    sum = isa.mul_add(isa.load_i8(&codes), isa.splat(factors[r][at]), sum);
                });
                isa.store_f32(sum, out);
            }
        }
    }
}

impl<Q: Quant> Op for AddCodes<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, active, h, out, .. } = self;
        if I::COMPACT {
            return isa.call(AddRows { weights, active, h, out });
        }
        for (i, some) in h.chunks(ROWS).enumerate() {
            let rows = [i, i + 1].map(|i| some_rows(weights, active, i * ROWS));
            let mut h = [0.0; ROWS];
            h[..some.len()].copy_from_slice(some);
            Self::rows(isa, rows, &h, out);
        }
    }
}

struct AddRows<'a> {
    weights: Weights<'a>,
    active: &'a [u32],
    h: &'a [f32],
    out: &'a mut [f32],
}

impl Op for AddRows<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, active, h, out } = self;
        let format = weights.format();
        let mut lines = [[0.0; CHUNK]; ROWS];
        for (active, h) in active.chunks(ROWS).zip(h.chunks(ROWS)) {
            for (c, out) in out.chunks_mut(CHUNK).enumerate() {
                let start = format.row_bytes(c * CHUNK).unwrap_or(0);
                let len = format.row_bytes(out.len()).unwrap_or(0);
                for (line, &n) in lines.iter_mut().zip(active) {
                    widen(isa, format, &weights.row(n as usize)[start..][..len], &mut line[..out.len()]);
                }
                let whole = out.len() / 16 * 16;
                let (out_lines, out_rest) = out.as_chunks_mut::<16>();
                for (i, out) in out_lines.iter_mut().enumerate() {
                    let mut sum = isa.load_f32(out);
                    for (line, &h) in lines.iter().zip(h) {
                        sum = isa.mul_add(isa.load_f32(&line.as_chunks::<16>().0[i]), isa.splat(h), sum);
                    }
                    isa.store_f32(sum, out);
                }
                for (line, &h) in lines.iter().zip(h) {
                    for (out, w) in out_rest.iter_mut().zip(&line[whole..]) {
                        *out += w * h;
                    }
                }
            }
        }
    }
}
