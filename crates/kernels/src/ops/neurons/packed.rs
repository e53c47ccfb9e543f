//! Sums over some neurons of weights that are laid out by neuron.

use core::ops::Range;

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
    match layout.wide {
        true => isa.run(AddNeurons::<true> { layout, bytes, active, h, out }),
        false => isa.run(AddNeurons::<false> { layout, bytes, active, h, out }),
    }
}

struct AddNeurons<'a, const WIDE: bool> {
    layout: &'a NeuronLayout,
    bytes: &'a [u8],
    active: &'a [u32],
    h: &'a [QuantizedChunk],
    out: &'a mut [f32],
}

/// The most neurons that share scales.
const MOST: usize = 32;

/// The neurons of a group that are not silent.
struct Group<'a> {
    /// The codes of all neurons of the group.
    codes: &'a [u8],
    /// Where those of each begin; what fills up the last four has an activation of zero.
    starts: [u32; MOST],
    /// The activations of each four.
    quads: [[u8; 4]; MOST / 4],
    count: usize,
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
                codes: rows,
                starts: [0; MOST],
                quads: [[0; 4]; MOST / 4],
                count: 0,
                sum: 0,
                factor: h.scale[at / 32],
                vectors,
                outer,
                first: self.section.replace(section) != Some(section),
            };
            let (stride, codes) = (layout.neuron_stride() as u32, h.codes.as_flattened());
            for &n in members {
                let (code, member) = (codes[n as usize % CHUNK], n - first as u32);
                // Whether a neuron is silent is not foreseen, so that there is no branch.
                group.sum += i32::from(code as i8);
                group.quads.as_flattened_mut()[group.count] = code;
                group.starts[group.count] = member * stride;
                group.count += usize::from(code != 0);
            }
            if group.count > 0 {
                return Some(group);
            }
        }
    }
}

/// What is asked for of a group that comes next.
struct Ahead<'a> {
    group: &'a Group<'a>,
    /// The neurons of which all has been asked for, and the next byte of the next one.
    neurons: usize,
    at: usize,
    /// Lines that should have been asked for.
    owed: usize,
}

/// The most bytes that are asked for at once.
const RUN: usize = 512;

impl Ahead<'_> {
    /// Asks for codes, so that all have been asked for after a row's number of lines: neuron by neuron, as memory delivers
    /// runs faster than lines from many places.
    #[inline(always)]
    fn codes<I: Isa>(&mut self, isa: I, layout: &NeuronLayout, lines: usize) {
        let bytes = layout.neuron_bytes();
        self.owed += lines * self.group.count;
        while self.owed >= RUN / 64 && self.neurons < self.group.count {
            let start = self.group.starts[self.neurons % MOST] as usize + self.at;
            let run = RUN.min(bytes - self.at);
            for line in (0..run).step_by(64) {
                isa.prefetch(self.group.codes, start + line);
            }
            self.owed -= run.div_ceil(64);
            self.at += run;
            if self.at == bytes {
                (self.neurons, self.at) = (self.neurons + 1, 0);
            }
        }
    }

    /// Asks for the scales of a few outputs.
    #[inline(always)]
    fn scales<I: Isa>(&self, isa: I, layout: &NeuronLayout, outputs: Range<usize>) {
        let padded = layout.padded_outputs();
        let outer_bytes = if self.group.first { layout.outer_bytes() } else { 0 };
        for (bytes, each) in [(self.group.vectors, layout.scale_bytes()), (self.group.outer, outer_bytes)] {
            for v in 0..layout.vectors() {
                for line in (each * outputs.start..each * outputs.end).step_by(64) {
                    isa.prefetch(bytes, each * padded * v + line);
                }
            }
        }
    }
}

impl<const WIDE: bool> AddNeurons<'_, WIDE> {
    /// Codes of a byte are below 128 where they have no sign, so that all are taken as if they had one.
    #[inline(always)]
    fn dot<I: Isa>(isa: I, sum: I::I32, codes: I::Bytes, x: I::Bytes) -> I::I32 {
        if !WIDE {
            isa.dot_unsigned(sum, codes, x)
        } else if I::SIGNED_BIAS == 0 {
            isa.dot_signed(sum, codes, x)
        } else {
            isa.dot_unsigned(sum, isa.xor(codes, isa.splat_byte(0x80)), x)
        }
    }

    /// The integer sums of a tile, in `V = 4` vectors; or of two, in 8.
    #[inline(always)]
    fn sums<I: Isa, const V: usize>(isa: I, group: &Group<'_>, tile: usize, start: I::I32) -> [I::I32; V] {
        let mut sums = [start; V];
        let nibble = isa.splat_byte(15);
        // Where the tile is in a neuron's codes, and how many bytes of them it takes.
        let (at, len) = if WIDE { (tile * TILE, V * 16) } else { (tile * TILE / 2, V * 8) };
        let fours = group.starts.as_chunks::<4>().0.iter().zip(&group.quads);
        for (starts, quad) in fours.take(group.count.div_ceil(4)) {
            let x = isa.splat4(quad);
            // Of each neuron the codes of the tile, and those of the next one, where they have a line of their own.
            let mut lines = [[x; 4]; 2];
            unrolled!(r in 0 1 2 3, {
                let codes = &group.codes[starts[r] as usize + at..][..len];
                let (whole, _) = codes.as_chunks::<64>();
                lines[0][r] = if WIDE || V == 8 {
                    isa.load(&whole[0])
                } else {
                    isa.and(isa.load_twice_shifted(&codes.as_chunks::<32>().0[0], 0, 4), nibble)
                };
                if WIDE && V == 8 {
                    lines[1][r] = isa.load(&whole[1]);
                }
            });
            let codes = isa.interleave4(lines[0]);
            let next = if WIDE && V == 8 { isa.interleave4(lines[1]) } else { codes };
            unrolled!(k in 0 1 2 3, {
                if WIDE || V == 4 {
                    sums[k] = Self::dot(isa, sums[k], codes[k], x);
                } else {
                    sums[k] = Self::dot(isa, sums[k], isa.and(codes[k], nibble), x);
                }
                if V == 8 {
                    let codes =
                        if WIDE { next[k] } else { isa.and(isa.shift_right::<4>(next[k]), nibble) };
                    sums[V - 4 + k] = Self::dot(isa, sums[V - 4 + k], codes, x);
                }
            });
        }
        sums
    }

    /// Adds the sums of tiles to their outputs `out`.
    #[inline(always)]
    fn tiles<I: Isa, const V: usize>(
        isa: I,
        layout: &NeuronLayout,
        group: &Group<'_>,
        tile: usize,
        start: I::I32,
        out: &mut [[f32; 16]],
    ) {
        let factor = isa.splat(group.factor);
        let mut sums = [factor; V];
        for (sum, products) in sums.iter_mut().zip(Self::sums::<I, V>(isa, group, tile, start)) {
            *sum = isa.mul(isa.to_f32(products), factor);
        }
        let out = &mut out[..V];
        for v in 0..layout.vectors() {
            let scales = scales::<I, V>(isa, layout, group, v * layout.padded_outputs() + tile * TILE);
            unrolled!(k < V, {
                isa.store_f32(isa.mul_add(scales[k], sums[k], isa.load_f32(&out[k])), &mut out[k]);
            });
            // What offsets are multiplied with.
            sums = [isa.splat(group.factor * group.sum as f32); V];
        }
    }
}

/// The scales of a group, or, behind them, offsets, of `V` lines of outputs from number `first` on.
#[inline(always)]
fn scales<I: Isa, const V: usize>(
    isa: I,
    layout: &NeuronLayout,
    group: &Group<'_>,
    first: usize,
) -> [I::F32; V] {
    let [scales, outer] = [(group.vectors, layout.scale_bytes()), (group.outer, layout.outer_bytes())]
        .map(|(bytes, each)| &bytes[each * first..][..each * 16 * V]);
    let mut out = [isa.splat(0.0); V];
    match layout.scales {
        ScaleKind::Half => {
            for (k, out) in out.iter_mut().enumerate() {
                *out = halves(isa, scales, k);
            }
        }
        ScaleKind::Nested { .. } => {
            for (k, out) in out.iter_mut().enumerate() {
                let small = scales.as_chunks::<16>().0[k].map(|byte| byte as i8);
                *out = isa.mul(isa.load_i8(&small), halves(isa, outer, k));
            }
        }
        ScaleKind::Full => {
            for (out, line) in out.iter_mut().zip(scales.as_chunks::<4>().0.as_chunks::<16>().0) {
                *out = isa.load_f32(&line.map(f32::from_le_bytes));
            }
        }
    }
    out
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

impl<const WIDE: bool> Op for AddNeurons<'_, WIDE> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { layout, bytes, active, h, out } = self;
        let zero = i32::from(layout.zero) + if WIDE { i32::from(I::SIGNED_BIAS) } else { 0 };
        let mut groups = Groups { layout, bytes, rest: active, h, section: None };
        let mut next = groups.next();
        while let Some(group) = next {
            next = groups.next();
            // Neurons lie apart: no processor guesses where the next ones are.
            let mut ahead = next.as_ref().map(|group| Ahead { group, neurons: 0, at: 0, owed: RUN / 64 });
            let start = isa.splat_i32(-(zero * group.sum));
            for (i, out) in out.as_chunks_mut::<16>().0.chunks_mut(8).enumerate() {
                if let Some(ahead) = &mut ahead {
                    ahead.codes(isa, layout, if WIDE { out.len() / 4 } else { 1 });
                    ahead.scales(isa, layout, 128 * i..128 * i + 16 * out.len());
                }
                if out.len() == 8 {
                    Self::tiles::<I, 8>(isa, layout, &group, 2 * i, start, out);
                } else {
                    Self::tiles::<I, 4>(isa, layout, &group, 2 * i, start, out);
                }
            }
        }
    }
}
