//! The "K" formats: blocks of 256 weights with f16 scales of small integer scales.

use super::Format;
use super::block::{add_high_bits, crumbs, f16_at, field, super_block};
use super::quant::{Codes, Quant, Scales};

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
}

/// Three bits, symmetric: `d * (scale - 32) * (q - 4)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..32 | `hmask` | bit `r` of byte `j` is the third bit of weight `32 * r + j` |
/// | 32..96 | `qs` | the low two bits, as in [`Q2_K`] |
/// | 96..108 | `scales` | 16 of 6 bits: `g`'s low 4 are nibble `g / 8` of byte `g % 8`, its high 2 the bits from `2 * (g / 4)` of byte `8 + g % 4` |
/// | 108..110 | `d` | f16 scale of the scales |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q3_K;

impl Quant for Q3_K {
    const FORMAT: Format = Format::Q3_K;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Unsigned { zero: 4, max: 7 };
    const OFFSET: bool = false;

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
}

/// Four bits with an offset for each 32 weights: `d * scale * q - dmin * min`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale of the scales |
/// | 2..4 | `dmin` | f16 scale of the mins |
/// | 4..16 | `scales` | for each 32 weights `g` a scale and a min of 6 bits; `g < 4`: the low 6 bits of bytes `g` and `4 + g`; else: low 4 bits in the low and high half of byte `4 + g`, high 2 bits on top of bytes `g - 4` and `g` |
/// | 16..144 | `qs` | for each 64 weights 32 bytes: weight `j` is the low half of byte `j`, weight `j + 32` the high half |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q4_K;

impl Quant for Q4_K {
    const FORMAT: Format = Format::Q4_K;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 0, max: 15 };
    const OFFSET: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        chunk.first_chunk::<144>().map_or(Scales::ZERO, |block| scales_and_mins(field::<0, 16, _>(block)))
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<144>(chunk, pair) else { return [0; 64] };
        split_nibbles(field::<16, 128, _>(block), pair)
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
}

/// Six bits, symmetric: `d * scale * (q - 32)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..128 | `ql` | for each 128 weights 64 bytes: weight `j` is the low half of byte `j`, weight `j + 64` the high half |
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
