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

/// How 128 codes stand in two vectors: which 16 of them each quarter of a vector has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In order.
    Linear,
    /// The first halves of four groups of 32, which stand as [`Isa::SPACED`] says, then their second halves: blocks of
    /// nibbles.
    Halves,
    /// The first and the third group of 32, then the second and the fourth: nibbles of 64 weights.
    Groups,
}

impl Order {
    /// Numbers of the runs of 16 codes in the quarters of both vectors.
    #[inline(always)]
    pub const fn quarters<I: Isa>(self) -> [[usize; 4]; 2] {
        let [a, b, c, d] = I::SPACED;
        match self {
            Order::Linear => [[0, 1, 2, 3], [4, 5, 6, 7]],
            Order::Halves => [[2 * a, 2 * b, 2 * c, 2 * d], [2 * a + 1, 2 * b + 1, 2 * c + 1, 2 * d + 1]],
            Order::Groups => [[0, 1, 4, 5], [2, 3, 6, 7]],
        }
    }
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

    /// Whether many files have it: where code is downloaded, products with the others share theirs.
    const COMMON: bool = false;

    /// The scales and offsets of all the groups of a chunk.
    fn scales(chunk: &[u8]) -> Scales;

    /// The codes of weights `64 * pair .. 64 * pair + 64` of a chunk, in order; zero past the end of the chunk.
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64];

    /// As [`Quant::scales`], in vectors. With a [`Quant::GROUP`] of 32 the first has the scale of group `g` in lane
    /// `2 * g` and its offset (or zero) in the next; with 16 the first has the scales, the second the offsets. Past the
    /// end of the chunk anything. Formats whose products matter override this.
    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        let scales = Self::scales(chunk);
        if Self::GROUP == 16 {
            return (isa.load_f32(&scales.scale), isa.load_f32(&scales.offset));
        }
        let mut lanes = [0.0; 16];
        for g in 0..8 {
            lanes[2 * g] = scales.scale[g];
            lanes[2 * g + 1] = scales.offset[g];
        }
        (isa.load_f32(&lanes), isa.splat(0.0))
    }

    /// As [`Quant::scale_vectors`], of a chunk of each of four rows: where taking scales apart costs much, once for all.
    #[inline(always)]
    fn scale_vectors4<I: Isa>(isa: I, chunks: [&[u8]; 4]) -> [(I::F32, I::F32); 4] {
        let mut vectors = [(isa.splat(0.0), isa.splat(0.0)); 4];
        for (vectors, chunk) in vectors.iter_mut().zip(chunks) {
            *vectors = Self::scale_vectors(isa, chunk);
        }
        vectors
    }

    /// As [`Quant::scale_vectors`] with a [`Quant::GROUP`] of 32, for the first two groups of each of four rows: lanes
    /// `4 * r ..` are scale, offset, scale, offset of row `r`. The rows have as many bytes as whole chunks.
    #[inline(always)]
    fn pair_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> I::F32 {
        let mut lanes = [0.0; 16];
        for (lanes, row) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
            let Scales { scale, offset } = Self::scales(row);
            *lanes = [scale[0], offset[0], scale[1], offset[1]];
        }
        isa.load_f32(&lanes)
    }

    /// With a [`Quant::GROUP`] of 32, the scales and the offsets of the first four groups of each of four rows: those of group
    /// `g` of row `r` in lane `4 * g + r`. Without [`Quant::OFFSET`] the offsets are anything.
    #[inline(always)]
    fn row_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> (I::F32, I::F32) {
        let (mut scales, mut offsets) = ([0.0; 16], [0.0; 16]);
        for (r, row) in rows.into_iter().enumerate() {
            let Scales { scale, offset } = Self::scales(row);
            for g in 0..4 {
                scales[4 * g + r] = scale[g];
                offsets[4 * g + r] = offset[g];
            }
        }
        (isa.load_f32(&scales), isa.load_f32(&offsets))
    }

    /// As [`Quant::codes`], in a vector; past the end of the chunk anything. Formats whose products matter override
    /// this.
    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        isa.load(&Self::codes(chunk, pair).map(|code| code as u8))
    }

    /// The order in which [`Quant::unpack_half`] has the codes.
    const ORDER: Order = Order::Linear;

    /// The codes of weights `128 * half ..` of a chunk, in the order that costs the least. `chunk` has the bytes of a
    /// whole chunk, if not its weights.
    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        [Self::unpack(isa, chunk, 2 * half), Self::unpack(isa, chunk, 2 * half + 1)]
    }
}
