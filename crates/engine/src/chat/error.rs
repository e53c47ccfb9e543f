use std::fmt;

use minijinja::{Error, ErrorKind};

use super::jinja::{Exhausted, Raised};
use crate::gguf::MetadataError;

/// Why a chat template did not give a prompt.
///
/// `template` is its name, `line` counts from 1 and is 0 where the fault has no line.
#[derive(Debug)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is not Jinja.
    Syntax {
        /// Name of the template.
        template: String,
        /// Line of the fault.
        line: usize,
        /// What the parser met.
        detail: String,
    },
    /// An operation failed on the values it was given.
    Render {
        /// Name of the template.
        template: String,
        /// Line of the operation.
        line: usize,
        /// What the operation met.
        detail: String,
    },
    /// The template refused the messages: it called `raise_exception`.
    Refused {
        /// Name of the template.
        template: String,
        /// Line of the call.
        line: usize,
        /// What the template says.
        message: String,
    },
    /// The template takes more time or memory than any honest one.
    Limit {
        /// Name of the template.
        template: String,
        /// Line that it reached.
        line: usize,
        /// Which bound it broke.
        detail: String,
    },
    /// A key of the metadata has the wrong type.
    Metadata(MetadataError),
}

impl TemplateError {
    pub(super) fn new(template: &str, error: &Error) -> Self {
        let template = template.to_owned();
        let line = error.line().unwrap_or(0);
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(Raised(message)) = error.downcast_ref() {
                return Self::Refused { template, line, message: message.clone() };
            }
            if let Some(bound) = error.downcast_ref::<Exhausted>() {
                return Self::Limit { template, line, detail: bound.to_string() };
            }
            cause = error.source();
        }
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        match error.kind() {
            ErrorKind::SyntaxError | ErrorKind::BadEscape => Self::Syntax { template, line, detail },
            ErrorKind::OutOfFuel => Self::Limit { template, line, detail },
            _ => Self::Render { template, line, detail },
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (template, line, what, detail) = match self {
            Self::Syntax { template, line, detail } => (template, line, "syntax error", detail),
            Self::Render { template, line, detail } => (template, line, "cannot render", detail),
            Self::Refused { template, line, message } => (template, line, "refused", message),
            Self::Limit { template, line, detail } => (template, line, "limit exceeded", detail),
            Self::Metadata(_) => return f.write_str("the file's chat template cannot be read"),
        };
        write!(f, "chat template {template}")?;
        if *line > 0 {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {what}: {detail}")
    }
}

impl std::error::Error for TemplateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Metadata(error) => Some(error),
            _ => None,
        }
    }
}

impl From<MetadataError> for TemplateError {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(error)
    }
}
