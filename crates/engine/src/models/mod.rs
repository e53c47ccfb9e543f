//! Architectures: from a file's metadata to a spec. The only place that asks for an architecture's name.

mod bert;
mod hyperparameters;
mod nomic_bert;

use hyperparameters::Hyperparameters;

use crate::gguf::Gguf;
use crate::nn::{DecoderSpec, EncoderSpec, LoadError};

/// What makes a spec of a file.
type Read = fn(&Hyperparameters<'_>) -> Result<DecoderSpec, LoadError>;

/// Declares a module for each architecture, and lists them by the name in `general.architecture`.
macro_rules! decoders {
    ($($module:ident: $($name:literal => $read:ident),+;)+) => {
        $(mod $module;)+

        const DECODERS: &[(&str, Read)] = &[$($(($name, $module::$read)),+),+];
    };
}

decoders! {
    llama: "llama" => spec;
    arcee: "arcee" => spec;
    bloom: "bloom" => spec;
    command_r: "command-r" => spec;
    falcon: "falcon" => spec;
    gemma: "gemma" => spec;
    gemma2: "gemma2" => spec;
    gemma3: "gemma3" => spec;
    gpt2: "gpt2" => spec;
    gptj: "gptj" => spec;
    gptneox: "gptneox" => spec;
    granite: "granite" => spec, "granitemoe" => spec;
    internlm2: "internlm2" => spec;
    lfm2: "lfm2" => spec, "lfm2moe" => spec_moe;
    mpt: "mpt" => spec;
    nemotron: "nemotron" => spec;
    olmo2: "olmo2" => spec;
    olmoe: "olmoe" => spec;
    openelm: "openelm" => spec;
    phi2: "phi2" => spec;
    phi3: "phi3" => spec;
    qwen: "qwen" => spec;
    qwen2: "qwen2" => spec;
    qwen2moe: "qwen2moe" => spec;
    qwen3: "qwen3" => spec;
    qwen3moe: "qwen3moe" => spec;
    smallthinker: "smallthinker" => spec;
    smollm3: "smollm3" => spec;
    stablelm: "stablelm" => spec;
    starcoder: "starcoder" => spec;
    starcoder2: "starcoder2" => spec;
}

/// The spec of a decoder file.
pub(crate) fn decoder_spec(gguf: &Gguf) -> Result<DecoderSpec, LoadError> {
    let name = gguf.metadata().architecture()?;
    match DECODERS.iter().find(|(known, _)| *known == name) {
        Some((_, read)) => read(&Hyperparameters::new(gguf)?),
        None => Err(LoadError::UnknownArchitecture { name: name.into(), known: supported().collect() }),
    }
}

/// What makes a spec of an encoder file.
type ReadEncoder = fn(&Hyperparameters<'_>) -> Result<EncoderSpec, LoadError>;

/// Encoders by the name in `general.architecture`.
const ENCODERS: &[(&str, ReadEncoder)] = &[("bert", bert::spec), ("nomic-bert", nomic_bert::spec)];

/// The spec of an encoder file; `None` where the file is no encoder's.
pub(crate) fn encoder_spec(gguf: &Gguf) -> Result<Option<EncoderSpec>, LoadError> {
    let name = gguf.metadata().architecture()?;
    let known = ENCODERS.iter().find(|(known, _)| *known == name);
    known.map(|(_, read)| read(&Hyperparameters::new(gguf)?)).transpose()
}

/// Names of the architectures of language models that can be run.
pub fn supported() -> impl Iterator<Item = &'static str> {
    DECODERS.iter().map(|(name, _)| *name)
}

/// Names of the architectures of encoders that can be run.
pub fn supported_encoders() -> impl Iterator<Item = &'static str> {
    ENCODERS.iter().map(|(name, _)| *name)
}
