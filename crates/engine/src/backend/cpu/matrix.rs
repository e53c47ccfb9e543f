//! Weights and activations on the CPU.

use firecrest_kernels::format::Format;
use firecrest_kernels::ops::{PANEL_TOKENS, Weights};

use crate::weights::Bytes;

/// Rows of weights in a task of many tokens. A multiple of the 16 rows of a panel; small enough that a preempted thread
/// holds up the others only briefly.
const GRAIN: usize = 64;

/// Bytes of weights in a task of few tokens, about: memory delivers long runs faster than short ones.
const TASK_BYTES: usize = 256 << 10;

/// A weight matrix, `[rows, columns]`, used in place in the bytes of the file.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    bytes: Bytes,
    format: Format,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// `None` where the bytes are not `rows` × `columns` weights of `format`.
    pub(crate) fn new(bytes: Bytes, format: Format, rows: usize, columns: usize) -> Option<Self> {
        Weights::new(format, &bytes, rows, columns)?;
        Some(Self { bytes, format, rows, columns })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The rows of `range`, in place. Panics if it leaves the matrix.
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let row_bytes = self.bytes.len() / self.rows.max(1);
        let bytes = self.bytes.slice(range.start * row_bytes..range.end * row_bytes);
        Self { bytes, rows: range.len(), ..*self }
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many of `rows` rows make a task of a product with so many tokens: of equal size, as many for each thread. One
    /// thread alone takes them all for one token; for a few, what it takes is to stay in cache.
    pub(super) fn grain(&self, rows: usize, tokens: usize, threads: usize) -> usize {
        if tokens >= PANEL_TOKENS {
            let longest = |grain: usize| rows.div_ceil(grain).div_ceil(threads) * grain;
            return if longest(GRAIN / 2) < longest(GRAIN) { GRAIN / 2 } else { GRAIN };
        }
        if threads == 1 && tokens == 1 {
            return rows.max(1);
        }
        let row_bytes = self.bytes.len() / self.rows.max(1);
        let tasks = (rows * row_bytes / TASK_BYTES).max(1).next_multiple_of(threads);
        rows.div_ceil(tasks).next_multiple_of(4).max(16)
    }

    /// Whether both are the same weights in memory.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        std::ptr::eq(&*self.bytes, &*other.bytes)
    }

    /// The bytes, in the format's layout.
    pub(crate) fn data(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn weights(&self) -> Weights<'_> {
        Weights::new(self.format, &self.bytes, self.rows, self.columns)
            .expect("checked when the matrix was made")
    }
}

/// Activations, `[tokens, columns]`.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<f32>,
    columns: usize,
}

impl Buffer {
    /// Makes it hold `tokens` × `columns` values, of any content.
    pub(crate) fn reshape(&mut self, tokens: usize, columns: usize) {
        self.columns = columns;
        self.data.resize(tokens * columns, 0.0);
    }

    pub(crate) fn tokens(&self) -> usize {
        self.data.len() / self.columns.max(1)
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The values, token by token, once they are computed.
    pub(crate) fn read(&self) -> &[f32] {
        &self.data
    }

    /// Becomes a copy of some tokens of another buffer.
    pub(crate) fn select(&mut self, from: &Buffer, tokens: impl Iterator<Item = usize>) {
        self.clear();
        self.append(from, tokens);
    }

    /// Drops all tokens.
    pub(crate) fn clear(&mut self) {
        self.data.clear();
    }

    /// Adds copies of some tokens of another buffer.
    pub(crate) fn append(&mut self, from: &Buffer, tokens: impl Iterator<Item = usize>) {
        self.columns = from.columns;
        for token in tokens {
            self.data.extend_from_slice(&from.data[token * from.columns..][..from.columns]);
        }
    }

    /// `x = tanh(x)`.
    pub(crate) fn tanh(&mut self) {
        self.data.iter_mut().for_each(|x| *x = x.tanh());
    }

    /// Drops all tokens before `start`.
    pub(crate) fn keep_from(&mut self, start: usize) {
        self.data.drain(..start * self.columns);
    }

    /// Drops all but some tokens, which ascend.
    pub(crate) fn keep(&mut self, tokens: &[usize]) {
        keep_rows(&mut self.data, self.columns, tokens);
    }

    pub(crate) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

/// Drops all but some rows of `columns` values, which ascend.
pub(super) fn keep_rows<T: Copy>(data: &mut Vec<T>, columns: usize, rows: &[usize]) {
    for (to, from) in rows.iter().enumerate() {
        data.copy_within(from * columns..(from + 1) * columns, to * columns);
    }
    data.truncate(rows.len() * columns);
}
