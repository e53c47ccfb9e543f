//! What the command line asks for.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use super::models::Model;
use crate::shell::{Failure, Result};

/// The options, for the usage message.
pub(crate) const USAGE: &str = "\
options of bench-peers (with their defaults):
  --model smollm2-135m   models: also tinyllama-1.1b and llama-2-7b, whose weights are random
  --formats Q4_1,Q4_0,Q8_0,Q4_K_M,Q6_K   formats of the models
  --threads 1,2       thread counts
  --rounds 5          measurements of each, the two programs taking turns
  --prompt 512        tokens of the prefills; 0 for none
  --gen 128           tokens of the decodes, for each sequence; 0 for none
  --depth 0           tokens in the context before a decode
  --batch 1           sequences that are decoded together
  --isa native        or avx2: Firecrest kept to AVX2, the peer compiled for it
  --nice 0            niceness that both run at; below 0 needs root
  --name llama-cpp    the record is benchmarks/records/<date>-<name>.md and .json, with plots beside it
  --program FILE      measure this program, not the release build of this tree
  --plot FILE.json    measure nothing, draw the plots of this record again
--model, --formats, --threads, --prompt, --depth and --batch take lists. Everything, which takes hours, is
  --model smollm2-135m,tinyllama-1.1b,llama-2-7b --prompt 32,128,512,2048 --depth 0,1024,4096 --batch 1,4,16
";

/// Which instructions may be used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum InstructionSet {
    /// All that the processor has.
    Native,
    Avx2,
}

impl InstructionSet {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Avx2 => "avx2",
        }
    }
}

/// What to measure.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) models: Vec<&'static Model>,
    pub(super) formats: Vec<String>,
    pub(super) threads: Vec<usize>,
    pub(super) rounds: usize,
    pub(super) prompts: Vec<usize>,
    pub(super) generate: usize,
    pub(super) depths: Vec<usize>,
    pub(super) batches: Vec<usize>,
    pub(super) isa: InstructionSet,
    pub(super) nice: i32,
    pub(super) name: Option<String>,
    pub(super) program: Option<PathBuf>,
    /// A record to draw.
    pub(super) plot: Option<PathBuf>,
}

impl Options {
    pub(super) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            models: vec![Model::named("smollm2-135m")?],
            formats: ["Q4_1", "Q4_0", "Q8_0", "Q4_K_M", "Q6_K"].map(str::to_owned).to_vec(),
            threads: vec![1, 2],
            rounds: 5,
            prompts: vec![512],
            generate: 128,
            depths: vec![0],
            batches: vec![1],
            isa: InstructionSet::Native,
            nice: 0,
            name: None,
            program: None,
            plot: None,
        };
        let (pairs, rest) = arguments.as_chunks::<2>();
        if let [option] = rest {
            return Err(Failure::new(format!("{option} needs a value\n\n{USAGE}")));
        }
        for [option, value] in pairs {
            match option.as_str() {
                "--model" => options.models = value.split(',').map(Model::named).collect::<Result<_>>()?,
                "--formats" => options.formats = value.split(',').map(str::to_owned).collect(),
                "--threads" => options.threads = positive(option, value)?,
                "--rounds" => options.rounds = number(option, value)?,
                "--prompt" => options.prompts = numbers(option, value)?,
                "--gen" => options.generate = number(option, value)?,
                "--depth" => options.depths = numbers(option, value)?,
                "--batch" => options.batches = positive(option, value)?,
                "--isa" => {
                    options.isa = match value.as_str() {
                        "native" => InstructionSet::Native,
                        "avx2" => InstructionSet::Avx2,
                        _ => return Err(Failure::new(format!("--isa {value}: native or avx2"))),
                    };
                }
                "--nice" => options.nice = number(option, value)?,
                "--name" => options.name = Some(value.clone()),
                "--program" => options.program = Some(value.into()),
                "--plot" => options.plot = Some(value.into()),
                _ => return Err(Failure::new(format!("no option {option}\n\n{USAGE}"))),
            }
        }
        options.prompts.retain(|&tokens| tokens > 0);
        options.depths.sort_unstable();
        Ok(options)
    }

    /// The options that numbers depend on, as one would type them.
    pub(super) fn line(&self) -> String {
        let models: Vec<_> = self.models.iter().map(|model| model.name).collect();
        let prompts = if self.prompts.is_empty() { &[0][..] } else { &self.prompts };
        let mut line = format!(
            "--model {} --formats {} --threads {} --rounds {} --prompt {} --gen {} --depth {} --batch {} --isa {} \
             --nice {}",
            models.join(","),
            self.formats.join(","),
            list(&self.threads),
            self.rounds,
            list(prompts),
            self.generate,
            list(&self.depths),
            list(&self.batches),
            self.isa.name(),
            self.nice,
        );
        if let Some(program) = &self.program {
            line += &format!(" --program {}", program.display());
        }
        line
    }

    /// The name of the record.
    pub(super) fn record_name(&self) -> String {
        let default = || match self.isa {
            InstructionSet::Native => "llama-cpp".to_owned(),
            isa => format!("llama-cpp-{}", isa.name()),
        };
        self.name.clone().unwrap_or_else(default)
    }
}

fn number<T: FromStr>(option: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Failure::new(format!("{option} {value}: not a number")))
}

fn numbers(option: &str, value: &str) -> Result<Vec<usize>> {
    value.split(',').map(|value| number(option, value)).collect()
}

fn positive(option: &str, value: &str) -> Result<Vec<usize>> {
    let numbers = numbers(option, value)?;
    if numbers.contains(&0) { Err(Failure::new(format!("{option} {value}: not 0"))) } else { Ok(numbers) }
}

/// Numbers with commas between them.
pub(super) fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_parse_as_they_print() {
        let options = parse(
            "--model smollm2-135m,llama-2-7b --formats Q8_0,Q6_K --threads 4 --rounds 2 --prompt 7,512 --gen 9 \
             --depth 0,1024 --batch 1,4 --isa avx2 --nice -5 --program x",
        )
        .unwrap();
        assert_eq!((options.threads.as_slice(), options.nice), (&[4][..], -5));
        assert_eq!(parse(&options.line()).unwrap(), options);
        let options = parse("--prompt 0").unwrap();
        assert_eq!(parse(&options.line()).unwrap(), options);
        for wrong in [
            "--rounds",
            "--rounds x",
            "--threads 1,,2",
            "--threads 0",
            "--isa sse",
            "--model gpt",
            "--unknown 1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_short_run_is_the_default() {
        let options = parse("").unwrap();
        assert_eq!(
            options.line(),
            "--model smollm2-135m --formats Q4_1,Q4_0,Q8_0,Q4_K_M,Q6_K --threads 1,2 --rounds 5 --prompt 512 --gen 128 \
             --depth 0 --batch 1 --isa native --nice 0"
        );
        assert_eq!(options.record_name(), "llama-cpp");
        assert_eq!(parse("--isa avx2").unwrap().record_name(), "llama-cpp-avx2");
    }
}
