//! What the machine can do at best: loops that do nothing but multiply, or nothing but read. Speeds of the other
//! operations are judged against theirs.

use crate::isa::{Isa, IsaKind, LANES, Op, unrolled};

/// The most sums that a loop keeps in flight, to hide the latency of the instruction.
const IN_FLIGHT: usize = 16;

/// Does multiply-adds of bytes for some `rounds`; returns how many, and something that depends on them all.
pub fn probe_int8(isa: IsaKind, rounds: usize) -> (u64, f32) {
    let (sums, total) = isa.run(Int8 { rounds });
    ((rounds * sums * LANES * 4) as u64, total)
}

/// As [`probe_int8`], of floats.
pub fn probe_f32(isa: IsaKind, rounds: usize) -> (u64, f32) {
    let (sums, total) = isa.run(Float { rounds });
    ((rounds * sums * LANES) as u64, total)
}

/// Reads all of `memory` but the last bytes that fill no line of 256; returns something that depends on them.
pub fn probe_read(isa: IsaKind, memory: &[u8]) -> u8 {
    isa.run(Read { memory })
}

/// So that no load spans two cache lines.
#[repr(align(64))]
struct Aligned<T>(T);

struct Int8 {
    rounds: usize,
}

impl Op for Int8 {
    type Output = (usize, f32);

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> Self::Output {
        match I::TOKENS {
            1 => self.sums::<I, 1>(isa),
            2 => self.sums::<I, 2>(isa),
            4 => self.sums::<I, 4>(isa),
            _ => self.sums::<I, IN_FLIGHT>(isa),
        }
    }
}

impl Int8 {
    #[inline(always)]
    fn sums<I: Isa, const N: usize>(self, isa: I) -> (usize, f32) {
        // Where a round reads depends on its number, so that none can be computed from another.
        let Aligned(lines) = &core::hint::black_box(Aligned([[3; 64]; 2 * IN_FLIGHT]));
        let codes = isa.load(&lines[0]);
        let mut sums = [isa.splat_i32(0); N];
        for round in 0..self.rounds {
            for i in 0..N {
                sums[i] = isa.dot_unsigned(sums[i], codes, isa.load(&lines[round % IN_FLIGHT + i]));
            }
        }
        (N, sums.into_iter().map(|sum| isa.sum(isa.to_f32(sum))).sum())
    }
}

struct Float {
    rounds: usize,
}

impl Op for Float {
    type Output = (usize, f32);

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> Self::Output {
        match I::TOKENS {
            1 => self.sums::<I, 1>(isa),
            2 => self.sums::<I, 2>(isa),
            4 => self.sums::<I, 4>(isa),
            _ => self.sums::<I, IN_FLIGHT>(isa),
        }
    }
}

impl Float {
    #[inline(always)]
    fn sums<I: Isa, const N: usize>(self, isa: I) -> (usize, f32) {
        let Aligned(lines) = &core::hint::black_box(Aligned([[0.5; LANES]; 2 * IN_FLIGHT]));
        let weights = isa.load_f32(&lines[0]);
        let mut sums = [isa.splat(0.0); N];
        for round in 0..self.rounds {
            for i in 0..N {
                sums[i] = isa.mul_add(weights, isa.load_f32(&lines[round % IN_FLIGHT + i]), sums[i]);
            }
        }
        (N, sums.into_iter().map(|sum| isa.sum(sum)).sum())
    }
}

struct Read<'a> {
    memory: &'a [u8],
}

impl Op for Read<'_> {
    type Output = u8;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> u8 {
        // From four places at once, as products do, since that is faster than from one.
        let part = self.memory.len() / 256 * 64;
        let [a, b, c, d] = core::array::from_fn(|i| self.memory[i * part..][..part].as_chunks::<64>().0);
        let mut sums = [isa.splat_byte(0); 4];
        for lines in a.iter().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| [a, b, c, d]) {
            unrolled!(i in 0 1 2 3, {
                isa.prefetch(lines[i], 1024);
                sums[i] = isa.xor(sums[i], isa.load(lines[i]));
            });
        }
        let mut folded = [0; 64];
        isa.store(isa.xor(isa.xor(sums[0], sums[1]), isa.xor(sums[2], sums[3])), &mut folded);
        folded.iter().fold(0, |a, b| a ^ b)
    }
}
