//! InternLM 2: LLaMA under another name. Source: arXiv 2403.17297.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    super::llama::spec(params)
}
