//! OpenELM: LLaMA with normalised queries and keys, and with numbers of heads and neurons that grow from layer to layer.
//! Source: arXiv 2404.14619.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LoadError, QkNorm};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))?;
    spec.attentions().for_each(|attention| attention.qk_norm = Some(QkNorm::Head));
    Ok(spec)
}
