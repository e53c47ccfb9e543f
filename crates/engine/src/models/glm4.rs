//! GLM-4: norms before and after each sublayer, partial rotary embeddings, gate and up projection in one matrix. Source:
//! huggingface.co/THUDM/GLM-4-9B-0414.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LayerNorms, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Interleaved))?;
    spec.norms(LayerNorms::SANDWICH);
    Ok(spec)
}
