//! Options as JSON: every key is known and every value in its range, or the error names it.

use std::fmt;
use std::num::NonZero;

use firecrest::backend::KvFormat;
use firecrest::generate::{ConfigError, ContextOverflow};
use firecrest::{ContextOptions, GenerationConfig};
use serde_json::{Map, Value};

/// What an object of options says.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) generation: GenerationConfig,
    pub(crate) context: ContextOptions,
    pub(crate) sparsity: Sparsity,
}

/// `sparsity: { enabled, threshold }`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sparsity {
    pub(crate) enabled: bool,
    pub(crate) threshold: Option<f32>,
}

/// Why options were refused.
#[derive(Debug)]
pub(crate) enum ConfigFault {
    Json(serde_json::Error),
    UnknownKey { key: String, known: &'static [&'static str] },
    Type { key: String, value: Value, expected: &'static str },
    Generation(ConfigError),
    Refused { key: &'static str, reason: &'static str },
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "the options are not JSON: {error}"),
            Self::UnknownKey { key, known } => {
                write!(f, "unknown option {key:?}; known are {}", known.join(", "))
            }
            Self::Type { key, value, expected } => write!(f, "{key} is {value}, expected {expected}"),
            Self::Generation(error) => error.fmt(f),
            Self::Refused { key, reason } => write!(f, "{key}: {reason}"),
        }
    }
}

impl std::error::Error for ConfigFault {}

type Parsed<T> = Result<T, ConfigFault>;

const KEYS: &[&str] = &[
    "sparsity",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "max_tokens",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "overflow",
    "prefill_block",
    "context_length",
    "kv_cache",
    "threads",
];
const SPARSITY_KEYS: &[&str] = &["enabled", "threshold"];

impl Config {
    /// What `options` say; the rest is as by default.
    pub(crate) fn parse(options: Option<Value>) -> Parsed<Self> {
        let mut config = Self {
            generation: GenerationConfig::default(),
            context: ContextOptions::default(),
            sparsity: Sparsity::default(),
        };
        config.update(options)?;
        Ok(config)
    }

    /// These options with `options` over them.
    pub(crate) fn with(&self, options: Option<Value>) -> Parsed<Self> {
        let mut config = self.clone();
        config.update(options)?;
        Ok(config)
    }

    fn update(&mut self, options: Option<Value>) -> Parsed<()> {
        for (key, value) in object("options", options.unwrap_or(Value::Object(Map::new())))? {
            self.set(&key, value)?;
        }
        self.generation.validate().map_err(ConfigFault::Generation)
    }

    fn set(&mut self, key: &str, value: Value) -> Parsed<()> {
        let generation = &mut self.generation;
        match key {
            "sparsity" => self.sparsity = Sparsity::parse(value)?,
            "temperature" => generation.temperature = number(key, value)?,
            "top_k" => generation.top_k = whole(key, value)?,
            "top_p" => generation.top_p = number(key, value)?,
            "min_p" => generation.min_p = number(key, value)?,
            "max_tokens" => generation.max_tokens = whole(key, value)?,
            "repetition_penalty" => generation.repetition_penalty = number(key, value)?,
            "presence_penalty" => generation.presence_penalty = number(key, value)?,
            "frequency_penalty" => generation.frequency_penalty = number(key, value)?,
            "seed" => generation.seed = Some(whole(key, value)? as u64),
            "stop" => generation.stop = texts(key, value)?,
            "overflow" => {
                generation.context_overflow = match value.as_str() {
                    Some("error") => ContextOverflow::Error,
                    Some("shift") => ContextOverflow::Shift { keep: 4 },
                    _ => return Err(fault(key, value, "\"error\" or \"shift\"")),
                }
            }
            "prefill_block" => generation.prefill_block = whole(key, value)?,
            "context_length" => self.context.capacity = Some(positive(key, value)?.get()),
            "threads" => self.context.cpu.threads = Some(positive(key, value)?),
            "kv_cache" => {
                self.context.kv_format = match value.as_str() {
                    Some("f32") => KvFormat::F32,
                    Some("f16") => KvFormat::F16,
                    Some("q8_0") => KvFormat::Q8_0,
                    _ => return Err(fault(key, value, "\"f32\", \"f16\" or \"q8_0\"")),
                }
            }
            _ => return Err(ConfigFault::UnknownKey { key: key.to_owned(), known: KEYS }),
        }
        Ok(())
    }
}

impl Sparsity {
    fn parse(value: Value) -> Parsed<Self> {
        let mut sparsity = Self::default();
        for (key, value) in object("sparsity", value)? {
            match key.as_str() {
                "enabled" => {
                    let enabled = value.as_bool();
                    sparsity.enabled =
                        enabled.ok_or_else(|| fault("sparsity.enabled", value, "true or false"))?;
                }
                "threshold" => {
                    let threshold: f32 = number("sparsity.threshold", value.clone())?;
                    if !(threshold.is_finite() && threshold >= 0.0) {
                        return Err(fault("sparsity.threshold", value, "a finite number from 0"));
                    }
                    sparsity.threshold = Some(threshold);
                }
                _ => {
                    let key = format!("sparsity.{key}");
                    return Err(ConfigFault::UnknownKey { key, known: SPARSITY_KEYS });
                }
            }
        }
        Ok(sparsity)
    }
}

fn fault(key: &str, value: Value, expected: &'static str) -> ConfigFault {
    ConfigFault::Type { key: key.to_owned(), value, expected }
}

fn object(key: &str, value: Value) -> Parsed<Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        value => Err(fault(key, value, "an object")),
    }
}

fn number(key: &str, value: Value) -> Parsed<f32> {
    value.as_f64().map(|x| x as f32).ok_or_else(|| fault(key, value, "a number"))
}

fn whole(key: &str, value: Value) -> Parsed<usize> {
    // JavaScript writes 1e21 for large numbers, and never a point for whole ones.
    let whole = value.as_u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    whole.ok_or_else(|| fault(key, value, "a whole number from 0"))
}

fn positive(key: &str, value: Value) -> Parsed<NonZero<usize>> {
    NonZero::new(whole(key, value.clone())?).ok_or_else(|| fault(key, value, "a whole number from 1"))
}

fn texts(key: &str, value: Value) -> Parsed<Vec<String>> {
    let texts = match &value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(texts) => texts.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    texts.ok_or_else(|| fault(key, value, "a text or a list of texts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_is_named() {
        let cases = [
            (json!({"temprature": 1}), "temprature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"temperature": -1}), "temperature"),
            (json!({"top_k": 1.5}), "top_k"),
            (json!({"top_k": -1}), "top_k"),
            (json!({"top_p": 0}), "top_p"),
            (json!({"top_p": 1.01}), "top_p"),
            (json!({"max_tokens": "many"}), "max_tokens"),
            (json!({"sparsity": true}), "sparsity"),
            (json!({"sparsity": {"enabled": 1}}), "sparsity.enabled"),
            (json!({"sparsity": {"threshold": -0.1}}), "sparsity.threshold"),
            (json!({"sparsity": {"threshhold": 0.1}}), "sparsity.threshhold"),
            (json!({"stop": [1]}), "stop"),
            (json!({"stop": [""]}), "stop[0]"),
            (json!({"context_length": 0}), "context_length"),
            (json!({"kv_cache": "f64"}), "kv_cache"),
            (json!([]), "options"),
        ];
        for (options, name) in cases {
            let message = Config::parse(Some(options)).expect_err(name).to_string();
            assert!(message.contains(name), "{name}: {message}");
        }
    }

    #[test]
    fn options_go_over_others() {
        let options = json!({
            "sparsity": {"enabled": false, "threshold": 0.1}, "temperature": 0.7, "top_k": 40, "max_tokens": 10
        });
        let base = Config::parse(Some(options)).unwrap();
        assert_eq!(base.sparsity, Sparsity { enabled: false, threshold: Some(0.1) });
        let config = base.with(Some(json!({"temperature": 0}))).unwrap();
        assert_eq!((config.generation.temperature, config.generation.max_tokens), (0.0, 10));
        assert_eq!(base.generation.temperature, 0.7);
    }
}
