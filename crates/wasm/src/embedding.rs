//! A model that makes embeddings.

use firecrest::EmbeddingModel as Engine;
use firecrest::gguf::Gguf;
use js_sys::{Float32Array, Uint8Array, Uint32Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::buffer::{self, ModelBuffer};
use crate::config::Config;
use crate::convert;
use crate::error::{Failure, Kind, Outcome};

/// An embedding model from a GGUF file. Vectors have length 1 where the model is made for that.
#[wasm_bindgen]
#[derive(Debug)]
pub struct EmbeddingModel {
    model: Engine,
    metadata: String,
}

#[wasm_bindgen]
impl EmbeddingModel {
    /// Takes the bytes of a GGUF file; they are copied.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &Uint8Array) -> Result<EmbeddingModel, JsValue> {
        Ok(Self::load(vec![ModelBuffer::copy_of(bytes)?], &JsValue::UNDEFINED)?)
    }

    /// Takes the buffers of a file, or those of the parts of a split one. They are used up, also by a failure. Of
    /// `config` only `threads` means anything.
    pub fn from_buffers(
        shards: Vec<ModelBuffer>,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<EmbeddingModel, JsValue> {
        Ok(Self::load(shards, config)?)
    }

    /// Values of a vector.
    pub fn dimension(&self) -> usize {
        self.model.dimension()
    }

    /// The vector of a text given as tokens, exactly as the model shall see them.
    pub fn encode(&self, ids: &Uint32Array) -> Result<Float32Array, JsValue> {
        let vector = self.model.encode(&ids.to_vec()).map_err(Failure::from)?;
        Ok(Float32Array::from(vector.as_slice()))
    }

    /// The vectors of texts given as tokens, one after another: `ids` has the tokens of all, `lengths` how many each has.
    pub fn encode_batch(&self, ids: &Uint32Array, lengths: &Uint32Array) -> Result<Float32Array, JsValue> {
        Ok(self.batch(&ids.to_vec(), &lengths.to_vec())?)
    }

    /// The vector of a text.
    pub fn encode_text(&self, text: &str) -> Result<Float32Array, JsValue> {
        Ok(self.texts(&[text])?)
    }

    /// The vectors of texts, one after another.
    pub fn encode_texts(&self, texts: Vec<String>) -> Result<Float32Array, JsValue> {
        Ok(self.texts(&texts)?)
    }

    /// The tokens of a text, with those that the model wants at its ends.
    pub fn tokenize(&self, text: &str) -> Vec<u32> {
        let options = firecrest::tokenizer::EncodeOptions { add_special: true, parse_special: true };
        self.model.tokenizer().encode(text, options)
    }

    /// The name, the architecture, and what else the file says of itself, as JSON.
    pub fn metadata(&self) -> String {
        self.metadata.clone()
    }
}

impl EmbeddingModel {
    fn load(shards: Vec<ModelBuffer>, config: &JsValue) -> Outcome<Self> {
        let config = Config::parse(convert::json(config)?)?;
        let gguf = buffer::open(shards)?;
        let model = Engine::from_gguf(&gguf, &config.context.cpu)?;
        Ok(Self { metadata: metadata(&gguf, &model).to_string(), model })
    }

    fn texts(&self, texts: &[impl AsRef<str>]) -> Outcome<Float32Array> {
        Ok(flat(&self.model.encode_texts(texts)?))
    }

    fn batch(&self, ids: &[u32], lengths: &[u32]) -> Outcome<Float32Array> {
        let total = lengths.iter().map(|&length| u64::from(length)).sum::<u64>();
        if total != ids.len() as u64 {
            let message = format_args!("the lengths add up to {total}, but there are {} tokens", ids.len());
            return Err(Failure::new(Kind::Input, message));
        }
        let mut rest = ids;
        let texts: Vec<_> = lengths
            .iter()
            .map(|&length| {
                let (text, others) = rest.split_at(length as usize);
                rest = others;
                text
            })
            .collect();
        Ok(flat(&self.model.encode_batch(&texts)?))
    }
}

/// Vectors one after another.
fn flat(vectors: &[Vec<f32>]) -> Float32Array {
    Float32Array::from(vectors.concat().as_slice())
}

fn metadata(gguf: &Gguf, model: &Engine) -> serde_json::Value {
    let text = |key| gguf.metadata().opt_str(key).ok().flatten();
    serde_json::json!({
        "name": text("general.name"),
        "architecture": text("general.architecture"),
        "parameters": gguf.parameters(),
        "file_bytes": gguf.file_bytes(),
        "context_length": model.max_tokens(),
        "trained_context_length": model.max_tokens(),
        "vocabulary": model.tokenizer().vocab_size(),
        "dimension": model.dimension(),
        "threads": model.threads(),
        "instruction_set": firecrest::backend::IsaKind::best().name(),
    })
}
