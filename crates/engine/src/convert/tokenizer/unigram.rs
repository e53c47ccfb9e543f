//! Unigram, the tokenizer of XLM-RoBERTa and T5.

use serde_json::Value;

use super::{Kind, Vocabulary, added};
use crate::convert::ConvertError;
use crate::convert::config::Config;
use crate::gguf::Metadata;

/// Reads `tokenizer.json`.
pub(super) fn convert(
    json: &Config,
    vocab: &mut Vocabulary,
    meta: &mut Metadata,
) -> Result<(), ConvertError> {
    let wrong = || json.wrong("model.vocab", "a list of texts and scores");
    let list = json.get("model.vocab").and_then(Value::as_array).ok_or_else(wrong)?;
    let unknown = json.opt_count(&["model.unk_id"])?.map(|id| id as usize);
    let mut scores = Vec::with_capacity(list.len());
    for (id, entry) in list.iter().enumerate() {
        let text = entry.get(0).and_then(Value::as_str).ok_or_else(wrong)?;
        scores.push(entry.get(1).and_then(Value::as_f64).ok_or_else(wrong)? as f32);
        let kind = if unknown == Some(id) { Kind::Unknown } else { Kind::Normal };
        vocab.set(id, text.to_owned(), kind)?;
    }
    for (id, text, special) in added(json)? {
        if unknown != Some(id) {
            vocab.set(id, text, if special { Kind::Control } else { Kind::UserDefined })?;
        }
    }
    scores.resize(vocab.tokens.len(), 0.0);
    if let Some(map) = json.get("normalizer").and_then(charsmap) {
        let bytes = base64(map).ok_or_else(|| json.wrong("normalizer", "a character map in base64"))?;
        meta.insert("tokenizer.ggml.precompiled_charsmap", bytes);
    }
    meta.insert("tokenizer.ggml.model", "t5");
    meta.insert("tokenizer.ggml.pre", "default");
    meta.insert("tokenizer.ggml.scores", scores);
    meta.insert("tokenizer.ggml.add_space_prefix", true);
    meta.insert("tokenizer.ggml.remove_extra_whitespaces", true);
    Ok(())
}

/// The character map, which is base64 in a normalizer or in one of a sequence of them.
fn charsmap(normalizer: &Value) -> Option<&str> {
    let own = normalizer.get("precompiled_charsmap").and_then(Value::as_str);
    own.or_else(|| normalizer.get("normalizers")?.as_array()?.iter().find_map(charsmap))
}

/// Decodes base64 with the usual alphabet; `None` where it is anything else.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("+/8A", b"\xfb\xff\0")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(base64("Zg!="), None);
    }
}
