//! LLaMA 1, 2 and 3, TinyLlama, SmolLM, Mistral, and whatever else files call `llama`: RMSNorm, rotary embeddings,
//! grouped-query attention, SwiGLU. Sources: arXiv 2302.13971, 2307.09288, 2407.21783, 2310.06825 (sliding window).

use firecrest_kernels::ops::{Activation, RopeLayout};

use super::Hyperparameters;
use crate::gguf::Gguf;
use crate::nn::{AttentionSpec, DecoderSpec, FfnSpec, LayerSpec, LoadError, NormSpec, Rope, optional_vector};

pub(super) fn spec(gguf: &Gguf) -> Result<DecoderSpec, LoadError> {
    let params = Hyperparameters::new(gguf)?;
    let dim = params.count("embedding_length", 1 << 20)?;
    let heads = params.count("attention.head_count", 1 << 12)?;
    let kv_heads = params.optional_count("attention.head_count_kv", 1 << 12)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(params.wrong("attention.head_count_kv", kv_heads, format!("a divisor of {heads}")));
    }
    let head_dim = params.optional_count("attention.key_length", 1 << 12)?.unwrap_or(dim / heads);
    let head_dim = params.check_count("attention.key_length", head_dim, 1 << 12)?;
    let rotated = params.optional_count("rope.dimension_count", head_dim)?.unwrap_or(head_dim);
    let context_length = params.count("context_length", 1 << 31)?;
    let factors = optional_vector(gguf, "rope_freqs.weight", rotated / 2)?;
    let layer = LayerSpec {
        attention: AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: params.optional_count("attention.sliding_window", usize::MAX)?,
        },
        ffn: FfnSpec::Gated {
            hidden: params.count("feed_forward_length", 1 << 24)?,
            activation: Activation::Silu,
        },
    };
    Ok(DecoderSpec {
        dim,
        vocab: params.vocab()?,
        context_length,
        norm: NormSpec::Rms { eps: params.positive("attention.layer_norm_rms_epsilon")? },
        rope: Some(Rope::new(
            RopeLayout::Interleaved,
            rotated,
            params.optional_positive("rope.freq_base")?.unwrap_or(10_000.0),
            &params.rope_scaling(context_length)?,
            factors.as_deref(),
        )),
        layers: vec![layer; params.count("block_count", 1 << 12)?],
        embedding_scale: 1.0,
        logit_scale: 1.0,
    })
}
