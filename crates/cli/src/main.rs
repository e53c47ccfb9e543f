//! The `firecrest` program: language models from GGUF files, in the terminal.
//!
//! Each command is a file in `commands` that parses its arguments, resolves them into a plan (files found, options
//! checked), and runs it. Results go to standard output; everything else goes to standard error.

mod affinity;
mod answer;
mod commands;
mod conversation;
mod distribution;
mod failure;
mod files;
mod interrupt;
mod kernels;
mod machine;
mod options;
mod output;
mod progress;
mod speed;
mod units;

use std::process::ExitCode;

use clap::Parser;

use affinity::CpuMask;
use commands::Command;
use interrupt::Interrupt;

/// Run language models from GGUF files.
#[derive(Debug, Parser)]
#[command(name = "firecrest", version, about, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Run on these processors alone: bit n of a hexadecimal number is processor n. Without --threads, there are as many
    /// threads as these allow.
    #[arg(long, global = true, value_name = "HEX")]
    cpu_mask: Option<CpuMask>,
}

const AFTER_HELP: &str = "\
Examples:
  firecrest run \"Why is the sky blue?\"
  firecrest chat --system \"Answer in one sentence.\"
  firecrest run --model hf:owner/repo:Q4_K_M -f question.txt > answer.txt
  firecrest inspect --model model.gguf --json

Results go to standard output, everything else to standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. A closed output pipe is not a failure.

Environment:
  FIRECREST_CACHE  directory of downloaded models
  FIRECREST_ISA    instruction set to use: scalar, sse41, avx2, avx512, neon
  HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HTTP_PROXY, HTTPS_PROXY, NO_PROXY  for downloads";

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before any thread is started: they inherit it.
    let allowed = cli.cpu_mask.as_ref().map_or(Ok(()), CpuMask::apply);
    let result =
        allowed.and_then(|()| Interrupt::install()).and_then(|interrupt| cli.command.run(&interrupt));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_examples() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.get_after_help().map(|help| help.to_string()).unwrap_or_default();
            assert!(help.contains("firecrest "), "{} has no examples", command.get_name());
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }
}
