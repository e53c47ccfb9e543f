//! SSE4.1: four registers of 16 bytes a vector.

use core::arch::x86_64::*;

use super::{interleave, isa, prefetch, steps};
use crate::format::float::f32_to_f16;
use crate::isa::parts::EXPONENT;

isa! {
    /// SSE4.1 and what came before it.
    Sse41: "sse4.1" "ssse3"
}

impl Sse41 {
    steps! {
        fn load1(self, from: &[u8; 16]) -> __m128i = _mm_loadu_si128(from.as_ptr().cast());
        fn store1(self, v: __m128i, to: &mut [u8; 16]) = _mm_storeu_si128(to.as_mut_ptr().cast(), v);
        fn splat_byte1(self, byte: u8) -> __m128i = _mm_set1_epi8(byte as i8);
        fn splat41(self, from: [u8; 4]) -> __m128i = _mm_set1_epi32(i32::from_le_bytes(from));
        fn and1(self, a: __m128i, b: __m128i) -> __m128i = _mm_and_si128(a, b);
        fn or1(self, a: __m128i, b: __m128i) -> __m128i = _mm_or_si128(a, b);
        fn xor1(self, a: __m128i, b: __m128i) -> __m128i = _mm_xor_si128(a, b);
        fn shift_right_by1(self, v: __m128i, bits: u32) -> __m128i = _mm_srl_epi16(v, _mm_cvtsi32_si128(bits as i32));
        fn shift_right1<const BITS: i32>(self, v: __m128i) -> __m128i = _mm_srli_epi16::<BITS>(v);
        fn shift_left1<const BITS: i32>(self, v: __m128i) -> __m128i = _mm_slli_epi16::<BITS>(v);
        fn lookup1(self, table: __m128i, indices: __m128i) -> __m128i = _mm_shuffle_epi8(table, indices);
        fn interleave41(self, rows: [__m128i; 4]) -> [__m128i; 4] =
            interleave!(rows, _mm_unpacklo_epi8, _mm_unpackhi_epi8, _mm_unpacklo_epi16, _mm_unpackhi_epi16);
        fn transpose41(self, rows: [__m128i; 4]) -> [__m128i; 4] =
            interleave!(rows, _mm_unpacklo_epi32, _mm_unpackhi_epi32, _mm_unpacklo_epi64, _mm_unpackhi_epi64);
        fn expand_bits1(self, bits: u32, byte: u8) -> __m128i = {
            let spread = _mm_set_epi8(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
            let own = _mm_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let bits = _mm_and_si128(_mm_shuffle_epi8(_mm_cvtsi32_si128(bits as i32), spread), own);
            _mm_and_si128(_mm_cmpeq_epi8(bits, own), _mm_set1_epi8(byte as i8))
        };

        fn splat_i321(self, x: i32) -> __m128i = _mm_set1_epi32(x);
        fn add_i321(self, a: __m128i, b: __m128i) -> __m128i = _mm_add_epi32(a, b);
        // The pairs cannot leave an i16: 2 * 127 * 127 and 2 * 128 * 127 are below 32768.
        fn dot_unsigned1(self, acc: __m128i, codes: __m128i, x: __m128i) -> __m128i =
            _mm_add_epi32(acc, _mm_madd_epi16(_mm_maddubs_epi16(codes, x), _mm_set1_epi16(1)));
        fn dot_signed1(self, acc: __m128i, codes: __m128i, x: __m128i) -> __m128i =
            self.dot_unsigned1(acc, _mm_abs_epi8(codes), _mm_sign_epi8(x, codes));
        fn dot_pairs1(self, acc: __m128i, a: __m128i, b: __m128i) -> __m128i =
            _mm_add_epi32(acc, _mm_madd_epi16(a, b));
        fn to_f321(self, v: __m128i) -> __m128 = _mm_cvtepi32_ps(v);

        fn load_f321(self, from: &[f32; 4]) -> __m128 = _mm_loadu_ps(from.as_ptr());
        fn store_f321(self, v: __m128, to: &mut [f32; 4]) = _mm_storeu_ps(to.as_mut_ptr(), v);
        fn load_f161(self, from: &[u16; 4]) -> __m128 = {
            let halves = _mm_cvtepu16_epi32(_mm_loadl_epi64(from.as_ptr().cast()));
            let magnitude = _mm_slli_epi32::<13>(_mm_and_si128(halves, _mm_set1_epi32(0x7fff)));
            let sign = _mm_slli_epi32::<16>(_mm_and_si128(halves, _mm_set1_epi32(0x8000)));
            // The exponents' biases differ by 112; the product also makes subnormals normal. What was infinite or no
            // number stays that by the exponent's bits.
            let value = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(f32::from_bits((127 + 112) << 23)));
            let special = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32((31 << 23) - 1));
            let special = _mm_and_si128(special, _mm_set1_epi32(0xff << 23));
            _mm_or_ps(value, _mm_castsi128_ps(_mm_or_si128(special, sign)))
        };
        fn load_finite_f161(self, from: &[u16; 4]) -> __m128 = {
            // Copies of the sign fill the lane up from bit 28, and the uppermost stays.
            let halves = _mm_cvtepi16_epi32(_mm_loadl_epi64(from.as_ptr().cast()));
            let bits = _mm_and_si128(_mm_slli_epi32::<13>(halves), _mm_set1_epi32(0x8fff_ffff_u32 as i32));
            _mm_mul_ps(_mm_castsi128_ps(bits), _mm_set1_ps(f32::from_bits((127 + 112) << 23)))
        };
        fn load_i81(self, from: &[i8; 4]) -> __m128 =
            _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(from.as_ptr().cast::<i32>().read_unaligned())));
        fn splat1(self, x: f32) -> __m128 = _mm_set1_ps(x);
        fn add1(self, a: __m128, b: __m128) -> __m128 = _mm_add_ps(a, b);
        fn sub1(self, a: __m128, b: __m128) -> __m128 = _mm_sub_ps(a, b);
        fn mul1(self, a: __m128, b: __m128) -> __m128 = _mm_mul_ps(a, b);
        fn div1(self, a: __m128, b: __m128) -> __m128 = _mm_div_ps(a, b);
        fn mul_add1(self, a: __m128, b: __m128, c: __m128) -> __m128 = _mm_add_ps(_mm_mul_ps(a, b), c);
        fn max1(self, a: __m128, b: __m128) -> __m128 = _mm_max_ps(a, b);
        fn min1(self, a: __m128, b: __m128) -> __m128 = _mm_min_ps(a, b);
        fn abs1(self, v: __m128) -> __m128 = _mm_andnot_ps(_mm_set1_ps(-0.0), v);
        fn round1(self, v: __m128) -> __m128 = _mm_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
        fn exp2_int1(self, v: __m128) -> __m128 =
            _mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_castps_si128(_mm_add_ps(v, _mm_set1_ps(EXPONENT)))));
        fn sum1(self, v: __m128) -> f32 = {
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup(v)))
        };
        fn max_lane1(self, v: __m128) -> f32 = {
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup(v)))
        };
    }

    // SSE4.1 has no half-precision instructions.
    #[inline(always)]
    fn store_f161(self, v: __m128, to: &mut [u16; 4]) {
        let mut lanes = [0.0; 4];
        self.store_f321(v, &mut lanes);
        *to = lanes.map(f32_to_f16);
    }
    #[inline(always)]
    fn prefetch1<T>(self, items: &[T], at: usize) {
        prefetch(items, at);
    }
}

/// Lane 1 to lane 0, with an instruction of plain SSE.
#[inline(always)]
fn _mm_movehdup(v: __m128) -> __m128 {
    // SAFETY: SSE is part of x86-64.
    unsafe { _mm_shuffle_ps::<0b01_01_01_01>(v, v) }
}

crate::isa::parts::isa_by_parts! {
    Sse41 = "sse41", 4 registers of 16 bytes, rows 4, tokens 2, __m128i, __m128i, __m128;

    const COMPACT: bool = true;
    const ROW_A_QUARTER: bool = true;

    #[inline(always)]
    fn load_finite_f16(self, from: &[u16; 16]) -> Self::F32 {
        let mut out = [self.splat1(0.0); 4];
        unrolled!(i in 0 1 2 3, {
            out[i] = self.load_finite_f161(Self::part(from, i));
        });
        out
    }

    steps! {
        fn store_i8(self, v: [__m128; 4], to: &mut [i8; 16]) = {
            let [low, high] = words(v);
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_packs_epi16(low, high))
        };
        fn store_i16(self, v: [__m128; 4], to: &mut [u8; 32]) = {
            let (low, high) = to.split_at_mut(16);
            let words = words(v);
            _mm_storeu_si128(low.as_mut_ptr().cast(), words[0]);
            _mm_storeu_si128(high.as_mut_ptr().cast(), words[1])
        };
    }
}

/// Rounds to 16-bit words.
///
/// # Safety
/// SSE2 must be there.
#[inline(always)]
unsafe fn words([a, b, c, d]: [__m128; 4]) -> [__m128i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            _mm_packs_epi32(_mm_cvtps_epi32(a), _mm_cvtps_epi32(b)),
            _mm_packs_epi32(_mm_cvtps_epi32(c), _mm_cvtps_epi32(d)),
        ]
    }
}
