//! Downloads, shown on standard error: a bar on a terminal, a line elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use firecrest::generate::CancelToken;
use firecrest::hub::{HubError, Progress, Stage, Update};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::printable;
use crate::units;

/// Shows a download and lets it be cancelled.
pub(crate) struct Download {
    bar: ProgressBar,
    cancel: CancelToken,
    stage: Option<Stage>,
}

impl Download {
    pub(crate) fn new(cancel: CancelToken) -> Self {
        // The bar hides itself where standard error is no terminal.
        Self { bar: ProgressBar::no_length(), cancel, stage: None }
    }

    fn enter(&mut self, update: &Update<'_>) {
        let file = printable(update.file);
        let (text, bytes) = match update.stage {
            Stage::Waiting => ("waiting for another process to download", false),
            Stage::Connecting => ("looking for", false),
            Stage::Downloading => ("downloading", true),
            Stage::Verifying => ("checking what is there of", true),
            Stage::Pip => ("downloading with pip:", false),
            Stage::Unpacking => ("unpacking", true),
            Stage::Converting => ("converting to", false),
            Stage::Pausing => ("pausing before another attempt at", false),
            _ => ("fetching", false),
        };
        let template = match bytes && update.total.is_some() {
            true => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            false => "{spinner} {msg} {bytes}",
        };
        self.bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        self.bar.set_message(format!("{text} {file}"));
        if update.stage == Stage::Downloading && !std::io::stderr().is_terminal() {
            let size = update.total.map(|total| format!(" ({})", units::bytes(total))).unwrap_or_default();
            eprintln!("downloading {file}{size}");
        }
    }

    fn note(&self, note: &str) {
        self.bar.suspend(|| eprintln!("firecrest: {}", printable(note)));
    }
}

impl Progress for Download {
    fn update(&mut self, update: &Update<'_>) -> bool {
        if self.stage.replace(update.stage) != Some(update.stage) {
            self.enter(update);
        }
        if let Some(total) = update.total {
            self.bar.set_length(total);
        }
        self.bar.set_position(update.done);
        !self.cancel.is_cancelled()
    }

    fn retrying(&mut self, error: &HubError, pause: Duration) {
        self.note(&format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
    }

    fn falling_back(&mut self, failed: &str, error: &HubError, next: &str) {
        self.note(&format!("{failed}: {error}; trying {next}"));
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
