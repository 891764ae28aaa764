//! What to report to an operator about a whole pool: an outage begins or ends, fewer than half of its upstreams can
//! serve, removed upstreams start or stop serving for new ones. A small state machine per pool, fed after each change.
//! Pure.
//!
//! ```text
//! serves ──(too few healthy)──▶ refuses | fails open | uses another pool ──(enough healthy)──▶ serves
//! ```
//!
//! A change from one of the three to another ends the first and begins the second, so that begins and ends alternate.
//! Requests wait for first verdicts: waiting neither begins nor ends an outage.

mod causes;
mod progress;

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

pub(super) use self::causes::{Causes, REASON_CHARS_MAX};
pub use self::progress::Progress;
use crate::model::Name;

/// What the requests of a pool get while too few of its own upstreams can serve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// 503 at once.
    Refuse,
    /// Every upstream that is not disabled or draining, healthy or not.
    FailOpen,
    /// This other pool.
    OtherPool(Name),
}

/// How a pool serves now, with its chain of other pools followed to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Serving {
    /// With its own upstreams, enough of which are healthy.
    InOrder,
    /// Requests wait for a first verdict.
    Awaited,
    /// In one of these ways instead.
    Out(Way),
}

/// The state of a pool after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) serving: Serving,
    /// Fewer than half of its upstreams can serve, not counting those that wait for their first verdict.
    pub(super) below_half: bool,
    /// Removed upstreams serve.
    pub(super) warming: bool,
}

/// Something to report to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The pool's requests get this from now on.
    Began(Way),
    /// The pool's requests no longer get this.
    Ended {
        way: Way,
        /// The pool serves normally again; otherwise another way begins.
        serves: bool,
        /// How long this way lasted; if the pool serves again, how long the whole outage lasted.
        lasted: Duration,
    },
    /// The pool serves with fewer than half of its upstreams (`true`), or with at least half of them again.
    BelowHalf(bool),
    /// Removed upstreams serve, because the configured ones cannot yet.
    WarmingBegan,
    /// Removed upstreams no longer serve.
    WarmingEnded {
        /// The configured upstreams serve.
        well: bool,
        lasted: Duration,
    },
}

/// The current outage of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outage {
    pub(super) way: Way,
    /// When the pool stopped serving normally.
    pub(super) since: Instant,
    /// When the current way began.
    pub(super) way_since: Instant,
}

/// What has been reported about a pool. Kept over reloads.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    outage: Option<Outage>,
    below_half: bool,
    warming: Option<Instant>,
}

impl Watch {
    /// The current outage, if there is one.
    pub(super) fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// Whether the pool was last reported to have fewer than half of its upstreams.
    pub(super) fn is_below_half(&self) -> bool {
        self.below_half
    }

    /// Updates the state and returns what to report, in order; empty if nothing is new.
    pub(super) fn observe(&mut self, seen: &Seen, now: Instant) -> SmallVec<[Notice; 4]> {
        let mut notices = SmallVec::new();
        let lasted = |since: Instant| now.saturating_duration_since(since);
        match (self.warming, seen.warming) {
            (None, true) => {
                self.warming = Some(now);
                notices.push(Notice::WarmingBegan);
            }
            (Some(since), false) => {
                self.warming = None;
                let well = seen.serving == Serving::InOrder;
                notices.push(Notice::WarmingEnded { well, lasted: lasted(since) });
            }
            (None, false) | (Some(_), true) => {}
        }
        match (self.outage.take(), &seen.serving) {
            (None, Serving::InOrder | Serving::Awaited) => {}
            (None, Serving::Out(way)) => {
                self.outage = Some(Outage { way: way.clone(), since: now, way_since: now });
                notices.push(Notice::Began(way.clone()));
            }
            (Some(outage), Serving::InOrder) => {
                let lasted = lasted(outage.since);
                notices.push(Notice::Ended { way: outage.way, serves: true, lasted });
            }
            (Some(outage), Serving::Out(way)) if outage.way != *way => {
                let since = outage.since;
                self.outage = Some(Outage { way: way.clone(), since, way_since: now });
                let lasted = lasted(outage.way_since);
                notices.push(Notice::Ended { way: outage.way, serves: false, lasted });
                notices.push(Notice::Began(way.clone()));
            }
            (Some(outage), Serving::Awaited | Serving::Out(_)) => self.outage = Some(outage),
        }
        // An outage covers the half; and while removed upstreams serve, the configured ones are not the whole pool.
        let reports_half = seen.serving == Serving::InOrder && !seen.warming;
        if reports_half && self.below_half != seen.below_half {
            self.below_half = seen.below_half;
            notices.push(Notice::BelowHalf(seen.below_half));
        }
        notices
    }
}

#[cfg(test)]
mod tests;
