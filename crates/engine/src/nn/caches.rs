//! What a decoder keeps of earlier tokens.

use std::io::{self, Read, Write};

use super::spec::{DecoderSpec, MixerSpec};
use super::weights::LoadError;
use crate::backend::{ConvCache, KvCache, KvFormat, KvHeads};

/// The caches of all layers.
#[derive(Debug)]
pub(super) struct Caches {
    /// Layers that convolve have no heads here.
    pub(super) kv: KvCache,
    /// For each layer that convolves.
    pub(super) conv: Vec<Option<ConvCache>>,
}

impl Caches {
    /// For `capacity` positions. Fails where the memory for that cannot be had.
    pub(super) fn new(spec: &DecoderSpec, format: KvFormat, capacity: usize) -> Result<Self, LoadError> {
        let heads = || {
            spec.layers.iter().map(|layer| match &layer.mixer {
                MixerSpec::Attention(a) => KvHeads { heads: a.kv_heads, head_dim: a.head_dim },
                MixerSpec::ShortConv { .. } => KvHeads { heads: 0, head_dim: 1 },
            })
        };
        let taps = || {
            spec.layers.iter().map(|layer| match layer.mixer {
                MixerSpec::Attention(_) => None,
                MixerSpec::ShortConv { taps } => Some(taps),
            })
        };
        let mut bytes = KvCache::bytes(format, capacity, heads());
        for taps in taps().flatten() {
            let more = ConvCache::bytes(spec.dim, taps, capacity);
            bytes = bytes.zip(more).and_then(|(bytes, more)| bytes.checked_add(more));
        }
        // Half of the address space of a 32-bit module; on larger machines, more than any has.
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize / 4 || bytes as u64 > 1 << 44) {
            return Err(LoadError::Context { capacity, bytes });
        }
        let failed = LoadError::Context { capacity, bytes };
        let Some(kv) = KvCache::new(format, capacity, heads()) else { return Err(failed) };
        let conv = taps().map(|taps| match taps {
            None => Some(None),
            Some(taps) => ConvCache::new(spec.dim, taps, capacity).map(Some),
        });
        let Some(conv) = conv.collect() else { return Err(failed) };
        Ok(Self { kv, conv })
    }

    /// Forgets the positions from `len` on, or a few more where a convolution cannot go back to there; returns how many
    /// are left.
    pub(super) fn truncate(&mut self, len: usize) -> usize {
        let len = self.conv.iter().flatten().fold(len, |len, conv| conv.reachable(len));
        self.conv.iter_mut().flatten().for_each(|conv| conv.truncate(len));
        len
    }

    /// Writes what is kept of the first `len` positions, which are all.
    pub(super) fn save(&self, len: usize, out: &mut impl Write) -> io::Result<()> {
        self.kv.save(len, out)?;
        self.conv.iter().flatten().try_for_each(|conv| conv.save(out))
    }

    /// Reads what [`Caches::save`] has written of caches like these, in place of what they hold.
    pub(super) fn load(&mut self, len: usize, from: &mut impl Read) -> io::Result<()> {
        self.kv.load(len, from)?;
        self.conv.iter_mut().flatten().try_for_each(|conv| conv.load(len, from))
    }
}
