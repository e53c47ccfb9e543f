//! Runs language models and embedding models from GGUF files.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod gguf;
pub mod tokenizer;
pub mod weights;
