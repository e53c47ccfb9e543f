//! The CPU: kernels on a pool of threads.

mod attention;
mod coarse;
mod conv;
mod encode;
mod kv;
mod matrix;
mod moe;
mod pages;
mod pointwise;
mod pool;
mod sparse;
mod spawn;

use std::fmt;
use std::num::NonZero;

use firecrest_kernels::format::CHUNK;
use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops::{
    self, Activation, FLOAT_PANELS, FloatPanel, I16Chunk, MatrixMut, PanelRun, QuantizedChunk, RopeLayout,
    Weights, chunks, panel_runs,
};

pub(crate) use attention::Attention;
use attention::AttentionMemory;
pub(crate) use coarse::CoarseMatrix;
pub(crate) use conv::ConvCache;
pub(crate) use encode::SequenceAttention;
pub use kv::KvFormat;
pub(crate) use kv::{KvCache, KvHeads};
use matrix::keep_rows;
pub(crate) use matrix::{Buffer, Matrix};
pub(crate) use moe::{Experts, Gating, Routes, Routing};
pub(crate) use pages::PageTable;
use pool::Pool;
pub(crate) use sparse::NeuronMatrix;
#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub use spawn::lend_thread;

/// How activations enter products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// With quantized weights rounded to 8 bits, a scale for each 32: products run on integers. With weights that are floats
    /// in f32; encoders round both to 16 bits, a scale for each 256, where rows are as long and the machine multiplies
    /// those faster. Attention of 64 tokens or more rounds to 16 bits with AVX-512 VNNI, which errs a fifth of what keys and
    /// values in F16 do.
    #[default]
    Q8,
    /// Kept in f32: slower, exact to rounding.
    F32,
}

/// How the CPU is used.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CpuOptions {
    /// Threads; the physical cores that this process may use where absent.
    pub threads: Option<NonZero<usize>>,
    /// Instruction set; `FIRECREST_ISA`, else the fastest that there is, where absent.
    pub isa: Option<IsaKind>,
    /// How activations enter products.
    pub activations: Activations,
}

/// `FIRECREST_ISA` names an instruction set that this build or this processor does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    name: String,
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FIRECREST_ISA={}: this processor has", self.name)?;
        let mut names: Vec<_> = IsaKind::available().filter_map(|isa| isa.name().split('-').next()).collect();
        names.dedup();
        names
            .iter()
            .enumerate()
            .try_for_each(|(i, name)| write!(f, "{} {name}", if i == 0 { "" } else { "," }))
    }
}

impl std::error::Error for IsaError {}

impl CpuOptions {
    /// The instruction set that these options lead to.
    pub fn isa(&self) -> Result<IsaKind, IsaError> {
        if let Some(isa) = self.isa {
            return Ok(isa);
        }
        match std::env::var("FIRECREST_ISA") {
            Ok(name) if !name.is_empty() => IsaKind::from_name(&name).ok_or(IsaError { name }),
            _ => Ok(IsaKind::best()),
        }
    }

    /// The threads that these options lead to.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(default_threads, NonZero::get)
    }
}

/// Physical cores, at most as many as affinity and container limits leave.
fn default_threads() -> usize {
    let available = std::thread::available_parallelism().map_or(1, NonZero::get);
    #[cfg(not(target_family = "wasm"))]
    let available = available.min(num_cpus::get_physical().max(1));
    available
}

/// The device: threads, an instruction set, and memory to work in.
#[derive(Debug)]
pub(crate) struct Cpu {
    isa: IsaKind,
    rounding: Rounding,
    pool: Pool,
    workers: Vec<Worker>,
    forms: Forms,
    /// Sums over some of the neurons.
    parts: Vec<sparse::Part>,
    /// What single tokens attend to in parts of their positions.
    attended: Vec<f32>,
    /// Activations for a guess.
    coarse: Vec<u8>,
}

/// How the inputs of products are rounded.
#[derive(Clone, Copy, Debug)]
struct Rounding {
    activations: Activations,
    /// Whether products with floats round to 16 bits.
    fixed: bool,
}

/// What a product reads of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    F32,
    I16,
    Q8,
}

impl Rounding {
    /// For a product with these weights. Short rows would gain nothing from 16 bits.
    fn form(self, weights: Weights<'_>) -> Form {
        match self.activations {
            Activations::F32 => Form::F32,
            Activations::Q8 if weights.format().is_quantized() => Form::Q8,
            Activations::Q8 if self.fixed && weights.columns() >= CHUNK => Form::I16,
            Activations::Q8 => Form::F32,
        }
    }
}

/// The input of a product as it is read.
#[derive(Debug, Default)]
struct Forms {
    normed: Vec<f32>,
    q8: Vec<QuantizedChunk>,
    i16: Vec<I16Chunk>,
}

impl Forms {
    fn product<'a>(&'a self, isa: IsaKind, rounding: Rounding, input: Input<'a>) -> Product<'a> {
        let x = if input.norm.is_some() { &self.normed } else { input.x.read() };
        Product { isa, rounding, x, q8: &self.q8, i16: &self.i16 }
    }
}

/// What products unpack weights to.
#[derive(Debug, Default)]
struct Panels {
    runs: Vec<PanelRun>,
    floats: Vec<FloatPanel>,
}

/// What each thread works in.
#[derive(Debug, Default)]
struct Worker {
    panels: Panels,
    attention: AttentionMemory,
    columns: Vec<f32>,
    rows: Vec<u32>,
    head: encode::HeadMemory,
}

/// The input of a product.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) x: &'a Buffer,
    /// Applied to each token first.
    pub(crate) norm: Option<&'a crate::nn::Norm>,
}

/// A product to compute: `out = x · matrixᵀ + bias`.
pub(crate) struct Output<'a> {
    pub(crate) matrix: &'a Matrix,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) out: &'a mut Buffer,
}

/// Cosines and sines of the rotary angles of some tokens, `[tokens, pairs]`.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(crate) turns: Vec<(f32, f32)>,
    pub(crate) pairs: usize,
}

impl Turns {
    /// Keeps those of some tokens alone, which ascend.
    pub(crate) fn keep(&mut self, tokens: &[usize]) {
        keep_rows(&mut self.turns, self.pairs, tokens);
    }

    fn of(&self, token: usize) -> &[(f32, f32)] {
        &self.turns[token * self.pairs..][..self.pairs]
    }
}

/// Consecutive tokens of one sequence among those of a pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) pages: &'a PageTable,
    /// Position of the first.
    pub(crate) first: usize,
    pub(crate) tokens: usize,
}

impl Cpu {
    pub(crate) fn new(options: &CpuOptions) -> Result<Self, IsaError> {
        let isa = options.isa()?;
        let pool = Pool::new(options.threads());
        let workers = (0..pool.threads()).map(|_| Worker::default()).collect();
        Ok(Self {
            isa,
            rounding: Rounding { activations: options.activations, fixed: false },
            pool,
            workers,
            forms: Forms::default(),
            parts: Vec::new(),
            attended: Vec::new(),
            coarse: Vec::new(),
        })
    }

    /// As [`Cpu::new`], for a model whose products with floats may round to 16 bits.
    pub(crate) fn with_fixed_point(options: &CpuOptions) -> Result<Self, IsaError> {
        let mut cpu = Self::new(options)?;
        cpu.rounding.fixed = ops::prefers_i16(cpu.isa);
        Ok(cpu)
    }

    pub(crate) fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Whether activations enter all products as they are.
    pub(crate) fn is_exact(&self) -> bool {
        self.rounding.activations == Activations::F32
    }

    pub(crate) fn isa(&self) -> IsaKind {
        self.isa
    }

    /// `out[t] = table[ids[t]] * scale`.
    pub(crate) fn embed(&mut self, table: &Matrix, ids: &[u32], scale: f32, out: &mut Buffer) {
        out.reshape(ids.len(), table.columns());
        let weights = table.weights();
        self.pool.for_pieces(out.data_mut(), table.columns(), &mut self.workers, |_, t, row| {
            weights.dequantize_row(ids[t] as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= scale);
            }
        });
    }

    /// `x += y`.
    pub(crate) fn add(&mut self, x: &mut Buffer, y: &Buffer) {
        x.data_mut().iter_mut().zip(y.read()).for_each(|(x, y)| *x += y);
    }

    /// Multiplies every value.
    pub(crate) fn scale(&mut self, x: &mut Buffer, factor: f32) {
        x.data_mut().iter_mut().for_each(|x| *x *= factor);
    }

    /// Several products of one input.
    pub(crate) fn project(&mut self, input: Input<'_>, outputs: &mut [Output<'_>]) {
        self.project_activated(input, Activation::Identity, outputs);
    }

    /// As [`Cpu::project`], with an activation function of all the outputs.
    pub(crate) fn project_activated(
        &mut self,
        input: Input<'_>,
        activation: Activation,
        outputs: &mut [Output<'_>],
    ) {
        let (tokens, threads) = (input.x.tokens(), self.threads());
        for output in outputs.iter_mut() {
            output.out.reshape(tokens, output.matrix.rows());
        }
        self.prepare(input, outputs.iter().map(|output| output.matrix));
        let matrices: Vec<_> = outputs.iter().map(|output| (output.matrix, output.bias)).collect();
        let mut views: Vec<_> = outputs
            .iter_mut()
            .map(|output| MatrixMut::new(output.out.data_mut(), output.matrix.rows()))
            .collect();
        let product = self.forms.product(self.isa, self.rounding, input);
        let grain = |i: usize| matrices[i].0.grain(matrices[i].0.rows(), tokens, threads);
        self.pool.for_columns(&mut views, grain, &mut self.workers, |worker, i, rows, mut out| {
            let (matrix, bias) = matrices[i];
            product.compute(matrix, rows.clone(), out.reborrow(), &mut worker.panels);
            if bias.is_some() || activation != Activation::Identity {
                ops::activate_rows(product.isa, activation, bias.map(|bias| &bias[rows]), out);
            }
        });
    }

    /// `out = activation(x · gateᵀ) * (x · upᵀ)`.
    pub(crate) fn gated(
        &mut self,
        input: Input<'_>,
        gate: &Matrix,
        up: &Matrix,
        activation: Activation,
        out: &mut Buffer,
    ) {
        let (tokens, threads) = (input.x.tokens(), self.threads());
        out.reshape(tokens, gate.rows());
        self.prepare(input, [gate, up]);
        let product = self.forms.product(self.isa, self.rounding, input);
        let mut views = [MatrixMut::new(out.data_mut(), gate.rows())];
        let grain = |_| gate.grain(gate.rows(), tokens, threads);
        self.pool.for_columns(&mut views, grain, &mut self.workers, |worker, _, rows, mut out| {
            product.compute(gate, rows.clone(), out.reborrow(), &mut worker.panels);
            worker.columns.resize(tokens * rows.len(), 0.0);
            let up_out = MatrixMut::new(&mut worker.columns, rows.len());
            product.compute(up, rows.clone(), up_out, &mut worker.panels);
            for (t, up) in worker.columns.chunks_exact(rows.len()).enumerate() {
                ops::activate_gated(product.isa, activation, out.row_mut(t), up);
            }
        });
    }

    /// Rotates each head of `x` by its token's angles.
    pub(crate) fn rotate(&mut self, rope: (RopeLayout, &Turns), head_dim: usize, x: &mut Buffer) {
        let columns = x.columns();
        self.rotate_rows(rope, head_dim, x.data_mut(), columns);
    }

    /// As [`Cpu::rotate`], for rows of `columns` values.
    fn rotate_rows(
        &mut self,
        (layout, turns): (RopeLayout, &Turns),
        head_dim: usize,
        rows: &mut [f32],
        columns: usize,
    ) {
        self.pool.for_pieces(rows, columns, &mut self.workers, |_, t, row| {
            for head in row.chunks_exact_mut(head_dim) {
                ops::rotate(head, turns.of(t), layout);
            }
        });
    }

    fn form(&self, matrix: &Matrix) -> Form {
        self.rounding.form(matrix.weights())
    }

    /// Normalises and rounds the input as the products with `matrices` want it. Returns whether one wants 8 bits.
    fn prepare<'m>(&mut self, input: Input<'_>, matrices: impl IntoIterator<Item = &'m Matrix>) -> bool {
        let (isa, columns, x) = (self.isa, input.x.columns(), input.x.read());
        let (mut q8, mut i16, mut floats) = (false, false, false);
        for matrix in matrices {
            let form = self.form(matrix);
            q8 |= form == Form::Q8;
            i16 |= form == Form::I16;
            floats |= form != Form::Q8;
        }
        let Self { pool, workers, forms, .. } = self;
        if let Some(norm) = input.norm {
            forms.normed.resize(x.len(), 0.0);
            pool.for_pieces(&mut forms.normed, columns, workers, |_, t, row| {
                norm.apply(isa, &x[t * columns..][..columns], row);
            });
        }
        let x = if input.norm.is_some() { &forms.normed } else { x };
        let token = |t: usize| &x[t * columns..][..columns];
        let stride = chunks(columns);
        if q8 {
            forms.q8.resize(input.x.tokens() * stride, QuantizedChunk::ZERO);
            pool.for_pieces(&mut forms.q8, stride, workers, |_, t, out| ops::quantize(isa, token(t), out));
        }
        if i16 {
            forms.i16.resize(input.x.tokens() * stride, I16Chunk::ZERO);
            pool.for_pieces(&mut forms.i16, stride, workers, |_, t, out| {
                ops::quantize_i16(isa, token(t), out);
            });
        }
        for Worker { panels, .. } in workers {
            let runs = panel_runs(columns);
            if panels.runs.len() < runs {
                panels.runs.resize(runs, PanelRun::ZERO);
            }
            if floats {
                panels.floats.resize(FLOAT_PANELS, FloatPanel::ZERO);
            }
        }
        q8
    }
}

/// An input in the forms that it is read in, and how to multiply it.
#[derive(Clone, Copy)]
struct Product<'a> {
    isa: IsaKind,
    rounding: Rounding,
    x: &'a [f32],
    q8: &'a [QuantizedChunk],
    i16: &'a [I16Chunk],
}

impl Product<'_> {
    fn compute(
        &self,
        matrix: &Matrix,
        rows: std::ops::Range<usize>,
        out: MatrixMut<'_>,
        panels: &mut Panels,
    ) {
        let weights = matrix.weights().slice(rows);
        match self.rounding.form(weights) {
            Form::F32 => ops::matmul_f32(self.isa, weights, self.x, out, &mut panels.floats),
            Form::I16 => ops::matmul_i16(self.isa, weights, self.i16, out, &mut panels.floats),
            Form::Q8 => ops::matmul(self.isa, weights, self.q8, out, &mut panels.runs),
        }
    }

    /// Some of the rows, of one token; floats are multiplied as they are.
    fn compute_rows(&self, weights: Weights<'_>, rows: &[u32], out: &mut [f32]) {
        match self.rounding.form(weights) {
            Form::F32 | Form::I16 => ops::matmul_rows_f32(self.isa, weights, rows, self.x, out),
            Form::Q8 => ops::matmul_rows(self.isa, weights, rows, self.q8, out),
        }
    }
}
