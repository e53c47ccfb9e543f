//! `--model` and what an embedding is made of.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use firecrest::backend::CpuOptions;
use firecrest::embed::{EmbedOptions, EmbeddingModel, Pooling, Role};
use firecrest::gguf::Gguf;

use super::{ThreadCount, fetch, thread_count};
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;

/// Which embedding model.
#[derive(Args, Debug)]
pub(crate) struct EmbedderArgs {
    /// Embedding model or reranker, as --model of other commands takes it.
    #[arg(short, long, value_name = "MODEL", default_value = firecrest::hub::default_embedder().name)]
    pub(crate) model: String,
    /// Use nothing but what is on this machine.
    #[arg(long)]
    offline: bool,
    /// Threads that compute [default: the physical cores]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    threads: Option<ThreadCount>,
}

impl EmbedderArgs {
    /// The model, and where its file is.
    pub(crate) fn load(&self, interrupt: &Interrupt) -> Outcome<(EmbeddingModel, PathBuf)> {
        let path = fetch(&self.model, self.offline, interrupt)?;
        let mut cpu = CpuOptions::default();
        cpu.threads = self.threads;
        let model = EmbeddingModel::from_gguf(&Gguf::open(&path)?, &cpu);
        Ok((model.map_err(|error| Failure::load(&path, error))?, path))
    }
}

/// What an embedding is made of.
#[derive(Args, Debug)]
pub(crate) struct EmbedArgs {
    /// How tokens become a vector [default: as the model wants it]
    #[arg(long, value_name = "HOW", value_parser = pooling())]
    pub(crate) pooling: Option<Pooling>,
    /// Keep the length of vectors: do not scale it to 1.
    #[arg(long)]
    no_normalize: bool,
    /// Keep the first N values, of models trained for that (Matryoshka).
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    dimensions: Option<usize>,
    /// Put this before every text.
    #[arg(long, value_name = "TEXT", conflicts_with = "role")]
    prefix: Option<String>,
    /// Put the model's own prefix for queries or documents before every text, if it has one.
    #[arg(long, value_name = "ROLE", value_parser = role())]
    role: Option<Role>,
    /// Fail at a text that is too long; otherwise it is cut.
    #[arg(long)]
    no_truncate: bool,
    /// Tokens that a text may have [default: what the model takes]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_tokens: Option<usize>,
}

impl EmbedArgs {
    pub(crate) fn options(&self) -> EmbedOptions {
        let mut options = EmbedOptions::default();
        options.pooling = self.pooling;
        options.normalize = !self.no_normalize;
        options.dimensions = self.dimensions;
        options.prefix = self.prefix.clone();
        options.role = self.role;
        options.truncate = !self.no_truncate;
        options.max_tokens = self.max_tokens;
        options
    }
}

fn pooling() -> impl TypedValueParser<Value = Pooling> {
    PossibleValuesParser::new(["mean", "cls", "last", "none", "rank"]).map(|name| match name.as_str() {
        "mean" => Pooling::Mean,
        "cls" => Pooling::Cls,
        "last" => Pooling::Last,
        "rank" => Pooling::Rank,
        _ => Pooling::None,
    })
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["query", "document"])
        .map(|name| if name == "query" { Role::Query } else { Role::Document })
}
