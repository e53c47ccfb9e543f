//! The tensors of a decoder, found in a file by the spec's names and shapes.

use std::fmt;

use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops;

use super::spec::{DecoderSpec, FfnSpec, NormSpec};
use crate::backend::{Buffer, Matrix, Output};
use crate::gguf::{Gguf, GgufError, MetadataError, TensorInfo};
use crate::tokenizer::TokenizerError;

/// The most bytes that a vector of weights may take as floats: what a hostile file can make us allocate at once.
const MAX_VECTOR: usize = 1 << 24;

/// A norm with its weights.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    spec: NormSpec,
    weight: Vec<f32>,
}

impl Norm {
    /// Values that it normalises together.
    pub(crate) fn len(&self) -> usize {
        self.weight.len()
    }

    /// Normalises one token, or one head of it.
    pub(crate) fn apply(&self, isa: IsaKind, x: &[f32], out: &mut [f32]) {
        match self.spec {
            NormSpec::Rms { eps } => ops::rms_norm(isa, x, &self.weight, eps, out),
        }
    }
}

/// A matrix and what is added to its product.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Linear {
    /// The product with an input, into `out`.
    pub(crate) fn onto<'a>(&'a self, out: &'a mut Buffer) -> Output<'a> {
        Output { matrix: &self.matrix, bias: self.bias.as_deref(), out }
    }
}

/// The weights of a decoder.
#[derive(Debug)]
pub(crate) struct DecoderWeights {
    /// `[vocab, dim]`.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) output_norm: Norm,
    /// `[vocab, dim]`; the embedding again where the file has no matrix of its own.
    pub(crate) output: Linear,
}

/// The weights of one layer.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    pub(crate) attention_norm: Norm,
    /// `[heads * head_dim, dim]`.
    pub(crate) q: Linear,
    /// `[kv_heads * head_dim, dim]`.
    pub(crate) k: Linear,
    /// `[kv_heads * head_dim, dim]`.
    pub(crate) v: Linear,
    /// `[head_dim]`.
    pub(crate) q_norm: Option<Norm>,
    /// `[head_dim]`.
    pub(crate) k_norm: Option<Norm>,
    /// `[dim, heads * head_dim]`.
    pub(crate) attention_output: Linear,
    pub(crate) ffn_norm: Norm,
    pub(crate) ffn: FfnWeights,
}

/// The weights of a feed-forward sublayer.
#[derive(Debug)]
pub(crate) enum FfnWeights {
    /// `[hidden, dim]` twice, and `[dim, hidden]`.
    Gated { gate: Matrix, up: Matrix, down: Linear },
}

impl DecoderWeights {
    /// Finds and checks all tensors.
    pub(crate) fn load(gguf: &Gguf, spec: &DecoderSpec) -> Result<Self, LoadError> {
        let tensors = Tensors { gguf, norm: spec.norm };
        let dim = spec.dim;
        let embedding = tensors.matrix("token_embd.weight", spec.vocab, dim)?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => tensors.linear("output", spec.vocab, dim)?,
            None => Linear { matrix: embedding.clone(), bias: None },
        };
        let layers = spec.layers.iter().enumerate().map(|(i, layer)| {
            let name = |part: &str| format!("blk.{i}.{part}");
            let attention = &layer.attention;
            let (q_rows, kv_rows) =
                (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
            Ok(LayerWeights {
                attention_norm: tensors.norm(&name("attn_norm"), dim)?,
                q: tensors.linear(&name("attn_q"), q_rows, dim)?,
                k: tensors.linear(&name("attn_k"), kv_rows, dim)?,
                v: tensors.linear(&name("attn_v"), kv_rows, dim)?,
                q_norm: tensors.optional_norm(&name("attn_q_norm"), attention.head_dim)?,
                k_norm: tensors.optional_norm(&name("attn_k_norm"), attention.head_dim)?,
                attention_output: tensors.linear(&name("attn_output"), dim, q_rows)?,
                ffn_norm: tensors.norm(&name("ffn_norm"), dim)?,
                ffn: match layer.ffn {
                    FfnSpec::Gated { hidden, .. } => FfnWeights::Gated {
                        gate: tensors.matrix(&name("ffn_gate.weight"), hidden, dim)?,
                        up: tensors.matrix(&name("ffn_up.weight"), hidden, dim)?,
                        down: tensors.linear(&name("ffn_down"), dim, hidden)?,
                    },
                },
            })
        });
        Ok(Self {
            layers: layers.collect::<Result<_, LoadError>>()?,
            output_norm: tensors.norm("output_norm", dim)?,
            embedding,
            output,
        })
    }
}

/// Reads a tensor of `len` values as floats, if there is one.
pub(crate) fn optional_vector(gguf: &Gguf, name: &str, len: usize) -> Result<Option<Vec<f32>>, LoadError> {
    let Some(info) = gguf.tensor(name) else { return Ok(None) };
    check_shape(info, &[len])?;
    if len > MAX_VECTOR {
        return Err(LoadError::Shape { tensor: name.into(), expected: vec![MAX_VECTOR], found: vec![len] });
    }
    let mut values = vec![0.0; len];
    info.format.dequantize(&gguf.tensor_bytes(info), &mut values);
    Ok(Some(values))
}

/// Looks tensors up.
struct Tensors<'a> {
    gguf: &'a Gguf,
    norm: NormSpec,
}

impl Tensors<'_> {
    fn find(&self, name: &str) -> Result<&TensorInfo, LoadError> {
        self.gguf.tensor(name).ok_or_else(|| LoadError::MissingTensor { tensor: name.into() })
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        let info = self.find(name)?;
        check_shape(info, &[columns, rows])?;
        Matrix::new(self.gguf.tensor_bytes(info), info.format, rows, columns)
            .ok_or_else(|| LoadError::MissingTensor { tensor: name.into() })
    }

    fn linear(&self, name: &str, rows: usize, columns: usize) -> Result<Linear, LoadError> {
        let matrix = self.matrix(&format!("{name}.weight"), rows, columns)?;
        Ok(Linear { matrix, bias: optional_vector(self.gguf, &format!("{name}.bias"), rows)? })
    }

    fn norm(&self, name: &str, len: usize) -> Result<Norm, LoadError> {
        self.optional_norm(name, len)?
            .ok_or_else(|| LoadError::MissingTensor { tensor: format!("{name}.weight") })
    }

    fn optional_norm(&self, name: &str, len: usize) -> Result<Option<Norm>, LoadError> {
        let Some(weight) = optional_vector(self.gguf, &format!("{name}.weight"), len)? else {
            return Ok(None);
        };
        Ok(Some(Norm { spec: self.norm, weight }))
    }
}

/// Compares a shape, fastest dimension first; missing dimensions count as 1.
fn check_shape(info: &TensorInfo, expected: &[usize]) -> Result<(), LoadError> {
    let dims = info.shape.len().max(expected.len());
    let at = |shape: &[usize], i: usize| shape.get(i).copied().unwrap_or(1);
    if (0..dims).all(|i| at(&info.shape, i) == at(expected, i)) {
        return Ok(());
    }
    Err(LoadError::Shape {
        tensor: info.name.clone(),
        expected: expected.to_vec(),
        found: info.shape.clone(),
    })
}

/// Why a file cannot be run.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The file itself is broken.
    Gguf(GgufError),
    /// A key is missing, or has a value that cannot be.
    Metadata(MetadataError),
    /// The tokenizer is broken.
    Tokenizer(TokenizerError),
    /// `general.architecture` names something else than what we can run.
    UnknownArchitecture {
        /// The name.
        name: String,
        /// What we can run.
        known: Vec<&'static str>,
    },
    /// A value of the metadata is out of range, or contradicts another.
    Hyperparameter {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What it has to be.
        expected: String,
    },
    /// A tensor is not in the file.
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape than the metadata say. Shapes are as in the file, fastest dimension first.
    Shape {
        /// Its name.
        tensor: String,
        /// The shape it should have.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// The vocabulary has more tokens than the embedding has rows.
    Vocabulary {
        /// Tokens in the vocabulary.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The KV cache for this context would not fit into memory.
    Context {
        /// Positions asked for.
        capacity: usize,
        /// Bytes that would take; `None` where the number overflows.
        bytes: Option<usize>,
    },
    /// `FIRECREST_ISA` names what this processor does not have.
    Isa(crate::backend::IsaError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf(e) => e.fmt(f),
            Self::Metadata(e) => e.fmt(f),
            Self::Tokenizer(e) => e.fmt(f),
            Self::UnknownArchitecture { name, known } => {
                write!(f, "architecture {name:?} is not supported; supported are {}", known.join(", "))
            }
            Self::Hyperparameter { key, value, expected } => {
                write!(f, "{key} is {value}, expected {expected}")
            }
            Self::MissingTensor { tensor } => write!(f, "tensor {tensor} is missing"),
            Self::Shape { tensor, expected, found } => {
                write!(f, "tensor {tensor} has shape {found:?}, expected {expected:?}")
            }
            Self::Vocabulary { tokens, rows } => {
                write!(f, "the vocabulary has {tokens} tokens, the embedding {rows} rows")
            }
            Self::Context { capacity, bytes: Some(bytes) } => {
                write!(f, "a context of {capacity} positions takes {bytes} bytes, which cannot be had")
            }
            Self::Context { capacity, bytes: None } => {
                write!(f, "a context of {capacity} positions is absurd")
            }
            Self::Isa(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gguf(e) => e.source(),
            Self::Metadata(e) => e.source(),
            Self::Tokenizer(e) => e.source(),
            _ => None,
        }
    }
}

impl From<GgufError> for LoadError {
    fn from(e: GgufError) -> Self {
        Self::Gguf(e)
    }
}
impl From<MetadataError> for LoadError {
    fn from(e: MetadataError) -> Self {
        Self::Metadata(e)
    }
}
impl From<TokenizerError> for LoadError {
    fn from(e: TokenizerError) -> Self {
        Self::Tokenizer(e)
    }
}
impl From<crate::backend::IsaError> for LoadError {
    fn from(e: crate::backend::IsaError) -> Self {
        Self::Isa(e)
    }
}
