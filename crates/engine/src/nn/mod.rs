//! One forward pass for every decoder: a declarative [spec](DecoderSpec), its [weights](DecoderWeights), and the
//! [pass](Decoder) over both.

mod decoder;
mod rope;
mod spec;
mod weights;

pub use decoder::{ContextOptions, Decoder};
pub use rope::RopeScaling;
pub(crate) use rope::{Rope, Yarn};
pub(crate) use spec::{AttentionSpec, DecoderSpec, FfnSpec, LayerSpec, NormSpec};
pub use weights::LoadError;
pub(crate) use weights::{DecoderWeights, Norm, optional_vector};
