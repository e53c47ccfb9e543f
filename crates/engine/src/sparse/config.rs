use super::error::SparseError;
use crate::backend::Activation;

/// Which neurons are computed, given a score for each.
///
/// ```
/// use firecrest::sparse::SparsityConfig;
///
/// let scores = [0.3, -1.0, 0.9, 0.1];
/// assert_eq!(SparsityConfig::with_top_k(2).select(&scores), [0, 2]);
/// assert_eq!(SparsityConfig::with_threshold(0.5).select(&scores), [2]);
/// assert_eq!(SparsityConfig::with_target_sparsity(0.25).select(&scores), [0, 2, 3]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparsityConfig {
    selection: Selection,
}

/// The rule behind a [`SparsityConfig`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Selection {
    /// So many neurons with the highest scores; of equal ones the first.
    TopK(usize),
    /// The neurons whose score is above this.
    Threshold(f32),
    /// All but this share of the neurons, those with the lowest scores.
    TargetSparsity(f32),
}

impl SparsityConfig {
    /// The `n` neurons with the highest scores.
    pub const fn with_top_k(n: usize) -> Self {
        Self { selection: Selection::TopK(n) }
    }

    /// The neurons with a score above `t`.
    pub const fn with_threshold(t: f32) -> Self {
        Self { selection: Selection::Threshold(t) }
    }

    /// Skips the share `s` of the neurons: 0.95 computes 5 % of them.
    pub const fn with_target_sparsity(s: f32) -> Self {
        Self { selection: Selection::TargetSparsity(s) }
    }

    /// The rule.
    pub const fn selection(&self) -> Selection {
        self.selection
    }

    /// Fails where the rule makes no sense: a threshold that is NaN, a share outside of 0 to 1, or more neurons than
    /// there are.
    pub fn validate(&self, neurons: usize) -> Result<(), SparseError> {
        match self.selection {
            Selection::TopK(n) if n > neurons => {
                Err(SparseError::Shape { what: "the number of neurons to keep", expected: neurons, found: n })
            }
            Selection::Threshold(value) if value.is_nan() => {
                Err(SparseError::Setting { name: "threshold", value, expected: "a number" })
            }
            Selection::TargetSparsity(value) if !(0.0..=1.0).contains(&value) => {
                Err(SparseError::Setting { name: "target sparsity", value, expected: "0 to 1" })
            }
            _ => Ok(()),
        }
    }

    /// The neurons to compute, ascending.
    pub fn select(&self, scores: &[f32]) -> Vec<usize> {
        match self.selection {
            Selection::Threshold(t) => (0..scores.len()).filter(|&n| scores[n] > t).collect(),
            Selection::TopK(n) => top(scores, n),
            Selection::TargetSparsity(s) => {
                top(scores, ((1.0 - f64::from(s)) * scores.len() as f64).round() as usize)
            }
        }
    }
}

/// The `n` highest, in ascending order of their places.
fn top(scores: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if n < order.len() {
        if n > 0 {
            let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
            order.select_nth_unstable_by(n - 1, by_score);
        }
        order.truncate(n);
        order.sort_unstable();
    }
    order
}

/// The activation function of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivationType {
    /// `max(x, 0)`: neurons that don't fire are exactly zero.
    Relu,
    /// `max(x, 0)²`: neurons that don't fire are exactly zero.
    Relu2,
    /// `x · Φ(x)`, with an error function that is right within 2e-7.
    Gelu,
    /// The tanh approximation of [`ActivationType::Gelu`].
    GeluTanh,
    /// `x / (1 + e^-x)`, within 4 units in the last place.
    Silu,
    /// Another name of [`ActivationType::Silu`].
    Swish,
    /// `x`.
    Identity,
}

impl ActivationType {
    /// Whether neurons with a negative input are exactly zero, so that skipping them loses nothing.
    pub const fn is_exactly_sparse(self) -> bool {
        matches!(self, Self::Relu | Self::Relu2)
    }

    /// The type of a function; `None` for one that has no type.
    pub(crate) const fn of(function: Activation) -> Option<Self> {
        Some(match function {
            Activation::Relu => Self::Relu,
            Activation::Relu2 => Self::Relu2,
            Activation::Gelu => Self::Gelu,
            Activation::GeluTanh => Self::GeluTanh,
            Activation::Silu => Self::Silu,
            Activation::Identity => Self::Identity,
            _ => return None,
        })
    }

    pub(crate) const fn function(self) -> Activation {
        match self {
            Self::Relu => Activation::Relu,
            Self::Relu2 => Activation::Relu2,
            Self::Gelu => Activation::Gelu,
            Self::GeluTanh => Activation::GeluTanh,
            Self::Silu | Self::Swish => Activation::Silu,
            Self::Identity => Activation::Identity,
        }
    }
}

impl std::str::FromStr for ActivationType {
    type Err = SparseError;

    /// `relu`, `relu2`, `gelu`, `gelu-tanh`, `silu`, `swish` or `identity`.
    fn from_str(name: &str) -> Result<Self, SparseError> {
        Ok(match name {
            "relu" => Self::Relu,
            "relu2" => Self::Relu2,
            "gelu" => Self::Gelu,
            "gelu-tanh" => Self::GeluTanh,
            "silu" => Self::Silu,
            "swish" => Self::Swish,
            "identity" => Self::Identity,
            _ => return Err(SparseError::UnknownActivation { name: name.into() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_and_extremes_work() {
        let scores = [1.0, 2.0, 1.0, 1.0];
        assert_eq!(SparsityConfig::with_top_k(2).select(&scores), [0, 1]);
        assert!(SparsityConfig::with_top_k(0).select(&scores).is_empty());
        assert_eq!(SparsityConfig::with_top_k(9).select(&scores), [0, 1, 2, 3]);
        assert!(SparsityConfig::with_target_sparsity(1.0).select(&scores).is_empty());
        assert_eq!(SparsityConfig::with_target_sparsity(0.0).select(&scores).len(), 4);
        assert!(SparsityConfig::with_threshold(0.0).select(&[f32::NAN, 0.0]).is_empty());
    }

    #[test]
    fn rules_without_sense_are_refused() {
        assert!(SparsityConfig::with_top_k(5).validate(4).is_err());
        assert!(SparsityConfig::with_threshold(f32::NAN).validate(4).is_err());
        assert!(SparsityConfig::with_target_sparsity(1.5).validate(4).is_err());
        assert!(SparsityConfig::with_target_sparsity(f32::NAN).validate(4).is_err());
        assert!(SparsityConfig::with_top_k(4).validate(4).is_ok());
    }
}
