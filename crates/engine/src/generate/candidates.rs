use std::cmp::Ordering;

use firecrest_kernels::isa::IsaKind;
use firecrest_kernels::ops;

use super::SampleError;
use super::random::SplitMix64;

/// A token that may be chosen, and its logit: finite, never masked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

/// Likelier first; among equals the smaller id, so that the result never depends on the order of the input.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Goes through logits for those above a bar that rises on the way.
struct Above<'a> {
    logits: &'a [f32],
    next: usize,
    isa: IsaKind,
}

impl<'a> Above<'a> {
    fn new(logits: &'a [f32]) -> Self {
        Self { logits, next: 0, isa: IsaKind::best() }
    }

    /// The next token above `bar`. Fails if a logit on the way is NaN or positive infinity.
    fn next(&mut self, bar: f32) -> Result<Option<Candidate>, SampleError> {
        let rest = &self.logits[self.next..];
        // The very next one is looked at first: where most are above the bar, it is.
        let next = if rest.first().is_some_and(|&logit| logit > bar) {
            Some(0)
        } else {
            ops::first_above(self.isa, rest, bar)
        };
        let Some(skipped) = next else {
            self.next = self.logits.len();
            return Ok(None);
        };
        let (id, logit) = ((self.next + skipped) as u32, rest[skipped]);
        self.next += skipped + 1;
        // Written so that NaN, which compares with nothing, fails too.
        if logit < f32::INFINITY {
            Ok(Some(Candidate { id, logit }))
        } else {
            Err(SampleError::BadLogit { token: id, logit })
        }
    }
}

/// The unmasked token with the largest logit, the first of equals; `None` if there is none. Fails if a logit is NaN or
/// positive infinity.
pub(crate) fn likeliest(logits: &[f32]) -> Result<Option<u32>, SampleError> {
    let (mut above, mut best) = (Above::new(logits), None);
    let mut bar = f32::NEG_INFINITY;
    while let Some(token) = above.next(bar)? {
        bar = token.logit;
        best = Some(token.id);
    }
    Ok(best)
}

/// The tokens that are left to choose from, in no particular order, and the filters that thin them.
///
/// Every filter leaves at least one candidate where there was one.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates(Vec<Candidate>);

impl Candidates {
    /// The unmasked tokens of `logits`, or the `top_k` likeliest of them if that is not 0. Fails if a logit is NaN or
    /// positive infinity.
    ///
    /// One pass: a buffer of twice `top_k` takes what beats the worst token sure to be kept, and is halved by selection
    /// when full. On real logits the bar rises quickly, and most of them are passed over by vectors.
    pub(super) fn fill(&mut self, logits: &[f32], top_k: usize) -> Result<(), SampleError> {
        let kept = &mut self.0;
        kept.clear();
        let top_k = if top_k == 0 { logits.len() } else { top_k.min(logits.len()) };
        let (mut above, mut bar) = (Above::new(logits), f32::NEG_INFINITY);
        while let Some(token) = above.next(bar)? {
            kept.push(token);
            if kept.len() == 2 * top_k {
                keep_likeliest(kept, top_k);
                bar = kept[top_k - 1].logit;
            }
        }
        keep_likeliest(kept, top_k);
        Ok(())
    }

    /// The candidates, likeliest first.
    pub(super) fn into_sorted(mut self) -> Vec<Candidate> {
        self.0.sort_unstable_by(likelier);
        self.0
    }

    /// Keeps the likeliest candidates that together have the probability `p`.
    pub(super) fn top_p(&mut self, p: f32) {
        let log_sum = self.log_sum_exp();
        let probability = |token: &Candidate| (token.logit as f64 - log_sum).exp();
        keep_mass(&mut self.0, p as f64, likelier, probability);
    }

    /// Keeps the candidates whose surprisal is nearest to the entropy and that together have the probability `p`.
    pub(super) fn typical(&mut self, p: f32) {
        let log_sum = self.log_sum_exp();
        let surprisal = |token: &Candidate| log_sum - token.logit as f64;
        let entropy: f64 = self.0.iter().map(|token| surprisal(token) * (-surprisal(token)).exp()).sum();
        let oddity = |token: &Candidate| (surprisal(token) - entropy).abs();
        let order =
            |a: &Candidate, b: &Candidate| oddity(a).total_cmp(&oddity(b)).then_with(|| likelier(a, b));
        keep_mass(&mut self.0, p as f64, order, |token| (-surprisal(token)).exp());
    }

    /// Keeps the candidates that are at least `p` times as likely as the likeliest.
    pub(super) fn min_p(&mut self, p: f32) {
        let bar = self.max() + p.ln();
        self.0.retain(|token| token.logit >= bar);
    }

    /// Draws a candidate with the softmax of `logit / temperature`; `None` if there is none.
    pub(super) fn draw(&self, temperature: f32, rng: &mut SplitMix64) -> Option<u32> {
        let max = self.max();
        // The quotient of the difference is at most 0, so no temperature overflows it.
        let weight = |token: &Candidate| ((token.logit - max) as f64 / temperature as f64).exp();
        let total: f64 = self.0.iter().map(weight).sum();
        let mut rest = rng.next_f64() * total;
        for token in &self.0 {
            let weight = weight(token);
            if rest < weight {
                return Some(token.id);
            }
            rest -= weight;
        }
        // Rounding can leave a trace of `rest` after the last candidate.
        self.0.iter().max_by(|a, b| likelier(b, a)).map(|token| token.id)
    }

    fn max(&self) -> f32 {
        self.0.iter().map(|token| token.logit).fold(f32::NEG_INFINITY, f32::max)
    }

    fn log_sum_exp(&self) -> f64 {
        log_sum_exp(self.0.iter().map(|token| token.logit))
    }
}

/// The logarithm of the sum of the exponentials: negative infinity of nothing.
pub(super) fn log_sum_exp(logits: impl Iterator<Item = f32> + Clone) -> f64 {
    let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    max as f64 + logits.map(|logit| f64::from((logit - max).exp())).sum::<f64>().ln()
}

/// Leaves the `k` likeliest tokens, the least likely of them last.
fn keep_likeliest(tokens: &mut Vec<Candidate>, k: usize) {
    if tokens.len() > k {
        tokens.select_nth_unstable_by(k - 1, likelier);
        tokens.truncate(k);
    }
}

/// Keeps the shortest run of tokens in `order` whose probabilities reach `mass`.
///
/// Orders them a chunk at a time, each as large as all before it: what is dropped is never sorted.
fn keep_mass(
    tokens: &mut Vec<Candidate>,
    mass: f64,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
    probability: impl Fn(&Candidate) -> f64,
) {
    let mut reached = 0.0;
    let mut sorted = 0;
    while sorted < tokens.len() {
        let rest = &mut tokens[sorted..];
        let chunk = sorted.max(64).min(rest.len());
        if chunk < rest.len() {
            rest.select_nth_unstable_by(chunk - 1, &order);
        }
        rest[..chunk].sort_unstable_by(&order);
        for (i, token) in rest[..chunk].iter().enumerate() {
            reached += probability(token);
            if reached >= mass {
                tokens.truncate(sorted + i + 1);
                return;
            }
        }
        sorted += chunk;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(logits: &[f32], top_k: usize) -> Candidates {
        let mut candidates = Candidates::default();
        candidates.fill(logits, top_k).unwrap();
        candidates
    }

    fn ids(candidates: Candidates) -> Vec<u32> {
        candidates.into_sorted().iter().map(|token| token.id).collect()
    }

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        // Few distinct values, so that ties are common; some masked.
        let logit = prop_oneof![4 => (-20i8..20).prop_map(|x| x as f32 / 2.0), 1 => Just(f32::NEG_INFINITY)];
        proptest::collection::vec(logit, 1..400)
    }

    fn sorted_all(logits: &[f32]) -> Vec<Candidate> {
        candidates(logits, 0).into_sorted()
    }

    proptest! {
        #[test]
        fn top_k_is_a_prefix_of_the_full_sort(logits in logits(), k in 1usize..100) {
            let all: Vec<u32> = sorted_all(&logits).iter().map(|token| token.id).collect();
            prop_assert_eq!(ids(candidates(&logits, k)), &all[..k.min(all.len())]);
        }

        #[test]
        fn top_p_is_the_shortest_sufficient_prefix(logits in logits(), p in 0.01f32..1.0) {
            let all = sorted_all(&logits);
            let total: f64 = all.iter().map(|token| (token.logit as f64).exp()).sum();
            let mut kept = candidates(&logits, 0);
            kept.top_p(p);
            let kept = kept.into_sorted();
            prop_assert_eq!(&kept[..], &all[..kept.len()]);
            if let Some((_, shorter)) = kept.split_last() {
                let mass = |tokens: &[Candidate]| tokens.iter().map(|t| (t.logit as f64).exp()).sum::<f64>() / total;
                prop_assert!(mass(shorter) < p as f64 + 1e-6);
                prop_assert!(mass(&kept) >= p as f64 - 1e-6);
            }
        }

        #[test]
        fn filters_leave_one_and_never_unmask(logits in logits(), p in 0.0f32..=1.0, k in 0usize..50) {
            let any = logits.iter().any(|logit| logit.is_finite());
            let mut kept = candidates(&logits, k);
            kept.typical(p);
            kept.top_p(p);
            kept.min_p(p);
            prop_assert_eq!(kept.draw(0.7, &mut SplitMix64::new(1)).is_some(), any);
            prop_assert!(kept.0.iter().all(|token| logits[token.id as usize].is_finite()));
        }
    }

    #[test]
    fn typical_prefers_the_expected_surprisal() {
        // Probabilities 0.5, 0.2, 0.15, 0.15: the entropy is 1.236 nats, the surprisals 0.69, 1.61, 1.90, 1.90.
        let logits = [0.5f32, 0.2, 0.15, 0.15].map(f32::ln);
        let mut kept = candidates(&logits, 0);
        kept.typical(0.19);
        assert_eq!(ids(kept), [1]);
        let mut kept = candidates(&logits, 0);
        kept.typical(0.6);
        assert_eq!(ids(kept), [0, 1]);
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        let mut kept = candidates(&[0.6f32, 0.3, 0.07, 0.03].map(f32::ln), 0);
        kept.min_p(0.1);
        assert_eq!(ids(kept), [0, 1, 2]);
    }

    #[test]
    fn draws_follow_the_softmax() {
        // A χ² statistic of 4 degrees of freedom exceeds 18.47 once in a thousand seeds.
        let logits = [0.0f32, 1.0, -1.0, 2.0, 0.5];
        let candidates = candidates(&logits, 0);
        for temperature in [0.5f32, 1.0, 2.0] {
            let weights = logits.map(|logit| ((logit / temperature) as f64).exp());
            let total: f64 = weights.iter().sum();
            let (mut rng, mut counts, draws) = (SplitMix64::new(7), [0usize; 5], 20_000);
            for _ in 0..draws {
                counts[candidates.draw(temperature, &mut rng).unwrap() as usize] += 1;
            }
            let chi_squared: f64 = (0..5)
                .map(|i| (counts[i] as f64, draws as f64 * weights[i] / total))
                .map(|(count, expected)| (count - expected).powi(2) / expected)
                .sum();
            assert!(chi_squared < 18.47, "temperature {temperature}: {counts:?}, χ² {chi_squared}");
        }
    }

    #[test]
    fn extreme_temperatures_and_logits_draw() {
        let candidates = candidates(&[-3.0e38, 3.0e38, 0.0], 0);
        let mut rng = SplitMix64::new(3);
        for temperature in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
            assert!(candidates.draw(temperature, &mut rng).is_some());
        }
        assert_eq!(candidates.draw(f32::MIN_POSITIVE, &mut rng), Some(1));
    }
}
