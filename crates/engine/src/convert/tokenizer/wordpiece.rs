//! WordPiece: GGUF marks the beginnings of words where BERT marks what goes on.

use super::{Kind, Vocabulary, added, entries};
use crate::convert::ConvertError;
use crate::convert::config::Config;
use crate::gguf::Metadata;

/// Reads `tokenizer.json`.
pub(super) fn convert(
    json: &Config,
    vocab: &mut Vocabulary,
    meta: &mut Metadata,
) -> Result<(), ConvertError> {
    let mark = json.opt_str("model.continuing_subword_prefix")?.unwrap_or("##");
    for (text, id) in entries(json)? {
        vocab.set(id, spell(text, mark), Kind::Normal)?;
    }
    for (id, text, _) in added(json)? {
        vocab.set(id, text, Kind::Control)?;
    }
    match json.opt_str("normalizer.type")? {
        Some("BertNormalizer") | None => {}
        Some(other) => {
            return Err(ConvertError::UnsupportedTokenizer { what: format!("WordPiece behind {other}") });
        }
    }
    let lowercase = json.get("normalizer.lowercase").and_then(|flag| flag.as_bool()).unwrap_or(true);
    let accents = json.get("normalizer.strip_accents").and_then(|flag| flag.as_bool());
    describe(lowercase, accents, meta);
    Ok(())
}

/// Reads `vocab.txt`, a word a line.
pub(super) fn from_words(
    words: &str,
    options: &Config,
    meta: &mut Metadata,
) -> Result<Vocabulary, ConvertError> {
    let mut vocab = Vocabulary::default();
    for (id, word) in words.lines().enumerate() {
        let is_control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].contains(&word);
        let (text, kind) =
            if is_control { (word.to_owned(), Kind::Control) } else { (spell(word, "##"), Kind::Normal) };
        vocab.set(id, text, kind)?;
    }
    let lowercase = options.get("do_lower_case").and_then(|flag| flag.as_bool()).unwrap_or(true);
    let accents = options.get("strip_accents").and_then(|flag| flag.as_bool());
    describe(lowercase, accents, meta);
    Ok(vocab)
}

fn spell(text: &str, mark: &str) -> String {
    match text.strip_prefix(mark).filter(|_| !mark.is_empty()) {
        Some(rest) => rest.to_owned(),
        None => format!("\u{2581}{text}"),
    }
}

fn describe(lowercase: bool, strip_accents: Option<bool>, meta: &mut Metadata) {
    meta.insert("tokenizer.ggml.model", "bert");
    meta.insert("tokenizer.ggml.pre", "default");
    meta.insert("tokenizer.ggml.normalizer.lowercase", lowercase);
    if let Some(strip) = strip_accents {
        meta.insert("tokenizer.ggml.normalizer.strip_accents", strip);
    }
}
