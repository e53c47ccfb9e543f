use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A decoder with a KV cache, as generation sees it: tokens go in, the logits of the last one come out.
pub trait LanguageModel {
    /// Number of logits, and the bound of valid token ids.
    fn vocab_size(&self) -> usize;

    /// Positions that the KV cache can hold.
    fn capacity(&self) -> usize;

    /// Positions that the KV cache holds now.
    fn len(&self) -> usize;

    /// Whether the KV cache holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `tokens` to the cache and starts on the logits of the last one.
    ///
    /// On an error the cache holds the first `len()` of the positions asked for, or what it held before.
    fn submit(&mut self, tokens: &[u32]) -> Result<(), ForwardError>;

    /// The logits, `[vocab]`, of the last submitted token; waits for them where the device computes on its own.
    fn logits(&mut self) -> Result<&[f32], ForwardError>;

    /// Tells that of the logits only the largest will be looked at, or that all will: what a model assumes at first. Of the
    /// others it then may give what is less, and easier to compute.
    fn set_greedy(&mut self, _greedy: bool) {}

    /// Forgets the positions from `len` on. A cache that cannot return to exactly `len` (a ring that has overwritten
    /// part of its window) forgets more; [`len`](Self::len) tells how many are left.
    fn truncate(&mut self, len: usize);

    /// Drops the positions `keep..keep + discard` and moves the later ones down to close the gap.
    fn shift(&mut self, keep: usize, discard: usize) -> Result<(), ForwardError>;
}

/// A vocabulary, as generation sees it.
pub trait Detokenize {
    /// The bytes that a token adds to the text of an answer: nothing for a control token or an id out of range.
    fn token_bytes(&self, id: u32) -> Cow<'_, [u8]>;

    /// Whether the token ends an answer: end of sequence, of turn, of message.
    fn is_end_of_generation(&self, id: u32) -> bool;
}

impl<T: Detokenize + ?Sized> Detokenize for &T {
    fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        (**self).token_bytes(id)
    }

    fn is_end_of_generation(&self, id: u32) -> bool {
        (**self).is_end_of_generation(id)
    }
}

impl<T: Detokenize + ?Sized> Detokenize for Arc<T> {
    fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        (**self).token_bytes(id)
    }

    fn is_end_of_generation(&self, id: u32) -> bool {
        (**self).is_end_of_generation(id)
    }
}

/// Why a forward pass did not happen.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ForwardError {
    /// The KV cache cannot hold the positions asked for.
    ContextFull {
        /// Positions that the cache can hold.
        capacity: usize,
        /// Positions that it would have to hold.
        requested: usize,
    },
    /// A token id is not in the vocabulary.
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// No tokens were given.
    EmptyInput,
    /// Logits were read before any token was submitted.
    NoLogits,
    /// The positions to drop are not all in the cache, or the cache cannot move what it holds.
    Shift {
        /// First position to drop.
        keep: usize,
        /// Number of positions to drop.
        discard: usize,
        /// Positions that the cache holds.
        len: usize,
    },
    /// The pass was cancelled between two layers or blocks.
    Cancelled,
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContextFull { capacity, requested } => {
                write!(f, "the context is full: it holds {capacity} tokens, {requested} are needed")
            }
            Self::TokenOutOfRange { id, vocab } => {
                write!(f, "token {id} is not in the vocabulary of {vocab}")
            }
            Self::EmptyInput => f.write_str("no tokens were given"),
            Self::NoLogits => f.write_str("no token was submitted before its logits were read"),
            Self::Shift { keep, discard, len } => {
                write!(f, "cannot drop {discard} positions from {keep} on in a cache of {len}")
            }
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for ForwardError {}
