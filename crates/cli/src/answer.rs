//! An answer, shown while it is generated.

use std::io::{self, Write};
use std::sync::Arc;

use firecrest::Decoder;
use firecrest::generate::{CancelToken, GenerationConfig, Output, Piece, Session};
use firecrest::tokenizer::Tokenizer;
use serde::Serialize;

use crate::failure::Outcome;
use crate::output::json_line;

/// A model in conversation.
pub(crate) type ModelSession = Session<Decoder, Arc<Tokenizer>>;

/// What `--logprobs` tells of a token.
#[derive(Serialize)]
struct TokenLine<'a> {
    token: u32,
    text: &'a str,
    logprob: f32,
    top: &'a [(u32, f32)],
}

/// Answers a prompt, writing each piece of the text as soon as it is there.
pub(crate) fn stream(
    session: &mut ModelSession,
    prompt: &[u32],
    config: &GenerationConfig,
    cancel: CancelToken,
    out: &mut impl Write,
) -> Outcome<Output> {
    let mut shown = Ok(());
    let answer = session.generation(prompt, config)?.with_cancel(cancel).run(|piece| {
        shown = show(piece, out);
        shown.is_ok()
    });
    shown?;
    Ok(answer?)
}

fn show(piece: &Piece, out: &mut impl Write) -> Outcome {
    if !piece.text.is_empty() {
        out.write_all(piece.text.as_bytes())?;
        out.flush()?;
    }
    if let Some(logprobs) = &piece.logprobs {
        let line =
            TokenLine { token: piece.token, text: &piece.text, logprob: logprobs.chosen, top: &logprobs.top };
        json_line(&mut io::stderr().lock(), &line)?;
    }
    Ok(())
}
