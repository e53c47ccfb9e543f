//! Steps that the layouts of several formats share. All are forced inline, to be compiled with the CPU features of
//! the operation that unpacks.

use super::float::f16_to_f32;
use super::quant::GROUPS;
#[cfg(doc)]
use super::quant::Order;
use crate::isa::Isa;

/// The `N` bytes at `AT` of a block; that they lie inside is checked at compile time.
#[inline(always)]
pub(super) fn field<const AT: usize, const N: usize, const BYTES: usize>(block: &[u8; BYTES]) -> &[u8; N] {
    const { assert!(AT + N <= BYTES) };
    match block[AT..].first_chunk() {
        Some(field) => field,
        None => unreachable!(),
    }
}

/// The little-endian f16 at `AT` of a block.
#[inline(always)]
pub(super) fn f16_at<const AT: usize, const BYTES: usize>(block: &[u8; BYTES]) -> f32 {
    f16_to_f32(u16::from_le_bytes(*field::<AT, 2, BYTES>(block)))
}

/// The bits of the little-endian f16 at `AT` of a block.
#[inline(always)]
pub(super) fn f16_bits<const AT: usize, const BYTES: usize>(block: &[u8; BYTES]) -> u16 {
    u16::from_le_bytes(*field::<AT, 2, BYTES>(block))
}

/// What blocks of `32 * GROUPS_A_BLOCK` weights have one of, for each group of 32 weights of a chunk.
#[inline(always)]
pub(super) fn per_block<const BYTES: usize, const GROUPS_A_BLOCK: usize>(
    chunk: &[u8],
    of_block: impl Fn(&[u8; BYTES]) -> f32,
) -> [f32; GROUPS] {
    let mut values = [0.0; GROUPS];
    for (groups, block) in values.chunks_exact_mut(GROUPS_A_BLOCK).zip(chunk.as_chunks::<BYTES>().0) {
        groups.fill(of_block(block));
    }
    values
}

/// The codes of a pair of blocks of 32 weights.
#[inline(always)]
pub(super) fn block_codes<const BYTES: usize>(
    chunk: &[u8],
    pair: usize,
    of_block: impl Fn(&[u8; BYTES]) -> [i8; 32],
) -> [i8; 64] {
    let mut codes = [0; 64];
    let blocks = chunk.as_chunks::<BYTES>().0.iter().skip(2 * pair);
    for (codes, block) in codes.as_chunks_mut::<32>().0.iter_mut().zip(blocks) {
        *codes = of_block(block);
    }
    codes
}

/// The block of 256 weights that fills a chunk, if `pair` is one of its four.
#[inline(always)]
pub(super) fn super_block<const BYTES: usize>(chunk: &[u8], pair: usize) -> Option<&[u8; BYTES]> {
    if pair < 4 { chunk.first_chunk() } else { None }
}

/// 32 nibbles: the low halves of 16 bytes, then the high halves.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8; 16]) -> [i8; 32] {
    let mut codes = [0; 32];
    for j in 0..16 {
        codes[j] = (bytes[j] & 15) as i8;
        codes[j + 16] = (bytes[j] >> 4) as i8;
    }
    codes
}

/// Nibble `i` of little-endian nibbles, as packed scales are.
#[inline(always)]
pub(super) fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 2] >> (4 * (i % 2))) & 15
}

/// Two-bit codes `64 * pair ..` of 256: each half of the block has 32 bytes, and its four runs of 32 weights lie in
/// the bits 0-1, 2-3, 4-5 and 6-7 of all of them.
#[inline(always)]
pub(super) fn crumbs(bytes: &[u8; 64], pair: usize) -> [i8; 64] {
    let bytes = &bytes.as_chunks::<32>().0[pair / 2];
    let shift = 4 * (pair % 2);
    let mut codes = [0; 64];
    for j in 0..32 {
        codes[j] = ((bytes[j] >> shift) & 3) as i8;
        codes[j + 32] = ((bytes[j] >> (shift + 2)) & 3) as i8;
    }
    codes
}

/// Sets bit `BIT` of the codes `64 * pair ..` of 256 weights: the runs of 32 weights lie in the bits 0, 1, .. 7 of 32
/// bytes.
#[inline(always)]
pub(super) fn add_high_bits<const BIT: u32>(codes: &mut [i8; 64], bytes: &[u8; 32], pair: usize) {
    for j in 0..32 {
        codes[j] |= (((bytes[j] >> (2 * pair)) & 1) << BIT) as i8;
        codes[j + 32] |= (((bytes[j] >> (2 * pair + 1)) & 1) << BIT) as i8;
    }
}

/// A pair of blocks, or zeros past the end of the chunk.
#[inline(always)]
pub(super) fn block_pair<const BYTES: usize>(chunk: &[u8], pair: usize) -> [&[u8; BYTES]; 2] {
    let blocks = chunk.as_chunks::<BYTES>().0;
    let block = |i| blocks.get(i).unwrap_or(const { &[0; BYTES] });
    [block(2 * pair), block(2 * pair + 1)]
}

/// As [`crumbs`], in a vector.
#[inline(always)]
pub(super) fn crumb_vector<I: Isa>(isa: I, bytes: &[u8; 64], pair: usize) -> I::Bytes {
    let shift = 4 * (pair as u32 % 2);
    let crumbs = isa.load_twice_shifted(&bytes.as_chunks::<32>().0[pair / 2], shift, shift + 2);
    isa.and(crumbs, isa.splat_byte(3))
}

/// As [`add_high_bits`], in a vector.
#[inline(always)]
pub(super) fn add_high_bit_vector<I: Isa, const BIT: i32>(
    isa: I,
    codes: I::Bytes,
    bytes: &[u8; 32],
    pair: usize,
) -> I::Bytes {
    let shift = 2 * pair as u32;
    let bits = isa.and(isa.load_twice_shifted(bytes, shift, shift + 1), isa.splat_byte(1));
    isa.or(codes, isa.shift_left::<BIT>(bits))
}

/// The low, then the high halves of 32 bytes, in a vector.
#[inline(always)]
pub(super) fn nibble_vector<I: Isa>(isa: I, bytes: &[u8; 32]) -> I::Bytes {
    isa.and(isa.load_twice_shifted(bytes, 0, 4), isa.splat_byte(15))
}

/// The low, then the high halves of four times 16 bytes, `STRIDE` apart: codes in [`Order::Halves`].
#[inline(always)]
pub(super) fn spaced_nibbles<I: Isa, const STRIDE: usize>(isa: I, chunk: &[u8], at: usize) -> [I::Bytes; 2] {
    both_nibbles(isa, isa.load_spaced::<STRIDE>(chunk, at))
}

/// The low, then the high halves of 64 bytes.
#[inline(always)]
pub(super) fn both_nibbles<I: Isa>(isa: I, bytes: I::Bytes) -> [I::Bytes; 2] {
    let mask = isa.splat_byte(15);
    [isa.and(bytes, mask), isa.and(isa.shift_right::<4>(bytes), mask)]
}

/// 16 small integers that lie in the bytes of a word, times an f16 factor.
#[inline(always)]
pub(super) fn scaled_bytes<I: Isa>(isa: I, bytes: u128, factor: u16) -> I::F32 {
    isa.mul(isa.load_i8(&bytes.to_le_bytes().map(|b| b as i8)), isa.splat_f16(factor))
}
