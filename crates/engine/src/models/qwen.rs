//! Qwen 1: LLaMA with fused queries, keys and values, and biases on them. Source: arXiv 2309.16609.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, FfnSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::qwen2::spec(params)?;
    for layer in &mut spec.layers {
        // Files count the neurons of the gate and of the up projection together.
        if let FfnSpec::Gated { hidden, .. } = &mut layer.ffn {
            *hidden /= 2;
        }
    }
    Ok(spec)
}
