//! Measuring what a model can do without.

use std::sync::Arc;

use super::error::SparseError;
use super::file::checksum;
use super::linalg::{Dense, cholesky, leading_eigenvectors, solve_lower_transposed};
use super::profile::{LevelProfile, ScreenProfile, SparsityProfile, Thresholds, fingerprint};
use crate::generate::LanguageModel;
use crate::gguf::Format;
use crate::nn::SparseWeights;
use crate::tokenizer::EncodeOptions;
use crate::{ContextOptions, Decoder, Model};

/// Text to calibrate with where there is no other.
const DEFAULT_TEXT: &str = include_str!("calibration.txt");

/// Tokens to learn the worth of gates from, and then to see the spread of activations on.
const WORTH_TOKENS: usize = 128;
const SPREAD_TOKENS: usize = 512;
/// Tokens that levels are chosen by; then tokens that they are measured on.
const CHOICE_TOKENS: usize = 160;
const MEASURE_TOKENS: usize = 320;
/// Tokens that tell how much a layer matters.
const LAYER_TOKENS: usize = 24;
/// Tokens of a context: positions before are forgotten.
const WINDOW: usize = 256;

/// The rank of the vocabulary screen, and the share of the vocabulary that is computed exactly.
const SCREEN_RANK: usize = 128;
const SCREEN_SHARE: usize = 12;
/// Below this vocabulary a screen costs more than it saves.
const SCREEN_VOCAB: usize = 8192;
/// Rows of the output matrix that the screen is fitted to.
const SCREEN_ROWS: usize = 2048;

/// Named levels, the divergence in nats that each may cause, and how much larger perplexity may be when measured on other
/// text.
const LEVELS: [(&str, f64, f64); 2] = [("balanced", 0.008, 1.01), ("fast", 0.04, 1.05)];

/// Searches for a level whose perplexity has grown too much on text that it was not chosen by.
const ATTEMPTS: usize = 3;

/// How much of a unit matrix is mixed into the covariance of the stream, which is of fewer tokens than it takes.
const SHRINKAGE: f64 = 0.1;

/// The least share of the neurons for which computing the gate first is worth its overhead.
const GATE_SHARE: f64 = 0.25;

/// How [`calibrate`] works.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CalibrationOptions {
    /// Text like that which the model will read; a small one comes with the library.
    pub text: Option<String>,
    /// Threads, instruction set and so on.
    pub context: ContextOptions,
}

/// How far a calibration is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CalibrationStep {
    /// What it does now.
    pub what: &'static str,
    /// Tokens computed.
    pub done: usize,
    /// Tokens to compute in all, about.
    pub total: usize,
}

/// Measures a model on text and finds the levels of sparsity that keep their promise on it.
///
/// `step` is told about every few tokens; `false` stops.
///
/// Neurons are weighed by what they add, activation times the length of the down projection's column; gates, where that
/// is not known yet, by the mean size of the up projection too. Each layer drops the weakest up to a share of the energy of
/// its output, smaller in layers that matter more, and the shares of all grow together until the probabilities of the next
/// token have moved as far as the level allows. The largest part of what small models read for a token is the output
/// matrix: a low-rank guess picks the tokens whose logits are computed.
///
/// Fails on text of fewer than some hundreds of tokens, and on models whose layers are mixtures of experts.
pub fn calibrate(
    model: &Model,
    options: &CalibrationOptions,
    step: &mut dyn FnMut(CalibrationStep) -> bool,
) -> Result<SparsityProfile, SparseError> {
    let text = options.text.as_deref().unwrap_or(DEFAULT_TEXT);
    let tokens = model.tokenizer().encode(text, EncodeOptions::default());
    let needed = WORTH_TOKENS + SPREAD_TOKENS + CHOICE_TOKENS + MEASURE_TOKENS;
    if tokens.len() < needed {
        return Err(SparseError::ShortText { tokens: tokens.len(), needed });
    }
    let mut context = options.context.clone();
    context.capacity = Some(WINDOW);
    context.sparsity = super::SparsityLevel::Off;
    let decoder = model.decoder(&context)?;
    let layers = decoder.spec().layers.len();
    let total =
        needed + layers * LAYER_TOKENS + LEVELS.len() * (SEARCH_STEPS * CHOICE_TOKENS + MEASURE_TOKENS);
    let mut run = Run { decoder, step, total, done: 0, what: "measuring activations" };
    let (worth, rest) = tokens.split_at(WORTH_TOKENS);
    let (spread, rest) = rest.split_at(SPREAD_TOKENS);
    let (choice, rest) = rest.split_at(CHOICE_TOKENS);
    let measure = &rest[..MEASURE_TOKENS];

    let weights = Arc::new(SparseWeights::new(run.decoder.spec(), run.decoder.weights(), None, true)?);
    let importance = run.worth(&weights, worth)?;
    let (spreads, stream) = run.spread(&weights, &importance, spread)?;
    run.what = "fitting the vocabulary screen";
    let screen = screen(&run.decoder, &stream);
    let mut profile = SparsityProfile {
        model: fingerprint(model.gguf()),
        text: checksum(text.as_bytes()),
        tokens: needed as u32,
        dense_perplexity: 0.0,
        levels: Vec::new(),
        importance,
        screen,
    };
    let spec = run.decoder.spec();
    let weights = Arc::new(SparseWeights::new(spec, run.decoder.weights(), Some(&profile), true)?);

    run.what = "weighing layers";
    run.decoder.set_sparsity(&super::SparsityLevel::Off)?;
    let choice = run.reference(choice)?;
    let costs = run.layer_costs(&weights, &spreads, &choice)?;
    run.decoder.set_sparsity(&super::SparsityLevel::Off)?;
    let measure = run.reference(measure)?;
    profile.dense_perplexity = measure.perplexity() as f32;
    let nothing = vec![Thresholds::default(); spreads.len()];
    let mut screen_cost = 0.0;
    if profile.screen.is_some() {
        run.decoder.try_thresholds(&weights, &nothing, true);
        screen_cost = run.compare(&choice)?.0;
    }
    for (name, allowed, growth) in LEVELS {
        let mut has_screen = profile.screen.is_some();
        let mut budget = (allowed - screen_cost).max(allowed / 2.0);
        let mut attempt = 1;
        let (layers, divergence, perplexity) = loop {
            run.what = "choosing thresholds";
            let layers = run.search(&weights, &spreads, &costs, &choice, budget)?;
            run.what = "measuring levels";
            run.decoder.try_thresholds(&weights, &layers, has_screen);
            let (divergence, perplexity) = run.compare(&measure)?;
            if perplexity <= growth * measure.perplexity() {
                break (layers, divergence, perplexity);
            }
            // The level must keep its promise: with less, without the screen, and if need be with nothing at all.
            attempt += 1;
            if attempt > ATTEMPTS {
                run.decoder.try_thresholds(&weights, &nothing, false);
                has_screen = false;
                break (nothing.clone(), 0.0, measure.perplexity());
            }
            budget /= 2.0;
            has_screen &= attempt < ATTEMPTS;
        };
        let report = run.decoder.sparsity().unwrap_or_default();
        let count = |of: fn(&crate::nn::LayerSparsity) -> u64| report.layers.iter().map(of).sum::<u64>();
        let all = (profile.importance.len() * MEASURE_TOKENS) as f64;
        let hidden = profile.importance.iter().map(Vec::len).max().unwrap_or(0).max(1) as f64;
        profile.levels.push(LevelProfile {
            name: name.into(),
            perplexity: perplexity as f32,
            divergence: divergence as f32,
            neurons_skipped: (count(|layer| layer.down_skipped) as f64 / (all * hidden)) as f32,
            screen: has_screen,
            layers,
        });
    }
    Ok(profile)
}

/// Bisections for each level.
const SEARCH_STEPS: usize = 6;

/// How the activations of a layer are spread: by the binary logarithm of a measure, how many neurons there were and how
/// much energy they carried.
#[derive(Clone)]
struct Histogram {
    bins: Vec<(u64, f64)>,
}

/// Bins for a factor of two, and where they begin.
const BINS_PER_OCTAVE: f32 = 8.0;
const FIRST_OCTAVE: f32 = -32.0;
const BINS: usize = 512;

impl Histogram {
    fn new() -> Self {
        Self { bins: vec![(0, 0.0); BINS] }
    }

    fn add(&mut self, measure: f32, energy: f32) {
        let place = ((measure.log2() - FIRST_OCTAVE) * BINS_PER_OCTAVE).clamp(0.0, BINS as f32 - 1.0);
        let bin = &mut self.bins[place as usize];
        bin.0 += 1;
        bin.1 += f64::from(energy);
    }

    /// The threshold below which lies `share` of the energy, and the share of neurons there.
    fn below(&self, share: f64) -> (f32, f64) {
        let (count, energy) = self.bins.iter().fold((0, 0.0), |(n, e), bin| (n + bin.0, e + bin.1));
        let (mut dropped, mut left) = (0, share * energy);
        for (i, bin) in self.bins.iter().enumerate() {
            left -= bin.1;
            if left < 0.0 {
                let threshold = if i == 0 { 0.0 } else { (FIRST_OCTAVE + i as f32 / BINS_PER_OCTAVE).exp2() };
                return (threshold, dropped as f64 / count.max(1) as f64);
            }
            dropped += bin.0;
        }
        (0.0, 0.0)
    }
}

/// How gates and activations of a layer are spread.
#[derive(Clone)]
struct Spread {
    gate: Histogram,
    down: Histogram,
}

impl Spread {
    /// The thresholds that drop this share of the energy.
    fn thresholds(&self, share: f64) -> Thresholds {
        let (gate, skipped) = self.gate.below(share / 2.0);
        if skipped >= GATE_SHARE {
            return Thresholds { gate, down: self.down.below(share / 2.0).0 };
        }
        Thresholds { gate: 0.0, down: self.down.below(share).0 }
    }
}

/// Text with what the dense model says of it.
struct Reference {
    tokens: Vec<u32>,
    /// For each token but the last of each window, the log-probabilities of the next.
    logits: Vec<Vec<f32>>,
    loss: f64,
}

impl Reference {
    fn perplexity(&self) -> f64 {
        (self.loss / self.logits.len().max(1) as f64).exp()
    }
}

/// What streams into the output matrix: sums of values and of their products.
struct Stream {
    count: f64,
    sum: Vec<f64>,
    products: Dense,
}

struct Run<'a> {
    decoder: Decoder,
    step: &'a mut dyn FnMut(CalibrationStep) -> bool,
    what: &'static str,
    done: usize,
    total: usize,
}

impl Run<'_> {
    fn tick(&mut self, tokens: usize) -> Result<(), SparseError> {
        self.done += tokens;
        let step = CalibrationStep { what: self.what, done: self.done.min(self.total), total: self.total };
        if (self.step)(step) { Ok(()) } else { Err(SparseError::Cancelled) }
    }

    /// For each layer the mean size of the up projection times the length of the down projection, by neuron.
    fn worth(&mut self, weights: &Arc<SparseWeights>, tokens: &[u32]) -> Result<Vec<Vec<f32>>, SparseError> {
        let mut sums = vec![Vec::<f32>::new(); self.decoder.spec().layers.len()];
        self.watch(
            weights,
            tokens,
            &mut |layer, _, up, norms| {
                let sums = &mut sums[layer];
                sums.resize(up.len(), 0.0);
                for ((sum, up), norm) in sums.iter_mut().zip(up).zip(norms) {
                    *sum += up.abs() * norm / tokens.len() as f32;
                }
            },
            &mut |_| {},
        )?;
        Ok(sums)
    }

    fn spread(
        &mut self,
        weights: &Arc<SparseWeights>,
        importance: &[Vec<f32>],
        tokens: &[u32],
    ) -> Result<(Vec<Option<Spread>>, Stream), SparseError> {
        let dim = self.decoder.spec().dim;
        let mut stream = Stream { count: 0.0, sum: vec![0.0; dim], products: Dense::zeros(dim, dim) };
        let mut spreads = vec![None; importance.len()];
        self.watch(
            weights,
            tokens,
            &mut |layer, gate, up, norms| {
                let spread = spreads[layer]
                    .get_or_insert_with(|| Spread { gate: Histogram::new(), down: Histogram::new() });
                for n in 0..gate.len() {
                    let value = (gate[n] * up[n]).abs() * norms[n];
                    spread.down.add(value, value * value);
                    spread.gate.add(gate[n].abs() * importance[layer][n], value * value);
                }
            },
            &mut |normed| {
                let normed: Vec<f64> = normed.iter().map(|&x| x.into()).collect();
                stream.count += 1.0;
                stream.sum.iter_mut().zip(&normed).for_each(|(s, x)| *s += x);
                stream.products.add_outer(&normed, &normed);
            },
        )?;
        Ok((spreads, stream))
    }

    fn watch(
        &mut self,
        weights: &Arc<SparseWeights>,
        tokens: &[u32],
        observer: &mut crate::nn::Observer<'_>,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), SparseError> {
        self.decoder.try_thresholds(weights, &[], false);
        for window in tokens.chunks(WINDOW) {
            self.decoder.truncate(0);
            for tokens in window.chunks(16) {
                self.decoder.observe(tokens, observer, &mut *each)?;
                self.tick(tokens.len())?;
            }
        }
        Ok(())
    }

    /// What the model as it is now says of a text, window by window.
    fn read(&mut self, tokens: &[u32], mut each: impl FnMut(usize, u32, &[f32])) -> Result<(), SparseError> {
        for (w, window) in tokens.chunks(WINDOW).enumerate() {
            self.decoder.truncate(0);
            for (i, pair) in window.windows(2).enumerate() {
                self.decoder.submit(&pair[..1])?;
                each(w * (WINDOW - 1) + i, pair[1], self.decoder.logits()?);
                if i % 16 == 15 {
                    self.tick(16)?;
                }
            }
        }
        Ok(())
    }

    fn reference(&mut self, tokens: &[u32]) -> Result<Reference, SparseError> {
        let (mut all, mut loss) = (Vec::new(), 0.0);
        self.read(tokens, |_, next, logits| {
            let norm = log_sum_exp(logits);
            let logits: Vec<f32> = logits.iter().map(|&x| (f64::from(x) - norm) as f32).collect();
            loss -= f64::from(logits[next as usize]);
            all.push(logits);
        })?;
        Ok(Reference { tokens: tokens.to_vec(), logits: all, loss })
    }

    /// The mean divergence from the dense model, and the perplexity.
    fn compare(&mut self, reference: &Reference) -> Result<(f64, f64), SparseError> {
        let (mut divergence, mut loss) = (0.0, 0.0);
        self.read(&reference.tokens, |i, next, logits| {
            let norm = log_sum_exp(logits);
            let Some(dense) = reference.logits.get(i) else { return };
            for (&p, &q) in dense.iter().zip(logits) {
                // Tokens of no probability add nothing, but would take most of the time.
                if p > -14.0 {
                    let p = f64::from(p);
                    divergence += p.exp() * (p - (f64::from(q) - norm));
                }
            }
            loss += norm - f64::from(logits[next as usize]);
        })?;
        let count = reference.logits.len().max(1) as f64;
        Ok((divergence / count, (loss / count).exp()))
    }

    /// How far each layer alone moves the probabilities, for a share of energy.
    fn layer_costs(
        &mut self,
        weights: &Arc<SparseWeights>,
        spreads: &[Option<Spread>],
        choice: &Reference,
    ) -> Result<Vec<f64>, SparseError> {
        let part = Reference {
            tokens: choice.tokens[..LAYER_TOKENS].to_vec(),
            logits: choice.logits[..LAYER_TOKENS - 1].to_vec(),
            loss: 0.0,
        };
        let mut costs = Vec::with_capacity(spreads.len());
        for (i, spread) in spreads.iter().enumerate() {
            let mut thresholds = vec![Thresholds::default(); spreads.len()];
            let Some(spread) = spread else {
                costs.push(1.0);
                continue;
            };
            thresholds[i] = spread.thresholds(0.1);
            self.decoder.try_thresholds(weights, &thresholds, false);
            costs.push(self.compare(&part)?.0.max(1e-7));
        }
        Ok(costs)
    }

    /// The thresholds that move the probabilities as far as allowed.
    fn search(
        &mut self,
        weights: &Arc<SparseWeights>,
        spreads: &[Option<Spread>],
        costs: &[f64],
        choice: &Reference,
        allowed: f64,
    ) -> Result<Vec<Thresholds>, SparseError> {
        let mean = costs.iter().map(|c| c.ln()).sum::<f64>() / costs.len().max(1) as f64;
        let at = |share: f64| -> Vec<Thresholds> {
            let threshold = |(spread, cost): (&Option<Spread>, &f64)| match spread {
                // Where a layer costs more, it drops less; not in full proportion, as costs are measured on few tokens.
                Some(spread) => spread.thresholds((share * ((mean - cost.ln()) * 0.8).exp()).min(0.5)),
                None => Thresholds::default(),
            };
            spreads.iter().zip(costs).map(threshold).collect()
        };
        let (mut low, mut high) = (1e-4f64.ln(), 0.5f64.ln());
        let mut best = vec![Thresholds::default(); spreads.len()];
        for _ in 0..SEARCH_STEPS {
            let middle = (low + high) / 2.0;
            let thresholds = at(middle.exp());
            self.decoder.try_thresholds(weights, &thresholds, false);
            if self.compare(choice)?.0 <= allowed {
                low = middle;
                best = thresholds;
            } else {
                high = middle;
            }
        }
        Ok(best)
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from((x - max).exp())).sum();
    f64::from(max) + sum.ln()
}

/// The low-rank guess of the logits that is best for what streamed into the output matrix: with the mean `m` and
/// covariance `C` of the stream, and `L Lᵀ = WᵀW` for (a part of) the output matrix `W`, the best map of a rank is
/// `W L⁻ᵀ U Uᵀ Lᵀ` with `U` the leading eigenvectors of `Lᵀ C L`.
fn screen(decoder: &Decoder, stream: &Stream) -> Option<ScreenProfile> {
    let dim = decoder.spec().dim;
    let output = &decoder.weights().output;
    let vocab = output.matrix.rows();
    let rank = SCREEN_RANK.min(dim / 4) / 32 * 32;
    if vocab < SCREEN_VOCAB || rank == 0 || dim > 4096 {
        return None;
    }
    let mean: Vec<f64> = stream.sum.iter().map(|s| s / stream.count).collect();
    let mut covariance = stream.products.clone();
    for i in 0..dim {
        for j in 0..dim {
            let x = &mut covariance.row_mut(i)[j];
            *x = *x / stream.count - mean[i] * mean[j];
        }
    }
    let spread: f64 = (0..dim).map(|i| covariance.row(i)[i]).sum::<f64>() / dim as f64;
    (0..dim).for_each(|i| covariance.row_mut(i)[i] += SHRINKAGE * spread);
    let mut row = vec![0.0; dim];
    let mut gram = Dense::zeros(dim, dim);
    for r in (0..vocab).step_by((vocab / SCREEN_ROWS).max(1)) {
        output.matrix.weights().dequantize_row(r, &mut row);
        let row: Vec<f64> = row.iter().map(|&x| x.into()).collect();
        gram.add_outer(&row, &row);
    }
    let trace: f64 = (0..dim).map(|i| gram.row(i)[i]).sum();
    (0..dim).for_each(|i| gram.row_mut(i)[i] += trace / dim as f64 * 1e-3);
    let lower = cholesky(&gram)?;
    let mut upper = Dense::zeros(dim, dim);
    for i in 0..dim {
        for j in 0..=i {
            upper.row_mut(j)[i] = lower.row(i)[j];
        }
    }
    // `upper · C · upperᵀ`
    let inner = upper.times(&covariance).times_transposed(&upper);
    let directions = leading_eigenvectors(&inner, rank);
    let basis = directions.times(&upper);
    let mut columns = Dense::zeros(dim, rank);
    for k in 0..rank {
        for i in 0..dim {
            columns.row_mut(i)[k] = directions.row(k)[i];
        }
    }
    let back: Vec<f32> = solve_lower_transposed(&lower, &columns).data.iter().map(|&x| x as f32).collect();
    let mean: Vec<f32> = mean.iter().map(|&x| x as f32).collect();
    let row_bytes = Format::Q8_0.row_bytes(rank)?;
    let mut rows = vec![0; row_bytes * vocab];
    let mut bias = Vec::with_capacity(vocab);
    for (r, out) in rows.chunks_exact_mut(row_bytes).enumerate() {
        output.matrix.weights().dequantize_row(r, &mut row);
        let mut low = vec![0.0f32; rank];
        let mut sum = output.bias.as_ref().map_or(0.0, |bias| bias[r]);
        for (i, &w) in row.iter().enumerate() {
            sum += w * mean[i];
            low.iter_mut().zip(&back[i * rank..][..rank]).for_each(|(x, b)| *x += w * b);
        }
        bias.push(sum);
        Format::Q8_0.quantize_row(&low, out).ok()?;
    }
    Some(ScreenProfile {
        rank: rank as u32,
        candidates: (vocab / SCREEN_SHARE) as u32,
        mean,
        basis: basis.data.iter().map(|&x| x as f32).collect(),
        bias,
        rows,
    })
}
