use std::sync::{Mutex, PoisonError};

use super::config::{ActivationType, SparsityConfig};
use super::error::{SparseError, check_len};
use super::ffn::SparseFfn;
use super::low_rank::LowRankPredictor;
use super::predictor::PredictorQuality;
use crate::backend::Activation;
use crate::gguf::Gguf;
use crate::nn::FfnSpec;

/// The rank of the predictors that [`SparseInferenceEngine::calibrate`] makes, at most.
const RANK: usize = 128;

/// A feed-forward layer with a choice of neurons for each input.
///
/// Until it is calibrated, the engine computes all activations and leaves out the smallest, which saves the second matrix
/// alone; [`calibrate`](SparseInferenceEngine::calibrate) makes a [`LowRankPredictor`] that chooses before anything is
/// computed.
///
/// ```
/// use firecrest::sparse::SparseInferenceEngine;
///
/// let mut engine = SparseInferenceEngine::new_sparse(64, 256, 0.7)?;
/// let samples: Vec<Vec<f32>> =
///     (0..80).map(|i| (0..64).map(|j| ((i * 31 + j * 17) % 23) as f32 / 23.0 - 0.5).collect()).collect();
/// let quality = engine.calibrate(&samples)?;
/// assert!(quality.recall > 0.3);
///
/// let output = engine.infer(&samples[0])?;
/// assert_eq!(output.len(), 64);
/// assert!((engine.sparsity_stats().average_active_ratio - 0.3).abs() < 0.01);
/// engine.set_sparsity(0.0)?;
/// assert_eq!(engine.infer(&samples[0])?, engine.ffn().forward_dense(&samples[0])?);
/// # Ok::<(), firecrest::sparse::SparseError>(())
/// ```
#[derive(Debug)]
pub struct SparseInferenceEngine {
    ffn: SparseFfn,
    sparsity: f32,
    predictor: Option<LowRankPredictor>,
    quality: Option<PredictorQuality>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    inferences: u64,
    active: u64,
    min_active: usize,
    max_active: usize,
}

/// What an engine has skipped so far.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SparsityStats {
    /// Calls of [`SparseInferenceEngine::infer`].
    pub inferences: u64,
    /// The mean share of neurons that were used; 1 before the first inference.
    pub average_active_ratio: f64,
    /// The fewest neurons that an inference used.
    pub min_active: usize,
    /// The most neurons that an inference used.
    pub max_active: usize,
    /// Neurons of the layer.
    pub neurons: usize,
    /// Bytes of weights that were not read.
    pub bytes_skipped: u64,
    /// How good the predictor was when it was calibrated; `None` before.
    pub predictor: Option<PredictorQuality>,
}

impl SparseInferenceEngine {
    /// A layer of reproducible, meaningless weights that skips the share `sparsity` of its neurons: to measure and to
    /// try. Inputs and outputs have `input_dim` values.
    pub fn new_sparse(input_dim: usize, hidden_dim: usize, sparsity: f32) -> Result<Self, SparseError> {
        Self::from_ffn(SparseFfn::new(input_dim, hidden_dim, input_dim, ActivationType::Silu)?, sparsity)
    }

    /// As [`SparseInferenceEngine::new_sparse`], skipping nothing.
    pub fn new_dense(input_dim: usize, hidden_dim: usize) -> Result<Self, SparseError> {
        Self::new_sparse(input_dim, hidden_dim, 0.0)
    }

    /// The feed-forward layer `blk.{layer}` of a model file, with the activation that its architecture has, skipping the
    /// share `sparsity` of its neurons. Whole models are run by [`Model`](crate::Model).
    pub fn from_gguf(gguf: &Gguf, layer: usize, sparsity: f32) -> Result<Self, SparseError> {
        let activation = activation_of(gguf, layer)?;
        Self::from_ffn(SparseFfn::from_gguf(gguf, layer, activation)?, sparsity)
    }

    /// A given layer, skipping the share `sparsity` of its neurons.
    pub fn from_ffn(ffn: SparseFfn, sparsity: f32) -> Result<Self, SparseError> {
        SparsityConfig::with_target_sparsity(sparsity).validate(ffn.hidden_dim())?;
        Ok(Self { ffn, sparsity, predictor: None, quality: None, counts: Mutex::default() })
    }

    /// The layer.
    pub fn ffn(&self) -> &SparseFfn {
        &self.ffn
    }

    /// The predictor, once there is one.
    pub fn predictor(&self) -> Option<&LowRankPredictor> {
        self.predictor.as_ref()
    }

    /// Makes the predictor for inputs like `samples`, and says how good it is on them. It needs some hundreds of them for
    /// the inputs to come. Fails without samples, on another size, and on values that are not finite; the engine then
    /// stays as it was.
    pub fn calibrate(&mut self, samples: &[Vec<f32>]) -> Result<PredictorQuality, SparseError> {
        let mut magnitudes = Vec::with_capacity(samples.len());
        for sample in samples {
            check_len("a sample", self.ffn.input_dim(), sample.len())?;
            let mut activations = self.ffn.activations(sample)?;
            activations.iter_mut().for_each(|h| *h = h.abs());
            magnitudes.push(activations);
        }
        let (input_dim, hidden_dim) = (self.ffn.input_dim(), self.ffn.hidden_dim());
        let rank = RANK.min(input_dim.min(hidden_dim) / 2).max(1);
        let config = SparsityConfig::with_target_sparsity(self.sparsity);
        let mut predictor = LowRankPredictor::new(input_dim, hidden_dim, rank, config)?;
        let quality = predictor.calibrate(samples, &magnitudes)?;
        self.predictor = Some(predictor);
        self.quality = Some(quality);
        Ok(quality)
    }

    /// Skips another share of the neurons from now on.
    pub fn set_sparsity(&mut self, sparsity: f32) -> Result<(), SparseError> {
        let config = SparsityConfig::with_target_sparsity(sparsity);
        config.validate(self.ffn.hidden_dim())?;
        if let Some(predictor) = &mut self.predictor {
            predictor.set_config(config)?;
        }
        self.sparsity = sparsity;
        Ok(())
    }

    /// The output for an input.
    pub fn infer(&self, input: &[f32]) -> Result<Vec<f32>, SparseError> {
        let neurons = self.ffn.hidden_dim();
        if self.sparsity == 0.0 {
            let output = self.ffn.forward_dense(input)?;
            self.count(neurons);
            return Ok(output);
        }
        let (output, active) = match &self.predictor {
            Some(predictor) => {
                let active = predictor.predict(input)?;
                (self.ffn.forward_sparse(input, &active)?, active.len())
            }
            None => {
                let hidden = self.ffn.activations(input)?;
                let magnitudes: Vec<f32> = hidden.iter().map(|h| h.abs()).collect();
                let active = SparsityConfig::with_target_sparsity(self.sparsity).select(&magnitudes);
                (self.ffn.output_of(hidden, &active), active.len())
            }
        };
        self.count(active);
        Ok(output)
    }

    fn count(&self, active: usize) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.min_active = if counts.inferences == 0 { active } else { counts.min_active.min(active) };
        counts.max_active = counts.max_active.max(active);
        counts.inferences += 1;
        counts.active += active as u64;
    }

    /// What was skipped so far.
    pub fn sparsity_stats(&self) -> SparsityStats {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let neurons = self.ffn.hidden_dim();
        let all = counts.inferences * neurons as u64;
        SparsityStats {
            inferences: counts.inferences,
            average_active_ratio: if all == 0 { 1.0 } else { counts.active as f64 / all as f64 },
            min_active: counts.min_active,
            max_active: counts.max_active,
            neurons,
            bytes_skipped: (all - counts.active) * self.ffn.neuron_bytes() as u64,
            predictor: self.quality,
        }
    }
}

/// The activation function of a layer of a model file.
fn activation_of(gguf: &Gguf, layer: usize) -> Result<ActivationType, SparseError> {
    let spec = crate::models::decoder_spec(gguf)?;
    let layer = spec.layers.get(layer).ok_or(SparseError::Size { what: "the layer", value: layer })?;
    let activation = match &layer.ffn {
        FfnSpec::Gated { activation, .. } | FfnSpec::Plain { activation, .. } => *activation,
        FfnSpec::Neurons(neurons) if neurons.up_activation == Activation::Identity => neurons.activation,
        FfnSpec::Neurons(_) => return Err(SparseError::Weights { what: "two activations".into() }),
        FfnSpec::Experts(_) => return Err(SparseError::Weights { what: "a mixture of experts".into() }),
    };
    ActivationType::of(activation)
        .ok_or_else(|| SparseError::Weights { what: format!("{activation:?} neurons") })
}
