//! Runs language models from GGUF files, anywhere: plain Rust, no C toolchain, native and WebAssembly.
//!
//! ```no_run
//! use firecrest::{ContextOptions, GenerationConfig, Model};
//!
//! let model = Model::from_gguf_file("smollm2-135m-instruct.gguf")?;
//! let config = GenerationConfig::default().with_max_tokens(100).with_temperature(0.7);
//! model.generate_stream("The sky is blue because", &config, |piece| {
//!     print!("{}", piece.text);
//!     true
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Model`] is a file, mapped into memory. A [`Decoder`] made from it has a KV cache and threads; a
//! [`Session`](generate::Session) around that remembers a conversation and computes only what is new. Text goes through
//! the [`tokenizer`], conversations through a [`chat`] template, logits through [`generate`]'s samplers. [`gguf`] reads
//! and writes files, `hub` (a feature) fetches them by name.
//!
//! Whatever comes from a file is checked: broken and hostile files are typed errors that say what is wrong and where.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
pub mod chat;
#[cfg(not(target_family = "wasm"))]
pub mod convert;
pub mod embed;
pub mod generate;
pub mod gguf;
#[cfg(all(feature = "hub", not(target_family = "wasm")))]
#[cfg_attr(docsrs, doc(cfg(feature = "hub")))]
pub mod hub;
pub mod integration;
pub mod memory;
mod model;
pub mod models;
pub mod nn;
pub mod sparse;
pub mod tokenizer;
pub mod weights;

pub use embed::{EmbedOptions, EmbeddingModel};
pub use generate::GenerationConfig;
pub use model::{Error, Model};
pub use nn::{ContextOptions, Decoder, LoadError};
