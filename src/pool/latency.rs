//! How long an upstream takes to answer: an average that follows slower answers at once and faster ones over some seconds, and
//! that fades while nothing comes, so that an upstream that was slow is tried again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After so many seconds what was seen before counts a third.
const DECAY_SECONDS: f32 = 10.0;
/// A failure counts as an answer after twice the average, and at least after this, in seconds.
const PENALTY_SECONDS: f32 = 1.0;

/// See the head of this file. All workers share it: one write for each response, in pools that balance by it.
#[derive(Debug, Default)]
pub struct Latency(
    /// The bits of the average in seconds, and below them the time of the last answer in milliseconds. 0: none has come.
    AtomicU64,
);

impl Latency {
    /// An answer has come after this time. `millis`: the time now, of any origin.
    pub fn on_answer(&self, took: Duration, millis: u32) {
        self.observe(millis, |_| took.as_secs_f32());
    }

    /// A request has failed.
    pub fn on_failure(&self, millis: u32) {
        self.observe(millis, |average| (2.0 * average).max(PENALTY_SECONDS));
    }

    /// The average, in seconds; 0: nothing is known.
    pub fn seconds(&self, millis: u32) -> f32 {
        let (average, at) = unpack(self.0.load(Ordering::Relaxed));
        if average == 0.0 { 0.0 } else { average * weight(millis, at) }
    }

    fn observe(&self, millis: u32, sample: impl Fn(f32) -> f32) {
        let next = |packed: u64| {
            let (average, at) = unpack(packed);
            let old = weight(millis, at);
            // An average of nothing would look as if nothing were known.
            let sample = sample(average * old).max(f32::MIN_POSITIVE);
            let next = if sample >= average * old { sample } else { average * old + sample * (1.0 - old) };
            Some(u64::from(next.to_bits()) << 32 | u64::from(millis))
        };
        // It always gives a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

/// How much what was seen at `at` still counts.
fn weight(millis: u32, at: u32) -> f32 {
    // Another worker may have a later time.
    let passed = millis.wrapping_sub(at);
    let passed = if passed > u32::MAX / 2 { 0 } else { passed };
    (-(passed as f32) / 1e3 / DECAY_SECONDS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[track_caller]
    fn assert_near(got: f32, want: f32) {
        assert!((got - want).abs() <= want * 0.02, "{got}, not {want}");
    }

    #[test]
    fn it_follows_a_slower_answer_at_once_and_a_faster_one_with_time() {
        let latency = Latency::default();
        assert_eq!(latency.seconds(7), 0.0, "nothing is known");
        latency.on_answer(10 * MS, 1_000);
        assert_near(latency.seconds(1_000), 0.010);
        latency.on_answer(200 * MS, 1_000);
        assert_near(latency.seconds(1_000), 0.200);
        // Ten seconds later that counts a third, also without an answer.
        assert_near(latency.seconds(11_000), 0.200 * 0.368);
        latency.on_answer(10 * MS, 11_000);
        assert_near(latency.seconds(11_000), 0.200 * 0.368 + 0.010 * 0.632);
        (0..60).for_each(|second| latency.on_answer(10 * MS, 12_000 + second * 1_000));
        assert_near(latency.seconds(71_000), 0.010);
    }

    #[test]
    fn a_failure_counts_as_a_very_slow_answer() {
        let latency = Latency::default();
        latency.on_answer(10 * MS, 0);
        latency.on_failure(0);
        assert_near(latency.seconds(0), 1.0);
        latency.on_failure(0);
        assert_near(latency.seconds(0), 2.0);
        // The clock of this average may wrap, and another worker's may be a little ahead.
        latency.on_answer(MS, u32::MAX);
        assert_near(latency.seconds(9_999), 2.0 * 0.368);
        assert_near(latency.seconds(u32::MAX - 5), 2.0);
    }
}
