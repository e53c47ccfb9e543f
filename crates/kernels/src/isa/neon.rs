//! NEON on 64-bit Arm, with and without the dot-product instructions: four registers of 16 bytes a vector.
#![allow(unsafe_code)]

use core::arch::aarch64::*;
use core::arch::asm;

use super::Op;
use super::parts::EXPONENT;

#[cfg(feature = "std")]
fn has_dot() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}
#[cfg(not(feature = "std"))]
fn has_dot() -> bool {
    cfg!(target_feature = "dotprod")
}

/// NEON as every 64-bit Arm processor has it.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

/// NEON with `sdot` (Armv8.2 with dotprod: Cortex-A76, Apple M1, Graviton 2 and later).
#[derive(Clone, Copy, Debug)]
pub struct NeonDot(());

impl Neon {
    /// A value; every processor of this architecture has NEON.
    pub fn detect() -> Option<Self> {
        Some(Self(()))
    }

    /// Runs an operation.
    #[inline(never)]
    pub fn run<O: Op>(self, op: O) -> O::Output {
        op.eval(self)
    }

    #[inline(always)]
    fn dot_signed1(self, acc: int32x4_t, codes: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of the architecture.
        unsafe {
            let (codes, x) = (vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(x));
            // Products of 8 bits fill 16; adding pairs of them widens to 32.
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(codes, x));
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }
}

impl NeonDot {
    /// A value, if this processor has the instructions.
    pub fn detect() -> Option<Self> {
        has_dot().then_some(Self(()))
    }

    /// Runs an operation, compiled with the features.
    #[inline]
    pub fn run<O: Op>(self, op: O) -> O::Output {
        if const { !O::DOTS } {
            return Neon(()).run(op);
        }
        #[target_feature(enable = "dotprod")]
        #[inline(never)]
        fn enter<O: Op>(isa: NeonDot, op: O) -> O::Output {
            op.eval(isa)
        }
        // SAFETY: a value of this type exists only where the feature was detected.
        unsafe { enter(self, op) }
    }

    #[inline(always)]
    fn dot_signed1(self, acc: int32x4_t, codes: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        let mut acc = acc;
        // SAFETY: `self` proves that the instruction exists; it touches registers alone.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {codes:v}.16b, {x:v}.16b",
                acc = inout(vreg) acc, codes = in(vreg) codes, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }
}

/// Vector steps as methods; NEON is part of the architecture, and memory is reached only through references to arrays
/// of the full width.
macro_rules! steps {
    ($(fn $name:ident $(<const $param:ident: $ty:ty>)? ($self:ident $(, $arg:ident: $in:ty)*) $(-> $out:ty)? = $body:expr;)+) => {$(
        #[inline(always)]
        fn $name $(<const $param: $ty>)? ($self $(, $arg: $in)*) $(-> $out)? {
            // SAFETY: as said on the macro.
            unsafe { $body }
        }
    )+};
}

macro_rules! neon {
    ($isa:ident = $name:literal) => {
        impl $isa {
            steps! {
                fn load1(self, from: &[u8; 16]) -> uint8x16_t = vld1q_u8(from.as_ptr());
                fn store1(self, v: uint8x16_t, to: &mut [u8; 16]) = vst1q_u8(to.as_mut_ptr(), v);
                fn splat_byte1(self, byte: u8) -> uint8x16_t = vdupq_n_u8(byte);
                fn splat41(self, from: [u8; 4]) -> uint8x16_t =
                    vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(from)));
                fn and1(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t = vandq_u8(a, b);
                fn or1(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t = vorrq_u8(a, b);
                fn xor1(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t = veorq_u8(a, b);
                fn shift_right_by1(self, v: uint8x16_t, bits: u32) -> uint8x16_t =
                    vshlq_u8(v, vdupq_n_s8(-(bits as i8)));
                fn shift_right1<const BITS: i32>(self, v: uint8x16_t) -> uint8x16_t = vshlq_u8(v, vdupq_n_s8(-(BITS as i8)));
                fn shift_left1<const BITS: i32>(self, v: uint8x16_t) -> uint8x16_t = vshlq_u8(v, vdupq_n_s8(BITS as i8));
                fn lookup1(self, table: uint8x16_t, indices: uint8x16_t) -> uint8x16_t = vqtbl1q_u8(table, indices);
                fn interleave41(self, rows: [uint8x16_t; 4]) -> [uint8x16_t; 4] = {
                    let words = |a, b| [vreinterpretq_u16_u8(vzip1q_u8(a, b)), vreinterpretq_u16_u8(vzip2q_u8(a, b))];
                    let ([low_a, high_a], [low_b, high_b]) = (words(rows[0], rows[1]), words(rows[2], rows[3]));
                    [
                        vreinterpretq_u8_u16(vzip1q_u16(low_a, low_b)),
                        vreinterpretq_u8_u16(vzip2q_u16(low_a, low_b)),
                        vreinterpretq_u8_u16(vzip1q_u16(high_a, high_b)),
                        vreinterpretq_u8_u16(vzip2q_u16(high_a, high_b)),
                    ]
                };
                fn transpose41(self, rows: [uint8x16_t; 4]) -> [uint8x16_t; 4] = {
                    let [a, b, c, d] = rows.map(|row| vreinterpretq_u32_u8(row));
                    let pairs = |a, b| [vreinterpretq_u64_u32(vzip1q_u32(a, b)), vreinterpretq_u64_u32(vzip2q_u32(a, b))];
                    let ([low_a, high_a], [low_b, high_b]) = (pairs(a, b), pairs(c, d));
                    [
                        vreinterpretq_u8_u64(vzip1q_u64(low_a, low_b)),
                        vreinterpretq_u8_u64(vzip2q_u64(low_a, low_b)),
                        vreinterpretq_u8_u64(vzip1q_u64(high_a, high_b)),
                        vreinterpretq_u8_u64(vzip2q_u64(high_a, high_b)),
                    ]
                };
                fn expand_bits1(self, bits: u32, byte: u8) -> uint8x16_t = {
                    let spread = vcombine_u8(vdup_n_u8(bits as u8), vdup_n_u8((bits >> 8) as u8));
                    let own = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
                    vandq_u8(vtstq_u8(spread, own), vdupq_n_u8(byte))
                };

                fn splat_i321(self, x: i32) -> int32x4_t = vdupq_n_s32(x);
                fn add_i321(self, a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
                fn dot_pairs1(self, acc: int32x4_t, a: uint8x16_t, b: uint8x16_t) -> int32x4_t = {
                    let (a, b) = (vreinterpretq_s16_u8(a), vreinterpretq_s16_u8(b));
                    let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
                    vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, b)))
                };
                fn to_f321(self, v: int32x4_t) -> float32x4_t = vcvtq_f32_s32(v);

                fn load_f321(self, from: &[f32; 4]) -> float32x4_t = vld1q_f32(from.as_ptr());
                fn store_f321(self, v: float32x4_t, to: &mut [f32; 4]) = vst1q_f32(to.as_mut_ptr(), v);
                fn load_f161(self, from: &[u16; 4]) -> float32x4_t = {
                    let halves = vld1_u16(from.as_ptr());
                    let out: float32x4_t;
                    asm!("fcvtl {out:v}.4s, {halves:v}.4h", out = lateout(vreg) out, halves = in(vreg) halves,
                        options(pure, nomem, nostack, preserves_flags));
                    out
                };
                fn store_f161(self, v: float32x4_t, to: &mut [u16; 4]) = {
                    let halves: uint16x4_t;
                    asm!("fcvtn {halves:v}.4h, {v:v}.4s", halves = lateout(vreg) halves, v = in(vreg) v,
                        options(pure, nomem, nostack, preserves_flags));
                    vst1_u16(to.as_mut_ptr(), halves)
                };
                fn load_i81(self, from: &[i8; 4]) -> float32x4_t = {
                    let bytes = vcreate_s8(u64::from(u32::from_le_bytes(from.map(|b| b as u8))));
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
                };
                fn splat1(self, x: f32) -> float32x4_t = vdupq_n_f32(x);
                fn add1(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
                fn sub1(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
                fn mul1(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
                fn div1(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
                fn mul_add1(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
                // As on x86, the second operand wins where one is not a number.
                fn max1(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
                fn min1(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
                fn abs1(self, v: float32x4_t) -> float32x4_t = vabsq_f32(v);
                fn round1(self, v: float32x4_t) -> float32x4_t = vrndnq_f32(v);
                fn exp2_int1(self, v: float32x4_t) -> float32x4_t =
                    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vreinterpretq_s32_f32(vaddq_f32(v, vdupq_n_f32(EXPONENT)))));
                fn sum1(self, v: float32x4_t) -> f32 = {
                    let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
                    vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
                };
                fn max_lane1(self, v: float32x4_t) -> f32 = vmaxvq_f32(v);
            }

            // Codes stay below 128, so both kinds are the signed product.
            #[inline(always)]
            fn dot_unsigned1(self, acc: int32x4_t, codes: uint8x16_t, x: uint8x16_t) -> int32x4_t {
                self.dot_signed1(acc, codes, x)
            }
            #[inline(always)]
            fn prefetch1<T>(self, items: &[T], at: usize) {
                // SAFETY: a prefetch never faults.
                unsafe {
                    asm!("prfm pldl1keep, [{p}]", p = in(reg) items.as_ptr().wrapping_byte_add(at),
                        options(nostack, preserves_flags, readonly));
                }
            }
        }

        crate::isa::parts::isa_by_parts! {
            $isa = $name, 4 registers of 16 bytes, rows 4, tokens 4, uint8x16_t, int32x4_t, float32x4_t;

            // With a vector of sums a row, four rows would take all 32 registers.
            const ROW_A_QUARTER: bool = true;
            const PAIRS: bool = false;

            steps! {
                fn store_i8(self, v: [float32x4_t; 4], to: &mut [i8; 16]) = {
                    let [low, high] = words(v);
                    vst1q_s8(to.as_mut_ptr(), vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)))
                };
                fn store_i16(self, v: [float32x4_t; 4], to: &mut [u8; 32]) = {
                    let (low, high) = to.split_at_mut(16);
                    let words = words(v);
                    vst1q_s16(low.as_mut_ptr().cast(), words[0]);
                    vst1q_s16(high.as_mut_ptr().cast(), words[1])
                };
            }
        }
    };
}

/// Rounds to 16-bit words.
///
/// # Safety
/// NEON must be there.
#[inline(always)]
unsafe fn words([a, b, c, d]: [float32x4_t; 4]) -> [int16x8_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let word = |v| vqmovn_s32(vcvtnq_s32_f32(v));
        [vcombine_s16(word(a), word(b)), vcombine_s16(word(c), word(d))]
    }
}

neon!(Neon = "neon-nodot");
neon!(NeonDot = "neon");
