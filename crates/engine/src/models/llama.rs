//! LLaMA 1, 2 and 3, TinyLlama, SmolLM, Mistral, Mixtral, and whatever else files call `llama`: RMSNorm, rotary
//! embeddings, grouped-query attention, SwiGLU or a mixture of such experts. Sources: arXiv 2302.13971, 2307.09288,
//! 2407.21783, 2310.06825 (sliding window), 2401.04088 (experts).

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Interleaved))?;
    if params.count_or_zero("expert_count", usize::MAX)?.is_some() {
        params.mixture(&mut spec, params.experts(true)?);
    }
    Ok(spec)
}
