//! `firecrest logits`: what a model predicts after each of some tokens.

use std::io::Write;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use firecrest::Model;
use firecrest::backend::{Activations, KvFormat};
use serde::Serialize;

use crate::distribution::{largest, log_sum_exp};
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::options::{ContextArgs, ModelArgs};
use crate::output::{self, printable};

/// Shows the logits at each position of some tokens.
///
/// The logits at a position predict the token after it; a logit less the logsumexp is a log-probability. With --json:
/// {"positions": [{"top": [[id, logit], …], "logsumexp": x}, …]}.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest logits --tokens 1,2,3 --top 5
  firecrest logits -m model.gguf --tokens \"$(firecrest tokenize -m model.gguf --ids 'The sky is')\" --json
  firecrest logits --tokens 1,2,3 --activations f32 --json")]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids, exactly as the model shall see them.
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// How many of the largest logits to show.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// How activations enter products with quantized weights: rounded to 8 bits, or exact, which is slower and keeps
    /// the cache of keys and values exact too unless --kv-format says otherwise.
    #[arg(long, value_name = "FORMAT", default_value = "q8", value_parser = activations())]
    activations: Activations,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    context: ContextArgs,
}

fn activations() -> impl TypedValueParser<Value = Activations> {
    PossibleValuesParser::new(["q8", "f32"])
        .map(|name| if name == "f32" { Activations::F32 } else { Activations::Q8 })
}

#[derive(Serialize)]
struct Report {
    positions: Vec<Position>,
}

#[derive(Serialize)]
struct Position {
    top: Vec<(u32, f32)>,
    logsumexp: f64,
}

impl LogitsArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let path = self.model.path(interrupt)?;
        let model = self.context.model(&path)?;
        let mut options = self.context.options();
        options.capacity = Some(self.context.ctx.unwrap_or(self.tokens.len()));
        options.cpu.activations = self.activations;
        if self.activations == Activations::F32 && self.context.kv_format.is_none() {
            options.kv_format = KvFormat::F32;
        }
        let mut decoder = model.decoder(&options).map_err(|error| Failure::load(&path, error))?;

        let mut positions = Vec::new();
        decoder.submit_all(&self.tokens, |_, logits| {
            positions.push(Position { top: largest(logits, self.top), logsumexp: log_sum_exp(logits) });
        })?;
        if self.json {
            return output::json(&Report { positions });
        }
        self.print(&model, &positions)
    }

    fn print(&self, model: &Model, positions: &[Position]) -> Outcome {
        let text =
            |id| String::from_utf8_lossy(&model.tokenizer().token_bytes(id).unwrap_or_default()).into_owned();
        let mut out = output::stdout();
        for (i, (position, &token)) in positions.iter().zip(&self.tokens).enumerate() {
            writeln!(out, "{i}: after {token} {:?}, logsumexp {:.4}", text(token), position.logsumexp)?;
            let row = |&(id, logit): &(u32, f32)| {
                let probability = (f64::from(logit) - position.logsumexp).exp();
                let name = format!("{:?}", text(id));
                vec![
                    format!("  {id}"),
                    format!("{logit:.4}"),
                    format!("{:.2} %", 100.0 * probability),
                    printable(&name).into_owned(),
                ]
            };
            let rows: Vec<_> = position.top.iter().map(row).collect();
            output::table(&mut out, &rows, &[0, 1, 2])?;
        }
        Ok(out.flush()?)
    }
}
