//! The angles of rotary position embeddings, with the ways of stretching them.

use firecrest_kernels::ops::RopeLayout;

use crate::backend::Turns;

/// Rotary embeddings with everything resolved: what is left is an angle a position and pair.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    pub(crate) layout: RopeLayout,
    /// Angle a position, for each rotated pair.
    pub(crate) frequencies: Vec<f32>,
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
    /// Further factor of the attention's magnitude.
    pub(crate) attention_factor: f32,
}

impl Yarn {
    pub(crate) fn new(factor: f32, original_context: f32) -> Self {
        Self { factor, original_context, beta_fast: 32.0, beta_slow: 1.0, attention_factor: 1.0 }
    }
}

impl Rope {
    /// Frequencies `base^(-2 i / dims)` for `dims / 2` pairs, each divided by its entry of `factors` where given.
    pub(crate) fn new(
        layout: RopeLayout,
        dims: usize,
        base: f32,
        scaling: &RopeScaling,
        factors: Option<&[f32]>,
    ) -> Self {
        let pairs = dims / 2;
        let exponent = |i: usize| 2.0 * i as f64 / dims as f64;
        let mut frequencies: Vec<f64> = (0..pairs).map(|i| f64::from(base).powf(-exponent(i))).collect();
        let mut magnitude = 1.0;
        match scaling {
            RopeScaling::None => {}
            RopeScaling::Linear(factor) => frequencies.iter_mut().for_each(|f| *f /= f64::from(*factor)),
            RopeScaling::Yarn(yarn) => {
                // The pair that makes `turns` full turns over the original context.
                let pair = |turns: f32| {
                    let turns = f64::from(turns) * std::f64::consts::TAU;
                    dims as f64 * (f64::from(yarn.original_context) / turns).ln()
                        / (2.0 * f64::from(base).ln())
                };
                let low = pair(yarn.beta_fast).floor().max(0.0);
                let high = pair(yarn.beta_slow).ceil().min(dims as f64 - 1.0);
                for (i, f) in frequencies.iter_mut().enumerate() {
                    let kept = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    *f = *f * kept + *f / f64::from(yarn.factor) * (1.0 - kept);
                }
                magnitude = yarn.attention_factor * (1.0 + 0.1 * yarn.factor.ln());
            }
        }
        if let Some(factors) = factors {
            frequencies.iter_mut().zip(factors).for_each(|(f, &factor)| *f /= f64::from(factor));
        }
        Self { layout, frequencies: frequencies.into_iter().map(|f| f as f32).collect(), magnitude }
    }

    /// The turns of `tokens` positions from `first` on.
    pub(crate) fn turns(&self, first: usize, tokens: usize, out: &mut Turns) {
        out.pairs = self.frequencies.len();
        out.turns.clear();
        for position in first..first + tokens {
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
