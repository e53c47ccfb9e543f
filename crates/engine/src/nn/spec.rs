//! What a decoder is made of, as data. Files in `models` fill it in; the pass reads it and knows no architectures.

use firecrest_kernels::ops::Activation;

use super::rope::Rope;

/// A decoder.
#[derive(Clone, Debug)]
pub(crate) struct DecoderSpec {
    /// Width of the residual stream.
    pub(crate) dim: usize,
    /// Number of tokens in the vocabulary.
    pub(crate) vocab: usize,
    /// Positions that the model was trained on.
    pub(crate) context_length: usize,
    pub(crate) norm: NormSpec,
    pub(crate) rope: Option<Rope>,
    pub(crate) layers: Vec<LayerSpec>,
    /// Factor of the embeddings.
    pub(crate) embedding_scale: f32,
    /// Factor of the logits.
    pub(crate) logit_scale: f32,
}

/// The norm before each sublayer and at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NormSpec {
    /// RMSNorm.
    Rms { eps: f32 },
}

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpec {
    pub(crate) attention: AttentionSpec,
    pub(crate) ffn: FfnSpec,
}

/// Grouped-query attention.
#[derive(Clone, Debug)]
pub(crate) struct AttentionSpec {
    pub(crate) heads: usize,
    /// A divisor of `heads`.
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// Positions that a query sees, itself included.
    pub(crate) window: Option<usize>,
}

/// A feed-forward sublayer.
#[derive(Clone, Debug)]
pub(crate) enum FfnSpec {
    /// `down(activation(gate x) * up x)`.
    Gated { hidden: usize, activation: Activation },
}
