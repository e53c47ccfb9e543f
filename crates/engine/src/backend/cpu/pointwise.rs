//! Operations on activations alone.

use firecrest_kernels::ops;

use super::{Activation, Buffer, Cpu};

/// Values in a task.
const PIECE: usize = 4096;

impl Cpu {
    /// Applies `activation` to every value.
    pub(crate) fn activate(&mut self, activation: Activation, x: &mut Buffer) {
        let isa = self.isa;
        self.pool.for_pieces(x.data_mut(), PIECE, &mut self.workers, |_, _, x| {
            ops::activate(isa, activation, x);
        });
    }

    /// `gate = activation(gate) * up`.
    pub(crate) fn activate_gated(&mut self, activation: Activation, gate: &mut Buffer, up: &Buffer) {
        let (isa, up) = (self.isa, up.read());
        self.pool.for_pieces(gate.data_mut(), PIECE, &mut self.workers, |_, i, gate| {
            ops::activate_gated(isa, activation, gate, &up[i * PIECE..][..gate.len()]);
        });
    }

    /// Brings every value to between `-limit` and `limit`.
    pub(crate) fn clamp(&mut self, x: &mut Buffer, limit: f32) {
        x.data_mut().iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
    }

    /// `x = cap * tanh(x / cap)`.
    pub(crate) fn soft_cap(&mut self, x: &mut Buffer, cap: f32) {
        self.pool.for_pieces(x.data_mut(), PIECE, &mut self.workers, |_, _, x| {
            x.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
        });
    }

    /// Normalises every token in place, each group of [`Norm::len`](crate::nn::Norm::len) values by itself.
    pub(crate) fn norm_groups(&mut self, norm: &crate::nn::Norm, x: &mut Buffer) {
        let isa = self.isa;
        let columns = x.columns();
        self.pool.for_pieces(x.data_mut(), columns, &mut self.workers, |worker, _, row| {
            for (i, group) in row.chunks_exact_mut(norm.len()).enumerate() {
                worker.columns.clear();
                worker.columns.extend_from_slice(group);
                norm.apply_group(isa, i, &worker.columns, group);
            }
        });
    }
}
