//! `firecrest sparsify`: what a model can do without.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use firecrest::Model;
use firecrest::sparse::{CalibrationOptions, CalibrationStep, SparseError, SparsityProfile, calibrate};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Failure, OrFail, Outcome};
use crate::files::read_text;
use crate::interrupt::Interrupt;
use crate::options::{ThreadCount, fetch, thread_count};
use crate::output;

/// Measures which neurons and logits a model can do without, for --sparsity.
///
/// Reads a calibration text, finds thresholds for the levels "balanced" (at most 1 % more perplexity) and "fast" (at most
/// 5 %), measures them on another part of the text, and writes a file beside the model's, which stays as it is.
///
/// With --json: {"file": …, "tokens": n, "text_hash": …, "dense_perplexity": x, "levels": [{"name": …, "perplexity": x,
/// "divergence": nats, "neurons_skipped": share, "recall": share, "candidates": n, "screen_recall": [share, share]}, …]}.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest sparsify model.gguf
  firecrest sparsify model.gguf --data notes.txt
  firecrest run -m model.gguf --sparsity balanced \"Why is the sky blue?\"")]
pub(crate) struct SparsifyArgs {
    /// The model: a GGUF file, or what --model takes elsewhere.
    model: String,
    /// Text like that which the model will read [default: a small mixed one]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where the result goes [default: beside the model, where --sparsity looks for it]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Threads that compute [default: the physical cores]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    threads: Option<ThreadCount>,
    /// Use nothing but what is on this machine.
    #[arg(long)]
    offline: bool,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    tokens: usize,
    text_hash: String,
    dense_perplexity: f64,
    levels: Vec<Level>,
}

#[derive(Serialize)]
struct Level {
    name: String,
    perplexity: f64,
    divergence: f64,
    neurons_skipped: f64,
    recall: f64,
    candidates: Option<usize>,
    screen_recall: [f64; 2],
}

impl SparsifyArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let mut options = CalibrationOptions::default();
        options.text = self.data.as_deref().map(read_text).transpose()?;
        options.context.cpu.threads = self.threads;
        let path = fetch(&self.model, self.offline, interrupt)?;
        let model = Model::from_gguf_file(&path).map_err(|error| Failure::load(&path, error))?;
        let profile = with_bar(interrupt, |progress| calibrate(&model, &options, progress))?
            .or_fail(|| format!("{} can't be calibrated", path.display()))?;
        let file = self.output.unwrap_or_else(|| SparsityProfile::path_for(&path));
        profile.save(&file).or_fail(|| format!("{} can't be written", file.display()))?;
        let report = Report::new(file, &profile);
        if self.json { output::json(&report) } else { report.print() }
    }
}

/// Does what takes a while, with a bar on standard error, until it is done or Ctrl-C is pressed.
pub(super) fn with_bar<T>(
    interrupt: &Interrupt,
    run: impl FnOnce(&mut dyn FnMut(CalibrationStep) -> bool) -> Result<T, SparseError>,
) -> Outcome<Result<T, SparseError>> {
    let cancel = interrupt.arm();
    // The bar hides itself where standard error is no terminal.
    let bar = ProgressBar::no_length();
    bar.set_style(
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} tokens {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let result = run(&mut |step| {
        bar.set_message(step.what);
        bar.set_length(step.total as u64);
        bar.set_position(step.done as u64);
        !cancel.is_cancelled()
    });
    bar.finish_and_clear();
    interrupt.disarm();
    match result {
        Err(SparseError::Cancelled) => Err(Failure::Interrupted),
        result => Ok(result),
    }
}

impl Report {
    fn new(file: PathBuf, profile: &SparsityProfile) -> Self {
        let levels = profile.levels().iter().map(|level| Level {
            name: level.name().to_owned(),
            perplexity: level.perplexity(),
            divergence: level.divergence(),
            neurons_skipped: level.neurons_skipped(),
            recall: level.recall(),
            candidates: level.candidates(),
            screen_recall: level.screen_recall(),
        });
        Self {
            file,
            tokens: profile.tokens(),
            text_hash: format!("{:016x}", profile.text_hash()),
            dense_perplexity: profile.dense_perplexity(),
            levels: levels.collect(),
        }
    }

    fn print(&self) -> Outcome {
        let mut out = output::stdout();
        writeln!(out, "{}: {} tokens of text {}", self.file.display(), self.tokens, self.text_hash)?;
        let mut rows: Vec<Vec<String>> = vec![
            ["level", "perplexity", "change", "divergence", "neurons skipped", "logits"]
                .map(String::from)
                .into(),
        ];
        rows.push(vec![
            "off".into(),
            format!("{:.3}", self.dense_perplexity),
            "-".into(),
            "-".into(),
            "-".into(),
            "all".into(),
        ]);
        rows.extend(self.levels.iter().map(|level| {
            vec![
                level.name.clone(),
                format!("{:.3}", level.perplexity),
                format!("{:+.2} %", 100.0 * (level.perplexity / self.dense_perplexity - 1.0)),
                format!("{:.4}", level.divergence),
                format!("{:.1} %", 100.0 * level.neurons_skipped),
                level.candidates.map_or_else(|| "all".into(), |n| n.to_string()),
            ]
        }));
        output::table(&mut out, &rows, &[1, 2, 3, 4, 5])?;
        Ok(out.flush()?)
    }
}
