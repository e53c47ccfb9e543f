//! Products with formats that have no code of their own: each chunk is unpacked by a call, and what follows is compiled
//! once for all. The rarer formats have this in a module for browsers, which is downloaded, and on instruction sets that are
//! [compact](Isa::COMPACT).

use super::panel::{Operands, PANELS, PanelRun, ROWS, Tiles, place, width};
use super::{Weights, panel_runs};
use crate::format::{CHUNK, GROUPS, Unpacked, Unpacker};
use crate::isa::{CodeRange, Isa, Op};
use crate::ops::{MatrixMut, QuantizedChunk, chunks};

/// Codes as dot products take them, with what is added to them.
#[inline(always)]
fn biased<I: Isa>(isa: I, codes: &[i8; 64]) -> I::Bytes {
    let codes = isa.load(&codes.map(|code| code as u8));
    // Adding 128 to a signed byte flips its sign bit.
    if I::SIGNED_BIAS == 0 { codes } else { isa.xor(codes, isa.splat_byte(0x80)) }
}

const fn range<I: Isa>() -> CodeRange {
    if I::SIGNED_BIAS == 0 { CodeRange::Signed } else { CodeRange::Unsigned }
}

/// Unpacks a chunk, with a scale and an offset for each 16 weights, whatever the format has; in the offsets is what takes
/// off the code of zero and the bias.
#[inline(always)]
fn unpack<I: Isa>(unpacker: &Unpacker, chunk: &[u8], out: &mut Unpacked) {
    unpacker.unpack(chunk, out);
    let scales = out.scales;
    let zero = f32::from(unpacker.zero) + f32::from(I::SIGNED_BIAS);
    for g in 0..GROUPS {
        let (scale, offset) = (scales.scale[16 * g / unpacker.group], scales.offset[16 * g / unpacker.group]);
        out.scales.scale[g] = scale;
        out.scales.offset[g] = offset - scale * zero;
    }
}

pub(super) struct MatVec<'a> {
    pub(super) unpacker: Unpacker,
    pub(super) weights: Weights<'a>,
    /// The rows to multiply with; `None` for all.
    pub(super) selected: Option<&'a [u32]>,
    pub(super) x: &'a [QuantizedChunk],
    pub(super) out: MatrixMut<'a>,
}

impl Op for MatVec<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { unpacker, weights, selected, x, mut out } = self;
        let mut chunk = Unpacked::ZERO;
        for (t, x) in x.chunks_exact(chunks(weights.columns)).enumerate() {
            for (r, out) in out.row_mut(t).iter_mut().enumerate() {
                let row = weights.row(selected.map_or(r, |selected| selected[r] as usize));
                let mut products = isa.splat(0.0);
                let mut offsets = isa.splat(0.0);
                for (bytes, x) in row.chunks(unpacker.chunk_bytes()).zip(x) {
                    unpack::<I>(&unpacker, bytes, &mut chunk);
                    let offset = isa.load_f32(&chunk.scales.offset);
                    offsets = isa.mul_add(offset, x.half_sums(isa), offsets);
                    let scale = isa.mul(isa.load_f32(&chunk.scales.scale), isa.load_doubled(&x.scale));
                    let mut scales = [0.0; GROUPS];
                    isa.store_f32(scale, &mut scales);
                    for pair in 0..CHUNK / 64 {
                        let codes = biased(isa, &chunk.codes[pair]);
                        let sums = isa.dot_all(range::<I>(), [codes], [isa.load(&x.codes[pair])]);
                        let scale = isa.spread(&scales, [0, 1, 2, 3].map(|quarter| 4 * pair + quarter));
                        products = isa.mul_add(isa.to_f32(sums), scale, products);
                    }
                }
                *out = isa.sum(isa.add(products, offsets));
            }
        }
    }
}

pub(super) struct MatMul<'a> {
    pub(super) unpacker: Unpacker,
    pub(super) weights: Weights<'a>,
    pub(super) x: &'a [QuantizedChunk],
    pub(super) out: MatrixMut<'a>,
    pub(super) panel: &'a mut [PanelRun],
}

impl MatMul<'_> {
    /// Unpacks rows `first ..`, at most 16, into the panel.
    #[inline(always)]
    fn fill<I: Isa>(isa: I, unpacker: &Unpacker, weights: Weights<'_>, first: usize, panel: &mut [PanelRun]) {
        let rows = ROWS.min(weights.rows - first);
        let mut chunk = Unpacked::ZERO;
        let mut lines = [[[0; 64]; ROWS]; CHUNK / 64];
        let width = width::<I>(range::<I>());
        for (c, runs) in panel.chunks_mut(CHUNK / 32 * width).enumerate() {
            for r in 0..rows {
                let row = &weights.row(first + r)[c * unpacker.chunk_bytes()..];
                unpack::<I>(unpacker, &row[..row.len().min(unpacker.chunk_bytes())], &mut chunk);
                for (g, run) in runs.iter_mut().step_by(width).enumerate() {
                    for part in 0..2 {
                        run.scale[part][r] = chunk.scales.scale[2 * g + part];
                        run.offset[part][r] = chunk.scales.offset[2 * g + part];
                    }
                }
                for (lines, codes) in lines.iter_mut().zip(&chunk.codes) {
                    isa.store(biased(isa, codes), &mut lines[r]);
                }
            }
            for (lines, runs) in lines.iter().zip(runs.chunks_exact_mut(2 * width)) {
                let mut quads = [[0; 64]; 16];
                isa.transpose_quads(lines, &mut quads);
                place(isa, &quads, runs);
            }
        }
    }
}

impl Op for MatMul<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { unpacker, weights, x, out: mut rest, panel } = self;
        let panel = &mut panel[..panel_runs(weights.columns)];
        let stride = chunks(weights.columns);
        let runs = weights.columns.div_ceil(64) * 2 * width::<I>(range::<I>());
        let (panel, words) = panel.split_at_mut(PANELS * runs);
        for first in (0..weights.rows).step_by(PANELS * ROWS) {
            let rows = (PANELS * ROWS).min(weights.rows - first);
            let panels = &mut panel[..rows.div_ceil(ROWS) * runs];
            for (i, panel) in panels.chunks_exact_mut(runs).enumerate() {
                Self::fill(isa, &unpacker, weights, first + i * ROWS, panel);
            }
            let (out, others) = rest.split_columns(rows);
            rest = others;
            let operands = Operands { panels, runs, x, stride, words, zero: 0, out };
            match range::<I>() {
                CodeRange::Signed => isa.call(Tiles::<16, true, true, false>(operands)),
                _ => isa.call(Tiles::<16, true, false, false>(operands)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::isa::IsaKind;
    use crate::ops::{matmul, quantize};
    use std::vec;
    use std::vec::Vec;

    /// Rows of small scales and any codes: bytes that count up, and scales of one.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 37 % 61) as u8).collect()
    }

    #[test]
    fn every_format_gives_what_its_own_code_gives() {
        for &format in Format::ALL {
            let Some(unpacker) = Unpacker::new(format) else { continue };
            for columns in [CHUNK, 2 * CHUNK, CHUNK + format.block_len()] {
                let rows = 37;
                let bytes = bytes(rows * format.row_bytes(columns).unwrap());
                let weights = Weights::new(format, &bytes, rows, columns).unwrap();
                for isa in IsaKind::available() {
                    let tokens = 5;
                    let mut x = vec![QuantizedChunk::ZERO; tokens * chunks(columns)];
                    for (t, x) in x.chunks_exact_mut(chunks(columns)).enumerate() {
                        let values: Vec<f32> =
                            (0..columns).map(|i| ((i * 7 + t * 5) % 29) as f32 - 14.0).collect();
                        quantize(isa, &values, x);
                    }
                    let mut panel = vec![PanelRun::ZERO; panel_runs(columns)];
                    let (mut want, mut got) = (vec![0.0; tokens * rows], vec![0.0; tokens * rows]);
                    matmul(isa, weights, &x, MatrixMut::new(&mut want, rows), &mut panel);
                    let size = want.iter().fold(0.0, |size: f32, x| size.max(x.abs()));
                    let check = |got: &[f32]| {
                        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                            let near = (got - want).abs() <= 1e-4 * size || !want.is_finite();
                            assert!(near, "{format}, {isa}, {columns} columns, {i}: {got}, not {want}");
                        }
                    };
                    let out = MatrixMut::new(&mut got, rows);
                    isa.run(MatMul { unpacker, weights, x: &x, out, panel: &mut panel });
                    check(&got);
                    got.fill(0.0);
                    let out = MatrixMut::new(&mut got, rows);
                    isa.run(MatVec { unpacker, weights, selected: None, x: &x, out });
                    check(&got);
                }
            }
        }
    }
}
