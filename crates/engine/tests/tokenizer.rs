//! Token ids and text against other implementations: llama.cpp, SentencePiece and Hugging Face's tokenizers.

use std::env;
use std::path::{Path, PathBuf};

use firecrest::gguf::{Array, Gguf, Metadata, StringArray, Value};
use firecrest::tokenizer::{EncodeOptions, Tokenizer};
use serde_json::Value as Json;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

fn json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Json) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Metadata from a JSON object.
fn metadata(object: &Json) -> Metadata {
    let value = |value: &Json| -> Value {
        match value {
            Json::Bool(flag) => (*flag).into(),
            Json::String(text) => text.as_str().into(),
            Json::Number(number) => (number.as_u64().unwrap() as u32).into(),
            Json::Array(items) if items[0].is_string() => {
                let texts: StringArray = items.iter().map(|item| item.as_str().unwrap()).collect();
                Value::Array(Array::String(texts))
            }
            Json::Array(items) if items.iter().all(|item| item.is_u64()) => {
                Value::Array(Array::U8(items.iter().map(|item| item.as_u64().unwrap() as u8).collect()))
            }
            Json::Array(items) => {
                Value::Array(Array::F32(items.iter().map(|item| item.as_f64().unwrap() as f32).collect()))
            }
            Json::Null | Json::Object(_) => panic!("{value}"),
        }
    };
    let mut meta = Metadata::new();
    for (key, json) in object.as_object().unwrap() {
        meta.insert(key, value(json));
    }
    meta
}

/// What `case` says about its text and `tokenizer` doesn't do.
fn failures(tokenizer: &Tokenizer, case: &Json) -> Vec<String> {
    let text = case["text"].as_str().unwrap();
    let mut failures = Vec::new();
    let mut check = |what: &str, got: &dyn std::fmt::Debug, want: &dyn std::fmt::Debug| {
        let (got, want) = (format!("{got:?}"), format!("{want:?}"));
        if got != want {
            failures.push(format!("{what} of {text:?}\n  got  {got}\n  want {want}"));
        }
    };
    for (what, options) in [("plain", PLAIN), ("special", SPECIAL)] {
        let Some(want) = case.get(what) else { continue };
        let ids = ids(want);
        check(what, &tokenizer.encode(text, options), &ids);
        if let Some(want) = case.get(format!("detok_{what}")) {
            check(
                "decoding",
                &String::from_utf8_lossy(&tokenizer.decode_cleaned(&ids)),
                want.as_str().as_ref().unwrap(),
            );
        }
        let mut decoder = tokenizer.decoder();
        let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
        streamed += &decoder.finish();
        check("decoding one by one", &streamed, &tokenizer.decode_lossy(&ids));
    }
    failures
}

#[test]
fn cut_vocabularies_equal_the_reference() {
    for (name, data) in [
        ("bert-bge", include_str!("data/tokenizer/bert-bge.json")),
        ("falcon", include_str!("data/tokenizer/falcon.json")),
        ("phi-3", include_str!("data/tokenizer/phi-3.json")),
        ("smollm2", include_str!("data/tokenizer/smollm2.json")),
        ("unigram", include_str!("data/tokenizer/unigram.json")),
    ] {
        let data: Json = serde_json::from_str(data).unwrap();
        let tokenizer = Tokenizer::from_metadata(&metadata(&data["meta"])).unwrap();
        let cases = data["cases"].as_array().unwrap();
        let failures: Vec<_> = cases.iter().flat_map(|case| failures(&tokenizer, case)).collect();
        assert!(failures.is_empty(), "{name}: {} failures\n{}", failures.len(), failures.join("\n"));
        assert!(cases.len() > 200);
    }
}

/// The same with the vocabularies as they are, which are too large to come with the tests. `FIRECREST_REF` names the
/// folder of reference data, `FIRECREST_TEST_MODEL` SmolLM2's GGUF file.
#[test]
fn whole_vocabularies_equal_the_reference() {
    let Some(folder) = env::var_os("FIRECREST_REF").map(|folder| Path::new(&folder).join("tokenizer")) else {
        return eprintln!("skipped: FIRECREST_REF names no folder of reference data");
    };
    for name in ["llama-spm", "llama-bpe", "phi-3", "gpt-2", "falcon", "bert-bge", "smollm2"] {
        let path = match name {
            "smollm2" => match env::var_os("FIRECREST_TEST_MODEL") {
                Some(path) => PathBuf::from(path),
                None => {
                    eprintln!("skipped: FIRECREST_TEST_MODEL names no file");
                    continue;
                }
            },
            _ => folder.join(format!("vocab/ggml-vocab-{name}.gguf")),
        };
        let tokenizer = Tokenizer::from_metadata(Gguf::open(path).unwrap().metadata()).unwrap();
        let mut data = json(&folder.join(format!("{name}.json")));
        let mut cases = data["cases"].take().as_array().unwrap().clone();
        for case in &mut cases {
            // WordPiece follows Hugging Face's tokenizers where the two differ.
            if name == "bert-bge"
                && let Some(second) = case.get("second_plain").cloned()
            {
                *case = serde_json::json!({ "text": case["text"], "plain": second });
            }
            for what in ["detok_plain", "detok_special"] {
                if let Some(text) = case[what].get("text").cloned() {
                    case[what] = text;
                } else {
                    case.as_object_mut().unwrap().remove(what);
                }
            }
        }
        if name == "bert-bge" {
            // The same vocabulary, by Hugging Face's tokenizers, which parse special tokens.
            let minilm = json(&folder.join("minilm.json"));
            for case in minilm["cases"].as_array().unwrap() {
                cases.push(serde_json::json!({ "text": case["text"], "special": case["ids"] }));
            }
        }
        let failures: Vec<_> = cases.iter().flat_map(|case| failures(&tokenizer, case)).collect();
        assert!(failures.is_empty(), "{name}: {} failures\n{}", failures.len(), failures.join("\n"));
        eprintln!("{name}: {} cases agree", cases.len());
    }
}
