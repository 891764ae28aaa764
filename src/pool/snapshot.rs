//! What a request loads once and keeps until it ends: routes, listeners and pools of one configuration.
//!
//! Pools and listeners keep their numbers with their name and address for the life of the process, so that a request
//! that must pick again (a retry, the end of a wait) finds its pool in the newest snapshot without a string look-up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::budget::Budget;
use super::limit::Limit;
use super::queue::{Awaits, Queue, Ticket};
use super::stats::{PoolStats, RouteStats};
use super::upstream::Upstream;
use super::view::View;
use crate::model::Name;
use crate::model::policy::{
    AccessPolicy, ClientPolicy, Failure, ForwardedPolicy, Marks, Matching, RetryBudget, RoutePolicy, RouteRules,
    TrafficPolicy,
};
use crate::route::{Query, Table};

/// A pool's number; kept with its name for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u32);

/// A listening socket's number; kept with its address for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

/// The newest snapshot. Load it for every pick; keep the loaded one until the request ends.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// One route of a configuration.
#[derive(Debug)]
pub struct Route {
    /// What requests it is for.
    pub matching: Matching,
    /// Where they go.
    pub goal: Goal,
    /// What else is done with them.
    pub rules: Option<Arc<RouteRules>>,
    /// How many of them it lets through.
    pub limit: Option<Limit>,
    /// Its counters, kept over reloads.
    pub stats: Arc<RouteStats>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// To no pool: its rules have an answer.
    None,
    /// To this pool.
    Pool(PoolId),
    /// To one of several.
    Split(Split),
}

impl Goal {
    /// The pool of one request.
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Option<PoolId> {
        match self {
            Goal::None => None,
            Goal::Pool(id) => Some(*id),
            Goal::Split(split) => split.draw(rng),
        }
    }
}

/// The routes of a configuration.
#[derive(Debug, Clone)]
pub struct Routes {
    table: Table<u32>,
    all: Arc<[Arc<Route>]>,
}

impl Default for Routes {
    fn default() -> Routes {
        Routes { table: Table::empty(), all: Arc::default() }
    }
}

impl Routes {
    /// Sorts them; see [`Table::build`]. `route` is asked in file order.
    pub fn build(
        policies: &[RoutePolicy],
        listener: impl Fn(&Name) -> Option<u32>,
        mut route: impl FnMut(&RoutePolicy) -> Option<Route>,
    ) -> Routes {
        let mut all = Vec::with_capacity(policies.len());
        let table = Table::build(policies, listener, |policy| {
            all.push(Arc::new(route(policy)?));
            u32::try_from(all.len() - 1).ok()
        });
        Routes { table, all: all.into() }
    }

    /// The most specific route that matches the request. Does not allocate.
    pub fn find(&self, query: &Query<'_>) -> Option<&Arc<Route>> {
        self.all.get(self.table.find(query)? as usize)
    }

    /// Every one.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.all
    }
}

/// How the requests of a route are shared among pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Each pool, with the sum of its weight and those before it; increasing.
    until: Vec<(u64, PoolId)>,
}

impl Split {
    /// `None`: no pool has a weight above 0.
    pub fn new(pools: impl IntoIterator<Item = (PoolId, u32)>) -> Option<Split> {
        let mut sum = 0;
        let weighty = pools.into_iter().filter(|(_, weight)| *weight > 0);
        let until: Vec<_> = weighty
            .map(|(pool, weight)| {
                sum += u64::from(weight);
                (sum, pool)
            })
            .collect();
        (!until.is_empty()).then_some(Split { until })
    }

    /// The pools that get requests.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> + '_ {
        self.until.iter().map(|(_, pool)| *pool)
    }

    /// The pool of one request.
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Option<PoolId> {
        let (sum, _) = self.until.last()?;
        let at = rng.u64(..*sum);
        self.until.get(self.until.partition_point(|(until, _)| *until <= at)).map(|(_, pool)| *pool)
    }
}

/// One configuration as the data path sees it.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts applied configurations; the first is 1. 0 is the empty snapshot before the first.
    pub generation: u64,
    /// The routes.
    pub routes: Routes,
    listeners: Vec<Option<ListenerEntry>>,
    pools: Vec<Option<Arc<Pool>>>,
    /// Some pool chooses by a part of the request, or by the cookie of a session.
    pub keyed: bool,
    /// What is believed of who a request is from.
    pub forwarded: Arc<ForwardedPolicy>,
    /// Which requests are logged.
    pub access_log: Option<Arc<AccessPolicy>>,
    departed: Vec<Departed>,
}

/// A listener that a reload has just removed. Its connections finish the request that they have begun, and that request
/// is routed as before the reload.
#[derive(Debug, Clone)]
pub struct Departed {
    /// The listener.
    pub id: ListenerId,
    /// Until when it may still have requests.
    pub until: Instant,
    /// The last configuration that had it.
    pub last: Arc<Snapshot>,
}

impl Snapshot {
    /// `listeners` and `pools` are indexed by their numbers.
    pub fn new(
        generation: u64,
        routes: Routes,
        listeners: Vec<Option<ListenerEntry>>,
        pools: Vec<Option<Arc<Pool>>>,
    ) -> Snapshot {
        let by_part = |pool: &Arc<Pool>| pool.traffic.choosing.key.is_some() || pool.traffic.sticky.is_some();
        let keyed = pools.iter().flatten().any(by_part);
        let (forwarded, access_log, departed) = (Arc::default(), None, Vec::new());
        Snapshot { generation, routes, listeners, pools, keyed, forwarded, access_log, departed }
    }

    /// The same snapshot with these peers believed.
    pub fn with_forwarded(self, forwarded: Arc<ForwardedPolicy>) -> Snapshot {
        Snapshot { forwarded, ..self }
    }

    /// The same snapshot with these requests logged.
    pub fn with_access_log(self, access_log: Option<Arc<AccessPolicy>>) -> Snapshot {
        Snapshot { access_log, ..self }
    }

    /// The same snapshot with these removed listeners, for the requests that they have begun.
    pub fn with_departed(self, departed: Vec<Departed>) -> Snapshot {
        Snapshot { departed, ..self }
    }

    /// The same snapshot without removed listeners.
    pub fn without_departed(&self) -> Snapshot {
        let Snapshot { generation, routes, listeners, pools, keyed: _, forwarded, access_log, departed: _ } = self;
        let same = Snapshot::new(*generation, routes.clone(), listeners.clone(), pools.clone());
        same.with_forwarded(forwarded.clone()).with_access_log(access_log.clone())
    }

    /// The snapshot before the first configuration: no listener, no pool.
    pub fn empty() -> Snapshot {
        Snapshot::new(0, Routes::default(), Vec::new(), Vec::new())
    }

    /// Whether this configuration has the pool with this number, and it is still the one with this serial.
    pub fn has(&self, id: PoolId, serial: u64) -> bool {
        self.pool(id).is_some_and(|pool| pool.shared.serial == serial)
    }

    /// The pool with this number, if this configuration has it.
    pub fn pool(&self, id: PoolId) -> Option<&Arc<Pool>> {
        self.pools.get(id.0 as usize)?.as_ref()
    }

    /// The listener with this number, if this configuration has it. `None`: it was removed, and its connections finish
    /// their current request with `Connection: close`.
    pub fn listener(&self, id: ListenerId) -> Option<&ListenerEntry> {
        self.listeners.get(id.0 as usize)?.as_ref()
    }

    /// The numbers of this configuration's listeners.
    pub fn listener_ids(&self) -> impl Iterator<Item = ListenerId> {
        let numbered = (0u32..).zip(&self.listeners);
        numbered.filter(|(_, entry)| entry.is_some()).map(|(number, _)| ListenerId(number))
    }

    /// The listeners that have just been removed.
    pub fn departed(&self) -> &[Departed] {
        &self.departed
    }

    /// The configuration that routes a request on this listener: this one, or the last that had the listener.
    pub fn routing(&self, id: ListenerId) -> &Snapshot {
        match self.departed.iter().find(|departed| departed.id == id) {
            Some(departed) if self.listener(id).is_none() => &departed.last,
            Some(_) | None => self,
        }
    }

    /// Every pool of this configuration.
    #[cfg(test)]
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter().flatten()
    }
}

/// A listening socket of a snapshot.
#[derive(Debug, Clone)]
pub struct ListenerEntry {
    /// Its name in this configuration.
    pub name: Name,
    /// Where requests go that match no route.
    pub pool: Option<PoolId>,
    /// Its limits and timeouts.
    pub client: ClientPolicy,
    /// How many requests it lets through.
    pub limit: Option<Limit>,
    /// What it adds to requests.
    pub marks: Arc<Marks>,
    /// The path that is answered as `/readyz` is.
    pub ready_path: Option<Arc<str>>,
}

/// One pool of one configuration.
#[derive(Debug)]
pub struct Pool {
    /// Its number.
    pub id: PoolId,
    /// Its name.
    pub name: Name,
    /// How its requests travel.
    pub traffic: Arc<TrafficPolicy>,
    /// The part that outlives this configuration.
    pub shared: Arc<PoolShared>,
    /// The eligible upstreams now. Only the pools of the newest snapshot are kept up to date.
    pub view: ArcSwap<View>,
}

impl Pool {
    /// Counts that a request to one of its upstreams has failed: [`Upstream::on_outcome`].
    pub fn on_failure(&self, upstream: &Upstream, failure: Failure, now: Instant) {
        upstream.on_outcome(Some(failure), &self.traffic.passive, self.shared.second(now));
        if self.traffic.choosing.latency {
            upstream.latency.on_failure(self.shared.millis(now));
        }
    }

    /// Counts a response of one of its upstreams, of which the head came after this time.
    pub fn on_response(&self, upstream: &Upstream, status: u16, took: Duration, now: Instant) {
        let failure = Failure::of_status(status).filter(|failure| self.traffic.passive.failures.has(*failure));
        upstream.on_outcome(failure, &self.traffic.passive, self.shared.second(now));
        if self.traffic.choosing.latency {
            let millis = self.shared.millis(now);
            match failure {
                Some(_) => upstream.latency.on_failure(millis),
                None => upstream.latency.on_answer(took, millis),
            }
        }
        if self.traffic.histograms {
            upstream.histogram.get_or_init(Box::default).observe(took);
        }
    }
}

/// What a pool keeps over reloads. A pool that leaves the configuration and returns under its name is a new one.
#[derive(Debug)]
pub struct PoolShared {
    /// Unique among the pools of this process.
    pub serial: u64,
    /// Its counters.
    pub stats: PoolStats,
    budget: Budget,
    /// The position of round robin, so that a new view continues where the old one stopped. All workers share it: one
    /// write for each pick. That is the third write of a request to shared memory; the other two are [`super::Lease`]'s.
    pub cursor: AtomicUsize,
    /// Requests in flight, in pools that balance by them: kept by leases. All workers share it: two writes for each attempt.
    pub in_flight: AtomicU64,
    /// Requests that wait. All workers share it: a few writes for a request that waits, none for others.
    pub queue: Arc<Queue>,
    epoch: Instant,
    usable_at_ms: AtomicU64,
}

/// The largest `Retry-After`, in seconds.
pub const RETRY_AFTER_MAX: u64 = 300;
/// `Retry-After` while no upstream is enabled, in seconds.
pub const RETRY_AFTER_NONE_ENABLED: u64 = 30;

impl PoolShared {
    /// A pool without history. `now` is only the origin for its instants.
    pub fn new(now: Instant) -> PoolShared {
        static SERIALS: AtomicU64 = AtomicU64::new(1);
        PoolShared {
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            stats: PoolStats::default(),
            budget: Budget::default(),
            cursor: AtomicUsize::new(0),
            in_flight: AtomicU64::new(0),
            queue: Arc::default(),
            epoch: now,
            usable_at_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// Has waiting requests look again, after a new view or snapshot was published.
    pub fn announce(&self) {
        self.queue.call();
    }

    /// Counts a request, of which its retries may be a share.
    pub fn on_request(&self, now: Instant) {
        self.budget.on_request(self.second(now));
    }

    /// Takes a retry out of its budget; false if there is none left.
    pub fn try_retry(&self, policy: &RetryBudget, now: Instant) -> bool {
        self.budget.try_draw(policy, self.second(now))
    }

    /// The milliseconds of this instant; they begin anew every seven weeks.
    pub fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.epoch).as_millis() as u32
    }

    /// The number of this second, for what is counted by seconds.
    pub fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    /// Requests waiting now.
    pub fn waiting(&self) -> u32 {
        self.queue.len()
    }

    /// Those of them that wait for a place on an upstream.
    pub fn queued(&self) -> u32 {
        self.queue.for_place()
    }

    /// Sets the estimate of when the first upstream could be healthy; `None`: none is enabled.
    pub fn set_usable_at(&self, at: Option<Instant>) {
        let ms = at.map_or(u64::MAX, |at| at.saturating_duration_since(self.epoch).as_millis() as u64);
        self.usable_at_ms.store(ms, Ordering::Relaxed);
    }

    /// Seconds for `Retry-After`: until the first upstream could be healthy, 1 to 300; 30 if none is enabled.
    pub fn retry_after(&self, now: Instant) -> u64 {
        match self.usable_at_ms.load(Ordering::Relaxed) {
            u64::MAX => RETRY_AFTER_NONE_ENABLED,
            ms => {
                let left = (self.epoch + Duration::from_millis(ms)).saturating_duration_since(now);
                left.as_millis().div_ceil(1_000).clamp(1, u128::from(RETRY_AFTER_MAX)) as u64
            }
        }
    }
}

/// A request that waits for its pool: its place, and when it stops. Dropping it frees the place.
#[derive(Debug)]
pub struct Waiting {
    ticket: Ticket,
    published: Published,
    pool: PoolId,
    until: Instant,
}

impl Waiting {
    /// A place among those that wait for this pool, or `None` if `most` wait for the same.
    /// `again`: an upstream has failed it.
    pub fn try_new(
        published: &Published,
        pool: &Pool,
        (awaits, again): (Awaits, bool),
        most: u32,
        until: Instant,
    ) -> Option<Waiting> {
        let ticket = pool.shared.queue.join(awaits, most, again)?;
        Some(Waiting { ticket, published: published.clone(), pool: pool.id, until })
    }

    /// What it waits for.
    pub fn awaits(&self) -> Awaits {
        self.ticket.awaits()
    }

    /// It goes on waiting, so that others may look.
    pub fn pass_on(&self) {
        self.ticket.pass_on();
    }

    /// The pool.
    pub fn pool(&self) -> PoolId {
        self.pool
    }

    /// When waiting ends.
    #[cfg(test)]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Waits until it is this request's turn to look again, because something has changed in the pool, or until the end of
    /// the wait. Cancel-safe.
    pub async fn wait(&self) {
        loop {
            if tokio::time::timeout_at(self.until, self.ticket.called()).await.is_err() {
                return;
            }
            let awaited = |pool: &Arc<Pool>| pool.view.load().is_awaited();
            match self.awaits() {
                // Called for another's sake: nothing has changed for this one.
                Awaits::Verdict if self.published.load().pool(self.pool).is_some_and(awaited) => self.pass_on(),
                Awaits::Verdict | Awaits::Place => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_shares_requests_by_weight() {
        let (mut rng, id) = (fastrand::Rng::with_seed(1), |number| PoolId(number));
        for (weights, want) in [
            (&[1][..], &[30_000][..]),
            (&[1, 1], &[15_000, 15_000]),
            (&[95, 5], &[28_500, 1_500]),
            (&[0, 3, 0, 1, 0], &[0, 22_500, 0, 7_500, 0]),
            (&[1_000_000, 1_000_000, 1_000_000], &[10_000, 10_000, 10_000]),
        ] {
            let split = Split::new((0..).map(id).zip(weights.iter().copied())).expect("a weight");
            let mut counts = vec![0u32; weights.len()];
            (0..30_000).for_each(|_| counts[split.draw(&mut rng).expect("a pool").0 as usize] += 1);
            let close =
                |(count, want): (&u32, &u32)| count.abs_diff(*want) <= want / 50 + 60 && (*count == 0) == (*want == 0);
            assert!(counts.iter().zip(want).all(close), "{weights:?}: {counts:?}");
        }
        assert_eq!(Split::new([(PoolId(1), 0)]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_one_to_three_hundred_and_thirty_when_none_is_enabled() {
        let now = Instant::now();
        let shared = PoolShared::new(now);
        assert_eq!(shared.retry_after(now), 30);
        for (in_ms, want) in [(0, 1), (900, 1), (1_000, 1), (1_001, 2), (4_200, 5), (1_000_000, 300)] {
            shared.set_usable_at(Some(now + Duration::from_millis(in_ms)));
            assert_eq!(shared.retry_after(now), want, "{in_ms} ms");
        }
    }
}
