//! Slow start: an upstream that begins to take requests has a part of its weight, which grows with time. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Ratio;

/// The part grows in so many steps, because each makes a new view.
const STEPS: u32 = 20;
/// It begins with so many of them: a tenth.
const FIRST_STEP: u32 = 2;

/// The growth of one upstream's weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ramp {
    since: Instant,
}

impl Ramp {
    /// It begins to take requests.
    pub(super) fn start(now: Instant) -> Ramp {
        Ramp { since: now }
    }

    /// Which part of its weight it has, if all of it takes so long; and when that is more.
    pub(super) fn part(self, slow_start: Duration, now: Instant) -> Option<(Ratio, Instant)> {
        let step = slow_start / STEPS;
        let passed = now.saturating_duration_since(self.since).as_nanos().checked_div(step.as_nanos())?;
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        (passed < STEPS).then(|| {
            let part = Ratio::percent(passed.max(FIRST_STEP) * 100 / STEPS);
            (part, self.since + step * (passed.max(FIRST_STEP) + 1))
        })
    }

    /// When it has all of its weight.
    pub(super) fn until(self, slow_start: Duration) -> Instant {
        self.since + slow_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_part_grows_in_steps_from_a_tenth_to_all() {
        let now = Instant::now();
        let ramp = Ramp::start(now);
        // Seconds since the start, hundredths of the weight, and after how many seconds it grows.
        for (after, percent, next) in
            [(0.0, 10, 3.0), (1.0, 10, 3.0), (2.9, 10, 3.0), (3.0, 15, 4.0), (10.5, 50, 11.0), (19.5, 95, 20.0)]
        {
            let at = |seconds: f64| now + Duration::from_secs_f64(seconds);
            assert_eq!(ramp.part(20 * SECOND, at(after)), Some((Ratio::percent(percent), at(next))), "after {after} s");
        }
        for after in [20, 21, 9_999_999] {
            assert_eq!(ramp.part(20 * SECOND, now + after * SECOND), None, "after {after} s");
        }
        assert_eq!(ramp.part(Duration::ZERO, now), None, "switched off");
        assert_eq!(ramp.part(Duration::from_nanos(1), now).map(|(part, _)| part), None, "too short to see");
        assert_eq!(ramp.until(20 * SECOND), now + 20 * SECOND);
    }
}
