//! Products of many tokens with panels of 16 rows, packed once for all of them: of floats, or of 16-bit integers.

use super::Weights;
use crate::format::Format;
use crate::isa::{Isa, Op, unrolled};
use crate::ops::MatrixMut;

/// Columns of a panel: those of the tokens of a tile stay in the first cache for all panels.
pub(super) const BLOCK: usize = 256;

/// Rows of a panel: one a lane.
pub(super) const ROWS: usize = 16;

/// [`FloatPanel`]s that products with floats work in. They are packed before tokens pass by; together they stay in the
/// second cache.
pub const FLOAT_PANELS: usize = 4;

/// Bytes of weights that may wait in the second cache.
const WAITING: usize = 512 << 10;

/// A block of columns of 16 rows of weights.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct FloatPanel {
    /// Line `k` holds the numbers of column `k`, or of some columns, of each row.
    pub(super) lines: [[u8; 64]; BLOCK],
    /// What the sums of each row are multiplied with.
    pub(super) scales: [f32; ROWS],
}

impl FloatPanel {
    /// All zero.
    pub const ZERO: Self = Self { lines: [[0; 64]; BLOCK], scales: [0.0; ROWS] };

    #[inline(always)]
    fn view(&self) -> Panel<'_> {
        Panel { lines: &self.lines, scales: &self.scales }
    }
}

/// What a [`FloatPanel`] holds, as long as it may be.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Panel<'a> {
    pub(in crate::ops) lines: &'a [[u8; 64]],
    pub(in crate::ops) scales: &'a [f32; ROWS],
}

/// The tokens of a product, and the numbers that they are multiplied in.
pub(super) trait Numbers: Copy {
    /// What a token has of the columns of a line.
    type Number: Copy;
    /// A line in registers.
    type Line<I: Isa>: Copy;
    /// Sums of products, one a row.
    type Sums<I: Isa>: Copy;
    /// Memory to pack in.
    type Scratch: Default;

    /// Columns `at .. at + len` of a token that has `columns`, and what its sums are multiplied with.
    fn block(&self, columns: usize, token: usize, at: usize, len: usize) -> (&[Self::Number], f32);
    /// Packs `len` columns, which are what `rows` hold in `format`.
    fn pack<I: Isa>(
        isa: I,
        format: Format,
        rows: [&[u8]; ROWS],
        len: usize,
        scratch: &mut Self::Scratch,
        panel: &mut FloatPanel,
    );
    /// No sum yet.
    fn zero<I: Isa>(isa: I) -> Self::Sums<I>;
    /// A line of a panel.
    fn load<I: Isa>(isa: I, line: &[u8; 64]) -> Self::Line<I>;
    /// What a token has, for all rows.
    fn splat<I: Isa>(isa: I, x: Self::Number) -> Self::Line<I>;
    /// Adds the products of a line.
    fn mul_add<I: Isa>(isa: I, line: Self::Line<I>, x: Self::Line<I>, sums: Self::Sums<I>) -> Self::Sums<I>;
    /// The sums, before scales.
    fn to_f32<I: Isa>(isa: I, sums: Self::Sums<I>) -> I::F32;
}

/// `out = x · weightsᵀ`.
pub(super) struct MatMul<'a, N> {
    pub(super) weights: Weights<'a>,
    pub(super) x: N,
    pub(super) out: MatrixMut<'a>,
    pub(super) panels: &'a mut [FloatPanel],
}

/// Rows of a panel that will be packed next, and the place of its columns in their bytes.
#[derive(Clone)]
pub(super) struct Ahead<'a> {
    weights: Weights<'a>,
    first: usize,
    bytes: core::ops::Range<usize>,
}

impl<N: Numbers> MatMul<'_, N> {
    /// Adds the products of `P` panels with `T` tokens to their sums in the columns of `out`, [`ROWS`] a panel; there are
    /// none yet at the `start`. Meanwhile the `ahead` is asked for, some rows of each panel after every [`ROWS`] lines.
    #[inline(always)]
    fn tile<I: Isa, const T: usize, const P: usize>(
        isa: I,
        panels: &[Panel<'_>; P],
        ahead: Option<&Ahead<'_>>,
        x: [(&[N::Number], f32); T],
        start: bool,
        out: &mut MatrixMut<'_>,
    ) {
        let mut acc = [[N::zero(isa); P]; T];
        let len = x[0].0.len();
        let mut lines = [&[][..]; P];
        for p in 0..P {
            lines[p] = &panels[p].lines[..len];
        }
        unrolled!(t < T, {
            assert_eq!(x[t].0.len(), len);
        });
        let blocks = len.div_ceil(ROWS);
        for block in 0..blocks {
            if let Some(Ahead { weights, first, bytes }) = ahead {
                for row in block * ROWS / blocks..(block + 1) * ROWS / blocks {
                    for p in 0..P {
                        weights.prefetch(isa, first + p * ROWS + row, bytes.clone());
                    }
                }
            }
            for k in block * ROWS..((block + 1) * ROWS).min(len) {
                let mut line = [N::splat(isa, x[0].0[k]); P];
                for p in 0..P {
                    line[p] = N::load(isa, &lines[p][k]);
                }
                unrolled!(t < T, {
                    let x = N::splat(isa, x[t].0[k]);
                    for p in 0..P {
                        acc[t][p] = N::mul_add(isa, line[p], x, acc[t][p]);
                    }
                });
            }
        }
        unrolled!(t < T, {
            let out = &mut out.row_mut(t).as_chunks_mut().0[..P];
            let scale = isa.splat(x[t].1);
            for p in 0..P {
                let scale = isa.mul(isa.load_f32(panels[p].scales), scale);
                let before = if start { isa.splat(0.0) } else { isa.load_f32(&out[p]) };
                isa.store_f32(isa.mul_add(N::to_f32(isa, acc[t][p]), scale, before), &mut out[p]);
            }
        });
    }

    /// As [`Self::tile`], for tokens `first ..` and the columns from `column` on of an `out` that may end within a panel.
    #[inline(always)]
    fn tile_of<I: Isa, const T: usize, const P: usize>(
        isa: I,
        panels: &[Panel<'_>; P],
        ahead: Option<&Ahead<'_>>,
        x: [(&[N::Number], f32); T],
        start: bool,
        out: &mut MatrixMut<'_>,
        [first, column]: [usize; 2],
    ) {
        let mut out = out.reborrow().split_rows(first).1.split_columns(column).1;
        let mut padded = None;
        let is_short = out.columns() < P * ROWS;
        let mut view = match is_short {
            true => {
                let lines: &mut [[[f32; ROWS]; P]; T] = padded.insert([[[0.0; ROWS]; P]; T]);
                for (t, lines) in lines.iter_mut().enumerate() {
                    let row = out.row_mut(t);
                    lines.as_flattened_mut()[..row.len()].copy_from_slice(row);
                }
                MatrixMut::new(lines.as_flattened_mut().as_flattened_mut(), P * ROWS)
            }
            false => out.reborrow(),
        };
        Self::tile(isa, panels, ahead, x, start, &mut view);
        for (t, lines) in padded.iter().flatten().enumerate() {
            let row = out.row_mut(t);
            row.copy_from_slice(&lines.as_flattened()[..row.len()]);
        }
    }

    /// The products of all tokens, of which `x` gives the columns, with panels for the columns from `column` on of `out`;
    /// what stands there is added to, but at the `start`.
    #[inline(always)]
    pub(super) fn all<'x, I: Isa>(
        isa: I,
        panels: &[Panel<'_>; FLOAT_PANELS],
        ahead: Option<&Ahead<'_>>,
        x: impl Fn(usize) -> (&'x [N::Number], f32),
        start: bool,
        out: &mut MatrixMut<'_>,
        column: usize,
    ) where
        N::Number: 'x,
    {
        match I::TOKENS {
            1 => Self::tiles::<I, 1, 1>(isa, panels, ahead, x, start, out, column),
            2 => Self::tiles::<I, 2, 1>(isa, panels, ahead, x, start, out, column),
            4 => Self::tiles::<I, 4, 1>(isa, panels, ahead, x, start, out, column),
            // There are 32 registers: a number of the input is loaded once for both panels.
            _ => Self::tiles::<I, 12, 2>(isa, panels, ahead, x, start, out, column),
        }
    }

    /// `P` panels at a time, times all tokens, of which `x` gives the columns: `T` at a time, then 4, then each.
    #[inline(always)]
    fn tiles<'x, I: Isa, const T: usize, const P: usize>(
        isa: I,
        panels: &[Panel<'_>; FLOAT_PANELS],
        ahead: Option<&Ahead<'_>>,
        x: impl Fn(usize) -> (&'x [N::Number], f32),
        start: bool,
        out: &mut MatrixMut<'_>,
        column: usize,
    ) where
        N::Number: 'x,
    {
        let tokens = out.rows();
        let groups = (out.columns() - column).div_ceil(P * ROWS).min(FLOAT_PANELS / P);
        let panels = &panels.as_chunks::<P>().0[..groups];
        let columns = (column..).step_by(P * ROWS);
        // The first tokens ask for what comes next.
        let ahead = |group: usize, t: usize| {
            let ahead = ahead.filter(|_| t == 0)?;
            Some(Ahead { first: ahead.first + group * P * ROWS, ..ahead.clone() })
        };
        let mut t = 0;
        while t + T <= tokens {
            let x = group::<_, T>(&x, t);
            for (i, (panels, column)) in panels.iter().zip(columns.clone()).enumerate() {
                Self::tile_of(isa, panels, ahead(i, t).as_ref(), x, start, out, [t, column]);
            }
            t += T;
        }
        while T > 4 && t + 4 <= tokens {
            let x = group::<_, 4>(&x, t);
            for (i, (panels, column)) in panels.iter().zip(columns.clone()).enumerate() {
                Self::tile_of(isa, panels, ahead(i, t).as_ref(), x, start, out, [t, column]);
            }
            t += 4;
        }
        while t < tokens {
            for (i, (panels, column)) in panels.iter().zip(columns.clone()).enumerate() {
                Self::tile_of(isa, panels, ahead(i, t).as_ref(), [x(t)], start, out, [t, column]);
            }
            t += 1;
        }
    }

    /// Columns `at .. at + len` of rows `first ..` as a panel; the last row stands for those that are not there.
    #[inline(always)]
    fn pack<I: Isa>(
        isa: I,
        weights: Weights<'_>,
        first: usize,
        at: usize,
        len: usize,
        scratch: &mut N::Scratch,
        panel: &mut FloatPanel,
    ) {
        let end = weights.format.row_bytes(at + len).unwrap_or(weights.row_bytes);
        let start = weights.format.row_bytes(at).unwrap_or(end);
        let mut rows = [&[][..]; ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &weights.row((first + r).min(weights.rows - 1))[start..end];
        }
        N::pack(isa, weights.format, rows, len, scratch, panel);
    }
}

/// What `T` tokens from the `t`-th on have.
#[inline(always)]
fn group<X: Copy, const T: usize>(x: &impl Fn(usize) -> X, t: usize) -> [X; T] {
    let mut group = [x(t); T];
    for i in 1..T {
        group[i] = x(t + i);
    }
    group
}

impl<N: Numbers> Op for MatMul<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, mut out, panels } = self;
        let columns = weights.columns;
        let panels = panels.first_chunk_mut::<FLOAT_PANELS>().expect("memory for panels");
        let mut scratch = N::Scratch::default();
        for first in (0..weights.rows).step_by(FLOAT_PANELS * ROWS) {
            for at in (0..columns).step_by(BLOCK) {
                let len = BLOCK.min(columns - at);
                for (panel, first) in panels.iter_mut().zip((first..weights.rows).step_by(ROWS)) {
                    Self::pack(isa, weights, first, at, len, &mut scratch, panel);
                }
                let (panels, out, start) = (panels.each_ref().map(FloatPanel::view), &mut out, at == 0);
                let (next_first, next_at) = match FLOAT_PANELS * ROWS * weights.row_bytes {
                    // Where they fit the second cache, the same columns of the next rows: they take as long as these.
                    ..=WAITING => (first + FLOAT_PANELS * ROWS, at),
                    _ if at + len < columns => (first, at + len),
                    _ => (first + FLOAT_PANELS * ROWS, 0),
                };
                let place = |at| weights.format.row_bytes(at).unwrap_or(weights.row_bytes);
                let bytes = place(next_at)..place((next_at + BLOCK).min(columns));
                let ahead = &Ahead { weights, first: next_first, bytes };
                let x = |t: usize| x.block(columns, t, at, len);
                Self::all(isa, &panels, Some(ahead), x, start, out, first);
            }
        }
    }
}
