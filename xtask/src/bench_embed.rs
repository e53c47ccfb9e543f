//! `cargo xtask bench-embed`: Firecrest and other engines embedding the same texts, turn by turn, into
//! `benchmarks/records/`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bench_peers::{self, machine::Machine};
use crate::setup::{self, absolute};
use crate::shell::{Failure, Result, Run, command, step, target_dir};

const SCRIPT: &str = "benchmarks/peer_embed.py";

/// Tokens of a text; texts at once.
const TOKENS: &str = "16,64,256";
const BATCHES: &str = "1,32";
const THREADS: [&str; 2] = ["1", "2"];

/// Each peer, and the format of Firecrest's file that it is compared with.
const PEERS: [(&str, &str); 4] =
    [("torch", "f32"), ("onnx", "f32"), ("llama.cpp", "f16"), ("llama.cpp", "q8_0")];

/// A measurement: what of which engine, and texts a second.
struct Sample {
    engine: String,
    format: &'static str,
    threads: u64,
    tokens: u64,
    batch: u64,
    texts_per_second: f64,
}

/// Measures in so many rounds, 3 unless told.
pub(crate) fn run(arguments: &[String]) -> Result {
    let rounds = match arguments {
        [] => 3,
        [option, rounds] if option == "--rounds" => {
            rounds.parse::<usize>().map_err(|_| Failure::new(format!("--rounds {rounds}: not a number")))?
        }
        _ => return Err(Failure::new("usage: cargo xtask bench-embed [--rounds 3]")),
    };
    let program = step("build Firecrest", bench_peers::build)?;
    let source = step("get the model", || setup::test_embedder().map_err(Failure::new))?;
    let folder = match absolute("FIRECREST_PEERS")? {
        Some(folder) => folder,
        None => target_dir()?.join("peers"),
    };
    let python = step("build the peers", || python(&folder))?;
    let mut describe = Command::new(&python);
    describe.args([SCRIPT, "describe"]);
    let versions = bench_peers::json(describe)?;
    let models = step("convert the model", || models(&program, &python, &source, &folder.join("models")))?;
    let machine = Machine::read();
    if machine.load.is_some_and(|load| load > 0.5) {
        eprintln!("xtask: other programs keep this machine busy: the numbers will say little");
    }

    let mut samples = Vec::new();
    for round in 0..rounds {
        for threads in THREADS {
            for (peer, format) in PEERS {
                eprintln!("round {} of {rounds}: {peer}, {threads} threads", round + 1);
                // What runs second finds a warmer machine: that alternates too.
                let mut order = ["firecrest", peer];
                order.rotate_left(round % 2);
                for engine in order {
                    let mut command = if engine == "firecrest" {
                        let mut command = Command::new(&program);
                        command.args(["bench", "--embed", TOKENS, "--repeat", "1", "--json"]);
                        command
                    } else {
                        let mut command = Command::new(&python);
                        command.args([SCRIPT, "bench", "--engine", engine, "--tokens", TOKENS]);
                        command
                    };
                    command.args(["--batch", BATCHES, "--threads", threads, "--model"]);
                    command.arg(models.of(engine, format, &source));
                    let output = bench_peers::json(command)?;
                    for result in output["results"].as_array().map_or(&[][..], Vec::as_slice) {
                        let number = |field: &str| result[field].as_u64().unwrap_or(0);
                        let speed = result["tokens_per_second"]["median"].as_f64().unwrap_or(f64::NAN);
                        let (tokens, batch, threads) = (number("tokens"), number("batch"), number("threads"));
                        let texts_per_second = speed / tokens as f64;
                        let engine = engine.to_owned();
                        samples.push(Sample { engine, format, threads, tokens, batch, texts_per_second });
                    }
                }
            }
        }
    }

    let table = table(&samples);
    let date = command("date", "-u +%F").text()?.trim().to_owned();
    let path = Path::new("benchmarks/records").join(format!("{date}-embed"));
    write(&path, &machine, &versions, rounds, &table, &samples)?;
    println!("{table}");
    eprintln!("written to {}.md and .json", path.display());
    Ok(())
}

/// A Python that has the peers, in a virtual environment of its own.
fn python(folder: &Path) -> Result<PathBuf> {
    let venv = folder.join("venv-embed");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !Command::new(&python).args([SCRIPT, "describe"]).works() {
        command(if cfg!(windows) { "python" } else { "python3" }, "-m venv").arg(&venv).run()?;
        let requirements = ["-m", "pip", "install", "--requirement", "benchmarks/requirements-embed.txt"];
        Command::new(&python).args(requirements).run()?;
    }
    Ok(python)
}

/// The model's files.
struct Models {
    folder: PathBuf,
}

impl Models {
    fn file(&self, format: &str) -> PathBuf {
        self.folder.join(format!("all-minilm-l6-v2.{format}"))
    }

    /// What an engine opens; torch takes the source itself.
    fn of(&self, engine: &str, format: &str, source: &Path) -> PathBuf {
        match engine {
            "torch" => source.to_owned(),
            "onnx" => self.file("onnx"),
            _ => self.file(&format!("{format}.gguf")),
        }
    }
}

/// Converts what is not there yet.
fn models(program: &Path, python: &Path, source: &Path, folder: &Path) -> Result<Models> {
    fs::create_dir_all(folder).map_err(Failure::at(folder))?;
    let models = Models { folder: folder.to_owned() };
    for format in ["f32", "f16", "q8_0"] {
        let file = models.file(&format!("{format}.gguf"));
        if !file.is_file() {
            Command::new(program).args(["convert", "--type", format]).arg(source).arg(&file).run()?;
        }
    }
    let onnx = models.file("onnx");
    if !onnx.is_file() {
        let part = onnx.with_extension("part");
        Command::new(python).args([SCRIPT, "export", "--model"]).arg(source).arg("--out").arg(&part).run()?;
        fs::rename(&part, &onnx).map_err(Failure::at(&onnx))?;
    }
    Ok(models)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(samples: &[Sample]) -> String {
    let mut table = String::from(
        "| format | threads | tokens | batch | peer | Firecrest, texts/s | peer, texts/s | ratio |\n\
         |---|---:|---:|---:|---|---:|---:|---:|\n",
    );
    for (peer, format) in PEERS {
        let mut seen = Vec::new();
        for sample in samples.iter().filter(|sample| sample.engine == peer && sample.format == format) {
            let case = (sample.threads, sample.tokens, sample.batch);
            if seen.contains(&case) {
                continue;
            }
            seen.push(case);
            let speed = |engine: &str| {
                let of = |s: &&Sample| {
                    s.engine == engine && s.format == format && (s.threads, s.tokens, s.batch) == case
                };
                median(samples.iter().filter(of).map(|sample| sample.texts_per_second).collect())
            };
            let (ours, theirs) = (speed("firecrest"), speed(peer));
            let (threads, tokens, batch) = case;
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "| {format} | {threads} | {tokens} | {batch} | {peer} | {ours:.1} | {theirs:.1} | {:.2} |",
                ours / theirs
            );
        }
    }
    table
}

fn write(
    path: &Path,
    machine: &Machine,
    versions: &Value,
    rounds: usize,
    table: &str,
    samples: &[Sample],
) -> Result {
    let firecrest = command("git", "describe --always --dirty --abbrev=12").text()?;
    let load = machine.load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
    let text = format!(
        "# Embeddings: Firecrest and others\n\n- command: `cargo xtask bench-embed --rounds {rounds}`\n\
         - processor: {}, {} threads, {}\n- load before the first measurement: {load}\n- Firecrest: {}\n\
         - peers: {versions}\n- model: all-MiniLM-L6-v2; tokens are given, texts of one length; warm-up excluded\n\
         - numbers: medians of the rounds\n\n{table}",
        machine.processor,
        machine.cores,
        machine.features.join(" "),
        firecrest.trim(),
    );
    let samples: Vec<Value> = samples
        .iter()
        .map(|s| {
            json!({"engine": s.engine, "format": s.format, "threads": s.threads, "tokens": s.tokens,
                   "batch": s.batch, "texts_per_second": s.texts_per_second})
        })
        .collect();
    let data =
        json!({"firecrest": firecrest.trim(), "peers": versions, "rounds": rounds, "samples": samples});
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Failure::at(folder))?;
    for (extension, text) in [("md", text), ("json", format!("{data:#}\n"))] {
        let path = format!("{}.{extension}", path.display());
        fs::write(&path, text).map_err(Failure::at(Path::new(&path)))?;
    }
    Ok(())
}
