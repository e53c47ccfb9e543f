//! GGUF files: reading, checking and writing them.
//!
//! A GGUF file holds [metadata](Metadata) and named tensors. [`Gguf`] opens one from a path (mapped into memory, so
//! that opening takes the same few milliseconds for any size) or from bytes, and checks all of it but the values of
//! the weights: whatever it hands out is in bounds and consistent, and what is wrong is a [`GgufError`] that says
//! where. [`Writer`] makes one.
//!
//! Versions 2 and 3 are read, and version 3 in big-endian byte order. A model split into several files opens from the
//! path of any of them.
//!
//! ```
//! use firecrest::gguf::{Format, Gguf, Writer};
//!
//! let mut writer = Writer::new();
//! writer.insert("general.architecture", "llama");
//! writer.tensor("output_norm.weight", Format::F32, &[2], vec![0; 8])?;
//! let mut file = Vec::new();
//! writer.write(&mut file)?;
//!
//! let gguf = Gguf::from_bytes(file)?;
//! assert_eq!(gguf.metadata().architecture()?, "llama");
//! let norm = gguf.tensor("output_norm.weight").unwrap();
//! assert_eq!((norm.format, norm.shape.as_slice()), (Format::F32, [2].as_slice()));
//! assert_eq!(*gguf.tensor_bytes(norm), [0; 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: the GGUF specification in ggml's `docs/gguf.md`.

mod byte_order;
mod error;
mod metadata;
mod read;
mod split;
mod value;
mod write;

use std::path::{Path, PathBuf};

pub use byte_order::ByteOrder;
pub use error::{Fault, GgufError, Malformed, Part, SplitFault};
pub use firecrest_kernels::format::Format;
pub use metadata::{Metadata, MetadataError};
pub use value::{Array, StringArray, Value};
pub use write::{WriteError, Writer};

use crate::weights::Bytes;

/// An open GGUF file, or all the files of a split model.
#[derive(Debug)]
pub struct Gguf {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, in the order of the names.
    by_name: Vec<usize>,
    /// At least one.
    shards: Vec<Shard>,
}

/// One file of a model.
#[derive(Debug)]
struct Shard {
    path: Option<PathBuf>,
    bytes: Bytes,
    powerinfer: bool,
    version: u32,
    order: ByteOrder,
    alignment: u64,
}

/// What a file says about one of its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The name, unique in the model.
    pub name: String,
    /// How its values are stored.
    pub format: Format,
    /// One to four dimensions, none of them zero, fastest first: a matrix is `[columns, rows]`. Rows are whole blocks
    /// of the format.
    pub shape: Vec<usize>,
    /// The shard that holds it, and where in that.
    shard: usize,
    start: usize,
    bytes: usize,
}

impl TensorInfo {
    /// How many values it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// The size of its data in bytes.
    pub fn data_bytes(&self) -> usize {
        self.bytes
    }

    /// Where its data begins, in bytes from the start of its file.
    pub fn data_start(&self) -> u64 {
        self.start as u64
    }

    /// The shard that holds it, from 0.
    pub fn shard(&self) -> usize {
        self.shard
    }
}

impl Gguf {
    /// Opens the file at `path`, and the other shards of the model where it is one of several.
    ///
    /// Files are mapped, not read; see [`Bytes::open`] for what that asks of them.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, GgufError> {
        split::open(path.as_ref())
    }

    /// Reads a model that is in memory as one file.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Gguf, GgufError> {
        Gguf::from_shards([bytes])
    }

    /// Reads a split model that is in memory, from all its shards in order.
    pub fn from_shards<B: Into<Bytes>>(shards: impl IntoIterator<Item = B>) -> Result<Gguf, GgufError> {
        let files = shards.into_iter().map(|bytes| split::File::parse(None, bytes.into()));
        split::join(files.collect::<Result<_, _>>()?)
    }

    /// The metadata; of a split model, that of the first shard.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the order of the file, shard after shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let found = self.by_name.binary_search_by(|&index| self.tensors[index].name.as_str().cmp(name));
        Some(&self.tensors[self.by_name[found.ok()?]])
    }

    /// The data of one of this model's tensors, in little-endian byte order.
    ///
    /// A view, except of a big-endian file, where each call makes a converted copy. Panics if `info` is another model's
    /// and doesn't fit this one.
    pub fn tensor_bytes(&self, info: &TensorInfo) -> Bytes {
        let shard = &self.shards[info.shard];
        let bytes = shard.bytes.slice(info.start..info.start + info.bytes);
        match (shard.order, byte_order::fields(info.format)) {
            (ByteOrder::Big, Some(fields)) if fields.iter().any(|&(width, _)| width > 1) => {
                let mut swapped = bytes.to_vec();
                byte_order::swap(fields, &mut swapped);
                Bytes::from(swapped)
            }
            _ => bytes,
        }
    }

    /// How many values all tensors have together.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::elements).sum()
    }

    /// Whether it is one of PowerInfer's files: `PWRI` in place of `GGUF`, feed-forward layers stored by neuron.
    pub fn is_powerinfer(&self) -> bool {
        self.shards[0].powerinfer
    }

    /// The GGUF version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.shards[0].version
    }

    /// The byte order of the (first) file.
    pub fn byte_order(&self) -> ByteOrder {
        self.shards[0].order
    }

    /// What tensor offsets in the (first) file are multiples of.
    pub fn alignment(&self) -> u64 {
        self.shards[0].alignment
    }

    /// The size of the file, or of all shards together.
    pub fn file_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes.len() as u64).sum()
    }

    /// The files in order; none where the model was read from memory.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().filter_map(|shard| shard.path.as_deref())
    }
}
