//! Tensor formats: how the bytes of a GGUF tensor stand for numbers.
//!
//! [`Format`] names every format; a type that implements [`Quant`] says how one quantized format is laid out, and
//! [`with_quant!`](crate::with_quant) leads from the one to the other. To add a format: a line in `formats!`, a type,
//! a line in `with_quant!`.

mod block;
mod dequantize;
pub mod float;
mod four_bit;
mod iq;
mod iq_grids;
mod k_quants;
mod legacy;
mod low_bit;
mod quant;
pub(crate) mod quantize;
mod unpacked;

pub(crate) use dequantize::{floats, widen};
pub use four_bit::{IQ4_NL, IQ4_XS, MXFP4, NVFP4};
pub use iq::{IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
pub use k_quants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K};
pub use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1};
pub use low_bit::{Q1_0, Q2_0, TQ1_0, TQ2_0};
pub use quant::{CHUNK, Codes, GROUPS, Order, Quant, Scales};
pub use quantize::QuantizeError;
pub(crate) use unpacked::{Unpacked, Unpacker};

macro_rules! formats {
    ($($name:ident = $id:literal: $len:literal in $bytes:literal,)+) => {
        /// A GGML tensor format, spelt as in GGUF.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, missing_docs)]
        #[repr(u32)]
        pub enum Format {
            $($name = $id,)+
        }

        impl Format {
            /// Every format, in the order of their GGML type ids.
            pub const ALL: &'static [Format] = &[$(Format::$name),+];

            /// The format with this GGML type id.
            pub const fn from_id(id: u32) -> Option<Format> {
                match id {
                    $($id => Some(Format::$name),)+
                    _ => None,
                }
            }

            /// The name, as GGUF tools spell it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Format::$name => stringify!($name),)+
                }
            }

            /// Values in a block.
            pub const fn block_len(self) -> usize {
                match self {
                    $(Format::$name => $len,)+
                }
            }

            /// Bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(Format::$name => $bytes,)+
                }
            }
        }
    };
}

// Type ids 4, 5, 31 to 33 and 36 to 38 belonged to formats that GGML has removed.
formats! {
    F32 = 0: 1 in 4,
    F16 = 1: 1 in 2,
    Q4_0 = 2: 32 in 18,
    Q4_1 = 3: 32 in 20,
    Q5_0 = 6: 32 in 22,
    Q5_1 = 7: 32 in 24,
    Q8_0 = 8: 32 in 34,
    Q8_1 = 9: 32 in 36,
    Q2_K = 10: 256 in 84,
    Q3_K = 11: 256 in 110,
    Q4_K = 12: 256 in 144,
    Q5_K = 13: 256 in 176,
    Q6_K = 14: 256 in 210,
    Q8_K = 15: 256 in 292,
    IQ2_XXS = 16: 256 in 66,
    IQ2_XS = 17: 256 in 74,
    IQ3_XXS = 18: 256 in 98,
    IQ1_S = 19: 256 in 50,
    IQ4_NL = 20: 32 in 18,
    IQ3_S = 21: 256 in 110,
    IQ2_S = 22: 256 in 82,
    IQ4_XS = 23: 256 in 136,
    I8 = 24: 1 in 1,
    I16 = 25: 1 in 2,
    I32 = 26: 1 in 4,
    I64 = 27: 1 in 8,
    F64 = 28: 1 in 8,
    IQ1_M = 29: 256 in 56,
    BF16 = 30: 1 in 2,
    TQ1_0 = 34: 256 in 54,
    TQ2_0 = 35: 256 in 66,
    MXFP4 = 39: 32 in 17,
    NVFP4 = 40: 64 in 36,
    Q1_0 = 41: 128 in 18,
    Q2_0 = 42: 64 in 18,
}

/// Evaluates an expression that is generic over [`Quant`](crate::format::Quant) for a format known only at run time.
///
/// `with_quant!(format, Q => f::<Q>(..))` is `Some(f::<Q4_0>(..))` where `format` is [`Format::Q4_0`], and so on for
/// every quantized format; it is `None` for the plain scalar types.
///
/// ```
/// use firecrest_kernels::{format::{Format, Quant}, with_quant};
///
/// assert_eq!(with_quant!(Format::Q6_K, Q => Q::GROUP), Some(16));
/// assert_eq!(with_quant!(Format::F16, Q => Q::GROUP), None);
/// ```
#[macro_export]
macro_rules! with_quant {
    (@match $format:expr, $Q:ident => $body:expr; $($name:ident)+) => {
        match $format {
            $($crate::format::Format::$name => $crate::with_quant!(@arm $Q = $name => $body),)+
            $crate::format::Format::F32
            | $crate::format::Format::F16
            | $crate::format::Format::BF16
            | $crate::format::Format::F64
            | $crate::format::Format::I8
            | $crate::format::Format::I16
            | $crate::format::Format::I32
            | $crate::format::Format::I64 => None,
        }
    };
    (@arm $Q:ident = $name:ident => $body:expr) => {{
        type $Q = $crate::format::$name;
        Some($body)
    }};
    ($format:expr, $Q:ident => $body:expr) => {
        $crate::with_quant!(@match $format, $Q => $body;
            Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1
            Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
            IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS
            TQ1_0 TQ2_0 Q1_0 Q2_0 MXFP4 NVFP4
        )
    };
}

impl Format {
    /// Whether blocks hold integers and scales; the other formats are plain numbers.
    pub fn is_quantized(self) -> bool {
        with_quant!(self, Q => core::mem::size_of::<Q>()).is_some()
    }

    /// Bytes of a row of `len` values, or `None` where `len` is not whole blocks or the size overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl core::fmt::Display for Format {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
