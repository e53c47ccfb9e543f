//! Attention of one head over cached keys and values, with online softmax (arXiv 2205.14135): scores exist for a few
//! queries and [`SPAN`] keys at a time, never as a matrix.

mod cache;
mod fixed;

pub use cache::{
    HeadCache, HeadCacheMut, HeadShape, KvFormat, Lines, LinesMut, load_key, move_values, store_key, store_kv,
};
pub use fixed::{AttentionPanels, attend_i16, attends_in_i16};

use core::ops::Range;

use super::MatrixMut;
use super::activation::exp_lanes;
use super::math::exp;
use crate::isa::{Isa, IsaKind, LANES, Op, unrolled};
use cache::{Element, GROUP};

/// Positions of a cache that lie together; see [`attend`].
pub const PAGE: usize = 64;

/// The most keys whose scores are held at a time: a span never leaves its page.
const SPAN: usize = PAGE;

/// The most queries that share a pass over the keys.
const QUERIES: usize = 8;

/// As [`QUERIES`] where registers are few.
const FEW: usize = 3;

/// How a score comes from the product of a query and a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Factor, usually `1 / √head_dim`.
    pub scale: f32,
    /// `cap * tanh(score / cap)` where given (Gemma 2, arXiv 2408.00118).
    pub soft_cap: Option<f32>,
    /// Keys that a query sees, itself included; all before it where absent (arXiv 2004.05150).
    pub window: Option<usize>,
    /// Whether a query sees no key after its own, as in decoders; in encoders it sees those of all queries.
    pub causal: bool,
    /// Added for each position that the key lies after the first one (ALiBi, arXiv 2108.12409).
    pub slope: f32,
}

/// Vectors that [`attend`] works in.
pub const fn attention_lines(head_dim: usize) -> usize {
    QUERIES * head_dim.div_ceil(LANES)
}

/// Whether [`attend`] takes a part. Builds for WebAssembly without threads have no use for that, and leave it out.
pub const ATTENDS_TO_PARTS: bool = cfg!(any(not(target_family = "wasm"), target_feature = "atomics"));

/// What a part of an attention holds besides its weighted sum of values: the largest score and the sum of weights.
pub const PART_TERMS: usize = 2;

/// Attends the queries of heads that share a cache: `out[t] = Σ_p softmax_p(score(t, p)) · value[p]`.
///
/// Query `t` is `q[t * q_stride ..][.. head_dim]`, already rotated, at position `first + t / group`, where `group` heads
/// attend together; it sees positions up to its own (up to the last query's, where [`Score::causal`] is false) that the
/// window reaches. `out` is `[tokens * group, head_dim]`.
///
/// With `part`, which begins and ends at multiples of [`LANES`], it attends to those positions alone, and `out` is
/// `[tokens * group, head_dim + PART_TERMS]`, for [`join_parts`]: so that threads share the keys of one query.
///
/// Position `p` of the sequence lies at position `p` of `cache`, or with `pages` at `pages[p / PAGE] * PAGE + p % PAGE`,
/// so that sequences share a cache, and what they begin with (PagedAttention, arXiv 2309.06180).
///
/// Panics if `group` is zero, if `part` is not as said, if the cache or `pages` holds fewer than `first + tokens` positions,
/// or `scratch` fewer lines than [`attention_lines`]; what it holds does not matter.
pub fn attend(
    isa: IsaKind,
    q: &[f32],
    q_stride: usize,
    cache: HeadCache<'_>,
    pages: Option<&[u32]>,
    first: usize,
    group: usize,
    part: Option<Range<usize>>,
    score: Score,
    out: MatrixMut<'_>,
    scratch: &mut [[f32; LANES]],
) {
    debug_assert!(ATTENDS_TO_PARTS || part.is_none());
    let part = part.filter(|_| ATTENDS_TO_PARTS);
    let terms = if part.is_some() { PART_TERMS } else { 0 };
    let head_dim = out.columns() - terms;
    let part = part.unwrap_or(0..usize::MAX / LANES * LANES);
    assert!(part.start.is_multiple_of(LANES) && part.end.is_multiple_of(LANES), "parts of whole blocks");
    match cache {
        HeadCache::F32(cache) => {
            isa.run(Attend { q, q_stride, head_dim, cache, pages, first, group, part, score, out, scratch })
        }
        HeadCache::F16(cache) => {
            isa.run(Attend { q, q_stride, head_dim, cache, pages, first, group, part, score, out, scratch })
        }
        HeadCache::Q8_0(cache) => {
            isa.run(Attend { q, q_stride, head_dim, cache, pages, first, group, part, score, out, scratch })
        }
    }
}

/// Whether `group` heads that share keys and values cost less together, in one [`attend`], than each alone.
pub fn attends_together(isa: IsaKind, group: usize) -> bool {
    isa.run(Together { group })
}

struct Together {
    group: usize,
}

impl Op for Together {
    const DOTS: bool = false;

    type Output = bool;

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) -> bool {
        self.group >= if I::TOKENS < 4 { 2 } else { 3 }
    }
}

struct Attend<'a, T> {
    q: &'a [f32],
    q_stride: usize,
    head_dim: usize,
    cache: Lines<'a, T>,
    pages: Option<&'a [u32]>,
    first: usize,
    group: usize,
    part: Range<usize>,
    score: Score,
    out: MatrixMut<'a>,
    scratch: &'a mut [[f32; LANES]],
}

impl<T: Element> Op for Attend<'_, T> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let queries = self.out.rows();
        let mut t = 0;
        if I::TOKENS >= QUERIES {
            while t + QUERIES <= queries {
                self.queries::<I, QUERIES, 2, 2>(isa, t);
                t += QUERIES;
            }
        }
        // A vector takes four of few registers, or none.
        let few = const { I::TOKENS < 4 };
        let step = if few { FEW } else { 4 };
        while t + step <= queries + usize::from(stands_in::<I>()) {
            if few {
                self.queries::<I, FEW, 1, 1>(isa, t);
            } else if const { I::TOKENS >= QUERIES } {
                self.queries::<I, 4, 1, 2>(isa, t);
            } else {
                self.queries::<I, 4, 1, 1>(isa, t);
            }
            t += step;
        }
        while t < queries {
            if few {
                self.queries::<I, 1, 1, 1>(isa, t);
            } else {
                self.queries::<I, 1, 4, 4>(isa, t);
            }
            t += 1;
        }
    }
}

/// Whether four queries attend where there are three, the last twice: that takes no longer than three would.
const fn stands_in<I: Isa>() -> bool {
    I::TOKENS >= 4
}

impl<T: Element> Attend<'_, T> {
    /// `Q` queries from `t` on, the last of which stands for those that are not there: `K` blocks of keys at a time for the
    /// scores, `V` vectors of dimensions for the values.
    #[inline(always)]
    fn queries<I: Isa, const Q: usize, const K: usize, const V: usize>(&mut self, isa: I, t: usize) {
        let head_dim = self.head_dim;
        let value_lines = head_dim.div_ceil(LANES);
        let end = self.first + (self.out.rows() - 1) / self.group;
        let most = if const { stands_in::<I>() } { self.out.rows() - 1 } else { usize::MAX };
        let position = |t: usize| self.first + t.min(most) / self.group;
        let last = if self.score.causal { position(t + Q - 1) } else { end };
        let begin = self.score.window.map_or(0, |window| (position(t) + 1).saturating_sub(window));
        let (begin, behind) = match ATTENDS_TO_PARTS {
            true => (begin.max(self.part.start), (last + 1).min(self.part.end)),
            false => (begin, last + 1),
        };

        let mut q = [&[][..]; Q];
        for i in 0..Q {
            q[i] = &self.q[(t + i).min(most) * self.q_stride..][..head_dim];
        }
        let sums = &mut self.scratch[..Q * value_lines];
        sums.fill([0.0; LANES]);
        let mut largest = [f32::NEG_INFINITY; Q];
        let mut total = [0.0; Q];
        let mut weights = [[[0.0; LANES]; SPAN / LANES]; Q];

        // Later queries find in the cache what the first have read.
        let fetch = t == 0;
        let mut span = begin / LANES * LANES;
        while span < behind {
            let len = (PAGE - span % PAGE).min(behind - span);
            let at = match self.pages {
                Some(pages) => pages[span / PAGE] as usize * PAGE + span % PAGE,
                None => span,
            };
            let blocks = len.div_ceil(LANES);
            for block in (0..blocks).step_by(K) {
                scores::<I, T, Q, K>(
                    isa,
                    &self.cache,
                    self.score,
                    &q,
                    [span, at],
                    [block, blocks],
                    fetch,
                    &mut weights,
                );
            }
            for i in 0..Q {
                let weights = &mut weights[i][..blocks];
                let query = position(t + i);
                mask(weights, span, if self.score.causal { query } else { end }, query, self.score.window);
                let new = isa.max_lane(largest_lanes(isa, weights));
                if new > largest[i] {
                    // What was summed so far was relative to a smaller maximum.
                    let shrink = exp(isa, isa.splat(largest[i] - new));
                    for sum in &mut sums[i * value_lines..][..value_lines] {
                        isa.store_f32(isa.mul(isa.load_f32(sum), shrink), sum);
                    }
                    total[i] *= isa.max_lane(shrink);
                    largest[i] = new;
                }
                if largest[i] == f32::NEG_INFINITY {
                    weights.fill([0.0; LANES]);
                } else {
                    total[i] += isa.sum(exp_lanes(isa, weights, largest[i]));
                }
            }
            let positions = at..at + len;
            let mut line = 0;
            while line + V <= value_lines {
                values::<I, T, Q, V>(
                    isa,
                    &self.cache,
                    positions.clone(),
                    &weights,
                    sums,
                    line,
                    value_lines,
                    fetch,
                );
                line += V;
            }
            while V > 1 && line < value_lines {
                values::<I, T, Q, 1>(
                    isa,
                    &self.cache,
                    positions.clone(),
                    &weights,
                    sums,
                    line,
                    value_lines,
                    fetch,
                );
                line += 1;
            }
            span += len;
        }
        for i in 0..Q {
            let sums = sums[i * value_lines..][..value_lines].as_flattened();
            let (out, terms) = self.out.row_mut((t + i).min(most)).split_at_mut(head_dim);
            let total = match terms {
                _ if !ATTENDS_TO_PARTS => total[i],
                [] => total[i],
                _ => {
                    terms.copy_from_slice(&[largest[i], total[i]]);
                    1.0
                }
            };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum / total;
            }
        }
    }
}

/// The attention of one query, `out`, from its parts over the positions, of which one at least it sees: each the first
/// of `stride` floats, as [`attend`] leaves them.
pub fn join_parts(isa: IsaKind, parts: &[f32], stride: usize, out: &mut [f32]) {
    isa.run(JoinParts { parts, stride, out });
}

struct JoinParts<'a> {
    parts: &'a [f32],
    stride: usize,
    out: &'a mut [f32],
}

impl Op for JoinParts<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { parts, stride, out } = self;
        let head_dim = out.len();
        let largest =
            parts.chunks(stride).fold(f32::NEG_INFINITY, |largest, part| largest.max(part[head_dim]));
        let mut total = 0.0;
        out.fill(0.0);
        for part in parts.chunks(stride) {
            let weight = isa.max_lane(exp(isa, isa.splat(part[head_dim] - largest)));
            total += weight * part[head_dim + 1];
            out.iter_mut().zip(part).for_each(|(out, sum)| *out += weight * sum);
        }
        out.iter_mut().for_each(|out| *out /= total);
    }
}

/// Scores of `Q` queries for `K` of the `blocks` of 16 keys of a span, which begins at position `span` and lies `at` some
/// place in the cache. Behind the last block it stands for those that are not there.
#[inline(always)]
fn scores<I: Isa, T: Element, const Q: usize, const K: usize>(
    isa: I,
    cache: &Lines<'_, T>,
    score: Score,
    q: &[&[f32]; Q],
    [span, at]: [usize; 2],
    [block, blocks]: [usize; 2],
    fetch: bool,
    out: &mut [[[f32; LANES]; SPAN / LANES]; Q],
) {
    let head_dim = q[0].len();
    let groups = head_dim.div_ceil(GROUP);
    let mut keys = [&[][..]; K];
    let mut places = [0; K];
    for b in 0..K {
        places[b] = at / LANES + if K > 1 { (block + b).min(blocks - 1) } else { block };
        keys[b] = &cache.keys[places[b] * head_dim..][..head_dim];
    }
    // The same of the next page.
    if fetch {
        let bytes = head_dim * size_of::<[T; LANES]>();
        for line in (0..K * bytes).step_by(64) {
            isa.prefetch(keys[0], PAGE / LANES * bytes + line);
        }
    }
    let mut sums = [[isa.splat(0.0); K]; Q];
    if T::SCALED {
        for g in 0..groups {
            let mut part = [[isa.splat(0.0); K]; Q];
            add_products(isa, q, &keys, g * GROUP..((g + 1) * GROUP).min(head_dim), &mut part);
            for b in 0..K {
                let scale = isa.load_f16(&cache.key_scales[places[b] * groups + g]);
                for i in 0..Q {
                    sums[i][b] = isa.mul_add(part[i][b], scale, sums[i][b]);
                }
            }
        }
    } else {
        add_products(isa, q, &keys, 0..head_dim, &mut sums);
    }
    for i in 0..Q {
        for b in 0..K {
            let s = isa.mul(sums[i][b], isa.splat(score.scale));
            isa.store_f32(cap_and_slope(isa, s, score, span + (block + b) * LANES), &mut out[i][block + b]);
        }
    }
}

/// The scores of 16 keys, the first at `position`, from scaled products.
#[inline(always)]
fn cap_and_slope<I: Isa>(isa: I, mut s: I::F32, score: Score, position: usize) -> I::F32 {
    if let Some(cap) = score.soft_cap {
        s = isa.mul(isa.splat(cap), tanh(isa, isa.mul(s, isa.splat(1.0 / cap))));
    }
    if score.slope != 0.0 {
        let positions = isa.add(isa.splat(position as f32), isa.load_f32(&LANE_INDEX));
        s = isa.mul_add(positions, isa.splat(score.slope), s);
    }
    s
}

/// The largest score of each lane.
#[inline(always)]
fn largest_lanes<I: Isa>(isa: I, scores: &[[f32; LANES]]) -> I::F32 {
    let mut line = isa.load_f32(&scores[0]);
    for other in &scores[1..] {
        line = isa.max(isa.load_f32(other), line);
    }
    line
}

/// Adds the products of some dimensions of `Q` queries with `K` blocks of 16 keys.
#[inline(always)]
fn add_products<I: Isa, T: Element, const Q: usize, const K: usize>(
    isa: I,
    q: &[&[f32]; Q],
    keys: &[&[[T; LANES]]; K],
    dims: Range<usize>,
    sums: &mut [[I::F32; K]; Q],
) {
    // All of one length, so that nothing is checked in the loop: sums that it may leave by a panic are stored each time.
    let (mut q_dims, mut key_dims) = ([&[][..]; Q], [&[][..]; K]);
    for i in 0..Q {
        q_dims[i] = &q[i][dims.start..][..dims.len()];
    }
    for b in 0..K {
        key_dims[b] = &keys[b][dims.start..][..dims.len()];
    }
    for d in 0..dims.len() {
        unrolled!(b < K, {
            let key = T::load(isa, &key_dims[b][d]);
            unrolled!(i < Q, {
                sums[i][b] = isa.mul_add(isa.splat(q_dims[i][d]), key, sums[i][b]);
            });
        });
    }
}

const LANE_INDEX: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// `1 - 2 / (e^2x + 1)`.
#[inline(always)]
fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let e = exp(isa, isa.add(x, x));
    isa.sub(one, isa.div(isa.splat(2.0), isa.add(e, one)))
}

/// Takes out the keys that the query does not see: those after `last`, and those that its window does not reach.
#[inline(always)]
fn mask(scores: &mut [[f32; LANES]], span: usize, last: usize, query: usize, window: Option<usize>) {
    let scores = scores.as_flattened_mut();
    if span + scores.len() > last {
        let visible = (last + 1).saturating_sub(span).min(scores.len());
        scores[visible..].fill(f32::NEG_INFINITY);
    }
    if let Some(window) = window {
        let hidden = (query + 1).saturating_sub(window).saturating_sub(span).min(scores.len());
        scores[..hidden].fill(f32::NEG_INFINITY);
    }
}

/// Adds the weighted values of `positions` to vectors `line .. line + V` of the sums of `Q` queries.
#[inline(always)]
fn values<I: Isa, T: Element, const Q: usize, const V: usize>(
    isa: I,
    cache: &Lines<'_, T>,
    positions: Range<usize>,
    weights: &[[[f32; LANES]; SPAN / LANES]; Q],
    sums: &mut [[f32; LANES]],
    line: usize,
    value_lines: usize,
    fetch: bool,
) {
    let mut acc = [[isa.splat(0.0); V]; Q];
    for i in 0..Q {
        for v in 0..V {
            acc[i][v] = isa.load_f32(&sums[i * value_lines + line + v]);
        }
    }
    let lines = &cache.values[positions.start * value_lines..positions.end * value_lines];
    let bytes = value_lines * size_of::<[T; LANES]>();
    for (p, lines) in lines.chunks_exact(value_lines).enumerate() {
        if fetch && line == 0 {
            for line in (0..bytes).step_by(64) {
                isa.prefetch(lines, PAGE * bytes + line);
            }
        }
        let lines = &lines[line..line + V];
        for v in 0..V {
            let mut value = T::load(isa, &lines[v]);
            if T::SCALED {
                let groups = value_lines.div_ceil(GROUP / LANES);
                let scale = cache.value_scales[(positions.start + p) * groups + (line + v) / (GROUP / LANES)];
                value = isa.mul(value, isa.load_f16(&[scale; LANES]));
            }
            for i in 0..Q {
                let weight = weights[i].as_flattened()[p];
                acc[i][v] = isa.mul_add(isa.splat(weight), value, acc[i][v]);
            }
        }
    }
    for i in 0..Q {
        for v in 0..V {
            isa.store_f32(acc[i][v], &mut sums[i * value_lines + line + v]);
        }
    }
}
