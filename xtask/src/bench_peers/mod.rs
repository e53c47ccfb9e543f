//! `cargo xtask bench-peers`: Firecrest and llama.cpp on the same files, turn by turn, into `benchmarks/records/`.

mod charts;
pub(crate) mod machine;
mod models;
mod options;
mod peer;
mod plot;
mod record;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::shell::{Failure, Result, Run, cargo, command, step, target_dir};
use machine::Machine;
use models::Model;
pub(crate) use options::USAGE;
use options::{InstructionSet, Options, list};
use peer::Peer;
use record::{Case, Engine, Record, Sample, Test, Versions};

/// What one process measures, of either program.
struct Job {
    format: String,
    file: PathBuf,
    threads: usize,
    work: Work,
    /// What its output must hold.
    cases: Vec<Case>,
}

/// The tests of a job.
#[derive(Clone, Debug, PartialEq)]
enum Work {
    Prefill {
        tokens: usize,
    },
    /// Every depth with every batch.
    Decode {
        tokens: usize,
        depths: Vec<usize>,
        batches: Vec<usize>,
    },
}

pub(crate) fn run(arguments: &[String]) -> Result {
    let options = Options::parse(arguments)?;
    if let Some(record) = &options.plot {
        return record::redraw(record);
    }
    let program = match &options.program {
        Some(program) => program.clone(),
        None => step("build Firecrest", build)?,
    };
    let peer = step("build the peer", || Peer::prepare(options.isa))?;
    let described = peer.describe()?;
    let machine = Machine::read();
    let jobs = step("make models", || jobs(&options, &program, &peer, machine.memory_gib))?;
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
    step("measure", || {
        for round in 0..options.rounds {
            for job in &jobs {
                eprintln!("round {} of {}: {}", round + 1, options.rounds, job.name());
                // What runs second finds a warmer machine: that alternates too.
                let mut order = [Engine::Firecrest, Engine::Peer];
                order.rotate_left(round % 2);
                for engine in order {
                    let output = json(options.command(engine, job, &program, &peer))?;
                    record.samples.extend(job.samples(engine, round, &output)?);
                    if engine == Engine::Firecrest {
                        record.add_kernels(&job.cases, &output["kernels"]);
                    }
                }
            }
        }
        Ok(())
    })?;

    let date = described["date"].as_str().unwrap_or("undated");
    let path = Path::new("benchmarks/records").join(format!("{date}-{}", options.record_name()));
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

/// Runs a command that prints JSON.
pub(crate) fn json(mut command: Command) -> Result<Value> {
    let text = command.text()?;
    serde_json::from_str(&text).map_err(|error| Failure::new(format!("{command:?} prints no JSON: {error}")))
}

/// Everything to measure, with files that are there.
fn jobs(options: &Options, program: &Path, peer: &Peer, memory_gib: Option<f64>) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for model in &options.models {
        let works = works(options, model, memory_gib);
        for asked in &options.formats {
            let format = model.format(asked);
            let file = model.file(format, program, peer)?;
            for &threads in &options.threads {
                for work in works.iter().cloned() {
                    let (format, file) = (format.to_owned(), file.clone());
                    let cases = work.cases(model, &format, threads);
                    jobs.push(Job { format, file, threads, work, cases });
                }
            }
        }
    }
    Ok(jobs)
}

/// The processes that measure a model in one format on so many threads.
fn works(options: &Options, model: &Model, memory_gib: Option<f64>) -> Vec<Work> {
    let mut works: Vec<_> = options.prompts.iter().map(|&tokens| Work::Prefill { tokens }).collect();
    if options.generate == 0 {
        return works;
    }
    for &batch in &options.batches {
        let fits = |depth: &usize| model.cache_fits(batch, depth + options.generate, memory_gib);
        let fitting: Vec<usize> = options.depths.iter().copied().filter(fits).collect();
        if fitting.len() < options.depths.len() {
            let (name, all) = (model.name, list(&options.depths));
            eprintln!("{name}, {batch} sequences: of the depths {all}, memory allows {}", list(&fitting));
        }
        match works.last_mut() {
            // A long context is read once for all that begins with it.
            Some(Work::Decode { depths, batches, .. }) if *depths == fitting => batches.push(batch),
            _ if fitting.is_empty() => {}
            _ => works.push(Work::Decode { tokens: options.generate, depths: fitting, batches: vec![batch] }),
        }
    }
    works
}

impl Work {
    fn cases(&self, model: &Model, format: &str, threads: usize) -> Vec<Case> {
        let case = |test, tokens, depth, batch| Case {
            model: model.name.to_owned(),
            format: format.to_owned(),
            threads,
            test,
            tokens,
            depth,
            batch,
        };
        match self {
            Work::Prefill { tokens } => vec![case(Test::Prefill, *tokens, 0, 1)],
            Work::Decode { tokens, depths, batches } => {
                let of_depth = |&depth| {
                    let of_batch = move |&batch| case(Test::Decode, *tokens, depth, batch);
                    batches.iter().map(of_batch)
                };
                depths.iter().flat_map(of_depth).collect()
            }
        }
    }

    /// The options of both programs that ask for it.
    fn arguments(&self) -> Vec<String> {
        let words = |line: String| line.split(' ').map(str::to_owned).collect();
        match self {
            Work::Prefill { tokens } => words(format!("--prompt {tokens} --gen 0")),
            Work::Decode { tokens, depths, batches } => {
                let mut arguments: Vec<_> =
                    words(format!("--prompt 0 --gen {tokens} --depth {}", list(depths)));
                if batches[..] != [1] {
                    arguments.extend(["--batch".to_owned(), list(batches)]);
                }
                arguments
            }
        }
    }
}

impl Job {
    fn name(&self) -> String {
        let model = self.cases.first().map_or("", |case| case.model.as_str());
        let (threads, work) = (self.threads, self.work.arguments().join(" "));
        format!("{model} {}, {threads} threads, {work}", self.format)
    }

    /// Takes what was asked for out of a program's output.
    fn samples(&self, engine: Engine, round: usize, output: &Value) -> Result<Vec<Sample>> {
        let results = output["results"].as_array().map_or(&[][..], Vec::as_slice);
        let sample = |case: &Case| {
            let wanted = |result: &&Value| {
                result["test"] == case.test.name()
                    && result["tokens"] == case.tokens
                    && result["depth"] == case.depth
                    && result["batch"] == case.batch
                    && result["threads"] == case.threads
            };
            let speed =
                results.iter().find(wanted).and_then(|result| result["tokens_per_second"]["median"].as_f64());
            let speed = speed.filter(|speed| speed.is_finite() && *speed > 0.0);
            let tokens_per_second =
                speed.ok_or_else(|| Failure::new(format!("{engine} reports no {case:?}: {output}")))?;
            Ok(Sample { engine, case: case.clone(), round, tokens_per_second })
        };
        self.cases.iter().map(sample).collect()
    }
}

impl Options {
    fn command(&self, engine: Engine, job: &Job, program: &Path, peer: &Peer) -> Command {
        let mut command = match engine {
            Engine::Firecrest => self.nice(program),
            Engine::Peer => self.nice(&peer.python()),
        };
        match engine {
            Engine::Firecrest => {
                if self.isa == InstructionSet::Avx2 {
                    command.env("FIRECREST_ISA", "avx2");
                }
                command.args(["bench", "--repeat", "1", "--json"]);
            }
            Engine::Peer => {
                command.args([peer::SCRIPT, "bench"]);
            }
        }
        command.arg("--model").arg(&job.file).args(["--threads", &job.threads.to_string()]);
        command.args(job.work.arguments());
        command
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_result_for_other_threads_is_not_taken() {
        let work = Work::Decode { tokens: 128, depths: vec![0, 64], batches: vec![1] };
        let job = |threads| Job {
            format: "Q4_0".into(),
            file: PathBuf::new(),
            threads,
            work: work.clone(),
            cases: work.cases(Model::named("smollm2-135m").unwrap(), "Q4_0", threads),
        };
        let result = |depth, speed| {
            serde_json::json!({"test": "decode", "tokens": 128, "depth": depth, "batch": 1, "threads": 1,
                               "tokens_per_second": {"median": speed}})
        };
        let output = serde_json::json!({"results": [result(64, 9.0), result(0, 10.0)]});
        let samples = job(1).samples(Engine::Peer, 0, &output).unwrap();
        assert_eq!([samples[0].tokens_per_second, samples[1].tokens_per_second], [10.0, 9.0]);
        assert!(job(2).samples(Engine::Peer, 0, &output).is_err());
    }

    #[test]
    fn what_does_not_fit_into_memory_is_left_out() {
        let options = parse("--prompt 32,512 --depth 0,1024,4096 --batch 1,4,16");
        let decode = |depths: &[usize], batches: &[usize]| Work::Decode {
            tokens: 128,
            depths: depths.to_vec(),
            batches: batches.to_vec(),
        };
        let prefills = [32, 512].map(|tokens| Work::Prefill { tokens });
        let small = works(&options, Model::named("smollm2-135m").unwrap(), Some(24.0));
        assert_eq!(small, [&prefills[..], &[decode(&[0, 1024, 4096], &[1, 4, 16])]].concat());
        let large = works(&options, Model::named("llama-2-7b").unwrap(), Some(24.0));
        let decodes = [decode(&[0, 1024, 4096], &[1]), decode(&[0, 1024], &[4]), decode(&[0], &[16])];
        assert_eq!(large, [&prefills[..], &decodes].concat());
        assert_eq!(decodes[0].arguments().join(" "), "--prompt 0 --gen 128 --depth 0,1024,4096");
        assert!(works(&parse("--prompt 0 --gen 0"), Model::named("llama-2-7b").unwrap(), None).is_empty());
    }
}
