//! Feed-forward sublayers whose second matrix is stored by neuron, with a predictor of the neurons that fire: those of
//! PowerInfer's files. Source: arXiv 2312.12456.

use super::spec::NeuronSpec;
use super::tensors::{Linear, Norm, Tensors, optional_vector};
use super::weights::LoadError;
use crate::backend::{Activation, Buffer, Cpu, Input, Matrix, NeuronMatrix, Output};

/// The weights of such a sublayer.
#[derive(Debug)]
pub(crate) struct NeuronWeights {
    /// `[hidden, dim]`.
    gate: Option<Linear>,
    /// `[hidden, dim]`.
    up: Linear,
    down: NeuronMatrix,
    /// `[dim]`.
    down_bias: Option<Vec<f32>>,
    predictor: Option<Predictor>,
}

/// `second · relu(first · x)`, where `x` is the residual stream before any norm; neurons below the threshold are skipped.
#[derive(Debug)]
struct Predictor {
    /// `[rank, dim]`.
    first: Matrix,
    /// `[hidden, rank]`.
    second: Matrix,
}

impl Tensors<'_> {
    pub(super) fn neurons(
        &self,
        i: usize,
        spec: &NeuronSpec,
        dim: usize,
    ) -> Result<NeuronWeights, LoadError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let hidden = spec.hidden;
        let down = if self.has(&name("ffn_down_t.weight")) {
            NeuronMatrix::Rows(self.matrix(&name("ffn_down_t.weight"), hidden, dim)?)
        } else {
            let tensor = name("ffn_down.weight");
            let matrix = self.matrix(&tensor, dim, hidden)?;
            NeuronMatrix::new(&matrix).ok_or(LoadError::MissingTensor { tensor })?
        };
        let predictor = match self.gguf.tensor(&name("fc1.weight")) {
            None => None,
            Some(info) => {
                let rank = info.shape.get(1).copied().unwrap_or(1);
                Some(Predictor {
                    first: self.matrix(&name("fc1.weight"), rank, dim)?,
                    second: self.matrix(&name("fc2.weight"), hidden, rank)?,
                })
            }
        };
        Ok(NeuronWeights {
            gate: spec.gated.then(|| self.linear(&name("ffn_gate"), hidden, dim)).transpose()?,
            up: self.linear(&name("ffn_up"), hidden, dim)?,
            down,
            down_bias: optional_vector(self.gguf, &name("ffn_down.bias"), dim)?,
            predictor,
        })
    }
}

impl NeuronWeights {
    /// Bytes of the matrices, all neurons counted.
    pub(super) fn bytes(&self) -> usize {
        let predictor = self.predictor.as_ref().map_or(0, |p| p.first.bytes() + p.second.bytes());
        let gate = self.gate.as_ref().map_or(0, |gate| gate.matrix.bytes());
        gate + self.up.matrix.bytes() + self.down.neurons() * self.down.neuron_bytes() + predictor
    }

    /// `delta = down(activation(gate x) * up x)` over the neurons that fire; `x` is the residual stream.
    ///
    /// A token that comes alone reads the rows of those neurons only. Several share all rows, and leave the same neurons
    /// out, so that both give the same.
    pub(super) fn forward(
        &self,
        spec: &NeuronSpec,
        norm: Option<&Norm>,
        cpu: &mut Cpu,
        x: &Buffer,
        [hidden, up]: [&mut Buffer; 2],
        delta: &mut Buffer,
    ) {
        let input = Input { x, norm };
        let (tokens, neurons) = (x.tokens(), self.down.neurons());
        let scores = self.predictor.as_ref().map(|predictor| predictor.score(cpu, x));
        let fires = |t: usize, n: usize| {
            scores.as_ref().is_none_or(|scores| scores.read()[t * neurons + n] >= spec.threshold)
        };
        delta.reshape(tokens, self.down.outputs());
        if tokens == 1 && scores.is_some() {
            let rows: Vec<u32> = (0..neurons as u32).filter(|&n| fires(0, n as usize)).collect();
            let mut h = vec![0.0; neurons];
            let mut values = [Vec::new()];
            let mut product = |linear: &Linear, values: &mut [Vec<f32>; 1], activation: Activation| {
                cpu.project_rows(input, [&linear.matrix], &rows, values);
                if let Some(bias) = &linear.bias {
                    values[0].iter_mut().zip(&rows).for_each(|(x, &n)| *x += bias[n as usize]);
                }
                firecrest_kernels::ops::activate(cpu.isa(), activation, &mut values[0]);
            };
            if let Some(gate) = &self.gate {
                let mut gates = [Vec::new()];
                product(gate, &mut gates, spec.activation);
                product(&self.up, &mut values, spec.up_activation);
                values[0].iter_mut().zip(&gates[0]).for_each(|(u, g)| *u *= g);
            } else {
                product(&self.up, &mut values, spec.activation);
            }
            rows.iter().zip(&values[0]).for_each(|(&n, value)| h[n as usize] = *value);
            self.add_up(cpu, &h, delta.data_mut());
            return;
        }
        if let Some(gate) = &self.gate {
            cpu.project(input, &mut [gate.onto(hidden), self.up.onto(up)]);
            cpu.activate(spec.activation, hidden);
            cpu.activate(spec.up_activation, up);
            hidden.data_mut().iter_mut().zip(up.read()).for_each(|(g, u)| *g *= u);
        } else {
            cpu.project_activated(input, spec.activation, &mut [self.up.onto(hidden)]);
        }
        let rows = hidden.data_mut().chunks_exact_mut(neurons);
        for (t, (h, out)) in rows.zip(delta.data_mut().chunks_exact_mut(self.down.outputs())).enumerate() {
            (0..neurons).filter(|&n| !fires(t, n)).for_each(|n| h[n] = 0.0);
            self.add_up(cpu, h, out);
        }
    }

    fn add_up(&self, cpu: &mut Cpu, h: &[f32], out: &mut [f32]) {
        cpu.add_neurons(&self.down, h, |_, h| h != 0.0, out);
        if let Some(bias) = &self.down_bias {
            out.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
    }
}

impl Predictor {
    fn score(&self, cpu: &mut Cpu, x: &Buffer) -> Buffer {
        let (mut low, mut scores) = (Buffer::default(), Buffer::default());
        let first = Output { matrix: &self.first, bias: None, out: &mut low };
        cpu.project_activated(Input { x, norm: None }, Activation::Relu, &mut [first]);
        let second = Output { matrix: &self.second, bias: None, out: &mut scores };
        cpu.project(Input { x: &low, norm: None }, &mut [second]);
        scores
    }
}
