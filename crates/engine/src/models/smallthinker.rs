//! SmallThinker: experts of gated ReLU, chosen by what the layer reads, before attention, so that their weights can be
//! fetched meanwhile; where layers have windows, the ones without have no rotary embedding either. Source: arXiv
//! 2507.20984.

use super::Hyperparameters;
use crate::backend::{Activation, RopeLayout};
use crate::nn::{DecoderSpec, ExpertsSpec, LoadError, RouterInput};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = params.decoder(params.rms_norm()?, Some(RopeLayout::Halves))?;
    let experts = params.experts(true)?;
    let experts = ExpertsSpec { activation: Activation::Relu, router_input: RouterInput::Layer, ..experts };
    params.mixture(&mut spec, experts);
    let windowed = params.windowed_layers(spec.layers.len(), 4, true)?;
    for (attention, windowed) in spec.attentions().zip(windowed) {
        if !windowed && attention.window.take().is_some() {
            attention.rope = None;
        }
    }
    Ok(spec)
}
