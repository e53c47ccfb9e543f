//! Small, self-describing forms of weights.

use std::fmt;

use firecrest_kernels::format::float::{f16_to_f32, f32_to_f16};

/// Weights in one of a few simple forms. Files have better ones ([`Format`](crate::gguf::Format)); these can be made from
/// any floats, and taken apart.
///
/// ```
/// use firecrest::memory::QuantizedWeights;
///
/// let weights: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
/// let small = QuantizedWeights::quantize_int4(&weights, 32);
/// assert!(small.size_bytes() * 5 < 64 * 4);
/// let back = small.dequantize_row(0);
/// assert!(weights.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.5 * 1.0 / 15.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum QuantizedWeights {
    /// Floats as they are.
    F32 {
        /// The values, row after row.
        data: Vec<f32>,
        /// Rows and columns.
        shape: (usize, usize),
    },
    /// Half precision.
    F16 {
        /// The bits of the values, row after row.
        data: Vec<u16>,
        /// Rows and columns.
        shape: (usize, usize),
    },
    /// One row of 8-bit integers: `scale * (q - zero_point)`.
    Int8 {
        /// The integers.
        data: Vec<i8>,
        /// One factor for all.
        scale: f32,
        /// The integer that stands for zero.
        zero_point: i8,
    },
    /// 4-bit integers, two in a byte (the first in the low half): `scale * (q - zero_point)` by group. Every row begins
    /// with a byte and a group of its own.
    Int4 {
        /// The integers.
        data: Vec<u8>,
        /// One factor a group.
        scales: Vec<f32>,
        /// The integer from 0 to 15 that stands for zero, for each group.
        zero_points: Vec<u8>,
        /// Values that share a factor; the last group of a row may have fewer.
        group_size: usize,
        /// Rows and columns.
        shape: (usize, usize),
    },
}

/// Why weights are not what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantizedError {
    /// There are more or fewer values than the shape says.
    Length {
        /// Which of the vectors.
        part: &'static str,
        /// How many the shape asks for; `None` where that overflows.
        expected: Option<usize>,
        /// How many there are.
        found: usize,
    },
    /// A group of no values.
    GroupSize,
    /// There is no such row.
    Row {
        /// The row asked for.
        row: usize,
        /// How many there are.
        rows: usize,
    },
}

impl fmt::Display for QuantizedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { part, expected: Some(expected), found } => {
                write!(f, "{part} has {found} entries, expected {expected}")
            }
            Self::Length { part, expected: None, found } => {
                write!(f, "{part} has {found} entries, but the shape overflows")
            }
            Self::GroupSize => f.write_str("groups of 0 values"),
            Self::Row { row, rows } => write!(f, "row {row} of {rows}"),
        }
    }
}

impl std::error::Error for QuantizedError {}

impl QuantizedWeights {
    /// One row of floats.
    pub fn from_f32(weights: &[f32]) -> Self {
        Self::F32 { data: weights.to_vec(), shape: (1, weights.len()) }
    }

    /// One row in half precision: relative error at most 2⁻¹¹ where the values are neither huge nor tiny.
    pub fn quantize_f16(weights: &[f32]) -> Self {
        Self::F16 { data: weights.iter().map(|&w| f32_to_f16(w)).collect(), shape: (1, weights.len()) }
    }

    /// One row in 8 bits, from the smallest to the largest value; the error is at most one step, 1/255 of that range
    /// (which includes zero). A value that is not finite becomes zero.
    pub fn quantize_int8(weights: &[f32]) -> Self {
        let (min, step) = range(weights, 255.0);
        let zero_point = (-128.0 - min / step).round().clamp(-128.0, 127.0);
        let quantize = |w: f32| (finite(w) / step + zero_point).round().clamp(-128.0, 127.0) as i8;
        Self::Int8 {
            data: weights.iter().map(|&w| quantize(w)).collect(),
            scale: step,
            zero_point: zero_point as i8,
        }
    }

    /// One row in 4 bits, `group` values sharing a range that includes zero; the error is at most one step, 1/15 of it.
    /// A `group` of 0 is one of 1; a value that is not finite becomes zero.
    pub fn quantize_int4(weights: &[f32], group: usize) -> Self {
        let group_size = group.max(1);
        let mut data = vec![0; weights.len().div_ceil(2)];
        let (mut scales, mut zero_points) = (Vec::new(), Vec::new());
        for (g, values) in weights.chunks(group_size).enumerate() {
            let (min, step) = range(values, 15.0);
            let zero_point = (-min / step).round().clamp(0.0, 15.0);
            for (i, &w) in values.iter().enumerate() {
                let at = g * group_size + i;
                let q = (finite(w) / step + zero_point).round().clamp(0.0, 15.0) as u8;
                data[at / 2] |= q << (4 * (at % 2));
            }
            scales.push(step);
            zero_points.push(zero_point as u8);
        }
        Self::Int4 { data, scales, zero_points, group_size, shape: (1, weights.len()) }
    }

    /// Number of rows.
    pub fn nrows(&self) -> usize {
        match self {
            Self::F32 { shape, .. } | Self::F16 { shape, .. } | Self::Int4 { shape, .. } => shape.0,
            Self::Int8 { .. } => 1,
        }
    }

    /// Values in a row.
    pub fn ncols(&self) -> usize {
        match self {
            Self::F32 { shape, .. } | Self::F16 { shape, .. } | Self::Int4 { shape, .. } => shape.1,
            Self::Int8 { data, .. } => data.len(),
        }
    }

    /// Bytes that the values and their scales take.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::F32 { data, .. } => data.len() * 4,
            Self::F16 { data, .. } => data.len() * 2,
            Self::Int8 { data, .. } => data.len() + 5,
            Self::Int4 { data, scales, zero_points, .. } => data.len() + scales.len() * 4 + zero_points.len(),
        }
    }

    /// Whether all parts are as long as the shape says: of weights that were put together by hand.
    pub fn validate(&self) -> Result<(), QuantizedError> {
        let check = |part, expected: Option<usize>, found| {
            if expected == Some(found) {
                Ok(())
            } else {
                Err(QuantizedError::Length { part, expected, found })
            }
        };
        match self {
            Self::F32 { data, shape } => check("data", shape.0.checked_mul(shape.1), data.len()),
            Self::F16 { data, shape } => check("data", shape.0.checked_mul(shape.1), data.len()),
            Self::Int8 { .. } => Ok(()),
            Self::Int4 { data, scales, zero_points, group_size, shape } => {
                if *group_size == 0 {
                    return Err(QuantizedError::GroupSize);
                }
                let groups = shape.0.checked_mul(shape.1.div_ceil(*group_size));
                check("data", shape.0.checked_mul(shape.1.div_ceil(2)), data.len())?;
                check("scales", groups, scales.len())?;
                check("zero_points", groups, zero_points.len())
            }
        }
    }

    /// One row, as floats.
    ///
    /// Panics if there is no such row, or if the parts do not fit the shape; see [`QuantizedWeights::try_dequantize_row`].
    pub fn dequantize_row(&self, row: usize) -> Vec<f32> {
        match self.try_dequantize_row(row) {
            Ok(values) => values,
            Err(error) => panic!("{error}"),
        }
    }

    /// One row, as floats; fails if there is no such row, or if the parts do not fit the shape.
    pub fn try_dequantize_row(&self, row: usize) -> Result<Vec<f32>, QuantizedError> {
        self.validate()?;
        if row >= self.nrows() {
            return Err(QuantizedError::Row { row, rows: self.nrows() });
        }
        let columns = self.ncols();
        Ok(match self {
            Self::F32 { data, .. } => data[row * columns..][..columns].to_vec(),
            Self::F16 { data, .. } => {
                data[row * columns..][..columns].iter().map(|&bits| f16_to_f32(bits)).collect()
            }
            Self::Int8 { data, scale, zero_point } => {
                data.iter().map(|&q| scale * (f32::from(q) - f32::from(*zero_point))).collect()
            }
            Self::Int4 { data, scales, zero_points, group_size, .. } => {
                let bytes = &data[row * columns.div_ceil(2)..];
                let first = row * columns.div_ceil(*group_size);
                let value = |c: usize| {
                    let q = bytes[c / 2] >> (4 * (c % 2)) & 15;
                    let group = first + c / group_size;
                    scales[group] * (f32::from(q) - f32::from(zero_points[group]))
                };
                (0..columns).map(value).collect()
            }
        })
    }
}

fn finite(w: f32) -> f32 {
    if w.is_finite() { w } else { 0.0 }
}

/// The smallest value, at most zero, and the step that divides the range up to the largest, at least zero, into `steps`.
fn range(weights: &[f32], steps: f32) -> (f32, f32) {
    let (min, max) =
        weights.iter().fold((0.0f32, 0.0f32), |(min, max), &w| (min.min(finite(w)), max.max(finite(w))));
    // Halves, because the difference of two finite numbers may overflow.
    let step = (max / steps - min / steps).max(f32::MIN_POSITIVE);
    (min, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.3) * 4.0).collect()
    }

    #[track_caller]
    fn check(weights: &[f32], quantized: &QuantizedWeights, tolerance: f32) {
        assert_eq!((quantized.nrows(), quantized.ncols()), (1, weights.len()));
        for (a, b) in weights.iter().zip(quantized.dequantize_row(0)) {
            assert!((a - b).abs() <= tolerance, "{a} became {b}");
        }
    }

    #[test]
    fn every_form_keeps_its_error() {
        for n in [0, 1, 7, 32, 1000] {
            let weights = values(n);
            check(&weights, &QuantizedWeights::from_f32(&weights), 0.0);
            check(&weights, &QuantizedWeights::quantize_f16(&weights), 4.0 / 2048.0);
            check(&weights, &QuantizedWeights::quantize_int8(&weights), 4.0 / 255.0);
            for group in [1, 32, 64] {
                check(&weights, &QuantizedWeights::quantize_int4(&weights, group), 4.0 / 15.0);
            }
        }
        check(&[1e-3; 40], &QuantizedWeights::quantize_int8(&[1e-3; 40]), 1e-5);
    }

    #[test]
    fn zero_stays_zero_and_what_is_not_finite_becomes_it() {
        let weights = [0.0, 1.0, f32::NAN, f32::INFINITY, -0.5];
        let back = QuantizedWeights::quantize_int8(&weights).dequantize_row(0);
        assert_eq!((back[0], back[2], back[3]), (0.0, 0.0, 0.0));
        assert_eq!(QuantizedWeights::quantize_int4(&weights, 8).dequantize_row(0)[2..4], [0.0, 0.0]);
    }

    #[test]
    fn forms_are_made_by_hand() {
        let rows = QuantizedWeights::Int4 {
            data: vec![0x21, 0x03, 0x54, 0x06],
            scales: vec![1.0, 2.0, 3.0, 4.0],
            zero_points: vec![0, 1, 2, 3],
            group_size: 2,
            shape: (2, 3),
        };
        assert_eq!(rows.dequantize_row(0), [1.0, 2.0, 4.0]);
        assert_eq!(rows.dequantize_row(1), [6.0, 9.0, 12.0]);
        assert_eq!(rows.try_dequantize_row(2), Err(QuantizedError::Row { row: 2, rows: 2 }));

        let short = QuantizedWeights::Int8 { data: vec![3, -2], scale: 0.5, zero_point: 1 };
        assert_eq!(short.dequantize_row(0), [1.0, -1.5]);
        let broken = QuantizedWeights::F32 { data: vec![1.0], shape: (usize::MAX, 2) };
        assert!(matches!(broken.try_dequantize_row(0), Err(QuantizedError::Length { expected: None, .. })));
    }
}
