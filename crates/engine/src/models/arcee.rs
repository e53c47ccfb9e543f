//! Arcee (AFM): LLaMA with a feed-forward sublayer of squared ReLU and no gate.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Interleaved))?;
    spec.plain_ffn(Activation::Relu2);
    Ok(spec)
}
