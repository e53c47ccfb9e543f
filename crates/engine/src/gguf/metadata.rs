//! The key-value pairs of a GGUF file, and typed access to them.

use std::fmt;

use indexmap::IndexMap;

use super::{Array, StringArray, Value};

/// The keys and values of a GGUF file, in the file's order.
///
/// Typed getters come in pairs: `u32` is an error where the key is missing, `opt_u32` gives `None`. Both are an error
/// that names the key where the value has another type. Whole numbers of any width are accepted where they fit, as
/// writers differ in the width they choose; floats must be finite.
///
/// ```
/// use firecrest::gguf::{Metadata, MetadataError};
///
/// let mut metadata = Metadata::new();
/// metadata.insert("llama.block_count", 30u32);
/// assert_eq!(metadata.usize("llama.block_count"), Ok(30));
/// assert_eq!(metadata.opt_f32("llama.rope.freq_base"), Ok(None));
/// assert_eq!(
///     metadata.str("llama.block_count").unwrap_err().to_string(),
///     "metadata key llama.block_count is u32, expected string"
/// );
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: IndexMap<String, Value>,
}

/// A metadata key that is missing or does not hold what is needed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MetadataError {
    /// There is no such key.
    Missing {
        /// The key.
        key: String,
    },
    /// The value has another type.
    Type {
        /// The key.
        key: String,
        /// The type that is needed.
        expected: &'static str,
        /// The type in the file.
        found: &'static str,
    },
    /// A whole number does not fit the type that is needed.
    Range {
        /// The key.
        key: String,
        /// The place of the number, where the value is an array.
        index: Option<usize>,
        /// The number in the file.
        value: i128,
        /// The type that is needed.
        expected: &'static str,
    },
    /// A float is infinite (as an `f32`) or not a number.
    NotFinite {
        /// The key.
        key: String,
        /// The place of the float, where the value is an array.
        index: Option<usize>,
        /// The float in the file.
        value: f64,
    },
}

impl MetadataError {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            MetadataError::Missing { key }
            | MetadataError::Type { key, .. }
            | MetadataError::Range { key, .. }
            | MetadataError::NotFinite { key, .. } => key,
        }
    }
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |index: &Option<usize>| index.map(|i| format!("[{i}]")).unwrap_or_default();
        match self {
            MetadataError::Missing { key } => write!(f, "metadata key {key} is missing"),
            MetadataError::Type { key, expected, found } => {
                write!(f, "metadata key {key} is {found}, expected {expected}")
            }
            MetadataError::Range { key, index, value, expected } => {
                write!(f, "metadata key {key}{} is {value}, which is no {expected}", place(index))
            }
            MetadataError::NotFinite { key, index, value } => {
                write!(f, "metadata key {key}{} is {value}, which is no finite f32", place(index))
            }
        }
    }
}

impl std::error::Error for MetadataError {}

/// Why a value is not what a getter wants; becomes a [`MetadataError`] once the key is known.
enum Mismatch {
    Type,
    Range(Option<usize>, i128),
    NotFinite(Option<usize>, f64),
}

impl Metadata {
    /// No keys.
    pub fn new() -> Metadata {
        Metadata::default()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Keys and values in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets `key`: at the end if it is new, else in the place it has.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.entries.insert(key.into(), value.into());
    }

    /// Takes `key` out; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.entries.shift_remove(key)
    }

    /// The model's architecture (`general.architecture`).
    pub fn architecture(&self) -> Result<&str, MetadataError> {
        self.str("general.architecture")
    }

    fn convert<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Result<T, Mismatch>,
    ) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let key = || key.to_owned();
        convert(value).map(Some).map_err(|mismatch| match mismatch {
            Mismatch::Type => MetadataError::Type { key: key(), expected, found: value.type_name() },
            Mismatch::Range(index, value) => MetadataError::Range { key: key(), index, value, expected },
            Mismatch::NotFinite(index, value) => MetadataError::NotFinite { key: key(), index, value },
        })
    }
}

macro_rules! getters {
    ($($required:ident, $optional:ident -> $type:ty, $expected:literal, $convert:expr;)+) => {
        impl Metadata {
            $(
                #[doc = concat!("The `", $expected, "` at `key`, which must be there.")]
                pub fn $required(&self, key: &str) -> Result<$type, MetadataError> {
                    self.$optional(key)?.ok_or_else(|| MetadataError::Missing { key: key.to_owned() })
                }

                #[doc = concat!("The `", $expected, "` at `key`, or `None` where there is no such key.")]
                pub fn $optional(&self, key: &str) -> Result<Option<$type>, MetadataError> {
                    self.convert(key, $expected, $convert)
                }
            )+
        }
    };
}

getters! {
    str, opt_str -> &str, "string", |value| match value {
        Value::String(text) => Ok(text.as_str()),
        _ => Err(Mismatch::Type),
    };
    bool, opt_bool -> bool, "bool", |value| match value {
        Value::Bool(flag) => Ok(*flag),
        _ => Err(Mismatch::Type),
    };
    u32, opt_u32 -> u32, "u32", integer;
    u64, opt_u64 -> u64, "u64", integer;
    usize, opt_usize -> usize, "usize", integer;
    i32, opt_i32 -> i32, "i32", integer;
    i64, opt_i64 -> i64, "i64", integer;
    f32, opt_f32 -> f32, "f32", |value| match *value {
        Value::F32(float) => finite(None, float.into()),
        Value::F64(float) => finite(None, float),
        _ => Err(Mismatch::Type),
    };
    strings, opt_strings -> &StringArray, "[string]", |value| match value {
        Value::Array(Array::String(strings)) => Ok(strings),
        _ => Err(Mismatch::Type),
    };
    bools, opt_bools -> Vec<bool>, "[bool]", |value| match value {
        Value::Array(Array::Bool(flags)) => Ok(flags.clone()),
        _ => Err(Mismatch::Type),
    };
    u32s, opt_u32s -> Vec<u32>, "[u32]", integers;
    i32s, opt_i32s -> Vec<i32>, "[i32]", integers;
    f32s, opt_f32s -> Vec<f32>, "[f32]", |value| match value {
        Value::Array(Array::F32(floats)) => floats.iter().enumerate().map(|(i, &v)| finite(Some(i), v.into())).collect(),
        Value::Array(Array::F64(floats)) => floats.iter().enumerate().map(|(i, &v)| finite(Some(i), v)).collect(),
        _ => Err(Mismatch::Type),
    };
}

fn integer<T: TryFrom<i128>>(value: &Value) -> Result<T, Mismatch> {
    let wide = value.integer().ok_or(Mismatch::Type)?;
    T::try_from(wide).map_err(|_| Mismatch::Range(None, wide))
}

fn integers<T: TryFrom<i128>>(value: &Value) -> Result<Vec<T>, Mismatch> {
    fn all<W: Copy + Into<i128>, T: TryFrom<i128>>(values: &[W]) -> Result<Vec<T>, Mismatch> {
        let one = |(index, &value): (usize, &W)| {
            let wide = value.into();
            T::try_from(wide).map_err(|_| Mismatch::Range(Some(index), wide))
        };
        values.iter().enumerate().map(one).collect()
    }
    let Value::Array(array) = value else { return Err(Mismatch::Type) };
    match array {
        Array::U8(values) => all(values),
        Array::I8(values) => all(values),
        Array::U16(values) => all(values),
        Array::I16(values) => all(values),
        Array::U32(values) => all(values),
        Array::I32(values) => all(values),
        Array::U64(values) => all(values),
        Array::I64(values) => all(values),
        Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) => Err(Mismatch::Type),
    }
}

fn finite(index: Option<usize>, value: f64) -> Result<f32, Mismatch> {
    let narrow = value as f32;
    if narrow.is_finite() { Ok(narrow) } else { Err(Mismatch::NotFinite(index, value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Metadata {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(key, value);
        }
        metadata
    }

    #[test]
    fn whole_numbers_of_any_width_are_taken_where_they_fit() {
        let m = metadata([
            ("u8", 200u8.into()),
            ("i64", (-1i64).into()),
            ("u64", u64::MAX.into()),
            ("array", vec![1i16, -2].into()),
            ("float", 1f32.into()),
        ]);
        assert_eq!(m.u32("u8"), Ok(200));
        assert_eq!(m.i32("i64"), Ok(-1));
        assert_eq!(m.u64("u64"), Ok(u64::MAX));
        assert_eq!(m.i32s("array"), Ok(vec![1, -2]));
        let range = |key: &str, index, value, expected| MetadataError::Range {
            key: key.into(),
            index,
            value,
            expected,
        };
        assert_eq!(m.u32("i64"), Err(range("i64", None, -1, "u32")));
        assert_eq!(m.i64("u64"), Err(range("u64", None, u64::MAX.into(), "i64")));
        assert_eq!(m.u32s("array"), Err(range("array", Some(1), -2, "[u32]")));
        assert_eq!(m.u32("float").unwrap_err().to_string(), "metadata key float is f32, expected u32");
    }

    #[test]
    fn floats_are_finite() {
        let m = metadata([
            ("nan", f32::NAN.into()),
            ("big", 1e300f64.into()),
            ("fine", 0.5f64.into()),
            ("list", vec![1.0, f32::INFINITY].into()),
            ("whole", 1u32.into()),
        ]);
        assert_eq!(m.f32("fine"), Ok(0.5));
        assert_eq!(m.f32("nan").unwrap_err().to_string(), "metadata key nan is NaN, which is no finite f32");
        assert!(matches!(m.f32("big"), Err(MetadataError::NotFinite { index: None, value: 1e300, .. })));
        assert_eq!(
            m.f32s("list").unwrap_err().to_string(),
            "metadata key list[1] is inf, which is no finite f32"
        );
        assert!(matches!(m.f32("whole"), Err(MetadataError::Type { found: "u32", .. })));
    }

    #[test]
    fn absent_is_no_error_where_the_key_is_optional_but_a_wrong_type_is() {
        let m = metadata([("name", "x".into())]);
        assert_eq!(m.opt_str("name"), Ok(Some("x")));
        assert_eq!(m.opt_bool("flag"), Ok(None));
        assert_eq!(m.bool("flag"), Err(MetadataError::Missing { key: "flag".into() }));
        assert_eq!(m.opt_bool("name").unwrap_err().to_string(), "metadata key name is string, expected bool");
        assert_eq!(
            m.opt_strings("name").unwrap_err().to_string(),
            "metadata key name is string, expected [string]"
        );
        assert_eq!(m.architecture().unwrap_err().key(), "general.architecture");
    }

    #[test]
    fn order_is_kept() {
        let mut m = metadata([("b", 1u8.into()), ("a", 2u8.into()), ("c", 3u8.into())]);
        m.insert("a", 4u8);
        assert_eq!(m.remove("b"), Some(Value::U8(1)));
        assert_eq!(m.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(m.u32("a"), Ok(4));
    }
}
