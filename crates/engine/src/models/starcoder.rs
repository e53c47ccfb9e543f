//! StarCoder and SantaCoder: GPT-2 with one head of keys and values. Source: arXiv 2305.06161.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    super::gpt2::spec(params)
}
