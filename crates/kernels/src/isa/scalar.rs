//! Plain Rust: the reference that every other instruction set is checked against, and the fallback.

use super::{Isa, Op};
use crate::format::float::{f16_to_f32, f32_to_f16};

/// No vector instructions at all.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Scalar {
    /// Always there.
    pub fn detect() -> Option<Self> {
        Some(Self)
    }

    /// Runs an operation.
    #[inline(never)]
    pub fn run<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }
}

macro_rules! each {
    ($($name:ident($($arg:ident: $in:ty),+) -> $out:ty = $expr:expr;)+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: [$in; { size_of::<Self::Bytes>() / size_of::<$in>() }]),+)
            -> [$out; { size_of::<Self::Bytes>() / size_of::<$out>() }]
        {
            core::array::from_fn(|i| { $(let $arg = $arg[i];)+ $expr })
        }
    )+};
}

impl Isa for Scalar {
    const NAME: &'static str = "scalar";
    const ROWS: usize = 1;
    const COMPACT: bool = true;
    const TOKENS: usize = 1;
    const SIGNED_BIAS: u8 = 0;
    const PAIRS: bool = false;

    type Bytes = [u8; 64];
    type I32 = [i32; 16];
    type F32 = [f32; 16];

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        self.run(op)
    }

    each! {
        and(a: u8, b: u8) -> u8 = a & b;
        or(a: u8, b: u8) -> u8 = a | b;
        xor(a: u8, b: u8) -> u8 = a ^ b;
        add_i32(a: i32, b: i32) -> i32 = a + b;
        to_f32(v: i32) -> f32 = v as f32;
        add(a: f32, b: f32) -> f32 = a + b;
        sub(a: f32, b: f32) -> f32 = a - b;
        mul(a: f32, b: f32) -> f32 = a * b;
        div(a: f32, b: f32) -> f32 = a / b;
        mul_add(a: f32, b: f32, c: f32) -> f32 = a * b + c;
        max(a: f32, b: f32) -> f32 = if a > b { a } else { b };
        min(a: f32, b: f32) -> f32 = if a < b { a } else { b };
        abs(v: f32) -> f32 = f32::from_bits(v.to_bits() & 0x7fff_ffff);
        // Adding 1.5 * 2^23 leaves no bits below the unit, so the addition itself rounds.
        round(v: f32) -> f32 = (v + 12_582_912.0) - 12_582_912.0;
        exp2_int(v: f32) -> f32 = f32::from_bits(((v as i32 + 127) as u32) << 23);
    }

    #[inline(always)]
    fn load(self, from: &[u8; 64]) -> [u8; 64] {
        *from
    }
    #[inline(always)]
    fn store(self, v: [u8; 64], to: &mut [u8; 64]) {
        *to = v;
    }
    #[inline(always)]
    fn load_halves(self, low: &[u8; 32], high: &[u8; 32]) -> [u8; 64] {
        core::array::from_fn(|i| if i < 32 { low[i] } else { high[i - 32] })
    }
    #[inline(always)]
    fn load_twice_shifted(self, from: &[u8; 32], low: u32, high: u32) -> [u8; 64] {
        core::array::from_fn(|i| if i < 32 { from[i] >> low } else { from[i - 32] >> high })
    }
    #[inline(always)]
    fn load_nibbles(self, first: &[u8; 16], second: &[u8; 16]) -> [u8; 64] {
        core::array::from_fn(|i| {
            let byte = if i < 32 { first[i % 16] } else { second[i % 16] };
            if i % 32 < 16 { byte & 15 } else { byte >> 4 }
        })
    }
    #[inline(always)]
    fn load_quarters(self, from: &[[u8; 16]; 8], order: [usize; 4]) -> [u8; 64] {
        core::array::from_fn(|i| from[order[i / 16]][i % 16])
    }
    #[inline(always)]
    fn splat4(self, from: &[u8; 4]) -> [u8; 64] {
        core::array::from_fn(|i| from[i % 4])
    }
    #[inline(always)]
    fn splat_byte(self, byte: u8) -> [u8; 64] {
        [byte; 64]
    }
    #[inline(always)]
    fn expand_bits(self, bits: u64, byte: u8) -> [u8; 64] {
        core::array::from_fn(|i| if bits >> i & 1 == 1 { byte } else { 0 })
    }
    #[inline(always)]
    fn shift_right<const BITS: i32>(self, v: [u8; 64]) -> [u8; 64] {
        v.map(|b| b >> BITS)
    }
    #[inline(always)]
    fn shift_left<const BITS: i32>(self, v: [u8; 64]) -> [u8; 64] {
        v.map(|b| b << BITS)
    }
    #[inline(always)]
    fn lookup(self, tables: [&[u8; 16]; 4], indices: [u8; 64]) -> [u8; 64] {
        core::array::from_fn(|i| tables[i / 16][usize::from(indices[i] & 15)])
    }
    #[inline(always)]
    fn prefetch<T>(self, _: &[T], _: usize) {}
    #[inline(always)]
    fn splat_i32(self, x: i32) -> [i32; 16] {
        [x; 16]
    }
    #[inline(always)]
    fn dot_unsigned(self, acc: [i32; 16], codes: [u8; 64], x: [u8; 64]) -> [i32; 16] {
        self.dot_signed(acc, codes, x)
    }
    #[inline(always)]
    fn dot_pairs(self, acc: [i32; 16], a: [u8; 64], b: [u8; 64]) -> [i32; 16] {
        let word = |v: &[u8; 64], i: usize| i32::from(i16::from_le_bytes([v[2 * i], v[2 * i + 1]]));
        core::array::from_fn(|lane| {
            let product = |i| word(&a, i) * word(&b, i);
            acc[lane] + product(2 * lane) + product(2 * lane + 1)
        })
    }
    #[inline(always)]
    fn dot_signed(self, acc: [i32; 16], codes: [u8; 64], x: [u8; 64]) -> [i32; 16] {
        core::array::from_fn(|lane| {
            let quad = 4 * lane..4 * lane + 4;
            let products = codes[quad.clone()]
                .iter()
                .zip(&x[quad])
                .map(|(&c, &x)| i32::from(c as i8) * i32::from(x as i8));
            acc[lane] + products.sum::<i32>()
        })
    }
    #[inline(always)]
    fn load_f32(self, from: &[f32; 16]) -> [f32; 16] {
        *from
    }
    #[inline(always)]
    fn store_f32(self, v: [f32; 16], to: &mut [f32; 16]) {
        *to = v;
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; 16]) -> [f32; 16] {
        from.map(f16_to_f32)
    }
    #[inline(always)]
    fn store_f16(self, v: [f32; 16], to: &mut [u16; 16]) {
        *to = v.map(f32_to_f16);
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; 16]) -> [f32; 16] {
        from.map(f32::from)
    }
    #[inline(always)]
    fn store_i16(self, v: [f32; 16], to: &mut [u8; 32]) {
        for (to, x) in to.as_chunks_mut().0.iter_mut().zip(self.round(v)) {
            *to = (x as i16).to_le_bytes();
        }
    }
    #[inline(always)]
    fn store_i8(self, v: [f32; 16], to: &mut [i8; 16]) {
        *to = self.round(v).map(|x| x as i8);
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    fn spread(self, from: &[f32; 16], lanes: [usize; 4]) -> [f32; 16] {
        core::array::from_fn(|i| from[lanes[i / 4]])
    }
    #[inline(always)]
    fn sum(self, v: [f32; 16]) -> f32 {
        let v: [f32; 8] = core::array::from_fn(|i| v[i] + v[i + 8]);
        let v: [f32; 4] = core::array::from_fn(|i| v[i] + v[i + 4]);
        (v[0] + v[2]) + (v[1] + v[3])
    }
    #[inline(always)]
    fn max_lane(self, v: [f32; 16]) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
}
