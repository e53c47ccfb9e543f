//! Memory for a file, filled in place.

use firecrest::gguf::Gguf;
use js_sys::Uint8Array;
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::{Failure, Kind, Outcome};

const ZEROS: &[u8] = &[0; 4096];

/// Memory for a file that arrives in pieces, in any order. Filled, it becomes a model without another copy.
#[wasm_bindgen]
#[derive(Debug)]
pub struct ModelBuffer {
    bytes: Vec<u8>,
}

#[wasm_bindgen]
impl ModelBuffer {
    /// Memory of `length` bytes; an error with code `memory` where there is not as much.
    #[wasm_bindgen(constructor)]
    pub fn new(length: f64) -> Result<ModelBuffer, wasm_bindgen::JsValue> {
        Ok(Self::zeroed(length)?)
    }

    /// Copies `piece` to `offset`.
    pub fn write(&mut self, offset: f64, piece: &Uint8Array) -> Result<(), wasm_bindgen::JsValue> {
        Ok(self.fill(offset, piece)?)
    }

    /// SHA-256 of the bytes, in hexadecimal digits.
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes that it holds.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> f64 {
        self.bytes.len() as f64
    }
}

impl ModelBuffer {
    pub(crate) fn zeroed(length: f64) -> Outcome<Self> {
        if !(0.0..=f64::from(u32::MAX)).contains(&length) || length.fract() != 0.0 {
            return Err(Failure::new(Kind::Memory, format_args!("{length} bytes do not fit a module")));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length as usize).map_err(|_| Failure::memory(length as usize))?;
        // Not `resize`, which writes byte by byte where code is compiled for size.
        while bytes.len() < length as usize {
            bytes.extend_from_slice(&ZEROS[..ZEROS.len().min(length as usize - bytes.len())]);
        }
        Ok(Self { bytes })
    }

    /// A copy of `bytes`.
    pub(crate) fn copy_of(bytes: &Uint8Array) -> Outcome<Self> {
        let mut buffer = Self::zeroed(f64::from(bytes.length()))?;
        bytes.copy_to(&mut buffer.bytes);
        Ok(buffer)
    }

    pub(crate) fn fill(&mut self, offset: f64, piece: &Uint8Array) -> Outcome {
        let (length, end) = (self.bytes.len(), offset + f64::from(piece.length()));
        if !(offset >= 0.0 && offset.fract() == 0.0 && end <= length as f64) {
            return Err(Failure::new(
                Kind::Input,
                format_args!("{} bytes at {offset} leave a buffer of {length}", piece.length()),
            ));
        }
        piece.copy_to(&mut self.bytes[offset as usize..end as usize]);
        Ok(())
    }
}

/// The file, or the split file, that buffers hold.
pub(crate) fn open(shards: Vec<ModelBuffer>) -> Outcome<Gguf> {
    let mut shards: Vec<Vec<u8>> = shards.into_iter().map(|buffer| buffer.bytes).collect();
    Ok(match shards.len() {
        1 => Gguf::from_bytes(shards.remove(0))?,
        _ => Gguf::from_shards(shards)?,
    })
}
