//! The commands, each in a file of its own.

mod bench;
mod chat;
mod completions;
mod convert;
mod embed;
mod inspect;
mod list;
mod logits;
mod perplexity;
mod pull;
mod remove;
mod rerank;
mod run;
mod similarity;
mod sparsify;
mod sparsity_report;
mod tokenize;

use clap::Subcommand;

use crate::failure::Outcome;
use crate::interrupt::Interrupt;

macro_rules! commands {
    ($($name:ident($args:ty),)+) => {
        /// What to do. The first sentence of each command's arguments is its line in the help.
        #[derive(Debug, Subcommand)]
        pub(crate) enum Command {
            $($name($args),)+
        }

        impl Command {
            /// Does it.
            pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
                match self {
                    $(Self::$name(args) => args.run(interrupt),)+
                }
            }
        }
    };
}

commands! {
    Run(Box<run::RunArgs>),
    Chat(Box<chat::ChatArgs>),
    Embed(Box<embed::EmbedCommand>),
    Similarity(Box<similarity::SimilarityArgs>),
    Rerank(Box<rerank::RerankArgs>),
    Pull(pull::PullArgs),
    List(list::ListArgs),
    Remove(remove::RemoveArgs),
    Inspect(inspect::InspectArgs),
    Convert(convert::ConvertArgs),
    Tokenize(tokenize::TokenizeArgs),
    Logits(logits::LogitsArgs),
    Perplexity(perplexity::PerplexityArgs),
    Bench(bench::BenchArgs),
    Sparsify(sparsify::SparsifyArgs),
    SparsityReport(sparsity_report::SparsityReportArgs),
    Completions(completions::CompletionsArgs),
}
