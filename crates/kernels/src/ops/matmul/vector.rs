//! Quantized matrix × vector: each row is read once, a few rows at a time.

use core::marker::PhantomData;

use super::{Weights, bias_and_zero, codes, dot, is_signed};
use crate::format::{CHUNK, Quant};
use crate::isa::{Isa, Op};
use crate::ops::{MatrixMut, QuantizedChunk, chunks};

/// The most bytes that a chunk of any format has.
const MAX_CHUNK_BYTES: usize = 292;

pub(super) struct MatVec<'a, Q> {
    weights: Weights<'a>,
    x: &'a [QuantizedChunk],
    out: MatrixMut<'a>,
    format: PhantomData<Q>,
}

impl<'a, Q: Quant> MatVec<'a, Q> {
    pub(super) fn new(weights: Weights<'a>, x: &'a [QuantizedChunk], out: MatrixMut<'a>) -> Self {
        Self { weights, x, out, format: PhantomData }
    }

    /// Rows `first .. first + R` times one token.
    #[inline(always)]
    fn rows<I: Isa, const R: usize>(
        isa: I,
        weights: Weights<'a>,
        first: usize,
        x: &[QuantizedChunk],
        out: &mut [f32; R],
    ) {
        let chunk_bytes = const { CHUNK / Q::FORMAT.block_len() * Q::FORMAT.block_bytes() };
        let mut rows = [&[][..]; R];
        for r in 0..R {
            // The last group may be short: it repeats the last row.
            rows[r] = weights.row((first + r).min(weights.rows - 1));
        }
        let full = weights.columns / CHUNK;
        let mut acc = [isa.splat(0.0); R];
        let mut offset_acc = [isa.splat(0.0); R];
        for (c, x) in x[..full].iter().enumerate() {
            let mut chunk = [&[][..]; R];
            for r in 0..R {
                chunk[r] = &rows[r][c * chunk_bytes..][..chunk_bytes];
                isa.prefetch(chunk[r], chunk_bytes + 512);
            }
            Self::chunk(isa, chunk, 4, x, &mut acc, &mut offset_acc);
        }
        let rest = weights.columns % CHUNK;
        if rest > 0 {
            // Zero bytes are zero scales in every format, so a short chunk is a whole one.
            let mut padded = [[0; MAX_CHUNK_BYTES]; R];
            let mut chunk = [&[][..]; R];
            for (r, padded) in padded.iter_mut().enumerate() {
                let tail = &rows[r][full * chunk_bytes..];
                padded[..tail.len()].copy_from_slice(tail);
                chunk[r] = &padded[..chunk_bytes];
            }
            Self::chunk(isa, chunk, rest.div_ceil(64), &x[full], &mut acc, &mut offset_acc);
        }
        for r in 0..R {
            out[r] = isa.sum(if Q::OFFSET { isa.add(acc[r], offset_acc[r]) } else { acc[r] });
        }
    }

    #[inline(always)]
    fn chunk<I: Isa, const R: usize>(
        isa: I,
        chunk: [&[u8]; R],
        pairs: usize,
        x: &QuantizedChunk,
        acc: &mut [I::F32; R],
        offset_acc: &mut [I::F32; R],
    ) {
        let (x_scale, x_sum) = x.scales(Q::GROUP);
        let x_scale = isa.load_f32(x_scale);
        let mut scale = [[0.0; 16]; R];
        for r in 0..R {
            let (s, o) = Q::scale_vectors(isa, chunk[r]);
            isa.store_f32(isa.mul(s, x_scale), &mut scale[r]);
            if Q::OFFSET {
                offset_acc[r] = isa.mul_add(o, isa.load_f32(x_sum), offset_acc[r]);
            }
        }
        let (_, zero) = bias_and_zero::<I, Q>();
        for pair in 0..pairs {
            let x = isa.load(&x.codes[pair]);
            // What the zero code adds to every row is the same: it is taken off once, where the sums start.
            let none = isa.splat_i32(0);
            let start = if zero > 0 {
                isa.sub_i32(none, isa.dot_unsigned(none, isa.splat_byte(zero), x))
            } else {
                none
            };
            for r in 0..R {
                let codes = codes::<I, Q>(isa, chunk[r], pair);
                let products = if is_signed::<Q>() {
                    dot::<I, true>(isa, start, codes, x)
                } else {
                    dot::<I, false>(isa, start, codes, x)
                };
                let scale =
                    if Q::GROUP == 16 { isa.spread4(&scale[r], pair) } else { isa.spread2(&scale[r], pair) };
                acc[r] = isa.mul_add(isa.to_f32(products), scale, acc[r]);
            }
        }
    }

    #[inline(always)]
    fn token<I: Isa, const R: usize>(isa: I, weights: Weights<'a>, x: &[QuantizedChunk], out: &mut [f32]) {
        for (group, out) in out.chunks_mut(R).enumerate() {
            let mut sums = [0.0; R];
            Self::rows(isa, weights, group * R, x, &mut sums);
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

impl<Q: Quant> Op for MatVec<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, mut out, .. } = self;
        for (t, x) in x.chunks_exact(chunks(weights.columns)).enumerate() {
            let out = out.row_mut(t);
            match I::ROWS {
                1 => Self::token::<I, 1>(isa, weights, x, out),
                2 => Self::token::<I, 2>(isa, weights, x, out),
                4 => Self::token::<I, 4>(isa, weights, x, out),
                _ => Self::token::<I, 8>(isa, weights, x, out),
            }
        }
    }
}
