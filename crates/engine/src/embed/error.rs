//! Why a text has no embedding.

use std::fmt;

use crate::generate::ForwardError;

/// Why there is no embedding.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EmbedError {
    /// An input has no tokens.
    EmptyInput {
        /// Which, from 0.
        index: usize,
    },
    /// An input is too long, and was not to be cut.
    TooLong {
        /// Which, from 0.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens that it may have.
        limit: usize,
    },
    /// A token is not in the vocabulary.
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Tokens in the vocabulary.
        vocab: usize,
    },
    /// More dimensions were asked for than the model has, or none.
    Dimensions {
        /// What was asked for.
        requested: usize,
        /// What the model has.
        available: usize,
    },
    /// Scores were asked of a model without a classifier.
    NoClassifier,
    /// The model's own limit, or the one asked for, leaves no room for a text.
    Limit {
        /// Tokens that a text may have.
        limit: usize,
    },
    /// A decoder's forward pass failed.
    Forward(ForwardError),
}

impl fmt::Display for EmbedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyInput { index } => write!(f, "input {index} has no tokens"),
            Self::TooLong { index, tokens, limit } => {
                write!(f, "input {index} has {tokens} tokens, at most {limit} fit")
            }
            Self::TokenOutOfRange { id, vocab } => {
                write!(f, "token {id} is not in the vocabulary of {vocab}")
            }
            Self::Dimensions { requested, available } => {
                write!(f, "{requested} dimensions of {available}")
            }
            Self::NoClassifier => f.write_str("the model has no classifier, and so no scores"),
            Self::Limit { limit } => write!(f, "{limit} tokens leave no room for a text"),
            Self::Forward(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EmbedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Forward(error) => error.source(),
            _ => None,
        }
    }
}

impl From<ForwardError> for EmbedError {
    fn from(error: ForwardError) -> Self {
        Self::Forward(error)
    }
}
