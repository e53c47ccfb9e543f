use super::error::{SparseError, check_finite, check_len, check_size};
use crate::backend::Matrix;
use crate::gguf::{Format, Gguf};
use crate::memory::QuantizedWeights;
use crate::weights::Bytes;

/// A matrix of weights in any tensor format.
#[derive(Clone, Debug)]
pub struct WeightMatrix(pub(super) Matrix);

impl WeightMatrix {
    /// `rows` × `columns` weights of `format`, as they lie in a file. Fails where the bytes are more or fewer.
    pub fn new(
        format: Format,
        bytes: impl Into<Bytes>,
        rows: usize,
        columns: usize,
    ) -> Result<Self, SparseError> {
        check_size("the number of rows", rows)?;
        check_size("the number of columns", columns)?;
        let matrix = Matrix::new(bytes.into(), format, rows, columns);
        matrix
            .map(Self)
            .ok_or_else(|| SparseError::Weights { what: format!("bytes of {rows} × {columns} {format}") })
    }

    /// Floats, row after row. Fails where they are more or fewer than `rows` × `columns`, or not finite.
    pub fn from_f32(values: &[f32], rows: usize, columns: usize) -> Result<Self, SparseError> {
        Self::quantize(Format::F32, values, rows, columns)
    }

    /// Floats, rounded to a format that [`Format::quantize_row`] knows.
    pub fn quantize(
        format: Format,
        values: &[f32],
        rows: usize,
        columns: usize,
    ) -> Result<Self, SparseError> {
        check_size("the number of rows", rows)?;
        check_size("the number of columns", columns)?;
        check_len("the weights", rows.saturating_mul(columns), values.len())?;
        check_finite("the weights", values)?;
        let unusable = || SparseError::Weights { what: format!("rows of {columns} values as {format}") };
        let row_bytes = format.row_bytes(columns).ok_or_else(unusable)?;
        let mut bytes = vec![0; row_bytes * rows];
        for (row, out) in values.chunks_exact(columns).zip(bytes.chunks_exact_mut(row_bytes)) {
            format.quantize_row(row, out).map_err(|_| unusable())?;
        }
        Self::new(format, bytes, rows, columns)
    }

    /// The values of [`QuantizedWeights`], as floats. A single row is cut into rows of `columns`.
    pub fn from_quantized(weights: &QuantizedWeights, columns: usize) -> Result<Self, SparseError> {
        check_size("the number of columns", columns)?;
        let mut values = Vec::new();
        for row in 0..weights.nrows() {
            let row = weights.try_dequantize_row(row);
            values.extend(row.map_err(|error| SparseError::Weights { what: error.to_string() })?);
        }
        Self::from_f32(&values, values.len() / columns, columns)
    }

    /// A tensor of a model file, in place.
    pub fn from_gguf(gguf: &Gguf, tensor: &str) -> Result<Self, SparseError> {
        let info = gguf
            .tensor(tensor)
            .ok_or_else(|| SparseError::Weights { what: format!("no tensor {tensor}") })?;
        let [columns, rows] = info.shape[..] else {
            return Err(SparseError::Weights { what: format!("tensor {tensor} of shape {:?}", info.shape) });
        };
        Self::new(info.format, gguf.tensor_bytes(info), rows, columns)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    /// Weights in a row.
    pub fn columns(&self) -> usize {
        self.0.columns()
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.0.weights().format()
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.format().row_bytes(self.columns()).unwrap_or(0)
    }
}
