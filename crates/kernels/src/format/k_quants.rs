//! The "K" formats: blocks of 256 weights with f16 scales of small integer scales.

use super::Format;
use super::block::{
    add_high_bit_vector, add_high_bits, both_nibbles, crumb_vector, crumbs, f16_at, f16_bits, field,
    nibble_vector, scaled_bytes, super_block,
};
use super::quant::{Codes, Order, Quant, Scales};
use crate::isa::{Isa, unrolled};

/// Two bits with an offset for each 16 weights: `d * scale * q - dmin * min`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..16 | `scales` | for each 16 weights: scale in the low half, min in the high half |
/// | 16..80 | `qs` | for each 128 weights 32 bytes: weight `j` of run `r` of 32 is the bits `2r..2r+2` of byte `j` |
/// | 80..82 | `d` | f16 scale of the scales |
/// | 82..84 | `dmin` | f16 scale of the mins |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q2_K;

impl Quant for Q2_K {
    const FORMAT: Format = Format::Q2_K;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Unsigned { zero: 0, max: 3 };
    const OFFSET: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<84>() {
            let (d, dmin) = (f16_at::<80, _>(block), f16_at::<82, _>(block));
            let packed = field::<0, 16, _>(block);
            for g in 0..16 {
                scales.scale[g] = d * (packed[g] & 15) as f32;
                scales.offset[g] = -(dmin * (packed[g] >> 4) as f32);
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<84>(chunk, pair) else { return [0; 64] };
        crumbs(field::<16, 64, _>(block), pair)
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        let Some(block) = chunk.first_chunk::<84>() else { return (isa.splat(0.0), isa.splat(0.0)) };
        let packed = u128::from_le_bytes(*field::<0, 16, _>(block));
        let low_halves = u128::MAX / 255 * 15;
        let mins = scaled_bytes(isa, packed >> 4 & low_halves, f16_bits::<82, _>(block));
        (scaled_bytes(isa, packed & low_halves, f16_bits::<80, _>(block)), isa.sub(isa.splat(0.0), mins))
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<84>(chunk, pair) else { return isa.splat_byte(0) };
        crumb_vector(isa, field::<16, 64, _>(block), pair)
    }
}

/// Three bits, symmetric: `d * (scale - 32) * (q - 4)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..32 | `hmask` | bit `r` of byte `j` is the third bit of weight `32 * r + j` |
/// | 32..96 | `qs` | the low two bits, as in [`Q2_K`] |
/// | 96..108 | `scales` | 6 bits for each 16 weights |
/// | 108..110 | `d` | f16 scale of the scales |
///
/// Of scale `g` the low four bits are half `g / 8` of byte `g % 8` of `scales`, the high two the bits from
/// `2 * (g / 4)` of byte `8 + g % 4`.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q3_K;

impl Quant for Q3_K {
    const FORMAT: Format = Format::Q3_K;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Unsigned { zero: 4, max: 7 };
    const OFFSET: bool = false;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<110>() {
            let d = f16_at::<108, _>(block);
            let packed = field::<96, 12, _>(block);
            for g in 0..16 {
                let low = (packed[g % 8] >> (4 * (g / 8))) & 15;
                let high = (packed[8 + g % 4] >> (2 * (g / 4))) & 3;
                scales.scale[g] = d * (i32::from(low | high << 4) - 32) as f32;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<110>(chunk, pair) else { return [0; 64] };
        let mut codes = crumbs(field::<32, 64, _>(block), pair);
        add_high_bits::<2>(&mut codes, field::<0, 32, _>(block), pair);
        codes
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<110>(chunk, pair) else { return isa.splat_byte(0) };
        let low = crumb_vector(isa, field::<32, 64, _>(block), pair);
        add_high_bit_vector::<I, 2>(isa, low, field::<0, 32, _>(block), pair)
    }
}

/// Four bits with an offset for each 32 weights: `d * scale * q - dmin * min`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale of the scales |
/// | 2..4 | `dmin` | f16 scale of the mins |
/// | 4..16 | `scales` | for each 32 weights a scale and a min of 6 bits |
/// | 16..144 | `qs` | for each 64 weights 32 bytes: weight `j` is the low half of byte `j`, `j + 32` the high half |
///
/// Scale and min `g < 4` are the low six bits of bytes `g` and `g + 4` of `scales`; of scale and min `g + 4` the low
/// four bits are the halves of byte `g + 8`, the high two lie on top of those of `g`.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q4_K;

impl Quant for Q4_K {
    const FORMAT: Format = Format::Q4_K;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 0, max: 15 };
    const OFFSET: bool = true;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        chunk.first_chunk::<144>().map_or(Scales::ZERO, |block| scales_and_mins(field::<0, 16, _>(block)))
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<144>(chunk, pair) else { return [0; 64] };
        split_nibbles(field::<16, 128, _>(block), pair)
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        let Some(block) = chunk.first_chunk::<144>() else { return (isa.splat(0.0), isa.splat(0.0)) };
        scale_and_min_vectors(isa, [field::<0, 16, _>(block); 4])[0]
    }

    #[inline(always)]
    fn scale_vectors4<I: Isa>(isa: I, chunks: [&[u8]; 4]) -> [(I::F32, I::F32); 4] {
        let heads = chunks.map(|chunk| chunk.first_chunk().unwrap_or(&[0; 16]));
        scale_and_min_vectors(isa, heads)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<144>(chunk, pair) else { return isa.splat_byte(0) };
        nibble_vector(isa, &field::<16, 128, _>(block).as_chunks::<32>().0[pair])
    }

    const ORDER: Order = Order::Groups;

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        let Some(block) = chunk.first_chunk::<144>() else { return [isa.splat_byte(0); 2] };
        both_nibbles(isa, isa.load(&field::<16, 128, _>(block).as_chunks::<64>().0[half]))
    }
}

/// Five bits with an offset for each 32 weights: `d * scale * q - dmin * min`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..16 | `d`, `dmin`, `scales` | as in [`Q4_K`] |
/// | 16..48 | `qh` | bit `r` of byte `j` is the fifth bit of weight `32 * r + j` |
/// | 48..176 | `qs` | the low four bits, as in [`Q4_K`] |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q5_K;

impl Quant for Q5_K {
    const FORMAT: Format = Format::Q5_K;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 0, max: 31 };
    const OFFSET: bool = true;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        chunk.first_chunk::<176>().map_or(Scales::ZERO, |block| scales_and_mins(field::<0, 16, _>(block)))
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<176>(chunk, pair) else { return [0; 64] };
        let mut codes = split_nibbles(field::<48, 128, _>(block), pair);
        add_high_bits::<4>(&mut codes, field::<16, 32, _>(block), pair);
        codes
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        let Some(block) = chunk.first_chunk::<176>() else { return (isa.splat(0.0), isa.splat(0.0)) };
        scale_and_min_vectors(isa, [field::<0, 16, _>(block); 4])[0]
    }

    #[inline(always)]
    fn scale_vectors4<I: Isa>(isa: I, chunks: [&[u8]; 4]) -> [(I::F32, I::F32); 4] {
        let heads = chunks.map(|chunk| chunk.first_chunk().unwrap_or(&[0; 16]));
        scale_and_min_vectors(isa, heads)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<176>(chunk, pair) else { return isa.splat_byte(0) };
        let low = nibble_vector(isa, &field::<48, 128, _>(block).as_chunks::<32>().0[pair]);
        add_high_bit_vector::<I, 4>(isa, low, field::<16, 32, _>(block), pair)
    }

    const ORDER: Order = Order::Groups;

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        let Some(block) = chunk.first_chunk::<176>() else { return [isa.splat_byte(0); 2] };
        let [low, high] = both_nibbles(isa, isa.load(&field::<48, 128, _>(block).as_chunks::<64>().0[half]));
        // Bits 4 * half and 4 * half + 2 belong to the first, those after them to the second.
        let (bits, shift) = (field::<16, 32, _>(block), 4 * half as u32);
        let fifth = |shift| {
            let bit = isa.and(isa.load_twice_shifted(bits, shift, shift + 2), isa.splat_byte(1));
            isa.shift_left::<4>(bit)
        };
        [isa.or(low, fifth(shift)), isa.or(high, fifth(shift + 1))]
    }
}

/// Six bits, symmetric: `d * scale * (q - 32)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..128 | `ql` | for each 128 weights 64 bytes: weight `j` is the low half of byte `j`, `j + 64` the high half |
/// | 128..192 | `qh` | the high two bits, as the codes of [`Q2_K`] |
/// | 192..208 | `scales` | 16 i8, one for each 16 weights |
/// | 208..210 | `d` | f16 scale of the scales |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q6_K;

impl Quant for Q6_K {
    const FORMAT: Format = Format::Q6_K;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Unsigned { zero: 32, max: 63 };
    const OFFSET: bool = false;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<210>() {
            let d = f16_at::<208, _>(block);
            let packed = field::<192, 16, _>(block);
            for g in 0..16 {
                scales.scale[g] = d * (packed[g] as i8) as f32;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<210>(chunk, pair) else { return [0; 64] };
        let low = &field::<0, 128, _>(block).as_chunks::<64>().0[pair / 2];
        let shift = 4 * (pair % 2);
        let mut codes = crumbs(field::<128, 64, _>(block), pair);
        for j in 0..64 {
            codes[j] = codes[j] << 4 | ((low[j] >> shift) & 15) as i8;
        }
        codes
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        let Some(block) = chunk.first_chunk::<210>() else { return (isa.splat(0.0), isa.splat(0.0)) };
        let packed = u128::from_le_bytes(*field::<192, 16, _>(block));
        (scaled_bytes(isa, packed, f16_bits::<208, _>(block)), isa.splat(0.0))
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<210>(chunk, pair) else { return isa.splat_byte(0) };
        let low = isa.load(&field::<0, 128, _>(block).as_chunks::<64>().0[pair / 2]);
        let low = if pair % 2 == 1 { isa.shift_right::<4>(low) } else { low };
        let high = isa.shift_left::<4>(crumb_vector(isa, field::<128, 64, _>(block), pair));
        isa.or(isa.and(low, isa.splat_byte(15)), high)
    }

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        let Some(block) = chunk.first_chunk::<210>() else { return [isa.splat_byte(0); 2] };
        let [low, high] = both_nibbles(isa, isa.load(&field::<0, 128, _>(block).as_chunks::<64>().0[half]));
        let top = |pair| isa.shift_left::<4>(crumb_vector(isa, field::<128, 64, _>(block), pair));
        [isa.or(low, top(2 * half)), isa.or(high, top(2 * half + 1))]
    }
}

/// Eight bits, with the sums that products with the formats above need: `d * q`. GGML uses it for activations only.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..4 | `d` | f32 scale |
/// | 4..260 | `qs` | 256 i8 |
/// | 260..292 | `bsums` | 16 i16, the sums of 16 `qs` each, redundant |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q8_K;

impl Quant for Q8_K {
    const FORMAT: Format = Format::Q8_K;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<292>() {
            scales.scale[..8].fill(f32::from_le_bytes(*field::<0, 4, _>(block)));
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<292>(chunk, pair) else { return [0; 64] };
        field::<4, 256, _>(block).as_chunks::<64>().0[pair].map(|q| q as i8)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<292>(chunk, pair) else { return isa.splat_byte(0) };
        isa.load(&field::<4, 256, _>(block).as_chunks::<64>().0[pair])
    }
}

/// What [`Q4_K`] and [`Q5_K`] keep in their first 16 bytes.
#[inline(always)]
fn scales_and_mins(head: &[u8; 16]) -> Scales {
    let (d, dmin) = (f16_at::<0, _>(head), f16_at::<2, _>(head));
    let packed = field::<4, 12, _>(head);
    let mut scales = Scales::ZERO;
    for g in 0..4 {
        scales.scale[g] = d * (packed[g] & 63) as f32;
        scales.scale[g + 4] = d * ((packed[g + 8] & 15) | (packed[g] >> 6) << 4) as f32;
        scales.offset[g] = -(dmin * (packed[g + 4] & 63) as f32);
        scales.offset[g + 4] = -(dmin * ((packed[g + 8] >> 4) | (packed[g + 4] >> 6) << 4) as f32);
    }
    scales
}

/// As [`scales_and_mins`] of four blocks, in vectors: bytes are picked from the heads such that scales and mins stand in
/// turn, and their parts masked out and put together.
#[inline(always)]
fn scale_and_min_vectors<I: Isa>(isa: I, heads: [&[u8; 16]; 4]) -> [(I::F32, I::F32); 4] {
    // From the fourth group on, the low four bits share a byte, and the high two are those of another's.
    const LOW: [u8; 64] = four_times([4, 8, 5, 9, 6, 10, 7, 11, 12, 12, 13, 13, 14, 14, 15, 15]);
    const TOP: [u8; 64] = four_times([0, 0, 0, 0, 0, 0, 0, 0, 4, 8, 5, 9, 6, 10, 7, 11]);
    const LOW_MASK: [u8; 64] = four_times([63, 63, 63, 63, 63, 63, 63, 63, 15, 0, 15, 0, 15, 0, 15, 0]);
    const HIGH_MASK: [u8; 64] = four_times([0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 15, 0, 15, 0, 15]);
    const TOP_MASK: [u8; 64] = four_times([0, 0, 0, 0, 0, 0, 0, 0, 48, 48, 48, 48, 48, 48, 48, 48]);
    let low = isa.lookup(heads, isa.load(&LOW));
    let top = isa.shift_right::<2>(isa.lookup(heads, isa.load(&TOP)));
    let high = isa.and(isa.shift_right::<4>(low), isa.load(&HIGH_MASK));
    let low = isa.or(isa.and(low, isa.load(&LOW_MASK)), high);
    let integers = isa.quarters_to_f32(isa.or(low, isa.and(top, isa.load(&TOP_MASK))));
    // The sign bit makes the offset.
    let factors = heads.map(|&[a, b, c, d, ..]| u32::from_le_bytes([a, b, c, d]) ^ 0x8000_0000);
    let factors = isa.splat_f16_pairs(factors);
    let mut vectors = [(isa.splat(0.0), isa.splat(0.0)); 4];
    unrolled!(i in 0 1 2 3, {
        vectors[i].0 = isa.mul(integers[i], factors[i]);
    });
    vectors
}

const fn four_times(bytes: [u8; 16]) -> [u8; 64] {
    let mut all = [0; 64];
    let mut i = 0;
    while i < 64 {
        all[i] = bytes[i % 16];
        i += 1;
    }
    all
}

/// 64 nibbles: the low halves of the 32 bytes of a pair, then the high halves.
#[inline(always)]
fn split_nibbles(qs: &[u8; 128], pair: usize) -> [i8; 64] {
    let bytes = &qs.as_chunks::<32>().0[pair];
    let mut codes = [0; 64];
    for j in 0..32 {
        codes[j] = (bytes[j] & 15) as i8;
        codes[j + 32] = (bytes[j] >> 4) as i8;
    }
    codes
}
