//! Looking for values among many.

use crate::isa::{Isa, IsaKind, Op};

/// The place of the first of `values` that is above `bound`, or that is not a number.
pub fn first_above(isa: IsaKind, values: &[f32], bound: f32) -> Option<usize> {
    isa.run(FirstAbove { values, bound })
}

struct FirstAbove<'a> {
    values: &'a [f32],
    bound: f32,
}

impl Op for FirstAbove<'_> {
    const DOTS: bool = false;

    type Output = Option<usize>;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> Option<usize> {
        let Self { values, bound } = self;
        let zero = isa.splat(0.0);
        for (i, block) in values.chunks(64).enumerate() {
            let (lines, rest) = block.as_chunks::<16>();
            // By how much they are above. What is not a number stays, as the second operand of a maximum and in sums.
            let mut above = zero;
            for line in lines {
                above = isa.add(above, isa.max(zero, isa.sub(isa.load_f32(line), isa.splat(bound))));
            }
            if !rest.is_empty() || isa.sum(above) != 0.0 {
                let place = block.iter().position(|x| x.is_nan() || *x > bound);
                if place.is_some() {
                    return place.map(|place| 64 * i + place);
                }
            }
        }
        None
    }
}
