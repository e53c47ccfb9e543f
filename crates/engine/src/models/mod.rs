//! Architectures: from a file's metadata to a spec. The only place that asks for an architecture's name.

mod llama;

use crate::gguf::{Gguf, Metadata};
use crate::nn::{DecoderSpec, LoadError, RopeScaling, Yarn};

/// What makes a spec of a file.
type Read = fn(&Gguf) -> Result<DecoderSpec, LoadError>;

/// Architectures by the name in `general.architecture`.
const DECODERS: &[(&str, Read)] = &[("llama", llama::spec)];

/// The spec of a decoder file.
pub(crate) fn decoder_spec(gguf: &Gguf) -> Result<DecoderSpec, LoadError> {
    let name = gguf.metadata().architecture()?;
    match DECODERS.iter().find(|(known, _)| *known == name) {
        Some((_, read)) => read(gguf),
        None => Err(LoadError::UnknownArchitecture { name: name.into(), known: supported().collect() }),
    }
}

/// Names of the architectures that can be run.
pub fn supported() -> impl Iterator<Item = &'static str> {
    DECODERS.iter().map(|(name, _)| *name)
}

/// The hyperparameters of one architecture, read and checked by their short names.
struct Hyperparameters<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl<'a> Hyperparameters<'a> {
    fn new(gguf: &'a Gguf) -> Result<Self, LoadError> {
        Ok(Self { gguf, architecture: gguf.metadata().architecture()? })
    }

    fn metadata(&self) -> &'a Metadata {
        self.gguf.metadata()
    }

    /// The full key.
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// A count from 1 to `max`.
    fn count(&self, name: &str, max: usize) -> Result<usize, LoadError> {
        let value = self.metadata().usize(&self.key(name))?;
        self.check_count(name, value, max)
    }

    /// As [`Hyperparameters::count`], where the key is there.
    fn optional_count(&self, name: &str, max: usize) -> Result<Option<usize>, LoadError> {
        let value = self.metadata().opt_usize(&self.key(name))?;
        value.map(|value| self.check_count(name, value, max)).transpose()
    }

    fn check_count(&self, name: &str, value: usize, max: usize) -> Result<usize, LoadError> {
        if (1..=max).contains(&value) {
            return Ok(value);
        }
        Err(self.wrong(name, value, format!("1 to {max}")))
    }

    /// A positive number, where the key is there.
    fn optional_positive(&self, name: &str) -> Result<Option<f32>, LoadError> {
        match self.metadata().opt_f32(&self.key(name))? {
            Some(value) if value <= 0.0 => Err(self.wrong(name, value, "a positive number")),
            value => Ok(value),
        }
    }

    /// A positive number.
    fn positive(&self, name: &str) -> Result<f32, LoadError> {
        let value = self.metadata().f32(&self.key(name))?;
        if value > 0.0 { Ok(value) } else { Err(self.wrong(name, value, "a positive number")) }
    }

    fn wrong(&self, name: &str, value: impl ToString, expected: impl ToString) -> LoadError {
        LoadError::Hyperparameter {
            key: self.key(name),
            value: value.to_string(),
            expected: expected.to_string(),
        }
    }

    /// Rows of the embedding.
    fn vocab(&self) -> Result<usize, LoadError> {
        let tensor = "token_embd.weight";
        let info =
            self.gguf.tensor(tensor).ok_or_else(|| LoadError::MissingTensor { tensor: tensor.into() })?;
        let rows = info.shape.get(1).copied().unwrap_or(1);
        if u32::try_from(rows).is_err() {
            return Err(LoadError::Shape {
                tensor: tensor.into(),
                expected: vec![],
                found: info.shape.clone(),
            });
        }
        Ok(rows)
    }

    /// How the file says that rotary frequencies are stretched.
    fn rope_scaling(&self, context_length: usize) -> Result<RopeScaling, LoadError> {
        let kind = self.metadata().opt_str(&self.key("rope.scaling.type"))?;
        let factor = self.optional_positive("rope.scaling.factor")?;
        // Files from before 2023-10 have the linear factor alone, under another name.
        let factor = factor.or(self.optional_positive("rope.scale_linear")?);
        match (kind, factor) {
            (None | Some("linear"), Some(factor)) if factor != 1.0 => Ok(RopeScaling::Linear(factor)),
            (Some("yarn"), Some(factor)) => {
                let original = self.optional_count("rope.scaling.original_context_length", 1 << 31)?;
                let mut yarn = Yarn::new(factor, original.unwrap_or(context_length) as f32);
                if let Some(attention) = self.optional_positive("rope.scaling.attn_factor")? {
                    yarn.attention_factor = attention;
                }
                Ok(RopeScaling::Yarn(yarn))
            }
            (None | Some("none" | "linear" | "yarn" | "longrope"), _) => Ok(RopeScaling::None),
            (Some(other), _) => Err(self.wrong("rope.scaling.type", other, "none, linear, yarn or longrope")),
        }
    }
}
