//! Qwen 3: LLaMA with normalised queries and keys. Source: arXiv 2505.09388.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LoadError, QkNorm};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))?;
    spec.attentions().for_each(|attention| attention.qk_norm = Some(QkNorm::Head));
    Ok(spec)
}
