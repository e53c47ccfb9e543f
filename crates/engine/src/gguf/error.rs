//! What can be wrong with a GGUF file, and where.

use std::{error, fmt, io, path::PathBuf};

use super::{Format, MetadataError};

/// Why a GGUF file, or a set of them, can't be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum GgufError {
    /// A file can't be opened or mapped.
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file's contents are not valid GGUF.
    Malformed {
        /// The file, where it was opened by path.
        path: Option<PathBuf>,
        /// What is wrong and where.
        source: Box<Malformed>,
    },
    /// The shards of a split model do not belong together.
    Split {
        /// The shard at fault, where it was opened by path.
        path: Option<PathBuf>,
        /// What is wrong with it.
        fault: SplitFault,
    },
}

/// What is wrong in a GGUF file, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Malformed {
    /// The part of the file.
    pub part: Part,
    /// Where in the file, in bytes from its start.
    pub offset: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// A part of a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Magic, version and counts.
    Header,
    /// The name of the key with this index.
    KeyName(u64),
    /// The value of this key.
    Key(String),
    /// The name of the tensor with this index.
    TensorName(u64),
    /// The record or data of this tensor.
    Tensor(String),
}

/// What is wrong with a part of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The file does not begin with `GGUF`.
    Magic([u8; 4]),
    /// A version that this reader does not know. In a big-endian file only version 3 is defined.
    Version(u32),
    /// The file ends before what it says it holds.
    Truncated {
        /// Bytes that are needed from the offset on, at least.
        needed: u64,
        /// Bytes that are there.
        available: u64,
    },
    /// A string is not UTF-8.
    Utf8 {
        /// The place of the string, where it is in an array.
        index: Option<usize>,
    },
    /// A name is longer than 65535 bytes.
    NameLength(usize),
    /// No type of metadata value has this id.
    ValueType(u32),
    /// An array of arrays.
    NestedArray,
    /// The strings of an array are more than 4 GiB together.
    StringArray,
    /// A bool is neither 0 nor 1.
    Bool(u8),
    /// A key occurs twice.
    DuplicateKey,
    /// `general.alignment` is no power of two that fits 32 bits.
    Alignment(u64),
    /// A key that the reader itself needs has the wrong type.
    Metadata(Box<MetadataError>),
    /// More than four dimensions.
    Dimensions(u32),
    /// A dimension of zero, or so large that the size overflows.
    Shape(Vec<u64>),
    /// No tensor format has this id.
    Format(u32),
    /// Rows are not whole blocks of the format.
    PartialBlock {
        /// Values in a row.
        row: usize,
        /// The tensor's format.
        format: Format,
    },
    /// The data's offset is not a multiple of the alignment.
    Misaligned {
        /// The offset from the start of the data section.
        data_offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// The data reaches past the end of the file.
    OutOfBounds {
        /// Where the data begins in the file.
        data_start: u64,
        /// Its size.
        bytes: u64,
        /// The size of the file.
        file_bytes: u64,
    },
    /// The data shares bytes with another tensor's.
    Overlap {
        /// The other tensor.
        other: String,
    },
    /// A tensor's name occurs twice.
    DuplicateTensor,
    /// A big-endian file holds a format whose byte order in such files is not defined.
    ByteOrder(Format),
}

/// What is wrong with a shard of a split model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SplitFault {
    /// The file does not exist.
    Missing,
    /// The file's name doesn't end as the name of this shard must, so that the other shards can't be found.
    Name {
        /// How it must end, as in `-00001-of-00003.gguf`.
        suffix: String,
    },
    /// One of the keys that describe the split is missing or has the wrong type.
    Metadata(MetadataError),
    /// The shard is another one than its place says (`split.no`), both from 0.
    Number {
        /// The number by place or file name.
        expected: usize,
        /// The number in the shard.
        found: usize,
    },
    /// There are not as many shards as the shard says (`split.count`).
    Count {
        /// How many shards there are.
        expected: usize,
        /// How many this shard says there are.
        found: usize,
    },
    /// The shards together don't hold as many tensors as the first says (`split.tensors.count`).
    Tensors {
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A tensor of this name is in another shard too.
    DuplicateTensor(String),
}

impl fmt::Display for GgufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GgufError::Io { path, .. } => write!(f, "{}: can't be read", path.display()),
            GgufError::Malformed { path: Some(path), .. } => {
                write!(f, "{}: not a valid GGUF file", path.display())
            }
            GgufError::Malformed { path: None, .. } => write!(f, "not a valid GGUF file"),
            GgufError::Split { path: Some(path), fault } => write!(f, "{}: {fault}", path.display()),
            GgufError::Split { path: None, fault } => write!(f, "{fault}"),
        }
    }
}

impl error::Error for GgufError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            GgufError::Io { source, .. } => Some(source),
            GgufError::Malformed { source, .. } => Some(source),
            GgufError::Split { fault: SplitFault::Metadata(error), .. } => Some(error),
            GgufError::Split { .. } => None,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {}): {}", self.part, self.offset, self.fault)
    }
}

impl error::Error for Malformed {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.fault {
            Fault::Metadata(error) => Some(&**error),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from the file: what a terminal would obey is escaped.
        match self {
            Part::Header => write!(f, "header"),
            Part::KeyName(index) => write!(f, "name of metadata key {index}"),
            Part::Key(key) => write!(f, "metadata key {}", key.escape_debug()),
            Part::TensorName(index) => write!(f, "name of tensor {index}"),
            Part::Tensor(name) => write!(f, "tensor {}", name.escape_debug()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Magic(found) => write!(f, "begins with \"{}\", not \"GGUF\"", found.escape_ascii()),
            Fault::Version(version) => write!(f, "version {version} is not supported"),
            Fault::Truncated { needed, available } => {
                write!(f, "needs {needed} bytes, but the file has {available} more")
            }
            Fault::Utf8 { index: Some(index) } => write!(f, "string {index} is not UTF-8"),
            Fault::Utf8 { index: None } => write!(f, "not UTF-8"),
            Fault::NameLength(bytes) => write!(f, "{bytes} bytes are too long for a name"),
            Fault::ValueType(id) => write!(f, "unknown value type {id}"),
            Fault::NestedArray => write!(f, "arrays of arrays are not supported"),
            Fault::StringArray => write!(f, "strings of more than 4 GiB together"),
            Fault::Bool(byte) => write!(f, "a bool is {byte}, neither 0 nor 1"),
            Fault::DuplicateKey => write!(f, "occurs twice"),
            Fault::Alignment(alignment) => write!(f, "{alignment} is not a power of two that fits 32 bits"),
            Fault::Metadata(_) => write!(f, "not what it must be"),
            Fault::Dimensions(count) => write!(f, "has {count} dimensions, at most 4 are supported"),
            Fault::Shape(shape) => write!(f, "shape {shape:?} is empty or too large"),
            Fault::Format(id) => write!(f, "unknown tensor format {id}"),
            Fault::PartialBlock { row, format } => {
                write!(f, "rows of {row} values are not whole {format} blocks of {}", format.block_len())
            }
            Fault::Misaligned { data_offset, alignment } => {
                write!(f, "data offset {data_offset} is not a multiple of the alignment {alignment}")
            }
            Fault::OutOfBounds { data_start, bytes, file_bytes } => {
                write!(
                    f,
                    "{bytes} bytes of data at byte {data_start} reach past the end of the file ({file_bytes})"
                )
            }
            Fault::Overlap { other } => write!(f, "data overlaps that of tensor {}", other.escape_debug()),
            Fault::DuplicateTensor => write!(f, "occurs twice"),
            Fault::ByteOrder(format) => write!(f, "{format} is not supported in big-endian files"),
        }
    }
}

impl fmt::Display for SplitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SplitFault::Missing => write!(f, "this shard of the model is missing"),
            SplitFault::Name { suffix } => {
                write!(f, "is one shard of a model, so its name must end in {suffix}")
            }
            SplitFault::Metadata(_) => write!(f, "not what it must be"),
            SplitFault::Number { expected, found } => {
                write!(f, "holds shard {} of the model, not shard {}", found + 1, expected + 1)
            }
            SplitFault::Count { expected, found } => {
                write!(f, "is from a model of {found} shards, not {expected}")
            }
            SplitFault::Tensors { expected, found } => {
                write!(f, "the shards hold {found} tensors, expected {expected}")
            }
            SplitFault::DuplicateTensor(name) => {
                write!(f, "tensor {} is in another shard too", name.escape_debug())
            }
        }
    }
}
