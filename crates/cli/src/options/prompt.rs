//! Where a prompt comes from: arguments, a file, or standard input.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Outcome};
use crate::files::read_text;

/// A prompt.
#[derive(Args, Debug)]
pub(crate) struct PromptArgs {
    /// The prompt; standard input is read where neither this nor --file is given.
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// Read the prompt from a file; - is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "words")]
    file: Option<PathBuf>,
}

impl PromptArgs {
    /// The text, without the line end that closes a file.
    pub(crate) fn read(&self) -> Outcome<String> {
        if !self.words.is_empty() {
            return Ok(self.words.join(" "));
        }
        let path = match &self.file {
            Some(path) => path,
            None if io::stdin().is_terminal() => {
                return Err(Failure::Usage(
                    "no prompt: give it as an argument, with --file, or on standard input".into(),
                ));
            }
            None => Path::new("-"),
        };
        let mut text = read_text(path)?;
        if text.ends_with('\n') {
            text.truncate(text.len() - if text.ends_with("\r\n") { 2 } else { 1 });
        }
        Ok(text)
    }
}
