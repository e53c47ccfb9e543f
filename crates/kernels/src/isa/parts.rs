//! Vectors of 64 bytes made of two or four registers.

/// Added to a whole number from -126 to 127, leaves in the last bits of the sum the exponent of 2 to its power.
pub(super) const EXPONENT: f32 = super::ONES + 127.0;

/// Implements `Isa` for `$isa` from steps on one register, which are its inherent methods of the same names with `1`
/// at the end. A register is `$width` bytes, a vector `$n` of them. Methods that follow take the place of the trait's own.
macro_rules! isa_by_parts {
    (
        $isa:ident = $name:literal, $n:tt registers of $width:literal bytes, rows $rows:literal, tokens $tokens:literal,
        $bytes:ty, $i32:ty, $f32:ty $(; $($better:tt)+)?
    ) => {
        impl $isa {
            /// Register `i` of a vector in memory.
            #[inline(always)]
            fn part<T, const LEN: usize, const PART: usize>(v: &[T; LEN], i: usize) -> &[T; PART] {
                &v.as_chunks::<PART>().0[i]
            }

            #[inline(always)]
            fn part_mut<T, const LEN: usize, const PART: usize>(
                v: &mut [T; LEN],
                i: usize,
            ) -> &mut [T; PART] {
                &mut v.as_chunks_mut::<PART>().0[i]
            }
        }

        impl $crate::isa::Isa for $isa {
            const NAME: &'static str = $name;
            const ROWS: usize = $rows;
            const TOKENS: usize = $tokens;
            const SIGNED_BIAS: u8 = 0;

            $($($better)+)?

            type Bytes = [$bytes; $n];
            type I32 = [$i32; $n];
            type F32 = [$f32; $n];

            #[inline(always)]
            fn call<O: $crate::isa::Op>(self, op: O) -> O::Output {
                self.run(op)
            }

            $crate::isa::parts::each_part! { $n,
                and(a: Bytes, b: Bytes) -> Bytes = and1;
                or(a: Bytes, b: Bytes) -> Bytes = or1;
                xor(a: Bytes, b: Bytes) -> Bytes = xor1;
                add_i32(a: I32, b: I32) -> I32 = add_i321;
                dot_unsigned(acc: I32, codes: Bytes, x: Bytes) -> I32 = dot_unsigned1;
                dot_signed(acc: I32, codes: Bytes, x: Bytes) -> I32 = dot_signed1;
                dot_pairs(acc: I32, a: Bytes, b: Bytes) -> I32 = dot_pairs1;
                to_f32(v: I32) -> F32 = to_f321;
                add(a: F32, b: F32) -> F32 = add1;
                sub(a: F32, b: F32) -> F32 = sub1;
                mul(a: F32, b: F32) -> F32 = mul1;
                div(a: F32, b: F32) -> F32 = div1;
                mul_add(a: F32, b: F32, c: F32) -> F32 = mul_add1;
                max(a: F32, b: F32) -> F32 = max1;
                min(a: F32, b: F32) -> F32 = min1;
                abs(v: F32) -> F32 = abs1;
                round(v: F32) -> F32 = round1;
                exp2_int(v: F32) -> F32 = exp2_int1;
            }

            #[inline(always)]
            fn load(self, from: &[u8; 64]) -> Self::Bytes {
                let mut out = [self.splat_byte1(0); $n];
                for i in 0..$n {
                    out[i] = self.load1(Self::part(from, i));
                }
                out
            }
            #[inline(always)]
            fn store(self, v: Self::Bytes, to: &mut [u8; 64]) {
                for i in 0..$n {
                    self.store1(v[i], Self::part_mut(to, i));
                }
            }
            #[inline(always)]
            fn load_halves(self, low: &[u8; 32], high: &[u8; 32]) -> Self::Bytes {
                $crate::isa::parts::load_halves!($n, self, low, high)
            }
            #[inline(always)]
            fn load_twice_shifted(self, from: &[u8; 32], low: u32, high: u32) -> Self::Bytes {
                let mut out = [self.splat_byte1(0); $n];
                for i in 0..$n / 2 {
                    let part = self.load1(Self::part(from, i));
                    out[i] = self.shift_right_by1(part, low);
                    out[i + $n / 2] = self.shift_right_by1(part, high);
                }
                out
            }
            #[inline(always)]
            fn load_nibbles(self, first: &[u8; 16], second: &[u8; 16]) -> Self::Bytes {
                $crate::isa::parts::load_nibbles!($n, self, first, second)
            }
            #[inline(always)]
            fn load_quarters(self, from: &[[u8; 16]; 8], order: [usize; 4]) -> Self::Bytes {
                $crate::isa::parts::load_quarters!($n, self, order.map(|i| &from[i]))
            }
            #[inline(always)]
            fn splat4(self, from: &[u8; 4]) -> Self::Bytes {
                [self.splat41(*from); $n]
            }
            #[inline(always)]
            fn splat_byte(self, byte: u8) -> Self::Bytes {
                [self.splat_byte1(byte); $n]
            }
            #[inline(always)]
            fn expand_bits(self, bits: u64, byte: u8) -> Self::Bytes {
                let mut out = [self.splat_byte1(0); $n];
                for i in 0..$n {
                    out[i] = self.expand_bits1((bits >> (i * $width)) as u32, byte);
                }
                out
            }
            #[inline(always)]
            fn shift_right<const BITS: i32>(self, v: Self::Bytes) -> Self::Bytes {
                let mut out = v;
                for i in 0..$n {
                    out[i] = self.shift_right1::<BITS>(v[i]);
                }
                out
            }
            #[inline(always)]
            fn shift_left<const BITS: i32>(self, v: Self::Bytes) -> Self::Bytes {
                let mut out = v;
                for i in 0..$n {
                    out[i] = self.shift_left1::<BITS>(v[i]);
                }
                out
            }
            #[inline(always)]
            fn lookup(self, tables: [&[u8; 16]; 4], indices: Self::Bytes) -> Self::Bytes {
                let mut out = $crate::isa::parts::load_quarters!($n, self, tables);
                for i in 0..$n {
                    out[i] = self.lookup1(out[i], indices[i]);
                }
                out
            }
            #[inline(always)]
            fn interleave4(self, rows: [Self::Bytes; 4]) -> [Self::Bytes; 4] {
                let mut out = rows;
                for i in 0..$n {
                    for (out, part) in out.iter_mut().zip(self.interleave41(rows.map(|row| row[i]))) {
                        out[i] = part;
                    }
                }
                out
            }
            #[inline(always)]
            fn transpose_quads(self, rows: &[[u8; 64]; 16], out: &mut [[u8; 64]; 16]) {
                for (four, rows) in rows.as_chunks::<4>().0.iter().enumerate() {
                    for i in 0..$n {
                        let parts = [0, 1, 2, 3].map(|r| Self::part(&rows[r], i));
                        let mut columns = [self.splat_byte1(0); 4];
                        for r in 0..4 {
                            columns[r] = self.load1(parts[r]);
                        }
                        columns = self.transpose41(columns);
                        for c in 0..4 {
                            let mut lanes = [0; $width];
                            self.store1(columns[c], &mut lanes);
                            for (lane, quads) in lanes.as_chunks::<16>().0.iter().enumerate() {
                                out[$width / 4 * i + 4 * lane + c].as_chunks_mut::<16>().0[four] = *quads;
                            }
                        }
                    }
                }
            }
            #[inline(always)]
            fn prefetch<T>(self, items: &[T], at: usize) {
                self.prefetch1(items, at);
            }
            #[inline(always)]
            fn splat_i32(self, x: i32) -> Self::I32 {
                [self.splat_i321(x); $n]
            }
            #[inline(always)]
            fn load_f32(self, from: &[f32; 16]) -> Self::F32 {
                let mut out = [self.splat1(0.0); $n];
                for i in 0..$n {
                    out[i] = self.load_f321(Self::part(from, i));
                }
                out
            }
            #[inline(always)]
            fn store_f32(self, v: Self::F32, to: &mut [f32; 16]) {
                for i in 0..$n {
                    self.store_f321(v[i], Self::part_mut(to, i));
                }
            }
            #[inline(always)]
            fn load_f16(self, from: &[u16; 16]) -> Self::F32 {
                let mut out = [self.splat1(0.0); $n];
                for i in 0..$n {
                    out[i] = self.load_f161(Self::part(from, i));
                }
                out
            }
            #[inline(always)]
            fn store_f16(self, v: Self::F32, to: &mut [u16; 16]) {
                for i in 0..$n {
                    self.store_f161(v[i], Self::part_mut(to, i));
                }
            }
            #[inline(always)]
            fn load_i8(self, from: &[i8; 16]) -> Self::F32 {
                let mut out = [self.splat1(0.0); $n];
                for i in 0..$n {
                    out[i] = self.load_i81(Self::part(from, i));
                }
                out
            }
            #[inline(always)]
            fn splat(self, x: f32) -> Self::F32 {
                [self.splat1(x); $n]
            }
            #[inline(always)]
            fn spread(self, from: &[f32; 16], lanes: [usize; 4]) -> Self::F32 {
                $crate::isa::parts::spread!($n, self, lanes.map(|lane| from[lane]))
            }
            #[inline(always)]
            fn sum(self, v: Self::F32) -> f32 {
                self.sum1($crate::isa::parts::fold!($n, self, v, add1))
            }
            #[inline(always)]
            fn max_lane(self, v: Self::F32) -> f32 {
                self.max_lane1($crate::isa::parts::fold!($n, self, v, max1))
            }
        }
    };
}

macro_rules! each_part {
    ($n:tt, $($name:ident($first:ident: $first_ty:ident $(, $arg:ident: $in:ident)*) -> $out:ident = $one:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $first: Self::$first_ty $(, $arg: Self::$in)*) -> Self::$out {
            let mut out = [self.$one($first[0] $(, $arg[0])*); $n];
            for i in 1..$n {
                out[i] = self.$one($first[i] $(, $arg[i])*);
            }
            out
        }
    )+};
}

macro_rules! load_nibbles {
    (2, $isa:ident, $first:ident, $second:ident) => {
        [$isa.load_nibbles1($first), $isa.load_nibbles1($second)]
    };
    (4, $isa:ident, $first:ident, $second:ident) => {{
        let (mask, a, b) = ($isa.splat_byte1(15), $isa.load1($first), $isa.load1($second));
        let (high_a, high_b) = ($isa.shift_right1::<4>(a), $isa.shift_right1::<4>(b));
        [$isa.and1(a, mask), $isa.and1(high_a, mask), $isa.and1(b, mask), $isa.and1(high_b, mask)]
    }};
}

/// Not a loop: that would become a copy of memory, which compilers for WebAssembly do by way of other registers.
macro_rules! load_halves {
    (2, $isa:ident, $low:ident, $high:ident) => {
        [$isa.load1($low), $isa.load1($high)]
    };
    (4, $isa:ident, $low:ident, $high:ident) => {
        [
            $isa.load1(Self::part($low, 0)),
            $isa.load1(Self::part($low, 1)),
            $isa.load1(Self::part($high, 0)),
            $isa.load1(Self::part($high, 1)),
        ]
    };
}

macro_rules! load_quarters {
    (2, $isa:ident, $quarters:expr) => {{
        let [a, b, c, d] = $quarters;
        [$isa.load_two1(a, b), $isa.load_two1(c, d)]
    }};
    (4, $isa:ident, $quarters:expr) => {
        $quarters.map(|quarter| $isa.load1(quarter))
    };
}

macro_rules! spread {
    (2, $isa:ident, $values:expr) => {{
        let [a, b, c, d] = $values;
        [$isa.splat_two1(a, b), $isa.splat_two1(c, d)]
    }};
    (4, $isa:ident, $values:expr) => {
        $values.map(|value| $isa.splat1(value))
    };
}

macro_rules! fold {
    (2, $isa:ident, $v:ident, $op:ident) => {
        $isa.$op($v[0], $v[1])
    };
    (4, $isa:ident, $v:ident, $op:ident) => {
        $isa.$op($isa.$op($v[0], $v[2]), $isa.$op($v[1], $v[3]))
    };
}

pub(super) use {each_part, fold, isa_by_parts, load_halves, load_nibbles, load_quarters, spread};
