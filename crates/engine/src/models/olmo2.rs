//! OLMo 2 and 3: norms after the sublayers alone, and of whole queries and keys; in OLMo 3 three layers of four see a
//! window. Sources: arXiv 2501.00656, huggingface.co/allenai/Olmo-3-7B.

use super::Hyperparameters;
use crate::backend::RopeLayout;
use crate::nn::{DecoderSpec, LayerNorms, LoadError, QkNorm, RopeScaling, RopeSpec};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))?;
    spec.norms(LayerNorms::POST);
    // Only layers that see everything are stretched.
    let local = spec.ropes.first().map(|rope| RopeSpec {
        scaling: RopeScaling::None,
        magnitude: 1.0,
        ..rope.clone()
    });
    spec.ropes.extend(local);
    let windowed = params.windowed_layers(spec.layers.len(), 4, false)?;
    for (attention, windowed) in spec.attentions().zip(windowed) {
        attention.qk_norm = Some(QkNorm::Width);
        if windowed && attention.window.is_some() {
            attention.rope = Some(1);
        } else {
            attention.window = None;
        }
    }
    Ok(spec)
}
