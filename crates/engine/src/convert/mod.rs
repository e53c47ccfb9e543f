//! Hugging Face models to GGUF: safetensors, `config.json` and a tokenizer become one file, with the names of tensors
//! and keys that llama.cpp gives them.
//!
//! ```no_run
//! use firecrest::convert::{ConvertOptions, convert};
//!
//! convert("all-MiniLM-L6-v2", "all-minilm-l6-v2.gguf", &ConvertOptions::default())?;
//! # Ok::<(), firecrest::convert::ConvertError>(())
//! ```

mod checkpoint;
mod config;
mod error;
mod families;
mod hyperparameters;
mod sentence_transformers;
mod tensors;
mod tokenizer;

use std::path::Path;

pub use error::ConvertError;

use crate::embed::Pooling;
use crate::gguf::{Format, Metadata, Writer};
use checkpoint::Checkpoint;
use config::Config;
use families::Family;

/// How a model is converted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// The format of matrices: F32, F16 or BF16, or one of the simple quantized ones (Q8_0, Q4_0, Q4_1, Q5_0, Q5_1).
    /// Rows that are not whole blocks of it stay F16. Vectors, and what is looked up rather than multiplied (but for the
    /// tokens), stay F32.
    pub format: Format,
    /// `general.name`; the folder's name where absent.
    pub name: Option<String>,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self { format: Format::F16, name: None }
    }
}

impl ConvertOptions {
    /// Sets `format`.
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Sets `name`.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }
}

/// What was converted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// The classes of models that can be converted, by their names in `config.json`.
pub fn supported() -> impl Iterator<Item = &'static str> {
    families::FAMILIES.iter().flat_map(|family| family.classes).copied()
}

/// Converts the model in a folder to a GGUF file.
///
/// The folder has `config.json`, `*.safetensors`, and `tokenizer.json` or `vocab.txt`; the tensors are mapped, and pass
/// through memory one by one. `out` has either its old contents or all of the new ones at any time.
pub fn convert(
    dir: impl AsRef<Path>,
    out: impl AsRef<Path>,
    options: &ConvertOptions,
) -> Result<Converted, ConvertError> {
    let (dir, out) = (dir.as_ref(), out.as_ref());
    if out_of_reach(options.format) {
        return Err(ConvertError::Format(options.format));
    }
    let config = Config::read(dir, "config.json")?;
    let family = Family::of(&config)?;
    let checkpoint = Checkpoint::open(dir)?;

    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", family.architecture);
    metadata.insert("general.name", options.name.clone().unwrap_or_else(|| name(dir, &config)));
    metadata.insert("general.file_type", file_type(options.format));
    metadata.insert("general.quantization_version", 2u32);
    (family.metadata)(&config, family, &mut metadata)?;
    sentence_transformers::convert(dir, family, &mut metadata)?;
    if family.is_encoder() && checkpoint.has_classifier() {
        metadata.insert(format!("{}.pooling_type", family.architecture), Pooling::Rank.to_gguf());
    }
    let vocab = config.opt_count(&["vocab_size"])?.unwrap_or(0);
    tokenizer::convert(dir, &config, family, vocab as usize, &mut metadata)?;

    let mut writer = Writer::with_metadata(metadata);
    let tensors = tensors::add(&checkpoint, &config, family, options.format, &mut writer)?;
    writer.write_file(out)?;
    let bytes = std::fs::metadata(out).map_err(|source| ConvertError::Io { path: out.into(), source })?.len();
    Ok(Converted { architecture: family.architecture, tensors, bytes })
}

/// Whether there is no quantizer for a format.
fn out_of_reach(format: Format) -> bool {
    let block = vec![0.0; format.block_len()];
    format.quantize_row(&block, &mut vec![0; format.block_bytes()]).is_err()
}

/// What the model calls itself, or what its folder is called.
fn name(dir: &Path, config: &Config) -> String {
    let own = config.get("_name_or_path").and_then(|name| name.as_str()).unwrap_or_default();
    let own = own.rsplit('/').find(|part| !part.is_empty() && *part != "model");
    let folder =
        dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    folder.filter(|folder| folder != "model").or(own.map(str::to_owned)).unwrap_or_else(|| "model".into())
}

/// The number of a format in `general.file_type`.
fn file_type(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::Q4_0 => 2,
        Format::Q4_1 => 3,
        Format::Q8_0 => 7,
        Format::Q5_0 => 8,
        Format::Q5_1 => 9,
        Format::BF16 => 32,
        _ => 1,
    }
}
