//! Short causal convolutions in each channel, with the past that they reach back to.
//!
//! What a layer convolves is kept for the last [`RING`] positions, and at every multiple of [`MARK`] for the few before
//! it. So a cache that is cut goes back exactly if that is near, else to a mark a little before.

use std::io::{self, Read, Write};

use super::{Buffer, Cpu};

/// Positions that are kept in full.
const RING: usize = 128;

/// Distance of the positions to return to from afar.
const MARK: usize = 32;

/// What the short convolution of one layer has seen.
#[derive(Clone, Debug)]
pub(crate) struct ConvCache {
    dim: usize,
    /// Positions before its own that an output depends on; fewer than [`MARK`].
    past: usize,
    /// Position `p` in row `p % RING`.
    ring: Vec<f32>,
    /// The oldest position that the ring still holds.
    oldest: usize,
    /// For each multiple of [`MARK`] from the second on, as far as positions go, the `past` positions before it.
    marks: Vec<f32>,
    /// Whether a mark is set.
    marked: Vec<bool>,
}

/// `len` times `zero`, or `None` where the memory cannot be had.
fn filled<T: Clone>(zero: T, len: usize) -> Option<Vec<T>> {
    Vec::<T>::new().try_reserve_exact(len).ok()?;
    Some(vec![zero; len])
}

impl ConvCache {
    /// The most positions that a convolution may span.
    pub(crate) const MAX_TAPS: usize = MARK;

    /// Of `capacity` positions, for convolutions over `taps` of them, at most [`ConvCache::MAX_TAPS`]. `None` where the
    /// memory cannot be had.
    pub(crate) fn new(dim: usize, taps: usize, capacity: usize) -> Option<Self> {
        let (past, marks) = (taps - 1, capacity / MARK);
        let mut room = Vec::new();
        room.try_reserve_exact(marks * past * dim).ok()?;
        Some(Self {
            dim,
            past,
            ring: filled(0.0, RING * dim)?,
            oldest: 0,
            marks: room,
            marked: filled(false, marks)?,
        })
    }

    /// Bytes that a cache takes, in all.
    pub(crate) fn size(&self) -> usize {
        (self.ring.len() + self.marks.len()) * size_of::<f32>()
    }

    /// Bytes that a cache takes.
    pub(crate) fn bytes(dim: usize, taps: usize, capacity: usize) -> Option<usize> {
        let rows = (capacity / MARK).checked_mul(taps - 1)?.checked_add(RING)?;
        rows.checked_mul(dim)?.checked_mul(size_of::<f32>())
    }

    fn row(&self, position: usize) -> &[f32] {
        &self.ring[position % RING * self.dim..][..self.dim]
    }

    /// Keeps what is convolved at `position`, the next one.
    fn push(&mut self, position: usize, row: &[f32]) {
        let dim = self.dim;
        self.ring[position % RING * dim..][..dim].copy_from_slice(row);
        self.oldest = self.oldest.max((position + 1).saturating_sub(RING));
        let next = position + 1;
        if next.is_multiple_of(MARK) && next / MARK <= self.marked.len() {
            let i = next / MARK - 1;
            self.marks.resize(self.marks.len().max((i + 1) * self.past * dim), 0.0);
            for j in 0..self.past {
                let at = (next - self.past + j) % RING * dim;
                self.marks[(i * self.past + j) * dim..][..dim].copy_from_slice(&self.ring[at..at + dim]);
            }
            self.marked[i] = true;
        }
    }

    /// The largest length, at most `len`, to which [`ConvCache::truncate`] can go back.
    pub(crate) fn reachable(&self, len: usize) -> usize {
        if self.oldest == 0 || len >= self.oldest + self.past {
            return len;
        }
        let mut marks = self.marked[..(len / MARK).min(self.marked.len())].iter();
        marks.rposition(|&marked| marked).map_or(0, |i| (i + 1) * MARK)
    }

    /// Forgets the positions from `len` on, which [`ConvCache::reachable`] has returned.
    pub(crate) fn truncate(&mut self, len: usize) {
        if self.oldest == 0 || len >= self.oldest + self.past {
            return;
        }
        if len == 0 {
            self.oldest = 0;
            return;
        }
        let dim = self.dim;
        for j in 0..self.past {
            let at = (len - self.past + j) % RING * dim;
            let from = ((len / MARK - 1) * self.past + j) * dim;
            self.ring[at..at + dim].copy_from_slice(&self.marks[from..from + dim]);
        }
        self.oldest = len - self.past;
    }

    /// Writes the last positions; marks are left out, so that whoever reads this may have to go back further.
    pub(crate) fn save(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&(self.oldest as u64).to_le_bytes())?;
        self.ring.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
    }

    /// Reads what [`ConvCache::save`] has written after `len` positions.
    pub(crate) fn load(&mut self, len: usize, from: &mut impl Read) -> io::Result<()> {
        let mut oldest = [0; 8];
        from.read_exact(&mut oldest)?;
        // Another number than the one written is found out by the checksum; until then it must do no harm.
        self.oldest = usize::try_from(u64::from_le_bytes(oldest)).map_or(len, |oldest| oldest.min(len));
        self.marked.fill(false);
        for x in &mut self.ring {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes)?;
            *x = f32::from_le_bytes(bytes);
        }
        Ok(())
    }

    /// Renumbers the positions from `keep + discard` up to `len` to start at `keep`.
    pub(crate) fn shift(&mut self, keep: usize, discard: usize, len: usize) {
        let (dim, end) = (self.dim, len - discard);
        let before = keep.saturating_sub(self.past)..keep;
        let seam: Vec<f32> = before.clone().flat_map(|position| self.row(position).to_vec()).collect();
        let has_seam = before.start >= self.oldest && end - before.start <= RING;
        let first = self.oldest.max(keep + discard) - discard;
        self.ring.rotate_left(discard % RING * dim);
        // The rows of earlier positions have moved too, where nothing looks for them.
        self.oldest = first;
        if has_seam && first == keep {
            for (position, row) in before.clone().zip(seam.chunks_exact(dim)) {
                self.ring[position % RING * dim..][..dim].copy_from_slice(row);
            }
            self.oldest = before.start;
        }
        let kept = (keep / MARK).min(self.marked.len());
        self.marked[kept..].fill(false);
    }
}

impl Cpu {
    /// `out[t] = c[t] * Σ_j taps[j] · (b * x)[t - past + j]` in each channel, for each sequence.
    ///
    /// `bcx` is `[tokens, 3 * dim]` with `b`, `c` and `x` side by side, `taps` is `[dim, past + 1]`. Each of `sequences` is
    /// what its layer has seen, the position of its first token, and how many tokens it has; they lie one after another.
    pub(crate) fn short_conv<'a>(
        &mut self,
        bcx: &mut Buffer,
        taps: &[f32],
        sequences: impl Iterator<Item = (&'a mut ConvCache, usize, usize)>,
        out: &mut Buffer,
    ) {
        let dim = bcx.columns() / 3;
        let past = taps.len() / dim - 1;
        out.reshape(bcx.tokens(), dim);
        let mut rows = bcx.data_mut().chunks_exact_mut(3 * dim).zip(out.data_mut().chunks_exact_mut(dim));
        for (cache, first, tokens) in sequences {
            for (position, (bcx, out)) in (first..first + tokens).zip(rows.by_ref()) {
                let (b, rest) = bcx.split_at_mut(dim);
                let (c, x) = rest.split_at(dim);
                b.iter_mut().zip(x).for_each(|(b, x)| *b *= x);
                cache.push(position, b);
                out.fill(0.0);
                for j in 0..=past {
                    // Before the first position there is nothing.
                    let Some(at) = (position + j).checked_sub(past) else { continue };
                    let row = cache.row(at);
                    for ((out, taps), x) in out.iter_mut().zip(taps.chunks_exact(past + 1)).zip(row) {
                        *out += taps[j] * x;
                    }
                }
                out.iter_mut().zip(c).for_each(|(out, c)| *out *= c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIM: usize = 3;

    fn row(token: usize) -> [f32; DIM] {
        [token as f32, -(token as f32), 1.0 / (token + 1) as f32]
    }

    /// Checks that the rows that the next position needs are those of `tokens`.
    fn check(cache: &ConvCache, tokens: &[usize]) {
        for at in tokens.len().saturating_sub(cache.past)..tokens.len() {
            assert_eq!(cache.row(at), row(tokens[at]), "position {at} of {}", tokens.len());
        }
    }

    #[test]
    fn a_cut_goes_back_exactly_or_to_a_mark() {
        for taps in [1, 3, 4, 32] {
            let (mut cache, mut tokens) = (ConvCache::new(DIM, taps, 600).unwrap(), Vec::new());
            for (round, cut) in [590, 500, 470, 300, 60, 40, 31, 0, 400, 280, 270, 33].into_iter().enumerate()
            {
                for token in tokens.len()..600 {
                    cache.push(tokens.len(), &row(1000 * round + token));
                    tokens.push(1000 * round + token);
                }
                let len = cache.reachable(cut);
                assert!(len == cut || (len < cut && len % MARK == 0 && len + MARK > cut), "{len} of {cut}");
                assert!(len == cut || cut < 600 - RING + taps, "{cut} is near");
                cache.truncate(len);
                tokens.truncate(len);
                check(&cache, &tokens);
            }
        }
    }

    #[test]
    fn a_shift_keeps_what_comes_next() {
        for (keep, discard, len) in
            [(0, 5, 24), (2, 5, 24), (10, 13, 24), (4, 150, 300), (0, 300, 300), (290, 5, 300)]
        {
            let mut cache = ConvCache::new(DIM, 3, 600).unwrap();
            let mut tokens: Vec<usize> = (0..len).collect();
            tokens.iter().for_each(|&token| cache.push(token, &row(token)));
            cache.shift(keep, discard, len);
            tokens.drain(keep..keep + discard);
            check(&cache, &tokens);
            for token in 1000..1100 {
                cache.push(tokens.len(), &row(token));
                tokens.push(token);
                check(&cache, &tokens);
            }
            let len = cache.reachable(tokens.len() - 20);
            assert_eq!(len, tokens.len() - 20);
            cache.truncate(len);
            tokens.truncate(len);
            check(&cache, &tokens);
        }
    }
}
