//! WordPiece, BERT's tokenizer: words are cut into the longest tokens from left to right.
//!
//! It follows Hugging Face's BERT normalizer and pre-tokenizer, with which BERT-like models are trained.

use regex_syntax::hir::{Class, ClassUnicode, HirKind};
use unicode_normalization::UnicodeNormalization;

use super::trie::Trie;
use super::vocab::{SPACE, Vocabulary};

/// Cuts words into tokens. Source: arXiv 1609.08144, section 4.1.
pub(super) struct WordPiece {
    /// Tokens that begin a word, without the mark that says so.
    beginnings: Trie,
    /// Tokens that go on with a word.
    continuations: Trie,
    unk: Option<u32>,
    lowercase: bool,
    strip_accents: bool,
    /// Controls, format characters and private use.
    invisible: ClassUnicode,
    accents: ClassUnicode,
    punctuation: ClassUnicode,
}

/// Longer words are unknown.
const MAX_WORD_CHARS: usize = 100;

impl WordPiece {
    pub(super) fn new(
        vocab: &Vocabulary,
        unk: Option<u32>,
        lowercase: bool,
        strip_accents: bool,
    ) -> WordPiece {
        // In GGUF files a word's first token has a space before it, where BERT marks all tokens but the first.
        let marked = |text: &str| text.len() > SPACE.len() && text.starts_with(SPACE);
        let (beginnings, continuations): (Vec<_>, Vec<_>) =
            vocab.text_tokens().partition(|(_, text)| marked(text));
        let beginnings = beginnings.into_iter().map(|(id, text)| (&text.as_bytes()[SPACE.len()..], id));
        WordPiece {
            beginnings: Trie::new(beginnings),
            continuations: Trie::new(continuations.into_iter().map(|(id, text)| (text.as_bytes(), id))),
            unk,
            lowercase,
            strip_accents,
            invisible: class(r"[\p{Cc}\p{Cf}\p{Co}]"),
            accents: class(r"\p{Mn}"),
            punctuation: class(r"[\p{P}!-/:-@\[-`{-~]"),
        }
    }

    /// Appends the tokens of `text`. A word that tokens can't make up is one unknown token.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let text = self.normalize(text);
        for word in text.split(char::is_whitespace) {
            let mut start = 0;
            for (at, mark) in word.char_indices().filter(|&(_, letter)| contains(&self.punctuation, letter)) {
                let end = at + mark.len_utf8();
                self.encode_word(&word[start..at], out);
                self.encode_word(&word[at..end], out);
                start = end;
            }
            self.encode_word(&word[start..], out);
        }
    }

    fn encode_word(&self, word: &str, out: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let before = out.len();
        let too_long = word.chars().nth(MAX_WORD_CHARS).is_some();
        let (mut rest, mut tokens) = (word.as_bytes(), &self.beginnings);
        while !rest.is_empty() {
            match tokens.longest_prefix(rest).filter(|_| !too_long) {
                Some((len, id)) => {
                    out.push(id);
                    (rest, tokens) = (&rest[len..], &self.continuations);
                }
                None => {
                    out.truncate(before);
                    out.extend(self.unk);
                    return;
                }
            }
        }
    }

    /// Drops what is invisible, puts spaces around Chinese characters, and takes accents and capitals away.
    fn normalize(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        for letter in text.chars() {
            match letter {
                '\0' | char::REPLACEMENT_CHARACTER => {}
                '\t' | '\n' | '\r' => clean.push(' '),
                _ if contains(&self.invisible, letter) => {}
                _ if is_chinese(letter) => clean.extend([' ', letter, ' ']),
                _ => clean.push(letter),
            }
        }
        if self.strip_accents && !clean.is_ascii() {
            clean = clean.nfd().filter(|&letter| !contains(&self.accents, letter)).collect();
        }
        if self.lowercase {
            // Letter by letter: a capital sigma at the end of a word is no exception.
            clean = clean.chars().flat_map(char::to_lowercase).collect();
        }
        clean
    }
}

/// The characters of a class, given as a constant pattern.
fn class(pattern: &str) -> ClassUnicode {
    match regex_syntax::parse(pattern).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        other => unreachable!("{pattern} is no class: {other:?}"),
    }
}

fn contains(class: &ClassUnicode, letter: char) -> bool {
    let ranges = class.ranges();
    let after = ranges.partition_point(|range| range.start() <= letter);
    after > 0 && letter <= ranges[after - 1].end()
}

/// The blocks that BERT takes for Chinese, in the form of Hugging Face's tokenizers.
fn is_chinese(letter: char) -> bool {
    matches!(
        u32::from(letter),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF // from 2B820 in BERT's own code
            | 0xF900..=0xFAFF
            | 0x2F800..=0x2FA1F
    )
}
