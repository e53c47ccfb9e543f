//! The first GGML formats: blocks of 32 weights with one scale, and those with an offset.

use super::Format;
use super::block::{block_codes, block_pair, f16_at, field, nibbles, per_block, spaced_nibbles};
use super::quant::{Codes, Order, Quant, Scales};
use crate::isa::Isa;

/// Four bits, symmetric: `d * (q - 8)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..18 | `qs` | weight `j` is the low half of byte `j`, weight `j + 16` the high half |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q4_0;

impl Quant for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 8, max: 15 };
    const OFFSET: bool = false;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<18, 1>(chunk, f16_at::<0, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<18>(chunk, pair, |block| nibbles(field::<2, 16, _>(block)))
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
    fn row_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> (I::F32, I::F32) {
        isa.load_f16_head_rows::<18>(rows)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<18>(chunk, pair);
        isa.load_nibbles(field::<2, 16, _>(a), field::<2, 16, _>(b))
    }

    const ORDER: Order = Order::Halves;

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        spaced_nibbles::<I, 18>(isa, chunk, 2 + 4 * half * 18)
    }
}

/// Four bits with an offset: `d * q + m`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..4 | `m` | f16 offset |
/// | 4..20 | `qs` | as in [`Q4_0`] |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q4_1;

impl Quant for Q4_1 {
    const FORMAT: Format = Format::Q4_1;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 0, max: 15 };
    const OFFSET: bool = true;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales {
            scale: per_block::<20, 1>(chunk, f16_at::<0, _>),
            offset: per_block::<20, 1>(chunk, f16_at::<2, _>),
        }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<20>(chunk, pair, |block| nibbles(field::<4, 16, _>(block)))
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        (isa.load_f16_heads::<20, true>(chunk), isa.splat(0.0))
    }

    #[inline(always)]
    fn pair_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> I::F32 {
        isa.load_f16_head_pairs::<20, true>(rows)
    }

    #[inline(always)]
    fn row_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> (I::F32, I::F32) {
        isa.load_f16_head_rows::<20>(rows)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<20>(chunk, pair);
        isa.load_nibbles(field::<4, 16, _>(a), field::<4, 16, _>(b))
    }

    const ORDER: Order = Order::Halves;

    #[inline(always)]
    fn unpack_half<I: Isa>(isa: I, chunk: &[u8], half: usize) -> [I::Bytes; 2] {
        spaced_nibbles::<I, 20>(isa, chunk, 4 + 4 * half * 20)
    }
}

/// Five bits, symmetric: `d * (q - 16)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..6 | `qh` | u32 whose bit `j` is the fifth bit of weight `j` |
/// | 6..22 | `qs` | the low four bits, as in [`Q4_0`] |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q5_0;

impl Quant for Q5_0 {
    const FORMAT: Format = Format::Q5_0;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 16, max: 31 };
    const OFFSET: bool = false;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<22, 1>(chunk, f16_at::<0, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<22>(chunk, pair, |block| five_bits(field::<6, 16, _>(block), field::<2, 4, _>(block)))
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        (isa.load_f16_heads::<22, false>(chunk), isa.splat(0.0))
    }

    #[inline(always)]
    fn pair_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> I::F32 {
        isa.load_f16_head_pairs::<22, false>(rows)
    }

    #[inline(always)]
    fn row_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> (I::F32, I::F32) {
        isa.load_f16_head_rows::<22>(rows)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<22>(chunk, pair);
        let low = isa.load_nibbles(field::<6, 16, _>(a), field::<6, 16, _>(b));
        let [first, second] = [a, b].map(|block| u64::from(u32::from_le_bytes(*field::<2, 4, _>(block))));
        isa.or(low, isa.expand_bits(first | second << 32, 16))
    }
}

/// Five bits with an offset: `d * q + m`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..4 | `m` | f16 offset |
/// | 4..8 | `qh` | u32 whose bit `j` is the fifth bit of weight `j` |
/// | 8..24 | `qs` | the low four bits, as in [`Q4_0`] |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q5_1;

impl Quant for Q5_1 {
    const FORMAT: Format = Format::Q5_1;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 0, max: 31 };
    const OFFSET: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales {
            scale: per_block::<24, 1>(chunk, f16_at::<0, _>),
            offset: per_block::<24, 1>(chunk, f16_at::<2, _>),
        }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<24>(chunk, pair, |block| five_bits(field::<8, 16, _>(block), field::<4, 4, _>(block)))
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        (isa.load_f16_heads::<24, true>(chunk), isa.splat(0.0))
    }

    #[inline(always)]
    fn pair_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> I::F32 {
        isa.load_f16_head_pairs::<24, true>(rows)
    }

    #[inline(always)]
    fn row_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> (I::F32, I::F32) {
        isa.load_f16_head_rows::<24>(rows)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<24>(chunk, pair);
        let low = isa.load_nibbles(field::<8, 16, _>(a), field::<8, 16, _>(b));
        let [first, second] = [a, b].map(|block| u64::from(u32::from_le_bytes(*field::<4, 4, _>(block))));
        isa.or(low, isa.expand_bits(first | second << 32, 16))
    }
}

/// Eight bits: `d * q`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..34 | `qs` | 32 i8 |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q8_0;

impl Quant for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;
    const COMMON: bool = true;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<34, 1>(chunk, f16_at::<0, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<34>(chunk, pair, |block| field::<2, 32, _>(block).map(|q| q as i8))
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        (isa.load_f16_heads::<34, false>(chunk), isa.splat(0.0))
    }

    #[inline(always)]
    fn pair_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> I::F32 {
        isa.load_f16_head_pairs::<34, false>(rows)
    }

    #[inline(always)]
    fn row_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> (I::F32, I::F32) {
        isa.load_f16_head_rows::<34>(rows)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<34>(chunk, pair);
        isa.load_halves(field::<2, 32, _>(a), field::<2, 32, _>(b))
    }
}

/// Eight bits, with the sum that products with [`Q4_1`] need: `d * q`. GGML uses it for activations only.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..4 | `s` | f16 `d * sum(qs)`, redundant |
/// | 4..36 | `qs` | 32 i8 |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q8_1;

impl Quant for Q8_1 {
    const FORMAT: Format = Format::Q8_1;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Signed;
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<36, 1>(chunk, f16_at::<0, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        block_codes::<36>(chunk, pair, |block| field::<4, 32, _>(block).map(|q| q as i8))
    }

    #[inline(always)]
    fn scale_vectors<I: Isa>(isa: I, chunk: &[u8]) -> (I::F32, I::F32) {
        (isa.load_f16_heads::<36, false>(chunk), isa.splat(0.0))
    }

    #[inline(always)]
    fn pair_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> I::F32 {
        isa.load_f16_head_pairs::<36, false>(rows)
    }

    #[inline(always)]
    fn row_scales<I: Isa>(isa: I, rows: [&[u8]; 4]) -> (I::F32, I::F32) {
        isa.load_f16_head_rows::<36>(rows)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let [a, b] = block_pair::<36>(chunk, pair);
        isa.load_halves(field::<4, 32, _>(a), field::<4, 32, _>(b))
    }
}

#[inline(always)]
fn five_bits(qs: &[u8; 16], qh: &[u8; 4]) -> [i8; 32] {
    let mut codes = nibbles(qs);
    for j in 0..32 {
        codes[j] |= if qh[j / 8] & (1 << (j % 8)) != 0 { 16 } else { 0 };
    }
    codes
}
