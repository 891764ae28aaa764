//! The event ring: the last 1,000 things an operator may ask about, read by the API, the command line and the dashboard.
//! Bounded; the oldest is forgotten first, and a reader can see from the numbers that it missed some.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::changes::Changes;
use super::outage::Way;
use crate::model::{Address, Code, HealthState, Name};

/// Events kept.
pub const EVENTS_MAX: usize = 1_000;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts events from 1 for the life of the process.
    pub seq: u64,
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// An upstream's state changed.
    Transition(Transition),
    /// The operator changed what he wants of an upstream.
    Admin {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
        /// What he wants now.
        to: crate::model::AdminState,
        /// Why, in his words; may be empty.
        reason: String,
    },
    /// A pool no longer serves in order.
    OutageBegan {
        /// The pool.
        pool: Name,
        /// What its requests get from now on.
        way: Way,
        /// Why, in one sentence.
        reason: String,
        /// What would change it, in one sentence.
        remedy: String,
    },
    /// What began with [`EventKind::OutageBegan`] has ended.
    OutageEnded {
        /// The pool.
        pool: Name,
        /// What its requests got until now.
        way: Way,
        /// The pool serves in order again. Otherwise another way begins with the next event.
        serves: bool,
        /// Since this way began; where the pool serves again, since it ceased to.
        lasted: Duration,
    },
    /// A pool serves with fewer than half of its upstreams, or with half of them again.
    BelowHalf {
        /// The pool.
        pool: Name,
        /// Fewer than half.
        on: bool,
        /// Upstreams that are healthy and enabled.
        able: usize,
        /// Upstreams of the configuration.
        total: usize,
    },
    /// Removed upstreams begin, or cease, to serve for those of the configuration.
    Warming {
        /// The pool.
        pool: Name,
        /// Begun, or how it ended.
        phase: WarmingPhase,
    },
    /// A reload was applied, changed nothing, or was refused. The first is the start.
    Reload {
        /// `applied`, `unchanged` or `refused`.
        result: &'static str,
        /// The configuration's number after it.
        generation: u64,
        /// Why it was refused.
        error: Option<String>,
        /// Who asked for it, in words.
        by: String,
        /// What it changed of pools and upstreams.
        changes: Changes,
    },
    /// A reload added this upstream; it is not checked yet.
    UpstreamAdded {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
    },
    /// A reload removed this upstream.
    UpstreamRemoved {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
    },
    /// A reload added and removed more upstreams than have events of their own: the number of the others.
    UpstreamsChanged {
        /// Added.
        added: usize,
        /// Removed.
        removed: usize,
    },
    /// The host names of a pool stand for other addresses than before.
    Addresses {
        /// The pool.
        pool: Name,
        /// New upstreams, not checked yet.
        added: Vec<Address>,
        /// Upstreams that are gone.
        removed: Vec<Address>,
    },
    /// A probe panicked; its upstream is unknown now.
    ProbePanic {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
    },
    /// The scheduler of probes died and was started again.
    CheckerRestart,
}

/// How far the warming of a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmingPhase {
    /// It has begun.
    Began {
        /// Removed upstreams that serve.
        retiring: usize,
        /// They serve at most this long.
        at_most: Duration,
    },
    /// The upstreams of the configuration serve.
    Ended {
        /// Since it began.
        lasted: Duration,
    },
    /// The removed upstreams are gone, and those of the configuration cannot serve.
    Failed {
        /// Since it began.
        lasted: Duration,
        /// Why they cannot, in one sentence.
        reason: String,
        /// What would change it, in one sentence.
        remedy: String,
    },
}

/// A change of an upstream's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The pool.
    pub pool: Name,
    /// The upstream.
    pub upstream: Address,
    /// What it was.
    pub from: HealthState,
    /// What it is.
    pub to: HealthState,
    /// The code of the probe that decided; `None` when none did (stale).
    pub code: Option<Code>,
    /// One sentence.
    pub reason: String,
    /// How long that probe took.
    pub duration: Option<Duration>,
    /// Healthy upstreams of the pool after it.
    pub healthy_left: usize,
}

/// The last events.
#[derive(Debug, Default)]
pub struct EventRing {
    events: VecDeque<Event>,
    seq: u64,
}

impl EventRing {
    /// Adds one and forgets the oldest if there are too many; the answer is the one added.
    pub fn push(&mut self, at: Instant, kind: EventKind) -> &Event {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.seq += 1;
        self.events.push_back(Event { seq: self.seq, at, kind });
        self.events.back().expect("just pushed")
    }

    /// Those with a number greater than `seq`, oldest first.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Event> {
        let skip = self.events.partition_point(|event| event.seq <= seq);
        self.events.range(skip..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_ring_keeps_the_newest_and_goes_on_counting() {
        let mut ring = EventRing::default();
        for _ in 0..EVENTS_MAX + 5 {
            ring.push(Instant::now(), EventKind::CheckerRestart);
        }
        assert_eq!(ring.after(0).count(), EVENTS_MAX);
        assert_eq!(ring.after(0).next().map(|e| e.seq), Some(6));
        assert_eq!(ring.after(EVENTS_MAX as u64 + 3).count(), 2);
        assert_eq!(ring.after(u64::MAX).count(), 0);
    }
}
