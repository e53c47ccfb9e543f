//! Byte-pair encoding with a list of merges: GPT-2's, on bytes, and Gemma 4's, on characters.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::TokenizerError;
use super::merge::{Merge, Merger, WordCache};
use super::pretokenize::PreTokenizer;
use super::pretokenizers::Rules;
use super::vocab::{NO_TOKEN, SPACE, Spelling, Vocabulary, letter_of};
use crate::gguf::Metadata;

/// Splits text into words, and joins the bytes (or characters) of each pair by pair in the order of a list.
///
/// Source: "Language Models are Unsupervised Multitask Learners", section 2.2.
pub(super) struct Bpe {
    pre_tokenizer: PreTokenizer,
    rules: Rules,
    /// The token of every byte: what a word begins as on bytes, the last resort on characters.
    bytes: [u32; 256],
    /// Ranks, the places in the list, by the pair that is joined.
    ranks: HashMap<(u32, u32), u32>,
    /// Results by rank. A piece that only merges name gets an id beyond the vocabulary.
    results: Vec<u32>,
}

impl Bpe {
    pub(super) fn new(meta: &Metadata, vocab: &Vocabulary, rules: Rules) -> Result<Bpe, TokenizerError> {
        let list = meta.strings("tokenizer.ggml.merges")?;
        let mut unnamed = HashMap::<String, u32>::new();
        let mut resolve = |text: &str| {
            vocab.id(text).unwrap_or_else(|| {
                let next = (vocab.len() + unnamed.len()) as u32;
                *unnamed.entry_ref(text).or_insert(next)
            })
        };
        let mut ranks = HashMap::with_capacity(list.len());
        let mut results = Vec::with_capacity(list.len());
        let mut joined = String::new();
        for (index, text) in list.iter().enumerate() {
            let (left, right) =
                split_pair(text).ok_or_else(|| TokenizerError::Merge { index, text: text.to_owned() })?;
            joined.clear();
            joined.extend([left, right]);
            let result = resolve(&joined);
            results.push(result);
            // Text never becomes a control token. Of equal pairs the first one counts.
            if !vocab.is_control(result) {
                ranks.entry((resolve(left), resolve(right))).or_insert(index as u32);
            }
        }

        let mut bytes = [NO_TOKEN; 256];
        for (byte, id) in (0..=255).zip(&mut bytes) {
            let found = match rules.spelling {
                Spelling::ByteLevel => {
                    let letter = letter_of(byte).to_string();
                    vocab.id(&letter).or_else(|| unnamed.get(&letter).copied())
                }
                Spelling::Spaced => vocab.byte_id(byte),
            };
            *id = found.filter(|&id| !vocab.is_control(id)).unwrap_or(NO_TOKEN);
        }
        let pre_tokenizer = PreTokenizer::new(rules.steps);
        Ok(Bpe { pre_tokenizer, rules, bytes, ranks, results })
    }

    /// Appends the tokens of `text`. A byte that no token stands for is left out, as in llama.cpp and Hugging Face's
    /// tokenizers.
    pub(super) fn encode(&self, vocab: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let text = match self.rules.spelling {
            Spelling::ByteLevel => Cow::Borrowed(text),
            Spelling::Spaced => Cow::Owned(text.replace(' ', SPACE)),
        };
        let mut merger = Merger::default();
        let mut cache = WordCache::default();
        self.pre_tokenizer.split(&text, &mut |word| {
            cache.encode(word, out, |out| self.encode_word(vocab, &mut merger, word, out));
        });
    }

    fn encode_word(&self, vocab: &Vocabulary, merger: &mut Merger, word: &str, out: &mut Vec<u32>) {
        if let Some(id) = self.whole_word(vocab, word) {
            return out.push(id);
        }
        merger.clear();
        match self.rules.spelling {
            Spelling::ByteLevel => {
                for (i, byte) in word.bytes().enumerate() {
                    merger.push(i, i + 1, self.bytes[usize::from(byte)]);
                }
            }
            Spelling::Spaced => {
                for (i, letter) in word.char_indices() {
                    let end = i + letter.len_utf8();
                    merger.push(i, end, vocab.text_id(&word[i..end]).unwrap_or(NO_TOKEN));
                }
            }
        }
        merger.run(|left, right| {
            let rank = *self.ranks.get(&(left.id, right.id))?;
            Some(Merge { rank, id: self.results[rank as usize] })
        });
        let is_token = |id: u32| (id as usize) < vocab.len();
        for piece in merger.pieces() {
            if is_token(piece.id) {
                out.push(piece.id);
            } else {
                let bytes = &word.as_bytes()[piece.start as usize..piece.end as usize];
                let ids = bytes.iter().map(|&byte| self.bytes[usize::from(byte)]);
                out.extend(ids.filter(|&id| is_token(id)));
            }
        }
    }

    /// The token of a word that stays whole.
    fn whole_word(&self, vocab: &Vocabulary, word: &str) -> Option<u32> {
        match self.rules.spelling {
            Spelling::ByteLevel if self.rules.whole_words => {
                vocab.text_id(&word.bytes().map(letter_of).collect::<String>())
            }
            // Runs of line breaks are tokens that no merge leads to.
            Spelling::Spaced if word.starts_with('\n') => vocab.text_id(word),
            _ => None,
        }
    }
}

/// The sides of a merge: they are parted by the first space that is not the first character.
fn split_pair(text: &str) -> Option<(&str, &str)> {
    let first = text.chars().next()?.len_utf8();
    let space = first + text[first..].find(' ')?;
    Some((&text[..space], &text[space + 1..]))
}
