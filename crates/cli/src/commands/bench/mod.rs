//! `firecrest bench`: speed of reading a prompt, of generating, and of embedding.

mod busy;
mod limits;
mod synthetic;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use firecrest::backend::{Activations, CpuOptions, IsaKind, KvFormat};
use firecrest::generate::{ForwardError, LanguageModel};
use firecrest::gguf::Gguf;
use firecrest::nn::{BatchDecoder, BatchError, SequenceId};
use firecrest::sparse::SparsityLevel;
use firecrest::{ContextOptions, Decoder, EmbeddingModel, Model};
use serde::Serialize;

use crate::failure::{OrFail, Outcome};
use crate::interrupt::Interrupt;
use crate::kernels::Kernels;
use crate::machine::Machine;
use crate::options::{ModelArgs, ThreadCount, kv_format, thread_count, with_levels};
use crate::output::{self, printable};
use crate::units;
use busy::Busy;
use limits::Limits;
use synthetic::Synthetic;

/// The least that an embedding is measured for.
const MIN_SECONDS: f64 = 0.2;

/// Measures speed: prefill reads a prompt at once, decode generates token after token, embed makes vectors of texts.
///
/// Each test warms up first and is then repeated; the median, the slowest and the fastest run are told. Tokens are random.
///
/// With --json: {"results": [{"test": "prefill"|"decode"|"embed", "tokens": n, "depth": n, "batch": n, "threads": n,
/// "tokens_per_second": {"median": x, "min": x, "max": x}}, …], "model": {…}, "machine": {…}, "kernels": {format:
/// {"decode": …, "prefill": …}}}.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest bench
  firecrest bench -m model.gguf --prompt 512 --gen 128 --threads 1,2,4 --json
  firecrest bench --synthetic llama-2-7b:q4_0 --prompt 64 --gen 16 --repeat 2
  firecrest bench --limits --threads 1,2
  firecrest bench --prompt 0 --gen 64 --depth 0,1024 --batch 1,4,16
  firecrest bench -m all-minilm-l6-v2 --embed 16,64,256 --batch 1,32")]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A model of this shape with random weights instead, which needs no download: tiny-5m, smollm2-135m,
    /// tinyllama-1.1b, llama-2-7b, or the same with ReLU and one in ten neurons that fire, as llama-2-7b-relu, or as
    /// llama-2-7b-powerinfer with predictors; with any tensor format, as in tinyllama-1.1b:q4_k.
    #[arg(long, value_name = "SHAPE:FORMAT", conflicts_with = "model")]
    synthetic: Option<Synthetic>,
    /// Write the synthetic model to a GGUF file, for other programs to measure, and do nothing else.
    #[arg(long, value_name = "FILE", requires = "synthetic")]
    write: Option<PathBuf>,
    /// Tokens of the prompt; 0 leaves the test out.
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens to generate; 0 leaves the test out.
    #[arg(long = "gen", value_name = "N", default_value_t = 128)]
    generate: usize,
    /// Measure an embedding model instead: tokens of a text.
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with_all = ["synthetic", "depth", "kv_format", "sparsity", "limits"], value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    embed: Vec<usize>,
    /// Sequences that are decoded together, each with a context of its own [default: 1]; with --embed, texts that are
    /// embedded together [default: 32]
    #[arg(long, value_name = "N,…", value_delimiter = ',',
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    batch: Vec<usize>,
    /// Tokens in the context before the test begins.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Threads [default: the physical cores]
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', value_parser = thread_count())]
    threads: Vec<ThreadCount>,
    /// Runs of each test.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    repeat: usize,
    /// Number format of cached keys and values [default: f16]
    #[arg(long, value_name = "FORMAT", value_parser = kv_format())]
    kv_format: Option<KvFormat>,
    /// How much of the model is computed when decoding: off, exact, balanced, fast, or another measured level
    /// [default: exact where it loses nothing]
    #[arg(long, value_name = "LEVEL")]
    sparsity: Option<SparsityLevel>,
    /// Threads that keep as many processors busy meanwhile, as another program would.
    #[arg(long, value_name = "N", default_value_t = 0)]
    busy: usize,
    /// Also measure what the machine can do at best, and tell how close kernels and model come.
    #[arg(long)]
    limits: bool,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    results: Vec<Measured>,
    model: ModelInfo,
    machine: Machine,
    kernels: BTreeMap<&'static str, Kernels>,
    /// Threads that did something else meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    busy: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

#[derive(Serialize)]
struct Measured {
    test: Test,
    tokens: usize,
    /// Tokens in the context before.
    depth: usize,
    /// Sequences at once.
    batch: usize,
    threads: usize,
    tokens_per_second: Spread,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Test {
    Prefill,
    Decode,
    Embed,
}

impl Test {
    fn name(self) -> &'static str {
        match self {
            Test::Prefill => "prefill",
            Test::Decode => "decode",
            Test::Embed => "embed",
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

#[derive(Serialize)]
struct ModelInfo {
    name: String,
    /// Null for a synthetic model.
    file: Option<PathBuf>,
    architecture: String,
    bytes: u64,
    parameters: u64,
    /// Bytes of the tensors of each format.
    formats: BTreeMap<&'static str, u64>,
}

impl BenchArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        if let (Some(synthetic), Some(path)) = (&self.synthetic, &self.write) {
            return synthetic.write(path);
        }
        let isa = CpuOptions::default().isa()?;
        let name = self.synthetic.as_ref().map_or_else(|| self.model.model.clone(), Synthetic::to_string);
        let report = |gguf: &Gguf, results, limits| Report {
            results,
            machine: Machine::detect(isa.name()),
            kernels: kernels(gguf, isa),
            model: ModelInfo::of(gguf, name),
            busy: (self.busy > 0).then_some(self.busy),
            limits,
        };
        let report = if self.embed.is_empty() {
            let model = match &self.synthetic {
                Some(synthetic) => synthetic.build()?,
                None => with_levels(&self.model.path(interrupt)?, self.sparsity.as_ref())?,
            };
            let busy = Busy::start(self.busy)?;
            let results = self.measure(&model)?;
            drop(busy);
            let limits = self.limits.then(|| Limits::measure(&model, isa, &results));
            report(model.gguf(), results, limits)
        } else {
            let gguf = self.model.gguf(interrupt)?;
            let _busy = Busy::start(self.busy)?;
            report(&gguf, self.measure_embedding(&gguf)?, None)
        };
        if self.json { output::json(&report) } else { report.print() }
    }

    /// The thread counts to measure with; `None` is the default.
    fn threads(&self) -> Vec<Option<ThreadCount>> {
        match self.threads.is_empty() {
            true => vec![None],
            false => self.threads.iter().copied().map(Some).collect(),
        }
    }

    fn batches(&self, default: usize) -> Vec<usize> {
        if self.batch.is_empty() { vec![default] } else { self.batch.clone() }
    }

    fn measure_embedding(&self, gguf: &Gguf) -> Outcome<Vec<Measured>> {
        let mut results = Vec::new();
        for threads in self.threads() {
            let mut cpu = CpuOptions::default();
            cpu.threads = threads;
            let model = EmbeddingModel::from_gguf(gguf, &cpu).or_fail(|| "can't load the model".into())?;
            for &tokens in &self.embed {
                for batch in self.batches(32) {
                    let ids = random_tokens(tokens.saturating_mul(batch), model.tokenizer().vocab_size());
                    let texts: Vec<&[u32]> = ids.chunks(tokens.max(1)).collect();
                    let run = || -> Outcome<f64> {
                        // Long enough for the clock: what takes a second is done once.
                        let started = Instant::now();
                        let mut done = 0;
                        while done == 0 || started.elapsed().as_secs_f64() < MIN_SECONDS {
                            model.encode_batch(&texts).or_fail(|| "can't embed".into())?;
                            done += ids.len();
                        }
                        Ok(done as f64 / started.elapsed().as_secs_f64())
                    };
                    run()?;
                    let speeds = (0..self.repeat).map(|_| run()).collect::<Outcome<_>>()?;
                    results.push(Measured {
                        test: Test::Embed,
                        tokens,
                        depth: 0,
                        batch,
                        threads: model.threads(),
                        tokens_per_second: Spread::of(speeds),
                    });
                }
            }
        }
        Ok(results)
    }

    fn measure(&self, model: &Model) -> Outcome<Vec<Measured>> {
        let depth = self.depth.iter().copied().max().unwrap_or(0);
        let capacity = depth.checked_add(self.prompt.max(self.generate).max(1));
        let mut results = Vec::new();
        for threads in self.threads() {
            let mut options = ContextOptions::default();
            options.capacity = Some(capacity.unwrap_or(usize::MAX));
            options.cpu.threads = threads;
            options.kv_format = self.kv_format.unwrap_or_default();
            options.sparsity = self.sparsity.clone().unwrap_or_default();
            let no_memory = || String::from("can't make a context");
            let mut decoder = model.decoder(&options).or_fail(no_memory)?;
            // As an answer without sampling would be written.
            decoder.set_greedy(true);
            let threads = decoder.threads();
            for &depth in &self.depth {
                let mut add = |test, tokens, batch, tokens_per_second| {
                    results.push(Measured { test, tokens, depth, batch, threads, tokens_per_second });
                };
                if self.prompt > 0 {
                    let speeds = self.repeat(Test::Prefill, &mut decoder, depth, self.prompt)?;
                    add(Test::Prefill, self.prompt, 1, speeds);
                }
                for batch in self.batches(1) {
                    let speeds = match (self.generate, batch) {
                        (0, _) => continue,
                        (tokens, 1) => self.repeat(Test::Decode, &mut decoder, depth, tokens)?,
                        (tokens, _) => {
                            let mut decoder = model.batch_decoder(&options, batch).or_fail(no_memory)?;
                            self.repeat_batch(&mut decoder, batch, depth, tokens)?
                        }
                    };
                    add(Test::Decode, self.generate, batch, speeds);
                }
            }
        }
        Ok(results)
    }

    /// The speeds of all runs after one that warms up memory, caches and threads.
    fn repeat(&self, test: Test, decoder: &mut Decoder, depth: usize, tokens: usize) -> Outcome<Spread> {
        let vocab = decoder.vocab_size();
        decoder.truncate(0);
        if depth > 0 {
            decoder.submit(&random_tokens(depth, vocab))?;
        }
        let tokens = random_tokens(tokens, vocab);
        let mut speeds = Vec::with_capacity(self.repeat);
        // A whole prompt, as its size decides how much memory is touched; tokens one by one are all alike.
        let warm_up = if test == Test::Prefill { tokens.len() } else { tokens.len().min(20) };
        run_once(test, decoder, depth, &tokens[..warm_up])?;
        for _ in 0..self.repeat {
            speeds.push(run_once(test, decoder, depth, &tokens)?);
        }
        Ok(Spread::of(speeds))
    }

    /// As [`BenchArgs::repeat`], for decoding of sequences that share nothing.
    fn repeat_batch(
        &self,
        decoder: &mut BatchDecoder,
        batch: usize,
        depth: usize,
        tokens: usize,
    ) -> Result<Spread, BatchError> {
        let prompt = random_tokens(depth, decoder.vocab_size());
        let sequences: Vec<_> = (0..batch).map(|_| decoder.add()).collect();
        for &id in sequences.iter().filter(|_| depth > 0) {
            decoder.submit(&[(id, &prompt)])?;
        }
        let tokens = random_tokens(tokens, decoder.vocab_size());
        decode_batch(decoder, &sequences, depth, &tokens[..tokens.len().min(20)])?;
        let runs = (0..self.repeat).map(|_| decode_batch(decoder, &sequences, depth, &tokens));
        Ok(Spread::of(runs.collect::<Result<_, _>>()?))
    }
}

/// Tokens per second of all sequences together, of one run after `depth` tokens.
fn decode_batch(
    decoder: &mut BatchDecoder,
    sequences: &[SequenceId],
    depth: usize,
    tokens: &[u32],
) -> Result<f64, BatchError> {
    for &id in sequences {
        decoder.truncate(id, depth)?;
    }
    let started = Instant::now();
    for token in tokens.chunks(1) {
        let batch: Vec<_> = sequences.iter().map(|&id| (id, token)).collect();
        decoder.submit(&batch)?;
    }
    Ok((tokens.len() * sequences.len()) as f64 / started.elapsed().as_secs_f64())
}

/// Tokens per second of one run after `depth` tokens.
fn run_once(test: Test, decoder: &mut Decoder, depth: usize, tokens: &[u32]) -> Result<f64, ForwardError> {
    decoder.truncate(depth);
    let started = Instant::now();
    let step = match test {
        Test::Prefill => tokens.len(),
        Test::Decode | Test::Embed => 1,
    };
    for tokens in tokens.chunks(step) {
        decoder.submit(tokens)?;
        decoder.logits()?;
    }
    Ok(tokens.len() as f64 / started.elapsed().as_secs_f64())
}

/// The same tokens every time, spread over the vocabulary (a linear congruential generator, Knuth's constants).
fn random_tokens(count: usize, vocab: usize) -> Vec<u32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab as u64) as u32
    };
    (0..count).map(|_| next()).collect()
}

fn kernels(gguf: &Gguf, isa: IsaKind) -> BTreeMap<&'static str, Kernels> {
    let named = gguf.tensors().iter().filter_map(|tensor| {
        Some((tensor.format.name(), Kernels::of(gguf, tensor, isa, Activations::default())?))
    });
    named.collect()
}

impl Spread {
    /// The median is the mean of the middle two where there is no middle one.
    fn of(mut speeds: Vec<f64>) -> Self {
        speeds.sort_by(f64::total_cmp);
        let (first, last) = (speeds.len().saturating_sub(1) / 2, speeds.len() / 2);
        let at = |i: usize| speeds.get(i).copied().unwrap_or(f64::NAN);
        Self { median: (at(first) + at(last)) / 2.0, min: at(0), max: at(speeds.len().saturating_sub(1)) }
    }
}

impl ModelInfo {
    fn of(gguf: &Gguf, name: String) -> Self {
        let mut formats = BTreeMap::new();
        for tensor in gguf.tensors() {
            *formats.entry(tensor.format.name()).or_default() += tensor.data_bytes() as u64;
        }
        Self {
            name,
            file: gguf.paths().next().map(PathBuf::from),
            architecture: gguf.metadata().architecture().unwrap_or_default().to_owned(),
            bytes: gguf.file_bytes(),
            parameters: gguf.parameters(),
            formats,
        }
    }
}

impl Report {
    fn print(&self) -> Outcome {
        let mut out = output::stdout();
        let Self { model, machine, .. } = self;
        let size = units::bytes(model.bytes);
        writeln!(out, "{}: {size}, {} parameters", printable(&model.name), units::count(model.parameters))?;
        writeln!(out, "{machine}")?;
        let mut rows: Vec<Vec<String>> = vec![
            ["test", "tokens", "depth", "batch", "threads", "tokens/s", "min", "max"]
                .map(String::from)
                .into(),
        ];
        rows.extend(self.results.iter().map(|result| {
            let Spread { median, min, max } = result.tokens_per_second;
            let counts = [result.tokens, result.depth, result.batch, result.threads].map(|n| n.to_string());
            let speeds = [median, min, max].map(|speed| format!("{speed:.2}"));
            [result.test.name().to_owned()].into_iter().chain(counts).chain(speeds).collect()
        }));
        output::table(&mut out, &rows, &[1, 2, 3, 4, 5, 6, 7])?;
        if let Some(limits) = &self.limits {
            limits.print(&mut out)?;
        }
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(vec![7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn random_tokens_are_in_the_vocabulary_and_always_the_same() {
        let tokens = random_tokens(1000, 10);
        assert!((0..10).all(|id| tokens.contains(&id)) && tokens.iter().all(|&id| id < 10));
        assert_eq!(tokens, random_tokens(1000, 10));
    }
}
