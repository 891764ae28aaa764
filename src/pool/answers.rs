//! Final responses of one upstream: counts by class, and the time to their heads. Plain atomics, updated by leases and
//! read at scrape time: the request path allocates nothing and takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::stats::RequestClass;

/// Response classes of an upstream: 1xx (a 101; interim responses do not count) to 5xx.
pub const CLASSES: usize = 5;

/// Counters of an upstream's final responses.
#[derive(Debug, Default)]
pub struct Answers {
    /// In the order of [`RequestClass::ALL`], without `aborted`.
    by_class: [AtomicU64; CLASSES],
    micros: AtomicU64,
}

/// The values of [`Answers`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Answered {
    /// Final responses, 1xx to 5xx.
    pub by_class: [u64; CLASSES],
    /// The sum of their response times: each from the first byte sent to the head of the final response.
    pub seconds: f64,
}

impl Answers {
    /// Counts a final head that arrived `took` after the first byte of its request was sent.
    pub fn record(&self, status: u16, took: Duration) {
        // A status above 599 counts as 5xx; an upstream's response is never `aborted`.
        let class = (RequestClass::of(status) as usize).min(CLASSES - 1);
        self.by_class[class].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The counters now.
    pub fn read(&self) -> Answered {
        Answered {
            by_class: std::array::from_fn(|class| self.by_class[class].load(Ordering::Relaxed)),
            seconds: self.micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

impl Answered {
    /// Those of both.
    pub fn plus(self, other: Answered) -> Answered {
        let by_class = std::array::from_fn(|class| self.by_class[class] + other.by_class[class]);
        Answered { by_class, seconds: self.seconds + other.seconds }
    }

    /// Final responses of every class.
    pub fn count(&self) -> u64 {
        self.by_class.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_counts_in_its_class_and_with_its_time() {
        let answers = Answers::default();
        for (status, class) in [(101, 0), (200, 1), (299, 1), (304, 2), (404, 3), (500, 4), (599, 4), (999, 4)] {
            let before = answers.read().by_class[class];
            answers.record(status, Duration::from_millis(250));
            assert_eq!(answers.read().by_class[class], before + 1, "{status}");
        }
        let read = answers.read();
        assert_eq!((read.by_class, read.count(), read.seconds), ([1, 2, 1, 1, 3], 8, 2.0));
    }
}
