use std::fmt;

use web_time::Instant;

use super::text::{Shown, TextStream};
use super::{
    CancelToken, ContextOverflow, Detokenize, ForwardError, GenerateError, GenerationConfig, LanguageModel,
    Sampler, Session, Source, Stats, TokenLogprobs,
};

/// One sampled token of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Piece {
    /// The token.
    pub token: u32,
    /// Text that can be shown now: often the token's, none while a character or a possible stop string is unfinished,
    /// and what was held back once that is settled. The texts of all pieces together are the answer.
    pub text: String,
    /// Log-probabilities, if [`GenerationConfig::logprobs`] asks for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model chose a token that ends an answer.
    Stop,
    /// A stop string was completed.
    StopString,
    /// The answer has as many tokens as were asked for.
    Length,
    /// The KV cache is full.
    ContextFull,
    /// The caller asked to stop.
    Cancelled,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::StopString => "stop string",
            Self::Length => "length",
            Self::ContextFull => "context full",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// The text that was shown: all of it, unless the answer was cancelled while some was held back.
    pub text: String,
    /// The sampled tokens, one that ended the answer included.
    pub tokens: Vec<u32>,
    /// Log-probabilities of each token, if they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// What was done and how long it took.
    pub stats: Stats,
}

/// An answer in the making: an iterator of its pieces, one for each sampled token.
///
/// Dropping it ends the answer; the [`Session`] keeps what was computed. After an error or the end there are no more
/// pieces.
#[derive(Debug)]
pub struct Generation<'a, M, D> {
    session: &'a mut Session<M, D>,
    config: GenerationConfig,
    sampler: Sampler,
    text: TextStream,
    cancel: CancelToken,
    next: Next,
    finish_reason: Option<FinishReason>,
    stats: Stats,
}

/// What has to be computed before the next token can be sampled.
#[derive(Debug)]
enum Next {
    Prompt(Vec<u32>),
    Token(u32),
    Nothing,
}

impl<'a, M: LanguageModel, D: Detokenize> Generation<'a, M, D> {
    pub(super) fn new(
        session: &'a mut Session<M, D>,
        prompt: Vec<u32>,
        prompt_tokens: usize,
        config: &GenerationConfig,
    ) -> Result<Self, GenerateError> {
        let mut sampler = Sampler::new(config)?;
        for &token in &prompt {
            sampler.accept(token, &session.vocab().token_bytes(token), Source::Prompt);
        }
        let discarded_tokens = prompt_tokens - prompt.len();
        Ok(Self {
            session,
            sampler,
            text: TextStream::new(&config.stop),
            config: config.clone(),
            cancel: CancelToken::new(),
            next: Next::Prompt(prompt),
            finish_reason: None,
            stats: Stats { prompt_tokens, discarded_tokens, ..Stats::default() },
        })
    }

    /// Lets `cancel` end the answer, its prefill too.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Why the answer ended; `None` while it has not, or if it failed.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// What was done so far and how long it took.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Runs to the end, showing each piece to `on_piece`, which returns whether to go on.
    pub fn run(mut self, mut on_piece: impl FnMut(&Piece) -> bool) -> Result<Output, GenerateError> {
        let mut text = String::new();
        let mut tokens = Vec::new();
        let mut logprobs = Vec::new();
        while let Some(piece) = self.next() {
            let piece = piece?;
            let go_on = on_piece(&piece);
            text.push_str(&piece.text);
            tokens.push(piece.token);
            logprobs.extend(piece.logprobs);
            if !go_on {
                self.finish_reason.get_or_insert(FinishReason::Cancelled);
                break;
            }
        }
        let finish_reason = self.finish_reason.unwrap_or(FinishReason::Cancelled);
        Ok(Output { text, tokens, logprobs, finish_reason, stats: self.stats })
    }

    /// The next piece, or `None` and why there is none.
    fn step(&mut self) -> Result<Piece, Ended> {
        if self.cancel.is_cancelled() {
            return Err(FinishReason::Cancelled.into());
        }
        let started = Instant::now();
        let first = matches!(self.next, Next::Prompt(_));
        let result = self.compute().and_then(|()| self.sample());
        let time = if first { &mut self.stats.prefill } else { &mut self.stats.decode };
        *time += started.elapsed();
        result
    }

    /// Computes the logits to sample from.
    fn compute(&mut self) -> Result<(), Ended> {
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Prompt(prompt) => {
                self.stats.reused_tokens = self.session.reuse(&prompt);
                for block in prompt[self.stats.reused_tokens..].chunks(self.config.prefill_block) {
                    if self.cancel.is_cancelled() {
                        return Err(FinishReason::Cancelled.into());
                    }
                    self.session.submit(block)?;
                }
                match self.config.max_tokens {
                    0 => Err(FinishReason::Length.into()),
                    _ => Ok(()),
                }
            }
            Next::Token(token) => Ok(self.session.submit_next(token, self.config.context_overflow)?),
            Next::Nothing => Err(Ended::Already),
        }
    }

    fn sample(&mut self) -> Result<Piece, Ended> {
        let logits = self.session.logits()?;
        let token = self.sampler.sample(logits)?;
        let logprobs = self.config.logprobs.map(|top| TokenLogprobs::new(logits, token, top));
        self.stats.generated_tokens += 1;

        let vocab = self.session.vocab();
        let stop = vocab.is_end_of_generation(token) || self.config.stop_tokens.contains(&token);
        let mut shown = Shown { text: String::new(), stopped: false };
        if !stop {
            let bytes = vocab.token_bytes(token);
            self.sampler.accept(token, &bytes, Source::Generated);
            shown = self.text.push(&bytes);
        }
        self.finish_reason = if shown.stopped {
            Some(FinishReason::StopString)
        } else if stop {
            Some(FinishReason::Stop)
        } else if self.stats.generated_tokens >= self.config.max_tokens {
            Some(FinishReason::Length)
        } else if self.session.is_full() && self.config.context_overflow == ContextOverflow::Error {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
        if self.finish_reason.is_none() {
            self.next = Next::Token(token);
        } else if !shown.stopped {
            // No stop string can be completed any more, except by the mark that stands for half a character.
            let rest = self.text.finish();
            shown.text.push_str(&rest.text);
            if rest.stopped {
                self.finish_reason = Some(FinishReason::StopString);
            }
        }
        Ok(Piece { token, text: shown.text, logprobs })
    }
}

impl<M: LanguageModel, D: Detokenize> Iterator for Generation<'_, M, D> {
    type Item = Result<Piece, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish_reason.is_some() {
            return None;
        }
        match self.step() {
            Ok(piece) => Some(Ok(piece)),
            Err(Ended::Finished(reason)) => {
                self.finish_reason = Some(reason);
                None
            }
            Err(Ended::Failed(error)) => Some(Err(error)),
            Err(Ended::Already) => None,
        }
    }
}

/// Why there is no piece.
enum Ended {
    Finished(FinishReason),
    Failed(GenerateError),
    /// An earlier step failed.
    Already,
}

impl From<FinishReason> for Ended {
    fn from(reason: FinishReason) -> Self {
        Self::Finished(reason)
    }
}

impl<E: Into<GenerateError>> From<E> for Ended {
    fn from(error: E) -> Self {
        match error.into() {
            // The model looks at its caller's wish too, between its own blocks.
            GenerateError::Forward(ForwardError::Cancelled) => Self::Finished(FinishReason::Cancelled),
            error => Self::Failed(error),
        }
    }
}
