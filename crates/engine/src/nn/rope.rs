//! The angles of rotary position embeddings, with the ways of stretching them.

use crate::backend::{RopeLayout, Turns};

/// Rotary embeddings as a file describes them.
#[derive(Clone, Debug)]
pub(crate) struct RopeSpec {
    pub(crate) layout: RopeLayout,
    /// How many values of a head turn, from the first on.
    pub(crate) dims: usize,
    pub(crate) base: f32,
    pub(crate) scaling: RopeScaling,
    pub(crate) factors: RopeFactors,
    /// Factor of cosines and sines.
    pub(crate) magnitude: f32,
}

/// How frequencies change for contexts longer than those of the training.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// All divided by a factor (arXiv 2306.15595).
    Linear(f32),
    /// YaRN.
    Yarn(Yarn),
}

/// A divisor for each pair's frequency.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum RopeFactors {
    /// One.
    #[default]
    None,
    /// The same for every context (Llama 3.1).
    Fixed(Vec<f32>),
    /// By the length of the context (LongRoPE, arXiv 2402.13753).
    ByContext {
        /// Positions up to which the short ones serve.
        original: usize,
        short: Vec<f32>,
        long: Vec<f32>,
    },
}

/// YaRN: high frequencies stay, low ones are divided, those between are mixed (arXiv 2309.00071).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Yarn {
    /// How much longer contexts become.
    pub(crate) factor: f32,
    /// Positions of the original training.
    pub(crate) original_context: f32,
    /// Turns over the original context above which a pair stays as it is.
    pub(crate) beta_fast: f32,
    /// Turns below which a pair is divided in full.
    pub(crate) beta_slow: f32,
    /// Factor of cosines and sines.
    pub(crate) magnitude: f32,
}

impl Yarn {
    pub(crate) fn new(factor: f32, original_context: f32) -> Self {
        let magnitude = 1.0 + 0.1 * factor.ln();
        Self { factor, original_context, beta_fast: 32.0, beta_slow: 1.0, magnitude }
    }
}

impl RopeSpec {
    /// Resolves everything for a context of `capacity` positions.
    ///
    /// Frequencies are `base^(-2 i / dims)` for `dims / 2` pairs, scaled, each divided by its factor.
    pub(crate) fn resolve(&self, capacity: usize) -> Rope {
        let dims = self.dims as f64;
        let base = f64::from(self.base);
        let mut frequencies: Vec<f64> =
            (0..self.dims / 2).map(|i| base.powf(-2.0 * i as f64 / dims)).collect();
        let mut magnitude = self.magnitude;
        match &self.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear(factor) => frequencies.iter_mut().for_each(|f| *f /= f64::from(*factor)),
            RopeScaling::Yarn(yarn) => {
                // The pair that makes `turns` full turns over the original context.
                let pair = |turns: f32| {
                    let turns = f64::from(turns) * std::f64::consts::TAU;
                    dims * (f64::from(yarn.original_context) / turns).ln() / (2.0 * base.ln())
                };
                let low = pair(yarn.beta_fast).floor().max(0.0);
                let high = pair(yarn.beta_slow).ceil().min(dims - 1.0);
                for (i, f) in frequencies.iter_mut().enumerate() {
                    let kept = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    *f = *f * kept + *f / f64::from(yarn.factor) * (1.0 - kept);
                }
                magnitude *= yarn.magnitude;
            }
        }
        let factors = match &self.factors {
            RopeFactors::None => &[][..],
            RopeFactors::Fixed(factors) => factors,
            RopeFactors::ByContext { original, short, long } => {
                if capacity > *original {
                    long
                } else {
                    short
                }
            }
        };
        frequencies.iter_mut().zip(factors).for_each(|(f, &factor)| *f /= f64::from(factor));
        let frequencies = frequencies.into_iter().map(|f| f as f32).collect();
        Rope { layout: self.layout, frequencies, magnitude }
    }
}

/// Rotary embeddings with everything resolved: what is left is an angle a position and pair.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    pub(crate) layout: RopeLayout,
    /// Angle a position, for each rotated pair.
    frequencies: Vec<f32>,
    /// Factor of cosines and sines.
    magnitude: f32,
}

impl Rope {
    /// The turns of some positions.
    pub(crate) fn turns(&self, positions: impl IntoIterator<Item = usize>, out: &mut Turns) {
        out.pairs = self.frequencies.len();
        out.turns.clear();
        for position in positions {
            out.turns.extend(self.frequencies.iter().map(|f| {
                let (sin, cos) = (position as f32 * f).sin_cos();
                (cos * self.magnitude, sin * self.magnitude)
            }));
        }
    }

    /// The turns that take a key `distance` positions back.
    pub(crate) fn turns_back(&self, distance: usize) -> Vec<(f32, f32)> {
        let angles = self.frequencies.iter().map(|f| -(distance as f32) * f);
        angles.map(|angle| (angle.cos(), angle.sin())).collect()
    }
}
