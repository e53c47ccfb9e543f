use std::fmt;

use super::{ConfigError, ForwardError};

/// Why no token could be chosen from the logits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SampleError {
    /// A logit is NaN or positive infinity after the logit processors.
    BadLogit {
        /// The token whose logit it is.
        token: u32,
        /// The logit.
        logit: f32,
    },
    /// Every token is masked (its logit is negative infinity), or there are no logits.
    AllMasked,
}

impl fmt::Display for SampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLogit { token, logit } => write!(f, "the logit of token {token} is {logit}"),
            Self::AllMasked => f.write_str("every token is masked"),
        }
    }
}

impl std::error::Error for SampleError {}

/// Why a generation did not start or did not go on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GenerateError {
    /// An option is out of its range.
    Config(ConfigError),
    /// The prompt has no tokens.
    EmptyPrompt,
    /// The prompt does not fit the context, and [`ContextOverflow::Error`](super::ContextOverflow) was asked for.
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions that the KV cache can hold.
        capacity: usize,
    },
    /// The context is too small to shift: fewer than two positions beyond the kept ones.
    CannotShift {
        /// Positions that a shift keeps.
        keep: usize,
        /// Positions that the KV cache can hold.
        capacity: usize,
    },
    /// The model's forward pass failed.
    Forward(ForwardError),
    /// No token could be chosen.
    Sample(SampleError),
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("invalid generation options"),
            Self::EmptyPrompt => f.write_str("the prompt has no tokens"),
            Self::PromptTooLong { tokens, capacity } => {
                write!(f, "the prompt has {tokens} tokens, the context holds {capacity}")
            }
            Self::CannotShift { keep, capacity } => {
                write!(f, "a context of {capacity} tokens cannot shift when {keep} of them are kept")
            }
            Self::Forward(_) => f.write_str("the forward pass failed"),
            Self::Sample(_) => f.write_str("no token could be chosen"),
        }
    }
}

impl std::error::Error for GenerateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Forward(error) => Some(error),
            Self::Sample(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ConfigError> for GenerateError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<ForwardError> for GenerateError {
    fn from(error: ForwardError) -> Self {
        Self::Forward(error)
    }
}

impl From<SampleError> for GenerateError {
    fn from(error: SampleError) -> Self {
        Self::Sample(error)
    }
}
