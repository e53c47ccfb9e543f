//! The vocabulary screen against the whole output matrix, on a tiny model with many tokens.

use std::sync::Arc;

use firecrest_testkit::{Random, gguf::Builder};

use super::screen::{Stream, fit};
use crate::backend::CpuOptions;
use crate::generate::LanguageModel;
use crate::gguf::Gguf;
use crate::models::decoder_spec;
use crate::nn::{ContextOptions, Decoder, DecoderWeights, SharedSparsity};
use crate::sparse::profile::{LevelProfile, SparsityProfile};
use crate::sparse::{SparsityLevel, Thresholds};

const DIM: usize = 64;
const VOCAB: usize = 9000;
const CANDIDATES: usize = 600;

fn model() -> Gguf {
    let mut random = Random::new(7);
    let mut file = Builder::new().key("general.architecture", "llama");
    for (key, value) in [
        ("context_length", 128u32),
        ("embedding_length", DIM as u32),
        ("block_count", 1),
        ("feed_forward_length", 96),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 2),
    ] {
        file = file.key(&format!("llama.{key}"), value);
    }
    file = file.key("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    for (name, columns, rows) in [
        ("token_embd", DIM, VOCAB),
        ("blk.0.attn_q", DIM, DIM),
        ("blk.0.attn_k", DIM, DIM),
        ("blk.0.attn_v", DIM, DIM),
        ("blk.0.attn_output", DIM, DIM),
        ("blk.0.ffn_gate", DIM, 96),
        ("blk.0.ffn_up", DIM, 96),
        ("blk.0.ffn_down", 96, DIM),
    ] {
        let values = random.floats(columns * rows);
        file = file.f32_tensor(&format!("{name}.weight"), &[columns as u64, rows as u64], &values);
    }
    for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        file = file.f32_tensor(&format!("{name}.weight"), &[DIM as u64], &[1.0; DIM]);
    }
    Gguf::from_bytes(file.bytes()).unwrap()
}

/// Decoders of the model, whole and with a level.
fn decoders(level: SparsityLevel) -> [Decoder; 2] {
    let gguf = model();
    let spec = Arc::new(decoder_spec(&gguf).unwrap());
    let weights = Arc::new(DecoderWeights::load(&gguf, &spec).unwrap());
    let options = ContextOptions { sparsity: SparsityLevel::Off, ..ContextOptions::default() };
    let decoder = |shared: SharedSparsity, options: &ContextOptions| {
        Decoder::new(Arc::clone(&spec), Arc::clone(&weights), shared, options).unwrap()
    };
    let mut dense = decoder(SharedSparsity::default(), &options);
    let mut stream = Stream::new(DIM);
    let tokens: Vec<u32> = (0..100).map(|i| i * 83 % VOCAB as u32).collect();
    dense.observe(&tokens, &mut |_, _, _, _| {}, |x| stream.add(x)).unwrap();
    dense.truncate(0);
    let screen = fit(&spec, &weights, &stream, &CpuOptions::default()).unwrap();
    assert!(screen.proof.is_some());
    let balanced = LevelProfile {
        name: "balanced".into(),
        perplexity: 1.0,
        divergence: 0.0,
        neurons_skipped: 0.0,
        recall: 1.0,
        largest_recall: 1.0,
        top_40_recall: 1.0,
        candidates: CANDIDATES as u32,
        layers: vec![Thresholds::default()],
    };
    let profile = SparsityProfile {
        model: 0,
        text: 0,
        tokens: 0,
        dense_perplexity: 1.0,
        levels: vec![balanced],
        importance: Vec::new(),
        screen: Some(screen),
    };
    let shared = SharedSparsity { profile: Some(Arc::new(profile)), ..SharedSparsity::default() };
    [dense, decoder(shared, &ContextOptions { sparsity: level, ..options.clone() })]
}

fn largest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap()
}

#[test]
fn the_largest_logit_is_proven() {
    let [mut dense, mut exact] = decoders(SparsityLevel::Exact);
    exact.set_greedy(true);
    let mut token = 5;
    for i in 0..60 {
        dense.submit(&[token]).unwrap();
        exact.submit(&[token]).unwrap();
        let (want, got) = (dense.logits().unwrap(), exact.logits().unwrap());
        assert_eq!(largest(got), largest(want), "{i}");
        assert_eq!(got[largest(want)], want[largest(want)], "{i}");
        // Not the greedy token, which soon comes again and again.
        token = (largest(want) as u32 + i * 31) % VOCAB as u32;
    }
    let report = exact.sparsity().unwrap();
    assert!(report.screened_tokens >= 5, "{report:?}");
    assert!(report.candidates < VOCAB as f64 / 8.0);
    // Who looks at all logits gets all.
    exact.set_greedy(false);
    dense.submit(&[3]).unwrap();
    exact.submit(&[3]).unwrap();
    assert_eq!(dense.logits().unwrap(), exact.logits().unwrap());
}

#[test]
fn candidates_are_computed_and_the_rest_is_below() {
    let [mut dense, mut balanced] = decoders(SparsityLevel::Balanced);
    for token in [9, 800, 77, 4] {
        dense.submit(&[token]).unwrap();
        balanced.submit(&[token]).unwrap();
        let (want, got) = (dense.logits().unwrap(), balanced.logits().unwrap());
        let same = got.iter().zip(want).filter(|(a, b)| a == b).count();
        // The first token and every other are sparse, in turns with dense ones.
        assert!(same >= VOCAB || (CANDIDATES * 2 / 3..CANDIDATES * 3 / 2).contains(&same), "{same}");
        assert_eq!(largest(got), largest(want));
    }
    assert_eq!(balanced.sparsity().unwrap().screened_tokens, 2);
    // Blocks of tokens leave out the same.
    let tokens = [11, 22, 33];
    let mut blocks = Vec::new();
    balanced.truncate(0);
    balanced.submit_all(&tokens, |_, logits| blocks.push(logits.to_vec())).unwrap();
    balanced.truncate(0);
    for (token, block) in tokens.iter().zip(&blocks) {
        balanced.submit(&[*token]).unwrap();
        let single = balanced.logits().unwrap();
        let size = single.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        assert!(single.iter().zip(block).filter(|(a, b)| (*a - *b).abs() > 1e-3 * size).count() < 20);
    }
}
