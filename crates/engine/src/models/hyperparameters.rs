//! The hyperparameters of a file, read and checked, and the spec that most architectures start from.

use crate::backend::{Activation, ConvCache, Gating, RopeLayout, Routing};
use crate::gguf::{Gguf, Metadata, Value};
use crate::nn::{
    AttentionSpec, DecoderSpec, EmbeddingSpec, EncoderFfn, EncoderSpec, ExpertsSpec, FfnSpec, LayerNorms,
    LayerSpec, LoadError, MixerSpec, NormSpec, Positions, Residual, RopeFactors, RopeScaling, RopeSpec,
    RouterInput, SharedExpert, Yarn, optional_vector,
};

/// The largest number of heads, of layers, of values in a head and of experts that can be.
const MAX_COUNT: usize = 1 << 12;

/// The largest number of positions that can be.
const MAX_CONTEXT: usize = 1 << 31;

/// The hyperparameters of one architecture, by their short names: the part of a key after `ARCHITECTURE.`.
pub(super) struct Hyperparameters<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl<'a> Hyperparameters<'a> {
    pub(super) fn new(gguf: &'a Gguf) -> Result<Self, LoadError> {
        Ok(Self { gguf, architecture: gguf.metadata().architecture()? })
    }

    fn metadata(&self) -> &'a Metadata {
        self.gguf.metadata()
    }

    /// Whether the file has a tensor.
    pub(super) fn has_tensor(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// The full key.
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// A count from 1 to `max`.
    pub(super) fn count(&self, name: &str, max: usize) -> Result<usize, LoadError> {
        let value = self.metadata().usize(&self.key(name))?;
        self.check_count(name, value, max)
    }

    /// As [`Hyperparameters::count`], where the key is there.
    pub(super) fn optional_count(&self, name: &str, max: usize) -> Result<Option<usize>, LoadError> {
        let value = self.metadata().opt_usize(&self.key(name))?;
        value.map(|value| self.check_count(name, value, max)).transpose()
    }

    /// As [`Hyperparameters::optional_count`]; zero stands for an absent key.
    pub(super) fn count_or_zero(&self, name: &str, max: usize) -> Result<Option<usize>, LoadError> {
        match self.metadata().opt_usize(&self.key(name))? {
            None | Some(0) => Ok(None),
            Some(value) => self.check_count(name, value, max).map(Some),
        }
    }

    /// A count up to `max` for each of `layers`, from an array or from one value for all; the key may be absent.
    fn counts(&self, name: &str, layers: usize, max: usize) -> Result<Option<Vec<usize>>, LoadError> {
        let key = self.key(name);
        let values = match self.metadata().get(&key) {
            None => return Ok(None),
            Some(Value::Array(_)) => self.metadata().u32s(&key)?,
            Some(_) => {
                let value = self.metadata().usize(&key)?;
                return Ok(Some(vec![self.check_count(name, value, max)?; layers]));
            }
        };
        if values.len() != layers {
            return Err(self.wrong(
                name,
                format!("{} values", values.len()),
                format!("one for each of {layers} layers"),
            ));
        }
        let values = values.into_iter().map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        let check = |value| if value == 0 { Ok(0) } else { self.check_count(name, value, max) };
        values.map(check).collect::<Result<_, _>>().map(Some)
    }

    fn check_count(&self, name: &str, value: usize, max: usize) -> Result<usize, LoadError> {
        if (1..=max).contains(&value) {
            return Ok(value);
        }
        Err(self.wrong(name, value, format!("1 to {max}")))
    }

    /// A flag, where the key is there.
    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, LoadError> {
        Ok(self.metadata().opt_bool(&self.key(name))?)
    }

    /// A positive number, where the key is there.
    pub(super) fn optional_positive(&self, name: &str) -> Result<Option<f32>, LoadError> {
        match self.metadata().opt_f32(&self.key(name))? {
            Some(value) if value <= 0.0 => Err(self.wrong(name, value, "a positive number")),
            value => Ok(value),
        }
    }

    /// As [`Hyperparameters::optional_positive`]; zero stands for an absent key.
    pub(super) fn positive_or_zero(&self, name: &str) -> Result<Option<f32>, LoadError> {
        if self.metadata().opt_f32(&self.key(name))? == Some(0.0) {
            Ok(None)
        } else {
            self.optional_positive(name)
        }
    }

    /// A positive number.
    fn positive(&self, name: &str) -> Result<f32, LoadError> {
        let value = self.metadata().f32(&self.key(name))?;
        if value > 0.0 { Ok(value) } else { Err(self.wrong(name, value, "a positive number")) }
    }

    pub(super) fn wrong(&self, name: &str, value: impl ToString, expected: impl ToString) -> LoadError {
        LoadError::Hyperparameter {
            key: self.key(name),
            value: value.to_string(),
            expected: expected.to_string(),
        }
    }

    /// RMSNorm.
    pub(super) fn rms_norm(&self) -> Result<NormSpec, LoadError> {
        Ok(NormSpec::Rms { eps: self.positive("attention.layer_norm_rms_epsilon")? })
    }

    /// LayerNorm.
    pub(super) fn layer_norm(&self) -> Result<NormSpec, LoadError> {
        Ok(NormSpec::Layer { eps: self.positive("attention.layer_norm_epsilon")? })
    }

    /// A decoder like LLaMA but for its norm and for the layout of its rotary embedding, if it has one: a norm before
    /// each sublayer, grouped-query attention, SwiGLU. Numbers of heads and of neurons may differ from layer to layer.
    pub(super) fn decoder(&self, norm: NormSpec, rope: Option<RopeLayout>) -> Result<DecoderSpec, LoadError> {
        let dim = self.count("embedding_length", 1 << 20)?;
        let layers = self.count("block_count", MAX_COUNT)?;
        let context_length = self.count("context_length", MAX_CONTEXT)?;
        let missing = |name: &str| {
            // Reading it as a single value gives the error that names the key.
            self.count(name, 0).map(|_| Vec::new())
        };
        let hidden = match self.counts("feed_forward_length", layers, 1 << 24)? {
            Some(hidden) => hidden,
            None => match (0..layers).map(|i| self.neurons(i)).collect() {
                Some(hidden) => hidden,
                None => missing("feed_forward_length")?,
            },
        };
        let heads = match self.counts("attention.head_count", layers, MAX_COUNT)? {
            None => missing("attention.head_count")?,
            Some(heads) => heads,
        };
        let kv_heads = self.counts("attention.head_count_kv", layers, MAX_COUNT)?;
        let kv_heads = kv_heads.unwrap_or_else(|| heads.clone());
        let head_dim = match self.optional_count("attention.key_length", MAX_COUNT)? {
            Some(head_dim) => head_dim,
            None => self.check_count("attention.key_length", dim / heads[0].max(1), MAX_COUNT)?,
        };
        if let Some(other) = self.optional_count("attention.value_length", MAX_COUNT)?
            && other != head_dim
        {
            return Err(self.wrong(
                "attention.value_length",
                other,
                format!("{head_dim}, the length of keys"),
            ));
        }
        let taps = self.optional_count("shortconv.l_cache", ConvCache::MAX_TAPS)?;
        let scale = self.positive_or_zero("attention.scale")?.unwrap_or(1.0 / (head_dim as f32).sqrt());
        let window = self.count_or_zero("attention.sliding_window", usize::MAX)?;
        let ropes = rope.map(|layout| self.rope(layout, head_dim, context_length)).transpose()?;
        let layer = |i: usize| {
            let (heads, kv_heads) = (heads[i], kv_heads[i]);
            let mixer = match taps {
                Some(taps) if kv_heads == 0 => MixerSpec::ShortConv { taps },
                _ if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) => {
                    let name = if heads == 0 { "attention.head_count" } else { "attention.head_count_kv" };
                    let value = heads.min(kv_heads);
                    return Err(self.wrong(name, value, format!("a divisor of {heads} in layer {i}")));
                }
                _ => MixerSpec::Attention(AttentionSpec {
                    heads,
                    kv_heads,
                    head_dim,
                    scale,
                    soft_cap: None,
                    window,
                    rope: ropes.as_ref().map(|_| 0),
                    alibi: None,
                    clamp: None,
                    qk_norm: None,
                }),
            };
            Ok(LayerSpec {
                mixer,
                ffn: FfnSpec::Gated { hidden: hidden[i], activation: Activation::Silu },
                norms: LayerNorms::PRE,
                residual: Residual::Sequential,
                residual_scale: 1.0,
            })
        };
        Ok(DecoderSpec {
            dim,
            vocab: self.vocab()?,
            context_length,
            norm,
            embedding: EmbeddingSpec::default(),
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
            ropes: ropes.into_iter().collect(),
            output_norm: "output_norm",
            logit_scale: 1.0,
            logit_cap: None,
        })
    }

    /// An encoder like BERT; its positions are learned where it has no rotary embedding.
    pub(super) fn encoder(
        &self,
        rope: Option<RopeLayout>,
        ffn: EncoderFfn,
    ) -> Result<EncoderSpec, LoadError> {
        let dim = self.count("embedding_length", 1 << 20)?;
        let heads = self.count("attention.head_count", MAX_COUNT)?;
        if !dim.is_multiple_of(heads) {
            return Err(self.wrong("attention.head_count", heads, format!("a divisor of {dim}")));
        }
        let head_dim = dim / heads;
        let context_length = self.count("context_length", 1 << 24)?;
        let types = self.gguf.tensor("token_types.weight");
        Ok(EncoderSpec {
            dim,
            vocab: self.vocab()?,
            context_length,
            norm: self.layer_norm()?,
            token_types: types.map_or(0, |info| info.shape.get(1).copied().unwrap_or(1)),
            positions: match rope {
                Some(layout) => Positions::Rotary(self.rope(layout, head_dim, context_length)?),
                None => Positions::Learned,
            },
            layers: self.count("block_count", MAX_COUNT)?,
            heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            ffn,
        })
    }

    /// The neurons of a layer as its tensors tell: some architectures have no key for that. Zero where a layer has
    /// experts alone.
    fn neurons(&self, layer: usize) -> Option<usize> {
        if self.has_router(layer) {
            return Some(0);
        }
        self.gguf.tensor(&format!("blk.{layer}.ffn_down.weight"))?.shape.first().copied()
    }

    fn has_router(&self, layer: usize) -> bool {
        self.has_tensor(&format!("blk.{layer}.ffn_gate_inp.weight"))
    }

    /// Puts a mixture of experts into every layer whose router the file has.
    pub(super) fn mixture(&self, spec: &mut DecoderSpec, experts: ExpertsSpec) {
        for (i, layer) in spec.layers.iter_mut().enumerate() {
            if self.has_router(i) {
                layer.ffn = FfnSpec::Experts(experts.clone());
            }
        }
    }

    /// The mixture of experts that the file describes; whether weights add up to one if the file does not say it.
    pub(super) fn experts(&self, normalise: bool) -> Result<ExpertsSpec, LoadError> {
        let count = self.count("expert_count", MAX_COUNT)?;
        let gating = match self.count_or_zero("expert_gating_func", usize::MAX)? {
            None | Some(1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(other) => return Err(self.wrong("expert_gating_func", other, "1 (softmax) or 2 (sigmoid)")),
        };
        let hidden = match self.count_or_zero("expert_feed_forward_length", 1 << 24)? {
            Some(hidden) => hidden,
            None => self.count("feed_forward_length", 1 << 24)?,
        };
        Ok(ExpertsSpec {
            count,
            hidden,
            activation: Activation::Silu,
            routing: Routing {
                used: self.count("expert_used_count", count)?,
                gating,
                normalise: self.optional_flag("expert_weights_norm")?.unwrap_or(normalise),
                scale: self.positive_or_zero("expert_weights_scale")?.unwrap_or(1.0),
            },
            router_input: RouterInput::Ffn,
            shared: self
                .count_or_zero("expert_shared_feed_forward_length", 1 << 24)?
                .map(|hidden| SharedExpert { hidden, gated: false }),
        })
    }

    /// Which layers see a window alone: what the file says, else all but one in `period`, the first or the last of each.
    pub(super) fn windowed_layers(
        &self,
        layers: usize,
        period: usize,
        dense_first: bool,
    ) -> Result<Vec<bool>, LoadError> {
        let name = "attention.sliding_window_pattern";
        let key = self.key(name);
        let period = match self.metadata().get(&key) {
            Some(Value::Array(_)) => {
                let flags = match self.metadata().bools(&key) {
                    Ok(flags) => flags,
                    // Some writers store numbers.
                    Err(_) => self.metadata().u32s(&key)?.into_iter().map(|flag| flag != 0).collect(),
                };
                if flags.len() != layers {
                    let found = format!("{} values", flags.len());
                    return Err(self.wrong(name, found, format!("one for each of {layers} layers")));
                }
                return Ok(flags);
            }
            Some(_) => self.count(name, MAX_COUNT)?,
            None => period,
        };
        let dense = if dense_first { 0 } else { period - 1 };
        Ok((0..layers).map(|i| i % period != dense).collect())
    }

    /// Rows of the embedding.
    fn vocab(&self) -> Result<usize, LoadError> {
        let tensor = "token_embd.weight";
        let info =
            self.gguf.tensor(tensor).ok_or_else(|| LoadError::MissingTensor { tensor: tensor.into() })?;
        let rows = info.shape.get(1).copied().unwrap_or(1);
        if u32::try_from(rows).is_err() {
            return Err(LoadError::Shape {
                tensor: tensor.into(),
                expected: vec![],
                found: info.shape.clone(),
            });
        }
        Ok(rows)
    }

    /// The rotary embedding that the file describes.
    fn rope(
        &self,
        layout: RopeLayout,
        head_dim: usize,
        context_length: usize,
    ) -> Result<RopeSpec, LoadError> {
        let dims = self.optional_count("rope.dimension_count", head_dim)?.unwrap_or(head_dim);
        let original = self.optional_count("rope.scaling.original_context_length", MAX_CONTEXT)?;
        let original = original.unwrap_or(context_length);
        let vector = |name: &str| optional_vector(self.gguf, name, dims / 2);
        let by_context = vector("rope_factors_short.weight")?.zip(vector("rope_factors_long.weight")?);
        let factors = match (vector("rope_freqs.weight")?, by_context) {
            (Some(factors), _) => RopeFactors::Fixed(factors),
            (None, Some((short, long))) => RopeFactors::ByContext { original, short, long },
            (None, None) => RopeFactors::None,
        };
        Ok(RopeSpec {
            layout,
            dims,
            base: self.optional_positive("rope.freq_base")?.unwrap_or(10_000.0),
            scaling: self.rope_scaling(original)?,
            factors,
            magnitude: self.optional_positive("rope.scaling.attn_factor")?.unwrap_or(1.0),
        })
    }

    /// How the file says that rotary frequencies are stretched.
    fn rope_scaling(&self, original_context: usize) -> Result<RopeScaling, LoadError> {
        let kind = self.metadata().opt_str(&self.key("rope.scaling.type"))?;
        let factor = self.positive_or_zero("rope.scaling.factor")?;
        // Files from before 2023-10 have the linear factor alone, under another name.
        let factor = factor.or(self.positive_or_zero("rope.scale_linear")?);
        match (kind, factor) {
            (None | Some("linear"), Some(factor)) if factor != 1.0 => Ok(RopeScaling::Linear(factor)),
            (Some("yarn"), Some(factor)) => {
                let mut yarn = Yarn::new(factor, original_context as f32);
                for (name, value) in [
                    ("rope.scaling.yarn_attn_factor", &mut yarn.magnitude),
                    ("rope.scaling.yarn_beta_fast", &mut yarn.beta_fast),
                    ("rope.scaling.yarn_beta_slow", &mut yarn.beta_slow),
                ] {
                    *value = self.optional_positive(name)?.unwrap_or(*value);
                }
                Ok(RopeScaling::Yarn(yarn))
            }
            (None | Some("none" | "linear" | "yarn" | "longrope"), _) => Ok(RopeScaling::None),
            (Some(other), _) => Err(self.wrong("rope.scaling.type", other, "none, linear, yarn or longrope")),
        }
    }
}
