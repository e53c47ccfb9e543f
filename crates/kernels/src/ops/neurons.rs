//! The second matrix of a feed-forward layer by neuron: `out[r] += Σ_n weights[r][n] · h[n]` over some `n`.
//!
//! In a file that matrix is `[outputs, neurons]`, so what one neuron adds lies scattered over all rows. Yet 16 or 32
//! neighbouring neurons share a scale in each row, so a *group* of neurons has one vector of scales, and the codes of
//! each neuron can stand together without any rounding: that is [`NeuronLayout`]. A sum over the neurons of a group is a
//! sum of integers, as it is in the product with the whole matrix.
//!
//! Matrices that are `[neurons, outputs]` in the file, or floats, need no layout: [`add_neurons_f32`].

use super::matmul::Weights;
use super::quantized::QuantizedChunk;
use crate::format::float::f32_to_f16;
use crate::format::quantize::round;
use crate::format::{CHUNK, Codes, Format, Quant, Unpacked, Unpacker, widen};
use crate::isa::{Isa, IsaKind, Op};
use crate::with_quant;

/// Outputs that are computed together: byte `4 i + k` of their codes is output `16 k + i`, so that lane `i` of a dot
/// product with the `k`-th byte alone is output `16 k + i`.
const TILE: usize = 64;

/// How the scales of a group are kept: exactly, in as few bytes as the format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScaleKind {
    /// Half-precision floats.
    Half,
    /// Small integers, times a half-precision float for each chunk of neurons. Where in a block those floats are.
    Nested { scale: usize, offset: usize },
    /// Floats.
    Full,
}

/// How quantized weights `[outputs, neurons]` are laid out by neuron.
///
/// A *section* holds [`CHUNK`] neurons: its groups (the codes of each neuron, then scales, then offsets), and the outer
/// scales. Sections are packed one by one.
#[derive(Clone, Copy, Debug)]
pub struct NeuronLayout {
    format: Format,
    outputs: usize,
    neurons: usize,
    /// Neurons that share scales.
    group: usize,
    /// Whether codes take a byte, not half of one.
    wide: bool,
    signed: bool,
    /// The code of zero.
    zero: u8,
    offset: bool,
    scales: ScaleKind,
}

impl NeuronLayout {
    /// The layout of these weights; `None` where the format is not [quantized](Format::is_quantized), or where
    /// groups of neurons are not whole.
    pub fn new(format: Format, outputs: usize, neurons: usize) -> Option<Self> {
        let scales = match format {
            Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q8_0 | Format::IQ4_NL => {
                ScaleKind::Half
            }
            Format::Q2_K => ScaleKind::Nested { scale: 80, offset: 82 },
            Format::Q3_K => ScaleKind::Nested { scale: 108, offset: 108 },
            Format::Q4_K | Format::Q5_K => ScaleKind::Nested { scale: 0, offset: 2 },
            Format::Q6_K => ScaleKind::Nested { scale: 208, offset: 208 },
            _ => ScaleKind::Full,
        };
        format.row_bytes(neurons)?;
        let layout = with_quant!(format, Q => {
            let (zero, max) = match Q::CODES {
                Codes::Unsigned { zero, max } => (zero, max),
                Codes::Signed => (0, u8::MAX),
            };
            Self {
                format,
                outputs,
                neurons,
                group: Q::GROUP,
                wide: max > 15,
                signed: matches!(Q::CODES, Codes::Signed),
                zero,
                offset: Q::OFFSET,
                scales,
            }
        })?;
        neurons.is_multiple_of(layout.group).then_some(layout)
    }

    /// Outputs, rounded up to what is computed together: the length of what [`add_neurons`] adds to.
    pub fn padded_outputs(&self) -> usize {
        self.outputs.next_multiple_of(TILE)
    }

    /// Number of sections.
    pub fn sections(&self) -> usize {
        self.neurons.div_ceil(CHUNK)
    }

    /// Bytes of all but the last section; the bytes of the last, if it is shorter, are fewer.
    pub fn section_bytes(&self) -> usize {
        self.bytes_of(CHUNK)
    }

    /// Bytes of all sections; `None` where that overflows.
    pub fn bytes(&self) -> Option<usize> {
        let whole = self.section_bytes().checked_mul(self.neurons / CHUNK)?;
        whole.checked_add(match self.neurons % CHUNK {
            0 => 0,
            rest => self.bytes_of(rest),
        })
    }

    /// Bytes that the codes of one neuron take, without scales.
    pub fn neuron_bytes(&self) -> usize {
        if self.wide { self.padded_outputs() } else { self.padded_outputs() / 2 }
    }

    fn scale_bytes(&self) -> usize {
        match self.scales {
            ScaleKind::Half => 2,
            ScaleKind::Nested { .. } => 1,
            ScaleKind::Full => 4,
        }
    }

    fn group_bytes(&self) -> usize {
        let vectors = if self.offset { 2 } else { 1 };
        self.group * self.neuron_bytes() + vectors * self.scale_bytes() * self.padded_outputs()
    }

    fn bytes_of(&self, neurons: usize) -> usize {
        let outer = match (self.scales, self.offset) {
            (ScaleKind::Nested { .. }, true) => 4,
            (ScaleKind::Nested { .. }, false) => 2,
            _ => 0,
        };
        neurons / self.group * self.group_bytes() + outer * self.padded_outputs()
    }

    /// Neurons of a section.
    fn neurons_of(&self, section: usize) -> usize {
        CHUNK.min(self.neurons - section * CHUNK)
    }

    /// Writes one section of the weights to `out`.
    ///
    /// Panics if the weights are others than the layout was made for, or if `out` is not as long as the section.
    pub fn pack(&self, weights: Weights<'_>, section: usize, out: &mut [u8]) {
        assert_eq!(
            (weights.format(), weights.rows(), weights.columns()),
            (self.format, self.outputs, self.neurons)
        );
        assert_eq!(out.len(), self.bytes_of(self.neurons_of(section)));
        let Some(unpacker) = Unpacker::new(self.format) else { return };
        out.fill(0);
        let neurons = self.neurons_of(section);
        let (padded, group_bytes) = (self.padded_outputs(), self.group_bytes());
        let (groups, outer) = out.split_at_mut(neurons / self.group * group_bytes);
        let start = self.format.row_bytes(section * CHUNK).unwrap_or(0);
        let chunk_bytes = self.format.row_bytes(neurons).unwrap_or(0);
        let mut unpacked = Unpacked::ZERO;
        for r in 0..self.outputs {
            let chunk = &weights.row(r)[start..][..chunk_bytes];
            unpacker.unpack(chunk, &mut unpacked);
            let (scales, codes) = (&unpacked.scales, unpacked.codes.as_flattened());
            let (tile, lane) = (r / TILE, 4 * (r % 16) + r % TILE / 16);
            for (g, group) in groups.chunks_exact_mut(group_bytes).enumerate() {
                let (rows, vectors) = group.split_at_mut(self.group * self.neuron_bytes());
                let codes = &codes[g * self.group..];
                for (row, &code) in rows.chunks_exact_mut(self.neuron_bytes()).zip(codes) {
                    if self.wide {
                        row[tile * TILE + lane] = code as u8;
                    } else {
                        row[tile * TILE / 2 + lane % 32] |= (code as u8 & 15) << (4 * (lane / 32));
                    }
                }
                let width = self.scale_bytes();
                let (scale, offset) = vectors.split_at_mut(width * padded);
                let put = |to: &mut [u8], value: f32, outer: Option<usize>| {
                    let to = &mut to[width * r..][..width];
                    match outer {
                        None if width == 2 => to.copy_from_slice(&f32_to_f16(value).to_le_bytes()),
                        None => to.copy_from_slice(&value.to_le_bytes()),
                        Some(at) => {
                            let outer = half(chunk, at);
                            let ratio = value / crate::format::float::f16_to_f32(outer);
                            // Small integers, so that the division is exact; 0 / 0 is a group of zeros.
                            to[0] = if ratio.is_finite() { round(ratio) as u8 } else { 0 };
                        }
                    }
                };
                match self.scales {
                    ScaleKind::Nested { scale: at, offset: offset_at } => {
                        put(scale, scales.scale[g], Some(at));
                        if self.offset {
                            put(offset, scales.offset[g], Some(offset_at));
                        }
                    }
                    _ => {
                        put(scale, scales.scale[g], None);
                        if self.offset {
                            put(offset, scales.offset[g], None);
                        }
                    }
                }
            }
            if let ScaleKind::Nested { scale, offset } = self.scales {
                let (scales, offsets) = outer.split_at_mut(2 * padded);
                scales[2 * r..][..2].copy_from_slice(&half(chunk, scale).to_le_bytes());
                if self.offset {
                    offsets[2 * r..][..2].copy_from_slice(&half(chunk, offset).to_le_bytes());
                }
            }
        }
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// `out[r] += Σ weights[r][n] · h[n]` over the neurons `active` of one section.
///
/// `section` is what [`NeuronLayout::pack`] wrote, and `h` the chunk of 8-bit activations of its neurons; `active` are
/// neurons counted from the section's start, ascending. `out` has [`NeuronLayout::padded_outputs`] entries. Whether a
/// neuron whose activation is zero is among `active` makes no difference to any bit.
///
/// Panics if the shapes do not agree.
pub fn add_neurons(
    isa: IsaKind,
    layout: &NeuronLayout,
    section: &[u8],
    active: &[u8],
    h: &QuantizedChunk,
    out: &mut [f32],
) {
    assert_eq!(out.len(), layout.padded_outputs());
    assert!(active.is_sorted_by(|a, b| a < b));
    match (layout.signed, layout.wide) {
        (true, _) => isa.run(AddNeurons::<true, true> { layout, section, active, h, out }),
        (false, true) => isa.run(AddNeurons::<false, true> { layout, section, active, h, out }),
        (false, false) => isa.run(AddNeurons::<false, false> { layout, section, active, h, out }),
    }
}

struct AddNeurons<'a, const SIGNED: bool, const WIDE: bool> {
    layout: &'a NeuronLayout,
    section: &'a [u8],
    active: &'a [u8],
    h: &'a QuantizedChunk,
    out: &'a mut [f32],
}

impl<const SIGNED: bool, const WIDE: bool> AddNeurons<'_, SIGNED, WIDE> {
    /// The codes of a tile of one neuron, as [`dot`](super::matmul) wants them.
    #[inline(always)]
    fn codes<I: Isa>(isa: I, row: &[u8], tile: usize) -> I::Bytes {
        if WIDE {
            let codes = isa.load(&row.as_chunks::<64>().0[tile]);
            if SIGNED && I::SIGNED_BIAS != 0 { isa.xor(codes, isa.splat_byte(0x80)) } else { codes }
        } else {
            let nibbles = isa.load_twice_shifted(&row.as_chunks::<32>().0[tile], 0, 4);
            isa.and(nibbles, isa.splat_byte(15))
        }
    }

    #[inline(always)]
    fn dot<I: Isa>(isa: I, acc: I::I32, codes: I::Bytes, x: I::Bytes) -> I::I32 {
        if SIGNED && I::SIGNED_BIAS == 0 {
            isa.dot_signed(acc, codes, x)
        } else {
            isa.dot_unsigned(acc, codes, x)
        }
    }
}

/// 16 scales of a group, from output `at` on.
#[inline(always)]
fn scale_line<I: Isa>(isa: I, kind: ScaleKind, group: &[u8], outer: &[u8], at: usize) -> I::F32 {
    match kind {
        ScaleKind::Half => halves(isa, group, at),
        ScaleKind::Nested { .. } => {
            let small = group.as_chunks::<16>().0[at / 16].map(|byte| byte as i8);
            isa.mul(isa.load_i8(&small), halves(isa, outer, at))
        }
        ScaleKind::Full => {
            let mut line = [0.0; 16];
            for (x, bytes) in line.iter_mut().zip(group.as_chunks::<64>().0[at / 16].as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*bytes);
            }
            isa.load_f32(&line)
        }
    }
}

#[inline(always)]
fn halves<I: Isa>(isa: I, bytes: &[u8], at: usize) -> I::F32 {
    let mut line = [0; 16];
    for (x, bytes) in line.iter_mut().zip(bytes.as_chunks::<32>().0[at / 16].as_chunks::<2>().0) {
        *x = u16::from_le_bytes(*bytes);
    }
    isa.load_f16(&line)
}

impl<const SIGNED: bool, const WIDE: bool> Op for AddNeurons<'_, SIGNED, WIDE> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { layout, section, active, h, out } = self;
        let (padded, row_bytes, group_bytes) =
            (layout.padded_outputs(), layout.neuron_bytes(), layout.group_bytes());
        let groups = section.len() / group_bytes;
        let (groups, outer) = section.split_at(groups * group_bytes);
        let (outer_scale, outer_offset) = outer.split_at(outer.len().min(2 * padded));
        let zero = if SIGNED { I::SIGNED_BIAS } else { layout.zero };
        let mut rest = active;
        for (g, group) in groups.chunks_exact(group_bytes).enumerate() {
            let end = (g + 1) * layout.group;
            let (members, later) = rest.split_at(rest.iter().take_while(|&&n| usize::from(n) < end).count());
            rest = later;
            // Each activation alone in each byte of a quad.
            let mut quads = [[[0u8; 4]; 4]; 32];
            let mut rows = [&[][..]; 32];
            let (mut sum, mut count) = (0, 0);
            for &n in members {
                let n = usize::from(n);
                let code = h.codes[n / 64][n % 64];
                if code != 0 {
                    sum += i32::from(code as i8);
                    for k in 0..4 {
                        quads[count][k][k] = code;
                    }
                    rows[count] = &group[n % layout.group * row_bytes..][..row_bytes];
                    count += 1;
                }
            }
            if count == 0 {
                continue;
            }
            let (rows, quads) = (&rows[..count], &quads[..count]);
            let factor = h.scale[g * layout.group / 32];
            let (factor_line, offset_line) = (isa.splat(factor), isa.splat(factor * sum as f32));
            let start = isa.splat_i32(-(i32::from(zero) * sum));
            let vectors = &group[layout.group * row_bytes..];
            let (scale, offset) = vectors.split_at(layout.scale_bytes() * padded);
            for (tile, lines) in out.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let mut acc = [start; 4];
                for (row, quads) in rows.iter().zip(quads) {
                    let codes = Self::codes(isa, row, tile);
                    for k in 0..4 {
                        acc[k] = Self::dot(isa, acc[k], codes, isa.splat4(&quads[k]));
                    }
                }
                for (k, line) in lines.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                    let at = tile * TILE + 16 * k;
                    let scale = isa.mul(scale_line(isa, layout.scales, scale, outer_scale, at), factor_line);
                    let mut sum = isa.mul_add(isa.to_f32(acc[k]), scale, isa.load_f32(line));
                    if layout.offset {
                        let offset = scale_line(isa, layout.scales, offset, outer_offset, at);
                        sum = isa.mul_add(offset, offset_line, sum);
                    }
                    isa.store_f32(sum, line);
                }
            }
        }
    }
}

/// `out += Σ weights[n] · h[n]` over the rows `active` of a matrix `[neurons, outputs]` of any format; `h` has one
/// activation for each of `active`.
///
/// Sums run in the order of `active`. Panics if the shapes do not agree, or if a row is not there.
pub fn add_neurons_f32(isa: IsaKind, weights: Weights<'_>, active: &[u32], h: &[f32], out: &mut [f32]) {
    assert_eq!(active.len(), h.len());
    assert_eq!(out.len(), weights.columns());
    isa.run(AddRows { weights, active, h, out });
}

struct AddRows<'a> {
    weights: Weights<'a>,
    active: &'a [u32],
    h: &'a [f32],
    out: &'a mut [f32],
}

/// Rows that are added together.
const ROWS: usize = 4;

impl Op for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { weights, active, h, out } = self;
        let format = weights.format();
        let mut lines = [[0.0; CHUNK]; ROWS];
        for (active, h) in active.chunks(ROWS).zip(h.chunks(ROWS)) {
            for (c, out) in out.chunks_mut(CHUNK).enumerate() {
                let start = format.row_bytes(c * CHUNK).unwrap_or(0);
                let len = format.row_bytes(out.len()).unwrap_or(0);
                for (line, &n) in lines.iter_mut().zip(active) {
                    widen(isa, format, &weights.row(n as usize)[start..][..len], &mut line[..out.len()]);
                }
                let whole = out.len() / 16 * 16;
                let (out_lines, out_rest) = out.as_chunks_mut::<16>();
                for (i, out) in out_lines.iter_mut().enumerate() {
                    let mut sum = isa.load_f32(out);
                    for (line, &h) in lines.iter().zip(h) {
                        sum = isa.mul_add(isa.load_f32(&line.as_chunks::<16>().0[i]), isa.splat(h), sum);
                    }
                    isa.store_f32(sum, out);
                }
                for (line, &h) in lines.iter().zip(h) {
                    for (out, w) in out_rest.iter_mut().zip(&line[whole..]) {
                        *out += w * h;
                    }
                }
            }
        }
    }
}
