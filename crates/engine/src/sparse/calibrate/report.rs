//! What a model could do without, as numbers to draw.

use std::sync::Arc;

use web_time::{Duration, Instant};

use super::run::Run;
use super::{CalibrationOptions, CalibrationStep, LEAST_WINDOWS, MEASURED, WINDOW, shares, spaced};
use crate::Model;
use crate::generate::LanguageModel;
use crate::nn::SparseWeights;
use crate::sparse::{SparseError, SparsityLevel, Thresholds};
use crate::tokenizer::EncodeOptions;

/// Windows to look at activations in, and to weigh levels on.
const WINDOWS: usize = 6;
const MEASURED_WINDOWS: usize = 3;

/// Tokens that are timed, each way in turn, and how often: so that a busy minute of the machine slows all ways alike.
const TIMED_TOKENS: usize = 8;
const ROUNDS: usize = 6;

/// The shares of the energy of all layers that the points of a curve leave out.
const SHARES: [f64; 7] = [2e-5, 1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 1e-2];

/// Points of a curve over the neurons of a layer.
const RANKS: usize = 41;

/// A neuron fires where it adds more than this share of what a neuron of its layer adds on average for the token.
const FIRES: f32 = 0.1;

/// What a model could do without.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SparsityReport {
    /// Tokens that activations were seen on, and tokens that the rest was measured on.
    pub tokens: [usize; 2],
    /// The whole model.
    pub dense: ReportPoint,
    /// With more and more neurons left out, the same share of energy in all layers.
    pub points: Vec<ReportPoint>,
    /// The levels of the model's profile, if it has one.
    pub levels: Vec<ReportPoint>,
    /// For each layer that has neurons to leave out.
    pub layers: Vec<LayerReport>,
}

/// One way to run a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReportPoint {
    /// The level's name; empty where it is no level.
    pub name: String,
    /// The share of the neurons' down projections that was left out.
    pub neurons_skipped: f64,
    /// Perplexity on the measured text.
    pub perplexity: f64,
    /// Mean Kullback-Leibler divergence of next-token probabilities from the whole model's, in nats.
    pub divergence: f64,
    /// Milliseconds for a token that is computed alone: the middle of a few.
    pub token_ms: f64,
}

/// How the neurons of a layer are used. Curves are over all neurons, from the first to the last, in equal steps.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerReport {
    /// The layer.
    pub layer: usize,
    /// The share of the tokens for which a neuron adds more than a tenth of the average; neurons by that share.
    pub frequency: Vec<f64>,
    /// The share of all that is added which the strongest neurons of a token add; neurons by strength.
    pub mass: Vec<f64>,
}

/// What one layer did so far.
#[derive(Default)]
struct Usage {
    fired: Vec<u32>,
    mass: Vec<f64>,
    tokens: u32,
}

impl Usage {
    fn add(&mut self, gate: &[f32], up: &[f32], norms: &[f32], sizes: &mut Vec<f32>) {
        sizes.clear();
        sizes.extend(gate.iter().zip(up).zip(norms).map(|((g, u), d)| (g * u).abs() * d));
        let total: f64 = sizes.iter().map(|&x| f64::from(x)).sum();
        let limit = (total / sizes.len() as f64) as f32 * FIRES;
        self.fired.resize(sizes.len(), 0);
        self.fired.iter_mut().zip(&*sizes).for_each(|(count, &x)| *count += u32::from(x > limit));
        sizes.sort_unstable_by(|a, b| b.total_cmp(a));
        self.mass.resize(RANKS, 0.0);
        let (mut sum, mut n) = (0.0, 0);
        for (i, mass) in self.mass.iter_mut().enumerate() {
            let end = i * sizes.len() / (RANKS - 1);
            sum += sizes[n..end].iter().map(|&x| f64::from(x)).sum::<f64>();
            n = end;
            *mass += if total > 0.0 { sum / total } else { 0.0 };
        }
        self.tokens += 1;
    }

    fn report(mut self, layer: usize) -> Option<LayerReport> {
        let (last, tokens) = (self.fired.len().checked_sub(1)?, f64::from(self.tokens));
        self.fired.sort_unstable_by(|a, b| b.cmp(a));
        let rank = |i: usize| f64::from(self.fired[i * last / (RANKS - 1)]) / tokens;
        let frequency = (0..RANKS).map(rank).collect();
        Some(LayerReport { layer, frequency, mass: self.mass.iter().map(|mass| mass / tokens).collect() })
    }
}

/// Measures how the neurons of a model are used on a text, and what leaving out more and more of them does to
/// perplexity and speed.
///
/// `step` is told about every few tokens; `false` stops. Fails on text of fewer than some hundreds of tokens.
pub fn report(
    model: &Model,
    options: &CalibrationOptions,
    step: &mut dyn FnMut(CalibrationStep) -> bool,
) -> Result<SparsityReport, SparseError> {
    let text = options.text.as_deref().unwrap_or(super::DEFAULT_TEXT);
    let tokens = model.tokenizer().encode(text, EncodeOptions::default());
    let windows: Vec<&[u32]> = tokens.chunks_exact(WINDOW).collect();
    if windows.len() < LEAST_WINDOWS {
        return Err(SparseError::ShortText { tokens: tokens.len(), needed: LEAST_WINDOWS * WINDOW });
    }
    let of = |measured: bool, count: usize| -> Vec<&[u32]> {
        let parts = windows.iter().enumerate();
        let parts = parts.filter(|(i, _)| (i % MEASURED == MEASURED - 1) == measured);
        spaced(&parts.map(|(_, window)| *window).collect::<Vec<_>>(), count)
    };
    let (learned, measured) = (of(false, WINDOWS), of(true, MEASURED_WINDOWS));

    let mut context = options.context.clone();
    context.capacity = Some(WINDOW + TIMED_TOKENS);
    context.sparsity = SparsityLevel::Off;
    let decoder = model.decoder(&context)?;
    let profile = model.sparsity_profile();
    let levels = profile.map_or(&[][..], |profile| profile.levels());
    let points = 1 + SHARES.len() + levels.len();
    let total = (3 * learned.len() + points * measured.len()) * WINDOW + points * ROUNDS * TIMED_TOKENS;
    let mut run = Run::new(decoder, step, total);

    let weights = Arc::new(SparseWeights::new(run.decoder.spec(), run.decoder.weights(), profile, true)?);
    let mut usage: Vec<Usage> = Vec::new();
    usage.resize_with(run.decoder.spec().layers.len(), Usage::default);
    let mut sizes = Vec::new();
    let mut add = |layer: usize, gate: &[f32], up: &[f32], norms: &[f32]| {
        usage[layer].add(gate, up, norms, &mut sizes);
    };
    run.watch(&weights, &learned, &mut add, &mut |_| {})?;
    let importance = run.worth(&weights, &learned)?;
    let (spreads, _) = run.spread(&weights, &importance, &learned)?;
    let layers = usage.into_iter().enumerate().filter_map(|(i, usage)| usage.report(i)).collect();

    run.what = "measuring points";
    let reference = run.reference(&measured)?;
    let neurons: usize = spreads.iter().flatten().map(|spread| spread.neurons).sum();
    let all = (reference.tokens() * neurons).max(1) as f64;
    let equal = vec![1.0; spreads.len()];
    let curve = SHARES.iter().map(|&share| Way {
        name: String::new(),
        thresholds: shares(&spreads, &equal, share),
        candidates: 0,
    });
    let levels = levels.iter().map(|level| Way {
        name: level.name.clone(),
        thresholds: level.layers.clone(),
        candidates: level.candidates as usize,
    });
    let ways: Vec<Way> = curve.chain(levels).collect();
    let times = run.time(&weights, &ways, measured[0])?;
    let mut points = Vec::with_capacity(ways.len());
    for (way, &token_ms) in ways.into_iter().zip(&times[1..]) {
        run.decoder.try_thresholds(&weights, &way.thresholds, way.candidates);
        let (divergence, perplexity) = run.compare(&reference)?;
        let report = run.decoder.sparsity().unwrap_or_default();
        let skipped: u64 = report.layers.iter().map(|layer| layer.down_skipped).sum();
        let neurons_skipped = skipped as f64 / all;
        points.push(ReportPoint { name: way.name, neurons_skipped, perplexity, divergence, token_ms });
    }
    let levels = points.split_off(SHARES.len());
    let dense = ReportPoint {
        name: "dense".into(),
        neurons_skipped: 0.0,
        perplexity: reference.perplexity(),
        divergence: 0.0,
        token_ms: times[0],
    };
    let tokens = [learned.len() * WINDOW, reference.tokens()];
    Ok(SparsityReport { tokens, dense, points, levels, layers })
}

/// What to leave out for a point.
struct Way {
    name: String,
    thresholds: Vec<Thresholds>,
    candidates: usize,
}

impl Run<'_> {
    /// Milliseconds for a token that is computed alone: by the whole model, then by each of `ways`.
    fn time(
        &mut self,
        weights: &Arc<SparseWeights>,
        ways: &[Way],
        window: &[u32],
    ) -> Result<Vec<f64>, SparseError> {
        let mut times = vec![Vec::with_capacity(ROUNDS * TIMED_TOKENS); 1 + ways.len()];
        for _ in 0..ROUNDS {
            for (times, way) in times.iter_mut().zip([None].into_iter().chain(ways.iter().map(Some))) {
                match way {
                    Some(way) => self.decoder.try_thresholds(weights, &way.thresholds, way.candidates),
                    None => self.decoder.set_sparsity(&SparsityLevel::Off)?,
                }
                self.decoder.truncate(0);
                for token in window[..TIMED_TOKENS].chunks(1) {
                    let started = Instant::now();
                    self.decoder.submit(token)?;
                    times.push(started.elapsed());
                }
                self.tick(TIMED_TOKENS)?;
            }
        }
        let middle = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times.get(times.len() / 2).unwrap_or(&Duration::ZERO).as_secs_f64() * 1e3
        };
        Ok(times.iter_mut().map(middle).collect())
    }
}
