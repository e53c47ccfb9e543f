//! A model token by token.

use firecrest::GenerationConfig;
use firecrest::generate::{Output, Stats};
use js_sys::{JSON, Uint8Array, Uint32Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::buffer::ModelBuffer;
use crate::convert;
use crate::error::{Failure, Kind, Outcome};
use crate::generation::stats_json;
use crate::model::Loaded;

/// A language model that continues prompts, texts or tokens. Its KV cache keeps what a prompt has in common with the
/// last one, so a prompt that grows by a token costs one step.
#[wasm_bindgen]
#[derive(Debug)]
pub struct LLMModel {
    loaded: Loaded,
    last: Stats,
    generated: usize,
}

/// A prompt, and with it in which form the answer goes back.
enum Prompt {
    Text(Vec<u32>),
    Tokens(Vec<u32>),
}

#[wasm_bindgen]
impl LLMModel {
    /// Takes the bytes of a GGUF file, which are copied, and options: `{ sparsity: { enabled, threshold }, temperature,
    /// top_k, top_p, max_tokens, … }` as JSON or an object.
    #[wasm_bindgen(constructor)]
    pub fn new(
        bytes: &Uint8Array,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<LLMModel, JsValue> {
        let loaded = Loaded::new(vec![ModelBuffer::copy_of(bytes)?], config)?;
        Ok(Self { loaded, last: Stats::default(), generated: 0 })
    }

    /// The token after the prompt: its text if the prompt is a text, its number if the prompt is tokens. At the end of
    /// an answer the text is empty.
    #[wasm_bindgen(skip_typescript)]
    pub fn next_token(&mut self, prompt: &JsValue) -> Result<JsValue, JsValue> {
        let prompt = self.prompt(prompt)?;
        let output = self.run(&prompt, 1)?;
        Ok(match prompt {
            Prompt::Text(_) => output.text.into(),
            Prompt::Tokens(_) => output.tokens.first().copied().into(),
        })
    }

    /// Up to `n` tokens after the prompt (`max_tokens` where absent): a text for a text, tokens for tokens.
    #[wasm_bindgen(skip_typescript)]
    pub fn generate(&mut self, prompt: &JsValue, n: Option<f64>) -> Result<JsValue, JsValue> {
        let most = self.loaded.config.generation.max_tokens;
        let n = match n {
            None => most,
            Some(n) if n >= 0.0 && n.fract() == 0.0 => (n as usize).min(most),
            Some(n) => {
                return Err(
                    Failure::new(Kind::Input, format_args!("n is {n}, expected a whole number")).into()
                );
            }
        };
        let prompt = self.prompt(prompt)?;
        let output = self.run(&prompt, n)?;
        Ok(match prompt {
            Prompt::Text(_) => output.text.into(),
            Prompt::Tokens(_) => Uint32Array::from(output.tokens.as_slice()).into(),
        })
    }

    /// Of the last call: tokens of the prompt, how many of them were in the cache, tokens generated, milliseconds and
    /// tokens per second; and of all calls, `total_tokens`.
    #[wasm_bindgen(unchecked_return_type = "Stats")]
    pub fn stats(&self) -> Result<JsValue, JsValue> {
        let mut stats = stats_json(&self.last);
        stats["total_tokens"] = self.generated.into();
        stats["cached_tokens"] = self.loaded.session.borrow().tokens().len().into();
        stats["threads"] = self.loaded.session.borrow().model().threads().into();
        stats["instruction_set"] = self.loaded.session.borrow().model().isa().name().into();
        JSON::parse(&stats.to_string())
    }

    /// Forgets the KV cache's contents.
    pub fn reset_cache(&mut self) -> Result<(), JsValue> {
        Ok(self.loaded.reset()?)
    }
}

impl LLMModel {
    fn prompt(&self, prompt: &JsValue) -> Outcome<Prompt> {
        if let Some(text) = prompt.as_string() {
            return Ok(Prompt::Text(self.loaded.encode(&text)));
        }
        let tokens = convert::tokens(prompt)?;
        let tokens =
            tokens.ok_or_else(|| Failure::new(Kind::Input, "a prompt is a text or an array of tokens"))?;
        Ok(Prompt::Tokens(tokens))
    }

    fn run(&mut self, prompt: &Prompt, n: usize) -> Outcome<Output> {
        let (Prompt::Text(tokens) | Prompt::Tokens(tokens)) = prompt;
        let config: GenerationConfig = self.loaded.config.generation.clone().with_max_tokens(n);
        let output = self.loaded.answer(tokens, &config, |_| true)?;
        self.last = output.stats;
        self.generated += output.stats.generated_tokens;
        Ok(output)
    }
}

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
export interface Config {
  sparsity?: { enabled?: boolean; threshold?: number };
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  max_tokens?: number;
  repetition_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  seed?: number;
  stop?: string | string[];
  overflow?: "error" | "shift";
  prefill_block?: number;
  context_length?: number;
  kv_cache?: "f32" | "f16" | "q8_0";
  threads?: number;
}

export interface Message {
  role: string;
  content: unknown;
}

export interface Stats {
  prompt_tokens: number;
  reused_tokens: number;
  generated_tokens: number;
  prefill_ms: number;
  decode_ms: number;
  prefill_tokens_per_second: number | null;
  tokens_per_second: number | null;
  total_tokens: number;
  cached_tokens: number;
  threads: number;
  instruction_set: string;
}

export interface LLMModel {
  next_token(prompt: string): string;
  next_token(prompt: Uint32Array | number[]): number;
  generate(prompt: string, n?: number): string;
  generate(prompt: Uint32Array | number[], n?: number): Uint32Array;
}
"#;
