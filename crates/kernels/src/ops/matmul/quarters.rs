//! Quantized matrix × vector where a vector is four registers: each takes another row. So a row has one register of sums
//! instead of four, and what rows share, activations and masks, need not make room for them.

use super::vector::{Factors, MatVec, pieces, same_length};
use super::{bias_and_zero, biased, range};
use crate::format::{CHUNK, Quant};
use crate::isa::{Isa, unrolled};
use crate::ops::QuantizedChunk;

/// What is summed of four rows.
struct Sums<I: Isa> {
    /// In each quarter the products of one row.
    products: I::F32,
    /// In lane `r` of each quarter offsets of row `r`.
    offsets: I::F32,
}

impl<Q: Quant> MatVec<'_, Q> {
    /// Four rows, of `columns` weights each, times one token. What stands `ahead` of each will be needed later.
    #[inline(always)]
    pub(super) fn four_rows<I: Isa>(
        isa: I,
        rows: [&[u8]; 4],
        columns: usize,
        ahead: [usize; 4],
        x: &[QuantizedChunk],
    ) -> [f32; 4] {
        let mut sums = Sums { products: isa.splat(0.0), offsets: isa.splat(0.0) };
        let mut offsets = [0.0; 4];
        let whole = same_length(rows);
        for (c, x) in x.iter().enumerate() {
            unrolled!(r in 0 1 2 3, {
                for line in 0..Self::CHUNK_BYTES.div_ceil(64) {
                    isa.prefetch(rows[r], ahead[r].wrapping_add(c * Self::CHUNK_BYTES + 64 * line));
                }
            });
            let mut padded = None;
            let chunk = pieces(whole, c * Self::CHUNK_BYTES, Self::CHUNK_BYTES, &mut padded);
            if const { Q::FORMAT.block_len() == 32 } {
                let len = columns - c * CHUNK;
                Self::half_of_blocks(isa, &chunk, 0, len, x, &mut sums);
                if len > CHUNK / 2 {
                    Self::half_of_blocks(isa, &chunk, 1, len - CHUNK / 2, x, &mut sums);
                }
            } else {
                let of_chunk = Self::super_block(isa, chunk, x, &mut sums);
                for r in 0..4 {
                    offsets[r] += of_chunk[r];
                }
            }
        }
        let mut out = isa.sum_quarters_and(sums.products, sums.offsets);
        if const { Q::FORMAT.block_len() != 32 } {
            for r in 0..4 {
                out[r] += offsets[r];
            }
        }
        out
    }

    /// Adds the products of the first `len` weights of half a chunk whose blocks have 32.
    #[inline(always)]
    fn half_of_blocks<I: Isa>(
        isa: I,
        chunk: &[&[u8]; 4],
        half: usize,
        len: usize,
        x: &QuantizedChunk,
        sums: &mut Sums<I>,
    ) {
        let bytes = const { Self::CHUNK_BYTES / 2 };
        let (scale, offset) = Q::row_scales(isa, chunk.map(|chunk| &chunk[half * bytes..][..bytes]));
        // Not a number where the next row stands, perhaps.
        let inside = |v| if len < CHUNK / 2 && !I::FINITE_HEADS { isa.keep(v, len / 32 * 4) } else { v };
        // Each quarter is of a block.
        let of_blocks = |values: &[f32; 8]| {
            let mut lanes = [0.0; 16];
            lanes[..4].copy_from_slice(&values[4 * half..][..4]);
            isa.spread(&lanes, [0, 1, 2, 3])
        };
        if Q::OFFSET {
            sums.offsets = isa.accumulate(inside(offset), of_blocks(&x.sum), sums.offsets);
        }
        if const { bias_and_zero::<I, Q>().1 > 0 } {
            let minus_zero = isa.splat(-f32::from(bias_and_zero::<I, Q>().1));
            let x_zero = isa.mul(of_blocks(&x.sum), minus_zero);
            sums.offsets = isa.accumulate(inside(scale), x_zero, sums.offsets);
        }
        let mut scales = [0.0; 16];
        isa.store_f32(isa.mul(scale, of_blocks(&x.scale)), &mut scales);
        unrolled!(b in 0 1 2 3, {
            // As a condition it also keeps compilers from taking all blocks of one row together, whose activations would
            // fill the registers.
            if 32 * b < len {
                let quarters = Self::quarters(isa, chunk, 2 * half + b / 2);
                let products = Self::products::<I, 2>(isa, quarters, 8 * half + 2 * b, x);
                let scale = isa.spread(&scales, [4 * b, 4 * b + 1, 4 * b + 2, 4 * b + 3]);
                sums.products = isa.mul_add(products, scale, sums.products);
            }
        });
    }

    /// Adds the products of a block that is a chunk. Returns what offsets add.
    #[inline(always)]
    fn super_block<I: Isa>(isa: I, chunk: [&[u8]; 4], x: &QuantizedChunk, sums: &mut Sums<I>) -> [f32; 4] {
        let factors = Factors::new::<Q>(isa, x);
        let (mut scales, mut offsets) = ([[0.0; 16]; 4], [isa.splat(0.0); 4]);
        for (r, (scale, offset)) in Q::scale_vectors4(isa, chunk).into_iter().enumerate() {
            isa.store_f32(isa.mul(scale, factors.scale), &mut scales[r]);
            if Q::OFFSET {
                offsets[r] = isa.mul(if Q::GROUP == 16 { offset } else { scale }, factors.offset);
            }
            if const { bias_and_zero::<I, Q>().1 > 0 } {
                offsets[r] = isa.mul_add(scale, factors.zero, offsets[r]);
            }
        }
        let of_rows = |lane: usize| {
            let mut lanes = [0.0; 16];
            for r in 0..4 {
                lanes[r] = scales[r][lane];
            }
            isa.spread(&lanes, [0, 1, 2, 3])
        };
        unrolled!(pair in 0 1 2 3, {
            let quarters = Self::quarters(isa, &chunk, pair);
            unrolled!(i in 0 1 2 3, {
                let run = 4 * pair + i;
                if Q::GROUP == 16 {
                    let products = Self::products::<I, 1>(isa, quarters, run, x);
                    sums.products = isa.mul_add(products, of_rows(run), sums.products);
                } else if run % 2 == 0 {
                    let products = Self::products::<I, 2>(isa, quarters, run, x);
                    sums.products = isa.mul_add(products, of_rows(run), sums.products);
                }
            });
        });
        isa.sum4(offsets)
    }

    /// 64 codes of each row: in vector `q` the `q`-th 16 of them, each quarter of a row.
    #[inline(always)]
    fn quarters<I: Isa>(isa: I, chunk: &[&[u8]; 4], pair: usize) -> [I::Bytes; 4] {
        let mut rows = [isa.splat_byte(0); 4];
        unrolled!(r in 0 1 2 3, {
            rows[r] = biased::<I, Q>(isa, Q::unpack(isa, chunk[r], pair));
        });
        isa.transpose_quarters(rows)
    }

    /// The products of `N` runs of 16 weights from the run `first` of a chunk on, which is in `quarters`; in lanes that
    /// are still to be added.
    #[inline(always)]
    fn products<I: Isa, const N: usize>(
        isa: I,
        quarters: [I::Bytes; 4],
        first: usize,
        x: &QuantizedChunk,
    ) -> I::F32 {
        let (mut codes, mut activations) = ([quarters[0]; N], [quarters[0]; N]);
        for i in 0..N {
            codes[i] = quarters[first % 4 + i];
            activations[i] = isa.load_quarters(x.half(first / 8), [first % 8 + i; 4]);
        }
        isa.to_f32(isa.dot_all(range::<I, Q>(), codes, activations))
    }
}
