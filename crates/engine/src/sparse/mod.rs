//! Computing only the neurons that fire.
//!
//! In a feed-forward layer `down(activation(gate x) * up x)` a neuron is a row of `gate` and `up` and a column of `down`.
//! With ReLU most neurons are exactly zero; with SiLU and GELU many are small. Leaving them out saves the reading of their
//! weights, which is what decoding waits for.
//!
//! * [`SparseFfn`] is one layer that computes the neurons it is told to.
//! * [`LowRankPredictor`], [`SignBitPredictor`] and [`GateThresholdPredictor`] guess which they should be, behind one
//!   trait, [`NeuronPredictor`]; each tells its recall, its precision and what it costs.
//! * [`SparseInferenceEngine`] puts the two together.
//!
//! ```
//! use firecrest::sparse::{ActivationType, SparseFfn};
//!
//! let ffn = SparseFfn::new(64, 256, 64, ActivationType::Relu)?;
//! let input = vec![0.1; 64];
//! // With ReLU, leaving out neurons that don't fire changes nothing at all.
//! let fires: Vec<usize> =
//!     ffn.activations(&input)?.iter().enumerate().filter(|(_, h)| **h != 0.0).map(|(n, _)| n).collect();
//! assert!(fires.len() < 256);
//! assert_eq!(ffn.forward_sparse(&input, &fires)?, ffn.forward_dense(&input)?);
//! # Ok::<(), firecrest::sparse::SparseError>(())
//! ```

mod calibrate;
mod config;
mod engine;
mod error;
mod ffn;
mod file;
mod hot;
mod level;
mod linalg;
mod low_rank;
mod predictor;
mod profile;
mod stack;
mod weights;

pub use calibrate::{
    CalibrationOptions, CalibrationStep, LayerReport, ReportPoint, SparsityReport, calibrate, report,
};
pub use config::{ActivationType, Selection, SparsityConfig};
pub use engine::{SparseInferenceEngine, SparsityStats};
pub use error::{FormatFault, SparseError};
pub use ffn::{GateThresholdPredictor, SparseFfn};
pub(crate) use file::{CHECKSUM_OF_NOTHING, checksum, checksum_on};
pub use hot::HotNeurons;
pub use level::SparsityLevel;
pub use low_rank::LowRankPredictor;
pub use predictor::{NeuronPredictor, PredictorQuality, SignBitPredictor};
pub use profile::{LevelProfile, SparsityProfile};
pub(crate) use profile::{PROOF_TERMS, ScreenProfile, Thresholds, fingerprint};
pub use stack::SparseStack;
pub use weights::WeightMatrix;
