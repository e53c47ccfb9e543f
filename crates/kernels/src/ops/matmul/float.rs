//! Products with exact activations: weights that are floats, and quantized weights where accuracy goes before speed.

use super::{PANEL_TOKENS, Parts, Weights};
use crate::format::{CHUNK, Format, widen};
use crate::isa::{Isa, Op, unrolled};
use crate::ops::MatrixMut;

/// Columns of a panel: those of the tokens of a tile stay in the first cache for all panels.
const BLOCK: usize = 256;

/// Rows of a panel: one a lane.
const ROWS: usize = 16;

/// Panels that are packed before tokens pass by; together they stay in the second cache.
const PANELS: usize = 4;

/// Few tokens, or some of the rows.
pub(super) struct MatVec<'a> {
    pub(super) weights: Weights<'a>,
    /// The rows to multiply with; `None` for all.
    pub(super) selected: Option<&'a [u32]>,
    pub(super) x: &'a [f32],
    pub(super) out: MatrixMut<'a>,
}

impl MatVec<'_> {
    /// `R` rows, which begin with `rows`, times all tokens: chunk by chunk, each widened once.
    #[inline(always)]
    fn rows<I: Isa, const R: usize>(
        isa: I,
        weights: Weights<'_>,
        rows: [&[u8]; R],
        ahead: [usize; R],
        x: &[f32],
        chunk: &mut [[f32; CHUNK]; R],
        sums: &mut [[f32; R]],
    ) {
        let columns = weights.columns;
        for at in (0..columns).step_by(CHUNK) {
            let len = CHUNK.min(columns - at);
            let end = weights.format.row_bytes(at + len).unwrap_or(weights.row_bytes);
            let start = weights.format.row_bytes(at).unwrap_or(end);
            for r in 0..R {
                for line in (start..end).step_by(64) {
                    isa.prefetch(rows[r], ahead[r].wrapping_add(line));
                }
                widen(isa, weights.format, &rows[r][start..end], &mut chunk[r][..len]);
            }
            for (x, sums) in x.chunks_exact(columns).zip(&mut *sums) {
                Self::chunk(isa, chunk, &x[at..][..len], sums);
            }
        }
    }

    /// Adds the products of a chunk of `R` rows with one token to their sums.
    #[inline(always)]
    fn chunk<I: Isa, const R: usize>(isa: I, chunk: &[[f32; CHUNK]; R], x: &[f32], sums: &mut [f32; R]) {
        let (x_lines, x_rest) = x.as_chunks::<16>();
        let mut acc = [isa.splat(0.0); R];
        for (i, x) in x_lines.iter().enumerate() {
            let x = isa.load_f32(x);
            for r in 0..R {
                acc[r] = isa.mul_add(isa.load_f32(&chunk[r].as_chunks().0[i]), x, acc[r]);
            }
        }
        let mut totals = [0.0; R];
        let (fours, rest) = acc.as_chunks::<4>();
        let (total_fours, total_rest) = totals.as_chunks_mut::<4>();
        for (total, acc) in total_fours.iter_mut().zip(fours) {
            *total = isa.sum4(*acc);
        }
        for (total, acc) in total_rest.iter_mut().zip(rest) {
            *total = isa.sum(*acc);
        }
        for r in 0..R {
            sums[r] += totals[r];
        }
        if !x_rest.is_empty() {
            for r in 0..R {
                let rest = chunk[r][x.len() - x_rest.len()..].iter().zip(x_rest);
                sums[r] += rest.map(|(w, x)| w * x).sum::<f32>();
            }
        }
    }

    /// All the rows, `R` at a time.
    #[inline(always)]
    fn all<I: Isa, const R: usize>(self, isa: I) {
        let Self { weights, selected, x, mut out } = self;
        let tokens = out.rows();
        let parts = Parts::<R>::new(out.columns());
        let mut chunk = [[0.0; CHUNK]; R];
        for step in parts.steps() {
            let at = parts.rows(step);
            let (mut rows, mut ahead) = ([&[][..]; R], [parts.ahead(step, weights.row_bytes); R]);
            for r in 0..R {
                rows[r] = weights.rows_from(selected.map_or(at[r], |selected| selected[at[r]] as usize));
                if let Some(selected) = selected {
                    ahead[r] = weights.distance(selected, at[r]);
                }
            }
            let mut sums = [[0.0; R]; PANEL_TOKENS];
            Self::rows(isa, weights, rows, ahead, x, &mut chunk, &mut sums[..tokens]);
            for (t, sums) in sums[..tokens].iter().enumerate() {
                let out = out.row_mut(t);
                for r in 0..R {
    const DOTS: bool = false;

                    out[at[r]] = sums[r];
                }
            }
        }
    }
}

impl Op for MatVec<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // Where a vector is four of few registers, there is room for one row.
        if const { I::TOKENS < 4 } { self.all::<I, 1>(isa) } else { self.all::<I, 4>(isa) }
    }
}

pub(super) struct MatMul<'a> {
    pub(super) weights: Weights<'a>,
    pub(super) x: &'a [f32],
    pub(super) out: MatrixMut<'a>,
}

/// Line `k` holds column `k` of 16 rows: the bytes of floats.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Panel([[u8; 4 * ROWS]; BLOCK]);

/// Rows of a panel that will be packed next, and the place of its columns in their bytes.
#[derive(Clone)]
struct Ahead<'a> {
    weights: Weights<'a>,
    first: usize,
    bytes: core::ops::Range<usize>,
}

impl MatMul<'_> {
    /// Adds the products of `P` panels with `T` tokens to their sums in rows `first ..` and columns `column ..` of `out`;
    /// there are none yet at the `start`. What leaves `out` is dropped. Meanwhile the `ahead` is asked
    /// for, a row of each panel with every [`ROWS`] columns.
    #[inline(always)]
    fn tile<I: Isa, const T: usize, const P: usize>(
        isa: I,
        panels: &[Panel; P],
        ahead: Option<&Ahead<'_>>,
        x: [&[f32]; T],
        start: bool,
        out: &mut MatrixMut<'_>,
        first: usize,
        column: usize,
    ) {
        let mut acc = [[isa.splat(0.0); P]; T];
        let len = x[0].len();
        let mut panel = [&[][..]; P];
        for p in 0..P {
            panel[p] = &panels[p].0[..len];
        }
        unrolled!(t < T, {
            assert_eq!(x[t].len(), len);
            if !start {
                for p in 0..P {
                    acc[t][p] = isa.load_f32(&line_at(out.row_mut(first + t), column + p * ROWS));
                }
            }
        });
        for block in (0..len).step_by(ROWS) {
            let end = (block + ROWS).min(len);
            if let Some(Ahead { weights, first, bytes }) = ahead {
                for p in 0..P {
                    weights.prefetch(isa, first + p * ROWS + block / ROWS, bytes.clone());
                }
            }
            for k in block..end {
                let mut lines = [isa.splat(0.0); P];
                for p in 0..P {
                    lines[p] = isa.load_f32(&from_bytes(&panel[p][k]));
                }
                unrolled!(t < T, {
                    let x = isa.splat(x[t][k]);
                    for p in 0..P {
                        acc[t][p] = isa.mul_add(lines[p], x, acc[t][p]);
                    }
                });
            }
        }
        unrolled!(t < T, {
            let row = out.row_mut(first + t);
            for p in 0..P {
                let at = (column + p * ROWS).min(row.len());
                let out = &mut row[at..];
                match out.first_chunk_mut() {
                    Some(line) => isa.store_f32(acc[t][p], line),
                    None => {
                        let mut line = [0.0; ROWS];
                        isa.store_f32(acc[t][p], &mut line);
                        out.copy_from_slice(&line[..out.len()]);
                    }
                }
            }
        });
    }

    /// `P` panels at a time, times all tokens, of which `x` gives the columns: `T` at a time, then 4, then each.
    #[inline(always)]
    fn tiles<'x, I: Isa, const T: usize, const P: usize>(
        isa: I,
        panels: &[Panel; PANELS],
        ahead: &Ahead<'_>,
        x: impl Fn(usize) -> &'x [f32],
        start: bool,
        out: &mut MatrixMut<'_>,
        column: usize,
    ) {
        let tokens = out.rows();
        let groups = (out.columns() - column).div_ceil(P * ROWS).min(PANELS / P);
        let panels = &panels.as_chunks::<P>().0[..groups];
        let columns = (column..).step_by(P * ROWS);
        // The first tokens ask for what comes next.
        let ahead = |group: usize, t: usize| {
            (t == 0).then(|| Ahead { first: ahead.first + group * P * ROWS, ..ahead.clone() })
        };
        let mut t = 0;
        while t + T <= tokens {
            let x = group::<T>(&x, t);
            for (i, (panels, column)) in panels.iter().zip(columns.clone()).enumerate() {
                Self::tile(isa, panels, ahead(i, t).as_ref(), x, start, out, t, column);
            }
            t += T;
        }
        while T > 4 && t + 4 <= tokens {
            let x = group::<4>(&x, t);
            for (i, (panels, column)) in panels.iter().zip(columns.clone()).enumerate() {
                Self::tile(isa, panels, ahead(i, t).as_ref(), x, start, out, t, column);
            }
            t += 4;
        }
        while t < tokens {
            for (i, (panels, column)) in panels.iter().zip(columns.clone()).enumerate() {
                Self::tile(isa, panels, ahead(i, t).as_ref(), [x(t)], start, out, t, column);
            }
            t += 1;
        }
    }

    /// Columns `at .. at + len` of rows `first ..` as a panel; the last row stands for those that are not there. What is
    /// widened first goes through `lines`.
    #[inline(always)]
    fn pack<I: Isa>(
        isa: I,
        weights: Weights<'_>,
        first: usize,
        at: usize,
        len: usize,
        lines: &mut Option<[[f32; BLOCK]; ROWS]>,
        panel: &mut Panel,
    ) {
        let columns = &mut panel.0.as_chunks_mut().0[..len.div_ceil(ROWS)];
        let end = weights.format.row_bytes(at + len).unwrap_or(weights.row_bytes);
        let start = weights.format.row_bytes(at).unwrap_or(end);
        let mut rows = [&[][..]; ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &weights.row((first + r).min(weights.rows - 1))[start..end];
        }
        if weights.format == Format::F32 && len.is_multiple_of(ROWS) {
            let rows = rows.map(|row| &row.as_chunks().0[..columns.len()]);
            Self::transpose(isa, |r, block| rows[r][block], columns);
        } else {
            let lines = lines.get_or_insert_with(|| [[0.0; BLOCK]; ROWS]);
            for (row, line) in rows.iter().zip(&mut *lines) {
                widen(isa, weights.format, row, &mut line[..len]);
            }
            Self::transpose(isa, |r, block| to_bytes(&lines[r].as_chunks().0[block]), columns);
        }
    }

    /// Writes columns of which `line(r, block)` has 16 of row `r`.
    #[inline(always)]
    fn transpose<I: Isa>(isa: I, line: impl Fn(usize, usize) -> [u8; 64], columns: &mut [[[u8; 64]; ROWS]]) {
        for (block, columns) in columns.iter_mut().enumerate() {
            let mut lines = [[0; 64]; ROWS];
            for r in 0..ROWS {
                lines[r] = line(r, block);
            }
            isa.transpose_quads(&lines, columns);
        }
    }
}

/// 16 floats from `at` on; zeros past the end.
#[inline(always)]
fn line_at(row: &[f32], at: usize) -> [f32; ROWS] {
    let row = &row[at.min(row.len())..];
    row.first_chunk().copied().unwrap_or_else(|| {
        let mut line = [0.0; ROWS];
        line[..row.len()].copy_from_slice(row);
        line
    })
}

#[inline(always)]
fn to_bytes(line: &[f32; ROWS]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (bytes, x) in bytes.as_chunks_mut().0.iter_mut().zip(line) {
        *bytes = x.to_le_bytes();
    }
    bytes
}

#[inline(always)]
fn from_bytes(bytes: &[u8; 64]) -> [f32; ROWS] {
    let mut line = [0.0; ROWS];
    for (x, bytes) in line.iter_mut().zip(bytes.as_chunks().0) {
        *x = f32::from_le_bytes(*bytes);
    }
    line
}

impl Op for MatMul<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, mut out } = self;
        if out.rows() < PANEL_TOKENS {
            return MatVec { weights, selected: None, x, out }.eval(isa);
        }
        let columns = weights.columns;
        let mut panels = [Panel([[0; 4 * ROWS]; BLOCK]); PANELS];
        let mut lines = None;
        for first in (0..weights.rows).step_by(PANELS * ROWS) {
            for at in (0..columns).step_by(BLOCK) {
                let len = BLOCK.min(columns - at);
                for (panel, first) in panels.iter_mut().zip((first..weights.rows).step_by(ROWS)) {
                    Self::pack(isa, weights, first, at, len, &mut lines, panel);
                }
                let (panels, out, start) = (&panels, &mut out, at == 0);
                let (next_first, next_at) =
                    if at + len < columns { (first, at + len) } else { (first + PANELS * ROWS, 0) };
                let place = |at| weights.format.row_bytes(at).unwrap_or(weights.row_bytes);
                let bytes = place(next_at)..place((next_at + BLOCK).min(columns));
                let ahead = &Ahead { weights, first: next_first, bytes };
                let x = |t: usize| &x[t * columns + at..][..len];
                match I::TOKENS {
                    1 => Self::tiles::<I, 1, 1>(isa, panels, ahead, x, start, out, first),
                    2 => Self::tiles::<I, 2, 1>(isa, panels, ahead, x, start, out, first),
                    4 => Self::tiles::<I, 4, 1>(isa, panels, ahead, x, start, out, first),
                    // There are 32 registers: a number of the input is loaded once for both panels.
                    _ => Self::tiles::<I, 12, 2>(isa, panels, ahead, x, start, out, first),
                }
            }
        }
    }
}

/// What `N` tokens from the `t`-th on have.
#[inline(always)]
fn group<'a, const N: usize>(x: &impl Fn(usize) -> &'a [f32], t: usize) -> [&'a [f32]; N] {
    let mut group = [&[][..]; N];
    for i in 0..N {
        group[i] = x(t + i);
    }
    group
}
