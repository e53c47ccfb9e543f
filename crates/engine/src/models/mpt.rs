//! MPT: attention that fades with distance (ALiBi), LayerNorm, mostly without biases. Source:
//! github.com/mosaicml/llm-foundry.

use super::Hyperparameters;
use crate::backend::Activation;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, None)?;
    let alibi = params.positive_or_zero("attention.max_alibi_bias")?;
    let clamp = params.positive_or_zero("attention.clamp_kqv")?;
    for attention in spec.attentions() {
        attention.alibi = alibi;
        attention.clamp = clamp;
    }
    if params.has_tensor("position_embd.weight") {
        spec.embedding.positions = Some(spec.context_length);
    }
    spec.plain_ffn(Activation::Gelu);
    Ok(spec)
}
