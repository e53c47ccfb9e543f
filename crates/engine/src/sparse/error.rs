use std::{fmt, io};

/// Why a sparse layer, a predictor or a sidecar file can't be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum SparseError {
    /// A vector or matrix has another size than the layer.
    Shape {
        /// What it is.
        what: &'static str,
        /// The size it must have.
        expected: usize,
        /// The size it has.
        found: usize,
    },
    /// A size is zero, or too large to be.
    Size {
        /// What it is.
        what: &'static str,
        /// Its value.
        value: usize,
    },
    /// A number is NaN or infinite.
    NotFinite {
        /// What it is part of.
        what: &'static str,
        /// Its place there.
        index: usize,
    },
    /// A setting is out of range.
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: f32,
        /// What it has to be.
        expected: &'static str,
    },
    /// Calibration without samples.
    NoSamples,
    /// There is no such neuron, or it comes twice, or not in ascending order.
    Neuron {
        /// The neuron.
        neuron: usize,
        /// How many there are.
        neurons: usize,
    },
    /// Weights can't be used: bytes that are not the rows of their format, or a matrix that can't be laid out by neuron.
    Weights {
        /// Which weights.
        what: String,
    },
    /// The model's profile has no such level, or the model has no profile.
    NoLevel {
        /// The level asked for.
        name: String,
        /// The levels that there are.
        known: Vec<String>,
    },
    /// There is no activation function of this name.
    UnknownActivation {
        /// The name.
        name: String,
    },
    /// The text is too short to calibrate with.
    ShortText {
        /// Tokens that it has.
        tokens: usize,
        /// Tokens that are needed.
        needed: usize,
    },
    /// The calibration was told to stop.
    Cancelled,
    /// A file is not what it should be.
    Format {
        /// What kind of file.
        what: &'static str,
        /// What is wrong with it.
        fault: FormatFault,
    },
    /// A file can't be read or written.
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A model file can't be read.
    Load(crate::nn::LoadError),
    /// The model could not be run.
    Forward(crate::generate::ForwardError),
}

/// What is wrong with a predictor or sidecar file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatFault {
    /// It begins otherwise.
    Magic,
    /// A version that this reader does not know.
    Version(u32),
    /// It ends before what it says it holds.
    Truncated,
    /// There is more than it says it holds.
    TrailingBytes(usize),
    /// A value that cannot be.
    Value(&'static str),
    /// The checksum is another.
    Checksum,
    /// It was made for another model.
    OtherModel,
}

impl fmt::Display for SparseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { what, expected, found } => {
                write!(f, "{what} has size {found}, expected {expected}")
            }
            Self::Size { what, value } => write!(f, "{what} can't be {value}"),
            Self::NotFinite { what, index } => write!(f, "{what} has a value that is not finite, at {index}"),
            Self::Setting { name, value, expected } => write!(f, "{name} is {value}, expected {expected}"),
            Self::NoSamples => f.write_str("there are no samples to calibrate with"),
            Self::Neuron { neuron, neurons } => {
                write!(
                    f,
                    "neuron {neuron} of {neurons} is out of range, or neurons are not in ascending order"
                )
            }
            Self::Weights { what } => write!(f, "{what} can't be used as weights"),
            Self::NoLevel { name, known } if known.is_empty() => {
                write!(f, "there is no sparsity level {name:?}: the model has no sparsity file")
            }
            Self::NoLevel { name, known } => {
                write!(f, "there is no sparsity level {name:?}; the model's are {}", known.join(", "))
            }
            Self::UnknownActivation { name } => {
                write!(f, "{name:?} is none of relu, relu2, gelu, gelu-tanh, silu, swish, identity")
            }
            Self::ShortText { tokens, needed } => {
                write!(f, "the text has {tokens} tokens, calibration needs {needed}")
            }
            Self::Cancelled => f.write_str("calibration was stopped"),
            Self::Format { what, fault } => write!(f, "not a valid {what} file: {fault}"),
            Self::Io { path, .. } => write!(f, "{}: can't be read or written", path.display()),
            Self::Load(error) => error.fmt(f),
            Self::Forward(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for FormatFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("it begins with other bytes"),
            Self::Version(version) => {
                write!(f, "version {version} is not supported: the file has to be made anew")
            }
            Self::Truncated => f.write_str("it ends too early"),
            Self::TrailingBytes(bytes) => write!(f, "{bytes} bytes too many"),
            Self::Value(what) => write!(f, "{what} can't be"),
            Self::Checksum => f.write_str("the checksum does not match"),
            Self::OtherModel => f.write_str("it was made for another model"),
        }
    }
}

impl std::error::Error for SparseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Load(error) => error.source(),
            _ => None,
        }
    }
}

impl From<crate::nn::LoadError> for SparseError {
    fn from(error: crate::nn::LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<crate::generate::ForwardError> for SparseError {
    fn from(error: crate::generate::ForwardError) -> Self {
        Self::Forward(error)
    }
}

/// Fails on the first value that is not finite.
pub(super) fn check_finite(what: &'static str, values: &[f32]) -> Result<(), SparseError> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(SparseError::NotFinite { what, index }),
        None => Ok(()),
    }
}

pub(super) fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), SparseError> {
    if expected == found { Ok(()) } else { Err(SparseError::Shape { what, expected, found }) }
}

/// A size from 1 to 2^24: no layer has more.
pub(super) fn check_size(what: &'static str, value: usize) -> Result<(), SparseError> {
    if (1..=1 << 24).contains(&value) { Ok(()) } else { Err(SparseError::Size { what, value }) }
}
