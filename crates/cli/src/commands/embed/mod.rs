//! `firecrest embed`: texts to vectors.

mod job;
mod parquet;
mod sink;
mod source;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use firecrest::embed::{EmbedOptions, Embedding, EmbeddingModel, Pooling};
use firecrest::generate::CancelToken;
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::options::{EmbedArgs, EmbedderArgs};
use crate::output;
use job::Job;
use sink::OutputFormat;
use source::{InputFormat, Source};

/// Texts and bytes of text that are computed together: a second or so of work, which is also how long Ctrl-C may take.
const BATCH_TEXTS: usize = 256;
const BATCH_BYTES: usize = 1 << 16;

/// Turns texts into vectors.
///
/// Texts are arguments, lines of standard input, or a column of a file (.jsonl, .csv, .parquet; the lines of any other).
/// Each becomes a line {"index": n, "embedding": […], "tokens": n, "truncated": false}, a row of a table with these columns
/// (.parquet), or a row of a NumPy array (.npy).
///
/// With --output, a job that is broken off, also by Ctrl-C or a crash, goes on where it stopped when the same command is
/// run again; the file gets its name when it is whole.
#[derive(Args, Debug)]
#[command(
    name = "embed",
    after_help = "\
Examples:
  firecrest embed \"Hello, world\"
  firecrest embed --input articles.jsonl --column body --output articles.npy
  cut -f2 table.tsv | firecrest embed --role document > vectors.jsonl
  firecrest embed -m nomic-embed-text-v1.5.f16.gguf --role query --dimensions 256 \"a search\""
)]
pub(crate) struct EmbedCommand {
    /// Texts; standard input is read, a text a line, where neither these nor --input is given.
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Read texts from a file; - is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "texts")]
    input: Option<PathBuf>,
    /// What the input is [default: by its name; lines]
    #[arg(long, value_name = "FORMAT", conflicts_with = "texts", value_parser = input_format())]
    input_format: Option<InputFormat>,
    /// The column of a JSONL, CSV or Parquet input that has the texts.
    #[arg(long, value_name = "NAME", default_value = "text")]
    column: String,
    /// Write to a file.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write [default: by the name of the output; jsonl]
    #[arg(long, value_name = "FORMAT", value_parser = output_format())]
    format: Option<OutputFormat>,
    /// Go on with a job that was broken off; so without this option too.
    #[arg(long, requires = "output")]
    resume: bool,
    /// Begin anew, whatever an earlier job left.
    #[arg(long, requires = "output", conflicts_with = "resume")]
    restart: bool,
    #[command(flatten)]
    model: EmbedderArgs,
    #[command(flatten)]
    embed: EmbedArgs,
}

fn input_format() -> impl TypedValueParser<Value = InputFormat> {
    PossibleValuesParser::new(["lines", "jsonl", "csv", "parquet"]).map(|name| match name.as_str() {
        "jsonl" => InputFormat::Jsonl,
        "csv" => InputFormat::Csv,
        "parquet" => InputFormat::Parquet,
        _ => InputFormat::Lines,
    })
}

fn output_format() -> impl TypedValueParser<Value = OutputFormat> {
    PossibleValuesParser::new(["jsonl", "npy", "parquet"]).map(|name| match name.as_str() {
        "npy" => OutputFormat::Npy,
        "parquet" => OutputFormat::Parquet,
        _ => OutputFormat::Jsonl,
    })
}

/// Everything found, checked and loaded.
struct Plan {
    source: Source,
    /// Bytes of the input, where that is known.
    total: Option<u64>,
    model: EmbeddingModel,
    options: EmbedOptions,
    /// The length of a token's vector, where there is one for each token.
    each: Option<usize>,
}

impl EmbedCommand {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let format =
            self.format.or(self.output.as_deref().map(OutputFormat::of)).unwrap_or(OutputFormat::Jsonl);
        if format != OutputFormat::Jsonl && self.output.is_none() {
            return Err(Failure::Usage("an array or a table needs a file: name it with --output".into()));
        }
        let (source, total) = self.source()?;
        let (model, path) = self.model.load(interrupt)?;
        let options = self.embed.options();
        let pooling = options.pooling.unwrap_or(model.pooling());
        let columns = options.dimensions.unwrap_or(model.dimension());
        let each = (pooling == Pooling::None).then_some(columns);
        if format != OutputFormat::Jsonl && matches!(pooling, Pooling::None | Pooling::Rank) {
            return Err(Failure::Usage(
                "an array or a table has one vector a text: write JSON lines, or use --pooling".into(),
            ));
        }
        let plan = Plan { source, total, model, options, each };
        let cancel = interrupt.arm();
        let Some(out) = &self.output else { return plan.print(&cancel) };
        let options = format!("{:?}, column {:?}", plan.options, self.column);
        let description = job::describe(&path, &options, self.input.as_deref(), format);
        let job = Job::open(out, &description, format, columns, self.restart)?;
        plan.fill(job, &cancel)
    }

    /// The texts, and the bytes of the file that they come from.
    fn source(&self) -> Outcome<(Source, Option<u64>)> {
        if !self.texts.is_empty() {
            return Ok((Source::given(self.texts.clone()), None));
        }
        let path = match &self.input {
            Some(path) => path.as_path(),
            None if io::stdin().is_terminal() => {
                return Err(Failure::Usage(
                    "no texts: give them as arguments, with --input, or on standard input".into(),
                ));
            }
            None => Path::new("-"),
        };
        let format = self.input_format.unwrap_or_else(|| InputFormat::of(path));
        let total = std::fs::metadata(path).ok().filter(|metadata| metadata.is_file()).map(|m| m.len());
        Ok((Source::open(path, format, &self.column)?, total))
    }
}

impl Plan {
    /// Writes lines to standard output.
    fn print(mut self, cancel: &CancelToken) -> Outcome {
        let mut out = output::stdout();
        let mut index = 0;
        while let Some((_, embeddings)) = self.batch(index)? {
            for embedding in &embeddings {
                sink::json_line(&mut out, index, embedding, self.each)?;
                index += 1;
            }
            out.flush()?;
            if cancel.is_cancelled() {
                return Err(Failure::Interrupted);
            }
        }
        Ok(())
    }

    /// Writes a file to its end, or until Ctrl-C.
    fn fill(mut self, mut job: Job, cancel: &CancelToken) -> Outcome {
        let done = job.rows();
        if done > 0 {
            eprintln!("going on after {done} texts");
            self.source.skip(done)?;
        }
        let bar = self.bar();
        let mut tokens = 0;
        while let Some((read, embeddings)) = self.batch(job.rows())? {
            job.write(&embeddings, self.each)?;
            tokens += read;
            bar.set_position(self.source.bytes());
            let seconds = bar.elapsed().as_secs_f64().max(1e-9);
            let speed = (job.rows() - done) as f64 / seconds;
            bar.set_message(format!("{} texts, {speed:.0}/s", job.rows()));
            if cancel.is_cancelled() {
                bar.finish_and_clear();
                eprintln!("stopped after {} texts; the same command goes on from here", job.rows());
                return Err(Failure::Interrupted);
            }
        }
        let seconds = bar.elapsed().as_secs_f64().max(1e-9);
        bar.finish_and_clear();
        let rows = job.rows();
        job.finish()?;
        eprintln!(
            "{rows} texts; {} now: {:.0} texts/s, {:.0} tokens/s",
            rows - done,
            (rows - done) as f64 / seconds,
            tokens as f64 / seconds
        );
        Ok(())
    }

    /// The next texts' tokens, counted, and embeddings; nothing at the end. `first`: the number of the first, for errors.
    fn batch(&mut self, first: u64) -> Outcome<Option<(usize, Vec<Embedding>)>> {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        while texts.len() < BATCH_TEXTS && bytes < BATCH_BYTES {
            let Some(text) = self.source.next()? else { break };
            bytes += text.len();
            texts.push(text);
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let embeddings = self.model.embed(&texts, &self.options).map_err(|error| Failure::Failed {
            what: format!("among texts {first} to {}", first + texts.len() as u64 - 1),
            cause: Some(Box::new(error)),
        })?;
        Ok(Some((embeddings.iter().map(|embedding| embedding.tokens).sum(), embeddings)))
    }

    fn bar(&self) -> ProgressBar {
        let (bar, template) = match self.total {
            Some(total) => (ProgressBar::new(total), "{wide_bar} {percent}% {msg} {eta}"),
            None => (ProgressBar::no_length(), "{spinner} {msg}"),
        };
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar
    }
}
