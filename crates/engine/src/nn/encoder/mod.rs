//! The forward pass of every encoder: many sequences at once, packed one after another without padding.

mod spec;
mod weights;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use spec::{EncoderFfn, EncoderSpec, Positions};
pub(crate) use weights::EncoderWeights;

use super::rope::Rope;
use crate::backend::{Buffer, Cpu, Input, Matrix, SequenceAttention, Turns};
use weights::EncoderLayer;

/// What an encoder reads at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence<'a> {
    /// At least one, at most the encoder's context.
    pub(crate) tokens: &'a [u32],
    /// Where the second segment begins, of a pair of texts; the length where there is one text.
    pub(crate) second: usize,
}

/// An encoder: sequences in, the states of their tokens out.
#[derive(Debug)]
pub(crate) struct Encoder {
    spec: Arc<EncoderSpec>,
    weights: Arc<EncoderWeights>,
    /// Where positions are rotary.
    rope: Option<Rope>,
    cpu: Cpu,
    buffers: Buffers,
}

/// Activations, reused from batch to batch.
#[derive(Debug, Default)]
struct Buffers {
    /// The residual stream, `[tokens, dim]`.
    x: Buffer,
    /// What a sublayer adds to it.
    delta: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    hidden: Buffer,
    up: Buffer,
    turns: Turns,
    ids: Vec<u32>,
    ranges: Vec<Range<usize>>,
}

impl Encoder {
    pub(crate) fn new(spec: Arc<EncoderSpec>, weights: Arc<EncoderWeights>, cpu: Cpu) -> Self {
        let rope = match &spec.positions {
            Positions::Rotary(rope) => Some(rope.resolve(spec.context_length)),
            Positions::Learned => None,
        };
        Self { spec, weights, rope, cpu, buffers: Buffers::default() }
    }

    /// Threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.cpu.threads()
    }

    /// The last layer's states of all tokens, `[tokens, dim]`, sequence after sequence.
    ///
    /// Sequences are not empty, fit the context, and have no token beyond the vocabulary.
    pub(crate) fn states(&mut self, sequences: &[Sequence<'_>]) -> &[f32] {
        self.embed(sequences);
        let Self { spec, weights, rope, cpu, buffers } = self;
        for layer in &weights.layers {
            attention(spec, rope.as_ref(), layer, cpu, buffers);
            cpu.add_norm(&mut buffers.x, Some(&buffers.delta), &layer.attention_norm);
            ffn(spec.ffn, layer, cpu, buffers);
            cpu.add_norm(&mut buffers.x, Some(&buffers.delta), &layer.output_norm);
        }
        buffers.x.read()
    }

    /// The classifier's scores, `[sequences, labels]`, and the number of labels; `None` where there is no classifier.
    pub(crate) fn scores(&mut self, sequences: &[Sequence<'_>]) -> Option<(&[f32], usize)> {
        let weights = Arc::clone(&self.weights);
        let classifier = weights.classifier.as_ref()?;
        self.states(sequences);
        let Self { cpu, buffers, .. } = self;
        let Buffers { x, delta, hidden, ranges, .. } = buffers;
        delta.select(x, ranges.iter().map(|range| range.start));
        for (linear, is_last) in
            [(classifier.dense.as_ref(), classifier.output.is_none()), (classifier.output.as_ref(), true)]
        {
            let Some(linear) = linear else { continue };
            cpu.project(Input { x: delta, norm: None }, &mut [linear.onto(hidden)]);
            if !is_last {
                hidden.tanh();
            }
            std::mem::swap(delta, hidden);
        }
        Some((delta.read(), delta.columns()))
    }

    /// Sums the embeddings of tokens, segments and positions, and normalises them.
    fn embed(&mut self, sequences: &[Sequence<'_>]) {
        let Self { spec, weights, rope, cpu, buffers } = self;
        let Buffers { x, turns, ids, ranges, .. } = buffers;
        ranges.clear();
        let mut end = 0;
        for sequence in sequences {
            ranges.push(end..end + sequence.tokens.len());
            end += sequence.tokens.len();
        }
        fill(ids, sequences, |sequence, i| sequence.tokens[i]);
        cpu.embed(&weights.embedding, ids, 1.0, x);
        let add = |cpu: &mut Cpu, table: &Option<Matrix>, ids: &[u32], x: &mut Buffer| {
            if let Some(table) = table {
                cpu.add_rows(table, ids, x);
            }
        };
        let last_type = spec.token_types.saturating_sub(1).min(1) as u32;
        fill(ids, sequences, |sequence, i| if i < sequence.second { 0 } else { last_type });
        add(cpu, &weights.token_types, ids, x);
        fill(ids, sequences, |_, i| i as u32);
        add(cpu, &weights.positions, ids, x);
        if let Some(rope) = rope {
            let longest = sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(0);
            rope.turns(0..longest, turns);
        }
        cpu.add_norm(x, None, &weights.embedding_norm);
    }
}

/// One id for each token of each sequence.
fn fill(ids: &mut Vec<u32>, sequences: &[Sequence<'_>], id: impl Fn(&Sequence<'_>, usize) -> u32) {
    ids.clear();
    for sequence in sequences {
        ids.extend((0..sequence.tokens.len()).map(|i| id(sequence, i)));
    }
}

/// `delta = output(attend(q x, k x, v x))`.
fn attention(
    spec: &EncoderSpec,
    rope: Option<&Rope>,
    layer: &EncoderLayer,
    cpu: &mut Cpu,
    buffers: &mut Buffers,
) {
    let Buffers { x, delta, q, k, v, attended, turns, ranges, .. } = buffers;
    let [to_q, to_k, to_v] = &layer.qkv;
    cpu.project(Input { x, norm: None }, &mut [to_q.onto(q), to_k.onto(k), to_v.onto(v)]);
    let attention = SequenceAttention {
        heads: spec.heads,
        head_dim: spec.head_dim,
        scale: spec.scale,
        rope: rope.map(|rope| (rope.layout, &*turns)),
    };
    cpu.attend_sequences(attention, ranges, [q, k, v], attended);
    cpu.project(Input { x: attended, norm: None }, &mut [layer.attention_output.onto(delta)]);
}

/// `delta = ffn(x)`.
fn ffn(spec: EncoderFfn, layer: &EncoderLayer, cpu: &mut Cpu, buffers: &mut Buffers) {
    let Buffers { x, delta, hidden, up, .. } = buffers;
    let input = Input { x, norm: None };
    match (spec, &layer.gate) {
        (EncoderFfn::Gated { activation, .. }, Some(gate)) => {
            cpu.project(input, &mut [gate.onto(hidden), layer.up.onto(up)]);
            cpu.activate_gated(activation, hidden, up);
        }
        (EncoderFfn::Plain { activation, .. } | EncoderFfn::Gated { activation, .. }, _) => {
            cpu.project_activated(input, activation, &mut [layer.up.onto(hidden)]);
        }
    }
    cpu.project(Input { x: hidden, norm: None }, &mut [layer.down.onto(delta)]);
}
