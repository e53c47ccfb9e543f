//! One forward pass for every decoder, and one for every encoder: a declarative spec, its weights, and the pass over both.

mod batch;
mod decoder;
mod encoder;
mod network;
mod neurons;
mod pass;
mod rope;
mod saved;
mod sparse;
mod spec;
mod tensors;
#[cfg(test)]
mod tests;
mod weights;

pub use batch::{BatchDecoder, BatchError, SequenceId};
pub(crate) use decoder::SharedSparsity;
pub use decoder::{ContextOptions, Decoder};
pub(crate) use encoder::{Encoder, EncoderFfn, EncoderSpec, EncoderWeights, Positions, Sequence};
pub(crate) use rope::{RopeFactors, RopeScaling, RopeSpec, Yarn};
pub use saved::SavedContextError;
pub use sparse::{DecoderSparsity, LayerSparsity};
pub(crate) use sparse::{Observer, SparseWeights, TOP};
pub(crate) use spec::{
    AttentionSpec, DecoderSpec, EmbeddingSpec, ExpertsSpec, FfnSpec, LayerNorms, LayerSpec, MixerSpec,
    NeuronSpec, NormSpec, QkNorm, Residual, RouterInput, SharedExpert,
};
pub(crate) use tensors::{Norm, optional_vector};
pub(crate) use weights::DecoderWeights;
pub use weights::LoadError;
