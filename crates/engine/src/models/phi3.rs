//! Phi-3, 3.5 and 4: LLaMA with fused matrices, a window, and two sets of rotary factors for long contexts. Source: arXiv
//! 2404.14219.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))
}
