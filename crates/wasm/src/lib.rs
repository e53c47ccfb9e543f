//! Firecrest for JavaScript: classes that hold what the engine makes, and no logic of their own.
//!
//! `packages/web` builds on these; pages may also use them by themselves. What does not fit is a JavaScript `Error`
//! whose `code` says which kind (`parse`, `unsupported`, `config`, `input`, `inference`, `memory`, `network`) and whose `name` is
//! that kind too (`ParseError`, …).
//!
//! The instruction set is chosen when the module is built: scalar, simd128, or relaxed SIMD. With `atomics` the module
//! runs on a memory that threads share; `run_worker` is what each helper thread calls.

mod buffer;
mod config;
mod convert;
mod embedding;
mod error;
mod generation;
mod llm;
mod model;
mod sparse;

use firecrest::backend::IsaKind;
use wasm_bindgen::prelude::wasm_bindgen;

pub use buffer::ModelBuffer;
pub use embedding::EmbeddingModel;
pub use generation::WasmGeneration;
pub use llm::LLMModel;
pub use model::WasmModel;
pub use sparse::{SparseInferenceEngine, measure_inference_time};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(message: &str);
}

/// Runs once, when the module is instantiated: a bug's message goes to the console before the module traps.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| console_error(&info.to_string())));
}

/// Lends the calling thread to the models of the instance that shares this memory, and does not return. Calls `ready`
/// when models that are loaded from then on can have the thread.
#[cfg(target_feature = "atomics")]
#[wasm_bindgen]
pub fn run_worker(ready: &js_sys::Function) {
    // What a callback throws cannot go anywhere: nothing waits for this thread.
    firecrest::backend::lend_thread(|| drop(ready.call0(&wasm_bindgen::JsValue::UNDEFINED)))
}

/// Version of the engine.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// The instruction set that this module's kernels run on: `relaxed-simd`, `simd128` or `scalar`.
#[wasm_bindgen]
pub fn instruction_set() -> String {
    IsaKind::best().name().to_owned()
}
