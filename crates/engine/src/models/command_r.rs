//! Command R: both sublayers behind one LayerNorm without bias, scaled logits, in the larger model a norm of queries and
//! keys. Source: huggingface.co/CohereForAI/c4ai-command-r-v01.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LayerNorms, LoadError, QkNorm};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.layer_norm()?, Some(RopeLayout::Interleaved))?;
    spec.norms(LayerNorms::SHARED);
    spec.parallel();
    if params.has_tensor("blk.0.attn_q_norm.weight") {
        spec.attentions().for_each(|attention| attention.qk_norm = Some(QkNorm::EachHead));
    }
    spec.logit_scale = params.positive_or_zero("logit_scale")?.unwrap_or(1.0);
    Ok(spec)
}
