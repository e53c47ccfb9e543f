//! Where arithmetic happens. Above this module nothing knows what device computes or how activations are kept.
//!
//! The CPU is the only device so far. `nn` sees `Buffer`s (activations, `[tokens, columns]`), `Matrix`es (weights in any
//! format), `KvCache`s and the operations of `Cpu`.

mod cpu;

#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub use cpu::lend_thread;
pub use cpu::{Activations, CpuOptions, IsaError, KvFormat};
pub(crate) use cpu::{
    Attention, Buffer, CoarseMatrix, ConvCache, Cpu, Experts, Gating, Input, KvCache, KvHeads, Matrix,
    NeuronMatrix, Output, PageTable, Routes, Routing, Rows, SequenceAttention, Turns,
};
pub use firecrest_kernels::isa::IsaKind;
pub(crate) use firecrest_kernels::ops::CoarseLayout;
pub use firecrest_kernels::ops::{Activation, RopeLayout};
