//! Families of models: their classes, hyperparameters, and names of tensors.

use super::ConvertError;
use super::config::Config;
use super::hyperparameters::{bert, decoder, lfm2, nomic_bert, roberta};
use crate::gguf::Metadata;

/// Models that are converted alike.
pub(super) struct Family {
    /// `architectures` in `config.json`.
    pub(super) classes: &'static [&'static str],
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// Reads the hyperparameters.
    pub(super) metadata: fn(&Config, &Family, &mut Metadata) -> Result<(), ConvertError>,
    /// Names that are this family's own, before those of all of its kind.
    own: &'static [Rule],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Decoder,
    Encoder,
}

/// A name in the checkpoint, its name in GGUF (`{}` is the number of the layer; nothing where it is left out), and what
/// changes.
type Rule = (&'static str, &'static str, Change);

/// What changes in a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    None,
    /// Norms that are stored as their difference from one.
    AddOne,
    /// Weights that are stored `[in, out]`.
    Transpose,
    /// Rows of queries whose rotary pairs are halves of a head, and become neighbours.
    InterleaveQ,
    /// As for queries, of keys.
    InterleaveK,
    /// Positions that are counted from behind the id of the padding token.
    SkipPadding,
}

use Change::{AddOne, InterleaveK, InterleaveQ, None as Same, SkipPadding, Transpose};

/// Every family.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        classes: &["BertModel", "BertForMaskedLM", "BertForSequenceClassification"],
        architecture: "bert",
        metadata: bert,
        own: &[],
        kind: Kind::Encoder,
    },
    Family {
        classes: &[
            "RobertaModel",
            "RobertaForSequenceClassification",
            "XLMRobertaModel",
            "XLMRobertaForSequenceClassification",
            "CamembertModel",
        ],
        architecture: "bert",
        metadata: roberta,
        own: &[
            ("embeddings.position_embeddings", "position_embd", SkipPadding),
            ("classifier.dense", "cls", Same),
            ("classifier.out_proj", "cls.output", Same),
        ],
        kind: Kind::Encoder,
    },
    Family {
        classes: &["NomicBertModel"],
        architecture: "nomic-bert",
        metadata: nomic_bert,
        own: &[],
        kind: Kind::Encoder,
    },
    Family {
        classes: &["LlamaForCausalLM", "MistralForCausalLM", "LlamaModel", "MistralModel"],
        architecture: "llama",
        metadata: decoder,
        own: &[
            ("layers.{}.self_attn.q_proj", "blk.{}.attn_q", InterleaveQ),
            ("layers.{}.self_attn.k_proj", "blk.{}.attn_k", InterleaveK),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        architecture: "qwen2",
        metadata: decoder,
        own: &[],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        architecture: "qwen3",
        metadata: decoder,
        own: &[],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Phi3ForCausalLM"],
        architecture: "phi3",
        metadata: decoder,
        own: &[],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["PhiForCausalLM"],
        architecture: "phi2",
        metadata: decoder,
        own: &[("final_layernorm", "output_norm", Same)],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["StableLmForCausalLM"],
        architecture: "stablelm",
        metadata: decoder,
        own: &[],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Starcoder2ForCausalLM"],
        architecture: "starcoder2",
        metadata: decoder,
        own: &[],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Olmo2ForCausalLM"],
        architecture: "olmo2",
        metadata: decoder,
        own: &[
            ("layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm", Same),
            ("layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", Same),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["GemmaForCausalLM", "GemmaModel"],
        architecture: "gemma",
        metadata: decoder,
        own: &[
            ("norm", "output_norm", AddOne),
            ("layers.{}.input_layernorm", "blk.{}.attn_norm", AddOne),
            ("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", AddOne),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Gemma2ForCausalLM"],
        architecture: "gemma2",
        metadata: decoder,
        own: GEMMA,
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Gemma3ForCausalLM", "Gemma3TextModel"],
        architecture: "gemma3",
        metadata: decoder,
        own: GEMMA,
        kind: Kind::Decoder,
    },
    Family {
        classes: &["NemotronForCausalLM"],
        architecture: "nemotron",
        metadata: decoder,
        own: &[
            ("norm", "output_norm", AddOne),
            ("layers.{}.input_layernorm", "blk.{}.attn_norm", AddOne),
            ("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", AddOne),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["ArceeForCausalLM"],
        architecture: "arcee",
        metadata: decoder,
        own: &[
            ("layers.{}.self_attn.q_proj", "blk.{}.attn_q", InterleaveQ),
            ("layers.{}.self_attn.k_proj", "blk.{}.attn_k", InterleaveK),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["GraniteForCausalLM"],
        architecture: "granite",
        metadata: decoder,
        own: &[
            ("layers.{}.self_attn.q_proj", "blk.{}.attn_q", InterleaveQ),
            ("layers.{}.self_attn.k_proj", "blk.{}.attn_k", InterleaveK),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["Lfm2ForCausalLM"],
        architecture: "lfm2",
        metadata: lfm2,
        own: &[
            ("embedding_norm", "token_embd_norm", Same),
            ("layers.{}.operator_norm", "blk.{}.attn_norm", Same),
            ("layers.{}.ffn_norm", "blk.{}.ffn_norm", Same),
            ("layers.{}.self_attn.q_layernorm", "blk.{}.attn_q_norm", Same),
            ("layers.{}.self_attn.k_layernorm", "blk.{}.attn_k_norm", Same),
            ("layers.{}.self_attn.out_proj", "blk.{}.attn_output", Same),
            ("layers.{}.conv.conv", "blk.{}.shortconv.conv", Same),
            ("layers.{}.conv.in_proj", "blk.{}.shortconv.in_proj", Same),
            ("layers.{}.conv.out_proj", "blk.{}.shortconv.out_proj", Same),
            ("layers.{}.feed_forward.w1", "blk.{}.ffn_gate", Same),
            ("layers.{}.feed_forward.w2", "blk.{}.ffn_down", Same),
            ("layers.{}.feed_forward.w3", "blk.{}.ffn_up", Same),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["SmolLM3ForCausalLM"],
        architecture: "smollm3",
        metadata: decoder,
        own: &[
            ("layers.{}.self_attn.q_proj", "blk.{}.attn_q", InterleaveQ),
            ("layers.{}.self_attn.k_proj", "blk.{}.attn_k", InterleaveK),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["GPT2LMHeadModel", "GPT2Model"],
        architecture: "gpt2",
        metadata: decoder,
        own: &[
            ("wte", "token_embd", Same),
            ("wpe", "position_embd", Same),
            ("h.{}.ln_1", "blk.{}.attn_norm", Same),
            ("h.{}.ln_2", "blk.{}.ffn_norm", Same),
            ("h.{}.attn.c_attn", "blk.{}.attn_qkv", Transpose),
            ("h.{}.attn.c_proj", "blk.{}.attn_output", Transpose),
            ("h.{}.mlp.c_fc", "blk.{}.ffn_up", Transpose),
            ("h.{}.mlp.c_proj", "blk.{}.ffn_down", Transpose),
            ("h.{}.attn.bias", "", Same),
            ("h.{}.attn.masked_bias", "", Same),
            ("ln_f", "output_norm", Same),
        ],
        kind: Kind::Decoder,
    },
    Family {
        classes: &["GPTJForCausalLM"],
        architecture: "gptj",
        metadata: decoder,
        own: &[
            ("wte", "token_embd", Same),
            ("h.{}.ln_1", "blk.{}.attn_norm", Same),
            ("h.{}.attn.q_proj", "blk.{}.attn_q", Same),
            ("h.{}.attn.k_proj", "blk.{}.attn_k", Same),
            ("h.{}.attn.v_proj", "blk.{}.attn_v", Same),
            ("h.{}.attn.out_proj", "blk.{}.attn_output", Same),
            ("h.{}.mlp.fc_in", "blk.{}.ffn_up", Same),
            ("h.{}.mlp.fc_out", "blk.{}.ffn_down", Same),
            ("h.{}.attn.bias", "", Same),
            ("h.{}.attn.masked_bias", "", Same),
            ("ln_f", "output_norm", Same),
        ],
        kind: Kind::Decoder,
    },
];

const GEMMA: &[Rule] = &[
    ("norm", "output_norm", AddOne),
    ("layers.{}.input_layernorm", "blk.{}.attn_norm", AddOne),
    ("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", AddOne),
    ("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", AddOne),
    ("layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm", AddOne),
    ("layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm", AddOne),
    ("layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", AddOne),
];

const DECODER: &[Rule] = &[
    ("embed_tokens", "token_embd", Same),
    ("norm", "output_norm", Same),
    ("lm_head", "output", Same),
    ("layers.{}.input_layernorm", "blk.{}.attn_norm", Same),
    ("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", Same),
    ("layers.{}.self_attn.q_proj", "blk.{}.attn_q", Same),
    ("layers.{}.self_attn.k_proj", "blk.{}.attn_k", Same),
    ("layers.{}.self_attn.v_proj", "blk.{}.attn_v", Same),
    ("layers.{}.self_attn.o_proj", "blk.{}.attn_output", Same),
    ("layers.{}.self_attn.dense", "blk.{}.attn_output", Same),
    ("layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv", Same),
    ("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Same),
    ("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Same),
    ("layers.{}.self_attn.rotary_emb.inv_freq", "", Same),
    ("layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", Same),
    ("layers.{}.mlp.up_proj", "blk.{}.ffn_up", Same),
    ("layers.{}.mlp.down_proj", "blk.{}.ffn_down", Same),
    ("layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up", Same),
    ("layers.{}.mlp.c_fc", "blk.{}.ffn_up", Same),
    ("layers.{}.mlp.c_proj", "blk.{}.ffn_down", Same),
    ("layers.{}.mlp.fc1", "blk.{}.ffn_up", Same),
    ("layers.{}.mlp.fc2", "blk.{}.ffn_down", Same),
];

const ENCODER: &[Rule] = &[
    ("embeddings.word_embeddings", "token_embd", Same),
    ("embeddings.position_embeddings", "position_embd", Same),
    ("embeddings.token_type_embeddings", "token_types", Same),
    ("embeddings.LayerNorm", "token_embd_norm", Same),
    ("embeddings.position_ids", "", Same),
    ("encoder.layer.{}.attention.self.query", "blk.{}.attn_q", Same),
    ("encoder.layer.{}.attention.self.key", "blk.{}.attn_k", Same),
    ("encoder.layer.{}.attention.self.value", "blk.{}.attn_v", Same),
    ("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output", Same),
    ("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm", Same),
    ("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up", Same),
    ("encoder.layer.{}.output.dense", "blk.{}.ffn_down", Same),
    ("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm", Same),
    ("emb_ln", "token_embd_norm", Same),
    ("encoder.layers.{}.attn.Wqkv", "blk.{}.attn_qkv", Same),
    ("encoder.layers.{}.attn.out_proj", "blk.{}.attn_output", Same),
    ("encoder.layers.{}.norm1", "blk.{}.attn_output_norm", Same),
    ("encoder.layers.{}.norm2", "blk.{}.layer_output_norm", Same),
    ("encoder.layers.{}.mlp.fc11", "blk.{}.ffn_up", Same),
    ("encoder.layers.{}.mlp.fc12", "blk.{}.ffn_gate", Same),
    ("encoder.layers.{}.mlp.fc2", "blk.{}.ffn_down", Same),
];

/// Parts of a checkpoint that pre-train a model and do not run it.
const HEADS: &[&str] = &["cls.predictions.", "cls.seq_relationship."];

impl Family {
    /// The family that `config.json` names.
    pub(super) fn of(config: &Config) -> Result<&'static Self, ConvertError> {
        let classes = config.get("architectures").and_then(|classes| classes.as_array());
        let class = classes.and_then(|classes| classes.first()?.as_str());
        let class = class.ok_or_else(|| config.wrong("architectures", "a list of one class"))?;
        let found = FAMILIES.iter().find(|family| family.classes.contains(&class));
        found.ok_or_else(|| ConvertError::UnknownArchitecture {
            name: class.into(),
            known: super::supported().collect(),
        })
    }

    pub(super) fn is_encoder(&self) -> bool {
        self.kind == Kind::Encoder
    }

    /// The full key of a hyperparameter.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }
}

/// The name of a tensor in GGUF and what changes in it; nothing where it is left out.
///
/// `scores`: whether the model has a classifier.
pub(super) fn target(
    family: &Family,
    name: &str,
    scores: bool,
) -> Result<Option<(String, Change)>, ConvertError> {
    let unknown = || ConvertError::UnknownTensor { tensor: name.into() };
    if HEADS.iter().any(|head| name.starts_with(head)) {
        return Ok(None);
    }
    let mut short = name;
    for prefix in ["model.", "bert.", "roberta.", "transformer."] {
        short = short.strip_prefix(prefix).unwrap_or(short);
    }
    // Some old checkpoints say gamma and beta.
    let (stem, suffix) = match short.rsplit_once('.') {
        Some((stem, "weight" | "gamma")) => (stem, ".weight"),
        Some((stem, "bias" | "beta")) => (stem, ".bias"),
        _ => (short, ""),
    };
    match stem {
        // Only a classifier behind it makes use of the pooler.
        "pooler.dense" if family.is_encoder() => {
            return Ok(scores.then(|| (format!("cls{suffix}"), Same)));
        }
        "classifier" if family.is_encoder() => return Ok(Some((format!("cls.output{suffix}"), Same))),
        _ => {}
    }
    let (pattern, layer) = numbered(stem);
    let common = if family.is_encoder() { ENCODER } else { DECODER };
    // Buffers such as `attn.bias` are named whole, weights without their suffix.
    let whole = numbered(short).0;
    let mut rules = family.own.iter().chain(common);
    let rule = rules.find(|(from, to, _)| *from == pattern || to.is_empty() && *from == whole);
    let &(_, to, change) = rule.ok_or_else(unknown)?;
    if to.is_empty() {
        return Ok(None);
    }
    let of_weights = matches!(change, Transpose | AddOne);
    let change = if suffix == ".bias" && of_weights { Same } else { change };
    Ok(Some((format!("{}{suffix}", to.replace("{}", layer)), change)))
}

/// A name with `{}` for its number, and the number.
fn numbered(name: &str) -> (String, &str) {
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = name.split('.').find(is_number).unwrap_or_default();
    let parts: Vec<_> = name.split('.').map(|part| if is_number(&part) { "{}" } else { part }).collect();
    (parts.join("."), number)
}
