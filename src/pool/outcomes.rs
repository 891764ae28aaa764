//! What came of the latest requests to an upstream: how many have failed in a row, and how many of the last ten seconds. The
//! data path counts here, and the controller decides about an ejection ([`super::passive`]) by it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::recent::Recent;
use crate::model::policy::{Failure, Failures};

/// The failures in a row, as all workers see them: in its lower half their number, above it which they are. A request that
/// succeeds only reads it, unless one before it has failed.
#[derive(Debug, Default)]
pub struct Outcomes(AtomicU64);

/// What one worker has counted lately.
#[derive(Debug, Default)]
pub struct Counted {
    requests: Recent,
    failures: Recent,
}

impl Counted {
    /// Of the last ten seconds.
    pub fn share(&self, second: u64) -> Share {
        Share { failed: self.failures.sum(second), requests: self.requests.sum(second) }
    }
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// How many.
    pub count: u32,
    /// Which.
    pub failures: Failures,
}

/// How many of an upstream's requests have failed lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Those that have failed.
    pub failed: u64,
    /// All.
    pub requests: u64,
}

impl Share {
    /// Those of both.
    pub fn plus(self, other: Share) -> Share {
        Share { failed: self.failed + other.failed, requests: self.requests + other.requests }
    }

    /// Those of this one that are not of the other, which is a part of it.
    pub fn minus(self, part: Share) -> Share {
        let (failed, requests) = (self.failed.saturating_sub(part.failed), self.requests.saturating_sub(part.requests));
        Share { failed, requests }
    }

    /// Whether it is at least twice the other; where nothing has been asked of the other, it is.
    pub fn is_twice(self, other: Share) -> bool {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        product(self.failed, other.requests) >= 2 * product(other.failed, self.requests)
    }
}

impl Outcomes {
    /// A request has succeeded: a response has come that is no failure.
    pub fn on_success(&self, mine: &Counted, second: u64) {
        mine.requests.add(second);
        if self.0.load(Ordering::Relaxed) != 0 {
            self.end_row();
        }
    }

    /// A request has failed. Returns how many have in a row.
    pub fn on_failure(&self, mine: &Counted, failure: Failure, second: u64) -> u32 {
        mine.requests.add(second);
        mine.failures.add(second);
        let one_more = |row: u64| {
            let kind = u64::from(Failures::new([failure]).bits()) << 32;
            Some(((row & COUNT) + 1).min(COUNT) | row & !COUNT | kind)
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).unwrap_or_else(|row| row);
        ((before & COUNT) as u32).saturating_add(1)
    }

    /// The failures since the last success.
    pub fn row(&self) -> Row {
        let row = self.0.load(Ordering::Relaxed);
        Row { count: (row & COUNT) as u32, failures: Failures::from_bits((row >> 32) as u8) }
    }

    /// What has failed so far counts no longer for a row.
    pub fn end_row(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The lower half of a row.
const COUNT: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_in_a_row_until_a_success_and_for_ten_seconds() {
        let (outcomes, mine) = (Outcomes::default(), Counted::default());
        assert_eq!(outcomes.row().count, 0);
        assert_eq!(outcomes.on_failure(&mine, Failure::Connect, 5), 1);
        assert!(outcomes.row().failures.is_only(Failure::Connect));
        assert_eq!(outcomes.on_failure(&mine, Failure::Unavailable, 6), 2);
        let row = outcomes.row();
        assert_eq!((row.count, row.failures.to_string()), (2, "connect, 503".to_owned()));
        assert!(row.failures.has_status() && !row.failures.is_only(Failure::Connect));
        outcomes.on_success(&mine, 6);
        assert_eq!((outcomes.row().count, outcomes.row().failures.to_string()), (0, String::new()));
        assert_eq!(outcomes.on_failure(&mine, Failure::Timeout, 7), 1, "a new row");
        assert_eq!(outcomes.row().failures.to_string(), "timeout");
        assert_eq!(mine.share(7), Share { failed: 3, requests: 4 });
        assert_eq!(mine.share(15), Share { failed: 2, requests: 3 }, "second 5 is too old");
        assert_eq!(mine.share(99), Share::default());
    }

    #[test]
    fn a_share_is_compared_with_what_the_others_fail_together() {
        for (own, others, twice) in [
            ((5, 5), (0, 1_000), true),
            ((5, 5), (0, 0), true),
            ((5, 10), (250, 1_000), true),
            ((5, 10), (251, 1_000), false),
            ((10, 10), (1_000, 1_000), false),
            ((1, 1_000), (1, 2_000), true),
        ] {
            let share = |(failed, requests)| Share { failed, requests };
            assert_eq!(share(own).is_twice(share(others)), twice, "{own:?} {others:?}");
        }
        assert_eq!(
            Share { failed: 1, requests: 2 }.plus(Share { failed: 3, requests: 4 }),
            Share { failed: 4, requests: 6 }
        );
    }
}
