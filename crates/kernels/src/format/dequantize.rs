//! From the bytes of a row to f32.

use super::float::{bf16_to_f32, f16_to_f32};
use super::unpacked::{Unpacked, Unpacker};
use super::{CHUNK, Format};
use crate::isa::Isa;

impl Format {
    /// Writes the values of a row of any format to `out`; bit for bit what GGML's own dequantization gives.
    ///
    /// Types wider than f32 (`F64`, `I32`, `I64`) are rounded to it.
    ///
    /// Panics if `row` is not the [`Format::row_bytes`] of `out.len()` values.
    pub fn dequantize(self, row: &[u8], out: &mut [f32]) {
        assert_eq!(self.row_bytes(out.len()), Some(row.len()), "bytes of a row of {} {self}", out.len());
        match self {
            Format::F32 => scalars(row, out, f32::from_le_bytes),
            Format::F16 => scalars(row, out, |bytes| f16_to_f32(u16::from_le_bytes(bytes))),
            Format::BF16 => scalars(row, out, |bytes| bf16_to_f32(u16::from_le_bytes(bytes))),
            Format::F64 => scalars(row, out, |bytes| f64::from_le_bytes(bytes) as f32),
            Format::I8 => scalars(row, out, |bytes| i8::from_le_bytes(bytes) as f32),
            Format::I16 => scalars(row, out, |bytes| i16::from_le_bytes(bytes) as f32),
            Format::I32 => scalars(row, out, |bytes| i32::from_le_bytes(bytes) as f32),
            Format::I64 => scalars(row, out, |bytes| i64::from_le_bytes(bytes) as f32),
            quantized => {
                dequantize(Unpacker::new(quantized).expect("every other format is a Quant"), row, out);
            }
        }
    }
}

/// Writes the weights of a row of a quantized format to `out`; bit for bit what GGML's own dequantization gives.
///
/// This is the definition of [`Quant`](super::Quant) evaluated in f32, each step rounded. That it equals GGML in all bits
/// holds because every format computes `scale` and `offset` in GGML's order, and what GGML may do differently after that
/// (a sign, or a factor of 1/8, applied to the scale or to the integer) is exact either way.
///
/// Stops at the shorter of `row` and `out`.
fn dequantize(unpacker: Unpacker, row: &[u8], out: &mut [f32]) {
    let zero = i32::from(unpacker.zero);
    let mut unpacked = Unpacked::ZERO;
    for (chunk, out) in row.chunks(unpacker.chunk_bytes()).zip(out.chunks_mut(CHUNK)) {
        unpacker.unpack(chunk, &mut unpacked);
        let Unpacked { scales, codes } = &unpacked;
        let codes = codes.as_flattened().as_chunks::<16>().0;
        for (k, (out, codes)) in out.chunks_mut(16).zip(codes).enumerate() {
            let group = 16 * k / unpacker.group;
            let (scale, offset) = (scales.scale[group], scales.offset[group]);
            let mut weights = codes.map(|code| scale * (i32::from(code) - zero) as f32);
            // Adding an absent offset would turn -0 into 0.
            if unpacker.offset {
                weights = weights.map(|weight| weight + offset);
            }
            out.copy_from_slice(&weights[..out.len()]);
        }
    }
}

/// As [`Format::dequantize`], with vector steps for the float formats that weights come in.
#[inline(always)]
pub(crate) fn widen<I: Isa>(isa: I, format: Format, row: &[u8], out: &mut [f32]) {
    let whole = out.len() / 16 * 16;
    let (lines, _) = out.as_chunks_mut::<16>();
    let width = match format {
        Format::F32 => {
            for (line, bytes) in lines.iter_mut().zip(row.as_chunks::<64>().0) {
                isa.store_f32(isa.load_f32(&floats(bytes)), line);
            }
            4
        }
        Format::F16 => {
            for (line, bytes) in lines.iter_mut().zip(row.as_chunks::<32>().0) {
                isa.store_f32(isa.load_f16(&bits(bytes)), line);
            }
            2
        }
        Format::BF16 => {
            for (line, bytes) in lines.iter_mut().zip(row.as_chunks::<32>().0) {
                *line = bits(bytes).map(bf16_to_f32);
            }
            2
        }
        _ => return format.dequantize(row, out),
    };
    if whole < out.len() {
        format.dequantize(&row[width * whole..], &mut out[whole..]);
    }
}

/// A line of floats as it lies in a file.
#[inline(always)]
pub(crate) fn floats(bytes: &[u8; 64]) -> [f32; 16] {
    let mut floats = [0.0; 16];
    for i in 0..16 {
        floats[i] = f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]);
    }
    floats
}

#[inline(always)]
fn bits(bytes: &[u8; 32]) -> [u16; 16] {
    let mut bits = [0; 16];
    for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *bits = u16::from_le_bytes(*bytes);
    }
    bits
}

fn scalars<const N: usize>(row: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(row.as_chunks::<N>().0) {
        *out = value(*bytes);
    }
}
