//! Weights in less memory: [`QuantizedWeights`] rounds them, [`NeuronCache`] keeps the neurons at hand that fire often.

mod neuron_cache;
mod quantized;

pub use neuron_cache::{CacheError, CachePolicy, CacheStats, FileSource, NeuronCache, NeuronSource};
pub use quantized::{QuantizedError, QuantizedWeights};
