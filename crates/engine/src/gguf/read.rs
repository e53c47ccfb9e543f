//! Parses one file: header, metadata and tensor records, all of it checked.

use std::collections::HashSet;

use super::value::{self, StringArrayBuilder, StringError, with_numbers};
use super::{
    Array, ByteOrder, Fault, Format, Malformed, Metadata, Part, StringArray, TensorInfo, Value, byte_order,
};

/// What every GGUF file begins with, in either byte order.
const MAGIC: [u8; 4] = *b"GGUF";
/// What PowerInfer's files begin with, which are laid out in the same way.
const POWERINFER: [u8; 4] = *b"PWRI";

/// The fewest bytes that a string takes: its length.
const MIN_STRING: u64 = 8;
/// The fewest bytes that a key with its value takes: name length, type and a byte.
const MIN_ENTRY: u64 = MIN_STRING + 4 + 1;
/// The fewest bytes that a tensor's record takes: name length, dimension count, format and offset.
const MIN_RECORD: u64 = MIN_STRING + 4 + 4 + 8;

/// The most bytes in the name of a key (by the specification) or a tensor.
const MAX_NAME: usize = u16::MAX as usize;

/// Most entries to make room for on the word of a header; more grow as they are read.
const TRUSTED_COUNT: usize = 1 << 12;

/// A parsed file. The tensors' ranges are in bounds of the file and do not overlap.
pub(super) struct Header {
    pub(super) powerinfer: bool,
    pub(super) version: u32,
    pub(super) order: ByteOrder,
    pub(super) alignment: u64,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
}

/// Parses the file that is `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
    let mut cursor = Cursor { bytes, offset: 0, order: ByteOrder::Little, reading: Reading::Header };
    let magic = *cursor.chunk()?;
    if magic != MAGIC && magic != POWERINFER {
        return Err(cursor.error(0, Fault::Magic(magic)));
    }
    let version = cursor.version()?;
    let tensor_count = cursor.count(MIN_RECORD)?;
    let entry_count = cursor.count(MIN_ENTRY)?;

    let mut metadata = Metadata::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for index in 0..entry_count {
        cursor.reading = Reading::KeyName(index);
        let start = cursor.offset;
        let key = cursor.name()?;
        cursor.reading = Reading::Key(key);
        if metadata.get(key).is_some() {
            return Err(cursor.error(start, Fault::DuplicateKey));
        }
        metadata.insert(key, cursor.value()?);
        if key == ALIGNMENT_KEY {
            alignment = checked_alignment(&metadata).map_err(|fault| cursor.error(start, fault))?;
        }
    }

    let mut names = HashSet::new();
    let mut records = Vec::with_capacity(TRUSTED_COUNT.min(tensor_count as usize));
    for index in 0..tensor_count {
        cursor.reading = Reading::TensorName(index);
        let start = cursor.offset;
        let name = cursor.name()?;
        cursor.reading = Reading::Tensor(name);
        if !names.insert(name) {
            return Err(cursor.error(start, Fault::DuplicateTensor));
        }
        records.push(cursor.record(name, start)?);
    }
    let tensors = place(&cursor, records, alignment)?;
    Ok(Header { powerinfer: magic == POWERINFER, version, order: cursor.order, alignment, metadata, tensors })
}

/// The key that says what tensor offsets are multiples of.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// What they are multiples of without that key.
const DEFAULT_ALIGNMENT: u64 = 32;

/// What tensor offsets are multiples of.
pub(super) fn checked_alignment(metadata: &Metadata) -> Result<u64, Fault> {
    let alignment = metadata.opt_u64(ALIGNMENT_KEY).map_err(|error| Fault::Metadata(error.into()))?;
    let alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= u32::MAX.into() {
        Ok(alignment)
    } else {
        Err(Fault::Alignment(alignment))
    }
}

/// A tensor as its record describes it.
struct Record<'a> {
    name: &'a str,
    /// Where the record is in the file.
    start: u64,
    format: Format,
    shape: Vec<usize>,
    bytes: usize,
    /// Where the data is in the data section.
    data_offset: u64,
}

/// Checks where the tensors' data lies. `cursor` stands behind the last record.
fn place(
    cursor: &Cursor<'_>,
    records: Vec<Record<'_>>,
    alignment: u64,
) -> Result<Vec<TensorInfo>, Malformed> {
    let file_bytes = cursor.bytes.len() as u64;
    let section = cursor.offset.next_multiple_of(alignment);
    let error = |record: &Record<'_>, fault| {
        let part = Part::Tensor(record.name.to_owned());
        Malformed { part, offset: record.start, fault }
    };
    for record in &records {
        let Record { data_offset, bytes, .. } = *record;
        if data_offset % alignment != 0 {
            return Err(error(record, Fault::Misaligned { data_offset, alignment }));
        }
        let data_start = section.saturating_add(data_offset);
        let bytes = bytes as u64;
        if data_start.checked_add(bytes).is_none_or(|end| end > file_bytes) {
            return Err(error(record, Fault::OutOfBounds { data_start, bytes, file_bytes }));
        }
    }
    let mut by_offset: Vec<&Record<'_>> = records.iter().collect();
    by_offset.sort_by_key(|record| record.data_offset);
    for pair in by_offset.windows(2) {
        let [first, second] = [pair[0], pair[1]];
        if first.data_offset + first.bytes as u64 > second.data_offset {
            return Err(error(second, Fault::Overlap { other: first.name.to_owned() }));
        }
    }
    let tensor = |record: Record<'_>| TensorInfo {
        name: record.name.to_owned(),
        format: record.format,
        shape: record.shape,
        shard: 0,
        // In bounds of the file, which is in memory, so it fits.
        start: (section + record.data_offset) as usize,
        bytes: record.bytes,
    };
    Ok(records.into_iter().map(tensor).collect())
}

/// What the cursor reads: a [`Part`] that costs nothing until there is an error.
#[derive(Clone, Copy)]
enum Reading<'a> {
    Header,
    KeyName(u64),
    Key(&'a str),
    TensorName(u64),
    Tensor(&'a str),
}

/// A place in the file.
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: u64,
    order: ByteOrder,
    reading: Reading<'a>,
}

impl<'a> Cursor<'a> {
    fn error(&self, offset: u64, fault: Fault) -> Malformed {
        let part = match self.reading {
            Reading::Header => Part::Header,
            Reading::KeyName(index) => Part::KeyName(index),
            Reading::Key(key) => Part::Key(key.to_owned()),
            Reading::TensorName(index) => Part::TensorName(index),
            Reading::Tensor(name) => Part::Tensor(name.to_owned()),
        };
        Malformed { part, offset, fault }
    }

    /// What is still to be read.
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset as usize..]
    }

    /// The next `len` bytes, without moving on.
    fn peek(&self, len: u64) -> Result<&'a [u8], Malformed> {
        let rest = self.rest();
        usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or_else(|| {
            self.error(self.offset, Fault::Truncated { needed: len, available: rest.len() as u64 })
        })
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let bytes = self.peek(len)?;
        self.offset += len;
        Ok(bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let Some(chunk) = self.rest().first_chunk() else {
            let available = self.rest().len() as u64;
            return Err(self.error(self.offset, Fault::Truncated { needed: N as u64, available }));
        };
        self.offset += N as u64;
        Ok(chunk)
    }

    /// The version, by which the byte order is known: read the wrong way round it is huge.
    fn version(&mut self) -> Result<u32, Malformed> {
        let start = self.offset;
        let bytes = *self.chunk()?;
        let (little, big) = (u32::from_le_bytes(bytes), u32::from_be_bytes(bytes));
        match (little, big) {
            (2 | 3, _) => Ok(little),
            (_, 3) => {
                self.order = ByteOrder::Big;
                Ok(big)
            }
            _ => Err(self.error(start, Fault::Version(little.min(big)))),
        }
    }

    /// A count of things that take `min_bytes` each at least, which the rest of the file has room for.
    fn count(&mut self, min_bytes: u64) -> Result<u64, Malformed> {
        let start = self.offset;
        let count: u64 = self.number()?;
        let (needed, available) = (count.saturating_mul(min_bytes), self.rest().len() as u64);
        if needed > available {
            return Err(self.error(start, Fault::Truncated { needed, available }));
        }
        Ok(count)
    }

    fn number<T: Number>(&mut self) -> Result<T, Malformed> {
        T::read(self)
    }

    fn string(&mut self) -> Result<&'a str, Malformed> {
        let len = self.number()?;
        let start = self.offset;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.error(start, Fault::Utf8 { index: None }))
    }

    /// The name of a key or tensor.
    fn name(&mut self) -> Result<&'a str, Malformed> {
        let start = self.offset;
        let name = self.string()?;
        if name.len() > MAX_NAME {
            return Err(self.error(start, Fault::NameLength(name.len())));
        }
        Ok(name)
    }

    fn value(&mut self) -> Result<Value, Malformed> {
        let start = self.offset;
        let id = self.number()?;
        macro_rules! read {
            ($($variant:ident $type:ident $id:literal,)+) => {
                match id {
                    $($id => Value::$variant(self.number()?),)+
                    value::BOOL => Value::Bool(self.bools(1)?[0]),
                    value::STRING => Value::String(self.string()?.to_owned()),
                    value::ARRAY => Value::Array(self.array()?),
                    _ => return Err(self.error(start, Fault::ValueType(id))),
                }
            };
        }
        Ok(with_numbers!(read))
    }

    fn array(&mut self) -> Result<Array, Malformed> {
        let start = self.offset;
        let id = self.number()?;
        let len = self.number()?;
        macro_rules! read {
            ($($variant:ident $type:ident $id:literal,)+) => {
                match id {
                    $($id => Array::$variant(Number::read_all(self, len)?),)+
                    value::BOOL => Array::Bool(self.bools(len)?),
                    value::STRING => Array::String(self.strings(len)?),
                    value::ARRAY => return Err(self.error(start, Fault::NestedArray)),
                    _ => return Err(self.error(start, Fault::ValueType(id))),
                }
            };
        }
        Ok(with_numbers!(read))
    }

    fn bools(&mut self, len: u64) -> Result<Vec<bool>, Malformed> {
        let start = self.offset;
        let bytes = self.take(len)?;
        if let Some(at) = bytes.iter().position(|&byte| byte > 1) {
            return Err(self.error(start + at as u64, Fault::Bool(bytes[at])));
        }
        Ok(bytes.iter().map(|&byte| byte == 1).collect())
    }

    fn strings(&mut self, len: u64) -> Result<StringArray, Malformed> {
        let start = self.offset;
        self.peek(len.saturating_mul(MIN_STRING))?;
        let mut strings = StringArrayBuilder::with_capacity(len as usize);
        for _ in 0..len {
            let len = self.number()?;
            let string = self.take(len)?;
            strings.push(string).map_err(|error| self.error(start, error.into()))?;
        }
        strings.finish().map_err(|error| self.error(start, error.into()))
    }

    fn record(&mut self, name: &'a str, start: u64) -> Result<Record<'a>, Malformed> {
        let dims: u32 = self.number()?;
        if dims > 4 {
            return Err(self.error(start, Fault::Dimensions(dims)));
        }
        let shape: Vec<u64> = Number::read_all(self, dims.into())?;
        let id = self.number()?;
        let data_offset = self.number()?;
        let Some(format) = Format::from_id(id) else {
            return Err(self.error(start, Fault::Format(id)));
        };
        if self.order == ByteOrder::Big && byte_order::fields(format).is_none() {
            return Err(self.error(start, Fault::ByteOrder(format)));
        }
        let Some(sizes) = sizes(&shape) else {
            return Err(self.error(start, Fault::Shape(shape)));
        };
        if sizes[0] % format.block_len() != 0 {
            return Err(self.error(start, Fault::PartialBlock { row: sizes[0], format }));
        }
        let Some(bytes) = tensor_bytes(format, &sizes) else {
            return Err(self.error(start, Fault::Shape(shape)));
        };
        Ok(Record { name, start, format, shape: sizes, bytes, data_offset })
    }
}

/// The shape of a tensor in memory, or `None` where a dimension is zero or too large for this machine. A number
/// without dimensions is a row of one.
fn sizes(shape: &[u64]) -> Option<Vec<usize>> {
    if shape.is_empty() {
        return Some(vec![1]);
    }
    shape.iter().map(|&size| usize::try_from(size).ok().filter(|&size| size > 0)).collect()
}

/// The bytes of a tensor, or `None` where rows are not whole blocks, or the bytes or the values are too many to count.
pub(super) fn tensor_bytes(format: Format, shape: &[usize]) -> Option<usize> {
    let (&row, outer) = shape.split_first()?;
    let rows = outer.iter().try_fold(1usize, |rows, &size| rows.checked_mul(size))?;
    (row as u64).checked_mul(rows as u64)?;
    format.row_bytes(row)?.checked_mul(rows)
}

impl From<StringError> for Fault {
    fn from(error: StringError) -> Fault {
        match error {
            StringError::Utf8(index) => Fault::Utf8 { index: Some(index) },
            StringError::TooLong => Fault::StringArray,
        }
    }
}

/// A number as GGUF stores it.
trait Number: Sized {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed>;
    fn read_all(cursor: &mut Cursor<'_>, len: u64) -> Result<Vec<Self>, Malformed>;
}

macro_rules! numbers {
    ($($variant:ident $type:ident $id:literal,)+) => {$(
        impl Number for $type {
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
                let bytes = *cursor.chunk()?;
                Ok(match cursor.order {
                    ByteOrder::Little => $type::from_le_bytes(bytes),
                    ByteOrder::Big => $type::from_be_bytes(bytes),
                })
            }

            fn read_all(cursor: &mut Cursor<'_>, len: u64) -> Result<Vec<Self>, Malformed> {
                let bytes = cursor.take(len.saturating_mul(size_of::<$type>() as u64))?;
                let (numbers, _) = bytes.as_chunks();
                Ok(match cursor.order {
                    ByteOrder::Little => numbers.iter().map(|&number| $type::from_le_bytes(number)).collect(),
                    ByteOrder::Big => numbers.iter().map(|&number| $type::from_be_bytes(number)).collect(),
                })
            }
        }
    )+};
}

with_numbers!(numbers);
