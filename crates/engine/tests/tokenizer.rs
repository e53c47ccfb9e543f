//! Token ids and text against other implementations.

use std::path::{Path, PathBuf};

use firecrest::gguf::Gguf;
use firecrest::tokenizer::{EncodeOptions, Tokenizer};
use serde_json::Value;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const SPECIAL: EncodeOptions = EncodeOptions { add_special: true, parse_special: true };

/// The folder of reference data, if the environment names one.
fn reference() -> Option<PathBuf> {
    let folder = std::env::var_os("FIRECREST_REF").map(|folder| Path::new(&folder).join("tokenizer"));
    if folder.is_none() {
        eprintln!("skipped: FIRECREST_REF names no folder of reference data");
    }
    folder
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn open(path: &Path) -> Tokenizer {
    Tokenizer::from_metadata(Gguf::open(path).unwrap().metadata()).unwrap()
}

#[test]
fn whole_vocabularies_equal_the_reference() {
    let Some(folder) = reference() else { return };
    let mut failures = Vec::new();
    for name in ["llama-spm", "llama-bpe", "phi-3", "gpt-2", "falcon", "bert-bge", "smollm2"] {
        let path = match name {
            "smollm2" => match std::env::var_os("FIRECREST_SMOLLM2") {
                Some(path) => path.into(),
                None => {
                    eprintln!("skipped: FIRECREST_SMOLLM2 names no file");
                    continue;
                }
            },
            _ => folder.join(format!("vocab/ggml-vocab-{name}.gguf")),
        };
        let tokenizer = open(&path);
        let data = json(&folder.join(format!("{name}.json")));
        let cases = data["cases"].as_array().unwrap();
        let before = failures.len();
        for (i, case) in cases.iter().enumerate() {
            let text = case["text"].as_str().unwrap();
            let mut check = |what: &str, got: &dyn std::fmt::Debug, want: &dyn std::fmt::Debug| {
                let (got, want) = (format!("{got:?}"), format!("{want:?}"));
                if got != want {
                    failures.push(format!("{name} {i} {what} {text:?}\n  got  {got}\n  want {want}"));
                }
            };
            let second = case.get("second_plain").filter(|_| name == "bert-bge");
            let plain = ids(second.unwrap_or(&case["plain"]));
            check("plain", &tokenizer.encode(text, PLAIN), &plain);
            let special = ids(&case["special"]);
            if second.is_none() {
                check("special", &tokenizer.encode(text, SPECIAL), &special);
            }
            for (what, ids) in [("detok_plain", ids(&case["plain"])), ("detok_special", special)] {
                if let Some(want) = case[what]["text"].as_str() {
                    let cleaned = tokenizer.decode_cleaned(&ids);
                    check(what, &String::from_utf8_lossy(&cleaned), &want);
                }
                let mut decoder = tokenizer.decoder();
                let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
                streamed += &decoder.finish();
                check("stream", &streamed, &tokenizer.decode_lossy(&ids));
            }
        }
        eprintln!("{name}: {} cases, {} failures", cases.len(), failures.len() - before);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
