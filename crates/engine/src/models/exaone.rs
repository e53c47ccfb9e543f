//! EXAONE 3 and 3.5: LLaMA with the other layout of rotary embeddings. Source: arXiv 2412.04862.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    super::qwen2::spec(params)
}
