//! Products with some rows of a matrix, bit for bit what the product with all of them gives.

use core::marker::PhantomData;

use super::{Weights, float, vector};
use crate::format::Quant;
use crate::isa::{Isa, IsaKind, Op};
use crate::ops::{MatrixMut, QuantizedChunk, chunks};
use crate::with_quant;

/// Bytes between two prefetches, and how far into a row they go: what follows, the processor fetches by itself.
const LINE: usize = 64;
const AHEAD: usize = 512;

/// `out[i] = weights[rows[i]] · x` for one token of 8-bit activations.
///
/// Panics if the shapes do not agree, if a row is not there, or if the format is not
/// [quantized](crate::format::Format::is_quantized).
pub fn matmul_rows(isa: IsaKind, weights: Weights<'_>, rows: &[u32], x: &[QuantizedChunk], out: &mut [f32]) {
    assert_eq!(x.len(), chunks(weights.columns));
    assert_eq!(out.len(), rows.len());
    let product =
        with_quant!(weights.format, Q => isa.run(Rows::<Q> { weights, rows, x, out, format: PhantomData }));
    assert!(product.is_some(), "{} is not quantized", weights.format);
}

/// As [`matmul_rows`] for exact activations, and for weights of any format.
///
/// Panics if the shapes do not agree, or if a row is not there.
pub fn matmul_rows_f32(isa: IsaKind, weights: Weights<'_>, rows: &[u32], x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), weights.columns);
    assert_eq!(out.len(), rows.len());
    isa.run(FloatRows { weights, rows, x, out });
}

struct Rows<'a, Q> {
    weights: Weights<'a>,
    rows: &'a [u32],
    x: &'a [QuantizedChunk],
    out: &'a mut [f32],
    format: PhantomData<Q>,
}

impl<Q: Quant> Rows<'_, Q> {
    #[inline(always)]
    fn groups<I: Isa, const R: usize>(self, isa: I) {
        let Self { weights, rows, x, out, .. } = self;
        for (group, out) in out.chunks_mut(R).enumerate() {
            let mut bytes = [&[][..]; R];
            for r in 0..R {
                // The last group may be short: it repeats the last row.
                bytes[r] = weights.rows_from(rows[(group * R + r).min(rows.len() - 1)] as usize);
                if let Some(&next) = rows.get((group + 1) * R + r) {
                    let next = weights.row(next as usize);
                    for at in (0..next.len().min(AHEAD)).step_by(LINE) {
                        isa.prefetch(next, at);
                    }
                }
            }
            let mut sums = [0.0; R];
            vector::MatVec::<Q>::rows(isa, bytes, weights.columns, AHEAD, x, &mut sums);
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

impl<Q: Quant> Op for Rows<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        match I::ROWS {
            1 => self.groups::<I, 1>(isa),
            2 => self.groups::<I, 2>(isa),
            4 => self.groups::<I, 4>(isa),
            _ => self.groups::<I, 8>(isa),
        }
    }
}

struct FloatRows<'a> {
    weights: Weights<'a>,
    rows: &'a [u32],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Op for FloatRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, rows, x, out } = self;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(1)) {
            let weights = weights.slice(row as usize..row as usize + 1);
            float::MatVec { weights, x, out: MatrixMut::new(out, 1) }.eval(isa);
        }
    }
}
