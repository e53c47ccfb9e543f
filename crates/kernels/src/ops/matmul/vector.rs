//! Quantized matrix × vector: each row is read once, a few rows at a time; all rows, or some.

use core::marker::PhantomData;

use super::{Parts, Weights, bias_and_zero, biased, range, unpacked};
use crate::format::{CHUNK, Quant, Unpacker};
use crate::isa::{Isa, Op, unrolled};
use crate::ops::{MatrixMut, QuantizedChunk, chunks};

/// The most bytes that a chunk of any format has.
const MAX_CHUNK_BYTES: usize = 292;

/// Weights that are unpacked to one vector. A last chunk of no more has a way of its own, as small models have in most of
/// their matrices.
const PAIR: usize = 64;

pub(super) struct MatVec<'a, Q> {
    weights: Weights<'a>,
    /// The rows to multiply with; `None` for all.
    selected: Option<&'a [u32]>,
    x: &'a [QuantizedChunk],
    out: MatrixMut<'a>,
    format: PhantomData<Q>,
}

/// What the scales and offsets of a chunk are multiplied with, as [`Quant::scale_vectors`] has them.
pub(super) struct Factors<I: Isa> {
    pub(super) scale: I::F32,
    pub(super) offset: I::F32,
    /// Also for scales: what the code that stands for zero adds to each group is taken off like an offset that is a multiple
    /// of the scale.
    pub(super) zero: I::F32,
}

impl<I: Isa> Factors<I> {
    #[inline(always)]
    pub(super) fn new<Q: Quant>(isa: I, x: &QuantizedChunk) -> Self {
        let minus_zero = isa.splat(-f32::from(bias_and_zero::<I, Q>().1));
        if Q::GROUP == 16 {
            let sum = x.half_sums(isa);
            Self { scale: isa.load_doubled(&x.scale), offset: sum, zero: isa.mul(sum, minus_zero) }
        } else {
            let zero = isa.mul(isa.load_even(&x.sum), minus_zero);
            Self { scale: isa.load_even(&x.scale), offset: isa.load_odd(&x.sum), zero }
        }
    }
}

/// What the scales and offsets of a [`PAIR`] are multiplied with, as [`Quant::pair_scales`] has them: once for all rows.
struct PairFactors<I: Isa> {
    scale: I::F32,
    offset: I::F32,
}

impl<I: Isa> PairFactors<I> {
    #[inline(always)]
    fn new(isa: I, x: &QuantizedChunk, zero: u8) -> Self {
        let ([a, b, ..], [sum_a, sum_b, ..]) = (x.scale, x.sum);
        let zero = -f32::from(zero);
        let four = |quarter: [f32; 4]| {
            let mut lanes = [0.0; 16];
            lanes.as_chunks_mut::<4>().0.fill(quarter);
            isa.load_f32(&lanes)
        };
        Self { scale: four([a, 0.0, b, 0.0]), offset: four([zero * sum_a, sum_a, zero * sum_b, sum_b]) }
    }
}

impl<'a, Q: Quant> MatVec<'a, Q> {
    /// Bytes of a whole chunk.
    pub(super) const CHUNK_BYTES: usize = CHUNK / Q::FORMAT.block_len() * Q::FORMAT.block_bytes();

    pub(super) fn new(
        weights: Weights<'a>,
        selected: Option<&'a [u32]>,
        x: &'a [QuantizedChunk],
        out: MatrixMut<'a>,
    ) -> Self {
        Self { weights, selected, x, out, format: PhantomData }
    }

    /// `rows`, of `columns` weights each, times one token. What a row gives does not depend on the others.
    ///
    /// The rows reach to the end of the matrix, so that a short last chunk can be read as a whole one. What stands
    /// `ahead` of each will be needed later.
    #[inline(always)]
    fn rows<I: Isa, const R: usize>(
        isa: I,
        rows: [&[u8]; R],
        columns: usize,
        ahead: [usize; R],
        x: &[QuantizedChunk],
        pair: Option<&PairFactors<I>>,
        out: &mut [f32; R],
    ) {
        let full = columns / CHUNK;
        let rows = same_length(rows);
        let mut sums = [isa.splat(0.0); R];
        let mut whole = [&[][..]; R];
        for r in 0..R {
            whole[r] = &rows[r][..full * Self::CHUNK_BYTES];
        }
        for (c, x) in x[..full].iter().enumerate() {
            let mut chunk = [&[][..]; R];
            unrolled!(r < R, {
                chunk[r] = &whole[r][c * Self::CHUNK_BYTES..][..Self::CHUNK_BYTES];
            });
            unrolled!(r < R, {
                for line in 0..Self::CHUNK_BYTES.div_ceil(64) {
                    isa.prefetch(rows[r], ahead[r].wrapping_add(c * Self::CHUNK_BYTES + 64 * line));
                }
            });
            Self::chunk(isa, chunk, CHUNK, x, &mut sums);
        }
        let rest = columns % CHUNK;
        if rest > 0 {
            let start = full * Self::CHUNK_BYTES;
            let mut padded = None;
            let chunk = pieces(rows, start, Self::CHUNK_BYTES, &mut padded);
            unrolled!(r < R, {
                isa.prefetch(rows[r], ahead[r].wrapping_add(start));
            });
            match pair {
                Some(factors) => Self::pair(isa, chunk, &x[full], factors, &mut sums, out),
                None => Self::chunk(isa, chunk, rest, &x[full], &mut sums),
            }
        }
        let (fours, rest) = sums.as_chunks::<4>();
        let (out_fours, out_rest) = out.as_chunks_mut::<4>();
        for (sums, out) in fours.iter().zip(out_fours) {
            let sums = isa.sum4(*sums);
            for r in 0..4 {
                out[r] += sums[r];
            }
        }
        for (sum, out) in rest.iter().zip(out_rest) {
            *out += isa.sum(*sum);
        }
    }

    /// Adds the products of the first `len` weights of a chunk of each row; it has the bytes of a whole one.
    #[inline(always)]
    fn chunk<I: Isa, const R: usize>(
        isa: I,
        chunk: [&[u8]; R],
        len: usize,
        x: &QuantizedChunk,
        sums: &mut [I::F32; R],
    ) {
        let factors = Factors::new::<Q>(isa, x);
        let mut scales = [[0.0; 16]; R];
        let mut vectors = [(factors.scale, factors.scale); R];
        let (fours, rest) = vectors.as_chunks_mut::<4>();
        for (four, chunks) in fours.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *four = Q::scale_vectors4(isa, *chunks);
        }
        for (vectors, chunk) in rest.iter_mut().zip(chunk.as_chunks::<4>().1) {
            *vectors = Q::scale_vectors(isa, chunk);
        }
        unrolled!(r < R, {
            let (mut scale, mut offset) = vectors[r];
            if len < CHUNK && !(I::FINITE_HEADS && Q::FORMAT.block_len() == 32) {
                // Not a number where other bytes stand, perhaps.
                scale = isa.keep(scale, if Q::GROUP == 16 { len / 16 } else { len / 32 * 2 });
                offset = isa.keep(offset, len / 16);
            }
            isa.store_f32(isa.mul(scale, factors.scale), &mut scales[r]);
            if Q::OFFSET {
                let offset = if Q::GROUP == 16 { offset } else { scale };
                sums[r] = isa.mul_add(offset, factors.offset, sums[r]);
            }
            if const { bias_and_zero::<I, Q>().1 > 0 } {
                sums[r] = isa.mul_add(scale, factors.zero, sums[r]);
            }
        });
        Self::half(isa, &chunk, 0, x, &scales, sums);
        if len > CHUNK / 2 {
            Self::half(isa, &chunk, 1, x, &scales, sums);
        }
    }

    /// As [`Self::chunk`], for just [`PAIR`] weights. What offsets add goes to `out`.
    #[inline(always)]
    fn pair<I: Isa, const R: usize>(
        isa: I,
        chunk: [&[u8]; R],
        x: &QuantizedChunk,
        factors: &PairFactors<I>,
        sums: &mut [I::F32; R],
        out: &mut [f32; R],
    ) {
        let x = isa.load(&x.codes[0]);
        for first in (0..R).step_by(4) {
            let four = [0, 1, 2, 3].map(|i| chunk[(first + i).min(R - 1)]);
            let pairs = Q::pair_scales(isa, four);
            let mut scales = [0.0; 16];
            isa.store_f32(isa.mul(pairs, factors.scale), &mut scales);
            if Q::OFFSET || bias_and_zero::<I, Q>().1 > 0 {
                let offsets = isa.sum_quarters(isa.mul(pairs, factors.offset));
                for i in 0..4.min(R) {
                    out[first + i] += offsets[i];
                }
            }
            unrolled!(i in 0 1 2 3, {
                if i < R {
                    let codes = biased::<I, Q>(isa, Q::unpack(isa, four[i], 0));
                    let products = isa.to_f32(isa.dot_all(range::<I, Q>(), [codes], [x]));
                    let scale = isa.spread(&scales, [4 * i, 4 * i, 4 * i + 2, 4 * i + 2]);
                    let sum = &mut sums[first + i];
                    *sum = isa.mul_add(products, scale, *sum);
                }
            });
        }
    }

    /// Adds the products of 128 weights of each row.
    #[inline(always)]
    fn half<I: Isa, const R: usize>(
        isa: I,
        chunk: &[&[u8]; R],
        half: usize,
        x: &QuantizedChunk,
        scales: &[[f32; 16]; R],
        sums: &mut [I::F32; R],
    ) {
        let [first, second] = const { Q::ORDER.quarters::<I>() };
        let (x_first, x_second) =
            (isa.load_quarters(x.half(half), first), isa.load_quarters(x.half(half), second));
        let lanes = |quarters: [usize; 4]| match Q::GROUP {
            16 => quarters.map(|quarter| 8 * half + quarter),
            _ => quarters.map(|quarter| 2 * (4 * half + quarter / 2)),
        };
        unrolled!(r < R, {
            let [codes, more] = Q::unpack_half(isa, chunk[r], half).map(|codes| biased::<I, Q>(isa, codes));
            // Where each quarter of both vectors is of one group, they share the scale.
            let products = if const { shares_groups::<I, Q>() } {
                isa.dot_all(range::<I, Q>(), [codes, more], [x_first, x_second])
            } else {
                let products = isa.dot_all(range::<I, Q>(), [more], [x_second]);
                let scale = isa.spread(&scales[r], lanes(second));
                sums[r] = isa.mul_add(isa.to_f32(products), scale, sums[r]);
                isa.dot_all(range::<I, Q>(), [codes], [x_first])
            };
            let scale = isa.spread(&scales[r], lanes(first));
            sums[r] = isa.mul_add(isa.to_f32(products), scale, sums[r]);
        });
    }

    /// All the rows, or those that are selected, times one token.
    #[inline(always)]
    fn token<I: Isa, const R: usize>(
        isa: I,
        weights: Weights<'a>,
        selected: Option<&[u32]>,
        x: &[QuantizedChunk],
        out: &mut [f32],
    ) {
        let parts = Parts::<R>::new(out.len());
        let has_pair =
            const { Q::FORMAT.block_len() == 32 && !I::COMPACT } && weights.columns % CHUNK == PAIR;
        let pair = x.last().filter(|_| has_pair).map(|x| PairFactors::new(isa, x, bias_and_zero::<I, Q>().1));
        for step in parts.steps() {
            let at = parts.rows(step);
            let (mut rows, mut ahead) = ([&[][..]; R], [parts.ahead(step, weights.row_bytes); R]);
            for r in 0..R {
                rows[r] = weights.rows_from(selected.map_or(at[r], |selected| selected[at[r]] as usize));
                if let Some(selected) = selected {
                    ahead[r] = weights.distance(selected, at[r]);
                }
            }
            let mut sums = [0.0; R];
            match (rows.first_chunk(), ahead.first_chunk(), sums.first_chunk_mut()) {
                (Some(rows), Some(ahead), Some(sums)) if I::ROW_A_QUARTER => {
                    *sums = Self::four_rows(isa, *rows, weights.columns, *ahead, x);
                }
                _ => Self::rows(isa, rows, weights.columns, ahead, x, pair.as_ref(), &mut sums),
            }
            for r in 0..R {
                out[at[r]] = sums[r];
            }
        }
    }
}

/// What all of the rows have, so that one check of a place in them does for all.
#[inline(always)]
pub(super) fn same_length<const R: usize>(mut rows: [&[u8]; R]) -> [&[u8]; R] {
    let mut len = rows[0].len();
    for row in rows {
        len = len.min(row.len());
    }
    for row in &mut rows {
        *row = &row[..len];
    }
    rows
}

/// `len` bytes of each row from `start` on, of rows of the same length. What follows a row is another, which activations of
/// zero silence; only the last has nothing there, and zeros are put for that.
#[inline(always)]
pub(super) fn pieces<'a, const R: usize>(
    rows: [&'a [u8]; R],
    start: usize,
    len: usize,
    padded: &'a mut Option<[[u8; MAX_CHUNK_BYTES]; R]>,
) -> [&'a [u8]; R] {
    let mut pieces = [&[][..]; R];
    if rows[0].len() - start >= len {
        for r in 0..R {
            pieces[r] = &rows[r][start..][..len];
        }
    } else {
        let padded = padded.insert(rows.map(|row| pad(&row[start..])));
        for r in 0..R {
            pieces[r] = &padded[r][..len];
        }
    }
    pieces
}

/// The start of a chunk that ends too early, and zeros.
#[cold]
#[inline(never)]
fn pad(tail: &[u8]) -> [u8; MAX_CHUNK_BYTES] {
    let mut padded = [0; MAX_CHUNK_BYTES];
    let len = tail.len().min(MAX_CHUNK_BYTES);
    padded[..len].copy_from_slice(&tail[..len]);
    padded
}

/// Whether the quarters of both vectors of a half are of the same groups.
const fn shares_groups<I: Isa, Q: Quant>() -> bool {
    let [first, second] = Q::ORDER.quarters::<I>();
    let mut i = 0;
    while i < 4 {
        if first[i] / 2 != second[i] / 2 {
            return false;
        }
        i += 1;
    }
    Q::GROUP == 32
}

impl<Q: Quant> Op for MatVec<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, selected, x, mut out, .. } = self;
        if const { I::COMPACT && !Q::COMMON } {
            let unpacker = Unpacker::of::<Q>();
            return isa.call(unpacked::MatVec { unpacker, weights, selected, x, out });
        }
        for (t, x) in x.chunks_exact(chunks(weights.columns)).enumerate() {
            let out = out.row_mut(t);
            match I::ROWS {
                1 => Self::token::<I, 1>(isa, weights, selected, x, out),
                2 => Self::token::<I, 2>(isa, weights, selected, x, out),
                4 => Self::token::<I, 4>(isa, weights, selected, x, out),
                _ => Self::token::<I, 8>(isa, weights, selected, x, out),
            }
        }
    }
}
