//! Byte-pair encoding, in the two spellings of GGUF: GPT-2's byte-level letters with merges, and SentencePiece's with
//! scores.

use std::collections::HashMap;

use serde_json::Value;

use super::{Kind, Vocabulary, added, entries};
use crate::convert::ConvertError;
use crate::convert::config::Config;
use crate::gguf::{Array, Metadata};
use crate::tokenizer::pre_tokenizer_name;

/// What splits words where a byte-level pre-tokenizer does it by itself.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Reads `tokenizer.json`.
pub(super) fn convert(
    json: &Config,
    options: &Config,
    vocab: &mut Vocabulary,
    meta: &mut Metadata,
) -> Result<(), ConvertError> {
    let spaced = json.flag("model.byte_fallback");
    let unknown = json.opt_str("model.unk_token")?;
    for (text, id) in entries(json)? {
        let kind = match text.as_str() {
            text if spaced && is_byte(text) => Kind::Byte,
            text if spaced && Some(text) == unknown => Kind::Unknown,
            _ => Kind::Normal,
        };
        vocab.set(id, text.clone(), kind)?;
    }
    for (id, text, special) in added(json)? {
        let is_unknown = spaced && Some(text.as_str()) == unknown;
        let kind = match special {
            _ if is_unknown => Kind::Unknown,
            true => Kind::Control,
            false => Kind::UserDefined,
        };
        vocab.set(id, text, kind)?;
    }
    let merges = merges(json)?;
    if spaced {
        return describe_spaced(json, vocab, &merges, meta);
    }
    let whole_words = json.flag("model.ignore_merges");
    let expressions = expressions(json)?;
    let clean_up = options.flag("clean_up_tokenization_spaces");
    let name = pre_tokenizer_name(&expressions, whole_words, clean_up)
        .or_else(|| pre_tokenizer_name(&expressions, !whole_words, clean_up));
    let name = name.ok_or_else(|| ConvertError::UnsupportedTokenizer {
        what: format!("words are split by {}", expressions.join(" and ")),
    })?;
    meta.insert("tokenizer.ggml.model", "gpt2");
    meta.insert("tokenizer.ggml.pre", name);
    let merges = merges.iter().map(|(left, right)| format!("{left} {right}"));
    meta.insert("tokenizer.ggml.merges", crate::gguf::Value::Array(Array::String(merges.collect())));
    Ok(())
}

/// `<0xHH>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// `model.merges`: pairs, or texts with a space between the parts.
fn merges(json: &Config) -> Result<Vec<(&str, &str)>, ConvertError> {
    let wrong = || json.wrong("model.merges", "a list of pairs");
    let list = json.get("model.merges").and_then(Value::as_array).ok_or_else(wrong)?;
    list.iter()
        .map(|merge| match merge {
            Value::String(text) => text.split_once(' ').ok_or_else(wrong),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(left), Value::String(right)] => Ok((left.as_str(), right.as_str())),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        })
        .collect()
}

/// SentencePiece merges what makes the token with the best score: the earlier a token's first merge, the better.
fn describe_spaced(
    json: &Config,
    vocab: &Vocabulary,
    merges: &[(&str, &str)],
    meta: &mut Metadata,
) -> Result<(), ConvertError> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let never = -(merges.len() as f32) - 1.0;
    let score = |token: &Option<(String, Kind)>| match token {
        Some((text, Kind::Normal)) => ranks.get(text).map_or(never, |&rank| -(rank as f32)),
        _ => 0.0,
    };
    meta.insert("tokenizer.ggml.model", "llama");
    meta.insert("tokenizer.ggml.pre", "default");
    meta.insert("tokenizer.ggml.scores", vocab.tokens.iter().map(score).collect::<Vec<f32>>());
    meta.insert("tokenizer.ggml.add_space_prefix", adds_space(json));
    Ok(())
}

/// Whether text gets a space before it: by a normalizer that prepends, or a pre-tokenizer that does.
fn adds_space(json: &Config) -> bool {
    let steps = |section: &str, list: &str| -> Vec<Value> {
        match json.get(section) {
            Some(value) => match value.get(list).and_then(Value::as_array) {
                Some(steps) => steps.clone(),
                None => vec![value.clone()],
            },
            None => Vec::new(),
        }
    };
    let kind = |step: &Value| step.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let prepends = steps("normalizer", "normalizers").iter().any(|step| kind(step) == "Prepend");
    let metaspace = steps("pre_tokenizer", "pretokenizers").iter().any(|step| {
        let scheme = step.get("prepend_scheme").and_then(Value::as_str);
        let flag = step.get("add_prefix_space").and_then(Value::as_bool);
        kind(step) == "Metaspace" && scheme.map_or(flag.unwrap_or(true), |scheme| scheme != "never")
    });
    prepends || metaspace
}

/// The expressions that split words, one after another.
fn expressions(json: &Config) -> Result<Vec<String>, ConvertError> {
    let unsupported = |what: &Value| ConvertError::UnsupportedTokenizer {
        what: format!("words are split by {}", what.to_string().chars().take(200).collect::<String>()),
    };
    let Some(pre_tokenizer) = json.get("pre_tokenizer") else { return Ok(Vec::new()) };
    let single = [pre_tokenizer.clone()];
    let steps = match pre_tokenizer.get("pretokenizers").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None => &single,
    };
    let mut expressions = Vec::new();
    for step in steps {
        match step.get("type").and_then(Value::as_str) {
            Some("Split") => {
                let regex = step.get("pattern").and_then(|pattern| pattern.get("Regex")?.as_str());
                expressions.push(regex.ok_or_else(|| unsupported(step))?.to_owned());
            }
            Some("Digits") => {
                let single = step.get("individual_digits").and_then(Value::as_bool).unwrap_or(false);
                expressions.push(if single { r"\p{N}" } else { r"\p{N}+" }.to_owned());
            }
            Some("ByteLevel") => {
                if step.get("use_regex").and_then(Value::as_bool).unwrap_or(true) {
                    expressions.push(GPT_2.to_owned());
                }
            }
            _ => return Err(unsupported(step)),
        }
    }
    Ok(expressions)
}
