//! CPU kernels for every GGUF tensor format and instruction set.
//!
//! Formats, instruction sets and operations add instead of multiplying: a [format](mod@format) unpacks weights, an
//! instruction set offers a few vector steps, an operation is written once over both.

#![cfg_attr(not(feature = "std"), no_std)]

pub mod format;
pub mod isa;
pub mod ops;
