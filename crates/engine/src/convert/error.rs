//! Why a model cannot be converted.

use std::path::PathBuf;
use std::{fmt, io};

use crate::gguf::{Format, WriteError};

/// Why a model cannot be converted.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConvertError {
    /// A file could not be read.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder has no weights in safetensors.
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder has no file that describes a tokenizer.
    NoTokenizer {
        /// The folder.
        dir: PathBuf,
    },
    /// A file is not JSON.
    Json {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// A file of weights is broken.
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key of a JSON file is missing or makes no sense.
    Config {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What it has to be.
        expected: &'static str,
        /// What it is; nothing where it is missing.
        found: Option<String>,
    },
    /// The model's class is not known.
    UnknownArchitecture {
        /// Its name in `config.json`.
        name: String,
        /// Those that can be converted.
        known: Vec<&'static str>,
    },
    /// The tokenizer is of a kind that GGUF has no name for.
    UnsupportedTokenizer {
        /// What is special about it.
        what: String,
    },
    /// A tensor that has no place in the GGUF file.
    UnknownTensor {
        /// Its name in the checkpoint.
        tensor: String,
    },
    /// A tensor has a type or a shape that cannot be taken over.
    Tensor {
        /// Its name in the checkpoint.
        tensor: String,
        /// Its type.
        dtype: String,
        /// Its shape, slowest dimension first.
        shape: Vec<usize>,
    },
    /// A value is too large for the format.
    Overflow {
        /// The tensor in the GGUF file.
        tensor: String,
        /// The format.
        format: Format,
    },
    /// There is no quantizer for this format.
    Format(Format),
    /// The GGUF file could not be written.
    Write(WriteError),
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NoWeights { dir } => write!(f, "{} has no *.safetensors file", dir.display()),
            Self::NoTokenizer { dir } => {
                write!(f, "{} has neither tokenizer.json nor vocab.txt", dir.display())
            }
            Self::Json { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Safetensors { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Config { file, key, expected, found: Some(found) } => {
                write!(f, "{file}: {key} is {found}, expected {expected}")
            }
            Self::Config { file, key, expected, found: None } => {
                write!(f, "{file}: {key} is missing, expected {expected}")
            }
            Self::UnknownArchitecture { name, known } => {
                write!(f, "{name:?} cannot be converted; what can: {}", known.join(", "))
            }
            Self::UnsupportedTokenizer { what } => write!(f, "the tokenizer cannot be converted: {what}"),
            Self::UnknownTensor { tensor } => write!(f, "tensor {tensor} has no place in the GGUF file"),
            Self::Tensor { tensor, dtype, shape } => {
                write!(f, "tensor {tensor} of type {dtype} and shape {shape:?} cannot be converted")
            }
            Self::Overflow { tensor, format } => {
                write!(f, "tensor {tensor} has values that {format} cannot hold; use F32 or BF16")
            }
            Self::Format(format) => write!(f, "cannot convert to {format}"),
            Self::Write(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConvertError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Write(error) => error.source(),
            _ => None,
        }
    }
}

impl From<WriteError> for ConvertError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}
