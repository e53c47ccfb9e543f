//! Products with a matrix of a few bits a weight.

use firecrest_kernels::isa::LANES;
use firecrest_kernels::ops::{self, CoarseLayout};

use super::{Buffer, Cpu};
use crate::weights::Bytes;

/// Bytes of panels in a task, about.
const TASK_BYTES: usize = 256 << 10;

/// A matrix of a few bits a weight, `[rows, columns]`.
#[derive(Clone, Debug)]
pub(crate) struct CoarseMatrix {
    layout: CoarseLayout,
    panels: Bytes,
    rows: usize,
}

impl CoarseMatrix {
    /// `None` unless there are as many bytes as the layout takes for so many rows.
    pub(crate) fn new(layout: CoarseLayout, panels: &[u8], rows: usize) -> Option<Self> {
        (layout.bytes(rows) == Some(panels.len())).then_some(())?;
        // A copy that begins where lines of the cache do.
        let panels = Bytes::written(panels.len(), |bytes| bytes.copy_from_slice(panels));
        Some(Self { layout, panels, rows })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.panels.len()
    }
}

impl Cpu {
    /// `out = x · matrixᵀ + bias` for every token, roughly.
    pub(crate) fn guess(&mut self, matrix: &CoarseMatrix, x: &Buffer, bias: &[f32], out: &mut Buffer) {
        let CoarseMatrix { layout, panels, rows } = matrix;
        out.reshape(x.tokens(), *rows);
        let (isa, panel_bytes) = (self.isa, layout.panel_bytes());
        let panels_a_task = (TASK_BYTES / panel_bytes).max(1);
        let grain = panels_a_task * LANES;
        let tokens = x.read().chunks_exact(x.columns()).zip(out.data_mut().chunks_exact_mut(*rows));
        for (x, out) in tokens {
            self.coarse.resize(x.len(), 0);
            let scales = layout.quantize(x, &mut self.coarse);
            let x = (&*self.coarse, scales);
            self.pool.for_pieces(out, grain, &mut self.workers, |_, piece, out| {
                let panels = &panels[piece * panels_a_task * panel_bytes..];
                let panels = &panels[..out.len().div_ceil(LANES) * panel_bytes];
                ops::coarse_product(isa, *layout, panels, x, &bias[piece * grain..][..out.len()], out);
            });
        }
    }
}
