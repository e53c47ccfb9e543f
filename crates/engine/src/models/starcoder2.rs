//! StarCoder 2: LayerNorm, rotary embeddings, biases everywhere. Source: arXiv 2402.19173.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Halves))?;
    spec.plain_ffn(Activation::GeluTanh);
    Ok(spec)
}
