//! What was measured of a model, in a file beside it.

use std::path::{Path, PathBuf};

use super::error::{FormatFault, SparseError, check_finite};
use super::file::{Reader, Writer, checksum, read_file, write_file};
use crate::gguf::Gguf;

const KIND: &str = "sparsity";
const MAGIC: [u8; 4] = *b"FCSP";
const VERSION: u32 = 3;

/// The most bytes of a tensor that the fingerprint of a model looks at.
const SAMPLE: usize = 256;

/// What [`calibrate`](super::calibrate) measured of a model, and the levels that it found. Kept in a file beside the
/// model's, which stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct SparsityProfile {
    pub(crate) model: u64,
    pub(crate) text: u64,
    pub(crate) tokens: u32,
    pub(crate) dense_perplexity: f32,
    pub(crate) levels: Vec<LevelProfile>,
    /// For each layer that is measured, for each neuron: what a unit of the gate's activation is worth on average.
    pub(crate) importance: Vec<Vec<f32>>,
    pub(crate) screen: Option<ScreenProfile>,
}

/// A level, and what it does to the model, measured on text that its thresholds were not chosen by.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelProfile {
    pub(crate) name: String,
    pub(crate) perplexity: f32,
    pub(crate) divergence: f32,
    pub(crate) neurons_skipped: f32,
    pub(crate) recall: f32,
    pub(crate) largest_recall: f32,
    pub(crate) top_40_recall: f32,
    /// Logits that are computed; zero: all.
    pub(crate) candidates: u32,
    pub(crate) layers: Vec<Thresholds>,
}

/// Below what a neuron is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Thresholds {
    /// For the gate's activation times the neuron's importance; zero: gate and up projection are computed in full.
    pub(crate) gate: f32,
    /// For the activation times the length of the neuron's column of the down projection.
    pub(crate) down: f32,
}

/// A guess of the logits: `bias + panels · (sizes * (basis · (x - mean)))`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScreenProfile {
    /// Directions that the guess has in 4 bits, and those that it has in 2.
    pub(crate) fine: u32,
    pub(crate) rough: u32,
    /// `[dim]`.
    pub(crate) mean: Vec<f32>,
    /// `[fine + rough, dim]` in F16, orthonormal rows; with a proof `[dim, dim]`.
    pub(crate) basis: Vec<u8>,
    /// `[fine + rough]`: how large the output matrix is in each direction.
    pub(crate) sizes: Vec<f32>,
    /// `[vocab]`.
    pub(crate) bias: Vec<f32>,
    /// The output matrix in those directions, in a few bits.
    pub(crate) panels: Vec<u8>,
    pub(crate) proof: Option<ProofProfile>,
}

/// The terms of the bound of a guess's error: what is missing in the refined directions, in the other leading ones, and in
/// the rest; the rounding of the stream in front of either matrix; and of floats.
pub(crate) const PROOF_TERMS: usize = 6;

/// A finer guess, and a bound of what is missing then.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProofProfile {
    /// Leading directions, and those of them that are refined.
    pub(crate) rank: u32,
    pub(crate) lead: u32,
    /// `[vocab, rank]` in Q4_0.
    pub(crate) rows: Vec<u8>,
    /// `[vocab, lead + dim - rank]` in Q4_0.
    pub(crate) rest: Vec<u8>,
    /// `[vocab]`.
    pub(crate) slack: Vec<f32>,
    pub(crate) scales: [f32; PROOF_TERMS],
}

impl LevelProfile {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Perplexity on the measured text; compare with [`SparsityProfile::dense_perplexity`].
    pub fn perplexity(&self) -> f64 {
        self.perplexity.into()
    }

    /// The mean Kullback-Leibler divergence of next-token probabilities from the dense model's, in nats.
    pub fn divergence(&self) -> f64 {
        self.divergence.into()
    }

    /// The share of the neurons that was left out.
    pub fn neurons_skipped(&self) -> f64 {
        self.neurons_skipped.into()
    }

    /// The share of the neurons that the level would keep if all were computed that the gates kept.
    pub fn recall(&self) -> f64 {
        self.recall.into()
    }

    /// How many logits the vocabulary screen computes; `None` where there is none.
    pub fn candidates(&self) -> Option<usize> {
        (self.candidates > 0).then_some(self.candidates as usize)
    }

    /// How often the vocabulary screen kept the largest logit, and what share of the 40 largest; 1 where there is none.
    pub fn screen_recall(&self) -> [f64; 2] {
        [self.largest_recall.into(), self.top_40_recall.into()]
    }
}

impl SparsityProfile {
    /// Where the profile of a model file is looked for: `model.gguf` has `model.gguf.sparsity`.
    pub fn path_for(model: &Path) -> PathBuf {
        let mut name = model.as_os_str().to_owned();
        name.push(".sparsity");
        name.into()
    }

    /// Whether the vocabulary screen can prove which logit is the largest.
    pub fn has_proof(&self) -> bool {
        self.screen.as_ref().is_some_and(|screen| screen.proof.is_some())
    }

    /// The levels.
    pub fn levels(&self) -> &[LevelProfile] {
        &self.levels
    }

    /// Perplexity of the whole model on the text that levels were measured on.
    pub fn dense_perplexity(&self) -> f64 {
        self.dense_perplexity.into()
    }

    /// A hash of the calibration text.
    pub fn text_hash(&self) -> u64 {
        self.text
    }

    /// How many tokens of it were used.
    pub fn tokens(&self) -> usize {
        self.tokens as usize
    }

    /// Fails where the profile was made for another model.
    pub fn check_model(&self, gguf: &Gguf) -> Result<(), SparseError> {
        if self.model == fingerprint(gguf) {
            return Ok(());
        }
        Err(SparseError::Format { what: KIND, fault: FormatFault::OtherModel })
    }

    /// Writes the profile to a file, whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SparseError> {
        write_file(path.as_ref(), &self.to_bytes())
    }

    /// Reads a profile from a file; fails on one that is broken.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SparseError> {
        Self::from_bytes(&read_file(path.as_ref())?)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC, VERSION);
        out.u64(self.model);
        out.u64(self.text);
        out.u32(self.tokens);
        out.floats(&[self.dense_perplexity]);
        out.u32(self.levels.len() as u32);
        for level in &self.levels {
            out.bytes(level.name.as_bytes());
            out.floats(&[level.perplexity, level.divergence, level.neurons_skipped]);
            out.floats(&[level.recall, level.largest_recall, level.top_40_recall]);
            out.u32(level.candidates);
            out.u32(level.layers.len() as u32);
            level.layers.iter().for_each(|layer| out.floats(&[layer.gate, layer.down]));
        }
        out.u32(self.importance.len() as u32);
        for layer in &self.importance {
            out.u32(layer.len() as u32);
            out.floats(layer);
        }
        out.u32(self.screen.is_some().into());
        if let Some(screen) = &self.screen {
            out.u32(screen.fine);
            out.u32(screen.rough);
            for values in [&screen.mean, &screen.sizes, &screen.bias] {
                out.u32(values.len() as u32);
                out.floats(values);
            }
            out.bytes(&screen.basis);
            out.bytes(&screen.panels);
            out.u32(screen.proof.is_some().into());
            if let Some(proof) = &screen.proof {
                out.u32(proof.rank);
                out.u32(proof.lead);
                out.bytes(&proof.rows);
                out.bytes(&proof.rest);
                out.u32(proof.slack.len() as u32);
                out.floats(&proof.slack);
                out.floats(&proof.scales);
            }
        }
        out.finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, SparseError> {
        let bad = |what| SparseError::Format { what: KIND, fault: FormatFault::Value(what) };
        let mut read = Reader::new(bytes, KIND, MAGIC, VERSION)?;
        let (model, text, tokens, dense_perplexity) = (read.u64()?, read.u64()?, read.u32()?, read.f32()?);
        let mut levels = Vec::new();
        for _ in 0..read.u32()? {
            let name = str::from_utf8(read.bytes()?).map_err(|_| bad("a level's name"))?.to_owned();
            let (perplexity, divergence, neurons_skipped) = (read.f32()?, read.f32()?, read.f32()?);
            let (recall, largest_recall, top_40_recall) = (read.f32()?, read.f32()?, read.f32()?);
            let candidates = read.u32()?;
            let count = read.u32()? as usize;
            let values = read.floats(count.saturating_mul(2))?;
            if values.iter().any(|x| x.is_nan() || *x < 0.0) {
                return Err(bad("a threshold"));
            }
            let pairs = values.as_chunks().0.iter();
            let layers = pairs.map(|&[gate, down]| Thresholds { gate, down }).collect();
            levels.push(LevelProfile {
                name,
                perplexity,
                divergence,
                neurons_skipped,
                recall,
                largest_recall,
                top_40_recall,
                candidates,
                layers,
            });
        }
        let vector = |read: &mut Reader<'_>| {
            let count = read.u32()? as usize;
            let values = read.floats(count)?;
            check_finite("a sparsity file", &values)?;
            Ok::<_, SparseError>(values)
        };
        let mut importance = Vec::new();
        for _ in 0..read.u32()? {
            importance.push(vector(&mut read)?);
        }
        let screen = if read.u32()? == 0 {
            None
        } else {
            let (fine, rough) = (read.u32()?, read.u32()?);
            let (mean, sizes, bias) = (vector(&mut read)?, vector(&mut read)?, vector(&mut read)?);
            let (basis, panels) = (read.bytes()?.to_vec(), read.bytes()?.to_vec());
            let proof = if read.u32()? == 0 {
                None
            } else {
                let (rank, lead) = (read.u32()?, read.u32()?);
                let (rows, rest) = (read.bytes()?.to_vec(), read.bytes()?.to_vec());
                let slack = vector(&mut read)?;
                let scales = read.floats(PROOF_TERMS)?;
                check_finite("a sparsity file", &scales)?;
                let scales = scales.try_into().map_err(|_| bad("a bound"))?;
                Some(ProofProfile { rank, lead, rows, rest, slack, scales })
            };
            Some(ScreenProfile { fine, rough, mean, basis, sizes, bias, panels, proof })
        };
        read.finish()?;
        Ok(Self { model, text, tokens, dense_perplexity, levels, importance, screen })
    }
}

/// Tells models apart: names, shapes and formats of all tensors, and the beginnings of their data.
pub(crate) fn fingerprint(gguf: &Gguf) -> u64 {
    let mut seen = Vec::new();
    for tensor in gguf.tensors() {
        seen.extend(tensor.name.as_bytes());
        seen.extend(tensor.format.name().as_bytes());
        seen.extend(tensor.shape.iter().flat_map(|&size| (size as u64).to_le_bytes()));
        let data = gguf.tensor_bytes(tensor);
        seen.extend(&data[..data.len().min(SAMPLE)]);
    }
    checksum(&seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> SparsityProfile {
        let screen = ScreenProfile {
            fine: 0,
            rough: 1,
            mean: vec![0.5; 3],
            basis: vec![9; 6],
            sizes: vec![2.0; 1],
            bias: vec![1.0; 2],
            panels: vec![7; 5],
            proof: Some(ProofProfile {
                rank: 1,
                lead: 1,
                rows: vec![8; 3],
                rest: vec![3; 4],
                slack: vec![1.0; 2],
                scales: [0.5; 6],
            }),
        };
        let level = LevelProfile {
            name: "balanced".into(),
            perplexity: 10.1,
            divergence: 0.01,
            neurons_skipped: 0.3,
            recall: 0.99,
            largest_recall: 1.0,
            top_40_recall: 0.999,
            candidates: 7,
            layers: vec![Thresholds { gate: 0.0, down: 0.25 }, Thresholds::default()],
        };
        SparsityProfile {
            model: 1,
            text: 2,
            tokens: 3,
            dense_perplexity: 10.0,
            levels: vec![level],
            importance: vec![vec![1.0, 2.0], Vec::new()],
            screen: Some(screen),
        }
    }

    #[test]
    fn a_profile_survives_its_file() {
        let path = std::env::temp_dir().join(format!("firecrest-profile-{}", std::process::id()));
        profile().save(&path).unwrap();
        assert_eq!(SparsityProfile::load(&path).unwrap(), profile());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn broken_profiles_are_refused() {
        let bytes = profile().to_bytes();
        for cut in 0..bytes.len() {
            assert!(SparsityProfile::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x20;
            assert!(SparsityProfile::from_bytes(&broken).is_err(), "{at}");
        }
        // A right checksum around a wrong value, and around a length that is not there.
        let mut wrong = profile();
        wrong.levels[0].layers[0].down = f32::NAN;
        let fault = |result| match result {
            Err(SparseError::Format { fault, .. }) => fault,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(SparsityProfile::from_bytes(&wrong.to_bytes())), FormatFault::Value("a threshold"));
        let mut long = Writer::new(MAGIC, VERSION);
        (0..2).for_each(|_| long.u64(0));
        (0..3).for_each(|_| long.u32(0));
        long.u32(1);
        long.u32(u32::MAX);
        assert_eq!(fault(SparsityProfile::from_bytes(&long.finish())), FormatFault::Truncated);
    }

    #[test]
    fn a_profile_belongs_to_one_model() {
        let file = |byte| {
            let mut writer = crate::gguf::Writer::new();
            writer.insert("general.architecture", "llama");
            writer.tensor("output_norm.weight", crate::gguf::Format::F32, &[2], vec![byte; 8]).unwrap();
            let mut file = Vec::new();
            writer.write(&mut file).unwrap();
            Gguf::from_bytes(file).unwrap()
        };
        let profile = SparsityProfile { model: fingerprint(&file(0)), ..profile() };
        assert!(profile.check_model(&file(0)).is_ok());
        let other = profile.check_model(&file(1));
        assert!(matches!(other, Err(SparseError::Format { fault: FormatFault::OtherModel, .. })));
    }
}
