use std::path::Path;
use std::time::Duration;

use ureq::http::header::{CONTENT_RANGE, IF_RANGE, RANGE};

use super::cache::{CachedFile, CachedModel, ModelDir, Record, url_file_name};
use super::client::{Reply, shown};
use super::job::Job;
use super::partial::{Origin, Partial};
use super::{HubError, Sha256Sum, Stage, repository};

/// The longest pause before an attempt, whatever the server or the backoff asks for.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// An attempt that gained this much is progress, and the retries are counted anew.
const GAIN_BYTES: u64 = 1 << 20;

/// A file on a server.
pub(super) struct Remote {
    pub(super) url: String,
    pub(super) expected: Expected,
}

/// What is known of a file before it is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    pub(super) sha256: Option<Sha256Sum>,
    pub(super) bytes: Option<u64>,
}

/// Downloads the model at a URL, all shards of it if the name is that of a shard.
pub(super) fn fetch_url(job: &mut Job<'_>, url: &str) -> Result<CachedModel, HubError> {
    let (location, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let shards = repository::shards(location).unwrap_or_else(|| vec![location.to_owned()]);
    let remotes = shards
        .iter()
        .map(|location| Remote { url: format!("{location}{query}"), expected: Expected::default() });
    let record = Record { name: url.to_owned(), default: true, sha256: None };
    job.store(&ModelDir::url(url), &url_file_name(&shards[0]), record, |job, path| {
        let files = remotes.map(|remote| {
            let name = url_file_name(&remote.url);
            fetch(job, &remote, &path.with_file_name(name))
        });
        Ok((shown(url), files.collect::<Result<_, _>>()?))
    })
}

/// Downloads a file to `target`, going on with a part that is there, and taking up again what breaks off.
pub(super) fn fetch(job: &mut Job<'_>, remote: &Remote, target: &Path) -> Result<CachedFile, HubError> {
    let mut transfer =
        Transfer { remote, part: Partial::open(job, target)?, expected: remote.expected.clone() };
    let resumed = transfer.part.len() > 0;
    transfer.run(job)?;
    let Transfer { part, expected, .. } = transfer;
    match part.finish(&expected, &shown(&remote.url)) {
        // An old part may have been damaged since; a download from the start settles whose fault it is.
        Err(HubError::Checksum { .. } | HubError::Size { .. }) if resumed => {
            let mut transfer = Transfer { remote, part: Partial::open(job, target)?, expected };
            transfer.run(job)?;
            transfer.part.finish(&transfer.expected, &shown(&remote.url))
        }
        finished => finished,
    }
}

/// Counts the attempts that failed.
#[derive(Default)]
pub(super) struct Retries {
    failures: u32,
}

impl Retries {
    /// Lets a while pass after a failure, or returns it if another attempt would be pointless.
    pub(super) fn pause(&mut self, job: &mut Job<'_>, file: &str, error: HubError) -> Result<(), HubError> {
        let asked = match error {
            HubError::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        if !error.is_transient() || self.failures >= job.options.retries || asked > MAX_PAUSE {
            return Err(error);
        }
        let backoff = job.options.backoff.saturating_mul(1 << self.failures.min(16));
        let pause = backoff.min(MAX_PAUSE).max(asked);
        self.failures += 1;
        job.progress.retrying(&error, pause);
        job.pause(file, pause)
    }
}

/// A download under way.
struct Transfer<'a> {
    remote: &'a Remote,
    part: Partial,
    /// What was known at first and what the server said since.
    expected: Expected,
}

impl Transfer<'_> {
    /// Makes attempts until all bytes are there or it seems pointless.
    fn run(&mut self, job: &mut Job<'_>) -> Result<(), HubError> {
        let (mut retries, mut reached) = (Retries::default(), self.part.len());
        while let Err(error) = self.attempt(job) {
            if self.part.len() >= reached.saturating_add(GAIN_BYTES) {
                (retries, reached) = (Retries::default(), self.part.len());
            }
            retries.pause(job, self.part.name(), error)?;
        }
        Ok(())
    }

    /// Asks for what is missing and appends what comes.
    fn attempt(&mut self, job: &mut Job<'_>) -> Result<(), HubError> {
        let origin = self.part.origin().filter(|origin| origin.url == shown(&self.remote.url));
        // Bytes of unknown origin are worth something only if a sum will tell whether they belong to the file.
        if self.part.len() > 0 && origin.is_none() && self.expected.sha256.is_none() {
            self.part.clear()?;
        }
        let have = self.part.len();
        let excess = self.expected.bytes.is_some_and(|bytes| have > bytes);
        if excess {
            self.part.clear()?;
        } else if have > 0 && self.expected.bytes == Some(have) && self.expected.sha256.is_some() {
            return Ok(());
        }
        let have = self.part.len();
        job.report(Stage::Connecting, self.part.name(), have, self.expected.bytes)?;

        let range = format!("bytes={have}-");
        let mut headers = Vec::new();
        if have > 0 {
            headers.push((RANGE, range.as_str()));
            headers.extend(origin.as_ref().map(|origin| (IF_RANGE, origin.validator.as_str())));
        }
        let mut reply = job.client.get(&self.remote.url, &headers)?;
        self.expected.sha256 = self.expected.sha256.or(reply.linked_sha256);

        let total = match reply.status() {
            206 if have > 0 => {
                let (start, total) = content_range(&reply)
                    .ok_or_else(|| reply.invalid("the range that it has is missing or malformed"))?;
                // Not every server heeds If-Range.
                let changed = origin.is_some_and(|origin| {
                    reply.validator().is_some_and(|validator| validator != origin.validator)
                });
                if changed || start != have {
                    return self.restart(job);
                }
                total.or(reply.content_length().and_then(|length| length.checked_add(have)))
            }
            200 => {
                if have > 0 {
                    self.part.clear()?;
                }
                reply.content_length()
            }
            // A part that is whole already, or is longer than the file has become.
            416 if have > 0 => {
                return match content_range_total(&reply) {
                    Some(total) if total == have && self.is_same(&reply, origin.as_ref()) => Ok(()),
                    _ => self.restart(job),
                };
            }
            status => return Err(reply.invalid(format!("status {status} without a range being asked for"))),
        };
        self.check_size(total)?;
        let total = total.or(self.expected.bytes);
        if let Some(total) = total {
            self.part.reserve(total - self.part.len().min(total))?;
        }
        let validator = reply.validator().map(str::to_owned);
        let url = shown(&self.remote.url);
        self.part.set_origin(validator.map(|validator| Origin { url, validator }).as_ref())?;
        self.copy(job, &mut reply, total)
    }

    /// Begins anew after finding out that the part is of no use.
    fn restart(&mut self, job: &mut Job<'_>) -> Result<(), HubError> {
        self.part.clear()?;
        self.attempt(job)
    }

    fn is_same(&self, reply: &Reply, origin: Option<&Origin>) -> bool {
        match (reply.validator(), origin) {
            (Some(validator), Some(origin)) => validator == origin.validator,
            _ => true,
        }
    }

    /// Compares the announced size with the expected one before anything is downloaded.
    fn check_size(&self, total: Option<u64>) -> Result<(), HubError> {
        match (self.expected.bytes, total) {
            (Some(expected), Some(found)) if expected != found => {
                Err(HubError::Size { file: self.part.name().to_owned(), expected, found })
            }
            _ => Ok(()),
        }
    }

    fn copy(&mut self, job: &mut Job<'_>, reply: &mut Reply, total: Option<u64>) -> Result<(), HubError> {
        let mut buffer = vec![0; 1 << 17];
        loop {
            job.report(Stage::Downloading, self.part.name(), self.part.len(), total)?;
            let read = match reply.read(&mut buffer) {
                Ok(read) => read,
                Err(HubError::Dropped { .. }) => return Err(self.dropped(total)),
                Err(error) => return Err(error),
            };
            if read == 0 {
                break;
            }
            self.part.write(&buffer[..read])?;
            if let Some(total) = total.filter(|&total| self.part.len() > total) {
                let found = self.part.len();
                self.part.clear()?;
                return Err(HubError::Size { file: self.part.name().to_owned(), expected: total, found });
            }
        }
        match total {
            Some(total) if self.part.len() < total => Err(self.dropped(Some(total))),
            _ => Ok(()),
        }
    }

    fn dropped(&self, expected: Option<u64>) -> HubError {
        HubError::Dropped { url: shown(&self.remote.url), received: self.part.len(), expected }
    }
}

/// Reads `Content-Range: bytes START-END/TOTAL`, in which TOTAL may be `*`.
fn content_range(reply: &Reply) -> Option<(u64, Option<u64>)> {
    let (range, total) = reply.header(&CONTENT_RANGE)?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    match total {
        "*" => Some((start, None)),
        total => Some((start, Some(total.parse().ok()?))),
    }
}

/// Reads `Content-Range: bytes */TOTAL`.
fn content_range_total(reply: &Reply) -> Option<u64> {
    reply.header(&CONTENT_RANGE)?.trim().strip_prefix("bytes */")?.parse().ok()
}
