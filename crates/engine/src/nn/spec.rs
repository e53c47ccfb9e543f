//! What a decoder is made of, as data. Files in `models` fill it in; the pass reads it and knows no architectures.
//!
//! Biases and fused matrices need no mention: they are used where the file has them.

use super::rope::RopeSpec;
use crate::backend::{Activation, Routing};

/// A decoder.
#[derive(Clone, Debug)]
pub(crate) struct DecoderSpec {
    /// Width of the residual stream.
    pub(crate) dim: usize,
    /// Number of tokens in the vocabulary.
    pub(crate) vocab: usize,
    /// Positions that the model was trained on.
    pub(crate) context_length: usize,
    /// Every norm of the model.
    pub(crate) norm: NormSpec,
    pub(crate) embedding: EmbeddingSpec,
    /// The rotary embeddings that layers choose from.
    pub(crate) ropes: Vec<RopeSpec>,
    pub(crate) layers: Vec<LayerSpec>,
    /// Tensor of the norm after the last layer.
    pub(crate) output_norm: &'static str,
    /// Factor of the logits.
    pub(crate) logit_scale: f32,
    /// `cap * tanh(logit / cap)`.
    pub(crate) logit_cap: Option<f32>,
}

impl DecoderSpec {
    /// The layers that attend.
    pub(crate) fn attentions(&mut self) -> impl Iterator<Item = &mut AttentionSpec> {
        self.layers.iter_mut().filter_map(|layer| match &mut layer.mixer {
            MixerSpec::Attention(attention) => Some(attention),
            MixerSpec::ShortConv { .. } => None,
        })
    }

    /// Makes every feed-forward sublayer `down(activation(up x))`.
    pub(crate) fn plain_ffn(&mut self, activation: Activation) {
        for layer in &mut self.layers {
            if let FfnSpec::Gated { hidden, .. } = layer.ffn {
                layer.ffn = FfnSpec::Plain { hidden, activation };
            }
        }
    }

    /// Sets the activation of every gated feed-forward sublayer.
    pub(crate) fn gate(&mut self, with: Activation) {
        for layer in &mut self.layers {
            if let FfnSpec::Gated { activation, .. } = &mut layer.ffn {
                *activation = with;
            }
        }
    }

    /// Sets the activation of every feed-forward sublayer.
    pub(crate) fn set_activation(&mut self, with: Activation) {
        for layer in &mut self.layers {
            let (FfnSpec::Gated { activation, .. }
            | FfnSpec::Plain { activation, .. }
            | FfnSpec::Experts(ExpertsSpec { activation, .. })
            | FfnSpec::Neurons(NeuronSpec { activation, .. })) = &mut layer.ffn;
            *activation = with;
        }
    }

    /// Gives every layer these norms.
    pub(crate) fn norms(&mut self, norms: LayerNorms) {
        self.layers.iter_mut().for_each(|layer| layer.norms = norms);
    }

    /// Makes both sublayers of every layer read what the layer reads.
    pub(crate) fn parallel(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.residual = Residual::Parallel);
    }
}

/// What tokens become before the first layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EmbeddingSpec {
    /// Factor of the embeddings.
    pub(crate) scale: f32,
    /// Whether a norm follows (`token_embd_norm`).
    pub(crate) norm: bool,
    /// How many learned position vectors there are to add (`position_embd`); the context is no longer than that.
    pub(crate) positions: Option<usize>,
}

impl Default for EmbeddingSpec {
    fn default() -> Self {
        Self { scale: 1.0, norm: false, positions: None }
    }
}

/// How values are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NormSpec {
    /// RMSNorm.
    Rms { eps: f32 },
    /// LayerNorm, with a bias where the file has one.
    Layer { eps: f32 },
}

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpec {
    pub(crate) mixer: MixerSpec,
    pub(crate) ffn: FfnSpec,
    pub(crate) norms: LayerNorms,
    pub(crate) residual: Residual,
    /// Factor of what a sublayer adds to the residual stream.
    pub(crate) residual_scale: f32,
}

/// Tensors of a layer's norms, by the part after `blk.N.`; absent ones are not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LayerNorms {
    /// Before attention or convolution.
    pub(crate) mixer: Option<&'static str>,
    /// After it, before the residual stream.
    pub(crate) mixer_post: Option<&'static str>,
    /// Before the feed-forward sublayer.
    pub(crate) ffn: Option<&'static str>,
    /// After it.
    pub(crate) ffn_post: Option<&'static str>,
}

impl LayerNorms {
    /// A norm before each sublayer.
    pub(crate) const PRE: Self =
        Self { mixer: Some("attn_norm"), mixer_post: None, ffn: Some("ffn_norm"), ffn_post: None };

    /// One norm before both sublayers, which run in parallel.
    pub(crate) const SHARED: Self = Self { ffn: Some("attn_norm"), ..Self::PRE };

    /// A norm after each sublayer.
    pub(crate) const POST: Self = Self {
        mixer: None,
        mixer_post: Some("post_attention_norm"),
        ffn: None,
        ffn_post: Some("post_ffw_norm"),
    };

    /// Norms before and after each sublayer.
    pub(crate) const SANDWICH: Self = Self { mixer: Self::PRE.mixer, ffn: Self::PRE.ffn, ..Self::POST };
}

/// How the two sublayers of a layer follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residual {
    /// The second reads what the first has added to.
    Sequential,
    /// Both read what the layer reads.
    Parallel,
}

/// What lets tokens see each other.
#[derive(Clone, Debug)]
pub(crate) enum MixerSpec {
    Attention(AttentionSpec),
    /// `out(c * conv(b * x))` with `b`, `c`, `x` from one matrix, and a causal convolution of `taps` positions in each
    /// channel (LFM2).
    ShortConv {
        taps: usize,
    },
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
    /// `cap * tanh(score / cap)`.
    pub(crate) soft_cap: Option<f32>,
    /// Positions that a query sees, itself included.
    pub(crate) window: Option<usize>,
    /// Which of the decoder's rotary embeddings turns queries and keys.
    pub(crate) rope: Option<usize>,
    /// By what power of two scores fall with distance at most (ALiBi), usually 8.
    pub(crate) alibi: Option<f32>,
    /// The largest size of a value of queries, keys and values.
    pub(crate) clamp: Option<f32>,
    /// How queries and keys are normalised before that.
    pub(crate) qk_norm: Option<QkNorm>,
}

/// A norm of queries and keys (`attn_q_norm`, `attn_k_norm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QkNorm {
    /// Over each head, with the same weights for all.
    Head,
    /// Over each head, with weights of its own.
    EachHead,
    /// Over all heads together.
    Width,
}

/// A feed-forward sublayer.
#[derive(Clone, Debug)]
pub(crate) enum FfnSpec {
    /// `down(activation(gate x) * up x)`.
    Gated { hidden: usize, activation: Activation },
    /// `down(activation(up x))`.
    Plain { hidden: usize, activation: Activation },
    /// Some of many gated ones, chosen for each token.
    Experts(ExpertsSpec),
    /// One that is stored by neuron.
    Neurons(NeuronSpec),
}

/// A feed-forward sublayer stored by neuron: `down(activation(gate x) * up_activation(up x))`, or without a gate
/// `down(activation(up x))`.
#[derive(Clone, Debug)]
pub(crate) struct NeuronSpec {
    pub(crate) hidden: usize,
    pub(crate) gated: bool,
    pub(crate) activation: Activation,
    pub(crate) up_activation: Activation,
    /// Predicted scores below which neurons are left out.
    pub(crate) threshold: f32,
}

/// A mixture of experts.
#[derive(Clone, Debug)]
pub(crate) struct ExpertsSpec {
    /// How many there are.
    pub(crate) count: usize,
    /// Neurons of each.
    pub(crate) hidden: usize,
    pub(crate) activation: Activation,
    /// How scores become a choice.
    pub(crate) routing: Routing,
    /// What the router reads.
    pub(crate) router_input: RouterInput,
    /// Neurons of an expert that every token uses besides.
    pub(crate) shared: Option<SharedExpert>,
}

/// What a router reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouterInput {
    /// What the experts read.
    Ffn,
    /// What the layer reads, before any norm.
    Layer,
}

/// An expert for every token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedExpert {
    pub(crate) hidden: usize,
    /// Whether a learned logistic gate scales its output.
    pub(crate) gated: bool,
}
