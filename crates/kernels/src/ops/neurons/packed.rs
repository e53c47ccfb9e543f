//! Sums over some neurons of weights that are laid out by neuron.

use super::{NeuronLayout, ScaleKind, TILE};
use crate::format::CHUNK;
use crate::isa::{Isa, IsaKind, Op, unrolled};
use crate::ops::QuantizedChunk;

/// `out[r] += Σ weights[r][n] · h[n]` over the neurons `active`, which ascend.
///
/// `bytes` has all sections as [`NeuronLayout::pack`] wrote them, and `h` the 8-bit activations of all neurons. `out` has
/// [`NeuronLayout::padded_outputs`] entries. Whether a neuron whose activation is zero is among `active` makes no
/// difference to any bit.
///
/// Panics if the shapes do not agree.
pub fn add_neurons(
    isa: IsaKind,
    layout: &NeuronLayout,
    bytes: &[u8],
    active: &[u32],
    h: &[QuantizedChunk],
    out: &mut [f32],
) {
    assert_eq!(out.len(), layout.padded_outputs());
    assert_eq!((Some(bytes.len()), h.len()), (layout.bytes(), layout.sections()));
    assert!(active.is_sorted_by(|a, b| a < b));
    assert!(active.last().is_none_or(|&n| (n as usize) < layout.neurons));
    match (layout.signed, layout.wide) {
        (true, _) => isa.run(AddNeurons::<true, true> { layout, bytes, active, h, out }),
        (false, true) => isa.run(AddNeurons::<false, true> { layout, bytes, active, h, out }),
        (false, false) => isa.run(AddNeurons::<false, false> { layout, bytes, active, h, out }),
    }
}

struct AddNeurons<'a, const SIGNED: bool, const WIDE: bool> {
    layout: &'a NeuronLayout,
    bytes: &'a [u8],
    active: &'a [u32],
    h: &'a [QuantizedChunk],
    out: &'a mut [f32],
}

/// The most neurons that share scales.
const MOST: usize = 32;

/// Tiles whose scales are read together.
const BLOCK: usize = 8;

/// Scales of a block, at the start of a cache line.
#[repr(align(64))]
struct Lines([[f32; 16]; BLOCK * 4]);

/// The neurons of a group that are not silent.
#[derive(Clone, Copy)]
struct Group<'a> {
    count: usize,
    /// The codes of each.
    rows: [&'a [u8]; MOST],
    /// The activation of each, alone in each byte of a quad.
    quads: [[[u8; 4]; 4]; MOST],
    /// The sum of the activations, and their scale.
    sum: i32,
    factor: f32,
    /// The scales, and offsets behind them.
    vectors: &'a [u8],
    /// The same for the section.
    outer: &'a [u8],
    /// Whether it is the first of its section.
    first: bool,
}

/// The groups that have neurons which are not silent.
struct Groups<'a> {
    layout: &'a NeuronLayout,
    bytes: &'a [u8],
    rest: &'a [u32],
    h: &'a [QuantizedChunk],
    /// That of the last group.
    section: Option<usize>,
}

impl<'a> Groups<'a> {
    #[inline(always)]
    fn next(&mut self) -> Option<Group<'a>> {
        let layout = self.layout;
        loop {
            let first = *self.rest.first()? as usize / layout.group * layout.group;
            let end = self.rest.iter().take_while(|&&n| (n as usize) < first + layout.group).count();
            let (members, later) = self.rest.split_at(end);
            self.rest = later;
            let (section, at) = (first / CHUNK, first % CHUNK);
            let bytes = &self.bytes[section * layout.section_bytes()..];
            let neurons = layout.neurons_of(section);
            let (groups, outer) =
                bytes[..layout.bytes_of(neurons)].split_at(neurons / layout.group * layout.group_bytes());
            let group = &groups[at / layout.group * layout.group_bytes()..][..layout.group_bytes()];
            let (rows, vectors) = group.split_at(layout.group * layout.neuron_stride());
            let h = &self.h[section];
            let mut group = Group {
                count: 0,
                rows: [&[]; MOST],
                quads: [[[0; 4]; 4]; MOST],
                sum: 0,
                factor: h.scale[at / 32],
                vectors,
                outer,
                first: self.section.replace(section) != Some(section),
            };
            for &n in members {
                let (n, member) = (n as usize % CHUNK, n as usize - first);
                let code = h.codes[n / 64][n % 64];
                if code != 0 {
                    group.sum += i32::from(code as i8);
                    for k in 0..4 {
                        group.quads[group.count][k][k] = code;
                    }
                    group.rows[group.count] =
                        &rows[member * layout.neuron_stride()..][..layout.neuron_bytes()];
                    group.count += 1;
                }
            }
            if group.count > 0 {
                if group.count < MOST {
                    group.rows[group.count] = group.rows[0];
                }
                return Some(group);
            }
        }
    }
}

impl Group<'_> {
    /// Asks for what the group has of a tile, of which a row takes `row_bytes`, and scales and outer scales the others.
    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, tile: usize, row_bytes: usize, [vectors, outer]: [usize; 2]) {
        for line in (0..vectors).step_by(64) {
            isa.prefetch(self.vectors, tile * vectors + line);
        }
        if self.first {
            for line in (0..outer).step_by(64) {
                isa.prefetch(self.outer, tile * outer + line);
            }
        }
        if (tile * row_bytes).is_multiple_of(64) {
            for row in &self.rows[..self.count] {
                isa.prefetch(row, tile * row_bytes);
            }
        }
    }
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

/// The scales of a group from line `first` of outputs on, times a factor.
#[inline(always)]
fn read_scales<I: Isa>(
    isa: I,
    kind: ScaleKind,
    [group, outer]: [&[u8]; 2],
    first: usize,
    factor: f32,
    out: &mut [[f32; 16]],
) {
    let factor = isa.splat(factor);
    match kind {
        ScaleKind::Half => {
            for (i, out) in out.iter_mut().enumerate() {
                isa.store_f32(isa.mul(halves(isa, group, first + i), factor), out);
            }
        }
        ScaleKind::Nested { .. } => {
            for (i, out) in out.iter_mut().enumerate() {
                let small = group.as_chunks::<16>().0[first + i].map(|byte| byte as i8);
                let scale = isa.mul(isa.load_i8(&small), halves(isa, outer, first + i));
                isa.store_f32(isa.mul(scale, factor), out);
            }
        }
        ScaleKind::Full => {
            for (i, out) in out.iter_mut().enumerate() {
                let mut line = [0.0; 16];
                for (x, bytes) in line.iter_mut().zip(group.as_chunks::<64>().0[first + i].as_chunks::<4>().0)
                {
                    *x = f32::from_le_bytes(*bytes);
                }
                isa.store_f32(isa.mul(isa.load_f32(&line), factor), out);
            }
        }
    }
}

/// Line `i` of half-precision floats.
#[inline(always)]
fn halves<I: Isa>(isa: I, bytes: &[u8], i: usize) -> I::F32 {
    let mut line = [0; 16];
    for (x, bytes) in line.iter_mut().zip(bytes.as_chunks::<32>().0[i].as_chunks::<2>().0) {
        *x = u16::from_le_bytes(*bytes);
    }
    isa.load_f16(&line)
}

impl<const SIGNED: bool, const WIDE: bool> Op for AddNeurons<'_, SIGNED, WIDE> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { layout, bytes, active, h, out } = self;
        let padded = layout.padded_outputs();
        let vector_bytes = layout.scale_bytes() * padded;
        let scale_bytes =
            [layout.scale_bytes(), layout.outer_bytes()].map(|bytes| bytes * TILE * layout.vectors());
        let zero = if SIGNED { I::SIGNED_BIAS } else { layout.zero };
        let mut groups = Groups { layout, bytes, rest: active, h, section: None };
        let mut next = groups.next();
        while let Some(group) = next {
            next = groups.next();
            // An activation of zero fills up the last pair.
            let count = group.count.next_multiple_of(2);
            let (rows, quads) = (&group.rows[..count], &group.quads[..count]);
            let start = isa.splat_i32(-(i32::from(zero) * group.sum));
            let (scale, offset) = group.vectors.split_at(vector_bytes);
            let (outer_scale, outer_offset) = group.outer.split_at(group.outer.len().min(2 * padded));
            let (mut scales, mut offsets) = (Lines([[0.0; 16]; BLOCK * 4]), Lines([[0.0; 16]; BLOCK * 4]));
            let (Lines(scales), Lines(offsets)) = (&mut scales, &mut offsets);
            for (block, tiles) in out.as_chunks_mut::<TILE>().0.chunks_mut(BLOCK).enumerate() {
                let lines = 4 * tiles.len();
                let first = 4 * BLOCK * block;
                read_scales(
                    isa,
                    layout.scales,
                    [scale, outer_scale],
                    first,
                    group.factor,
                    &mut scales[..lines],
                );
                if layout.offset {
                    let factor = group.factor * group.sum as f32;
                    read_scales(
                        isa,
                        layout.scales,
                        [offset, outer_offset],
                        first,
                        factor,
                        &mut offsets[..lines],
                    );
                }
                for (i, lines) in tiles.iter_mut().enumerate() {
                    let tile = BLOCK * block + i;
                    // Neurons lie apart: no processor guesses where the next ones are.
                    if let Some(next) = &next {
                        next.prefetch(isa, tile, if WIDE { TILE } else { TILE / 2 }, scale_bytes);
                    }
                    // Two rows at a time, whose sums do not wait for one another.
                    let mut acc = [[start; 4], [isa.splat_i32(0); 4]];
                    for (rows, quads) in rows.as_chunks::<2>().0.iter().zip(quads.as_chunks::<2>().0) {
                        unrolled!(r in 0 1, {
                            let codes = Self::codes(isa, rows[r], tile);
                            unrolled!(k in 0 1 2 3, {
                                acc[r][k] = Self::dot(isa, acc[r][k], codes, isa.splat4(&quads[r][k]));
                            });
                        });
                    }
                    for (k, line) in lines.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                        let mut sum = isa.load_f32(line);
                        if layout.offset {
                            sum = isa.add(sum, isa.load_f32(&offsets[4 * i + k]));
                        }
                        let scale = isa.load_f32(&scales[4 * i + k]);
                        // Both are below 2^24, so that nothing is rounded.
                        let total = isa.add(isa.to_f32(acc[0][k]), isa.to_f32(acc[1][k]));
                        isa.store_f32(isa.mul_add(total, scale, sum), line);
                    }
                }
            }
        }
    }
}
