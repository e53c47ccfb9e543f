//! `firecrest sparsity-report`: how the neurons of a model are used, as a page to look at.

mod page;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use firecrest::Model;
use firecrest::sparse::{CalibrationOptions, ReportPoint, SparsityProfile, SparsityReport, report};

use super::sparsify::with_bar;
use crate::failure::{Failure, OrFail, Outcome};
use crate::files::{read_text, write_whole};
use crate::interrupt::Interrupt;
use crate::options::{ThreadCount, fetch, thread_count};
use crate::output;

/// Draws how the neurons of a model are used, and what leaving some out does to perplexity and speed.
///
/// Writes a page of HTML that needs no other file, and its numbers as CSV beside it, with the columns series, layer, x
/// and y. The levels of the model's sparsity file are on it, where there is one.
///
/// With --json: {"page": …, "data": …}.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest sparsity-report model.gguf
  firecrest sparsity-report model.gguf --data notes.txt -o report.html")]
pub(crate) struct SparsityReportArgs {
    /// The model: a GGUF file, or what --model takes elsewhere.
    model: String,
    /// Text like that which the model will read [default: a small mixed one]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where the page goes; the data goes beside it [default: beside the model]
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

impl SparsityReportArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let mut options = CalibrationOptions::default();
        options.text = self.data.as_deref().map(read_text).transpose()?;
        options.context.cpu.threads = self.threads;
        let path = fetch(&self.model, self.offline, interrupt)?;
        let mut model = Model::from_gguf_file(&path).map_err(|error| Failure::load(&path, error))?;
        let beside = SparsityProfile::path_for(&path);
        if beside.exists() {
            let profile = SparsityProfile::load(&beside);
            let with_profile = profile.and_then(|profile| model.with_sparsity_profile(profile));
            model = with_profile.or_fail(|| format!("{} can't be used", beside.display()))?;
        }
        let report = with_bar(interrupt, |progress| report(&model, &options, progress))?
            .or_fail(|| format!("{} can't be measured", path.display()))?;
        let page = self.output.unwrap_or_else(|| {
            let mut name = path.clone().into_os_string();
            name.push(".sparsity.html");
            name.into()
        });
        let data = page.with_extension("csv");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        write_whole(&page, page::render(&name, &report).as_bytes())?;
        write_whole(&data, csv(&report).as_bytes())?;
        if self.json {
            return output::json(&serde_json::json!({ "page": page, "data": data }));
        }
        let mut out = output::stdout();
        std::io::Write::write_fmt(&mut out, format_args!("{}\n{}\n", page.display(), data.display()))?;
        Ok(())
    }
}

/// The series of a report: name, layer, and points.
fn series(report: &SparsityReport) -> Vec<(String, Option<usize>, Vec<[f64; 2]>)> {
    let mut all = Vec::new();
    for layer in &report.layers {
        for (name, curve) in [("frequency", &layer.frequency), ("mass", &layer.mass)] {
            let last = curve.len().saturating_sub(1).max(1) as f64;
            let points = curve.iter().enumerate().map(|(i, &y)| [i as f64 / last, y]).collect();
            all.push((name.to_owned(), Some(layer.layer), points));
        }
    }
    type Measure = fn(&ReportPoint) -> f64;
    let measures: [(&str, Measure); 3] = [
        ("perplexity", |point| point.perplexity),
        ("divergence", |point| point.divergence),
        ("token_ms", |point| point.token_ms),
    ];
    for (name, measure) in measures {
        let points = [&report.dense].into_iter().chain(&report.points);
        all.push((name.into(), None, points.map(|point| [point.neurons_skipped, measure(point)]).collect()));
        for level in &report.levels {
            let point = [level.neurons_skipped, measure(level)];
            all.push((format!("{name}:{}", level.name), None, vec![point]));
        }
    }
    all
}

fn csv(report: &SparsityReport) -> String {
    let mut out = String::from("series,layer,x,y\n");
    for (name, layer, points) in series(report) {
        let layer = layer.map_or_else(String::new, |layer| layer.to_string());
        // Names of levels come from a file.
        let name = name.replace('"', "\"\"");
        for [x, y] in points {
            let _ = writeln!(out, "\"{name}\",{layer},{x},{y}");
        }
    }
    out
}
