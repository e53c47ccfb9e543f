//! AVX-512: one register a vector. With VNNI a dot product of bytes is one instruction.

use core::arch::x86_64::*;

use super::{interleave, isa, prefetch, steps};
use crate::isa::Isa;

isa! {
    /// AVX-512 F, BW, VL and DQ (Skylake-X).
    Avx512: "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx2" "fma" "f16c"
}
isa! {
    /// AVX-512 with VNNI (Cascade Lake, Ice Lake, Zen 4 and later).
    Avx512Vnni with the floats of Avx512: "avx512vnni" "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx2" "fma" "f16c"
}

/// What an operation makes of the lanes of each of four vectors.
macro_rules! fold4 {
    ($v:ident, $op:ident, $half:ident, $quarter:ident) => {{
        // Two rounds of shuffles leave a quarter of each result in each quarter of one vector.
        let [a, b, c, d] = $v;
        let ab = $op(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let cd = $op(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let v = $op(_mm512_shuffle_ps::<0b01_00_01_00>(ab, cd), _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd));
        fold_quarters!(v, $half, $quarter)
    }};
}

/// What an operation makes of the four quarters of a vector, lane by lane.
macro_rules! fold_quarters {
    ($v:expr, $half:ident, $quarter:ident) => {{
        let v = $v;
        let v = $half(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
        let v = $quarter(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let mut lanes = [0.0; 4];
        _mm_storeu_ps(lanes.as_mut_ptr(), v);
        lanes
    }};
}

macro_rules! avx512 {
    ($isa:ident = $name:literal, bias $bias:literal, $($dots:tt)+) => {
        impl Isa for $isa {
            const NAME: &'static str = $name;
            const ROWS: usize = 4;
            const TOKENS: usize = 12;
            const SIGNED_BIAS: u8 = $bias;
            // Without VNNI there were two generations of servers.
            const COMPACT: bool = $bias == 0;
            const PAIRS: bool = $bias != 0;

            type Bytes = __m512i;
            type I32 = __m512i;
            type F32 = __m512;

            #[inline(always)]
            fn call<O: crate::isa::Op>(self, op: O) -> O::Output {
                self.run(op)
            }

            steps! {
                $($dots)+

                fn load(self, from: &[u8; 64]) -> __m512i = _mm512_loadu_si512(from.as_ptr().cast());
                fn store(self, v: __m512i, to: &mut [u8; 64]) = _mm512_storeu_si512(to.as_mut_ptr().cast(), v);
                fn load_halves(self, low: &[u8; 32], high: &[u8; 32]) -> __m512i =
                    _mm512_inserti64x4::<1>(
                        _mm512_castsi256_si512(_mm256_loadu_si256(low.as_ptr().cast())),
                        _mm256_loadu_si256(high.as_ptr().cast()),
                    );
                fn load_twice_shifted(self, from: &[u8; 32], low: u32, high: u32) -> __m512i = {
                    let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(from.as_ptr().cast()));
                    let low = _mm256_set1_epi16(low as i16);
                    let high = _mm256_set1_epi16(high as i16);
                    _mm512_srlv_epi16(both, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
                };
                fn load_nibbles(self, first: &[u8; 16], second: &[u8; 16]) -> __m512i = {
                    let first = _mm512_broadcast_i32x4(_mm_loadu_si128(first.as_ptr().cast()));
                    let second = _mm_loadu_si128(second.as_ptr().cast());
                    let both = _mm512_mask_broadcast_i32x4(first, 0xff00, second);
                    // The second and the fourth 16 bytes shift by 4, the others by 0.
                    let shifts = _mm512_set_epi64(
                        0x0004_0004_0004_0004, 0x0004_0004_0004_0004, 0, 0,
                        0x0004_0004_0004_0004, 0x0004_0004_0004_0004, 0, 0,
                    );
                    _mm512_and_si512(_mm512_srlv_epi16(both, shifts), _mm512_set1_epi8(15))
                };
                fn load_quarters(self, from: &[[u8; 16]; 8], order: [usize; 4]) -> __m512i = {
                    let [a, b, c, d] = order.map(|quarter| 2 * quarter as i64);
                    let words = _mm512_set_epi64(d + 1, d, c + 1, c, b + 1, b, a + 1, a);
                    let from: *const __m512i = from.as_ptr().cast();
                    _mm512_permutex2var_epi64(_mm512_loadu_si512(from), words, _mm512_loadu_si512(from.add(1)))
                };
                fn load_spaced<const STRIDE: usize>(self, bytes: &[u8], at: usize) -> __m512i = {
                    // Where blocks are whole words, the first load begins where a block does: heads are in it too.
                    let head = if STRIDE.is_multiple_of(4) { at % STRIDE } else { 0 };
                    let end = head + 3 * STRIDE + 16;
                    let bytes = &bytes[at - head..][..end];
                    if STRIDE.is_multiple_of(2) && STRIDE > 16 && head + 2 * STRIDE + 16 <= 64 {
                        // Two loads and one permutation of words: the first load has the first and the third piece, the
                        // second, which ends where the pieces end, the others.
                        let first = _mm512_loadu_si512(bytes.as_ptr().cast());
                        let second = _mm512_loadu_si512(bytes.as_ptr().add(end - 64).cast());
                        let words = spaced_words(head, STRIDE);
                        let words = opaque(_mm512_loadu_si512(words.as_ptr().cast()));
                        _mm512_permutex2var_epi32(first, words, second)
                    } else {
                        four_pieces([0, 1, 2, 3].map(|i| bytes.as_ptr().wrapping_add(head + i * STRIDE)))
                    }
                };
                fn splat4(self, from: &[u8; 4]) -> __m512i = _mm512_set1_epi32(i32::from_le_bytes(*from));
                fn splat_byte(self, byte: u8) -> __m512i = _mm512_set1_epi8(byte as i8);
                fn expand_bits(self, bits: u64, byte: u8) -> __m512i = _mm512_maskz_set1_epi8(bits, byte as i8);
                fn and(self, a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
                fn or(self, a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
                fn xor(self, a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
                fn lookup(self, tables: [&[u8; 16]; 4], indices: __m512i) -> __m512i =
                    _mm512_shuffle_epi8(four_pieces(tables.map(|table| table.as_ptr())), indices);
                fn interleave4(self, rows: [__m512i; 4]) -> [__m512i; 4] =
                    interleave!(rows, _mm512_unpacklo_epi8, _mm512_unpackhi_epi8, _mm512_unpacklo_epi16, _mm512_unpackhi_epi16);
                fn transpose_quads(self, rows: &[[u8; 64]; 16], out: &mut [[u8; 64]; 16]) = transpose(rows, out);

                fn splat_i32(self, x: i32) -> __m512i = _mm512_set1_epi32(x);
                fn add_i32(self, a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
                fn to_f32(self, v: __m512i) -> __m512 = _mm512_cvtepi32_ps(v);

                fn load_f32(self, from: &[f32; 16]) -> __m512 = _mm512_loadu_ps(from.as_ptr());
                fn store_f32(self, v: __m512, to: &mut [f32; 16]) = _mm512_storeu_ps(to.as_mut_ptr(), v);
                fn load_f16(self, from: &[u16; 16]) -> __m512 =
                    _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()));
                fn store_f16(self, v: __m512, to: &mut [u16; 16]) =
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
                fn load_i8(self, from: &[i8; 16]) -> __m512 =
                    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())));
                fn quarters_to_f32(self, v: __m512i) -> [__m512; 4] = {
                    let float = |quarter| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(quarter));
                    [
                        float(_mm512_castsi512_si128(v)),
                        float(_mm512_extracti32x4_epi32::<1>(v)),
                        float(_mm512_extracti32x4_epi32::<2>(v)),
                        float(_mm512_extracti32x4_epi32::<3>(v)),
                    ]
                };
                fn splat_f16_pairs(self, words: [u32; 4]) -> [__m512; 4] = {
                    let pairs = _mm256_cvtph_ps(_mm_loadu_si128(words.as_ptr().cast()));
                    let pairs = _mm512_castps_pd(_mm512_castps256_ps512(pairs));
                    [
                        _mm512_castpd_ps(_mm512_broadcastsd_pd(_mm512_castpd512_pd128(pairs))),
                        _mm512_castpd_ps(_mm512_permutexvar_pd(_mm512_set1_epi64(1), pairs)),
                        _mm512_castpd_ps(_mm512_permutexvar_pd(_mm512_set1_epi64(2), pairs)),
                        _mm512_castpd_ps(_mm512_permutexvar_pd(_mm512_set1_epi64(3), pairs)),
                    ]
                };
                fn store_i8(self, v: __m512, to: &mut [i8; 16]) =
                    _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
                fn store_i16(self, v: __m512, to: &mut [u8; 32]) =
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
                fn load_f16_heads<const BLOCK: usize, const TWO: bool>(self, chunk: &[u8]) -> __m512 = {
                    let words = match chunk.get(..8 * BLOCK) {
                        Some(chunk) => heads::<BLOCK>(chunk),
                        // Only the last chunk of a row is short; blocks are at most 36 bytes.
                        None => {
                            let mut padded = [0; 8 * 36];
                            padded[..chunk.len()].copy_from_slice(chunk);
                            heads::<BLOCK>(&padded[..8 * BLOCK])
                        }
                    };
                    let mask = if TWO { 0xffff } else { 0x5555 };
                    _mm512_maskz_cvtph_ps(mask, words)
                };
                fn load_f16_head_pairs<const BLOCK: usize, const TWO: bool>(self, rows: [&[u8]; 4]) -> __m512 = {
                    let mask = if TWO { 0xffff } else { 0x5555 };
                    _mm512_maskz_cvtph_ps(mask, head_pairs::<BLOCK>(rows))
                };
                fn splat(self, x: f32) -> __m512 = _mm512_set1_ps(x);
                fn spread(self, from: &[f32; 16], lanes: [usize; 4]) -> __m512 = {
                    let [a, b, c, d] = lanes.map(|lane| lane as i32);
                    let lanes = _mm512_set_epi32(d, d, d, d, c, c, c, c, b, b, b, b, a, a, a, a);
                    _mm512_permutexvar_ps(opaque(lanes), _mm512_loadu_ps(from.as_ptr()))
                };
                fn load_even(self, from: &[f32; 8]) -> __m512 =
                    _mm512_castsi512_ps(_mm512_cvtepu32_epi64(_mm256_loadu_si256(from.as_ptr().cast())));
                fn load_odd(self, from: &[f32; 8]) -> __m512 = _mm512_castsi512_ps(
                    _mm512_slli_epi64::<32>(_mm512_cvtepu32_epi64(_mm256_loadu_si256(from.as_ptr().cast()))),
                );
                fn load_doubled(self, from: &[f32; 8]) -> __m512 = {
                    let lanes = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
                    _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(_mm256_loadu_ps(from.as_ptr())))
                };
                fn keep(self, v: __m512, n: usize) -> __m512 =
                    _mm512_maskz_mov_ps(((1u32 << n.min(16)) - 1) as u16, v);
                fn add(self, a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
                fn sub(self, a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
                fn mul(self, a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
                fn div(self, a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
                fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
                fn max(self, a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
                fn min(self, a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
                fn abs(self, v: __m512) -> __m512 = _mm512_abs_ps(v);
                fn round(self, v: __m512) -> __m512 =
                    _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
                fn exp2_int(self, v: __m512) -> __m512 = _mm512_scalef_ps(_mm512_set1_ps(1.0), v);
                fn sum(self, v: __m512) -> f32 = {
                    let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
                    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
                    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
                };
                fn sum4(self, v: [__m512; 4]) -> [f32; 4] = fold4!(v, _mm512_add_ps, _mm256_add_ps, _mm_add_ps);
                fn sum_quarters(self, v: __m512) -> [f32; 4] = {
                    // Transposed, so that a lane of each sum stands in each quarter.
                    let lanes = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
                    fold_quarters!(_mm512_permutexvar_ps(opaque(lanes), v), _mm256_add_ps, _mm_add_ps)
                };
                fn max_lane(self, v: __m512) -> f32 = _mm512_reduce_max_ps(v);
                fn max_lane4(self, v: [__m512; 4]) -> [f32; 4] =
                    fold4!(v, _mm512_max_ps, _mm256_max_ps, _mm_max_ps);
            }

            // The shift intrinsics take a type of their own for the constant.
            #[inline(always)]
            fn shift_right<const BITS: i32>(self, v: __m512i) -> __m512i {
                // SAFETY: `self` proves that the instruction exists.
                unsafe { _mm512_srl_epi16(v, _mm_cvtsi32_si128(BITS)) }
            }
            #[inline(always)]
            fn shift_left<const BITS: i32>(self, v: __m512i) -> __m512i {
                // SAFETY: `self` proves that the instruction exists.
                unsafe { _mm512_sll_epi16(v, _mm_cvtsi32_si128(BITS)) }
            }
            #[inline(always)]
            fn prefetch<T>(self, items: &[T], at: usize) {
                prefetch(items, at);
            }
        }
    };
}

avx512! { Avx512 = "avx512-novnni", bias 0,
    // The pairs cannot leave an i16: 2 * 127 * 127 and 2 * 128 * 127 are below 32768.
    fn dot_unsigned(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i =
        _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(codes, x), _mm512_set1_epi16(1)));
    fn dot_pairs(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i =
        _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
    fn dot_signed(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i = {
        let signed = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), x);
        self.dot_unsigned(acc, _mm512_abs_epi8(codes), signed)
    };
}

avx512! { Avx512Vnni = "avx512", bias 128,
    fn dot_unsigned(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i =
        _mm512_dpbusd_epi32(acc, codes, x);
    fn dot_pairs(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i = _mm512_dpwssd_epi32(acc, a, b);
    fn dot_signed(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i = {
        let signed = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(codes), _mm512_setzero_si512(), x);
        _mm512_dpbusd_epi32(acc, _mm512_abs_epi8(codes), signed)
    };
}

/// Four times 16 bytes.
///
/// # Safety
/// AVX-512 F must be there, and the bytes readable.
#[inline(always)]
unsafe fn four_pieces([a, b, c, d]: [*const u8; 4]) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let pieces = _mm512_broadcast_i32x4(_mm_loadu_si128(a.cast()));
        let pieces = _mm512_mask_broadcast_i32x4(pieces, 0x00f0, _mm_loadu_si128(b.cast()));
        let pieces = _mm512_mask_broadcast_i32x4(pieces, 0x0f00, _mm_loadu_si128(c.cast()));
        _mm512_mask_broadcast_i32x4(pieces, 0xf000, _mm_loadu_si128(d.cast()))
    }
}

/// The first four bytes of each of eight blocks, in the lanes of 32 bits; where `BLOCK` is not a multiple of 4 the second
/// two bytes of odd blocks are lost. Two or three permutations: gathers are slower, by far where microcode guards them.
///
/// # Safety
/// AVX-512 F must be there.
#[inline(always)]
unsafe fn heads<const BLOCK: usize>(chunk: &[u8]) -> __m256i {
    const { assert!(BLOCK >= 16 && BLOCK <= 36 && BLOCK.is_multiple_of(2)) };
    // SAFETY: the caller's promise.
    unsafe {
        let words = if 3 * BLOCK + 4 <= 64 {
            let lanes = const { head_lanes::<4>(BLOCK, 0, [0, 4 * BLOCK]) };
            permuted(&lanes, load_at(chunk, 0), load_at(chunk, 4 * BLOCK))
        } else {
            // The last load must not pass the end of the chunk, so it may begin before its blocks.
            let last = const { if 2 * BLOCK < 64 { 8 * BLOCK - 64 } else { 6 * BLOCK } };
            let lanes = const { head_lanes::<2>(BLOCK, 0, [0, 2 * BLOCK]) };
            let low = permuted(&lanes, load_at(chunk, 0), load_at(chunk, 2 * BLOCK));
            let lanes = const {
                let last = if 2 * BLOCK < 64 { 8 * BLOCK - 64 } else { 6 * BLOCK };
                head_lanes::<2>(BLOCK, 4, [4 * BLOCK, last])
            };
            let high = permuted(&lanes, load_at(chunk, 4 * BLOCK), load_at(chunk, last));
            _mm512_mask_blend_epi32(0xf0, low, high)
        };
        aligned_heads::<BLOCK>(words)
    }
}

/// As [`heads`], for the first two blocks of each of four rows.
///
/// # Safety
/// AVX-512 F must be there.
#[inline(always)]
unsafe fn head_pairs<const BLOCK: usize>(rows: [&[u8]; 4]) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        // The words of both loads stand where they would if the second row followed on the first.
        let lanes = const { head_lanes::<2>(BLOCK, 0, [0, 2 * BLOCK]) };
        // Hidden, because the compiler would piece codes together from these loads.
        let [a, b, c, d] = rows;
        let low = permuted(&lanes, opaque(load_at(a, 0)), opaque(load_at(b, 0)));
        let high = permuted(&lanes, opaque(load_at(c, 0)), opaque(load_at(d, 0)));
        aligned_heads::<BLOCK>(_mm512_mask_blend_epi32(0xf0, low, high))
    }
}

/// 64 bytes of a chunk, from `at` on.
///
/// # Safety
/// AVX-512 F must be there.
#[inline(always)]
unsafe fn load_at(chunk: &[u8], at: usize) -> __m512i {
    let bytes: &[u8; 64] = chunk[at..].first_chunk().expect("a chunk is longer than the last load reaches");
    // SAFETY: the caller's promise, and a whole array is read.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The words `lanes` of two vectors; those of the second count from 16.
///
/// # Safety
/// AVX-512 F must be there.
#[inline(always)]
unsafe fn permuted(lanes: &[i32; 16], first: __m512i, second: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_permutex2var_epi32(first, opaque(_mm512_loadu_si512(lanes.as_ptr().cast())), second) }
}

/// The first eight words, of which the odd ones are of blocks that begin in the middle of one, unless `BLOCK` is a
/// multiple of 4.
///
/// # Safety
/// AVX-512 VL must be there.
#[inline(always)]
unsafe fn aligned_heads<const BLOCK: usize>(words: __m512i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let words = _mm512_castsi512_si256(words);
        if BLOCK.is_multiple_of(4) {
            words
        } else {
            _mm256_srlv_epi32(words, _mm256_set_epi32(16, 0, 16, 0, 16, 0, 16, 0))
        }
    }
}

/// The lanes that bring the heads of blocks from `first` on into place, `PER_LOAD` of them from each of two loads that
/// begin at the bytes `starts`; from lane `2 * PER_LOAD` on they repeat. The second load's words count from 16.
const fn head_lanes<const PER_LOAD: usize>(block: usize, first: usize, starts: [usize; 2]) -> [i32; 16] {
    let mut lanes = [0; 16];
    let mut lane = 0;
    while lane < 8 {
        let i = lane % (2 * PER_LOAD);
        let load = i / PER_LOAD;
        lanes[lane] = (16 * load + (block * (first + i) - starts[load]) / 4) as i32;
        lane += 1;
    }
    lanes
}

/// The words of four times 16 bytes, `stride` apart, in two loads of which the first begins `head` bytes before and the
/// second ends where they end. Its words count from 16. Pieces that are an even number apart are a whole number of words
/// apart.
#[inline(always)]
const fn spaced_words(head: usize, stride: usize) -> [i32; 16] {
    let second = head + 3 * stride + 16 - 64;
    let mut words = [0; 16];
    let mut i = 0;
    while i < 16 {
        let (piece, byte) = (i / 4, head + i / 4 * stride + i % 4 * 4);
        words[i] = if piece % 2 == 0 { byte / 4 } else { 16 + (byte - second) / 4 } as i32;
        i += 1;
    }
    words
}

/// Hides what a vector holds from the compiler, which would replace one instruction by a dozen "cheaper" ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn opaque(v: __m512i) -> __m512i {
    let mut v = v;
    // SAFETY: no instruction at all.
    unsafe {
        core::arch::asm!("/* {0} */", inout(zmm_reg) v, options(pure, nomem, nostack, preserves_flags));
    }
    v
}

/// Transposes 16 rows of 16 words of 32 bits, in four rounds of shuffles.
///
/// # Safety
/// AVX-512 F must be there.
#[inline(always)]
unsafe fn transpose(rows: &[[u8; 64]; 16], out: &mut [[u8; 64]; 16]) {
    // SAFETY: the caller's promise; loads and stores go through arrays of the full width.
    unsafe {
        let mut a = [_mm512_setzero_si512(); 16];
        for i in 0..16 {
            a[i] = _mm512_loadu_si512(rows[i].as_ptr().cast());
        }
        let mut b = a;
        for i in 0..8 {
            b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
            b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
        }
        // Four rows each: lane l of a[4 * i + j] holds word 4 * l + j of rows 4 * i .. 4 * i + 4.
        for i in 0..4 {
            a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
            a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
            a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
            a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
        }
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0b01_00_01_00>(a[j], a[4 + j]);
            let high = _mm512_shuffle_i32x4::<0b11_10_11_10>(a[j], a[4 + j]);
            let low2 = _mm512_shuffle_i32x4::<0b01_00_01_00>(a[8 + j], a[12 + j]);
            let high2 = _mm512_shuffle_i32x4::<0b11_10_11_10>(a[8 + j], a[12 + j]);
            let words = [
                _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low2),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low2),
                _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high2),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high2),
            ];
            for (l, word) in words.into_iter().enumerate() {
                _mm512_storeu_si512(out[4 * l + j].as_mut_ptr().cast(), word);
            }
        }
    }
}
