//! Instruction sets: the few vector steps that every operation is written over.
//!
//! A value of an [`Isa`] type exists only where detection created it, so holding one is the proof that its
//! instructions may run. All of them offer vectors of the same logical width, 64 bytes (16 lanes of 32 bits), made of
//! one, two or four registers: an operation sums in the same order everywhere, whatever the register width.

/// A loop over `0..T` that is unrolled whatever the compiler thinks of its size: sums that are indexed in a rolled loop
/// live in memory instead of registers.
macro_rules! unrolled {
    ($t:ident < $n:ident, $body:block) => {
        unrolled!(@ $t < $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $t:ident < $n:ident, $body:block, $($i:literal)+) => {
        const { assert!($n <= 16) };
        // A constant condition is decided before code is generated, so what is not taken costs no time to compile.
        $(if const { $i < $n } {
            let $t = $i;
            $body
        })+
    };
    ($t:ident in $($i:literal)+, $body:block) => {
        $({
            let $t = $i;
            $body
        })+
    };
}
pub(crate) use unrolled;

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", any(feature = "simd128", target_feature = "simd128"))
))]
mod parts;
mod scalar;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(all(target_arch = "wasm32", any(feature = "simd128", target_feature = "simd128")))]
mod simd128;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use scalar::Scalar;

#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonDot};
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
pub use simd128::RelaxedSimd;
#[cfg(all(
    target_arch = "wasm32",
    any(feature = "simd128", target_feature = "simd128"),
    not(target_feature = "relaxed-simd")
))]
pub use simd128::Simd128;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, Avx512Vnni, Sse41};

/// Lanes of 32 bits in a vector.
pub const LANES: usize = 16;

/// In floats of this size the last bit stands for one: added to a number within ±2^22, it rounds that to the nearest integer,
/// ties to even, whose bits are what the sum's are above its own.
pub(crate) const ONES: f32 = (3 << 22) as f32;

/// What is known of the codes in a dot product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeRange {
    /// From 0 to 15.
    Nibble,
    /// From 0 to what [`Isa::dot_unsigned`] takes.
    Unsigned,
    /// The whole range of `i8`.
    Signed,
    /// Not bytes but signed 16-bit words, that sums of products do not overflow with.
    Words,
}

/// An operation, written once over every instruction set.
pub trait Op {
    /// Whether it multiplies integers. Instruction sets that differ in nothing but that share the code of what doesn't.
    const DOTS: bool = true;

    /// What it returns.
    type Output;
    /// Runs it. Implementations are `#[inline(always)]`, so that the body is compiled with the features of `I`.
    fn eval<I: Isa>(self, isa: I) -> Self::Output;
}

/// The vector steps of one instruction set.
///
/// `Bytes` holds 64 bytes, `I32` 16 integers, `F32` 16 floats; lane `i` of an `I32` covers bytes `4 * i .. 4 * i + 4`.
pub trait Isa: Copy + Send + Sync + 'static {
    /// As in logs and `FIRECREST_ISA`.
    const NAME: &'static str;
    /// Rows that a matrix × vector product keeps in flight.
    const ROWS: usize;
    /// Tokens that a matrix product keeps in flight.
    const TOKENS: usize;
    /// Added to signed codes before [`Isa::dot_unsigned`] where that takes the whole range of `u8`. Zero: signed codes
    /// go to [`Isa::dot_signed`] as they are.
    const SIGNED_BIAS: u8;
    /// Whether dot products gain from knowing that codes are below 16: operations compile twice for that.
    const NIBBLES: bool = false;
    /// Whether there are so few registers that the loop over the lines of a panel is to stay a loop: what compilers bring
    /// forward out of it they would have to put into memory.
    const FEW_REGISTERS: bool = false;
    /// Whether panels hold signed codes as words, which [`Isa::dot_pairs`] multiplies faster than
    /// [`Isa::dot_signed`] does bytes.
    const WIDE: bool = false;
    /// Whether that goes for codes without signs too.
    const WIDE_UNSIGNED: bool = false;
    /// Whether rarer formats share their code: for few or old machines, for what is there to compare with, and where the
    /// code is downloaded.
    const COMPACT: bool = false;
    /// Whether each of four registers of a vector takes another row of a product with one token: a row has one register
    /// of sums then, and what is shared by rows stays in registers.
    const ROW_A_QUARTER: bool = false;
    /// In which order [`Isa::load_spaced`] has the pieces. Where a vector is two registers, each best has two pieces whose
    /// scales stand in different halves of a register: shuffles within halves are cheaper than across.
    const SPACED: [usize; 4] = [0, 1, 2, 3];
    /// Whether [`Isa::dot_pairs`] multiplies more numbers in the same time than [`Isa::mul_add`].
    const PAIRS: bool = true;
    /// Whether [`Isa::load_f16_heads`] gives finite numbers for infinities too, and for what is no number.
    const FINITE_HEADS: bool = false;

    /// 64 bytes.
    type Bytes: Copy;
    /// 16 signed integers of 32 bits.
    type I32: Copy;
    /// 16 floats of 32 bits.
    type F32: Copy;

    /// Runs an operation as a function of its own, where inlining it into many callers would multiply code.
    fn call<O: Op>(self, op: O) -> O::Output;

    // Bytes

    /// The 64 bytes.
    fn load(self, from: &[u8; 64]) -> Self::Bytes;
    /// Writes the 64 bytes.
    fn store(self, v: Self::Bytes, to: &mut [u8; 64]);
    /// `low` in bytes 0..32, `high` in 32..64.
    fn load_halves(self, low: &[u8; 32], high: &[u8; 32]) -> Self::Bytes;
    /// `from` twice; the first copy's 16-bit words shifted right by `low` bits, the second's by `high`. Bits of a
    /// neighbouring byte shift in, so a mask has to follow.
    fn load_twice_shifted(self, from: &[u8; 32], low: u32, high: u32) -> Self::Bytes;
    /// The low, then the high halves of the bytes of `first`, then those of `second`.
    fn load_nibbles(self, first: &[u8; 16], second: &[u8; 16]) -> Self::Bytes;
    /// The quarters `order` of 128 bytes.
    fn load_quarters(self, from: &[[u8; 16]; 8], order: [usize; 4]) -> Self::Bytes;
    /// Four times 16 bytes, `STRIDE` apart, the first at `bytes[at]`, in the order [`Isa::SPACED`]. Panics if they leave
    /// `bytes`.
    #[inline(always)]
    fn load_spaced<const STRIDE: usize>(self, bytes: &[u8], at: usize) -> Self::Bytes {
        let mut pieces = [[0; 16]; 8];
        for i in 0..4 {
            pieces[i] = *bytes[at + i * STRIDE..].first_chunk().expect("inside");
        }
        self.load_quarters(&pieces, Self::SPACED)
    }
    /// Output vector `q` holds quarter `q` of each of the four.
    #[inline(always)]
    fn transpose_quarters(self, v: [Self::Bytes; 4]) -> [Self::Bytes; 4] {
        let (mut bytes, mut out) = ([[0; 64]; 4], v);
        for (bytes, v) in bytes.iter_mut().zip(v) {
            self.store(v, bytes);
        }
        for (q, out) in out.iter_mut().enumerate() {
            let mut pieces = [[0; 16]; 8];
            for (piece, bytes) in pieces.iter_mut().zip(&bytes) {
                *piece = bytes.as_chunks().0[q];
            }
            *out = self.load_quarters(&pieces, [0, 1, 2, 3]);
        }
        out
    }
    /// Four bytes, 16 times.
    fn splat4(self, from: &[u8; 4]) -> Self::Bytes;
    /// One byte, 64 times.
    fn splat_byte(self, byte: u8) -> Self::Bytes;
    /// `byte` where a bit of `bits` is set, else 0; bit `i` rules byte `i`.
    fn expand_bits(self, bits: u64, byte: u8) -> Self::Bytes;
    /// Bitwise and.
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bitwise or.
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// 16-bit words shifted right; a mask has to follow.
    fn shift_right<const BITS: i32>(self, v: Self::Bytes) -> Self::Bytes;
    /// 16-bit words shifted left; the bits that leave a byte must be clear.
    fn shift_left<const BITS: i32>(self, v: Self::Bytes) -> Self::Bytes;
    /// For each byte `i`, which is below 16, entry `i` of the table of its quarter.
    fn lookup(self, tables: [&[u8; 16]; 4], indices: Self::Bytes) -> Self::Bytes;
    /// Output vector `q` holds 4-byte group `q` of each of the 16 rows.
    #[inline(always)]
    fn transpose_quads(self, rows: &[[u8; 64]; 16], out: &mut [[u8; 64]; 16]) {
        for (r, row) in rows.iter().enumerate() {
            for (quad, line) in row.as_chunks::<4>().0.iter().zip(out.iter_mut()) {
                line.as_chunks_mut::<4>().0[r] = *quad;
            }
        }
    }
    /// The bytes of four rows side by side: lane `4 * q + i` of output vector `k` holds byte `16 * q + 4 * k + i` of each row.
    #[inline(always)]
    fn interleave4(self, rows: [Self::Bytes; 4]) -> [Self::Bytes; 4] {
        let (mut bytes, mut out) = ([[0; 64]; 4], [[0; 64]; 4]);
        for (bytes, row) in bytes.iter_mut().zip(rows) {
            self.store(row, bytes);
        }
        for (k, out) in out.iter_mut().enumerate() {
            for (lane, quad) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *quad = bytes.map(|row| row[lane / 4 * 16 + 4 * k + lane % 4]);
            }
        }
        out.map(|out| self.load(&out))
    }
    /// Asks for the cache line at byte `at` of `items`, or behind them, if there is one.
    fn prefetch<T>(self, items: &[T], at: usize);

    // Integers

    /// One integer in all lanes.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// `a + b`.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Adds to each lane the four products of its bytes: `codes` from 0 to 127 (to 255 where [`Isa::SIGNED_BIAS`] is
    /// not zero), `x` signed.
    fn dot_unsigned(self, acc: Self::I32, codes: Self::Bytes, x: Self::Bytes) -> Self::I32;
    /// Adds to each lane the four products of its bytes, both signed, `x` above -128.
    fn dot_signed(self, acc: Self::I32, codes: Self::Bytes, x: Self::Bytes) -> Self::I32;
    /// Adds to each lane both products of its signed 16-bit words.
    fn dot_pairs(self, acc: Self::I32, a: Self::Bytes, b: Self::Bytes) -> Self::I32;
    /// As [`Isa::dot_unsigned`] for codes below 16, at most eight times from zero; [`Isa::finish_nibbles`] makes of it what
    /// that gives. Where [`Isa::NIBBLES`] is set, sums of 16 bits, perhaps.
    #[inline(always)]
    fn dot_nibbles(self, acc: Self::I32, codes: Self::Bytes, x: Self::Bytes) -> Self::I32 {
        self.dot_unsigned(acc, codes, x)
    }
    /// The sums of [`Isa::dot_nibbles`].
    #[inline(always)]
    fn finish_nibbles(self, acc: Self::I32) -> Self::I32 {
        acc
    }
    /// In each lane the products of its bytes, of all of `codes` with `x`.
    #[inline(always)]
    fn dot_all<const N: usize>(
        self,
        range: CodeRange,
        codes: [Self::Bytes; N],
        x: [Self::Bytes; N],
    ) -> Self::I32 {
        const { assert!(N <= 8, "sums of nibbles would overflow") };
        let mut sum = self.splat_i32(0);
        unrolled!(i < N, {
            sum = match range {
                CodeRange::Nibble => self.dot_nibbles(sum, codes[i], x[i]),
                CodeRange::Unsigned => self.dot_unsigned(sum, codes[i], x[i]),
                CodeRange::Signed => self.dot_signed(sum, codes[i], x[i]),
                CodeRange::Words => self.dot_pairs(sum, codes[i], x[i]),
            };
        });
        if range == CodeRange::Nibble { self.finish_nibbles(sum) } else { sum }
    }
    /// For each of `P` panels and `T` tokens, in each lane the products of its bytes of all the panel's lines with the
    /// token's four of that line, and what they `start` from.
    #[inline(always)]
    fn dot_lines<const N: usize, const T: usize, const P: usize>(
        self,
        range: CodeRange,
        lines: [&[[u8; 64]; N]; P],
        x: [&[[u8; 4]; N]; T],
        start: [[Self::I32; T]; P],
    ) -> [[Self::I32; T]; P] {
        const { assert!(N <= 8, "sums of nibbles would overflow") };
        // Sums of nibbles have 16 bits until they are finished, perhaps.
        let nibbles = range == CodeRange::Nibble;
        let mut sums = if nibbles { [[self.splat_i32(0); T]; P] } else { start };
        // The compiler does not see through this, so it cannot unroll the loop.
        let steps = if Self::FEW_REGISTERS { core::hint::black_box(N).min(N) } else { N };
        for q in 0..steps {
            let mut line = [self.splat_byte(0); P];
            unrolled!(p < P, {
                line[p] = self.load(&lines[p][q]);
            });
            unrolled!(t < T, {
                let x = self.splat4(&x[t][q]);
                unrolled!(p < P, {
                    sums[p][t] = match range {
                        CodeRange::Nibble => self.dot_nibbles(sums[p][t], line[p], x),
                        CodeRange::Unsigned => self.dot_unsigned(sums[p][t], line[p], x),
                        CodeRange::Signed => self.dot_signed(sums[p][t], line[p], x),
                        CodeRange::Words => self.dot_pairs(sums[p][t], line[p], x),
                    };
                });
            });
        }
        if nibbles {
            unrolled!(t < T, {
                unrolled!(p < P, {
                    sums[p][t] = self.add_i32(self.finish_nibbles(sums[p][t]), start[p][t]);
                });
            });
        }
        sums
    }
    /// The even bytes and the odd ones, as signed 16-bit words.
    #[inline(always)]
    fn widen_pairs(self, v: Self::Bytes) -> [Self::Bytes; 2] {
        let (mut bytes, mut words) = ([0; 64], [[0; 64]; 2]);
        self.store(v, &mut bytes);
        for (i, pair) in bytes.as_chunks::<2>().0.iter().enumerate() {
            for (words, byte) in words.iter_mut().zip(pair) {
                words.as_chunks_mut::<2>().0[i] = i16::from(*byte as i8).to_le_bytes();
            }
        }
        [self.load(&words[0]), self.load(&words[1])]
    }
    /// To floats.
    fn to_f32(self, v: Self::I32) -> Self::F32;

    // Floats

    /// 16 floats.
    fn load_f32(self, from: &[f32; 16]) -> Self::F32;
    /// Writes 16 floats.
    fn store_f32(self, v: Self::F32, to: &mut [f32; 16]);
    /// 16 half-precision floats, widened.
    fn load_f16(self, from: &[u16; 16]) -> Self::F32;
    /// As [`Isa::load_f16`]; where that costs less, infinities and what is no number become large numbers.
    #[inline(always)]
    fn load_finite_f16(self, from: &[u16; 16]) -> Self::F32 {
        self.load_f16(from)
    }
    /// Narrows to half precision, to nearest even.
    fn store_f16(self, v: Self::F32, to: &mut [u16; 16]);
    /// 16 signed bytes, widened.
    fn load_i8(self, from: &[i8; 16]) -> Self::F32;
    /// The bytes of each quarter, signed.
    #[inline(always)]
    fn quarters_to_f32(self, v: Self::Bytes) -> [Self::F32; 4] {
        let mut bytes = [0; 64];
        self.store(v, &mut bytes);
        let mut out = [self.splat(0.0); 4];
        for (out, quarter) in out.iter_mut().zip(bytes.as_chunks::<16>().0) {
            *out = self.load_i8(&quarter.map(|byte| byte as i8));
        }
        out
    }
    /// Rounds to nearest even and writes as bytes; every lane is from -127 to 127.
    fn store_i8(self, v: Self::F32, to: &mut [i8; 16]);
    /// Rounds to nearest even and writes as 16-bit words, little-endian; every lane is from -32767 to 32767.
    fn store_i16(self, v: Self::F32, to: &mut [u8; 32]);
    /// The half-precision floats that `chunk`'s blocks of `BLOCK` bytes begin with, in the even lanes; in the odd lanes
    /// those that follow them, or zero unless `TWO`. Lane `2 * i` is of block `i`; zero past the end.
    #[inline(always)]
    fn load_f16_heads<const BLOCK: usize, const TWO: bool>(self, chunk: &[u8]) -> Self::F32 {
        let mut heads = [0; 16];
        for (head, block) in heads.as_chunks_mut::<2>().0.iter_mut().zip(chunk.as_chunks::<BLOCK>().0) {
            head[0] = u16::from_le_bytes([block[0], block[1]]);
            if TWO {
                head[1] = u16::from_le_bytes([block[2], block[3]]);
            }
        }
        self.load_f16(&heads)
    }
    /// As [`Isa::load_f16_heads`] of the first two blocks of each of four rows, of which there are two blocks at least:
    /// lanes `4 * r ..` are of row `r`.
    #[inline(always)]
    fn load_f16_head_pairs<const BLOCK: usize, const TWO: bool>(self, rows: [&[u8]; 4]) -> Self::F32 {
        let mut heads = [0; 16];
        for (heads, row) in heads.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
            for (head, block) in heads.as_chunks_mut::<2>().0.iter_mut().zip(row.as_chunks::<BLOCK>().0) {
                head[0] = u16::from_le_bytes([block[0], block[1]]);
                if TWO {
                    head[1] = u16::from_le_bytes([block[2], block[3]]);
                }
            }
        }
        self.load_f16(&heads)
    }
    /// Of the first four blocks of `BLOCK` bytes of each of four rows the half-precision floats that they begin with, and
    /// those that follow: those of block `b` of row `r` in lane `4 * b + r`. What is infinite may become large numbers.
    #[inline(always)]
    fn load_f16_head_rows<const BLOCK: usize>(self, rows: [&[u8]; 4]) -> (Self::F32, Self::F32) {
        let mut heads = [[0; 16]; 2];
        for (r, row) in rows.into_iter().enumerate() {
            for (b, block) in row.as_chunks::<BLOCK>().0.iter().take(4).enumerate() {
                heads[0][4 * b + r] = u16::from_le_bytes([block[0], block[1]]);
                heads[1][4 * b + r] = u16::from_le_bytes([block[2], block[3]]);
            }
        }
        (self.load_finite_f16(&heads[0]), self.load_finite_f16(&heads[1]))
    }
    /// One half-precision float, widened, in all lanes.
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> Self::F32 {
        self.load_f16(&[bits; 16])
    }
    /// Of each word two half-precision floats, widened, in turn: first the low one.
    #[inline(always)]
    fn splat_f16_pairs(self, words: [u32; 4]) -> [Self::F32; 4] {
        let mut out = [self.splat(0.0); 4];
        for (out, word) in out.iter_mut().zip(words) {
            let mut lanes = [word as u16; 16];
            for pair in lanes.as_chunks_mut::<2>().0 {
                pair[1] = (word >> 16) as u16;
            }
            *out = self.load_f16(&lanes);
        }
        out
    }
    /// One float in all lanes.
    fn splat(self, x: f32) -> Self::F32;
    /// Lanes `4 * q .. 4 * q + 4` are `from[lanes[q]]`.
    fn spread(self, from: &[f32; 16], lanes: [usize; 4]) -> Self::F32;
    /// `from[i]` in lane `2 * i`, zero in the odd lanes.
    #[inline(always)]
    fn load_even(self, from: &[f32; 8]) -> Self::F32 {
        let mut lanes = [0.0; 16];
        for i in 0..8 {
            lanes[2 * i] = from[i];
        }
        self.load_f32(&lanes)
    }
    /// `from[i]` in lane `2 * i + 1`, zero in the even lanes.
    #[inline(always)]
    fn load_odd(self, from: &[f32; 8]) -> Self::F32 {
        let mut lanes = [0.0; 16];
        for i in 0..8 {
            lanes[2 * i + 1] = from[i];
        }
        self.load_f32(&lanes)
    }
    /// `from[i]` in lanes `2 * i` and `2 * i + 1`.
    #[inline(always)]
    fn load_doubled(self, from: &[f32; 8]) -> Self::F32 {
        let mut lanes = [0.0; 16];
        for i in 0..8 {
            lanes[2 * i] = from[i];
            lanes[2 * i + 1] = from[i];
        }
        self.load_f32(&lanes)
    }
    /// The first `n` lanes, zero in the others, whatever they hold.
    #[inline(always)]
    fn keep(self, v: Self::F32, n: usize) -> Self::F32 {
        let mut lanes = [0.0; 16];
        self.store_f32(v, &mut lanes);
        lanes[n..].fill(0.0);
        self.load_f32(&lanes)
    }
    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, in one rounding where the machine can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Adds `a * b` to `sum`, whose quarters will be added in the end: where registers are few, to one of them alone.
    #[inline(always)]
    fn accumulate(self, a: Self::F32, b: Self::F32, sum: Self::F32) -> Self::F32 {
        self.mul_add(a, b, sum)
    }
    /// The larger; `b` where one is not a number.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller; `b` where one is not a number.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Without sign.
    fn abs(self, v: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even; lanes are within ±2^22.
    fn round(self, v: Self::F32) -> Self::F32;
    /// 2 to the power of a whole number from -126 to 127.
    fn exp2_int(self, v: Self::F32) -> Self::F32;
    /// The sum of the lanes, folded in halves.
    fn sum(self, v: Self::F32) -> f32;
    /// The sums of four vectors.
    #[inline(always)]
    fn sum4(self, v: [Self::F32; 4]) -> [f32; 4] {
        [self.sum(v[0]), self.sum(v[1]), self.sum(v[2]), self.sum(v[3])]
    }
    /// The sums of lanes `4 * q .. 4 * q + 4`.
    #[inline(always)]
    fn sum_quarters(self, v: Self::F32) -> [f32; 4] {
        let mut lanes = [0.0; 16];
        self.store_f32(v, &mut lanes);
        let quarters = lanes.as_chunks::<4>().0;
        let mut sums = [0.0; 4];
        for q in 0..4 {
            let [a, b, c, d] = quarters[q];
            sums[q] = (a + c) + (b + d);
        }
        sums
    }
    /// As [`Self::sum_quarters`], with what lanes `q` of the quarters of `more` have.
    #[inline(always)]
    fn sum_quarters_and(self, v: Self::F32, more: Self::F32) -> [f32; 4] {
        let (mut sums, mut lanes) = (self.sum_quarters(v), [0.0; 16]);
        self.store_f32(more, &mut lanes);
        for i in 0..4 {
            sums[i] += (lanes[i] + lanes[i + 8]) + (lanes[i + 4] + lanes[i + 12]);
        }
        sums
    }
    /// The largest lane.
    fn max_lane(self, v: Self::F32) -> f32;
    /// The largest lanes of four vectors.
    #[inline(always)]
    fn max_lane4(self, v: [Self::F32; 4]) -> [f32; 4] {
        [self.max_lane(v[0]), self.max_lane(v[1]), self.max_lane(v[2]), self.max_lane(v[3])]
    }
}

macro_rules! kinds {
    ($($(#[$cfg:meta])* $kind:ident = $name:literal,)+) => {
        /// An instruction set that this build has code for, chosen at run time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[allow(missing_docs)]
        pub enum IsaKind {
            $($(#[$cfg])* $kind,)+
        }

        impl IsaKind {
            /// Those that this processor has, slowest first.
            pub fn available() -> impl Iterator<Item = IsaKind> {
                [$($(#[$cfg])* (IsaKind::$kind, $kind::detect().is_some()),)+]
                    .into_iter()
                    .filter(|(_, has)| *has)
                    .map(|(kind, _)| kind)
            }

            /// The fastest that this processor has.
            pub fn best() -> IsaKind {
                // The first is what every processor has that this build is for.
                const ALL: &[IsaKind] = &[$($(#[$cfg])* IsaKind::$kind,)+];
                Self::available().last().unwrap_or(ALL[0])
            }

            /// The name, as `FIRECREST_ISA` takes it.
            pub const fn name(self) -> &'static str {
                match self {
                    $($(#[$cfg])* IsaKind::$kind => $name,)+
                }
            }

            /// Runs an operation. Panics if this processor lacks the instruction set.
            #[inline]
            pub fn run<O: Op>(self, op: O) -> O::Output {
                match self {
                    $($(#[$cfg])* IsaKind::$kind => match $kind::detect() {
                        Some(isa) => isa.run(op),
                        None => missing(self),
                    },)+
                }
            }
        }
    };
}

kinds! {
    // A module with SIMD has it everywhere, so scalar code would be dead weight.
    #[cfg(not(all(target_arch = "wasm32", any(feature = "simd128", target_feature = "simd128"))))]
    Scalar = "scalar",
    #[cfg(target_arch = "x86_64")] Sse41 = "sse41",
    #[cfg(target_arch = "x86_64")] Avx2 = "avx2",
    #[cfg(target_arch = "x86_64")] Avx512 = "avx512-novnni",
    #[cfg(target_arch = "x86_64")] Avx512Vnni = "avx512",
    #[cfg(target_arch = "aarch64")] Neon = "neon-nodot",
    #[cfg(target_arch = "aarch64")] NeonDot = "neon",
    #[cfg(all(
        target_arch = "wasm32",
        any(feature = "simd128", target_feature = "simd128"),
        not(target_feature = "relaxed-simd")
    ))]
    Simd128 = "simd128",
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))] RelaxedSimd = "relaxed-simd",
}

#[cold]
fn missing(kind: IsaKind) -> ! {
    panic!("this processor has no {}", kind.name())
}

impl IsaKind {
    /// The available instruction set of this name. A plain name also selects its variant without dot-product
    /// instructions where the processor lacks those (`avx512`, `neon`).
    pub fn from_name(name: &str) -> Option<IsaKind> {
        Self::available()
            .filter(|kind| kind.name().split('-').next() == Some(name) || kind.name() == name)
            .last()
    }
}

impl core::fmt::Display for IsaKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
