//! Granite 3, with and without experts: LLaMA with factors of the embeddings, of what sublayers add, of the scores and of
//! the logits. Source:
//! huggingface.co/ibm-granite.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::llama::spec(params)?;
    spec.embedding.scale = params.positive_or_zero("embedding_scale")?.unwrap_or(1.0);
    spec.logit_scale = 1.0 / params.positive_or_zero("logit_scale")?.unwrap_or(1.0);
    let residual_scale = params.positive_or_zero("residual_scale")?.unwrap_or(1.0);
    spec.layers.iter_mut().for_each(|layer| layer.residual_scale = residual_scale);
    Ok(spec)
}
