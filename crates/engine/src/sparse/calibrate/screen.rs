//! Fitting the vocabulary screen.

use crate::backend::{Buffer, CoarseLayout, Cpu, CpuOptions, Input, Matrix, Output};
use crate::gguf::Format;
use crate::nn::{DecoderSpec, DecoderWeights};
use crate::sparse::linalg::{Dense, dot, leading_eigenvectors, orthonormalize};
use crate::sparse::profile::{PROOF_TERMS, ProofProfile, ScreenProfile};
use crate::weights::Bytes;
use firecrest_kernels::isa::LANES;

/// Directions that are found by how much the stream varies along them; others are any that are left.
const RANK: usize = 256;
/// Those of the guess that take 4 bits.
const FINE: usize = 128;
/// Those that are refined for a proof.
const LEAD: usize = 128;
/// The largest stream whose guess has all directions: they have to be found, and each token is turned into them.
const MOST_WHOLE_DIM: usize = 2048;

/// Below this vocabulary a screen costs more than it saves; above this size of the stream, its fit does.
const LEAST_VOCAB: usize = 8192;
const MOST_DIM: usize = 4096;
/// The largest stream for which a proof is prepared: it takes as much memory as the output matrix in 4 bits.
const MOST_PROVEN_DIM: usize = 1024;

/// Rows of the output matrix that are looked at together: whole panels of the guess.
const BLOCK: usize = 256;
/// One of how many blocks tells how large the matrix is.
const SAMPLED: usize = 8;

/// What streams into the output matrix: sums of values and of their products.
pub(super) struct Stream {
    count: f64,
    sum: Vec<f64>,
    products: Dense,
}

impl Stream {
    pub(super) fn new(dim: usize) -> Self {
        // A screen is fitted to no larger one.
        let size = if dim <= MOST_DIM { dim } else { 0 };
        Self { count: 0.0, sum: vec![0.0; size], products: Dense::zeros(size, size) }
    }

    pub(super) fn add(&mut self, x: &[f32]) {
        let x: Vec<f64> = x[..self.sum.len()].iter().map(|&x| x.into()).collect();
        self.count += 1.0;
        self.sum.iter_mut().zip(&x).for_each(|(s, x)| *s += x);
        self.products.add_outer(&x, &x);
    }

    fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|s| s / self.count.max(1.0)).collect()
    }

    fn covariance(&self, mean: &[f64]) -> Dense {
        let mut covariance = self.products.clone();
        for i in 0..mean.len() {
            for (j, x) in covariance.row_mut(i).iter_mut().enumerate() {
                *x = *x / self.count.max(1.0) - mean[i] * mean[j];
            }
        }
        covariance
    }
}

/// The screen whose guess has in 4 bits the directions along which the stream varies most. `None` where it is not worth its
/// cost.
pub(super) fn fit(
    spec: &DecoderSpec,
    weights: &DecoderWeights,
    stream: &Stream,
    options: &CpuOptions,
) -> Option<ScreenProfile> {
    let output = &weights.output;
    let (dim, vocab) = (spec.dim, output.matrix.rows());
    let rank = RANK.min(dim / 2) / 32 * 32;
    if vocab < LEAST_VOCAB || rank == 0 || dim > MOST_DIM {
        return None;
    }
    let proven = dim <= MOST_PROVEN_DIM && dim.is_multiple_of(32);
    let lead = if proven { LEAD.min(rank / 2) / 32 * 32 } else { 0 };
    let directions = if dim <= MOST_WHOLE_DIM { dim / 32 * 32 } else { rank };
    let fine = FINE.min(directions / 2) / 32 * 32;
    let layout = CoarseLayout::new(fine, directions - fine)?;
    let mean = stream.mean();
    let covariance = stream.covariance(&mean);
    let mut basis = leading_eigenvectors(&covariance, rank);
    complete(&mut basis, if proven { dim } else { directions });
    // What is lost along a direction counts as much as the stream varies there.
    let turned = basis.times(&covariance);
    let varies = |i: usize| dot(turned.row(i), basis.row(i)).max(0.0) as f32;
    let varies: Vec<f32> = (0..directions).map(varies).collect();
    // The basis is rounded to F16. Its inverse is not its transpose then, but that plus what the rounding did, once more.
    let mut values: Vec<f32> = basis.data.iter().map(|&x| x as f32).collect();
    let mut stored = vec![0; 2 * values.len()];
    Format::F16.quantize_row(&values, &mut stored).ok()?;
    Format::F16.dequantize(&stored, &mut values);
    let rounded = Dense { data: values.into_iter().map(f64::from).collect(), ..basis };
    let mut correction = rounded.times_transposed(&rounded);
    for i in 0..correction.rows {
        correction.row_mut(i).iter_mut().for_each(|x| *x = -*x);
        correction.row_mut(i)[i] += 2.0;
    }
    let inverse = correction.times(&rounded);

    let to_matrix = |dense: &Dense| {
        let bytes: Vec<u8> = dense.data.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        Matrix::new(Bytes::from(bytes), Format::F32, dense.rows, dense.columns)
    };
    let inverse = to_matrix(&inverse)?;
    let mut cpu = Cpu::new(options).ok()?;
    let (mut block, mut low) = (Buffer::default(), Buffer::default());
    let mut read = |first: usize, count: usize, block: &mut Buffer, low: &mut Buffer| {
        block.reshape(count, dim);
        for (r, row) in block.data_mut().chunks_exact_mut(dim).enumerate() {
            output.matrix.weights().dequantize_row(first + r, row);
        }
        let product = Output { matrix: &inverse, bias: None, out: low };
        cpu.project(Input { x: block, norm: None }, &mut [product]);
    };
    // Some of the rows tell how large all are in each direction.
    let (mut squares, mut counted) = (vec![0.0f64; directions], 0);
    for first in (0..vocab).step_by(BLOCK * SAMPLED) {
        let count = BLOCK.min(vocab - first);
        read(first, count, &mut block, &mut low);
        for low in low.read().chunks_exact(inverse.rows()) {
            squares.iter_mut().zip(low).for_each(|(s, &x)| *s += f64::from(x) * f64::from(x));
        }
        counted += count;
    }
    let sizes: Vec<f32> =
        squares.iter().map(|s| ((s / counted as f64).sqrt() as f32).max(f32::MIN_POSITIVE)).collect();
    let losses: Vec<f32> = varies.iter().zip(&sizes).map(|(v, s)| v * s * s).collect();
    let mut panels = vec![0; layout.bytes(vocab)?];
    let mut scaled = Vec::new();
    let row_bytes = Format::Q4_0.row_bytes(rank)?;
    let rest_columns = if proven { lead + dim - rank } else { 0 };
    let rest_bytes = Format::Q4_0.row_bytes(rest_columns)?;
    let proven_rows = if proven { vocab } else { 0 };
    let (mut rows, mut rest) = (vec![0; row_bytes * proven_rows], vec![0; rest_bytes * proven_rows]);
    let mut bias = Vec::with_capacity(vocab);
    let mut terms: Vec<[f32; PROOF_TERMS]> = Vec::with_capacity(proven_rows);
    let (mut head, mut tail) = (vec![0.0; rank], vec![0.0; rest_columns]);
    for first in (0..vocab).step_by(BLOCK) {
        let count = BLOCK.min(vocab - first);
        read(first, count, &mut block, &mut low);
        scaled.clear();
        for low in low.read().chunks_exact(inverse.rows()) {
            scaled.extend(low.iter().zip(&sizes).map(|(x, size)| x / size));
        }
        let starts = panels[first / LANES * layout.panel_bytes()..].chunks_exact_mut(layout.panel_bytes());
        for (rows, panel) in scaled.chunks(LANES * directions).zip(starts) {
            layout.pack(rows, &losses, panel);
        }
        for r in 0..count {
            let row = &block.read()[r * dim..][..dim];
            let own = output.bias.as_ref().map_or(0.0, |bias| bias[first + r]);
            let mean: f64 = row.iter().zip(&mean).map(|(&w, m)| f64::from(w) * m).sum();
            bias.push((mean + f64::from(own)) as f32);
            if !proven {
                continue;
            }
            let low = &low.read()[r * inverse.rows()..][..inverse.rows()];
            let out = &mut rows[(first + r) * row_bytes..][..row_bytes];
            Format::Q4_0.quantize_row(&low[..rank], out).ok()?;
            Format::Q4_0.dequantize(out, &mut head);
            let wanted = low[..lead].iter().zip(&head).map(|(x, y)| x - y).chain(low[rank..].iter().copied());
            let wanted: Vec<f32> = wanted.collect();
            let out = &mut rest[(first + r) * rest_bytes..][..rest_bytes];
            Format::Q4_0.quantize_row(&wanted, out).ok()?;
            Format::Q4_0.dequantize(out, &mut tail);
            let missing = |a: &[f32], b: &[f32]| size(a.iter().zip(b).map(|(a, b)| a - b));
            terms.push([
                missing(&wanted[..lead], &tail[..lead]),
                missing(&low[lead..rank], &head[lead..]),
                missing(&wanted[lead..], &tail[lead..]),
                size(head.iter().copied()),
                size(tail.iter().copied()),
                size(row.iter().copied()) + own.abs(),
            ]);
        }
    }
    let proof = proven.then(|| {
        let mut scales = [0.0; PROOF_TERMS];
        for (k, scale) in scales.iter_mut().enumerate() {
            let mean = terms.iter().map(|terms| f64::from(terms[k])).sum::<f64>() / vocab as f64;
            *scale = (mean as f32).max(f32::MIN_POSITIVE);
        }
        let excess =
            |terms: &[f32; PROOF_TERMS]| terms.iter().zip(&scales).map(|(x, s)| x / s).fold(0.0, f32::max);
        let slack = terms.iter().map(excess).collect();
        ProofProfile { rank: rank as u32, lead: lead as u32, rows, rest, slack, scales }
    });
    let mean = mean.iter().map(|&x| x as f32).collect();
    let (fine, rough) = (fine as u32, (directions - fine) as u32);
    Some(ScreenProfile { fine, rough, mean, basis: stored, sizes, bias, panels, proof })
}

/// Adds rows until there are `wanted`, each orthogonal to the others.
fn complete(basis: &mut Dense, wanted: usize) {
    let n = basis.columns;
    // Of a unit vector something is left as long as the rows before do not span it; in the end all are spanned.
    for axis in 0..n {
        if basis.rows >= wanted {
            return;
        }
        let mut row = vec![0.0; n];
        row[axis] = 1.0;
        let spanned: f64 = basis.data.chunks_exact(n).map(|other| other[axis] * other[axis]).sum();
        if 1.0 - spanned > 1e-6 {
            basis.data.extend(row);
            basis.rows += 1;
            orthonormalize(basis, basis.rows - 1);
        }
    }
}

/// A length, a little more than it is.
fn size(values: impl Iterator<Item = f32>) -> f32 {
    (values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() * (1.0 + 1e-6)) as f32
}
