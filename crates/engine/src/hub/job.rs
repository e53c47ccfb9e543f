use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::cache::{Cache, CachedFile, CachedModel, Lock, ModelDir, Record};
use super::client::Client;
use super::partial::write_error;
use super::{HubError, HubOptions, Progress, Stage, Update};

/// How often something that is waited for is looked at.
const TICK: Duration = Duration::from_millis(100);

/// One call of [`resolve`](super::resolve) that needs the network.
pub(super) struct Job<'a> {
    pub(super) options: &'a HubOptions,
    pub(super) client: Client,
    pub(super) progress: &'a mut dyn Progress,
    cache: Cache,
}

impl<'a> Job<'a> {
    pub(super) fn new(options: &'a HubOptions, progress: &'a mut dyn Progress) -> Result<Self, HubError> {
        Ok(Self { options, client: Client::new(options)?, progress, cache: Cache::new(options) })
    }

    /// Reports progress; an answer of "stop" is an error so that `?` obeys it.
    pub(super) fn report(
        &mut self,
        stage: Stage,
        file: &str,
        done: u64,
        total: Option<u64>,
    ) -> Result<(), HubError> {
        match self.progress.update(&Update { stage, file, done, total }) {
            true => Ok(()),
            false => Err(HubError::Cancelled),
        }
    }

    /// Reports `stage` every tick until `ready` returns something.
    pub(super) fn wait<T>(
        &mut self,
        stage: Stage,
        file: &str,
        total: Option<u64>,
        mut ready: impl FnMut() -> Result<Wait<T>, HubError>,
    ) -> Result<T, HubError> {
        loop {
            match ready()? {
                Wait::Ready(value) => return Ok(value),
                Wait::Pending { done } => self.report(stage, file, done, total)?,
            }
            thread::sleep(TICK);
        }
    }

    pub(super) fn pause(&mut self, file: &str, pause: Duration) -> Result<(), HubError> {
        let start = Instant::now();
        self.wait(Stage::Pausing, file, None, || {
            Ok(if start.elapsed() >= pause { Wait::Ready(()) } else { Wait::Pending { done: 0 } })
        })
    }

    /// Puts a model into the cache unless another process has done so by the time its lock is ours.
    ///
    /// `download` gets the final path of the first file and returns where the model came from, and its files.
    pub(super) fn store(
        &mut self,
        dir: &ModelDir,
        first: &str,
        record: Record,
        download: impl FnOnce(&mut Self, &Path) -> Result<(String, Vec<CachedFile>), HubError>,
    ) -> Result<CachedModel, HubError> {
        let relative = dir.join(first)?;
        let path = self.cache.absolute(&relative);
        let _lock = self.lock(relative, first)?;
        let current = |model: &CachedModel| record.sha256.is_none_or(|sum| sum == model.files[0].sha256);
        if let Some(model) = self.cache.load(&path).filter(current) {
            return if record.default { self.cache.make_default(model) } else { Ok(model) };
        }
        let parent = path.parent().unwrap_or(&path);
        std::fs::create_dir_all(parent).map_err(|source| write_error(parent, source))?;
        let (source, files) = download(self, &path).inspect_err(|_| self.cache.prune(&path))?;
        self.cache.save(&record, source, files)
    }

    fn lock(&mut self, relative: PathBuf, file: &str) -> Result<Lock, HubError> {
        let cache = Cache::new(self.options);
        self.wait(Stage::Waiting, file, None, || {
            Ok(cache.try_lock(&relative)?.map_or(Wait::Pending { done: 0 }, Wait::Ready))
        })
    }
}

/// Whether something that is waited for is there.
pub(super) enum Wait<T> {
    Ready(T),
    /// Not yet; so many bytes are done.
    Pending {
        done: u64,
    },
}
