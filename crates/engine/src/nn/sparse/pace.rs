//! Timing two ways of computing the same, and keeping the faster.

use web_time::{Duration, Instant};

/// Tokens that are computed both ways, in turns, before the faster is kept; the first few are not timed.
const TRIAL: u32 = 20;
const WARM_UP: u32 = 4;

/// Tokens of either way after which the trial may end early, if all of one were faster than all of the other.
const CLEAR: usize = 4;

/// Times both ways and keeps the faster.
#[derive(Debug, Default)]
pub(super) struct Pace {
    fixed: bool,
    tokens: u32,
    /// Of the tokens that were computed sparse, and dense.
    times: [Vec<Duration>; 2],
    started: Option<Instant>,
}

impl Pace {
    /// Always sparse, without timing.
    pub(super) fn fixed() -> Self {
        Self { fixed: true, ..Self::default() }
    }

    pub(super) fn is_sparse(&self) -> bool {
        if self.fixed {
            true
        } else if !self.is_settled() {
            self.tokens.is_multiple_of(2)
        } else {
            self.medians().is_none_or(|[sparse, dense]| sparse <= dense)
        }
    }

    /// Begins a token; whether it is to be sparse.
    pub(super) fn start(&mut self) -> bool {
        self.started = (!self.fixed && !self.is_settled()).then(Instant::now);
        self.is_sparse()
    }

    /// Ends the token.
    pub(super) fn stop(&mut self) {
        if let Some(started) = self.started.take() {
            self.add(started.elapsed());
        }
    }

    /// Adds what a token of the trial took.
    fn add(&mut self, time: Duration) {
        if self.tokens >= WARM_UP {
            self.times[usize::from(!self.is_sparse())].push(time);
        }
        self.tokens += 1;
    }

    /// Whether the trial is over.
    fn is_settled(&self) -> bool {
        let [sparse, dense] = &self.times;
        let all_below = |a: &[Duration], b: &[Duration]| a.iter().max() < b.iter().min();
        self.tokens >= TRIAL
            || (sparse.len().min(dense.len()) >= CLEAR
                && (all_below(sparse, dense) || all_below(dense, sparse)))
    }

    /// Milliseconds of a token, sparse and dense, once both were timed.
    pub(super) fn timed_ms(&self) -> Option<[f64; 2]> {
        let medians = self.medians().filter(|_| self.is_settled());
        medians.map(|times| times.map(|time| time.as_secs_f64() * 1e3))
    }

    /// The middle of each: one token that the system has interrupted says nothing.
    fn medians(&self) -> Option<[Duration; 2]> {
        let mut medians = [Duration::ZERO; 2];
        for (median, times) in medians.iter_mut().zip(&self.times) {
            let mut times = times.clone();
            times.sort_unstable();
            *median = *times.get(times.len() / 2)?;
        }
        Some(medians)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of a trial whose sparse and dense ones take so many milliseconds, by the number of the token.
    fn trial(sparse: impl Fn(u32) -> u64, dense: impl Fn(u32) -> u64) -> Pace {
        let mut pace = Pace::default();
        while !pace.is_settled() {
            let ms = if pace.is_sparse() { sparse(pace.tokens) } else { dense(pace.tokens) };
            pace.add(Duration::from_millis(ms));
        }
        pace
    }

    #[test]
    fn the_faster_way_is_kept() {
        // What is clear is clear soon.
        let pace = trial(|_| 3, |_| 5);
        assert!(pace.is_sparse() && pace.tokens == WARM_UP + 2 * CLEAR as u32);
        assert_eq!(pace.timed_ms(), Some([3.0, 5.0]));
        let pace = trial(|_| 5, |_| 3);
        assert!(!pace.is_sparse() && pace.tokens < TRIAL);
        // Else the middle counts, of all of the trial: one token is interrupted, and both are close.
        let pace = trial(|token| if token == 6 { 90 } else { 3 }, |token| 2 + u64::from(token) % 4);
        assert!(pace.is_sparse() && pace.tokens == TRIAL);
        // The first tokens are slow for other reasons.
        let pace = trial(|token| if token < WARM_UP { 900 } else { 2 }, |_| 3);
        assert!(pace.is_sparse() && pace.tokens < TRIAL);
        assert!(Pace::fixed().is_sparse());
    }
}
