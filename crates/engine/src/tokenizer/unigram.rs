//! SentencePiece's Unigram model: the split of the text into tokens whose scores sum highest.

use super::charsmap::Charsmap;
use super::trie::Trie;
use super::vocab::{Kind, NO_TOKEN, SPACE, Vocabulary};

/// Finds the most likely tokens of a text. Source: arXiv 1804.10959.
pub(super) struct Unigram {
    tokens: Trie,
    scores: Vec<f32>,
    /// The score of a character that no token has.
    unknown_score: f64,
    unk: Option<u32>,
    bytes: Option<Box<[u32; 256]>>,
    charsmap: Charsmap,
    add_space_prefix: bool,
    remove_extra_spaces: bool,
}

/// The best split of the text up to a place: its score, and its last token and where that begins.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    id: u32,
    start: u32,
}

/// How much worse than any token an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

impl Unigram {
    /// `scores` has one entry a token: log probabilities.
    pub(super) fn new(
        vocab: &Vocabulary,
        mut scores: Vec<f32>,
        unk: Option<u32>,
        charsmap: Charsmap,
        add_space_prefix: bool,
        remove_extra_spaces: bool,
    ) -> Unigram {
        let mut lowest = f32::MAX;
        for (id, _, kind) in vocab.iter() {
            let Some(score) = scores.get_mut(id as usize) else { break };
            match kind {
                Kind::Normal => lowest = lowest.min(*score),
                // So that they are taken wherever they stand.
                Kind::UserDefined => *score = 0.0,
                _ => {}
            }
        }
        let tokens = Trie::new(vocab.text_tokens().map(|(id, text)| (text.as_bytes(), id)));
        let mut bytes = Box::new([NO_TOKEN; 256]);
        for (byte, id) in (0..=255).zip(&mut bytes[..]) {
            *id = vocab.byte_id(byte).filter(|&id| vocab.kind(id) == Some(Kind::Byte)).unwrap_or(NO_TOKEN);
        }
        Unigram {
            tokens,
            scores,
            unknown_score: f64::from(lowest) - UNKNOWN_PENALTY,
            unk,
            bytes: (!bytes.contains(&NO_TOKEN)).then_some(bytes),
            charsmap,
            add_space_prefix,
            remove_extra_spaces,
        }
    }

    /// Appends the tokens of `text`. A run of characters that no token has comes as its bytes, where the vocabulary has
    /// them, or as one unknown token.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let text = self.normalize(text);
        let mut best = vec![Best { score: f64::NEG_INFINITY, id: NO_TOKEN, start: 0 }; text.len() + 1];
        best[0].score = 0.0;
        for (start, letter) in text.char_indices() {
            let here = best[start].score;
            let letter_end = start + letter.len_utf8();
            let mut offer = |end: usize, score: f64, id: u32| {
                if score > best[end].score {
                    best[end] = Best { score, id, start: start as u32 };
                }
            };
            let (mut node, mut letter_found) = (Trie::ROOT, false);
            for (end, &byte) in (start + 1..).zip(&text.as_bytes()[start..]) {
                let Some(child) = self.tokens.child(node, byte) else { break };
                node = child;
                if let Some(id) = self.tokens.value(node) {
                    let score = self.scores.get(id as usize).copied().unwrap_or_default();
                    offer(end, here + f64::from(score), id);
                    letter_found |= end == letter_end;
                }
            }
            if !letter_found {
                offer(letter_end, here + self.unknown_score, NO_TOKEN);
            }
        }

        // From the end back to the start, then turned around.
        let first = out.len();
        let mut end = text.len();
        while end > 0 {
            let Best { mut start, id, .. } = best[end];
            if id != NO_TOKEN {
                out.push(id);
            } else {
                while start > 0 && best[start as usize].id == NO_TOKEN {
                    start = best[start as usize].start;
                }
                match &self.bytes {
                    Some(ids) => {
                        let unknown = &text.as_bytes()[start as usize..end];
                        out.extend(unknown.iter().rev().map(|&byte| ids[usize::from(byte)]));
                    }
                    None => out.extend(self.unk),
                }
            }
            end = start as usize;
        }
        out[first..].reverse();
    }

    /// Replaces characters by the model's table, spaces by U+2581, and adds or removes spaces as the model has it.
    fn normalize(&self, text: &str) -> String {
        let mut normalized = String::with_capacity(text.len() + text.len() / 2);
        let mut needs_prefix = self.add_space_prefix;
        let mut after_space = true;
        self.charsmap.replace(text, &mut |replaced| {
            for letter in replaced.chars() {
                if letter == ' ' {
                    if !self.remove_extra_spaces {
                        normalized.push_str(SPACE);
                    }
                    after_space = true;
                } else {
                    if after_space && (needs_prefix || self.remove_extra_spaces) {
                        normalized.push_str(SPACE);
                        needs_prefix = false;
                    }
                    normalized.push(letter);
                    after_space = false;
                }
            }
        });
        normalized
    }
}
