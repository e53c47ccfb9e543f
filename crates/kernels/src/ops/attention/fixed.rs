//! Attention of many queries in 16-bit fixed point: keys and values of a span are rounded once for all of them, and their
//! products are those of a small matrix with panels of 16 rows.
//!
//! Keys, queries, and the values of a dimension over a span have a scale each. So have the weights of a query over a span:
//! they are relative to its largest score there, whatever others were before. See [`fixed`](crate::ops::matmul) for why
//! no sum leaves 32 bits.

use super::cache::{Element, GROUP};
use super::{HeadCache, Lines, PAGE, Score, cap_and_slope, largest_lanes, mask};
use crate::format::CHUNK;
use crate::isa::{Isa, IsaKind, LANES, Op};
use crate::ops::MatrixMut;
use crate::ops::activation::exp_lanes;
use crate::ops::math::{exp, sqrt};
use crate::ops::matmul::{FLOAT_PANELS, NORM, PairsProduct, PairsRow, Panel, RoundLanes, round};

/// Keys that are rounded at a time: their panels are as many as a product takes.
const SPAN: usize = PAGE;

/// The largest head.
const HEAD: usize = CHUNK;

/// Queries that share the panels of a span.
const QUERIES: usize = 512;

/// Queries whose scores are held at a time.
const SCORES: usize = 24;

/// Below that, a span is rounded for too few.
const FEWEST: usize = 64;

/// Memory of [`attend_i16`].
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct AttentionPanels {
    /// For each 16 keys a line for each pair of dimensions.
    keys: [[u8; 64]; SPAN / LANES * HEAD / 2],
    key_scales: [[f32; LANES]; SPAN / LANES],
    /// For each 16 dimensions a line for each pair of positions.
    values: [[u8; 64]; HEAD / LANES * SPAN / 2],
    value_scales: [[f32; LANES]; HEAD / LANES],
    /// Pairs of dimensions.
    queries: [PairsRow; QUERIES],
    query_scales: [f32; QUERIES],
    /// Of the scores of each query so far.
    largest: [f32; QUERIES],
    /// Sums of the weights so far, which are relative to the largest score.
    totals: [f32; QUERIES],
    /// Of some queries and the keys of a span.
    scores: [[[f32; LANES]; SPAN / LANES]; SCORES],
    /// In pairs of positions.
    weights: [PairsRow; SCORES],
    /// Keys or values of a span, before they are rounded.
    widened: [[f32; LANES]; HEAD],
}

impl AttentionPanels {
    /// All zero.
    pub const ZERO: Self = Self {
        keys: [[0; 64]; SPAN / LANES * HEAD / 2],
        key_scales: [[0.0; LANES]; SPAN / LANES],
        values: [[0; 64]; HEAD / LANES * SPAN / 2],
        value_scales: [[0.0; LANES]; HEAD / LANES],
        queries: [PairsRow::ZERO; QUERIES],
        query_scales: [0.0; QUERIES],
        largest: [0.0; QUERIES],
        totals: [0.0; QUERIES],
        scores: [[[0.0; LANES]; SPAN / LANES]; SCORES],
        weights: [PairsRow::ZERO; SCORES],
        widened: [[0.0; LANES]; HEAD],
    };
}

/// Whether [`attend_i16`] attends `queries` of a head, and in less time than [`attend`](super::attend) does.
#[inline]
pub fn attends_in_i16(isa: IsaKind, queries: usize, head_dim: usize) -> bool {
    struct Gains;
    impl Op for Gains {
        type Output = bool;

        #[inline(always)]
        fn eval<I: Isa>(self, _: I) -> bool {
            gains::<I>()
        }
    }
    // Elsewhere nothing gains, and callers need neither the code nor its memory.
    cfg!(target_arch = "x86_64") && queries >= FEWEST && head_dim <= HEAD && isa.run(Gains)
}

/// With few registers for sums, rounding costs what is gained.
const fn gains<I: Isa>() -> bool {
    I::PAIRS && I::TOKENS > 4
}

/// As [`attend`](super::attend) for the queries of one head, in 16-bit fixed point.
///
/// A query and a key are rounded to 1/2000 of the root mean square of their numbers or finer, values to 1/4000 of those in
/// their span.
///
/// Panics as [`attend`](super::attend) does, and where products of [floats are faster](attends_in_i16) or heads too large;
/// what `memory` holds does not matter.
pub fn attend_i16(
    isa: IsaKind,
    q: &[f32],
    q_stride: usize,
    cache: HeadCache<'_>,
    pages: Option<&[u32]>,
    first: usize,
    score: Score,
    out: MatrixMut<'_>,
    memory: &mut AttentionPanels,
) {
    assert!(out.columns() <= HEAD);
    match cache {
        HeadCache::F32(cache) => isa.run(Attend { q, q_stride, cache, pages, first, score, out, memory }),
        HeadCache::F16(cache) => isa.run(Attend { q, q_stride, cache, pages, first, score, out, memory }),
        HeadCache::Q8_0(cache) => isa.run(Attend { q, q_stride, cache, pages, first, score, out, memory }),
    }
}

struct Attend<'a, T> {
    q: &'a [f32],
    q_stride: usize,
    cache: Lines<'a, T>,
    pages: Option<&'a [u32]>,
    first: usize,
    score: Score,
    out: MatrixMut<'a>,
    memory: &'a mut AttentionPanels,
}

impl<T: Element> Op for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        assert!(gains::<I>(), "{} attends faster in floats", I::NAME);
        // Nothing is compiled where nothing will use it.
        if !gains::<I>() {
            return;
        }
        let Self { q, q_stride, cache, pages, first, score, mut out, memory } = self;
        let (queries, head_dim) = (out.rows(), out.columns());
        let end = first + queries - 1;
        for t in (0..queries).step_by(QUERIES) {
            let count = QUERIES.min(queries - t);
            let mut out = out.reborrow().split_rows(t).1.split_rows(count).0;
            let first = first + t;
            isa.call(Start {
                q: &q[t * q_stride..],
                q_stride,
                scale: score.scale,
                out: out.reborrow(),
                memory,
            });
            let begin = score.window.map_or(0, |window| (first + 1).saturating_sub(window));
            let last = if score.causal { first + count - 1 } else { end };
            for span in (begin / SPAN * SPAN..=last).step_by(SPAN) {
                let len = SPAN.min(last + 1 - span);
                let at = pages.map_or(span, |pages| pages[span / PAGE] as usize * PAGE);
                isa.call(Pack { cache, at, len, head_dim, memory });
                isa.call(Add { score, first, end, span, len, out: out.reborrow(), memory });
            }
            for t in 0..count {
                let total = memory.totals[t];
                out.row_mut(t).iter_mut().for_each(|out| *out /= total);
            }
        }
    }
}

/// Rounds queries, before any key is seen.
struct Start<'a> {
    q: &'a [f32],
    q_stride: usize,
    scale: f32,
    out: MatrixMut<'a>,
    memory: &'a mut AttentionPanels,
}

impl Op for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { q, q_stride, scale, mut out, memory } = self;
        let head_dim = out.columns();
        let lines = head_dim.div_ceil(LANES);
        for (t, query) in memory.queries[..out.rows()].iter_mut().enumerate() {
            out.row_mut(t).fill(0.0);
            let mut padded = [[0.0; LANES]; HEAD / LANES];
            padded.as_flattened_mut()[..head_dim].copy_from_slice(&q[t * q_stride..][..head_dim]);
            let codes = query.0.as_flattened_mut().as_chunks_mut().0;
            let [norm] = round(isa, lines, |_, i| padded[i], |_, i, integers| codes[i] = integers);
            memory.query_scales[t] = norm * scale;
        }
        memory.largest[..out.rows()].fill(f32::NEG_INFINITY);
        memory.totals[..out.rows()].fill(0.0);
    }
}

/// Rounds the keys and values of `len` positions that lie `at` some place in the cache.
struct Pack<'a, T> {
    cache: Lines<'a, T>,
    at: usize,
    len: usize,
    head_dim: usize,
    memory: &'a mut AttentionPanels,
}

impl<T: Element> Op for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { cache, at, len, head_dim, memory } = self;
        let groups = head_dim.div_ceil(GROUP);
        let widened = &mut memory.widened;
        let panels = memory.keys.chunks_exact_mut(head_dim.div_ceil(2)).zip(&mut memory.key_scales);
        for ((lines, scales), block) in panels.zip(at / LANES..(at + len).div_ceil(LANES)) {
            let keys = &cache.keys[block * head_dim..][..head_dim];
            for (d, (key, out)) in keys.iter().zip(&mut *widened).enumerate() {
                let mut key = T::load(isa, key);
                if T::SCALED {
                    key = isa.mul(key, isa.load_f16(&cache.key_scales[block * groups + d / GROUP]));
                }
                isa.store_f32(key, out);
            }
            *scales = isa.call(RoundLanes { x: &widened[..head_dim], out: lines });
        }
        let value_lines = head_dim.div_ceil(LANES);
        let values = &cache.values[at * value_lines..][..len * value_lines];
        let panels = memory.values.as_chunks_mut::<{ SPAN / 2 }>().0.iter_mut().zip(&mut memory.value_scales);
        for ((lines, scales), v) in panels.zip(0..value_lines) {
            for (p, (values, out)) in values.chunks_exact(value_lines).zip(&mut *widened).enumerate() {
                let mut value = T::load(isa, &values[v]);
                if T::SCALED {
                    let scale = cache.value_scales[(at + p) * groups + v / (GROUP / LANES)];
                    value = isa.mul(value, isa.splat_f16(scale));
                }
                isa.store_f32(value, out);
            }
            *scales = isa.call(RoundLanes { x: &widened[..len], out: lines });
        }
    }
}

/// Adds what a span gives to the sums of all queries that see it.
struct Add<'a> {
    score: Score,
    /// Position of the first query.
    first: usize,
    /// Position of the last query of all.
    end: usize,
    span: usize,
    len: usize,
    out: MatrixMut<'a>,
    memory: &'a mut AttentionPanels,
}

impl Op for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { score, first, end, span, len, mut out, memory } = self;
        let head_dim = out.columns();
        let pairs = head_dim.div_ceil(2);
        let keys = core::array::from_fn(|i| Panel {
            lines: &memory.keys[i * pairs..][..pairs],
            scales: &memory.key_scales[i],
        });
        let from = if score.causal { span.saturating_sub(first) } else { 0 };
        let reach = score.window.map_or(usize::MAX, |window| (span + len).saturating_add(window));
        let to = out.rows().min(reach.saturating_sub(first + 1));
        let (scores, weights) = (&mut memory.scores, &mut memory.weights);
        let mut scales = [0.0; SCORES];
        for from in (from..to).step_by(SCORES) {
            let count = SCORES.min(to - from);
            let position = first + from;
            let mut out = out.reborrow().split_rows(from).1.split_rows(count).0;
            let queries = from..from + count;
            let seen = if score.causal { len.min(position + count - span) } else { len };
            let lines = seen.div_ceil(2 * LANES) * 2;

            let view = MatrixMut::new(scores[..count].as_flattened_mut().as_flattened_mut(), SPAN);
            isa.call(PairsProduct {
                panels: &keys,
                x: &memory.queries[queries.clone()],
                len: pairs,
                scales: &memory.query_scales[queries.clone()],
                start: true,
                out: view.split_columns(lines * LANES).0,
                column: 0,
            });
            for (t, scores) in scores[..count].iter_mut().enumerate() {
                let lines = &mut scores[..lines];
                if score.soft_cap.is_some() || score.slope != 0.0 {
                    for (i, line) in lines.iter_mut().enumerate() {
                        let score = cap_and_slope(isa, isa.load_f32(line), score, span + i * LANES);
                        isa.store_f32(score, line);
                    }
                }
                let position = position + t;
                mask(lines, span, if score.causal { position } else { end }, position, score.window);
            }
            // Steps that wait for one another are taken for all queries, one after the other.
            let mut largest = [[0.0; LANES]; SCORES.div_ceil(LANES)];
            for (scores, largest) in fours(scores).iter().zip(fours(largest.as_flattened_mut())) {
                let mut maxima = [isa.splat(0.0); 4];
                for r in 0..4 {
                    maxima[r] = largest_lanes(isa, &scores[r][..lines]);
                }
                *largest = isa.max_lane4(maxima);
            }
            let mut changes = [[0.0; LANES]; SCORES.div_ceil(LANES)];
            let before = &mut memory.largest[queries.clone()];
            for ((change, new), before) in
                changes.as_flattened_mut().iter_mut().zip(largest.as_flattened()).zip(&*before)
            {
                *change = -(new - before).abs();
            }
            for line in &mut changes {
                isa.store_f32(exp(isa, isa.load_f32(line)), line);
            }
            let mut sums = [0.0; SCORES];
            let exponents = fours(scores).iter_mut().zip(fours(largest.as_flattened_mut()));
            for ((scores, largest), sums) in exponents.zip(fours(&mut sums)) {
                let mut lanes = [isa.splat(0.0); 4];
                for r in 0..4 {
                    // A query that sees no key of the span has no largest score.
                    lanes[r] = exp_lanes(isa, &mut scores[r][..lines], largest[r].max(f32::MIN));
                }
                *sums = isa.sum4(lanes);
            }
            // No weight is more than one, so that the sum of their squares is no more than theirs.
            let factors = sums.map(|sum| NORM / sqrt(sum));
            for (t, (before, total)) in before.iter_mut().zip(&mut memory.totals[queries]).enumerate() {
                let codes = weights[t].0.as_flattened_mut().as_chunks_mut().0;
                for (line, codes) in scores[t][..lines].iter().zip(codes) {
                    isa.store_i16(isa.mul(isa.load_f32(line), isa.splat(factors[t])), codes);
                }
                let (new, mut part) = (largest[t / LANES][t % LANES], changes[t / LANES][t % LANES]);
                if new > *before {
                    // What was summed so far was relative to a smaller maximum.
                    out.row_mut(t).iter_mut().for_each(|out| *out *= part);
                    *total *= part;
                    *before = new;
                    part = 1.0;
                }
                *total += sums[t] * part;
                scales[t] = part / factors[t];
            }
            for column in (0..head_dim).step_by(FLOAT_PANELS * LANES) {
                let panels = core::array::from_fn(|i| {
                    // Beyond the head, what is computed is not kept.
                    let v = (column / LANES + i).min(HEAD / LANES - 1);
                    Panel {
                        lines: &memory.values[v * SPAN / 2..][..SPAN / 2],
                        scales: &memory.value_scales[v],
                    }
                });
                isa.call(PairsProduct {
                    panels: &panels,
                    x: &weights[..count],
                    len: seen.div_ceil(2),
                    scales: &scales[..count],
                    start: false,
                    out: out.reborrow(),
                    column,
                });
            }
        }
    }
}

#[inline(always)]
fn fours<T>(all: &mut [T]) -> &mut [[T; 4]] {
    all.as_chunks_mut().0
}
