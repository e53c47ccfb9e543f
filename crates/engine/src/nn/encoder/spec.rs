//! What an encoder is made of, as data. Files in `models` fill it in; the pass reads it and knows no architectures.

use crate::backend::Activation;
use crate::nn::{NormSpec, RopeSpec};

/// An encoder in the manner of BERT (arXiv 1810.04805): a norm after each sublayer, attention in both directions.
#[derive(Clone, Debug)]
pub(crate) struct EncoderSpec {
    /// Width of the residual stream.
    pub(crate) dim: usize,
    /// Number of tokens in the vocabulary.
    pub(crate) vocab: usize,
    /// Tokens of the longest sequence.
    pub(crate) context_length: usize,
    /// Every norm of the model.
    pub(crate) norm: NormSpec,
    /// Kinds of segments that have an embedding; 0 where there is none.
    pub(crate) token_types: usize,
    pub(crate) positions: Positions,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
    pub(crate) ffn: EncoderFfn,
}

/// How a token's place enters.
#[derive(Clone, Debug)]
pub(crate) enum Positions {
    /// A learned embedding for each position.
    Learned,
    /// Queries and keys are rotated.
    Rotary(RopeSpec),
}

/// A feed-forward sublayer, `hidden` wide inside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EncoderFfn {
    /// `down(activation(up x))`.
    Plain { hidden: usize, activation: Activation },
    /// `down(activation(gate x) * up x)`.
    Gated { hidden: usize, activation: Activation },
}
