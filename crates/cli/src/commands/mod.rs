//! The commands, each in a file of its own.

mod bench;
mod chat;
mod completions;
mod inspect;
mod list;
mod logits;
mod perplexity;
mod pull;
mod remove;
mod run;
mod tokenize;

use clap::Subcommand;

use crate::failure::Outcome;
use crate::interrupt::Interrupt;

macro_rules! commands {
    ($($(#[$help:meta])+ $name:ident($args:ty),)+) => {
        /// What to do.
        #[derive(Debug, Subcommand)]
        pub(crate) enum Command {
            $($(#[$help])+ $name($args),)+
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
    /// Answer a prompt
    Run(Box<run::RunArgs>),
    /// Talk with a model
    Chat(Box<chat::ChatArgs>),
    /// Download models
    Pull(pull::PullArgs),
    /// List the models on this machine
    List(list::ListArgs),
    /// Delete downloaded models
    Remove(remove::RemoveArgs),
    /// Show what is in a model's file
    Inspect(inspect::InspectArgs),
    /// Turn text into tokens, or back
    Tokenize(tokenize::TokenizeArgs),
    /// Show the logits at each position of some tokens
    Logits(logits::LogitsArgs),
    /// Measure how well a model predicts a text
    Perplexity(perplexity::PerplexityArgs),
    /// Measure speed
    Bench(bench::BenchArgs),
    /// Write a completion script for a shell
    Completions(completions::CompletionsArgs),
}
