//! What JavaScript is told when something goes wrong.

use std::fmt::Display;

use firecrest::LoadError;
use firecrest::chat::{MessageError, TemplateError};
use firecrest::embed::EmbedError;
use firecrest::generate::{ForwardError, GenerateError};
use firecrest::gguf::GgufError;
use firecrest::sparse::SparseError;
use js_sys::{Error, Reflect};
use wasm_bindgen::JsValue;

use crate::config::ConfigFault;

/// What a method returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// The kind of a failure: `code` of the JavaScript error, and with `Error` after it its `name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The file is broken or is no GGUF file.
    Parse,
    /// The file is sound, but is not one that runs here.
    Unsupported,
    /// An option is unknown, of the wrong type or out of its range.
    Config,
    /// An argument does not fit.
    Input,
    /// The model could not go on.
    Inference,
    /// There is not enough memory.
    Memory,
    /// A file could not be fetched.
    Network,
}

impl Kind {
    fn code(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Unsupported => "unsupported",
            Self::Config => "config",
            Self::Input => "input",
            Self::Inference => "inference",
            Self::Memory => "memory",
            Self::Network => "network",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Parse => "ParseError",
            Self::Unsupported => "UnsupportedError",
            Self::Config => "ConfigError",
            Self::Input => "InputError",
            Self::Inference => "InferenceError",
            Self::Memory => "MemoryError",
            Self::Network => "NetworkError",
        }
    }
}

/// A failure on its way to JavaScript.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// An `Error` with `name` and `code`.
    Typed { kind: Kind, message: String },
    /// What a callback threw.
    Thrown(JsValue),
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Display) -> Self {
        Self::Typed { kind, message: message.to_string() }
    }

    /// An error with its causes.
    pub(crate) fn caused(kind: Kind, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors end their own text with that of their cause.
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Self::Typed { kind, message }
    }

    /// `bytes` are not to be had.
    pub(crate) fn memory(bytes: usize) -> Self {
        Self::new(Kind::Memory, format_args!("{bytes} bytes of memory are not available"))
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Thrown(value) => value,
            Failure::Typed { kind, message } => {
                let error = Error::new(&message);
                error.set_name(kind.name());
                // Fails on frozen objects alone.
                let _ = Reflect::set(&error, &"code".into(), &kind.code().into());
                error.into()
            }
        }
    }
}

impl From<ConfigFault> for Failure {
    fn from(fault: ConfigFault) -> Self {
        Self::caused(Kind::Config, &fault)
    }
}

impl From<GgufError> for Failure {
    fn from(error: GgufError) -> Self {
        Self::caused(Kind::Parse, &error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let kind = match &error {
            LoadError::Context { .. } => Kind::Memory,
            LoadError::UnknownArchitecture { .. } => Kind::Unsupported,
            _ => Kind::Parse,
        };
        Self::caused(kind, &error)
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        let kind = match &error {
            GenerateError::Config(_) => Kind::Config,
            GenerateError::EmptyPrompt | GenerateError::PromptTooLong { .. } => Kind::Input,
            GenerateError::Forward(ForwardError::TokenOutOfRange { .. }) => Kind::Input,
            _ => Kind::Inference,
        };
        Self::caused(kind, &error)
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Self::caused(Kind::Input, &error)
    }
}

impl From<MessageError> for Failure {
    fn from(error: MessageError) -> Self {
        Self::caused(Kind::Input, &error)
    }
}

impl From<EmbedError> for Failure {
    fn from(error: EmbedError) -> Self {
        let kind = match &error {
            EmbedError::NoClassifier => Kind::Unsupported,
            EmbedError::Forward(_) => Kind::Inference,
            _ => Kind::Input,
        };
        Self::caused(kind, &error)
    }
}

impl From<SparseError> for Failure {
    fn from(error: SparseError) -> Self {
        let kind = match error {
            SparseError::Load(error) => return error.into(),
            SparseError::Setting { .. } => Kind::Config,
            SparseError::Weights { .. } => Kind::Unsupported,
            SparseError::Forward(_) => Kind::Inference,
            _ => Kind::Input,
        };
        Self::caused(kind, &error)
    }
}
