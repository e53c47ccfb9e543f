//! Qwen 2 and 2.5: LLaMA with biases on queries, keys and values. Source: arXiv 2407.10671.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))
}
