//! OLMoE: norms of whole queries and keys, experts whose weights do not add up to one. Source: arXiv 2409.02060.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LoadError, QkNorm};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))?;
    spec.attentions().for_each(|attention| attention.qk_norm = Some(QkNorm::Width));
    params.mixture(&mut spec, params.experts(false)?);
    Ok(spec)
}
