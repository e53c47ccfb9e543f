//! The feed-forward layers of a model, computed in part.

use std::time::Duration;

use firecrest::gguf::Gguf;
use firecrest::sparse::{SparseStack, SparsityStats};
use js_sys::{ArrayBuffer, Float32Array, Function, JSON, Object, Promise, Reflect, Uint8Array};
use serde_json::{Value, json};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::buffer::{self, ModelBuffer};
use crate::config::Config;
use crate::convert;
use crate::error::{Failure, Kind, Outcome};

/// The share of neurons that is left out where sparsity is enabled without a threshold.
const DEFAULT_THRESHOLD: f32 = 0.5;

/// The feed-forward layers of a model, one after another, of whose neurons a share is left out.
#[wasm_bindgen]
#[derive(Debug)]
pub struct SparseInferenceEngine {
    stack: SparseStack,
    threshold: f32,
    /// Of each layer's predictor, once they are calibrated.
    recall: Option<f32>,
    about: Value,
}

#[wasm_bindgen]
impl SparseInferenceEngine {
    /// Takes the bytes of a GGUF file, which are copied, and options. `sparsity.threshold` is the share of neurons that is
    /// left out: the smallest, or once the engine is calibrated those that are predicted to be.
    #[wasm_bindgen(constructor)]
    pub fn new(
        bytes: &Uint8Array,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<SparseInferenceEngine, JsValue> {
        Ok(Self::load(ModelBuffer::copy_of(bytes)?, config)?)
    }

    /// Fetches a GGUF file and takes it, without a second copy of it in memory.
    pub async fn load_streaming(
        url: String,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: JsValue,
    ) -> Result<SparseInferenceEngine, JsValue> {
        // Options that do not fit are refused before anything is fetched.
        threshold(&config)?;
        Ok(Self::load(fetch(&url).await?, &config)?)
    }

    /// What the layers make of an input.
    pub fn infer(&self, input: &Float32Array) -> Result<Float32Array, JsValue> {
        Ok(Float32Array::from(self.run(&input.to_vec())?.as_slice()))
    }

    /// Learns from samples, `dim` values each and one after another, which neurons matter to inputs like them. It takes
    /// some hundreds of them.
    pub fn calibrate(&mut self, samples: &Float32Array, dim: usize) -> Result<(), JsValue> {
        Ok(self.learn(&samples.to_vec(), dim)?)
    }

    /// Leaves out another share of the neurons from now on: from 0, for none, to below 1.
    pub fn set_sparsity(&mut self, threshold: f32) -> Result<(), JsValue> {
        self.stack.set_sparsity(threshold).map_err(Failure::from)?;
        self.threshold = threshold;
        Ok(())
    }

    /// What was left out so far.
    #[wasm_bindgen(unchecked_return_type = "SparsityStats")]
    pub fn sparsity_stats(&self) -> Result<JsValue, JsValue> {
        JSON::parse(&self.stats().to_string())
    }

    /// The name, the architecture, and what else the file says of itself.
    #[wasm_bindgen(unchecked_return_type = "Record<string, unknown>")]
    pub fn metadata(&self) -> Result<JsValue, JsValue> {
        JSON::parse(&self.about.to_string())
    }
}

/// Milliseconds that an inference takes, on average over `iterations` after one to warm up.
#[wasm_bindgen]
pub fn measure_inference_time(
    engine: &SparseInferenceEngine,
    input: &Float32Array,
    iterations: u32,
) -> Result<f64, JsValue> {
    let input = input.to_vec();
    engine.run(&input)?;
    let started = web_time::Instant::now();
    for _ in 0..iterations {
        engine.run(&input)?;
    }
    let elapsed: Duration = started.elapsed();
    Ok(elapsed.as_secs_f64() * 1e3 / f64::from(iterations.max(1)))
}

impl SparseInferenceEngine {
    fn load(buffer: ModelBuffer, config: &JsValue) -> Outcome<Self> {
        let threshold = threshold(config)?;
        let gguf = buffer::open(vec![buffer])?;
        let stack = SparseStack::from_gguf(&gguf, threshold)?;
        Ok(Self { about: about(&gguf, &stack), stack, threshold, recall: None })
    }

    fn run(&self, input: &[f32]) -> Outcome<Vec<f32>> {
        Ok(self.stack.infer(input)?)
    }

    fn learn(&mut self, samples: &[f32], dim: usize) -> Outcome {
        if dim == 0 || !samples.len().is_multiple_of(dim) {
            let message = format_args!("{} values are no samples of {dim}", samples.len());
            return Err(Failure::new(Kind::Input, message));
        }
        let samples: Vec<Vec<f32>> = samples.chunks_exact(dim).map(<[f32]>::to_vec).collect();
        let qualities = self.stack.calibrate(&samples)?;
        let recall: f32 = qualities.iter().map(|quality| quality.recall as f32).sum();
        self.recall = Some(recall / qualities.len().max(1) as f32);
        Ok(())
    }

    fn stats(&self) -> Value {
        let layers = self.stack.sparsity_stats();
        let sum = |of: fn(&SparsityStats) -> f64| layers.iter().map(of).sum::<f64>();
        let active = sum(|layer| layer.average_active_ratio) / layers.len().max(1) as f64;
        json!({
            "inferences": layers.first().map_or(0, |layer| layer.inferences),
            "layers": layers.len(),
            "neurons": sum(|layer| layer.neurons as f64),
            "threshold": self.threshold,
            "average_active_ratio": active,
            "sparsity": 1.0 - active,
            "bytes_skipped": sum(|layer| layer.bytes_skipped as f64),
            "calibrated": self.recall.is_some(),
            "predictor_recall": self.recall,
        })
    }
}

/// The share of neurons that options say is left out.
fn threshold(config: &JsValue) -> Outcome<f32> {
    let sparsity = Config::parse(convert::json(config)?)?.sparsity;
    let threshold = sparsity.threshold.unwrap_or(DEFAULT_THRESHOLD);
    Ok(if sparsity.enabled { threshold } else { 0.0 })
}

fn about(gguf: &Gguf, stack: &SparseStack) -> Value {
    let text = |key| gguf.metadata().opt_str(key).ok().flatten();
    json!({
        "name": text("general.name"),
        "architecture": text("general.architecture"),
        "parameters": gguf.parameters(),
        "file_bytes": gguf.file_bytes(),
        "layers": stack.layers(),
        "dimension": stack.dim(),
        "instruction_set": firecrest::backend::IsaKind::best().name(),
    })
}

/// The bytes at an address, read as they come; at once where the server does not say how many there will be.
async fn fetch(url: &str) -> Outcome<ModelBuffer> {
    let unreachable = |error: JsValue| {
        let reason = error.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
        Failure::new(Kind::Network, format_args!("{url}: {}", reason.unwrap_or_default()))
    };
    let fetch: Function = property(&js_sys::global(), "fetch")?;
    let response = fetch.call1(&JsValue::UNDEFINED, &url.into()).map_err(Failure::Thrown)?;
    let response = wait(response).await.map_err(unreachable)?;
    if !Reflect::get(&response, &"ok".into()).is_ok_and(|ok| ok.is_truthy()) {
        let status = Reflect::get(&response, &"status".into()).ok().and_then(|status| status.as_f64());
        return Err(Failure::new(Kind::Network, format_args!("{url}: status {}", status.unwrap_or(0.0))));
    }
    let headers: Object = property(&response, "headers")?;
    let header = |name: &str| {
        let value = property::<Function>(&headers, "get").ok()?.call1(&headers, &name.into()).ok()?;
        value.as_string()
    };
    // The length of what is compressed on its way is that of the compressed bytes.
    let length = header("content-length").filter(|_| header("content-encoding").is_none());
    let body: Option<Object> = property(&response, "body").ok();
    let (Some(length), Some(body)) = (length.and_then(|length| length.parse::<f64>().ok()), body) else {
        let bytes = call(&response, "arrayBuffer")?;
        let bytes: ArrayBuffer = wait(bytes).await.map_err(unreachable)?.unchecked_into();
        return ModelBuffer::copy_of(&Uint8Array::new(&bytes));
    };
    let mut buffer = ModelBuffer::zeroed(length)?;
    let reader = call(&body, "getReader")?;
    let mut offset = 0.0;
    loop {
        let read = wait(call(&reader, "read")?).await.map_err(unreachable)?;
        if Reflect::get(&read, &"done".into()).is_ok_and(|done| done.is_truthy()) {
            break;
        }
        let piece: Uint8Array = property(&read, "value")?;
        buffer.fill(offset, &piece)?;
        offset += f64::from(piece.length());
    }
    if offset < length {
        return Err(Failure::new(Kind::Network, format_args!("{url}: {offset} of {length} bytes came")));
    }
    Ok(buffer)
}

fn property<T: JsCast>(of: &JsValue, name: &str) -> Outcome<T> {
    let value = Reflect::get(of, &name.into()).map_err(Failure::Thrown)?;
    value.dyn_into().map_err(|_| Failure::new(Kind::Unsupported, format_args!("there is no {name} here")))
}

fn call(of: &JsValue, method: &str) -> Outcome<JsValue> {
    property::<Function>(of, method)?.call0(of).map_err(Failure::Thrown)
}

async fn wait(promise: JsValue) -> Result<JsValue, JsValue> {
    JsFuture::from(Promise::resolve(&promise)).await
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
export interface SparsityStats {
  inferences: number;
  layers: number;
  neurons: number;
  threshold: number;
  average_active_ratio: number;
  sparsity: number;
  bytes_skipped: number;
  calibrated: boolean;
  predictor_recall: number | null;
}
"#;
