//! The parts of the pass that leave something out, for one token at a time.

use std::sync::Arc;

use web_time::{Duration, Instant};

use super::pass::Buffers;
use super::spec::{DecoderSpec, FfnSpec};
use super::weights::{DecoderWeights, FfnWeights, LayerWeights};
use crate::backend::{Activation, Buffer, Cpu, Input, Matrix, NeuronMatrix, Output};
use crate::gguf::Format;
use crate::sparse::{FormatFault, SparseError, SparsityLevel, SparsityProfile, Thresholds};
use crate::weights::Bytes;

/// Tokens that are computed both ways, in turns, before the faster is kept; the first few are not timed.
const TRIAL: u32 = 16;
const WARM_UP: u32 = 4;

/// One of how many logits are looked at to find where the candidates of the vocabulary screen begin.
const STRIDE: usize = 16;

/// What sparse passes need besides the weights; shared by all decoders of a model.
#[derive(Debug, Default)]
pub(crate) struct SparseWeights {
    layers: Vec<Option<SparseLayer>>,
    screen: Option<Screen>,
}

#[derive(Debug)]
struct SparseLayer {
    down: NeuronMatrix,
    /// The lengths of the neurons' columns of the down projection.
    norms: Vec<f32>,
    /// What a unit of the gate's activation is worth; empty where that was not measured.
    importance: Vec<f32>,
    /// Whether neurons are exactly zero by themselves.
    exact: bool,
}

/// Finds the tokens whose logits are worth computing.
#[derive(Debug)]
struct Screen {
    mean: Vec<f32>,
    basis: Matrix,
    rows: Matrix,
    bias: Vec<f32>,
    candidates: usize,
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
        let screen = match profile.and_then(|profile| profile.screen.as_ref()) {
            None => None,
            Some(screen) => {
                let (rank, dim, vocab) = (screen.rank as usize, spec.dim, spec.vocab);
                let basis: Vec<u8> = screen.basis.iter().flat_map(|x| x.to_le_bytes()).collect();
                let basis = Matrix::new(Bytes::from(basis), Format::F32, rank, dim).ok_or_else(other)?;
                let rows = Bytes::from(screen.rows.clone());
                let rows = Matrix::new(rows, Format::Q8_0, vocab, rank).ok_or_else(other)?;
                let candidates = screen.candidates as usize;
                if rank == 0 || screen.mean.len() != dim || screen.bias.len() != vocab || candidates > vocab {
                    return Err(other());
                }
                Some(Screen { mean: screen.mean.clone(), basis, rows, bias: screen.bias.clone(), candidates })
            }
        };
        Ok(Self { layers, screen })
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

/// What a layer leaves out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Dense,
    Exact,
    Below(Thresholds),
}

/// What was left out in one layer, over all tokens.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LayerSparsity {
    /// Neurons of the layer, times tokens.
    pub neurons: u64,
    /// Of those, the ones whose up projection was left out.
    pub up_skipped: u64,
    /// Of those, the ones whose down projection was left out.
    pub down_skipped: u64,
    /// Bytes of weights that were not read.
    pub bytes_skipped: u64,
}

/// What a decoder has left out so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DecoderSparsity {
    /// The level in use.
    pub level: SparsityLevel,
    /// For each layer.
    pub layers: Vec<LayerSparsity>,
    /// Tokens whose logits went through the vocabulary screen.
    pub screened_tokens: u64,
    /// Logits computed exactly for each of them, on average.
    pub candidates: f64,
    /// Milliseconds for a token, sparse and dense, where both were timed; the faster is in use.
    pub timed_ms: Option<(f64, f64)>,
}

/// What a calibration looks at: called with the layer, the gate's activations, the up projection and the down
/// projection's lengths of all neurons.
pub(crate) type Observer<'a> = dyn FnMut(usize, &[f32], &[f32], &[f32]) + 'a;

/// How a decoder leaves things out.
#[derive(Debug)]
pub(crate) struct SparseState {
    weights: Arc<SparseWeights>,
    level: SparsityLevel,
    rules: Vec<Rule>,
    screen: bool,
    pace: Pace,
    counts: Vec<LayerSparsity>,
    screened: (u64, u64),
    rows: Vec<u32>,
    values: [Vec<f32>; 1],
    hidden: Vec<f32>,
    normed: Buffer,
    low: Buffer,
}

/// Times both ways and keeps the faster.
#[derive(Debug, Default)]
struct Pace {
    fixed: bool,
    tokens: u32,
    sparse: Duration,
    dense: Duration,
    started: Option<Instant>,
}

impl Pace {
    fn is_sparse(&self) -> bool {
        if self.fixed {
            true
        } else if self.tokens < TRIAL {
            self.tokens.is_multiple_of(2)
        } else {
            self.sparse <= self.dense
        }
    }

    fn start(&mut self) {
        self.started = (!self.fixed && self.tokens < TRIAL).then(Instant::now);
    }

    fn stop(&mut self) {
        let Some(started) = self.started.take() else { return };
        if self.tokens >= WARM_UP {
            let time = if self.is_sparse() { &mut self.sparse } else { &mut self.dense };
            *time += started.elapsed();
        }
        self.tokens += 1;
    }
}

impl SparseState {
    pub(crate) fn new(weights: Arc<SparseWeights>, level: SparsityLevel) -> Self {
        let layers = weights.layers.len();
        Self {
            weights,
            level,
            rules: vec![Rule::Dense; layers],
            screen: false,
            pace: Pace::default(),
            counts: vec![LayerSparsity::default(); layers],
            screened: (0, 0),
            rows: Vec::new(),
            values: Default::default(),
            hidden: Vec::new(),
            normed: Buffer::default(),
            low: Buffer::default(),
        }
    }

    /// Leaves out what loses nothing.
    pub(crate) fn use_exact(&mut self) {
        let exact = |layer: &Option<SparseLayer>| layer.as_ref().is_some_and(|layer| layer.exact);
        self.rules = self
            .weights
            .layers
            .iter()
            .map(|layer| if exact(layer) { Rule::Exact } else { Rule::Dense })
            .collect();
        self.screen = false;
    }

    /// Leaves out what these thresholds say, and with `screen` most of the vocabulary.
    pub(crate) fn use_thresholds(&mut self, thresholds: &[Thresholds], screen: bool) {
        self.use_exact();
        for ((rule, layer), &thresholds) in self.rules.iter_mut().zip(&self.weights.layers).zip(thresholds) {
            if *rule == Rule::Dense && layer.is_some() && thresholds != Thresholds::default() {
                *rule = Rule::Below(thresholds);
            }
        }
        self.screen = screen && self.weights.screen.is_some();
    }

    /// Always sparse, without timing.
    pub(crate) fn fix(&mut self) {
        self.pace.fixed = true;
    }

    /// Whether what is left out changes results.
    pub(crate) fn is_lossy(&self) -> bool {
        self.screen || self.rules.iter().any(|rule| matches!(rule, Rule::Below(_)))
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.screen && self.rules.iter().all(|rule| *rule == Rule::Dense)
    }

    pub(crate) fn level(&self) -> &SparsityLevel {
        &self.level
    }

    pub(crate) fn report(&self) -> DecoderSparsity {
        let (tokens, candidates) = self.screened;
        let timed = !self.pace.fixed && self.pace.tokens >= TRIAL;
        let each = |time: Duration| time.as_secs_f64() * 2e3 / f64::from(TRIAL - WARM_UP);
        DecoderSparsity {
            level: self.level.clone(),
            layers: self.counts.clone(),
            screened_tokens: tokens,
            candidates: candidates as f64 / tokens.max(1) as f64,
            timed_ms: timed.then(|| (each(self.pace.sparse), each(self.pace.dense))),
        }
    }

    /// Begins a token that is computed alone; whether it is to be sparse.
    pub(super) fn begin(&mut self) -> bool {
        self.pace.start();
        self.pace.is_sparse()
    }

    /// Whether the token that has begun is sparse.
    pub(super) fn is_sparse(&self) -> bool {
        self.pace.is_sparse()
    }

    /// Ends that token.
    pub(super) fn end(&mut self) {
        self.pace.stop();
    }

    /// `delta = ffn(norm(x))` with some neurons for one token; returns the bytes that were not read, or `None` where this
    /// layer is dense.
    pub(super) fn ffn(
        &mut self,
        index: usize,
        spec: &FfnSpec,
        weights: &LayerWeights,
        cpu: &mut Cpu,
        buffers: &mut Buffers,
    ) -> Option<usize> {
        let rule = self.rules[index];
        let shared = Arc::clone(&self.weights);
        let layer = shared.layers[index].as_ref().filter(|_| rule != Rule::Dense)?;
        let Buffers { x, delta, hidden, .. } = buffers;
        let input = Input { x, norm: weights.ffn_norm.as_ref() };
        let thresholds = match rule {
            Rule::Below(thresholds) => thresholds,
            _ => Thresholds::default(),
        };
        let neurons = layer.down.neurons();
        self.rows.clear();
        let mut up_skipped = 0;
        let mut up_row_bytes = 0;
        let down_bias = match (spec, &weights.ffn) {
            (FfnSpec::Gated { activation, .. }, FfnWeights::Gated { gate, up, down }) => {
                if rule == Rule::Exact || thresholds.gate > 0.0 {
                    cpu.project(input, &mut [gate.onto(hidden)]);
                    cpu.activate(*activation, hidden);
                    let worth = |n: usize| layer.importance.get(n).copied().unwrap_or(1.0);
                    let a = hidden.read();
                    self.rows.extend((0..neurons as u32).filter(|&n| {
                        let n = n as usize;
                        if rule == Rule::Exact {
                            a[n] != 0.0
                        } else {
                            a[n].abs() * worth(n) > thresholds.gate
                        }
                    }));
                    cpu.project_rows(input, [&up.matrix], &self.rows, &mut self.values);
                    self.hidden.clear();
                    self.hidden.resize(neurons, 0.0);
                    for (&n, &value) in self.rows.iter().zip(&self.values[0]) {
                        let n = n as usize;
                        self.hidden[n] = a[n] * (value + up.bias.as_ref().map_or(0.0, |bias| bias[n]));
                    }
                    up_skipped = neurons - self.rows.len();
                    up_row_bytes = up.matrix.bytes() / neurons;
                } else {
                    cpu.gated(input, &gate.matrix, &up.matrix, *activation, hidden);
                    self.hidden.clear();
                    self.hidden.extend_from_slice(hidden.read());
                    self.rows.extend(0..neurons as u32);
                }
                down.bias.as_deref()
            }
            (FfnSpec::Plain { activation, .. }, FfnWeights::Plain { up, down }) => {
                cpu.project(input, &mut [up.onto(hidden)]);
                cpu.activate(*activation, hidden);
                self.hidden.clear();
                self.hidden.extend_from_slice(hidden.read());
                self.rows.extend(0..neurons as u32);
                down.bias.as_deref()
            }
            _ => return None,
        };
        let h = &mut self.hidden;
        self.rows.retain(|&n| {
            let n = n as usize;
            let keep =
                if rule == Rule::Exact { h[n] != 0.0 } else { h[n].abs() * layer.norms[n] > thresholds.down };
            if !keep {
                h[n] = 0.0;
            }
            keep
        });
        delta.reshape(1, layer.down.outputs());
        cpu.add_neurons(&layer.down, &self.rows, h, delta.data_mut());
        if let Some(bias) = down_bias {
            delta.data_mut().iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        let down_skipped = neurons - self.rows.len();
        let bytes = up_skipped * up_row_bytes + down_skipped * layer.down.neuron_bytes();
        let counts = &mut self.counts[index];
        counts.neurons += neurons as u64;
        counts.up_skipped += up_skipped as u64;
        counts.down_skipped += down_skipped as u64;
        counts.bytes_skipped += bytes as u64;
        Some(bytes)
    }

    /// The logits of the one token in `buffers.x`, before scale and cap: exact for the candidates of the screen, guesses for
    /// the rest, which are below those of the candidates.
    /// False where there is no screen.
    pub(super) fn logits(&mut self, weights: &DecoderWeights, cpu: &mut Cpu, buffers: &mut Buffers) -> bool {
        let shared = Arc::clone(&self.weights);
        let Some(screen) = shared.screen.as_ref().filter(|_| self.screen) else { return false };
        let Buffers { x, logits, .. } = buffers;
        self.normed.reshape(1, x.columns());
        let dim = screen.mean.len();
        weights.output_norm.apply(cpu.isa(), &x.read()[..dim], self.normed.data_mut());
        self.normed.data_mut().iter_mut().zip(&screen.mean).for_each(|(x, m)| *x -= m);
        let basis = Output { matrix: &screen.basis, bias: None, out: &mut self.low };
        cpu.project(Input { x: &self.normed, norm: None }, &mut [basis]);
        let rows = Output { matrix: &screen.rows, bias: Some(&screen.bias), out: logits };
        cpu.project(Input { x: &self.low, norm: None }, &mut [rows]);

        let guesses = logits.read();
        let mut sample: Vec<f32> = guesses.iter().copied().step_by(STRIDE).collect();
        let place = (screen.candidates / STRIDE).clamp(1, sample.len()) - 1;
        let (_, &mut bound, _) = sample.select_nth_unstable_by(place, |a, b| b.total_cmp(a));
        self.rows.clear();
        self.rows.extend((0..guesses.len() as u32).filter(|&id| guesses[id as usize] >= bound));
        let input = Input { x, norm: Some(&weights.output_norm) };
        cpu.project_rows(input, [&weights.output.matrix], &self.rows, &mut self.values);
        if let Some(bias) = &weights.output.bias {
            self.values[0].iter_mut().zip(&self.rows).for_each(|(x, &id)| *x += bias[id as usize]);
        }
        let out = logits.data_mut();
        self.rows.iter().zip(&self.values[0]).for_each(|(&id, value)| out[id as usize] = *value);
        self.screened.0 += 1;
        self.screened.1 += self.rows.len() as u64;
        true
    }

    /// Shows a calibration what a layer computes for the one token in `buffers.x`.
    pub(super) fn observe(
        &mut self,
        index: usize,
        spec: &FfnSpec,
        weights: &LayerWeights,
        cpu: &mut Cpu,
        buffers: &mut Buffers,
        observer: &mut Observer<'_>,
    ) {
        let (Some(layer), FfnSpec::Gated { activation, .. }, FfnWeights::Gated { gate, up, .. }) =
            (&self.weights.layers[index], spec, &weights.ffn)
        else {
            return;
        };
        let Buffers { x, hidden, up: up_out, .. } = buffers;
        let input = Input { x, norm: weights.ffn_norm.as_ref() };
        cpu.project(input, &mut [gate.onto(hidden), up.onto(up_out)]);
        cpu.activate(*activation, hidden);
        observer(index, hidden.read(), up_out.read(), &layer.norms);
    }
}
