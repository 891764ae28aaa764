//! Turns instants of the monotonic clock into dates, by an anchor that pairs one instant with its date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::date;

/// Converts instants to dates. The anchor is kept while it is accurate to a second, so that an instant is always
/// printed as the same date, and replaced when the system's clock was set.
#[derive(Debug)]
pub struct Clock {
    anchor: Mutex<Anchor>,
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    date: SystemTime,
    instant: Instant,
}

/// How far the two clocks may drift apart.
const DRIFT_MAX: Duration = Duration::from_secs(1);

impl Clock {
    /// A clock anchored now.
    pub fn start() -> Clock {
        Clock { anchor: Mutex::new(Anchor { date: SystemTime::now(), instant: Instant::now() }) }
    }

    /// The date of `at` as RFC 3339 in UTC with milliseconds.
    pub fn date(&self, at: Instant) -> String {
        rfc3339(self.anchor().date_of(at))
    }

    fn anchor(&self) -> Anchor {
        let now = Anchor { date: SystemTime::now(), instant: Instant::now() };
        let mut anchor = self.anchor.lock();
        if distance(anchor.date_of(now.instant), now.date) > DRIFT_MAX {
            *anchor = now;
        }
        *anchor
    }
}

impl Anchor {
    fn date_of(self, at: Instant) -> SystemTime {
        let date = match at.checked_duration_since(self.instant) {
            Some(later) => self.date.checked_add(later),
            None => self.date.checked_sub(self.instant.duration_since(at)),
        };
        date.unwrap_or(self.date)
    }
}

/// A date as RFC 3339 in UTC with milliseconds, as in `2026-11-21T10:00:00.123Z`.
pub fn rfc3339(date: SystemTime) -> String {
    // A machine without a battery starts in 1970, so that an instant can be before it.
    date::with_millis(date.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_rfc_3339_in_utc_with_milliseconds() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_255_200_123);
        assert_eq!(rfc3339(date), "2026-11-21T10:00:00.123Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn an_instant_is_printed_as_one_date_whenever_it_is_asked_for() {
        let clock = Clock::start();
        let at = Instant::now();
        let first = clock.date(at);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(clock.date(at), first);
        assert_ne!(clock.date(at + Duration::from_secs(1)), first);
    }

    #[test]
    fn the_anchor_is_replaced_when_the_clock_was_set() {
        let clock = Clock::start();
        clock.anchor.lock().date -= Duration::from_secs(3_600);
        let now = SystemTime::now();
        let printed = humantime::parse_rfc3339(&clock.date(Instant::now())).unwrap();
        assert!(distance(printed, now) < Duration::from_secs(60));
    }
}
