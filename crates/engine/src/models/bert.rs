//! BERT and what is built like it: MiniLM, BGE, E5, GTE, XLM-RoBERTa. Learned positions, LayerNorm after each sublayer,
//! GELU. Source: arXiv 1810.04805.

use super::Hyperparameters;
use crate::backend::Activation;
use crate::nn::{EncoderFfn, EncoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<EncoderSpec, LoadError> {
    let hidden = params.count("feed_forward_length", 1 << 24)?;
    params.encoder(None, EncoderFfn::Plain { hidden, activation: Activation::Gelu })
}
