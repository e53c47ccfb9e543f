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
const MOST_WHOLE_DIM: usize = 1024;

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
    let directions = if dim <= MOST_WHOLE_DIM { dim / 32 * 32 } else { rank };
    let fine = FINE.min(directions / 2) / 32 * 32;
    let layout = CoarseLayout::new(fine, directions - fine)?;
    let mean = stream.mean();
    let Directions { basis, inverse, varies } =
        Directions::new(&stream.covariance(&mean), rank, if proven { dim } else { directions })?;
    let mut turned = Turned::new(&output.matrix, inverse, options)?;

    // Some of the rows tell how large all are in each direction.
    let (mut squares, mut counted) = (vec![0.0f64; directions], 0);
    for first in (0..vocab).step_by(BLOCK * SAMPLED) {
        for (_, low) in turned.block(first) {
            squares.iter_mut().zip(low).for_each(|(s, &x)| *s += f64::from(x) * f64::from(x));
            counted += 1;
        }
    }
    let size = |squares: &f64| ((squares / f64::from(counted)).sqrt() as f32).max(f32::MIN_POSITIVE);
    let sizes: Vec<f32> = squares.iter().map(size).collect();
    // What is lost along a direction counts as much as the stream varies there.
    let losses: Vec<f32> = varies.iter().zip(&sizes).map(|(v, s)| v * s * s).collect();

    let mut panels = vec![0; layout.bytes(vocab)?];
    let mut bias = Vec::with_capacity(vocab);
    let mut proof = if proven { Some(Proof::new(dim, rank)?) } else { None };
    let mut scaled = Vec::new();
    let blocks = panels.chunks_mut(BLOCK / LANES * layout.panel_bytes());
    for (first, panels) in (0..vocab).step_by(BLOCK).zip(blocks) {
        scaled.clear();
        for (i, (row, low)) in turned.block(first).enumerate() {
            scaled.extend(low.iter().zip(&sizes).map(|(x, size)| x / size));
            let own = output.bias.as_ref().map_or(0.0, |bias| bias[first + i]);
            let mean: f64 = row.iter().zip(&mean).map(|(&w, m)| f64::from(w) * m).sum();
            bias.push((mean + f64::from(own)) as f32);
            if let Some(proof) = &mut proof {
                proof.add(low, length(row.iter().copied()) + own.abs())?;
            }
        }
        let panels = panels.chunks_exact_mut(layout.panel_bytes());
        for (rows, panel) in scaled.chunks(LANES * directions).zip(panels) {
            layout.pack(rows, &losses, panel);
        }
    }
    let mean = mean.iter().map(|&x| x as f32).collect();
    let (fine, rough) = (fine as u32, (directions - fine) as u32);
    let proof = proof.map(Proof::finish);
    Some(ScreenProfile { fine, rough, mean, basis, sizes, bias, panels, proof })
}

/// An orthonormal basis, of which the stream varies most along the first rows.
struct Directions {
    /// In F16.
    basis: Vec<u8>,
    /// What turns rows of the output matrix so that their products with the turned stream stay as they are.
    inverse: Matrix,
    /// The variance of the stream along each.
    varies: Vec<f32>,
}

impl Directions {
    /// `rank` leading ones, and others up to `count`.
    fn new(covariance: &Dense, rank: usize, count: usize) -> Option<Self> {
        let mut basis = leading_eigenvectors(covariance, rank);
        complete(&mut basis, count);
        let turned = basis.times(covariance);
        let varies = |i: usize| dot(turned.row(i), basis.row(i)).max(0.0) as f32;
        let varies = (0..basis.rows).map(varies).collect();
        // The basis is rounded to F16. Its inverse is not its transpose then, but that plus what the rounding did, once
        // more.
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
        let bytes: Vec<u8> = inverse.data.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        let inverse = Matrix::new(Bytes::from(bytes), Format::F32, inverse.rows, inverse.columns)?;
        Some(Self { basis: stored, inverse, varies })
    }
}

/// Reads the output matrix in other directions.
struct Turned<'a> {
    matrix: &'a Matrix,
    inverse: Matrix,
    cpu: Cpu,
    rows: Buffer,
    turned: Buffer,
}

impl<'a> Turned<'a> {
    fn new(matrix: &'a Matrix, inverse: Matrix, options: &CpuOptions) -> Option<Self> {
        let cpu = Cpu::new(options).ok()?;
        Some(Self { matrix, inverse, cpu, rows: Buffer::default(), turned: Buffer::default() })
    }

    /// The rows from `first` on, up to [`BLOCK`] of them, as they are and in the other directions.
    fn block(&mut self, first: usize) -> impl Iterator<Item = (&[f32], &[f32])> {
        let dim = self.matrix.columns();
        self.rows.reshape(BLOCK.min(self.matrix.rows() - first), dim);
        for (r, row) in self.rows.data_mut().chunks_exact_mut(dim).enumerate() {
            self.matrix.weights().dequantize_row(first + r, row);
        }
        let product = Output { matrix: &self.inverse, bias: None, out: &mut self.turned };
        self.cpu.project(Input { x: &self.rows, norm: None }, &mut [product]);
        self.rows.read().chunks_exact(dim).zip(self.turned.read().chunks_exact(self.inverse.rows()))
    }
}

/// Makes what a proof needs, row by row.
struct Proof {
    rank: usize,
    lead: usize,
    rows: Vec<u8>,
    rest: Vec<u8>,
    /// Of one row, what 4 bits keep.
    head: Vec<f32>,
    tail: Vec<f32>,
    terms: Vec<[f32; PROOF_TERMS]>,
}

impl Proof {
    /// `None` where sizes are not those of whole blocks.
    fn new(dim: usize, rank: usize) -> Option<Self> {
        let lead = LEAD.min(rank / 2) / 32 * 32;
        let (head, tail) = (vec![0.0; rank], vec![0.0; lead + dim - rank]);
        Format::Q4_0.row_bytes(head.len()).and(Format::Q4_0.row_bytes(tail.len()))?;
        Some(Self { rank, lead, rows: Vec::new(), rest: Vec::new(), head, tail, terms: Vec::new() })
    }

    /// Adds a row in all directions; `largest` is what it may add to a logit at most, for a stream of length 1.
    fn add(&mut self, low: &[f32], largest: f32) -> Option<()> {
        let (rank, lead) = (self.rank, self.lead);
        keep(&low[..rank], &mut self.rows, &mut self.head)?;
        let refined = low[..lead].iter().zip(&self.head).map(|(x, y)| x - y);
        let wanted: Vec<f32> = refined.chain(low[rank..].iter().copied()).collect();
        keep(&wanted, &mut self.rest, &mut self.tail)?;
        let missing = |a: &[f32], b: &[f32]| length(a.iter().zip(b).map(|(a, b)| a - b));
        self.terms.push([
            missing(&wanted[..lead], &self.tail[..lead]),
            missing(&low[lead..rank], &self.head[lead..]),
            missing(&wanted[lead..], &self.tail[lead..]),
            length(self.head.iter().copied()),
            length(self.tail.iter().copied()),
            largest,
        ]);
        Some(())
    }

    fn finish(self) -> ProofProfile {
        let mut scales = [0.0; PROOF_TERMS];
        for (k, scale) in scales.iter_mut().enumerate() {
            let sum = self.terms.iter().map(|terms| f64::from(terms[k])).sum::<f64>();
            *scale = ((sum / self.terms.len() as f64) as f32).max(f32::MIN_POSITIVE);
        }
        let excess =
            |terms: &[f32; PROOF_TERMS]| terms.iter().zip(&scales).map(|(x, s)| x / s).fold(0.0, f32::max);
        let slack = self.terms.iter().map(excess).collect();
        let (rank, lead) = (self.rank as u32, self.lead as u32);
        ProofProfile { rank, lead, rows: self.rows, rest: self.rest, slack, scales }
    }
}

/// Adds values in 4 bits to `to`; `kept` is what that keeps of them.
fn keep(values: &[f32], to: &mut Vec<u8>, kept: &mut [f32]) -> Option<()> {
    let start = to.len();
    to.resize(start + Format::Q4_0.row_bytes(values.len())?, 0);
    Format::Q4_0.quantize_row(values, &mut to[start..]).ok()?;
    Format::Q4_0.dequantize(&to[start..], kept);
    Some(())
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
fn length(values: impl Iterator<Item = f32>) -> f32 {
    (values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() * (1.0 + 1e-6)) as f32
}
