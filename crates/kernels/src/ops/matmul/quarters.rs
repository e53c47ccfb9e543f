//! Quantized matrix × vector where a vector is four registers, of which there are few: each takes another row. So a row
//! has one register of sums, and what rows share, activations and masks, need not make room for it.

use super::vector::{Factors, MatVec, PAIR, PairFactors, pieces};
use super::{bias_and_zero, biased, range};
use crate::format::{CHUNK, Quant};
use crate::isa::{Isa, unrolled};
use crate::ops::QuantizedChunk;

impl<Q: Quant> MatVec<'_, Q> {
    /// Four rows, of `columns` weights each, times one token.
    #[inline(always)]
    pub(super) fn four_rows<I: Isa>(
        isa: I,
        rows: [&[u8]; 4],
        columns: usize,
        x: &[QuantizedChunk],
    ) -> [f32; 4] {
        // In each quarter those of one row.
        let mut sums = isa.splat(0.0);
        let mut offsets = [0.0; 4];
        for (c, x) in x.iter().enumerate() {
            let mut padded = None;
            let chunk = pieces(rows, c * Self::CHUNK_BYTES, Self::CHUNK_BYTES, &mut padded);
            let pairs = (columns - c * CHUNK).div_ceil(PAIR);
            if const { Q::FORMAT.block_len() == 32 } {
                unrolled!(pair in 0 1 2 3, {
                    if pair < pairs {
                        sums = Self::blocks(isa, &chunk, pair, x, sums);
                    }
                });
            } else {
                let mut scales = [[0.0; 16]; 4];
                let sums_of_offsets = Self::scales(isa, chunk, x, &mut scales);
                for r in 0..4 {
                    offsets[r] += sums_of_offsets[r];
                }
                unrolled!(pair in 0 1 2 3, {
                    if pair < pairs {
                        sums = Self::groups(isa, &chunk, pair, x, &scales, sums);
                    }
                });
            }
        }
        let mut out = isa.sum_quarters(sums);
        for r in 0..4 {
            out[r] += offsets[r];
        }
        out
    }

    /// Adds the products of a [`PAIR`] of weights that is two blocks.
    #[inline(always)]
    fn blocks<I: Isa>(
        isa: I,
        chunk: &[&[u8]; 4],
        pair: usize,
        x: &QuantizedChunk,
        mut sums: I::F32,
    ) -> I::F32 {
        let (_, zero) = bias_and_zero::<I, Q>();
        let bytes = const { Self::CHUNK_BYTES / (CHUNK / PAIR) };
        let factors = PairFactors::new(isa, x, pair, zero);
        let heads = Q::pair_scales(isa, chunk.map(|chunk| &chunk[pair * bytes..][..bytes]));
        if Q::OFFSET || zero > 0 {
            sums = isa.mul_add(heads, factors.offset, sums);
        }
        let scales = isa.mul(heads, factors.scale);
        let [first, second] = Self::products(isa, chunk, pair, x);
        sums = isa.mul_add(first, isa.splat_in_quarters::<0>(scales), sums);
        isa.mul_add(second, isa.splat_in_quarters::<2>(scales), sums)
    }

    /// Scales of a chunk of each row, for [`Self::groups`]; returns what offsets add.
    #[inline(always)]
    fn scales<I: Isa>(
        isa: I,
        chunk: [&[u8]; 4],
        x: &QuantizedChunk,
        scales: &mut [[f32; 16]; 4],
    ) -> [f32; 4] {
        let factors = Factors::new::<Q>(isa, x);
        let mut offsets = [isa.splat(0.0); 4];
        for (r, (scale, offset)) in Q::scale_vectors4(isa, chunk).into_iter().enumerate() {
            isa.store_f32(isa.mul(scale, factors.scale), &mut scales[r]);
            if Q::OFFSET {
                offsets[r] = isa.mul(if Q::GROUP == 16 { offset } else { scale }, factors.offset);
            }
            if const { bias_and_zero::<I, Q>().1 > 0 } {
                offsets[r] = isa.mul_add(scale, factors.zero, offsets[r]);
            }
        }
        isa.sum4(offsets)
    }

    /// Adds the products of a [`PAIR`] of weights that is part of a block.
    #[inline(always)]
    fn groups<I: Isa>(
        isa: I,
        chunk: &[&[u8]; 4],
        pair: usize,
        x: &QuantizedChunk,
        scales: &[[f32; 16]; 4],
        mut sums: I::F32,
    ) -> I::F32 {
        let of_rows = |lane: usize| {
            let mut lanes = [0.0; 16];
            for r in 0..4 {
                lanes[r] = scales[r][lane];
            }
            isa.spread(&lanes, [0, 1, 2, 3])
        };
        if Q::GROUP == 16 {
            let products: [_; 4] = Self::products(isa, chunk, pair, x);
            unrolled!(g in 0 1 2 3, {
                sums = isa.mul_add(products[g], of_rows(4 * pair + g), sums);
            });
        } else {
            let products: [_; 2] = Self::products(isa, chunk, pair, x);
            unrolled!(g in 0 1, {
                sums = isa.mul_add(products[g], of_rows(4 * pair + 2 * g), sums);
            });
        }
        sums
    }

    /// The products of a [`PAIR`] of weights, apart for `G` groups, in lanes that are still to be added.
    #[inline(always)]
    fn products<I: Isa, const G: usize>(
        isa: I,
        chunk: &[&[u8]; 4],
        pair: usize,
        x: &QuantizedChunk,
    ) -> [I::F32; G] {
        let mut codes = [isa.splat_byte(0); 4];
        unrolled!(r in 0 1 2 3, {
            codes[r] = biased::<I, Q>(isa, Q::unpack(isa, chunk[r], pair));
        });
        let codes = isa.transpose_quarters(codes);
        let quarter = |q: usize| isa.load_quarters(x.half(pair / 2), [4 * (pair % 2) + q; 4]);
        let range = range::<I, Q>();
        let mut products = [isa.splat(0.0); G];
        for (g, products) in products.iter_mut().enumerate() {
            let sums = if G == 4 {
                isa.dot_all(range, [codes[g]], [quarter(g)])
            } else {
                isa.dot_all(range, [codes[2 * g], codes[2 * g + 1]], [quarter(2 * g), quarter(2 * g + 1)])
            };
            *products = isa.to_f32(sums);
        }
        products
    }
}
