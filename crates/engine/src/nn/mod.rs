//! One forward pass for every decoder, and one for every encoder: a declarative spec, its weights, and the pass over both.

mod caches;
mod decoder;
mod encoder;
mod pass;
mod rope;
mod spec;
mod tensors;
mod weights;

pub use decoder::{ContextOptions, Decoder};
pub(crate) use encoder::{Encoder, EncoderFfn, EncoderSpec, EncoderWeights, Positions, Sequence};
pub(crate) use rope::{RopeFactors, RopeScaling, RopeSpec, Yarn};
pub(crate) use spec::{
    AttentionSpec, DecoderSpec, EmbeddingSpec, ExpertsSpec, FfnSpec, LayerNorms, LayerSpec, MixerSpec,
    NormSpec, QkNorm, Residual, RouterInput, SharedExpert,
};
pub(crate) use tensors::{Norm, optional_vector};
pub(crate) use weights::DecoderWeights;
pub use weights::LoadError;
