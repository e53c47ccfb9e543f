//! Sparse passes against dense ones, on tiny models.

use std::sync::Arc;

use firecrest_testkit::{Random, gguf::Builder};

use super::decoder::SharedSparsity;
use super::{ContextOptions, Decoder, DecoderWeights, SparseWeights};
use crate::backend::Activation;
use crate::generate::LanguageModel;
use crate::gguf::{Format, Gguf};
use crate::models::decoder_spec;
use crate::sparse::{SparsityLevel, Thresholds};

const TOKENS: [u32; 40] = {
    let mut tokens = [0; 40];
    let mut i = 0;
    while i < 40 {
        tokens[i] = (i as u32 * 37 + 11) % 60;
        i += 1;
    }
    tokens
};

fn tiny(name: &str) -> Gguf {
    Gguf::open(format!("{}/tests/data/archs/{name}.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A decoder of the file, with ReLU in the place of its activation where it has a gate.
fn decoder(gguf: &Gguf, level: SparsityLevel) -> Decoder {
    let mut spec = decoder_spec(gguf).unwrap();
    spec.gate(Activation::Relu);
    let weights = DecoderWeights::load(gguf, &spec).unwrap();
    let options = ContextOptions { capacity: Some(64), sparsity: level, ..ContextOptions::default() };
    Decoder::new(Arc::new(spec), Arc::new(weights), SharedSparsity::default(), &options).unwrap()
}

fn logits(decoder: &mut Decoder, block: usize) -> Vec<f32> {
    let mut all = Vec::new();
    decoder.truncate(0);
    for tokens in TOKENS.chunks(block) {
        decoder.submit(tokens).unwrap();
        all.extend_from_slice(decoder.logits().unwrap());
    }
    all
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * size, "{i}: {a} not {b} of {size}");
    }
}

#[test]
fn exact_loses_nothing() {
    for name in ["llama-mha", "llama-256-Q4_K_M", "arcee", "nemotron"] {
        let path = format!("{}/tests/data/archs/{name}.gguf", env!("CARGO_MANIFEST_DIR"));
        if !std::path::Path::new(&path).exists() {
            continue;
        }
        let gguf = tiny(name);
        let dense = logits(&mut decoder(&gguf, SparsityLevel::Off), 1);
        let mut exact = decoder(&gguf, SparsityLevel::Auto);
        let sparse = logits(&mut exact, 1);
        // The same numbers, added in another order; keys and values are then rounded to half precision.
        assert_close(&sparse, &dense, 1e-4);
        let report = exact.sparsity().unwrap();
        assert!(report.layers.iter().all(|layer| layer.down_skipped * 4 > layer.neurons), "{report:?}");
    }
}

#[test]
fn thresholds_of_nothing_are_dense_and_of_everything_leave_no_layer() {
    let gguf = tiny("llama-mha");
    let spec = decoder_spec(&gguf).unwrap();
    let weights = DecoderWeights::load(&gguf, &spec).unwrap();
    let sparse = Arc::new(SparseWeights::new(&spec, &weights, None, true).unwrap());
    let layers = spec.layers.len();
    let shared = SharedSparsity::default();
    let mut decoder =
        Decoder::new(Arc::new(spec), Arc::new(weights), shared, &ContextOptions::default()).unwrap();
    let dense = logits(&mut decoder, 1);
    for (gate, down) in [(0.0, 1e-30), (1e-30, 1e-30)] {
        decoder.try_thresholds(&sparse, &vec![Thresholds { gate, down }; layers], 0);
        assert_close(&logits(&mut decoder, 1), &dense, 1e-4);
    }
    decoder.try_thresholds(&sparse, &vec![Thresholds { gate: 0.0, down: 1e30 }; layers], 0);
    let nothing = logits(&mut decoder, 1);
    assert_ne!(nothing, dense);
    let report = decoder.sparsity().unwrap();
    assert!(report.layers.iter().all(|layer| layer.down_skipped == layer.neurons && layer.bytes_skipped > 0));
    // In calibration, blocks of tokens leave out the same.
    decoder.truncate(0);
    decoder.submit(&TOKENS).unwrap();
    let last = &nothing[nothing.len() - decoder.vocab_size()..];
    assert_close(decoder.logits().unwrap(), last, 1e-4);
}

/// The file as PowerInfer writes it: down projections by neuron, and predictors whose score is `score` wherever the stream
/// is not zero.
fn powerinfer(gguf: &Gguf, score: Option<f32>, threshold: f32) -> Gguf {
    let mut file = Builder::new().magic(*b"PWRI").key("powerinfer.sparse_threshold", threshold);
    for (key, value) in gguf.metadata().iter() {
        file = copy(file, key, value);
    }
    for info in gguf.tensors() {
        let mut values = vec![0.0; info.elements() as usize];
        info.format.dequantize(&gguf.tensor_bytes(info), &mut values);
        let shape: Vec<u64> = info.shape.iter().map(|&size| size as u64).collect();
        if let Some(layer) = info.name.strip_suffix(".ffn_down.weight") {
            let (hidden, dim) = (info.shape[0], info.shape[1]);
            let by_neuron: Vec<f32> = (0..hidden * dim).map(|i| values[i % dim * hidden + i / dim]).collect();
            file = file.f32_tensor(
                &format!("{layer}.ffn_down_t.weight"),
                &[dim as u64, hidden as u64],
                &by_neuron,
            );
            if let Some(score) = score {
                // Two directions that are opposite, so that one of them is positive.
                let mut random = Random::new(1);
                let row = random.floats(dim);
                let first: Vec<f32> = row.iter().copied().chain(row.iter().map(|x| -x)).collect();
                file = file.f32_tensor(&format!("{layer}.fc1.weight"), &[dim as u64, 2], &first).f32_tensor(
                    &format!("{layer}.fc2.weight"),
                    &[2, hidden as u64],
                    &vec![score; 2 * hidden],
                );
            }
        } else {
            file = file.f32_tensor(&info.name, &shape, &values);
        }
    }
    Gguf::from_bytes(file.bytes()).unwrap()
}

/// The keys that a decoder needs.
fn copy(file: Builder, key: &str, value: &crate::gguf::Value) -> Builder {
    use crate::gguf::Value;
    match value {
        Value::String(text) => file.key(key, text.as_str()),
        Value::U32(n) => file.key(key, *n),
        Value::F32(x) => file.key(key, *x),
        _ => file,
    }
}

#[test]
fn powerinfer_files_run_as_they_are() {
    let gguf = tiny("llama-mha");
    assert_eq!(gguf.tensors().iter().filter(|info| info.format == Format::F32).count(), gguf.tensors().len());
    let dense = logits(&mut decoder(&gguf, SparsityLevel::Off), 1);
    for score in [None, Some(1.0)] {
        let file = powerinfer(&gguf, score, 0.0);
        assert!(file.is_powerinfer() && !gguf.is_powerinfer());
        let mut decoder = decoder(&file, SparsityLevel::Auto);
        assert_close(&logits(&mut decoder, 1), &dense, 1e-4);
        let blocks = logits(&mut decoder, 8);
        let vocab = decoder.vocab_size();
        assert_close(&blocks[blocks.len() - vocab..], &dense[dense.len() - vocab..], 1e-4);
    }
    // A predictor that sees nothing fire, in single tokens and in blocks alike.
    let file = powerinfer(&gguf, Some(-1.0), 0.0);
    let mut decoder = decoder(&file, SparsityLevel::Auto);
    let (single, blocks) = (logits(&mut decoder, 1), logits(&mut decoder, 8));
    assert_ne!(single, dense);
    let vocab = decoder.vocab_size();
    assert_close(&blocks[blocks.len() - vocab..], &single[single.len() - vocab..], 1e-4);
}
