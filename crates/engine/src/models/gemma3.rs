//! Gemma 3: as Gemma 2 with norms of queries and keys in the place of soft caps; five layers of six see a window, and
//! turn by another base. Source: arXiv 2503.19786.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LayerNorms, LoadError, QkNorm, RopeFactors, RopeScaling, RopeSpec};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::gemma::spec(params)?;
    spec.norms(LayerNorms::SANDWICH);
    spec.logit_cap = params.positive_or_zero("final_logit_softcapping")?;
    let base = params.optional_positive("rope.freq_base_swa")?.unwrap_or(10_000.0);
    // Windows are short: only what sees everything is stretched.
    let local = spec.ropes.first().map(|rope| RopeSpec {
        base,
        scaling: RopeScaling::None,
        factors: RopeFactors::None,
        magnitude: 1.0,
        ..*rope
    });
    spec.ropes.extend(local);
    // The 27B model scales scores as Gemma 2's does.
    let wide = spec.layers.len() == 62;
    let (dim, windowed) = (spec.dim, params.windowed_layers(spec.layers.len(), 6, false)?);
    for (attention, windowed) in spec.attentions().zip(windowed) {
        attention.qk_norm = Some(QkNorm::Head);
        if windowed && attention.window.is_some() {
            attention.rope = Some(1);
        } else {
            attention.window = None;
        }
        if wide {
            attention.scale = 1.0 / ((dim / attention.heads) as f32).sqrt();
        }
    }
    Ok(spec)
}
