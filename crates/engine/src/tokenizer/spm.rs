//! SentencePiece's byte-pair encoding: the adjacent pair whose union is the token of the highest score is joined.

use super::merge::{Merge, Merger, WordCache};
use super::vocab::{NO_TOKEN, SPACE, Vocabulary};

/// Joins characters to tokens by score. Source: arXiv 1808.06226.
pub(super) struct SentencePiece {
    /// Places of the tokens when sorted by falling score; tokens of equal score share one.
    ranks: Vec<u32>,
    /// Whether no token has a space after another character: then words can be encoded one by one.
    splits_at_spaces: bool,
    bytes: [u32; 256],
    unk: Option<u32>,
}

impl SentencePiece {
    /// `scores` has one entry a token.
    pub(super) fn new(vocab: &Vocabulary, scores: &[f32], unk: Option<u32>) -> SentencePiece {
        let mut order: Vec<u32> = (0..vocab.len() as u32).collect();
        let score = |id: u32| scores.get(id as usize).copied().unwrap_or_default();
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        let mut ranks = vec![0; vocab.len()];
        let mut rank = 0;
        for (place, &id) in order.iter().enumerate() {
            // Not by total order: minus zero equals zero.
            if place > 0 && score(order[place - 1]) != score(id) {
                rank += 1;
            }
            ranks[id as usize] = rank;
        }
        let splits_at_spaces = vocab.text_tokens().all(|(_, text)| word_starts(text).next().is_none());
        let mut bytes = [NO_TOKEN; 256];
        for (byte, id) in (0..=255).zip(&mut bytes) {
            *id = vocab.byte_id(byte).unwrap_or(NO_TOKEN);
        }
        SentencePiece { ranks, splits_at_spaces, bytes, unk }
    }

    /// Appends the tokens of `text`, which continues `prefix`. What is no token comes as its bytes, or as the unknown token, one a run, where the
    /// vocabulary has no bytes.
    pub(super) fn encode(&self, vocab: &Vocabulary, prefix: &str, text: &str, out: &mut Vec<u32>) {
        let text = [prefix, text].concat().replace(' ', SPACE);
        let mut merger = Merger::default();
        if self.splits_at_spaces {
            let mut cache = WordCache::default();
            let mut start = 0;
            for end in word_starts(&text).chain([text.len()]) {
                let word = &text[start..end];
                cache.encode(word, out, |out| self.encode_word(vocab, &mut merger, word, out));
                start = end;
            }
        } else {
            self.encode_word(vocab, &mut merger, &text, out);
        }
    }

    fn encode_word(&self, vocab: &Vocabulary, merger: &mut Merger, word: &str, out: &mut Vec<u32>) {
        merger.clear();
        for (i, letter) in word.char_indices() {
            merger.push(i, i + letter.len_utf8(), NO_TOKEN);
        }
        merger.run(|left, right| {
            let id = vocab.text_id(&word[left.start as usize..right.end as usize])?;
            Some(Merge { rank: self.ranks[id as usize], id })
        });
        let mut after_unknown = false;
        for piece in merger.pieces() {
            let text = &word[piece.start as usize..piece.end as usize];
            let token = Some(piece.id).filter(|&id| id != NO_TOKEN).or_else(|| vocab.text_id(text));
            let is_unknown =
                token.is_none() && text.bytes().any(|byte| self.bytes[usize::from(byte)] == NO_TOKEN);
            match token {
                Some(id) => out.push(id),
                None if is_unknown => out.extend(self.unk.filter(|_| !after_unknown)),
                None => out.extend(text.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
            after_unknown = is_unknown;
        }
    }
}

/// Where a space follows another character.
fn word_starts(text: &str) -> impl Iterator<Item = usize> {
    let spaces = text.match_indices(SPACE).map(|(at, _)| at);
    spaces.filter(|&at| !text[..at].ends_with(SPACE)).filter(|&at| at > 0)
}
