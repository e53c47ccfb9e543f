use std::borrow::Cow;

use super::generation::{Generation, Output, Piece, Progress};
use super::{ContextOverflow, Detokenize, ForwardError, GenerateError, GenerationConfig, LanguageModel};

/// A model with its vocabulary, and the tokens that its KV cache holds.
///
/// Every prompt is the whole context of its answer. What it has in common with the tokens in the cache is not computed
/// again, so a conversation that grows turn by turn costs only its new tokens.
///
/// ```no_run
/// use firecrest::generate::{Detokenize, GenerateError, GenerationConfig, LanguageModel, Session};
///
/// fn ask(model: impl LanguageModel, vocab: impl Detokenize, prompt: &[u32]) -> Result<String, GenerateError> {
///     let mut session = Session::new(model, vocab);
///     let config = GenerationConfig::default().with_max_tokens(64);
///     let output = session.generate_stream(prompt, &config, |piece| {
///         print!("{}", piece.text);
///         true
///     })?;
///     Ok(output.text)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Session<M, D> {
    model: M,
    vocab: D,
    /// The tokens of the positions in the model's cache, always as many.
    tokens: Vec<u32>,
}

impl<M: LanguageModel, D: Detokenize> Session<M, D> {
    /// A session with an empty KV cache.
    pub fn new(mut model: M, vocab: D) -> Self {
        model.truncate(0);
        Self { model, vocab, tokens: Vec::new() }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The vocabulary.
    pub fn vocab(&self) -> &D {
        &self.vocab
    }

    /// The model, with whatever its KV cache holds.
    pub fn into_model(self) -> M {
        self.model
    }

    /// The tokens in the KV cache. The last token of an answer is not among them: nothing needed its logits.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The model, whose cache is about to hold other tokens: [`restored`](Self::restored) has to follow.
    pub(crate) fn model_mut(&mut self) -> &mut M {
        self.tokens.clear();
        &mut self.model
    }

    /// Tells which tokens the model's cache holds now.
    pub(crate) fn restored(&mut self, tokens: Vec<u32>) {
        debug_assert_eq!(tokens.len(), self.model.len());
        self.tokens = tokens;
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Starts an answer to `prompt`: an iterator of its pieces. Nothing is computed before the first is asked for.
    ///
    /// Fails if the options are invalid, or the prompt is empty, holds ids that are not in the vocabulary, or does not
    /// fit the context (see [`ContextOverflow`]).
    pub fn generation(
        &mut self,
        prompt: &[u32],
        config: &GenerationConfig,
    ) -> Result<Generation<'_, M, D>, GenerateError> {
        let progress = self.begin(prompt, config)?;
        Ok(Generation::new(self, progress))
    }

    /// As [`generation`](Self::generation), without a borrow: each step is given this session.
    pub fn begin(&self, prompt: &[u32], config: &GenerationConfig) -> Result<Progress, GenerateError> {
        let vocab = self.model.vocab_size();
        config.validate_for(vocab)?;
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(ForwardError::TokenOutOfRange { id, vocab }.into());
        }
        let fitted = fit(prompt, self.model.capacity(), config.context_overflow)?;
        Progress::new(self, fitted.into_owned(), prompt.len(), config)
    }

    /// Answers `prompt`. Fails as [`generation`](Self::generation) does, or if the model does.
    pub fn generate(&mut self, prompt: &[u32], config: &GenerationConfig) -> Result<Output, GenerateError> {
        self.generation(prompt, config)?.run(|_| true)
    }

    /// Answers `prompt`, showing each piece to `on_piece`, which returns whether to go on.
    ///
    /// Fails as [`generation`](Self::generation) does, or if the model does.
    pub fn generate_stream(
        &mut self,
        prompt: &[u32],
        config: &GenerationConfig,
        on_piece: impl FnMut(&Piece) -> bool,
    ) -> Result<Output, GenerateError> {
        self.generation(prompt, config)?.run(on_piece)
    }

    /// Cuts the cache to what it has in common with `prompt`, less at least its last token, whose logits are needed.
    /// Returns the number of tokens kept.
    pub(super) fn reuse(&mut self, prompt: &[u32]) -> usize {
        let common = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        self.truncate(common.min(prompt.len().saturating_sub(1)));
        self.tokens.len()
    }

    pub(super) fn submit(&mut self, tokens: &[u32]) -> Result<(), ForwardError> {
        let result = self.model.submit(tokens);
        // Also after an error, when the model may have kept the first of them.
        let added = self.model.len().saturating_sub(self.tokens.len());
        self.tokens.extend(tokens.iter().take(added));
        result
    }

    /// Submits `token`, first making room for it if the cache is full.
    pub(super) fn submit_next(&mut self, token: u32, overflow: ContextOverflow) -> Result<(), GenerateError> {
        let capacity = self.model.capacity();
        if self.is_full()
            && let ContextOverflow::Shift { keep } = overflow
        {
            let discard = shift_step(capacity, keep)?;
            self.model.shift(keep, discard)?;
            self.tokens.drain(keep..keep + discard);
        }
        Ok(self.submit(&[token])?)
    }

    pub(super) fn set_greedy(&mut self, greedy: bool) {
        self.model.set_greedy(greedy);
    }

    pub(super) fn logits(&mut self) -> Result<&[f32], ForwardError> {
        self.model.logits()
    }

    /// Whether there is no room for another token.
    pub(super) fn is_full(&self) -> bool {
        self.tokens.len() >= self.model.capacity()
    }

    fn truncate(&mut self, len: usize) {
        self.model.truncate(len);
        self.tokens.truncate(self.model.len());
    }
}

/// How many positions a shift drops: the older half of those that are not kept.
fn shift_step(capacity: usize, keep: usize) -> Result<usize, GenerateError> {
    match capacity.saturating_sub(keep) / 2 {
        0 => Err(GenerateError::CannotShift { keep, capacity }),
        step => Ok(step),
    }
}

/// The part of `prompt` that the cache can hold.
///
/// What is cut is what shifting would have dropped had the prompt come token by token. So after an answer during which
/// the cache was shifted, the next prompt of the same conversation still begins with what the cache holds.
fn fit(prompt: &[u32], capacity: usize, overflow: ContextOverflow) -> Result<Cow<'_, [u32]>, GenerateError> {
    if prompt.len() <= capacity {
        return Ok(Cow::Borrowed(prompt));
    }
    let ContextOverflow::Shift { keep } = overflow else {
        return Err(GenerateError::PromptTooLong { tokens: prompt.len(), capacity });
    };
    let step = shift_step(capacity, keep)?;
    let discard = (prompt.len() - capacity).div_ceil(step) * step;
    Ok(Cow::Owned([&prompt[..keep], &prompt[keep + discard..]].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fitting_equals_shifting_token_by_token(len in 1usize..200, capacity in 3usize..40, keep in 0usize..12) {
            let prompt: Vec<u32> = (0..len as u32).collect();
            let fitted = fit(&prompt, capacity, ContextOverflow::Shift { keep });
            if len > capacity && capacity < keep + 2 {
                prop_assert_eq!(fitted, Err(GenerateError::CannotShift { keep, capacity }));
                return Ok(());
            }
            let mut held: Vec<u32> = Vec::new();
            for &token in &prompt {
                if held.len() == capacity {
                    held.drain(keep..keep + (capacity - keep) / 2);
                }
                held.push(token);
            }
            prop_assert_eq!(fitted.unwrap().into_owned(), held);
        }
    }
}
