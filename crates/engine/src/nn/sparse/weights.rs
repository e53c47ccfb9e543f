//! What sparse passes need besides the weights of the model.

use super::screen::Screen;
use crate::backend::{Activation, Matrix, NeuronMatrix};
use crate::nn::spec::{DecoderSpec, FfnSpec};
use crate::nn::weights::{DecoderWeights, FfnWeights};
use crate::sparse::{FormatFault, SparseError, SparsityProfile};

/// Shared by all decoders of a model.
#[derive(Debug, Default)]
pub(crate) struct SparseWeights {
    pub(super) layers: Vec<Option<SparseLayer>>,
    pub(super) screen: Option<Screen>,
}

#[derive(Debug)]
pub(super) struct SparseLayer {
    pub(super) down: NeuronMatrix,
    /// The lengths of the neurons' columns of the down projection.
    pub(super) norms: Vec<f32>,
    /// What a unit of the gate's activation is worth; empty where that was not measured.
    pub(super) importance: Vec<f32>,
    /// Whether neurons are exactly zero by themselves.
    pub(super) exact: bool,
}

/// Whether an activation function is exactly zero for about half of all numbers.
fn is_exact(activation: Activation) -> bool {
    matches!(activation, Activation::Relu | Activation::Relu2)
}

/// The activation and the down projection of a layer that can be sparse.
fn parts<'a>(spec: &FfnSpec, weights: &'a FfnWeights) -> Option<(Activation, &'a Matrix)> {
    match (spec, weights) {
        (FfnSpec::Gated { activation, .. }, FfnWeights::Gated { down, .. })
        | (FfnSpec::Plain { activation, .. }, FfnWeights::Plain { down, .. }) => {
            Some((*activation, &down.matrix))
        }
        _ => None,
    }
}

impl SparseWeights {
    /// Whether some layer loses nothing by leaving neurons out.
    pub(crate) fn has_exact_layers(spec: &DecoderSpec) -> bool {
        spec.layers.iter().any(|layer| match layer.ffn {
            FfnSpec::Gated { activation, .. } | FfnSpec::Plain { activation, .. } => is_exact(activation),
            FfnSpec::Experts(_) | FfnSpec::Neurons(_) => false,
        })
    }

    /// Lays the down projections of exact layers, or with a profile of all layers, out by neuron.
    pub(crate) fn new(
        spec: &DecoderSpec,
        weights: &DecoderWeights,
        profile: Option<&SparsityProfile>,
        all: bool,
    ) -> Result<Self, SparseError> {
        let other = || SparseError::Format { what: "sparsity", fault: FormatFault::OtherModel };
        let layers = spec.layers.iter().zip(&weights.layers).enumerate().map(|(i, (spec, weights))| {
            let Some((activation, down)) = parts(&spec.ffn, &weights.ffn) else { return Ok(None) };
            let exact = is_exact(activation);
            if !exact && profile.is_none() && !all {
                return Ok(None);
            }
            let importance = match profile.and_then(|profile| profile.importance.get(i)) {
                Some(importance) if !importance.is_empty() && importance.len() != down.columns() => {
                    return Err(other());
                }
                importance => importance.cloned().unwrap_or_default(),
            };
            let norms = if exact && profile.is_none() { Vec::new() } else { column_norms(down) };
            let by_neuron = NeuronMatrix::new(down);
            Ok(by_neuron.map(|down| SparseLayer { down, norms, importance, exact }))
        });
        let layers = layers.collect::<Result<_, SparseError>>()?;
        let screen = profile.and_then(|profile| profile.screen.as_ref());
        let screen = screen.map(|screen| Screen::new(screen, spec.dim, spec.vocab).ok_or_else(other));
        Ok(Self { layers, screen: screen.transpose()? })
    }
}

/// The lengths of a matrix's columns.
fn column_norms(matrix: &Matrix) -> Vec<f32> {
    let mut squares = vec![0.0f64; matrix.columns()];
    let mut row = vec![0.0; matrix.columns()];
    for r in 0..matrix.rows() {
        matrix.weights().dequantize_row(r, &mut row);
        squares.iter_mut().zip(&row).for_each(|(s, &w)| *s += f64::from(w * w));
    }
    squares.into_iter().map(|s| s.sqrt() as f32).collect()
}
