//! AVX2 with FMA and F16C: two registers of 32 bytes a vector.

use core::arch::x86_64::*;

use super::{interleave, isa, prefetch, steps};
use crate::isa::parts::EXPONENT;

isa! {
    /// AVX2, FMA and F16C (Haswell and later, Zen and later).
    Avx2: "avx2" "fma" "f16c"
}

impl Avx2 {
    steps! {
        fn load1(self, from: &[u8; 32]) -> __m256i = _mm256_loadu_si256(from.as_ptr().cast());
        fn load_two1(self, low: &[u8; 16], high: &[u8; 16]) -> __m256i =
            _mm256_loadu2_m128i(high.as_ptr().cast(), low.as_ptr().cast());
        fn store1(self, v: __m256i, to: &mut [u8; 32]) = _mm256_storeu_si256(to.as_mut_ptr().cast(), v);
        fn splat_byte1(self, byte: u8) -> __m256i = _mm256_set1_epi8(byte as i8);
        fn splat41(self, from: [u8; 4]) -> __m256i = _mm256_set1_epi32(i32::from_le_bytes(from));
        fn and1(self, a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        fn or1(self, a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        fn xor1(self, a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
        fn shift_right_by1(self, v: __m256i, bits: u32) -> __m256i = _mm256_srl_epi16(v, _mm_cvtsi32_si128(bits as i32));
        fn shift_right1<const BITS: i32>(self, v: __m256i) -> __m256i = _mm256_srli_epi16::<BITS>(v);
        fn shift_left1<const BITS: i32>(self, v: __m256i) -> __m256i = _mm256_slli_epi16::<BITS>(v);
        fn load_nibbles1(self, from: &[u8; 16]) -> __m256i = {
            let low = _mm_loadu_si128(from.as_ptr().cast());
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_srli_epi16::<4>(low));
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        };
        fn lookup1(self, tables: __m256i, indices: __m256i) -> __m256i = _mm256_shuffle_epi8(tables, indices);
        fn interleave41(self, rows: [__m256i; 4]) -> [__m256i; 4] =
            interleave!(rows, _mm256_unpacklo_epi8, _mm256_unpackhi_epi8, _mm256_unpacklo_epi16, _mm256_unpackhi_epi16);
        fn transpose41(self, rows: [__m256i; 4]) -> [__m256i; 4] =
            interleave!(rows, _mm256_unpacklo_epi32, _mm256_unpackhi_epi32, _mm256_unpacklo_epi64, _mm256_unpackhi_epi64);
        fn expand_bits1(self, bits: u32, byte: u8) -> __m256i = {
            let spread = _mm256_set_epi64x(
                0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0,
            );
            let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let bits = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits as i32), spread), own);
            _mm256_and_si256(_mm256_cmpeq_epi8(bits, own), _mm256_set1_epi8(byte as i8))
        };

        fn splat_i321(self, x: i32) -> __m256i = _mm256_set1_epi32(x);
        fn add_i321(self, a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        // The pairs cannot leave an i16: 2 * 127 * 127 and 2 * 128 * 127 are below 32768.
        fn dot_unsigned1(self, acc: __m256i, codes: __m256i, x: __m256i) -> __m256i =
            _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
        fn dot_signed1(self, acc: __m256i, codes: __m256i, x: __m256i) -> __m256i =
            self.dot_unsigned1(acc, _mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
        fn dot_pairs1(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i =
            _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
        fn to_f321(self, v: __m256i) -> __m256 = _mm256_cvtepi32_ps(v);

        fn load_f321(self, from: &[f32; 8]) -> __m256 = _mm256_loadu_ps(from.as_ptr());
        fn store_f321(self, v: __m256, to: &mut [f32; 8]) = _mm256_storeu_ps(to.as_mut_ptr(), v);
        fn load_f161(self, from: &[u16; 8]) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()));
        fn store_f161(self, v: __m256, to: &mut [u16; 8]) =
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        fn load_i81(self, from: &[i8; 8]) -> __m256 =
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast())));
        fn splat1(self, x: f32) -> __m256 = _mm256_set1_ps(x);
        fn splat_two1(self, low: f32, high: f32) -> __m256 = _mm256_set_m128(_mm_set1_ps(high), _mm_set1_ps(low));
        fn add1(self, a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        fn sub1(self, a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        fn mul1(self, a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn div1(self, a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fn mul_add1(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn max1(self, a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        fn min1(self, a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        fn abs1(self, v: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), v);
        fn round1(self, v: __m256) -> __m256 = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
        fn exp2_int1(self, v: __m256) -> __m256 =
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(_mm256_add_ps(v, _mm256_set1_ps(EXPONENT)))));
        fn sum1(self, v: __m256) -> f32 = {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        };
        fn max_lane1(self, v: __m256) -> f32 = {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        };
    }

    #[inline(always)]
    fn prefetch1<T>(self, items: &[T], at: usize) {
        prefetch(items, at);
    }
}

crate::isa::parts::isa_by_parts! {
    Avx2 = "avx2", 2 registers of 32 bytes, rows 4, tokens 4, __m256i, __m256i, __m256;

    const NIBBLES: bool = true;
    const FEW_REGISTERS: bool = true;
    const SPACED: [usize; 4] = [0, 2, 1, 3];

    steps! {
        // Eight pairs cannot leave an i16: 8 * 2 * 15 * 127 is below 32768.
        fn dot_nibbles(self, acc: [__m256i; 2], codes: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] = [
            _mm256_add_epi16(acc[0], _mm256_maddubs_epi16(codes[0], x[0])),
            _mm256_add_epi16(acc[1], _mm256_maddubs_epi16(codes[1], x[1])),
        ];
        fn finish_nibbles(self, acc: [__m256i; 2]) -> [__m256i; 2] = [
            _mm256_madd_epi16(acc[0], _mm256_set1_epi16(1)),
            _mm256_madd_epi16(acc[1], _mm256_set1_epi16(1)),
        ];
        fn store_i8(self, v: [__m256; 2], to: &mut [i8; 16]) = {
            let words = words(v);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes)
        };
        fn store_i16(self, v: [__m256; 2], to: &mut [u8; 32]) =
            _mm256_storeu_si256(to.as_mut_ptr().cast(), words(v));
        fn load_f16_heads<const BLOCK: usize, const TWO: bool>(self, chunk: &[u8]) -> [__m256; 2] = {
            let padded;
            let chunk = match chunk.get(..8 * BLOCK) {
                Some(chunk) => chunk,
                // Only the last chunk of a row is short; blocks are at most 36 bytes.
                None => {
                    let mut start = [0; 8 * 36];
                    start[..chunk.len()].copy_from_slice(chunk);
                    padded = start;
                    &padded[..8 * BLOCK]
                }
            };
            let (low, high) = chunk.split_at(4 * BLOCK);
            [widen_heads::<TWO>(four_heads::<BLOCK>(low)), widen_heads::<TWO>(four_heads::<BLOCK>(high))]
        };
        fn load_f16_head_pairs<const BLOCK: usize, const TWO: bool>(self, rows: [&[u8]; 4]) -> [__m256; 2] = {
            let [a, b, c, d] = rows;
            let low = _mm_unpacklo_epi64(two_heads::<BLOCK>(a), two_heads::<BLOCK>(b));
            let high = _mm_unpacklo_epi64(two_heads::<BLOCK>(c), two_heads::<BLOCK>(d));
            [widen_heads::<TWO>(low), widen_heads::<TWO>(high)]
        };
    }
}

/// Rounds to 16-bit words.
///
/// # Safety
/// AVX2 must be there.
#[inline(always)]
unsafe fn words([low, high]: [__m256; 2]) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let mixed = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
        _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed)
    }
}

/// The first four bytes of each of four blocks. Loads that begin ahead of the later ones have them where they belong, so
/// that nothing has to be moved.
///
/// # Safety
/// AVX2 must be there.
#[inline(always)]
unsafe fn four_heads<const BLOCK: usize>(blocks: &[u8]) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let heads = two_heads::<BLOCK>(blocks);
        let heads = _mm_blend_epi32::<0b0100>(heads, load_at(blocks, 2 * BLOCK - 8));
        _mm_blend_epi32::<0b1000>(heads, load_at(blocks, 3 * BLOCK - 12))
    }
}

/// The first four bytes of each of two blocks, and eight more.
///
/// # Safety
/// AVX2 must be there.
#[inline(always)]
unsafe fn two_heads<const BLOCK: usize>(blocks: &[u8]) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_blend_epi32::<0b0010>(load_at(blocks, 0), load_at(blocks, BLOCK - 4)) }
}

/// 16 bytes of a chunk, from `at` on.
///
/// # Safety
/// AVX2 must be there.
#[inline(always)]
unsafe fn load_at(chunk: &[u8], at: usize) -> __m128i {
    let bytes: &[u8; 16] = chunk[at..].first_chunk().expect("a chunk is longer than the last load reaches");
    // SAFETY: the caller's promise, and a whole array is read.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Heads of two half-precision floats, widened; unless there are `TWO`, zero in place of the second.
///
/// # Safety
/// F16C and AVX2 must be there.
#[inline(always)]
unsafe fn widen_heads<const TWO: bool>(heads: __m128i) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let heads = if TWO { heads } else { _mm_and_si128(heads, _mm_set1_epi32(0xffff)) };
        _mm256_cvtph_ps(heads)
    }
}
