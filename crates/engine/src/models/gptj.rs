//! GPT-J: both sublayers in parallel behind one LayerNorm, partial rotary embeddings, a bias on the logits. Source:
//! github.com/kingoflolz/mesh-transformer-jax.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, LayerNorms, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Interleaved))?;
    if params.optional_count("rope.dimension_count", usize::MAX)?.is_none() {
        // As in the one model that was published.
        spec.ropes.iter_mut().for_each(|rope| rope.dims = rope.dims.min(64));
    }
    spec.norms(LayerNorms::SHARED);
    spec.parallel();
    spec.plain_ffn(Activation::GeluTanh);
    Ok(spec)
}
