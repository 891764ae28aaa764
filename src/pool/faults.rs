//! Malformed responses to requests: how many there were, what was wrong with the last one, and when to log the next.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http1::Fault;

/// The malformed responses of one upstream. Allocates only at the first one: most upstreams never send any.
#[derive(Debug, Default)]
pub struct Faults(OnceLock<Box<Mutex<Record>>>);

#[derive(Debug, Default)]
struct Record {
    total: u64,
    last: Option<LastFault>,
    logged: Option<Instant>,
    /// Responses since the one of the last line.
    unlogged: u64,
}

/// The last malformed response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastFault {
    /// When it came.
    pub at: Instant,
    /// What was wrong with it.
    pub fault: Fault,
}

impl Faults {
    /// The shortest time between two log lines about one upstream.
    pub const LINE_EVERY: Duration = Duration::from_secs(1);

    /// Whether there was one.
    pub fn any(&self) -> bool {
        self.0.get().is_some()
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.get().map_or(0, |noted| noted.lock().total)
    }

    /// The last one.
    pub fn last(&self) -> Option<LastFault> {
        self.0.get().and_then(|noted| noted.lock().last)
    }

    /// Counts one at `now`. `Some`: log a line; the number is how many before it were not logged.
    pub fn note(&self, fault: Fault, now: Instant) -> Option<u64> {
        let mut noted = self.0.get_or_init(Box::default).lock();
        noted.total += 1;
        noted.last = Some(LastFault { at: now, fault });
        if noted.logged.is_some_and(|logged| now.saturating_duration_since(logged) < Faults::LINE_EVERY) {
            noted.unlogged += 1;
            return None;
        }
        noted.logged = Some(now);
        Some(std::mem::take(&mut noted.unlogged))
    }

    /// The line that is due at `now` although no further one came: about the last one, and how many before it were not
    /// logged.
    pub fn due(&self, now: Instant) -> Option<(Fault, u64)> {
        let mut noted = self.0.get()?.lock();
        let before = noted.unlogged.checked_sub(1)?;
        if noted.logged.is_some_and(|logged| now.saturating_duration_since(logged) < Faults::LINE_EVERY) {
            return None;
        }
        noted.logged = Some(now);
        noted.unlogged = 0;
        Some((noted.last?.fault, before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_says_how_many_were_not_logged() {
        let (faults, start) = (Faults::default(), Instant::now());
        assert_eq!((faults.total(), faults.last()), (0, None));
        let lines: Vec<_> = (0..=24)
            .map(|tenths| start + Duration::from_millis(100) * tenths)
            .filter_map(|now| faults.note(Fault::NotHttp, now))
            .collect();
        assert_eq!(lines, [0, 9, 9]);
        let late = start + Duration::from_secs(60);
        assert_eq!(faults.note(Fault::Interim, late), Some(4));
        assert_eq!(faults.last(), Some(LastFault { at: late, fault: Fault::Interim }));
        assert_eq!(faults.total(), 26);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ones_get_their_line_without_a_further_one() {
        let (faults, start) = (Faults::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(faults.due(after(0)), None, "there are none");
        assert_eq!(faults.note(Fault::NotHttp, after(0)), Some(0));
        assert_eq!(faults.due(after(5_000)), None, "it has its line");
        assert_eq!(faults.note(Fault::NotHttp, after(5_000)), Some(0));
        for ms in [5_001, 5_002, 5_003] {
            assert_eq!(faults.note(Fault::Interim, after(ms)), None);
        }
        assert_eq!(faults.due(after(5_999)), None, "a second has not passed");
        assert_eq!(faults.due(after(6_000)), Some((Fault::Interim, 2)));
        assert_eq!(faults.due(after(60_000)), None, "once");
        assert_eq!(faults.note(Fault::NotHttp, after(6_500)), None, "that line counts for the pause");
        assert_eq!(faults.due(after(7_000)), Some((Fault::NotHttp, 0)));
    }
}
