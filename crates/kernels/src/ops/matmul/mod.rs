//! Matrix products: `out[t][r] = Σ_k weights[r][k] · x[t][k]`.
//!
//! One token reads each row once ([`vector`], [`quarters`]). Many tokens share a *panel* of 16 rows, unpacked once to integers that
//! stand interleaved as the dot-product instruction wants them ([`panel`]); it stays in cache for all the tokens and
//! is then thrown away, so nothing is repacked when a model loads. Both have a twin for exact `f32` activations and
//! for weights that are floats ([`float`], [`tiles`]); with many tokens those also multiply in 16-bit fixed point ([`fixed`]).
//! Sparse layers multiply with some rows only, which gives each the very bits that the product with all of them has.

mod fixed;
mod float;
mod panel;
mod quarters;
mod tiles;
mod unpacked;
mod vector;

use super::{MatrixMut, QuantizedChunk, chunks};
use crate::format::{Codes, Format, Quant};
use crate::isa::{CodeRange, Isa, IsaKind};
use crate::with_quant;

pub use fixed::{I16Chunk, matmul_i16, prefers_i16, quantize_i16};
pub(super) use fixed::{NORM, PairsProduct, PairsRow, RoundLanes, round};
pub use panel::PanelRun;
pub(super) use tiles::Panel;
pub use tiles::{FLOAT_PANELS, FloatPanel};

/// Rows of one weight matrix, as they lie in the file.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    format: Format,
    /// Of these rows, and of those of the matrix that follow: the last chunk of a row is read beyond its end.
    bytes: &'a [u8],
    rows: usize,
    columns: usize,
    row_bytes: usize,
}

impl<'a> Weights<'a> {
    /// Views `bytes` as `rows` × `columns` weights; `None` where the size does not agree, or where `columns` is not
    /// whole blocks.
    pub fn new(format: Format, bytes: &'a [u8], rows: usize, columns: usize) -> Option<Self> {
        let row_bytes = format.row_bytes(columns)?;
        (row_bytes.checked_mul(rows)? == bytes.len()).then_some(Self {
            format,
            bytes,
            rows,
            columns,
            row_bytes,
        })
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows of `range`. Panics if it leaves the matrix.
    pub fn slice(&self, range: core::ops::Range<usize>) -> Self {
        assert!(range.end <= self.rows);
        let bytes = &self.bytes[range.start * self.row_bytes..];
        Self { bytes, rows: range.len(), ..*self }
    }

    /// One row, as floats. Panics unless `out` has [`Weights::columns`] entries.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.columns);
        self.format.dequantize(self.row(row), out);
    }

    /// A row, and all that follow it in the matrix.
    #[inline(always)]
    fn rows_from(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..]
    }

    /// Bytes from the row `selected[i]` to the one that follows it there, modulo the size of the address space: rows that
    /// are chosen stand apart, so that each is asked for while the one before it is multiplied.
    #[inline(always)]
    fn distance(&self, selected: &[u32], i: usize) -> usize {
        let next = selected[(i + 2).min(selected.len() - 1)];
        (next as usize).wrapping_sub(selected[i] as usize).wrapping_mul(self.row_bytes)
    }

    /// Asks for bytes of a row, if there is such a row. Not inlined: the code is the same for all formats.
    #[inline(never)]
    fn prefetch<I: Isa>(&self, isa: I, row: usize, bytes: core::ops::Range<usize>) {
        for line in bytes.step_by(64) {
            isa.prefetch(self.bytes, row * self.row_bytes + line);
        }
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..][..self.row_bytes]
    }
}

/// The order in which rows are multiplied one by one: `R` at a time, each from another part of them. Memory delivers more
/// from a few places at once than from one.
struct Parts<const R: usize> {
    rows: usize,
    /// Rows of each part but the last, which may be short.
    len: usize,
}

impl<const R: usize> Parts<R> {
    #[inline(always)]
    fn new(rows: usize) -> Self {
        Self { rows, len: rows.div_ceil(R) }
    }

    #[inline(always)]
    fn steps(&self) -> core::ops::Range<usize> {
        0..self.len
    }

    /// The rows of a step. The last repeats for those that a part lacks.
    #[inline(always)]
    fn rows(&self, step: usize) -> [usize; R] {
        let mut rows = [0; R];
        for r in 0..R {
            rows[r] = (r * self.len + step).min(self.rows - 1);
        }
        rows
    }

    /// How far from each row of a step stands what should be asked for. After the parts that is what follows them: most
    /// likely it is multiplied next, in parts of this size.
    #[inline(always)]
    fn ahead(&self, step: usize, row_bytes: usize) -> usize {
        let ends = step * row_bytes + AHEAD >= self.len * row_bytes;
        if ends { AHEAD + (R - 1) * self.len * row_bytes } else { AHEAD }
    }
}

/// [`PanelRun`]s that a product with rows of `columns` weights works in.
pub const fn panel_runs(columns: usize) -> usize {
    let runs = panel::PANELS * columns.div_ceil(64) * 2;
    // WebAssembly alone widens codes: those of the panels, and of the two tokens that are multiplied at a time.
    if cfg!(target_arch = "wasm32") { 2 * (runs + chunks(columns)) } else { runs }
}

/// Bytes of each part of the rows that are asked for before they are needed: what memory delivers while it is waited for.
const AHEAD: usize = 1024;

/// Tokens from which on a panel is worth its unpacking: arithmetic bounds a product then, not memory.
pub const PANEL_TOKENS: usize = 4;

/// `out = x · weightsᵀ` for 8-bit activations of `out.rows()` tokens.
///
/// `x` holds the tokens one after another, [`chunks`]`(columns)` each; `out` is `[tokens, weights.rows()]`.
///
/// Panics if the shapes do not agree, if the weights' format is not [quantized](Format::is_quantized), or if `panel` is
/// shorter than [`panel_runs`]`(columns)`; what it holds does not matter.
pub fn matmul(
    isa: IsaKind,
    weights: Weights<'_>,
    x: &[QuantizedChunk],
    out: MatrixMut<'_>,
    panel: &mut [PanelRun],
) {
    let stride = chunks(weights.columns);
    assert_eq!(x.len(), out.rows() * stride);
    assert_eq!(out.columns(), weights.rows);
    let product = with_quant!(weights.format, Q => {
        if out.rows() < PANEL_TOKENS {
            isa.run(vector::MatVec::<Q>::new(weights, None, x, out));
        } else {
            isa.run(panel::MatMul::<Q>::new(weights, x, out, panel));
        }
    });
    assert!(product.is_some(), "{} is not quantized", weights.format);
}

/// `out = x · weightsᵀ` for exact activations and weights of any format; `x` is `[tokens, columns]`.
///
/// Panics if the shapes do not agree, or if there are fewer than [`FLOAT_PANELS`] panels; what they hold does not matter.
pub fn matmul_f32(
    isa: IsaKind,
    weights: Weights<'_>,
    x: &[f32],
    out: MatrixMut<'_>,
    panels: &mut [FloatPanel],
) {
    assert_eq!(x.len(), out.rows() * weights.columns);
    assert_eq!(out.columns(), weights.rows);
    isa.run(float::Product { weights, x, out, panels });
}

/// `out[i] = weights[rows[i]] · x` for one token of 8-bit activations.
///
/// Panics if the shapes do not agree, if a row is not there, or if the format is not
/// [quantized](Format::is_quantized).
pub fn matmul_rows(isa: IsaKind, weights: Weights<'_>, rows: &[u32], x: &[QuantizedChunk], out: &mut [f32]) {
    assert_eq!(x.len(), chunks(weights.columns));
    assert_eq!(out.len(), rows.len());
    assert!(weights.format.is_quantized(), "{} is not quantized", weights.format);
    if rows.is_empty() {
        return;
    }
    let out = MatrixMut::new(out, rows.len());
    with_quant!(weights.format, Q => isa.run(vector::MatVec::<Q>::new(weights, Some(rows), x, out)));
}

/// As [`matmul_rows`] for exact activations, and for weights of any format.
///
/// Panics if the shapes do not agree, or if a row is not there.
pub fn matmul_rows_f32(isa: IsaKind, weights: Weights<'_>, rows: &[u32], x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), weights.columns);
    assert_eq!(out.len(), rows.len());
    if rows.is_empty() {
        return;
    }
    let out = MatrixMut::new(out, rows.len());
    isa.run(float::MatVec { weights, selected: Some(rows), x, out });
}

/// What is added to the codes of `Q` so that `I` multiplies them, and the code that then stands for zero.
#[inline(always)]
const fn bias_and_zero<I: Isa, Q: Quant>() -> (u8, u8) {
    match Q::CODES {
        Codes::Unsigned { zero, .. } => (0, zero),
        Codes::Signed => (I::SIGNED_BIAS, I::SIGNED_BIAS),
    }
}

/// What is known of the codes of `Q` that went through [`biased`].
#[inline(always)]
const fn range<I: Isa, Q: Quant>() -> CodeRange {
    match Q::CODES {
        Codes::Unsigned { max: ..=15, .. } if I::NIBBLES => CodeRange::Nibble,
        Codes::Signed if I::SIGNED_BIAS == 0 => CodeRange::Signed,
        _ => CodeRange::Unsigned,
    }
}

/// Codes of `Q`, biased so that [`range`] holds.
#[inline(always)]
fn biased<I: Isa, Q: Quant>(isa: I, codes: I::Bytes) -> I::Bytes {
    // Adding 128 to a signed byte flips its sign bit.
    if bias_and_zero::<I, Q>().0 != 0 { isa.xor(codes, isa.splat_byte(0x80)) } else { codes }
}
