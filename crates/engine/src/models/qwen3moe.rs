//! Qwen 3 with experts, whose weights add up to one. Source: arXiv 2505.09388.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, FfnSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::qwen3::spec(params)?;
    let experts = FfnSpec::Experts(params.experts(true)?);
    spec.layers.iter_mut().for_each(|layer| layer.ffn = experts.clone());
    Ok(spec)
}
