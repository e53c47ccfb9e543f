use std::time::Duration;

/// What a generation did and how long it took. Time that the caller spends between two pieces is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the KV cache already.
    pub reused_tokens: usize,
    /// Tokens of the prompt that were dropped because it did not fit the context.
    pub discarded_tokens: usize,
    /// Tokens sampled, a stop token included.
    pub generated_tokens: usize,
    /// Time to compute the rest of the prompt and the first token.
    pub prefill: Duration,
    /// Time to compute the tokens after the first.
    pub decode: Duration,
}

impl Stats {
    /// Tokens computed by the prefill.
    pub fn prefilled_tokens(&self) -> usize {
        self.prompt_tokens.saturating_sub(self.reused_tokens + self.discarded_tokens)
    }

    /// Prompt tokens computed per second; `None` before the prefill.
    pub fn prefill_tokens_per_second(&self) -> Option<f64> {
        rate(self.prefilled_tokens(), self.prefill)
    }

    /// Tokens after the first computed per second; `None` before the second token.
    pub fn decode_tokens_per_second(&self) -> Option<f64> {
        rate(self.generated_tokens.saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}
