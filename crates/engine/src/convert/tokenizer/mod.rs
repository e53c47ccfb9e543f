//! Tokenizers: `tokenizer.json`, or a list of words, to the keys `tokenizer.ggml.*`.

mod bpe;
mod special;
mod unigram;
mod wordpiece;

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::ConvertError;
use super::config::Config;
use super::families::Family;
use crate::gguf::{Array, Metadata};

/// The numbers of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A vocabulary under way.
#[derive(Default)]
struct Vocabulary {
    tokens: Vec<Option<(String, Kind)>>,
}

impl Vocabulary {
    fn set(&mut self, id: usize, text: String, kind: Kind) -> Result<(), ConvertError> {
        // No vocabulary is as large; a broken file may say so.
        if id >= 1 << 24 {
            return Err(ConvertError::UnsupportedTokenizer { what: format!("token {text:?} has id {id}") });
        }
        if id >= self.tokens.len() {
            self.tokens.resize(id + 1, None);
        }
        self.tokens[id] = Some((text, kind));
        Ok(())
    }

    fn get(&self, id: usize) -> Option<&(String, Kind)> {
        self.tokens.get(id)?.as_ref()
    }

    fn id(&self, wanted: &str) -> Option<u32> {
        let is_it = |token: &Option<(String, Kind)>| token.as_ref().is_some_and(|(text, _)| text == wanted);
        self.tokens.iter().position(is_it).map(|id| id as u32)
    }

    /// Writes the vocabulary, at least `len` tokens long: matrices may have more rows than there are tokens.
    fn write(self, len: usize, meta: &mut Metadata) {
        let len = len.max(self.tokens.len()).min(1 << 24);
        let tokens = self.tokens.into_iter().chain(std::iter::repeat(None)).take(len).enumerate();
        let (texts, kinds): (Vec<_>, Vec<_>) = tokens
            .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), Kind::Unused)))
            .map(|(text, kind)| (text, kind as i32))
            .unzip();
        meta.insert(
            "tokenizer.ggml.tokens",
            crate::gguf::Value::Array(Array::String(texts.iter().collect())),
        );
        meta.insert("tokenizer.ggml.token_type", kinds);
    }
}

/// Writes the tokenizer of a model whose matrices have `rows` tokens (0 where that is not known).
pub(super) fn convert(
    dir: &Path,
    config: &Config,
    family: &Family,
    rows: usize,
    meta: &mut Metadata,
) -> Result<(), ConvertError> {
    let options = Config::read_optional(dir, "tokenizer_config.json")?
        .unwrap_or_else(|| Config::empty("tokenizer_config.json"));
    let vocab = match Config::read_optional(dir, "tokenizer.json")? {
        Some(json) => {
            let mut vocab = Vocabulary::default();
            match json.opt_str("model.type")? {
                Some("WordPiece") => wordpiece::convert(&json, &mut vocab, meta)?,
                Some("Unigram") => unigram::convert(&json, &mut vocab, meta)?,
                // The oldest files do not say so.
                Some("BPE") | None => bpe::convert(&json, &options, &mut vocab, meta)?,
                Some(other) => return Err(ConvertError::UnsupportedTokenizer { what: other.to_owned() }),
            }
            special::template(&json, &vocab, meta);
            vocab
        }
        None if dir.join("vocab.txt").is_file() => {
            let path = dir.join("vocab.txt");
            let words = fs::read_to_string(&path).map_err(|source| ConvertError::Io { path, source })?;
            wordpiece::from_words(&words, &options, meta)?
        }
        None => return Err(ConvertError::NoTokenizer { dir: dir.into() }),
    };
    if family.is_encoder() {
        let types = config.opt_count(&["type_vocab_size"])?.unwrap_or(1);
        meta.insert("tokenizer.ggml.token_type_count", types);
    }
    special::roles(dir, config, &options, &vocab, meta)?;
    vocab.write(rows, meta);
    special::chat_template(dir, &options, meta)
}

/// The entries of `model.vocab`, an object of ids.
fn entries(json: &Config) -> Result<impl Iterator<Item = (&String, usize)>, ConvertError> {
    let object = json.get("model.vocab").and_then(Value::as_object);
    let object = object.ok_or_else(|| json.wrong("model.vocab", "an object of ids"))?;
    if object.values().any(|id| id.as_u64().is_none()) {
        return Err(json.wrong("model.vocab", "an object of ids"));
    }
    Ok(object.iter().map(|(text, id)| (text, id.as_u64().unwrap_or_default() as usize)))
}

/// `added_tokens`: id, text, and whether it is special.
fn added(json: &Config) -> Result<Vec<(usize, String, bool)>, ConvertError> {
    let wrong = || json.wrong("added_tokens", "a list of tokens with id and content");
    let Some(list) = json.get("added_tokens") else { return Ok(Vec::new()) };
    let list = list.as_array().ok_or_else(wrong)?;
    let token = |token: &Value| {
        let (id, content) = (token.get("id")?.as_u64()?, token.get("content")?.as_str()?);
        let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        Some((usize::try_from(id).ok()?, content.to_owned(), special))
    };
    list.iter().map(|entry| token(entry).ok_or_else(wrong)).collect()
}
