//! The 16-bit floats that tensors and scales are stored in.
//!
//! Narrowing rounds to nearest, ties to even, and overflows to infinity; a NaN stays a NaN. Plain integer arithmetic
//! throughout, so that loops over these functions vectorise on any instruction set.

/// Widens an IEEE 754 binary16 value, given as its bits. Exact.
#[inline(always)]
pub const fn f16_to_f32(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let magnitude = (bits as u32 & 0x7fff) << 13;
    let widened = if magnitude < 1 << 23 {
        // Subnormal: behind the exponent of 2^-14 the last place of the fraction is worth 2^-24, as it is in f16.
        const BASE: u32 = (127 - 14) << 23;
        (f32::from_bits(BASE + magnitude) - f32::from_bits(BASE)).to_bits()
    } else if magnitude < 31 << 23 {
        magnitude + ((127 - 15) << 23)
    } else {
        magnitude + ((255 - 31) << 23)
    };
    f32::from_bits(sign | widened)
}

/// Rounds to IEEE 754 binary16 and returns its bits.
#[inline(always)]
pub const fn f32_to_f16(value: f32) -> u16 {
    const INFINITY: u32 = 0x7f80_0000;
    const TWO_POW_16: u32 = (127 + 16) << 23;
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    let sign = (value.to_bits() >> 16) & 0x8000;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let narrowed = if magnitude > INFINITY {
        0x7e00
    } else if magnitude >= TWO_POW_16 {
        0x7c00
    } else if magnitude >= SMALLEST_NORMAL {
        // A carry out of the fraction raises the exponent, up to the one of infinity.
        let rebased = magnitude - ((127 - 15) << 23);
        (rebased + 0xfff + ((rebased >> 13) & 1)) >> 13
    } else {
        // Subnormal: the last place of numbers from 0.5 is 2^-24, so this addition rounds where f16 does.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()
    };
    (sign | narrowed) as u16
}

/// Widens a bfloat16 value, given as its bits. Exact.
#[inline(always)]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds to bfloat16 and returns its bits.
#[inline(always)]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        // The payload that is cut off may be all there is: set the quiet bit so that no infinity comes out.
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits as u64 + 0x7fff + ((bits >> 16) & 1) as u64) >> 16) as u16
}
