//! `firecrest pull`: downloads.

use std::io::Write;

use clap::Args;

use crate::failure::Outcome;
use crate::interrupt::Interrupt;
use crate::options::fetch;
use crate::output;

/// Downloads models and writes where they are.
///
/// A download that breaks off, also by Ctrl-C, goes on where it stopped the next time.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest pull smollm2-135m
  firecrest pull hf:owner/repo:Q4_K_M
  firecrest pull https://example.com/model.gguf")]
pub(crate) struct PullArgs {
    /// Models: catalogue names, hf:owner/repo[:quant|/file], or URLs.
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Only tell where the models are: fail where that takes a download.
    #[arg(long)]
    offline: bool,
}

impl PullArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        for model in &self.models {
            let path = fetch(model, self.offline, interrupt)?;
            let mut out = output::stdout();
            writeln!(out, "{}", path.display())?;
            out.flush()?;
        }
        Ok(())
    }
}
