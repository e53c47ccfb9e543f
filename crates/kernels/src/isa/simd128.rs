//! WebAssembly's SIMD: four registers of 16 bytes a vector. Chosen when the module is built: fixed-width SIMD, by the
//! compiler's `simd128` or this package's feature of that name, or with the relaxed instructions on top.
//!
//! Browsers compile these steps for whatever processor there is; what is said of costs here is what V8 makes of them
//! on x86-64. Shifts of bytes are emulated there, so shifts go over words, with a mask behind them.
#![allow(unsafe_code)]

use core::arch::wasm32::*;

use super::parts::EXPONENT;
use super::{CodeRange, ONES, Op};

/// Vector steps as methods; a module that has such instructions runs only where they exist, and memory is reached only
/// through references to arrays of the full width.
macro_rules! steps {
    ($(fn $name:ident $(<const $param:ident: $ty:ty>)? ($self:ident $(, $arg:ident: $in:ty)*) $(-> $out:ty)? = $body:expr;)+) => {$(
        #[inline(always)]
        fn $name $(<const $param: $ty>)? ($self $(, $arg: $in)*) $(-> $out)? {
            $body
        }
    )+};
}

macro_rules! simd {
    ($(#[$doc:meta])* $isa:ident = $name:literal, features $features:literal, tokens $tokens:literal) => {
$(#[$doc])*
#[derive(Clone, Copy, Debug)]
pub struct $isa(());

impl $isa {
    /// A value: the build decided.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }

    /// Runs an operation, compiled with the features.
    #[inline(never)]
    #[target_feature(enable = $features)]
    pub fn run<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }

    #[inline(always)]
    fn load1(self, from: &[u8; 16]) -> v128 {
        // SAFETY: the reference covers 16 bytes; loads need no alignment.
        unsafe { v128_load(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store1(self, v: v128, to: &mut [u8; 16]) {
        // SAFETY: the reference covers 16 bytes; stores need no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn load_f321(self, from: &[f32; 4]) -> v128 {
        // SAFETY: the reference covers 16 bytes; loads need no alignment.
        unsafe { v128_load(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_f321(self, v: v128, to: &mut [f32; 4]) {
        // SAFETY: the reference covers 16 bytes; stores need no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn load_f161(self, from: &[u16; 4]) -> v128 {
        // SAFETY: the reference covers 8 bytes; loads need no alignment.
        widen_f16(unsafe { u32x4_load_extend_u16x4(from.as_ptr()) })
    }
    #[inline(always)]
    fn store_f161(self, v: v128, to: &mut [u16; 4]) {
        let halves = narrow_f16(v);
        // SAFETY: the reference covers 8 bytes; stores need no alignment.
        unsafe { v128_store64_lane::<0>(u16x8_narrow_i32x4(halves, halves), to.as_mut_ptr().cast()) }
    }

    steps! {
        fn splat_byte1(self, byte: u8) -> v128 = u8x16_splat(byte);
        fn splat41(self, from: [u8; 4]) -> v128 = u32x4_splat(u32::from_le_bytes(from));
        fn and1(self, a: v128, b: v128) -> v128 = v128_and(a, b);
        fn or1(self, a: v128, b: v128) -> v128 = v128_or(a, b);
        fn xor1(self, a: v128, b: v128) -> v128 = v128_xor(a, b);
        fn shift_right_by1(self, v: v128, bits: u32) -> v128 = u16x8_shr(v, bits);
        fn shift_right1<const BITS: i32>(self, v: v128) -> v128 = u16x8_shr(v, BITS as u32);
        fn shift_left1<const BITS: i32>(self, v: v128) -> v128 = u16x8_shl(v, BITS as u32);
        fn lookup1(self, table: v128, indices: v128) -> v128 = arithmetic::swizzle(table, indices);
        fn interleave41(self, rows: [v128; 4]) -> [v128; 4] = {
            let low = |a, b| i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
            let high = |a, b| i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b);
            let low_words = |a, b| i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b);
            let high_words = |a, b| i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b);
            let [a, b, c, d] = rows;
            let [first, second] = [[low(a, b), low(c, d)], [high(a, b), high(c, d)]];
            [
                low_words(first[0], first[1]),
                high_words(first[0], first[1]),
                low_words(second[0], second[1]),
                high_words(second[0], second[1]),
            ]
        };
        fn transpose41(self, rows: [v128; 4]) -> [v128; 4] = {
            let low = |a, b| i32x4_shuffle::<0, 4, 1, 5>(a, b);
            let high = |a, b| i32x4_shuffle::<2, 6, 3, 7>(a, b);
            let [a, b, c, d] = rows;
            let [first, second] = [[low(a, b), low(c, d)], [high(a, b), high(c, d)]];
            [
                i64x2_shuffle::<0, 2>(first[0], first[1]),
                i64x2_shuffle::<1, 3>(first[0], first[1]),
                i64x2_shuffle::<0, 2>(second[0], second[1]),
                i64x2_shuffle::<1, 3>(second[0], second[1]),
            ]
        };
        fn expand_bits1(self, bits: u32, byte: u8) -> v128 = {
            let bits = u16x8_splat(bits as u16);
            let spread = i8x16_shuffle::<0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1>(bits, bits);
            let own = u64x2_splat(0x8040_2010_0804_0201);
            v128_and(u8x16_eq(v128_and(spread, own), own), u8x16_splat(byte))
        };
        fn splat_i321(self, x: i32) -> v128 = i32x4_splat(x);
        fn add_i321(self, a: v128, b: v128) -> v128 = i32x4_add(a, b);
        fn dot_unsigned1(self, acc: v128, codes: v128, x: v128) -> v128 =
            arithmetic::step(CodeRange::Unsigned, acc, codes, arithmetic::operand(CodeRange::Unsigned, x));
        fn dot_signed1(self, acc: v128, codes: v128, x: v128) -> v128 =
            arithmetic::step(CodeRange::Signed, acc, codes, arithmetic::operand(CodeRange::Signed, x));
        fn dot_pairs1(self, acc: v128, a: v128, b: v128) -> v128 = i32x4_add(acc, i32x4_dot_i16x8(a, b));
        fn to_f321(self, v: v128) -> v128 = f32x4_convert_i32x4(v);
        fn load_i81(self, from: &[i8; 4]) -> v128 = {
            let bytes = u32x4_splat(u32::from_le_bytes(from.map(|b| b as u8)));
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes)))
        };
        fn splat1(self, x: f32) -> v128 = f32x4_splat(x);
        fn add1(self, a: v128, b: v128) -> v128 = f32x4_add(a, b);
        fn sub1(self, a: v128, b: v128) -> v128 = f32x4_sub(a, b);
        fn mul1(self, a: v128, b: v128) -> v128 = f32x4_mul(a, b);
        fn div1(self, a: v128, b: v128) -> v128 = f32x4_div(a, b);
        fn mul_add1(self, a: v128, b: v128, c: v128) -> v128 = arithmetic::mul_add(a, b, c);
        // The pseudo operations compare the other way round: the first operand wins where one is not a number.
        fn max1(self, a: v128, b: v128) -> v128 = f32x4_pmax(b, a);
        fn min1(self, a: v128, b: v128) -> v128 = f32x4_pmin(b, a);
        fn abs1(self, v: v128) -> v128 = f32x4_abs(v);
        fn round1(self, v: v128) -> v128 = f32x4_nearest(v);
        fn exp2_int1(self, v: v128) -> v128 = i32x4_shl(f32x4_add(v, f32x4_splat(EXPONENT)), 23);
        fn sum1(self, v: v128) -> f32 =
            (f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<2>(v)) + (f32x4_extract_lane::<1>(v) + f32x4_extract_lane::<3>(v));
        fn max_lane1(self, v: v128) -> f32 = {
            let v = f32x4_pmax(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
            f32x4_extract_lane::<0>(f32x4_pmax(v, i32x4_shuffle::<1, 0, 3, 2>(v, v)))
        };
    }

    // WebAssembly has no prefetch.
    #[inline(always)]
    fn prefetch1<T>(self, _: &[T], _: usize) {}
}

super::parts::isa_by_parts! {
    $isa = $name, 4 registers of 16 bytes, rows 4, tokens $tokens, v128, v128, v128;

    const NIBBLES: bool = arithmetic::NIBBLES;
    const WIDE: bool = true;
    const WIDE_UNSIGNED: bool = !arithmetic::NIBBLES;
    const COMPACT: bool = true;
    const ROW_A_QUARTER: bool = true;
    const FINITE_HEADS: bool = true;

    /// Quad by quad: what it has of each token is spread once for all registers of a line.
    #[inline(always)]
    fn dot_lines<const N: usize, const T: usize, const P: usize>(
        self,
        range: CodeRange,
        lines: [&[[u8; 64]; N]; P],
        x: [&[[u8; 4]; N]; T],
        start: [[Self::I32; T]; P],
    ) -> [[Self::I32; T]; P] {
        const { assert!(N <= 8, "sums of nibbles would overflow") };
        let zero = self.splat_i321(0);
        // Sums of nibbles have 16 bits until they are finished.
        let nibbles = range == CodeRange::Nibble;
        let mut sums = if nibbles { [[[zero; 4]; T]; P] } else { start };
        for q in 0..N {
            let mut quads = [arithmetic::operand(range, zero); T];
            unrolled!(t < T, {
                quads[t] = arithmetic::operand(range, self.splat41(x[t][q]));
            });
            unrolled!(i in 0 1 2 3, {
                unrolled!(p < P, {
                    let line = self.load1(Self::part(&lines[p][q], i));
                    unrolled!(t < T, {
                        sums[p][t][i] = arithmetic::step(range, sums[p][t][i], line, quads[t]);
                    });
                });
            });
        }
        unrolled!(t < T, {
            unrolled!(i in 0 1 2 3, {
                unrolled!(p < P, {
                    sums[p][t][i] = arithmetic::finish(range, sums[p][t][i]);
                    if nibbles {
                        sums[p][t][i] = self.add_i321(sums[p][t][i], start[p][t][i]);
                    }
                });
            });
        });
        sums
    }

    #[inline(always)]
    fn widen_pairs(self, v: Self::Bytes) -> [Self::Bytes; 2] {
        let (mut even, mut odd) = (v, v);
        unrolled!(i in 0 1 2 3, {
            even[i] = i16x8_shr(i16x8_shl(v[i], 8), 8);
            odd[i] = i16x8_shr(v[i], 8);
        });
        [even, odd]
    }

    #[inline(always)]
    fn dot_all<const N: usize>(self, range: CodeRange, codes: [Self::Bytes; N], x: [Self::Bytes; N]) -> Self::I32 {
        const { assert!(N <= 8, "sums of nibbles would overflow") };
        let mut sums = [self.splat_i321(0); 4];
        unrolled!(i in 0 1 2 3, {
            unrolled!(q < N, {
                sums[i] = arithmetic::step(range, sums[i], codes[q][i], arithmetic::operand(range, x[q][i]));
            });
            sums[i] = arithmetic::finish(range, sums[i]);
        });
        sums
    }

    #[inline(always)]
    fn load_finite_f16(self, from: &[u16; 16]) -> Self::F32 {
        let mut out = [self.splat1(0.0); 4];
        unrolled!(i in 0 1 2 3, {
            // SAFETY: the reference covers 8 bytes; loads need no alignment.
            out[i] = widen_finite_f16(unsafe { i32x4_load_extend_i16x4(Self::part::<_, 16, 4>(from, i).as_ptr().cast()) });
        });
        out
    }

    #[inline(always)]
    fn load_f16_heads<const BLOCK: usize, const TWO: bool>(self, chunk: &[u8]) -> Self::F32 {
        let blocks = chunk.as_chunks::<BLOCK>().0;
        let bytes = if TWO { 0xffff_ffff } else { 0xffff };
        let head = |i: usize| blocks.get(i).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & bytes);
        let mut heads = [self.splat1(0.0); 4];
        unrolled!(i in 0 1 2 3, {
            heads[i] = widen_finite_f16(i32x4_extend_low_i16x8(u32x4(head(2 * i), head(2 * i + 1), 0, 0)));
        });
        heads
    }

    #[inline(always)]
    fn load_f16_head_rows<const BLOCK: usize>(self, rows: [&[u8]; 4]) -> (Self::F32, Self::F32) {
        let blocks = rows.map(|row| row.as_chunks::<BLOCK>().0);
        let (mut first, mut second) = ([self.splat1(0.0); 4], [self.splat1(0.0); 4]);
        unrolled!(b in 0 1 2 3, {
            let head = |r: usize| u32::from_le_bytes(*blocks[r][b].first_chunk().expect("four bytes"));
            let heads = u32x4(head(0), head(1), head(2), head(3));
            first[b] = widen_high_f16(i32x4_shl(heads, 16));
            second[b] = widen_high_f16(heads);
        });
        (first, second)
    }

    #[inline(always)]
    fn accumulate(self, a: Self::F32, b: Self::F32, mut sum: Self::F32) -> Self::F32 {
        unrolled!(i in 0 1 2 3, {
            sum[0] = self.mul_add1(a[i], b[i], sum[0]);
        });
        sum
    }

    #[inline(always)]
    fn load_even(self, from: &[f32; 8]) -> Self::F32 {
        let mut pairs = [self.splat1(0.0); 4];
        unrolled!(i in 0 1 2 3, {
            // SAFETY: the reference covers 8 bytes; loads need no alignment.
            pairs[i] = unsafe { u64x2_load_extend_u32x2(Self::part::<_, 8, 2>(from, i).as_ptr().cast()) };
        });
        pairs
    }

    #[inline(always)]
    fn load_odd(self, from: &[f32; 8]) -> Self::F32 {
        self.load_even(from).map(|pair| u64x2_shl(pair, 32))
    }

    #[inline(always)]
    fn load_doubled(self, from: &[f32; 8]) -> Self::F32 {
        self.load_even(from).map(|pair| i32x4_shuffle::<0, 0, 2, 2>(pair, pair))
    }

    #[inline(always)]
    fn load_spaced<const STRIDE: usize>(self, bytes: &[u8], at: usize) -> Self::Bytes {
        let bytes = &bytes[at..][..3 * STRIDE + 16];
        let mut pieces = [self.splat_byte1(0); 4];
        unrolled!(i in 0 1 2 3, {
            pieces[i] = self.load1(bytes[i * STRIDE..].first_chunk().expect("inside"));
        });
        pieces
    }

    #[inline(always)]
    fn store_i8(self, v: Self::F32, to: &mut [i8; 16]) {
        let [low, high] = words(v);
        // SAFETY: the reference covers 16 bytes; stores need no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), i8x16_narrow_i16x8(low, high)) }
    }

    #[inline(always)]
    fn store_i16(self, v: Self::F32, to: &mut [u8; 32]) {
        let words = words(v);
        let (low, high) = to.split_at_mut(16);
        // SAFETY: each half covers 16 bytes; stores need no alignment.
        unsafe {
            v128_store(low.as_mut_ptr().cast(), words[0]);
            v128_store(high.as_mut_ptr().cast(), words[1]);
        }
    }

    #[inline(always)]
    fn sum4(self, v: [Self::F32; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        self.store_f321(sum_each(v.map(|v| f32x4_add(f32x4_add(v[0], v[2]), f32x4_add(v[1], v[3])))), &mut sums);
        sums
    }

    #[inline(always)]
    fn sum_quarters_and(self, v: Self::F32, more: Self::F32) -> [f32; 4] {
        let more = f32x4_add(f32x4_add(more[0], more[2]), f32x4_add(more[1], more[3]));
        let mut sums = [0.0; 4];
        self.store_f321(f32x4_add(sum_each(v), more), &mut sums);
        sums
    }
}
    };
}

#[cfg(not(target_feature = "relaxed-simd"))]
simd! {
    /// simd128.
    Simd128 = "simd128", features "simd128", tokens 2
}

#[cfg(target_feature = "relaxed-simd")]
simd! {
    /// simd128 with the relaxed instructions: fused multiply-add, and products of signed bytes with bytes below 128.
    RelaxedSimd = "relaxed-simd", features "simd128,relaxed-simd", tokens 2
}

/// What differs with the relaxed instructions.
///
/// A dot product is some steps, each with a register of codes and the operand made of activations, and what finishes the
/// sum.
#[cfg(target_feature = "relaxed-simd")]
mod arithmetic {
    use super::*;

    pub(super) const NIBBLES: bool = true;

    /// Activations: as they are; of signed codes, what is positive and what is negative of them, each below 128.
    #[derive(Clone, Copy)]
    pub(super) struct Operand(v128, v128);

    #[inline(always)]
    pub(super) fn mul_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_relaxed_madd(a, b, c)
    }

    #[inline(always)]
    pub(super) fn swizzle(table: v128, indices: v128) -> v128 {
        i8x16_relaxed_swizzle(table, indices)
    }

    #[inline(always)]
    pub(super) fn operand(range: CodeRange, x: v128) -> Operand {
        match range {
            CodeRange::Nibble | CodeRange::Unsigned | CodeRange::Words => Operand(x, x),
            CodeRange::Signed => {
                let positive = i8x16_max(x, i8x16_splat(0));
                Operand(positive, i8x16_sub(positive, x))
            }
        }
    }

    /// Adds the products. What browsers make of the instruction that would add sums of four products to 32 bits loads a
    /// constant each time, so that step is apart.
    #[inline(always)]
    pub(super) fn step(range: CodeRange, sum: v128, codes: v128, x: Operand) -> v128 {
        match range {
            // Sums of pairs, which fit 16 bits eight times over: |15 · 127 · 2 · 8| < 2^15.
            CodeRange::Nibble => i16x8_add(sum, i16x8_relaxed_dot_i8x16_i7x16(x.0, codes)),
            CodeRange::Unsigned => {
                i32x4_add(sum, i32x4_dot_i16x8(i16x8_relaxed_dot_i8x16_i7x16(x.0, codes), i16x8_splat(1)))
            }
            // Of each two activations either the positive or the negative part is zero, so differences do not overflow.
            CodeRange::Signed => {
                let positive = i16x8_relaxed_dot_i8x16_i7x16(codes, x.0);
                let products = i16x8_sub(positive, i16x8_relaxed_dot_i8x16_i7x16(codes, x.1));
                i32x4_add(sum, i32x4_dot_i16x8(products, i16x8_splat(1)))
            }
            CodeRange::Words => i32x4_add(sum, i32x4_dot_i16x8(codes, x.0)),
        }
    }

    /// The sums in 32 bits.
    #[inline(always)]
    pub(super) fn finish(range: CodeRange, sum: v128) -> v128 {
        if range == CodeRange::Nibble { i32x4_dot_i16x8(sum, i16x8_splat(1)) } else { sum }
    }
}

/// What differs without the relaxed instructions.
#[cfg(not(target_feature = "relaxed-simd"))]
mod arithmetic {
    use super::*;

    pub(super) const NIBBLES: bool = false;

    /// Activations, widened.
    #[derive(Clone, Copy)]
    pub(super) struct Operand(v128, v128);

    #[inline(always)]
    pub(super) fn mul_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }

    #[inline(always)]
    pub(super) fn swizzle(table: v128, indices: v128) -> v128 {
        i8x16_swizzle(table, indices)
    }

    // Even and odd bytes are widened apart, so that the sums of both are of the same quads.
    #[inline(always)]
    pub(super) fn operand(range: CodeRange, x: v128) -> Operand {
        if range == CodeRange::Words {
            return Operand(x, x);
        }
        Operand(i16x8_shr(i16x8_shl(x, 8), 8), i16x8_shr(x, 8))
    }

    #[inline(always)]
    pub(super) fn step(range: CodeRange, sum: v128, codes: v128, x: Operand) -> v128 {
        let even = match range {
            CodeRange::Words => return i32x4_add(sum, i32x4_dot_i16x8(codes, x.0)),
            CodeRange::Signed => i16x8_shr(i16x8_shl(codes, 8), 8),
            _ => v128_and(codes, i16x8_splat(255)),
        };
        let odd = i16x8_shr(codes, 8);
        i32x4_add(i32x4_add(sum, i32x4_dot_i16x8(even, x.0)), i32x4_dot_i16x8(odd, x.1))
    }

    #[inline(always)]
    pub(super) fn finish(_: CodeRange, sum: v128) -> v128 {
        sum
    }
}

/// The sums of four registers: the halves are added crosswise, so that one register of sums comes out, in the order of `sum1`.
#[inline(always)]
fn sum_each([a, b, c, d]: [v128; 4]) -> v128 {
    let ab = f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b));
    let cd = f32x4_add(i32x4_shuffle::<0, 1, 4, 5>(c, d), i32x4_shuffle::<2, 3, 6, 7>(c, d));
    f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd))
}

/// Rounds numbers within ±2^22 to nearest even. Conversions would check for others, at some cost.
#[inline(always)]
fn to_integers(v: v128) -> v128 {
    i32x4_sub(f32x4_add(v, f32x4_splat(ONES)), i32x4_splat(ONES.to_bits() as i32))
}

/// Rounds to 16-bit words.
#[inline(always)]
fn words(v: [v128; 4]) -> [v128; 2] {
    let [a, b, c, d] = v.map(to_integers);
    [i16x8_narrow_i32x4(a, b), i16x8_narrow_i32x4(c, d)]
}

/// Rounds to half precision, into the low halves of lanes, as [`f32_to_f16`](crate::format::float::f32_to_f16) does.
#[inline(always)]
fn narrow_f16(v: v128) -> v128 {
    let magnitude = f32x4_abs(v);
    // What is too large counts as 2^16, which stands for infinity.
    let rebased = i32x4_sub(i32x4_min(magnitude, i32x4_splat((127 + 16) << 23)), i32x4_splat(112 << 23));
    let odd = v128_and(i32x4_shr(rebased, 13), i32x4_splat(1));
    let normal = i32x4_shr(i32x4_add(i32x4_add(rebased, i32x4_splat(0xfff)), odd), 13);
    // The last place of numbers from 0.5 is that of subnormals.
    let half = f32x4_splat(0.5);
    let subnormal = i32x4_sub(f32x4_add(magnitude, half), half);
    let is_small = i32x4_lt(magnitude, i32x4_splat((127 - 14) << 23));
    let is_nan = i32x4_gt(magnitude, i32x4_splat(0xff << 23));
    let value = v128_or(v128_bitselect(subnormal, normal, is_small), v128_and(is_nan, i32x4_splat(0x200)));
    v128_or(value, u32x4_shr(v128_and(v, i32x4_splat(i32::MIN)), 16))
}

/// Half-precision floats that are not infinite, as lanes that their sign fills up, widened.
#[inline(always)]
fn widen_finite_f16(halves: v128) -> v128 {
    // The sign moves to bit 28, and all above it is copies of the sign, of which the uppermost stays.
    let bits = v128_and(i32x4_shl(halves, 13), u32x4_splat(0x8fff_ffff));
    f32x4_mul(bits, f32x4_splat(f32::from_bits((127 + 112) << 23)))
}

/// Half-precision floats that are not infinite, in the high halves of lanes, widened.
#[inline(always)]
fn widen_high_f16(halves: v128) -> v128 {
    let bits = v128_and(i32x4_shr(halves, 3), u32x4_splat(0x8fff_e000));
    f32x4_mul(bits, f32x4_splat(f32::from_bits((127 + 112) << 23)))
}

/// Half-precision floats in the low halves of lanes, widened.
#[inline(always)]
fn widen_f16(halves: v128) -> v128 {
    let magnitude = i32x4_shl(v128_and(halves, i32x4_splat(0x7fff)), 13);
    let sign = i32x4_shl(v128_and(halves, i32x4_splat(0x8000)), 16);
    // The exponents' biases differ by 112; the product also makes subnormals normal. What was infinite or no number
    // stays that by the exponent's bits.
    let value = f32x4_mul(magnitude, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let special = v128_and(i32x4_gt(magnitude, i32x4_splat((31 << 23) - 1)), i32x4_splat(0xff << 23));
    v128_or(v128_or(value, special), sign)
}
