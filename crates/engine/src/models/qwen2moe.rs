//! Qwen 1.5 and 2 with experts: some of many for each token, and one for all behind a gate. Source: arXiv 2407.10671.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, ExpertsSpec, LoadError, SharedExpert};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::qwen2::spec(params)?;
    let experts = params.experts(false)?;
    let hidden = match experts.shared {
        Some(shared) => shared.hidden,
        None => params.count("feed_forward_length", 1 << 24)?,
    };
    let shared = Some(SharedExpert { hidden, gated: true });
    params.mixture(&mut spec, ExpertsSpec { shared, ..experts });
    Ok(spec)
}
