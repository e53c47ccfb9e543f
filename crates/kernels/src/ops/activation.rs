//! Activation functions of feed-forward layers.

use super::MatrixMut;
use super::math::{erf, exp, sigmoid};
use crate::isa::{Isa, IsaKind, Op};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// `x / (1 + e^-x)`, also called swish.
    Silu,
    /// `x · Φ(x)` with the error function.
    Gelu,
    /// The tanh approximation of [`Activation::Gelu`].
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    GeluQuick,
    /// `x`.
    Identity,
}

impl Activation {
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        match self {
            Activation::Relu => isa.max(x, isa.splat(0.0)),
            Activation::Relu2 => {
                let x = isa.max(x, isa.splat(0.0));
                isa.mul(x, x)
            }
            Activation::Silu => isa.mul(x, sigmoid(isa, x)),
            Activation::Gelu => {
                let half = isa.mul(x, isa.splat(0.5));
                isa.mul_add(half, erf(isa, isa.mul(x, isa.splat(core::f32::consts::FRAC_1_SQRT_2))), half)
            }
            Activation::GeluTanh => {
                // 0.5 x (1 + tanh u) = x sigmoid(2 u)
                let cube = isa.mul(isa.mul(x, x), x);
                let u = isa.mul_add(cube, isa.splat(0.044_715), x);
                let doubled = isa.mul(u, isa.splat(1.595_769));
                isa.mul(x, sigmoid(isa, doubled))
            }
            Activation::GeluQuick => isa.mul(x, sigmoid(isa, isa.mul(x, isa.splat(1.702)))),
            Activation::Identity => x,
        }
    }
}

/// Applies `activation` to each value.
pub fn activate(isa: IsaKind, activation: Activation, x: &mut [f32]) {
    isa.run(Activate { activation, x, up: None });
}

/// `gate = activation(gate) * up`, elementwise. Panics unless both have one length.
pub fn activate_gated(isa: IsaKind, activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    isa.run(Activate { activation, x: gate, up: Some(up) });
}

/// `x[t] = activation(x[t] + bias)` for each row of `x`.
///
/// Panics if there is a `bias` of another length than rows have.
pub fn activate_rows(isa: IsaKind, activation: Activation, bias: Option<&[f32]>, x: MatrixMut<'_>) {
    assert!(bias.is_none_or(|bias| bias.len() == x.columns()));
    isa.run(ActivateRows { activation, bias, x });
}

struct ActivateRows<'a> {
    activation: Activation,
    bias: Option<&'a [f32]>,
    x: MatrixMut<'a>,
}

impl Op for ActivateRows<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { activation, bias, mut x } = self;
        for t in 0..x.rows() {
            let row = x.row_mut(t);
            if let Some(bias) = bias {
                row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
            if activation != Activation::Identity {
                isa.call(Activate { activation, x: row, up: None });
            }
        }
    }
}

struct Activate<'a> {
    activation: Activation,
    x: &'a mut [f32],
    up: Option<&'a [f32]>,
}

impl Op for Activate<'_> {
    const DOTS: bool = false;

    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // The function is chosen here, outside of the loop.
        match self.activation {
            Activation::Relu => self.each(isa, Activation::Relu),
            Activation::Relu2 => self.each(isa, Activation::Relu2),
            Activation::Silu => self.each(isa, Activation::Silu),
            Activation::Gelu => self.each(isa, Activation::Gelu),
            Activation::GeluTanh => self.each(isa, Activation::GeluTanh),
            Activation::GeluQuick => self.each(isa, Activation::GeluQuick),
            Activation::Identity => self.each(isa, Activation::Identity),
        }
    }
}

impl Activate<'_> {
    #[inline(always)]
    fn each<I: Isa>(self, isa: I, activation: Activation) {
        let Self { x, up, .. } = self;
        let (lines, rest) = x.as_chunks_mut::<16>();
        let (up_lines, up_rest) = up.map_or((None, None), |up| {
            let (lines, rest) = up.as_chunks::<16>();
            (Some(lines), Some(rest))
        });
        for (i, line) in lines.iter_mut().enumerate() {
            step(isa, activation, line, up_lines.map(|up| &up[i]));
        }
        if !rest.is_empty() {
            let (mut line, mut up_line) = ([0.0; 16], [0.0; 16]);
            line[..rest.len()].copy_from_slice(rest);
            if let Some(up) = up_rest {
                up_line[..up.len()].copy_from_slice(up);
            }
            step(isa, activation, &mut line, up_rest.map(|_| &up_line));
            rest.copy_from_slice(&line[..rest.len()]);
        }
    }
}

#[inline(always)]
fn step<I: Isa>(isa: I, activation: Activation, x: &mut [f32; 16], up: Option<&[f32; 16]>) {
    let y = activation.eval(isa, isa.load_f32(x));
    isa.store_f32(if let Some(up) = up { isa.mul(y, isa.load_f32(up)) } else { y }, x);
}

/// `x[i] = e^(x[i] - shift)`; returns the sum of each lane.
#[inline(always)]
pub(super) fn exp_lanes<I: Isa>(isa: I, x: &mut [[f32; 16]], shift: f32) -> I::F32 {
    let mut sum = isa.splat(0.0);
    for line in x {
        let y = exp(isa, isa.sub(isa.load_f32(line), isa.splat(shift)));
        isa.store_f32(y, line);
        sum = isa.add(sum, y);
    }
    sum
}
