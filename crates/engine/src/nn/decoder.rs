//! The forward pass of every decoder.

use std::sync::Arc;

use super::spec::{DecoderSpec, FfnSpec, LayerSpec};
use super::weights::{DecoderWeights, FfnWeights, LayerWeights, LoadError};
use crate::backend::{Attention, Buffer, Cpu, CpuOptions, Input, KvCache, KvFormat, KvHeads, Turns};
use crate::generate::{ForwardError, LanguageModel};

/// Tokens whose logits are computed at a time where all are asked for.
const LOGIT_BLOCK: usize = 32;

/// Memory and processors that a context may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContextOptions {
    /// Positions that the KV cache holds; at most what the model was trained on where absent, and at most 4096.
    pub capacity: Option<usize>,
    /// How keys and values are kept.
    pub kv_format: KvFormat,
    /// Tokens that go through the layers together when a prompt is read.
    pub block: usize,
    /// Threads, instruction set and precision.
    pub cpu: CpuOptions,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self { capacity: None, kv_format: KvFormat::default(), block: 512, cpu: CpuOptions::default() }
    }
}

/// A decoder with its KV cache: tokens in, logits out.
#[derive(Debug)]
pub struct Decoder {
    spec: Arc<DecoderSpec>,
    weights: Arc<DecoderWeights>,
    cpu: Cpu,
    cache: KvCache,
    capacity: usize,
    len: usize,
    block: usize,
    buffers: Buffers,
    has_logits: bool,
}

/// Activations, reused from token to token.
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
    logits: Buffer,
    turns: Turns,
}

impl Decoder {
    pub(crate) fn new(
        spec: Arc<DecoderSpec>,
        weights: Arc<DecoderWeights>,
        options: &ContextOptions,
    ) -> Result<Self, LoadError> {
        let capacity = options.capacity.unwrap_or_else(|| spec.context_length.min(4096)).max(1);
        let heads = || {
            spec.layers
                .iter()
                .map(|l| KvHeads { heads: l.attention.kv_heads, head_dim: l.attention.head_dim })
        };
        let bytes = KvCache::bytes(options.kv_format, capacity, heads());
        // Half of the address space of a 32-bit module; on larger machines, more than any has.
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize / 4 || bytes as u64 > 1 << 44) {
            return Err(LoadError::Context { capacity, bytes });
        }
        let cache = KvCache::new(options.kv_format, capacity, heads())
            .ok_or(LoadError::Context { capacity, bytes })?;
        Ok(Self {
            cpu: Cpu::new(&options.cpu)?,
            cache,
            capacity,
            len: 0,
            block: options.block.max(1),
            buffers: Buffers::default(),
            has_logits: false,
            spec,
            weights,
        })
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.cpu.threads()
    }

    /// The instruction set that kernels run on.
    pub fn isa(&self) -> crate::backend::IsaKind {
        self.cpu.isa()
    }

    /// Appends `tokens` and hands the logits of each, `[vocab]`, to `each` with its position.
    pub fn submit_all(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), ForwardError> {
        self.check(tokens)?;
        for block in tokens.chunks(self.block.min(LOGIT_BLOCK)) {
            let first = self.len;
            self.pass(block);
            self.project_logits();
            for (t, logits) in self.buffers.logits.read().chunks_exact(self.spec.vocab).enumerate() {
                each(first + t, logits);
            }
            let last = block.len() - 1;
            self.buffers.logits.keep_from(last);
        }
        self.has_logits = true;
        Ok(())
    }

    fn check(&self, tokens: &[u32]) -> Result<(), ForwardError> {
        if tokens.is_empty() {
            return Err(ForwardError::EmptyInput);
        }
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= self.spec.vocab) {
            return Err(ForwardError::TokenOutOfRange { id, vocab: self.spec.vocab });
        }
        let requested = self.len + tokens.len();
        if requested > self.capacity {
            return Err(ForwardError::ContextFull { capacity: self.capacity, requested });
        }
        Ok(())
    }

    /// All layers for some tokens; leaves the residual stream in `buffers.x`.
    fn pass(&mut self, tokens: &[u32]) {
        let Self { spec, weights, cpu, cache, len, buffers, .. } = self;
        let first = *len;
        cpu.embed(&weights.embedding, tokens, spec.embedding_scale, &mut buffers.x);
        if let Some(rope) = &spec.rope {
            rope.turns(first, tokens.len(), &mut buffers.turns);
        }
        for (i, (layer, weights)) in spec.layers.iter().zip(&weights.layers).enumerate() {
            attention(spec, layer, weights, cpu, cache, i, first, buffers);
            cpu.add(&mut buffers.x, &buffers.delta);
            ffn(&layer.ffn, weights, cpu, buffers);
            cpu.add(&mut buffers.x, &buffers.delta);
        }
        *len += tokens.len();
    }

    /// The logits of the tokens in `buffers.x`.
    fn project_logits(&mut self) {
        let Self { spec, weights, cpu, buffers, .. } = self;
        let input = Input { x: &buffers.x, norm: Some(&weights.output_norm) };
        let output = &weights.output;
        let out = output.onto(&mut buffers.logits);
        cpu.project(input, &mut [out]);
        if spec.logit_scale != 1.0 {
            cpu.scale(&mut buffers.logits, spec.logit_scale);
        }
    }
}

/// `delta = output(attend(q(norm(x)), k(norm(x)), v(norm(x))))`.
fn attention(
    spec: &DecoderSpec,
    layer: &LayerSpec,
    weights: &LayerWeights,
    cpu: &mut Cpu,
    cache: &mut KvCache,
    index: usize,
    first: usize,
    buffers: &mut Buffers,
) {
    let Buffers { x, delta, q, k, v, attended, turns, .. } = buffers;
    cpu.project(
        Input { x, norm: Some(&weights.attention_norm) },
        &mut [weights.q.onto(q), weights.k.onto(k), weights.v.onto(v)],
    );
    if let Some(norm) = &weights.q_norm {
        cpu.norm_heads(norm, q);
    }
    if let Some(norm) = &weights.k_norm {
        cpu.norm_heads(norm, k);
    }
    let attention = Attention {
        heads: layer.attention.heads,
        scale: layer.attention.scale,
        soft_cap: None,
        window: layer.attention.window,
        rope: spec.rope.as_ref().map(|rope| (rope.layout, &*turns)),
        slopes: None,
    };
    cpu.attend(attention, [q, k, v], cache, index, first, attended);
    let output = &weights.attention_output;
    let out = output.onto(delta);
    cpu.project(Input { x: attended, norm: None }, &mut [out]);
}

/// `delta = ffn(norm(x))`.
fn ffn(spec: &FfnSpec, weights: &LayerWeights, cpu: &mut Cpu, buffers: &mut Buffers) {
    let Buffers { x, delta, hidden, .. } = buffers;
    let input = Input { x, norm: Some(&weights.ffn_norm) };
    match (spec, &weights.ffn) {
        (FfnSpec::Gated { activation, .. }, FfnWeights::Gated { gate, up, down }) => {
            cpu.gated(input, gate, up, *activation, hidden);
            let out = down.onto(delta);
            cpu.project(Input { x: hidden, norm: None }, &mut [out]);
        }
    }
}

impl LanguageModel for Decoder {
    fn vocab_size(&self) -> usize {
        self.spec.vocab
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn len(&self) -> usize {
        self.len
    }

    fn submit(&mut self, tokens: &[u32]) -> Result<(), ForwardError> {
        self.check(tokens)?;
        for block in tokens.chunks(self.block) {
            self.pass(block);
        }
        let last = self.buffers.x.tokens() - 1;
        self.buffers.x.keep_from(last);
        self.project_logits();
        self.has_logits = true;
        Ok(())
    }

    fn logits(&mut self) -> Result<&[f32], ForwardError> {
        if self.has_logits { Ok(self.buffers.logits.read()) } else { Err(ForwardError::NoLogits) }
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn shift(&mut self, keep: usize, discard: usize) -> Result<(), ForwardError> {
        let len = self.len;
        if keep.checked_add(discard).is_none_or(|end| end > len) {
            return Err(ForwardError::Shift { keep, discard, len });
        }
        let turns = self.spec.rope.as_ref().map(|rope| (rope.layout, rope.turns_back(discard)));
        for layer in 0..self.cache.layers() {
            let rope = turns.as_ref().map(|(layout, turns)| (*layout, turns.as_slice()));
            self.cpu.shift(&mut self.cache, layer, [keep, discard, len], rope);
        }
        self.len -= discard;
        Ok(())
    }
}
