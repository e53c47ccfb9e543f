//! A decoder with its caches: tokens in, logits out.

use std::sync::Arc;

use super::caches::Caches;
use super::pass::Buffers;
use super::rope::Rope;
use super::spec::{DecoderSpec, MixerSpec};
use super::weights::{DecoderWeights, LoadError};
use crate::backend::{Cpu, CpuOptions, KvFormat};
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
    caches: Caches,
    ropes: Vec<Rope>,
    capacity: usize,
    len: usize,
    block: usize,
    buffers: Buffers,
    has_logits: bool,
    read: WeightReads,
}

/// How much of the weights the passes over single tokens have read.
#[derive(Clone, Copy, Debug, Default)]
struct WeightReads {
    bytes: u64,
    tokens: u64,
}

impl Decoder {
    pub(crate) fn new(
        spec: Arc<DecoderSpec>,
        weights: Arc<DecoderWeights>,
        options: &ContextOptions,
    ) -> Result<Self, LoadError> {
        let mut capacity = options.capacity.unwrap_or_else(|| spec.context_length.min(4096)).max(1);
        if let Some(positions) = spec.embedding.positions {
            capacity = capacity.min(positions);
        }
        let caches = Caches::new(&spec, options.kv_format, capacity)?;
        Ok(Self {
            cpu: Cpu::new(&options.cpu)?,
            caches,
            ropes: spec.ropes.iter().map(|rope| rope.resolve(capacity)).collect(),
            capacity,
            len: 0,
            block: options.block.max(1),
            buffers: Buffers::default(),
            has_logits: false,
            read: WeightReads::default(),
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

    /// Bytes of weights that were read for each token that was computed alone, on average: all that a dense model has,
    /// but for its embeddings; of a mixture of experts only the chosen ones. `None` before the first such token.
    pub fn weight_bytes_per_token(&self) -> Option<u64> {
        self.read.bytes.checked_div(self.read.tokens)
    }

    /// Bytes of all weight matrices.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes() as u64
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

    /// Appends `tokens` and the states of each behind the last norm, `[tokens, dim]`, to `out`.
    pub(crate) fn hidden_states(&mut self, tokens: &[u32], out: &mut Vec<f32>) -> Result<(), ForwardError> {
        self.check(tokens)?;
        self.has_logits = false;
        for block in tokens.chunks(self.block) {
            self.pass(block);
            self.cpu.norm_groups(&self.weights.output_norm, &mut self.buffers.x);
            out.extend_from_slice(self.buffers.x.read());
        }
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
        let Self { spec, weights, cpu, caches, ropes, buffers, .. } = self;
        let bytes = super::pass::layers(spec, weights, cpu, caches, ropes, self.len, tokens, buffers);
        self.len += tokens.len();
        if tokens.len() == 1 {
            self.read.bytes += (bytes + self.weights.output.matrix.bytes()) as u64;
            self.read.tokens += 1;
        }
    }

    /// The logits of the tokens in `buffers.x`.
    fn project_logits(&mut self) {
        let Self { spec, weights, cpu, buffers, .. } = self;
        super::pass::logits(spec, weights, cpu, buffers);
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
        let len = self.caches.truncate(self.len.min(len));
        self.len = len;
    }

    fn shift(&mut self, keep: usize, discard: usize) -> Result<(), ForwardError> {
        let len = self.len;
        if keep.checked_add(discard).is_none_or(|end| end > len) {
            return Err(ForwardError::Shift { keep, discard, len });
        }
        let turns: Vec<_> = self.ropes.iter().map(|rope| (rope.layout, rope.turns_back(discard))).collect();
        for (i, layer) in self.spec.layers.iter().enumerate() {
            let MixerSpec::Attention(attention) = &layer.mixer else { continue };
            let rope = attention.rope.map(|rope| (turns[rope].0, turns[rope].1.as_slice()));
            self.cpu.shift(&mut self.caches.kv, i, [keep, discard, len], rope);
        }
        self.caches.conv.iter_mut().flatten().for_each(|conv| conv.shift(keep, discard, len));
        self.len -= discard;
        Ok(())
    }
}
