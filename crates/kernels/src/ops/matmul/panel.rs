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

/// 32 columns of a panel: line `q` holds columns `4 q .. 4 q + 4` of each of the 16 rows. Where codes are
/// [widened](Isa::WIDE) there are two of these, with the even columns as words and the odd ones.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PanelRun {
    pub(super) codes: [[u8; 64]; 8],
    /// One vector of 16 rows for each group: two groups of 16, or one of 32 (the second unused).
    pub(super) scale: [[f32; ROWS]; 2],
    /// As `scale`; the code that stands for zero is taken off here too, unless sums [start](starts) from that.
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
        let zero = if starts::<I, Q>() { 0.0 } else { f32::from(bias_and_zero::<I, Q>().1) };
        let width = width::<I>(panel_range::<I, Q>());
        let mut lines = [[0; 64]; ROWS];
        for (c, runs) in panel.chunks_mut(CHUNK / 32 * width).enumerate() {
            let start = c * chunk_bytes;
            let end = (start + chunk_bytes).min(weights.row_bytes);
            for r in 0..rows {
                weights.prefetch(isa, first + ROWS + r, start..end);
                let (first, second) = Q::scale_vectors(isa, &weights.row(first + r)[start..end]);
                let mut lanes = [[0.0; 16]; 2];
                isa.store_f32(first, &mut lanes[0]);
                isa.store_f32(second, &mut lanes[1]);
                for (g, run) in runs.iter_mut().step_by(width).enumerate() {
                    for part in 0..32 / Q::GROUP {
                        // The scale in one vector and the offset in the other, or both side by side in one.
                        let (scale, offset) = match Q::GROUP {
                            16 => (lanes[0][2 * g + part], lanes[1][2 * g + part]),
                            _ => (lanes[0][2 * g], lanes[0][2 * g + 1]),
                        };
                        run.scale[part][r] = scale;
                        run.offset[part][r] = if Q::OFFSET { offset } else { 0.0 } - scale * zero;
                    }
                }
            }
            for (pair, runs) in runs.chunks_exact_mut(2 * width).enumerate() {
                for r in 0..rows {
                    let codes = Q::unpack(isa, &weights.row(first + r)[start..end], pair);
                    isa.store(biased::<I, Q>(isa, codes), &mut lines[r]);
                }
                let mut quads = [[0; 64]; 16];
                isa.transpose_quads(&lines, &mut quads);
                place(isa, &quads, runs);
            }
        }
    }
}

/// [`range`], where panels are multiplied.
#[inline(always)]
const fn panel_range<I: Isa, Q: Quant>() -> CodeRange {
    match range::<I, Q>() {
        // As words all codes have a sign.
        CodeRange::Unsigned if I::WIDE_UNSIGNED => CodeRange::Signed,
        range => range,
    }
}

/// How many [`PanelRun`]s hold 32 columns of such codes.
#[inline(always)]
pub(super) const fn width<I: Isa>(range: CodeRange) -> usize {
    if I::WIDE && matches!(range, CodeRange::Signed) { 2 } else { 1 }
}

/// Whether sums of codes of `Q` start from what takes off the code of zero, rather than that offsets do: groups of 16 have
/// many of those.
#[inline(always)]
const fn starts<I: Isa, Q: Quant>() -> bool {
    Q::GROUP == 16 && !Q::OFFSET && !matches!(panel_range::<I, Q>(), CodeRange::Signed)
}

/// The lines of 64 columns.
#[inline(always)]
pub(super) fn place<I: Isa>(isa: I, lines: &[[u8; 64]; 16], runs: &mut [PanelRun]) {
    for (lines, runs) in lines.as_chunks::<8>().0.iter().zip(runs.chunks_exact_mut(runs.len() / 2)) {
        match runs {
            [even, odd] => {
                for (q, line) in lines.iter().enumerate() {
                    let words = isa.widen_pairs(isa.load(line));
                    isa.store(words[0], &mut even.codes[q]);
                    isa.store(words[1], &mut odd.codes[q]);
                }
            }
            runs => runs[0].codes = *lines,
        }
    }
}

/// What [`Tiles`] multiplies.
pub(super) struct Operands<'a> {
    pub(super) panels: &'a [PanelRun],
    /// Length of a panel.
    pub(super) runs: usize,
    pub(super) x: &'a [QuantizedChunk],
    /// Chunks of a token.
    pub(super) stride: usize,
    /// Where codes are widened, memory for the tokens of a tile, a run for each of their chunks.
    pub(super) words: &'a mut [PanelRun],
    /// What sums start from is the code of zero times the sum of the token's codes, negative.
    pub(super) zero: i32,
    pub(super) out: MatrixMut<'a>,
}

/// Panels times all tokens. It knows of the format only what changes the arithmetic, so formats share its code.
pub(super) struct Tiles<'a, const GROUP: usize, const OFFSET: bool, const SIGNED: bool, const NIBBLE: bool>(
    pub(super) Operands<'a>,
);

impl<const GROUP: usize, const OFFSET: bool, const SIGNED: bool, const NIBBLE: bool> Op
    for Tiles<'_, GROUP, OFFSET, SIGNED, NIBBLE>
{
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let tokens = self.0.out.rows();
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
    /// its `at`-th `N` quads, and what they `start` from.
    #[inline(always)]
    fn sums<I: Isa, const T: usize, const P: usize, const N: usize>(
        isa: I,
        runs: &[[&PanelRun; P]; 2],
        part: usize,
        tokens: &[&[QuantizedChunk]; T],
        words: &[PanelRun],
        [c, pair, at]: [usize; 3],
        start: [I::I32; T],
    ) -> [[I::I32; T]; P] {
        let width = width::<I>(Self::RANGE);
        let mut sums = [start; P];
        unrolled!(half in 0 1, {
            if half < width {
                let mut lines = [&[[0; 64]; N]; P];
                unrolled!(p < P, {
                    lines[p] = &runs[half][p].codes.as_chunks::<N>().0[part];
                });
                let mut quads = [&[[0; 4]; N]; T];
                unrolled!(t < T, {
                    let codes = match width {
                        1 => &tokens[t][c].codes[pair],
                        _ => &words[t * tokens[t].len() + c].codes[2 * pair + half],
                    };
                    quads[t] = &codes.as_chunks::<4>().0.as_chunks::<N>().0[at];
                });
                let range = if width == 1 { Self::RANGE } else { CodeRange::Words };
                sums = isa.dot_lines(range, lines, quads, sums);
            }
        });
        sums
    }

    /// All panels, `P` at a time, times `T` tokens from `first` on.
    #[inline(always)]
    fn tile<I: Isa, const T: usize, const P: usize>(&mut self, isa: I, first: usize) {
        let Operands { panels, runs, x, stride, ref mut words, zero, ref mut out } = self.0;
        let mut tokens = [&[][..]; T];
        for t in 0..T {
            tokens[t] = &x[(first + t) * stride..][..stride];
        }
        if width::<I>(Self::RANGE) == 2 {
            for (words, tokens) in words.chunks_exact_mut(stride).zip(tokens) {
                for (words, x) in words.iter_mut().zip(tokens) {
                    for (words, codes) in words.codes.as_chunks_mut::<2>().0.iter_mut().zip(&x.codes) {
                        let [even, odd] = isa.widen_pairs(isa.load(codes));
                        isa.store(even, &mut words[0]);
                        isa.store(odd, &mut words[1]);
                    }
                }
            }
        }
        let mut groups = panels.chunks_exact(P * runs);
        let mut column = 0;
        for group in &mut groups {
            let mut panels = [&[][..]; P];
            for p in 0..P {
                panels[p] = &group[p * runs..][..runs];
            }
            Self::panels(isa, panels, &tokens, words, zero, out, [first, column]);
            column += P * ROWS;
        }
        for panel in groups.remainder().chunks_exact(runs) {
            Self::panels(isa, [panel], &tokens, words, zero, out, [first, column]);
            column += ROWS;
        }
    }

    /// `P` panels of the same length times `T` tokens, into rows `first ..` and columns `column ..` of `out`.
    #[inline(always)]
    fn panels<I: Isa, const T: usize, const P: usize>(
        isa: I,
        panels: [&[PanelRun]; P],
        tokens: &[&[QuantizedChunk]; T],
        words: &[PanelRun],
        zero: i32,
        out: &mut MatrixMut<'_>,
        [first, column]: [usize; 2],
    ) {
        let width = width::<I>(Self::RANGE);
        let mut acc = [[isa.splat(0.0); T]; P];
        for (c, first_runs) in panels[0].chunks(CHUNK / 32 * width).enumerate() {
            let mut chunk = [first_runs; P];
            for p in 1..P {
                chunk[p] = &panels[p][c * (CHUNK / 32 * width)..][..first_runs.len()];
            }
            let (mut starts, mut x_sums) = (None, None);
            if GROUP == 16 && OFFSET {
                let x_sums = x_sums.insert([[0.0; CHUNK / 16]; T]);
                for t in 0..T {
                    isa.store_f32(tokens[t][c].half_sums(isa), &mut x_sums[t]);
                }
            } else if GROUP == 16 && !SIGNED {
                let starts = starts.insert([[0; CHUNK / 16]; T]);
                for t in 0..T {
                    starts[t] = tokens[t][c].code_sums_times(-zero);
                }
                // In memory, from where they are spread; in registers they would have to be taken apart.
                core::hint::black_box(starts);
            }
            for (g, first_run) in first_runs.iter().step_by(width).enumerate() {
                let mut runs = [[first_run; P]; 2];
                for p in 1..P {
                    runs[0][p] = &chunk[p][g * width];
                }
                if width == 2 {
                    for p in 0..P {
                        runs[1][p] = &chunk[p][2 * g + 1];
                    }
                }
                let groups = 32 / GROUP;
                for part in 0..groups {
                    let mut start = [isa.splat_i32(0); T];
                    if let Some(starts) = &starts {
                        unrolled!(t < T, {
                            start[t] = isa.splat_i32(starts[t][2 * g + part]);
                        });
                    }
                    let at = groups * (g % 2) + part;
                    let sums = if GROUP == 16 {
                        Self::sums::<I, T, P, 4>(isa, &runs, part, tokens, words, [c, g / 2, at], start)
                    } else {
                        Self::sums::<I, T, P, 8>(isa, &runs, part, tokens, words, [c, g / 2, at], start)
                    };
                    unrolled!(p < P, {
                        let scale = isa.load_f32(&runs[0][p].scale[part]);
                        let offset = isa.load_f32(&runs[0][p].offset[part]);
                        unrolled!(t < T, {
                            let x = &tokens[t][c];
                            let scale = isa.mul(scale, isa.splat(x.scale[g]));
                            acc[p][t] = isa.mul_add(isa.to_f32(sums[p][t]), scale, acc[p][t]);
                            if OFFSET {
                                let x_sum = match &x_sums {
                                    Some(x_sums) => x_sums[t][2 * g + part],
                                    None => x.sum[g],
                                };
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
        let runs = weights.columns.div_ceil(64) * 2 * width::<I>(panel_range::<I, Q>());
        let (panel, words) = panel.split_at_mut(PANELS * runs);
        for first in (0..weights.rows).step_by(PANELS * ROWS) {
            let rows = (PANELS * ROWS).min(weights.rows - first);
            let panels = &mut panel[..rows.div_ceil(ROWS) * runs];
            for (i, panel) in panels.chunks_exact_mut(runs).enumerate() {
                Self::unpack(isa, weights, first + i * ROWS, panel);
            }
            let (out, others) = rest.split_columns(rows);
            rest = others;
            let zero = bias_and_zero::<I, Q>().1;
            let operands = Operands { panels, runs, x, stride, words, zero: i32::from(zero), out };
            macro_rules! tiles {
                ($group:literal, $offset:literal) => {
                    match panel_range::<I, Q>() {
                        CodeRange::Signed => isa.call(Tiles::<$group, $offset, true, false>(operands)),
                        CodeRange::Nibble => isa.call(Tiles::<$group, $offset, false, true>(operands)),
                        _ => isa.call(Tiles::<$group, $offset, false, false>(operands)),
                    }
                };
            }
            match (Q::GROUP, Q::OFFSET || zero != 0 && !starts::<I, Q>()) {
                (16, false) => tiles!(16, false),
                (16, true) => tiles!(16, true),
                (_, false) => tiles!(32, false),
                (_, true) => tiles!(32, true),
            }
        }
    }
}
