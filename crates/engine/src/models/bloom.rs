//! BLOOM: attention that fades with distance (ALiBi), a norm after the embedding, biases everywhere. Source: arXiv
//! 2211.05100.

use super::Hyperparameters;
use crate::backend::Activation;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, None)?;
    spec.embedding.norm = true;
    spec.attentions().for_each(|attention| attention.alibi = Some(8.0));
    spec.plain_ffn(Activation::GeluTanh);
    Ok(spec)
}
