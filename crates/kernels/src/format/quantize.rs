//! From f32 to the bytes of a row, for the formats whose scale follows from the extremes of a block.

use core::fmt;

use super::Format;
use super::float::{f32_to_bf16, f32_to_f16};

/// Why a row could not be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantizeError {
    /// There is no quantizer for this format.
    Unsupported(Format),
}

impl fmt::Display for QuantizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantizeError::Unsupported(format) => write!(f, "cannot quantize to {format}"),
        }
    }
}

impl core::error::Error for QuantizeError {}

impl Format {
    /// Packs a row of values into `out`: the bytes that GGML makes, for F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 and
    /// Q8_0. A value that is not finite spoils its own block only.
    ///
    /// Panics if `out` is not the [`Format::row_bytes`] of `row.len()` values.
    pub fn quantize_row(self, row: &[f32], out: &mut [u8]) -> Result<(), QuantizeError> {
        assert_eq!(self.row_bytes(row.len()), Some(out.len()), "bytes of a row of {} {self}", row.len());
        match self {
            Format::F32 => blocks(row, out, |[value]| value.to_le_bytes()),
            Format::F16 => blocks(row, out, |&[value]| f32_to_f16(value).to_le_bytes()),
            Format::BF16 => blocks(row, out, |&[value]| f32_to_bf16(value).to_le_bytes()),
            Format::Q4_0 => blocks::<32, 18>(row, out, |block| {
                let (d, q) = symmetric::<8>(block);
                concat([&f16(d), &nibbles(&q)])
            }),
            Format::Q4_1 => blocks::<32, 20>(row, out, |block| {
                let (d, m, q) = offset::<15>(block);
                concat([&f16(d), &f16(m), &nibbles(&q)])
            }),
            Format::Q5_0 => blocks::<32, 22>(row, out, |block| {
                let (d, q) = symmetric::<16>(block);
                concat([&f16(d), &fifth_bits(&q), &nibbles(&q)])
            }),
            Format::Q5_1 => blocks::<32, 24>(row, out, |block| {
                let (d, m, q) = offset::<31>(block);
                concat([&f16(d), &f16(m), &fifth_bits(&q), &nibbles(&q)])
            }),
            Format::Q8_0 => blocks::<32, 34>(row, out, |block| {
                let d = block.iter().fold(0.0f32, |max, x| if x.abs() > max { x.abs() } else { max }) / 127.0;
                let inverse = inverse(d);
                concat([&f16(d), &block.map(|x| round(x * inverse) as u8)])
            }),
            _ => return Err(QuantizeError::Unsupported(self)),
        }
        Ok(())
    }
}

fn blocks<const LEN: usize, const BYTES: usize>(
    row: &[f32],
    out: &mut [u8],
    pack: impl Fn(&[f32; LEN]) -> [u8; BYTES],
) {
    for (block, out) in row.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        *out = pack(block);
    }
}

/// Codes around `ZERO`, and their scale: the value of the largest magnitude becomes code 0, the one with the larger
/// range.
fn symmetric<const ZERO: i8>(block: &[f32; 32]) -> (f32, [u8; 32]) {
    let extreme = block.iter().fold(0.0f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme });
    let d = extreme / -f32::from(ZERO);
    let inverse = inverse(d);
    let max = 2 * ZERO - 1;
    (d, block.map(|x| ((x * inverse + (f32::from(ZERO) + 0.5)) as i8).clamp(0, max) as u8))
}

/// Codes 0 to `MAX` from the smallest to the largest value, their scale, and the smallest value.
fn offset<const MAX: u8>(block: &[f32; 32]) -> (f32, f32, [u8; 32]) {
    let min = block.iter().fold(f32::MAX, |min, &x| if x < min { x } else { min });
    let max = block.iter().fold(f32::MIN, |max, &x| if x > max { x } else { max });
    let d = (max - min) / f32::from(MAX);
    let inverse = inverse(d);
    (d, min, block.map(|x| (((x - min) * inverse + 0.5) as u8).min(MAX)))
}

/// `1 / d`, or 0 where all of a block is one value.
fn inverse(d: f32) -> f32 {
    if d != 0.0 { 1.0 / d } else { 0.0 }
}

/// Rounds to the nearest integer, halves away from zero; `core` has no `f32::round`.
pub(crate) fn round(x: f32) -> i8 {
    let whole = x as i8;
    let fraction = x - f32::from(whole);
    whole.saturating_add((fraction >= 0.5) as i8 - (fraction <= -0.5) as i8)
}

fn f16(value: f32) -> [u8; 2] {
    f32_to_f16(value).to_le_bytes()
}

/// The low four bits of the codes: `j` and `j + 16` share byte `j`.
fn nibbles(q: &[u8; 32]) -> [u8; 16] {
    core::array::from_fn(|j| (q[j] & 15) | q[j + 16] << 4)
}

/// Bit 4 of the codes, as a u32.
fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    q.iter().rev().fold(0u32, |bits, q| bits << 1 | u32::from(q >> 4)).to_le_bytes()
}

fn concat<const FIELDS: usize, const BYTES: usize>(fields: [&[u8]; FIELDS]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    let mut rest = block.as_mut_slice();
    for field in fields {
        let (head, tail) = rest.split_at_mut(field.len());
        head.copy_from_slice(field);
        rest = tail;
    }
    block
}
