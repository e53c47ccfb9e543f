//! Runs language models and embedding models from GGUF files.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod generate;
pub mod gguf;
pub mod weights;
