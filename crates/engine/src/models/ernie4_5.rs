//! ERNIE 4.5 without experts: LLaMA. Source: huggingface.co/baidu/ERNIE-4.5-0.3B-PT.

use super::Hyperparameters;
use crate::nn::{DecoderSpec, LoadError};

pub(super) fn spec(params: &Hyperparameters<'_>) -> Result<DecoderSpec, LoadError> {
    super::llama::spec(params)
}
