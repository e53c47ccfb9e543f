//! Which positions of a cache belong to which sequence.

use firecrest_kernels::ops::PAGE;

/// How many sequences use each page of a cache.
#[derive(Debug)]
pub(super) struct Pages {
    users: Vec<u32>,
}

/// Where the positions of one sequence lie: the page of each [`PAGE`] of them.
///
/// The cache that it came from counts its pages, so it is copied by [`KvCache::fork`](super::KvCache::fork) alone.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    pages: Vec<u32>,
}

impl PageTable {
    pub(super) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// The place of a position in the cache.
    pub(super) fn place(&self, position: usize) -> usize {
        self.pages[position / PAGE] as usize * PAGE + position % PAGE
    }

    /// The first `len` positions: where those of each page lie, and how many they are.
    pub(super) fn runs(&self, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let starts = (0..len).step_by(PAGE);
        self.pages.iter().zip(starts).map(move |(&page, start)| (page as usize * PAGE, PAGE.min(len - start)))
    }
}

impl Pages {
    pub(super) fn new(count: usize) -> Self {
        Self { users: vec![0; count] }
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Pages that some sequence uses.
    pub(super) fn used(&self) -> usize {
        self.users.iter().filter(|&&users| users > 0).count()
    }

    /// Makes room for the positions `len .. len + more` of a sequence of `len` in pages of its own, and returns from which
    /// page to which the positions are to be copied that a shared page holds already. `None` where too few pages are free;
    /// the table may have grown nevertheless.
    pub(super) fn reserve(
        &mut self,
        table: &mut PageTable,
        len: usize,
        more: usize,
    ) -> Option<Option<[u32; 2]>> {
        let mut copy = None;
        if let Some(last) = table.pages.get_mut(len / PAGE)
            && self.users[*last as usize] > 1
        {
            let own = self.take()?;
            self.users[*last as usize] -= 1;
            copy = Some([*last, own]);
            *last = own;
        }
        while table.pages.len() * PAGE < len + more {
            table.pages.push(self.take()?);
        }
        Some(copy)
    }

    /// The first free page, so that a sequence alone lies in one piece.
    fn take(&mut self) -> Option<u32> {
        let page = self.users.iter().position(|&users| users == 0)?;
        self.users[page] = 1;
        Some(page as u32)
    }

    /// The first `len` positions for another sequence; they stay where they are.
    pub(super) fn fork(&mut self, table: &PageTable, len: usize) -> PageTable {
        let pages = table.pages[..len.div_ceil(PAGE)].to_vec();
        pages.iter().for_each(|&page| self.users[page as usize] += 1);
        PageTable { pages }
    }

    /// Gives back what a sequence does not need for `len` positions.
    pub(super) fn truncate(&mut self, table: &mut PageTable, len: usize) {
        for page in table.pages.drain(len.div_ceil(PAGE).min(table.pages.len())..) {
            self.users[page as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_share_pages_until_they_write() {
        let mut pages = Pages::new(6);
        let mut parent = PageTable::default();
        assert_eq!(pages.reserve(&mut parent, 0, 2 * PAGE + 1), Some(None));
        assert_eq!(parent.pages, [0, 1, 2]);
        let (mut a, mut b) = (pages.fork(&parent, 2 * PAGE + 1), pages.fork(&parent, 2 * PAGE + 1));
        assert_eq!(pages.used(), 3);
        // The last page is begun: whoever writes to it copies it, but for the last one to do so.
        assert_eq!(pages.reserve(&mut a, 2 * PAGE + 1, 1), Some(Some([2, 3])));
        assert_eq!(pages.reserve(&mut a, 2 * PAGE + 2, 1), Some(None));
        assert_eq!(pages.reserve(&mut b, 2 * PAGE + 1, PAGE), Some(Some([2, 4])));
        assert_eq!(pages.reserve(&mut parent, 2 * PAGE + 1, 1), Some(None));
        assert_eq!(
            (&parent.pages[..], &a.pages[..], &b.pages[..]),
            (&[0, 1, 2][..], &[0, 1, 3][..], &[0, 1, 4, 5][..])
        );
        assert_eq!(pages.reserve(&mut a, 3 * PAGE, 1), None);
        pages.truncate(&mut b, PAGE);
        assert_eq!(b.pages, [0]);
        assert_eq!(pages.used(), 4);
        pages.truncate(&mut parent, 0);
        assert_eq!(pages.used(), 3);
        assert_eq!(pages.reserve(&mut a, 3 * PAGE, 1), Some(None));
        assert_eq!(a.pages, [0, 1, 3, 2]);
        assert_eq!(a.place(3 * PAGE + 5), 2 * PAGE + 5);
        assert_eq!(a.runs(2 * PAGE + 7).collect::<Vec<_>>(), [(0, PAGE), (PAGE, PAGE), (3 * PAGE, 7)]);
    }
}
