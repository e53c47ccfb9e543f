//! What an embedding is made of.

/// How the states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// They don't: the result has the states of all tokens, one after another.
    None,
    /// Their mean.
    Mean,
    /// The state of the first token.
    Cls,
    /// The state of the last token, as decoders want it.
    Last,
    /// The scores of the model's classifier: what cross-encoders give.
    Rank,
}

impl Pooling {
    /// The pooling with this number in `<architecture>.pooling_type`.
    pub fn from_gguf(number: u32) -> Option<Self> {
        [Self::None, Self::Mean, Self::Cls, Self::Last, Self::Rank].get(number as usize).copied()
    }

    /// Its number in `<architecture>.pooling_type`.
    pub fn to_gguf(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Mean => 1,
            Self::Cls => 2,
            Self::Last => 3,
            Self::Rank => 4,
        }
    }
}

/// What a text is to a search; some models are trained with a prefix for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It is searched for.
    Query,
    /// It is found.
    Document,
}

/// How texts are embedded. The default is what the model was made for, normalised.
///
/// ```
/// use firecrest::embed::{EmbedOptions, Role};
///
/// let options = EmbedOptions::default().with_dimensions(256).with_role(Role::Query);
/// assert!(options.normalize && options.truncate);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// How tokens become one vector; as the file says where absent.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1, after `dimensions`. Never done to scores.
    pub normalize: bool,
    /// Keeps the first so many values, for models trained so (Matryoshka, arXiv 2205.13147); all where absent.
    pub dimensions: Option<usize>,
    /// Put before every text.
    pub prefix: Option<String>,
    /// Puts the model's own prefix for this role before every text, where it has one and `prefix` is absent.
    pub role: Option<Role>,
    /// Whether texts that are too long are cut; otherwise they are an error.
    pub truncate: bool,
    /// Tokens that a text may have, those that the model adds included; the model's own limit where absent.
    pub max_tokens: Option<usize>,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            pooling: None,
            normalize: true,
            dimensions: None,
            prefix: None,
            role: None,
            truncate: true,
            max_tokens: None,
        }
    }
}

impl EmbedOptions {
    /// Sets `pooling`.
    pub fn with_pooling(self, pooling: Pooling) -> Self {
        Self { pooling: Some(pooling), ..self }
    }

    /// Sets `normalize`.
    pub fn with_normalize(self, normalize: bool) -> Self {
        Self { normalize, ..self }
    }

    /// Sets `dimensions`.
    pub fn with_dimensions(self, dimensions: usize) -> Self {
        Self { dimensions: Some(dimensions), ..self }
    }

    /// Sets `prefix`.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: Some(prefix.into()), ..self }
    }

    /// Sets `role`.
    pub fn with_role(self, role: Role) -> Self {
        Self { role: Some(role), ..self }
    }

    /// Sets `truncate`.
    pub fn with_truncate(self, truncate: bool) -> Self {
        Self { truncate, ..self }
    }

    /// Sets `max_tokens`.
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens: Some(max_tokens), ..self }
    }
}
