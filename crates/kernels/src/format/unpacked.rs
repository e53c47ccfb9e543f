//! Chunks in the one form that all quantized formats unpack to: for operations that are compiled once, not once for each
//! format, because their speed does not matter as much as their size.

use super::{CHUNK, Codes, Format, Quant, Scales};
use crate::with_quant;

/// How chunks of a quantized format unpack: a [`Quant`] at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpacker {
    format: Format,
    /// [`Quant::GROUP`].
    pub(crate) group: usize,
    /// The code of zero.
    pub(crate) zero: u8,
    /// [`Quant::OFFSET`].
    pub(crate) offset: bool,
    unpack: fn(&[u8], &mut Unpacked),
}

/// A chunk: what [`Quant::scales`] and [`Quant::codes`] say of it.
pub(crate) struct Unpacked {
    pub(crate) scales: Scales,
    pub(crate) codes: [[i8; 64]; CHUNK / 64],
}

impl Unpacked {
    pub(crate) const ZERO: Self = Self { scales: Scales::ZERO, codes: [[0; 64]; CHUNK / 64] };
}

impl Unpacker {
    pub(crate) fn of<Q: Quant>() -> Self {
        Self {
            format: Q::FORMAT,
            group: Q::GROUP,
            zero: match Q::CODES {
                Codes::Unsigned { zero, .. } => zero,
                Codes::Signed => 0,
            },
            offset: Q::OFFSET,
            unpack: unpack::<Q>,
        }
    }

    /// Of a format; `None` where that is not [quantized](Format::is_quantized).
    pub(crate) fn new(format: Format) -> Option<Self> {
        with_quant!(format, Q => Self::of::<Q>())
    }

    /// Bytes of a whole chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        CHUNK / self.format.block_len() * self.format.block_bytes()
    }

    /// Unpacks a chunk, also one that is cut short.
    pub(crate) fn unpack(&self, chunk: &[u8], out: &mut Unpacked) {
        (self.unpack)(chunk, out);
    }
}

fn unpack<Q: Quant>(chunk: &[u8], out: &mut Unpacked) {
    out.scales = Q::scales(chunk);
    for (pair, codes) in out.codes.iter_mut().enumerate() {
        *codes = Q::codes(chunk, pair);
    }
}
