//! Why a tokenizer can't be made from a file's metadata.

use std::{error, fmt};

use crate::gguf::MetadataError;

/// Why a tokenizer can't be made from a file's metadata.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A key is missing or has the wrong type.
    Metadata(MetadataError),
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not known.
    UnknownModel {
        /// The name in the file.
        name: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not known.
    UnknownPreTokenizer {
        /// The name in the file.
        name: String,
    },
    /// The vocabulary has no entry, or more than ids can count.
    VocabularySize {
        /// Entries in the file.
        len: usize,
    },
    /// Two entries of the vocabulary have the same text.
    DuplicateToken {
        /// The text.
        text: String,
        /// Its first id.
        first: u32,
        /// Its second id.
        second: u32,
    },
    /// An array that goes with the vocabulary has fewer entries than the vocabulary.
    TooShort {
        /// The array's key.
        key: &'static str,
        /// Its entries.
        len: usize,
        /// Entries of the vocabulary.
        vocab: usize,
    },
    /// A merge is not two pieces of text with a space between them.
    Merge {
        /// The place of the merge.
        index: usize,
        /// The merge in the file.
        text: String,
    },
    /// Encoding has to add a token that the vocabulary doesn't have.
    NoSpecialToken {
        /// The key that asks for it (or would, as it is on by default).
        flag: &'static str,
        /// The key that should give the token's id.
        id: &'static str,
    },
    /// The table of character replacements of a Unigram tokenizer is inconsistent.
    Charsmap {
        /// Its length in bytes.
        len: usize,
    },
}

impl fmt::Display for TokenizerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerError::Metadata(_) => write!(f, "the file doesn't describe its tokenizer"),
            TokenizerError::UnknownModel { name } => write!(f, "unknown kind of tokenizer {name:?}"),
            TokenizerError::UnknownPreTokenizer { name } => write!(f, "unknown pre-tokenizer {name:?}"),
            TokenizerError::VocabularySize { len } => write!(f, "a vocabulary of {len} tokens"),
            TokenizerError::DuplicateToken { text, first, second } => {
                write!(f, "tokens {first} and {second} are both {text:?}")
            }
            TokenizerError::TooShort { key, len, vocab } => {
                write!(f, "{key} has {len} entries for {vocab} tokens")
            }
            TokenizerError::Merge { index, text } => write!(f, "merge {index} is {text:?}, not a pair"),
            TokenizerError::NoSpecialToken { flag, id } => {
                write!(f, "{flag} is on, but {id} gives no token of the vocabulary")
            }
            TokenizerError::Charsmap { len } => {
                write!(f, "the character map of {len} bytes is inconsistent")
            }
        }
    }
}

impl error::Error for TokenizerError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            TokenizerError::Metadata(source) => Some(source),
            _ => None,
        }
    }
}

impl From<MetadataError> for TokenizerError {
    fn from(source: MetadataError) -> Self {
        TokenizerError::Metadata(source)
    }
}
