//! Gemma 2: norms before and after each sublayer, a window in every other layer, soft caps on scores and logits. Source:
//! arXiv 2408.00118.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LayerNorms, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::gemma::spec(params)?;
    spec.norms(LayerNorms::SANDWICH);
    spec.logit_cap = params.positive_or_zero("final_logit_softcapping")?;
    let soft_cap = params.positive_or_zero("attn_logit_softcapping")?;
    // The 27B model divides scores by the width of a head as it would be if all made up the residual stream.
    let wide = spec.layers.len() == 46;
    let (dim, windowed) = (spec.dim, params.windowed_layers(spec.layers.len(), 2, false)?);
    for (attention, windowed) in spec.attentions().zip(windowed) {
        attention.soft_cap = soft_cap;
        attention.window = if windowed { attention.window.or(Some(4096)) } else { None };
        if wide {
            attention.scale = 1.0 / ((dim / attention.heads) as f32).sqrt();
        }
    }
    Ok(spec)
}
