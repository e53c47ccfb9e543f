//! Phi-1, 1.5 and 2: both sublayers in parallel behind one LayerNorm, partial rotary embeddings, biases everywhere.
//! Source: huggingface.co/microsoft/phi-2.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LayerNorms, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Halves))?;
    spec.norms(LayerNorms::SHARED);
    spec.parallel();
    spec.plain_ffn(Activation::GeluTanh);
    Ok(spec)
}
