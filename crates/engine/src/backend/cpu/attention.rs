//! Attention of decoders: each sequence to its own keys and values in a cache.

use std::ops::Range;

use firecrest_kernels::isa::{IsaKind, LANES};
use firecrest_kernels::ops::{
    self, AttentionPanels, HeadCache, MatrixMut, PAGE, PART_TERMS, RopeLayout, Score, attention_lines,
};

use super::{Buffer, Cpu, KvCache, KvHeads, PageTable, Rows};

/// How a layer attends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    pub(crate) heads: usize,
    pub(crate) scale: f32,
    pub(crate) soft_cap: Option<f32>,
    pub(crate) window: Option<usize>,
    /// ALiBi slopes, one a head.
    pub(crate) slopes: Option<&'a [f32]>,
}

/// The least positions of a part, and the most parts: joining them costs little beside that.
const PART: usize = 128;
const MOST_PARTS: usize = 16;

/// How the positions that a single token sees are cut into parts, so that threads share them even where heads are few
/// (Flash-Decoding, crfm.stanford.edu/2023/10/12/flashdecoding.html). The number of threads has no say, so that the same
/// numbers are added in the same order on every machine.
struct Cut {
    /// Where the first part begins.
    start: usize,
    parts: usize,
    /// Positions of a part.
    len: usize,
    /// Floats that a head leaves for each token, and part.
    width: usize,
}

impl Cut {
    fn new(rows: &Rows<'_>, window: Option<usize>, head_dim: usize) -> Self {
        let end = rows.first + rows.tokens;
        let seen = window.map_or(0, |window| end.saturating_sub(window)) / PAGE * PAGE..end;
        if !ops::ATTENDS_TO_PARTS || rows.tokens > 1 || seen.len() <= PART {
            return Self { start: 0, parts: 1, len: 0, width: head_dim };
        }
        let most = seen.len().div_ceil(PART).min(MOST_PARTS);
        // Of equal length, so that rounding up may leave fewer than the most, yet never one.
        let len = seen.len().div_ceil(most).next_multiple_of(PAGE);
        let parts = seen.len().div_ceil(len);
        Self { start: seen.start, parts, len, width: head_dim + PART_TERMS }
    }

    /// How many; one where it is not cut.
    fn parts(&self) -> usize {
        if ops::ATTENDS_TO_PARTS { self.parts } else { 1 }
    }

    fn is_needed(&self) -> bool {
        self.parts() > 1
    }

    fn part(&self, i: usize) -> Option<Range<usize>> {
        let start = self.start + i * self.len;
        self.is_needed().then(|| start..start + self.len)
    }
}

/// What a thread attends in.
#[derive(Debug, Default)]
pub(super) struct AttentionMemory {
    lines: Vec<[f32; LANES]>,
    panels: Vec<AttentionPanels>,
}

impl AttentionMemory {
    /// As [`ops::attend`], in 16-bit fixed point where that takes less time, unless `exact`.
    pub(super) fn attend(
        &mut self,
        isa: IsaKind,
        exact: bool,
        (q, q_stride): (&[f32], usize),
        cache: HeadCache<'_>,
        pages: Option<&[u32]>,
        first: usize,
        group: usize,
        part: Option<Range<usize>>,
        score: Score,
        out: MatrixMut<'_>,
    ) {
        let head_dim = out.columns() - if part.is_some() { PART_TERMS } else { 0 };
        if !exact && part.is_none() && group == 1 && ops::attends_in_i16(isa, out.rows(), head_dim) {
            self.panels.resize_with(1, || AttentionPanels::ZERO);
            return ops::attend_i16(isa, q, q_stride, cache, pages, first, score, out, &mut self.panels[0]);
        }
        self.lines.resize(attention_lines(head_dim).max(self.lines.len()), [0.0; LANES]);
        ops::attend(isa, q, q_stride, cache, pages, first, group, part, score, out, &mut self.lines);
    }
}

impl Cpu {
    /// Stores keys and values, `[tokens, kv_heads * head_dim]`, with the tokens of `rows` one after another.
    pub(crate) fn remember(
        &mut self,
        [k, v]: [&Buffer; 2],
        cache: &mut KvCache,
        layer: usize,
        rows: &[Rows<'_>],
    ) {
        let isa = self.isa;
        let head_dim = cache.heads(layer).head_dim;
        let positions = rows.iter().flat_map(|rows| {
            (rows.first..rows.first + rows.tokens).map(|position| rows.pages.place(position))
        });
        let stride = k.columns();
        let keys_and_values = k.read().chunks_exact(stride).zip(v.read().chunks_exact(stride));
        for (place, (k, v)) in positions.zip(keys_and_values) {
            let heads = k.chunks_exact(head_dim).zip(v.chunks_exact(head_dim));
            for (head, (k, v)) in heads.enumerate() {
                ops::store_kv(isa, cache.head_mut(layer, head), place, k, v);
            }
        }
    }

    /// Attends, each sequence to itself: `q` is `[tokens, heads * head_dim]`, with the tokens of `rows` one after another,
    /// whose keys and values are in the cache. `out` becomes like `q`.
    pub(crate) fn attend(
        &mut self,
        attention: Attention<'_>,
        q: &Buffer,
        cache: &KvCache,
        layer: usize,
        rows: &[Rows<'_>],
        out: &mut Buffer,
    ) {
        let (isa, exact) = (self.isa, self.is_exact());
        let KvHeads { heads: kv_heads, head_dim } = cache.heads(layer);
        let Attention { heads, scale, soft_cap, window, slopes } = attention;
        let (q_stride, group) = (heads * head_dim, heads / kv_heads);
        out.reshape(q.tokens(), q_stride);
        let cuts: Vec<_> = rows.iter().map(|rows| Cut::new(rows, window, head_dim)).collect();
        let in_parts = cuts.iter().filter(|cut| cut.is_needed()).map(Cut::parts);
        self.attended.resize(in_parts.sum::<usize>() * heads * (head_dim + PART_TERMS), 0.0);

        let (mut views, mut queries) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let (mut rest, mut rest_of_q) = (MatrixMut::new(out.data_mut(), q_stride), q.read());
        let mut rest_of_parts = &mut self.attended[..];
        for (rows, cut) in rows.iter().zip(&cuts) {
            let (mut view, q, parts);
            (view, rest) = rest.split_rows(rows.tokens);
            (q, rest_of_q) = rest_of_q.split_at(rows.tokens * q_stride);
            if cut.is_needed() {
                let columns = cut.parts() * heads * cut.width;
                (parts, rest_of_parts) = rest_of_parts.split_at_mut(columns);
                view = MatrixMut::new(parts, columns);
            }
            views.push(view);
            queries.push(q);
        }
        // For single tokens, heads that share keys and values may read them together, if the tasks remain so many that no
        // thread waits long for the last.
        let tasks = || kv_heads * cuts.iter().map(Cut::parts).sum::<usize>();
        let threads = self.pool.threads();
        let plenty = !ops::ATTENDS_TO_PARTS || threads == 1 || tasks() >= 2 * threads;
        let together = plenty && slopes.is_none() && ops::attends_together(isa, group);
        let heads_of = |rows: &Rows<'_>| if together && rows.tokens == 1 { group } else { 1 };
        self.pool.for_columns(
            &mut views,
            |i| heads_of(&rows[i]) * cuts[i].width,
            &mut self.workers,
            |worker, i, columns, mut out| {
                let (together, cut) = (heads_of(&rows[i]), &cuts[i]);
                // A thread's parts of a head follow one another, so that it streams through the cache.
                let task = columns.start / columns.len();
                let head = task / cut.parts() * together;
                let (out, stride) = match together {
                    1 => (out, q_stride),
                    _ => (MatrixMut::new(out.row_mut(0), cut.width), head_dim),
                };
                let slope = slopes.map_or(0.0, |slopes| slopes[head]);
                let score = Score { scale, soft_cap, window, causal: true, slope };
                worker.attention.attend(
                    isa,
                    exact,
                    (&queries[i][head * head_dim..], stride),
                    cache.head(layer, head / group),
                    Some(rows[i].pages.pages()),
                    rows[i].first,
                    together,
                    cut.part(task % cut.parts()),
                    score,
                    out,
                );
            },
        );

        let (mut rest, mut rest_of_parts) = (out.data_mut(), &self.attended[..]);
        for (rows, cut) in rows.iter().zip(&cuts) {
            let (token, parts);
            (token, rest) = rest.split_at_mut(rows.tokens * q_stride);
            if cut.is_needed() {
                (parts, rest_of_parts) = rest_of_parts.split_at(cut.parts() * heads * cut.width);
                let stride = heads_of(rows) * cut.width;
                let heads = token.chunks_exact_mut(heads_of(rows) * head_dim);
                for (heads, parts) in heads.zip(parts.chunks_exact(cut.parts() * stride)) {
                    for (i, out) in heads.chunks_exact_mut(head_dim).enumerate() {
                        ops::join_parts(isa, &parts[i * cut.width..], stride, out);
                    }
                }
            }
        }
    }

    /// Moves the positions from `keep + discard` up to `len` of a sequence whose pages no other uses down to `keep`, turning
    /// keys back by the angles of `rope`.
    pub(crate) fn shift(
        &mut self,
        cache: &mut KvCache,
        table: &PageTable,
        layer: usize,
        [keep, discard, len]: [usize; 3],
        rope: Option<(RopeLayout, &[(f32, f32)])>,
    ) {
        let KvHeads { heads, head_dim } = cache.heads(layer);
        let mut key = vec![0.0; head_dim];
        for head in 0..heads {
            for position in keep + discard..len {
                let [from, to] = [position, position - discard].map(|position| table.place(position));
                ops::load_key(self.isa, cache.head(layer, head), from, &mut key);
                if let Some((layout, turns)) = rope {
                    ops::rotate(&mut key, turns, layout);
                }
                ops::store_key(self.isa, cache.head_mut(layer, head), to, &key);
                ops::move_values(cache.head_mut(layer, head), head_dim, from, to, 1);
            }
        }
    }
}
