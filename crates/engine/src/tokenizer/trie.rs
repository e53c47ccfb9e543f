//! A static byte trie: longest-prefix and all-prefixes lookup of vocabulary entries.

/// Byte strings with a number each, laid out breadth first: the children of a node are neighbours, sorted by label.
#[derive(Default)]
pub(super) struct Trie {
    /// Children of node `n` are the nodes `first_child[n]..first_child[n + 1]`.
    first_child: Vec<u32>,
    /// The byte on the edge that leads to a node.
    label: Vec<u8>,
    /// The number of the key that ends at a node, or [`NONE`].
    value: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Trie {
    /// The root, where a walk begins.
    pub(super) const ROOT: u32 = 0;

    /// Of equal keys the first one counts; empty keys are left out.
    pub(super) fn new<'a>(keys: impl IntoIterator<Item = (&'a [u8], u32)>) -> Trie {
        let mut keys: Vec<_> = keys.into_iter().filter(|(key, _)| !key.is_empty()).collect();
        keys.sort_by_key(|&(key, _)| key); // stable
        keys.dedup_by_key(|&mut (key, _)| key);

        let mut trie = Trie { first_child: Vec::new(), label: vec![0], value: Vec::new() };
        // Nodes in breadth-first order, each as the range of keys below it and its depth.
        let mut nodes = vec![(0, keys.len(), 0)];
        let mut next = 0;
        while let Some(&(mut low, high, depth)) = nodes.get(next) {
            trie.first_child.push(nodes.len() as u32);
            match keys.get(low) {
                Some(&(key, value)) if key.len() == depth => {
                    trie.value.push(value);
                    low += 1;
                }
                _ => trie.value.push(NONE),
            }
            while low < high {
                let label = keys[low].0[depth];
                let end = low + keys[low..high].partition_point(|(key, _)| key[depth] == label);
                nodes.push((low, end, depth + 1));
                trie.label.push(label);
                low = end;
            }
            next += 1;
        }
        trie.first_child.push(nodes.len() as u32);
        trie
    }

    /// The node one `byte` below `node`.
    #[inline]
    pub(super) fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let first = *self.first_child.get(node as usize)?;
        let end = *self.first_child.get(node as usize + 1)?;
        let place = self.label[first as usize..end as usize].binary_search(&byte).ok()?;
        Some(first + place as u32)
    }

    /// The number of the key that ends at `node`.
    #[inline]
    pub(super) fn value(&self, node: u32) -> Option<u32> {
        self.value.get(node as usize).copied().filter(|&value| value != NONE)
    }

    /// The longest key that `text` begins with: its length in bytes and its number.
    pub(super) fn longest_prefix(&self, text: &[u8]) -> Option<(usize, u32)> {
        let (mut node, mut longest) = (Trie::ROOT, None);
        for (i, &byte) in text.iter().enumerate() {
            let Some(child) = self.child(node, byte) else { break };
            node = child;
            longest = self.value(node).map(|value| (i + 1, value)).or(longest);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_prefix_of_overlapping_keys() {
        let keys: [&[u8]; 6] = [b"a", b"abc", b"b", b"", b"abcde", b"a"];
        let trie = Trie::new(keys.into_iter().zip(0..));
        assert_eq!(trie.longest_prefix(b"abcd"), Some((3, 1)));
        assert_eq!(trie.longest_prefix(b"abcdef"), Some((5, 4)));
        assert_eq!(trie.longest_prefix(b"ax"), Some((1, 0)), "the first of equal keys counts");
        assert_eq!(trie.longest_prefix(b"b"), Some((1, 2)));
        assert_eq!(trie.longest_prefix(b"xa"), None);
        assert_eq!(trie.longest_prefix(b""), None);
    }

    #[test]
    fn without_keys_nothing_is_found() {
        assert_eq!(Trie::new([]).longest_prefix(b"a"), None);
        assert_eq!(Trie::default().longest_prefix(b"a"), None);
    }
}
