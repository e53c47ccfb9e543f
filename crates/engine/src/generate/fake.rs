//! A scripted model and a vocabulary of short texts: what generation does, without arithmetic.

use std::borrow::Cow;

use super::{CancelToken, Detokenize, ForwardError, LanguageModel};

/// A model whose next token is the script's entry at the number of tokens seen so far, beyond `offset`.
#[derive(Clone, Debug)]
pub(super) struct FakeModel {
    pub(super) script: Vec<u32>,
    pub(super) capacity: usize,
    pub(super) cache: Vec<u32>,
    /// Positions ever dropped by a shift: the script goes on behind them.
    pub(super) shifted: usize,
    /// Lengths of the submissions.
    pub(super) submitted: Vec<usize>,
    /// Raised by the submission with this number.
    pub(super) cancel_at: Option<(usize, CancelToken)>,
    /// The submission with this number fails once, with half of its tokens in the cache.
    pub(super) fail_at: Option<usize>,
    logits: Vec<f32>,
}

impl FakeModel {
    /// Says `script[n]` after `n` tokens; token 0 where the script has ended.
    pub(super) fn new(capacity: usize, script: &[u32]) -> Self {
        Self {
            script: script.to_vec(),
            capacity,
            cache: Vec::new(),
            shifted: 0,
            submitted: Vec::new(),
            cancel_at: None,
            fail_at: None,
            logits: vec![0.0; Letters::SIZE],
        }
    }
}

impl LanguageModel for FakeModel {
    fn vocab_size(&self) -> usize {
        Letters::SIZE
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn submit(&mut self, tokens: &[u32]) -> Result<(), ForwardError> {
        if tokens.is_empty() {
            return Err(ForwardError::EmptyInput);
        }
        let requested = self.cache.len() + tokens.len();
        if requested > self.capacity {
            return Err(ForwardError::ContextFull { capacity: self.capacity, requested });
        }
        if self.fail_at == Some(self.submitted.len()) {
            self.fail_at = None;
            self.cache.extend(&tokens[..tokens.len() / 2]);
            return Err(ForwardError::NoLogits);
        }
        if let Some((at, cancel)) = &self.cancel_at
            && *at == self.submitted.len()
        {
            cancel.cancel();
        }
        self.submitted.push(tokens.len());
        self.cache.extend(tokens);
        Ok(())
    }

    fn logits(&mut self) -> Result<&[f32], ForwardError> {
        let said = self.script.get(self.cache.len() + self.shifted).copied().unwrap_or(0);
        self.logits.fill(0.0);
        self.logits[said as usize] = 10.0;
        Ok(&self.logits)
    }

    fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    fn shift(&mut self, keep: usize, discard: usize) -> Result<(), ForwardError> {
        let len = self.cache.len();
        if keep + discard > len {
            return Err(ForwardError::Shift { keep, discard, len });
        }
        self.cache.drain(keep..keep + discard);
        self.shifted += discard;
        Ok(())
    }
}

/// Token 0 ends an answer; tokens 1 to 26 are the letters; the rest are the bytes of the euro sign.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letters;

impl Letters {
    pub(super) const SIZE: usize = 30;

    /// The tokens of a text of letters and euro signs.
    pub(super) fn tokens(text: &str) -> Vec<u32> {
        let token = |byte: u8| match byte {
            b'.' => 0,
            0xe2 => 27,
            0x82 => 28,
            0xac => 29,
            letter => u32::from(letter - b'a') + 1,
        };
        text.bytes().map(token).collect()
    }
}

impl Detokenize for Letters {
    fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        let bytes = match id {
            0 => b"<end>".to_vec(),
            27 => vec![0xe2],
            28 => vec![0x82],
            29 => vec![0xac],
            letter => vec![b'a' + letter as u8 - 1],
        };
        Cow::Owned(bytes)
    }

    fn is_end_of_generation(&self, id: u32) -> bool {
        id == 0
    }
}
