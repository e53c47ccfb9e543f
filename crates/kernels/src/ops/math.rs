//! Elementary functions, on vectors but for the square root.

use crate::isa::Isa;

/// e to the power of each lane, within 2 ULP; zero below -87.3, and at most e^88.
///
/// The argument is `n * ln 2 + r` with `|r| <= ln 2 / 2` (ln 2 in two parts, after Cody and Waite); e^r is its Taylor
/// polynomial of degree 7, whose remainder is below 6e-9.
#[inline(always)]
pub(crate) fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Below the clamp the power of two would leave the normal range: 2^-126 stands for zero.
    let x = isa.min(isa.max(x, isa.splat(-87.336_54)), isa.splat(88.0));
    let n = isa.round(isa.mul(x, isa.splat(core::f32::consts::LOG2_E)));
    let r = isa.mul_add(n, isa.splat(-0.693_359_4), x);
    let r = isa.mul_add(n, isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = isa.mul_add(p, r, isa.splat(c));
    }
    isa.mul(p, isa.exp2_int(n))
}

/// The logistic function of each lane.
#[inline(always)]
pub(crate) fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    isa.div(one, isa.add(one, exp(isa, isa.sub(isa.splat(0.0), x))))
}

/// The error function of each lane, within 2e-7 (Abramowitz and Stegun, formula 7.1.26, in the form with `exp`).
#[inline(always)]
pub(crate) fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let size = isa.abs(x);
    let t = isa.div(one, isa.mul_add(isa.splat(0.327_591_1), size, one));
    let mut p = isa.splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = isa.mul_add(p, t, isa.splat(c));
    }
    let tail = isa.mul(isa.mul(p, t), exp(isa, isa.sub(isa.splat(0.0), isa.mul(size, size))));
    let positive = isa.sub(one, tail);
    // erf is odd: the sign of x, as x / |x| away from zero.
    let sign = isa.max(isa.min(isa.mul(x, isa.splat(1e30)), one), isa.splat(-1.0));
    isa.mul(positive, sign)
}

/// The square root without `std`: an estimate from the exponent, refined by Newton's steps in `f64` until exact.
#[cfg(not(feature = "std"))]
pub(crate) fn sqrt(x: f32) -> f32 {
    if x <= 0.0 || !x.is_finite() {
        return if x == 0.0 || x == f32::INFINITY { x } else { f32::NAN };
    }
    let x = f64::from(x);
    let mut y = f64::from_bits((x.to_bits() >> 1) + (1023 << 51));
    for _ in 0..4 {
        y = 0.5 * (y + x / y);
    }
    y as f32
}

/// The square root.
#[cfg(feature = "std")]
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    x.sqrt()
}
