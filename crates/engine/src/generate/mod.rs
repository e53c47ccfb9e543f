//! From logits to text: logit processors, sampling, stop conditions, and the loop that drives a model.
//!
//! The module sees a model only as a [`LanguageModel`] (tokens in, logits out, a cache of positions) and a tokenizer only
//! as a [`Detokenize`], so a scripted fake stands in for both in tests. A [`Session`] owns a model and remembers which
//! tokens its KV cache holds; [`Session::generation`] is the one loop, an iterator of [`Piece`]s, and
//! [`Session::generate`] and [`Session::generate_stream`] run it to its end.
//!
//! # One step
//!
//! The logits of the last token pass, in llama.cpp's default order, through: logit bias, the repetition, frequency and
//! presence penalties, DRY, top-k, typical, top-p, min-p, temperature, and the seeded draw. Temperature 0 skips the
//! filters and takes the largest processed logit. Nothing sorts the whole vocabulary: top-k is one scan with a bounded
//! buffer, and top-p and typical order only as many candidates as they keep.

mod cancel;
mod candidates;
mod config;
mod dry;
mod error;
mod generation;
mod logprobs;
mod model;
mod penalties;
mod random;
mod sampler;
mod session;
mod stats;
mod text;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use cancel::CancelToken;
pub(crate) use candidates::likeliest;
pub use config::{ConfigError, ContextOverflow, Dry, GenerationConfig};
pub use error::{GenerateError, SampleError};
pub use generation::{FinishReason, Generation, Output, Piece, Progress};
pub use logprobs::TokenLogprobs;
pub use model::{Detokenize, ForwardError, LanguageModel};
pub use sampler::{Sampler, Source};
pub use session::Session;
pub use stats::Stats;
