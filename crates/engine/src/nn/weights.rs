//! The tensors of a decoder, found in a file by the spec's names and shapes.

use std::fmt;

use super::neurons::NeuronWeights;
use super::spec::{AttentionSpec, DecoderSpec, ExpertsSpec, FfnSpec, LayerSpec, MixerSpec, QkNorm};
use super::tensors::{Linear, Norm, Tensors, optional_vector};
use crate::backend::Matrix;
use crate::gguf::{Gguf, GgufError, MetadataError};
use crate::tokenizer::TokenizerError;

/// The weights of a decoder.
#[derive(Debug)]
pub(crate) struct DecoderWeights {
    /// `[vocab, dim]`.
    pub(crate) embedding: Matrix,
    pub(crate) embedding_norm: Option<Norm>,
    /// `[positions, dim]`.
    pub(crate) positions: Option<Matrix>,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) output_norm: Norm,
    /// `[vocab, dim]`; the embedding again where the file has no matrix of its own.
    pub(crate) output: Linear,
}

/// The weights of one layer.
#[derive(Debug)]
pub(crate) struct LayerWeights {
    pub(crate) mixer_norm: Option<Norm>,
    pub(crate) mixer: MixerWeights,
    pub(crate) mixer_post_norm: Option<Norm>,
    pub(crate) ffn_norm: Option<Norm>,
    pub(crate) ffn: FfnWeights,
    pub(crate) ffn_post_norm: Option<Norm>,
    /// Bytes of the matrices that every token uses.
    pub(crate) bytes: usize,
}

/// The weights of what lets tokens see each other.
#[derive(Debug)]
pub(crate) enum MixerWeights {
    Attention(Box<AttentionWeights>),
    ShortConv {
        /// `[3 * dim, dim]`.
        input: Linear,
        /// `[dim, taps]`.
        taps: Vec<f32>,
        /// `[dim, dim]`.
        output: Linear,
    },
}

/// The weights of attention.
#[derive(Debug)]
pub(crate) struct AttentionWeights {
    /// `[heads * head_dim, dim]`.
    pub(crate) q: Linear,
    /// `[kv_heads * head_dim, dim]`.
    pub(crate) k: Linear,
    /// `[kv_heads * head_dim, dim]`.
    pub(crate) v: Linear,
    pub(crate) q_norm: Option<Norm>,
    pub(crate) k_norm: Option<Norm>,
    /// A slope for each head, with ALiBi.
    pub(crate) slopes: Option<Vec<f32>>,
    /// `[dim, heads * head_dim]`.
    pub(crate) output: Linear,
}

/// The weights of a feed-forward sublayer.
#[derive(Debug)]
pub(crate) enum FfnWeights {
    /// `[hidden, dim]` twice, and `[dim, hidden]`.
    Gated {
        gate: Linear,
        up: Linear,
        down: Linear,
    },
    /// `[hidden, dim]` and `[dim, hidden]`.
    Plain {
        up: Linear,
        down: Linear,
    },
    Experts(Box<ExpertsWeights>),
    Neurons(Box<NeuronWeights>),
}

/// The weights of a mixture of experts.
#[derive(Debug)]
pub(crate) struct ExpertsWeights {
    /// `[experts, dim]`.
    pub(crate) router: Linear,
    /// Added to an expert's weight for the choice.
    pub(crate) bias: Option<Vec<f32>>,
    /// `[hidden, dim]` for each expert.
    pub(crate) gate: Vec<Matrix>,
    /// `[hidden, dim]` for each expert.
    pub(crate) up: Vec<Matrix>,
    /// `[dim, hidden]` for each expert.
    pub(crate) down: Vec<Matrix>,
    pub(crate) shared: Option<SharedWeights>,
}

impl ExpertsWeights {
    /// Bytes of one expert.
    pub(crate) fn expert_bytes(&self) -> usize {
        [&self.gate, &self.up, &self.down].into_iter().filter_map(|m| m.first()).map(Matrix::bytes).sum()
    }
}

/// The weights of an expert for every token.
#[derive(Debug)]
pub(crate) struct SharedWeights {
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Linear,
    /// `[1, dim]`.
    pub(crate) scale: Option<Linear>,
}

impl DecoderWeights {
    /// Finds and checks all tensors.
    pub(crate) fn load(gguf: &Gguf, spec: &DecoderSpec) -> Result<Self, LoadError> {
        let tensors = Tensors { gguf, norm: spec.norm };
        let dim = spec.dim;
        let embedding = tensors.matrix("token_embd.weight", spec.vocab, dim)?;
        let output = if tensors.has("output.weight") {
            tensors.linear("output", spec.vocab, dim)?
        } else {
            Linear { matrix: embedding.clone(), bias: optional_vector(gguf, "output.bias", spec.vocab)? }
        };
        let embedding_norm = spec.embedding.norm.then(|| tensors.norm("token_embd_norm", dim)).transpose()?;
        let positions = spec.embedding.positions;
        let positions =
            positions.map(|rows| tensors.matrix("position_embd.weight", rows, dim)).transpose()?;
        let layers = spec.layers.iter().enumerate().map(|(i, layer)| tensors.layer(i, layer, dim));
        Ok(Self {
            layers: layers.collect::<Result<_, LoadError>>()?,
            output_norm: tensors.norm(spec.output_norm, dim)?,
            embedding,
            embedding_norm,
            positions,
            output,
        })
    }

    /// Bytes of all matrices.
    pub(crate) fn bytes(&self) -> usize {
        let layer = |layer: &LayerWeights| {
            let experts = match &layer.ffn {
                FfnWeights::Experts(experts) => experts.gate.len() * experts.expert_bytes(),
                _ => 0,
            };
            layer.bytes + experts
        };
        let tied = self.output.matrix.shares(&self.embedding);
        let output = if tied { 0 } else { self.output.matrix.bytes() };
        let positions = self.positions.as_ref().map_or(0, Matrix::bytes);
        self.embedding.bytes() + positions + output + self.layers.iter().map(layer).sum::<usize>()
    }
}

impl Tensors<'_> {
    fn layer(&self, i: usize, spec: &LayerSpec, dim: usize) -> Result<LayerWeights, LoadError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = |part: Option<&str>| part.map(|part| self.norm(&name(part), dim)).transpose();
        let mixer = match &spec.mixer {
            MixerSpec::Attention(attention) => {
                MixerWeights::Attention(Box::new(self.attention(i, attention, dim)?))
            }
            MixerSpec::ShortConv { taps } => MixerWeights::ShortConv {
                input: self.linear(&name("shortconv.in_proj"), 3 * dim, dim)?,
                taps: self.values(&name("shortconv.conv.weight"), &[*taps, dim])?,
                output: self.linear(&name("shortconv.out_proj"), dim, dim)?,
            },
        };
        let ffn = match &spec.ffn {
            &FfnSpec::Gated { hidden, .. } => {
                let down = self.linear(&name("ffn_down"), dim, hidden)?;
                if self.has(&name("ffn_gate.weight")) || !self.is_fused(&name("ffn_up.weight"), hidden) {
                    let gate = self.linear(&name("ffn_gate"), hidden, dim)?;
                    FfnWeights::Gated { gate, up: self.linear(&name("ffn_up"), hidden, dim)?, down }
                } else {
                    let [gate, up] = self.fused(&name("ffn_up"), [hidden; 2], dim)?;
                    FfnWeights::Gated { gate, up, down }
                }
            }
            &FfnSpec::Plain { hidden, .. } => FfnWeights::Plain {
                up: self.linear(&name("ffn_up"), hidden, dim)?,
                down: self.linear(&name("ffn_down"), dim, hidden)?,
            },
            FfnSpec::Experts(experts) => FfnWeights::Experts(Box::new(self.experts(i, experts, dim)?)),
            FfnSpec::Neurons(neurons) => FfnWeights::Neurons(Box::new(self.neurons(i, neurons, dim)?)),
        };
        Ok(LayerWeights {
            mixer_norm: norm(spec.norms.mixer)?,
            mixer_post_norm: norm(spec.norms.mixer_post)?,
            ffn_norm: norm(spec.norms.ffn)?,
            ffn_post_norm: norm(spec.norms.ffn_post)?,
            bytes: mixer.bytes() + ffn.common_bytes(),
            mixer,
            ffn,
        })
    }

    /// Whether a matrix has the rows of the gate and of the up projection.
    fn is_fused(&self, name: &str, hidden: usize) -> bool {
        self.gguf.tensor(name).and_then(|info| info.shape.get(1)) == hidden.checked_mul(2).as_ref()
    }

    fn attention(&self, i: usize, spec: &AttentionSpec, dim: usize) -> Result<AttentionWeights, LoadError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let &AttentionSpec { heads, kv_heads, head_dim, .. } = spec;
        let (q_rows, kv_rows) = (heads * head_dim, kv_heads * head_dim);
        let [q, k, v] = if self.has(&name("attn_qkv.weight")) {
            self.fused(&name("attn_qkv"), [q_rows, kv_rows, kv_rows], dim)?
        } else {
            [
                self.linear(&name("attn_q"), q_rows, dim)?,
                self.linear(&name("attn_k"), kv_rows, dim)?,
                self.linear(&name("attn_v"), kv_rows, dim)?,
            ]
        };
        let qk_norm = |part: &str, heads: usize| {
            let norm = |kind| match kind {
                QkNorm::Head => self.norm(&name(part), head_dim),
                QkNorm::EachHead => self.group_norm(&name(part), head_dim, heads),
                QkNorm::Width => self.norm(&name(part), heads * head_dim),
            };
            spec.qk_norm.map(norm).transpose()
        };
        Ok(AttentionWeights {
            q,
            k,
            v,
            q_norm: qk_norm("attn_q_norm", heads)?,
            k_norm: qk_norm("attn_k_norm", kv_heads)?,
            slopes: spec.alibi.map(|max| alibi_slopes(heads, max)),
            output: self.linear(&name("attn_output"), dim, q_rows)?,
        })
    }

    fn experts(&self, i: usize, spec: &ExpertsSpec, dim: usize) -> Result<ExpertsWeights, LoadError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let &ExpertsSpec { count, hidden, .. } = spec;
        // Files from before 2024-04 have a tensor for each expert.
        let matrices = |part: &str, rows: usize, columns: usize| {
            if self.has(&name(&format!("{part}.0.weight"))) {
                let one = |e| self.matrix(&name(&format!("{part}.{e}.weight")), rows, columns);
                (0..count).map(one).collect::<Result<Vec<_>, _>>()
            } else {
                self.matrices(&name(&format!("{part}_exps.weight")), count, rows, columns)
            }
        };
        let shared = |shared: super::spec::SharedExpert| {
            let gate_name = name("ffn_gate_inp_shexp");
            Ok::<_, LoadError>(SharedWeights {
                gate: self.matrix(&name("ffn_gate_shexp.weight"), shared.hidden, dim)?,
                up: self.matrix(&name("ffn_up_shexp.weight"), shared.hidden, dim)?,
                down: self.linear(&name("ffn_down_shexp"), dim, shared.hidden)?,
                scale: shared.gated.then(|| self.linear(&gate_name, 1, dim)).transpose()?,
            })
        };
        Ok(ExpertsWeights {
            router: self.linear(&name("ffn_gate_inp"), count, dim)?,
            bias: optional_vector(self.gguf, &name("exp_probs_b.bias"), count)?,
            gate: matrices("ffn_gate", hidden, dim)?,
            up: matrices("ffn_up", hidden, dim)?,
            down: matrices("ffn_down", dim, hidden)?,
            shared: spec.shared.map(shared).transpose()?,
        })
    }
}

impl MixerWeights {
    fn bytes(&self) -> usize {
        match self {
            Self::Attention(attention) => {
                let AttentionWeights { q, k, v, output, .. } = &**attention;
                [q, k, v, output].map(|linear| linear.matrix.bytes()).iter().sum()
            }
            Self::ShortConv { input, output, .. } => input.matrix.bytes() + output.matrix.bytes(),
        }
    }
}

impl FfnWeights {
    /// Bytes of the matrices that every token uses.
    fn common_bytes(&self) -> usize {
        match self {
            Self::Gated { gate, up, down } => {
                [gate, up, down].map(|linear| linear.matrix.bytes()).iter().sum()
            }
            Self::Plain { up, down } => up.matrix.bytes() + down.matrix.bytes(),
            Self::Neurons(neurons) => neurons.bytes(),
            Self::Experts(experts) => {
                let shared = experts.shared.as_ref().map_or(0, |shared| {
                    let scale = shared.scale.as_ref().map_or(0, |scale| scale.matrix.bytes());
                    shared.gate.bytes() + shared.up.bytes() + shared.down.matrix.bytes() + scale
                });
                experts.router.matrix.bytes() + shared
            }
        }
    }
}

/// The slope of each head (arXiv 2108.12409): a geometric series that ends at `2^-max` for a power of two; else that of
/// the power of two below, and every second one of that above.
fn alibi_slopes(heads: usize, max: f32) -> Vec<f32> {
    let below = 1 << heads.max(1).ilog2();
    let slope = |i: usize, count: usize| (-max * (i + 1) as f32 / count as f32).exp2();
    let first = (0..below).map(|i| slope(i, below));
    first.chain((0..heads - below).map(|i| slope(2 * i, 2 * below))).collect()
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
    /// The level of sparsity can't be had.
    Sparsity(Box<crate::sparse::SparseError>),
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
            Self::Sparsity(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gguf(e) => e.source(),
            Self::Metadata(e) => e.source(),
            Self::Tokenizer(e) => e.source(),
            Self::Sparsity(e) => e.source(),
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
