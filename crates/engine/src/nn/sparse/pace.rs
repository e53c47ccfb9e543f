//! Timing two ways of computing the same, and keeping the faster.

use web_time::{Duration, Instant};

/// Tokens that are computed both ways, in turns, before the faster is kept; the first few are not timed.
const TRIAL: u32 = 20;
const WARM_UP: u32 = 4;

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
        } else if self.tokens < TRIAL {
            self.tokens.is_multiple_of(2)
        } else {
            self.medians().is_none_or(|[sparse, dense]| sparse <= dense)
        }
    }

    /// Begins a token; whether it is to be sparse.
    pub(super) fn start(&mut self) -> bool {
        self.started = (!self.fixed && self.tokens < TRIAL).then(Instant::now);
        self.is_sparse()
    }

    /// Ends the token.
    pub(super) fn stop(&mut self) {
        let Some(started) = self.started.take() else { return };
        if self.tokens >= WARM_UP {
            self.times[usize::from(!self.is_sparse())].push(started.elapsed());
        }
        self.tokens += 1;
    }

    /// Milliseconds of a token, sparse and dense, once both were timed.
    pub(super) fn timed_ms(&self) -> Option<[f64; 2]> {
        let medians = self.medians().filter(|_| self.tokens >= TRIAL);
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
