use std::{fmt, str::FromStr};

/// How much of a model is computed.
///
/// ```
/// use firecrest::sparse::SparsityLevel;
///
/// assert_eq!("balanced".parse(), Ok(SparsityLevel::Balanced));
/// assert_eq!(SparsityLevel::Named("tiny".into()).to_string(), "tiny");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SparsityLevel {
    /// [`Exact`](SparsityLevel::Exact) where the model's neurons are exactly zero by themselves (ReLU), else
    /// [`Off`](SparsityLevel::Off).
    #[default]
    Auto,
    /// Everything.
    Off,
    /// What changes nothing: neurons that are exactly zero are left out.
    Exact,
    /// The level of this name in the model's [`SparsityProfile`](super::SparsityProfile): at most 1 % more perplexity.
    Balanced,
    /// As [`Balanced`](SparsityLevel::Balanced), at most 5 % more perplexity.
    Fast,
    /// Another level of the profile.
    Named(String),
}

impl SparsityLevel {
    /// Whether the level is one of a [`SparsityProfile`](super::SparsityProfile).
    pub fn needs_profile(&self) -> bool {
        self.profile_name().is_some()
    }

    /// The name in a profile; `None` for the levels that need none.
    pub(crate) fn profile_name(&self) -> Option<&str> {
        match self {
            Self::Auto | Self::Off | Self::Exact => None,
            Self::Balanced => Some("balanced"),
            Self::Fast => Some("fast"),
            Self::Named(name) => Some(name),
        }
    }
}

impl FromStr for SparsityLevel {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "auto" => Self::Auto,
            "off" => Self::Off,
            "exact" => Self::Exact,
            "balanced" => Self::Balanced,
            "fast" => Self::Fast,
            name => Self::Named(name.into()),
        })
    }
}

impl fmt::Display for SparsityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Exact => "exact",
            Self::Balanced => "balanced",
            Self::Fast => "fast",
            Self::Named(name) => name,
        })
    }
}
