//! The exported classes, in Node: `wasm-pack test --node crates/wasm`; in a browser: `wasm-pack test --headless --chrome
//! crates/wasm`; or cargo with wasm-bindgen's test runner.
#![cfg(target_family = "wasm")]

use firecrest::gguf::{Gguf, Writer};
use firecrest_wasm::{LLMModel, ModelBuffer, WasmModel};
use js_sys::{Error, Function, Reflect, Uint8Array, Uint32Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_test::wasm_bindgen_test;

const TINY: &[u8] = include_bytes!("../../engine/tests/data/archs/llama-gqa-tied.gguf");

fn bytes() -> Uint8Array {
    Uint8Array::from(TINY)
}

/// The tiny model with another value for a metadata key.
fn changed(key: &str, value: &str) -> Uint8Array {
    let model = Gguf::from_bytes(TINY.to_vec()).unwrap();
    let mut writer = Writer::with_metadata(model.metadata().clone());
    writer.insert(key, value);
    for tensor in model.tensors() {
        writer.tensor(&*tensor.name, tensor.format, &tensor.shape, model.tensor_bytes(tensor)).unwrap();
    }
    let mut file = Vec::new();
    writer.write(&mut file).unwrap();
    Uint8Array::from(file.as_slice())
}

fn greedy() -> JsValue {
    r#"{ "temperature": 0, "top_k": 40, "max_tokens": 8, "sparsity": { "enabled": false, "threshold": 0.1 } }"#.into()
}

/// Name, code and message of an error.
fn told(error: JsValue) -> (String, String, String) {
    let code = Reflect::get(&error, &"code".into()).unwrap().as_string().unwrap();
    let error: Error = error.dyn_into().unwrap();
    (error.name().into(), code, error.message().into())
}

#[wasm_bindgen_test]
fn a_growing_prompt_costs_one_step() {
    let mut model = LLMModel::new(&bytes(), &greedy()).unwrap();
    let mut tokens = vec![1, 2, 3, 4, 5];
    for step in 0..4 {
        let next = model.next_token(&Uint32Array::from(tokens.as_slice()).into()).unwrap();
        tokens.push(next.as_f64().unwrap() as u32);
        let stats = model.stats().unwrap();
        let figure = |name: &str| Reflect::get(&stats, &name.into()).unwrap().as_f64().unwrap() as usize;
        let computed = figure("prompt_tokens") - figure("reused_tokens");
        assert_eq!(computed, if step == 0 { 5 } else { 1 });
    }
    model.reset_cache().unwrap();
    let all = model.generate(&Uint32Array::from(&tokens[..5]).into(), Some(4.0)).unwrap();
    assert_eq!(all.dyn_into::<Uint32Array>().unwrap().to_vec(), tokens[5..]);
}

#[wasm_bindgen_test]
fn a_prompt_of_text_gives_text() {
    let mut model = LLMModel::new(&bytes(), &greedy()).unwrap();
    assert!(model.next_token(&"ab".into()).unwrap().is_string());
    assert!(model.generate(&"ab".into(), None).unwrap().is_string());
}

#[wasm_bindgen_test]
fn streaming_ends_when_the_callback_says_so_or_throws() {
    let model = WasmModel::new(&bytes(), &greedy()).unwrap();
    let whole = model.generate("ab", &JsValue::UNDEFINED).unwrap();
    let go_on = Function::new_with_args("piece", "globalThis.seen = (globalThis.seen ?? '') + piece");
    assert_eq!(model.generate_stream("ab", &go_on, &JsValue::UNDEFINED).unwrap(), whole);
    let seen = Reflect::get(&js_sys::global(), &"seen".into()).unwrap();
    assert_eq!(seen.as_string().unwrap(), whole);
    let stop = Function::new_with_args("piece", "return false");
    assert!(model.generate_stream("ab", &stop, &JsValue::UNDEFINED).unwrap().len() < whole.len());
    let throw = Function::new_with_args("piece", "throw new TypeError('enough')");
    let thrown: Error =
        model.generate_stream("ab", &throw, &JsValue::UNDEFINED).unwrap_err().dyn_into().unwrap();
    assert_eq!(thrown.message(), "enough");
}

#[wasm_bindgen_test]
fn an_answer_that_was_overtaken_is_refused() {
    let model = WasmModel::new(&bytes(), &greedy()).unwrap();
    let mut first = model.start(&"ab".into(), &JsValue::UNDEFINED).unwrap();
    assert!(first.next_piece().unwrap().is_some());
    let mut second = model.start(&"cd".into(), &JsValue::UNDEFINED).unwrap();
    assert!(second.next_piece().unwrap().is_some());
    assert_eq!(told(first.next_piece().unwrap_err()).1, "inference");
}

#[wasm_bindgen_test]
fn tokens_go_there_and_back() {
    let model = WasmModel::new(&bytes(), &JsValue::UNDEFINED).unwrap();
    let tokens = model.tokenize("ab");
    assert!(!tokens.is_empty());
    let text = model.detokenize(&Uint32Array::from(tokens.as_slice()).into()).unwrap();
    assert!(text.contains("ab"), "{text}");
}

#[wasm_bindgen_test]
fn messages_become_a_prompt() {
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let with_template = changed("tokenizer.chat_template", template);
    let model = WasmModel::new(&with_template, &greedy()).unwrap();
    assert!(model.has_chat_template());
    let messages = r#"[{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]"#;
    for messages in [messages.into(), js_sys::JSON::parse(messages).unwrap()] {
        assert_eq!(model.format_chat(&messages).unwrap(), "<system>a<user>b");
        let mut answer = model
            .start(
                &js_sys::JSON::parse(r#"[{"role": "user", "content": "b"}]"#).unwrap(),
                &JsValue::UNDEFINED,
            )
            .unwrap();
        assert!(answer.next_piece().unwrap().is_some());
    }
    for wrong in ["{}", r#"[{"content": "no role"}]"#, "[1]"] {
        let (name, code, _) = told(model.format_chat(&wrong.into()).unwrap_err());
        assert_eq!((name.as_str(), code.as_str()), ("InputError", "input"), "{wrong}");
    }
    let without = WasmModel::new(&bytes(), &greedy()).unwrap();
    assert!(!without.has_chat_template());
    assert_eq!(told(without.format_chat(&messages.into()).unwrap_err()).1, "input");
}

#[wasm_bindgen_test]
fn a_model_says_what_it_is() {
    let model = WasmModel::new(&bytes(), &JsValue::UNDEFINED).unwrap();
    let about: serde_json::Value = serde_json::from_str(&model.metadata()).unwrap();
    assert_eq!(about["architecture"], "llama");
    assert_eq!(about["instruction_set"], firecrest_wasm::instruction_set());
    assert_eq!(about["file_bytes"], TINY.len());
}

#[wasm_bindgen_test]
fn a_buffer_takes_pieces_in_any_order() {
    let mut buffer = ModelBuffer::new(TINY.len() as f64).unwrap();
    let (first, second) = TINY.split_at(TINY.len() / 2);
    buffer.write(first.len() as f64, &Uint8Array::from(second)).unwrap();
    buffer.write(0.0, &Uint8Array::from(first)).unwrap();
    assert_eq!(told(buffer.write(1.0, &bytes()).unwrap_err()).1, "input");
    assert_eq!(buffer.sha256().len(), 64);
    let model = WasmModel::from_buffers(vec![buffer], &greedy()).unwrap();
    let whole = WasmModel::new(&bytes(), &greedy()).unwrap();
    let answer = |model: &WasmModel| model.generate("ab", &JsValue::UNDEFINED).unwrap();
    assert_eq!(answer(&model), answer(&whole));
}

#[wasm_bindgen_test]
fn what_does_not_fit_is_an_error_with_name_and_code() {
    let refused = |bytes: &[u8], config: &str| {
        told(LLMModel::new(&Uint8Array::from(bytes), &config.into()).expect_err("refused"))
    };
    let (name, code, _) = refused(b"no model", "{}");
    assert_eq!((name.as_str(), code.as_str()), ("ParseError", "parse"));
    assert_eq!(refused(&TINY[..2000], "{}").1, "parse");
    for (config, key) in [
        (r#"{"temprature": 1}"#, "temprature"),
        (r#"{"top_p": 2}"#, "top_p"),
        (r#"{"sparsity": {"threshold": "low"}}"#, "sparsity.threshold"),
        ("{", "JSON"),
    ] {
        let (name, code, message) = refused(TINY, config);
        assert_eq!((name.as_str(), code.as_str()), ("ConfigError", "config"));
        assert!(message.contains(key), "{message}");
    }
    let (name, code, _) = told(ModelBuffer::new(1e12).expect_err("refused"));
    assert_eq!((name.as_str(), code.as_str()), ("MemoryError", "memory"));
    let unknown = changed("general.architecture", "telepathy");
    let (name, code, message) = told(WasmModel::new(&unknown, &JsValue::UNDEFINED).expect_err("refused"));
    assert_eq!((name.as_str(), code.as_str()), ("UnsupportedError", "unsupported"));
    assert!(message.contains("telepathy"), "{message}");

    let mut model = LLMModel::new(&bytes(), &greedy()).unwrap();
    for prompt in
        [JsValue::from(7), Uint32Array::new_with_length(0).into(), Uint32Array::from(&[u32::MAX][..]).into()]
    {
        let (name, code, _) = told(model.next_token(&prompt).unwrap_err());
        assert_eq!((name.as_str(), code.as_str()), ("InputError", "input"), "{prompt:?}");
    }
    assert_eq!(told(model.generate(&"ab".into(), Some(-1.0)).unwrap_err()).1, "input");
}
