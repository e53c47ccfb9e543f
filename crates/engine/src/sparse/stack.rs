use super::engine::{SparseInferenceEngine, SparsityStats};
use super::error::{SparseError, check_finite, check_len};
use super::predictor::PredictorQuality;
use crate::gguf::Gguf;
use crate::nn::optional_vector;

/// What the norm before a layer adds to the mean square, as most models do.
const EPSILON: f32 = 1e-5;

/// The feed-forward layers of a model, one after another, without what is between them: each adds to its input what it
/// makes of it, as in the model. To measure and to try sparsity.
///
/// A layer's input is divided by its root mean square first, and multiplied by `ffn_norm` where the file has that.
#[derive(Debug)]
pub struct SparseStack {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    norm: Option<Vec<f32>>,
    engine: SparseInferenceEngine,
}

impl Layer {
    fn normalized(&self, x: &[f32]) -> Vec<f32> {
        let square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        let factor = 1.0 / (square + EPSILON).sqrt();
        match &self.norm {
            Some(norm) => x.iter().zip(norm).map(|(x, weight)| x * factor * weight).collect(),
            None => x.iter().map(|x| x * factor).collect(),
        }
    }

    fn add_to(&self, x: &mut [f32]) -> Result<(), SparseError> {
        let output = self.engine.infer(&self.normalized(x))?;
        x.iter_mut().zip(output).for_each(|(x, y)| *x += y);
        Ok(())
    }
}

impl SparseStack {
    /// All feed-forward layers of a model file, skipping the share `sparsity` of their neurons. Fails on a mixture of
    /// experts.
    pub fn from_gguf(gguf: &Gguf, sparsity: f32) -> Result<Self, SparseError> {
        let layers = crate::models::decoder_spec(gguf)?.layers.len();
        let layer = |layer| {
            let engine = SparseInferenceEngine::from_gguf(gguf, layer, sparsity)?;
            check_len("the output of a layer", engine.ffn().input_dim(), engine.ffn().output_dim())?;
            let name = format!("blk.{layer}.ffn_norm.weight");
            let norm = optional_vector(gguf, &name, engine.ffn().input_dim())?;
            Ok(Layer { norm, engine })
        };
        Ok(Self { layers: (0..layers).map(layer).collect::<Result<_, SparseError>>()? })
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Values of an input, and of an output.
    pub fn dim(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.engine.ffn().input_dim())
    }

    /// What the layers make of an input. Fails on another size, and on values that are not finite.
    pub fn infer(&self, input: &[f32]) -> Result<Vec<f32>, SparseError> {
        check_len("the input", self.dim(), input.len())?;
        check_finite("the input", input)?;
        let mut x = input.to_vec();
        for layer in &self.layers {
            layer.add_to(&mut x)?;
        }
        Ok(x)
    }

    /// Calibrates each layer for what reaches it of inputs like `samples`; see
    /// [`SparseInferenceEngine::calibrate`]. Says how good each layer's predictor is.
    pub fn calibrate(&mut self, samples: &[Vec<f32>]) -> Result<Vec<PredictorQuality>, SparseError> {
        for sample in samples {
            check_len("a sample", self.dim(), sample.len())?;
            check_finite("a sample", sample)?;
        }
        let mut states = samples.to_vec();
        let mut qualities = Vec::with_capacity(self.layers.len());
        for layer in &mut self.layers {
            let inputs: Vec<_> = states.iter().map(|x| layer.normalized(x)).collect();
            qualities.push(layer.engine.calibrate(&inputs)?);
            for (x, input) in states.iter_mut().zip(&inputs) {
                let output = layer.engine.ffn().forward_dense(input)?;
                x.iter_mut().zip(output).for_each(|(x, y)| *x += y);
            }
        }
        Ok(qualities)
    }

    /// Skips another share of the neurons from now on.
    pub fn set_sparsity(&mut self, sparsity: f32) -> Result<(), SparseError> {
        self.layers.iter_mut().try_for_each(|layer| layer.engine.set_sparsity(sparsity))
    }

    /// What each layer skipped so far.
    pub fn sparsity_stats(&self) -> Vec<SparsityStats> {
        self.layers.iter().map(|layer| layer.engine.sparsity_stats()).collect()
    }
}
