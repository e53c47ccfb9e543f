//! Products of float weights in 16-bit fixed point: twice as many at a time as of floats where one instruction multiplies pairs,
//! and rounded some fifty times finer than to 8 bits.
//!
//! [`CHUNK`] numbers share a scale, which makes their Euclidean norm [`NORM`]. By the inequality of Cauchy and Schwarz no
//! sum of products then leaves 32 bits, so that they are exact, in whatever order.

use super::Weights;
use super::tiles::{BLOCK, FLOAT_PANELS, FloatPanel, MatMul, Numbers, Panel, ROWS};
use crate::format::{CHUNK, Format, floats, widen};
use crate::isa::{Isa, IsaKind, Op};
use crate::ops::math::sqrt;
use crate::ops::{MatrixMut, chunks};

/// Of the integers of a chunk; rounding adds 8 at the most. Those of two chunks make a sum of 2^30 then.
pub(in crate::ops) const NORM: f32 = 32_000.0;

/// [`CHUNK`] activations of one token: 16-bit integers, and their scale.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct I16Chunk {
    /// In pairs, little-endian.
    codes: [[u8; 4]; CHUNK / 2],
    scale: f32,
}

impl I16Chunk {
    /// All zero.
    pub const ZERO: Self = Self { codes: [[0; 4]; CHUNK / 2], scale: 0.0 };
}

/// Whether products of 16-bit integers take less time than those of floats.
pub fn prefers_i16(isa: IsaKind) -> bool {
    struct Prefers;
    impl Op for Prefers {
        type Output = bool;

        #[inline(always)]
        fn eval<I: Isa>(self, _: I) -> bool {
            I::PAIRS
        }
    }
    isa.run(Prefers)
}

/// Rounds the activations of one token. The last chunk is filled up with zeros.
///
/// Panics unless `out` has [`chunks`]`(x.len())` entries, or where floats are [faster](prefers_i16).
pub fn quantize_i16(isa: IsaKind, x: &[f32], out: &mut [I16Chunk]) {
    assert_eq!(out.len(), chunks(x.len()));
    isa.run(Quantize { x, out });
}

struct Quantize<'a> {
    x: &'a [f32],
    out: &'a mut [I16Chunk],
}

impl Op for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        assert!(I::PAIRS, "{} multiplies floats faster", I::NAME);
        if !I::PAIRS {
            return;
        }
        let (full, rest) = self.x.as_chunks::<CHUNK>();
        let (out_full, out_rest) = self.out.split_at_mut(full.len());
        for (x, out) in full.iter().zip(out_full) {
            Self::chunk(isa, x, out);
        }
        if let Some(out) = out_rest.first_mut() {
            let mut padded = [0.0; CHUNK];
            padded[..rest.len()].copy_from_slice(rest);
            Self::chunk(isa, &padded, out);
        }
    }
}

impl Quantize<'_> {
    #[inline(always)]
    fn chunk<I: Isa>(isa: I, x: &[f32; CHUNK], out: &mut I16Chunk) {
        let (x, lines) = (x.as_chunks().0, out.codes.as_flattened_mut().as_chunks_mut().0);
        [out.scale] = round(isa, CHUNK / 16, |_, i| x[i], |_, i, integers| lines[i] = integers);
    }
}

/// Rounds `R` times `len` lines of 16 numbers, of which `line(r, i)` has one, and hands them to `write(r, i, integers)`;
/// returns the scales. `len` is at most [`CHUNK`] / 16.
#[inline(always)]
pub(in crate::ops) fn round<I: Isa, const R: usize>(
    isa: I,
    len: usize,
    line: impl Fn(usize, usize) -> [f32; 16],
    mut write: impl FnMut(usize, usize, [u8; 32]),
) -> [f32; R] {
    let mut squares = [isa.splat(0.0); R];
    for i in 0..len {
        for r in 0..R {
            let x = isa.load_f32(&line(r, i));
            squares[r] = isa.mul_add(x, x, squares[r]);
        }
    }
    let (mut scales, mut factors) = ([0.0; R], [isa.splat(0.0); R]);
    for r in 0..R {
        let factor;
        (scales[r], factor) = scale(isa.sum(squares[r]), || bound(&mut (0..len).map(|i| line(r, i))));
        factors[r] = isa.splat(factor);
    }
    for i in 0..len {
        for r in 0..R {
            let mut integers = [0; 32];
            isa.store_i16(isa.mul(isa.load_f32(&line(r, i)), factors[r]), &mut integers);
            write(r, i, integers);
        }
    }
    scales
}

/// Rounds lines of 16 numbers, at most [`CHUNK`], such that each lane has a scale, and returns the scales. Two lines become
/// one of `out`, with pairs of integers.
pub(in crate::ops) struct RoundLanes<'a> {
    pub(in crate::ops) x: &'a [[f32; 16]],
    pub(in crate::ops) out: &'a mut [[u8; 64]],
}

impl Op for RoundLanes<'_> {
    type Output = [f32; 16];

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> [f32; 16] {
        let Self { x, out } = self;
        let mut squares = isa.splat(0.0);
        for line in x {
            let x = isa.load_f32(line);
            squares = isa.mul_add(x, x, squares);
        }
        let (mut scales, mut factors) = ([0.0; 16], [0.0; 16]);
        isa.store_f32(squares, &mut scales);
        for (lane, (square, factor)) in scales.iter_mut().zip(&mut factors).enumerate() {
            (*square, *factor) = scale(*square, || bound(&mut x.iter().map(|line| [line[lane]; 16])));
        }
        let factors = isa.load_f32(&factors);
        let (pairs, rest) = x.as_chunks::<2>();
        let last = rest.first().map(|line| [*line, [0.0; 16]]);
        for (lines, out) in pairs.iter().chain(&last).zip(out) {
            let mut integers = [[0; 32]; 2];
            for (line, integers) in lines.iter().zip(&mut integers) {
                isa.store_i16(isa.mul(isa.load_f32(line), factors), integers);
            }
            let [first, second] = integers.each_ref().map(|integers| integers.as_chunks::<2>().0);
            for ((out, a), b) in out.as_chunks_mut::<4>().0.iter_mut().zip(first).zip(second) {
                *out = [a[0], a[1], b[0], b[1]];
            }
        }
        scales
    }
}

/// The scale of numbers whose squares have this sum, and what they are multiplied with; where that is out of range, those of
/// a `bound` of their norm.
#[inline(always)]
fn scale(squares: f32, bound: impl FnOnce() -> f32) -> (f32, f32) {
    let mut norm = sqrt(squares);
    if !(1e-15..1e18).contains(&norm) {
        norm = bound();
    }
    (norm / NORM, if norm > 0.0 { NORM / norm } else { 0.0 })
}

/// What the norm of at most [`CHUNK`] numbers does not exceed, where their squares leave the range of floats: 0 if they are
/// as good as zero, and not a number if one of them is none, or infinite. It may be infinite itself, and so is the scale then.
#[cold]
#[inline(never)]
fn bound(lines: &mut dyn Iterator<Item = [f32; 16]>) -> f32 {
    let (mut largest, mut sum) = (0.0_f32, 0.0);
    for x in lines.flatten() {
        largest = largest.max(x.abs());
        sum += 0.0 * x;
    }
    match largest {
        _ if sum != 0.0 => f32::NAN,
        0.0..1e-30 => 0.0,
        _ => largest * 16.0,
    }
}

/// `out = x · weightsᵀ` in 16-bit fixed point, for weights that are floats; `out` is `[tokens, weights.rows()]`, and `x`
/// holds the tokens one after another, [`chunks`]`(columns)` each.
///
/// A number is rounded to 1/2000 of the root mean square of its chunk, or finer. What a token gives does not depend on the
/// others.
///
/// Panics if the shapes do not agree, if there are fewer than [`FLOAT_PANELS`](super::FLOAT_PANELS) panels, whose content
/// does not matter, or where floats are [faster](prefers_i16).
pub fn matmul_i16(
    isa: IsaKind,
    weights: Weights<'_>,
    x: &[I16Chunk],
    out: MatrixMut<'_>,
    panels: &mut [FloatPanel],
) {
    assert_eq!(x.len(), out.rows() * chunks(weights.columns));
    assert_eq!(out.columns(), weights.rows);
    isa.run(Product { weights, x, out, panels });
}

struct Product<'a> {
    weights: Weights<'a>,
    x: &'a [I16Chunk],
    out: MatrixMut<'a>,
    panels: &'a mut [FloatPanel],
}

impl Op for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // Nothing is compiled for a product that nothing will use.
        const { assert!(BLOCK == CHUNK) };
        assert!(I::PAIRS, "{} multiplies floats faster", I::NAME);
        if I::PAIRS {
            let Self { weights, x, out, panels } = self;
            MatMul { weights, x: Fixed(x), out, panels }.eval(isa);
        }
    }
}

/// Numbers of a token that share a scale, at most [`CHUNK`], in pairs. Rows follow one another by more than a power of two,
/// lest they compete for places in the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(in crate::ops) struct PairsRow(pub(in crate::ops) [[u8; 4]; CHUNK / 2 + 16]);

impl PairsRow {
    /// All zero.
    pub(in crate::ops) const ZERO: Self = Self([[0; 4]; CHUNK / 2 + 16]);
}

/// The products of tokens with panels for the columns from `column` on of `out`, [`FLOAT_PANELS`] or as many as it has. What
/// stands there is added to, but at the `start`.
pub(in crate::ops) struct PairsProduct<'a> {
    pub(in crate::ops) panels: &'a [Panel<'a>; FLOAT_PANELS],
    /// Each of `len` pairs.
    pub(in crate::ops) x: &'a [PairsRow],
    pub(in crate::ops) len: usize,
    pub(in crate::ops) scales: &'a [f32],
    pub(in crate::ops) start: bool,
    pub(in crate::ops) out: MatrixMut<'a>,
    pub(in crate::ops) column: usize,
}

impl Op for PairsProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { panels, x, len, scales, start, mut out, column } = self;
        let x = |t: usize| (&x[t].0[..len], scales[t]);
        MatMul::<Fixed>::all(isa, panels, None, x, start, &mut out, column);
    }
}

#[derive(Clone, Copy)]
struct Fixed<'a>(&'a [I16Chunk]);

impl Numbers for Fixed<'_> {
    type Number = [u8; 4];
    type Line<I: Isa> = I::Bytes;
    type Sums<I: Isa> = I::I32;
    type Scratch = Scratch;

    #[inline(always)]
    fn block(&self, columns: usize, token: usize, at: usize, len: usize) -> (&[[u8; 4]], f32) {
        let chunk = &self.0[token * chunks(columns) + at / CHUNK];
        (&chunk.codes[..columns_in_blocks(len) / 2], chunk.scale)
    }

    #[inline(always)]
    fn pack<I: Isa>(
        isa: I,
        format: Format,
        rows: [&[u8]; ROWS],
        len: usize,
        scratch: &mut Scratch,
        panel: &mut FloatPanel,
    ) {
        let blocks = columns_in_blocks(len) / (2 * ROWS);
        let codes = &mut scratch.codes[..blocks];
        for (four, rows) in rows.as_chunks::<4>().0.iter().enumerate() {
            let write = |r: usize, i: usize, integers: [u8; 32]| {
                codes[i / 2][4 * four + r].as_chunks_mut().0[i % 2] = integers;
            };
            let scales: [f32; 4] = if format == Format::F32 && len == 2 * ROWS * blocks {
                let rows = rows.map(|row| &row.as_chunks().0[..2 * blocks]);
                round(isa, 2 * blocks, |r, i| floats(&rows[r][i]), write)
            } else {
                for (row, out) in rows.iter().zip(&mut scratch.rows) {
                    widen(isa, format, row, &mut out[..len]);
                    out[len..].fill(0.0);
                }
                round(isa, 2 * blocks, |r, i| scratch.rows[r].as_chunks().0[i], write)
            };
            panel.scales[4 * four..][..4].copy_from_slice(&scales);
        }
        for (rows, lines) in codes.iter().zip(panel.lines.as_chunks_mut().0) {
            isa.transpose_quads(rows, lines);
        }
    }

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::I32 {
        isa.splat_i32(0)
    }

    #[inline(always)]
    fn load<I: Isa>(isa: I, line: &[u8; 64]) -> I::Bytes {
        isa.load(line)
    }

    #[inline(always)]
    fn splat<I: Isa>(isa: I, x: [u8; 4]) -> I::Bytes {
        isa.splat4(&x)
    }

    #[inline(always)]
    fn mul_add<I: Isa>(isa: I, line: I::Bytes, x: I::Bytes, sums: I::I32) -> I::I32 {
        isa.dot_pairs(sums, line, x)
    }

    #[inline(always)]
    fn to_f32<I: Isa>(isa: I, sums: I::I32) -> I::F32 {
        isa.to_f32(sums)
    }
}

/// How many columns a panel of `len` has: those of whole blocks of lines, as they are transposed.
fn columns_in_blocks(len: usize) -> usize {
    len.next_multiple_of(2 * ROWS)
}

/// Rows of floats, and of integers: lines in blocks of columns.
struct Scratch {
    rows: [[f32; BLOCK]; 4],
    codes: [[[u8; 64]; ROWS]; BLOCK / (2 * ROWS)],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { rows: [[0.0; BLOCK]; 4], codes: [[[0; 64]; ROWS]; BLOCK / (2 * ROWS)] }
    }
}
