//! What a metadata key can hold.

/// Calls a macro with every number type of GGUF: the variant's name, the Rust type and the type id.
macro_rules! with_numbers {
    ($callback:ident) => {
        $callback! {
            U8 u8 0,
            I8 i8 1,
            U16 u16 2,
            I16 i16 3,
            U32 u32 4,
            I32 i32 5,
            F32 f32 6,
            U64 u64 10,
            I64 i64 11,
            F64 f64 12,
        }
    };
}
pub(super) use with_numbers;

/// The type ids of values that are not numbers.
pub(super) const BOOL: u32 = 7;
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;

/// The value of a metadata key.
#[derive(Clone, Debug, PartialEq)]
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
    String(String),
    U64(u64),
    I64(i64),
    F64(f64),
    Array(Array),
}

/// A list of values of one type.
///
/// GGUF allows lists of lists; none of its models has one, so reading one is an error.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(StringArray),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

macro_rules! number_values {
    ($($variant:ident $type:ident $id:literal,)+) => {
        impl Value {
            /// The name of the type, as in Rust: `u32`, `string`, `[f32]`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Value::$variant(_) => stringify!($type),)+
                    Value::Bool(_) => "bool",
                    Value::String(_) => "string",
                    Value::Array(array) => array.type_name(),
                }
            }

            /// The value, if it is a whole number of any type.
            pub(super) fn integer(&self) -> Option<i128> {
                match *self {
                    Value::U8(v) => Some(v.into()),
                    Value::I8(v) => Some(v.into()),
                    Value::U16(v) => Some(v.into()),
                    Value::I16(v) => Some(v.into()),
                    Value::U32(v) => Some(v.into()),
                    Value::I32(v) => Some(v.into()),
                    Value::U64(v) => Some(v.into()),
                    Value::I64(v) => Some(v.into()),
                    _ => None,
                }
            }
        }

        impl Array {
            /// The name of the type, as in Rust: `[f32]`, `[string]`.
            pub fn type_name(&self) -> &'static str {
                match self {
                    $(Array::$variant(_) => concat!("[", stringify!($type), "]"),)+
                    Array::Bool(_) => "[bool]",
                    Array::String(_) => "[string]",
                }
            }

            /// How many values the array holds.
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$variant(values) => values.len(),)+
                    Array::Bool(values) => values.len(),
                    Array::String(values) => values.len(),
                }
            }

            /// Whether the array holds no value.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        $(value_from!($type, Value::$variant); value_from!(Vec<$type>, Array::$variant);)+
    };
}

macro_rules! value_from {
    ($type:ty, Value::$variant:ident) => {
        impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::$variant(value)
            }
        }
    };
    ($type:ty, Array::$variant:ident) => {
        impl From<$type> for Value {
            fn from(values: $type) -> Value {
                Value::Array(Array::$variant(values))
            }
        }
    };
}

with_numbers!(number_values);
value_from!(bool, Value::Bool);
value_from!(String, Value::String);
value_from!(Vec<bool>, Array::Bool);
value_from!(StringArray, Array::String);

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::String(value.to_owned())
    }
}

/// A list of strings in one buffer, so that a vocabulary of 256 000 tokens takes two allocations.
///
/// All the text together is at most 4 GiB.
///
/// ```
/// use firecrest::gguf::StringArray;
///
/// let tokens: StringArray = ["<s>", "</s>", "the"].into_iter().collect();
/// assert_eq!(tokens.get(2), Some("the"));
/// assert_eq!(tokens.get(3), None);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StringArray {
    text: String,
    /// Where each string ends in `text`; a character boundary, and never before the one in front.
    ends: Vec<u32>,
}

impl StringArray {
    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String number `index`, from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start as usize..end as usize])
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + Clone {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl<S: AsRef<str>> FromIterator<S> for StringArray {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> StringArray {
        let mut array = StringArray::default();
        array.extend(strings);
        array
    }
}

/// Panics where the text grows past 4 GiB.
impl<S: AsRef<str>> Extend<S> for StringArray {
    fn extend<I: IntoIterator<Item = S>>(&mut self, strings: I) {
        for string in strings {
            self.text.push_str(string.as_ref());
            self.ends.push(u32::try_from(self.text.len()).expect("a string array holds at most 4 GiB"));
        }
    }
}

impl std::fmt::Debug for StringArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Makes a [`StringArray`] of bytes that need not be UTF-8.
///
/// Tokens and merges are a few bytes each, so they are gathered and checked thousands at a time.
pub(super) struct StringArrayBuilder {
    /// The strings that are checked, and where all of them end.
    array: StringArray,
    /// The text of the strings that are not checked yet: of all from number `checked` on.
    gathered: Vec<u8>,
    checked: usize,
}

/// A string that can't be part of an array.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StringError {
    /// The string with this index is not UTF-8.
    Utf8(usize),
    /// The strings are more than 4 GiB together.
    TooLong,
}

impl StringArrayBuilder {
    /// Fits the cache next to the text it comes from.
    const GATHER: usize = 1 << 15;

    /// Makes room for `len` strings.
    pub(super) fn with_capacity(len: usize) -> StringArrayBuilder {
        let array = StringArray { text: String::new(), ends: Vec::with_capacity(len) };
        StringArrayBuilder { array, gathered: Vec::with_capacity(2 * Self::GATHER), checked: 0 }
    }

    pub(super) fn push(&mut self, string: &[u8]) -> Result<(), StringError> {
        self.gathered.extend_from_slice(string);
        let end = self.array.text.len() + self.gathered.len();
        self.array.ends.push(u32::try_from(end).map_err(|_| StringError::TooLong)?);
        if self.gathered.len() < Self::GATHER { Ok(()) } else { self.check() }
    }

    pub(super) fn finish(mut self) -> Result<StringArray, StringError> {
        self.check()?;
        self.array.text.shrink_to_fit();
        Ok(self.array)
    }

    /// Checks what is gathered, and that the strings in it don't end inside a character.
    fn check(&mut self) -> Result<(), StringError> {
        let StringArrayBuilder { array: StringArray { text, ends }, gathered, checked } = self;
        let ends = ends[*checked..].iter().map(|&end| end as usize - text.len());
        match simdutf8::basic::from_utf8(gathered) {
            Ok(more) if ends.clone().all(|end| more.is_char_boundary(end)) => {
                *checked += ends.len();
                text.push_str(more);
                gathered.clear();
                Ok(())
            }
            _ => {
                let starts = std::iter::once(0).chain(ends.clone());
                let valid = |(start, end): (usize, usize)| std::str::from_utf8(&gathered[start..end]).is_ok();
                Err(StringError::Utf8(*checked + starts.zip(ends).take_while(|&range| valid(range)).count()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_in_order() {
        let words = ["", "a", "é😀", "", "z"];
        let array: StringArray = words.into_iter().collect();
        assert_eq!(array.iter().collect::<Vec<_>>(), words);
        assert_eq!((array.len(), array.get(2), array.get(5)), (5, Some("é😀"), None));
        assert!(StringArray::default().is_empty());
    }

    fn build<'a>(strings: impl IntoIterator<Item = &'a [u8]>) -> Result<StringArray, StringError> {
        let mut builder = StringArrayBuilder::with_capacity(0);
        strings.into_iter().try_for_each(|string| builder.push(string))?;
        builder.finish()
    }

    #[test]
    fn the_first_string_that_is_no_utf8_is_named() {
        assert_eq!(build([&b"a"[..], "é".as_bytes()]), Ok(["a", "é"].into_iter().collect()));
        // Valid as a whole, cut inside a character.
        assert_eq!(build([&b"a"[..], b"\xc3", b"\xa9"]), Err(StringError::Utf8(1)));
        assert_eq!(build([&b"ab"[..], b"", b"\xffc", b"d\xff"]), Err(StringError::Utf8(2)));
        // The second string lacks the end of a character, which the third does not continue.
        assert_eq!(build([&b"ab"[..], b"\xc3", b"cd"]), Err(StringError::Utf8(1)));
    }

    #[test]
    fn strings_are_checked_across_the_blocks_in_which_they_are_gathered() {
        let long = "ü".repeat(StringArrayBuilder::GATHER / 3);
        let strings = [long.as_str(), "a", &long, "", &long, "日本"];
        assert_eq!(build(strings.map(str::as_bytes)), Ok(strings.into_iter().collect()));
        let mut bytes = strings.map(str::as_bytes);
        bytes[5] = &[0xe6, 0x97];
        assert_eq!(build(bytes), Err(StringError::Utf8(5)));
        bytes[2] = &long.as_bytes()[1..];
        assert_eq!(build(bytes), Err(StringError::Utf8(2)));
    }
}
