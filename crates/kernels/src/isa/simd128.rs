//! WebAssembly's fixed-width SIMD: four registers of 16 bytes a vector. Chosen when the module is built.
#![allow(unsafe_code)]

use core::arch::wasm32::*;

use super::Op;
use crate::format::float::{f16_to_f32, f32_to_f16};

/// simd128.
#[derive(Clone, Copy, Debug)]
pub struct Simd128(());

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

impl Simd128 {
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

    steps! {
        fn splat_byte1(self, byte: u8) -> v128 = u8x16_splat(byte);
        fn splat41(self, from: [u8; 4]) -> v128 = u32x4_splat(u32::from_le_bytes(from));
        fn and1(self, a: v128, b: v128) -> v128 = v128_and(a, b);
        fn or1(self, a: v128, b: v128) -> v128 = v128_or(a, b);
        fn xor1(self, a: v128, b: v128) -> v128 = v128_xor(a, b);
        fn shift_right_by1(self, v: v128, bits: u32) -> v128 = u8x16_shr(v, bits);
        fn shift_right1<const BITS: i32>(self, v: v128) -> v128 = u8x16_shr(v, BITS as u32);
        fn shift_left1<const BITS: i32>(self, v: v128) -> v128 = u8x16_shl(v, BITS as u32);
        fn lookup1(self, table: &[i8; 16], indices: v128) -> v128 =
            u8x16_swizzle(self.load1(&table.map(|b| b as u8)), indices);
        fn expand_bits1(self, bits: u32, byte: u8) -> v128 = {
            let (a, b) = (bits as u8, (bits >> 8) as u8);
            let spread = u8x16(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
            let own = u64x2_splat(0x8040_2010_0804_0201);
            v128_and(u8x16_eq(v128_and(spread, own), own), u8x16_splat(byte))
        };
        fn splat_i321(self, x: i32) -> v128 = i32x4_splat(x);
        fn sub_i321(self, a: v128, b: v128) -> v128 = i32x4_sub(a, b);
        fn dot_unsigned1(self, acc: v128, codes: v128, x: v128) -> v128 = self.dot_signed1(acc, codes, x);
        // Products of bytes fill 16 bits; adding pairs of them twice sums each four.
        fn dot_signed1(self, acc: v128, codes: v128, x: v128) -> v128 = {
            let low = i32x4_extadd_pairwise_i16x8(i16x8_extmul_low_i8x16(codes, x));
            let high = i32x4_extadd_pairwise_i16x8(i16x8_extmul_high_i8x16(codes, x));
            let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
            let odd = i32x4_shuffle::<1, 3, 5, 7>(low, high);
            i32x4_add(acc, i32x4_add(even, odd))
        };
        fn to_f321(self, v: v128) -> v128 = f32x4_convert_i32x4(v);
        fn load_f321(self, from: &[f32; 4]) -> v128 = f32x4(from[0], from[1], from[2], from[3]);
        fn store_f321(self, v: v128, to: &mut [f32; 4]) = {
            *to = [f32x4_extract_lane::<0>(v), f32x4_extract_lane::<1>(v), f32x4_extract_lane::<2>(v), f32x4_extract_lane::<3>(v)]
        };
        fn load_i81(self, from: &[i8; 4]) -> v128 =
            f32x4_convert_i32x4(i32x4(from[0].into(), from[1].into(), from[2].into(), from[3].into()));
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
        fn mul_add1(self, a: v128, b: v128, c: v128) -> v128 = f32x4_add(f32x4_mul(a, b), c);
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
    fn load_f161(self, from: &[u16; 4]) -> v128 {
        self.load_f321(&from.map(f16_to_f32))
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

crate::isa::parts::isa_by_parts! {
    Simd128 = "simd128", 4 registers of 16 bytes, rows 4, tokens 2, v128, v128, v128
}
