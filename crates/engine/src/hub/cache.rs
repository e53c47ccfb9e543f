use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::partial::{leftovers, remove_if_there, write_json};
use super::reference::{HubPick, ModelRef};
use super::{HubError, HubOptions, Sha256Sum, converted, repository, wheel};

/// A model that the cache holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedModel {
    /// A name that [`ModelRef::parse`] accepts for it.
    pub name: String,
    /// Where it came from: a URL without its query, or a Python package as `pip:name==version`.
    pub source: String,
    /// Its files: one, or all shards of a split model in their order. Never empty.
    pub files: Vec<CachedFile>,
    /// When its download ended.
    pub fetched: SystemTime,
    default: bool,
}

/// A file that the cache holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its sum when it was downloaded.
    pub sha256: Sha256Sum,
}

impl CachedModel {
    /// Returns the path to open: that of the only file or the first shard.
    pub fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// Returns the size of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What is written beside a model's first file, and marks the model as complete.
#[derive(Serialize, Deserialize)]
struct Manifest {
    name: String,
    source: String,
    /// Seconds since 1970.
    fetched: u64,
    /// Whether this is the file that a repository's name alone stands for.
    default: bool,
    files: Vec<ManifestFile>,
}

#[derive(Serialize, Deserialize)]
struct ManifestFile {
    name: String,
    bytes: u64,
    sha256: Sha256Sum,
}

const MANIFEST_SUFFIX: &str = ".model.json";

/// What is known of a model before it is downloaded.
pub(super) struct Record {
    pub(super) name: String,
    /// Whether this is the file that a repository's name alone stands for.
    pub(super) default: bool,
    /// The sum that a cached file must have to count as this model.
    pub(super) sha256: Option<Sha256Sum>,
}

/// The directory of a catalogue entry, a repository or a URL, relative to that of all models.
pub(super) struct ModelDir(PathBuf);

impl ModelDir {
    pub(super) fn catalogue(name: &str) -> Self {
        Self(Path::new("catalogue").join(name))
    }

    /// `repo` was checked by [`ModelRef::parse`], but a caller may have built the reference by hand.
    pub(super) fn hub(repo: &str) -> Result<Self, HubError> {
        Ok(Self(Path::new("hub").join(safe_relative_path(repo)?)))
    }

    /// The sum keeps apart URLs that end alike.
    pub(super) fn url(url: &str) -> Self {
        Self(Path::new("url").join(short_hash(url.as_bytes())))
    }

    /// Returns the path of a file, which a server may have named, in this directory.
    pub(super) fn join(&self, file: &str) -> Result<PathBuf, HubError> {
        Ok(self.0.join(safe_relative_path(file)?))
    }
}

/// Checks that a path with `/` leads further down and is allowed on every system.
fn safe_relative_path(path: &str) -> Result<PathBuf, HubError> {
    let safe = |part: &str| {
        !part.is_empty()
            && part.len() <= 200
            && !part.starts_with('.')
            && !part.ends_with(['.', ' '])
            && !part.contains(|c: char| c.is_control() || "\\:*?\"<>|".contains(c))
    };
    if path.split('/').all(safe) {
        return Ok(path.split('/').collect());
    }
    Err(HubError::UnsafeName { name: path.to_owned() })
}

fn short_hash(bytes: &[u8]) -> String {
    Sha256Sum::from_bytes(Sha256::digest(bytes).into()).to_string()[..16].to_owned()
}

/// The directory of all models.
pub(super) struct Cache {
    root: PathBuf,
    offline: bool,
}

impl Cache {
    pub(super) fn new(options: &HubOptions) -> Self {
        Self { root: options.cache_dir.join("models"), offline: options.offline }
    }

    pub(super) fn absolute(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Returns the model if all its files are there.
    pub(super) fn find(&self, model: &ModelRef) -> Result<Option<CachedModel>, HubError> {
        Ok(match model {
            ModelRef::Path(_) => None,
            ModelRef::Catalogue(entry) => {
                let path = ModelDir::catalogue(entry.name).join(entry.file)?;
                // An entry may have moved on to another file since this one was fetched.
                self.load(&self.absolute(&path)).filter(|cached| cached.files[0].sha256 == entry.sha256)
            }
            ModelRef::Url(url) => self.load(&self.absolute(&url_path(url)?)),
            ModelRef::Hub { repo, pick } => self.find_in_repository(repo, pick)?,
        })
    }

    fn find_in_repository(&self, repo: &str, pick: &HubPick) -> Result<Option<CachedModel>, HubError> {
        let dir = ModelDir::hub(repo)?;
        if let HubPick::File(file) = pick {
            let first = repository::first_shard(file);
            return Ok(self.load(&self.absolute(&dir.join(&first)?)));
        }
        let dir = self.absolute(&dir.0);
        let mut models: Vec<_> = files_below(&dir)?
            .iter()
            .filter_map(|path| self.load(&model_of_manifest(path)?))
            .filter_map(|model| Some((repository_path(&dir, model.path())?, model)))
            .collect();
        if let (HubPick::Default, false) = (pick, self.offline) {
            // What the hub's best file is was decided when it was fetched by the repository's name alone.
            return Ok(models.into_iter().map(|(_, model)| model).find(|model| model.default));
        }
        let names = models.iter().map(|(name, _)| name.as_str());
        let chosen = repository::choose(names, pick).map(str::to_owned);
        let chosen = chosen.and_then(|name| models.iter().position(|(other, _)| *other == name));
        Ok(chosen.map(|i| models.swap_remove(i).1))
    }

    pub(super) fn list(&self) -> Result<Vec<CachedModel>, HubError> {
        let paths = files_below(&self.root)?;
        let mut models: Vec<_> =
            paths.iter().filter_map(|path| self.load(&model_of_manifest(path)?)).collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Reads the manifest of the model whose first file is at `path`. A damaged manifest, or files that are gone
    /// or have another size, make the model as good as absent: fetching it again mends that.
    pub(super) fn load(&self, path: &Path) -> Option<CachedModel> {
        let manifest = fs::read(with_suffix(path, MANIFEST_SUFFIX)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&manifest).ok()?;
        let dir = path.parent()?;
        let files = manifest.files.into_iter().map(|file| {
            // One plain name: a manifest must not make `remove` reach elsewhere.
            let mut components = Path::new(&file.name).components();
            let (Some(Component::Normal(name)), None) = (components.next(), components.next()) else {
                return None;
            };
            let path = dir.join(name);
            let whole = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == file.bytes);
            whole.then_some(CachedFile { path, bytes: file.bytes, sha256: file.sha256 })
        });
        let files: Vec<_> = files.collect::<Option<_>>()?;
        (files.first()?.path == path).then_some(())?;
        Some(CachedModel {
            name: manifest.name,
            source: manifest.source,
            files,
            fetched: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(manifest.fetched))?,
            default: manifest.default,
        })
    }

    /// Writes the manifest that makes downloaded files a model.
    pub(super) fn save(
        &self,
        record: &Record,
        source: String,
        files: Vec<CachedFile>,
    ) -> Result<CachedModel, HubError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let fetched = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let model =
            CachedModel { name: record.name.clone(), source, files, fetched, default: record.default };
        self.write_manifest(&model)?;
        for file in &model.files {
            leftovers(&file.path).iter().try_for_each(|path| remove_if_there(path))?;
        }
        Ok(model)
    }

    /// Notes that a cached model is what its repository's name alone stands for.
    pub(super) fn make_default(&self, mut model: CachedModel) -> Result<CachedModel, HubError> {
        if !model.default {
            model.default = true;
            self.write_manifest(&model)?;
        }
        Ok(model)
    }

    fn write_manifest(&self, model: &CachedModel) -> Result<(), HubError> {
        let file_name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = Manifest {
            name: model.name.clone(),
            source: model.source.clone(),
            fetched: model.fetched.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            default: model.default,
            files: model
                .files
                .iter()
                .map(|file| ManifestFile {
                    name: file_name(&file.path),
                    bytes: file.bytes,
                    sha256: file.sha256,
                })
                .collect(),
        };
        write_json(&with_suffix(model.path(), MANIFEST_SUFFIX), &manifest)
    }

    /// Deletes a model and returns how many bytes that freed.
    pub(super) fn remove(&self, model: &ModelRef) -> Result<u64, HubError> {
        let path = match model {
            ModelRef::Path(path) => return Err(HubError::NotInCache { path: path.clone() }),
            ModelRef::Catalogue(entry) => Some(ModelDir::catalogue(entry.name).join(entry.file)?),
            ModelRef::Url(url) => Some(url_path(url)?),
            ModelRef::Hub { repo, pick: HubPick::File(file) } => {
                Some(ModelDir::hub(repo)?.join(&repository::first_shard(file))?)
            }
            ModelRef::Hub { repo, pick } => {
                let found = self.find_in_repository(repo, pick)?;
                found.and_then(|model| Some(model.path().strip_prefix(&self.root).ok()?.to_owned()))
            }
        };
        let not_cached = || HubError::NotCached { model: model.to_string() };
        let relative = path.ok_or_else(not_cached)?;
        let Some(_lock) = self.try_lock(&relative)? else {
            return Err(HubError::Busy { model: model.to_string() });
        };
        let first = self.absolute(&relative);
        let (dir, name) = (first.parent().unwrap_or(&self.root), first.file_name().unwrap_or_default());
        let name = name.to_string_lossy();
        let shards = repository::shards(&name).unwrap_or_else(|| vec![name.clone().into_owned()]);
        // The manifest goes first: without it, what else remains is no model.
        let mut doomed = vec![with_suffix(&first, MANIFEST_SUFFIX)];
        for shard in &shards {
            let path = dir.join(shard);
            doomed.extend(leftovers(&path));
            doomed.push(path);
        }
        let (mut freed, mut found) = (0, false);
        for path in doomed {
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            fs::remove_file(&path).map_err(|source| HubError::Io { path, source })?;
            freed += metadata.len();
            found = true;
        }
        // Only a process that was killed leaves this.
        found |= fs::remove_dir_all(wheel::folder(&first)).is_ok();
        found |= fs::remove_dir_all(converted::folder(&first)).is_ok();
        self.prune(&first);
        if found { Ok(freed) } else { Err(not_cached()) }
    }

    /// Removes the directories above a file that nothing is in: only empty ones can be removed.
    pub(super) fn prune(&self, file: &Path) {
        for dir in file.ancestors().skip(1).take_while(|dir| *dir != self.root) {
            if fs::remove_dir(dir).is_err() {
                break;
            }
        }
    }

    /// Takes the lock under which a model's files may be written, or returns `None` while another holds it.
    ///
    /// Lock files stay when they are no longer used: deleting one that another process has just opened would let
    /// two processes hold "the" lock.
    pub(super) fn try_lock(&self, relative: &Path) -> Result<Option<Lock>, HubError> {
        let dir = self.root.join(".locks");
        let path = dir.join(short_hash(relative.as_os_str().as_encoded_bytes()));
        let open = || {
            fs::create_dir_all(&dir)?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(|source| HubError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            // Some network file systems have no locks; sums still keep damaged files out.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Lock(file)))
            }
            Err(TryLockError::Error(source)) => Err(HubError::Io { path, source }),
        }
    }
}

/// Held while a model's files are written; the system releases it even if the process is killed.
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

/// Returns the cache's path for the model behind a URL.
fn url_path(url: &str) -> Result<PathBuf, HubError> {
    ModelDir::url(url).join(&repository::first_shard(&url_file_name(url)))
}

/// Returns the name to give to the file behind a URL.
pub(super) fn url_file_name(url: &str) -> String {
    let location = url.split(['?', '#']).next().unwrap_or(url);
    let path = location.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
    let last = path.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = last.trim_matches('.').chars().map(plain).collect();
    // The end of a long name tells more: the number of a shard, the extension.
    let name = &name[name.len().saturating_sub(150)..];
    let name = name.trim_start_matches('.');
    if name.is_empty() { "model.gguf".to_owned() } else { name.to_owned() }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn model_of_manifest(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(MANIFEST_SUFFIX)?;
    Some(path.with_file_name(name))
}

/// Returns the path that a cached file has in its repository.
fn repository_path(dir: &Path, path: &Path) -> Option<String> {
    let parts: Option<Vec<_>> = path.strip_prefix(dir).ok()?.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

/// Returns all files below a directory, which need not exist. Links to directories are not followed.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>, HubError> {
    let (mut files, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = pending.pop() {
        let failed = |source| HubError::Io { path: dir.clone(), source };
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(_) => files.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_servers_stay_inside() {
        let dir = ModelDir::hub("o/r").unwrap();
        assert_eq!(dir.join("Q4/m.gguf").unwrap(), Path::new("hub/o/r/Q4/m.gguf"));
        for bad in ["../m", "a/../../m", "/m", "a//m", "", ".", "..", "C:m", "a\\m", "a/.hidden", "a\0", "m."]
        {
            assert!(matches!(dir.join(bad), Err(HubError::UnsafeName { .. })), "{bad:?}");
        }
        assert!(ModelDir::hub("../..").is_err());
    }

    #[test]
    fn urls_become_file_names() {
        for (url, name) in [
            ("https://h/a/m-Q4.gguf?sig=/x/y", "m-Q4.gguf"),
            ("https://h/a/", "model.gguf"),
            ("https://h", "model.gguf"),
            ("https://h/..", "model.gguf"),
            ("https://h/a%20b.gguf", "a_20b.gguf"),
            ("https://h/m-00001-of-00002.gguf", "m-00001-of-00002.gguf"),
        ] {
            assert_eq!(url_file_name(url), name, "{url}");
        }
        let shard = url_path("https://h/m-00002-of-00002.gguf").unwrap();
        assert!(shard.ends_with("m-00001-of-00002.gguf"));
        assert_ne!(url_path("https://a/m.gguf").unwrap(), url_path("https://b/m.gguf").unwrap());
        assert!(url_path(&format!("https://h/{}.", ".x".repeat(5000))).is_ok());
    }
}
