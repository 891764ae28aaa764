//! What a new configuration keeps of the old one (health.md, "Reload"): verdicts, streaks and due times by (address,
//! definition, timing); members with their load, counters and admin state by pool and address; removed upstreams that a
//! pool still needs, for a while; the numbers of pools and listeners forever.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::super::changes::changes;
use super::super::events::EventKind;
use super::super::limit::Limit;
use super::super::orders::Overrides;
use super::super::pools::{CheckIds, Member, PoolState};
use super::super::snapshot::{
    Departed, Goal, ListenerEntry, ListenerId, PoolId, PoolShared, Route, Routes, Snapshot, Split,
};
use super::super::upstream::{Upstream, UpstreamId};
use super::{Applied, Check, CheckId, CheckKey, Effects, Kept, State, Timer};
use crate::health::track::Slot;
use crate::health::{Change, Track};
use crate::model::policy::{
    CheckPolicy, Config, Matching, PoolPolicy, RoutePolicy, Timing, UpstreamPolicy, WhenNoHealthy,
};
use crate::model::{Address, AdminState, HealthState, Name};

/// How long requests of a removed listener are routed as before: longer than a head may take to arrive.
const DEPARTED_MAX: Duration = Duration::from_secs(15);

/// The longest delay of a probe so that others start with it: well below what a window of 100 ms may hold.
const TICK_GAP_MAX: Duration = Duration::from_millis(40);

impl State {
    /// Applies a new configuration and carries over what still applies (health.md, "Reload"). `listeners` are the bound
    /// sockets by name; `by` names the requester, in words.
    pub fn configure(
        &mut self,
        config: &Config,
        listeners: &[(Name, ListenerId)],
        by: &str,
        now: Instant,
    ) -> (Applied, Effects) {
        let mut effects = self.expire(now);
        self.generation += 1;
        let (old, new) = (self.pools.iter().map(|pool| &*pool.policy), config.pools.iter().map(|pool| &**pool));
        let (changes, upstreams) = changes(old, new);
        let (generation, by) = (self.generation, by.to_owned());
        let loaded = EventKind::Reload { result: "applied", generation, error: None, by, changes: changes.clone() };
        self.log(loaded, now, &mut effects);
        // At start every upstream is new.
        for event in upstreams.into_iter().filter(|_| generation > 1) {
            self.log(event, now, &mut effects);
        }
        self.install(config, listeners, now, &mut effects);
        let warming = self.pools.iter().filter_map(|p| Some((p.policy.name.clone(), p.warming?.until))).collect();
        (Applied { generation, warming, changes }, effects)
    }

    /// Applies the running configuration with other addresses for its host names. Carries over as [`State::configure`]
    /// does, and does not count as a new configuration.
    pub fn readdress(&mut self, config: &Config, listeners: &[(Name, ListenerId)], now: Instant) -> Effects {
        let mut effects = self.expire(now);
        let changes: Vec<EventKind> = config.pools.iter().filter_map(|policy| self.readdressed(policy)).collect();
        for change in changes {
            self.log(change, now, &mut effects);
        }
        self.install(config, listeners, now, &mut effects);
        effects
    }

    /// Which upstreams of a pool are added and removed; `None` if none is. A name without an address does not count.
    fn readdressed(&self, policy: &PoolPolicy) -> Option<EventKind> {
        let before = &self.pools.iter().find(|pool| pool.policy.name == policy.name)?.policy.upstreams;
        let missing = |from: &[UpstreamPolicy], all: &[UpstreamPolicy]| -> Vec<Address> {
            let there: HashSet<&Address> = from.iter().map(|u| &u.address).collect();
            let gone = all.iter().map(|u| &u.address).filter(|a| a.host_name().is_none() && !there.contains(a));
            gone.cloned().collect()
        };
        let (added, removed) = (missing(before, &policy.upstreams), missing(&policy.upstreams, before));
        let none = added.is_empty() && removed.is_empty();
        (!none).then(|| EventKind::Addresses { pool: policy.name.clone(), added, removed })
    }

    fn install(&mut self, config: &Config, listeners: &[(Name, ListenerId)], now: Instant, effects: &mut Effects) {
        let timings = config.pools.iter().flat_map(|pool| &pool.checks).map(|check| check.timing);
        self.tick_gap = timings.clone().map(tick_gap).min().unwrap_or_default();
        self.shortest_timeout = timings.map(|timing| timing.timeout).min().unwrap_or(self.shortest_timeout);
        let wanted = config.pools.iter().flat_map(|pool| {
            let keys = |u| pool.checks.iter().map(move |check| check_key(u, check));
            pool.upstreams.iter().flat_map(keys)
        });
        let wanted: HashSet<CheckKey> = wanted.collect();
        for name in config.pools.iter().map(|pool| &pool.name) {
            let next = PoolId(u32::try_from(self.pool_ids.len()).expect("names of pools are bounded by memory"));
            self.pool_ids.entry(name.clone()).or_insert(next);
        }

        let mut old: HashMap<Name, PoolState> = self.pools.drain(..).map(|p| (p.policy.name.clone(), p)).collect();
        let mut judged = vec![];
        for policy in &config.pools {
            let before = old.remove(&policy.name);
            let fallback = match &policy.when_no_healthy {
                WhenNoHealthy::Pool(name) => self.pool_ids.get(name).copied(),
                WhenNoHealthy::Reject | WhenNoHealthy::FailOpen => None,
            };
            let shared = before.as_ref().map_or_else(|| Arc::new(PoolShared::new(now)), |pool| pool.shared.clone());
            let served = before.as_ref().map(PoolState::served);
            // Where no name has had an address yet, the pool begins now.
            let runs = before.as_ref().is_some_and(PoolState::has_addresses);
            let fail_open = before.as_ref().is_some_and(|pool| pool.fail_open);
            let watch = before.as_ref().map(|pool| pool.watch.clone()).unwrap_or_default();
            let mut orders = before.as_ref().map(|pool| pool.orders.clone()).unwrap_or_default();
            let mut earlier: HashMap<Address, Member> = before.map(PoolState::into_members).unwrap_or_default();
            let kept: HashSet<&Address> = policy.upstreams.iter().map(|u| &u.address).collect();
            orders.keep(earlier.values().filter(|member| !kept.contains(&member.upstream.address)));
            let mut members = Vec::with_capacity(policy.upstreams.len());
            for (index, upstream) in policy.upstreams.iter().enumerate() {
                let earlier = earlier.remove(&upstream.address);
                let ordered = orders.take(upstream);
                let keys: Vec<CheckKey> = policy.checks.iter().map(|check| check_key(upstream, check)).collect();
                let is_replaced = |old: &CheckKey| !keys.contains(old);
                let mut checks = CheckIds::new();
                for (check, key) in policy.checks.iter().zip(&keys) {
                    let follows = Follows { name: &check.name, earlier: earlier.as_ref(), is_replaced: &is_replaced };
                    let (id, change) = self.adopt(key.clone(), follows, &wanted, now);
                    judged.extend(change.map(|change| (id, change)));
                    checks.push(id);
                }
                let admin = earlier.as_ref().map(Member::admin);
                let mut member = self.enrol((policy, &shared), index, checks, earlier, now);
                member.overrides = std::mem::take(&mut member.overrides).or(ordered);
                member.heed(&self.checks);
                if let Some(before) = admin {
                    member.on_admin_change(before, now);
                }
                if admin == Some(AdminState::Enabled) && member.admin() != AdminState::Enabled {
                    effects.lose(&member.upstream);
                }
                if admin.is_none() && runs {
                    member.on_joining(now);
                }
                members.push(member);
            }
            orders.tidy(policy);
            let mut pool = PoolState::new(self.pool_ids[&policy.name], policy.clone(), shared, fallback, members);
            pool.fail_open = fail_open;
            pool.watch = watch;
            pool.orders = orders;
            let mut removed: Vec<Member> = earlier.into_values().collect();
            removed.sort_by_key(|member| member.upstream.id);
            if let Some(served) = served {
                pool.retire(&mut removed, &served, now);
            }
            effects.let_go(&removed, now);
            self.pools.push(pool);
        }
        for gone in old.into_values() {
            gone.shared.set_usable_at(None);
            effects.announce.push(gone.shared);
            effects.let_go(&gone.members, now);
        }
        self.index_pools();
        // Every member gets its state first. Only then can `settle` see which pools still need removed members.
        self.rebuild_readers(now, effects);
        self.pace(now);
        for (check, change) in judged {
            self.on_change(check, change, now, effects);
        }
        self.dirty = (0..self.pools.len()).collect();
        self.settle(now, effects);
        let snapshot = Arc::new(self.snapshot(config, listeners, now));
        self.current = snapshot.clone();
        effects.snapshot = Some(snapshot);
        effects.announce.extend(self.pools.iter().map(|pool| pool.shared.clone()));
    }

    /// Finds or makes the check for `key`, which a pool starts to read. A check of the same definition continues.
    /// Another is new, and the check that it follows determines since when the upstream is known.
    fn adopt(
        &mut self,
        key: CheckKey,
        follows: Follows<'_>,
        wanted: &HashSet<CheckKey>,
        now: Instant,
    ) -> (CheckId, Option<Change>) {
        if let Some(id) = self.by_key.get(&key) {
            return (*id, None);
        }
        let key = Arc::new(key);
        let replaced = follows.earlier.map(|member| self.replaced(&key, follows.name, member, wanted));
        let old = replaced.map(|id| (id, &self.checks[&id]));
        let (track, change) = match old {
            Some((id, check)) if check.key.same_definition(&key) && !wanted.contains(&*check.key) => {
                // No pool reads it under the old timing any more: the check itself continues, with its probe in flight.
                let check = self.checks.get_mut(&id).expect("just found");
                self.by_key.remove(&check.key);
                let shortened = key.timing.timeout < check.key.timing.timeout;
                check.key = key.clone();
                // The kept data was made for the old timeout.
                check.kept = Kept::default();
                let change = check.track.retime(key.timing, now);
                if shortened && let Some(token) = check.flight.take() {
                    // Its probe would run to the old timeout, which may be hours, and no other may start meanwhile.
                    check.track.on_cancelled(now);
                    self.flights.remove(&token);
                    self.cancelled.push(token);
                }
                self.by_key.insert(key, id);
                return (id, change);
            }
            Some((_, check)) if check.key.same_definition(&key) => check.track.split(key.timing, now),
            Some((_, check)) => {
                let goes_on = (follows.is_replaced)(&check.key);
                (check.track.redefined(key.timing, goes_on, now), None)
            }
            None => {
                let slot = Slot { origin: self.origin, part: part_of(&key.upstream) };
                (Track::new(key.timing, slot, now, now), None)
            }
        };
        let same = old.filter(|(_, check)| check.key.same_definition(&key)).map(|(_, check)| check);
        let last = same.and_then(|check| check.last.clone());
        let certificate_expiry = same.and_then(|check| check.certificate_expiry.clone());
        // What the check that it follows has said holds until it says something itself.
        let said = old.filter(|(_, check)| key.spec.kind.says_as_much_as(&check.key.spec.kind));
        let said = said.and_then(|(_, check)| check.said.clone());
        let id = CheckId(self.take_id());
        let check = Check {
            said,
            key: key.clone(),
            track,
            readers: SmallVec::new(),
            flight: None,
            deadline: None,
            last,
            certificate_expiry,
            unknown_because: None,
            kept: Kept::default(),
        };
        self.checks.insert(id, check);
        self.by_key.insert(key, id);
        (id, change)
    }

    /// The check of `earlier` that the one for `key` follows: one of the same definition, preferably one that is no
    /// longer wanted; else the one of the same name; else the first.
    fn replaced(&self, key: &CheckKey, name: &str, earlier: &Member, wanted: &HashSet<CheckKey>) -> CheckId {
        let of = |id: &CheckId| &self.checks[id].key;
        let ids = || earlier.checks.iter();
        let free = ids().find(|id| of(id).same_definition(key) && !wanted.contains(&**of(id)));
        let same = || ids().find(|id| of(id).same_definition(key));
        let named = || earlier.rules.checks.iter().position(|check| *check.name == *name).map(|i| &earlier.checks[i]);
        *free.or_else(same).or_else(named).unwrap_or(&earlier.checks[0])
    }

    fn enrol(
        &mut self,
        (rules, shared): (&Arc<PoolPolicy>, &PoolShared),
        index: usize,
        checks: CheckIds,
        earlier: Option<Member>,
        now: Instant,
    ) -> Member {
        match earlier {
            Some(mut member) => {
                // An upstream that left the file lost its orders; an address that only left its host name's answer did
                // not.
                if member.retiring && member.left_file {
                    member.overrides = Overrides::default();
                }
                member.left_file = false;
                // The old verdict is carried until the new checks have theirs.
                let gone = member.checks.iter().any(|id| !checks.contains(id));
                let redefined = gone || checks.iter().any(|id| !member.checks.contains(id));
                let carries = member.state != HealthState::Unknown && (redefined || member.carried.is_some());
                member.checks = checks;
                member.rules = rules.clone();
                member.index = index;
                member.retiring = false;
                if carries {
                    member.carry(&self.checks, now);
                } else {
                    member.carried = None;
                }
                member
            }
            None => {
                let id = UpstreamId(self.take_id());
                let address = rules.upstreams[index].address.clone();
                let (pool, hints, queue) = (rules.name.clone(), self.hints.clone(), shared.queue.clone());
                let upstream = Arc::new(Upstream::with_queue(id, pool, address, hints, queue));
                let mut member = Member::new(upstream, rules.clone(), index, checks, HealthState::Unknown, now);
                member.state = member.verdict(&self.checks);
                if member.state != HealthState::Unknown {
                    member.since = self.checks[&member.checks[member.decides(&self.checks)]].track.since();
                }
                member
            }
        }
    }

    /// After pools changed: updates the readers of checks, and drops checks without readers.
    pub(super) fn rebuild_readers(&mut self, now: Instant, effects: &mut Effects) {
        self.places.clear();
        for check in self.checks.values_mut() {
            check.readers.clear();
        }
        for (pool_index, pool) in self.pools.iter().enumerate() {
            for (member_index, member) in pool.members.iter().enumerate() {
                self.places.insert(member.upstream.id, (pool_index, member_index));
                for id in &member.checks {
                    let readers = &mut self.checks.get_mut(id).expect("members have checks").readers;
                    if readers.last() != Some(&member.upstream.id) {
                        readers.push(member.upstream.id);
                    }
                }
            }
        }
        let unread: Vec<CheckId> =
            self.checks.iter().filter(|(_, c)| c.readers.is_empty()).map(|(id, _)| *id).collect();
        for id in unread {
            let check = self.checks.remove(&id).expect("just listed");
            self.by_key.remove(&check.key);
            if let Some(at) = check.deadline {
                self.timers.remove(&(at, Timer::Check(id)));
            }
            if let Some(token) = check.flight {
                self.flights.remove(&token);
                self.cancelled.push(token);
            }
        }
        let ids: Vec<CheckId> = self.checks.keys().copied().collect();
        for id in ids {
            self.set_check_timer(id);
        }
        // An existing verdict may differ from what a member read until now.
        for pool_index in 0..self.pools.len() {
            for member_index in 0..self.pools[pool_index].members.len() {
                self.settle_member(pool_index, member_index, None, now, effects);
            }
        }
    }

    fn snapshot(&self, config: &Config, listeners: &[(Name, ListenerId)], now: Instant) -> Snapshot {
        let listener = |name: &Name| listeners.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let pool = |name: &Name| self.pool_ids.get(name).copied();
        let goal = |route: &RoutePolicy| match &*route.pools {
            [] => Some(Goal::None),
            [only] => pool(&only.pool).map(Goal::Pool),
            several => {
                let shares = several.iter().filter_map(|share| Some((pool(&share.pool)?, share.weight)));
                Split::new(shares).map(Goal::Split)
            }
        };
        let earlier: HashMap<&Matching, &Arc<Route>> =
            self.current.routes.all().iter().map(|route| (&route.matching, route)).collect();
        let route = |policy: &RoutePolicy| {
            let (matching, rules) = (policy.matching(), policy.rules.clone());
            let earlier = earlier.get(&matching);
            let limit = rules.as_ref().and_then(|rules| rules.rate_limit.clone());
            let counted = earlier.and_then(|earlier| earlier.limit.as_ref());
            let limit = limit.map(|limit| Limit::carried(limit, counted, now));
            let stats = earlier.map_or_else(Arc::default, |earlier| earlier.stats.clone());
            Some(Route { goal: goal(policy)?, matching, rules, limit, stats })
        };
        let routes = Routes::build(&config.routes, |name| listener(name).map(|id| id.0), route);
        let mut entries: Vec<Option<ListenerEntry>> = vec![];
        for policy in &config.listeners {
            let Some(id) = listener(&policy.name) else { continue };
            let index = id.0 as usize;
            if entries.len() <= index {
                entries.resize(index + 1, None);
            }
            let pool = policy.pool.as_ref().and_then(pool);
            let limit = policy.rate_limit.clone().map(|limit| {
                let earlier = self.current.listener(id).and_then(|earlier| earlier.limit.as_ref());
                Limit::carried(limit, earlier, now)
            });
            let (name, client, marks) = (policy.name.clone(), policy.client, policy.marks.clone());
            let ready_path = policy.ready_path.clone();
            entries[index] = Some(ListenerEntry { name, pool, client, limit, marks, ready_path });
        }
        let mut pools = vec![None; self.pool_ids.len()];
        for state in &self.pools {
            pools[state.id.0 as usize] = Some(state.cell.clone());
        }
        let snapshot = Snapshot::new(self.generation, routes, entries, pools).with_forwarded(config.forwarded.clone());
        let snapshot = snapshot.with_access_log(config.access_log.clone());
        let departed = self.departed(&snapshot, now);
        snapshot.with_departed(departed)
    }

    /// The listeners that `next` does not have and that may still have a request begun before it.
    fn departed(&self, next: &Snapshot, now: Instant) -> Vec<Departed> {
        let earlier = self.current.departed().iter().filter(|departed| now < departed.until).cloned();
        let gone = self.current.listener_ids().map(|id| Departed {
            id,
            until: now + DEPARTED_MAX,
            // Without its own past: otherwise every removal would keep all configurations before it.
            last: Arc::new(self.current.without_departed()),
        });
        earlier.chain(gone).filter(|departed| next.listener(departed.id).is_none()).collect()
    }
}

/// The check that a new check follows.
#[derive(Clone, Copy)]
struct Follows<'a> {
    /// The name of the check.
    name: &'a str,
    /// The same upstream under the configuration before.
    earlier: Option<&'a Member>,
    /// Whether an earlier check of the upstream is no longer one of its checks.
    is_replaced: &'a dyn Fn(&CheckKey) -> bool,
}

/// A 25th of the shorter interval, less than its jitter: such a delay does not matter.
fn tick_gap(timing: Timing) -> Duration {
    (timing.fast_interval / 25).min(TICK_GAP_MAX)
}

fn check_key(upstream: &UpstreamPolicy, check: &CheckPolicy) -> CheckKey {
    CheckKey {
        upstream: upstream.address.clone(),
        target: check.spec.target(upstream),
        name: upstream.name.clone(),
        spec: check.spec.clone(),
        timing: check.timing,
    }
}

/// The slot of an address in an interval, as a fraction of 2^32.
fn part_of(address: &Address) -> u32 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    (hasher.finish() >> 32) as u32
}
