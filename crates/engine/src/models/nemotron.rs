//! Nemotron and Minitron: LayerNorm (one is added to its weights when a file is made), partial rotary embeddings, squared
//! ReLU without a gate. Source: arXiv 2402.16819.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Halves))?;
    spec.plain_ffn(Activation::Relu2);
    Ok(spec)
}
