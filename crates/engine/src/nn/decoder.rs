//! A decoder with its caches: tokens in, logits out.

use std::path::Path;
use std::sync::Arc;

use super::network::{Network, Sequence};
use super::pass;
use super::saved::{self, SavedContextError};
use super::sparse::{DecoderSparsity, Observer, ScreenRecall, SparseState, SparseWeights};
use super::spec::{DecoderSpec, MixerSpec};
use super::weights::{DecoderWeights, LoadError};
use crate::backend::{CpuOptions, KvFormat};
use crate::generate::{ForwardError, LanguageModel};
use crate::sparse::{LevelProfile, SparseError, SparsityLevel, SparsityProfile, Thresholds};

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
    /// How much of the model is computed for tokens that come one by one. Levels that lose something need the model's
    /// [profile](crate::Model::with_sparsity_profile).
    pub sparsity: SparsityLevel,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            capacity: None,
            kv_format: KvFormat::default(),
            block: 512,
            cpu: CpuOptions::default(),
            sparsity: SparsityLevel::default(),
        }
    }
}

/// A decoder with its KV cache: tokens in, logits out.
#[derive(Debug)]
pub struct Decoder {
    network: Network,
    sequence: Sequence,
    has_logits: bool,
    /// Whether the last pass was over one token.
    single: bool,
    read: WeightReads,
    sparse: Option<SparseState>,
    shared: SharedSparsity,
}

/// What decoders of one model share to leave things out.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedSparsity {
    pub(crate) profile: Option<Arc<SparsityProfile>>,
    /// Made by the first decoder that needs it.
    pub(crate) weights: Arc<std::sync::OnceLock<Arc<SparseWeights>>>,
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
        shared: SharedSparsity,
        options: &ContextOptions,
    ) -> Result<Self, LoadError> {
        let network = Network::new(spec, weights, options, 1)?;
        let mut decoder = Self {
            sequence: network.sequence(),
            network,
            has_logits: false,
            single: false,
            read: WeightReads::default(),
            sparse: None,
            shared,
        };
        decoder.set_sparsity(&options.sparsity).map_err(|error| LoadError::Sparsity(Box::new(error)))?;
        Ok(decoder)
    }

    /// Computes so much of the model for single tokens from now on. The first time that a level other than
    /// [`SparsityLevel::Off`] is asked for, down projections are laid out anew, which takes as much memory again. Both
    /// ways are then timed for a few tokens, and the faster is kept.
    ///
    /// Fails on a level that the model's profile does not have; the decoder then stays as it was.
    pub fn set_sparsity(&mut self, level: &SparsityLevel) -> Result<(), SparseError> {
        // Exact activations are asked for by who wants no rounding; the layout by neuron rounds them to 8 bits.
        let screen = *level == SparsityLevel::Exact
            && self.shared.profile.as_ref().is_some_and(|profile| profile.has_proof());
        let exact =
            (screen || SparseWeights::has_exact_layers(&self.network.spec)) && !self.network.cpu.is_exact();
        let Some(name) = level.profile_name() else {
            self.sparse = None;
            if exact && *level != SparsityLevel::Off {
                let mut state = SparseState::new(self.sparse_weights()?, level.clone());
                state.use_exact();
                self.sparse = Some(state);
            }
            return Ok(());
        };
        let profile = self.shared.profile.clone();
        let found =
            profile.as_ref().and_then(|profile| profile.levels.iter().find(|level| level.name == name));
        let Some(found) = found else {
            return Err(SparseError::NoLevel {
                name: name.into(),
                known: profile.iter().flat_map(|p| &p.levels).map(|level| level.name.clone()).collect(),
            });
        };
        let mut state = SparseState::new(self.sparse_weights()?, level.clone());
        state.use_thresholds(&found.layers, found.candidates as usize);
        self.sparse = (!self.network.cpu.is_exact() && !state.is_idle()).then_some(state);
        Ok(())
    }

    fn sparse_weights(&self) -> Result<Arc<SparseWeights>, SparseError> {
        if let Some(weights) = self.shared.weights.get() {
            return Ok(Arc::clone(weights));
        }
        let profile = self.shared.profile.as_deref();
        let weights =
            Arc::new(SparseWeights::new(&self.network.spec, &self.network.weights, profile, false)?);
        Ok(Arc::clone(self.shared.weights.get_or_init(|| weights)))
    }

    /// What was left out so far; `None` where everything is computed.
    pub fn sparsity(&self) -> Option<DecoderSparsity> {
        self.sparse.as_ref().map(SparseState::report)
    }

    /// The level in use, with what it was measured to do; `None` for levels that lose nothing.
    pub fn sparsity_level(&self) -> Option<&LevelProfile> {
        let level = self.sparse.as_ref()?.level();
        self.shared.profile.as_ref()?.levels.iter().find(|found| Some(found.name()) == level.profile_name())
    }

    /// For calibration: leaves out, from now on and without timing, what these thresholds say.
    pub(crate) fn try_thresholds(
        &mut self,
        weights: &Arc<SparseWeights>,
        thresholds: &[Thresholds],
        candidates: usize,
    ) {
        let mut state = SparseState::new(Arc::clone(weights), SparsityLevel::Off);
        state.use_thresholds(thresholds, candidates);
        state.simulate();
        self.sparse = Some(state);
    }

    /// For calibration: how often the vocabulary screen kept the best.
    pub(crate) fn screen_recall(&self) -> ScreenRecall {
        self.sparse.as_ref().map_or_else(ScreenRecall::default, SparseState::recall)
    }

    /// For calibration: appends tokens and shows what layers compute, and then the normalised stream of each.
    pub(crate) fn observe(
        &mut self,
        tokens: &[u32],
        observer: &mut Observer<'_>,
        mut each: impl FnMut(&[f32]),
    ) -> Result<(), ForwardError> {
        self.check(tokens)?;
        let mut normed = vec![0.0; self.network.spec.dim];
        for block in tokens.chunks(LOGIT_BLOCK) {
            self.pass_observed(block, block.len(), Some(observer));
            for x in self.network.buffers.x.read().chunks_exact(self.network.spec.dim) {
                self.network.weights.output_norm.apply(self.network.cpu.isa(), x, &mut normed);
                each(&normed);
            }
        }
        Ok(())
    }

    pub(crate) fn spec(&self) -> &DecoderSpec {
        &self.network.spec
    }

    pub(crate) fn weights(&self) -> &DecoderWeights {
        &self.network.weights
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.network.cpu.threads()
    }

    /// The instruction set that kernels run on.
    pub fn isa(&self) -> crate::backend::IsaKind {
        self.network.cpu.isa()
    }

    /// Bytes of weights that were read for each token that was computed alone, on average: all that a dense model has,
    /// but for its embeddings; of a mixture of experts only the chosen ones. `None` before the first such token.
    pub fn weight_bytes_per_token(&self) -> Option<u64> {
        self.read.bytes.checked_div(self.read.tokens)
    }

    /// Bytes of all weight matrices.
    pub fn weight_bytes(&self) -> u64 {
        self.network.weights.bytes() as u64
    }

    /// Appends `tokens` and hands the logits of each, `[vocab]`, to `each` with its position.
    pub fn submit_all(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), ForwardError> {
        self.check(tokens)?;
        // What is lost has to show: a lossy level leaves out what it does when it generates.
        if let Some(sparse) = self.sparse.as_mut().filter(|sparse| sparse.is_lossy()) {
            sparse.simulate();
        }
        for block in tokens.chunks(self.network.block.min(LOGIT_BLOCK)) {
            let first = self.sequence.len();
            self.pass(block, block.len());
            self.project_logits();
            for (t, logits) in
                self.network.buffers.logits.read().chunks_exact(self.network.spec.vocab).enumerate()
            {
                each(first + t, logits);
            }
            let last = block.len() - 1;
            self.network.buffers.logits.keep_from(last);
        }
        self.has_logits = true;
        Ok(())
    }

    /// Appends `tokens` and the states of each behind the last norm, `[tokens, dim]`, to `out`.
    pub(crate) fn hidden_states(&mut self, tokens: &[u32], out: &mut Vec<f32>) -> Result<(), ForwardError> {
        self.check(tokens)?;
        self.has_logits = false;
        for block in tokens.chunks(self.network.block) {
            self.pass(block, block.len());
            self.network.cpu.norm_groups(&self.network.weights.output_norm, &mut self.network.buffers.x);
            out.extend_from_slice(self.network.buffers.x.read());
        }
        Ok(())
    }

    /// Writes the caches to a file, and the tokens that they hold.
    pub(crate) fn save_context(
        &self,
        path: &Path,
        model: u64,
        tokens: &[u32],
    ) -> Result<(), SavedContextError> {
        saved::save(
            path,
            model ^ self.ropes_fingerprint(),
            &tokens[..self.sequence.len().min(tokens.len())],
            &self.network.kv,
            &self.sequence,
        )
    }

    /// Takes the caches from a file in place of what they hold, and returns their tokens. Empty after an error.
    pub(crate) fn load_context(&mut self, path: &Path, model: u64) -> Result<Vec<u32>, SavedContextError> {
        self.truncate(0);
        self.has_logits = false;
        let model = model ^ self.ropes_fingerprint();
        let loaded = saved::load(path, model, &mut self.network, &mut self.sequence);
        if loaded.is_err() {
            self.sequence.truncate(&mut self.network.kv, 0);
        }
        loaded
    }

    fn ropes_fingerprint(&self) -> u64 {
        crate::sparse::checksum(format!("{:?}", self.network.ropes).as_bytes())
    }

    fn check(&self, tokens: &[u32]) -> Result<(), ForwardError> {
        self.network.check(&self.sequence, tokens)
    }

    /// All layers for some tokens; leaves the residual streams of the last `outputs` in `buffers.x`.
    fn pass(&mut self, tokens: &[u32], outputs: usize) {
        self.pass_observed(tokens, outputs, None);
    }

    fn pass_observed(&mut self, tokens: &[u32], outputs: usize, observer: Option<&mut Observer<'_>>) {
        let Self { network, sequence, sparse, .. } = self;
        let single = tokens.len() == 1;
        let narrowed = sparse.as_mut().and_then(|sparse| sparse.begin(single).then_some(sparse));
        let found = sequence.reserve(&mut network.kv, tokens.len());
        assert!(found, "the cache has room for what `check` lets pass");
        let bytes = pass::layers(network, &mut [sequence.span(tokens, outputs)], narrowed, observer);
        if let Some(sparse) = sparse.as_mut().filter(|_| single) {
            sparse.end();
        }
        self.single = single;
        if single {
            self.read.bytes += bytes as u64;
            self.read.tokens += 1;
        }
    }

    /// The logits of the tokens in `buffers.x`.
    fn project_logits(&mut self) {
        let bytes = pass::logits(&mut self.network, self.sparse.as_mut());
        if self.single {
            self.read.bytes += bytes as u64;
        }
    }
}

impl LanguageModel for Decoder {
    fn vocab_size(&self) -> usize {
        self.network.spec.vocab
    }

    fn capacity(&self) -> usize {
        self.network.capacity
    }

    fn len(&self) -> usize {
        self.sequence.len()
    }

    fn submit(&mut self, tokens: &[u32]) -> Result<(), ForwardError> {
        self.check(tokens)?;
        let mut blocks = tokens.chunks(self.network.block).peekable();
        while let Some(block) = blocks.next() {
            self.pass(block, usize::from(blocks.peek().is_none()));
        }
        self.project_logits();
        self.has_logits = true;
        Ok(())
    }

    fn logits(&mut self) -> Result<&[f32], ForwardError> {
        if self.has_logits { Ok(self.network.buffers.logits.read()) } else { Err(ForwardError::NoLogits) }
    }

    fn truncate(&mut self, len: usize) {
        self.sequence.truncate(&mut self.network.kv, len);
    }

    fn set_greedy(&mut self, greedy: bool) {
        if let Some(sparse) = &mut self.sparse {
            sparse.set_greedy(greedy);
        }
    }

    fn shift(&mut self, keep: usize, discard: usize) -> Result<(), ForwardError> {
        let len = self.sequence.len();
        if keep.checked_add(discard).is_none_or(|end| end > len) {
            return Err(ForwardError::Shift { keep, discard, len });
        }
        let Network { spec, cpu, ropes, kv, .. } = &mut self.network;
        let turns: Vec<_> = ropes.iter().map(|rope| (rope.layout, rope.turns_back(discard))).collect();
        for (i, layer) in spec.layers.iter().enumerate() {
            let MixerSpec::Attention(attention) = &layer.mixer else { continue };
            let rope = attention.rope.map(|rope| (turns[rope].0, turns[rope].1.as_slice()));
            cpu.shift(kv, self.sequence.pages(), i, [keep, discard, len], rope);
        }
        self.sequence.shift(kv, keep, discard);
        Ok(())
    }
}
