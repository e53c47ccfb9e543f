//! Seed-OSS: LLaMA with biases on queries, keys and values, and another name for a norm. Source:
//! huggingface.co/ByteDance-Seed/Seed-OSS-36B-Instruct.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LayerNorms, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::qwen2::spec(params)?;
    spec.norms(LayerNorms { ffn: Some("post_attention_norm"), ..LayerNorms::PRE });
    Ok(spec)
}
