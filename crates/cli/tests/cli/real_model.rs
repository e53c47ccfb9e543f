//! SmolLM2-135M-Instruct, where `FIRECREST_TEST_MODEL` names its file.

use serde_json::{Value, json};

use crate::support::{command, firecrest, with_input};

/// The file, or `None` after saying so.
fn model() -> Option<String> {
    let model = std::env::var("FIRECREST_TEST_MODEL").ok().filter(|path| !path.is_empty());
    if model.is_none() {
        eprintln!("skipped: FIRECREST_TEST_MODEL names no file");
    }
    model
}

#[test]
fn it_answers_by_its_own_chat_template() {
    let Some(model) = model() else { return };
    let question = "Why is the sky blue?";
    let ran = firecrest(["run", "-m", &model, "--temperature", "0", "-n", "32", question]);
    assert!(ran.ok().contains("light"), "{ran:?}");
    assert!(
        ran.stderr.starts_with("prompt: 36 tokens"),
        "the template and its system prompt count: {}",
        ran.stderr
    );
    let args = ["chat", "-m", &model, "--temperature", "0", "-n", "32", "--stats"];
    let chat = with_input(command(args), &format!("{question}\nAnd why is it red in the evening?\n"));
    assert_eq!(chat.ok().lines().next(), ran.stdout.lines().next(), "the same prompt, the same answer");
    let second = chat.stderr.lines().nth(1).unwrap_or_default();
    assert!(second.contains(" reused)"), "the first turn is in the cache: {second}");
}

#[test]
fn it_has_the_tokens_and_kernels_that_it_should() {
    let Some(model) = model() else { return };
    let ran = firecrest(["tokenize", "-m", &model, "--ids", "--parse-special", "<|im_start|>user\nHello"]);
    assert_eq!(ran.ok(), "1,4093,198,19556\n");
    let json = firecrest(["inspect", "-m", &model, "--json"]).json();
    assert_eq!(json["bytes"], 98_362_432);
    assert_eq!(json["parameters"], 134_515_008);
    let formats: Vec<&Value> =
        json["formats"].as_array().unwrap().iter().map(|entry| &entry["format"]).collect();
    assert_eq!(formats, [&json!("Q4_1"), &json!("Q8_0"), &json!("F32")]);
}

#[test]
fn exact_activations_are_near_the_rounded_ones() {
    let Some(model) = model() else { return };
    let logits = |activations: &str| {
        let args =
            ["logits", "-m", &model, "--tokens", "1,4093,198,19556", "--activations", activations, "--json"];
        firecrest(args).json()
    };
    let (exact, rounded) = (logits("f32"), logits("q8"));
    for i in 0..4 {
        let sum = |json: &Value| json["positions"][i]["logsumexp"].as_f64().unwrap();
        assert!((sum(&exact) - sum(&rounded)).abs() < 1.0);
        assert_eq!(exact["positions"][i]["top"].as_array().unwrap().len(), 10);
    }
    assert_ne!(exact, rounded);
}
