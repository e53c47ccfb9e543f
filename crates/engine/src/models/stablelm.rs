//! StableLM: LayerNorm, partial rotary embeddings, SwiGLU; in the 12B model both sublayers in parallel behind one norm,
//! and norms of queries and keys. Source: arXiv 2402.17834.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LayerNorms, LoadError, QkNorm};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Halves))?;
    // The flag `use_parallel_residual` is true in files of sequential models too.
    if !params.has_tensor("blk.0.ffn_norm.weight") {
        spec.norms(LayerNorms::SHARED);
        spec.parallel();
    }
    if params.has_tensor("blk.0.attn_q_norm.weight") {
        spec.attentions().for_each(|attention| attention.qk_norm = Some(QkNorm::EachHead));
    }
    Ok(spec)
}
