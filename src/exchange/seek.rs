//! Where a request goes: its route, and in the route's pool an upstream that may be picked now, or how long to wait for
//! one, or that there is none. The all-down policy is followed here; nothing is filtered here, the views are ready-made.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::conditions::holds;
use super::judge::Facts;
use super::key::session_of;
use super::limits::FALLBACK_HOPS;
use crate::http1::Head;
use crate::model::Address;
use crate::model::policy::{Condition, HashKey};
use crate::pool::{
    Choice, FIRST_VERDICT_WAIT, Goal, ListenerId, Otherwise, Pick, Pool, PoolId, Route, Service, Snapshot, Split,
    Tried, UpstreamId,
};
use crate::route::Query;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// The routed pool.
    pub from: Option<PoolId>,
    /// Upstreams that this request does not pick again.
    pub tried: &'a [Tried],
    /// When this request stops waiting, if it has begun to.
    pub wait_until: Option<Instant>,
    /// What it is hashed by, in pools that hash.
    pub keys: &'a [PoolKey],
    /// The pool in whose queue it waits for a place, if it has been called.
    pub called: Option<PoolId>,
}

/// The hash of a request for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolKey {
    /// The pool.
    pub pool: PoolId,
    /// Its serial.
    pub serial: u64,
    /// The hash; `None`: the request has nothing by which it could be hashed.
    pub key: Option<u64>,
    /// The number of the upstream at which its session is, by its cookie.
    pub session: Option<u64>,
}

/// The keys of a request for the pool where picking begins and for those that may stand in for it.
pub(super) fn keys_of(
    snapshot: &Snapshot,
    from: Option<PoolId>,
    keys: &mut SmallVec<[PoolKey; 1]>,
    key_of: impl Fn(&HashKey) -> Option<u64>,
    session_of: impl Fn(&str) -> Option<u64>,
) {
    let mut next = from;
    for _ in 0..FALLBACK_HOPS {
        let Some(pool) = next.and_then(|id| snapshot.pool(id)) else { return };
        let (key, sticky) = (&pool.traffic.choosing.key, &pool.traffic.sticky);
        if key.is_some() || sticky.is_some() {
            let (key, session) = (key.as_ref().and_then(&key_of), sticky.as_deref().and_then(&session_of));
            keys.push(PoolKey { pool: pool.id, serial: pool.shared.serial, key, session });
        }
        next = match pool.view.load().otherwise() {
            Otherwise::Pool(other) => Some(other),
            Otherwise::Reject | Otherwise::FailOpen => None,
        };
    }
}

/// What looking for an upstream gave. Borrows the pool: a reference count is a write that all workers share.
#[derive(Debug)]
pub(super) enum Found<'s> {
    /// This one, of this pool.
    Upstream(&'s Arc<Pool>, Pick),
    /// None yet: wait for this pool to change.
    Wait {
        /// The pool.
        pool: &'s Arc<Pool>,
        /// When to stop.
        until: Instant,
    },
    /// None has a free place, or others have waited for one longer.
    Full {
        /// The pool.
        pool: &'s Arc<Pool>,
    },
    /// None in this view, which is outdated: the newer one is about to be published. Even a retry waits for it.
    Outdated {
        /// The pool.
        pool: &'s Arc<Pool>,
        /// When to stop.
        until: Instant,
    },
    /// None.
    Nothing {
        /// Seconds until one could be there.
        retry_after: u64,
    },
}

/// Where a request belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routed<'s> {
    /// The most specific route that matches it.
    pub route: Option<&'s Arc<Route>>,
    /// The pool of that route, else the listener's.
    pub pool: Option<PoolId>,
}

impl Routed<'_> {
    /// Whether it belongs to no route and no pool.
    pub fn is_nowhere(&self) -> bool {
        self.route.is_none() && self.pool.is_none()
    }
}

/// Where it belongs by this configuration.
pub(super) fn route<'s>(
    snapshot: &'s Snapshot,
    listener: ListenerId,
    (head, facts): (&Head<'_>, &Facts<'_>),
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Routed<'s> {
    let holds = &|condition: &Condition| holds(condition, head, facts);
    let query = Query { listener: listener.0, host: facts.host, path: &facts.path, method: facts.method_name, holds };
    let route = snapshot.routes.find(&query);
    let pool = match route {
        Some(route) => match &route.goal {
            Goal::Split(split) if snapshot.keyed => of_session(snapshot, split, head, now).or_else(|| split.draw(rng)),
            Goal::Split(_) | Goal::Pool(_) | Goal::None => route.goal.draw(rng),
        },
        None => snapshot.listener(listener).and_then(|listener| listener.pool),
    };
    Routed { route, pool }
}

/// Of the pools that share a route, the one at which the session of a request is.
fn of_session(snapshot: &Snapshot, split: &Split, head: &Head<'_>, now: Instant) -> Option<PoolId> {
    split.pools().find(|id| {
        let is_there = |pool: &Arc<Pool>| {
            let number = session_of(pool.traffic.sticky.as_deref()?, head)?;
            let view = pool.view.load();
            view.pinned(view.read(now), number, now)
        };
        snapshot.pool(*id).is_some_and(|pool| is_there(pool).is_some())
    })
}

/// The same by this configuration alone, for a request whose pool it does not have any more. Where it has not the listener
/// either, the one of the same name has taken its place (it has moved), and else only the routes of every listener apply.
pub(super) fn route_anew<'s>(
    snapshot: &'s Snapshot,
    listener: ListenerId,
    request: (&Head<'_>, &Facts<'_>),
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Routed<'s> {
    let here = if snapshot.listener(listener).is_some() { Some(listener) } else { successor(snapshot, listener) };
    route(snapshot, here.unwrap_or(listener), request, now, rng)
}

/// The listener of this configuration that has the name of one that left a moment ago.
fn successor(snapshot: &Snapshot, listener: ListenerId) -> Option<ListenerId> {
    let departed = snapshot.departed().iter().find(|departed| departed.id == listener)?;
    let name = &departed.last.listener(listener)?.name;
    snapshot.listener_ids().find(|id| snapshot.listener(*id).is_some_and(|entry| entry.name == *name))
}

/// The eligible upstreams of this pool that have this address.
pub(super) fn of_address(pool: &Pool, address: &Address) -> impl Iterator<Item = UpstreamId> {
    let view = pool.view.load();
    let candidates = view.primaries.candidates().iter().chain(view.backups.candidates());
    let same = candidates.map(|candidate| &candidate.upstream).filter(|upstream| upstream.address == *address);
    same.map(|upstream| upstream.id).collect::<SmallVec<[_; 2]>>().into_iter()
}

/// An untried upstream of the routed pool, or of those that stand in for it.
pub(super) fn find<'s>(snapshot: &'s Snapshot, ask: Ask<'_>, now: Instant, rng: &mut fastrand::Rng) -> Found<'s> {
    let mut retry_after = u64::MAX;
    let mut next = ask.from;
    for _ in 0..FALLBACK_HOPS {
        let Some(pool) = next.and_then(|id| snapshot.pool(id)) else { break };
        let view = pool.view.load();
        let reading = view.read(now);
        let known = |known: &&PoolKey| known.pool == pool.id && known.serial == pool.shared.serial;
        let known = ask.keys.iter().find(known);
        let bounded = pool.traffic.connections.max_per_upstream.is_some();
        // Nobody overtakes those that wait for a place.
        let must_queue = bounded && ask.called != Some(pool.id) && pool.shared.queue.for_place() > 0;
        // Before anything else: it goes on where others do not begin.
        if let Some(number) = known.and_then(|known| known.session).filter(|_| ask.tried.is_empty())
            && let Some(place) = view.pinned(reading, number, now)
            && !must_queue
            && !(bounded && view.candidate(place).is_full())
        {
            return Found::Upstream(pool, Pick::new(view, place));
        }
        if let Service::Waiting { until, .. } = reading.service
            && now < ask.wait_until.unwrap_or(until).min(until)
        {
            return Found::Wait { pool, until };
        }
        if reading.service.may_pick() {
            let key = known.and_then(|known| known.key);
            if must_queue {
                return Found::Full { pool };
            }
            let choice = Choice { pool: &pool.shared, tried: ask.tried, key, bounded, now };
            if let Some(place) = view.pick(reading, &choice, rng) {
                return Found::Upstream(pool, Pick::new(view, place));
            }
            // It may have a free place by now; then whoever joins the queue is called at once.
            if bounded && view.has_usable(reading, ask.tried) {
                return Found::Full { pool };
            }
            let until = ask.wait_until.unwrap_or(now + FIRST_VERDICT_WAIT);
            if view.is_outdated() && now < until {
                return Found::Outdated { pool, until };
            }
        }
        retry_after = retry_after.min(pool.shared.retry_after(now));
        next = reading.service.other_pool();
    }
    Found::Nothing { retry_after: if retry_after == u64::MAX { 1 } else { retry_after } }
}

/// This upstream, if it may still be picked.
pub(super) fn still_eligible(pool: &Pool, id: UpstreamId, now: Instant) -> Option<Pick> {
    let view = pool.view.load();
    let place = view.find(view.read(now), id)?;
    Some(Pick::new(view, place))
}
