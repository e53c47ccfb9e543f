//! Families of models: their classes, hyperparameters, and names of tensors.

use std::f32::consts::TAU;
use std::path::Path;

use super::ConvertError;
use super::config::Config;
use crate::embed::Pooling;
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
    fn key(&self, name: &str) -> String {
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
    let change = if suffix == ".bias" && change == Transpose { Same } else { change };
    Ok(Some((format!("{}{suffix}", to.replace("{}", layer)), change)))
}

/// A name with `{}` for its number, and the number.
fn numbered(name: &str) -> (String, &str) {
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = name.split('.').find(is_number).unwrap_or_default();
    let parts: Vec<_> = name.split('.').map(|part| if is_number(&part) { "{}" } else { part }).collect();
    (parts.join("."), number)
}

fn bert(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
    if config.opt_str("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return Err(config.wrong("position_embedding_type", "absolute"));
    }
    match config.opt_str("hidden_act")? {
        None | Some("gelu" | "gelu_new" | "gelu_pytorch_tanh") => {}
        Some(_) => return Err(config.wrong("hidden_act", "gelu")),
    }
    meta.insert(family.key("context_length"), config.count(&["max_position_embeddings"])?);
    meta.insert(family.key("embedding_length"), config.count(&["hidden_size"])?);
    meta.insert(family.key("block_count"), config.count(&["num_hidden_layers"])?);
    meta.insert(family.key("feed_forward_length"), config.count(&["intermediate_size"])?);
    meta.insert(family.key("attention.head_count"), config.count(&["num_attention_heads"])?);
    meta.insert(
        family.key("attention.layer_norm_epsilon"),
        config.opt_number(&["layer_norm_eps"])?.unwrap_or(1e-12),
    );
    meta.insert(family.key("attention.causal"), false);
    Ok(())
}

/// As BERT; positions are counted from behind the id of the padding token.
fn roberta(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
    bert(config, family, meta)?;
    let positions = config.count(&["max_position_embeddings"])?;
    let length = positions.checked_sub(padding(config)?).filter(|&length| length > 0);
    let length =
        length.ok_or_else(|| config.wrong("max_position_embeddings", "more than the padding token's id"))?;
    meta.insert(family.key("context_length"), length);
    Ok(())
}

/// Rows of RoBERTa's positions that no token has.
pub(super) fn padding(config: &Config) -> Result<u32, ConvertError> {
    Ok(config.opt_count(&["pad_token_id"])?.unwrap_or(1).saturating_add(1))
}

fn nomic_bert(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
    if config.opt_str("activation_function")? != Some("swiglu") {
        return Err(config.wrong("activation_function", "swiglu"));
    }
    if config.flag("qkv_proj_bias") || config.flag("mlp_fc1_bias") || config.flag("mlp_fc2_bias") {
        return Err(config.wrong("qkv_proj_bias", "no biases"));
    }
    meta.insert(family.key("context_length"), config.count(&["max_trained_positions", "n_positions"])?);
    meta.insert(family.key("embedding_length"), config.count(&["n_embd"])?);
    meta.insert(family.key("block_count"), config.count(&["n_layer"])?);
    meta.insert(family.key("feed_forward_length"), config.count(&["n_inner"])?);
    meta.insert(family.key("attention.head_count"), config.count(&["n_head"])?);
    meta.insert(family.key("attention.layer_norm_epsilon"), config.number(&["layer_norm_epsilon"])?);
    meta.insert(family.key("attention.causal"), false);
    meta.insert(family.key("rope.freq_base"), config.number(&["rotary_emb_base"])?);
    Ok(())
}

/// Hyperparameters under the names that nearly all decoders use.
fn decoder(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
    let dim = config.count(&["hidden_size", "n_embd"])?;
    let heads = config.count(&["num_attention_heads", "n_head"])?;
    meta.insert(family.key("context_length"), config.count(&["max_position_embeddings", "n_positions"])?);
    meta.insert(family.key("embedding_length"), dim);
    meta.insert(family.key("block_count"), config.count(&["num_hidden_layers", "n_layer"])?);
    let hidden = config.opt_count(&["intermediate_size", "n_inner"])?;
    meta.insert(family.key("feed_forward_length"), hidden.unwrap_or(4 * dim));
    meta.insert(family.key("attention.head_count"), heads);
    let kv_heads = config.opt_count(&["num_key_value_heads"])?.unwrap_or(heads);
    meta.insert(family.key("attention.head_count_kv"), kv_heads);
    if let Some(vocab) = config.opt_count(&["vocab_size"])? {
        meta.insert(family.key("vocab_size"), vocab);
    }
    if let Some(eps) = config.opt_number(&["rms_norm_eps"])? {
        meta.insert(family.key("attention.layer_norm_rms_epsilon"), eps);
    }
    if let Some(eps) =
        config.opt_number(&["layer_norm_eps", "norm_epsilon", "norm_eps", "layer_norm_epsilon"])?
    {
        meta.insert(family.key("attention.layer_norm_epsilon"), eps);
    }
    if let Some(window) = config.opt_count(&["sliding_window"])? {
        if config.get("use_sliding_window").is_none_or(|used| used.as_bool() == Some(true)) {
            meta.insert(family.key("attention.sliding_window"), window);
        }
    }
    for (name, key) in [
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ] {
        if let Some(cap) = config.opt_number(&[name])? {
            meta.insert(family.key(key), cap);
        }
    }
    if family.architecture == "stablelm" {
        meta.insert(family.key("use_parallel_residual"), config.flag("use_parallel_residual"));
    }
    if family.architecture != "gpt2" {
        rope(config, family, dim / heads, meta)?;
    }
    Ok(())
}

fn rope(config: &Config, family: &Family, head_dim: u32, meta: &mut Metadata) -> Result<(), ConvertError> {
    let own = config.opt_count(&["head_dim"])?;
    let head_dim = own.unwrap_or(head_dim);
    if own.is_some() {
        meta.insert(family.key("attention.key_length"), head_dim);
        meta.insert(family.key("attention.value_length"), head_dim);
    }
    let share = config.opt_number(&["partial_rotary_factor", "rope_parameters.partial_rotary_factor"])?;
    let rotated = (head_dim as f32 * share.unwrap_or(1.0)) as u32;
    meta.insert(family.key("rope.dimension_count"), rotated);
    if let Some(base) = config.opt_number(&["rope_theta", "rope_parameters.rope_theta"])? {
        meta.insert(family.key("rope.freq_base"), base);
    }
    let Some((section, kind)) = scaling(config) else { return Ok(()) };
    let number = |name: &str| config.number(&[&format!("{section}.{name}")]);
    match kind {
        "linear" => {
            meta.insert(family.key("rope.scaling.type"), "linear");
            meta.insert(family.key("rope.scaling.factor"), number("factor")?);
        }
        "yarn" => {
            meta.insert(family.key("rope.scaling.type"), "yarn");
            meta.insert(family.key("rope.scaling.factor"), number("factor")?);
            let original = config.count(&[&format!("{section}.original_max_position_embeddings")])?;
            meta.insert(family.key("rope.scaling.original_context_length"), original);
        }
        // Factors of a tensor: see `rope_factors`.
        "llama3" | "default" => {}
        _ => return Err(config.wrong(&format!("{section}.rope_type"), "default, linear, yarn or llama3")),
    }
    Ok(())
}

/// The section that stretches rotary positions, and how.
fn scaling(config: &Config) -> Option<(&'static str, &str)> {
    ["rope_scaling", "rope_parameters"].into_iter().find_map(|section| {
        let kind = |name: &str| config.get(&format!("{section}.{name}"))?.as_str();
        Some((section, kind("rope_type").or(kind("type"))?))
    })
}

/// The divisors of rotary frequencies in LLaMA 3.1 and later: low frequencies are divided by a factor, high ones stay,
/// those between are mixed.
pub(super) fn rope_factors(config: &Config) -> Result<Option<Vec<f32>>, ConvertError> {
    let Some((section, "llama3")) = scaling(config) else { return Ok(None) };
    let number = |name: &str| config.number(&[&format!("{section}.{name}")]);
    let (factor, low, high) = (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
    let original = number("original_max_position_embeddings")?;
    let base = config.opt_number(&["rope_theta", "rope_parameters.rope_theta"])?.unwrap_or(10_000.0);
    let dims = match config.opt_count(&["head_dim"])? {
        Some(head_dim) => head_dim,
        None => config.count(&["hidden_size"])? / config.count(&["num_attention_heads"])?,
    };
    let divisor = |i: u32| {
        let wavelength = TAU * base.powf(2.0 * i as f32 / dims as f32);
        let turns = original / wavelength;
        if turns > high {
            1.0
        } else if turns < low {
            factor
        } else {
            let smooth = (turns - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok(Some((0..dims / 2).map(divisor).collect()))
}

/// What sentence-transformers adds to a model: pooling, the longest text, prefixes.
pub(super) fn sentence_transformers(
    dir: &Path,
    family: &Family,
    meta: &mut Metadata,
) -> Result<(), ConvertError> {
    if let Some(pooling) = pooling(dir)? {
        meta.insert(family.key("pooling_type"), pooling.to_gguf());
    }
    if let Some(config) = Config::read_optional(dir, "sentence_bert_config.json")?
        && let Some(limit) = config.opt_count(&["max_seq_length"])?
    {
        meta.insert(family.key("max_sequence_length"), limit);
    }
    if let Some(config) = Config::read_optional(dir, "config_sentence_transformers.json")? {
        for (key, names) in [
            ("query", ["prompts.query", "prompts.search_query"]),
            ("document", ["prompts.document", "prompts.passage"]),
        ] {
            for name in names {
                if let Some(prefix) = config.opt_str(name)? {
                    meta.insert(format!("sentence_transformers.prompts.{key}"), prefix);
                    break;
                }
            }
        }
    }
    Ok(())
}

fn pooling(dir: &Path) -> Result<Option<Pooling>, ConvertError> {
    let Some(modules) = Config::read_optional(dir, "modules.json")? else { return Ok(None) };
    let module = modules.list().iter().find(|module| {
        module.get("type").and_then(|kind| kind.as_str()).is_some_and(|kind| kind.ends_with(".Pooling"))
    });
    let Some(path) = module.and_then(|module| module.get("path")?.as_str()) else { return Ok(None) };
    // A plain name, so that the file cannot lead elsewhere.
    if path.is_empty() || path.contains(['/', '\\']) || path.starts_with('.') {
        return Err(modules.wrong("path", "the name of a folder"));
    }
    let config = Config::read(dir, &format!("{path}/config.json"))?;
    let known = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    match known.into_iter().find(|(key, _)| config.flag(key)) {
        Some((_, pooling)) => Ok(Some(pooling)),
        None => Err(config.wrong("pooling_mode_mean_tokens", "mean, CLS or last-token pooling")),
    }
}
