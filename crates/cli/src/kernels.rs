//! The names of the kernels that a tensor's products run on.

use firecrest::backend::{Activations, IsaKind};
use firecrest::gguf::{Format, Gguf, TensorInfo};
use serde::Serialize;

/// The kernels of one format: `avx512/q4_1×q8/matvec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Kernels {
    /// Matrix × vector: one token, or a few.
    pub(crate) decode: String,
    /// Matrix × matrix: the tokens of a prompt together.
    pub(crate) prefill: String,
}

impl Kernels {
    pub(crate) fn new(isa: IsaKind, format: Format, activations: Activations) -> Self {
        let inputs = if format.is_quantized() && activations == Activations::Q8 { "q8" } else { "f32" };
        let name = |op| format!("{isa}/{}×{inputs}/{op}", format.name().to_ascii_lowercase());
        Self { decode: name("matvec"), prefill: name("matmul") }
    }

    /// Those of a tensor; `None` where it enters no product: vectors, and an embedding that is only looked up.
    pub(crate) fn of(
        gguf: &Gguf,
        tensor: &TensorInfo,
        isa: IsaKind,
        activations: Activations,
    ) -> Option<Self> {
        let looked_up = tensor.name == "token_embd.weight" && gguf.tensor("output.weight").is_some();
        (tensor.shape.len() > 1 && !looked_up).then(|| Self::new(isa, tensor.format, activations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_isa_formats_and_operation() {
        let names = |format, activations| Kernels::new(IsaKind::Scalar, format, activations).decode;
        assert_eq!(names(Format::Q4_K, Activations::Q8), "scalar/q4_k×q8/matvec");
        assert_eq!(names(Format::Q4_K, Activations::F32), "scalar/q4_k×f32/matvec");
        assert_eq!(names(Format::F16, Activations::Q8), "scalar/f16×f32/matvec");
    }
}
