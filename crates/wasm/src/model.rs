//! A model that answers texts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use firecrest::chat::{ChatInput, ChatTemplate, Message};
use firecrest::generate::{GenerationConfig, Output, Piece, Session};
use firecrest::tokenizer::{EncodeOptions, Tokenizer};
use firecrest::{Decoder, Model};
use js_sys::{Function, Uint8Array, Uint32Array};
use serde_json::Value;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

use crate::buffer::{self, ModelBuffer};
use crate::config::{Config, ConfigFault};
use crate::convert;
use crate::error::{Failure, Kind, Outcome};
use crate::generation::WasmGeneration;

/// A model with its options and its conversation.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) config: Config,
    pub(crate) session: RefCell<Session<Decoder, Arc<Tokenizer>>>,
    /// Number of answers begun, by which one that was overtaken by another is told.
    answers: Cell<u64>,
}

impl Loaded {
    pub(crate) fn new(shards: Vec<ModelBuffer>, options: &JsValue) -> Outcome<Self> {
        let config = Config::parse(convert::json(options)?)?;
        if config.sparsity.enabled {
            let reason = "this file's layers are dense; SparseInferenceEngine runs sparse ones";
            return Err(ConfigFault::Refused { key: "sparsity.enabled", reason }.into());
        }
        let gguf = buffer::open(shards)?;
        let model = Model::from_gguf(gguf)?;
        let mut context = config.context.clone();
        let trained = model.context_length();
        context.capacity = context.capacity.map(|capacity| capacity.min(trained));
        let session = RefCell::new(model.session(&context)?);
        Ok(Self { model, config, session, answers: Cell::new(0) })
    }

    /// The options of one answer.
    pub(crate) fn generation_config(&self, options: Option<Value>) -> Outcome<GenerationConfig> {
        Ok(self.config.with(options)?.generation)
    }

    /// The tokens of a text, in which control tokens mean what they say; those that a chat template writes are such.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let tokenizer = self.model.tokenizer();
        let encode = |add_special| tokenizer.encode(text, EncodeOptions { add_special, parse_special: true });
        let tokens = encode(true);
        match tokens.as_slice() {
            // The text begins with the token that would be put before it.
            [first, second, ..] if first == second && tokenizer.bos() == Some(*first) => encode(false),
            _ => tokens,
        }
    }

    /// The prompt of a conversation. Control tokens that a message spells are plain text.
    pub(crate) fn encode_chat(&self, messages: &[Message]) -> Outcome<Vec<u32>> {
        let prompt = self.template()?.render(&ChatInput::new(messages))?;
        Ok(prompt.encode(|text, parse_special| {
            self.model.tokenizer().encode(text, EncodeOptions { add_special: false, parse_special })
        }))
    }

    pub(crate) fn template(&self) -> Outcome<ChatTemplate> {
        let template = self.model.chat_template()?;
        template.ok_or_else(|| Failure::new(Kind::Input, "the model has no chat template"))
    }

    /// Answers a prompt from beginning to end.
    pub(crate) fn answer(
        &self,
        prompt: &[u32],
        config: &GenerationConfig,
        on_piece: impl FnMut(&Piece) -> bool,
    ) -> Outcome<Output> {
        self.next_answer();
        // A callback that answers another prompt meanwhile finds the session taken.
        let mut session = self.session.try_borrow_mut().map_err(|_| busy())?;
        Ok(session.generate_stream(prompt, config, on_piece)?)
    }

    pub(crate) fn next_answer(&self) -> u64 {
        self.answers.set(self.answers.get() + 1);
        self.answers.get()
    }

    pub(crate) fn is_current(&self, answer: u64) -> bool {
        self.answers.get() == answer
    }

    pub(crate) fn reset(&self) -> Outcome {
        self.next_answer();
        self.session.try_borrow_mut().map_err(|_| busy())?.reset();
        Ok(())
    }
}

pub(crate) fn busy() -> Failure {
    Failure::new(Kind::Inference, "the model is answering another prompt")
}

/// A language model from a GGUF file.
#[wasm_bindgen]
#[derive(Debug)]
pub struct WasmModel {
    loaded: Rc<Loaded>,
}

#[wasm_bindgen]
impl WasmModel {
    /// Takes the bytes of a GGUF file; they are copied. `config` holds defaults for every answer, and
    /// `context_length`, `kv_cache` ("f16", "f32", "q8_0") and `threads`.
    #[wasm_bindgen(constructor)]
    pub fn new(
        bytes: &Uint8Array,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<WasmModel, JsValue> {
        let buffer = ModelBuffer::copy_of(bytes)?;
        Ok(Self { loaded: Rc::new(Loaded::new(vec![buffer], config)?) })
    }

    /// Takes the buffers of a file, or those of the parts of a split one. They are used up, also by a failure.
    pub fn from_buffers(
        shards: Vec<ModelBuffer>,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<WasmModel, JsValue> {
        Ok(Self { loaded: Rc::new(Loaded::new(shards, config)?) })
    }

    /// Continues a text, and returns the continuation. What spells a control token in it is one: `format_chat` writes
    /// such texts.
    pub fn generate(
        &self,
        text: &str,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<String, JsValue> {
        let config = self.loaded.generation_config(convert::json(config)?)?;
        Ok(self.loaded.answer(&self.loaded.encode(text), &config, |_| true)?.text)
    }

    /// As `generate`; `callback` is called with each piece of the text and returns whether to go on (nothing, for yes).
    /// What it throws ends the answer and is thrown on.
    pub fn generate_stream(
        &self,
        text: &str,
        #[wasm_bindgen(unchecked_param_type = "(piece: string) => boolean | void")] callback: &Function,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<String, JsValue> {
        let config = self.loaded.generation_config(convert::json(config)?)?;
        let mut thrown = None;
        let output = self.loaded.answer(&self.loaded.encode(text), &config, |piece| {
            if piece.text.is_empty() {
                return true;
            }
            match callback.call1(&JsValue::UNDEFINED, &piece.text.as_str().into()) {
                Ok(go_on) => go_on.is_undefined() || go_on.is_truthy(),
                Err(error) => {
                    thrown = Some(error);
                    false
                }
            }
        })?;
        match thrown {
            Some(error) => Err(error),
            None => Ok(output.text),
        }
    }

    /// Begins an answer that the caller advances piece by piece. `prompt` is a text, an array of messages for the chat
    /// template, or tokens.
    pub fn start(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string | Message[] | Uint32Array")] prompt: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "Config | string")] config: &JsValue,
    ) -> Result<WasmGeneration, JsValue> {
        let config = self.loaded.generation_config(convert::json(config)?)?;
        let tokens = match prompt.as_string() {
            Some(text) => self.loaded.encode(&text),
            None => match prompt.dyn_ref::<Uint32Array>() {
                Some(ids) => ids.to_vec(),
                None => self.loaded.encode_chat(&convert::messages(prompt)?)?,
            },
        };
        Ok(WasmGeneration::begin(Rc::clone(&self.loaded), &tokens, &config)?)
    }

    /// The prompt that the model's chat template makes of messages, `{ role, content }` each.
    pub fn format_chat(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Message[] | string")] messages: &JsValue,
    ) -> Result<String, JsValue> {
        let messages = convert::messages(messages)?;
        let template = self.loaded.template()?;
        Ok(template.render(&ChatInput::new(&messages)).map_err(Failure::from)?.text())
    }

    /// The tokens of a text, with those that the model wants at its ends.
    pub fn tokenize(&self, text: &str) -> Vec<u32> {
        self.loaded.encode(text)
    }

    /// The text of tokens.
    pub fn detokenize(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Uint32Array | number[]")] tokens: &JsValue,
    ) -> Result<String, JsValue> {
        let tokens = convert::tokens(tokens)?;
        let tokens = tokens.ok_or_else(|| Failure::new(Kind::Input, "tokens must be an array of numbers"))?;
        Ok(self.loaded.model.tokenizer().decode_lossy(&tokens))
    }

    /// Forgets the conversation; the memory stays for the next.
    pub fn reset_cache(&self) -> Result<(), JsValue> {
        Ok(self.loaded.reset()?)
    }

    /// Whether the file has a chat template.
    #[wasm_bindgen(getter)]
    pub fn has_chat_template(&self) -> bool {
        matches!(self.loaded.model.chat_template(), Ok(Some(_)))
    }

    /// The name, the architecture, and what else the file says of itself, as JSON.
    pub fn metadata(&self) -> String {
        let model = &self.loaded.model;
        let metadata = model.gguf().metadata();
        let text = |key| metadata.opt_str(key).ok().flatten();
        serde_json::json!({
            "name": text("general.name"),
            "architecture": text("general.architecture"),
            "parameters": model.gguf().parameters(),
            "file_bytes": model.gguf().file_bytes(),
            "context_length": self.capacity(),
            "trained_context_length": model.context_length(),
            "vocabulary": model.tokenizer().vocab_size(),
            "has_chat_template": self.has_chat_template(),
            "threads": self.loaded.session.borrow().model().threads(),
            "instruction_set": self.loaded.session.borrow().model().isa().name(),
        })
        .to_string()
    }
}

impl WasmModel {
    fn capacity(&self) -> usize {
        use firecrest::generate::LanguageModel;
        self.loaded.session.borrow().model().capacity()
    }
}
