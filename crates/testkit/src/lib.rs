//! What tests share: tolerances, seeded data, and a writer of tiny GGUF files that shares no code with the reader.

pub mod gguf;
mod random;

pub use random::Random;
