use std::path::Path;

use super::config::{Selection, SparsityConfig};
use super::error::{FormatFault, SparseError, check_finite, check_size};
use super::file::{Reader, Writer, read_file, write_file};
use super::linalg::{Dense, cholesky, leading_eigenvectors, solve_lower, solve_lower_transposed};
use super::predictor::{NeuronPredictor, PredictorQuality, check_samples};

const KIND: &str = "predictor";
const MAGIC: [u8; 4] = *b"FCLR";
const VERSION: u32 = 1;

/// Scores neurons by a product with two thin matrices: `score = mean + second · (first · x)`.
///
/// [`calibrate`](LowRankPredictor::calibrate) finds the matrices of the given rank that predict best, in closed form.
/// Before that the predictor knows nothing: all scores are zero.
///
/// ```
/// use firecrest::sparse::{LowRankPredictor, SparsityConfig};
///
/// // Two neurons that look at the two halves of the input.
/// let samples: Vec<Vec<f32>> = (0..40).map(|i| (0..4).map(|j| ((i * 7 + j * 5) % 11) as f32 - 5.0).collect()).collect();
/// let activations: Vec<Vec<f32>> = samples.iter().map(|x| vec![x[0] + x[1], x[2] - x[3]]).collect();
///
/// let mut predictor = LowRankPredictor::new(4, 2, 2, SparsityConfig::with_top_k(1))?;
/// let quality = predictor.calibrate(&samples, &activations)?;
/// assert_eq!(predictor.predict(&[3.0, 3.0, 0.0, 0.0])?, [0]);
/// assert!(quality.recall > 0.5);
/// # Ok::<(), firecrest::sparse::SparseError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankPredictor {
    input_dim: usize,
    hidden_dim: usize,
    rank: usize,
    config: SparsityConfig,
    calibrated: bool,
    /// `[rank, input_dim]`.
    first: Vec<f32>,
    /// `[hidden_dim, rank]`.
    second: Vec<f32>,
    /// `[hidden_dim]`.
    bias: Vec<f32>,
}

impl LowRankPredictor {
    /// A predictor that knows nothing yet. Fails on sizes of zero, a rank above either dimension, or a config that makes
    /// no sense.
    pub fn new(
        input_dim: usize,
        hidden_dim: usize,
        rank: usize,
        config: SparsityConfig,
    ) -> Result<Self, SparseError> {
        check_size("the input size", input_dim)?;
        check_size("the hidden size", hidden_dim)?;
        if rank == 0 || rank > input_dim.min(hidden_dim) {
            return Err(SparseError::Size { what: "the rank", value: rank });
        }
        config.validate(hidden_dim)?;
        Ok(Self {
            first: vec![0.0; rank * input_dim],
            second: vec![0.0; hidden_dim * rank],
            bias: vec![0.0; hidden_dim],
            calibrated: false,
            input_dim,
            hidden_dim,
            rank,
            config,
        })
    }

    /// A predictor of given matrices: `first` is `[rank, input_dim]`, `second` `[hidden_dim, rank]`, `bias`
    /// `[hidden_dim]`.
    pub fn from_factors(
        [input_dim, hidden_dim, rank]: [usize; 3],
        first: Vec<f32>,
        second: Vec<f32>,
        bias: Vec<f32>,
        config: SparsityConfig,
    ) -> Result<Self, SparseError> {
        check_size("the input size", input_dim)?;
        check_size("the hidden size", hidden_dim)?;
        check_size("the rank", rank)?;
        config.validate(hidden_dim)?;
        for (what, len, values) in [
            ("the first factor", rank.saturating_mul(input_dim), &first),
            ("the second factor", hidden_dim.saturating_mul(rank), &second),
            ("the bias", hidden_dim, &bias),
        ] {
            super::error::check_len(what, len, values.len())?;
            check_finite(what, values)?;
        }
        Ok(Self { input_dim, hidden_dim, rank, config, calibrated: true, first, second, bias })
    }

    /// Values of an input.
    pub fn input_dim(&self) -> usize {
        self.input_dim
    }

    /// Neurons of the layer.
    pub fn hidden_dim(&self) -> usize {
        self.hidden_dim
    }

    /// Columns of the thin matrices.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Whether it has been calibrated, or was made of given matrices.
    pub fn is_calibrated(&self) -> bool {
        self.calibrated
    }

    /// Chooses neurons otherwise from now on.
    pub fn set_config(&mut self, config: SparsityConfig) -> Result<(), SparseError> {
        config.validate(self.hidden_dim)?;
        self.config = config;
        Ok(())
    }

    /// The neurons to compute for an input, ascending. Fails where the input has another size, or values that are not
    /// finite.
    pub fn predict(&self, input: &[f32]) -> Result<Vec<usize>, SparseError> {
        NeuronPredictor::predict(self, input)
    }

    /// Finds the best matrices for samples and what the neurons did with them, and says how well they do on those same
    /// samples.
    ///
    /// `activations[i][n]` is what the score of neuron `n` should be for `samples[i]`: what decides whether it fires, as
    /// the gate's value, or how much it matters, as the magnitude of its activation.
    ///
    /// This is reduced-rank regression with a small ridge: with the covariance of inputs `C = L Lᵀ` and the
    /// cross-covariance `K` with activations, the best map of a rank is `K` between the leading left singular vectors of
    /// `L⁻¹ K` (Izenman 1975).
    ///
    /// Fails without samples, on sizes that don't agree and on values that are not finite; the predictor then stays as it
    /// was.
    pub fn calibrate(
        &mut self,
        samples: &[Vec<f32>],
        activations: &[Vec<f32>],
    ) -> Result<PredictorQuality, SparseError> {
        check_samples(self.input_dim, self.hidden_dim, samples, activations)?;
        let mean = |rows: &[Vec<f32>], len: usize| {
            let mut mean = vec![0.0f64; len];
            for row in rows {
                mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x));
            }
            mean.iter_mut().for_each(|m| *m /= rows.len() as f64);
            mean
        };
        let (x_mean, y_mean) = (mean(samples, self.input_dim), mean(activations, self.hidden_dim));
        let centred = |row: &[f32], mean: &[f64]| -> Vec<f64> {
            row.iter().zip(mean).map(|(&x, m)| f64::from(x) - m).collect()
        };
        let mut covariance = Dense::zeros(self.input_dim, self.input_dim);
        let mut cross = Dense::zeros(self.input_dim, self.hidden_dim);
        for (x, y) in samples.iter().zip(activations) {
            let x = centred(x, &x_mean);
            covariance.add_outer(&x, &x);
            cross.add_outer(&x, &centred(y, &y_mean));
        }
        let trace: f64 = (0..self.input_dim).map(|i| covariance.row(i)[i]).sum();
        let mut ridge = (trace / self.input_dim as f64 * 1e-4).max(1e-12);
        let lower = loop {
            let mut ridged = covariance.clone();
            (0..self.input_dim).for_each(|i| ridged.row_mut(i)[i] += ridge);
            match cholesky(&ridged) {
                Some(lower) => break lower,
                // Rounding alone makes a covariance indefinite: a larger ridge outweighs it.
                None => ridge *= 10.0,
            }
        };
        let whitened = solve_lower(&lower, &cross);
        let directions = leading_eigenvectors(&whitened.times_transposed(&whitened), self.rank);
        let mut columns = Dense::zeros(self.input_dim, self.rank);
        for k in 0..self.rank {
            for i in 0..self.input_dim {
                columns.row_mut(i)[k] = directions.row(k)[i];
            }
        }
        let first = solve_lower_transposed(&lower, &columns);
        let second = directions.times(&whitened);
        for k in 0..self.rank {
            for i in 0..self.input_dim {
                self.first[k * self.input_dim + i] = first.row(i)[k] as f32;
            }
        }
        for n in 0..self.hidden_dim {
            let mut bias = y_mean[n];
            for k in 0..self.rank {
                self.second[n * self.rank + k] = second.row(k)[n] as f32;
            }
            for (k, row) in self.first.chunks_exact(self.input_dim).enumerate() {
                let shift: f64 = row.iter().zip(&x_mean).map(|(&w, m)| f64::from(w) * m).sum();
                bias -= shift * second.row(k)[n];
            }
            self.bias[n] = bias as f32;
        }
        self.calibrated = true;
        self.evaluate(samples, activations)
    }

    /// Writes the predictor to a file, whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SparseError> {
        write_file(path.as_ref(), &self.to_bytes())
    }

    /// Reads a predictor from a file; fails on one that is broken.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SparseError> {
        Self::from_bytes(&read_file(path.as_ref())?)
    }

    /// The predictor as a file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, VERSION);
        for size in [self.input_dim, self.hidden_dim, self.rank] {
            out.u32(size as u32);
        }
        out.u32(u32::from(self.calibrated));
        let (kind, value) = match self.config.selection() {
            Selection::TopK(n) => (0, n as u64),
            Selection::Threshold(t) => (1, u64::from(t.to_bits())),
            Selection::TargetSparsity(s) => (2, u64::from(s.to_bits())),
        };
        out.u32(kind);
        out.u64(value);
        for values in [&self.first, &self.second, &self.bias] {
            out.floats(values);
        }
        out.finish()
    }

    /// Reads what [`LowRankPredictor::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SparseError> {
        let fault = |fault| SparseError::Format { what: KIND, fault };
        let mut read = Reader::new(bytes, KIND, MAGIC, VERSION)?;
        let sizes = [read.u32()?, read.u32()?, read.u32()?].map(|n| n as usize);
        let [input_dim, hidden_dim, rank] = sizes;
        if sizes.iter().any(|&n| n == 0 || n > 1 << 24) {
            return Err(fault(FormatFault::Value("a size")));
        }
        let calibrated = read.u32()? != 0;
        let kind = read.u32()?;
        let value = read.u64()?;
        let float = f32::from_bits(value as u32);
        let config = match kind {
            0 => SparsityConfig::with_top_k(usize::try_from(value).unwrap_or(usize::MAX)),
            1 => SparsityConfig::with_threshold(float),
            2 => SparsityConfig::with_target_sparsity(float),
            _ => return Err(fault(FormatFault::Value("the way of selecting"))),
        };
        let first = read.floats(rank.saturating_mul(input_dim))?;
        let second = read.floats(hidden_dim.saturating_mul(rank))?;
        let bias = read.floats(hidden_dim)?;
        read.finish()?;
        Ok(Self { calibrated, ..Self::from_factors(sizes, first, second, bias, config)? })
    }
}

impl NeuronPredictor for LowRankPredictor {
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
        self.rank * (self.input_dim + self.hidden_dim)
    }

    fn score(&self, input: &[f32], out: &mut [f32]) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let middle: Vec<f32> = self.first.chunks_exact(self.input_dim).map(|row| dot(row, input)).collect();
        for ((out, row), bias) in out.iter_mut().zip(self.second.chunks_exact(self.rank)).zip(&self.bias) {
            *out = bias + dot(row, &middle);
        }
    }
}
