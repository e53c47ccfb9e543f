//! Four-bit formats whose codes look up a value: floats of the E2M1 kind, and the non-linear integers.

use super::Format;
use super::block::{
    block_codes, block_pair, f16_at, field, nibble, nibbles, per_block, spaced_nibbles, super_block,
};
use super::quant::{Codes, Order, Quant, Scales};
use crate::isa::Isa;

/// The E2M1 numbers, doubled: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The values of the `IQ4` formats: denser around zero, as weights are.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Both, for each quarter of a vector.
const E2M1_BYTES: [&[u8; 16]; 4] = [&as_bytes(E2M1); 4];
const IQ4_BYTES: [&[u8; 16]; 4] = [&as_bytes(IQ4); 4];

const fn as_bytes(table: [i8; 16]) -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < 16 {
        bytes[i] = table[i] as u8;
        i += 1;
    }
    bytes
}

/// Four-bit floats with a power-of-two scale: `2^(e - 127) * E2M1(q)`.
///
/// Source: OCP Microscaling Formats (MX) 1.0.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..1 | `e` | E8M0 scale |
/// | 1..17 | `qs` | E2M1 (sign, two bits of exponent, one of fraction), as in [`Q4_0`](super::Q4_0) |
#[derive(Clone, Copy, Debug)]
pub struct MXFP4;

impl Quant for MXFP4 {
    const FORMAT: Format = Format::MXFP4;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<17, 1>(chunk, |block| e8m0_half_to_f32(block[0])), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<17>(chunk, pair, |block| {
            nibbles(field::<1, 16, _>(block)).map(|q| E2M1[q as usize & 15])
        })
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<17>(chunk, pair);
        isa.lookup(E2M1_BYTES, isa.load_nibbles(field::<1, 16, _>(a), field::<1, 16, _>(b)))
    }

    const ORDER: Order = Order::Halves;

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        spaced_nibbles::<I, 17>(isa, chunk, 1 + 4 * half * 17).map(|codes| isa.lookup(E2M1_BYTES, codes))
    }
}

/// Four-bit floats with a float scale for each 16, blocks of 64: `d * E2M1(q)`.
///
/// A scale of the whole tensor, which some files keep beside it, is not part of the format.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..4 | `d` | unsigned E4M3 scales, one for each 16 weights |
/// | 4..36 | `qs` | for each 16 weights 8 bytes: weight `j` is the low half of byte `j`, `j + 8` the high half |
#[derive(Clone, Copy, Debug)]
pub struct NVFP4;

impl Quant for NVFP4 {
    const FORMAT: Format = Format::NVFP4;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        for (scale, block) in scales.scale.as_chunks_mut::<4>().0.iter_mut().zip(chunk.as_chunks::<36>().0) {
            *scale = field::<0, 4, _>(block).map(ue4m3_half_to_f32);
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = chunk.as_chunks::<36>().0.get(pair) else { return [0; 64] };
        let mut codes = [0; 64];
        let groups = field::<4, 32, _>(block).as_chunks::<8>().0;
        for (codes, bytes) in codes.as_chunks_mut::<16>().0.iter_mut().zip(groups) {
            for j in 0..8 {
                codes[j] = E2M1[(bytes[j] & 15) as usize];
                codes[j + 8] = E2M1[(bytes[j] >> 4) as usize];
            }
        }
        codes
    }
}

/// Four bits, non-linear: `d * IQ4(q)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..18 | `qs` | as in [`Q4_0`](super::Q4_0) |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ4_NL;

impl Quant for IQ4_NL {
    const FORMAT: Format = Format::IQ4_NL;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<18, 1>(chunk, f16_at::<0, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<18>(chunk, pair, |block| {
            nibbles(field::<2, 16, _>(block)).map(|q| IQ4[q as usize & 15])
        })
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        (isa.load_f16_heads::<18, false>(chunk), isa.splat(0.0))
    }

    #[inline(always)]
    fn pair_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> I::F32 {
        isa.load_f16_head_pairs::<18, false>(rows)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<18>(chunk, pair);
        isa.lookup(IQ4_BYTES, isa.load_nibbles(field::<2, 16, _>(a), field::<2, 16, _>(b)))
    }

    const ORDER: Order = Order::Halves;

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        spaced_nibbles::<I, 18>(isa, chunk, 2 + 4 * half * 18).map(|codes| isa.lookup(IQ4_BYTES, codes))
    }
}

/// Four bits, non-linear, blocks of 256: `d * (scale - 32) * IQ4(q)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale of the scales |
/// | 2..4 | `scales_h` | u16, the high two bits of scale `g` from bit `2 * g` |
/// | 4..8 | `scales_l` | the low four bits of the 8 scales, low half of a byte first |
/// | 8..136 | `qs` | for each 32 weights 16 bytes, as in [`Q4_0`](super::Q4_0) |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ4_XS;

impl Quant for IQ4_XS {
    const FORMAT: Format = Format::IQ4_XS;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<136>() {
            let d = f16_at::<0, _>(block);
            let high = u16::from_le_bytes(*field::<2, 2, _>(block));
            let low = field::<4, 4, _>(block);
            for g in 0..8 {
                let scale = i32::from(nibble(low, g)) | i32::from((high >> (2 * g)) & 3) << 4;
                scales.scale[g] = d * (scale - 32) as f32;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<136>(chunk, pair) else { return [0; 64] };
        let groups = field::<8, 128, _>(block).as_chunks::<16>().0;
        let mut codes = [0; 64];
        for (codes, qs) in codes.as_chunks_mut::<32>().0.iter_mut().zip(&groups[2 * pair..]) {
            *codes = nibbles(qs).map(|q| IQ4[q as usize & 15]);
        }
        codes
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<136>(chunk, pair) else { return isa.splat_byte(0) };
        let groups = field::<8, 128, _>(block).as_chunks::<16>().0;
        isa.lookup(IQ4_BYTES, isa.load_nibbles(&groups[2 * pair], &groups[2 * pair + 1]))
    }

    const ORDER: Order = Order::Halves;

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        spaced_nibbles::<I, 16>(isa, chunk, 8 + 4 * half * 16).map(|codes| isa.lookup(IQ4_BYTES, codes))
    }
}

/// Half the power of two that an E8M0 scale stands for: `2^(bits - 128)`.
///
/// Half, because the elements it scales are stored doubled, as integers. 255, the NaN of the OCP Microscaling
/// specification, counts as the next power, as in GGML.
#[inline(always)]
const fn e8m0_half_to_f32(bits: u8) -> f32 {
    let bits = bits as u32;
    // Exponents -128 and -127 are subnormal in f32.
    f32::from_bits(if bits < 2 { 0x0020_0000 << bits } else { (bits - 1) << 23 })
}

/// Half the value of an unsigned E4M3 scale (bias 7, no infinities); its NaN, `0x7f`, counts as zero, as in GGML.
#[inline(always)]
const fn ue4m3_half_to_f32(bits: u8) -> f32 {
    if bits == 0x7f {
        return 0.0;
    }
    let (exponent, fraction) = ((bits >> 3) as u32 & 15, bits as u32 & 7);
    if exponent == 0 {
        fraction as f32 * (1.0 / 1024.0)
    } else {
        f32::from_bits(((exponent + 127 - 7 - 1) << 23) | (fraction << 20))
    }
}
