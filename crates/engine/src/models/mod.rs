//! Architectures: from a file's metadata to a spec. The only place that asks for an architecture's name.

mod arcee;
mod bert;
mod bloom;
mod cohere2;
mod command_r;
mod ernie4_5;
mod exaone;
mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod glm4;
mod gpt2;
mod gptj;
mod gptneox;
mod granite;
mod hyperparameters;
mod internlm2;
mod lfm2;
mod llama;
mod mpt;
mod nemotron;
mod nomic_bert;
mod olmo2;
mod olmoe;
mod openelm;
mod phi2;
mod phi3;
mod powerinfer;
mod qwen;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen3moe;
mod seed_oss;
mod smallthinker;
mod smollm3;
mod stablelm;
mod starcoder;
mod starcoder2;

use hyperparameters::Hyperparameters;

use crate::gguf::Gguf;
use crate::nn::{DecoderSpec, EncoderSpec, LoadError};

/// What makes a spec of a file.
type Read = fn(&Hyperparameters<'_>) -> Result<DecoderSpec, LoadError>;

/// Architectures by the name in `general.architecture`.
const DECODERS: &[(&str, Read)] = &[
    ("llama", llama::spec),
    ("arcee", arcee::spec),
    ("bloom", bloom::spec),
    ("cohere2", cohere2::spec),
    ("command-r", command_r::spec),
    ("ernie4_5", ernie4_5::spec),
    ("exaone", exaone::spec),
    ("falcon", falcon::spec),
    ("gemma", gemma::spec),
    ("gemma2", gemma2::spec),
    ("gemma3", gemma3::spec),
    ("glm4", glm4::spec),
    ("gpt2", gpt2::spec),
    ("gptj", gptj::spec),
    ("gptneox", gptneox::spec),
    ("granite", granite::spec),
    ("granitemoe", granite::spec),
    ("internlm2", internlm2::spec),
    ("lfm2", lfm2::spec),
    ("lfm2moe", lfm2::spec_moe),
    ("mpt", mpt::spec),
    ("nemotron", nemotron::spec),
    ("olmo2", olmo2::spec),
    ("olmoe", olmoe::spec),
    ("openelm", openelm::spec),
    ("phi2", phi2::spec),
    ("phi3", phi3::spec),
    ("bamboo", powerinfer::bamboo),
    ("qwen", qwen::spec),
    ("qwen2", qwen2::spec),
    ("qwen2moe", qwen2moe::spec),
    ("qwen3", qwen3::spec),
    ("qwen3moe", qwen3moe::spec),
    ("seed_oss", seed_oss::spec),
    ("smallthinker", smallthinker::spec),
    ("smollm3", smollm3::spec),
    ("stablelm", stablelm::spec),
    ("starcoder", starcoder::spec),
    ("starcoder2", starcoder2::spec),
];

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
