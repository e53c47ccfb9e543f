use std::collections::{HashMap, VecDeque};

use super::{GenerationConfig, Source};

/// The repetition, frequency and presence penalties over the last tokens.
///
/// Counts follow the window as it slides, so a step costs the distinct tokens in it, not its length.
#[derive(Clone, Debug)]
pub(super) struct Penalties {
    repetition: f32,
    frequency: f32,
    presence: f32,
    last_n: usize,
    window: VecDeque<(u32, Source)>,
    counts: HashMap<u32, Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    all: u32,
    generated: u32,
}

impl Penalties {
    /// `None` if the options leave every logit as it is.
    pub(super) fn new(config: &GenerationConfig) -> Option<Self> {
        let neutral = config.repetition_penalty == 1.0
            && config.frequency_penalty == 0.0
            && config.presence_penalty == 0.0
            || config.penalty_last_n == 0;
        (!neutral).then(|| Self {
            repetition: config.repetition_penalty,
            frequency: config.frequency_penalty,
            presence: config.presence_penalty,
            last_n: config.penalty_last_n,
            window: VecDeque::new(),
            counts: HashMap::new(),
        })
    }

    pub(super) fn accept(&mut self, token: u32, source: Source) {
        if self.window.len() == self.last_n
            && let Some((old, source)) = self.window.pop_front()
            && let Some(counts) = self.counts.get_mut(&old)
        {
            counts.all -= 1;
            counts.generated -= u32::from(source == Source::Generated);
            if counts.all == 0 {
                self.counts.remove(&old);
            }
        }
        self.window.push_back((token, source));
        let counts = self.counts.entry(token).or_default();
        counts.all += 1;
        counts.generated += u32::from(source == Source::Generated);
    }

    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (&token, counts) in &self.counts {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / self.repetition } else { *logit * self.repetition };
            if counts.generated > 0 {
                *logit -= counts.generated as f32 * self.frequency + self.presence;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(config: GenerationConfig, prompt: &[u32], generated: &[u32], logits: &[f32]) -> Vec<f32> {
        let mut penalties = Penalties::new(&config).expect("a penalty is on");
        prompt.iter().for_each(|&token| penalties.accept(token, Source::Prompt));
        generated.iter().for_each(|&token| penalties.accept(token, Source::Generated));
        let mut logits = logits.to_vec();
        penalties.apply(&mut logits);
        logits
    }

    #[test]
    fn repetition_divides_positive_and_multiplies_negative() {
        let config = GenerationConfig::default().with_repetition_penalty(2.0);
        assert_eq!(apply(config, &[0], &[1, 1], &[3.0, -3.0, 3.0]), [1.5, -6.0, 3.0]);
    }

    #[test]
    fn frequency_counts_and_presence_does_not_and_both_spare_the_prompt() {
        let config = GenerationConfig::default().with_frequency_penalty(0.5).with_presence_penalty(1.0);
        assert_eq!(apply(config, &[0, 2], &[1, 2, 1], &[0.0; 4]), [0.0, -2.0, -1.5, 0.0]);
    }

    #[test]
    fn tokens_leave_the_window() {
        let config = GenerationConfig::default().with_frequency_penalty(1.0).with_penalty_last_n(3);
        assert_eq!(apply(config, &[], &[0, 0, 1, 2, 1], &[0.0; 3]), [0.0, -2.0, -1.0]);
    }

    #[test]
    fn neutral_options_cost_nothing() {
        assert!(Penalties::new(&GenerationConfig::default()).is_none());
        let off = GenerationConfig::default().with_repetition_penalty(1.3).with_penalty_last_n(0);
        assert!(Penalties::new(&off).is_none());
    }
}
