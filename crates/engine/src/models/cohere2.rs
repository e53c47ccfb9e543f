//! Command R7B: as Command R, but three layers of four see a window, and those that see everything have no rotary
//! embedding. Source: huggingface.co/CohereForAI/c4ai-command-r7b-12-2024.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = super::command_r::spec(params)?;
    let windowed = params.windowed_layers(spec.layers.len(), 4, false)?;
    for (attention, windowed) in spec.attentions().zip(windowed) {
        if !windowed {
            attention.window = None;
            attention.rope = None;
        }
    }
    Ok(spec)
}
