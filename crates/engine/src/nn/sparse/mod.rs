//! The parts of the pass that leave something out, for one token at a time. Calibration has blocks of tokens leave out the
//! same, which gives the same but for rounding, and takes less time.

mod pace;
mod screen;
mod weights;

use std::sync::Arc;

use pace::Pace;
use screen::ScreenBuffers;
pub(crate) use screen::{ScreenRecall, TOP};
use weights::SparseLayer;
pub(crate) use weights::SparseWeights;

use super::pass::Buffers;
use super::spec::FfnSpec;
use super::weights::{DecoderWeights, FfnWeights, LayerWeights};
use crate::backend::{Cpu, Input};
use crate::sparse::{SparsityLevel, Thresholds};

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
    /// Neurons that the thresholds would keep where all is computed, and how many of them the gates kept. Counted where
    /// both are known: in calibration, and in [`Decoder::submit_all`](crate::Decoder::submit_all).
    pub wanted: u64,
    /// See [`wanted`](Self::wanted).
    pub found: u64,
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
    /// Tokens whose largest logit the screen could not prove, so that all were computed.
    pub unproven_tokens: u64,
    /// Milliseconds that a token takes in the layers, sparse and dense, where both were timed; the faster is in use.
    pub layers_ms: Option<[f64; 2]>,
    /// Milliseconds that logits take, with and without the screen, where both were timed; the faster is in use.
    pub logits_ms: Option<[f64; 2]>,
}

/// What a calibration looks at: called with the layer, the gate's activations, the up projection and the down
/// projection's lengths of all neurons.
pub(crate) type Observer<'a> = dyn FnMut(usize, &[f32], &[f32], &[f32]) + 'a;

/// How a decoder treats its logits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Vocabulary {
    #[default]
    Dense,
    /// Of about so many the logits are computed.
    Candidates(usize),
    /// Where only the largest counts, it is proven.
    Proof,
}

/// How a decoder leaves things out.
#[derive(Debug)]
pub(crate) struct SparseState {
    weights: Arc<SparseWeights>,
    level: SparsityLevel,
    rules: Vec<Rule>,
    vocabulary: Vocabulary,
    /// Whether of the logits only the largest counts.
    greedy: bool,
    /// Blocks of tokens leave out what single ones do.
    simulated: bool,
    layers_pace: Pace,
    logits_pace: Pace,
    counts: Vec<LayerSparsity>,
    screened: (u64, u64),
    unproven: u64,
    recall: ScreenRecall,
    hidden: Vec<f32>,
    buffers: ScreenBuffers,
}

impl SparseState {
    pub(crate) fn new(weights: Arc<SparseWeights>, level: SparsityLevel) -> Self {
        let layers = weights.layers.len();
        Self {
            weights,
            level,
            rules: vec![Rule::Dense; layers],
            vocabulary: Vocabulary::Dense,
            greedy: false,
            simulated: false,
            layers_pace: Pace::default(),
            logits_pace: Pace::default(),
            counts: vec![LayerSparsity::default(); layers],
            screened: (0, 0),
            unproven: 0,
            recall: ScreenRecall::default(),
            hidden: Vec::new(),
            buffers: ScreenBuffers::default(),
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
        let proof = self.weights.screen.as_ref().is_some_and(|screen| screen.has_proof());
        self.vocabulary = if proof { Vocabulary::Proof } else { Vocabulary::Dense };
    }

    /// Leaves out what these thresholds say, and computes so many logits; all, if that is zero.
    pub(crate) fn use_thresholds(&mut self, thresholds: &[Thresholds], candidates: usize) {
        self.use_exact();
        for ((rule, layer), &thresholds) in self.rules.iter_mut().zip(&self.weights.layers).zip(thresholds) {
            if *rule == Rule::Dense && layer.is_some() && thresholds != Thresholds::default() {
                *rule = Rule::Below(thresholds);
            }
        }
        self.vocabulary = match candidates {
            1.. if self.weights.screen.is_some() => Vocabulary::Candidates(candidates),
            _ => Vocabulary::Dense,
        };
    }

    /// Always sparse, without timing, blocks of tokens too.
    pub(crate) fn simulate(&mut self) {
        self.simulated = true;
        self.layers_pace = Pace::fixed();
        self.logits_pace = Pace::fixed();
    }

    pub(crate) fn set_greedy(&mut self, greedy: bool) {
        self.greedy = greedy;
    }

    /// Whether what is left out changes results.
    pub(crate) fn is_lossy(&self) -> bool {
        matches!(self.vocabulary, Vocabulary::Candidates(_))
            || self.rules.iter().any(|rule| matches!(rule, Rule::Below(_)))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.vocabulary == Vocabulary::Dense && self.rules.iter().all(|rule| *rule == Rule::Dense)
    }

    pub(crate) fn level(&self) -> &SparsityLevel {
        &self.level
    }

    /// How often the screen kept the best, in blocks of tokens.
    pub(crate) fn recall(&self) -> ScreenRecall {
        self.recall
    }

    pub(crate) fn report(&self) -> DecoderSparsity {
        let (tokens, candidates) = self.screened;
        DecoderSparsity {
            level: self.level.clone(),
            layers: self.counts.clone(),
            screened_tokens: tokens,
            candidates: candidates as f64 / tokens.max(1) as f64,
            unproven_tokens: self.unproven,
            layers_ms: self.layers_pace.timed_ms(),
            logits_ms: self.logits_pace.timed_ms(),
        }
    }

    /// Begins the layers of some tokens; whether they are to be sparse.
    pub(super) fn begin(&mut self, single: bool) -> bool {
        if single && self.rules.iter().any(|rule| *rule != Rule::Dense) {
            self.layers_pace.start()
        } else {
            self.simulated
        }
    }

    /// Ends the layers.
    pub(super) fn end(&mut self) {
        self.layers_pace.stop();
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
        let thresholds = match rule {
            Rule::Below(thresholds) => thresholds,
            _ => Thresholds::default(),
        };
        if buffers.x.tokens() > 1 {
            // What is exactly zero is no different in a block.
            let lossy = matches!(rule, Rule::Below(_));
            return lossy.then(|| self.ffn_block(index, thresholds, spec, weights, cpu, buffers)).flatten();
        }
        let Buffers { x, delta, hidden, up: up_out, .. } = buffers;
        let input = Input { x, norm: weights.ffn_norm.as_ref() };
        let neurons = layer.down.neurons();
        let (exact, (mut up_skipped, mut up_row_bytes)) = (rule == Rule::Exact, (0, 0));
        let mut h: Option<&[f32]> = None;
        let down_bias = match (spec, &weights.ffn) {
            (FfnSpec::Gated { activation, .. }, FfnWeights::Gated { gate, up, down }) => {
                if exact || thresholds.gate > 0.0 {
                    let worth = |n: usize| layer.importance.get(n).copied().unwrap_or(1.0);
                    let fires =
                        |n, a: f32| if exact { a != 0.0 } else { a.abs() * worth(n) > thresholds.gate };
                    let both = [gate, up].map(|linear| (&linear.matrix, linear.bias.as_deref()));
                    let firing = cpu.gated_rows(input, both, *activation, fires, &mut self.hidden);
                    (up_skipped, up_row_bytes) = (neurons - firing, up.matrix.bytes() / neurons);
                    h = Some(&self.hidden);
                } else if gate.bias.is_none() && up.bias.is_none() {
                    cpu.gated(input, &gate.matrix, &up.matrix, *activation, hidden);
                } else {
                    cpu.project(input, &mut [gate.onto(hidden), up.onto(up_out)]);
                    cpu.activate_gated(*activation, hidden, up_out);
                }
                down.bias.as_deref()
            }
            (FfnSpec::Plain { activation, .. }, FfnWeights::Plain { up, down }) => {
                cpu.project_activated(input, *activation, &mut [up.onto(hidden)]);
                down.bias.as_deref()
            }
            _ => return None,
        };
        let keep =
            |n: usize, h: f32| if exact { h != 0.0 } else { h.abs() * layer.norms[n] > thresholds.down };
        delta.reshape(1, layer.down.outputs());
        let h = h.unwrap_or_else(|| hidden.read());
        let down_skipped = neurons - cpu.add_neurons(&layer.down, h, keep, delta.data_mut());
        if let Some(bias) = down_bias {
            delta.data_mut().iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        let bytes = up_skipped * up_row_bytes + down_skipped * layer.down.neuron_bytes();
        let counts = &mut self.counts[index];
        counts.neurons += neurons as u64;
        counts.up_skipped += up_skipped as u64;
        counts.down_skipped += down_skipped as u64;
        counts.bytes_skipped += bytes as u64;
        Some(bytes)
    }

    /// As [`ffn`](Self::ffn) for several tokens: all is computed, and what would be left out is made zero.
    fn ffn_block(
        &mut self,
        index: usize,
        thresholds: Thresholds,
        spec: &FfnSpec,
        weights: &LayerWeights,
        cpu: &mut Cpu,
        buffers: &mut Buffers,
    ) -> Option<usize> {
        let layer = self.weights.layers[index].as_ref()?;
        let Buffers { x, delta, hidden, up: up_out, .. } = buffers;
        let input = Input { x, norm: weights.ffn_norm.as_ref() };
        let neurons = layer.down.neurons();
        let counts = &mut self.counts[index];
        counts.neurons += (x.tokens() * neurons) as u64;
        let down = match (spec, &weights.ffn) {
            (FfnSpec::Gated { activation, .. }, FfnWeights::Gated { gate, up, down }) => {
                cpu.project(input, &mut [gate.onto(hidden), up.onto(up_out)]);
                cpu.activate(*activation, hidden);
                let tokens = hidden.data_mut().chunks_exact_mut(neurons);
                for (h, up) in tokens.zip(up_out.read().chunks_exact(neurons)) {
                    for n in 0..neurons {
                        let worth = layer.importance.get(n).copied().unwrap_or(1.0);
                        let passes = thresholds.gate <= 0.0 || h[n].abs() * worth > thresholds.gate;
                        let value = h[n] * up[n];
                        let wanted = value.abs() * layer.norms[n] > thresholds.down;
                        counts.wanted += u64::from(wanted);
                        counts.found += u64::from(wanted && passes);
                        counts.up_skipped += u64::from(!passes);
                        h[n] = if passes { value } else { 0.0 };
                    }
                }
                down
            }
            (FfnSpec::Plain { activation, .. }, FfnWeights::Plain { up, down }) => {
                cpu.project_activated(input, *activation, &mut [up.onto(hidden)]);
                down
            }
            _ => return None,
        };
        for h in hidden.data_mut().chunks_exact_mut(neurons) {
            for (h, norm) in h.iter_mut().zip(&layer.norms) {
                if h.abs() * norm <= thresholds.down {
                    *h = 0.0;
                    counts.down_skipped += 1;
                }
            }
        }
        cpu.project(Input { x: hidden, norm: None }, &mut [down.onto(delta)]);
        Some(0)
    }

    /// The logits of the tokens in `buffers.x`, before scale and cap; `None` where all are to be computed, else how many
    /// bytes of weights were read. For the rest a screen leaves guesses, which are below what is computed.
    pub(super) fn logits(
        &mut self,
        weights: &DecoderWeights,
        cpu: &mut Cpu,
        buffers: &mut Buffers,
    ) -> Option<usize> {
        let shared = Arc::clone(&self.weights);
        let screen = shared.screen.as_ref()?;
        let Buffers { x, logits, .. } = buffers;
        let single = x.tokens() == 1;
        if self.vocabulary == Vocabulary::Dense || (self.vocabulary == Vocabulary::Proof && !self.greedy) {
            return None;
        }
        if !single {
            let Vocabulary::Candidates(candidates) = self.vocabulary else { return None };
            if !self.simulated {
                return None;
            }
            let input = Input { x, norm: Some(&weights.output_norm) };
            cpu.project(input, &mut [weights.output.onto(logits)]);
            screen.blur(candidates, weights, cpu, x, logits, &mut self.buffers, &mut self.recall);
            return Some(weights.output.matrix.bytes());
        }
        let computed = if !self.logits_pace.start() {
            None
        } else if let Vocabulary::Candidates(candidates) = self.vocabulary {
            Some(screen.logits(candidates, weights, cpu, x, logits, &mut self.buffers))
        } else {
            let computed = screen.largest(weights, cpu, x, logits, &mut self.buffers);
            self.unproven += u64::from(computed.is_none());
            computed
        };
        if computed.is_none() {
            let input = Input { x, norm: Some(&weights.output_norm) };
            cpu.project(input, &mut [weights.output.onto(logits)]);
        }
        self.logits_pace.stop();
        let bytes = weights.output.matrix.bytes();
        let Some(computed) = computed else { return Some(bytes) };
        self.screened.0 += 1;
        self.screened.1 += computed as u64;
        let guess = screen.bytes(self.vocabulary == Vocabulary::Proof);
        Some(guess + bytes / weights.output.matrix.rows().max(1) * computed)
    }

    /// Shows a calibration what a layer computes for each token in `buffers.x`.
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
        let neurons = layer.down.neurons();
        for (gate, up) in hidden.read().chunks_exact(neurons).zip(up_out.read().chunks_exact(neurons)) {
            observer(index, gate, up, &layer.norms);
        }
    }
}
