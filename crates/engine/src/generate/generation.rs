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
    progress: Progress,
}

/// How far an answer has come, apart from its [`Session`]: for callers that cannot hold a borrow between two pieces,
/// as where each step is a call from another language.
///
/// Every step must be given the session that began the answer, and that must have answered nothing else meanwhile: the
/// model would go on from another text.
#[derive(Debug)]
pub struct Progress {
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
    /// The whole prompt; nothing of it was computed.
    Prompt(Vec<u32>),
    /// What is left of the prompt.
    Rest(Vec<u32>),
    Token(u32),
    Sample,
    Nothing,
}

impl<'a, M: LanguageModel, D: Detokenize> Generation<'a, M, D> {
    pub(super) fn new(session: &'a mut Session<M, D>, progress: Progress) -> Self {
        Self { session, progress }
    }

    /// Lets `cancel` end the answer, its prefill too.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.progress.cancel = cancel;
        self
    }

    /// Why the answer ended; `None` while it has not, or if it failed.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.progress.finish_reason
    }

    /// What was done so far and how long it took.
    pub fn stats(&self) -> Stats {
        self.progress.stats
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
                self.progress.finish_reason.get_or_insert(FinishReason::Cancelled);
                break;
            }
        }
        let finish_reason = self.finish_reason().unwrap_or(FinishReason::Cancelled);
        Ok(Output { text, tokens, logprobs, finish_reason, stats: self.stats() })
    }
}

impl Progress {
    pub(super) fn new<M: LanguageModel, D: Detokenize>(
        session: &Session<M, D>,
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
            sampler,
            text: TextStream::new(&config.stop),
            config: config.clone(),
            cancel: CancelToken::new(),
            next: Next::Prompt(prompt),
            finish_reason: None,
            stats: Stats { prompt_tokens, discarded_tokens, ..Stats::default() },
        })
    }

    /// Why the answer ended; `None` while it has not, or if it failed.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// What was done so far and how long it took.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Computes one block of the prompt, of [`GenerationConfig::prefill_block`] tokens, and returns how many tokens of
    /// it are left. [`Progress::next`] does what this was not called for.
    pub fn prefill<M: LanguageModel, D: Detokenize>(
        &mut self,
        session: &mut Session<M, D>,
    ) -> Result<usize, GenerateError> {
        let started = Instant::now();
        let result = self.block(session);
        self.stats.prefill += started.elapsed();
        result
    }

    /// The next piece; `None` at the end, and after an error.
    pub fn next<M: LanguageModel, D: Detokenize>(
        &mut self,
        session: &mut Session<M, D>,
    ) -> Option<Result<Piece, GenerateError>> {
        if self.finish_reason.is_some() {
            return None;
        }
        match self.step(session) {
            Ok(piece) => Some(Ok(piece)),
            Err(Ended::Finished(reason)) => {
                self.finish_reason = Some(reason);
                None
            }
            Err(Ended::Failed(error)) => Some(Err(error)),
            Err(Ended::Already) => None,
        }
    }

    /// The next piece, or `None` and why there is none.
    fn step<M: LanguageModel, D: Detokenize>(&mut self, session: &mut Session<M, D>) -> Result<Piece, Ended> {
        if self.cancel.is_cancelled() {
            return Err(FinishReason::Cancelled.into());
        }
        let started = Instant::now();
        let first = matches!(self.next, Next::Prompt(_) | Next::Rest(_) | Next::Sample);
        let result = self.compute(session).and_then(|()| self.sample(session));
        let time = if first { &mut self.stats.prefill } else { &mut self.stats.decode };
        *time += started.elapsed();
        result
    }

    /// Computes the logits to sample from.
    fn compute<M: LanguageModel, D: Detokenize>(&mut self, session: &mut Session<M, D>) -> Result<(), Ended> {
        session.set_greedy(self.config.needs_largest_only());
        if let Next::Token(token) = self.next {
            self.next = Next::Nothing;
            return Ok(session.submit_next(token, self.config.context_overflow)?);
        }
        if let Next::Nothing = self.next {
            return Err(Ended::Already);
        }
        while self.block(session)? > 0 {
            if self.cancel.is_cancelled() {
                return Err(FinishReason::Cancelled.into());
            }
        }
        self.next = Next::Nothing;
        match self.config.max_tokens {
            0 => Err(FinishReason::Length.into()),
            _ => Ok(()),
        }
    }

    /// Computes a block of what is left of the prompt, and returns how many tokens are left.
    fn block<M: LanguageModel, D: Detokenize>(
        &mut self,
        session: &mut Session<M, D>,
    ) -> Result<usize, GenerateError> {
        let mut rest = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Prompt(mut prompt) => {
                self.stats.reused_tokens = session.reuse(&prompt);
                prompt.drain(..self.stats.reused_tokens);
                prompt
            }
            Next::Rest(rest) => rest,
            other => {
                self.next = other;
                return Ok(0);
            }
        };
        let block = rest.len().min(self.config.prefill_block);
        session.submit(&rest[..block])?;
        rest.drain(..block);
        let left = rest.len();
        self.next = if left == 0 { Next::Sample } else { Next::Rest(rest) };
        Ok(left)
    }

    fn sample<M: LanguageModel, D: Detokenize>(
        &mut self,
        session: &mut Session<M, D>,
    ) -> Result<Piece, Ended> {
        let logits = session.logits()?;
        let token = self.sampler.sample(logits)?;
        let logprobs = self.config.logprobs.map(|top| TokenLogprobs::new(logits, token, top)).transpose()?;
        self.stats.generated_tokens += 1;

        let vocab = session.vocab();
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
        } else if session.is_full() && self.config.context_overflow == ContextOverflow::Error {
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
        self.progress.next(self.session)
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
