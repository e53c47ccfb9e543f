//! What computes the states: an encoder, or a decoder taken for one.

use std::sync::Arc;

use super::{EmbedError, Pooling};
use crate::backend::{Cpu, CpuOptions};
use crate::gguf::Gguf;
use crate::nn::{
    ContextOptions, Decoder, DecoderSpec, DecoderWeights, Encoder, EncoderSpec, EncoderWeights, LoadError,
    Sequence, SharedSparsity,
};
use crate::{generate::LanguageModel, models};

/// Tokens that go through an encoder's layers together: enough that a panel of weights is worth unpacking, few enough
/// that activations stay in cache.
const BLOCK: usize = 512;

/// The longest context that a decoder gets here: its KV cache takes memory.
const DECODER_TOKENS: usize = 8192;

/// A model's layers and the memory that they work in.
#[derive(Debug)]
pub(super) enum Network {
    Encoder(Box<Encoder>),
    Decoder(Box<Decoder>),
}

/// What is known of a model before it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) dim: usize,
    pub(super) vocab: usize,
    pub(super) context_length: usize,
    /// Where the file is silent.
    pub(super) pooling: Pooling,
}

impl Network {
    /// The network that a file describes.
    pub(super) fn load(gguf: &Gguf, cpu: &CpuOptions) -> Result<(Self, Shape), LoadError> {
        match models::encoder_spec(gguf)? {
            Some(spec) => Self::encoder(gguf, spec, cpu),
            None => Self::decoder(gguf, models::decoder_spec(gguf)?, cpu),
        }
    }

    fn encoder(gguf: &Gguf, spec: EncoderSpec, cpu: &CpuOptions) -> Result<(Self, Shape), LoadError> {
        let weights = EncoderWeights::load(gguf, &spec)?;
        let shape = Shape {
            dim: spec.dim,
            vocab: spec.vocab,
            context_length: spec.context_length,
            pooling: if weights.has_classifier() { Pooling::Rank } else { Pooling::Mean },
        };
        let encoder = Encoder::new(Arc::new(spec), Arc::new(weights), Cpu::with_fixed_point(cpu)?);
        Ok((Self::Encoder(Box::new(encoder)), shape))
    }

    fn decoder(gguf: &Gguf, spec: DecoderSpec, cpu: &CpuOptions) -> Result<(Self, Shape), LoadError> {
        let weights = DecoderWeights::load(gguf, &spec)?;
        let context_length = spec.context_length.min(DECODER_TOKENS);
        let shape = Shape { dim: spec.dim, vocab: spec.vocab, context_length, pooling: Pooling::Last };
        let options =
            ContextOptions { capacity: Some(context_length), cpu: cpu.clone(), ..ContextOptions::default() };
        let decoder = Decoder::new(Arc::new(spec), Arc::new(weights), SharedSparsity::default(), &options)?;
        Ok((Self::Decoder(Box::new(decoder)), shape))
    }

    /// Threads that compute.
    pub(super) fn threads(&self) -> usize {
        match self {
            Self::Encoder(encoder) => encoder.threads(),
            Self::Decoder(decoder) => decoder.threads(),
        }
    }

    /// Hands the states of each sequence, `[tokens, dim]`, to `each` with its index, in any order.
    pub(super) fn states(
        &mut self,
        sequences: &[Sequence<'_>],
        dim: usize,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), EmbedError> {
        match self {
            Self::Encoder(encoder) => {
                for block in blocks(sequences) {
                    let inputs: Vec<_> = block.iter().map(|&i| sequences[i]).collect();
                    let mut states = encoder.states(&inputs);
                    for (&i, input) in block.iter().zip(&inputs) {
                        let (own, rest) = states.split_at(input.tokens.len() * dim);
                        each(i, own);
                        states = rest;
                    }
                }
            }
            Self::Decoder(decoder) => {
                let mut states = Vec::new();
                for (i, sequence) in sequences.iter().enumerate() {
                    states.clear();
                    decoder.truncate(0);
                    decoder.hidden_states(sequence.tokens, &mut states)?;
                    each(i, &states);
                }
            }
        }
        Ok(())
    }

    /// Hands the classifier's scores for each sequence to `each` with its index, in any order.
    pub(super) fn scores(
        &mut self,
        sequences: &[Sequence<'_>],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), EmbedError> {
        let Self::Encoder(encoder) = self else { return Err(EmbedError::NoClassifier) };
        for block in blocks(sequences) {
            let inputs: Vec<_> = block.iter().map(|&i| sequences[i]).collect();
            let (scores, labels) = encoder.scores(&inputs).ok_or(EmbedError::NoClassifier)?;
            block.iter().zip(scores.chunks_exact(labels)).for_each(|(&i, scores)| each(i, scores));
        }
        Ok(())
    }
}

/// Cuts a batch into blocks of sequences of similar length, given by their indices, longest first.
///
/// The order of lengths evens out what threads get, and nothing else: there is no padding to save.
fn blocks(sequences: &[Sequence<'_>]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].tokens.len()));
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut tokens = BLOCK;
    for i in order {
        let len = sequences[i].tokens.len();
        match blocks.last_mut() {
            Some(block) if tokens + len <= BLOCK => {
                block.push(i);
                tokens += len;
            }
            _ => {
                blocks.push(vec![i]);
                tokens = len;
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_every_sequence_once_and_few_tokens() {
        let lengths = [3, 600, 200, 200, 200, 1, 500, 12];
        let tokens = [0; 600];
        let sequences = lengths.map(|len| Sequence { tokens: &tokens[..len], second: len });
        let blocks = blocks(&sequences);
        assert_eq!(blocks, [vec![1], vec![6], vec![2, 3], vec![4, 7, 0, 5]]);
    }
}
