//! Many sequences, decoded together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::{error, fmt};

use super::decoder::ContextOptions;
use super::network::{Network, Sequence};
use super::pass;
use super::spec::DecoderSpec;
use super::weights::{DecoderWeights, LoadError};
use crate::backend::Buffer;
use crate::generate::ForwardError;

/// Names a sequence of a [`BatchDecoder`], and none that comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A decoder of several sequences: tokens of any number of them go through the layers in one pass, which reads the
/// weights once. Reading weights is most of the work of decoding one, so many answers together take less time than one after
/// the other.
///
/// Keys and values live in one cache, in pages of 64 positions. A sequence has a table of its pages, so that
/// [`fork`](Self::fork) copies the table alone: what sequences have in common is in memory once, and a page that is begun
/// is copied when one of those that share it writes to it. Pages do not move, and a head's pages stand side by side in
/// memory; a [`Decoder`](super::Decoder) is the case of one sequence with all pages in order.
///
/// What a sequence computes does not depend on the others, but for rounding: products of four tokens and more are summed
/// in another order than those of fewer. Nothing is left out for [sparsity](ContextOptions::sparsity).
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use firecrest::{ContextOptions, Model};
///
/// let model = Model::from_gguf_file("model.gguf")?;
/// let mut decoder = model.batch_decoder(&ContextOptions::default(), 8)?;
/// let prompt = model.tokenizer().encode("You are a helpful assistant. ", Default::default());
/// let first = decoder.add();
/// decoder.submit(&[(first, &prompt)])?;
/// let second = decoder.fork(first)?;
///
/// let questions = ["Who are you?", "What time is it?"].map(|text| model.tokenizer().encode(text, Default::default()));
/// decoder.submit(&[(first, &questions[0]), (second, &questions[1])])?;
/// let best = |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0) as u32;
/// for _ in 0..100 {
///     let next = [best(decoder.logits(first)?), best(decoder.logits(second)?)];
///     decoder.submit(&[(first, &next[..1]), (second, &next[1..])])?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct BatchDecoder {
    network: Network,
    members: BTreeMap<SequenceId, Member>,
    /// Sequences so far.
    added: u64,
    /// Submissions so far.
    submitted: u64,
    /// The residual streams whose logits are asked for.
    last: Buffer,
}

#[derive(Debug)]
struct Member {
    sequence: Sequence,
    /// The submission after which its logits are there, and their row.
    logits: Option<(u64, usize)>,
}

impl BatchDecoder {
    pub(crate) fn new(
        spec: Arc<DecoderSpec>,
        weights: Arc<DecoderWeights>,
        options: &ContextOptions,
        sequences: usize,
    ) -> Result<Self, LoadError> {
        let network = Network::new(spec, weights, options, sequences)?;
        Ok(Self { network, members: BTreeMap::new(), added: 0, submitted: 0, last: Buffer::default() })
    }

    /// A new sequence, without tokens.
    pub fn add(&mut self) -> SequenceId {
        self.insert(Member { sequence: self.network.sequence(), logits: None })
    }

    /// A new sequence with the tokens, and the logits, of another. It takes no memory for them until one of the two goes on.
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId, BatchError> {
        let member = self.members.get(&id).ok_or(BatchError::UnknownSequence { id })?;
        let fork = Member { sequence: member.sequence.fork(&mut self.network.kv), logits: member.logits };
        Ok(self.insert(fork))
    }

    fn insert(&mut self, member: Member) -> SequenceId {
        let id = SequenceId(self.added);
        self.added += 1;
        self.members.insert(id, member);
        id
    }

    /// Forgets a sequence. What others share with it stays.
    pub fn remove(&mut self, id: SequenceId) -> Result<(), BatchError> {
        let member = self.members.remove(&id).ok_or(BatchError::UnknownSequence { id })?;
        member.sequence.release(&mut self.network.kv);
        Ok(())
    }

    /// Forgets the tokens of a sequence from `len` on, and its logits. Returns how many are left: fewer than `len` where it
    /// had fewer, or where the model cannot go back to exactly there.
    pub fn truncate(&mut self, id: SequenceId, len: usize) -> Result<usize, BatchError> {
        let member = self.members.get_mut(&id).ok_or(BatchError::UnknownSequence { id })?;
        member.logits = None;
        member.sequence.truncate(&mut self.network.kv, len);
        Ok(member.sequence.len())
    }

    /// Appends tokens to sequences, any number to each, and computes the logits of the last one of each. All of them go
    /// through the layers together, at most [`ContextOptions::block`] at a time.
    ///
    /// On an error all sequences are as they were.
    pub fn submit(&mut self, batch: &[(SequenceId, &[u32])]) -> Result<(), BatchError> {
        self.check(batch)?;
        self.reserve(batch)?;
        self.submitted += 1;
        self.last.clear();
        let mut left: BTreeMap<_, _> = batch.iter().copied().collect();
        while !left.is_empty() {
            let (mut spans, mut ends, mut tokens) = (Vec::new(), 0, 0);
            for (id, member) in &mut self.members {
                let Some(rest) = left.get_mut(id).filter(|_| tokens < self.network.block) else { continue };
                let (now, later) = rest.split_at(rest.len().min(self.network.block - tokens));
                *rest = later;
                tokens += now.len();
                let is_end = later.is_empty();
                if is_end {
                    member.logits = Some((self.submitted, self.last.tokens() + ends));
                    ends += 1;
                }
                spans.push(member.sequence.span(now, usize::from(is_end)));
            }
            left.retain(|_, rest| !rest.is_empty());
            pass::layers(&mut self.network, &mut spans, None, None);
            self.last.append(&self.network.buffers.x, 0..ends);
        }
        std::mem::swap(&mut self.last, &mut self.network.buffers.x);
        pass::logits(&mut self.network, None);
        Ok(())
    }

    fn check(&self, batch: &[(SequenceId, &[u32])]) -> Result<(), BatchError> {
        if batch.is_empty() {
            return Err(BatchError::Empty);
        }
        let mut seen = BTreeSet::new();
        for &(id, tokens) in batch {
            let member = self.members.get(&id).ok_or(BatchError::UnknownSequence { id })?;
            if !seen.insert(id) {
                return Err(BatchError::RepeatedSequence { id });
            }
            let checked = self.network.check(&member.sequence, tokens);
            checked.map_err(|source| BatchError::Forward { id, source })?;
        }
        Ok(())
    }

    /// Makes room in the cache for all of a batch, or for nothing.
    fn reserve(&mut self, batch: &[(SequenceId, &[u32])]) -> Result<(), BatchError> {
        let Self { network, members, .. } = self;
        let free = network.kv.free_positions();
        let found = batch.iter().all(|(id, tokens)| {
            members.get_mut(id).is_some_and(|member| member.sequence.reserve(&mut network.kv, tokens.len()))
        });
        if found {
            return Ok(());
        }
        for (id, _) in batch {
            if let Some(member) = members.get_mut(id) {
                member.sequence.trim(&mut network.kv);
            }
        }
        let requested = batch.iter().map(|(_, tokens)| tokens.len()).sum();
        Err(BatchError::CacheFull { positions: network.kv.positions(), free, requested })
    }

    /// The logits, `[vocab]`, of the last token of a sequence. They are there until the next submission.
    pub fn logits(&self, id: SequenceId) -> Result<&[f32], BatchError> {
        let member = self.members.get(&id).ok_or(BatchError::UnknownSequence { id })?;
        let logits = self.network.buffers.logits.read();
        match member.logits {
            Some((submitted, row)) if submitted == self.submitted => {
                Ok(&logits[row * self.vocab_size()..][..self.vocab_size()])
            }
            _ => Err(BatchError::Forward { id, source: ForwardError::NoLogits }),
        }
    }

    /// Tokens of a sequence.
    pub fn len(&self, id: SequenceId) -> Result<usize, BatchError> {
        self.members.get(&id).map(|member| member.sequence.len()).ok_or(BatchError::UnknownSequence { id })
    }

    /// The sequences, oldest first.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = SequenceId> {
        self.members.keys().copied()
    }

    /// The most tokens that one sequence can have.
    pub fn capacity(&self) -> usize {
        self.network.capacity
    }

    /// Tokens that there is room for in the pages of the cache that no sequence uses. Sequences also have room in the pages
    /// that they have begun.
    pub fn free_positions(&self) -> usize {
        self.network.kv.free_positions()
    }

    /// Bytes of the keys and values of all sequences, in whole pages, and of what their convolutions have seen. What is
    /// shared counts once.
    pub fn cache_bytes(&self) -> u64 {
        let conv: BTreeMap<_, _> = self.members.values().map(|member| member.sequence.conv_bytes()).collect();
        (self.network.kv.used_bytes() + conv.values().sum::<usize>()) as u64
    }

    /// Number of logits, and the bound of valid token ids.
    pub fn vocab_size(&self) -> usize {
        self.network.spec.vocab
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.network.cpu.threads()
    }
}

/// Why a [`BatchDecoder`] did not do what it was asked for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BatchError {
    /// The decoder has no such sequence, or has no longer.
    UnknownSequence {
        /// The sequence.
        id: SequenceId,
    },
    /// A sequence stands in a batch twice.
    RepeatedSequence {
        /// The sequence.
        id: SequenceId,
    },
    /// A batch has no sequences.
    Empty,
    /// All sequences together have no room for so many tokens more; [`BatchDecoder::remove`] or
    /// [`BatchDecoder::truncate`] makes some.
    CacheFull {
        /// Positions of the cache.
        positions: usize,
        /// Those in pages that no sequence uses.
        free: usize,
        /// Tokens to append.
        requested: usize,
    },
    /// What was asked of one sequence cannot be done.
    Forward {
        /// The sequence.
        id: SequenceId,
        /// Why.
        source: ForwardError,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownSequence { id } => write!(f, "there is no sequence {id}"),
            Self::RepeatedSequence { id } => write!(f, "sequence {id} is in the batch twice"),
            Self::Empty => f.write_str("the batch has no sequences"),
            Self::CacheFull { positions, free, requested } => write!(
                f,
                "the cache of {positions} tokens is full: {free} are free besides pages in use, {requested} are needed"
            ),
            Self::Forward { id, .. } => write!(f, "sequence {id}"),
        }
    }
}

impl error::Error for BatchError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Forward { source, .. } => Some(source),
            _ => None,
        }
    }
}
