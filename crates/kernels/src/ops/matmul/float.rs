//! Products with exact activations: weights that are floats, and quantized weights where accuracy goes before speed.

use super::Weights;
use crate::format::{CHUNK, widen};
use crate::isa::{Isa, Op};
use crate::ops::MatrixMut;

/// Columns of a panel: 16 rows of them fill half of a small L1 cache.
const BLOCK: usize = 256;

const ROWS: usize = 16;

pub(super) struct MatVec<'a> {
    pub(super) weights: Weights<'a>,
    /// The rows to multiply with; `None` for all.
    pub(super) selected: Option<&'a [u32]>,
    pub(super) x: &'a [f32],
    pub(super) out: MatrixMut<'a>,
}

impl Op for MatVec<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, selected, x, mut out } = self;
        let mut row = [0.0; CHUNK];
        for r in 0..out.columns() {
            let bytes = weights.row(selected.map_or(r, |selected| selected[r] as usize));
            for (t, x) in x.chunks_exact(weights.columns).enumerate() {
                let mut acc = [isa.splat(0.0); 4];
                let mut rest = 0.0;
                let mut at = 0;
                for x in x.chunks(CHUNK) {
                    let end = weights.format.row_bytes(at + x.len()).unwrap_or(bytes.len());
                    let start = weights.format.row_bytes(at).unwrap_or(end);
                    let w = &mut row[..x.len()];
                    widen(isa, weights.format, &bytes[start..end], w);
                    at += x.len();

                    let (w_lines, w_rest) = w.as_chunks::<16>();
                    let (x_lines, x_rest) = x.as_chunks::<16>();
                    for (i, (w, x)) in w_lines.iter().zip(x_lines).enumerate() {
                        acc[i % 4] = isa.mul_add(isa.load_f32(w), isa.load_f32(x), acc[i % 4]);
                    }
                    rest += w_rest.iter().zip(x_rest).map(|(w, x)| w * x).sum::<f32>();
                }
                let acc = isa.add(isa.add(acc[0], acc[1]), isa.add(acc[2], acc[3]));
                out.row_mut(t)[r] = isa.sum(acc) + rest;
            }
        }
    }
}

pub(super) struct MatMul<'a> {
    pub(super) weights: Weights<'a>,
    pub(super) x: &'a [f32],
    pub(super) out: MatrixMut<'a>,
}

impl MatMul<'_> {
    #[inline(always)]
    fn tokens<I: Isa, const T: usize>(
        isa: I,
        panel: &[[f32; ROWS]],
        x: [&[f32]; T],
        first: usize,
        start: bool,
        out: &mut MatrixMut<'_>,
        column: usize,
    ) {
        let mut acc = [isa.splat(0.0); T];
        for t in 0..T {
            assert_eq!(x[t].len(), panel.len());
        }
        for (k, line) in panel.iter().enumerate() {
            let line = isa.load_f32(line);
            for t in 0..T {
                acc[t] = isa.mul_add(line, isa.splat(x[t][k]), acc[t]);
            }
        }
        for t in 0..T {
            let row = &mut out.row_mut(first + t)[column..];
            let row_len = row.len().min(ROWS);
            let mut line = [0.0; ROWS];
            if !start {
                line[..row_len].copy_from_slice(&row[..row_len]);
            }
            let sum = isa.add(isa.load_f32(&line), acc[t]);
            isa.store_f32(sum, &mut line);
            row[..row_len].copy_from_slice(&line[..row_len]);
        }
    }
}

impl Op for MatMul<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, mut out } = self;
        let (columns, tokens) = (weights.columns, out.rows());
        // Line k holds column k of 16 rows.
        let mut panel = [[0.0; ROWS]; BLOCK];
        let mut row = [0.0; BLOCK];
        for first in (0..weights.rows).step_by(ROWS) {
            let rows = ROWS.min(weights.rows - first);
            for at in (0..columns).step_by(BLOCK) {
                let len = BLOCK.min(columns - at);
                let panel = &mut panel[..len];
                for r in 0..rows {
                    let bytes = weights.row(first + r);
                    let end = weights.format.row_bytes(at + len).unwrap_or(bytes.len());
                    let start = weights.format.row_bytes(at).unwrap_or(end);
                    widen(isa, weights.format, &bytes[start..end], &mut row[..len]);
                    for (line, &w) in panel.iter_mut().zip(&row[..len]) {
                        line[r] = w;
                    }
                }
                let mut t = 0;
                while t + 8 <= tokens {
                    let mut group = [&[][..]; 8];
                    for i in 0..8 {
                        group[i] = &x[(t + i) * columns + at..][..len];
                    }
                    Self::tokens(isa, panel, group, t, at == 0, &mut out, first);
                    t += 8;
                }
                while t < tokens {
                    Self::tokens(isa, panel, [&x[t * columns + at..][..len]], t, at == 0, &mut out, first);
                    t += 1;
                }
            }
        }
    }
}
