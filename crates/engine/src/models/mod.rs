//! Architectures: from a file's metadata to a spec. The only place that asks for an architecture's name.

mod hyperparameters;

use hyperparameters::Hyperparameters;

use crate::gguf::Gguf;
use crate::nn::{DecoderSpec, LoadError};

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
    powerinfer: "bamboo" => bamboo;
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
        Some((_, read)) => {
            let mut spec = read(&Hyperparameters::new(gguf)?)?;
            if gguf.is_powerinfer() {
                powerinfer::adapt(gguf, &mut spec)?;
            }
            Ok(spec)
        }
        None => Err(LoadError::UnknownArchitecture { name: name.into(), known: supported().collect() }),
    }
}

/// Names of the architectures that can be run.
pub fn supported() -> impl Iterator<Item = &'static str> {
    DECODERS.iter().map(|(name, _)| *name)
}
