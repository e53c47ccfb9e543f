//! Quantized matrix × many vectors: 16 rows at a time, unpacked once and multiplied with all tokens.

use core::marker::PhantomData;

use super::{Weights, bias_and_zero, codes, dot};
use crate::format::{CHUNK, Quant};
use crate::isa::{Isa, Op};
use crate::ops::{MatrixMut, QuantizedChunk, chunks};

/// Rows in a panel: one a lane.
const ROWS: usize = 16;

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

    /// Whether products need an addend.
    #[inline(always)]
    const fn offset<I: Isa>() -> bool {
        Q::OFFSET || bias_and_zero::<I, Q>().1 != 0
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
                let (scale, offset) = Q::scale_vectors(isa, &weights.row(first + r)[start..end]);
                let mut scales = [0.0; 16];
                let mut offsets = [0.0; 16];
                isa.store_f32(scale, &mut scales);
                let offset = if Q::OFFSET { offset } else { isa.splat(0.0) };
                isa.store_f32(isa.sub(offset, isa.mul(scale, isa.splat(f32::from(zero)))), &mut offsets);
                for (g, run) in runs.iter_mut().enumerate() {
                    if Q::GROUP == 16 {
                        run.scale[0][r] = scales[2 * g];
                        run.scale[1][r] = scales[2 * g + 1];
                        run.offset[0][r] = offsets[2 * g];
                        run.offset[1][r] = offsets[2 * g + 1];
                    } else {
                        run.scale[0][r] = scales[g];
                        run.offset[0][r] = offsets[g];
                    }
                }
            }
            for (pair, runs) in runs.chunks_exact_mut(2).enumerate() {
                for r in 0..rows {
                    isa.store(codes::<I, Q>(isa, &weights.row(first + r)[start..end], pair), &mut lines[r]);
                }
                let mut quads = [[0; 64]; 16];
                isa.transpose_quads(&lines, &mut quads);
                runs[0].codes.copy_from_slice(&quads[..8]);
                runs[1].codes.copy_from_slice(&quads[8..]);
            }
        }
    }

    /// The panel times `T` tokens from `first` on.
    #[inline(always)]
    fn tokens<I: Isa, const T: usize>(
        isa: I,
        panel: &[PanelRun],
        x: &[QuantizedChunk],
        stride: usize,
        first: usize,
        out: &mut MatrixMut<'_>,
        column: usize,
    ) {
        let mut tokens = [&[][..]; T];
        for t in 0..T {
            tokens[t] = &x[(first + t) * stride..][..stride];
        }
        let mut acc = [isa.splat(0.0); T];
        for (c, runs) in panel.chunks(CHUNK / 32).enumerate() {
            for (g, run) in runs.iter().enumerate() {
                let mut lines = [isa.splat_byte(0); 8];
                for q in 0..8 {
                    lines[q] = isa.load(&run.codes[q]);
                }
                for t in 0..T {
                    let x = &tokens[t][c];
                    let quads = x.codes[g / 2].as_chunks::<32>().0[g % 2].as_chunks::<4>().0;
                    if Q::GROUP == 16 {
                        for half in 0..2 {
                            let mut sum = isa.splat_i32(0);
                            for q in 4 * half..4 * half + 4 {
                                sum = dot::<I, Q>(isa, sum, lines[q], isa.splat4(&quads[q]));
                            }
                            let scale =
                                isa.mul(isa.load_f32(&run.scale[half]), isa.splat(x.scale16[2 * g + half]));
                            acc[t] = isa.mul_add(isa.to_f32(sum), scale, acc[t]);
                            if Self::offset::<I>() {
                                let sum = isa.splat(x.sum16[2 * g + half]);
                                acc[t] = isa.mul_add(isa.load_f32(&run.offset[half]), sum, acc[t]);
                            }
                        }
                    } else {
                        let mut sum = isa.splat_i32(0);
                        for q in 0..8 {
                            sum = dot::<I, Q>(isa, sum, lines[q], isa.splat4(&quads[q]));
                        }
                        let scale = isa.mul(isa.load_f32(&run.scale[0]), isa.splat(x.scale32[g]));
                        acc[t] = isa.mul_add(isa.to_f32(sum), scale, acc[t]);
                        if Self::offset::<I>() {
                            acc[t] = isa.mul_add(isa.load_f32(&run.offset[0]), isa.splat(x.sum32[g]), acc[t]);
                        }
                    }
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
                row.copy_from_slice(&line[..row.len()]);
            }
        }
    }
}

impl<Q: Quant> Op for MatMul<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, x, mut out, panel, .. } = self;
        let stride = chunks(weights.columns);
        let tokens = out.rows();
        for first in (0..weights.rows).step_by(ROWS) {
            Self::unpack(isa, weights, first, panel);
            let mut t = 0;
            while t + I::TOKENS <= tokens {
                match I::TOKENS {
                    2 => Self::tokens::<I, 2>(isa, panel, x, stride, t, &mut out, first),
                    4 => Self::tokens::<I, 4>(isa, panel, x, stride, t, &mut out, first),
                    8 => Self::tokens::<I, 8>(isa, panel, x, stride, t, &mut out, first),
                    _ => Self::tokens::<I, 16>(isa, panel, x, stride, t, &mut out, first),
                }
                t += I::TOKENS;
            }
            while t + 4 <= tokens && I::TOKENS > 4 {
                Self::tokens::<I, 4>(isa, panel, x, stride, t, &mut out, first);
                t += 4;
            }
            while t < tokens {
                Self::tokens::<I, 1>(isa, panel, x, stride, t, &mut out, first);
                t += 1;
            }
        }
    }
}
