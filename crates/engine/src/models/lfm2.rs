//! LFM2: short convolutions in most layers, attention with normalised queries and keys in the others; the larger one
//! with experts after the first layers. Source: huggingface.co/LiquidAI/LFM2-1.2B.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LoadError, QkNorm};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))?;
    spec.attentions().for_each(|attention| attention.qk_norm = Some(QkNorm::Head));
    // Most files give the last norm the name that belongs to one after the embedding.
    if params.has_tensor("token_embd_norm.weight") {
        spec.output_norm = "token_embd_norm";
    }
    Ok(spec)
}

/// LFM2 with experts.
pub(super) fn spec_moe(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = spec(params)?;
    params.mixture(&mut spec, params.experts(true)?);
    Ok(spec)
}
