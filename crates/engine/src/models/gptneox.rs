//! GPT-NeoX and Pythia: sublayers in parallel, each behind a LayerNorm of its own, partial rotary embeddings. Source:
//! arXiv 2204.06745.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Halves))?;
    if params.optional_flag("use_parallel_residual")?.unwrap_or(true) {
        spec.parallel();
    }
    spec.plain_ffn(Activation::Gelu);
    Ok(spec)
}
