//! Normalisation of one token's activations.

use super::math::sqrt;
use crate::isa::{Isa, IsaKind, Op};

/// `out = x / √(mean(x²) + eps) * weight` (RMSNorm, arXiv 1910.07467). Panics unless the lengths agree.
pub fn rms_norm(isa: IsaKind, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len());
    isa.run(Norm { x, weight, bias: None, eps, centred: false, out });
}

/// `out = (x - mean(x)) / √(var(x) + eps) * weight + bias` (arXiv 1607.06450). Panics unless the lengths agree.
pub fn layer_norm(isa: IsaKind, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len() && bias.is_none_or(|b| b.len() == x.len()));
    isa.run(Norm { x, weight, bias, eps, centred: true, out });
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    centred: bool,
    out: &'a mut [f32],
}

impl Op for Norm<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { x, weight, bias, eps, centred, out } = self;
        let len = x.len() as f32;
        let (lines, rest) = x.as_chunks::<16>();

        let mut mean = 0.0;
        if centred {
            let mut sum = isa.splat(0.0);
            for line in lines {
                sum = isa.add(sum, isa.load_f32(line));
            }
            mean = (isa.sum(sum) + rest.iter().sum::<f32>()) / len;
        }
        let shift = isa.splat(mean);
        let mut squares = isa.splat(0.0);
        for line in lines {
            let x = isa.sub(isa.load_f32(line), shift);
            squares = isa.mul_add(x, x, squares);
        }
        let squares = isa.sum(squares) + rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
        let factor = 1.0 / sqrt(squares / len + eps);

        let scale = isa.splat(factor);
        let (weight_lines, weight_rest) = weight.as_chunks::<16>();
        let (out_lines, out_rest) = out.as_chunks_mut::<16>();
        for i in 0..lines.len() {
            let x = isa.mul(isa.sub(isa.load_f32(&lines[i]), shift), scale);
            isa.store_f32(isa.mul(x, isa.load_f32(&weight_lines[i])), &mut out_lines[i]);
        }
        for i in 0..rest.len() {
            out_rest[i] = (rest[i] - mean) * factor * weight_rest[i];
        }
        if let Some(bias) = bias {
            for (y, b) in out.iter_mut().zip(bias) {
                *y += b;
            }
        }
    }
}
