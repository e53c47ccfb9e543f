//! Gemma: LLaMA with scaled embeddings and GeGLU. Source: arXiv 2403.08295.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))?;
    spec.embedding.scale = (spec.dim as f32).sqrt();
    spec.gate(Activation::GeluTanh);
    Ok(spec)
}
