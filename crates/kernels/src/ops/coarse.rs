//! Products with a matrix that is kept in a few bits a weight, to guess what the whole product would be.
//!
//! The first columns are *fine*, in 4 bits, all others *rough*, in 2 bits. A code `c` of `b` bits stands for
//! `c + ½ - 2^(b-1)`, times a scale that each row has for either kind; columns are expected to be of about one size. Rows
//! lie in panels of 16, so that no sum goes across a vector: a line of a panel holds four neighbouring columns, a *quad*,
//! of each row, two quads on top of each other in 4 bits and four in 2 bits.

use crate::format::float::{f16_to_f32, f32_to_f16};
use crate::format::quantize::round;
use crate::isa::{Isa, IsaKind, LANES, Op, unrolled};

/// Columns of either kind come in multiples of this: a whole number of lines.
const GROUP: usize = 32;

/// Bits of a fine code, and of a rough one.
const BITS: [usize; 2] = [4, 2];

/// The best step of evenly spaced codes for numbers of size 1 that are spread like a bell (Max 1960, table I).
const STEPS: [f32; 2] = [0.335, 0.996];

/// Rounds of fitting a scale to the codes, and codes to the scale.
const ROUNDS: usize = 4;

/// Panels that are multiplied side by side.
const PANELS: usize = 2;

/// How many panels ahead one is asked for.
const AHEAD: usize = 1;

/// How a matrix of a few bits a weight is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoarseLayout {
    fine: usize,
    rough: usize,
}

impl CoarseLayout {
    /// So many columns of either kind; `None` unless both are multiples of 32, of at most 65536, and there is a column.
    pub fn new(fine: usize, rough: usize) -> Option<Self> {
        let whole = fine.is_multiple_of(GROUP) && rough.is_multiple_of(GROUP);
        // Sums of that many products stay below 2^31.
        let small = fine.max(rough) <= 1 << 16;
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

/// What a [`CoarseLayout`] is multiplied with, besides the codes of the activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoarseScales {
    /// Of the activations of fine columns, and of rough ones.
    scale: [f32; 2],
    /// What the middle of the weights' codes takes from the sum over all columns of a kind, before scales of rows.
    start: [f32; 2],
}

impl CoarseLayout {
    /// Rounds one token's activations to 8 bits, with one scale for the columns of either kind.
    ///
    /// Panics unless both lengths are the number of columns.
    pub fn quantize(&self, x: &[f32], codes: &mut [u8]) -> CoarseScales {
        assert_eq!((x.len(), codes.len()), (self.columns(), self.columns()));
        let (fine, rough) = x.split_at(self.fine);
        let (fine_codes, rough_codes) = codes.split_at_mut(self.fine);
        let mut scales = CoarseScales { scale: [0.0; 2], start: [0.0; 2] };
        for (kind, (x, codes)) in [(fine, fine_codes), (rough, rough_codes)].into_iter().enumerate() {
            let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let inverse = if largest > 1e-30 { 127.0 / largest } else { 0.0 };
            let mut sum = 0;
            for (code, x) in codes.iter_mut().zip(x) {
                let rounded = round(x * inverse);
                sum += i32::from(rounded);
                *code = rounded as u8;
            }
            scales.scale[kind] = largest / 127.0;
            scales.start[kind] = largest / 127.0 * sum as f32 * (0.5 - (1 << (BITS[kind] - 1)) as f32);
        }
        scales
    }
}

/// `out[r] = bias[r] + matrix[r] · x` for rows from the first of `panels` on, and `x` as [`CoarseLayout::quantize`] made it.
///
/// Panics if the lengths do not agree.
pub fn coarse_product(
    isa: IsaKind,
    layout: CoarseLayout,
    panels: &[u8],
    (codes, scales): (&[u8], CoarseScales),
    bias: &[f32],
    out: &mut [f32],
) {
    assert_eq!((codes.len(), bias.len()), (layout.columns(), out.len()));
    assert_eq!(Some(panels.len()), layout.bytes(out.len()));
    isa.run(CoarseProduct { layout, panels, codes, scales, bias, out });
}

struct CoarseProduct<'a> {
    layout: CoarseLayout,
    panels: &'a [u8],
    codes: &'a [u8],
    scales: CoarseScales,
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl<'a> CoarseProduct<'a> {
    /// The sums of `P` panels over fine columns, and over rough ones, without the scales of rows.
    #[inline(always)]
    fn sums<I: Isa, const P: usize>(
        &self,
        isa: I,
        lines: [&'a [[u8; 64]]; P],
        ahead: [usize; P],
    ) -> [[I::F32; 2]; P] {
        let fine_lines = self.layout.fine / GROUP * BITS[0];
        let (fine, rough) = self.codes.split_at(self.layout.fine);
        let mut fine_sums = [[isa.splat_i32(0); 2]; P];
        let mask = isa.splat_byte(0x0f);
        for (l, quads) in fine.as_chunks::<4>().0.as_chunks::<2>().0.iter().enumerate() {
            let x = quads.each_ref().map(|quad| isa.splat4(quad));
            unrolled!(p < P, {
                isa.prefetch(self.panels, ahead[p] + 64 * (1 + l));
                let v = isa.load(&lines[p][1 + l]);
                let codes = [v, isa.shift_right::<4>(v)].map(|codes| isa.and(codes, mask));
                unrolled!(k in 0 1, { fine_sums[p][k] = isa.dot_unsigned(fine_sums[p][k], codes[k], x[k]) });
            });
        }
        // Codes stay where they are in their byte, as far as that leaves them below 64, so that there are sums of codes,
        // of four times, and of sixteen times the codes.
        let mut rough_sums = [[isa.splat_i32(0); 3]; P];
        let masks = [0x03, 0x0c, 0x30].map(|mask| isa.splat_byte(mask));
        for (l, quads) in rough.as_chunks::<4>().0.as_chunks::<4>().0.iter().enumerate() {
            let x = quads.each_ref().map(|quad| isa.splat4(quad));
            unrolled!(p < P, {
                isa.prefetch(self.panels, ahead[p] + 64 * (1 + fine_lines + l));
                let v = isa.load(&lines[p][1 + fine_lines + l]);
                let last = isa.and(isa.shift_right::<4>(v), masks[1]);
                unrolled!(k in 0 1 2, {
                    let codes = isa.and(v, masks[k]);
                    rough_sums[p][k] = isa.dot_unsigned(rough_sums[p][k], codes, x[k]);
                });
                rough_sums[p][1] = isa.dot_unsigned(rough_sums[p][1], last, x[3]);
            });
        }
        let [fine_scale, rough_scale] = self.scales.scale;
        let mut sums = [self.scales.start.map(|start| isa.splat(start)); P];
        for p in 0..P {
            let [fine, rough] = &mut sums[p];
            let scaled =
                |sum: I::I32, scale: f32, to: I::F32| isa.mul_add(isa.to_f32(sum), isa.splat(scale), to);
            unrolled!(k in 0 1, { *fine = scaled(fine_sums[p][k], fine_scale, *fine) });
            unrolled!(k in 0 1 2, {
                *rough = scaled(rough_sums[p][k], rough_scale / (1 << (2 * k)) as f32, *rough);
            });
        }
        sums
    }

    /// `P` panels.
    #[inline(always)]
    fn panels<I: Isa, const P: usize>(&mut self, isa: I, panels: [usize; P]) {
        let panel_bytes = self.layout.panel_bytes();
        let lines: [&'a [[u8; 64]]; P] =
            panels.map(|panel| self.panels[panel * panel_bytes..][..panel_bytes].as_chunks::<64>().0);
        let sums = self.sums(isa, lines, panels.map(|panel| (panel + AHEAD) * panel_bytes));
        for p in 0..P {
            let first = panels[p] * LANES;
            let rows = LANES.min(self.out.len() - first);
            let scales = lines[p][0].as_chunks::<2>().0;
            let mut line = [0.0; LANES];
            line[..rows].copy_from_slice(&self.bias[first..][..rows]);
            let mut sum = isa.load_f32(&line);
            for (kind, product) in sums[p].into_iter().enumerate() {
                let mut halves = [0; LANES];
                for (half, bytes) in halves.iter_mut().zip(&scales[kind * LANES..]) {
                    *half = u16::from_le_bytes(*bytes);
                }
                sum = isa.mul_add(product, isa.load_f16(&halves), sum);
            }
            isa.store_f32(sum, &mut line);
            self.out[first..][..rows].copy_from_slice(&line[..rows]);
        }
    }
}

impl Op for CoarseProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let panels = self.out.len().div_ceil(LANES);
        // Panels that stand apart share the activations, where there are registers for them: memory delivers several runs
        // side by side faster than one.
        let steps = if I::COMPACT { 0 } else { panels / PANELS };
        for step in 0..steps {
            self.panels::<I, PANELS>(isa, core::array::from_fn(|p| step + p * steps));
        }
        for panel in PANELS * steps..panels {
            self.panels::<I, 1>(isa, [panel]);
        }
    }
}
