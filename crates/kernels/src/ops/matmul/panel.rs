//! Quantized matrix × many vectors: 16 rows at a time, unpacked once and multiplied with all tokens.

use core::marker::PhantomData;

use super::{Weights, bias_and_zero, biased, dot, is_signed};
use crate::format::{CHUNK, Quant};
use crate::isa::{Isa, Op};
use crate::ops::{MatrixMut, QuantizedChunk, chunks};

/// Rows in a panel: one a lane.
const ROWS: usize = 16;

/// Panels that are unpacked before tokens pass by: the tokens of a tile stay in the first cache for all of them, while
/// the panels stay in the second.
pub(super) const PANELS: usize = 4;

/// 32 columns of a panel: line `q` holds columns `4 q .. 4 q + 4` of each of the 16 rows.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PanelRun {
    codes: [[u8; 64]; 8],
    /// One vector of 16 rows for each group: two groups of 16, or one of 32 (the second unused).
    scale: [[f32; ROWS]; 2],
    /// As `scale`; the code that stands for zero is taken off here too.
    offset: [[f32; ROWS]; 2],
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

    /// Unpacks rows `first ..`, at most 16, into the panel.
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

/// A loop over `0..T` that is unrolled whatever the compiler thinks of its size: sums that are indexed in a rolled loop
/// live in memory instead of registers.
macro_rules! unrolled {
    ($t:ident < $n:ident, $body:block) => {
        unrolled!(@ $t < $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $t:ident < $n:ident, $body:block, $($i:literal)+) => {
        const { assert!($n <= 16) };
        $(if $i < $n {
            let $t = $i;
            $body
        })+
    };
}

/// Panels times all tokens. It knows of the format only what changes the arithmetic, so formats share its code.
struct Tiles<'a, const GROUP: usize, const OFFSET: bool, const SIGNED: bool> {
    panels: &'a [PanelRun],
    /// Length of a panel.
    runs: usize,
    x: &'a [QuantizedChunk],
    stride: usize,
    out: MatrixMut<'a>,
}

impl<const GROUP: usize, const OFFSET: bool, const SIGNED: bool> Op for Tiles<'_, GROUP, OFFSET, SIGNED> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let tokens = self.out.rows();
        let mut t = 0;
        while t + I::TOKENS <= tokens {
            match I::TOKENS {
                1 => self.tile::<I, 1>(isa, t),
                2 => self.tile::<I, 2>(isa, t),
                4 => self.tile::<I, 4>(isa, t),
                _ => self.tile::<I, 12>(isa, t),
            }
            t += I::TOKENS;
        }
        while I::TOKENS > 4 && t + 4 <= tokens {
            self.tile::<I, 4>(isa, t);
            t += 4;
        }
        while t < tokens {
            self.tile::<I, 1>(isa, t);
            t += 1;
        }
    }
}

impl<const GROUP: usize, const OFFSET: bool, const SIGNED: bool> Tiles<'_, GROUP, OFFSET, SIGNED> {
    /// All panels times `T` tokens from `first` on.
    #[inline(always)]
    fn tile<I: Isa, const T: usize>(&mut self, isa: I, first: usize) {
        let mut tokens = [&[][..]; T];
        for t in 0..T {
            tokens[t] = &self.x[(first + t) * self.stride..][..self.stride];
        }
        for (i, panel) in self.panels.chunks_exact(self.runs).enumerate() {
            Self::panel(isa, panel, &tokens, &mut self.out, first, i * ROWS);
        }
    }

    /// A panel times `T` tokens, into rows `first ..` and columns `column ..` of `out`.
    #[inline(always)]
    fn panel<I: Isa, const T: usize>(
        isa: I,
        panel: &[PanelRun],
        tokens: &[&[QuantizedChunk]; T],
        out: &mut MatrixMut<'_>,
        first: usize,
        column: usize,
    ) {
        let mut acc = [isa.splat(0.0); T];
        for (c, runs) in panel.chunks(CHUNK / 32).enumerate() {
            for (g, run) in runs.iter().enumerate() {
                let groups = 32 / GROUP;
                for part in 0..groups {
                    let mut sums = [isa.splat_i32(0); T];
                    for q in part * (GROUP / 4)..(part + 1) * (GROUP / 4) {
                        let line = isa.load(&run.codes[q]);
                        unrolled!(t < T, {
                            let quads = tokens[t][c].codes[g / 2].as_chunks::<4>().0;
                            sums[t] =
                                dot::<I, SIGNED>(isa, sums[t], line, isa.splat4(&quads[8 * (g % 2) + q]));
                        });
                    }
                    let at = groups * g + part;
                    let (scale, offset) = (isa.load_f32(&run.scale[part]), isa.load_f32(&run.offset[part]));
                    unrolled!(t < T, {
                        let x = &tokens[t][c];
                        let x_sum = if GROUP == 16 { x.half_sum[at] } else { x.sum[at] };
                        let scale = isa.mul(scale, isa.splat(x.scale[g]));
                        acc[t] = isa.mul_add(isa.to_f32(sums[t]), scale, acc[t]);
                        if OFFSET {
                            acc[t] = isa.mul_add(offset, isa.splat(x_sum), acc[t]);
                        }
                    });
                }
            }
        }
        for t in 0..T {
            let row = &mut out.row_mut(first + t)[column..];
            if let Some(line) = row.first_chunk_mut::<ROWS>() {
                isa.store_f32(acc[t], line);
            } else {
                let mut line = [0.0; ROWS];
                isa.store_f32(acc[t], &mut line);
                let len = row.len();
                row.copy_from_slice(&line[..len]);
            }
        }
    }
}

impl<Q: Quant> Op for MatMul<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, out: mut rest, panel, .. } = self;
        let stride = chunks(weights.columns);
        let runs = panel.len() / PANELS;
        for first in (0..weights.rows).step_by(PANELS * ROWS) {
            let rows = (PANELS * ROWS).min(weights.rows - first);
            let panels = &mut panel[..rows.div_ceil(ROWS) * runs];
            for (i, panel) in panels.chunks_exact_mut(runs).enumerate() {
                Self::unpack(isa, weights, first + i * ROWS, panel);
            }
            let (columns, others) = rest.split_columns(rows);
            rest = others;
            let panels = &*panels;
            let offset = Q::OFFSET || bias_and_zero::<I, Q>().1 != 0;
            macro_rules! tiles {
                ($group:literal, $offset:literal, $signed:literal) => {
                    isa.call(Tiles::<$group, $offset, $signed> { panels, runs, x, stride, out: columns })
                };
            }
            match (Q::GROUP, offset, is_signed::<Q>()) {
                (16, false, false) => tiles!(16, false, false),
                (16, false, true) => tiles!(16, false, true),
                (16, true, false) => tiles!(16, true, false),
                (16, true, true) => tiles!(16, true, true),
                (_, false, false) => tiles!(32, false, false),
                (_, false, true) => tiles!(32, false, true),
                (_, true, false) => tiles!(32, true, false),
                (_, true, true) => tiles!(32, true, true),
            }
        }
    }
}
