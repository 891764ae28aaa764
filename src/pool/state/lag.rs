//! How late probes begin: the worst of the last minute, so that a scrape once a minute sees one bad moment.

use std::time::Duration;

use tokio::time::Instant;

/// How long a late start is reported, at least.
const WINDOW: Duration = Duration::from_secs(60);

/// Parts of the window; the oldest is forgotten when a new one begins.
const PARTS: usize = 6;

/// The worst lateness of the last minute.
#[derive(Debug, Default)]
pub struct Lag {
    /// The worst of each part that is kept, newest first.
    parts: [Duration; PARTS + 1],
    /// When the newest part began.
    began: Option<Instant>,
}

impl Lag {
    /// A probe began this long after it was due.
    pub fn note(&mut self, late: Duration, now: Instant) {
        let part = WINDOW / PARTS as u32;
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_millis() / part.as_millis();
        if passed > 0 {
            let kept = self.parts.len();
            let shift = usize::try_from(passed).map_or(kept, |n| n.min(kept));
            self.parts.rotate_right(shift % kept);
            self.parts[..shift].fill(Duration::ZERO);
            // Aligned with the first part, so that slow probing does not stretch the window.
            let whole = part.as_millis() * passed;
            self.began = Some(began + Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX)));
        }
        self.parts[0] = self.parts[0].max(late);
    }

    /// The worst of the last 60 to 70 s, because parts are dropped whole.
    pub fn worst(&self, now: Instant) -> Duration {
        let Some(began) = self.began else { return Duration::ZERO };
        let part = WINDOW / PARTS as u32;
        let passed = now.saturating_duration_since(began).as_millis() / part.as_millis();
        let gone = usize::try_from(passed).unwrap_or(usize::MAX).min(self.parts.len());
        self.parts[..self.parts.len() - gone].iter().copied().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_worst_is_reported_for_a_minute_and_then_forgotten() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let ms = Duration::from_millis;
        let mut lag = Lag::default();
        assert_eq!(lag.worst(at(0)), Duration::ZERO);
        lag.note(ms(900), at(0));
        for second in 1..=60 {
            lag.note(ms(2), at(second));
            assert_eq!(lag.worst(at(second)), ms(900), "after {second} s");
        }
        for second in 61..=75 {
            lag.note(ms(2), at(second));
        }
        assert_eq!(lag.worst(at(75)), ms(2));
        assert_eq!(lag.worst(at(1_000)), Duration::ZERO, "nothing has begun since");
        lag.note(ms(5), at(2_000));
        assert_eq!(lag.worst(at(2_000)), ms(5));
    }
}
