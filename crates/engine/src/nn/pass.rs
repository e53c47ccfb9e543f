//! The forward pass of every decoder.

use std::sync::Arc;

use super::network::{ConvCaches, Network, Span};
use super::rope::Rope;
use super::sparse::{Observer, SparseState};
use super::spec::{AttentionSpec, ExpertsSpec, FfnSpec, LayerSpec, MixerSpec, Residual, RouterInput};
use super::tensors::Norm;
use super::weights::{AttentionWeights, ExpertsWeights, FfnWeights, LayerWeights, MixerWeights};
use crate::backend::{Attention, Buffer, Cpu, Experts, Input, KvCache, Routes, Rows, Turns};

/// Activations, reused from token to token.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The residual stream, `[tokens, dim]`.
    pub(super) x: Buffer,
    /// What a sublayer adds to it.
    pub(super) delta: Buffer,
    /// What the first of two parallel sublayers adds.
    first_delta: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    mixed: Buffer,
    pub(super) hidden: Buffer,
    pub(super) up: Buffer,
    pub(super) logits: Buffer,
    ids: Vec<u32>,
    positions: Vec<u32>,
    /// For each rope.
    turns: Vec<Turns>,
    routes: Routes,
}

/// What the layers of a pass have in common.
struct Pass<'a> {
    ropes: &'a [Rope],
    rows: &'a [Rows<'a>],
    kv: &'a mut KvCache,
    /// For each of `rows`.
    conv: Vec<&'a mut Arc<ConvCaches>>,
    /// The tokens that the last layer goes on with behind its keys and values, where those are not all.
    outputs: Option<Outputs<'a>>,
}

/// Some tokens of a pass.
struct Outputs<'a> {
    layer: usize,
    /// Which of all.
    tokens: Vec<usize>,
    rows: Vec<Rows<'a>>,
}

impl<'a> Outputs<'a> {
    /// Those of the last of `layers`; `None` where that is all of `spans`.
    fn new(spans: &[Span<'a>], layers: usize) -> Option<Self> {
        if spans.iter().all(|span| span.outputs == span.tokens.len()) {
            return None;
        }
        let mut tokens = Vec::new();
        let mut end = 0;
        for span in spans {
            end += span.tokens.len();
            tokens.extend(end - span.outputs..end);
        }
        Some(Self { layer: layers - 1, tokens, rows: spans.iter().filter_map(Span::outputs).collect() })
    }
}

/// All layers for the tokens of `spans`, whose positions are reserved; leaves the residual streams of their outputs, one
/// span's after another's, in the network's buffers. Returns how many bytes of matrices it read in layers.
///
/// Products and norms see one matrix of all tokens. What depends on a token's position or past, that is position
/// embeddings, ropes, attention and convolutions, knows the spans.
pub(super) fn layers(
    network: &mut Network,
    spans: &mut [Span<'_>],
    mut sparse: Option<&mut SparseState>,
    mut observer: Option<&mut Observer<'_>>,
) -> usize {
    embed(network, spans);
    let Network { spec, weights, cpu, ropes, kv, buffers, .. } = network;
    buffers.turns.resize_with(ropes.len(), Turns::default);
    for (rope, turns) in ropes.iter().zip(&mut buffers.turns) {
        rope.turns(spans.iter().flat_map(Span::positions), turns);
    }
    let rows: Vec<_> = spans.iter().map(Span::rows).collect();
    let outputs = Outputs::new(spans, spec.layers.len());
    let conv = spans.iter_mut().map(|span| &mut *span.conv).collect();
    let mut pass = Pass { ropes, rows: &rows, kv, conv, outputs };
    let mut bytes = 0;
    for (i, (layer, weights)) in spec.layers.iter().zip(&weights.layers).enumerate() {
        mix(layer, weights, cpu, &mut pass, i, buffers);
        if buffers.x.tokens() == 0 {
            break;
        }
        if let (FfnSpec::Experts(spec), FfnWeights::Experts(experts)) = (&layer.ffn, &weights.ffn)
            && spec.router_input == RouterInput::Layer
        {
            route(spec, experts, None, cpu, buffers);
        }
        finish(layer, weights.mixer_post_norm.as_ref(), cpu, buffers);
        match layer.residual {
            Residual::Sequential => cpu.add(&mut buffers.x, &buffers.delta),
            Residual::Parallel => std::mem::swap(&mut buffers.delta, &mut buffers.first_delta),
        }
        if let (Some(sparse), Some(observer)) = (&mut sparse, &mut observer) {
            sparse.observe(i, &layer.ffn, weights, cpu, buffers, observer);
        }
        let skipped = sparse.as_mut().and_then(|sparse| sparse.ffn(i, &layer.ffn, weights, cpu, buffers));
        bytes += match skipped {
            Some(skipped) => weights.bytes - skipped.min(weights.bytes),
            None => weights.bytes + ffn(&layer.ffn, weights, cpu, buffers),
        };
        finish(layer, weights.ffn_post_norm.as_ref(), cpu, buffers);
        if layer.residual == Residual::Parallel {
            cpu.add(&mut buffers.x, &buffers.first_delta);
        }
        cpu.add(&mut buffers.x, &buffers.delta);
    }
    bytes
}

/// The logits of the tokens in `buffers.x`. Returns how many bytes of matrices it read.
pub(super) fn logits(network: &mut Network, sparse: Option<&mut SparseState>) -> usize {
    let Network { spec, weights, cpu, buffers, .. } = network;
    let bytes = sparse.and_then(|sparse| sparse.logits(weights, cpu, buffers)).unwrap_or_else(|| {
        let input = Input { x: &buffers.x, norm: Some(&weights.output_norm) };
        cpu.project(input, &mut [weights.output.onto(&mut buffers.logits)]);
        weights.output.matrix.bytes()
    });
    if spec.logit_scale != 1.0 {
        cpu.scale(&mut buffers.logits, spec.logit_scale);
    }
    if let Some(cap) = spec.logit_cap {
        cpu.soft_cap(&mut buffers.logits, cap);
    }
    bytes
}

/// `x = norm(scale * embedding[token] + position_embedding[position])`.
fn embed(network: &mut Network, spans: &[Span<'_>]) {
    let Network { spec, weights, cpu, buffers, .. } = network;
    let Buffers { x, delta, ids, positions, .. } = buffers;
    ids.clear();
    spans.iter().for_each(|span| ids.extend_from_slice(span.tokens));
    cpu.embed(&weights.embedding, ids, spec.embedding.scale, x);
    if let Some(table) = &weights.positions {
        positions.clear();
        // The context holds no more positions than the table.
        positions.extend(spans.iter().flat_map(Span::positions).map(|position| position as u32));
        cpu.embed(table, positions, 1.0, delta);
        cpu.add(x, delta);
    }
    if let Some(norm) = &weights.embedding_norm {
        cpu.norm_groups(norm, x);
    }
}

/// What a sublayer does last to what it adds.
fn finish(layer: &LayerSpec, norm: Option<&Norm>, cpu: &mut Cpu, buffers: &mut Buffers) {
    if let Some(norm) = norm {
        cpu.norm_groups(norm, &mut buffers.delta);
    }
    if layer.residual_scale != 1.0 {
        cpu.scale(&mut buffers.delta, layer.residual_scale);
    }
}

/// `delta = mixer(norm(x))`. Drops those tokens of `x` that the pass does not go on with.
fn mix(
    layer: &LayerSpec,
    weights: &LayerWeights,
    cpu: &mut Cpu,
    pass: &mut Pass<'_>,
    index: usize,
    buffers: &mut Buffers,
) {
    let norm = weights.mixer_norm.as_ref();
    match (&layer.mixer, &weights.mixer) {
        (MixerSpec::Attention(spec), MixerWeights::Attention(weights)) => {
            attention(spec, weights, norm, cpu, pass, index, buffers);
        }
        (_, MixerWeights::ShortConv { input, taps, output }) => {
            let Buffers { x, delta, hidden, mixed, .. } = buffers;
            cpu.project(Input { x, norm }, &mut [input.onto(hidden)]);
            let caches = pass.conv.iter_mut().zip(pass.rows).filter_map(|(caches, rows)| {
                let cache = Arc::make_mut(caches).get_mut(index)?.as_mut()?;
                Some((cache, rows.first, rows.tokens))
            });
            cpu.short_conv(hidden, taps, caches, mixed);
            if let Some(outputs) = pass.outputs.as_ref().filter(|outputs| outputs.layer == index) {
                [&mut *x, &mut *mixed].into_iter().for_each(|buffer| buffer.keep(&outputs.tokens));
                if outputs.tokens.is_empty() {
                    return;
                }
            }
            cpu.project(Input { x: mixed, norm: None }, &mut [output.onto(delta)]);
        }
        _ => unreachable!("weights are made by the spec"),
    }
}

/// `delta = output(attend(q(norm(x)), k(norm(x)), v(norm(x))))`. Drops those tokens of `x` that the pass does not go on with.
fn attention(
    spec: &AttentionSpec,
    weights: &AttentionWeights,
    norm: Option<&Norm>,
    cpu: &mut Cpu,
    pass: &mut Pass<'_>,
    index: usize,
    buffers: &mut Buffers,
) {
    let Buffers { x, delta, q, k, v, mixed, turns, .. } = buffers;
    let Pass { ropes, rows, kv, outputs, .. } = pass;
    let outputs = outputs.as_ref().filter(|outputs| outputs.layer == index);
    let input = Input { x, norm };
    let (key, value) = (weights.k.onto(k), weights.v.onto(v));
    match outputs {
        None => cpu.project(input, &mut [weights.q.onto(q), key, value]),
        Some(_) => cpu.project(input, &mut [key, value]),
    }
    let limit = |cpu: &mut Cpu, x: &mut Buffer| spec.clamp.iter().for_each(|&limit| cpu.clamp(x, limit));
    limit(cpu, k);
    limit(cpu, v);
    if let Some(norm) = &weights.k_norm {
        cpu.norm_groups(norm, k);
    }
    if let Some(rope) = spec.rope {
        cpu.rotate((ropes[rope].layout, &turns[rope]), spec.head_dim, k);
    }
    cpu.remember([k, v], kv, index, rows);
    if let Some(outputs) = outputs {
        x.keep(&outputs.tokens);
        turns.iter_mut().for_each(|turns| turns.keep(&outputs.tokens));
        if outputs.rows.is_empty() {
            return;
        }
        cpu.project(Input { x, norm }, &mut [weights.q.onto(q)]);
    }
    limit(cpu, q);
    if let Some(norm) = &weights.q_norm {
        cpu.norm_groups(norm, q);
    }
    if let Some(rope) = spec.rope {
        cpu.rotate((ropes[rope].layout, &turns[rope]), spec.head_dim, q);
    }
    let attention = Attention {
        heads: spec.heads,
        scale: spec.scale,
        soft_cap: spec.soft_cap,
        window: spec.window,
        slopes: weights.slopes.as_deref(),
    };
    let rows = outputs.map_or(*rows, |outputs| &outputs.rows);
    cpu.attend(attention, q, kv, index, rows, mixed);
    cpu.project(Input { x: mixed, norm: None }, &mut [weights.output.onto(delta)]);
}

/// `delta = ffn(norm(x))`. Returns how many bytes of matrices it read besides those that every token uses.
fn ffn(spec: &FfnSpec, weights: &LayerWeights, cpu: &mut Cpu, buffers: &mut Buffers) -> usize {
    let norm = weights.ffn_norm.as_ref();
    match (spec, &weights.ffn) {
        (FfnSpec::Gated { activation, .. }, FfnWeights::Gated { gate, up, down }) => {
            let Buffers { x, delta, hidden, up: up_out, .. } = buffers;
            let input = Input { x, norm };
            if gate.bias.is_none() && up.bias.is_none() {
                cpu.gated(input, &gate.matrix, &up.matrix, *activation, hidden);
            } else {
                cpu.project(input, &mut [gate.onto(hidden), up.onto(up_out)]);
                cpu.activate_gated(*activation, hidden, up_out);
            }
            cpu.project(Input { x: hidden, norm: None }, &mut [down.onto(delta)]);
            0
        }
        (FfnSpec::Plain { activation, .. }, FfnWeights::Plain { up, down }) => {
            let Buffers { x, delta, hidden, .. } = buffers;
            cpu.project_activated(Input { x, norm }, *activation, &mut [up.onto(hidden)]);
            cpu.project(Input { x: hidden, norm: None }, &mut [down.onto(delta)]);
            0
        }
        (FfnSpec::Neurons(spec), FfnWeights::Neurons(weights)) => {
            let Buffers { x, delta, hidden, up, .. } = buffers;
            weights.forward(spec, norm, cpu, x, [hidden, up], delta);
            0
        }
        (FfnSpec::Experts(spec), FfnWeights::Experts(weights)) => experts(spec, weights, norm, cpu, buffers),
        _ => unreachable!("weights are made by the spec"),
    }
}

/// Chooses the experts of each token by the scores `router(norm(x))`.
fn route(
    spec: &ExpertsSpec,
    weights: &ExpertsWeights,
    norm: Option<&Norm>,
    cpu: &mut Cpu,
    buffers: &mut Buffers,
) {
    let Buffers { x, up, routes, .. } = buffers;
    cpu.project(Input { x, norm }, &mut [weights.router.onto(up)]);
    routes.decide(up, spec.routing, weights.bias.as_deref());
}

/// `delta = Σ weight · expert(norm(x)) + shared(norm(x))`. Returns the bytes of the experts that were chosen.
fn experts(
    spec: &ExpertsSpec,
    weights: &ExpertsWeights,
    norm: Option<&Norm>,
    cpu: &mut Cpu,
    buffers: &mut Buffers,
) -> usize {
    if spec.router_input == RouterInput::Ffn {
        route(spec, weights, norm, cpu, buffers);
    }
    let Buffers { x, delta, hidden, up, mixed, routes, .. } = buffers;
    let input = Input { x, norm };
    let experts =
        Experts { gate: &weights.gate, up: &weights.up, down: &weights.down, activation: spec.activation };
    cpu.experts(input, experts, routes, delta);
    if let Some(shared) = &weights.shared {
        cpu.gated(input, &shared.gate, &shared.up, spec.activation, hidden);
        cpu.project(Input { x: hidden, norm: None }, &mut [shared.down.onto(mixed)]);
        if let Some(scale) = &shared.scale {
            cpu.project(input, &mut [scale.onto(up)]);
            cpu.scale_by_sigmoid(mixed, up);
        }
        cpu.add(delta, mixed);
    }
    routes.experts() * weights.expert_bytes()
}
