//! Products with exact activations: weights that are floats, and quantized weights where accuracy goes before speed.

use super::Weights;
use crate::format::{CHUNK, widen};
use crate::isa::{Isa, Op, unrolled};
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
    /// Adds the products of a panel with `T` tokens to their sums in rows `first ..` and columns `column ..` of `out`;
    /// there are none yet at the `start`.
    #[inline(always)]
    fn tokens<I: Isa, const T: usize>(
        isa: I,
        panel: &[[f32; ROWS]],
        x: [&[f32]; T],
        start: bool,
        out: &mut MatrixMut<'_>,
        first: usize,
        column: usize,
    ) {
        let mut acc = [isa.splat(0.0); T];
        unrolled!(t < T, {
            assert_eq!(x[t].len(), panel.len());
            if !start {
                acc[t] = isa.load_f32(&line_at(out.row_mut(first + t), column));
            }
        });
        for (k, line) in panel.iter().enumerate() {
            let line = isa.load_f32(line);
            unrolled!(t < T, {
                acc[t] = isa.mul_add(line, isa.splat(x[t][k]), acc[t]);
            });
        }
        unrolled!(t < T, {
            let out = &mut out.row_mut(first + t)[column..];
            match out.first_chunk_mut() {
                Some(line) => isa.store_f32(acc[t], line),
                None => {
                    let mut line = [0.0; ROWS];
                    isa.store_f32(acc[t], &mut line);
                    out.copy_from_slice(&line[..out.len()]);
                }
            }
        });
    }

    /// Columns `at ..` of rows `first ..`, at most 16, as a panel.
    #[inline(always)]
    fn pack<I: Isa>(isa: I, weights: Weights<'_>, first: usize, at: usize, panel: &mut [[f32; ROWS]]) {
        let rows = ROWS.min(weights.rows - first);
        let mut lines = [[0.0; BLOCK]; ROWS];
        for (r, line) in lines[..rows].iter_mut().enumerate() {
            let bytes = weights.row(first + r);
            let end = weights.format.row_bytes(at + panel.len()).unwrap_or(bytes.len());
            let start = weights.format.row_bytes(at).unwrap_or(end);
            widen(isa, weights.format, &bytes[start..end], &mut line[..panel.len()]);
        }
        for (block, columns) in panel.chunks_mut(ROWS).enumerate() {
            let mut quads = [[0; 64]; ROWS];
            let bytes = lines.each_ref().map(|line| to_bytes(&line.as_chunks().0[block]));
            isa.transpose_quads(&bytes, &mut quads);
            for (column, quad) in columns.iter_mut().zip(&quads) {
                *column = from_bytes(quad);
            }
        }
    }
}

/// 16 floats from `at` on; zeros past the end.
#[inline(always)]
fn line_at(row: &[f32], at: usize) -> [f32; ROWS] {
    row[at..].first_chunk().copied().unwrap_or_else(|| {
        let mut line = [0.0; ROWS];
        line[..row.len() - at].copy_from_slice(&row[at..]);
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
        let (columns, tokens) = (weights.columns, out.rows());
        // Line k holds column k of 16 rows.
        let mut panel = [[0.0; ROWS]; BLOCK];
        for first in (0..weights.rows).step_by(ROWS) {
            for at in (0..columns).step_by(BLOCK) {
                let len = BLOCK.min(columns - at);
                let panel = &mut panel[..len];
                Self::pack(isa, weights, first, at, panel);
                let panel = &*panel;
                let x = |t: usize| &x[t * columns + at..][..len];
                let mut t = 0;
                while t + I::TOKENS <= tokens {
                    let start = at == 0;
                    match I::TOKENS {
                        1 => Self::tokens(isa, panel, group::<1>(x, t), start, &mut out, t, first),
                        2 => Self::tokens(isa, panel, group::<2>(x, t), start, &mut out, t, first),
                        4 => Self::tokens(isa, panel, group::<4>(x, t), start, &mut out, t, first),
                        _ => Self::tokens(isa, panel, group::<12>(x, t), start, &mut out, t, first),
                    }
                    t += I::TOKENS;
                }
                while I::TOKENS > 4 && t + 4 <= tokens {
                    Self::tokens(isa, panel, group::<4>(x, t), at == 0, &mut out, t, first);
                    t += 4;
                }
                while t < tokens {
                    Self::tokens(isa, panel, [x(t)], at == 0, &mut out, t, first);
                    t += 1;
                }
            }
        }
    }
}

/// What `N` tokens from the `t`-th on have.
#[inline(always)]
fn group<'a, const N: usize>(x: impl Fn(usize) -> &'a [f32], t: usize) -> [&'a [f32]; N] {
    let mut group = [&[][..]; N];
    for i in 0..N {
        group[i] = x(t + i);
    }
    group
}
