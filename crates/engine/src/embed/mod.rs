//! Texts to vectors: embedding models, and rerankers.
//!
//! ```no_run
//! use firecrest::embed::{EmbeddingModel, cosine};
//!
//! let model = EmbeddingModel::from_gguf_file("all-minilm-l6-v2.gguf")?;
//! let vectors = model.encode_texts(&["A cat sits on the mat.", "There is a cat on the rug."])?;
//! println!("{:.3}", cosine(&vectors[0], &vectors[1]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Encoders (BERT and its kin) take a batch as one matrix of all its tokens, sorted by length and without padding, in
//! blocks that stay in cache. Decoders serve as embedders by the state of the last token.

mod error;
mod network;
mod options;
mod pool;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::EmbedError;
pub use options::{EmbedOptions, Pooling, Role};
pub use pool::cosine;

use crate::backend::CpuOptions;
use crate::gguf::{Gguf, Metadata, MetadataError};
use crate::nn::{LoadError, Sequence};
use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::weights::Bytes;
use network::{Network, Shape};

/// An embedding model, or a reranker: text or tokens in, vectors or scores out.
///
/// Threads can share it; clones share its weights and its threads, and one computes at a time.
#[derive(Clone)]
pub struct EmbeddingModel {
    network: Arc<Mutex<Network>>,
    tokenizer: Arc<Tokenizer>,
    shape: Shape,
    /// As the file says, or as the architecture goes.
    pooling: Pooling,
    /// Tokens that a text may have.
    limit: usize,
    query_prefix: Arc<str>,
    document_prefix: Arc<str>,
    options: EmbedOptions,
}

/// The embedding of one text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embedding {
    /// The vector; with [`Pooling::None`] a vector for each token, one after another.
    pub values: Vec<f32>,
    /// Tokens that it was made of, those that the model adds included.
    pub tokens: usize,
    /// Whether the text had more tokens than the model takes.
    pub truncated: bool,
}

/// Tokens of one input, ready for the network.
struct Input {
    tokens: Vec<u32>,
    second: usize,
    truncated: bool,
}

impl EmbeddingModel {
    /// Opens a GGUF file. It is mapped, not read: this takes milliseconds.
    pub fn from_gguf_file(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::from_gguf(&Gguf::open(path)?, &CpuOptions::default())
    }

    /// Takes a GGUF file that is in memory.
    pub fn from_gguf_bytes(bytes: impl Into<Bytes>) -> Result<Self, LoadError> {
        Self::from_gguf(&Gguf::from_bytes(bytes)?, &CpuOptions::default())
    }

    /// Takes an open GGUF file, and what to compute with.
    pub fn from_gguf(gguf: &Gguf, cpu: &CpuOptions) -> Result<Self, LoadError> {
        let (network, shape) = Network::load(gguf, cpu)?;
        let meta = gguf.metadata();
        let tokenizer = Tokenizer::from_metadata(meta)?;
        if tokenizer.vocab_size() > shape.vocab {
            return Err(LoadError::Vocabulary { tokens: tokenizer.vocab_size(), rows: shape.vocab });
        }
        let architecture = meta.architecture()?;
        let key = format!("{architecture}.pooling_type");
        let pooling = match meta.opt_u32(&key)? {
            None => shape.pooling,
            Some(number) => Pooling::from_gguf(number).ok_or_else(|| LoadError::Hyperparameter {
                key,
                value: number.to_string(),
                expected: "0 to 4".into(),
            })?,
        };
        let limit = meta.opt_usize(&format!("{architecture}.max_sequence_length"))?;
        Ok(Self {
            network: Arc::new(Mutex::new(network)),
            tokenizer: Arc::new(tokenizer),
            pooling,
            limit: limit.unwrap_or(usize::MAX).min(shape.context_length),
            shape,
            query_prefix: prefix(meta, Role::Query)?.into(),
            document_prefix: prefix(meta, Role::Document)?.into(),
            options: EmbedOptions::default(),
        })
    }

    /// The same model with other options for [`encode`](Self::encode), [`encode_batch`](Self::encode_batch) and
    /// [`encode_texts`](Self::encode_texts).
    pub fn with_options(self, options: EmbedOptions) -> Self {
        Self { options, ..self }
    }

    /// What those methods go by.
    pub fn options(&self) -> &EmbedOptions {
        &self.options
    }

    /// Values of a vector.
    pub fn dimension(&self) -> usize {
        self.options.dimensions.map_or(self.shape.dim, |dimensions| dimensions.min(self.shape.dim))
    }

    /// Tokens that a text may have, those that the model adds included.
    pub fn max_tokens(&self) -> usize {
        self.limit
    }

    /// How the file says that tokens become one vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Whether the model scores pairs of texts ([`rerank`](Self::rerank)) rather than embedding texts.
    pub fn is_reranker(&self) -> bool {
        self.pooling == Pooling::Rank
    }

    /// The model's prefix for texts of this role; empty where it has none.
    pub fn prefix(&self, role: Role) -> &str {
        match role {
            Role::Query => &self.query_prefix,
            Role::Document => &self.document_prefix,
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.network().threads()
    }

    /// The vector of a text given as tokens, exactly as the model shall see them.
    pub fn encode(&self, tokens: &[u32]) -> Result<Vec<f32>, EmbedError> {
        Ok(self.encode_batch(&[tokens])?.swap_remove(0))
    }

    /// The vectors of many texts given as tokens, in their order.
    pub fn encode_batch(&self, batch: &[impl AsRef<[u32]>]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let inputs = batch.iter().enumerate().map(|(index, tokens)| {
            let tokens = tokens.as_ref().to_vec();
            self.fit(index, Input { second: tokens.len(), tokens, truncated: false }, &self.options)
        });
        let embeddings = self.run(inputs.collect::<Result<_, _>>()?, &self.options)?;
        Ok(embeddings.into_iter().map(|embedding| embedding.values).collect())
    }

    /// The vectors of texts, in their order.
    pub fn encode_texts(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let embeddings = self.embed(texts, &self.options)?;
        Ok(embeddings.into_iter().map(|embedding| embedding.values).collect())
    }

    /// The embeddings of texts, in their order, with what is to be known about them.
    pub fn embed(
        &self,
        texts: &[impl AsRef<str>],
        options: &EmbedOptions,
    ) -> Result<Vec<Embedding>, EmbedError> {
        let prefix = match (&options.prefix, options.role) {
            (Some(prefix), _) => prefix.as_str(),
            (None, Some(role)) => self.prefix(role),
            (None, None) => "",
        };
        let inputs = texts.iter().enumerate().map(|(index, text)| {
            let text = text.as_ref();
            let tokens =
                if prefix.is_empty() { self.tokens(text) } else { self.tokens(&format!("{prefix}{text}")) };
            self.fit(index, Input { second: tokens.len(), tokens, truncated: false }, options)
        });
        self.run(inputs.collect::<Result<_, _>>()?, options)
    }

    /// How relevant each document is to a query, larger is more: what a cross-encoder's classifier says of each pair.
    ///
    /// Fails with [`EmbedError::NoClassifier`] where the model embeds texts instead.
    pub fn rerank(&self, query: &str, documents: &[impl AsRef<str>]) -> Result<Vec<f32>, EmbedError> {
        let plain = |text: &str| {
            self.tokenizer.encode(text, EncodeOptions { add_special: false, parse_special: true })
        };
        let query = plain(query);
        let inputs = documents.iter().map(|document| self.pair(&query, plain(document.as_ref())));
        let options = EmbedOptions::default().with_pooling(Pooling::Rank);
        let embeddings = self.run(inputs.collect::<Result<_, _>>()?, &options)?;
        Ok(embeddings.iter().map(|scores| scores.values.first().copied().unwrap_or_default()).collect())
    }

    /// The tokens of a text with those that the model adds. Control tokens in it are found, as everywhere where texts are
    /// embedded: there are no roles here that a text could take on.
    fn tokens(&self, text: &str) -> Vec<u32> {
        let mut tokens =
            self.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: true });
        if tokens.is_empty() {
            // The empty text, to a decoder that nothing is added for.
            tokens.extend(self.tokenizer.bos().or(self.tokenizer.eos()));
        }
        tokens
    }

    /// `[CLS] query [SEP] document [SEP]`, or `<s> query </s></s> document </s>`; the longer of both is cut.
    fn pair(&self, query: &[u32], document: Vec<u32>) -> Result<Input, EmbedError> {
        let tokenizer = &self.tokenizer;
        let (first, separators) = match tokenizer.cls() {
            Some(cls) => (Some(cls), [tokenizer.sep(), None]),
            None => (tokenizer.bos(), [tokenizer.eos(); 2]),
        };
        let separators: Vec<u32> = separators.into_iter().flatten().collect();
        let added = first.iter().len() + separators.len() + 1;
        let room = self.limit.checked_sub(added).ok_or(EmbedError::Limit { limit: self.limit })?;
        // What one leaves of its half, the other gets.
        let half = room / 2;
        let query_len = query.len().min(half.max(room.saturating_sub(document.len())));
        let document_len = document.len().min(room - query_len);
        let mut tokens: Vec<u32> = first.into_iter().chain(query[..query_len].iter().copied()).collect();
        tokens.extend(&separators);
        let second = tokens.len();
        tokens.extend(&document[..document_len]);
        tokens.extend(separators.first());
        Ok(Input { tokens, second, truncated: query_len < query.len() || document_len < document.len() })
    }

    /// Cuts an input to the tokens that it may have; what the tokenizer puts at the end stays there.
    fn fit(&self, index: usize, mut input: Input, options: &EmbedOptions) -> Result<Input, EmbedError> {
        let limit = options.max_tokens.unwrap_or(usize::MAX).min(self.limit);
        if limit == 0 {
            return Err(EmbedError::Limit { limit });
        }
        let tokens = input.tokens.len();
        if tokens <= limit {
            return Ok(input);
        }
        if !options.truncate {
            return Err(EmbedError::TooLong { index, tokens, limit });
        }
        let end = input.tokens.last().copied().filter(|&id| self.tokenizer.is_control(id));
        input.tokens.truncate(limit);
        if let (Some(last), Some(end)) = (input.tokens.last_mut(), end) {
            *last = end;
        }
        Ok(Input { second: limit, truncated: true, ..input })
    }

    fn run(&self, inputs: Vec<Input>, options: &EmbedOptions) -> Result<Vec<Embedding>, EmbedError> {
        let dim = self.shape.dim;
        let dimensions = options.dimensions.unwrap_or(dim);
        if !(1..=dim).contains(&dimensions) {
            return Err(EmbedError::Dimensions { requested: dimensions, available: dim });
        }
        for (index, input) in inputs.iter().enumerate() {
            if input.tokens.is_empty() {
                return Err(EmbedError::EmptyInput { index });
            }
            if let Some(&id) = input.tokens.iter().find(|&&id| id as usize >= self.shape.vocab) {
                return Err(EmbedError::TokenOutOfRange { id, vocab: self.shape.vocab });
            }
        }
        let sequences: Vec<_> =
            inputs.iter().map(|input| Sequence { tokens: &input.tokens, second: input.second }).collect();
        let mut embeddings: Vec<_> = inputs
            .iter()
            .map(|input| Embedding {
                values: Vec::new(),
                tokens: input.tokens.len(),
                truncated: input.truncated,
            })
            .collect();
        let mut network = self.network();
        match options.pooling.unwrap_or(self.pooling) {
            Pooling::Rank => {
                network.scores(&sequences, |i, scores| embeddings[i].values = scores.to_vec())?
            }
            pooling => network.states(&sequences, dim, |i, states| {
                let mut values = pool::pool(pooling, states, dim);
                pool::finish(&mut values, dim, dimensions, options.normalize);
                embeddings[i].values = values;
            })?,
        }
        Ok(embeddings)
    }

    /// A thread that panicked left nothing but scratch memory in disorder.
    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EmbeddingModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingModel")
            .field("dimension", &self.dimension())
            .field("pooling", &self.pooling)
            .field("max_tokens", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The prefix for a role: that of the file, as `firecrest convert` takes it over from sentence-transformers, or that of
/// a family of models that is known to be trained with one.
fn prefix(meta: &Metadata, role: Role) -> Result<String, MetadataError> {
    let (key, column) = match role {
        Role::Query => ("sentence_transformers.prompts.query", 0),
        Role::Document => ("sentence_transformers.prompts.document", 1),
    };
    if let Some(prefix) = meta.opt_str(key)? {
        return Ok(prefix.to_owned());
    }
    let name = meta.opt_str("general.name")?.unwrap_or_default().to_lowercase().replace([' ', '_'], "-");
    let known = PREFIXES.iter().find(|(family, _)| name.contains(family));
    Ok(known.map_or("", |(_, prefixes)| prefixes[column]).to_owned())
}

/// Families of models by a part of their name, with what they want before queries and documents.
const PREFIXES: &[(&str, [&str; 2])] = &[
    ("nomic-embed", ["search_query: ", "search_document: "]),
    ("e5-mistral", ["", ""]),
    ("instruct", ["", ""]),
    ("e5-", ["query: ", "passage: "]),
    ("bge-m3", ["", ""]),
    ("bge-", ["Represent this sentence for searching relevant passages: ", ""]),
    ("snowflake-arctic-embed", ["Represent this sentence for searching relevant passages: ", ""]),
    ("mxbai-embed", ["Represent this sentence for searching relevant passages: ", ""]),
];
