//! Tiny models, converted, against what transformers computes with them: `data/convert/golden.py` made them.

use std::fs;
use std::path::{Path, PathBuf};

use firecrest::backend::{Activations, KvFormat};
use firecrest::convert::{ConvertError, ConvertOptions, convert};
use firecrest::embed::{EmbedError, EmbedOptions, EmbeddingModel, Pooling};
use firecrest::gguf::{Format, Gguf};
use firecrest::tokenizer::{EncodeOptions, Tokenizer};
use firecrest::{ContextOptions, Model};
use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/convert").join(name)
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder(name).join("golden.json")).unwrap()).unwrap()
}

/// A converted model's file, which is removed in the end.
struct Converted(PathBuf);

impl Converted {
    fn new(name: &str, format: Format) -> Self {
        let path = scratch(&format!("{name}-{format}.gguf"));
        convert(folder(name), &path, &ConvertOptions::default().with_format(format))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self(path)
    }
}

impl Drop for Converted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!(
        "firecrest-convert-{}-{:?}-{name}",
        std::process::id(),
        std::thread::current().id()
    ))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn rows(value: &Value) -> Vec<f32> {
    let rows = value.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    rows.map(|x| x.as_f64().unwrap() as f32).collect()
}

#[track_caller]
fn assert_near(name: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{name}");
    let difference = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < tolerance, "{name}: {difference}");
}

fn assert_tokens(name: &str, tokenizer: &Tokenizer, golden: &Value) {
    for case in golden["texts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let options = EncodeOptions { add_special: true, parse_special: true };
        assert_eq!(tokenizer.encode(text, options), ids(&case["ids"]), "{name}: {text:?}");
    }
}

#[test]
fn encoders_equal_transformers() {
    for (name, pooling) in
        [("bert", Pooling::Mean), ("nomic-bert", Pooling::Mean), ("xlm-roberta", Pooling::Cls)]
    {
        let golden = golden(name);
        let file = Converted::new(name, Format::F32);
        let model = EmbeddingModel::from_gguf_file(&file.0).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_tokens(name, model.tokenizer(), &golden);
        assert_eq!((model.dimension(), model.pooling()), (32, pooling), "{name}");
        let states = rows(&golden["states"]);
        let ids = ids(&golden["ids"]);
        let plain = EmbedOptions::default().with_normalize(false);
        let all = model.clone().with_options(plain.clone().with_pooling(Pooling::None));
        assert_near(name, &all.encode(&ids).unwrap(), &states, 2e-5);

        // A batch is computed as one matrix; sequences must not see each other.
        let batch = all.encode_batch(&[&ids[..3], &ids, &ids[..1], &ids]).unwrap();
        assert_near(name, &batch[1], &states, 2e-5);
        assert_near(name, &batch[3], &states, 2e-5);
        assert_near(name, &batch[0], &all.encode(&ids[..3]).unwrap(), 1e-5);

        let pooled =
            |pooling| model.clone().with_options(plain.clone().with_pooling(pooling)).encode(&ids).unwrap();
        assert_near(name, &pooled(Pooling::Cls), &states[..32], 2e-5);
        assert_near(name, &pooled(Pooling::Last), &states[states.len() - 32..], 2e-5);
        let mean: Vec<f32> =
            (0..32).map(|i| states.iter().skip(i).step_by(32).sum::<f32>() / ids.len() as f32).collect();
        assert_near(name, &pooled(Pooling::Mean), &mean, 2e-5);
        let short =
            model.clone().with_options(EmbedOptions::default().with_dimensions(8)).encode(&ids).unwrap();
        assert_eq!(short.len(), 8);
        assert!((short.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5, "{name}");
    }
}

#[test]
fn long_texts_are_cut_and_say_so() {
    let file = Converted::new("bert", Format::F16);
    let model = EmbeddingModel::from_gguf_file(&file.0).unwrap();
    let text = "the cat sat on the mat ".repeat(40);
    let embedding = model.embed(&[&text], &EmbedOptions::default()).unwrap().remove(0);
    assert_eq!((embedding.tokens, embedding.truncated), (24, true));
    let embedding = model.embed(&[&text], &EmbedOptions::default().with_max_tokens(10)).unwrap().remove(0);
    assert_eq!((embedding.tokens, embedding.truncated), (10, true));
    let error = model.embed(&["the", &text], &EmbedOptions::default().with_truncate(false)).unwrap_err();
    assert!(matches!(error, EmbedError::TooLong { index: 1, limit: 24, .. }), "{error}");
    assert!(matches!(model.encode(&[9999]), Err(EmbedError::TokenOutOfRange { id: 9999, .. })));
    assert!(matches!(model.encode(&[]), Err(EmbedError::EmptyInput { index: 0 })));
    let options = EmbedOptions::default().with_dimensions(33);
    assert!(matches!(
        model.embed(&["the"], &options),
        Err(EmbedError::Dimensions { requested: 33, available: 32 })
    ));
    assert!(matches!(model.rerank("the", &["cat"]), Err(EmbedError::NoClassifier)));
    let none: [Vec<u32>; 0] = [];
    assert!(model.encode_batch(&none).unwrap().is_empty());
}

#[test]
fn cross_encoders_score_pairs() {
    let golden = golden("cross-encoder");
    let file = Converted::new("cross-encoder", Format::F32);
    let model = EmbeddingModel::from_gguf_file(&file.0).unwrap();
    assert!(model.is_reranker());
    let documents: Vec<&str> =
        golden["documents"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let want: Vec<f32> =
        golden["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32).collect();
    let got = model.rerank(golden["query"].as_str().unwrap(), &documents).unwrap();
    assert_near("cross-encoder", &got, &want, 2e-5);
}

#[test]
fn decoders_equal_transformers() {
    let names = [
        "llama-2",
        "llama-3",
        "qwen2",
        "qwen3",
        "phi3",
        "phi2",
        "gemma",
        "gemma2",
        "gemma3",
        "stablelm",
        "starcoder2",
        "olmo2",
        "nemotron",
        "arcee",
        "smollm3",
        "granite",
        "gpt2",
        "gptj",
        "lfm2",
    ];
    for name in names {
        let golden = golden(name);
        let file = Converted::new(name, Format::F32);
        let gguf = Gguf::open(&file.0).unwrap();
        assert_tokens(name, &Tokenizer::from_metadata(gguf.metadata()).unwrap(), &golden);
        let model = Model::from_gguf(gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut options = ContextOptions::default();
        options.kv_format = KvFormat::F32;
        options.cpu.activations = Activations::F32;
        let mut got = Vec::new();
        let mut decoder = model.decoder(&options).unwrap();
        decoder.submit_all(&ids(&golden["ids"]), |_, logits| got.extend_from_slice(logits)).unwrap();
        let want = rows(&golden["logits"]);
        assert_near(name, &got[got.len() - want.len()..], &want, 2e-4);
    }
}

#[test]
fn broken_folders_are_refused_and_leave_nothing() {
    let out = scratch("out.gguf");
    let dir = scratch("broken");
    let write = |file: &str, contents: &[u8]| fs::write(dir.join(file), contents).unwrap();
    let fails = || {
        let error = convert(&dir, &out, &ConvertOptions::default()).unwrap_err();
        assert!(!out.exists(), "{error}");
        error
    };
    assert!(matches!(fails(), ConvertError::Io { .. }));
    fs::create_dir(&dir).unwrap();
    write("config.json", b"{");
    assert!(matches!(fails(), ConvertError::Json { .. }));
    write("config.json", br#"{"architectures": ["Unheard"]}"#);
    assert!(matches!(fails(), ConvertError::UnknownArchitecture { .. }));
    let config = fs::read(folder("bert").join("config.json")).unwrap();
    write("config.json", &config);
    assert!(matches!(fails(), ConvertError::NoWeights { .. }));
    write("model.safetensors", b"nonsense");
    assert!(matches!(fails(), ConvertError::Safetensors { .. }));
    let weights = fs::read(folder("bert").join("model.safetensors")).unwrap();
    write("model.safetensors", &weights[..weights.len() / 2]);
    assert!(matches!(fails(), ConvertError::Safetensors { .. }));
    write("model.safetensors", &weights);
    assert!(matches!(fails(), ConvertError::NoTokenizer { .. }));
    write("tokenizer.json", br#"{"model": {"type": "WordPiece", "vocab": []}}"#);
    assert!(matches!(fails(), ConvertError::Config { .. }));
    write("tokenizer.json", br#"{"model": {"type": "WordPiece", "vocab": {"a": 99999999999}}}"#);
    assert!(matches!(fails(), ConvertError::UnsupportedTokenizer { .. }));
    let error =
        convert(folder("bert"), &out, &ConvertOptions::default().with_format(Format::Q4_K)).unwrap_err();
    assert!(matches!(error, ConvertError::Format(Format::Q4_K)), "{error}");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn decoders_embed_by_the_state_of_their_last_token() {
    // With tied embeddings, the state times the embeddings is the logits.
    let golden = golden("llama-2");
    let file = Converted::new("llama-2", Format::F32);
    let gguf = Gguf::open(&file.0).unwrap();
    let table = gguf.tensor_bytes(gguf.tensor("token_embd.weight").unwrap());
    let table: Vec<f32> = table.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let plain = EmbedOptions::default().with_normalize(false);
    let model = EmbeddingModel::from_gguf_file(&file.0).unwrap().with_options(plain);
    assert_eq!((model.pooling(), model.dimension()), (Pooling::Last, 16));
    let ids = ids(&golden["ids"]);
    // Twice, and after another: nothing of an earlier input stays.
    for state in model.encode_batch(&[ids.as_slice(), &ids[..2], ids.as_slice()]).unwrap().iter().step_by(2) {
        let logits: Vec<f32> =
            table.chunks_exact(16).map(|row| row.iter().zip(state).map(|(a, b)| a * b).sum()).collect();
        let want = rows(&golden["logits"]);
        // Keys and values are cached in F16.
        assert_near("llama-2", &logits, &want[want.len() - logits.len()..], 5e-3);
    }
}
