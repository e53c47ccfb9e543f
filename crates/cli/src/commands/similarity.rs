//! `firecrest similarity`: how much alike texts are.

use std::io::Write;

use clap::Args;
use firecrest::embed::{Pooling, cosine};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::options::{EmbedArgs, EmbedderArgs};
use crate::output::{self, printable};

/// Tells how much alike texts are: the cosine of the angle between their vectors.
///
/// Of two texts, writes one number; of more, a line for each but the first, compared with the first. With --json:
/// {"similarity": x, "matrix": [[…], …]}, the similarity of the first two, and of all with all.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest similarity \"A cat sits on the mat.\" \"There is a cat on the rug.\"
  firecrest similarity --json \"red\" \"blue\" \"a bicycle\"")]
pub(crate) struct SimilarityArgs {
    /// Texts to compare.
    #[arg(value_name = "TEXT", required = true, num_args = 2..)]
    texts: Vec<String>,
    #[command(flatten)]
    model: EmbedderArgs,
    #[command(flatten)]
    embed: EmbedArgs,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    similarity: f32,
    matrix: Vec<Vec<f32>>,
}

impl SimilarityArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let (model, path) = self.model.load(interrupt)?;
        let pooling = self.embed.pooling.unwrap_or(model.pooling());
        if matches!(pooling, Pooling::None | Pooling::Rank) {
            return Err(Failure::new(format!(
                "{} gives no vector for a text as a whole; choose one with --pooling",
                path.display()
            )));
        }
        let vectors = model.embed(&self.texts, &self.embed.options())?;
        let similarity = |i: usize, j: usize| cosine(&vectors[i].values, &vectors[j].values);
        let all = 0..vectors.len();
        if self.json {
            let matrix = all.clone().map(|i| all.clone().map(|j| similarity(i, j)).collect()).collect();
            return output::json(&Report { similarity: similarity(0, 1), matrix });
        }
        let mut out = output::stdout();
        match self.texts.as_slice() {
            [_, _] => writeln!(out, "{:.4}", similarity(0, 1))?,
            texts => {
                for (i, text) in texts.iter().enumerate().skip(1) {
                    writeln!(out, "{:.4}  {}", similarity(0, i), printable(text))?;
                }
            }
        }
        Ok(out.flush()?)
    }
}
