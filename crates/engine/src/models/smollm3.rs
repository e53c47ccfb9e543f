//! SmolLM 3: LLaMA, every fourth layer without rotary embedding (arXiv 2501.18795). Source:
//! huggingface.co/HuggingFaceTB/SmolLM3-3B.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::llama::spec(params)?;
    spec.attentions().skip(3).step_by(4).for_each(|attention| attention.rope = None);
    Ok(spec)
}
