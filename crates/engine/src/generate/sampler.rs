use super::candidates::{Candidates, likeliest};
use super::dry::DryState;
use super::penalties::Penalties;
use super::random::{self, SplitMix64};
use super::{ConfigError, GenerationConfig, SampleError};

/// Where a token of the context came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The prompt.
    Prompt,
    /// An earlier draw.
    Generated,
}

/// Chooses tokens: the logit processors, the filters and the seeded draw of one sequence.
///
/// ```
/// use firecrest::generate::{GenerationConfig, Sampler};
///
/// let mut sampler = Sampler::new(&GenerationConfig::greedy())?;
/// assert_eq!(sampler.sample(&[0.1, 2.0, -1.0]), Ok(1));
/// # Ok::<(), firecrest::generate::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    bias: Vec<(u32, f32)>,
    penalties: Option<Penalties>,
    dry: Option<DryState>,
    temperature: f32,
    top_k: usize,
    typical_p: f32,
    top_p: f32,
    min_p: f32,
    rng: SplitMix64,
    processed: Vec<f32>,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler that has seen no tokens yet. Fails if the options are not [valid](GenerationConfig::validate).
    pub fn new(config: &GenerationConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            bias: config.logit_bias.clone(),
            penalties: Penalties::new(config),
            dry: DryState::new(&config.dry),
            temperature: config.temperature,
            top_k: config.top_k,
            typical_p: config.typical_p,
            top_p: config.top_p,
            min_p: config.min_p,
            rng: SplitMix64::new(config.seed.unwrap_or_else(random::entropy)),
            processed: Vec::new(),
            candidates: Candidates::default(),
        })
    }

    /// Tells the penalties of a token that joined the context; `text` is what it adds to the text.
    pub fn accept(&mut self, token: u32, text: &[u8], source: Source) {
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token, source);
        }
        if let Some(dry) = &mut self.dry {
            dry.accept(token, text);
        }
    }

    /// Chooses the token to follow, given the logits, `[vocab]`, of the last one.
    ///
    /// Fails if a logit is NaN or positive infinity, or every token is masked.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        let logits = if self.bias.is_empty() && self.penalties.is_none() && self.dry.is_none() {
            logits
        } else {
            self.processed.clear();
            self.processed.extend_from_slice(logits);
            process(&self.bias, self.penalties.as_ref(), self.dry.as_ref(), &mut self.processed);
            &self.processed
        };
        if self.temperature == 0.0 {
            return likeliest(logits)?.ok_or(SampleError::AllMasked);
        }
        let candidates = &mut self.candidates;
        candidates.fill(logits, self.top_k)?;
        if self.typical_p < 1.0 {
            candidates.typical(self.typical_p);
        }
        if self.top_p < 1.0 {
            candidates.top_p(self.top_p);
        }
        if self.min_p > 0.0 {
            candidates.min_p(self.min_p);
        }
        candidates.draw(self.temperature, &mut self.rng).ok_or(SampleError::AllMasked)
    }
}

fn process(bias: &[(u32, f32)], penalties: Option<&Penalties>, dry: Option<&DryState>, logits: &mut [f32]) {
    for &(token, bias) in bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
    if let Some(penalties) = penalties {
        penalties.apply(logits);
    }
    if let Some(dry) = dry {
        dry.apply(logits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Dry;
    use proptest::prelude::*;

    fn sample(config: GenerationConfig, logits: &[f32]) -> Result<u32, SampleError> {
        Sampler::new(&config).expect("valid").sample(logits)
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(sample(GenerationConfig::greedy(), &[1.0, 3.0, 3.0, -1.0]), Ok(1));
    }

    #[test]
    fn broken_logits_are_errors() {
        for config in [GenerationConfig::greedy(), GenerationConfig::default(), {
            GenerationConfig::default().with_repetition_penalty(1.2).with_logit_bias([(2, f32::NEG_INFINITY)])
        }] {
            let bad = |logits: &[f32]| match sample(config.clone(), logits) {
                Err(SampleError::BadLogit { token, .. }) => token,
                other => panic!("{other:?}"),
            };
            assert_eq!(bad(&[0.0, f32::NAN, 0.0]), 1);
            assert_eq!(bad(&[f32::INFINITY, 0.0, 0.0]), 0);
            assert_eq!(sample(config.clone(), &[f32::NEG_INFINITY; 3]), Err(SampleError::AllMasked));
            assert_eq!(sample(config.clone(), &[]), Err(SampleError::AllMasked));
        }
    }

    #[test]
    fn bias_comes_first() {
        let config = GenerationConfig::greedy().with_logit_bias([(0, f32::NEG_INFINITY), (2, 5.0)]);
        assert_eq!(sample(config, &[9.0, 1.0, 0.0]), Ok(2));
    }

    #[test]
    fn the_seed_decides() {
        let logits = [1.0f32; 100];
        let draw = |seed| {
            let config = GenerationConfig::default().with_top_k(0).with_seed(seed);
            let mut sampler = Sampler::new(&config).unwrap();
            (0..20).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn top_k_one_is_greedy() {
        for seed in 0..20 {
            let config = GenerationConfig::default().with_top_k(1).with_temperature(5.0).with_seed(seed);
            assert_eq!(sample(config, &[0.0, 0.1, 0.05]), Ok(1));
        }
    }

    proptest! {
        #[test]
        fn a_masked_token_is_never_chosen(
            logits in proptest::collection::vec(
                prop_oneof![Just(f32::NEG_INFINITY), -50f32..50f32], 1..60),
            seen in proptest::collection::vec(0u32..60, 0..80),
            temperature in prop_oneof![Just(0.0f32), 0.01f32..5.0],
            penalty in 0.1f32..3.0,
            negative in -3.0f32..3.0,
            seed in any::<u64>(),
        ) {
            let config = GenerationConfig::default()
                .with_temperature(temperature)
                .with_repetition_penalty(penalty)
                .with_presence_penalty(negative)
                .with_frequency_penalty(negative)
                .with_dry(Dry::default().with_multiplier(1.0))
                .with_logit_bias([(0, 100.0), (1, -100.0)])
                .with_typical_p(0.9)
                .with_seed(seed);
            let mut sampler = Sampler::new(&config).unwrap();
            seen.iter().for_each(|&token| sampler.accept(token, b"x", Source::Generated));
            match sampler.sample(&logits) {
                Ok(token) => prop_assert!(logits[token as usize].is_finite()),
                Err(error) => {
                    prop_assert_eq!(error, SampleError::AllMasked);
                    prop_assert!(logits.iter().all(|logit| !logit.is_finite()));
                }
            }
        }
    }
}
