//! The lines that a user types, edited and remembered; or those of a pipe.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use crate::failure::{OrFail, Outcome};

/// Where messages come from.
pub(super) enum Input {
    Terminal { editor: Box<Editor<(), FileHistory>>, history: Option<PathBuf> },
    Pipe(io::StdinLock<'static>),
}

impl Input {
    /// Standard input. `history` keeps the lines typed on a terminal.
    pub(super) fn open(history: Option<PathBuf>) -> Outcome<Self> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Pipe(io::stdin().lock()));
        }
        let config = Config::builder().auto_add_history(true).history_ignore_space(true).build();
        let mut editor = Editor::with_config(config).or_fail(|| "can't use the terminal".into())?;
        if let Some(history) = &history {
            // There is none the first time, and a chat without old lines is better than no chat.
            let _ = editor.load_history(history);
        }
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    pub(super) fn is_interactive(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next message, of several lines where each but the last ends with a backslash; `None` at the end.
    pub(super) fn next(&mut self) -> Outcome<Option<String>> {
        let mut message = String::new();
        while let Some(line) = self.line(if message.is_empty() { "> " } else { "… " })? {
            match line.strip_suffix('\\') {
                Some(line) => message = message + line + "\n",
                None => return Ok(Some(message + &line)),
            }
        }
        Ok((!message.is_empty()).then_some(message))
    }

    fn line(&mut self, prompt: &str) -> Outcome<Option<String>> {
        match self {
            Self::Terminal { editor, .. } => match editor.readline(prompt) {
                Ok(line) => Ok(Some(line)),
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                Err(error) => Err(error).or_fail(|| "can't read from the terminal".into()),
            },
            Self::Pipe(stdin) => {
                let mut line = String::new();
                let bytes = stdin.read_line(&mut line).or_fail(|| "can't read standard input".into())?;
                Ok((bytes > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
            }
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Self::Terminal { editor, history: Some(path) } = self {
            // Losing it is no reason to end with an error.
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = editor.append_history(path);
        }
    }
}
