//! A model on its device, with the memory that its sequences share.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use super::decoder::ContextOptions;
use super::pass::Buffers;
use super::rope::Rope;
use super::spec::{DecoderSpec, MixerSpec};
use super::weights::{DecoderWeights, LoadError};
use crate::backend::{ConvCache, Cpu, KvCache, KvFormat, KvHeads, PageTable, Rows};
use crate::generate::ForwardError;

/// What a pass needs besides sequences.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) spec: Arc<DecoderSpec>,
    pub(super) weights: Arc<DecoderWeights>,
    pub(super) cpu: Cpu,
    pub(super) ropes: Vec<Rope>,
    pub(super) kv: KvCache,
    pub(super) buffers: Buffers,
    /// The most positions of a sequence.
    pub(super) capacity: usize,
    /// The most tokens of a pass.
    pub(super) block: usize,
    /// What convolutions of a new sequence have seen: nothing.
    conv: Arc<ConvCaches>,
}

/// For each layer that convolves, what it has seen of one sequence.
pub(super) type ConvCaches = Vec<Option<ConvCache>>;

/// What is kept of the tokens of one sequence.
#[derive(Debug)]
pub(super) struct Sequence {
    pages: PageTable,
    /// Copied when one of several sequences that share it writes to it.
    conv: Arc<ConvCaches>,
    len: usize,
}

/// What one sequence adds to a pass.
pub(super) struct Span<'a> {
    pages: &'a PageTable,
    pub(super) conv: &'a mut Arc<ConvCaches>,
    first: usize,
    pub(super) tokens: &'a [u32],
    /// How many of the last tokens the pass is made for; of the others only keys and values are.
    pub(super) outputs: usize,
}

impl Span<'_> {
    pub(super) fn positions(&self) -> Range<usize> {
        self.first..self.first + self.tokens.len()
    }
}

impl<'a> Span<'a> {
    pub(super) fn rows(&self) -> Rows<'a> {
        Rows { pages: self.pages, first: self.first, tokens: self.tokens.len() }
    }

    /// Those of [`Span::rows`] that the pass is made for, where there are any.
    pub(super) fn outputs(&self) -> Option<Rows<'a>> {
        let skipped = self.tokens.len() - self.outputs;
        (self.outputs > 0).then(|| Rows { first: self.first + skipped, tokens: self.outputs, ..self.rows() })
    }
}

impl Network {
    /// With room for `sequences` of the capacity that the options give. Fails where the memory for that cannot be had.
    pub(super) fn new(
        spec: Arc<DecoderSpec>,
        weights: Arc<DecoderWeights>,
        options: &ContextOptions,
        sequences: usize,
    ) -> Result<Self, LoadError> {
        let mut capacity = options.capacity.unwrap_or_else(|| spec.context_length.min(4096)).max(1);
        if let Some(positions) = spec.embedding.positions {
            capacity = capacity.min(positions);
        }
        let (kv, conv) = caches(&spec, options.kv_format, capacity, sequences)?;
        Ok(Self {
            cpu: Cpu::new(&options.cpu)?,
            ropes: spec.ropes.iter().map(|rope| rope.resolve(capacity)).collect(),
            kv,
            buffers: Buffers::default(),
            capacity,
            block: options.block.max(1),
            conv: Arc::new(conv),
            spec,
            weights,
        })
    }

    /// A sequence without tokens.
    pub(super) fn sequence(&self) -> Sequence {
        Sequence { pages: PageTable::default(), conv: Arc::clone(&self.conv), len: 0 }
    }

    /// Whether a sequence can take these tokens.
    pub(super) fn check(&self, sequence: &Sequence, tokens: &[u32]) -> Result<(), ForwardError> {
        if tokens.is_empty() {
            return Err(ForwardError::EmptyInput);
        }
        let vocab = self.spec.vocab;
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(ForwardError::TokenOutOfRange { id, vocab });
        }
        let requested = sequence.len + tokens.len();
        if requested > self.capacity {
            return Err(ForwardError::ContextFull { capacity: self.capacity, requested });
        }
        Ok(())
    }
}

/// Heads for so many sequences, and convolutions for one.
fn caches(
    spec: &DecoderSpec,
    format: KvFormat,
    capacity: usize,
    sequences: usize,
) -> Result<(KvCache, ConvCaches), LoadError> {
    let heads = spec.layers.iter().map(|layer| match &layer.mixer {
        MixerSpec::Attention(a) => KvHeads { heads: a.kv_heads, head_dim: a.head_dim },
        MixerSpec::ShortConv { .. } => KvHeads { heads: 0, head_dim: 1 },
    });
    let taps = spec.layers.iter().map(|layer| match layer.mixer {
        MixerSpec::Attention(_) => None,
        MixerSpec::ShortConv { taps } => Some(taps),
    });
    let positions = KvCache::whole_pages(capacity).and_then(|one| one.checked_mul(sequences.max(1)));
    let mut bytes = positions.and_then(|positions| KvCache::bytes(format, positions, heads.clone()));
    for taps in taps.clone().flatten() {
        let more =
            ConvCache::bytes(spec.dim, taps, capacity).and_then(|one| one.checked_mul(sequences.max(1)));
        bytes = bytes.zip(more).and_then(|(bytes, more)| bytes.checked_add(more));
    }
    let failed = || LoadError::Context { capacity, bytes };
    let positions = positions.ok_or_else(failed)?;
    // Half of the address space of a 32-bit module; on larger machines, more than any has.
    if bytes.is_none_or(|bytes| bytes > isize::MAX as usize / 4 || bytes as u64 > 1 << 44) {
        return Err(failed());
    }
    let kv = KvCache::new(format, positions, heads).ok_or_else(failed)?;
    let conv = taps.map(|taps| match taps {
        None => Some(None),
        Some(taps) => ConvCache::new(spec.dim, taps, capacity).map(Some),
    });
    Ok((kv, conv.collect::<Option<_>>().ok_or_else(failed)?))
}

impl Sequence {
    /// Positions that are kept.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where they lie.
    pub(super) fn pages(&self) -> &PageTable {
        &self.pages
    }

    /// Makes room for `more` positions. `false` where the cache is full.
    #[must_use]
    pub(super) fn reserve(&mut self, kv: &mut KvCache, more: usize) -> bool {
        kv.reserve(&mut self.pages, self.len, more)
    }

    /// Gives back room that was made and not used.
    pub(super) fn trim(&mut self, kv: &mut KvCache) {
        kv.truncate(&mut self.pages, self.len);
    }

    /// Gives back everything.
    pub(super) fn release(mut self, kv: &mut KvCache) {
        kv.truncate(&mut self.pages, 0);
    }

    /// The next tokens, which count as kept from now on; there is room for them. The pass is made for the last `outputs`.
    pub(super) fn span<'a>(&'a mut self, tokens: &'a [u32], outputs: usize) -> Span<'a> {
        let first = self.len;
        self.len += tokens.len();
        Span { pages: &self.pages, conv: &mut self.conv, first, tokens, outputs }
    }

    /// Another sequence with the same tokens. What is kept of them is shared until one of the two writes.
    pub(super) fn fork(&self, kv: &mut KvCache) -> Self {
        Self { pages: kv.fork(&self.pages, self.len), conv: Arc::clone(&self.conv), len: self.len }
    }

    /// Forgets the positions from `len` on, or a few more where a convolution cannot go back to there.
    pub(super) fn truncate(&mut self, kv: &mut KvCache, len: usize) {
        let convolutions = self.conv.iter().flatten();
        let len = convolutions.fold(self.len.min(len), |len, conv| conv.reachable(len));
        if len < self.len {
            self.convolutions().for_each(|conv| conv.truncate(len));
            self.len = len;
            self.trim(kv);
        }
    }

    /// Drops `discard` positions from `keep` on; keys and values are moved already.
    pub(super) fn shift(&mut self, kv: &mut KvCache, keep: usize, discard: usize) {
        let len = self.len;
        self.convolutions().for_each(|conv| conv.shift(keep, discard, len));
        self.len -= discard;
        self.trim(kv);
    }

    fn convolutions(&mut self) -> impl Iterator<Item = &mut ConvCache> {
        let any = self.conv.iter().any(Option::is_some);
        any.then(|| Arc::make_mut(&mut self.conv).iter_mut().flatten()).into_iter().flatten()
    }

    /// Bytes of what convolutions have seen, and whose they are.
    pub(super) fn conv_bytes(&self) -> (*const ConvCaches, usize) {
        (Arc::as_ptr(&self.conv), self.conv.iter().flatten().map(ConvCache::size).sum())
    }

    /// Writes what is kept of the first `len` positions, which are all.
    pub(super) fn save(&self, kv: &KvCache, len: usize, out: &mut impl Write) -> io::Result<()> {
        kv.save(&self.pages, len, out)?;
        self.conv.iter().flatten().try_for_each(|conv| conv.save(out))
    }

    /// Reads what [`Sequence::save`] has written of `len` positions into an empty sequence, after an error of no use.
    pub(super) fn load(&mut self, kv: &mut KvCache, len: usize, from: &mut impl Read) -> io::Result<()> {
        if !kv.reserve(&mut self.pages, 0, len) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.len = len;
        kv.load(&self.pages, len, from)?;
        self.convolutions().try_for_each(|conv| conv.load(len, from))
    }
}
