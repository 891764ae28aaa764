//! What a new configuration keeps of the old one (health.md, "Reload"): verdicts, streaks and due times by (address,
//! definition, timing); members with their load, counters and admin state by pool and address; removed upstreams that
//! serve alone, for a while; the numbers of pools and listeners for ever.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::events::EventKind;
use super::super::pools::{Member, PoolState};
use super::super::snapshot::{Departed, ListenerEntry, ListenerId, PoolId, PoolShared, Snapshot};
use super::super::upstream::{Upstream, UpstreamId};
use super::{Applied, Check, CheckId, CheckKey, Effects, Kept, State, Timer};
use crate::health::track::Slot;
use crate::health::{Change, Track};
use crate::model::policy::{Config, PoolPolicy, ProbeSpec, Timing, UpstreamPolicy, WhenNoHealthy};
use crate::model::{Address, HealthState, Name, ProbeReport};
use crate::route;

/// First probes, and those after a changed definition, start at most this often.
const FIRST_PROBE_GAP: Duration = Duration::from_millis(1);

/// Removed healthy upstreams serve at most this long after the reload that removed them.
pub const RETIRING_MAX: Duration = Duration::from_secs(30);

/// How long a removed listener's requests are routed as before: longer than a head may take to arrive.
const DEPARTED_MAX: Duration = Duration::from_secs(15);

impl State {
    /// Takes a new configuration, carrying over what still applies (health.md, "Reload"). `listeners` are the sockets
    /// that are bound, by name.
    pub fn configure(&mut self, config: &Config, listeners: &[(Name, ListenerId)], now: Instant) -> (Applied, Effects) {
        let mut effects = Effects::default();
        self.generation += 1;
        self.install(config, listeners, now, &mut effects);
        let warming = self.pools.iter().filter(|p| p.retiring_until.is_some()).map(|p| p.policy.name.clone()).collect();
        self.log(EventKind::Reload { result: "applied", generation: self.generation, error: None }, now, &mut effects);
        (Applied { generation: self.generation, warming }, effects)
    }

    /// Takes the running configuration with other addresses for its host names: carries over as a new one would, and is
    /// none.
    pub fn readdress(&mut self, config: &Config, listeners: &[(Name, ListenerId)], now: Instant) -> Effects {
        let mut effects = Effects::default();
        let changes: Vec<EventKind> = config.pools.iter().filter_map(|policy| self.readdressed(policy)).collect();
        for change in changes {
            self.log(change, now, &mut effects);
        }
        self.install(config, listeners, now, &mut effects);
        effects
    }

    /// Which upstreams of a pool come and go; `None` when none does. A name without an address is not one.
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
        let wanted = config.pools.iter().flat_map(|pool| {
            let key = |u: &UpstreamPolicy| check_key(u, &pool.checks[0].spec, pool.checks[0].timing);
            pool.upstreams.iter().map(key)
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
            let since = before.as_ref().and_then(|pool| pool.retiring_until);
            let fail_open = before.as_ref().is_some_and(|pool| pool.fail_open);
            let mut orders = before.as_ref().map(|pool| pool.orders.clone()).unwrap_or_default();
            let mut earlier: HashMap<Address, Member> = before.map(PoolState::into_members).unwrap_or_default();
            let kept: HashSet<&Address> = policy.upstreams.iter().map(|u| &u.address).collect();
            orders.keep(earlier.values().filter(|member| !kept.contains(&member.upstream.address)));
            let mut members = Vec::with_capacity(policy.upstreams.len());
            for upstream in &policy.upstreams {
                let earlier = earlier.remove(&upstream.address);
                let order = orders.take(upstream);
                let key = check_key(upstream, &policy.checks[0].spec, policy.checks[0].timing);
                let (check, change) = self.adopt(key, earlier.as_ref(), &wanted, now);
                judged.extend(change.map(|change| (check, change)));
                let mut member = self.enrol(policy.name.clone(), upstream, check, earlier, now);
                member.admin_override = member.admin_override.or(order);
                members.push(member);
            }
            orders.tidy(policy);
            let mut pool = PoolState::new(self.pool_ids[&policy.name], policy.clone(), shared, fallback, members);
            pool.fail_open = fail_open;
            pool.orders = orders;
            let mut removed: Vec<Member> = earlier.into_values().collect();
            removed.sort_by_key(|member| member.upstream.id);
            if !pool.has_healthy_member() {
                pool.retire(&mut removed, since.unwrap_or(now + RETIRING_MAX));
            }
            effects.close_idle.extend(removed.into_iter().map(|member| member.upstream));
            self.pools.push(pool);
        }
        for gone in old.into_values() {
            gone.shared.set_usable_at(None);
            effects.announce.push(gone.shared);
            effects.close_idle.extend(gone.members.into_iter().map(|m| m.upstream));
        }
        self.rebuild_readers(now, effects);
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

    /// Finds or makes the check for `key`, which a pool is about to read. `earlier` is the same upstream under the
    /// configuration before.
    fn adopt(
        &mut self,
        key: CheckKey,
        earlier: Option<&Member>,
        wanted: &HashSet<CheckKey>,
        now: Instant,
    ) -> (CheckId, Option<Change>) {
        if let Some(id) = self.by_key.get(&key) {
            return (*id, None);
        }
        let earlier = earlier.map(|member| member.check);
        let old = earlier.and_then(|id| self.checks.get(&id).map(|check| (id, check)));
        let (track, change) = match old {
            Some((id, check)) if check.key.same_definition(&key) && !wanted.contains(&check.key) => {
                // Nobody reads it under the old timing any more: the check itself goes on, its probe in flight included.
                let check = self.checks.get_mut(&id).expect("just found");
                self.by_key.remove(&check.key);
                let shortened = key.timing.timeout < check.key.timing.timeout;
                check.key = key.clone();
                let change = check.track.retime(key.timing, now);
                if shortened && let Some(token) = check.flight.take() {
                    // It would go on under the old timeout, which may be hours, and no other may start meanwhile.
                    check.track.on_cancelled(now);
                    self.flights.remove(&token);
                    self.cancelled.push(token);
                }
                self.by_key.insert(key, id);
                return (id, change);
            }
            Some((_, check)) if check.key.same_definition(&key) => check.track.split(key.timing, now),
            Some((_, check)) => {
                let track = check.track.clone();
                (track.redefined(key.timing, now, self.first_probe_slot(now)), None)
            }
            None => {
                let slot = Slot { origin: self.origin, part: part_of(&key.upstream) };
                (Track::new(key.timing, slot, now, self.first_probe_slot(now)), None)
            }
        };
        let last = old_report(&self.checks, earlier, &key);
        let id = CheckId(self.take_id());
        let check = Check {
            key: key.clone(),
            track,
            readers: vec![],
            flight: None,
            deadline: None,
            last,
            unknown_because: None,
            kept: Kept::default(),
        };
        self.checks.insert(id, check);
        self.by_key.insert(key, id);
        (id, change)
    }

    fn enrol(
        &mut self,
        pool: Name,
        policy: &UpstreamPolicy,
        check: CheckId,
        earlier: Option<Member>,
        now: Instant,
    ) -> Member {
        let track = &self.checks[&check].track;
        match earlier {
            Some(mut member) => {
                let known = track.state() != HealthState::Unknown;
                // The old verdict stands until the new check reaches a threshold.
                member.carried = (!known && member.state != HealthState::Unknown).then_some(member.state);
                member.check = check;
                member.policy = policy.clone();
                member.retiring = false;
                member
            }
            None => {
                let since = if track.state() == HealthState::Unknown { now } else { track.since() };
                let state = track.state();
                let id = UpstreamId(self.take_id());
                let upstream = Arc::new(Upstream::new(id, pool, policy.address.clone(), self.hints.clone()));
                Member::new(upstream, policy.clone(), check, state, since)
            }
        }
    }

    /// After the pools changed: who reads what, and which checks nobody reads.
    pub(super) fn rebuild_readers(&mut self, now: Instant, effects: &mut Effects) {
        self.places.clear();
        for check in self.checks.values_mut() {
            check.readers.clear();
        }
        for (p, pool) in self.pools.iter().enumerate() {
            for (m, member) in pool.members.iter().enumerate() {
                self.places.insert(member.upstream.id, (p, m));
                let check = self.checks.get_mut(&member.check).expect("members have checks");
                check.readers.push(member.upstream.id);
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
        for p in 0..self.pools.len() {
            for m in 0..self.pools[p].members.len() {
                self.settle_member(p, m, None, now, effects);
            }
        }
    }

    fn snapshot(&self, config: &Config, listeners: &[(Name, ListenerId)], now: Instant) -> Snapshot {
        let listener = |name: &Name| listeners.iter().find(|(n, _)| n == name).map(|(_, id)| *id);
        let pool = |name: &Name| self.pool_ids.get(name).copied();
        let routes = route::Table::build(&config.routes, |name| listener(name).map(|id| id.0), pool);
        let mut entries: Vec<Option<ListenerEntry>> = vec![];
        for policy in &config.listeners {
            let Some(id) = listener(&policy.name) else { continue };
            let index = id.0 as usize;
            if entries.len() <= index {
                entries.resize(index + 1, None);
            }
            let pool = policy.pool.as_ref().and_then(pool);
            entries[index] = Some(ListenerEntry { name: policy.name.clone(), pool });
        }
        let mut pools = vec![None; self.pool_ids.len()];
        for state in &self.pools {
            pools[state.id.0 as usize] = Some(state.cell.clone());
        }
        let snapshot = Snapshot::new(self.generation, routes, entries, pools);
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

    /// When a first probe may start: at once, unless a thousand a second would be exceeded.
    fn first_probe_slot(&mut self, now: Instant) -> Instant {
        let slot = self.next_first_probe.max(now);
        self.next_first_probe = slot + FIRST_PROBE_GAP;
        slot
    }
}

fn check_key(upstream: &UpstreamPolicy, spec: &Arc<ProbeSpec>, timing: Timing) -> CheckKey {
    CheckKey {
        upstream: upstream.address.clone(),
        target: spec.target(upstream),
        name: upstream.name.clone(),
        spec: spec.clone(),
        timing,
    }
}

/// The last report goes with the check while its definition is the same.
fn old_report(
    checks: &HashMap<CheckId, Check>,
    earlier: Option<CheckId>,
    key: &CheckKey,
) -> Option<(Instant, Arc<ProbeReport>)> {
    let check = checks.get(&earlier?)?;
    check.key.same_definition(key).then(|| check.last.clone()).flatten()
}

/// Where in an interval an address belongs, as a fraction of 2^32.
fn part_of(address: &Address) -> u32 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    (hasher.finish() >> 32) as u32
}
