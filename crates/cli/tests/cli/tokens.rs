//! `tokenize`, `logits` and `perplexity`: numbers that other programs read.

use std::fs;

use firecrest::gguf::{Gguf, Writer};
use serde_json::{Value, json};

use crate::support::{Folder, assert_fields, command, firecrest, on_tiny, reference, tiny, with_input};

const TEXT: &str = "the cat sat on the red mat!";
const IDS: [u32; 8] = [288, 291, 294, 296, 288, 311, 299, 36];

fn ids(text: &str) -> Vec<u32> {
    text.trim().split(',').map(|id| id.parse().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn lines_of_json_become_tokens_and_text_again() {
    let input = format!("{}\n\n{}\n", json!({"text": TEXT}), json!({"text": "</s>"}));
    let ran = with_input(command(on_tiny(&["tokenize", "--jsonl"])), &input);
    let lines: Vec<Value> = ran.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_fields(&lines[0], &["tokens"]);
    assert_eq!(lines[0]["tokens"], json!(IDS));
    assert!(lines[1]["tokens"].as_array().unwrap().len() > 1, "control tokens are text unless asked for");

    let ran = with_input(command(on_tiny(&["tokenize", "--jsonl", "--parse-special"])), &input);
    assert_eq!(ran.ok().lines().nth(1), Some(r#"{"tokens":[2]}"#));
    let ran = with_input(command(on_tiny(&["tokenize", "--jsonl", "--add-special"])), &input);
    assert!(ran.ok().starts_with(r#"{"tokens":[1,288,"#), "{}", ran.stdout);

    let input = format!("{}\n", json!({"tokens": IDS}));
    let ran = with_input(command(on_tiny(&["tokenize", "--jsonl", "--detokenize"])), &input);
    assert_eq!(ran.ok(), format!("{}\n", json!({"text": TEXT})));
}

#[test]
fn files_with_a_vocabulary_alone_tokenize() {
    let folder = Folder::new();
    let metadata = Gguf::open(tiny()).unwrap().metadata().clone();
    let path = folder.path().join("vocab.gguf");
    Writer::with_metadata(metadata).write_file(&path).unwrap();
    let ran = firecrest(["tokenize", "--ids", "-m", path.to_str().unwrap(), TEXT]);
    assert_eq!(ids(ran.ok()), IDS);
    let ran = firecrest(["run", "-m", path.to_str().unwrap(), TEXT]);
    assert!(ran.failed(1).contains("vocab.gguf: tensor token_embd.weight is missing"), "{}", ran.stderr);
}

#[test]
fn people_get_a_line_for_each_token() {
    let ran = firecrest(on_tiny(&["tokenize", TEXT]));
    assert_eq!(ran.ok().lines().count(), IDS.len());
    assert_eq!(ran.ok().lines().last(), Some(r#" 36  "!""#), "{}", ran.stdout);
    let joined = IDS.map(|id| id.to_string()).join(" ");
    assert_eq!(firecrest(on_tiny(&["tokenize", "--detokenize", &joined])).ok(), TEXT);
}

#[test]
fn lines_that_are_wrong_are_named() {
    let tokenize = |args: &[&str], input: &str| {
        with_input(command(on_tiny(&[&["tokenize", "--jsonl"], args].concat())), input).failed(1).to_owned()
    };
    assert!(tokenize(&[], "\n{\"txt\": 1}\n").contains("line 2 of standard input: missing field `text`"));
    assert!(
        tokenize(&["--detokenize"], "{\"tokens\": [999]}").contains("line 1 of standard input: token 999")
    );
    let ran = firecrest(on_tiny(&["tokenize", "--jsonl", "text"]));
    ran.failed(2);
}

#[test]
fn logits_equal_the_reference() {
    let case: Value = serde_json::from_slice(&fs::read(reference("llama-mha.json")).unwrap()).unwrap();
    let raw = fs::read(reference("llama-mha.logits.f32")).unwrap();
    let rows: Vec<f32> = raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let tokens = case["ids"].as_array().unwrap();
    let list = tokens.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    let vocab = case["n_vocab"].as_u64().unwrap() as usize;
    let args = ["logits", "--tokens", &list, "--top", "9999", "--activations", "f32", "--json"];
    let json = firecrest(on_tiny(&args)).json();
    assert_fields(&json, &["positions"]);
    let positions = json["positions"].as_array().unwrap();
    assert_eq!(positions.len(), tokens.len());
    for (position, row) in positions.iter().zip(rows.chunks_exact(vocab)) {
        assert_fields(position, &["top", "logsumexp"]);
        let top = position["top"].as_array().unwrap();
        assert_eq!(top.len(), vocab);
        assert!(top.windows(2).all(|pair| pair[0][1].as_f64() >= pair[1][1].as_f64()), "largest first");
        for entry in top {
            let (id, logit) = (entry[0].as_u64().unwrap() as usize, entry[1].as_f64().unwrap() as f32);
            assert!((logit - row[id]).abs() < 2e-4, "{id}: {logit} {}", row[id]);
        }
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        assert!((position["logsumexp"].as_f64().unwrap() - sum.ln()).abs() < 2e-4);
    }
    let ran = firecrest(on_tiny(&["logits", "--tokens", "1,2", "--top", "3"]));
    assert_eq!(ran.ok().lines().count(), 2 * (1 + 3), "{}", ran.stdout);
}

#[test]
fn perplexity_scores_the_second_half_of_each_chunk() {
    const CTX: usize = 16;
    let folder = Folder::new();
    let text = "the cat sat on the red mat! ".repeat(6);
    let file = folder.file("text.txt", &text);
    let file = file.to_str().unwrap();
    let exact = ["--ctx", "16", "--kv-format", "f32"];
    let json = firecrest(on_tiny(&[&["perplexity", "--file", file, "--json"], &exact[..]].concat())).json();
    assert_fields(&json, &["perplexity", "tokens", "chunks"]);

    let tokens = ids(firecrest(on_tiny(&["tokenize", "--ids", "--add-special", "-f", file])).ok());
    let mut expected = Vec::new();
    let (mut sum, mut scored) = (0.0, 0);
    for chunk in tokens.chunks_exact(CTX) {
        let mut chunk = chunk.to_vec();
        chunk[0] = tokens[0];
        let list = chunk.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let args = ["logits", "--tokens", &list, "--top", "999", "--kv-format", "f32", "--json"];
        let logits = firecrest(on_tiny(&args)).json();
        for i in CTX / 2 + 1..CTX {
            let position = &logits["positions"][i - 1];
            let top = position["top"].as_array().unwrap();
            let entry = top.iter().find(|entry| entry[0].as_u64() == Some(chunk[i].into())).unwrap();
            sum += position["logsumexp"].as_f64().unwrap() - entry[1].as_f64().unwrap();
            scored += 1;
        }
        expected.push((sum / f64::from(scored)).exp());
    }
    let chunks = floats(&json["chunks"]);
    assert!(expected.len() > 2 && chunks.len() == expected.len());
    assert_eq!(json["tokens"], json!(scored));
    assert_eq!(json["perplexity"].as_f64().unwrap(), *chunks.last().unwrap());
    for (found, expected) in chunks.iter().zip(&expected) {
        assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    }

    let ran = firecrest(on_tiny(&[&["perplexity", "--file", file, "--chunks", "2"], &exact[..]].concat()));
    assert_eq!(ran.ok().lines().count(), 3, "{}", ran.stdout);
    let ran = firecrest(on_tiny(&["perplexity", "--file", file]));
    assert!(ran.failed(1).contains("a chunk takes 512"), "{}", ran.stderr);
    firecrest(on_tiny(&["perplexity", "--file", file, "--ctx", "3"])).failed(2);
}
