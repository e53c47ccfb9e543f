//! An answer, advanced by JavaScript, which can look at its own messages between two pieces.

use std::rc::Rc;

use firecrest::GenerationConfig;
use firecrest::generate::{Progress, Stats};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::error::{Failure, Kind, Outcome};
use crate::model::{Loaded, busy};

/// An answer in the making. It ends when another is begun on the same model.
#[wasm_bindgen]
#[derive(Debug)]
pub struct WasmGeneration {
    loaded: Rc<Loaded>,
    answer: u64,
    progress: Progress,
}

impl WasmGeneration {
    pub(crate) fn begin(loaded: Rc<Loaded>, prompt: &[u32], config: &GenerationConfig) -> Outcome<Self> {
        let progress = loaded.session.try_borrow().map_err(|_| busy())?.begin(prompt, config)?;
        let answer = loaded.next_answer();
        Ok(Self { loaded, answer, progress })
    }

    fn check(&self) -> Outcome {
        if self.loaded.is_current(self.answer) {
            return Ok(());
        }
        Err(Failure::new(Kind::Inference, "another answer was begun"))
    }

    fn advance(&mut self) -> Outcome<Option<String>> {
        self.check()?;
        let mut session = self.loaded.session.try_borrow_mut().map_err(|_| busy())?;
        let piece = self.progress.next(&mut session).transpose()?;
        Ok(piece.map(|piece| piece.text))
    }

    fn advance_prefill(&mut self) -> Outcome<usize> {
        self.check()?;
        let mut session = self.loaded.session.try_borrow_mut().map_err(|_| busy())?;
        Ok(self.progress.prefill(&mut session)?)
    }
}

#[wasm_bindgen]
impl WasmGeneration {
    /// Computes a block of the prompt (`prefill_block` tokens); returns how many of its tokens are left. `next` computes
    /// what is left then.
    pub fn prefill(&mut self) -> Result<usize, JsValue> {
        Ok(self.advance_prefill()?)
    }

    /// The text of the next token, empty while a character is unfinished; `undefined` at the end.
    #[wasm_bindgen(js_name = next)]
    pub fn next_piece(&mut self) -> Result<Option<String>, JsValue> {
        Ok(self.advance()?)
    }

    /// Why the answer ended: `stop`, `stop string`, `length`, `context full`; `undefined` before that.
    #[wasm_bindgen(getter)]
    pub fn finish_reason(&self) -> Option<String> {
        self.progress.finish_reason().map(|reason| reason.to_string())
    }

    /// What was done so far, as JSON: tokens, and milliseconds.
    pub fn stats(&self) -> String {
        stats_json(&self.progress.stats()).to_string()
    }
}

/// What was done, for JavaScript.
pub(crate) fn stats_json(stats: &Stats) -> serde_json::Value {
    serde_json::json!({
        "prompt_tokens": stats.prompt_tokens,
        "reused_tokens": stats.reused_tokens,
        "generated_tokens": stats.generated_tokens,
        "prefill_ms": stats.prefill.as_secs_f64() * 1e3,
        "decode_ms": stats.decode.as_secs_f64() * 1e3,
        "prefill_tokens_per_second": stats.prefill_tokens_per_second(),
        "tokens_per_second": stats.decode_tokens_per_second(),
    })
}
