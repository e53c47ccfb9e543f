//! Qwen 3 with experts, whose weights add up to one. Source: arXiv 2505.09388.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::qwen3::spec(params)?;
    params.mixture(&mut spec, params.experts(true)?);
    Ok(spec)
}
