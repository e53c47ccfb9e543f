//! The JSON files of a Hugging Face model, with errors that name file and key.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::ConvertError;

/// A JSON object from a file.
#[derive(Clone, Debug)]
pub(super) struct Config {
    file: String,
    json: Value,
}

impl Config {
    /// Reads a file that must be there.
    pub(super) fn read(dir: &Path, file: &str) -> Result<Self, ConvertError> {
        let path = dir.join(file);
        let text = fs::read(&path).map_err(|source| ConvertError::Io { path: path.clone(), source })?;
        let json = serde_json::from_slice(&text).map_err(|source| ConvertError::Json { path, source })?;
        Ok(Self { file: file.to_owned(), json })
    }

    /// Reads a file; nothing where there is none.
    pub(super) fn read_optional(dir: &Path, file: &str) -> Result<Option<Self>, ConvertError> {
        if dir.join(file).is_file() { Self::read(dir, file).map(Some) } else { Ok(None) }
    }

    /// An object with nothing in it, in place of a file that is not there.
    pub(super) fn empty(file: &str) -> Self {
        Self { file: file.to_owned(), json: Value::Object(Default::default()) }
    }

    /// The value at a path of keys with dots between; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.json, |json, key| json.get(key)).filter(|value| !value.is_null())
    }

    /// The first of these keys that is there.
    fn first<'a>(&self, keys: &[&'a str]) -> (&'a str, Option<&Value>) {
        let found = keys.iter().find_map(|key| Some((*key, Some(self.get(key)?))));
        found.unwrap_or((keys.first().copied().unwrap_or_default(), None))
    }

    /// What is wrong with a key.
    pub(super) fn wrong(&self, key: &str, expected: &'static str) -> ConvertError {
        ConvertError::Config {
            file: self.file.clone(),
            key: key.to_owned(),
            expected,
            found: self.get(key).map(|value| value.to_string().chars().take(100).collect()),
        }
    }

    /// A count, under the first of these names that is there.
    pub(super) fn opt_count(&self, keys: &[&str]) -> Result<Option<u32>, ConvertError> {
        let (key, value) = self.first(keys);
        let count = |value: &Value| value.as_u64().and_then(|count| u32::try_from(count).ok());
        value.map(|value| count(value).ok_or_else(|| self.wrong(key, "a count"))).transpose()
    }

    /// As [`Config::opt_count`], of a key that must be there and not be zero.
    pub(super) fn count(&self, keys: &[&str]) -> Result<u32, ConvertError> {
        let count = self.opt_count(keys)?.filter(|&count| count > 0);
        count.ok_or_else(|| self.wrong(self.first(keys).0, "a count"))
    }

    /// A number.
    pub(super) fn opt_number(&self, keys: &[&str]) -> Result<Option<f32>, ConvertError> {
        let (key, value) = self.first(keys);
        let number = |value: &Value| value.as_f64().map(|number| number as f32).filter(|x| x.is_finite());
        value.map(|value| number(value).ok_or_else(|| self.wrong(key, "a number"))).transpose()
    }

    /// As [`Config::opt_number`], of a key that must be there.
    pub(super) fn number(&self, keys: &[&str]) -> Result<f32, ConvertError> {
        self.opt_number(keys)?.ok_or_else(|| self.wrong(self.first(keys).0, "a number"))
    }

    /// A text.
    pub(super) fn opt_str(&self, key: &str) -> Result<Option<&str>, ConvertError> {
        let value = self.get(key);
        value.map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a text"))).transpose()
    }

    /// The entries of a file that is a list.
    pub(super) fn list(&self) -> &[Value] {
        self.json.as_array().map_or(&[], Vec::as_slice)
    }

    /// Whether a flag is set; not where it is absent.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }
}
