//! Qwen 1.5 and 2 with experts: some of many for each token, and one for all behind a gate. Source: arXiv 2407.10671.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, ExpertsSpec, FfnSpec, LoadError, SharedExpert};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::qwen2::spec(params)?;
    let experts = params.experts(false)?;
    let hidden = match params.count_or_zero("expert_shared_feed_forward_length", 1 << 24)? {
        Some(hidden) => hidden,
        None => params.count("feed_forward_length", 1 << 24)?,
    };
    let shared = Some(SharedExpert { hidden, gated: true });
    let experts = FfnSpec::Experts(ExpertsSpec { shared, ..experts });
    spec.layers.iter_mut().for_each(|layer| layer.ffn = experts.clone());
    Ok(spec)
}
