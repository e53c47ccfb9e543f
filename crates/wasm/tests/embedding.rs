//! Embeddings and sparse layers, in Node and in browsers as the classes beside.
#![cfg(target_family = "wasm")]

use firecrest_wasm::{EmbeddingModel, SparseInferenceEngine, measure_inference_time};
use js_sys::{Error, Float32Array, Reflect, Uint8Array, Uint32Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_test::wasm_bindgen_test;

/// The tiny model of the converter's tests, as Q8_0: `firecrest convert crates/engine/tests/data/convert/bert`.
const BERT: &[u8] = include_bytes!("data/bert.gguf");
const LLAMA: &[u8] = include_bytes!("../../engine/tests/data/archs/llama-gqa-tied.gguf");

/// The first values that `firecrest embed "hello world"` gives.
const HELLO: [f32; 6] = [0.02958426, 0.09655171, -0.03132011, 0.016569052, 0.3300039, -0.1506082];

fn code(error: JsValue) -> String {
    Reflect::get(&error, &"code".into()).unwrap().as_string().unwrap()
}

fn figure(of: &JsValue, name: &str) -> f64 {
    Reflect::get(of, &name.into()).unwrap().as_f64().unwrap()
}

fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
}

#[wasm_bindgen_test]
fn embeddings_are_those_of_the_program() {
    let model = EmbeddingModel::new(&Uint8Array::from(BERT)).unwrap();
    let vector = model.encode_text("hello world").unwrap().to_vec();
    assert_eq!(vector.len(), model.dimension());
    for (got, want) in vector.iter().zip(HELLO) {
        assert!((got - want).abs() < 2e-3, "{vector:?}");
    }
    let length: f32 = vector.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-4);

    let ids = model.tokenize("hello world");
    assert_eq!(model.encode(&Uint32Array::from(ids.as_slice())).unwrap().to_vec(), vector);

    let texts = model.encode_texts(vec!["hello world".into(), "a".into()]).unwrap().to_vec();
    let other = model.tokenize("a");
    let lengths = [ids.len() as u32, other.len() as u32];
    let all = [ids, other].concat();
    let batch = model.encode_batch(&Uint32Array::from(all.as_slice()), &Uint32Array::from(&lengths[..]));
    assert_eq!(batch.unwrap().to_vec(), texts);
    assert_eq!(texts.len(), 2 * model.dimension());
}

#[wasm_bindgen_test]
fn what_no_embedding_can_be_made_of_is_refused() {
    assert_eq!(code(EmbeddingModel::new(&Uint8Array::from(&BERT[..3000])).unwrap_err()), "parse");
    let model = EmbeddingModel::new(&Uint8Array::from(BERT)).unwrap();
    let ids = Uint32Array::from(&[2, 3][..]);
    for lengths in [&[3][..], &[1], &[u32::MAX, 3]] {
        let error = model.encode_batch(&ids, &Uint32Array::from(lengths)).unwrap_err();
        assert_eq!(code(error), "input");
    }
    assert_eq!(code(model.encode(&Uint32Array::new_with_length(0)).unwrap_err()), "input");
    assert_eq!(code(model.encode(&Uint32Array::from(&[1_000_000][..])).unwrap_err()), "input");
}

fn engine(config: &str) -> Result<SparseInferenceEngine, JsValue> {
    SparseInferenceEngine::new(&Uint8Array::from(LLAMA), &config.into())
}

#[wasm_bindgen_test]
fn a_share_of_the_neurons_is_left_out() {
    let mut engine =
        engine(r#"{ "sparsity": { "enabled": true, "threshold": 0.5 }, "temperature": 0.7 }"#).unwrap();
    let dim = figure(&engine.metadata().unwrap(), "dimension") as usize;
    let input = Float32Array::from(floats(dim).as_slice());
    let output = engine.infer(&input).unwrap().to_vec();
    assert_eq!(output.len(), dim);
    assert!(output.iter().all(|x| x.is_finite()));
    let stats = engine.sparsity_stats().unwrap();
    assert_eq!(figure(&stats, "inferences"), 1.0);
    assert!((figure(&stats, "average_active_ratio") - 0.5).abs() < 0.05);

    let samples = Float32Array::from(floats(40 * dim).as_slice());
    engine.calibrate(&samples, dim).unwrap();
    engine.infer(&input).unwrap();
    assert!(figure(&engine.sparsity_stats().unwrap(), "predictor_recall") > 0.3);

    engine.set_sparsity(0.0).unwrap();
    let all = engine.infer(&input).unwrap().to_vec();
    assert_eq!(all, dense(&input));
    assert_ne!(all, output);
    assert!(measure_inference_time(&engine, &input, 3).unwrap() > 0.0);
}

/// What an engine gives that leaves out nothing.
fn dense(input: &Float32Array) -> Vec<f32> {
    let engine = engine(r#"{ "sparsity": { "enabled": false, "threshold": 0.9 } }"#).unwrap();
    engine.infer(input).unwrap().to_vec()
}

#[wasm_bindgen_test]
fn what_does_not_fit_sparse_layers_is_refused() {
    assert_eq!(
        code(engine(r#"{ "sparsity": { "enabled": true, "threshold": 1.5 } }"#).unwrap_err()),
        "config"
    );
    assert_eq!(code(engine(r#"{ "sparcity": {} }"#).unwrap_err()), "config");
    let mut engine = engine("{}").unwrap();
    assert_eq!(code(engine.infer(&Float32Array::new_with_length(3)).unwrap_err()), "input");
    assert_eq!(code(engine.set_sparsity(2.0).unwrap_err()), "config");
    assert_eq!(code(engine.calibrate(&Float32Array::new_with_length(5), 2).unwrap_err()), "input");
    assert_eq!(code(engine.calibrate(&Float32Array::new_with_length(0), 2).unwrap_err()), "input");
}

#[wasm_bindgen_test]
async fn a_file_is_fetched() {
    let url = |bytes: &[u8]| {
        let binary: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        let btoa: js_sys::Function =
            Reflect::get(&js_sys::global(), &"btoa".into()).unwrap().dyn_into().unwrap();
        let base64 = btoa.call1(&JsValue::UNDEFINED, &binary.into()).unwrap();
        format!("data:application/octet-stream;base64,{}", base64.as_string().unwrap())
    };
    let engine = SparseInferenceEngine::load_streaming(url(LLAMA), "{}".into()).await.unwrap();
    assert!(figure(&engine.metadata().unwrap(), "layers") >= 1.0);
    let broken = SparseInferenceEngine::load_streaming(url(b"no model"), JsValue::UNDEFINED).await;
    assert_eq!(code(broken.unwrap_err()), "parse");
    let nowhere =
        SparseInferenceEngine::load_streaming("http://127.0.0.1:9/x".into(), JsValue::UNDEFINED).await;
    let error: Error = nowhere.unwrap_err().dyn_into().unwrap();
    assert_eq!(error.name(), "NetworkError");
}
