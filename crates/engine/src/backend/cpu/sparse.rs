//! Products with some rows of a matrix, and with some neurons of its transpose.

use std::sync::atomic::{AtomicUsize, Ordering};

use firecrest_kernels::format::CHUNK;
use firecrest_kernels::ops::{self, Activation, MatrixMut, NeuronLayout, QuantizedChunk, chunks};

use super::{Cpu, Form, Input, Matrix, Worker};
use crate::weights::Bytes;

/// Parts that a sum over neurons is cut into, whatever the number of threads: so that the same numbers are added in the
/// same order on every machine.
const PARTS: usize = 8;

/// Tasks for each thread of a product with the rows that fire.
const ROW_TASKS: usize = 4;

/// A part of a sum over neurons.
#[derive(Debug, Default)]
pub(super) struct Part {
    active: Vec<u32>,
    h: Vec<f32>,
    codes: Vec<QuantizedChunk>,
    sums: Vec<f32>,
}

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
        let bytes = Bytes::written(layout.bytes()?, |bytes| {
            for (s, section) in bytes.chunks_mut(layout.section_bytes()).enumerate() {
                layout.pack(weights, s, section);
            }
        });
        Some(Self::Packed { layout, bytes, outputs, neurons })
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
        self.prepare(input, matrices);
        let product = self.forms.product(self.isa, self.rounding, input);
        for (matrix, out) in matrices.into_iter().zip(out) {
            out.resize(rows.len(), 0.0);
            let grain = matrix.grain(rows.len(), 1, self.pool.threads());
            self.pool.for_pieces(out, grain, &mut self.workers, |_, piece, out| {
                product.compute_rows(matrix.weights(), &rows[piece * grain..][..out.len()], out);
            });
        }
    }

    /// What remains of `x` where a product with this matrix rounds it.
    pub(crate) fn round_for(&mut self, matrix: &Matrix, x: &mut [f32]) {
        if self.form(matrix) == Form::Q8 {
            self.forms.q8.resize(chunks(x.len()), QuantizedChunk::ZERO);
            ops::quantize(self.isa, x, &mut self.forms.q8);
            ops::dequantize(&self.forms.q8, x);
        }
    }

    /// The length of what that takes from `x`.
    pub(crate) fn rounding_of(&mut self, matrix: &Matrix, x: &[f32]) -> f32 {
        let mut rounded = x.to_vec();
        self.round_for(matrix, &mut rounded);
        let squares = x.iter().zip(&rounded).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt() as f32
    }

    /// `out = activation(x · gateᵀ + bias) * (x · upᵀ + bias)` of one token where `fires(neuron, gate)` says so, and zero for
    /// the other neurons, whose rows of `up` are not read. Returns how many fire.
    pub(crate) fn gated_rows(
        &mut self,
        input: Input<'_>,
        [gate, up]: [(&Matrix, Option<&[f32]>); 2],
        activation: Activation,
        fires: impl Fn(usize, f32) -> bool + Sync,
        out: &mut Vec<f32>,
    ) -> usize {
        let ((gate, gate_bias), (up, up_bias)) = (gate, up);
        self.prepare(input, [gate, up]);
        let product = self.forms.product(self.isa, self.rounding, input);
        let (rows, threads) = (gate.rows(), self.pool.threads());
        out.resize(rows, 0.0);
        // Few and large tasks: the rows that fire stand apart, and are asked for in the order of a task.
        let grain = rows.div_ceil(ROW_TASKS * threads).next_multiple_of(16);
        let fired = AtomicUsize::new(0);
        self.pool.for_pieces(out, grain, &mut self.workers, |worker, piece, out| {
            let range = piece * grain..piece * grain + out.len();
            product.compute(gate, range.clone(), MatrixMut::new(out, range.len()), &mut worker.panels);
            let bias = gate_bias.map(|bias| &bias[range.clone()]);
            ops::activate_rows(product.isa, activation, bias, MatrixMut::new(out, range.len()));
            let Worker { rows, columns, .. } = worker;
            select(out, |n, x| fires(range.start + n, x), rows);
            columns.resize(rows.len(), 0.0);
            product.compute_rows(up.weights().slice(range.clone()), rows, columns);
            fired.fetch_add(rows.len(), Ordering::Relaxed);
            let mut values = rows.iter().zip(&*columns);
            let mut next = values.next();
            for (n, out) in out.iter_mut().enumerate() {
                *out = match next {
                    Some((&row, value)) if row as usize == n => {
                        next = values.next();
                        *out * (value + up_bias.map_or(0.0, |bias| bias[range.start + n]))
                    }
                    _ => 0.0,
                };
            }
        });
        fired.into_inner()
    }

    /// `out = Σ matrix[n] · h[n]` over the neurons that `keep(n, h[n])` says yes to; how many they are.
    pub(crate) fn add_neurons(
        &mut self,
        matrix: &NeuronMatrix,
        h: &[f32],
        keep: impl Fn(usize, f32) -> bool + Sync,
        out: &mut [f32],
    ) -> usize {
        assert_eq!((h.len(), out.len()), (matrix.neurons(), matrix.outputs()));
        let isa = self.isa;
        let padded = match matrix {
            NeuronMatrix::Packed { layout, .. } => layout.padded_outputs(),
            NeuronMatrix::Rows(_) => out.len(),
        };
        let units = chunks(h.len());
        let parts = PARTS.min(units).max(1);
        self.parts.resize_with(parts, Part::default);
        self.pool.for_pieces(&mut self.parts, 1, &mut self.workers, |_, i, part| {
            let Some(part) = part.first_mut() else { return };
            let (first, last) = (units * i / parts, units * (i + 1) / parts);
            let range = first * CHUNK..(last * CHUNK).min(h.len());
            part.sums.clear();
            part.sums.resize(padded, 0.0);
            select(&h[range.clone()], |n, x| keep(range.start + n, x), &mut part.active);
            part.active.iter_mut().for_each(|n| *n += range.start as u32);
            match matrix {
                NeuronMatrix::Packed { layout, bytes, .. } => {
                    // Those that are left out must not coarsen the others.
                    part.h.clear();
                    part.h.resize(range.len(), 0.0);
                    part.active.iter().for_each(|&n| part.h[n as usize - range.start] = h[n as usize]);
                    part.codes.resize(chunks(h.len()), QuantizedChunk::ZERO);
                    ops::quantize(isa, &part.h, &mut part.codes[first..last]);
                    ops::add_neurons(isa, layout, bytes, &part.active, &part.codes, &mut part.sums);
                }
                NeuronMatrix::Rows(matrix) => {
                    part.h.clear();
                    part.h.extend(part.active.iter().map(|&n| h[n as usize]));
                    ops::add_neurons_f32(isa, matrix.weights(), &part.active, &part.h, &mut part.sums);
                }
            }
        });
        let len = out.len();
        out.copy_from_slice(&self.parts[0].sums[..len]);
        for part in &self.parts[1..] {
            out.iter_mut().zip(&part.sums).for_each(|(x, y)| *x += y);
        }
        self.parts.iter().map(|part| part.active.len()).sum()
    }
}

/// The places of the values that `keep` says yes to. What is kept is not foreseen, so that there is no branch.
fn select(values: &[f32], keep: impl Fn(usize, f32) -> bool, places: &mut Vec<u32>) {
    places.clear();
    places.resize(values.len(), 0);
    let mut count = 0;
    for (n, &x) in values.iter().enumerate() {
        places[count] = n as u32;
        count += usize::from(keep(n, x));
    }
    places.truncate(count);
}
