//! Operations: single-threaded, without allocation, each written once over every format and instruction set.
//!
//! An operation takes the [`IsaKind`](crate::isa::IsaKind) to run on; callers choose it once and split the work by
//! rows, columns or heads.

mod activation;
mod attention;
mod coarse;
mod math;
mod matmul;
mod matrix;
mod neurons;
mod norm;
mod probe;
mod quantized;
mod rope;
mod scan;

pub use activation::{Activation, activate, activate_gated, activate_rows};
pub use attention::{
    ATTENDS_TO_PARTS, AttentionPanels, HeadCache, HeadCacheMut, HeadShape, KvFormat, Lines, LinesMut, PAGE,
    PART_TERMS, Score, attend, attend_i16, attends_in_i16, attends_together, attention_lines, join_parts,
    load_key, move_values, store_key, store_kv,
};
pub use coarse::{CoarseLayout, CoarseScales, coarse_product};
pub use matmul::{
    FLOAT_PANELS, FloatPanel, I16Chunk, PANEL_TOKENS, PanelRun, Weights, matmul, matmul_f32, matmul_i16,
    matmul_rows, matmul_rows_f32, panel_runs, prefers_i16, quantize_i16,
};
pub use matrix::MatrixMut;
pub use neurons::{NeuronLayout, add_neurons, add_neurons_f32};
pub use norm::{layer_norm, rms_norm};
pub use probe::{probe_f32, probe_int8, probe_read};
pub use quantized::{QuantizedChunk, chunks, dequantize, quantize};
pub use rope::{RopeLayout, rotate};
pub use scan::first_above;
