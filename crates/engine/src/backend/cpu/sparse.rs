//! Products with some rows of a matrix, and with some neurons of its transpose.

use firecrest_kernels::ops::{self, NeuronLayout, QuantizedChunk, chunks};

use super::{Activations, Cpu, Input, Matrix};
use crate::weights::Bytes;

/// Parts that a sum over neurons is cut into, whatever the number of threads: so that the same numbers are added in the
/// same order on every machine.
const PARTS: usize = 8;

/// The second matrix of a feed-forward layer, by neuron.
#[derive(Clone, Debug)]
pub(crate) enum NeuronMatrix {
    /// Quantized weights that were `[outputs, neurons]`.
    Packed { layout: NeuronLayout, bytes: Bytes, outputs: usize, neurons: usize },
    /// `[neurons, outputs]` as they are.
    Rows(Matrix),
}

impl NeuronMatrix {
    /// Lays a matrix `[outputs, neurons]` out by neuron, without loss. `None` where its size overflows or where its
    /// rows are no whole groups.
    pub(crate) fn new(matrix: &Matrix) -> Option<Self> {
        let weights = matrix.weights();
        let (outputs, neurons) = (matrix.rows(), matrix.columns());
        if !weights.format().is_quantized() {
            return Some(Self::Rows(transpose(matrix)?));
        }
        let layout = NeuronLayout::new(weights.format(), outputs, neurons)?;
        let mut bytes = vec![0; layout.bytes()?];
        for (s, section) in bytes.chunks_mut(layout.section_bytes()).enumerate() {
            layout.pack(weights, s, section);
        }
        Some(Self::Packed { layout, bytes: Bytes::from(bytes), outputs, neurons })
    }

    pub(crate) fn outputs(&self) -> usize {
        match self {
            Self::Packed { outputs, .. } => *outputs,
            Self::Rows(matrix) => matrix.columns(),
        }
    }

    pub(crate) fn neurons(&self) -> usize {
        match self {
            Self::Packed { neurons, .. } => *neurons,
            Self::Rows(matrix) => matrix.rows(),
        }
    }

    /// Bytes that the weights of one neuron take, the scales it shares left out.
    pub(crate) fn neuron_bytes(&self) -> usize {
        match self {
            Self::Packed { layout, .. } => layout.neuron_bytes(),
            Self::Rows(matrix) => matrix.weights().format().row_bytes(matrix.columns()).unwrap_or(0),
        }
    }
}

/// Floats that were `[rows, columns]`, as `[columns, rows]`.
fn transpose(matrix: &Matrix) -> Option<Matrix> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let width = matrix.weights().format().block_bytes();
    let bytes = matrix.data();
    let mut out = vec![0; bytes.len()];
    for (r, row) in bytes.chunks_exact(columns * width).enumerate() {
        for (c, value) in row.chunks_exact(width).enumerate() {
            out[(c * rows + r) * width..][..width].copy_from_slice(value);
        }
    }
    Matrix::new(Bytes::from(out), matrix.weights().format(), columns, rows)
}

impl Cpu {
    /// `out[m][i] = matrices[m][rows[i]] · x` for one token: bit for bit what [`Cpu::project`] gives for those rows.
    pub(crate) fn project_rows<const M: usize>(
        &mut self,
        input: Input<'_>,
        matrices: [&Matrix; M],
        rows: &[u32],
        out: &mut [Vec<f32>; M],
    ) {
        let quantized = matrices.iter().any(|matrix| self.is_quantized(matrix));
        self.prepare(input, quantized);
        let (isa, exact) = (self.isa, self.activations == Activations::F32);
        let x = if input.norm.is_some() { &self.normed } else { input.x.read() };
        let codes = &self.quantized;
        for (matrix, out) in matrices.into_iter().zip(out) {
            out.resize(rows.len(), 0.0);
            let weights = matrix.weights();
            let grain = matrix.grain(rows.len(), 1, self.pool.threads());
            self.pool.for_pieces(out, grain, &mut self.workers, |_, piece, out| {
                let rows = &rows[piece * grain..][..out.len()];
                if exact || !weights.format().is_quantized() {
                    ops::matmul_rows_f32(isa, weights, rows, x, out);
                } else {
                    ops::matmul_rows(isa, weights, rows, codes, out);
                }
            });
        }
    }

    /// What remains of `x` where a product with this matrix rounds it.
    pub(crate) fn round_for(&mut self, matrix: &Matrix, x: &mut [f32]) {
        if self.is_quantized(matrix) {
            self.quantized.resize(chunks(x.len()), QuantizedChunk::ZERO);
            ops::quantize(self.isa, x, &mut self.quantized);
            ops::dequantize(&self.quantized, x);
        }
    }

    /// The length of what that takes from `x`.
    pub(crate) fn rounding_of(&mut self, matrix: &Matrix, x: &[f32]) -> f32 {
        let mut rounded = x.to_vec();
        self.round_for(matrix, &mut rounded);
        let squares = x.iter().zip(&rounded).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt() as f32
    }

    /// `out = Σ matrix[n] · h[n]` over the neurons `active`, ascending; `h` has an entry for every neuron, and zeros for
    /// those that are not active. Activations are rounded to 8 bits where the weights are integers.
    pub(crate) fn add_neurons(&mut self, matrix: &NeuronMatrix, active: &[u32], h: &[f32], out: &mut [f32]) {
        let isa = self.isa;
        let (padded, unit) = match matrix {
            NeuronMatrix::Packed { layout, .. } => {
                (layout.padded_outputs(), firecrest_kernels::format::CHUNK)
            }
            NeuronMatrix::Rows(matrix) => (matrix.columns(), 1),
        };
        let units = matrix.neurons().div_ceil(unit);
        let parts = PARTS.min(units);
        self.parts.clear();
        self.parts.resize(parts * padded, 0.0);
        let first = |part: usize| units * part / parts * unit;
        let neurons = |part: usize| {
            let start = active.partition_point(|&n| (n as usize) < first(part));
            let end = active.partition_point(|&n| (n as usize) < first(part + 1));
            &active[start..end]
        };
        match matrix {
            NeuronMatrix::Packed { layout, bytes, .. } => {
                self.quantized.resize(chunks(h.len()), QuantizedChunk::ZERO);
                ops::quantize(isa, h, &mut self.quantized);
                let codes = &self.quantized;
                self.pool.for_pieces(&mut self.parts, padded, &mut self.workers, |_, part, out| {
                    let mut rest = neurons(part);
                    while let Some(&n) = rest.first() {
                        let section = n as usize / unit;
                        let count = rest.partition_point(|&n| n as usize / unit == section);
                        let mut members = [0; firecrest_kernels::format::CHUNK];
                        for (member, &n) in members.iter_mut().zip(&rest[..count]) {
                            *member = (n as usize % unit) as u8;
                        }
                        let start = section * layout.section_bytes();
                        let end = (start + layout.section_bytes()).min(bytes.len());
                        let members = &members[..count];
                        ops::add_neurons(isa, layout, &bytes[start..end], members, &codes[section], out);
                        rest = &rest[count..];
                    }
                });
            }
            NeuronMatrix::Rows(matrix) => {
                let weights = matrix.weights();
                self.pool.for_pieces(&mut self.parts, padded, &mut self.workers, |worker, part, out| {
                    let active = neurons(part);
                    worker.columns.clear();
                    worker.columns.extend(active.iter().map(|&n| h[n as usize]));
                    ops::add_neurons_f32(isa, weights, active, &worker.columns, out);
                });
            }
        }
        let len = out.len();
        out.copy_from_slice(&self.parts[..len]);
        for part in self.parts.chunks_exact(padded).skip(1) {
            out.iter_mut().zip(part).for_each(|(x, y)| *x += y);
        }
    }
}
