//! PowerInfer's files: feed-forward sublayers with ReLU, stored by neuron, and predictors of the neurons that fire. Their
//! architectures are those of ordinary files otherwise. Bamboo has a second ReLU in the place where LLaMA has none.
//! Source: arXiv 2312.12456.

use super::{Hyperparameters, llama};
use crate::backend::Activation;
use crate::gguf::Gguf;
use crate::nn::{DecoderSpec, FfnSpec, LoadError, NeuronSpec};

/// Bamboo (`ReLU(gate) * ReLU(up)`), a LLaMA otherwise.
pub(super) fn bamboo(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    let mut spec = llama::spec(params)?;
    by_neuron(&mut spec, 0.0, Activation::Relu);
    Ok(spec)
}

/// Makes what a file with PowerInfer's magic is of the spec that its architecture has elsewhere.
pub(super) fn adapt(gguf: &Gguf, spec: &mut DecoderSpec) -> Result<(), LoadError> {
    let threshold = gguf.metadata().opt_f32("powerinfer.sparse_threshold")?.unwrap_or(0.0);
    by_neuron(spec, threshold, Activation::Identity);
    Ok(())
}

fn by_neuron(spec: &mut DecoderSpec, threshold: f32, up_activation: Activation) {
    for layer in &mut spec.layers {
        let (hidden, gated) = match &mut layer.ffn {
            FfnSpec::Gated { hidden, .. } => (*hidden, true),
            FfnSpec::Plain { hidden, .. } => (*hidden, false),
            FfnSpec::Neurons(neurons) => {
                neurons.threshold = threshold;
                continue;
            }
            FfnSpec::Experts(_) => continue,
        };
        let activation = Activation::Relu;
        layer.ffn = FfnSpec::Neurons(NeuronSpec { hidden, gated, activation, up_activation, threshold });
    }
}
