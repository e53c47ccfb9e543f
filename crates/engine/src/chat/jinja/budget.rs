use std::fmt;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Levels of lists and maps within each other. Tool schemas have a dozen.
pub(super) const MAX_DEPTH: usize = 64;

/// What a rendering may use.
#[derive(Clone, Copy, Debug)]
pub(in crate::chat) struct Budget {
    /// Instructions.
    pub(in crate::chat) fuel: u64,
    /// Bytes of all values made, and of the text written from values.
    pub(in crate::chat) bytes: u64,
}

/// Which bound a template broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chat) enum Exhausted {
    Source,
    Memory,
    Depth,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the template is too long",
            Self::Memory => "the template uses too much memory",
            Self::Depth => "a value nests too deep",
        })
    }
}

impl std::error::Error for Exhausted {}

impl From<Exhausted> for Error {
    fn from(bound: Exhausted) -> Self {
        Error::new(ErrorKind::InvalidOperation, bound.to_string()).with_source(bound)
    }
}

/// The budget of the rendering that `state` belongs to; `initial` at its first use.
pub(super) fn of<'s>(state: &'s mut State, initial: Budget) -> &'s mut Budget {
    state.get_or_insert_extension(initial)
}

impl Budget {
    pub(super) fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Exhausted::Memory)?;
        Ok(())
    }

    /// Checks the depth of a value that is about to be walked by code that recurses.
    pub(super) fn walk(&mut self, value: &Value) -> Result<(), Error> {
        self.visit(value, 0, false)
    }

    pub(super) fn walk_all(&mut self, values: &[Value]) -> Result<(), Error> {
        values.iter().try_for_each(|value| self.walk(value))
    }

    /// Pays for a value that was made, and checks its depth. An iterator is made into a list: it would go on making values
    /// where nobody counts, and iterators over iterators nest without a trace.
    pub(super) fn admit(&mut self, value: Value) -> Result<Value, Error> {
        let value = match value.kind() {
            ValueKind::Iterable => {
                let mut items = Vec::new();
                for item in value.try_iter()?.checked() {
                    let item = item?;
                    self.charge(32 + item.as_str().map_or(0, str::len) as u64)?;
                    items.push(item);
                }
                Value::from(items)
            }
            _ => value,
        };
        self.visit(&value, 0, true)?;
        Ok(value)
    }

    /// Walks a value, paying for every item, and for the text of strings if it is `new`.
    fn visit(&mut self, value: &Value, depth: usize, new: bool) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Exhausted::Depth.into());
        }
        if let Some(text) = value.as_str() {
            return if new { self.charge(text.len() as u64) } else { Ok(()) };
        }
        // Walking an iterator would run it; what it makes is counted where it is used.
        let (Some(object), true) = (value.as_object(), value.kind() != ValueKind::Iterable) else {
            return Ok(());
        };
        if value.kind() == ValueKind::Map {
            for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                self.charge(if new { 64 } else { 1 })?;
                self.visit(&key, depth + 1, new)?;
                self.visit(&item, depth + 1, new)?;
            }
        } else {
            for item in object.try_iter().into_iter().flatten() {
                self.charge(if new { 32 } else { 1 })?;
                self.visit(&item, depth + 1, new)?;
            }
        }
        Ok(())
    }
}

/// Bytes that a value prints to, or a bound for what is not text: what it holds is no longer than its parts were.
pub(super) fn text_len(value: &Value) -> u64 {
    match value.as_str() {
        Some(text) => text.len() as u64,
        None if value.as_object().is_none() => 40,
        None => {
            let mut counter = Counter(0);
            // The depth was checked, and writing to a counter does not fail.
            let _ = fmt::write(&mut counter, format_args!("{value}"));
            counter.0
        }
    }
}

struct Counter(u64);

impl fmt::Write for Counter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}
