//! Runs language models and embedding models from GGUF files.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
pub mod chat;
pub mod generate;
pub mod gguf;
#[cfg(all(feature = "hub", not(target_family = "wasm")))]
#[cfg_attr(docsrs, doc(cfg(feature = "hub")))]
pub mod hub;
mod model;
pub mod models;
pub mod nn;
pub mod tokenizer;
pub mod weights;

pub use generate::GenerationConfig;
pub use model::{Error, Model};
pub use nn::{ContextOptions, Decoder, LoadError};
