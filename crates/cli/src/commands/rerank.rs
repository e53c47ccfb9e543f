//! `firecrest rerank`: documents in the order of their relevance to a query.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use firecrest::embed::{EmbedOptions, EmbeddingModel, Role, cosine};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::files::read_text;
use crate::interrupt::Interrupt;
use crate::options::EmbedderArgs;
use crate::output::{self, printable};

/// Sorts documents by their relevance to a query.
///
/// A cross-encoder scores each pair of query and document; with an embedding model the score is the cosine of their
/// vectors. Writes score, number (from 0) and text of each document, the most relevant first. With --json: {"results":
/// [{"index": n, "score": x, "text": …}, …]}.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest rerank \"What do pandas eat?\" \"Bamboo.\" \"Pandas is a library.\"
  firecrest rerank -m reranker.gguf --top 3 --json \"What do pandas eat?\" < documents.txt")]
pub(crate) struct RerankArgs {
    /// The query.
    #[arg(value_name = "QUERY")]
    query: String,
    /// Documents; each line of standard input is one where neither these nor --file is given.
    #[arg(value_name = "DOCUMENT")]
    documents: Vec<String>,
    /// Read documents from a file, one a line; - is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "documents")]
    file: Option<PathBuf>,
    /// Write the best N alone.
    #[arg(long, visible_alias = "top-n", value_name = "N")]
    top: Option<usize>,
    #[command(flatten)]
    model: EmbedderArgs,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    results: Vec<Ranked>,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    score: f32,
    text: String,
}

impl RerankArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let documents = self.read_documents()?;
        let (model, _) = self.model.load(interrupt)?;
        let scores = scores(&model, &self.query, &documents)?;
        let ranked = documents.into_iter().zip(scores).enumerate();
        let mut results: Vec<_> =
            ranked.map(|(index, (text, score))| Ranked { index, score, text }).collect();
        results.sort_by(|a, b| b.score.total_cmp(&a.score));
        results.truncate(self.top.unwrap_or(usize::MAX));
        if self.json {
            return output::json(&Report { results });
        }
        let row = |ranked: &Ranked| {
            vec![
                format!("{:.4}", ranked.score),
                ranked.index.to_string(),
                printable(&ranked.text).replace('\n', "\\n"),
            ]
        };
        let mut out = output::stdout();
        output::table(&mut out, &results.iter().map(row).collect::<Vec<_>>(), &[0, 1])?;
        Ok(out.flush()?)
    }

    fn read_documents(&self) -> Outcome<Vec<String>> {
        if !self.documents.is_empty() {
            return Ok(self.documents.clone());
        }
        let path = match &self.file {
            Some(path) => path,
            None if io::stdin().is_terminal() => {
                return Err(Failure::Usage(
                    "no documents: give them as arguments, with --file, or on standard input".into(),
                ));
            }
            None => Path::new("-"),
        };
        Ok(read_text(path)?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
}

fn scores(model: &EmbeddingModel, query: &str, documents: &[String]) -> Outcome<Vec<f32>> {
    if model.is_reranker() {
        return Ok(model.rerank(query, documents)?);
    }
    let query = model.embed(&[query], &EmbedOptions::default().with_role(Role::Query))?;
    let documents = model.embed(documents, &EmbedOptions::default().with_role(Role::Document))?;
    let query = query.first().map(|query| query.values.as_slice()).unwrap_or_default();
    Ok(documents.iter().map(|document| cosine(query, &document.values)).collect())
}
