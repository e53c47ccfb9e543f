use std::collections::HashMap;

use super::config::Dry;

/// The state of the DRY penalty: the tokens so far, and how many of them follow the last sequence breaker.
///
/// Breakers are found in the text, byte by byte, so it does not matter how the tokenizer cut them: a repetition starts
/// after the token in which a breaker ends. A token whose own text holds a breaker is never penalised.
#[derive(Clone, Debug)]
pub(super) struct DryState {
    options: Dry,
    history: Vec<Entry>,
    /// Tokens after the one that ended the last breaker.
    unbroken: usize,
    /// The end of the text so far, one byte short of the longest breaker.
    tail: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    token: u32,
    holds_breaker: bool,
}

impl DryState {
    /// `None` if the options leave every logit as it is.
    pub(super) fn new(options: &Dry) -> Option<Self> {
        (options.multiplier > 0.0 && options.last_n > 0).then(|| Self {
            options: options.clone(),
            history: Vec::new(),
            unbroken: 0,
            tail: Vec::new(),
        })
    }

    pub(super) fn accept(&mut self, token: u32, text: &[u8]) {
        let breakers = &self.options.sequence_breakers;
        let holds_breaker = breakers.iter().any(|breaker| find(text, breaker.as_bytes()));
        self.history.push(Entry { token, holds_breaker });
        let before = self.tail.len();
        self.tail.extend_from_slice(text);
        let ends_breaker = breakers.iter().any(|breaker| {
            // What is found from here on ends in this token.
            let start = before.saturating_sub(breaker.len() - 1);
            find(&self.tail[start..], breaker.as_bytes())
        });
        self.unbroken = if ends_breaker { 0 } else { self.unbroken + 1 };
        let longest = breakers.iter().map(String::len).max().unwrap_or(1);
        let excess = self.tail.len().saturating_sub(longest - 1);
        self.tail.drain(..excess);
    }

    pub(super) fn apply(&self, logits: &mut [f32]) {
        let window = &self.history[self.history.len().saturating_sub(self.options.last_n)..];
        let mut longest: HashMap<u32, usize> = HashMap::new();
        for (i, repeated) in suffix_matches(window).into_iter().enumerate() {
            let repeated = repeated.min(self.unbroken);
            // The token that followed the earlier occurrence, and would extend the repetition.
            let next = window[i + 1];
            if repeated >= self.options.allowed_length && repeated > 0 && !next.holds_breaker {
                let length = longest.entry(next.token).or_default();
                *length = repeated.max(*length);
            }
        }
        for (token, repeated) in longest {
            if let Some(logit) = logits.get_mut(token as usize) {
                let exponent = (repeated - self.options.allowed_length) as f32;
                let penalty = self.options.multiplier * self.options.base.powf(exponent);
                // A power that overflows would turn "very unlikely" into a mask.
                *logit -= penalty.min(f32::MAX.sqrt());
            }
        }
    }
}

/// For each position but the last, how many tokens ending there equal those ending at the last.
///
/// The Z algorithm from the end: linear in the window however it repeats.
fn suffix_matches(window: &[Entry]) -> Vec<usize> {
    let Some(last) = window.len().checked_sub(1) else { return Vec::new() };
    // `at(i)` counts from the end: a common prefix of the reversal is a common suffix of the window.
    let at = |i: usize| window[last - i].token;
    let mut matches = vec![0; last];
    let mut z = vec![0; window.len()];
    let (mut left, mut right) = (0, 0);
    for i in 1..window.len() {
        let mut n = if i < right { z[i - left].min(right - i) } else { 0 };
        while i + n < window.len() && at(n) == at(i + n) {
            n += 1;
        }
        if i + n > right {
            (left, right) = (i, i + n);
        }
        z[i] = n;
        matches[last - i] = n;
    }
    matches
}

fn find(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokens are letters, `a` is 0.
    fn penalties(options: Dry, text: &str) -> Vec<f32> {
        let mut state = DryState::new(&options.with_multiplier(1.0)).expect("on");
        for byte in text.bytes() {
            state.accept(u32::from(byte.wrapping_sub(b'a')), &[byte]);
        }
        let mut logits = vec![0.0; 6];
        state.apply(&mut logits);
        logits.into_iter().map(|logit| 0.0 - logit).collect()
    }

    fn options() -> Dry {
        Dry::default().with_base(2.0)
    }

    #[test]
    fn the_penalty_grows_with_the_repetition() {
        // After "abcd…abc" a `d` would extend a repetition of 3, one above the 2 allowed.
        assert_eq!(penalties(options(), "abcdfabc"), [0.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
        assert_eq!(penalties(options().with_allowed_length(3), "abcdfabc")[3], 1.0);
        assert_eq!(penalties(options().with_allowed_length(4), "abcdfabc"), [0.0; 6]);
        assert_eq!(penalties(options().with_last_n(6), "abcdfabc"), [0.0; 6]);
    }

    #[test]
    fn the_longest_repetition_counts() {
        // `d` follows "bc" once and "abc" once.
        assert_eq!(penalties(options(), "abcdebcdfabc")[3], 2.0);
    }

    #[test]
    fn a_run_repeats_itself() {
        assert_eq!(penalties(options(), "aaaaa")[0], 4.0);
    }

    #[test]
    fn breakers_limit_the_repetition_however_they_are_cut() {
        let options = options().with_sequence_breakers(["xy"]);
        assert_eq!(penalties(options.clone(), "abxycdeabxycd")[4], 1.0);
        assert_eq!(penalties(options.clone(), "abzycdeabzycd")[4], 16.0);
        assert_eq!(penalties(options, "abxycabxyc"), [0.0; 6]);
    }

    #[test]
    fn a_breaker_is_never_penalised() {
        let options = options().with_sequence_breakers(["d"]);
        assert_eq!(penalties(options, "abcdfabc"), [0.0; 6]);
    }

    #[test]
    fn huge_penalties_do_not_mask() {
        let text = "a".repeat(3000);
        let penalty = penalties(Dry::default().with_base(f32::MAX), &text)[0];
        assert!(penalty.is_finite() && penalty > 1e18);
    }

    proptest! {
        #[test]
        fn suffix_matches_equal_the_obvious_count(tokens in proptest::collection::vec(0u32..3, 0..60)) {
            let window: Vec<Entry> = tokens.iter().map(|&token| Entry { token, holds_breaker: false }).collect();
            let obvious: Vec<usize> = (0..tokens.len().saturating_sub(1))
                .map(|i| (0..=i).take_while(|&n| tokens[i - n] == tokens[tokens.len() - 1 - n]).count())
                .collect();
            prop_assert_eq!(suffix_matches(&window), obvious);
        }
    }
}
