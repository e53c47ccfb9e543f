//! Guessing which neurons fire, for less than it takes to compute them.

use super::config::{Selection, SparsityConfig};
use super::error::{SparseError, check_finite, check_len};

/// A guess which neurons of a layer fire for an input.
pub trait NeuronPredictor: Send + Sync {
    /// Values of an input.
    fn input_dim(&self) -> usize;

    /// Neurons of the layer.
    fn hidden_dim(&self) -> usize;

    /// How neurons are chosen by their scores.
    fn config(&self) -> SparsityConfig;

    /// Multiplications for one input: whole numbers of 64 bits count as one, as does a float.
    fn cost(&self) -> usize;

    /// Writes a score for each neuron to `out`; the higher, the likelier it matters. Sizes are those of the layer.
    fn score(&self, input: &[f32], out: &mut [f32]);

    /// The neurons that the predictor would compute, ascending. Fails where the input has another size, or values that
    /// are not finite.
    fn predict(&self, input: &[f32]) -> Result<Vec<usize>, SparseError> {
        check_len("the input", self.input_dim(), input.len())?;
        check_finite("the input", input)?;
        let mut scores = vec![0.0; self.hidden_dim()];
        self.score(input, &mut scores);
        Ok(self.config().select(&scores))
    }

    /// Compares predictions with what the neurons really did.
    ///
    /// `activations[i][n]` says how much neuron `n` mattered for `samples[i]`. With a number or a share of neurons to
    /// keep, that many with the largest magnitudes are the right ones; with a threshold, those whose activation is not
    /// zero.
    fn evaluate(
        &self,
        samples: &[Vec<f32>],
        activations: &[Vec<f32>],
    ) -> Result<PredictorQuality, SparseError> {
        check_samples(self.input_dim(), self.hidden_dim(), samples, activations)?;
        let (mut hits, mut chosen, mut wanted) = (0usize, 0usize, 0usize);
        for (sample, activation) in samples.iter().zip(activations) {
            let magnitudes: Vec<f32> = activation.iter().map(|a| a.abs()).collect();
            let right = match self.config().selection() {
                Selection::Threshold(_) => SparsityConfig::with_threshold(0.0),
                _ => self.config(),
            };
            let right = right.select(&magnitudes);
            let predicted = self.predict(sample)?;
            hits += predicted.iter().filter(|n| right.binary_search(n).is_ok()).count();
            chosen += predicted.len();
            wanted += right.len();
        }
        let share = |part: usize, of: usize| if of == 0 { 1.0 } else { part as f64 / of as f64 };
        Ok(PredictorQuality {
            recall: share(hits, wanted),
            precision: share(hits, chosen),
            selected: share(chosen, samples.len() * self.hidden_dim()),
            cost: self.cost() as f64 / (self.input_dim() * self.hidden_dim()) as f64,
        })
    }
}

/// How good a predictor is, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct PredictorQuality {
    /// The share of the neurons that mattered which were predicted.
    pub recall: f64,
    /// The share of the predicted neurons that mattered.
    pub precision: f64,
    /// The share of all neurons that was predicted.
    pub selected: f64,
    /// Multiplications, where one product with a matrix of the layer is 1.
    pub cost: f64,
}

/// Fails on samples that are none, not as many as activations, of another size, or not finite.
pub(super) fn check_samples(
    input_dim: usize,
    hidden_dim: usize,
    samples: &[Vec<f32>],
    activations: &[Vec<f32>],
) -> Result<(), SparseError> {
    if samples.is_empty() {
        return Err(SparseError::NoSamples);
    }
    check_len("the list of activations", samples.len(), activations.len())?;
    for (sample, activation) in samples.iter().zip(activations) {
        check_len("a sample", input_dim, sample.len())?;
        check_finite("a sample", sample)?;
        check_len("an activation", hidden_dim, activation.len())?;
        check_finite("an activation", activation)?;
    }
    Ok(())
}

/// Scores neurons by how many signs of their weights agree with those of the input: a bit for each weight.
///
/// ```
/// use firecrest::sparse::{NeuronPredictor, SignBitPredictor, SparsityConfig};
///
/// let gate = [1.0, -1.0, 1.0, 1.0, -1.0, 1.0];
/// let predictor = SignBitPredictor::new(3, 2, &gate, SparsityConfig::with_top_k(1))?;
/// assert_eq!(predictor.predict(&[0.5, -2.0, 0.1])?, [0]);
/// # Ok::<(), firecrest::sparse::SparseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SignBitPredictor {
    input_dim: usize,
    hidden_dim: usize,
    config: SparsityConfig,
    /// Bit `i` is set where weight `i` is negative; each neuron begins with a word of its own.
    signs: Vec<u64>,
}

impl SignBitPredictor {
    /// From the first (or gate) matrix of a layer, `[hidden_dim, input_dim]`.
    pub fn new(
        input_dim: usize,
        hidden_dim: usize,
        gate: &[f32],
        config: SparsityConfig,
    ) -> Result<Self, SparseError> {
        super::error::check_size("the input size", input_dim)?;
        super::error::check_size("the hidden size", hidden_dim)?;
        check_len("the gate", input_dim * hidden_dim, gate.len())?;
        check_finite("the gate", gate)?;
        config.validate(hidden_dim)?;
        let signs = gate.chunks_exact(input_dim).flat_map(sign_bits).collect();
        Ok(Self { input_dim, hidden_dim, config, signs })
    }
}

fn sign_bits(values: &[f32]) -> impl Iterator<Item = u64> {
    values.chunks(64).map(|values| {
        values.iter().enumerate().fold(0, |bits, (i, x)| bits | u64::from(x.is_sign_negative()) << i)
    })
}

impl NeuronPredictor for SignBitPredictor {
    fn input_dim(&self) -> usize {
        self.input_dim
    }

    fn hidden_dim(&self) -> usize {
        self.hidden_dim
    }

    fn config(&self) -> SparsityConfig {
        self.config
    }

    fn cost(&self) -> usize {
        self.signs.len()
    }

    fn score(&self, input: &[f32], out: &mut [f32]) {
        let input: Vec<u64> = sign_bits(input).collect();
        for (signs, out) in self.signs.chunks_exact(input.len()).zip(out) {
            let differ: u32 = signs.iter().zip(&input).map(|(a, b)| (a ^ b).count_ones()).sum();
            *out = (self.input_dim as f32 - 2.0 * differ as f32) / self.input_dim as f32;
        }
    }
}
