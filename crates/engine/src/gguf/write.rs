//! Writes GGUF files.

use std::io::{self, Read, Write};
#[cfg(not(target_family = "wasm"))]
use std::path::Path;
use std::sync::Arc;
use std::{error, fmt};

use indexmap::IndexMap;

use super::read::{ALIGNMENT_KEY, checked_alignment, tensor_bytes};
use super::value::{self, with_numbers};
use super::{Array, Fault, Format, Metadata, MetadataError, Value};
use crate::weights::Bytes;

/// Builds a GGUF file (version 3, little-endian): metadata, then tensors in the order they are added.
///
/// ```
/// use firecrest::gguf::{Format, Writer};
///
/// let mut writer = Writer::new();
/// writer.insert("general.architecture", "llama");
/// writer.insert("llama.block_count", 1u32);
/// writer.tensor("output_norm.weight", Format::F32, &[4], vec![0; 16])?;
/// let mut file = Vec::new();
/// writer.write(&mut file)?;
/// assert_eq!(&file[..4], b"GGUF");
/// # Ok::<(), firecrest::gguf::WriteError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writer {
    metadata: Metadata,
    /// By name, in the order of the file.
    tensors: IndexMap<String, Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    format: Format,
    shape: Vec<usize>,
    bytes: usize,
    data: Data,
}

#[derive(Clone)]
enum Data {
    There(Bytes),
    /// Made when it is written.
    Made(Arc<dyn Fn() -> io::Result<Bytes> + Send + Sync>),
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::There(bytes) => bytes.fmt(f),
            Data::Made(_) => f.write_str("Made(..)"),
        }
    }
}

/// Why a GGUF file can't be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// The destination refuses it.
    Io(io::Error),
    /// `general.alignment` is not a power of two that fits 32 bits.
    Alignment(u64),
    /// `general.alignment` is not a whole number.
    Metadata(MetadataError),
    /// A tensor's shape has not one to four dimensions, or one that is zero, or rows that are not whole blocks, or
    /// overflows.
    Shape {
        /// The tensor.
        tensor: String,
        /// Its format.
        format: Format,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor's data has not the size that its shape and format ask for.
    Size {
        /// The tensor.
        tensor: String,
        /// The bytes it must have.
        expected: usize,
        /// The bytes that were given.
        found: usize,
    },
    /// There is a tensor of this name already.
    Duplicate {
        /// The name.
        tensor: String,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Io(_) => write!(f, "can't write the GGUF file"),
            WriteError::Alignment(alignment) => {
                write!(f, "metadata key {ALIGNMENT_KEY} is {alignment}, not a power of two that fits 32 bits")
            }
            WriteError::Metadata(_) => write!(f, "can't write the GGUF file with this metadata"),
            WriteError::Shape { tensor, format, shape } => {
                write!(f, "tensor {tensor} can't have shape {shape:?} in format {format}")
            }
            WriteError::Size { tensor, expected, found } => {
                write!(f, "tensor {tensor} has {found} bytes, expected {expected}")
            }
            WriteError::Duplicate { tensor } => write!(f, "tensor {tensor} was added already"),
        }
    }
}

impl error::Error for WriteError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            WriteError::Io(error) => Some(error),
            WriteError::Metadata(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Io(error)
    }
}

impl Writer {
    /// A file with nothing in it.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// A file with this metadata and no tensors.
    pub fn with_metadata(metadata: Metadata) -> Writer {
        Writer { metadata, ..Writer::default() }
    }

    /// Sets a metadata key. `general.alignment` is what tensor offsets will be multiples of; 32 without it.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.metadata.insert(key, value);
    }

    /// Adds a tensor: `shape` has its fastest dimension first, `data` is little-endian.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        format: Format,
        shape: &[usize],
        data: impl Into<Bytes>,
    ) -> Result<(), WriteError> {
        let (name, data) = (name.into(), data.into());
        let expected = self.check(&name, format, shape)?;
        if data.len() != expected {
            return Err(WriteError::Size { tensor: name, expected, found: data.len() });
        }
        let tensor = Tensor { format, shape: shape.to_vec(), bytes: expected, data: Data::There(data) };
        self.tensors.insert(name, tensor);
        Ok(())
    }

    /// As [`Writer::tensor`], with data that is made when it is written and dropped afterwards, so that a large model
    /// need not be in memory. An error of `make` ends the writing.
    pub fn tensor_from(
        &mut self,
        name: impl Into<String>,
        format: Format,
        shape: &[usize],
        make: impl Fn() -> io::Result<Bytes> + Send + Sync + 'static,
    ) -> Result<(), WriteError> {
        let name = name.into();
        let bytes = self.check(&name, format, shape)?;
        let tensor = Tensor { format, shape: shape.to_vec(), bytes, data: Data::Made(Arc::new(make)) };
        self.tensors.insert(name, tensor);
        Ok(())
    }

    /// The bytes that a new tensor must have.
    fn check(&self, name: &str, format: Format, shape: &[usize]) -> Result<usize, WriteError> {
        if self.tensors.contains_key(name) {
            return Err(WriteError::Duplicate { tensor: name.into() });
        }
        let sound = (1..=4).contains(&shape.len()) && !shape.contains(&0);
        tensor_bytes(format, shape).filter(|_| sound).ok_or_else(|| WriteError::Shape {
            tensor: name.into(),
            format,
            shape: shape.to_vec(),
        })
    }

    /// Writes the file to `out`.
    pub fn write(&self, mut out: impl Write) -> Result<(), WriteError> {
        let alignment = checked_alignment(&self.metadata).map_err(|fault| match fault {
            Fault::Metadata(error) => WriteError::Metadata(*error),
            _ => WriteError::Alignment(self.metadata.u64(ALIGNMENT_KEY).unwrap_or_default()),
        })?;
        let header = self.header(alignment);
        out.write_all(&header)?;
        pad(&mut out, header.len() as u64, alignment)?;
        for (name, tensor) in &self.tensors {
            let data = match &tensor.data {
                Data::There(data) => data.clone(),
                Data::Made(make) => make()?,
            };
            if data.len() != tensor.bytes {
                let (tensor, expected, found) = (name.clone(), tensor.bytes, data.len());
                return Err(WriteError::Size { tensor, expected, found });
            }
            out.write_all(&data)?;
            pad(&mut out, data.len() as u64, alignment)?;
        }
        out.flush()?;
        Ok(())
    }

    /// Writes the file to `path`, which has either its old contents or all of the new ones at any time, whatever goes
    /// wrong.
    #[cfg(not(target_family = "wasm"))]
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<(), WriteError> {
        atomically(path.as_ref(), |file| self.write(io::BufWriter::new(file)))
    }

    fn header(&self, alignment: u64) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(b"GGUF");
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for (name, tensor) in &self.tensors {
            put_string(&mut out, name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for &size in &tensor.shape {
                out.extend((size as u64).to_le_bytes());
            }
            out.extend((tensor.format as u32).to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + tensor.bytes as u64).next_multiple_of(alignment);
        }
        out
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    macro_rules! put {
        ($($variant:ident $type:ident $id:literal,)+) => {
            match value {
                $(Value::$variant(number) => {
                    out.extend(u32::to_le_bytes($id));
                    out.extend(number.to_le_bytes());
                })+
                Value::Bool(flag) => {
                    out.extend(value::BOOL.to_le_bytes());
                    out.push((*flag).into());
                }
                Value::String(text) => {
                    out.extend(value::STRING.to_le_bytes());
                    put_string(out, text);
                }
                Value::Array(array) => {
                    out.extend(value::ARRAY.to_le_bytes());
                    put_array(out, array);
                }
            }
        };
    }
    with_numbers!(put);
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut start = |id: u32| {
        out.extend(id.to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
    };
    macro_rules! put {
        ($($variant:ident $type:ident $id:literal,)+) => {
            match array {
                $(Array::$variant(numbers) => {
                    start($id);
                    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
                })+
                Array::Bool(flags) => {
                    start(value::BOOL);
                    out.extend(flags.iter().map(|&flag| u8::from(flag)));
                }
                Array::String(strings) => {
                    start(value::STRING);
                    strings.iter().for_each(|text| put_string(out, text));
                }
            }
        };
    }
    with_numbers!(put);
}

/// Writes zeros up to the next multiple of the alignment, which can be as large as 2 GiB.
fn pad(out: &mut impl Write, written: u64, alignment: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(written.next_multiple_of(alignment) - written), out).map(drop)
}

/// Has `write` fill a temporary file beside `path`, and gives it that name once it is on disk.
#[cfg(not(target_family = "wasm"))]
fn atomically(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    use std::{fs, process, sync::atomic};

    static SERIAL: atomic::AtomicU64 = atomic::AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, atomic::Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{serial}.part", process::id()));
    let temporary = path.with_file_name(name);

    let mut file = fs::File::create_new(&temporary)?;
    let mut written = write(&mut file).and_then(|()| Ok(file.sync_all()?));
    // An open file can't be renamed everywhere.
    drop(file);
    if written.is_ok() {
        written = fs::rename(&temporary, path).map_err(WriteError::Io);
    }
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}
