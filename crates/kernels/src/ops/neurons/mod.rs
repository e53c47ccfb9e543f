//! The second matrix of a feed-forward layer by neuron: `out[r] += Σ_n weights[r][n] · h[n]` over some `n`.
//!
//! In a file that matrix is `[outputs, neurons]`, so what one neuron adds lies scattered over all rows. Yet 16 or 32
//! neighbouring neurons share a scale in each row, so a *group* of neurons has one vector of scales, and the codes of
//! each neuron can stand together without any rounding: that is [`NeuronLayout`]. A sum over the neurons of a group is a
//! sum of integers, as it is in the product with the whole matrix.
//!
//! Matrices that are `[neurons, outputs]` in the file, or floats, need no layout: [`add_neurons_f32`].

mod packed;
mod rows;

use super::matmul::Weights;
use crate::format::float::f32_to_f16;
use crate::format::quantize::round;
use crate::format::{CHUNK, Codes, Format, Quant, Unpacked, Unpacker};
#[cfg(doc)]
use crate::isa::Isa;
use crate::with_quant;

pub use packed::add_neurons;
pub use rows::add_neurons_f32;

/// Outputs that are computed together. Their codes are in the order from which [`Isa::interleave4`] makes quads of four
/// neurons: lane `i` of vector `k` is output `16 k + i`. Codes of half a byte have the next tile in the high halves, and the
/// last tile, where it has no next, its own second half.
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

    /// Bytes from the codes of one neuron to those of the next. Many are read side by side: strides of large powers of two
    /// would put them all into the same few lines of the cache.
    fn neuron_stride(&self) -> usize {
        let bytes = self.neuron_bytes();
        if bytes.is_multiple_of(512) { bytes + 64 } else { bytes }
    }

    fn scale_bytes(&self) -> usize {
        match self.scales {
            ScaleKind::Half => 2,
            ScaleKind::Nested { .. } => 1,
            ScaleKind::Full => 4,
        }
    }

    /// Bytes of one outer scale.
    fn outer_bytes(&self) -> usize {
        match self.scales {
            ScaleKind::Nested { .. } => 2,
            ScaleKind::Half | ScaleKind::Full => 0,
        }
    }

    /// How many vectors of scales a group has: one for scales, perhaps one for offsets.
    fn vectors(&self) -> usize {
        if self.offset { 2 } else { 1 }
    }

    fn group_bytes(&self) -> usize {
        self.group * self.neuron_stride() + self.vectors() * self.scale_bytes() * self.padded_outputs()
    }

    fn bytes_of(&self, neurons: usize) -> usize {
        let outer = self.vectors() * self.outer_bytes() * self.padded_outputs();
        neurons / self.group * self.group_bytes() + outer
    }

    /// Neurons of a section.
    fn neurons_of(&self, section: usize) -> usize {
        CHUNK.min(self.neurons - section * CHUNK)
    }

    /// The byte of a neuron that has the code of an output, and the bit where it begins.
    fn place(&self, output: usize) -> (usize, u32) {
        let (tile, lane) = (output / TILE, output % TILE);
        let byte = lane % 16 / 4 * 16 + lane / 16 * 4 + lane % 4;
        if self.wide {
            (tile * TILE + byte, 0)
        } else if (tile | 1) < self.padded_outputs() / TILE {
            (tile / 2 * TILE + byte, 4 * (tile as u32 % 2))
        } else {
            (tile / 2 * TILE + byte % (TILE / 2), 4 * (byte / (TILE / 2)) as u32)
        }
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
            let (byte, shift) = self.place(r);
            for (g, group) in groups.chunks_exact_mut(group_bytes).enumerate() {
                let (rows, vectors) = group.split_at_mut(self.group * self.neuron_stride());
                let codes = &codes[g * self.group..];
                for (row, &code) in rows.chunks_exact_mut(self.neuron_stride()).zip(codes) {
                    row[byte] |= if self.wide { code as u8 } else { (code as u8 & 15) << shift };
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
