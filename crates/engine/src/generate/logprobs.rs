use super::SampleError;
use super::candidates::{Candidates, log_sum_exp};

/// Log-probabilities at one position, of the model's own distribution: before bias, penalties, filters and temperature.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenLogprobs {
    /// Natural logarithm of the probability of the chosen token.
    pub chosen: f32,
    /// The likeliest tokens with theirs, likeliest first: as many as [`logprobs`](super::GenerationConfig::logprobs)
    /// asks for.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    pub(super) fn new(logits: &[f32], chosen: u32, top: usize) -> Result<Self, SampleError> {
        let log_sum = log_sum_exp(logits.iter().copied());
        let logprob = |logit: f32| (logit as f64 - log_sum) as f32;
        let chosen = logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |&logit| logprob(logit));
        let mut likeliest = Candidates::default();
        if top > 0 {
            likeliest.fill(logits, top)?;
        }
        let top = likeliest.into_sorted().iter().map(|token| (token.id, logprob(token.logit))).collect();
        Ok(Self { chosen, top })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_the_log_softmax() {
        let logits = [0.1f32, 0.2, 0.3, 0.4].map(|p| p.ln() + 5.0);
        let logprobs = TokenLogprobs::new(&logits, 1, 2).unwrap();
        assert!((logprobs.chosen - 0.2f32.ln()).abs() < 1e-6);
        assert_eq!(logprobs.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 2]);
        assert!((logprobs.top[0].1 - 0.4f32.ln()).abs() < 1e-6);
        assert_eq!(TokenLogprobs::new(&logits, 1, 0).unwrap().top, []);
    }
}
