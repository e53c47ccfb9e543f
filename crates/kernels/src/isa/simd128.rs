//! WebAssembly's SIMD: four registers of 16 bytes a vector. Chosen when the module is built: fixed-width SIMD, or with
//! the relaxed instructions on top.
//!
//! Browsers compile these steps for whatever processor there is; what is said of costs here is what V8 makes of them
//! on x86-64. Shifts of bytes are emulated there, so shifts go over words, with a mask behind them.
#![allow(unsafe_code)]

use core::arch::wasm32::*;

use super::{CodeRange, Op};
use crate::format::float::f32_to_f16;

/// Vector steps as methods; this module is compiled only with simd128, and memory is reached only through references
/// to arrays of the full width.
macro_rules! steps {
    ($(fn $name:ident $(<const $param:ident: $ty:ty>)? ($self:ident $(, $arg:ident: $in:ty)*) $(-> $out:ty)? = $body:expr;)+) => {$(
        #[inline(always)]
        fn $name $(<const $param: $ty>)? ($self $(, $arg: $in)*) $(-> $out)? {
            $body
        }
    )+};
}

macro_rules! simd {
    ($(#[$doc:meta])* $isa:ident = $name:literal, tokens $tokens:literal) => {
$(#[$doc])*
#[derive(Clone, Copy, Debug)]
pub struct $isa(());

impl $isa {
    /// A value: the build decided.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }

    /// Runs an operation.
    #[inline(never)]
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

    steps! {
        fn splat_byte1(self, byte: u8) -> v128 = u8x16_splat(byte);
        fn splat41(self, from: [u8; 4]) -> v128 = u32x4_splat(u32::from_le_bytes(from));
        fn and1(self, a: v128, b: v128) -> v128 = v128_and(a, b);
        fn or1(self, a: v128, b: v128) -> v128 = v128_or(a, b);
        fn xor1(self, a: v128, b: v128) -> v128 = v128_xor(a, b);
        fn shift_right_by1(self, v: v128, bits: u32) -> v128 = u16x8_shr(v, bits);
        fn shift_right1<const BITS: i32>(self, v: v128) -> v128 = u16x8_shr(v, BITS as u32);
        fn shift_left1<const BITS: i32>(self, v: v128) -> v128 = u16x8_shl(v, BITS as u32);
        fn lookup1(self, table: &[i8; 16], indices: v128) -> v128 =
            arithmetic::swizzle(self.load1(&table.map(|b| b as u8)), indices);
        fn expand_bits1(self, bits: u32, byte: u8) -> v128 = {
            let (a, b) = (bits as u8, (bits >> 8) as u8);
            let spread = u8x16(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
            let own = u64x2_splat(0x8040_2010_0804_0201);
            v128_and(u8x16_eq(v128_and(spread, own), own), u8x16_splat(byte))
        };
        fn splat_i321(self, x: i32) -> v128 = i32x4_splat(x);
        fn sub_i321(self, a: v128, b: v128) -> v128 = i32x4_sub(a, b);
        fn dot_unsigned1(self, acc: v128, codes: v128, x: v128) -> v128 = arithmetic::dot_unsigned(acc, codes, x);
        fn dot_signed1(self, acc: v128, codes: v128, x: v128) -> v128 =
            i32x4_add(acc, fold(wide_products([codes], [x])));
        fn to_f321(self, v: v128) -> v128 = f32x4_convert_i32x4(v);
        fn load_i81(self, from: &[i8; 4]) -> v128 = {
            let bytes = u32x4_splat(u32::from_le_bytes(from.map(|b| b as u8)));
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes)))
        };
        fn store_i81(self, v: v128, to: &mut [i8; 4]) = {
            let lanes = i32x4_trunc_sat_f32x4(f32x4_nearest(v));
            let words = i16x8_narrow_i32x4(lanes, lanes);
            *to = u32x4_extract_lane::<0>(i8x16_narrow_i16x8(words, words)).to_le_bytes().map(|b| b as i8)
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
        fn exp2_int1(self, v: v128) -> v128 =
            i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(f32x4_nearest(v)), i32x4_splat(127)), 23);
        fn sum1(self, v: v128) -> f32 =
            (f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<2>(v)) + (f32x4_extract_lane::<1>(v) + f32x4_extract_lane::<3>(v));
        fn max_lane1(self, v: v128) -> f32 = {
            let v = f32x4_pmax(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
            f32x4_extract_lane::<0>(f32x4_pmax(v, i32x4_shuffle::<1, 0, 3, 2>(v, v)))
        };
    }

    #[inline(always)]
    fn store_f161(self, v: v128, to: &mut [u16; 4]) {
        let mut lanes = [0.0; 4];
        self.store_f321(v, &mut lanes);
        *to = lanes.map(f32_to_f16);
    }
    // WebAssembly has no prefetch.
    #[inline(always)]
    fn prefetch1(self, _: &[u8], _: usize) {}
}

super::parts::isa_by_parts! {
    $isa = $name, 4 registers of 16 bytes, rows 2, tokens $tokens, v128, v128, v128;

    const NIBBLES: bool = arithmetic::NIBBLES;

    /// Register by register, so that few sums are alive at a time.
    #[inline(always)]
    fn dot_lines<const N: usize, const T: usize>(
        self,
        range: CodeRange,
        lines: &[[u8; 64]; N],
        x: [&[[u8; 4]; N]; T],
    ) -> [Self::I32; T] {
        let mut sums = [[self.splat_i321(0); 4]; T];
        unrolled!(i in 0 1 2 3, {
            let mut codes = [self.splat_byte1(0); N];
            unrolled!(q < N, {
                codes[q] = self.load1(Self::part(&lines[q], i));
            });
            unrolled!(t < T, {
                let mut bytes = codes;
                unrolled!(q < N, {
                    bytes[q] = self.splat41(x[t][q]);
                });
                sums[t][i] = if range == CodeRange::Signed {
                    fold(wide_products(codes, bytes))
                } else {
                    arithmetic::dot_many(range, codes, bytes)
                };
            });
        });
        sums
    }

    #[inline(always)]
    fn dot_all<const N: usize>(self, range: CodeRange, codes: [Self::Bytes; N], x: [Self::Bytes; N]) -> Self::I32 {
        let mut sums = [self.splat_i321(0); 4];
        unrolled!(i in 0 1 2 3, {
            let (codes, x) = (codes.map(|v| v[i]), x.map(|v| v[i]));
            sums[i] = if range == CodeRange::Signed {
                fold(wide_products(codes, x))
            } else {
                arithmetic::dot_many(range, codes, x)
            };
        });
        sums
    }

    #[inline(always)]
    fn load_f16_heads<const BLOCK: usize, const TWO: bool>(self, chunk: &[u8]) -> Self::F32 {
        let blocks = chunk.as_chunks::<BLOCK>().0;
        let bytes = if TWO { 0xffff_ffff } else { 0xffff };
        let head = |i: usize| blocks.get(i).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & bytes);
        let mut heads = [self.splat1(0.0); 4];
        unrolled!(i in 0 1 2 3, {
            heads[i] = widen_f16(u32x4_extend_low_u16x8(u32x4(head(2 * i), head(2 * i + 1), 0, 0)));
        });
        heads
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

    /// The vectors' halves are added crosswise, so that one vector of sums comes out.
    #[inline(always)]
    fn sum4(self, v: [Self::F32; 4]) -> [f32; 4] {
        let [a, b, c, d] = v.map(|v| self.add1(self.add1(v[0], v[2]), self.add1(v[1], v[3])));
        // Lanes 0 + 2 and 1 + 3 of each, then those two, as `sum1` does.
        let ab = self.add1(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b));
        let cd = self.add1(i32x4_shuffle::<0, 1, 4, 5>(c, d), i32x4_shuffle::<2, 3, 6, 7>(c, d));
        let sums = self.add1(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd));
        let mut out = [0.0; 4];
        self.store_f321(sums, &mut out);
        out
    }
}
    };
}

#[cfg(not(target_feature = "relaxed-simd"))]
simd! {
    /// simd128.
    Simd128 = "simd128", tokens 2
}

#[cfg(target_feature = "relaxed-simd")]
simd! {
    /// simd128 with the relaxed instructions: fused multiply-add, and products of signed bytes with bytes below 128.
    RelaxedSimd = "relaxed-simd", tokens 2
}

/// What differs with the relaxed instructions.
#[cfg(target_feature = "relaxed-simd")]
mod arithmetic {
    use super::*;

    pub(super) const NIBBLES: bool = true;

    #[inline(always)]
    pub(super) fn mul_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_relaxed_madd(a, b, c)
    }

    #[inline(always)]
    pub(super) fn swizzle(table: v128, indices: v128) -> v128 {
        i8x16_relaxed_swizzle(table, indices)
    }

    /// Adds to each lane the products of its four bytes; `codes` are below 128.
    #[inline(always)]
    pub(super) fn dot_unsigned(acc: v128, codes: v128, x: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(x, codes, acc)
    }

    /// As `dot_unsigned`, of several registers. Sums of codes below 16 fit 16 bits eight times over, so they widen only
    /// once.
    #[inline(always)]
    pub(super) fn dot_many<const N: usize>(range: CodeRange, codes: [v128; N], x: [v128; N]) -> v128 {
        if range == CodeRange::Nibble {
            const { assert!(N <= 8) };
            let mut sum = i16x8_relaxed_dot_i8x16_i7x16(x[0], codes[0]);
            unrolled!(i < N, {
                if i > 0 {
                    sum = i16x8_add(sum, i16x8_relaxed_dot_i8x16_i7x16(x[i], codes[i]));
                }
            });
            return i32x4_dot_i16x8(sum, i16x8_splat(1));
        }
        let mut sum = i32x4_splat(0);
        unrolled!(i < N, {
            sum = dot_unsigned(sum, codes[i], x[i]);
        });
        sum
    }
}

/// What differs without the relaxed instructions.
#[cfg(not(target_feature = "relaxed-simd"))]
mod arithmetic {
    use super::*;

    pub(super) const NIBBLES: bool = false;

    #[inline(always)]
    pub(super) fn mul_add(a: v128, b: v128, c: v128) -> v128 {
        f32x4_add(f32x4_mul(a, b), c)
    }

    #[inline(always)]
    pub(super) fn swizzle(table: v128, indices: v128) -> v128 {
        i8x16_swizzle(table, indices)
    }

    #[inline(always)]
    pub(super) fn dot_unsigned(acc: v128, codes: v128, x: v128) -> v128 {
        i32x4_add(acc, fold(wide_products([codes], [x])))
    }

    #[inline(always)]
    pub(super) fn dot_many<const N: usize>(_: CodeRange, codes: [v128; N], x: [v128; N]) -> v128 {
        fold(wide_products(codes, x))
    }
}

/// Sums of pairs of products over several registers: those of the low, and of the high eight bytes.
#[inline(always)]
fn wide_products<const N: usize>(codes: [v128; N], x: [v128; N]) -> [v128; 2] {
    let mut sums = [i32x4_splat(0); 2];
    unrolled!(i < N, {
        let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(codes[i]), i16x8_extend_low_i8x16(x[i]));
        let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(codes[i]), i16x8_extend_high_i8x16(x[i]));
        sums = [i32x4_add(sums[0], low), i32x4_add(sums[1], high)];
    });
    sums
}

/// Sums of pairs, in order, from the low and the high half's.
#[inline(always)]
fn fold([low, high]: [v128; 2]) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high))
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
