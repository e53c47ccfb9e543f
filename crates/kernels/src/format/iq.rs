//! The "IQ" formats of one to three bits: indices of grid points (4 or 8 weights at once), signs apart.
//!
//! Where eight signs are stored in seven bits, the eighth is the one that makes the number of minuses even.

use super::Format;
use super::block::{f16_at, field, nibble, super_block};
use super::float::f16_to_f32;
use super::iq_grids as grids;
use super::quant::{Codes, Quant, Scales};

/// 2.06 bits: `d * (s + 1/2) / 4 * ±point`, one `s` for each 32 weights.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..66 | `qs` | for each 32 weights 4 indices of points of 8, then a u32: 4 times 7 bits of signs, 4 bits `s` |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ2_XXS;

impl Quant for IQ2_XXS {
    const FORMAT: Format = Format::IQ2_XXS;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<66>() {
            let d = f16_at::<0, _>(block);
            for (scale, group) in scales.scale.iter_mut().zip(field::<2, 64, _>(block).as_chunks::<8>().0) {
                *scale = d * (0.5 + (group[7] >> 4) as f32) * 0.25;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<66>(chunk, pair) else { return [0; 64] };
        let groups = field::<2, 64, _>(block).as_chunks::<8>().0;
        let mut codes = [0; 64];
        for (k, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let group = &groups[2 * pair + k / 4];
            let signs = u32::from_le_bytes(*field::<4, 4, _>(group)) >> (7 * (k % 4));
            *codes = signed(grids::IQ2_XXS[usize::from(group[k % 4])], seven_signs(signs as u8));
        }
        codes
    }
}

/// 2.31 bits: `d * (s + 1/2) / 4 * ±point`, one `s` for each 16 weights.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..66 | `qs` | for each 8 weights a u16: 9 bits of index, then 7 of signs |
/// | 66..74 | `scales` | 16 `s` of 4 bits, low half of a byte first |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ2_XS;

impl Quant for IQ2_XS {
    const FORMAT: Format = Format::IQ2_XS;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        chunk
            .first_chunk::<74>()
            .map_or(Scales::ZERO, |block| quarter_scales(f16_at::<0, _>(block), field::<66, 8, _>(block)))
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<74>(chunk, pair) else { return [0; 64] };
        let qs = &field::<2, 64, _>(block).as_chunks::<2>().0[8 * pair..];
        let mut codes = [0; 64];
        for (codes, q) in codes.as_chunks_mut::<8>().0.iter_mut().zip(qs) {
            let q = u16::from_le_bytes(*q);
            *codes = signed(grids::IQ2_XS[usize::from(q & 511)], seven_signs((q >> 9) as u8));
        }
        codes
    }
}

/// 2.56 bits: `d * (s + 1/2) / 4 * ±point`, one `s` for each 16 weights.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..34 | `qs` | the low 8 bits of 32 indices of points of 8 |
/// | 34..66 | `signs` | bit `j % 8` of byte `j / 8` is set where weight `j` is negative |
/// | 66..74 | `qh` | the high 2 bits of the indices, four to a byte, lowest first |
/// | 74..82 | `scales` | 16 `s` of 4 bits, low half of a byte first |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ2_S;

impl Quant for IQ2_S {
    const FORMAT: Format = Format::IQ2_S;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        chunk
            .first_chunk::<82>()
            .map_or(Scales::ZERO, |block| quarter_scales(f16_at::<0, _>(block), field::<74, 8, _>(block)))
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<82>(chunk, pair) else { return [0; 64] };
        let (qs, qh) = (field::<2, 32, _>(block), field::<66, 8, _>(block));
        let signs = field::<34, 32, _>(block);
        let mut codes = [0; 64];
        for (codes, i) in codes.as_chunks_mut::<8>().0.iter_mut().zip(8 * pair..) {
            let high = (qh[i / 4] >> (2 * (i % 4))) & 3;
            *codes = signed(grids::IQ2_S[usize::from(qs[i]) | usize::from(high) << 8], signs[i]);
        }
        codes
    }
}

/// 3.06 bits: `d * (s + 1/2) / 2 * ±point`, one `s` for each 32 weights.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..66 | `qs` | 64 indices of points of 4 |
/// | 66..98 | | for each 32 weights a u32: 4 times 7 bits of signs, 4 bits `s` |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ3_XXS;

impl Quant for IQ3_XXS {
    const FORMAT: Format = Format::IQ3_XXS;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<98>() {
            let d = f16_at::<0, _>(block);
            for (scale, group) in scales.scale.iter_mut().zip(field::<66, 32, _>(block).as_chunks::<4>().0) {
                *scale = d * (0.5 + (group[3] >> 4) as f32) * 0.5;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<98>(chunk, pair) else { return [0; 64] };
        let points = field::<2, 64, _>(block).as_chunks::<2>().0;
        let groups = field::<66, 32, _>(block).as_chunks::<4>().0;
        let mut codes = [0; 64];
        for (k, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let signs = u32::from_le_bytes(groups[2 * pair + k / 4]) >> (7 * (k % 4));
            let [first, second] = points[8 * pair + k].map(|i| grids::IQ3_XXS[usize::from(i)]);
            *codes = signed(first | second << 32, seven_signs(signs as u8));
        }
        codes
    }
}

/// 3.44 bits: `d * (2 * s + 1) * ±point`, one `s` for each 32 weights.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..66 | `qs` | the low 8 bits of 64 indices of points of 4 |
/// | 66..74 | `qh` | the ninth bits of the indices, eight to a byte, lowest first |
/// | 74..106 | `signs` | bit `j % 8` of byte `j / 8` is set where weight `j` is negative |
/// | 106..110 | `scales` | 8 `s` of 4 bits, low half of a byte first |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ3_S;

impl Quant for IQ3_S {
    const FORMAT: Format = Format::IQ3_S;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<110>() {
            let d = f16_at::<0, _>(block);
            for g in 0..8 {
                scales.scale[g] = d * (1 + 2 * nibble(field::<106, 4, _>(block), g)) as f32;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<110>(chunk, pair) else { return [0; 64] };
        let (qs, qh) = (field::<2, 64, _>(block), field::<66, 8, _>(block));
        let signs = field::<74, 32, _>(block);
        let mut codes = [0; 64];
        for (codes, i) in codes.as_chunks_mut::<8>().0.iter_mut().zip(8 * pair..) {
            let [first, second] = [2 * i, 2 * i + 1].map(|i| {
                let high = (qh[i / 8] >> (i % 8)) & 1;
                grids::IQ3_S[usize::from(qs[i]) | usize::from(high) << 8]
            });
            *codes = signed(first | second << 32, signs[i]);
        }
        codes
    }
}

/// 1.56 bits: `d * (2 * s + 1) * (point ± 1/8)`, one `s` and one sign for each 32 weights.
///
/// Codes are in eighths, `8 * point ± 1` around 9, and so are the scales: exact, and no offset is needed.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..34 | `qs` | the low 8 bits of 32 indices of points of 8 |
/// | 34..50 | `qh` | for each 32 weights a u16: 4 times the high 3 bits of an index, 3 bits `s`, 1 set for minus |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ1_S;

impl Quant for IQ1_S {
    const FORMAT: Format = Format::IQ1_S;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 9, max: 18 };
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<50>() {
            let d = f16_at::<0, _>(block);
            for (scale, qh) in scales.scale.iter_mut().zip(field::<34, 16, _>(block).as_chunks::<2>().0) {
                let s = (qh[1] >> 4) & 7;
                *scale = d * (2 * s + 1) as f32 * 0.125;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<50>(chunk, pair) else { return [0; 64] };
        let qs = field::<2, 32, _>(block);
        let qh = field::<34, 16, _>(block).as_chunks::<2>().0;
        let mut codes = [0; 64];
        for (codes, i) in codes.as_chunks_mut::<8>().0.iter_mut().zip(8 * pair..) {
            let qh = u16::from_le_bytes(qh[i / 4]);
            let high = (qh >> (3 * (i % 4))) & 7;
            *codes = shifted(usize::from(qs[i]) | usize::from(high) << 8, qh & 0x8000 != 0);
        }
        codes
    }
}

/// 1.75 bits: `d * (2 * s + 1) * (point ± 1/8)`, one `s` for each 16 weights, one sign for each 8.
///
/// Codes are in eighths, `8 * point ± 1` around 9, and so are the scales: exact, and no offset is needed.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..32 | `qs` | the low 8 bits of 32 indices of points of 8 |
/// | 32..48 | `qh` | for each 8 weights, low half of a byte first: the high 3 bits of an index, 1 set for minus |
/// | 48..56 | `scales` | four u16, each 4 times 3 bits `s`; their high 4 bits are the f16 `d`, lowest first |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct IQ1_M;

impl Quant for IQ1_M {
    const FORMAT: Format = Format::IQ1_M;
    const GROUP: usize = 16;
    const CODES: Codes = Codes::Unsigned { zero: 9, max: 18 };
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        let mut scales = Scales::ZERO;
        if let Some(block) = chunk.first_chunk::<56>() {
            let packed = u64::from_le_bytes(*field::<48, 8, _>(block));
            let word = |i: usize| (packed >> (16 * i)) as u16;
            let d = f16_to_f32(
                word(0) >> 12 | (word(1) >> 12) << 4 | (word(2) >> 12) << 8 | (word(3) >> 12) << 12,
            );
            for g in 0..16 {
                let s = (word(g / 4) >> (3 * (g % 4))) & 7;
                scales.scale[g] = d * (2 * s + 1) as f32 * 0.125;
            }
        }
        scales
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<56>(chunk, pair) else { return [0; 64] };
        let (qs, qh) = (field::<0, 32, _>(block), field::<32, 16, _>(block));
        let mut codes = [0; 64];
        for (codes, i) in codes.as_chunks_mut::<8>().0.iter_mut().zip(8 * pair..) {
            let high = nibble(qh, i);
            *codes = shifted(usize::from(qs[i]) | usize::from(high & 7) << 8, high & 8 != 0);
        }
        codes
    }
}

/// The scales of [`IQ2_XS`] and [`IQ2_S`].
#[inline(always)]
fn quarter_scales(d: f32, packed: &[u8; 8]) -> Scales {
    let mut scales = Scales::ZERO;
    for g in 0..16 {
        scales.scale[g] = d * (0.5 + nibble(packed, g) as f32) * 0.25;
    }
    scales
}

/// Eight signs of seven stored bits: the number of minuses is even.
#[inline(always)]
fn seven_signs(bits: u8) -> u8 {
    let bits = bits & 127;
    bits | ((bits.count_ones() as u8 & 1) << 7)
}

/// A point with weight `j` negated where bit `j` of `signs` is set. No weight may be zero.
#[inline(always)]
fn signed(point: u64, signs: u8) -> [i8; 8] {
    let selected = (u64::from(signs) * LOW_BITS) & 0x8040_2010_0804_0201;
    // Every byte is zero or a power of two, so that 127 more carries into its top bit but not beyond.
    let negative = ((selected + 0x7f * LOW_BITS) >> 7) & LOW_BITS;
    // In two's complement; adding 1 to the complement of a byte carries beyond it only where the byte is zero.
    weights((point ^ (negative * 0xff)) + negative)
}

/// Point `index` of the `IQ1` grid, which is in eighths and around 8, with an eighth added or subtracted, around 9.
#[inline(always)]
fn shifted(index: usize, minus: bool) -> [i8; 8] {
    weights(grids::IQ1[index] | if minus { 0 } else { 2 * LOW_BITS })
}

/// The lowest bit of each byte.
const LOW_BITS: u64 = 0x0101_0101_0101_0101;

#[inline(always)]
fn weights(point: u64) -> [i8; 8] {
    point.to_le_bytes().map(|weight| weight as i8)
}
