//! What encoders ask of the CPU beyond what decoders do: several sequences in one matrix, with attention inside each.

use std::ops::Range;

use firecrest_kernels::ops::{
    self, HeadCache, HeadCacheMut, HeadShape, Lines, LinesMut, MatrixMut, RopeLayout, Score,
};

use super::{Buffer, Cpu, Matrix, Turns};
use crate::nn::Norm;

/// How an encoder's layer attends: every token to every token of its sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SequenceAttention<'a> {
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    /// Turns by the position in a sequence.
    pub(crate) rope: Option<(RopeLayout, &'a Turns)>,
}

/// Keys and values of one head over one sequence, as the attention kernel wants them.
#[derive(Debug, Default)]
pub(super) struct HeadMemory {
    keys: Vec<[f32; 16]>,
    values: Vec<[f32; 16]>,
}

impl Cpu {
    /// `x[t] += table[ids[t]]`.
    pub(crate) fn add_rows(&mut self, table: &Matrix, ids: &[u32], x: &mut Buffer) {
        let weights = table.weights();
        let columns = x.columns();
        self.pool.for_pieces(x.data_mut(), columns, &mut self.workers, |worker, t, x| {
            worker.columns.resize(columns, 0.0);
            weights.dequantize_row(ids[t] as usize, &mut worker.columns);
            x.iter_mut().zip(&worker.columns).for_each(|(x, y)| *x += y);
        });
    }

    /// `x = norm(x + y)`, token by token; `norm(x)` without `y`.
    pub(crate) fn add_norm(&mut self, x: &mut Buffer, y: Option<&Buffer>, norm: &Norm) {
        let isa = self.isa;
        let columns = x.columns();
        let y = y.map(Buffer::read);
        self.pool.for_pieces(x.data_mut(), columns, &mut self.workers, |worker, t, x| {
            worker.columns.clear();
            match y {
                Some(y) => {
                    let y = &y[t * columns..][..columns];
                    worker.columns.extend(x.iter().zip(y).map(|(x, y)| x + y));
                }
                None => worker.columns.extend_from_slice(x),
            }
            norm.apply(isa, &worker.columns, x);
        });
    }

    /// Attends within each of `sequences`, which are consecutive ranges of the tokens of `q`, `k` and `v`.
    ///
    /// All are `[tokens, heads * head_dim]`; `out` becomes so.
    pub(crate) fn attend_sequences(
        &mut self,
        attention: SequenceAttention<'_>,
        sequences: &[Range<usize>],
        [q, k, v]: [&mut Buffer; 3],
        out: &mut Buffer,
    ) {
        let (isa, exact) = (self.isa, self.is_exact());
        let SequenceAttention { heads, head_dim, scale, rope } = attention;
        let width = heads * head_dim;
        if let Some(rope) = rope {
            for x in [&mut *q, &mut *k] {
                let mut rest = x.data_mut();
                for sequence in sequences {
                    let (rows, after) = rest.split_at_mut(sequence.len() * width);
                    rest = after;
                    self.rotate_rows(rope, head_dim, rows, width);
                }
            }
        }
        out.reshape(q.tokens(), width);
        let (q, k, v) = (q.read(), k.read(), v.read());
        let score = Score { scale, soft_cap: None, window: None, causal: false, slope: 0.0 };
        let mut rest = MatrixMut::new(out.data_mut(), width);
        let mut views = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let (view, after) = rest.split_rows(sequence.len());
            views.push(view);
            rest = after;
        }
        self.pool.for_columns(
            &mut views,
            |_| head_dim,
            &mut self.workers,
            |worker, i, columns, out| {
                let rows = sequences[i].clone();
                let shape = HeadShape { head_dim, capacity: rows.len() };
                let HeadMemory { keys, values } = &mut worker.head;
                keys.resize(shape.key_lines().max(keys.len()), [0.0; 16]);
                values.resize(shape.value_lines().max(values.len()), [0.0; 16]);
                for (position, row) in rows.clone().enumerate() {
                    let at = row * width + columns.start;
                    let (key, value) = (&k[at..][..head_dim], &v[at..][..head_dim]);
                    let head = LinesMut { keys, values, key_scales: &mut [], value_scales: &mut [] };
                    ops::store_kv(isa, HeadCacheMut::F32(head), position, key, value);
                }
                let head = HeadCache::F32(Lines { keys, values, key_scales: &[], value_scales: &[] });
                let q = &q[rows.start * width + columns.start..];
                worker.attention.attend(isa, exact, (q, width), head, None, 0, 1, None, score, out);
            },
        );
    }
}
