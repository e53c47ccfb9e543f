//! JavaScript values to what the engine takes.

use firecrest::chat::Message;
use js_sys::{Array, JSON, Uint32Array};
use serde_json::Value;
use wasm_bindgen::{JsCast, JsValue};

use crate::config::ConfigFault;
use crate::error::{Failure, Kind, Outcome};

/// JSON from a text of JSON, or from an object; `None` where there is neither.
pub(crate) fn json(value: &JsValue) -> Outcome<Option<Value>> {
    if value.is_undefined() || value.is_null() {
        return Ok(None);
    }
    let text = match value.as_string() {
        Some(text) => text,
        None => JSON::stringify(value)
            .map_err(Failure::Thrown)?
            .as_string()
            .ok_or_else(|| Failure::new(Kind::Config, "expected an object or a text of JSON"))?,
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&text).map_err(ConfigFault::Json)?))
}

/// Messages, each an object with a `role` and mostly a `content`.
pub(crate) fn messages(value: &JsValue) -> Outcome<Vec<Message>> {
    match json(value)? {
        Some(Value::Array(messages)) => {
            messages.into_iter().map(|message| Ok(Message::try_from(message)?)).collect()
        }
        _ => Err(Failure::new(Kind::Input, "messages must be an array")),
    }
}

/// Tokens, if `value` is a `Uint32Array` or an array of numbers.
pub(crate) fn tokens(value: &JsValue) -> Outcome<Option<Vec<u32>>> {
    if let Some(ids) = value.dyn_ref::<Uint32Array>() {
        return Ok(Some(ids.to_vec()));
    }
    let Some(ids) = value.dyn_ref::<Array>() else { return Ok(None) };
    let whole = |id: JsValue| {
        let number = id.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(n));
        number.map(|n| n as u32).ok_or_else(|| Failure::new(Kind::Input, format_args!("{id:?} is no token")))
    };
    ids.iter().map(whole).collect::<Outcome<_>>().map(Some)
}
