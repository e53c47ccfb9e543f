//! What the logits of one position say.

/// The logarithm of the sum of the exponentials: a logit less this is a log-probability.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let max = f64::from(max);
    max + logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln()
}

/// The `n` largest logits with their tokens, largest first; of equal ones the smaller id.
pub(crate) fn largest(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if n < all.len() {
        all.select_nth_unstable_by(n, order);
        all.truncate(n);
    }
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_does_not_overflow() {
        assert_eq!(log_sum_exp(&[1000.0, 1000.0]), 1000.0 + 2f64.ln());
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY]), f64::NEG_INFINITY);
        let probabilities = [0.1f32, 0.2, 0.7].map(f32::ln);
        assert!(log_sum_exp(&probabilities).abs() < 1e-7);
    }

    #[test]
    fn the_largest_come_first() {
        let logits = [0.0, 3.0, 1.0, 3.0, -1.0];
        assert_eq!(largest(&logits, 3), [(1, 3.0), (3, 3.0), (2, 1.0)]);
        assert_eq!(largest(&logits, 9).len(), 5);
        assert_eq!(largest(&logits, 0), []);
    }
}
