//! Formats of one and two bits, and of three values.

use super::Format;
use super::block::{crumb_vector, crumbs, f16_at, field, per_block, super_block};
use super::quant::{Codes, Quant, Scales};
use crate::isa::Isa;

/// Three values, 1.6875 bits a weight: `d * (q - 1)`, five `q` to a byte.
///
/// A byte `b` holds five digits of base 3 as the fraction `b / 256`: digit `n` is the integer part of
/// `3 * fract(3^n * b / 256)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..32 | `qs` | weight `32 * n + j` is digit `n` of byte `j` |
/// | 32..48 | | weight `160 + 16 * n + j` is digit `n` of byte `j` |
/// | 48..52 | `qh` | weight `240 + 4 * n + j` is digit `n` (of four) of byte `j` |
/// | 52..54 | `d` | f16 scale |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct TQ1_0;

impl Quant for TQ1_0 {
    const FORMAT: Format = Format::TQ1_0;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 1, max: 2 };
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<54, 8>(chunk, f16_at::<52, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<54>(chunk, pair) else { return [0; 64] };
        let bytes = field::<0, 48, _>(block).as_chunks::<16>().0;
        let mut codes = [0; 64];
        for (codes, run) in codes.as_chunks_mut::<16>().0.iter_mut().zip(4 * pair..) {
            *codes = match run {
                0..10 => digits(&bytes[run % 2], run / 2),
                10..15 => digits(&bytes[2], run - 10),
                _ => {
                    let mut codes = [0; 16];
                    for (n, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                        *codes = digits(field::<48, 4, _>(block), n);
                    }
                    codes
                }
            }
        }
        codes
    }
}

/// Digit `n` of each of the bytes of a [`TQ1_0`] block.
#[inline(always)]
fn digits<const N: usize>(bytes: &[u8; N], n: usize) -> [i8; N] {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    bytes.map(|byte| ((u16::from(byte.wrapping_mul(POWERS[n])) * 3) >> 8) as i8)
}

/// Two bits: `d * (q - 1)`. Made for three values; a stored 3 counts as 2.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..64 | `qs` | as in [`Q2_K`](super::Q2_K) |
/// | 64..66 | `d` | f16 scale |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct TQ2_0;

impl Quant for TQ2_0 {
    const FORMAT: Format = Format::TQ2_0;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 1, max: 3 };
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<66, 8>(chunk, f16_at::<64, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = super_block::<66>(chunk, pair) else { return [0; 64] };
        crumbs(field::<0, 64, _>(block), pair)
    }

    #[inline(always)]
    fn unpack<I: Isa>(isa: I, chunk: &[u8], pair: usize) -> I::Bytes {
        let Some(block) = super_block::<66>(chunk, pair) else { return isa.splat_byte(0) };
        crumb_vector(isa, field::<0, 64, _>(block), pair)
    }
}

/// One bit, blocks of 128: `d` where it is set, else `-d`. The codes are 2 and 0, around 1.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..18 | `qs` | weight `j` is bit `j % 8` of byte `j / 8` |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q1_0;

impl Quant for Q1_0 {
    const FORMAT: Format = Format::Q1_0;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 1, max: 2 };
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<18, 4>(chunk, f16_at::<0, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = chunk.as_chunks::<18>().0.get(pair / 2) else { return [0; 64] };
        let bytes = &field::<2, 16, _>(block).as_chunks::<8>().0[pair % 2];
        let mut codes = [0; 64];
        for j in 0..64 {
            codes[j] = if bytes[j / 8] & (1 << (j % 8)) != 0 { 2 } else { 0 };
        }
        codes
    }
}

/// Two bits, blocks of 64: `d * (q - 1)`.
///
/// | bytes | field | |
/// |---|---|---|
/// | 0..2 | `d` | f16 scale |
/// | 2..18 | `qs` | weight `j` is the bits from `2 * (j % 4)` of byte `j / 4` |
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct Q2_0;

impl Quant for Q2_0 {
    const FORMAT: Format = Format::Q2_0;
    const GROUP: usize = 32;
    const CODES: Codes = Codes::Unsigned { zero: 1, max: 3 };
    const OFFSET: bool = false;

    #[inline(always)]
    fn scales(chunk: &[u8]) -> Scales {
        Scales { scale: per_block::<18, 2>(chunk, f16_at::<0, _>), ..Scales::ZERO }
    }

    #[inline(always)]
    fn codes(chunk: &[u8], pair: usize) -> [i8; 64] {
        let Some(block) = chunk.as_chunks::<18>().0.get(pair) else { return [0; 64] };
        let bytes = field::<2, 16, _>(block);
        let mut codes = [0; 64];
        for j in 0..64 {
            codes[j] = ((bytes[j / 4] >> (2 * (j % 4))) & 3) as i8;
        }
        codes
    }
}
