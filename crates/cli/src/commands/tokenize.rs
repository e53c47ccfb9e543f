//! `firecrest tokenize`: text to tokens, and back.

use std::io::{self, BufRead, BufReader, Write};

use clap::Args;
use firecrest::tokenizer::{EncodeOptions, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, OrFail, Outcome};
use crate::interrupt::Interrupt;
use crate::options::{ModelArgs, PromptArgs};
use crate::output::{self, printable};

/// Turns text into tokens, or back.
///
/// Shows each token on a line. With --jsonl, every line of standard input is an object {"text": …} and becomes a line
/// {"tokens": […]}; with --detokenize the other way round. Files that have a vocabulary alone work too.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  firecrest tokenize \"Hello, world\"
  firecrest tokenize --ids --add-special -f text.txt
  echo '{\"text\": \"Hello\"}' | firecrest tokenize -m model.gguf --jsonl
  firecrest tokenize --detokenize 19556,28,905")]
pub(crate) struct TokenizeArgs {
    #[command(flatten)]
    text: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Add the tokens that the model expects before and after a text.
    #[arg(long)]
    add_special: bool,
    /// Find control tokens, such as <|im_end|>, in the text.
    #[arg(long)]
    parse_special: bool,
    /// Turn tokens into text.
    #[arg(long, conflicts_with_all = ["add_special", "parse_special", "ids"])]
    detokenize: bool,
    /// A JSON object a line, in and out.
    #[arg(long, conflicts_with_all = ["words", "file", "ids"])]
    jsonl: bool,
    /// Write the ids alone, separated by commas.
    #[arg(long)]
    ids: bool,
}

#[derive(Deserialize, Serialize)]
struct TextLine {
    text: String,
}

#[derive(Deserialize, Serialize)]
struct TokensLine {
    tokens: Vec<u32>,
}

impl TokenizeArgs {
    pub(crate) fn run(self, interrupt: &Interrupt) -> Outcome {
        let gguf = self.model.gguf(interrupt)?;
        let tokenizer = Tokenizer::from_metadata(gguf.metadata())
            .or_fail(|| gguf.paths().next().unwrap_or("model".as_ref()).display().to_string())?;
        if self.jsonl {
            return self.convert_lines(&tokenizer, &mut io::stdin().lock(), &mut output::stdout());
        }
        let text = self.text.read()?;
        let mut out = output::stdout();
        if self.detokenize {
            out.write_all(&detokenize(&tokenizer, &parse_ids(&text)?)?)?;
        } else {
            let ids = tokenizer.encode(&text, self.options());
            if self.ids {
                writeln!(out, "{}", ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","))?;
            } else {
                let row = |&id: &u32| {
                    let text = format!(
                        "{:?}",
                        String::from_utf8_lossy(&tokenizer.token_bytes(id).unwrap_or_default())
                    );
                    vec![id.to_string(), printable(&text).into_owned()]
                };
                output::table(&mut out, &ids.iter().map(row).collect::<Vec<_>>(), &[0])?;
            }
        }
        Ok(out.flush()?)
    }

    fn options(&self) -> EncodeOptions {
        EncodeOptions { add_special: self.add_special, parse_special: self.parse_special }
    }

    /// A line out for each line in, at once where the input is waited for.
    fn convert_lines(&self, tokenizer: &Tokenizer, input: impl io::Read, out: &mut impl Write) -> Outcome {
        let mut input = BufReader::with_capacity(1 << 16, input);
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if input.read_line(&mut line).or_fail(|| format!("can't read line {number} of standard input"))?
                == 0
            {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            let place = || format!("line {number} of standard input");
            if self.detokenize {
                let TokensLine { tokens } = serde_json::from_str(&line).or_fail(place)?;
                let text = detokenize(tokenizer, &tokens).map_err(|failure| {
                    Failure::new(format!("{}: {}", place(), failure.message().unwrap_or_default()))
                })?;
                let text = String::from_utf8_lossy(&text).into_owned();
                output::json_line(out, &TextLine { text })?;
            } else {
                let TextLine { text } = serde_json::from_str(&line).or_fail(place)?;
                let tokens = tokenizer.encode(&text, self.options());
                output::json_line(out, &TokensLine { tokens })?;
            }
            if input.buffer().is_empty() {
                out.flush()?;
            }
        }
        Ok(out.flush()?)
    }
}

/// The text of tokens, spaced as llama.cpp spaces it.
fn detokenize(tokenizer: &Tokenizer, ids: &[u32]) -> Outcome<Vec<u8>> {
    let vocab = tokenizer.vocab_size();
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(Failure::new(format!("token {id} is not in the vocabulary of {vocab}"))),
        None => Ok(tokenizer.decode_cleaned(ids)),
    }
}

/// Ids separated by commas or white space, also in brackets.
fn parse_ids(text: &str) -> Outcome<Vec<u32>> {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().map_err(|error| Failure::Usage(format!("token {word:?}: {error}"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_in_many_shapes() {
        for text in ["1,2,3", " 1 2\n3\n", "[1, 2, 3]"] {
            assert_eq!(parse_ids(text).unwrap(), [1, 2, 3], "{text}");
        }
        assert!(parse_ids("").unwrap().is_empty());
        assert!(matches!(parse_ids("1,x"), Err(Failure::Usage(_))));
    }
}
