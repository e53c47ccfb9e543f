//! Quantized matrix × many vectors: 16 rows at a time, unpacked once and multiplied with all tokens.

use core::marker::PhantomData;

use super::{Weights, bias_and_zero, biased, range, unpacked};
use crate::format::{CHUNK, Quant, Unpacker};
use crate::isa::{CodeRange, Isa, Op, unrolled};
use crate::ops::{MatrixMut, QuantizedChunk, chunks};

/// Rows in a panel: one a lane.
pub(super) const ROWS: usize = 16;

/// Panels that are unpacked before tokens pass by: the tokens of a tile stay in the first cache for all of them, while
/// the panels stay in the second.
pub(super) const PANELS: usize = 4;

/// 32 columns of a panel: line `q` holds columns `4 q .. 4 q + 4` of each of the 16 rows.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PanelRun {
    pub(super) codes: [[u8; 64]; 8],
    /// One vector of 16 rows for each group: two groups of 16, or one of 32 (the second unused).
    pub(super) scale: [[f32; ROWS]; 2],
    /// As `scale`; the code that stands for zero is taken off here too.
    pub(super) offset: [[f32; ROWS]; 2],
}

impl PanelRun {
    /// All zero.
    pub const ZERO: Self = Self { codes: [[0; 64]; 8], scale: [[0.0; ROWS]; 2], offset: [[0.0; ROWS]; 2] };
}

pub(super) struct MatMul<'a, Q> {
    weights: Weights<'a>,
    x: &'a [QuantizedChunk],
    out: MatrixMut<'a>,
    panel: &'a mut [PanelRun],
    format: PhantomData<Q>,
}

impl<'a, Q: Quant> MatMul<'a, Q> {
    pub(super) fn new(
        weights: Weights<'a>,
        x: &'a [QuantizedChunk],
        out: MatrixMut<'a>,
        panel: &'a mut [PanelRun],
    ) -> Self {
        let panel = &mut panel[..super::panel_runs(weights.columns)];
        Self { weights, x, out, panel, format: PhantomData }
    }

    /// Unpacks rows `first ..`, at most 16, into the panel, and asks for those of the next one: few tokens leave no time to
    /// wait for memory.
    #[inline(always)]
    fn unpack<I: Isa>(isa: I, weights: Weights<'_>, first: usize, panel: &mut [PanelRun]) {
        let chunk_bytes = const { CHUNK / Q::FORMAT.block_len() * Q::FORMAT.block_bytes() };
        let rows = ROWS.min(weights.rows - first);
        let (_, zero) = bias_and_zero::<I, Q>();
        let mut lines = [[0; 64]; ROWS];
        for (c, runs) in panel.chunks_mut(CHUNK / 32).enumerate() {
            let start = c * chunk_bytes;
            let end = (start + chunk_bytes).min(weights.row_bytes);
            for r in 0..rows {
                weights.prefetch(isa, first + ROWS + r, start..end);
                let (first, second) = Q::scale_vectors(isa, &weights.row(first + r)[start..end]);
                let mut lanes = [[0.0; 16]; 2];
                isa.store_f32(first, &mut lanes[0]);
                isa.store_f32(second, &mut lanes[1]);
                for (g, run) in runs.iter_mut().enumerate() {
                    for part in 0..32 / Q::GROUP {
                        // The scale in one vector and the offset in the other, or both side by side in one.
                        let (scale, offset) = match Q::GROUP {
                            16 => (lanes[0][2 * g + part], lanes[1][2 * g + part]),
                            _ => (lanes[0][2 * g], lanes[0][2 * g + 1]),
                        };
                        run.scale[part][r] = scale;
                        run.offset[part][r] = if Q::OFFSET { offset } else { 0.0 } - scale * f32::from(zero);
                    }
                }
            }
            for (pair, runs) in runs.chunks_exact_mut(2).enumerate() {
                for r in 0..rows {
                    let codes = Q::unpack(isa, &weights.row(first + r)[start..end], pair);
                    isa.store(biased::<I, Q>(isa, codes), &mut lines[r]);
                }
                let mut quads = [[0; 64]; 16];
                isa.transpose_quads(&lines, &mut quads);
                runs[0].codes.copy_from_slice(&quads[..8]);
                runs[1].codes.copy_from_slice(&quads[8..]);
            }
        }
    }
}

/// Panels times all tokens. It knows of the format only what changes the arithmetic, so formats share its code.
pub(super) struct Tiles<'a, const GROUP: usize, const OFFSET: bool, const SIGNED: bool, const NIBBLE: bool> {
    pub(super) panels: &'a [PanelRun],
    /// Length of a panel.
    pub(super) runs: usize,
    pub(super) x: &'a [QuantizedChunk],
    pub(super) stride: usize,
    pub(super) out: MatrixMut<'a>,
}

impl<const GROUP: usize, const OFFSET: bool, const SIGNED: bool, const NIBBLE: bool> Op
    for Tiles<'_, GROUP, OFFSET, SIGNED, NIBBLE>
{
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let tokens = self.out.rows();
        // Groups of 16 have twice the scales: where there are 32 registers, two panels share what is loaded of a token.
        let step = const { if GROUP == 16 && I::TOKENS == 12 { 6 } else { I::TOKENS } };
        let mut t = 0;
        while t + step <= tokens {
            match step {
                1 => self.tile::<I, 1, 1>(isa, t),
                2 => self.tile::<I, 2, 1>(isa, t),
                4 => self.tile::<I, 4, 1>(isa, t),
                6 => self.tile::<I, 6, 2>(isa, t),
                _ => self.tile::<I, 12, 1>(isa, t),
            }
            t += step;
        }
        while I::TOKENS > 4 && t + 4 <= tokens {
            self.tile::<I, 4, 1>(isa, t);
            t += 4;
        }
        if I::TOKENS == 2 {
            if t < tokens {
                // With the one before once more, rather than with code for one alone: there are enough of them.
                const { assert!(super::PANEL_TOKENS >= 2) };
                self.tile::<I, 2, 1>(isa, tokens - 2);
            }
            return;
        }
        while t < tokens {
            self.tile::<I, 1, 1>(isa, t);
            t += 1;
        }
    }
}

impl<const GROUP: usize, const OFFSET: bool, const SIGNED: bool, const NIBBLE: bool>
    Tiles<'_, GROUP, OFFSET, SIGNED, NIBBLE>
{
    const RANGE: CodeRange = match (SIGNED, NIBBLE) {
        (true, _) => CodeRange::Signed,
        (false, true) => CodeRange::Nibble,
        (false, false) => CodeRange::Unsigned,
    };

    /// The products of `N` lines of each run, the `part`-th of them, with what each token has at pair `pair` of chunk `c`,
    /// its `at`-th `N` quads.
    #[inline(always)]
    fn sums<I: Isa, const T: usize, const P: usize, const N: usize>(
        isa: I,
        runs: &[&PanelRun; P],
        part: usize,
        tokens: &[&[QuantizedChunk]; T],
        [c, pair, at]: [usize; 3],
    ) -> [[I::I32; T]; P] {
        let mut lines = [&[[0; 64]; N]; P];
        unrolled!(p < P, {
            lines[p] = &runs[p].codes.as_chunks::<N>().0[part];
        });
        let mut quads = [&[[0; 4]; N]; T];
        unrolled!(t < T, {
            quads[t] = &tokens[t][c].codes[pair].as_chunks::<4>().0.as_chunks::<N>().0[at];
        });
        isa.dot_lines(Self::RANGE, lines, quads)
    }

    /// All panels, `P` at a time, times `T` tokens from `first` on.
    #[inline(always)]
    fn tile<I: Isa, const T: usize, const P: usize>(&mut self, isa: I, first: usize) {
        let mut tokens = [&[][..]; T];
        for t in 0..T {
            tokens[t] = &self.x[(first + t) * self.stride..][..self.stride];
        }
        let mut groups = self.panels.chunks_exact(P * self.runs);
        let mut column = 0;
        for group in &mut groups {
            let mut panels = [&[][..]; P];
            for p in 0..P {
                panels[p] = &group[p * self.runs..][..self.runs];
            }
            Self::panels(isa, panels, &tokens, &mut self.out, first, column);
            column += P * ROWS;
        }
        for panel in groups.remainder().chunks_exact(self.runs) {
            Self::panels(isa, [panel], &tokens, &mut self.out, first, column);
            column += ROWS;
        }
    }

    /// `P` panels of the same length times `T` tokens, into rows `first ..` and columns `column ..` of `out`.
    #[inline(always)]
    fn panels<I: Isa, const T: usize, const P: usize>(
        isa: I,
        panels: [&[PanelRun]; P],
        tokens: &[&[QuantizedChunk]; T],
        out: &mut MatrixMut<'_>,
        first: usize,
        column: usize,
    ) {
        let mut acc = [[isa.splat(0.0); T]; P];
        for (c, first_runs) in panels[0].chunks(CHUNK / 32).enumerate() {
            let mut chunk = [first_runs; P];
            for p in 1..P {
                chunk[p] = &panels[p][c * (CHUNK / 32)..][..first_runs.len()];
            }
            for (g, first_run) in first_runs.iter().enumerate() {
                let mut runs = [first_run; P];
                for p in 1..P {
                    runs[p] = &chunk[p][g];
                }
                let groups = 32 / GROUP;
                for part in 0..groups {
                    let at = groups * (g % 2) + part;
                    let sums = if GROUP == 16 {
                        Self::sums::<I, T, P, 4>(isa, &runs, part, tokens, [c, g / 2, at])
                    } else {
                        Self::sums::<I, T, P, 8>(isa, &runs, part, tokens, [c, g / 2, at])
                    };
                    let at = groups * g + part;
                    unrolled!(p < P, {
                        let scale = isa.load_f32(&runs[p].scale[part]);
                        let offset = isa.load_f32(&runs[p].offset[part]);
                        unrolled!(t < T, {
                            let x = &tokens[t][c];
                            let x_sum = if GROUP == 16 { x.half_sum[at] } else { x.sum[at] };
                            let scale = isa.mul(scale, isa.splat(x.scale[g]));
                            acc[p][t] = isa.mul_add(isa.to_f32(sums[p][t]), scale, acc[p][t]);
                            if OFFSET {
                                acc[p][t] = isa.mul_add(offset, isa.splat(x_sum), acc[p][t]);
                            }
                        });
                    });
                }
            }
        }
        for t in 0..T {
            let row = out.row_mut(first + t);
            for p in 0..P {
                let at = (column + p * ROWS).min(row.len());
                let row = &mut row[at..];
                if let Some(line) = row.first_chunk_mut::<ROWS>() {
                    isa.store_f32(acc[p][t], line);
                } else {
                    let mut line = [0.0; ROWS];
                    isa.store_f32(acc[p][t], &mut line);
                    let len = row.len();
                    row.copy_from_slice(&line[..len]);
                }
            }
        }
    }
}

impl<Q: Quant> Op for MatMul<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, out: mut rest, panel, .. } = self;
        if const { I::COMPACT && !Q::COMMON } {
            let unpacker = Unpacker::of::<Q>();
            return isa.call(unpacked::MatMul { unpacker, weights, x, out: rest, panel });
        }
        let stride = chunks(weights.columns);
        let runs = panel.len() / PANELS;
        for first in (0..weights.rows).step_by(PANELS * ROWS) {
            let rows = (PANELS * ROWS).min(weights.rows - first);
            let panels = &mut panel[..rows.div_ceil(ROWS) * runs];
            for (i, panel) in panels.chunks_exact_mut(runs).enumerate() {
                Self::unpack(isa, weights, first + i * ROWS, panel);
            }
            let (out, others) = rest.split_columns(rows);
            rest = others;
            let panels = &*panels;
            let offset = Q::OFFSET || bias_and_zero::<I, Q>().1 != 0;
            macro_rules! tiles {
                ($group:literal, $offset:literal) => {
                    match range::<I, Q>() {
                        CodeRange::Signed => {
                            isa.call(Tiles::<$group, $offset, true, false> { panels, runs, x, stride, out })
                        }
                        CodeRange::Nibble => {
                            isa.call(Tiles::<$group, $offset, false, true> { panels, runs, x, stride, out })
                        }
                        CodeRange::Unsigned => {
                            isa.call(Tiles::<$group, $offset, false, false> { panels, runs, x, stride, out })
                        }
                    }
                };
            }
            match (Q::GROUP, offset) {
                (16, false) => tiles!(16, false),
                (16, true) => tiles!(16, true),
                (_, false) => tiles!(32, false),
                (_, true) => tiles!(32, true),
            }
        }
    }
}
