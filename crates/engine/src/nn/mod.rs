//! One forward pass for every decoder: a declarative spec, its weights, and the [pass](Decoder) over both.

mod decoder;
mod rope;
mod spec;
mod weights;

pub use decoder::{ContextOptions, Decoder};
pub(crate) use rope::{Rope, RopeScaling, Yarn};
pub(crate) use spec::{AttentionSpec, DecoderSpec, FfnSpec, LayerSpec, NormSpec};
pub use weights::LoadError;
pub(crate) use weights::{DecoderWeights, Norm, optional_vector};
