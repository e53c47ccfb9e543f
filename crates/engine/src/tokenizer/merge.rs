//! The loop shared by both kinds of byte-pair encoding: join the best adjacent pair until none is left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What joining two neighbours would give.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    /// Lower ranks are joined first; of equal ranks the leftmost.
    pub(super) rank: u32,
    /// The id of the result.
    pub(super) id: u32,
}

/// A piece of the text, with links to the pieces beside it.
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

/// Joins pieces in `O(n log n)`: a queue of candidates over a linked list. Kept over words, it allocates rarely.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// Rank (high half) and left symbol (low half) of candidates, some of them out of date.
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
        let mut seeds = std::mem::take(&mut self.queue).into_vec();
        seeds.clear();
        for left in 1..self.symbols.len() {
            let merge = pair(&self.symbols[left - 1], &self.symbols[left]);
            self.symbols[left - 1].merge = merge;
            seeds.extend(merge.map(|merge| candidate(merge, left as u32 - 1)));
        }
        self.queue = BinaryHeap::from(seeds);

        while let Some(Reverse(key)) = self.queue.pop() {
            let (rank, left) = ((key >> 32) as u32, key as u32);
            let symbol = &self.symbols[left as usize];
            // Out of date where the piece was swallowed or got another neighbour.
            let Some(merge) = symbol.merge.filter(|merge| merge.rank == rank) else { continue };

            let right = symbol.next;
            let swallowed = &mut self.symbols[right as usize];
            let (end, next) = (swallowed.end, swallowed.next);
            swallowed.merge = None;
            let symbol = &mut self.symbols[left as usize];
            (symbol.end, symbol.id, symbol.next) = (end, merge.id, next);
            let prev = symbol.prev;
            if next != NONE {
                self.symbols[next as usize].prev = left;
            }
            self.update(prev, left, &pair);
            self.update(left, next, &pair);
        }
    }

    fn update(&mut self, left: u32, right: u32, pair: impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        if left == NONE {
            return;
        }
        let merge = (right != NONE)
            .then(|| pair(&self.symbols[left as usize], &self.symbols[right as usize]))
            .flatten();
        self.symbols[left as usize].merge = merge;
        self.queue.extend(merge.map(|merge| candidate(merge, left)));
    }

    /// The pieces that are left, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Symbol> {
        std::iter::successors(self.symbols.first(), |symbol| self.symbols.get(symbol.next as usize))
    }
}

fn candidate(merge: Merge, left: u32) -> Reverse<u64> {
    Reverse(u64::from(merge.rank) << 32 | u64::from(left))
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
}
