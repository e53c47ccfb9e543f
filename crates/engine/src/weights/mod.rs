//! Where the bytes of weights live.
//!
//! [`Bytes`] is a shared view: of a file mapped into memory, so that opening is instant and processes share the pages,
//! or of a buffer. Whoever computes with weights cannot tell which.

mod bytes;
#[cfg(not(target_family = "wasm"))]
mod map;

pub use bytes::Bytes;
