//! GPT-2: learned positions, LayerNorm, biases everywhere. Source: Radford et al., Language Models are Unsupervised
//! Multitask Learners, 2019.

use super::Hyperparameters;
use crate::backend::Activation;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, None)?;
    spec.embedding.positions = Some(spec.context_length);
    spec.plain_ffn(Activation::GeluTanh);
    Ok(spec)
}
