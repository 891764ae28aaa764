//! What an operator must hear about a pool as a whole: an outage begins or ends, fewer than half of its upstreams can serve,
//! removed upstreams begin or cease to serve for new ones. A small state machine per pool, fed after each change. Pure.
//!
//! ```text
//! serves ──(no longer)──▶ refuses | fails open | uses another pool ──(in order again)──▶ serves
//! ```
//!
//! A change from one of the three to another ends the one and begins the other, so that begins and ends alternate. While
//! first verdicts are awaited requests wait: that is no outage, and ends none.

mod causes;

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

pub(super) use self::causes::Causes;
use crate::model::Name;

/// What the requests of a pool get while its own upstreams do not serve them in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// 503 at once.
    Refuse,
    /// Every upstream that is not disabled or draining, healthy or not.
    FailOpen,
    /// This other pool.
    OtherPool(Name),
}

/// How a pool serves now, its chain of other pools followed to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Serving {
    /// With its own upstreams, enough of which are healthy.
    InOrder,
    /// Requests wait for a first verdict.
    Awaited,
    /// In one of these ways.
    Out(Way),
}

/// A pool after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) serving: Serving,
    /// Fewer than half of its upstreams can serve, those that wait for their first verdict not counted.
    pub(super) below_half: bool,
    /// Removed upstreams serve.
    pub(super) warming: bool,
}

/// Something that the operator must hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The pool serves in this way from now on.
    Began(Way),
    /// It no longer does.
    Ended {
        way: Way,
        /// It serves in order again; otherwise another way begins.
        serves: bool,
        /// Since this way began; where it serves again, since the outage began.
        lasted: Duration,
    },
    /// It serves, with fewer than half of its upstreams (`true`), or with half of them again.
    BelowHalf(bool),
    /// Removed upstreams serve, because those of the configuration cannot yet.
    WarmingBegan,
    /// They no longer do.
    WarmingEnded {
        /// Those of the configuration serve.
        well: bool,
        lasted: Duration,
    },
}

/// An outage that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outage {
    pub(super) way: Way,
    /// When the pool ceased to serve in order.
    pub(super) since: Instant,
    /// When it began to serve in this way.
    way_since: Instant,
}

/// What has been reported of a pool. Kept over reloads.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    outage: Option<Outage>,
    below_half: bool,
    warming: Option<Instant>,
}

impl Watch {
    /// The outage that goes on, if one does.
    pub(super) fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// Whether the pool was last reported to have fewer than half of its upstreams.
    pub(super) fn is_below_half(&self) -> bool {
        self.below_half
    }

    /// Takes in what the pool is now. The answer is in the order in which it is to be reported; empty for what is known.
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
        // An outage says more than that, and while removed upstreams serve those of the configuration are not all there is.
        let speaks = seen.serving == Serving::InOrder && !seen.warming;
        if speaks && self.below_half != seen.below_half {
            self.below_half = seen.below_half;
            notices.push(Notice::BelowHalf(seen.below_half));
        }
        notices
    }
}

#[cfg(test)]
mod tests;
