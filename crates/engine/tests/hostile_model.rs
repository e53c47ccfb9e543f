//! Models whose metadata or tensors cannot be: each is a typed error that names what is wrong.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::time::{Duration, Instant};

use firecrest::backend::KvFormat;
use firecrest::generate::LanguageModel;
use firecrest::gguf::{Array, Gguf, Metadata, Value, Writer};
use firecrest::{ContextOptions, Model};

fn sound() -> Gguf {
    Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs/llama-gqa-tied.gguf")).unwrap()
}

/// The sound model with other metadata, and without the tensors that `keep` refuses.
fn load_changed(change: impl FnOnce(&mut Metadata), keep: impl Fn(&str) -> bool) -> Result<Model, String> {
    changed(&sound(), change, keep)
}

fn changed(
    gguf: &Gguf,
    change: impl FnOnce(&mut Metadata),
    keep: impl Fn(&str) -> bool,
) -> Result<Model, String> {
    let mut metadata = gguf.metadata().clone();
    change(&mut metadata);
    let mut writer = Writer::with_metadata(metadata);
    for info in gguf.tensors().iter().filter(|info| keep(&info.name)) {
        writer.tensor(&info.name, info.format, &info.shape, gguf.tensor_bytes(info)).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let start = Instant::now();
    let result = Model::from_gguf_bytes(bytes).map_err(|e| e.to_string());
    assert!(start.elapsed() < Duration::from_secs(1));
    result
}

#[track_caller]
fn refused(key: &str, value: impl Into<Value>, needle: &str) {
    let value = value.into();
    match load_changed(|m| m.insert(key, value.clone()), |_| true) {
        Ok(_) => panic!("{key} = {value:?} was accepted"),
        Err(e) => assert!(e.contains(needle), "{key} = {value:?}: {e}"),
    }
}

#[test]
fn the_unchanged_model_loads() {
    load_changed(|_| {}, |_| true).unwrap();
}

#[test]
fn absurd_hyperparameters() {
    for (key, needle) in [
        ("llama.embedding_length", "llama.embedding_length"),
        ("llama.attention.head_count", "llama.attention.head_count"),
        ("llama.attention.head_count_kv", "llama.attention.head_count_kv"),
        ("llama.block_count", "llama.block_count"),
        ("llama.feed_forward_length", "llama.feed_forward_length"),
        ("llama.context_length", "llama.context_length"),
    ] {
        refused(key, 0u32, needle);
        refused(key, -1i32, needle);
        refused(key, u64::MAX, needle);
        refused(key, "four", needle);
        refused(key, f32::NAN, needle);
    }
    refused("llama.embedding_length", 65u32, "shape");
    refused("llama.feed_forward_length", 1u32, "shape");
    refused("llama.attention.head_count_kv", 3u32, "divisor");
    refused("llama.block_count", 3u32, "blk.2");
    refused("llama.attention.layer_norm_rms_epsilon", f32::NAN, "epsilon");
    refused("llama.attention.layer_norm_rms_epsilon", -1.0f32, "epsilon");
    refused("llama.attention.layer_norm_rms_epsilon", 0.0f32, "epsilon");
    refused("llama.rope.freq_base", f32::INFINITY, "llama.rope.freq_base");
    refused("llama.rope.freq_base", 0.0f32, "llama.rope.freq_base");
    refused("llama.rope.dimension_count", 1u32 << 20, "llama.rope.dimension_count");
    refused("llama.rope.scaling.type", "spiral", "spiral");
    refused("llama.attention.sliding_window", -1i32, "sliding_window");
    refused("llama.attention.head_count", vec![4u32], "llama.attention.head_count");
    refused("llama.attention.head_count_kv", vec![2u32, 3u32], "divisor of 4 in layer 1");
    refused("llama.attention.head_count_kv", vec![2u32, 0u32], "divisor of 4 in layer 1");
    refused("llama.feed_forward_length", vec![128u32, 0u32], "shape");
    refused("llama.attention.value_length", 8u32, "llama.attention.value_length");
    refused("llama.expert_count", 4u32, "llama.expert_used_count");
    refused("general.architecture", "no-such-thing", "no-such-thing");
}

#[test]
fn a_missing_key_is_named() {
    for key in ["general.architecture", "llama.block_count", "llama.attention.layer_norm_rms_epsilon"] {
        let error = load_changed(|m| drop(m.remove(key)), |_| true).unwrap_err();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn a_missing_tensor_is_named() {
    for name in ["token_embd.weight", "blk.1.attn_k.weight", "blk.0.ffn_norm.weight", "output_norm.weight"] {
        let error = load_changed(|_| {}, |tensor| tensor != name).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_vocabulary_larger_than_the_embedding() {
    let error = load_changed(
        |m| {
            let mut tokens: Vec<String> =
                m.strings("tokenizer.ggml.tokens").unwrap().iter().map(String::from).collect();
            tokens.extend((0..1000).map(|i| format!("<more {i}>")));
            let count = tokens.len();
            m.insert("tokenizer.ggml.tokens", Value::Array(Array::String(tokens.iter().collect())));
            for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
                m.remove(key);
            }
            m.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1; count])));
            m.insert("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; count])));
        },
        |_| true,
    )
    .unwrap_err();
    assert!(error.contains("vocabulary") || error.contains("merge"), "{error}");
}

#[test]
fn a_context_that_no_memory_holds() {
    let model = Model::from_gguf(sound()).unwrap();
    for capacity in [usize::MAX, usize::MAX / 2, 1 << 50, 1 << 40] {
        let mut options = ContextOptions::default();
        options.capacity = Some(capacity);
        options.kv_format = KvFormat::F32;
        let error = model.decoder(&options).unwrap_err();
        assert!(error.to_string().contains("context"), "{error}");
    }
}

/// A model that loads in spite of a change has to run: to whatever logits.
fn run(model: Result<Model, String>) -> bool {
    let Ok(model) = model else { return false };
    let mut options = ContextOptions::default();
    options.capacity = Some(8);
    options.cpu.threads = NonZero::new(1);
    let mut decoder = model.decoder(&options).unwrap();
    let tokens = [1, 2, 3, 4].map(|id| id % decoder.vocab_size() as u32);
    let tokens = &tokens[..tokens.len().min(decoder.capacity())];
    decoder.submit(tokens).unwrap();
    assert_eq!(decoder.logits().unwrap().len(), decoder.vocab_size());
    decoder.truncate(1);
    decoder.shift(0, 1).unwrap();
    true
}

#[test]
fn every_architecture_bears_lost_tensors_and_odd_numbers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/archs");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|e| e == "gguf")) {
        if fs::metadata(&path).unwrap().len() > 100_000 {
            continue;
        }
        let gguf = Gguf::open(&path).unwrap();
        let mut lost = 0;
        for info in gguf.tensors() {
            lost += usize::from(!run(changed(&gguf, |_| {}, |name| name != info.name)));
        }
        // Biases may be absent, and so may some weights: the output's, where it is the embedding.
        let weights = gguf.tensors().iter().filter(|info| info.name.ends_with(".weight")).count();
        assert!(4 * lost > 3 * weights, "{}", path.display());
        let architecture = gguf.metadata().architecture().unwrap().to_string();
        for (key, _) in gguf.metadata().iter().filter(|(key, _)| key.starts_with(&architecture)) {
            run(changed(&gguf, |m| drop(m.remove(key)), |_| true));
            let values: [Value; 8] = [
                0u32.into(),
                1u32.into(),
                3u32.into(),
                u32::MAX.into(),
                (-1i32).into(),
                1e30f32.into(),
                true.into(),
                vec![1u32, 0].into(),
            ];
            for value in values {
                run(changed(&gguf, |m| m.insert(key, value), |_| true));
            }
        }
    }
}
