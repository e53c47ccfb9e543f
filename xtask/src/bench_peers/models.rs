//! The models that are measured, and their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peer::Peer;
use crate::setup;
use crate::shell::{Failure, Result, Run};

/// A model, or the shape of one with random weights.
#[derive(Debug, PartialEq)]
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) parameters: f64,
    /// Bytes that the KV cache takes for a token, in F16.
    kv_bytes: f64,
    source: Source,
}

#[derive(Debug, PartialEq)]
enum Source {
    /// The model of the tests, which the peer's quantizer brings into every format.
    TestModel,
    /// What `firecrest bench --synthetic` makes: all matrices in one format.
    Synthetic,
}

pub(super) static MODELS: [Model; 3] = [
    Model {
        name: "smollm2-135m",
        parameters: 134_515_008.0,
        kv_bytes: (30 * 2 * 192 * 2) as f64,
        source: Source::TestModel,
    },
    Model {
        name: "tinyllama-1.1b",
        parameters: 1.1e9,
        kv_bytes: (22 * 2 * 256 * 2) as f64,
        source: Source::Synthetic,
    },
    Model {
        name: "llama-2-7b",
        parameters: 6.74e9,
        kv_bytes: (32 * 2 * 4096 * 2) as f64,
        source: Source::Synthetic,
    },
];

impl Model {
    pub(super) fn named(name: &str) -> Result<&'static Model> {
        MODELS.iter().find(|model| model.name == name).ok_or_else(|| {
            let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
            Failure::new(format!("no model {name}: there are {}", names.join(", ")))
        })
    }

    /// The format that the model's file has where this one was asked for: mixtures of formats are of real models alone.
    pub(super) fn format<'a>(&self, asked: &'a str) -> &'a str {
        match self.source {
            Source::TestModel => asked,
            Source::Synthetic => {
                asked.strip_suffix("_M").or_else(|| asked.strip_suffix("_S")).unwrap_or(asked)
            }
        }
    }

    /// Whether the caches of so many sequences of so many tokens take at most a quarter of the memory.
    pub(super) fn cache_fits(&self, sequences: usize, tokens: usize, memory_gib: Option<f64>) -> bool {
        let bytes = self.kv_bytes * sequences as f64 * tokens as f64;
        memory_gib.is_none_or(|gib| bytes <= gib * f64::from(1 << 30) / 4.0)
    }

    /// Returns the file in a format, made where it is not there yet.
    pub(super) fn file(&self, format: &str, program: &Path, peer: &Peer) -> Result<PathBuf> {
        match self.source {
            Source::TestModel => peer.quantized(&setup::test_model().map_err(Failure::new)?, format),
            Source::Synthetic => {
                let folder = peer.models();
                fs::create_dir_all(&folder).map_err(Failure::at(&folder))?;
                let file = folder.join(format!("{}.{format}.gguf", self.name));
                if !file.is_file() {
                    // The program gives a file its name when it is whole.
                    let synthetic = format!("{}:{format}", self.name);
                    let write = ["bench", "--synthetic", &synthetic, "--write"];
                    Command::new(program).args(write).arg(&file).run()?;
                }
                Ok(file)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_caches_are_left_out() {
        let fits =
            |name, sequences, tokens| Model::named(name).unwrap().cache_fits(sequences, tokens, Some(24.0));
        assert!(fits("smollm2-135m", 16, 4224) && fits("llama-2-7b", 4, 1152));
        assert!(!fits("llama-2-7b", 16, 4224));
        assert!(Model::named("gpt").is_err());
    }

    #[test]
    fn mixtures_are_of_real_models() {
        assert_eq!(MODELS.each_ref().map(|model| model.format("Q4_K_M")), ["Q4_K_M", "Q4_K", "Q4_K"]);
        assert_eq!(MODELS.each_ref().map(|model| model.format("Q4_1")), ["Q4_1"; 3]);
    }
}
