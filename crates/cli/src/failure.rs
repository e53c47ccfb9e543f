//! What ends the program before its work is done, and the exit code it ends with.

use std::error::Error;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use firecrest::LoadError;
use firecrest::chat::TemplateError;
use firecrest::generate::{ForwardError, GenerateError};
use firecrest::hub::HubError;

use crate::output::printable;

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments make no sense. Exit code 2.
    Usage(String),
    /// Something went wrong: what, and why. Exit code 1.
    Failed { what: String, cause: Option<Box<dyn Error>> },
    /// The user pressed Ctrl-C. Exit code 130.
    Interrupted,
    /// Nobody reads the output any more. Exit code 0.
    ClosedPipe,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), cause: None }
    }

    /// Tells the user, on one line where the causes are lines themselves, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Usage(_) => 2,
            Self::Failed { .. } => 1,
            Self::Interrupted => 130,
            Self::ClosedPipe => 0,
        };
        if let Some(message) = self.message() {
            eprintln!("firecrest: {}", printable(&message));
        }
        ExitCode::from(code)
    }

    /// What went wrong and why, if anything did.
    pub(crate) fn message(&self) -> Option<String> {
        let (what, mut cause) = match self {
            Self::Usage(what) => (what, None),
            Self::Failed { what, cause } => (what, cause.as_deref()),
            Self::Interrupted | Self::ClosedPipe => return None,
        };
        let mut message = what.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors end their own text with that of their cause.
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Some(message)
    }

    /// Why a model file cannot be run; `path` is said where the error does not say it.
    pub(crate) fn load(path: &Path, error: LoadError) -> Self {
        match error {
            LoadError::Gguf(error) => error.into(),
            error => Self::Failed { what: path.display().to_string(), cause: Some(Box::new(error)) },
        }
    }
}

/// Says what was being done when an error came up.
pub(crate) trait OrFail<T> {
    /// `what` is done to what: "can't read prompt.txt".
    fn or_fail(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Error + 'static> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::Failed { what: what(), cause: Some(Box::new(error)) })
    }
}

/// Only output is written without saying to what: files get [`OrFail::or_fail`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed { what: "can't write to standard output".into(), cause: Some(Box::new(error)) },
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::Cancelled => Self::Interrupted,
            error => error_alone(error),
        }
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Config(error) => Self::Usage(error.to_string()),
            GenerateError::PromptTooLong { .. } => {
                Self::new(format!("{error}; give it more with --ctx, or use --context-overflow shift"))
            }
            error => error_alone(error),
        }
    }
}

macro_rules! alone {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                error_alone(error)
            }
        }
    )+};
}

alone!(
    firecrest::gguf::GgufError,
    firecrest::embed::EmbedError,
    ForwardError,
    firecrest::nn::BatchError,
    TemplateError,
    firecrest::backend::IsaError
);

/// An error that says by itself what was being done.
fn error_alone(error: impl Error + 'static) -> Failure {
    Failure::Failed { what: error.to_string(), cause: Some(Box::new(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_on_the_same_line_once() {
        let missing = || io::Error::other("no such thing");
        let failure = Err::<(), _>(missing()).or_fail(|| "can't read x".into()).unwrap_err();
        assert_eq!(failure.message().unwrap(), "can't read x: no such thing");
        assert_eq!(error_alone(missing()).message().unwrap(), "no such thing");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.message().is_none());
        assert!(matches!(failure, Failure::ClosedPipe));
    }
}
