//! The loop shared by both kinds of byte-pair encoding: join the best adjacent pair until none is left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use hashbrown::HashMap;

/// What joining two neighbours would give.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    /// Lower ranks are joined first; of equal ranks the leftmost.
    pub(super) rank: u32,
    /// The id of the result.
    pub(super) id: u32,
}

/// A piece of the text, with links to the pieces beside it.
#[derive(Clone, Copy)]
pub(super) struct Symbol {
    /// The bytes `start..end` of the text.
    pub(super) start: u32,
    pub(super) end: u32,
    /// What the caller knows the piece by.
    pub(super) id: u32,
    prev: u32,
    next: u32,
    /// Joining it with the piece after it.
    merge: Option<Merge>,
}

const NONE: u32 = u32::MAX;

/// Up to so many pieces, looking at all candidates is faster than keeping a queue of them.
const FEW: usize = 24;

/// Joins pieces in `O(n log n)`: a queue of candidates over a linked list. Kept over words, it allocates rarely.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// Rank (high half) and left symbol (low half) of candidates. Kept for its memory.
    queue: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Starts over with no pieces.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Adds the piece `start..end` of the text at the end.
    pub(super) fn push(&mut self, start: usize, end: usize, id: u32) {
        let (start, end) = (start as u32, end as u32);
        let index = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        let prev = index.wrapping_sub(1); // NONE for the first
        self.symbols.push(Symbol { start, end, id, prev, next: NONE, merge: None });
    }

    /// Joins neighbours for as long as `pair` offers a merge.
    pub(super) fn run(&mut self, pair: impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        for left in 1..self.symbols.len() {
            self.symbols[left - 1].merge = pair(&self.symbols[left - 1], &self.symbols[left]);
        }
        if self.symbols.len() <= FEW {
            while let Some(left) = self.best() {
                self.join(left, &pair, |_| {});
            }
            return;
        }
        let mut keys = std::mem::take(&mut self.queue).into_vec();
        keys.clear();
        keys.extend((0..).zip(&self.symbols).filter_map(|(left, symbol)| Some(key(symbol.merge?, left))));
        let mut queue = BinaryHeap::from(keys);
        while let Some(Reverse(key)) = queue.pop() {
            let (rank, left) = ((key >> 32) as u32, key as u32);
            // Out of date where the piece was swallowed or got another neighbour.
            if self.symbols[left as usize].merge.is_some_and(|merge| merge.rank == rank) {
                self.join(left, &pair, |key| queue.push(key));
            }
        }
        self.queue = queue;
    }

    /// The left side of the best merge, by looking at all of them.
    fn best(&self) -> Option<u32> {
        let keys = (0..).zip(&self.symbols).filter_map(|(left, symbol)| Some((symbol.merge?.rank, left)));
        keys.min().map(|(_, left)| left)
    }

    /// Joins `left` with the piece after it, and calls `offer` with the merges that this opens.
    fn join(
        &mut self,
        left: u32,
        pair: impl Fn(&Symbol, &Symbol) -> Option<Merge>,
        mut offer: impl FnMut(Reverse<u64>),
    ) {
        let Symbol { prev, next: right, merge: Some(merge), .. } = self.symbols[left as usize] else {
            return;
        };
        let Symbol { end, next, .. } = self.symbols[right as usize];
        self.symbols[right as usize].merge = None;
        let symbol = &mut self.symbols[left as usize];
        (symbol.end, symbol.id, symbol.next, symbol.merge) = (end, merge.id, next, None);
        if next != NONE {
            self.symbols[next as usize].prev = left;
        }
        for (left, right) in [(prev, left), (left, next)] {
            if left != NONE && right != NONE {
                let merge = pair(&self.symbols[left as usize], &self.symbols[right as usize]);
                self.symbols[left as usize].merge = merge;
                if let Some(merge) = merge {
                    offer(key(merge, left));
                }
            }
        }
    }

    /// The pieces that are left, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Symbol> {
        std::iter::successors(self.symbols.first(), |symbol| self.symbols.get(symbol.next as usize))
    }
}

/// Puts the candidate of the lowest rank first in a queue, and of equals the leftmost.
fn key(merge: Merge, left: u32) -> Reverse<u64> {
    Reverse(u64::from(merge.rank) << 32 | u64::from(left))
}

/// Tokens of the words of one text. Most words come again and again.
#[derive(Default)]
pub(super) struct WordCache<'t> {
    /// Where in the output the tokens of a word are.
    places: HashMap<&'t str, Range<usize>>,
}

/// Longer words seldom come again.
const MAX_CACHED_BYTES: usize = 64;

impl<'t> WordCache<'t> {
    /// Appends the tokens of `word`: a copy of those that it had before, else what `encode` appends.
    pub(super) fn encode(&mut self, word: &'t str, out: &mut Vec<u32>, encode: impl FnOnce(&mut Vec<u32>)) {
        if let Some(place) = self.places.get(word) {
            return out.extend_from_within(place.clone());
        }
        let start = out.len();
        encode(out);
        if word.len() <= MAX_CACHED_BYTES {
            self.places.insert(word, start..out.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of `text` after merging, with `pairs` in order of rank.
    fn merged<'a>(text: &'a str, pairs: &[&str]) -> Vec<&'a str> {
        let mut merger = Merger::default();
        merger.push(0, 1, 9);
        merger.clear();
        text.char_indices().for_each(|(i, c)| merger.push(i, i + c.len_utf8(), 0));
        merger.run(|left, right| {
            let joined = &text[left.start as usize..right.end as usize];
            let rank = pairs.iter().position(|&pair| pair == joined)? as u32;
            Some(Merge { rank, id: rank })
        });
        merger.pieces().map(|piece| &text[piece.start as usize..piece.end as usize]).collect()
    }

    #[test]
    fn the_best_pair_goes_first_and_the_leftmost_of_equals() {
        assert_eq!(merged("", &["ab"]), [""; 0]);
        assert_eq!(merged("a", &["ab"]), ["a"]);
        assert_eq!(merged("aaa", &["aa"]), ["aa", "a"]);
        assert_eq!(merged("abc", &["bc", "ab"]), ["a", "bc"]);
        assert_eq!(merged("abcd", &["bc", "abc", "abcd"]), ["abcd"]);
        assert_eq!(merged("aaaaa", &["aa", "aaaa"]), ["aaaa", "a"]);
        assert_eq!(merged("xabcabx", &["ab", "abc", "xabc"]), ["xabc", "ab", "x"]);
    }

    #[test]
    fn long_words_merge_like_short_ones() {
        // Of a long word the queue makes what looking at all candidates makes of its parts.
        let pairs = ["ab", "ba", "abab", "aba", "bab", "baab"];
        for length in [FEW - 1, FEW, FEW + 1, 100] {
            let word: String = (0..length).map(|i| if i * i % 7 < 3 { 'a' } else { 'b' }).collect();
            let mut naive: Vec<String> = word.chars().map(String::from).collect();
            let joined = |window: &[String]| pairs.iter().position(|&pair| pair == window.concat());
            while let Some((_, at)) =
                (0..).zip(naive.windows(2)).filter_map(|(i, w)| Some((joined(w)?, i))).min()
            {
                let right = naive.remove(at + 1);
                naive[at].push_str(&right);
            }
            assert_eq!(merged(&word, &pairs), naive, "{length}");
        }
    }

    #[test]
    fn words_are_encoded_once() {
        let mut cache = WordCache::default();
        let mut out = vec![7];
        for (word, ids) in [("a", &[1, 2][..]), ("b", &[]), ("a", &[9]), ("b", &[9])] {
            cache.encode(word, &mut out, |out| out.extend(ids));
        }
        assert_eq!(out, [7, 1, 2, 1, 2]);
    }
}
