//! Falcon: attention and feed-forward sublayer in parallel, behind one LayerNorm (7B) or one each (40B). Source: arXiv
//! 2311.16867.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LayerNorms, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Halves))?;
    let mixer = if params.has_tensor("blk.0.attn_norm_2.weight") { "attn_norm_2" } else { "attn_norm" };
    spec.norms(LayerNorms { mixer: Some(mixer), ..LayerNorms::SHARED });
    spec.parallel();
    spec.plain_ffn(Activation::Gelu);
    Ok(spec)
}
