//! Tokens with a role, and the chat template.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Kind, Vocabulary};
use crate::convert::ConvertError;
use crate::convert::config::Config;
use crate::gguf::Metadata;

/// Roles: the names in GGUF, and those in `tokenizer_config.json`.
const ROLES: [(&str, &str); 7] = [
    ("bos", "bos_token"),
    ("eos", "eos_token"),
    ("unknown", "unk_token"),
    ("seperator", "sep_token"), // sic
    ("padding", "pad_token"),
    ("cls", "cls_token"),
    ("mask", "mask_token"),
];

/// Writes the ids of tokens with a role.
pub(super) fn roles(
    dir: &Path,
    config: &Config,
    options: &Config,
    vocab: &Vocabulary,
    meta: &mut Metadata,
) -> Result<(), ConvertError> {
    let map = Config::read_optional(dir, "special_tokens_map.json")?;
    for (role, name) in ROLES {
        // A text, or an object with one.
        let text = |config: &Config| {
            let value = config.get(name)?;
            Some(value.as_str().or_else(|| value.get("content")?.as_str())?.to_owned())
        };
        let named = text(options).or_else(|| text(map.as_ref()?)).or_else(|| usual(role, vocab));
        // Ids in config.json are what the model was trained with; a list has all that end a text.
        let given = config.get(&format!("{name}_id")).and_then(|id| {
            let id = id.as_u64().or_else(|| id.as_array()?.first()?.as_u64())?;
            u32::try_from(id).ok()
        });
        if let Some(id) = named.and_then(|text| vocab.id(&text)).or(given) {
            meta.insert(format!("tokenizer.ggml.{role}_token_id"), id);
        }
    }
    for (flag, key) in [("add_bos_token", "add_bos_token"), ("add_eos_token", "add_eos_token")] {
        if let Some(value) = options.get(flag).and_then(Value::as_bool) {
            meta.insert(format!("tokenizer.ggml.{key}"), value);
        }
    }
    Ok(())
}

/// BERT's tokens, where no file names them.
fn usual(role: &str, vocab: &Vocabulary) -> Option<String> {
    let text = match role {
        "unknown" => "[UNK]",
        "seperator" => "[SEP]",
        "padding" => "[PAD]",
        "cls" => "[CLS]",
        "mask" => "[MASK]",
        _ => return None,
    };
    let id = vocab.id(text)?;
    vocab.get(id as usize).filter(|(_, kind)| *kind == Kind::Control).map(|(text, _)| text.clone())
}

/// Writes whether the post-processor's template puts tokens around a text.
pub(super) fn template(json: &Config, vocab: &Vocabulary, meta: &mut Metadata) {
    let single = |processor: &Value| processor.get("single").and_then(Value::as_array).cloned();
    let processor = json.get("post_processor");
    let steps = processor.and_then(|processor| {
        single(processor).or_else(|| processor.get("processors")?.as_array()?.iter().find_map(single))
    });
    let Some(steps) = steps else { return };
    let special = |step: Option<&Value>| {
        let id = step?.get("SpecialToken")?.get("id")?.as_str()?;
        vocab.id(id)
    };
    if meta.get("tokenizer.ggml.model") == Some(&"bert".into()) {
        return;
    }
    let (before, after) = (special(steps.first()), special(steps.last()));
    meta.insert("tokenizer.ggml.add_bos_token", before.is_some());
    meta.insert("tokenizer.ggml.add_eos_token", after.is_some());
}

/// Writes the chat template: a file of its own, or a key of `tokenizer_config.json`.
pub(super) fn chat_template(dir: &Path, options: &Config, meta: &mut Metadata) -> Result<(), ConvertError> {
    let path = dir.join("chat_template.jinja");
    if path.is_file() {
        let text = fs::read_to_string(&path).map_err(|source| ConvertError::Io { path, source })?;
        meta.insert("tokenizer.chat_template", text);
        return Ok(());
    }
    let Some(template) = options.get("chat_template") else { return Ok(()) };
    let default = |list: &Vec<Value>| {
        let is_default = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some("default");
        Some(list.iter().find(is_default)?.get("template")?.as_str()?.to_owned())
    };
    let text = template.as_str().map(str::to_owned).or_else(|| default(template.as_array()?));
    if let Some(text) = text {
        meta.insert("tokenizer.chat_template", text);
    }
    Ok(())
}
