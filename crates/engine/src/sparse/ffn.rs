use std::fmt;
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use firecrest_kernels::ops;

use super::config::{ActivationType, SparsityConfig};
use super::error::{SparseError, check_finite, check_len, check_size};
use super::predictor::NeuronPredictor;
use super::weights::WeightMatrix;
use crate::backend::{Buffer, Cpu, CpuOptions, Input, NeuronMatrix};
use crate::gguf::Gguf;

/// A feed-forward layer that computes the neurons it is told to:
/// `second · activation(first · x + bias) + bias`, or, with a gate, `second · (activation(gate · x) * (first · x))`.
///
/// The second matrix is kept by neuron, so that what a neuron adds is read in one piece; quantized weights keep their
/// integers and scales. With quantized weights, activations are rounded to 8 bits with a scale for each 32, as in dense
/// products. Choosing all neurons gives what [`SparseFfn::forward_dense`] gives, bit for bit; leaving out neurons whose
/// activation is zero changes nothing either.
///
/// ```
/// use firecrest::gguf::Format;
/// use firecrest::sparse::{ActivationType, SparseFfn, WeightMatrix};
///
/// let weights: Vec<f32> = (0..32 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
/// let first = WeightMatrix::quantize(Format::Q8_0, &weights, 64, 32)?;
/// let second = WeightMatrix::quantize(Format::Q4_0, &weights, 32, 64)?;
/// let ffn = SparseFfn::from_weights(None, first, second, ActivationType::Silu)?;
/// let output = ffn.forward_sparse(&[0.5; 32], &[0, 7, 63])?;
/// assert_eq!(output.len(), 32);
/// # Ok::<(), firecrest::sparse::SparseError>(())
/// ```
pub struct SparseFfn {
    activation: ActivationType,
    /// `[hidden, input]`.
    gate: Option<WeightMatrix>,
    /// `[hidden, input]`.
    first: WeightMatrix,
    first_bias: Option<Vec<f32>>,
    second: NeuronMatrix,
    second_bias: Option<Vec<f32>>,
    work: Mutex<Work>,
}

/// Threads, and memory to work in.
struct Work {
    cpu: Cpu,
    input: Buffer,
    rows: Vec<u32>,
    first: [Vec<f32>; 1],
    both: [Vec<f32>; 2],
    hidden: Vec<f32>,
}

impl SparseFfn {
    /// A layer of reproducible, meaningless weights without a gate, to measure and to try: F32, uniform, scaled so that
    /// outputs are about as large as inputs.
    pub fn new(
        input_dim: usize,
        hidden_dim: usize,
        output_dim: usize,
        activation: ActivationType,
    ) -> Result<Self, SparseError> {
        for (what, size) in
            [("the input size", input_dim), ("the hidden size", hidden_dim), ("the output size", output_dim)]
        {
            check_size(what, size)?;
        }
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut uniform = |rows: usize, columns: usize| {
            let scale = (3.0 / columns as f32).sqrt();
            let len = rows.checked_mul(columns).filter(|&len| len <= 1 << 31);
            let len =
                len.ok_or(SparseError::Size { what: "the number of weights", value: rows.max(columns) })?;
            let value = |_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
            };
            let values: Vec<f32> = (0..len).map(value).collect();
            WeightMatrix::from_f32(&values, rows, columns)
        };
        let (first, second) = (uniform(hidden_dim, input_dim)?, uniform(output_dim, hidden_dim)?);
        Self::from_weights(None, first, second, activation)
    }

    /// A layer of given weights: `gate` (if it has one) and `first` are `[hidden, input]`, `second` is
    /// `[output, hidden]` and is laid out by neuron here. Fails where shapes do not agree.
    pub fn from_weights(
        gate: Option<WeightMatrix>,
        first: WeightMatrix,
        second: WeightMatrix,
        activation: ActivationType,
    ) -> Result<Self, SparseError> {
        check_len("the second matrix's row", first.rows(), second.columns())?;
        let by_neuron = NeuronMatrix::new(&second.0).ok_or_else(|| SparseError::Weights {
            what: format!("a second matrix of {} in rows of {}", second.format(), second.columns()),
        })?;
        Self::assemble(gate, first, by_neuron, activation)
    }

    /// As [`SparseFfn::from_weights`], with a second matrix that is `[hidden, output]` already, as in PowerInfer's files.
    pub fn from_weights_by_neuron(
        gate: Option<WeightMatrix>,
        first: WeightMatrix,
        second: WeightMatrix,
        activation: ActivationType,
    ) -> Result<Self, SparseError> {
        Self::assemble(gate, first, NeuronMatrix::Rows(second.0), activation)
    }

    /// The feed-forward layer `blk.{layer}` of a model file: with its gate, if there is one, and with its second matrix in
    /// either orientation (`ffn_down`, or `ffn_down_t` by neuron).
    pub fn from_gguf(gguf: &Gguf, layer: usize, activation: ActivationType) -> Result<Self, SparseError> {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}.weight");
        let gate = match gguf.tensor(&name("gate")) {
            Some(_) => Some(WeightMatrix::from_gguf(gguf, &name("gate"))?),
            None => None,
        };
        let first = WeightMatrix::from_gguf(gguf, &name("up"))?;
        if gguf.tensor(&name("down_t")).is_some() {
            let second = WeightMatrix::from_gguf(gguf, &name("down_t"))?;
            return Self::from_weights_by_neuron(gate, first, second, activation);
        }
        Self::from_weights(gate, first, WeightMatrix::from_gguf(gguf, &name("down"))?, activation)
    }

    fn assemble(
        gate: Option<WeightMatrix>,
        first: WeightMatrix,
        second: NeuronMatrix,
        activation: ActivationType,
    ) -> Result<Self, SparseError> {
        check_len("the second matrix", first.rows(), second.neurons())?;
        if let Some(gate) = &gate {
            check_len("the gate's rows", first.rows(), gate.rows())?;
            check_len("the gate's columns", first.columns(), gate.columns())?;
        }
        Ok(Self {
            activation,
            gate,
            first,
            first_bias: None,
            second,
            second_bias: None,
            work: Mutex::new(Work::new(1)?),
        })
    }

    /// With biases: `first` is added before the activation, `second` at the end.
    pub fn with_biases(
        mut self,
        first: Option<Vec<f32>>,
        second: Option<Vec<f32>>,
    ) -> Result<Self, SparseError> {
        for (what, bias, len) in
            [("the first bias", &first, self.hidden_dim()), ("the second bias", &second, self.output_dim())]
        {
            if let Some(bias) = bias {
                check_len(what, len, bias.len())?;
                check_finite(what, bias)?;
            }
        }
        (self.first_bias, self.second_bias) = (first, second);
        Ok(self)
    }

    /// Computes on so many threads; one, if not told.
    pub fn with_threads(mut self, threads: NonZero<usize>) -> Result<Self, SparseError> {
        self.work = Mutex::new(Work::new(threads.get())?);
        Ok(self)
    }

    /// Values of an input.
    pub fn input_dim(&self) -> usize {
        self.first.columns()
    }

    /// Number of neurons.
    pub fn hidden_dim(&self) -> usize {
        self.first.rows()
    }

    /// Values of an output.
    pub fn output_dim(&self) -> usize {
        self.second.outputs()
    }

    /// The activation function.
    pub fn activation(&self) -> ActivationType {
        self.activation
    }

    /// Whether there is a gate.
    pub fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// Bytes of weights that one more neuron costs, the scales it shares with others left out.
    pub fn neuron_bytes(&self) -> usize {
        let rows = self.first.row_bytes() + self.gate.as_ref().map_or(0, WeightMatrix::row_bytes);
        rows + self.second.neuron_bytes()
    }

    /// The activations of all neurons: what the second matrix is multiplied with.
    pub fn activations(&self, input: &[f32]) -> Result<Vec<f32>, SparseError> {
        let mut work = self.prepare(input)?;
        work.rows = (0..self.hidden_dim() as u32).collect();
        self.compute_hidden(&mut work);
        Ok(work.hidden.clone())
    }

    /// The output with all neurons.
    pub fn forward_dense(&self, input: &[f32]) -> Result<Vec<f32>, SparseError> {
        let mut work = self.prepare(input)?;
        work.rows = (0..self.hidden_dim() as u32).collect();
        Ok(self.forward(&mut work))
    }

    /// The output with the neurons `active` alone, which are ascending. Fails where the input has another size or values
    /// that are not finite, and where neurons are out of range or out of order.
    pub fn forward_sparse(&self, input: &[f32], active: &[usize]) -> Result<Vec<f32>, SparseError> {
        let neurons = self.hidden_dim();
        let bad = |&(i, &n): &(usize, &usize)| n >= neurons || (i > 0 && active[i - 1] >= n);
        if let Some((_, &neuron)) = active.iter().enumerate().find(bad) {
            return Err(SparseError::Neuron { neuron, neurons });
        }
        let mut work = self.prepare(input)?;
        work.rows.clear();
        work.rows.extend(active.iter().map(|&n| n as u32));
        Ok(self.forward(&mut work))
    }

    /// The output for activations that are known, as [`SparseFfn::activations`] gives them: with the neurons `active`
    /// alone, ascending.
    pub(super) fn output_of(&self, mut hidden: Vec<f32>, active: &[usize]) -> Vec<f32> {
        let mut work = self.lock();
        work.rows.clear();
        work.rows.extend(active.iter().map(|&n| n as u32));
        let mut kept = vec![0.0; hidden.len()];
        active.iter().for_each(|&n| kept[n] = hidden[n]);
        std::mem::swap(&mut hidden, &mut kept);
        work.hidden = hidden;
        self.add_up(&mut work)
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        // What is in there is overwritten by every call, so a panic in another leaves nothing broken behind.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepare(&self, input: &[f32]) -> Result<MutexGuard<'_, Work>, SparseError> {
        check_len("the input", self.input_dim(), input.len())?;
        check_finite("the input", input)?;
        let mut work = self.lock();
        work.input.reshape(1, input.len());
        work.input.data_mut().copy_from_slice(input);
        Ok(work)
    }

    /// The activations of the neurons `work.rows`; those of all others are zero.
    fn compute_hidden(&self, work: &mut Work) {
        let Work { cpu, input, rows, first, both, hidden } = work;
        let input = Input { x: input, norm: None };
        let values = match &self.gate {
            Some(gate) => {
                cpu.project_rows(input, [&gate.0, &self.first.0], rows, both);
                let [gate, first] = both;
                add_bias(first, rows, self.first_bias.as_deref());
                ops::activate_gated(cpu.isa(), self.activation.function(), gate, first);
                gate
            }
            None => {
                cpu.project_rows(input, [&self.first.0], rows, first);
                let [first] = first;
                add_bias(first, rows, self.first_bias.as_deref());
                ops::activate(cpu.isa(), self.activation.function(), first);
                first
            }
        };
        hidden.clear();
        hidden.resize(self.first.rows(), 0.0);
        rows.iter().zip(values).for_each(|(&n, value)| hidden[n as usize] = *value);
    }

    fn forward(&self, work: &mut Work) -> Vec<f32> {
        self.compute_hidden(work);
        self.add_up(work)
    }

    fn add_up(&self, work: &mut Work) -> Vec<f32> {
        let mut out = vec![0.0; self.output_dim()];
        work.cpu.add_neurons(&self.second, &work.hidden, |_, h| h != 0.0, &mut out);
        if let Some(bias) = &self.second_bias {
            out.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        out
    }
}

fn add_bias(values: &mut [f32], rows: &[u32], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        values.iter_mut().zip(rows).for_each(|(x, &n)| *x += bias[n as usize]);
    }
}

impl Work {
    fn new(threads: usize) -> Result<Self, SparseError> {
        let options = CpuOptions { threads: NonZero::new(threads), ..CpuOptions::default() };
        Ok(Self {
            cpu: Cpu::new(&options).map_err(crate::nn::LoadError::from)?,
            input: Buffer::default(),
            rows: Vec::new(),
            first: Default::default(),
            both: Default::default(),
            hidden: Vec::new(),
        })
    }
}

impl fmt::Debug for SparseFfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparseFfn")
            .field("input_dim", &self.input_dim())
            .field("hidden_dim", &self.hidden_dim())
            .field("output_dim", &self.output_dim())
            .field("activation", &self.activation)
            .field("gated", &self.is_gated())
            .field("format", &self.first.format())
            .finish()
    }
}

/// Computes the gate (or the first matrix, where there is none) in full, and scores neurons by the magnitude of its
/// activation: an exact choice for ReLU, at the price of one product.
///
/// ```
/// use std::sync::Arc;
/// use firecrest::sparse::{ActivationType, GateThresholdPredictor, NeuronPredictor, SparseFfn, SparsityConfig};
///
/// let ffn = Arc::new(SparseFfn::new(16, 64, 16, ActivationType::Relu)?);
/// let predictor = GateThresholdPredictor::new(Arc::clone(&ffn), SparsityConfig::with_threshold(0.0))?;
/// let input = [0.3; 16];
/// let active = predictor.predict(&input)?;
/// assert_eq!(ffn.forward_sparse(&input, &active)?, ffn.forward_dense(&input)?);
/// # Ok::<(), firecrest::sparse::SparseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GateThresholdPredictor {
    ffn: std::sync::Arc<SparseFfn>,
    config: SparsityConfig,
}

impl GateThresholdPredictor {
    /// A predictor for this layer.
    pub fn new(ffn: std::sync::Arc<SparseFfn>, config: SparsityConfig) -> Result<Self, SparseError> {
        config.validate(ffn.hidden_dim())?;
        Ok(Self { ffn, config })
    }
}

impl NeuronPredictor for GateThresholdPredictor {
    fn input_dim(&self) -> usize {
        self.ffn.input_dim()
    }

    fn hidden_dim(&self) -> usize {
        self.ffn.hidden_dim()
    }

    fn config(&self) -> SparsityConfig {
        self.config
    }

    fn cost(&self) -> usize {
        self.ffn.input_dim() * self.ffn.hidden_dim()
    }

    fn score(&self, input: &[f32], out: &mut [f32]) {
        let mut work = self.ffn.lock();
        let Work { cpu, input: x, rows, first, .. } = &mut *work;
        x.reshape(1, input.len());
        x.data_mut().copy_from_slice(input);
        *rows = (0..self.ffn.hidden_dim() as u32).collect();
        let gate = self.ffn.gate.as_ref();
        cpu.project_rows(Input { x, norm: None }, [&gate.unwrap_or(&self.ffn.first).0], rows, first);
        let [values] = first;
        if gate.is_none() {
            add_bias(values, rows, self.ffn.first_bias.as_deref());
        }
        ops::activate(cpu.isa(), self.ffn.activation.function(), values);
        out.iter_mut().zip(values).for_each(|(out, value)| *out = value.abs());
    }
}
