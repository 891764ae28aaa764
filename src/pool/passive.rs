//! Ejection by live traffic: whether an upstream whose requests fail gets no more of them, for how long, and what ends that.
//! Pure; [`super::state`] feeds it.
//!
//! ```text
//!            consecutive_failures in a row, and enough others can serve
//!  in use ─────────────────────────────────────────────────────────────▶ ejected
//!    ▲                                                                      │
//!    └── its time is over; too few others are left; unhealthy → healthy; ───┘
//!        passes, where it was connect failures; `passive` is switched off
//! ```
//!
//! Each ejection lasts longer than the one before, by `base` and up to `max`; each `max` without one takes one `base` back.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::outcomes::Row;
use super::state::CheckId;
use crate::model::Ratio;
use crate::model::policy::{Failure, PassivePolicy};
use crate::model::units::counted;

/// The ejections of one upstream.
#[derive(Debug, Default)]
pub(super) struct Ejections(
    /// Most upstreams are never ejected.
    Option<Box<Record>>,
);

#[derive(Debug, Default)]
struct Record {
    current: Option<Ejected>,
    /// How many weigh on the length of the next.
    count: u32,
    /// When the last one ended.
    ended: Option<Instant>,
    total: u64,
}

/// An ejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejected {
    /// When it began.
    pub since: Instant,
    /// When it ends at the latest.
    pub until: Instant,
    /// How many ejections its length is made of: the first, the second, ….
    pub count: u32,
    /// The failures that led to it.
    pub row: Row,
    /// By check: passes since it began, without a failure between.
    passes: SmallVec<[(CheckId, u32); 1]>,
}

/// What has ended an ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EjectionEnd {
    /// Its time is over.
    Over,
    /// No other upstream of the pool can serve.
    Last,
    /// With it, fewer than `min_healthy` could serve.
    MinHealthy,
    /// Connect failures led to it, and since then a check that connects to the same address has passed often enough.
    Passes,
    /// Its checks have failed and pass again.
    Recovered,
    /// `passive` is switched off.
    Off,
}

impl EjectionEnd {
    /// The word used in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            EjectionEnd::Over => "over",
            EjectionEnd::Last => "last",
            EjectionEnd::MinHealthy => "min_healthy",
            EjectionEnd::Passes => "passes",
            EjectionEnd::Recovered => "recovered",
            EjectionEnd::Off => "off",
        }
    }
}

impl Ejected {
    /// `its last 5 requests failed (connect, 503)`.
    pub fn reason(&self) -> String {
        let Row { count, failures } = self.row;
        format!("its last {} failed ({failures})", counted(count, "request", "requests"))
    }

    /// One of ten seconds, for tests.
    #[cfg(test)]
    pub fn example() -> Ejected {
        let since = Instant::now();
        let failures = crate::model::policy::Failures::new([Failure::Connect]);
        let (until, row) = (since + Duration::from_secs(10), Row { count: 5, failures });
        Ejected { since, until, count: 1, row, passes: SmallVec::new() }
    }

    /// How long it lasts if nothing ends it before.
    pub fn lasts(&self) -> Duration {
        self.until - self.since
    }

    /// Whether passes of its checks may end it: only failures to connect led to it.
    pub fn ends_by_passes(&self) -> bool {
        self.row.failures.is_only(Failure::Connect)
    }
}

impl Ejections {
    /// The one that holds.
    pub(super) fn current(&self) -> Option<&Ejected> {
        self.0.as_ref()?.current.as_ref()
    }

    /// All so far.
    pub(super) fn total(&self) -> u64 {
        self.0.as_ref().map_or(0, |record| record.total)
    }

    /// Begins one, because of these failures.
    pub(super) fn begin(&mut self, row: Row, policy: &PassivePolicy, now: Instant) -> &Ejected {
        let record = self.0.get_or_insert_default();
        let calm = record.ended.map_or(Duration::ZERO, |ended| now.saturating_duration_since(ended));
        let forgiven = calm.as_nanos() / policy.max.as_nanos().max(1);
        record.count = record.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)).saturating_add(1);
        record.total += 1;
        let until = now + policy.base.saturating_mul(record.count).min(policy.max);
        record.current.insert(Ejected { since: now, until, count: record.count, row, passes: SmallVec::new() })
    }

    /// Ends the one that holds.
    pub(super) fn end(&mut self, now: Instant) -> Option<Ejected> {
        let record = self.0.as_mut()?;
        let ejected = record.current.take()?;
        record.ended = Some(now);
        Some(ejected)
    }

    /// A probe that began at `began` has passed or failed, of a check that connects to the address of the traffic. True if
    /// this ends the ejection: `needed` have passed in a row.
    pub(super) fn on_probe(&mut self, check: CheckId, passed: bool, began: Instant, needed: u32) -> bool {
        let current = self.0.as_mut().and_then(|record| record.current.as_mut());
        let Some(ejected) = current.filter(|ejected| ejected.ends_by_passes()) else { return false };
        if began < ejected.since {
            return false;
        }
        let index = ejected.passes.iter().position(|(of, _)| *of == check).unwrap_or_else(|| {
            ejected.passes.push((check, 0));
            ejected.passes.len() - 1
        });
        let passes = &mut ejected.passes[index].1;
        *passes = if passed { *passes + 1 } else { 0 };
        *passes >= needed
    }
}

/// Whether another one of `total` upstreams of a rank may be ejected while `ejected` are.
pub(super) fn leaves_room(ejected: usize, total: usize, max_share: Ratio) -> bool {
    let least = usize::from(total >= 2);
    ejected < max_share.of_rounded_down(total).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Failures;

    const SECOND: Duration = Duration::from_secs(1);

    fn row(failures: &[Failure]) -> Row {
        Row { count: 5, failures: Failures::new(failures.iter().copied()) }
    }

    #[tokio::test(start_paused = true)]
    async fn each_ejection_lasts_longer_up_to_a_limit_and_calm_shortens_the_next() {
        let policy = PassivePolicy { base: 10 * SECOND, max: 35 * SECOND, ..PassivePolicy::default() };
        let mut now = Instant::now();
        let mut ejections = Ejections::default();
        // Seconds of calm before each, and how long it lasts.
        for (calm, want) in
            [(0, 10), (1, 20), (34, 30), (0, 35), (0, 35), (0, 35), (35, 35), (105, 35), (105, 20), (9_999, 10)]
        {
            now += calm * SECOND;
            let ejected = ejections.begin(row(&[Failure::Connect]), &policy, now).clone();
            assert_eq!(ejected.lasts(), want * SECOND, "after {calm} s: {ejected:?}");
            now = ejected.until;
            assert_eq!(ejections.end(now), Some(ejected));
            assert_eq!(ejections.end(now), None);
        }
        assert_eq!(ejections.total(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn passes_end_an_ejection_by_connect_failures_and_no_other() {
        let (now, policy) = (Instant::now(), PassivePolicy::default());
        let (one, two) = (CheckId::numbered(1), CheckId::numbered(2));
        let mut ejections = Ejections::default();
        assert!(!ejections.on_probe(one, true, now, 1), "none holds");
        ejections.begin(row(&[Failure::Connect]), &policy, now);
        assert!(!ejections.on_probe(one, true, now - SECOND, 1), "it began before");
        assert!(!ejections.on_probe(one, true, now, 2));
        assert!(!ejections.on_probe(two, true, now, 2), "each check counts for itself");
        assert!(!ejections.on_probe(one, false, now, 2));
        assert!(!ejections.on_probe(one, true, now, 2), "in a row");
        assert!(ejections.on_probe(one, true, now, 2));
        ejections.end(now);
        ejections.begin(row(&[Failure::Connect, Failure::Reset]), &policy, now);
        assert!(!ejections.on_probe(one, true, now, 1));
    }

    #[test]
    fn a_share_is_rounded_down_and_of_two_one_may_always_go() {
        for (total, share, want) in [
            (1, 50, 0),
            (1, 100, 1),
            (2, 0, 1),
            (2, 50, 1),
            (3, 50, 1),
            (4, 50, 2),
            (5, 50, 2),
            (10, 50, 5),
            (10, 5, 1),
            (10, 100, 10),
            (0, 100, 0),
        ] {
            let allowed = (0..=total).filter(|ejected| leaves_room(*ejected, total, Ratio::percent(share))).count();
            assert_eq!(allowed, want, "{share} % of {total}");
        }
    }
}
