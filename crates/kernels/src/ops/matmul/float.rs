//! Products with exact activations: weights that are floats, and quantized weights where accuracy goes before speed.

use super::tiles::{BLOCK, FloatPanel, MatMul, Numbers, ROWS};
use super::{PANEL_TOKENS, Parts, Weights};
use crate::format::{CHUNK, Format, floats, widen};
use crate::isa::{Isa, Op};
use crate::ops::MatrixMut;

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
                    out[at[r]] = sums[r];
                }
            }
        }
    }
}

impl Op for MatVec<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // Where a vector is four of few registers, there is room for one row.
        if const { I::TOKENS < 4 } { self.all::<I, 1>(isa) } else { self.all::<I, 4>(isa) }
    }
}

/// `out = x · weightsᵀ` in floats, of any number of tokens.
pub(super) struct Product<'a> {
    pub(super) weights: Weights<'a>,
    pub(super) x: &'a [f32],
    pub(super) out: MatrixMut<'a>,
    pub(super) panels: &'a mut [FloatPanel],
}

impl Op for Product<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, out, panels } = self;
        if out.rows() < PANEL_TOKENS {
            return MatVec { weights, selected: None, x, out }.eval(isa);
        }
        MatMul { weights, x: Floats(x), out, panels }.eval(isa);
    }
}

/// Tokens of floats, as many as the weights have columns.
#[derive(Clone, Copy)]
struct Floats<'a>(&'a [f32]);

impl Numbers for Floats<'_> {
    type Number = f32;
    type Line<I: Isa> = I::F32;
    type Sums<I: Isa> = I::F32;
    type Scratch = Option<[[f32; BLOCK]; ROWS]>;

    #[inline(always)]
    fn block(&self, columns: usize, token: usize, at: usize, len: usize) -> (&[f32], f32) {
        (&self.0[token * columns + at..][..len], 1.0)
    }

    /// What is widened first goes through the scratch.
    #[inline(always)]
    fn pack<I: Isa>(
        isa: I,
        format: Format,
        rows: [&[u8]; ROWS],
        len: usize,
        scratch: &mut Self::Scratch,
        panel: &mut FloatPanel,
    ) {
        let columns = &mut panel.lines.as_chunks_mut().0[..len.div_ceil(ROWS)];
        if format == Format::F32 && len.is_multiple_of(ROWS) {
            let rows = rows.map(|row| &row.as_chunks().0[..columns.len()]);
            transpose(isa, |r, block| rows[r][block], columns);
        } else {
            let lines = scratch.get_or_insert_with(|| [[0.0; BLOCK]; ROWS]);
            for (row, line) in rows.iter().zip(&mut *lines) {
                widen(isa, format, row, &mut line[..len]);
            }
            transpose(isa, |r, block| to_bytes(&lines[r].as_chunks().0[block]), columns);
        }
        panel.scales = [1.0; ROWS];
    }

    #[inline(always)]
    fn zero<I: Isa>(isa: I) -> I::F32 {
        isa.splat(0.0)
    }

    #[inline(always)]
    fn load<I: Isa>(isa: I, line: &[u8; 64]) -> I::F32 {
        isa.load_f32(&floats(line))
    }

    #[inline(always)]
    fn splat<I: Isa>(isa: I, x: f32) -> I::F32 {
        isa.splat(x)
    }

    #[inline(always)]
    fn mul_add<I: Isa>(isa: I, line: I::F32, x: I::F32, sums: I::F32) -> I::F32 {
        isa.mul_add(line, x, sums)
    }

    #[inline(always)]
    fn to_f32<I: Isa>(_: I, sums: I::F32) -> I::F32 {
        sums
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

#[inline(always)]
fn to_bytes(line: &[f32; ROWS]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (bytes, x) in bytes.as_chunks_mut().0.iter_mut().zip(line) {
        *bytes = x.to_le_bytes();
    }
    bytes
}
