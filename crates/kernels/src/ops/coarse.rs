//! Products with a matrix that is kept in a few bits a weight, to guess what the whole product would be.
//!
//! The first columns are *fine*, in 4 bits, all others *rough*, in 2 bits. A code `c` of `b` bits stands for
//! `c + ½ - 2^(b-1)`, times a scale that each row has for either kind; columns are expected to be of about one size. Rows
//! lie in panels of 16, so that no sum goes across a vector: a line of a panel holds four neighbouring columns, a *quad*,
//! of each row, two quads on top of each other in 4 bits and four in 2 bits.

use super::QuantizedChunk;
use super::quantized::chunks;
use crate::format::CHUNK;
use crate::format::float::{f16_to_f32, f32_to_f16};
use crate::isa::{Isa, IsaKind, LANES, Op, unrolled};

/// Columns that share a scale of the activations.
const GROUP: usize = 32;

/// Bits of a fine code, and of a rough one.
const BITS: [usize; 2] = [4, 2];

/// The best step of evenly spaced codes for numbers of size 1 that are spread like a bell (Max 1960, table I).
const STEPS: [f32; 2] = [0.335, 0.996];

/// Rounds of fitting a scale to the codes, and codes to the scale.
const ROUNDS: usize = 4;

/// How far ahead panels are asked for, in bytes.
const AHEAD: usize = 4096;

/// How a matrix of a few bits a weight is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoarseLayout {
    fine: usize,
    rough: usize,
}

impl CoarseLayout {
    /// So many columns of either kind; `None` unless both are multiples of 32 and there is a column.
    pub fn new(fine: usize, rough: usize) -> Option<Self> {
        let whole = fine.is_multiple_of(GROUP) && rough.is_multiple_of(GROUP);
        let small = fine.max(rough) <= u32::MAX as usize / 8;
        (whole && small && fine + rough > 0).then_some(Self { fine, rough })
    }

    /// Columns of both kinds.
    pub fn columns(&self) -> usize {
        self.fine + self.rough
    }

    /// Bytes of a panel of 16 rows.
    pub fn panel_bytes(&self) -> usize {
        2 * LANES * BITS.len() + LANES * (self.fine * BITS[0] + self.rough * BITS[1]) / 8
    }

    /// Bytes of a matrix, whose last panel is filled up; `None` where that overflows.
    pub fn bytes(&self, rows: usize) -> Option<usize> {
        self.panel_bytes().checked_mul(rows.div_ceil(LANES))
    }

    /// Writes up to 16 rows to a panel. What is lost of column `i` weighs `weights[i]`.
    ///
    /// Panics unless the lengths agree.
    pub fn pack(&self, rows: &[f32], weights: &[f32], panel: &mut [u8]) {
        let columns = self.columns();
        assert!(rows.len().is_multiple_of(columns) && rows.len() <= LANES * columns);
        assert_eq!((weights.len(), panel.len()), (columns, self.panel_bytes()));
        panel.fill(0);
        let (scales, lines) = panel.split_at_mut(2 * LANES * BITS.len());
        let (fine_lines, rough_lines) = lines.split_at_mut(LANES * self.fine * BITS[0] / 8);
        let (fine_scales, rough_scales) = scales.split_at_mut(2 * LANES);
        for (r, row) in rows.chunks_exact(columns).enumerate() {
            let (fine, rough) = row.split_at(self.fine);
            let (fine_weights, rough_weights) = weights.split_at(self.fine);
            let kinds = [
                (fine, fine_weights, &mut *fine_scales, &mut *fine_lines),
                (rough, rough_weights, &mut *rough_scales, &mut *rough_lines),
            ];
            for (kind, (row, weights, scales, lines)) in kinds.into_iter().enumerate() {
                let (bits, scale) = (BITS[kind], fit(row, weights, BITS[kind], STEPS[kind]));
                scales[2 * r..][..2].copy_from_slice(&f32_to_f16(scale).to_le_bytes());
                // Codes go by the scale that is kept.
                let scale = f16_to_f32(f32_to_f16(scale));
                for (i, &x) in row.iter().enumerate() {
                    let (quad, per_byte) = (i / 4, 8 / bits);
                    let byte = &mut lines[64 * (quad / per_byte) + 4 * r + i % 4];
                    *byte |= code(x, scale, bits) << (bits * (quad % per_byte));
                }
            }
        }
    }
}

/// The code of a number.
fn code(x: f32, scale: f32, bits: usize) -> u8 {
    let middle = (1 << (bits - 1)) as f32;
    let place = if scale > 0.0 { x / scale + middle } else { middle };
    // What is no number becomes zero.
    place.clamp(0.0, 2.0 * middle - 1.0) as u8
}

/// The scale with the least weighted error, about: the better of two that are reached from what suits a bell, and from
/// what reaches the largest number.
fn fit(row: &[f32], weights: &[f32], bits: usize, step: f32) -> f32 {
    let middle = (1 << (bits - 1)) as f32;
    // The mean size of numbers that are spread like a bell of size 1 is √(2 / π).
    let mean = row.iter().map(|x| x.abs()).sum::<f32>() / row.len().max(1) as f32;
    let largest = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let mut best = (0.0, 0.0);
    for mut scale in [step * 1.2533 * mean, largest / (middle - 0.5)] {
        // What is lost is the size of the row less this.
        let mut kept = 0.0;
        for _ in 0..ROUNDS {
            let (mut along, mut size) = (0.0, 0.0);
            for (&x, &weight) in row.iter().zip(weights) {
                let level = f32::from(code(x, scale, bits)) + 0.5 - middle;
                along += weight * level * x;
                size += weight * level * level;
            }
            if !(size > 0.0 && along > 0.0) {
                break;
            }
            (scale, kept) = (along / size, along / size * along);
        }
        if kept > best.0 {
            best = (kept, scale);
        }
    }
    best.1
}

/// `out[r] = bias[r] + matrix[r] · x` for rows from the first of `panels` on; `x` is filled up with zeros.
///
/// Panics if the lengths do not agree.
pub fn coarse_product(
    isa: IsaKind,
    layout: CoarseLayout,
    panels: &[u8],
    x: &[QuantizedChunk],
    bias: &[f32],
    out: &mut [f32],
) {
    assert_eq!((x.len(), bias.len()), (chunks(layout.columns()), out.len()));
    assert_eq!(Some(panels.len()), layout.bytes(out.len()));
    isa.run(CoarseProduct { layout, panels, x, bias, out });
}

struct CoarseProduct<'a> {
    layout: CoarseLayout,
    panels: &'a [u8],
    x: &'a [QuantizedChunk],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl CoarseProduct<'_> {
    /// The sum over the groups that `lines` hold, from that of column `first` on, without the scale of the rows.
    #[inline(always)]
    fn groups<I: Isa, const BITS: usize>(
        isa: I,
        lines: &[[u8; 64]],
        x: &[QuantizedChunk],
        first: usize,
        start: f32,
    ) -> I::F32 {
        let mask = isa.splat_byte((1 << BITS) - 1);
        let mut sum = isa.splat(start);
        for (g, lines) in lines.chunks_exact(BITS).enumerate() {
            let column = first + GROUP * g;
            let (chunk, at) = (&x[column / CHUNK], column % CHUNK);
            let quads = &chunk.codes.as_flattened()[at..][..GROUP].as_chunks::<4>().0;
            let mut acc = isa.splat_i32(0);
            for (l, line) in lines.iter().enumerate() {
                let v = isa.load(line);
                if BITS == 4 {
                    acc = isa.dot_unsigned(acc, isa.and(v, mask), isa.splat4(&quads[2 * l]));
                    let high = isa.and(isa.shift_right::<4>(v), mask);
                    acc = isa.dot_unsigned(acc, high, isa.splat4(&quads[2 * l + 1]));
                } else {
                    acc = isa.dot_unsigned(acc, isa.and(v, mask), isa.splat4(&quads[4 * l]));
                    unrolled!(k in 1 2 3, {
                        let codes = match k {
                            1 => isa.shift_right::<2>(v),
                            2 => isa.shift_right::<4>(v),
                            _ => isa.shift_right::<6>(v),
                        };
                        acc = isa.dot_unsigned(acc, isa.and(codes, mask), isa.splat4(&quads[4 * l + k]));
                    });
                }
            }
            sum = isa.mul_add(isa.to_f32(acc), isa.splat(chunk.scale[at / GROUP]), sum);
        }
        sum
    }
}

/// What the middle of the codes takes from the sum over some columns.
fn middle(x: &[QuantizedChunk], columns: core::ops::Range<usize>, bits: usize) -> f32 {
    let sums = columns.step_by(GROUP).map(|column| x[column / CHUNK].sum[column % CHUNK / GROUP]);
    sums.sum::<f32>() * (0.5 - (1 << (bits - 1)) as f32)
}

impl Op for CoarseProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { layout, panels, x, bias, out } = self;
        let start = [middle(x, 0..layout.fine, BITS[0]), middle(x, layout.fine..layout.columns(), BITS[1])];
        let panel_bytes = layout.panel_bytes();
        for (p, (out, bias)) in out.chunks_mut(LANES).zip(bias.chunks(LANES)).enumerate() {
            let at = p * panel_bytes;
            for line in (0..panel_bytes).step_by(64) {
                isa.prefetch(panels, at + AHEAD + line);
            }
            let lines = panels[at..][..panel_bytes].as_chunks::<64>().0;
            let (scales, fine_lines) = (lines[0].as_chunks::<2>().0, &lines[1..]);
            let (fine_lines, rough_lines) = fine_lines.split_at(layout.fine / GROUP * BITS[0]);
            let scale = |from: usize| {
                let mut halves = [0; LANES];
                for (half, bytes) in halves.iter_mut().zip(&scales[from..]) {
                    *half = u16::from_le_bytes(*bytes);
                }
                isa.load_f16(&halves)
            };
            let fine = Self::groups::<I, 4>(isa, fine_lines, x, 0, start[0]);
            let rough = Self::groups::<I, 2>(isa, rough_lines, x, layout.fine, start[1]);
            let mut line = [0.0; LANES];
            line[..bias.len()].copy_from_slice(bias);
            let sum = isa.mul_add(fine, scale(0), isa.load_f32(&line));
            isa.store_f32(isa.mul_add(rough, scale(LANES), sum), &mut line);
            out.copy_from_slice(&line[..out.len()]);
        }
    }
}
