//! The event ring: the last 1,000 events that an operator may ask about, read by the API, the command line and the
//! dashboard. Bounded: the oldest event is dropped first, and gaps in the numbers show a reader that it missed some.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::changes::Changes;
use super::orders::Setting;
use super::outage::{Progress, Way};
use super::passive::{Ejected, EjectionEnd};
use super::traffic::{Over, Requests};
use crate::model::{Address, Code, HealthState, Name, Ratio};

/// The most events kept.
pub const EVENTS_MAX: usize = 1_000;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Numbers the events of this process, from 1.
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
    /// An operator changed a setting of an upstream, or the time of an order is over.
    Ordered {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
        /// The new setting.
        to: Setting,
        /// How long it holds; `None`: no end is set.
        lasts: Option<Duration>,
        /// The operator's reason; may be empty.
        reason: String,
        /// The origin of the order, in words.
        by: String,
    },
    /// A pool stops serving normally.
    OutageBegan {
        /// The pool.
        pool: Name,
        /// What its requests get from now on.
        way: Way,
        /// Why, in one sentence.
        reason: String,
        /// What ends the outage, in one sentence.
        remedy: String,
    },
    /// The end of what began with [`EventKind::OutageBegan`].
    OutageEnded {
        /// The pool.
        pool: Name,
        /// What its requests got until now.
        way: Way,
        /// The pool serves normally again. Otherwise the next event begins another outage of the pool.
        serves: bool,
        /// How long this way lasted; if the pool serves again, how long it did not.
        lasted: Duration,
    },
    /// A pool serves with fewer than half of its upstreams, or with at least half of them again.
    BelowHalf {
        /// The pool.
        pool: Name,
        /// Whether fewer than half serve.
        on: bool,
        /// Upstreams that are healthy and enabled.
        able: usize,
        /// Upstreams of the configuration.
        total: usize,
    },
    /// Removed upstreams start or stop serving in place of the configured ones.
    Warming {
        /// The pool.
        pool: Name,
        /// Whether it began, or how it ended.
        phase: WarmingPhase,
    },
    /// A reload was applied, changed nothing, or was refused. The first one is the start of the process.
    Reload {
        /// `applied`, `unchanged` or `refused`.
        result: &'static str,
        /// The configuration's number after the reload.
        generation: u64,
        /// Why it was refused.
        error: Option<String>,
        /// What requested the reload, in words.
        by: String,
        /// What it changed in pools and upstreams.
        changes: Changes,
    },
    /// A reload added this upstream; it has not been checked yet.
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
    /// A reload added or removed more upstreams than get their own events: the numbers of the rest.
    UpstreamsChanged {
        /// Added.
        added: usize,
        /// Removed.
        removed: usize,
    },
    /// The host names of a pool resolve to other addresses than before.
    Addresses {
        /// The pool.
        pool: Name,
        /// New upstreams, not checked yet.
        added: Vec<Address>,
        /// Removed upstreams.
        removed: Vec<Address>,
    },
    /// An upstream fails nearly all requests and passes its checks.
    RequestsFail {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
        /// Its last requests.
        window: Requests,
    },
    /// The end of what began with [`EventKind::RequestsFail`].
    RequestsFailOver {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
        /// Why it no longer counts as such.
        over: Over,
        /// Its last requests.
        window: Requests,
    },
    /// More upstreams began or ceased to fail requests than get their own events: the numbers of the rest.
    RequestsFailMore {
        /// Began.
        began: usize,
        /// Ceased.
        ended: usize,
    },
    /// Live traffic ejected an upstream.
    Ejected {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
        /// Why, and for how long.
        ejected: Ejected,
    },
    /// An ejection has ended.
    EjectionEnded {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
        /// What has ended it.
        why: EjectionEnd,
        /// How long it lasted.
        lasted: Duration,
    },
    /// The checks of an upstream pass and say that it is worse than others, or no longer so.
    Degraded {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
        /// The share of its weight that it takes from now on; `None`: all of it.
        weight: Option<Ratio>,
    },
    /// A probe panicked; its upstream is now unknown.
    ProbePanic {
        /// The pool.
        pool: Name,
        /// The upstream.
        upstream: Address,
    },
    /// The probe scheduler died and was restarted.
    CheckerRestart,
}

/// The progress of a pool's warming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmingPhase {
    /// It began.
    Began {
        /// How many removed upstreams serve.
        retiring: usize,
        /// How long they serve at most.
        at_most: Duration,
        /// How many of the configured upstreams can serve.
        progress: Progress,
    },
    /// The configured upstreams serve.
    Ended {
        /// Since it began.
        lasted: Duration,
    },
    /// The removed upstreams are gone, and the configured ones cannot serve.
    Failed {
        /// Since it began.
        lasted: Duration,
        /// Why the configured upstreams cannot serve, in one sentence.
        reason: String,
        /// What ends this, in one sentence.
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
    /// The previous state.
    pub from: HealthState,
    /// The new state.
    pub to: HealthState,
    /// The code of the deciding probe; `None` if no probe decided (stale).
    pub code: Option<Code>,
    /// Why, in one sentence.
    pub reason: String,
    /// The duration of the deciding probe.
    pub duration: Option<Duration>,
    /// Healthy upstreams of the pool after the change.
    pub healthy_left: usize,
}

/// The last [`EVENTS_MAX`] events.
#[derive(Debug, Default)]
pub struct EventRing {
    events: VecDeque<Event>,
    seq: u64,
}

impl EventRing {
    /// Adds an event, drops the oldest if there are too many, and returns the one added.
    pub fn push(&mut self, at: Instant, kind: EventKind) -> &Event {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.seq += 1;
        self.events.push_back(Event { seq: self.seq, at, kind });
        self.events.back().expect("just pushed")
    }

    /// Puts an event in place of the one with its number, if that is still there.
    pub fn replace(&mut self, event: Event) {
        let index = self.events.partition_point(|known| known.seq < event.seq);
        if let Some(known) = self.events.get_mut(index).filter(|known| known.seq == event.seq) {
            *known = event;
        }
    }

    /// The events with a number greater than `seq`, oldest first.
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
        let other = |seq| Event { seq, at: Instant::now(), kind: EventKind::RequestsFailMore { began: 0, ended: 0 } };
        for seq in [5, 6, 700, EVENTS_MAX as u64 + 6] {
            ring.replace(other(seq));
        }
        let replaced = ring.after(0).filter(|event| event.kind != EventKind::CheckerRestart).map(|event| event.seq);
        assert_eq!(replaced.collect::<Vec<_>>(), [6, 700], "those that are there");
    }
}
