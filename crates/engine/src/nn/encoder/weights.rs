//! The tensors of an encoder, found in a file by the spec's names and shapes.

use super::spec::{EncoderFfn, EncoderSpec, Positions};
use crate::backend::Matrix;
use crate::gguf::Gguf;
use crate::nn::tensors::{Linear, Norm, Tensors};
use crate::nn::weights::LoadError;

/// The weights of an encoder.
#[derive(Debug)]
pub(crate) struct EncoderWeights {
    /// `[vocab, dim]`.
    pub(super) embedding: Matrix,
    /// `[token_types, dim]`.
    pub(super) token_types: Option<Matrix>,
    /// `[context_length, dim]`.
    pub(super) positions: Option<Matrix>,
    pub(super) embedding_norm: Norm,
    pub(super) layers: Vec<EncoderLayer>,
    /// Makes scores of the first token's state, in cross-encoders.
    pub(super) classifier: Option<Classifier>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct EncoderLayer {
    /// Queries, keys and values: each `[heads * head_dim, dim]`.
    pub(super) qkv: [Linear; 3],
    /// `[dim, heads * head_dim]`.
    pub(super) attention_output: Linear,
    pub(super) attention_norm: Norm,
    /// `[hidden, dim]`; in gated layers.
    pub(super) gate: Option<Linear>,
    /// `[hidden, dim]`.
    pub(super) up: Linear,
    /// `[dim, hidden]`.
    pub(super) down: Linear,
    pub(super) output_norm: Norm,
}

/// `output(tanh(dense x))`.
#[derive(Debug)]
pub(super) struct Classifier {
    /// `[dim, dim]`, or `[labels, dim]` where there is no output.
    pub(super) dense: Option<Linear>,
    /// `[labels, dim]`.
    pub(super) output: Option<Linear>,
}

impl EncoderWeights {
    /// Finds and checks all tensors.
    pub(crate) fn load(gguf: &Gguf, spec: &EncoderSpec) -> Result<Self, LoadError> {
        let tensors = Tensors { gguf, norm: spec.norm };
        let dim = spec.dim;
        let table = |name: &str, rows: usize| tensors.matrix(name, rows, dim).map(Some);
        let layers = (0..spec.layers).map(|i| tensors.encoder_layer(i, spec));
        Ok(Self {
            embedding: tensors.matrix("token_embd.weight", spec.vocab, dim)?,
            token_types: match spec.token_types {
                0 => None,
                types => table("token_types.weight", types)?,
            },
            positions: match spec.positions {
                Positions::Learned => table("position_embd.weight", spec.context_length)?,
                Positions::Rotary(_) => None,
            },
            embedding_norm: tensors.norm("token_embd_norm", dim)?,
            layers: layers.collect::<Result<_, _>>()?,
            classifier: tensors.classifier(dim)?,
        })
    }

    /// Whether the model scores texts.
    pub(crate) fn has_classifier(&self) -> bool {
        self.classifier.is_some()
    }
}

impl Tensors<'_> {
    fn encoder_layer(&self, i: usize, spec: &EncoderSpec) -> Result<EncoderLayer, LoadError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let (dim, width) = (spec.dim, spec.heads * spec.head_dim);
        let (hidden, gate) = match spec.ffn {
            EncoderFfn::Plain { hidden, .. } => (hidden, None),
            EncoderFfn::Gated { hidden, .. } => (hidden, Some(self.linear(&name("ffn_gate"), hidden, dim)?)),
        };
        let qkv = if self.has(&name("attn_qkv.weight")) {
            self.fused(&name("attn_qkv"), [width; 3], dim)?
        } else {
            let linear = |part: &str| self.linear(&name(part), width, dim);
            [linear("attn_q")?, linear("attn_k")?, linear("attn_v")?]
        };
        Ok(EncoderLayer {
            qkv,
            attention_output: self.linear(&name("attn_output"), dim, width)?,
            attention_norm: self.norm(&name("attn_output_norm"), dim)?,
            gate,
            up: self.linear(&name("ffn_up"), hidden, dim)?,
            down: self.linear(&name("ffn_down"), dim, hidden)?,
            output_norm: self.norm(&name("layer_output_norm"), dim)?,
        })
    }

    fn classifier(&self, dim: usize) -> Result<Option<Classifier>, LoadError> {
        let optional = |name: &str, rows: Option<usize>| {
            let Some(info) = self.gguf.tensor(&format!("{name}.weight")) else { return Ok(None) };
            let rows = rows.or(info.shape.get(1).copied()).unwrap_or(1);
            self.linear(name, rows, dim).map(Some)
        };
        let output = optional("cls.output", None)?;
        let dense = optional("cls", output.as_ref().map(|_| dim))?;
        Ok((dense.is_some() || output.is_some()).then_some(Classifier { dense, output }))
    }
}
