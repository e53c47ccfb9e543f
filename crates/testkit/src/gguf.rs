//! Builds tiny GGUF files byte by byte, sound ones and hostile ones.
//!
//! It shares no code with the reader that it tests, and it checks nothing.

/// The bytes of a GGUF file in the making.
///
/// ```
/// use firecrest_testkit::gguf::Builder;
///
/// let file = Builder::new()
///     .key("general.architecture", "llama")
///     .key("llama.block_count", 1u32)
///     .tensor("output_norm.weight", &[4], 0, [0; 16])
///     .bytes();
/// assert_eq!(&file[..4], b"GGUF");
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    magic: [u8; 4],
    version: u32,
    big_endian: bool,
    alignment: u64,
    keys: Vec<(Vec<u8>, Value)>,
    tensors: Vec<Tensor>,
    claimed_keys: Option<u64>,
    claimed_tensors: Option<u64>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: Vec<u8>,
    shape: Vec<u64>,
    format: u32,
    /// Offset of the data; behind the tensor before if it is not claimed.
    claimed_offset: Option<u64>,
    data: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// An empty file: version 3, little-endian, alignment 32.
    pub fn new() -> Builder {
        Builder {
            magic: *b"GGUF",
            version: 3,
            big_endian: false,
            alignment: 32,
            keys: Vec::new(),
            tensors: Vec::new(),
            claimed_keys: None,
            claimed_tensors: None,
        }
    }

    /// Sets the first four bytes.
    pub fn magic(mut self, magic: [u8; 4]) -> Builder {
        self.magic = magic;
        self
    }

    /// Sets the version number; the layout stays that of versions 2 and 3.
    pub fn version(mut self, version: u32) -> Builder {
        self.version = version;
        self
    }

    /// Writes all numbers most significant byte first; data of tensors is taken as it is.
    pub fn big_endian(mut self) -> Builder {
        self.big_endian = true;
        self
    }

    /// Places tensors at multiples of `alignment`, and says so in `general.alignment`.
    pub fn alignment(mut self, alignment: u32) -> Builder {
        self.alignment = alignment.into();
        self.key("general.alignment", alignment)
    }

    /// Adds a metadata key.
    pub fn key(self, key: &str, value: impl Into<Value>) -> Builder {
        self.raw_key(key.as_bytes(), value)
    }

    /// Adds a metadata key whose name need not be UTF-8.
    pub fn raw_key(mut self, key: &[u8], value: impl Into<Value>) -> Builder {
        self.keys.push((key.to_vec(), value.into()));
        self
    }

    /// Adds a tensor of the GGML format with id `format`; `shape` has its fastest dimension first.
    pub fn tensor(self, name: &str, shape: &[u64], format: u32, data: impl Into<Vec<u8>>) -> Builder {
        self.raw_tensor(name.as_bytes(), shape, format, None, data)
    }

    /// Adds a tensor of F32.
    pub fn f32_tensor(self, name: &str, shape: &[u64], values: &[f32]) -> Builder {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() })
            .collect();
        self.tensor(name, shape, 0, data)
    }

    /// Adds a tensor whose record claims that the data is at `offset`, wherever that is. The data itself is still
    /// written behind the tensor before.
    pub fn tensor_at(
        self,
        name: &str,
        shape: &[u64],
        format: u32,
        offset: u64,
        data: impl Into<Vec<u8>>,
    ) -> Builder {
        self.raw_tensor(name.as_bytes(), shape, format, Some(offset), data)
    }

    /// Adds a tensor whose name need not be UTF-8; see [`Builder::tensor_at`] for `claimed_offset`.
    pub fn raw_tensor(
        mut self,
        name: &[u8],
        shape: &[u64],
        format: u32,
        claimed_offset: Option<u64>,
        data: impl Into<Vec<u8>>,
    ) -> Builder {
        let (name, shape, data) = (name.to_vec(), shape.to_vec(), data.into());
        self.tensors.push(Tensor { name, shape, format, claimed_offset, data });
        self
    }

    /// Writes `count` as the number of keys, however many there are.
    pub fn claim_keys(mut self, count: u64) -> Builder {
        self.claimed_keys = Some(count);
        self
    }

    /// Writes `count` as the number of tensors, however many there are.
    pub fn claim_tensors(mut self, count: u64) -> Builder {
        self.claimed_tensors = Some(count);
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Out { bytes: Vec::new(), big_endian: self.big_endian };
        out.bytes.extend(self.magic);
        out.u32(self.version);
        out.u64(self.claimed_tensors.unwrap_or(self.tensors.len() as u64));
        out.u64(self.claimed_keys.unwrap_or(self.keys.len() as u64));
        for (key, value) in &self.keys {
            out.string(key);
            out.u32(value.id());
            out.value(value);
        }
        let mut section = Vec::new();
        for tensor in &self.tensors {
            out.string(&tensor.name);
            out.u32(tensor.shape.len() as u32);
            tensor.shape.iter().for_each(|&size| out.u64(size));
            out.u32(tensor.format);
            pad(&mut section, self.alignment);
            out.u64(tensor.claimed_offset.unwrap_or(section.len() as u64));
            section.extend(&tensor.data);
        }
        if !section.is_empty() {
            pad(&mut out.bytes, self.alignment);
        }
        out.bytes.extend(section);
        out.bytes
    }
}

/// Zeros up to a multiple of `alignment`; none where that is not meant to be sound.
fn pad(bytes: &mut Vec<u8>, alignment: u64) {
    if let Some(len) =
        (bytes.len() as u64).checked_next_multiple_of(alignment).filter(|_| alignment <= 1 << 20)
    {
        bytes.resize(len as usize, 0);
    }
}

/// A metadata value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(Vec<u8>),
    /// Type id of the elements, and the elements.
    Array(u32, Vec<Value>),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Any type id, followed by any bytes.
    Raw(u32, Vec<u8>),
}

impl Value {
    fn id(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(..) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
            Value::Raw(id, _) => *id,
        }
    }

    /// An array that claims to have `len` elements of type `id`, followed by whatever is in `bytes` (little-endian).
    pub fn claimed_array(id: u32, len: u64, bytes: &[u8]) -> Value {
        let mut raw = id.to_le_bytes().to_vec();
        raw.extend(len.to_le_bytes());
        raw.extend(bytes);
        Value::Raw(9, raw)
    }
}

macro_rules! from {
    ($($type:ty, $id:literal, $variant:ident;)+) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::$variant(value.into())
            }
        }

        impl From<Vec<$type>> for Value {
            fn from(values: Vec<$type>) -> Value {
                Value::Array($id, values.into_iter().map(Value::from).collect())
            }
        }

        impl From<&[$type]> for Value {
            fn from(values: &[$type]) -> Value {
                Value::from(values.to_vec())
            }
        }

        impl<const N: usize> From<[$type; N]> for Value {
            fn from(values: [$type; N]) -> Value {
                Value::from(values.to_vec())
            }
        }
    )+};
}

from! {
    u8, 0, U8;
    i8, 1, I8;
    u16, 2, U16;
    i16, 3, I16;
    u32, 4, U32;
    i32, 5, I32;
    f32, 6, F32;
    bool, 7, Bool;
    &str, 8, String;
    String, 8, String;
    u64, 10, U64;
    i64, 11, I64;
    f64, 12, F64;
}

struct Out {
    bytes: Vec<u8>,
    big_endian: bool,
}

impl Out {
    /// Appends a number given least significant byte first.
    fn number<const N: usize>(&mut self, mut little: [u8; N]) {
        if self.big_endian {
            little.reverse();
        }
        self.bytes.extend(little);
    }

    fn u32(&mut self, number: u32) {
        self.number(number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.number(number.to_le_bytes());
    }

    fn string(&mut self, text: &[u8]) {
        self.u64(text.len() as u64);
        self.bytes.extend(text);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::U8(number) => self.number(number.to_le_bytes()),
            Value::I8(number) => self.number(number.to_le_bytes()),
            Value::U16(number) => self.number(number.to_le_bytes()),
            Value::I16(number) => self.number(number.to_le_bytes()),
            Value::U32(number) => self.number(number.to_le_bytes()),
            Value::I32(number) => self.number(number.to_le_bytes()),
            Value::F32(number) => self.number(number.to_le_bytes()),
            Value::Bool(flag) => self.bytes.push((*flag).into()),
            Value::String(text) => self.string(text),
            Value::Array(id, values) => {
                self.u32(*id);
                self.u64(values.len() as u64);
                values.iter().for_each(|value| self.value(value));
            }
            Value::U64(number) => self.number(number.to_le_bytes()),
            Value::I64(number) => self.number(number.to_le_bytes()),
            Value::F64(number) => self.number(number.to_le_bytes()),
            Value::Raw(_, bytes) => self.bytes.extend(bytes),
        }
    }
}
