//! Faults of one kind of one upstream, such as malformed responses: how many there were, what the last one was, and when
//! to log the next.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http1::Fault;

/// The faults of one kind of one upstream; `Kind` says more about each. Allocates only at the first one: most upstreams
/// never have any.
#[derive(Debug)]
pub struct Faults<Kind = Fault>(OnceLock<Box<Mutex<Record<Kind>>>>);

#[derive(Debug)]
struct Record<Kind> {
    total: u64,
    last: Option<LastFault<Kind>>,
    logged: Option<Instant>,
    /// Faults since the last line.
    unlogged: u64,
}

/// The last fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastFault<Kind = Fault> {
    /// When it came.
    pub at: Instant,
    /// What was wrong.
    pub fault: Kind,
}

impl<Kind: Copy> Faults<Kind> {
    /// Whether there was one.
    pub fn any(&self) -> bool {
        self.0.get().is_some()
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.get().map_or(0, |noted| noted.lock().total)
    }

    /// The last one.
    pub fn last(&self) -> Option<LastFault<Kind>> {
        self.0.get().and_then(|noted| noted.lock().last)
    }

    /// Counts one at `now`. `Some`: log a line, at most one in `line_every`; the number is how many before it were not
    /// logged.
    pub fn note(&self, fault: Kind, now: Instant, line_every: Duration) -> Option<u64> {
        let mut noted = self.0.get_or_init(Box::default).lock();
        noted.total += 1;
        noted.last = Some(LastFault { at: now, fault });
        if noted.logged.is_some_and(|logged| now.saturating_duration_since(logged) < line_every) {
            noted.unlogged += 1;
            return None;
        }
        noted.logged = Some(now);
        Some(std::mem::take(&mut noted.unlogged))
    }

    /// The line that is due at `now` although no further one came: about the last one, and how many before it were not
    /// logged.
    pub fn due(&self, now: Instant, line_every: Duration) -> Option<(Kind, u64)> {
        let mut noted = self.0.get()?.lock();
        let before = noted.unlogged.checked_sub(1)?;
        if noted.logged.is_some_and(|logged| now.saturating_duration_since(logged) < line_every) {
            return None;
        }
        noted.logged = Some(now);
        noted.unlogged = 0;
        Some((noted.last?.fault, before))
    }
}

impl<Kind> Default for Faults<Kind> {
    fn default() -> Faults<Kind> {
        Faults(OnceLock::new())
    }
}

impl<Kind> Default for Record<Kind> {
    fn default() -> Record<Kind> {
        Record { total: 0, last: None, logged: None, unlogged: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_most_one_line_in_an_interval_says_how_many_were_not_logged() {
        // The shortest time between lines and the times of faults in milliseconds, and the count in each line.
        let steady = |step: usize, end: usize| (0..=end).step_by(step).map(|at| at as u64).collect::<Vec<_>>();
        for (every, times, want) in [
            (1_000, vec![0], &[0][..]),
            (1_000, vec![0, 999], &[0]),
            (1_000, vec![0, 1_000, 2_000], &[0, 0, 0]),
            (1_000, steady(100, 2_400), &[0, 9, 9]),
            (1_000, [steady(100, 2_400), vec![60_000]].concat(), &[0, 9, 9, 4]),
            (60_000, steady(1_000, 59_000), &[0]),
            (60_000, [steady(1_000, 60_000), vec![119_000, 1_000_000]].concat(), &[0, 59, 1]),
        ] {
            let (faults, start) = (Faults::default(), Instant::now());
            assert_eq!((faults.total(), faults.last()), (0, None));
            let every = Duration::from_millis(every);
            let lines: Vec<_> =
                times.iter().filter_map(|at| faults.note(*at, start + Duration::from_millis(*at), every)).collect();
            assert_eq!(lines, want, "{times:?}");
            let last = times.last().map(|at| LastFault { at: start + Duration::from_millis(*at), fault: *at });
            assert_eq!((faults.total(), faults.last()), (times.len() as u64, last), "{times:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ones_get_their_line_without_a_further_one() {
        for every in [1_000, 60_000] {
            let (faults, start) = (Faults::default(), Instant::now());
            let every = Duration::from_millis(every);
            let due = |at: Duration| faults.due(start + at, every);
            let note = |fault: char, at: Duration| faults.note(fault, start + at, every);
            assert_eq!(due(Duration::ZERO), None, "there are none");
            assert_eq!(note('a', Duration::ZERO), Some(0));
            assert_eq!(due(5 * every), None, "it has its line");
            assert_eq!(note('a', 5 * every), Some(0));
            for part in 1..=3 {
                assert_eq!(note('b', 5 * every + every / 10 * part), None);
            }
            assert_eq!(due(5 * every + every / 10 * 9), None, "too early");
            assert_eq!(due(6 * every), Some(('b', 2)));
            assert_eq!(due(60 * every), None, "once");
            assert_eq!(note('a', 6 * every + every / 2), None, "that line counts for the pause");
            assert_eq!(due(7 * every), Some(('a', 0)));
        }
    }
}
