//! Rotary position embeddings (arXiv 2104.09864).

/// Which two values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// `2 i` and `2 i + 1` (LLaMA in GGUF).
    Interleaved,
    /// `i` and `i + half` (GPT-NeoX, Qwen, Phi).
    Halves,
}

/// Turns pair `i` of a head by the angle whose cosine and sine are `turns[i]`.
///
/// The first `2 * turns.len()` values are rotated, the others stay. Panics if the head is shorter than that.
#[inline]
pub fn rotate(head: &mut [f32], turns: &[(f32, f32)], layout: RopeLayout) {
    match layout {
        RopeLayout::Interleaved => {
            let (pairs, _) = head[..2 * turns.len()].as_chunks_mut::<2>();
            for (pair, &(cos, sin)) in pairs.iter_mut().zip(turns) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, a * sin + b * cos];
            }
        }
        RopeLayout::Halves => {
            let (first, second) = head[..2 * turns.len()].split_at_mut(turns.len());
            for ((a, b), &(cos, sin)) in first.iter_mut().zip(second).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}
