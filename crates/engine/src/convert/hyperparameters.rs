//! Hyperparameters: from the names in `config.json` to those in GGUF.

use std::f32::consts::TAU;

use super::ConvertError;
use super::config::Config;
use super::families::Family;
use crate::gguf::Metadata;

pub(super) fn bert(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
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
pub(super) fn roberta(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
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

/// The repository's own code and transformers name things differently.
pub(super) fn nomic_bert(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
    match (config.opt_str("activation_function")?, config.opt_str("hidden_act")?) {
        (Some("swiglu"), _) | (None, Some("silu")) => {}
        _ => return Err(config.wrong("activation_function", "swiglu")),
    }
    if let Some(bias) = ["qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"].iter().find(|key| config.flag(key))
    {
        return Err(config.wrong(bias, "false"));
    }
    let count = |keys: &[&str]| config.count(keys);
    let length = count(&["max_trained_positions", "n_positions", "max_position_embeddings"])?;
    meta.insert(family.key("context_length"), length);
    meta.insert(family.key("embedding_length"), count(&["n_embd", "hidden_size"])?);
    meta.insert(family.key("block_count"), count(&["n_layer", "num_hidden_layers"])?);
    meta.insert(family.key("feed_forward_length"), count(&["n_inner", "intermediate_size"])?);
    meta.insert(family.key("attention.head_count"), count(&["n_head", "num_attention_heads"])?);
    let eps = config.number(&["layer_norm_epsilon", "layer_norm_eps"])?;
    meta.insert(family.key("attention.layer_norm_epsilon"), eps);
    meta.insert(family.key("attention.causal"), false);
    let base = config.number(&["rotary_emb_base", "rope_theta", "rope_parameters.rope_theta"])?;
    meta.insert(family.key("rope.freq_base"), base);
    Ok(())
}

/// Hyperparameters under the names that nearly all decoders use.
pub(super) fn decoder(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
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
    let uses_window = config.get("use_sliding_window").is_none_or(|used| used.as_bool() == Some(true));
    if let Some(window) = config.opt_count(&["sliding_window"])?.filter(|_| uses_window) {
        meta.insert(family.key("attention.sliding_window"), window);
    }
    for (name, key) in [
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
    ] {
        if let Some(number) = config.opt_number(&[name])? {
            meta.insert(family.key(key), number);
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

/// Layers that convolve have no heads for keys; the feed-forward length may have to be worked out.
pub(super) fn lfm2(config: &Config, family: &Family, meta: &mut Metadata) -> Result<(), ConvertError> {
    decoder(config, family, meta)?;
    let kv_heads = config.count(&["num_key_value_heads"])?;
    let kinds = config.get("layer_types").and_then(|kinds| kinds.as_array());
    let kinds = kinds.ok_or_else(|| config.wrong("layer_types", "a list of kinds of layers"))?;
    let heads = kinds.iter().map(|kind| match kind.as_str() {
        Some("conv") => Some(0),
        Some("full_attention") => Some(kv_heads),
        _ => None,
    });
    let heads: Option<Vec<u32>> = heads.collect();
    let heads = heads.ok_or_else(|| config.wrong("layer_types", "conv or full_attention for each layer"))?;
    meta.insert(family.key("attention.head_count_kv"), heads);
    meta.insert(family.key("attention.layer_norm_rms_epsilon"), config.number(&["norm_eps"])?);
    meta.insert(family.key("shortconv.l_cache"), config.count(&["conv_L_cache"])?);
    if config.flag("block_auto_adjust_ff_dim") {
        let hidden = config.count(&["block_ff_dim", "intermediate_size"])?;
        let factor = config.opt_number(&["block_ffn_dim_multiplier"])?.unwrap_or(1.0);
        let multiple = config.opt_count(&["block_multiple_of"])?.unwrap_or(1).max(1);
        let hidden = (factor * (u64::from(hidden) * 2 / 3) as f32) as u32;
        let hidden = hidden.checked_next_multiple_of(multiple);
        let hidden = hidden.ok_or_else(|| config.wrong("block_multiple_of", "a smaller number"))?;
        meta.insert(family.key("feed_forward_length"), hidden);
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
    let rotated = config.opt_count(&["rotary_dim"])?.unwrap_or(rotated);
    meta.insert(family.key("rope.dimension_count"), rotated);
    let base = ["rope_theta", "rope_parameters.rope_theta", "rope_parameters.full_attention.rope_theta"];
    if let Some(base) = config.opt_number(&base)? {
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
    ["rope_scaling", "rope_parameters", "rope_parameters.full_attention"].into_iter().find_map(|section| {
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
