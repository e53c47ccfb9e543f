//! Nomic Embed: BERT with rotary positions and SwiGLU. Source: arXiv 2402.01613.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{EncoderFfn, EncoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<EncoderSpec, LoadError> {
    let hidden = params.count("feed_forward_length", 1 << 24)?;
    params.encoder(Some(RopeLayout::Halves), EncoderFfn::Gated { hidden, activation: Activation::Silu })
}
