//! `firecrest perplexity`: how well a model predicts a text.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use firecrest::generate::{ForwardError, LanguageModel};
use firecrest::tokenizer::EncodeOptions;
use firecrest::{Decoder, Model};
use serde::Serialize;

use crate::distribution::log_sum_exp;
use crate::failure::{Failure, Outcome};
use crate::files::read_text;
use crate::interrupt::Interrupt;
use crate::options::{ContextArgs, ModelArgs};
use crate::output;

/// Measures how well a model predicts a text.
///
/// The text is cut into chunks of --ctx tokens, and what does not fill one is left out. In each chunk the second half of
/// the tokens is scored, each given all before it in the chunk. Perplexity is the exponential of the mean negative
/// log-likelihood: the definition of llama.cpp, so that the numbers can be compared.
///
/// With --json: {"perplexity": x, "tokens": n, "chunks": [x, …]}, where tokens is the number of scored tokens, and chunks
/// are the values of the perplexity after each chunk.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest perplexity --file wiki.test.raw
  firecrest perplexity -m model.gguf --file text.txt --ctx 1024 --chunks 10 --json")]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text; - is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Score only the first N chunks [default: all]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    chunks: Option<usize>,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    context: ContextArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    perplexity: f64,
    tokens: usize,
    chunks: Vec<f64>,
}

impl PerplexityArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let ctx = self.context.ctx.unwrap_or(512);
        if ctx < 4 {
            return Err(Failure::Usage(format!("--ctx {ctx} leaves nothing to score; it takes at least 4")));
        }
        let text = read_text(&self.file)?;
        let path = self.model.path(interrupt)?;
        let model = self.context.model(&path)?;
        let tokens = encode(&model, &text);
        if tokens.len() < ctx {
            let name = self.file.display();
            return Err(Failure::new(format!("{name} has {} tokens, a chunk takes {ctx}", tokens.len())));
        }
        let mut options = self.context.options();
        options.capacity = Some(ctx);
        let mut decoder = model.decoder(&options).map_err(|error| Failure::load(&path, error))?;

        let chunks = (tokens.len() / ctx).min(self.chunks.unwrap_or(usize::MAX));
        let mut report = Report { perplexity: f64::NAN, tokens: 0, chunks: Vec::new() };
        let mut sum = 0.0;
        let terminal = std::io::stderr().is_terminal();
        for chunk in tokens.chunks_exact(ctx).take(chunks) {
            let (losses, scored) = score(&mut decoder, chunk, bos(&model))?;
            sum += losses;
            report.tokens += scored;
            report.perplexity = (sum / report.tokens as f64).exp();
            report.chunks.push(report.perplexity);
            if terminal {
                eprint!("\rchunk {} of {chunks}: {:.4}", report.chunks.len(), report.perplexity);
            }
        }
        if terminal {
            eprintln!();
        }
        if self.json { output::json(&report) } else { report.print() }
    }
}

/// The token that begins every chunk, if the model is used to one.
fn bos(model: &Model) -> Option<u32> {
    model.tokenizer().bos().filter(|_| model.tokenizer().add_bos())
}

fn encode(model: &Model, text: &str) -> Vec<u32> {
    let tokens = model.tokenizer().encode(text, EncodeOptions::default());
    bos(model).into_iter().chain(tokens).collect()
}

/// The negative log-likelihoods of the second half of a chunk, summed, and how many they are.
fn score(decoder: &mut Decoder, chunk: &[u32], bos: Option<u32>) -> Result<(f64, usize), ForwardError> {
    let mut chunk = chunk.to_vec();
    if let Some(bos) = bos {
        chunk[0] = bos;
    }
    let first = chunk.len() / 2;
    decoder.truncate(0);
    decoder.submit(&chunk[..first])?;
    let (mut sum, mut scored) = (0.0, 0);
    decoder.submit_all(&chunk[first..chunk.len() - 1], |position, logits| {
        let next = chunk[position + 1];
        sum += log_sum_exp(logits) - f64::from(logits[next as usize]);
        scored += 1;
    })?;
    Ok((sum, scored))
}

impl Report {
    fn print(&self) -> Outcome {
        let mut out = output::stdout();
        for (i, value) in self.chunks.iter().enumerate() {
            writeln!(out, "chunk {}: {value:.4}", i + 1)?;
        }
        writeln!(out, "perplexity {:.4} over {} tokens", self.perplexity, self.tokens)?;
        Ok(out.flush()?)
    }
}
