//! Measurements, and the files that keep them.

use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::machine::Machine;
use crate::shell::{Failure, Result, Run, command};

/// A program that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Firecrest,
    Peer,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firecrest => "firecrest",
            Self::Peer => "llama.cpp",
        })
    }
}

/// One measurement.
pub(super) struct Sample {
    pub(super) engine: Engine,
    pub(super) format: String,
    pub(super) threads: usize,
    pub(super) test: &'static str,
    pub(super) round: usize,
    pub(super) tokens_per_second: f64,
}

/// What was measured, as far as versions tell.
pub(super) struct Versions {
    firecrest: String,
    rustc: String,
    peer: String,
    peer_build: String,
}

impl Versions {
    /// `built_here`: the program is that of the working tree.
    pub(super) fn read(built_here: bool, peer: &Value) -> Result<Self> {
        let firecrest = if built_here {
            command("git", "describe --always --dirty --abbrev=12").text()?.trim().to_owned()
        } else {
            "a program given by its path".to_owned()
        };
        let field = |name: &str| peer[name].as_str().unwrap_or("unknown").to_owned();
        let peer = format!("llama-cpp-python {}, ggml {}", field("llama_cpp_python"), field("ggml"));
        Ok(Self {
            firecrest,
            rustc: command("rustc", "--version").text()?.trim().to_owned(),
            peer,
            peer_build: field("system_info"),
        })
    }
}

/// All measurements of one run.
pub(super) struct Record {
    pub(super) machine: Machine,
    pub(super) versions: Versions,
    pub(super) command: String,
    pub(super) samples: Vec<Sample>,
    /// The kernels that Firecrest says it used, for each format.
    pub(super) kernels: Vec<(String, Value)>,
}

/// A row of the table: the speeds of both programs at one thing, in tokens per second, round by round.
struct Row<'a> {
    format: &'a str,
    threads: usize,
    test: &'a str,
    firecrest: Spread,
    peer: Spread,
}

impl Row<'_> {
    /// How many times as fast as the peer.
    fn ratio(&self) -> f64 {
        self.firecrest.median / self.peer.median
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: (low + high) / 2.0, min, max })
    }

    fn json(self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1} – {:.1})", self.median, self.min, self.max)
    }
}

impl Record {
    /// The rows, in the order of the measurements.
    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = Vec::new();
        for Sample { format, threads, test, .. } in &self.samples {
            let is_this = |row: &Row<'_>| (row.format, row.threads, row.test) == (format, *threads, *test);
            if rows.iter().any(is_this) {
                continue;
            }
            let speeds = |engine| {
                let of_this = |sample: &&Sample| {
                    (sample.engine, &sample.format, sample.threads, sample.test)
                        == (engine, format, *threads, *test)
                };
                Spread::of(
                    self.samples.iter().filter(of_this).map(|sample| sample.tokens_per_second).collect(),
                )
            };
            if let (Some(firecrest), Some(peer)) = (speeds(Engine::Firecrest), speeds(Engine::Peer)) {
                rows.push(Row { format, threads: *threads, test, firecrest, peer });
            }
        }
        rows
    }

    /// The results as a Markdown table.
    pub(super) fn table(&self) -> String {
        let mut table = String::from(
            "| format | threads | test | Firecrest, tokens/s | llama.cpp, tokens/s | ratio |\n\
             |---|---:|---|---:|---:|---:|\n",
        );
        for row in self.rows() {
            let Row { format, threads, test, firecrest, peer } = &row;
            let ratio = row.ratio();
            // Writing to a string cannot fail.
            let _ = writeln!(table, "| {format} | {threads} | {test} | {firecrest} | {peer} | {ratio:.2} |");
        }
        table
    }

    /// Writes `<path>.md` for people and `<path>.json` with every measurement.
    pub(super) fn write(&self, path: &Path) -> Result {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Failure::at(folder))?;
        // `with_extension` would take a dot in the name for one.
        for (extension, text) in [("md", self.markdown()), ("json", format!("{:#}\n", self.json()))] {
            let path = format!("{}.{extension}", path.display());
            fs::write(&path, text).map_err(Failure::at(Path::new(&path)))?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let Self { machine, versions, command, .. } = self;
        let mut lines = vec![
            "# Firecrest and llama.cpp".to_owned(),
            String::new(),
            format!("- command: `{command}`"),
            format!(
                "- processor: {}, {} threads, {}",
                machine.processor,
                machine.cores,
                machine.features.join(" ")
            ),
        ];
        if let Some(gib) = machine.memory_gib {
            lines.push(format!("- memory: {gib:.1} GiB"));
        }
        lines.push(format!("- system: {}", machine.system));
        if let Some(load) = machine.load {
            lines.push(format!("- load before the first measurement: {load:.2}"));
        }
        lines.push(format!("- Firecrest: {}, {}", versions.firecrest, versions.rustc));
        lines.push(format!("- llama.cpp: {}, {}", versions.peer, versions.peer_build));
        lines.push("- model: SmolLM2-135M-Instruct; KV cache in F16; warm-up excluded".to_owned());
        lines.push("- numbers: median (smallest – largest) of the rounds; ratio of the medians".to_owned());
        lines.push(String::new());
        lines.push(self.table());
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let Self { machine, versions, command, samples, kernels } = self;
        let results: Vec<_> = self
            .rows()
            .iter()
            .map(|row| {
                json!({
                    "format": row.format, "threads": row.threads, "test": row.test,
                    "firecrest": row.firecrest.json(), "llama_cpp": row.peer.json(), "ratio": row.ratio(),
                })
            })
            .collect();
        let samples: Vec<_> = samples
            .iter()
            .map(|sample| {
                json!({
                    "engine": sample.engine.to_string(), "format": sample.format, "threads": sample.threads,
                    "test": sample.test, "round": sample.round, "tokens_per_second": sample.tokens_per_second,
                })
            })
            .collect();
        let kernels: serde_json::Map<_, _> = kernels.iter().cloned().collect();
        json!({
            "command": command,
            "machine": {
                "processor": machine.processor, "threads": machine.cores, "features": machine.features,
                "memory_gib": machine.memory_gib, "system": machine.system, "load": machine.load,
            },
            "versions": {
                "firecrest": versions.firecrest, "rustc": versions.rustc,
                "peer": versions.peer, "peer_build": versions.peer_build,
            },
            "kernels": kernels,
            "results": results,
            "samples": samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers_of_rounds() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 7.0]), Some(Spread { median: 3.0, min: 1.0, max: 7.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(vec![]), None);
    }
}
