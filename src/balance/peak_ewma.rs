//! The slot that is likely to answer first: of two weighted draws the one with the smaller product of its latency and the
//! requests that wait for it. The latency is an average over some seconds that follows every slower answer at once
//! ([`crate::pool::latency`]); the algorithm is Finagle's.

use super::Slots;
use super::shares::Shares;
use crate::model::FineWeight;

/// The most draws for a second choice that differs from the first.
const SECOND_DRAWS_MAX: usize = 4;
/// What a slot costs, in seconds, of which nothing is known but that it has requests in flight: one at a time finds out.
const UNKNOWN: f64 = 1_000.0;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct PeakEwma(Shares);

impl PeakEwma {
    pub(super) fn build(weights: &[FineWeight]) -> PeakEwma {
        PeakEwma(Shares::new(weights))
    }

    pub(super) fn pick(&self, slots: &impl Slots, rng: &mut fastrand::Rng) -> Option<usize> {
        let first = self.0.draw_unskipped(rng, |index| slots.skips(index))?;
        let mut draws = (0..SECOND_DRAWS_MAX).filter_map(|_| self.0.draw(rng));
        let Some(second) = draws.find(|index| *index != first && !slots.skips(*index)) else { return Some(first) };
        Some(if cost(second, slots) < cost(first, slots) { second } else { first })
    }
}

fn cost(index: usize, slots: &impl Slots) -> f64 {
    let (latency, load) = (f64::from(slots.latency(index)), f64::from(slots.load(index)));
    if latency == 0.0 && load > 0.0 { UNKNOWN + load } else { latency * (load + 1.0) }
}
