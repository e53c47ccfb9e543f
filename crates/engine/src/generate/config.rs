use std::fmt;

/// How to turn logits into text. The defaults are those of llama.cpp.
///
/// ```
/// use firecrest::generate::GenerationConfig;
///
/// let config = GenerationConfig::default().with_max_tokens(128).with_temperature(0.6).with_seed(42);
/// assert!(config.validate().is_ok());
/// assert!(config.with_top_p(1.5).validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Most tokens to generate; `usize::MAX`, the default, leaves it to the model and the context.
    pub max_tokens: usize,
    /// Divides the logits: below 1 the likely tokens gain, above 1 they lose. 0 is greedy. Default 0.8.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all. Default 40.
    pub top_k: usize,
    /// Keep the likeliest tokens that together have this probability; 1 keeps all. Default 0.95.
    /// Source: arXiv 1904.09751.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all. Default 0.05.
    /// Source: arXiv 2407.01082.
    pub min_p: f32,
    /// Keep the tokens whose surprisal is nearest to the entropy and that together have this probability; 1, the
    /// default, keeps all. Source: arXiv 2202.00666.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens among the last [`penalty_last_n`](Self::penalty_last_n)
    /// of prompt and answer; 1, the default, is off. Source: arXiv 1909.05858.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of each token in the answer (within the last `penalty_last_n` tokens), as in
    /// the OpenAI API; 0, the default, is off.
    pub presence_penalty: f32,
    /// Subtracted from the logit of each token as often as it is in the answer (within the last `penalty_last_n`
    /// tokens), as in the OpenAI API; 0, the default, is off.
    pub frequency_penalty: f32,
    /// Tokens that the three penalties look back on; 0 turns them off, `usize::MAX` looks at all. Default 64.
    pub penalty_last_n: usize,
    /// The penalty on repeating a sequence.
    pub dry: Dry,
    /// Added to the logit of each token given; negative infinity bans the token. Default none.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the draws: the same seed gives the same text for the same logits. `None`, the default, takes one from
    /// the system.
    pub seed: Option<u64>,
    /// Texts that end the answer where the first of them is completed; they are not part of it. Default none.
    pub stop: Vec<String>,
    /// Tokens that end the answer beside those the vocabulary marks; their text is not part of it. Default none.
    pub stop_tokens: Vec<u32>,
    /// Report the log-probability of each token and of this many of the likeliest ones. Default `None`: no report.
    pub logprobs: Option<usize>,
    /// What to do when the KV cache is full.
    pub context_overflow: ContextOverflow,
    /// Tokens of a prefill that are submitted at once; cancellation is looked at in between. Default 512.
    pub prefill_block: usize,
}

/// What to do when the KV cache is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextOverflow {
    /// A prompt that does not fit is an error, and an answer ends with
    /// [`FinishReason::ContextFull`](super::FinishReason::ContextFull).
    #[default]
    Error,
    /// Forget the older half of what follows the first `keep` tokens and go on; again whenever the cache is full. A
    /// prompt that does not fit is cut in the same way.
    ///
    /// `keep` counts the beginning-of-sequence token, on which models lean heavily: keep at least 4 (arXiv 2309.17453),
    /// better the whole system prompt.
    Shift {
        /// Tokens at the start that are never forgotten.
        keep: usize,
    },
}

/// "Don't repeat yourself": a penalty that grows with the length of the sequence a token would repeat.
///
/// A token that would extend a repetition of `n` tokens loses `multiplier * base^(n - allowed_length)` if `n` is at least
/// `allowed_length`. Repetitions do not reach across a sequence breaker. Source: the sampler of text-generation-webui by
/// p-e-w, as llama.cpp has it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Dry {
    /// Scale of the penalty; 0, the default, is off.
    pub multiplier: f32,
    /// Growth of the penalty for each repeated token; at least 1. Default 1.75.
    pub base: f32,
    /// Longest repetition that is free. Default 2.
    pub allowed_length: usize,
    /// Tokens of prompt and answer to look for repetitions in. Default `usize::MAX`: all.
    pub last_n: usize,
    /// Texts that a repetition does not reach across. Default newline, colon, quote, asterisk.
    pub sequence_breakers: Vec<String>,
}

impl Default for Dry {
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            last_n: usize::MAX,
            sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).into(),
        }
    }
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_tokens: usize::MAX,
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_last_n: 64,
            dry: Dry::default(),
            logit_bias: Vec::new(),
            seed: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            logprobs: None,
            context_overflow: ContextOverflow::Error,
            prefill_block: 512,
        }
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty, $value:expr;)+) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub fn $setter(mut self, $field: $type) -> Self {
            self.$field = $value;
            self
        }
    )+};
}

impl GenerationConfig {
    /// The likeliest token at every step, whatever the seed.
    pub fn greedy() -> Self {
        Self::default().with_temperature(0.0)
    }

    setters! {
        with_max_tokens max_tokens: usize, max_tokens;
        with_temperature temperature: f32, temperature;
        with_top_k top_k: usize, top_k;
        with_top_p top_p: f32, top_p;
        with_min_p min_p: f32, min_p;
        with_typical_p typical_p: f32, typical_p;
        with_repetition_penalty repetition_penalty: f32, repetition_penalty;
        with_presence_penalty presence_penalty: f32, presence_penalty;
        with_frequency_penalty frequency_penalty: f32, frequency_penalty;
        with_penalty_last_n penalty_last_n: usize, penalty_last_n;
        with_dry dry: Dry, dry;
        with_logit_bias logit_bias: impl IntoIterator<Item = (u32, f32)>, logit_bias.into_iter().collect();
        with_seed seed: u64, Some(seed);
        with_stop stop: impl IntoIterator<Item = impl Into<String>>, stop.into_iter().map(Into::into).collect();
        with_stop_tokens stop_tokens: impl IntoIterator<Item = u32>, stop_tokens.into_iter().collect();
        with_logprobs logprobs: usize, Some(logprobs);
        with_context_overflow context_overflow: ContextOverflow, context_overflow;
        with_prefill_block prefill_block: usize, prefill_block;
    }

    /// Checks every option against its range; the error names the first that is outside.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, field, value: f32, expected| match ok {
            true => Ok(()),
            false => Err(ConfigError::OutOfRange { field, value, expected }),
        };
        let at_least_0 = |field, x: f32| check(x.is_finite() && x >= 0.0, field, x, "a finite number from 0");
        let above_0 = |field, x: f32| check(x.is_finite() && x > 0.0, field, x, "a finite number above 0");
        let finite = |field, x: f32| check(x.is_finite(), field, x, "a finite number");
        at_least_0("temperature", self.temperature)?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1")?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", self.min_p, "from 0 to 1")?;
        check(
            self.typical_p > 0.0 && self.typical_p <= 1.0,
            "typical_p",
            self.typical_p,
            "above 0 and at most 1",
        )?;
        above_0("repetition_penalty", self.repetition_penalty)?;
        finite("presence_penalty", self.presence_penalty)?;
        finite("frequency_penalty", self.frequency_penalty)?;
        at_least_0("dry.multiplier", self.dry.multiplier)?;
        check(
            self.dry.base.is_finite() && self.dry.base >= 1.0,
            "dry.base",
            self.dry.base,
            "a finite number from 1",
        )?;
        for &(_, bias) in &self.logit_bias {
            check(bias < f32::INFINITY, "logit_bias", bias, "a finite number or negative infinity")?;
        }
        if let Some(index) = self.stop.iter().position(String::is_empty) {
            return Err(ConfigError::EmptyText { field: "stop", index });
        }
        if let Some(index) = self.dry.sequence_breakers.iter().position(String::is_empty) {
            return Err(ConfigError::EmptyText { field: "dry.sequence_breakers", index });
        }
        check(self.prefill_block > 0, "prefill_block", 0.0, "at least 1")
    }

    /// Whether of the logits only the largest is looked at.
    pub(super) fn needs_largest_only(&self) -> bool {
        self.temperature == 0.0
            && self.repetition_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0
            && self.dry.multiplier == 0.0
            && self.logit_bias.is_empty()
            && self.logprobs.is_none()
    }

    /// [`validate`](Self::validate), and that the biased tokens are in a vocabulary of `vocab`.
    pub(super) fn validate_for(&self, vocab: usize) -> Result<(), ConfigError> {
        self.validate()?;
        match self.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
            Some(&(id, _)) => Err(ConfigError::TokenOutOfRange { field: "logit_bias", id, vocab }),
            None => Ok(()),
        }
    }
}

impl Dry {
    setters! {
        with_multiplier multiplier: f32, multiplier;
        with_base base: f32, base;
        with_allowed_length allowed_length: usize, allowed_length;
        with_last_n last_n: usize, last_n;
        with_sequence_breakers sequence_breakers: impl IntoIterator<Item = impl Into<String>>,
            sequence_breakers.into_iter().map(Into::into).collect();
    }
}

/// An option of [`GenerationConfig`] that is out of its range.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is outside what the option accepts.
    OutOfRange {
        /// Name of the option.
        field: &'static str,
        /// Its value.
        value: f32,
        /// What it accepts.
        expected: &'static str,
    },
    /// One of a list of texts is empty, and would match everywhere.
    EmptyText {
        /// Name of the option.
        field: &'static str,
        /// Position in the list.
        index: usize,
    },
    /// A token is not in the model's vocabulary.
    TokenOutOfRange {
        /// Name of the option.
        field: &'static str,
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { field, value, expected } => {
                write!(f, "{field} is {value}, expected {expected}")
            }
            Self::EmptyText { field, index } => write!(f, "{field}[{index}] is empty"),
            Self::TokenOutOfRange { field, id, vocab } => {
                write!(f, "{field} names token {id}, the vocabulary has {vocab}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_field() {
        let base = GenerationConfig::default;
        let cases = [
            (base().with_temperature(-0.1), "temperature"),
            (base().with_temperature(f32::NAN), "temperature"),
            (base().with_top_p(0.0), "top_p"),
            (base().with_min_p(1.1), "min_p"),
            (base().with_typical_p(f32::NAN), "typical_p"),
            (base().with_repetition_penalty(0.0), "repetition_penalty"),
            (base().with_presence_penalty(f32::INFINITY), "presence_penalty"),
            (base().with_frequency_penalty(f32::NAN), "frequency_penalty"),
            (base().with_dry(Dry::default().with_multiplier(-1.0)), "dry.multiplier"),
            (base().with_dry(Dry::default().with_base(0.5)), "dry.base"),
            (base().with_dry(Dry::default().with_sequence_breakers([""])), "dry.sequence_breakers[0]"),
            (base().with_logit_bias([(1, f32::INFINITY)]), "logit_bias"),
            (base().with_stop(["a", ""]), "stop[1]"),
            (base().with_prefill_block(0), "prefill_block"),
        ];
        for (config, field) in cases {
            let error = config.validate().expect_err(field).to_string();
            assert!(error.starts_with(&format!("{field} ")), "{field}: {error}");
        }
        assert_eq!(base().validate(), Ok(()));
        assert_eq!(base().with_logit_bias([(3, f32::NEG_INFINITY)]).validate_for(4), Ok(()));
        assert_eq!(
            base().with_logit_bias([(4, 0.0)]).validate_for(4),
            Err(ConfigError::TokenOutOfRange { field: "logit_bias", id: 4, vocab: 4 })
        );
    }
}
