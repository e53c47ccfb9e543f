//! Tensors of a file, found by name and checked.

use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops;

use super::spec::NormSpec;
use super::weights::LoadError;
use crate::backend::{Buffer, Matrix, Output};
use crate::gguf::{Gguf, TensorInfo};

/// The most values that a vector of weights may have: what a hostile file can make us allocate at once.
const MAX_VECTOR: usize = 1 << 24;

/// A norm with its weights.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    spec: NormSpec,
    /// Values that are normalised together.
    len: usize,
    /// For one group, or for several with weights of their own.
    weight: Vec<f32>,
    /// As long as `weight`.
    bias: Option<Vec<f32>>,
}

impl Norm {
    /// Values that it normalises together.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Normalises one token.
    pub(crate) fn apply(&self, isa: IsaKind, x: &[f32], out: &mut [f32]) {
        self.apply_group(isa, 0, x, out);
    }

    /// Normalises a group of the values of a token, such as a head.
    pub(crate) fn apply_group(&self, isa: IsaKind, group: usize, x: &[f32], out: &mut [f32]) {
        let start = group * self.len % self.weight.len().max(1);
        let part = start..start + self.len;
        let weight = &self.weight[part.clone()];
        match self.spec {
            NormSpec::Rms { eps } => ops::rms_norm(isa, x, weight, eps, out),
            NormSpec::Layer { eps } => {
                let bias = self.bias.as_ref().map(|bias| &bias[part]);
                ops::layer_norm(isa, x, weight, bias, eps, out);
            }
        }
    }
}

/// A matrix and what is added to its product.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Linear {
    /// The product with an input, into `out`.
    pub(crate) fn onto<'a>(&'a self, out: &'a mut Buffer) -> Output<'a> {
        Output { matrix: &self.matrix, bias: self.bias.as_deref(), out }
    }

    /// Some of the rows, in place.
    fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        Self {
            bias: self.bias.as_ref().map(|bias| bias[rows.clone()].to_vec()),
            matrix: self.matrix.slice(rows),
        }
    }
}

/// Reads a tensor of `len` values as floats, if there is one.
pub(crate) fn optional_vector(gguf: &Gguf, name: &str, len: usize) -> Result<Option<Vec<f32>>, LoadError> {
    optional_values(gguf, name, &[len])
}

/// Reads a small tensor of this shape as floats, if there is one.
fn optional_values(gguf: &Gguf, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, LoadError> {
    let Some(info) = gguf.tensor(name) else { return Ok(None) };
    check_shape(info, shape)?;
    // The product cannot overflow: the file's reader has checked that the tensor fits the file.
    let len = shape.iter().product();
    if len > MAX_VECTOR {
        return Err(LoadError::Shape {
            tensor: name.into(),
            expected: vec![MAX_VECTOR],
            found: shape.to_vec(),
        });
    }
    let mut values = vec![0.0; len];
    info.format.dequantize(&gguf.tensor_bytes(info), &mut values);
    Ok(Some(values))
}

/// Looks tensors up.
pub(super) struct Tensors<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) norm: NormSpec,
}

impl Tensors<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    fn find(&self, name: &str) -> Result<&TensorInfo, LoadError> {
        self.gguf.tensor(name).ok_or_else(|| missing(name))
    }

    /// A matrix of `[rows, columns]`.
    pub(super) fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        let info = self.find(name)?;
        check_shape(info, &[columns, rows])?;
        if rows == 0 {
            // A list of widths may hold a zero, which no product works with.
            return Err(LoadError::Shape {
                tensor: name.into(),
                expected: vec![columns, 1],
                found: info.shape.clone(),
            });
        }
        Matrix::new(self.gguf.tensor_bytes(info), info.format, rows, columns).ok_or_else(|| missing(name))
    }

    /// `count` matrices of `[rows, columns]` in one tensor.
    pub(super) fn matrices(
        &self,
        name: &str,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<Matrix>, LoadError> {
        let info = self.find(name)?;
        check_shape(info, &[columns, rows, count])?;
        let all = Matrix::new(self.gguf.tensor_bytes(info), info.format, rows * count, columns)
            .ok_or_else(|| missing(name))?;
        Ok((0..count).map(|i| all.slice(i * rows..(i + 1) * rows)).collect())
    }

    /// A matrix, and the bias if the file has one.
    pub(super) fn linear(&self, name: &str, rows: usize, columns: usize) -> Result<Linear, LoadError> {
        let matrix = self.matrix(&format!("{name}.weight"), rows, columns)?;
        Ok(Linear { matrix, bias: optional_vector(self.gguf, &format!("{name}.bias"), rows)? })
    }

    /// The parts of one matrix that holds several, with `rows` each.
    pub(super) fn fused<const N: usize>(
        &self,
        name: &str,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[Linear; N], LoadError> {
        let whole = self.linear(name, rows.iter().sum(), columns)?;
        let mut start = 0;
        Ok(rows.map(|rows| {
            start += rows;
            whole.rows(start - rows..start)
        }))
    }

    /// Small weights of this shape, fastest dimension first.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        optional_values(self.gguf, name, shape)?.ok_or_else(|| missing(name))
    }

    pub(super) fn norm(&self, name: &str, len: usize) -> Result<Norm, LoadError> {
        self.group_norm(name, len, 1)
    }

    /// A norm of `groups` groups of `len` values, each with weights of its own.
    pub(super) fn group_norm(&self, name: &str, len: usize, groups: usize) -> Result<Norm, LoadError> {
        // One group is a vector; several are a matrix.
        let weight = self.values(&format!("{name}.weight"), &[len, groups])?;
        let bias = optional_values(self.gguf, &format!("{name}.bias"), &[len, groups])?;
        Ok(Norm { spec: self.norm, len, weight, bias })
    }
}

fn missing(tensor: &str) -> LoadError {
    LoadError::MissingTensor { tensor: tensor.into() }
}

/// Compares a shape, fastest dimension first; missing dimensions count as 1.
fn check_shape(info: &TensorInfo, expected: &[usize]) -> Result<(), LoadError> {
    let dims = info.shape.len().max(expected.len());
    let at = |shape: &[usize], i: usize| shape.get(i).copied().unwrap_or(1);
    if (0..dims).all(|i| at(&info.shape, i) == at(expected, i)) {
        return Ok(());
    }
    Err(LoadError::Shape {
        tensor: info.name.clone(),
        expected: expected.to_vec(),
        found: info.shape.clone(),
    })
}
