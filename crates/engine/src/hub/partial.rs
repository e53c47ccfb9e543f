use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cache::{CachedFile, with_suffix};
use super::download::Expected;
use super::job::Job;
use super::{HubError, Sha256Sum, Stage};

/// A file on its way into the cache: it grows as `NAME.part`, is hashed while it grows, and gets its name at the end.
pub(super) struct Partial {
    target: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Sha256,
}

/// Where a part came from, kept beside it so that a later process can go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) url: String,
    /// The `ETag` or `Last-Modified` of the file, for `If-Range`.
    pub(super) validator: String,
}

/// Returns what an unfinished download of a file leaves behind.
pub(super) fn leftovers(target: &Path) -> [PathBuf; 2] {
    [with_suffix(target, ".part"), with_suffix(target, ".part.json")]
}

impl Partial {
    /// Opens the part that an earlier download left, hashing it, or an empty one.
    ///
    /// A file that is finished although its model is not, such as the first shard of several, becomes a part again.
    /// Its origin is still there, so if the sum is not known the server can say that nothing is missing.
    pub(super) fn open(job: &mut Job<'_>, target: &Path) -> Result<Self, HubError> {
        let [path, _] = leftovers(target);
        if target.is_file() && !path.exists() {
            fs::rename(target, &path).map_err(|source| write_error(&path, source))?;
        }
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = opened.map_err(|source| write_error(&path, source))?;
        let mut partial = Self { target: target.to_owned(), path, file, len: 0, hasher: Sha256::new() };
        let total = partial.file.metadata().map_err(|source| partial.error(source))?.len();
        let mut buffer = vec![0; 1 << 17];
        while partial.len < total {
            job.report(Stage::Verifying, partial.name(), partial.len, Some(total))?;
            let read = partial.file.read(&mut buffer).map_err(|source| partial.error(source))?;
            if read == 0 {
                break;
            }
            partial.hasher.update(&buffer[..read]);
            partial.len += read as u64;
        }
        Ok(partial)
    }

    /// The number of bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The name that the file will have.
    pub(super) fn name(&self) -> &str {
        self.target.file_name().and_then(|name| name.to_str()).unwrap_or("model")
    }

    /// Starts over with an empty file.
    pub(super) fn clear(&mut self) -> Result<(), HubError> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(|source| self.error(source))?;
        self.len = 0;
        self.hasher = Sha256::new();
        Ok(())
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|source| self.fail(source))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Fails if the disk certainly has no room for `bytes` more.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<(), HubError> {
        check_space(&self.target, bytes).inspect_err(|_| self.discard())
    }

    /// Remembers where the bytes come from.
    pub(super) fn set_origin(&self, origin: Option<&Origin>) -> Result<(), HubError> {
        let [_, path] = leftovers(&self.target);
        match origin {
            Some(origin) => write_json(&path, origin),
            None => remove_if_there(&path),
        }
    }

    /// Returns where the bytes there are come from.
    pub(super) fn origin(&self) -> Option<Origin> {
        let [_, path] = leftovers(&self.target);
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Checks the whole file and gives it its name; `url` says where it came from if it is wrong. Nothing is left
    /// of a wrong file.
    pub(super) fn finish(mut self, expected: &Expected, url: &str) -> Result<CachedFile, HubError> {
        if let Err(error) = self.check(expected, url) {
            self.discard();
            return Err(error);
        }
        let sha256 = self.sum();
        self.file.sync_all().map_err(|source| self.fail(source))?;
        fs::rename(&self.path, &self.target).map_err(|source| self.error(source))?;
        Ok(CachedFile { path: self.target.clone(), bytes: self.len, sha256 })
    }

    fn sum(&self) -> Sha256Sum {
        Sha256Sum::from_bytes(self.hasher.clone().finalize().into())
    }

    fn check(&mut self, expected: &Expected, url: &str) -> Result<(), HubError> {
        if let Some(bytes) = expected.bytes.filter(|&bytes| bytes != self.len) {
            return Err(HubError::Size { file: self.name().to_owned(), expected: bytes, found: self.len });
        }
        if let Some(sum) = expected.sha256 {
            let (file, found) = (self.name().to_owned(), self.sum());
            return if found == sum {
                Ok(())
            } else {
                Err(HubError::Checksum { file, expected: sum, found })
            };
        }
        // Without a sum to compare, at least tell a model from a page that says "please log in".
        let mut start = Vec::new();
        let read = self.file.rewind().and_then(|()| (&self.file).take(16).read_to_end(&mut start));
        read.map_err(|source| self.error(source))?;
        if start.starts_with(b"GGUF") {
            Ok(())
        } else {
            Err(HubError::NotGguf { url: url.to_owned(), start })
        }
    }

    /// Deletes the part; what is wrong with the file matters more than a failure to do so.
    fn discard(&mut self) {
        self.len = 0;
        for path in leftovers(&self.target) {
            let _ = fs::remove_file(path);
        }
    }

    /// Returns the error for bytes that could not be written. If that is because the disk is full, the part is
    /// deleted, since it is what fills it.
    fn fail(&mut self, source: io::Error) -> HubError {
        let error = self.error(source);
        if matches!(error, HubError::DiskFull { .. }) {
            self.discard();
        }
        error
    }

    fn error(&self, source: io::Error) -> HubError {
        write_error(&self.path, source)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.len == 0 {
            self.discard();
        }
    }
}

/// Fails if the disk of the directory that `target` shall be in certainly has no room for `bytes`.
pub(super) fn check_space(target: &Path, bytes: u64) -> Result<(), HubError> {
    match fs4::available_space(target.parent().unwrap_or(Path::new("."))) {
        Ok(available) if available < bytes => Err(HubError::DiskFull {
            path: target.to_owned(),
            needed: Some(bytes),
            available: Some(available),
        }),
        // Where free space can't be told, writing will show it.
        _ => Ok(()),
    }
}

/// Tells a full disk from other failures to write.
pub(super) fn write_error(path: &Path, source: io::Error) -> HubError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            HubError::DiskFull { path, needed: None, available: None }
        }
        _ => HubError::Io { path, source },
    }
}

/// Replaces a small file in one step, so that a reader sees the old or the new one.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), HubError> {
    let temporary = with_suffix(path, ".tmp");
    let write = || {
        fs::write(&temporary, serde_json::to_vec_pretty(value)?)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        write_error(path, source)
    })
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HubError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
