//! `firecrest completions`: completion of commands and options in shells.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Cli;
use crate::failure::Outcome;
use crate::interrupt::Interrupt;
use crate::output;

/// Writes a completion script for a shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest completions bash > ~/.local/share/bash-completion/completions/firecrest
  firecrest completions zsh > ~/.zfunc/_firecrest
  firecrest completions fish > ~/.config/fish/completions/firecrest.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

impl CompletionsArgs {
    pub(crate) fn run(self, _: &Interrupt) -> Outcome {
        // The generator panics where it cannot write, and memory never refuses.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "firecrest", &mut script);
        let mut out = output::stdout();
        out.write_all(&script)?;
        Ok(out.flush()?)
    }
}
