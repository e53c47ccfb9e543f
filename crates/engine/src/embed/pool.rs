//! From the states of tokens to a vector.

use super::Pooling;

/// Pools the states of one text, `[tokens, dim]`. [`Pooling::Rank`], which is the classifier's, is its last token here.
pub(super) fn pool(pooling: Pooling, states: &[f32], dim: usize) -> Vec<f32> {
    match pooling {
        Pooling::None => states.to_vec(),
        Pooling::Mean => {
            let mut sum = vec![0.0; dim];
            for state in states.chunks_exact(dim) {
                sum.iter_mut().zip(state).for_each(|(sum, x)| *sum += x);
            }
            let factor = dim as f32 / states.len() as f32;
            sum.iter_mut().for_each(|sum| *sum *= factor);
            sum
        }
        Pooling::Cls => states[..dim].to_vec(),
        Pooling::Last | Pooling::Rank => states[states.len() - dim..].to_vec(),
    }
}

/// Keeps the first `dimensions` values of each vector, and scales it to length 1 where that is wanted.
pub(super) fn finish(values: &mut Vec<f32>, dim: usize, dimensions: usize, normalize: bool) {
    if dimensions < dim {
        let vectors = values.len() / dim;
        for i in 1..vectors {
            values.copy_within(i * dim..i * dim + dimensions, i * dimensions);
        }
        values.truncate(vectors * dimensions);
    }
    if normalize {
        for vector in values.chunks_exact_mut(dimensions) {
            let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            if squares > 0.0 {
                let factor = (1.0 / squares.sqrt()) as f32;
                vector.iter_mut().for_each(|x| *x *= factor);
            }
        }
    }
}

/// The cosine of the angle between two vectors, from -1 to 1; 0 where one of them is zero.
///
/// Panics unless both have one length.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_pooled() {
        let states = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0];
        assert_eq!(pool(Pooling::None, &states, 2), states);
        assert_eq!(pool(Pooling::Mean, &states, 2), [4.0, 2.0]);
        assert_eq!(pool(Pooling::Cls, &states, 2), [1.0, 2.0]);
        assert_eq!(pool(Pooling::Last, &states, 2), [8.0, 0.0]);
    }

    #[test]
    fn vectors_are_cut_before_they_are_normalised() {
        let mut values = vec![3.0, 4.0, 9.0, 0.0, 0.0, 1.0];
        finish(&mut values, 3, 2, true);
        assert_eq!(values, [0.6, 0.8, 0.0, 0.0]);
        let mut values = vec![3.0, 4.0];
        finish(&mut values, 2, 2, false);
        assert_eq!(values, [3.0, 4.0]);
    }

    #[test]
    fn cosines_do_not_know_lengths() {
        assert!((cosine(&[1.0, 0.0], &[3.0, 3.0]) - 0.5_f32.sqrt()).abs() < 1e-7);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 1.0]), 0.0);
    }
}
