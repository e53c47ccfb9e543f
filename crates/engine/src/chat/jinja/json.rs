//! Python's `json.dumps`, which the `tojson` filter of Transformers calls.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::budget::{Budget, Exhausted};

/// The arguments of `tojson`.
pub(super) struct Options {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl Options {
    pub(super) fn from_args(indent: Option<Value>, kwargs: &Kwargs) -> Result<Self, Error> {
        let ensure_ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
        let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
        let indent = match kwargs.get::<Option<Value>>("indent")? {
            Some(indent) => Some(indent),
            // The first positional argument of the filter is `ensure_ascii`, as a bool; of Jinja's own, `indent`.
            None => indent.filter(|value| value.kind() != ValueKind::Bool),
        };
        let indent = match indent.filter(|value| !value.is_none() && !value.is_undefined()) {
            Some(value) => match (value.as_str(), value.as_i64()) {
                (Some(text), _) => Some(text.to_owned()),
                (_, Some(width @ ..=1000)) => Some(" ".repeat(width.max(0) as usize)),
                (_, Some(_)) => return Err(Exhausted::Memory.into()),
                _ => {
                    return Err(Error::new(ErrorKind::InvalidOperation, "indent must be a number or a text"));
                }
            },
            None => None,
        };
        let [item_separator, key_separator] = match kwargs.get::<Option<Vec<String>>>("separators")? {
            None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
            Some(separators) => separators
                .try_into()
                .map_err(|_| Error::new(ErrorKind::InvalidOperation, "separators must be two texts"))?,
        };
        kwargs.assert_all_used()?;
        Ok(Self { ensure_ascii, indent, item_separator, key_separator, sort_keys })
    }
}

/// `value` as JSON. Its depth must have been checked.
pub(super) fn to_json(budget: &mut Budget, value: &Value, options: &Options) -> Result<String, Error> {
    let mut writer = Writer { budget, options, json: String::new() };
    writer.value(value, 0)?;
    Ok(writer.json)
}

struct Writer<'a> {
    budget: &'a mut Budget,
    options: &'a Options,
    json: String,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        self.budget.charge(text.len() as u64)?;
        self.json.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if let Some(text) = value.as_str() {
            return self.string(text);
        }
        match value.kind() {
            ValueKind::None => self.push("null"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.push(&value.to_string()),
            ValueKind::Number => self.push(&float(f64::try_from(value.clone())?)),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                self.container(["[", "]"], depth, items, |writer, item| writer.value(&item, depth + 1))
            }
            ValueKind::Map => {
                let pairs = value.as_object().and_then(|map| map.try_iter_pairs());
                let mut pairs: Vec<(Value, Value)> = pairs.into_iter().flatten().collect();
                if self.options.sort_keys {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.container(["{", "}"], depth, pairs, |writer, (key, value)| {
                    match key.as_str() {
                        Some(key) => writer.string(key)?,
                        None => writer.string(&json_key(&key)?)?,
                    }
                    let separator = &writer.options.key_separator;
                    writer.push(separator)?;
                    writer.value(&value, depth + 1)
                })
            }
            kind => {
                Err(Error::new(ErrorKind::BadSerialization, format!("an object of type {kind} is not JSON")))
            }
        }
    }

    fn container<T>(
        &mut self,
        [open, close]: [&str; 2],
        depth: usize,
        items: Vec<T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.push(open)?;
        let filled = !items.is_empty();
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                let separator = &self.options.item_separator;
                self.push(separator)?;
            }
            self.line(depth + 1)?;
            write(self, item)?;
        }
        if filled {
            self.line(depth)?;
        }
        self.push(close)
    }

    /// Starts a line if the JSON is indented.
    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.options.indent {
            self.push("\n")?;
            for _ in 0..depth {
                self.push(indent)?;
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        let mut json = String::with_capacity(text.len() + 2);
        json.push('"');
        for c in text.chars() {
            match c {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\u{8}' => json.push_str("\\b"),
                '\u{c}' => json.push_str("\\f"),
                c if c < ' ' || (self.options.ensure_ascii && !matches!(c, ' '..='~')) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        json.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => json.push(c),
            }
        }
        json.push('"');
        self.push(&json)
    }
}

/// A key that is not a text, as Python writes it.
fn json_key(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number if key.is_integer() => Ok(key.to_string()),
        ValueKind::Number => Ok(float(f64::try_from(key.clone())?)),
        kind => Err(Error::new(ErrorKind::BadSerialization, format!("a key of type {kind} is not JSON"))),
    }
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent outside of 1e-4 … 1e16.
fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        let scientific = format!("{x:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{x:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (f64::INFINITY, "Infinity"),
        ];
        for (x, expected) in cases {
            assert_eq!(float(x), expected);
        }
    }
}
