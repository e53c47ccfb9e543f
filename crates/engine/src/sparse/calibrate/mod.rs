//! Measuring what a model can do without.

mod report;
mod run;
mod screen;
mod spread;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use report::{LayerReport, ReportPoint, SparsityReport, report};
use run::{Reference, Run};
use spread::Spread;

use super::error::SparseError;
use super::file::checksum;
use super::profile::{LevelProfile, SparsityProfile, Thresholds, fingerprint};
use crate::nn::SparseWeights;
use crate::tokenizer::EncodeOptions;
use crate::{ContextOptions, Model};

/// Text to calibrate with where there is no other.
const DEFAULT_TEXT: &str = include_str!("../calibration.txt");

/// Tokens of a context: positions before are forgotten.
const WINDOW: usize = 128;
/// One of how many windows is kept to measure levels on.
const MEASURED: usize = 3;
/// The fewest windows to learn from, and the most.
const LEAST_WINDOWS: usize = 6;
const MOST_WINDOWS: usize = 32;
/// Windows that levels are chosen by, and windows that tell how much a layer matters.
const CHOICE_WINDOWS: usize = 6;
const LAYER_WINDOWS: usize = 1;

/// The logits that a screen computes, as parts of the vocabulary: the fewer the better.
const SCREEN_PARTS: [usize; 8] = [96, 64, 48, 32, 24, 16, 12, 8];
/// The least share of the largest logit, and of the 40 largest ones, that a screen has to find.
const SCREEN_RECALL: f64 = 0.999;

/// Named levels.
const LEVELS: [Promise; 2] = [
    Promise { name: "balanced", screen: 0.0036, both: 0.004, growth: 1.01 },
    Promise { name: "fast", screen: 0.012, both: 0.03, growth: 1.05 },
];

/// Searches for a level whose perplexity has grown too much on text that it was not chosen by.
const ATTEMPTS: usize = 4;
/// Bisections for each of them.
const SEARCH_STEPS: usize = 6;

/// The share of its energy that a layer loses where its weight is found out.
const PROBE: f64 = 0.1;

/// What a level may cost. Text of another kind than the calibration's has been seen to diverge more than twice as far, and
/// perplexity to grow by about as much as the divergence: so what both may cause stays well below the promise.
struct Promise {
    name: &'static str,
    /// The divergence in nats that the screen may cause, and with the neurons that are left out.
    screen: f64,
    both: f64,
    /// How much larger perplexity may be when measured on text that the level was not chosen by.
    growth: f64,
}

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
/// matrix: a low-rank guess picks the tokens whose logits are computed. Every third part of the text is kept to measure the
/// levels on; one that does not keep its promise there is searched for again, with less to lose.
///
/// Fails on text of fewer than some hundreds of tokens.
pub fn calibrate(
    model: &Model,
    options: &CalibrationOptions,
    step: &mut dyn FnMut(CalibrationStep) -> bool,
) -> Result<SparsityProfile, SparseError> {
    let text = options.text.as_deref().unwrap_or(DEFAULT_TEXT);
    let tokens = model.tokenizer().encode(text, EncodeOptions::default());
    let windows: Vec<&[u32]> = tokens.chunks_exact(WINDOW).take(MOST_WINDOWS).collect();
    if windows.len() < LEAST_WINDOWS {
        return Err(SparseError::ShortText { tokens: tokens.len(), needed: LEAST_WINDOWS * WINDOW });
    }
    let of = |measured: bool| -> Vec<&[u32]> {
        let parts = windows.iter().enumerate();
        parts.filter(|(i, _)| (i % MEASURED == MEASURED - 1) == measured).map(|(_, window)| *window).collect()
    };
    let (learned, measured) = (of(false), of(true));
    let chosen = spaced(&learned, CHOICE_WINDOWS);

    let mut context = options.context.clone();
    context.capacity = Some(WINDOW);
    context.sparsity = super::SparsityLevel::Off;
    let decoder = model.decoder(&context)?;
    let layers = decoder.spec().layers.len();
    let runs = 1 + SCREEN_PARTS.len() + LEVELS.len() * SEARCH_STEPS;
    let total = 2 * learned.len()
        + runs * chosen.len()
        + layers * LAYER_WINDOWS
        + (1 + LEVELS.len()) * measured.len();
    let mut run = Run::new(decoder, step, total * WINDOW);

    let weights = Arc::new(SparseWeights::new(run.decoder.spec(), run.decoder.weights(), None, true)?);
    let importance = run.worth(&weights, &learned)?;
    let (spreads, stream) = run.spread(&weights, &importance, &learned)?;
    run.what = "fitting the vocabulary screen";
    run.tick(0)?;
    let screen = screen::fit(run.decoder.spec(), run.decoder.weights(), &stream, &context.cpu);
    let mut profile = SparsityProfile {
        model: fingerprint(model.gguf()),
        text: checksum(text.as_bytes()),
        tokens: (windows.len() * WINDOW) as u32,
        dense_perplexity: 0.0,
        levels: Vec::new(),
        importance,
        screen,
    };
    let weights =
        Arc::new(SparseWeights::new(run.decoder.spec(), run.decoder.weights(), Some(&profile), true)?);

    run.what = "weighing layers";
    let choice = run.reference(&chosen)?;
    let few = run.reference(&chosen[..LAYER_WINDOWS])?;
    let costs = run.layer_costs(&weights, &spreads, &few)?;
    run.what = "measuring the screen";
    let screens = match profile.screen {
        Some(_) => run.screens(&weights, spreads.len(), &choice)?,
        None => Vec::new(),
    };
    let measure = run.reference(&measured)?;
    profile.dense_perplexity = measure.perplexity() as f32;
    for promise in &LEVELS {
        let search = Search { weights: &weights, spreads: &spreads, costs: &costs, choice: &choice };
        profile.levels.push(search.level(&mut run, promise, &screens, &measure)?);
    }
    Ok(profile)
}

/// At most `count` of the windows, from all over the text.
fn spaced<'a>(windows: &[&'a [u32]], count: usize) -> Vec<&'a [u32]> {
    let count = count.min(windows.len());
    (0..count).map(|i| windows[i * windows.len() / count]).collect()
}

/// What a number of candidates does.
#[derive(Clone, Copy, Debug)]
struct ScreenCost {
    candidates: usize,
    divergence: f64,
    /// The share of the largest, and of the 40 largest logits, that are candidates.
    recall: [f64; 2],
}

/// What levels are chosen by.
struct Search<'a> {
    weights: &'a Arc<SparseWeights>,
    spreads: &'a [Option<Spread>],
    /// How far each layer alone moves the probabilities.
    costs: &'a [f64],
    choice: &'a Reference<'a>,
}

impl Search<'_> {
    /// The level that keeps its promise on `measure`.
    fn level(
        &self,
        run: &mut Run<'_>,
        promise: &Promise,
        screens: &[ScreenCost],
        measure: &Reference<'_>,
    ) -> Result<LevelProfile, SparseError> {
        let mut budget = 1.0;
        for attempt in 1.. {
            let affordable = |screen: &&ScreenCost| {
                screen.divergence <= budget * promise.screen
                    && screen.recall.iter().all(|&recall| recall >= SCREEN_RECALL)
            };
            // With nothing left out at last, every promise is kept.
            let last = attempt > ATTEMPTS;
            let screen = screens.iter().find(affordable).filter(|_| !last);
            let candidates = screen.map_or(0, |screen| screen.candidates);
            let layers = match last {
                true => vec![Thresholds::default(); self.spreads.len()],
                false => {
                    run.what = "choosing thresholds";
                    self.thresholds(run, candidates, budget * promise.both)?
                }
            };
            run.what = "measuring levels";
            run.decoder.try_thresholds(self.weights, &layers, candidates);
            let (divergence, perplexity) = run.compare(measure)?;
            if perplexity <= promise.growth * measure.perplexity() || last {
                let report = run.decoder.sparsity().unwrap_or_default();
                let count = |of: fn(&crate::nn::LayerSparsity) -> u64| -> f64 {
                    report.layers.iter().map(of).sum::<u64>() as f64
                };
                let share = |part: f64, all: f64, none| if all > 0.0 { (part / all) as f32 } else { none };
                let recall = run.screen_recall();
                return Ok(LevelProfile {
                    name: promise.name.into(),
                    perplexity: perplexity as f32,
                    divergence: divergence as f32,
                    neurons_skipped: share(
                        count(|layer| layer.down_skipped),
                        measure.tokens() as f64 * self.neurons(),
                        0.0,
                    ),
                    recall: share(count(|layer| layer.found), count(|layer| layer.wanted), 1.0),
                    largest_recall: recall[0] as f32,
                    top_40_recall: recall[1] as f32,
                    candidates: candidates as u32,
                    layers,
                });
            }
            budget *= 0.6;
        }
        unreachable!("the last attempt returns")
    }

    /// Neurons of all layers that are measured.
    fn neurons(&self) -> f64 {
        self.spreads.iter().flatten().map(|spread| spread.neurons as f64).sum()
    }

    /// The thresholds that, with this screen, move the probabilities as far as allowed.
    fn thresholds(
        &self,
        run: &mut Run<'_>,
        candidates: usize,
        allowed: f64,
    ) -> Result<Vec<Thresholds>, SparseError> {
        let (mut low, mut high) = (1e-6f64.ln(), 0.05f64.ln());
        let mut best = vec![Thresholds::default(); self.spreads.len()];
        for _ in 0..SEARCH_STEPS {
            let middle = (low + high) / 2.0;
            let thresholds = shares(self.spreads, self.costs, middle.exp());
            run.decoder.try_thresholds(self.weights, &thresholds, candidates);
            if run.compare(self.choice)?.0 <= allowed {
                low = middle;
                best = thresholds;
            } else {
                high = middle;
            }
        }
        Ok(best)
    }
}

/// The thresholds that drop a share of the energy, less where a layer costs more.
fn shares(spreads: &[Option<Spread>], costs: &[f64], share: f64) -> Vec<Thresholds> {
    let mean = costs.iter().map(|c| c.ln()).sum::<f64>() / costs.len().max(1) as f64;
    let threshold = |(spread, cost): (&Option<Spread>, &f64)| match spread {
        // Not in full proportion, as costs are measured on few tokens.
        Some(spread) => spread.thresholds((share * ((mean - cost.ln()) * 0.8).exp()).min(0.5)),
        None => Thresholds::default(),
    };
    spreads.iter().zip(costs).map(threshold).collect()
}
