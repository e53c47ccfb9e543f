//! Every option of [`GenerationConfig`].

use std::str::FromStr;

use clap::{Args, ValueEnum};
use firecrest::generate::{ContextOverflow, Dry, GenerationConfig};

use crate::failure::{Failure, Outcome};

fn defaults() -> GenerationConfig {
    GenerationConfig::default()
}

/// How tokens are chosen, and when an answer ends.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Answer")]
pub(crate) struct SamplingArgs {
    /// Tokens to generate at most [default: until the model ends, or the context is full]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Divides the logits: below 1 likely tokens gain, above 1 they lose; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = defaults().temperature)]
    temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = defaults().top_k)]
    top_k: usize,
    /// Keep the likeliest tokens that have this probability together; 1 keeps all
    #[arg(long, value_name = "P", default_value_t = defaults().top_p)]
    top_p: f32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all
    #[arg(long, value_name = "P", default_value_t = defaults().min_p)]
    min_p: f32,
    /// Keep tokens of typical surprisal that have this probability together; 1 keeps all
    #[arg(long, value_name = "P", default_value_t = defaults().typical_p)]
    typical_p: f32,
    /// Weakens tokens that are among the last of prompt and answer; 1 is off
    #[arg(long, value_name = "X", default_value_t = defaults().repetition_penalty)]
    repetition_penalty: f32,
    /// Subtracted once from the logit of each token of the answer; 0 is off
    #[arg(long, value_name = "X", default_value_t = defaults().presence_penalty, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Subtracted from the logit of each token as often as the answer has it; 0 is off
    #[arg(long, value_name = "X", default_value_t = defaults().frequency_penalty, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Tokens that these three penalties look back on
    #[arg(long, value_name = "N", default_value_t = defaults().penalty_last_n)]
    penalty_last_n: usize,
    /// Scale of the penalty on repeating a sequence (DRY); 0 is off
    #[arg(long, value_name = "X", default_value_t = Dry::default().multiplier)]
    dry_multiplier: f32,
    /// Growth of the DRY penalty for each repeated token
    #[arg(long, value_name = "X", default_value_t = Dry::default().base)]
    dry_base: f32,
    /// Longest repetition that DRY does not penalise, in tokens
    #[arg(long, value_name = "N", default_value_t = Dry::default().allowed_length)]
    dry_allowed_length: usize,
    /// Tokens in which DRY looks for repetitions [default: all]
    #[arg(long, value_name = "N")]
    dry_last_n: Option<usize>,
    /// Text that a repetition does not reach across; can be repeated [default: newline, colon, quote, asterisk]
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// Added to the logit of a token; -inf bans it; can be repeated
    #[arg(long, value_name = "ID=BIAS")]
    logit_bias: Vec<Bias>,
    /// Seed of the draws: the same seed and threads give the same text [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Text that ends the answer and is not part of it; can be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Token that ends the answer, beside those of the model; can be repeated
    #[arg(long, value_name = "ID")]
    stop_token: Vec<u32>,
    /// Tell on standard error, as a line of JSON for each token, its log-probability and the N likeliest tokens
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// When the context is full: end with an error, or forget the older half of it and go on
    #[arg(long, value_name = "WHAT", default_value = "error")]
    context_overflow: Overflow,
    /// Tokens at the start that are never forgotten [default: the system prompt, at least 4]
    #[arg(long, value_name = "N")]
    context_keep: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Overflow {
    Error,
    Shift,
}

/// `ID=BIAS`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bias(u32, f32);

impl FromStr for Bias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, bias) = text.split_once('=').ok_or("expected ID=BIAS, such as 42=-1.5")?;
        let id = id.parse().map_err(|error| format!("token {id:?}: {error}"))?;
        let bias = bias.parse().map_err(|error| format!("bias {bias:?}: {error}"))?;
        Ok(Self(id, bias))
    }
}

impl SamplingArgs {
    /// The checked options, without what depends on the prompt.
    pub(crate) fn config(&self) -> Outcome<GenerationConfig> {
        let mut config = defaults()
            .with_temperature(self.temperature)
            .with_top_k(self.top_k)
            .with_top_p(self.top_p)
            .with_min_p(self.min_p)
            .with_typical_p(self.typical_p)
            .with_repetition_penalty(self.repetition_penalty)
            .with_presence_penalty(self.presence_penalty)
            .with_frequency_penalty(self.frequency_penalty)
            .with_penalty_last_n(self.penalty_last_n)
            .with_logit_bias(self.logit_bias.iter().map(|&Bias(id, bias)| (id, bias)))
            .with_stop(self.stop.iter().cloned())
            .with_stop_tokens(self.stop_token.iter().copied());
        config.max_tokens = self.max_tokens.unwrap_or(config.max_tokens);
        config.seed = self.seed;
        config.logprobs = self.logprobs;
        config.dry.multiplier = self.dry_multiplier;
        config.dry.base = self.dry_base;
        config.dry.allowed_length = self.dry_allowed_length;
        config.dry.last_n = self.dry_last_n.unwrap_or(config.dry.last_n);
        if !self.dry_sequence_breaker.is_empty() {
            config.dry.sequence_breakers = self.dry_sequence_breaker.clone();
        }
        config.validate().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(config)
    }

    /// What to do when the context is full; `system` counts the tokens of the system prompt.
    pub(crate) fn overflow(&self, system: usize) -> ContextOverflow {
        match self.context_overflow {
            Overflow::Error => ContextOverflow::Error,
            Overflow::Shift => ContextOverflow::Shift { keep: self.context_keep.unwrap_or(system.max(4)) },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    fn parse(args: &[&str]) -> SamplingArgs {
        Cli::try_parse_from(["firecrest"].iter().chain(args))
            .unwrap_or_else(|e| panic!("{args:?}: {e}"))
            .sampling
    }

    #[test]
    fn no_options_are_the_defaults() {
        assert_eq!(parse(&[]).config().unwrap(), GenerationConfig::default());
    }

    #[test]
    fn every_option_reaches_the_engine() {
        let change = |args: &[&str]| parse(args).config().unwrap();
        let base = GenerationConfig::default;
        let dry = Dry::default;
        for (args, expected) in [
            (&["-n", "5"][..], base().with_max_tokens(5)),
            (&["--temperature", "0"], GenerationConfig::greedy()),
            (&["--top-k", "3"], base().with_top_k(3)),
            (&["--top-p", "0.5"], base().with_top_p(0.5)),
            (&["--min-p", "0.1"], base().with_min_p(0.1)),
            (&["--typical-p", "0.9"], base().with_typical_p(0.9)),
            (&["--repetition-penalty", "1.1"], base().with_repetition_penalty(1.1)),
            (&["--presence-penalty", "-0.5"], base().with_presence_penalty(-0.5)),
            (&["--frequency-penalty", "0.25"], base().with_frequency_penalty(0.25)),
            (&["--penalty-last-n", "7"], base().with_penalty_last_n(7)),
            (&["--dry-multiplier", "0.8"], base().with_dry(dry().with_multiplier(0.8))),
            (&["--dry-base", "2"], base().with_dry(dry().with_base(2.0))),
            (&["--dry-allowed-length", "4"], base().with_dry(dry().with_allowed_length(4))),
            (&["--dry-last-n", "100"], base().with_dry(dry().with_last_n(100))),
            (&["--dry-sequence-breaker", ";"], base().with_dry(dry().with_sequence_breakers([";"]))),
            (&["--logit-bias", "7=-inf"], base().with_logit_bias([(7, f32::NEG_INFINITY)])),
            (&["--seed", "42"], base().with_seed(42)),
            (&["--stop", "a", "--stop", "b"], base().with_stop(["a", "b"])),
            (&["--stop-token", "2"], base().with_stop_tokens([2])),
            (&["--logprobs", "0"], base().with_logprobs(0)),
        ] {
            assert_eq!(change(args), expected, "{args:?}");
        }
    }

    #[test]
    fn a_shift_keeps_the_system_prompt() {
        assert_eq!(parse(&[]).overflow(9), ContextOverflow::Error);
        let shift = ["--context-overflow", "shift"];
        assert_eq!(parse(&shift).overflow(9), ContextOverflow::Shift { keep: 9 });
        assert_eq!(parse(&shift).overflow(0), ContextOverflow::Shift { keep: 4 });
        let keep = [&shift[..], &["--context-keep", "1"]].concat();
        assert_eq!(parse(&keep).overflow(9), ContextOverflow::Shift { keep: 1 });
    }

    #[test]
    fn values_out_of_range_are_wrong_usage() {
        for args in [["--temperature", "NaN"], ["--top-p", "2"], ["--stop", ""], ["--logit-bias", "1=inf"]] {
            assert!(matches!(parse(&args).config(), Err(Failure::Usage(_))), "{args:?}");
        }
        for text in ["", "7", "x=1", "1=y", "-1=2"] {
            assert!(text.parse::<Bias>().is_err(), "{text}");
        }
    }
}
