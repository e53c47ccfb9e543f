//! The view that every operation has of a quantized format.

use super::Format;
use crate::isa::Isa;

/// Weights that operations take at a time: the largest block of any format, and a multiple of all the others.
pub const CHUNK: usize = 256;

/// The most scales a chunk has: one for each 16 weights.
pub const GROUPS: usize = CHUNK / 16;

/// What the unpacked integers of a format look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// From 0 to `max` (at most 127); the weight is zero at `zero`.
    Unsigned {
        /// The code that stands for zero, subtracted before scaling.
        zero: u8,
        /// The largest code.
        max: u8,
    },
    /// The whole range of an `i8`, zero at 0.
    Signed,
}

/// The scales of one chunk: weight = `scale * (code - zero) + offset`.
///
/// Entry `g` belongs to weights `g * Quant::GROUP ..`; entries past the end of the chunk are zero.
#[derive(Clone, Copy, Debug)]
pub struct Scales {
    /// One factor a group.
    pub scale: [f32; GROUPS],
    /// One addend a group; all zero where `Quant::OFFSET` is false.
    pub offset: [f32; GROUPS],
}

impl Scales {
    /// No weights at all.
    pub const ZERO: Scales = Scales { scale: [0.0; GROUPS], offset: [0.0; GROUPS] };
}

/// A quantized format: its layout, and how a chunk of it unpacks to integers and scales.
///
/// A chunk is up to [`CHUNK`] consecutive weights of one row: whole blocks, fewer than `CHUNK` weights only at the end
/// of a row.
pub trait Quant: Copy + Send + Sync + 'static {
    /// The format this is.
    const FORMAT: Format;
    /// Weights that share one scale and offset: 16 or 32.
    const GROUP: usize;
    /// What [`Quant::codes`] yields.
    const CODES: Codes;
    /// Whether groups have an offset.
    const OFFSET: bool;

    /// The scales and offsets of all the groups of a chunk.
    fn scales(chunk: &[u8]) -> Scales;

    /// The codes of weights `64 * pair .. 64 * pair + 64` of a chunk, in order; zero past the end of the chunk.
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64];

    /// As [`Quant::scales`], in vectors: scales and offsets. Formats whose products matter override this.
    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        let scales = Self::scales(chunk);
        (isa.load_f32(&scales.scale), isa.load_f32(&scales.offset))
    }

    /// As [`Quant::codes`], in a vector; past the end of the chunk anything. Formats whose products matter override
    /// this.
    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        isa.load(&Self::codes(chunk, pair).map(|code| code as u8))
    }
}
