//! A model at work under calibration.

use std::sync::Arc;

use super::screen::Stream;
use super::spread::Spread;
use super::{CalibrationStep, PROBE, SCREEN_PARTS, ScreenCost, WINDOW};
use crate::Decoder;
use crate::generate::LanguageModel;
use crate::nn::{Observer, SparseWeights};
use crate::sparse::{SparseError, SparsityLevel, Thresholds};

/// Tokens with log-probabilities below this add nothing to a divergence, but would take most of time and memory.
const NEGLIGIBLE: f32 = -14.0;

/// Text with what the dense model says of it.
pub(super) struct Reference<'a> {
    windows: Vec<&'a [u32]>,
    /// For each token but the last of each window, the log-probabilities of those next ones that count.
    likely: Vec<Vec<(u32, f32)>>,
    loss: f64,
}

impl Reference<'_> {
    pub(super) fn perplexity(&self) -> f64 {
        (self.loss / self.likely.len().max(1) as f64).exp()
    }

    pub(super) fn tokens(&self) -> usize {
        self.windows.iter().map(|window| window.len()).sum()
    }
}

pub(super) struct Run<'a> {
    pub(super) decoder: Decoder,
    pub(super) what: &'static str,
    step: &'a mut dyn FnMut(CalibrationStep) -> bool,
    done: usize,
    total: usize,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        decoder: Decoder,
        step: &'a mut dyn FnMut(CalibrationStep) -> bool,
        total: usize,
    ) -> Self {
        Self { decoder, what: "measuring activations", step, done: 0, total }
    }

    pub(super) fn tick(&mut self, tokens: usize) -> Result<(), SparseError> {
        self.done += tokens;
        let step = CalibrationStep { what: self.what, done: self.done.min(self.total), total: self.total };
        if (self.step)(step) { Ok(()) } else { Err(SparseError::Cancelled) }
    }

    /// For each layer the mean size of the up projection times the length of the down projection, by neuron.
    pub(super) fn worth(
        &mut self,
        weights: &Arc<SparseWeights>,
        windows: &[&[u32]],
    ) -> Result<Vec<Vec<f32>>, SparseError> {
        let mut sums = vec![Vec::<f32>::new(); self.decoder.spec().layers.len()];
        let share = 1.0 / (windows.len() * WINDOW) as f32;
        let mut add = |layer: usize, _: &[f32], up: &[f32], norms: &[f32]| {
            let sums = &mut sums[layer];
            sums.resize(up.len(), 0.0);
            for ((sum, up), norm) in sums.iter_mut().zip(up).zip(norms) {
                *sum += up.abs() * norm * share;
            }
        };
        self.watch(weights, windows, &mut add, &mut |_| {})?;
        Ok(sums)
    }

    /// How the activations of each layer are spread, and what streams into the output matrix.
    pub(super) fn spread(
        &mut self,
        weights: &Arc<SparseWeights>,
        importance: &[Vec<f32>],
        windows: &[&[u32]],
    ) -> Result<(Vec<Option<Spread>>, Stream), SparseError> {
        let mut stream = Stream::new(self.decoder.spec().dim);
        let mut spreads = vec![None; importance.len()];
        let mut add = |layer: usize, gate: &[f32], up: &[f32], norms: &[f32]| {
            let spread: &mut Spread = spreads[layer].get_or_insert_with(|| Spread::new(gate.len()));
            for n in 0..gate.len() {
                let value = (gate[n] * up[n]).abs() * norms[n];
                spread.down.add(value, value * value);
                spread.gate.add(gate[n].abs() * importance[layer][n], value * value);
            }
        };
        self.watch(weights, windows, &mut add, &mut |normed| stream.add(normed))?;
        Ok((spreads, stream))
    }

    pub(super) fn watch(
        &mut self,
        weights: &Arc<SparseWeights>,
        windows: &[&[u32]],
        observer: &mut Observer<'_>,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<(), SparseError> {
        self.decoder.try_thresholds(weights, &[], 0);
        for window in windows {
            self.decoder.truncate(0);
            self.decoder.observe(window, observer, &mut *each)?;
            self.tick(window.len())?;
        }
        Ok(())
    }

    /// What the model as it is now says of a text, window by window: the token that comes next, and the logits.
    fn read(&mut self, windows: &[&[u32]], mut each: impl FnMut(u32, &[f32])) -> Result<(), SparseError> {
        for window in windows {
            self.decoder.truncate(0);
            let (context, next) = (&window[..window.len() - 1], &window[1..]);
            self.decoder.submit_all(context, |i, logits| each(next[i], logits))?;
            self.tick(window.len())?;
        }
        Ok(())
    }

    /// What the whole model says of a text.
    pub(super) fn reference<'t>(&mut self, windows: &[&'t [u32]]) -> Result<Reference<'t>, SparseError> {
        self.decoder.set_sparsity(&SparsityLevel::Off)?;
        let (mut likely, mut loss) = (Vec::new(), 0.0);
        self.read(windows, |next, logits| {
            let norm = log_sum_exp(logits);
            let chance = |&logit: &f32| (f64::from(logit) - norm) as f32;
            loss -= f64::from(chance(&logits[next as usize]));
            let all = logits.iter().enumerate().map(|(id, logit)| (id as u32, chance(logit)));
            likely.push(all.filter(|&(_, p)| p > NEGLIGIBLE).collect());
        })?;
        Ok(Reference { windows: windows.to_vec(), likely, loss })
    }

    /// The mean divergence from the dense model, and the perplexity.
    pub(super) fn compare(&mut self, reference: &Reference<'_>) -> Result<(f64, f64), SparseError> {
        let (mut divergence, mut loss) = (0.0, 0.0);
        let mut dense = reference.likely.iter();
        self.read(&reference.windows, |next, logits| {
            let norm = log_sum_exp(logits);
            for &(id, p) in dense.next().into_iter().flatten() {
                let p = f64::from(p);
                divergence += p.exp() * (p - (f64::from(logits[id as usize]) - norm));
            }
            loss += norm - f64::from(logits[next as usize]);
        })?;
        let count = reference.likely.len().max(1) as f64;
        Ok((divergence / count, (loss / count).exp()))
    }

    /// How far each layer alone moves the probabilities, for a share of energy.
    pub(super) fn layer_costs(
        &mut self,
        weights: &Arc<SparseWeights>,
        spreads: &[Option<Spread>],
        text: &Reference<'_>,
    ) -> Result<Vec<f64>, SparseError> {
        let mut costs = Vec::with_capacity(spreads.len());
        for (i, spread) in spreads.iter().enumerate() {
            let mut thresholds = vec![Thresholds::default(); spreads.len()];
            let Some(spread) = spread else {
                costs.push(1.0);
                continue;
            };
            thresholds[i] = spread.thresholds(PROBE);
            self.decoder.try_thresholds(weights, &thresholds, 0);
            costs.push(self.compare(text)?.0.max(1e-7));
        }
        Ok(costs)
    }

    /// What screens of different size do, from the fewest candidates on.
    pub(super) fn screens(
        &mut self,
        weights: &Arc<SparseWeights>,
        layers: usize,
        text: &Reference<'_>,
    ) -> Result<Vec<ScreenCost>, SparseError> {
        let nothing = vec![Thresholds::default(); layers];
        let vocab = self.decoder.vocab_size();
        let mut costs = Vec::new();
        for part in SCREEN_PARTS {
            let candidates = vocab / part;
            self.decoder.try_thresholds(weights, &nothing, candidates);
            let (divergence, _) = self.compare(text)?;
            costs.push(ScreenCost { candidates, divergence, recall: self.screen_recall() });
        }
        Ok(costs)
    }

    /// The share of the largest, and of the 40 largest logits, that were candidates; 1 without a screen.
    pub(super) fn screen_recall(&self) -> [f64; 2] {
        let recall = self.decoder.screen_recall();
        if recall.count == 0 {
            return [1.0; 2];
        }
        let top = recall.count * crate::nn::TOP.min(self.decoder.vocab_size()) as u64;
        [recall.largest as f64 / recall.count as f64, recall.top_40 as f64 / top as f64]
    }
}

pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // What is left out here is less than a millionth.
    let sum: f64 = logits.iter().filter(|&&x| x > max - 25.0).map(|&x| f64::from((x - max).exp())).sum();
    f64::from(max) + sum.ln()
}
