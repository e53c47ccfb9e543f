//! `cargo xtask bench-peers`: Firecrest and llama.cpp on the same files, turn by turn, into `benchmarks/records/`.

pub(crate) mod machine;
mod peer;
mod record;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::setup;
use crate::shell::{Failure, Result, Run, cargo, command, step, target_dir};
use machine::Machine;
use peer::Peer;
use record::{Engine, Record, Sample, Versions};

/// The options, for the usage message.
pub(crate) const USAGE: &str = "\
options of bench-peers (with their defaults):
  --formats Q4_1,Q4_0,Q8_0,Q4_K_M,Q6_K   formats of the model
  --threads 1,2       thread counts
  --rounds 5          measurements of each, the two programs taking turns
  --prompt 512        tokens of the prefill
  --gen 128           tokens of the decode
  --nice 0            niceness that both run at; below 0 needs root
  --name llama-cpp    the record is benchmarks/records/<date>-<name>.md and .json
  --program FILE      measure this program, not the release build of this tree
";

/// What to measure.
#[derive(Debug, PartialEq)]
struct Options {
    formats: Vec<String>,
    threads: Vec<usize>,
    rounds: usize,
    prompt: usize,
    generate: usize,
    nice: i32,
    name: String,
    program: Option<PathBuf>,
}

/// A model file and a number of threads.
struct Case {
    format: String,
    model: PathBuf,
    threads: usize,
}

pub(crate) fn run(arguments: &[String]) -> Result {
    let options = Options::parse(arguments)?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => step("build Firecrest", build)?,
    };
    let peer = step("build the peer", Peer::prepare)?;
    let described = peer.describe()?;
    let models = step("quantize models", || models(&options, &peer))?;
    let machine = Machine::read();
    if machine.load.is_some_and(|load| load > 0.5) {
        eprintln!("xtask: other programs keep this machine busy: the numbers will say little");
    }
    let mut record = Record {
        versions: Versions::read(options.program.is_none(), &described)?,
        machine,
        command: format!("cargo xtask bench-peers {}", options.line()),
        samples: Vec::new(),
        kernels: Vec::new(),
    };

    let cases: Vec<Case> = models
        .iter()
        .flat_map(|(format, model)| {
            let case = |&threads| Case { format: format.clone(), model: model.clone(), threads };
            options.threads.iter().map(case)
        })
        .collect();
    step("measure", || {
        for round in 0..options.rounds {
            for case in &cases {
                eprintln!(
                    "round {} of {}: {}, {} threads",
                    round + 1,
                    options.rounds,
                    case.format,
                    case.threads
                );
                // What runs second finds a warmer machine: that alternates too.
                let mut order = [Engine::Firecrest, Engine::Peer];
                order.rotate_left(round % 2);
                for engine in order {
                    let command = match engine {
                        Engine::Firecrest => options.firecrest(&program, case),
                        Engine::Peer => options.peer(&peer, case),
                    };
                    let output = json(command)?;
                    record.samples.extend(options.samples(engine, case, round, &output)?);
                    if engine == Engine::Firecrest && round == 0 {
                        record.kernels.push((case.format.clone(), output["kernels"].clone()));
                    }
                }
            }
        }
        Ok(())
    })?;

    let date = described["date"].as_str().unwrap_or("undated");
    let path = Path::new("benchmarks/records").join(format!("{date}-{}", options.name));
    record.write(&path)?;
    println!("{}", record.table());
    eprintln!("written to {}.md and .json", path.display());
    Ok(())
}

/// Builds the program as users get it.
pub(crate) fn build() -> Result<PathBuf> {
    cargo("build --release --locked --package firecrest-cli").run()?;
    Ok(target_dir()?.join("release").join(format!("firecrest{}", std::env::consts::EXE_SUFFIX)))
}

/// Returns the model in each format; the peer itself makes those that are not there.
fn models(options: &Options, peer: &Peer) -> Result<Vec<(String, PathBuf)>> {
    let source = setup::test_model().map_err(Failure::new)?;
    let formats = options.formats.iter();
    formats.map(|format| Ok((format.clone(), peer.quantized(&source, format)?))).collect()
}

/// Runs a command that prints JSON.
pub(crate) fn json(mut command: Command) -> Result<Value> {
    let text = command.text()?;
    serde_json::from_str(&text).map_err(|error| Failure::new(format!("{command:?} prints no JSON: {error}")))
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            formats: ["Q4_1", "Q4_0", "Q8_0", "Q4_K_M", "Q6_K"].map(str::to_owned).to_vec(),
            threads: vec![1, 2],
            rounds: 5,
            prompt: 512,
            generate: 128,
            nice: 0,
            name: "llama-cpp".to_owned(),
            program: None,
        };
        let (pairs, rest) = arguments.as_chunks::<2>();
        if let [option] = rest {
            return Err(Failure::new(format!("{option} needs a value\n\n{USAGE}")));
        }
        for [option, value] in pairs {
            let bad = |_| Failure::new(format!("{option} {value}: not a number"));
            match option.as_str() {
                "--formats" => options.formats = value.split(',').map(str::to_owned).collect(),
                "--threads" => {
                    options.threads =
                        value.split(',').map(|n| n.parse().map_err(bad)).collect::<Result<_>>()?;
                }
                "--rounds" => options.rounds = value.parse().map_err(bad)?,
                "--prompt" => options.prompt = value.parse().map_err(bad)?,
                "--gen" => options.generate = value.parse().map_err(bad)?,
                "--nice" => options.nice = value.parse().map_err(bad)?,
                "--name" => options.name = value.clone(),
                "--program" => options.program = Some(value.into()),
                _ => return Err(Failure::new(format!("no option {option}\n\n{USAGE}"))),
            }
        }
        Ok(options)
    }

    /// The options that numbers depend on, as one would type them.
    fn line(&self) -> String {
        let Self { formats, threads, rounds, prompt, generate, nice, program, .. } = self;
        let threads: Vec<_> = threads.iter().map(usize::to_string).collect();
        let (formats, threads) = (formats.join(","), threads.join(","));
        let program = program.as_ref().map(|program| format!(" --program {}", program.display()));
        let program = program.unwrap_or_default();
        format!(
            "--formats {formats} --threads {threads} --rounds {rounds} --prompt {prompt} --gen {generate} \
             --nice {nice}{program}"
        )
    }

    /// A command, at the niceness asked for.
    fn nice(&self, program: &Path) -> Command {
        if self.nice == 0 {
            return Command::new(program);
        }
        let mut nice = command("nice", "-n");
        nice.arg(self.nice.to_string()).arg(program);
        nice
    }

    fn firecrest(&self, program: &Path, case: &Case) -> Command {
        let mut command = self.nice(program);
        command
            .arg("bench")
            .arg("--model")
            .arg(&case.model)
            .args(self.sizes(case))
            .args(["--repeat", "1", "--json"]);
        command
    }

    fn peer(&self, peer: &Peer, case: &Case) -> Command {
        let mut command = self.nice(&peer.python());
        command.arg(peer::SCRIPT).arg("bench").arg("--model").arg(&case.model).args(self.sizes(case));
        command
    }

    fn sizes(&self, case: &Case) -> [String; 6] {
        let Self { prompt, generate, .. } = self;
        let threads = case.threads;
        ["--prompt", &prompt.to_string(), "--gen", &generate.to_string(), "--threads", &threads.to_string()]
            .map(str::to_owned)
    }

    /// Takes what was asked for out of a program's output.
    fn samples(&self, engine: Engine, case: &Case, round: usize, output: &Value) -> Result<[Sample; 2]> {
        let sample = |test: &'static str, tokens: usize| {
            let results = output["results"].as_array().map_or(&[][..], Vec::as_slice);
            let wanted = |result: &&Value| {
                result["test"] == test && result["tokens"] == tokens && result["threads"] == case.threads
            };
            let speed =
                results.iter().find(wanted).and_then(|result| result["tokens_per_second"]["median"].as_f64());
            let speed = speed.filter(|speed| speed.is_finite() && *speed > 0.0);
            let tokens_per_second = speed.ok_or_else(|| {
                Failure::new(format!("{engine} reports no {test} of {tokens} tokens: {output}"))
            })?;
            let format = case.format.clone();
            Ok(Sample { engine, format, threads: case.threads, test, round, tokens_per_second })
        };
        Ok([sample("prefill", self.prompt)?, sample("decode", self.generate)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_parse_as_they_print() {
        let options =
            parse("--formats Q8_0,Q6_K --threads 4 --rounds 2 --prompt 7 --gen 9 --nice -5 --program x")
                .unwrap();
        assert_eq!((options.threads.as_slice(), options.nice), (&[4][..], -5));
        assert_eq!(parse(&options.line()).unwrap(), options);
        for wrong in ["--rounds", "--rounds x", "--threads 1,,2", "--unknown 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_result_for_other_threads_is_not_taken() {
        let options = parse("").unwrap();
        let case = |threads| Case { format: "Q4_0".into(), model: PathBuf::new(), threads };
        let output = serde_json::json!({"results": [
            {"test": "prefill", "tokens": 512, "threads": 1, "tokens_per_second": {"median": 100.0}},
            {"test": "decode", "tokens": 128, "threads": 1, "tokens_per_second": {"median": 10.0}},
        ]});
        let speeds = options.samples(Engine::Peer, &case(1), 0, &output).unwrap();
        assert_eq!(speeds.map(|sample| sample.tokens_per_second), [100.0, 10.0]);
        assert!(options.samples(Engine::Peer, &case(2), 0, &output).is_err());
    }
}
