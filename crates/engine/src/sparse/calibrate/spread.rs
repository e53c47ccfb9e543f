//! How the activations of a layer are spread.

use crate::sparse::Thresholds;

/// The least share of the neurons for which computing the gate first is worth its overhead.
const GATE_SHARE: f64 = 0.25;

/// Bins for a factor of two: as many as three bits of a float's mantissa tell apart.
const MANTISSA_BITS: u32 = 3;
/// The first bin begins at 2^-32, the last at 2^32.
const FIRST: u32 = (127 - 32) << MANTISSA_BITS;
const BINS: usize = 64 << MANTISSA_BITS;

/// By size of a measure: how many neurons there were, and how much energy they carried.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    bins: Vec<(u64, f64)>,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { bins: vec![(0, 0.0); BINS] }
    }

    /// `measure` is not negative.
    pub(super) fn add(&mut self, measure: f32, energy: f32) {
        let bin = (measure.to_bits() >> (23 - MANTISSA_BITS)).saturating_sub(FIRST);
        let bin = &mut self.bins[(bin as usize).min(BINS - 1)];
        bin.0 += 1;
        bin.1 += f64::from(energy);
    }

    /// The threshold below which lies `share` of the energy, and the share of neurons there.
    pub(super) fn below(&self, share: f64) -> (f32, f64) {
        let (count, energy) = self.bins.iter().fold((0, 0.0), |(n, e), bin| (n + bin.0, e + bin.1));
        let (mut dropped, mut left) = (0, share * energy);
        for (i, bin) in self.bins.iter().enumerate() {
            left -= bin.1;
            if left < 0.0 {
                let start = f32::from_bits((FIRST + i as u32) << (23 - MANTISSA_BITS));
                return (if i == 0 { 0.0 } else { start }, dropped as f64 / count.max(1) as f64);
            }
            dropped += bin.0;
        }
        (0.0, 0.0)
    }
}

/// How gates and activations of a layer are spread.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    /// Neurons of the layer.
    pub(super) neurons: usize,
    pub(super) gate: Histogram,
    pub(super) down: Histogram,
}

impl Spread {
    pub(super) fn new(neurons: usize) -> Self {
        Self { neurons, gate: Histogram::new(), down: Histogram::new() }
    }

    /// The thresholds that drop this share of the energy.
    pub(super) fn thresholds(&self, share: f64) -> Thresholds {
        let (gate, skipped) = self.gate.below(share / 2.0);
        if skipped >= GATE_SHARE {
            return Thresholds { gate, down: self.down.below(share / 2.0).0 };
        }
        Thresholds { gate: 0.0, down: self.down.below(share).0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_drops_the_share_asked_for() {
        let mut histogram = Histogram::new();
        // A thousand small ones carry a tenth of what one large one does.
        (0..1000).for_each(|i| histogram.add(0.01 + i as f32 * 1e-6, 1e-4));
        histogram.add(1.0, 1.0);
        let (threshold, dropped) = histogram.below(0.095);
        assert!(threshold > 0.011 && threshold <= 1.0 && (dropped - 1000.0 / 1001.0).abs() < 1e-9);
        assert_eq!(histogram.below(0.0).1, 0.0);
        assert!(histogram.below(0.5).0 <= 1.0);
        // What no bin holds goes to the outermost.
        histogram.add(0.0, 0.0);
        histogram.add(f32::INFINITY, 0.0);
    }
}
