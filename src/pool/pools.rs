//! One pool and its members as the controller keeps them, and how its view and status are computed. Pure.
//!
//! [`PoolState::view`] is the whole answer to "may this pool serve, and with which upstreams".

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::history::History;
use super::ids::IdMap;
use super::orders::{Able, DRAIN_RESUME, NeedsForce, Overrides, Rule};
use super::outage::{Causes, Progress, REASON_CHARS_MAX, Seen, Serving, Watch, Way};
use super::passive::{EjectionEnd, Ejections};
use super::ramp::Ramp;
use super::snapshot::{Pool, PoolId, PoolShared};
use super::state::{Check, CheckId};
use super::status::{
    CheckStatus, LastCheck, OutOfOrder, PoolStatus, PoolSummary, SlowStart, Streak, UpstreamDetail, UpstreamStatus,
};
use super::upstream::Upstream;
use super::view::{Candidate, FIRST_VERDICT_WAIT, Otherwise, Rules, Service, Tier, View};
use crate::health::{Cause, Run, Track, Vote, combine, decides};
use crate::model::eligibility::eligibility;
use crate::model::policy::{CheckPolicy, PoolPolicy, UpstreamPolicy, WhenNoHealthy};
use crate::model::units::Measured;
use crate::model::{
    Address, AdminState, Eligibility, FineWeight, HealthState, Ineligible, Judgement, ProbeReport, Ratio, Weight,
};

/// Removed healthy upstreams serve at most this long after the reload that removed them.
pub const RETIRING_MAX: Duration = Duration::from_secs(30);

/// The maximum age of a large pool's `Retry-After`.
const USABLE_REFRESH: Duration = Duration::from_millis(250);

pub(super) type Checks = IdMap<CheckId, Check>;

/// The checks of one upstream; usually one.
pub(super) type CheckIds = SmallVec<[CheckId; 2]>;

/// One pool.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) id: PoolId,
    pub(super) policy: Arc<PoolPolicy>,
    pub(super) shared: Arc<PoolShared>,
    pub(super) cell: Arc<Pool>,
    pub(super) members: Vec<Member>,
    /// Removed upstreams serve for the configured ones.
    pub(super) warming: Option<Warming>,
    /// It served before the reload, and its backups continue while the first verdict of a primary is pending.
    backups_meanwhile: bool,
    pub(super) fail_open: bool,
    pub(super) timer: Option<Instant>,
    /// Admin states of addresses that left their host names and may come back.
    pub(super) orders: Orders,
    /// Members of the configuration that are healthy.
    pub(super) healthy: usize,
    /// The service of the newest view.
    pub(super) service: Service,
    /// Which members are in the newest view.
    pub(super) used: Used,
    /// What has been reported about it.
    pub(super) watch: Watch,
    /// How it serves, with its chain of other pools followed to the end.
    pub(super) serving: Serving,
    /// How many can serve since the newest view.
    pub(super) strength: Strength,
    usable_refreshed: Option<Instant>,
    pub(super) fallback: Option<PoolId>,
}

/// Removed upstreams stay at the end of a pool's members as `retiring` and serve until the configured ones can serve
/// alone, or their time is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Warming {
    /// When their time is up.
    pub(super) until: Instant,
    /// How many had to be healthy for the pool to serve before they were removed.
    needed: usize,
}

/// What a pool hands to the configuration that follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    /// It served normally.
    open: bool,
    /// How many had to be healthy for that.
    needed: usize,
    /// When the time of its retiring members ends, if it has any.
    until: Option<Instant>,
}

/// The verdict under earlier check definitions, carried until the new checks have theirs or its time is up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    pub(super) state: HealthState,
    /// When a definition first changed since a verdict was reached.
    since: Instant,
}

/// The most orders kept for absent addresses of a pool.
const ORDERS_MAX: usize = 1_024;

/// Orders that outlive their upstream, as long as its host name is in the pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Orders(HashMap<Address, (Arc<str>, Overrides)>);

impl Orders {
    /// The orders for a new address of a name: those for this address, or for the name while it had no addresses.
    pub(super) fn take(&mut self, upstream: &UpstreamPolicy) -> Overrides {
        let Some(host) = upstream.name.clone() else { return Overrides::default() };
        let own = self.0.remove(&upstream.address);
        let names = || self.0.get(&Address::Name { host, port: upstream.address.port()? }).cloned();
        own.or_else(names).map(|(_, orders)| orders).unwrap_or_default()
    }

    /// Keeps the orders of members that are gone.
    pub(super) fn keep<'m>(&mut self, gone: impl Iterator<Item = &'m Member>) {
        for member in gone {
            if let Some(host) = member.policy().name.as_ref().filter(|_| !member.overrides.is_empty())
                && self.0.len() < ORDERS_MAX
            {
                self.0.insert(member.upstream.address.clone(), (host.clone(), member.overrides.clone()));
            }
        }
    }

    /// Forgets orders of names that `policy` does not have, and of names that have addresses now.
    pub(super) fn tidy(&mut self, policy: &PoolPolicy) {
        let unresolved = |a: &Address| policy.upstreams.iter().any(|u| u.address == *a);
        self.0.retain(|address, (host, _)| {
            policy.upstreams.iter().any(|u| u.name.as_ref() == Some(host))
                && (address.host_name().is_none() || unresolved(address))
        });
    }
}

/// How many configured upstreams can serve.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strength {
    /// Healthy and enabled.
    pub(super) able: usize,
    pub(super) total: usize,
    /// Fewer than half can serve.
    pub(super) below_half: bool,
    /// When to look again even if nothing happens.
    pub(super) again: Option<Instant>,
}

/// Which members are in a view: of which ranks, and whether unhealthy ones too.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    primaries: bool,
    backups: bool,
    pub(super) all: bool,
}

/// Since when an upstream does what only few do.
#[derive(Debug, Default)]
struct Began {
    /// Its weight grows.
    ramp: Option<Ramp>,
    /// It drains, if no order says so.
    draining: Option<Instant>,
}

/// One upstream of one pool.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) upstream: Arc<Upstream>,
    /// The pool's configuration; of a retiring member, the one it had.
    pub(super) rules: Arc<PoolPolicy>,
    /// Its index in `rules.upstreams`.
    pub(super) index: usize,
    /// In the order of `rules.checks`.
    pub(super) checks: CheckIds,
    pub(super) state: HealthState,
    pub(super) since: Instant,
    /// Few have it.
    pub(super) carried: Option<Box<Carried>>,
    pub(super) overrides: Overrides,
    pub(super) ejections: Ejections,
    /// Few have it.
    began: Option<Box<Began>>,
    /// It was added to a running pool or has been unhealthy, and has not been healthy since.
    pub(super) ramps_when_healthy: bool,
    /// What its agents ask for.
    asks: AdminState,
    pub(super) retiring: bool,
    /// Its line left the file; otherwise only its host name's answer changed.
    pub(super) left_file: bool,
    pub(super) checks_total: u64,
    pub(super) transitions_total: u64,
    pub(super) history: History,
}

impl Member {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        rules: Arc<PoolPolicy>,
        index: usize,
        checks: CheckIds,
        state: HealthState,
        since: Instant,
    ) -> Member {
        Member {
            upstream,
            rules,
            index,
            checks,
            state,
            since,
            carried: None,
            overrides: Overrides::default(),
            ejections: Ejections::default(),
            began: None,
            ramps_when_healthy: false,
            asks: AdminState::Enabled,
            retiring: false,
            left_file: false,
            checks_total: 0,
            transitions_total: 0,
            history: History::default(),
        }
    }

    /// The definition of its checks has changed: carries its state for a while if they have none yet.
    pub(super) fn carry(&mut self, checks: &Checks, now: Instant) {
        self.carried = match self.verdict(checks) {
            HealthState::Unknown => {
                let since = self.carried.as_ref().map_or(now, |carried| carried.since);
                Some(Box::new(Carried { state: self.state, since }))
            }
            HealthState::Healthy | HealthState::Unhealthy => None,
        };
    }

    /// When its carried state ends, if it is carried.
    pub(super) fn carried_until(&self, checks: &Checks) -> Option<Instant> {
        let since = self.carried.as_ref()?.since;
        let longest = self.tracks(checks).map(|track| track.timing().carried_at_most()).max()?;
        Some(since + longest)
    }

    /// Until when it counts as healthy if no further probe passes or fails; `None`: it is not healthy.
    pub(super) fn fresh_until(&self, checks: &Checks) -> Option<Instant> {
        if self.state != HealthState::Healthy {
            return None;
        }
        if let Some(until) = self.carried_until(checks) {
            return self.tracks(checks).map(Track::stale_at).chain([until]).min();
        }
        if let [only] = &self.checks[..] {
            return Some(checks[only].track.stale_at());
        }
        // Healthy while enough of its healthy checks are in date.
        let healthy = self.tracks(checks).filter(|track| track.state() == HealthState::Healthy);
        let mut stale: SmallVec<[Instant; 4]> = healthy.map(Track::stale_at).collect();
        stale.sort_unstable();
        let spare = stale.len().saturating_sub(self.rules.require.needed(self.checks.len()));
        stale.get(spare).copied()
    }

    /// Publishes until when it counts as healthy to the readers that pick.
    pub(super) fn publish_fresh_until(&self, checks: &Checks) {
        self.upstream.fresh_until.set(self.fresh_until(checks));
    }

    pub(super) fn policy(&self) -> &UpstreamPolicy {
        &self.rules.upstreams[self.index]
    }

    /// Whether it is meant to take requests: as its operator or its agent says, whichever is stricter.
    pub(super) fn admin(&self) -> AdminState {
        self.ordered().max(self.asks)
    }

    /// The same as its operator says.
    pub(super) fn ordered(&self) -> AdminState {
        self.overrides.admin().map_or(self.policy().admin, |order| order.to)
    }

    /// Whether an agent takes it out, where its operator does not.
    pub(super) fn is_asked_out(&self) -> bool {
        self.ordered() < self.asks
    }

    /// The answer of that agent.
    fn asked<'a>(&self, checks: &'a Checks) -> Option<&'a Arc<ProbeReport>> {
        self.strictest(checks).filter(|_| self.is_asked_out())
    }

    /// Does what its agents say; of several the strictest holds.
    pub(super) fn heed(&mut self, checks: &Checks) {
        self.asks = self.strictest(checks).and_then(|report| report.asks).unwrap_or_default();
    }

    fn strictest<'a>(&self, checks: &'a Checks) -> Option<&'a Arc<ProbeReport>> {
        self.checks.iter().filter_map(|id| checks[id].said.as_ref()).max_by_key(|report| report.asks)
    }

    pub(super) fn weight(&self) -> Weight {
        self.overrides.weight().map_or(self.policy().weight, |order| order.to)
    }

    /// Its weight as it holds now.
    pub(super) fn weight_now(&self, checks: &Checks, now: Instant) -> FineWeight {
        let part = self.part_now(now);
        FineWeight::new(self.weight(), self.degraded(checks).map_or(part, |share| part.times(share)))
    }

    /// The most requests that it may have in flight now: while its weight grows, this does as well.
    fn places_now(&self, now: Instant) -> u32 {
        let Some(most) = self.rules.traffic.connections.max_per_upstream else { return u32::MAX };
        u32::try_from(self.part_now(now).of_rounded_up(most as usize)).unwrap_or(u32::MAX)
    }

    /// Which part of its weight it has while that grows.
    fn part_now(&self, now: Instant) -> Ratio {
        self.ramp_now(now).map_or(Ratio::ONE, |(part, _)| part)
    }

    /// The share of its weight that it takes because its checks say that it is worse than others; of several the least.
    pub(super) fn degraded(&self, checks: &Checks) -> Option<Ratio> {
        let worst = || self.checks.iter().filter_map(|id| checks[id].said.as_ref()?.degraded).min();
        if self.state == HealthState::Healthy { worst() } else { None }
    }

    /// Which part of its weight it has, and when that is more; `None`: all of it.
    fn ramp_now(&self, now: Instant) -> Option<(Ratio, Instant)> {
        self.began.as_ref()?.ramp?.part(self.rules.traffic.slow_start, now)
    }

    /// It begins to take requests after it took none: its weight grows.
    pub(super) fn begin_ramp(&mut self, now: Instant) {
        self.began.get_or_insert_default().ramp = Some(Ramp::start(now));
    }

    /// It is removed: what is in flight may last for some time. One that was taken out before has its time from then.
    pub(super) fn leave(&self, now: Instant) {
        if self.admin() == AdminState::Enabled {
            self.cut_off(now);
        }
    }

    /// An operator takes it out, or it is removed: what is in flight may last for some time.
    fn cut_off(&self, now: Instant) {
        let leaving = &self.rules.traffic.leaving;
        let (requests, tunnels) = (leaving.requests.map(|most| now + most), Some(now + leaving.tunnels));
        // Requests of sessions may still come to one that drains, and end with the others.
        let is_resumable = self.rules.traffic.sticky.is_some() && self.admin() == AdminState::Draining;
        self.upstream.connections.cut(requests, tunnels, is_resumable);
    }

    /// It has become unhealthy: what is in flight ends, if the pool wants that.
    pub(super) fn cut_unhealthy(&self, now: Instant) {
        if self.rules.traffic.leaving.close_unhealthy {
            self.upstream.connections.cut(Some(now), Some(now), false);
        }
    }

    /// It is added to a running pool: its weight grows from when it is healthy.
    pub(super) fn on_joining(&mut self, now: Instant) {
        if self.state == HealthState::Healthy {
            self.begin_ramp(now);
        } else {
            self.ramps_when_healthy = true;
        }
    }

    /// Its admin state may have changed from this one: what was disabled begins anew, what was drained goes on.
    pub(super) fn on_admin_change(&mut self, before: AdminState, now: Instant) {
        match (before, self.admin()) {
            (AdminState::Enabled, AdminState::Draining | AdminState::Disabled) => self.cut_off(now),
            (AdminState::Draining | AdminState::Disabled, AdminState::Enabled) => {
                self.upstream.connections.cut(None, None, false);
            }
            (AdminState::Enabled, AdminState::Enabled)
            | (AdminState::Draining | AdminState::Disabled, AdminState::Draining | AdminState::Disabled) => {}
        }
        if before == AdminState::Disabled && self.admin() == AdminState::Enabled {
            self.begin_ramp(now);
        }
        if before != AdminState::Draining {
            self.end_draining();
        }
    }

    fn end_draining(&mut self) {
        if let Some(began) = &mut self.began {
            began.draining = None;
        }
    }

    /// Until when requests of sessions that are at it may still go to it, if they may now.
    fn resumable_until(&mut self, now: Instant) -> Option<Instant> {
        if self.admin() != AdminState::Draining {
            self.end_draining();
            return None;
        }
        let since = match self.overrides.admin().filter(|order| order.to == AdminState::Draining) {
            Some(order) => order.at,
            None => *self.began.get_or_insert_default().draining.get_or_insert(now),
        };
        let until = since + self.overrides.resume().unwrap_or(DRAIN_RESUME);
        let may = self.state == HealthState::Healthy && self.ejections.current().is_none() && now < until;
        may.then_some(until)
    }

    /// The verdict of its checks now, without a carried one.
    pub(super) fn verdict(&self, checks: &Checks) -> HealthState {
        combine(self.checks.iter().map(|id| checks[id].track.state()), self.rules.require)
    }

    /// The index of the deciding check.
    pub(super) fn decides(&self, checks: &Checks) -> usize {
        if self.checks.len() == 1 {
            return 0;
        }
        let votes: SmallVec<[Vote; 4]> = self.checks.iter().map(|id| checks[id].track.vote()).collect();
        decides(&votes, self.rules.require)
    }

    /// `check NAME: ` if there are several checks.
    pub(super) fn prefix(&self, check: &str) -> String {
        match self.checks.len() {
            1 => String::new(),
            _ => format!("check {check}: "),
        }
    }

    fn tracks<'a>(&'a self, checks: &'a Checks) -> impl Iterator<Item = &'a Track> {
        self.checks.iter().map(|id| &checks[id].track)
    }

    /// When it could be healthy at the earliest, if every probe from now on passes.
    fn usable_at(&self, checks: &Checks) -> Option<Instant> {
        if let [only] = &self.checks[..] {
            return Some(checks[only].track.usable_at());
        }
        let healthy = self.tracks(checks).filter(|track| track.state() == HealthState::Healthy).count();
        let missing = self.rules.require.needed(self.checks.len()).saturating_sub(healthy);
        if missing == 0 {
            return self.tracks(checks).map(Track::usable_at).min();
        }
        let others = self.tracks(checks).filter(|track| track.state() != HealthState::Healthy);
        let mut soonest: SmallVec<[Instant; 4]> = others.map(Track::usable_at).collect();
        soonest.sort_unstable();
        soonest.get(missing - 1).copied()
    }

    fn eligibility(&self, fail_open: bool) -> Eligibility {
        // An upstream without an address takes no requests, not even under `fail_open`.
        let ejected = self.ejections.current().is_some();
        eligibility(self.state, self.admin(), ejected, fail_open && self.has_address())
    }

    /// Whether it could serve, were it not ejected.
    pub(super) fn is_able(&self) -> bool {
        eligibility(self.state, self.admin(), false, false).is_eligible()
    }

    /// False for a host name that has not resolved to an address yet.
    fn has_address(&self) -> bool {
        self.upstream.address.host_name().is_none()
    }

    pub(super) fn is_eligible(&self) -> bool {
        self.eligibility(false).is_eligible()
    }

    /// Until when requests wait for this upstream: it is enabled and unknown, and the first probe that it waits for is
    /// young.
    fn first_verdict_until(&self, checks: &Checks, now: Instant) -> Option<Instant> {
        if self.admin() != AdminState::Enabled || self.state != HealthState::Unknown {
            return None;
        }
        let awaited = self.tracks(checks).filter(|track| track.state() == HealthState::Unknown);
        let until = awaited.map(|track| track.awaited_since(now)).min()? + FIRST_VERDICT_WAIT;
        (until > now).then_some(until)
    }
}

impl PoolState {
    pub(super) fn new(
        id: PoolId,
        policy: Arc<PoolPolicy>,
        shared: Arc<PoolShared>,
        fallback: Option<PoolId>,
        members: Vec<Member>,
    ) -> PoolState {
        let otherwise = Service::NoneEligible(Otherwise::Reject);
        let empty = || Tier::build(policy.balance, []);
        let rules = Rules { needed: 1, backups_alone: false, otherwise: Otherwise::Reject };
        let view = View::new(otherwise, empty(), empty(), rules);
        let cell = Arc::new(Pool {
            id,
            name: policy.name.clone(),
            traffic: policy.traffic.clone(),
            shared: shared.clone(),
            view: ArcSwap::from_pointee(view),
        });
        let healthy = members.iter().filter(|member| member.state == HealthState::Healthy).count();
        PoolState {
            id,
            policy,
            shared,
            cell,
            members,
            warming: None,
            backups_meanwhile: false,
            fail_open: false,
            timer: None,
            orders: Orders::default(),
            healthy,
            service: otherwise,
            used: Used::default(),
            watch: Watch::default(),
            serving: Serving::Awaited,
            strength: Strength::default(),
            usable_refreshed: None,
            fallback,
        }
    }

    /// The members by address, for the configuration that follows.
    pub(super) fn into_members(self) -> HashMap<Address, Member> {
        self.members.into_iter().map(|member| (member.upstream.address.clone(), member)).collect()
    }

    /// Follows `before`, whose members are in this pool already. If that pool served, lets its removed eligible members
    /// serve for now; the others stay in `removed`. Whether they are needed is known once every member has its state
    /// ([`PoolState::is_warm`]). A further reload does not extend their time.
    pub(super) fn retire(&mut self, removed: &mut Vec<Member>, before: &Served, now: Instant) {
        self.backups_meanwhile = before.open;
        if !before.open {
            return;
        }
        let serving = removed.extract_if(.., |member| member.is_eligible());
        let kept = self.members.len();
        let names: HashSet<&Arc<str>> = self.policy.upstreams.iter().filter_map(|u| u.name.as_ref()).collect();
        let named = |member: &Member| member.policy().name.as_ref().is_some_and(|name| names.contains(name));
        self.members.extend(serving.map(|member| {
            let left_file = member.left_file || !named(&member);
            Member { retiring: true, left_file, ..member }
        }));
        let until = before.until.unwrap_or(now + RETIRING_MAX);
        self.warming = (self.members.len() > kept).then_some(Warming { until, needed: before.needed });
    }

    /// Whether there is an upstream with an address.
    pub(super) fn has_addresses(&self) -> bool {
        self.members.iter().any(Member::has_address)
    }

    /// How the pool serves, for the configuration that follows.
    pub(super) fn served(&self) -> Served {
        let needed = match self.used {
            // One backup is enough to replace primaries.
            Used { primaries: false, .. } if !self.backups_alone() => 1,
            Used { .. } => self.needed_now(),
        };
        Served { open: self.service == Service::Open, needed, until: self.warming.map(|warming| warming.until) }
    }

    /// Whether the configured members can serve alone. A backup can replace a retiring backup; it can replace a primary
    /// only if the configuration has no primaries.
    pub(super) fn is_warm(&self) -> bool {
        let eligible = |backup| self.of_rank(backup).filter(|member| member.is_eligible()).count();
        let (primaries, backups, needed) = (eligible(false), eligible(true), self.needed());
        let primaries_go = self.members.iter().any(|member| member.retiring && !member.policy().backup);
        if self.backups_alone() {
            return backups > 0 && backups >= needed;
        }
        (primaries > 0 && primaries >= needed) || (backups > 0 && !primaries_go)
    }

    /// How far it is from that.
    pub(super) fn progress(&self) -> Progress {
        let count = |backup| self.of_rank(backup).filter(|member| member.is_eligible()).count();
        let alone = self.backups_alone();
        Progress { able: count(alone), needed: self.needed().max(1), backups: if alone { 0 } else { count(true) } }
    }

    /// Takes out the retiring members, and keeps orders of those whose host name is still in the file.
    pub(super) fn end_warming(&mut self) -> Vec<Member> {
        self.warming = None;
        let gone: Vec<Member> = self.members.extract_if(.., |member| member.retiring).collect();
        self.orders.keep(gone.iter());
        self.orders.tidy(&self.policy);
        gone
    }

    /// The view, and when it must be computed again even if nothing happens.
    ///
    /// Primaries serve if at least `min_healthy` of them may; otherwise the backups serve. While the first verdict of a
    /// primary is pending, neither backups nor `when_no_healthy` take over; backups that serve already continue. While
    /// removed members serve, as many as had to be healthy before are enough.
    pub(super) fn view(&mut self, checks: &Checks, now: Instant) -> (View, Used, Option<Instant>) {
        let fits = |backup: bool, fail_open: bool| {
            move |m: &&Member| m.policy().backup == backup && m.eligibility(fail_open).is_eligible()
        };
        let count = |backup| self.members.iter().filter(fits(backup, false)).count();
        let needed = self.needed_now();
        let enough = count(false) >= needed && count(false) > 0;
        let awaited = |backup| {
            let ranked = self.members.iter().filter(move |m: &&Member| m.policy().backup == backup);
            ranked.filter_map(|m| m.first_verdict_until(checks, now)).min()
        };
        let otherwise = match (&self.policy.when_no_healthy, self.fallback) {
            (WhenNoHealthy::FailOpen, _) => Otherwise::FailOpen,
            (WhenNoHealthy::Pool(_), Some(pool)) => Otherwise::Pool(pool),
            (WhenNoHealthy::Pool(_), None) | (WhenNoHealthy::Reject, _) => Otherwise::Reject,
        };
        let backups_alone = self.backups_alone();
        let backups_serve = count(true) > 0 && (!backups_alone || count(true) >= needed);
        let primary_awaited = awaited(false);
        let meanwhile = self.backups_meanwhile && backups_serve;
        let (service, with_primaries, with_backups, all) = match (enough, primary_awaited, backups_serve, awaited(true))
        {
            (true, _, _, _) => (Service::Open, true, true, false),
            (false, Some(_), _, _) if meanwhile => (Service::Open, false, true, false),
            (false, None, true, _) => (Service::Open, false, true, false),
            (false, Some(until), _, _) | (false, None, false, Some(until)) => {
                let open = otherwise == Otherwise::FailOpen;
                (Service::Waiting { until, then: otherwise }, open, open, open)
            }
            (false, None, false, None) if otherwise == Otherwise::FailOpen && self.any_enabled() => {
                (Service::FailOpen, true, true, true)
            }
            (false, None, false, None) => (Service::NoneEligible(otherwise), false, false, false),
        };
        let used = Used { primaries: with_primaries, backups: with_backups, all };
        let tier = |backup: bool, wanted: bool| {
            let members = self.members.iter().filter(|_| wanted).filter(fits(backup, all));
            Tier::with_places(
                self.policy.balance,
                members.map(|m| (m.upstream.clone(), m.weight_now(checks, now), m.places_now(now))),
            )
        };
        let rules = Rules { needed, backups_alone, otherwise };
        let (primaries, backups) = (tier(false, with_primaries), tier(true, with_backups));
        let resumable = self.resumable(now);
        let until = resumable.iter().map(|(_, until)| *until).min();
        let mut view = View::new(service, primaries, backups, rules);
        if self.policy.traffic.sticky.is_some() {
            view.pin(&self.policy.name, resumable);
        }
        let waiting = match service {
            Service::Waiting { until, .. } => Some(until),
            Service::Open | Service::FailOpen | Service::NoneEligible(_) => None,
        };
        let carried = self.members.iter().filter_map(|member| member.carried_until(checks)).min();
        let ejected = self.members.iter().filter_map(|member| member.ejections.current()).map(|ejected| ejected.until);
        self.backups_meanwhile &= service == Service::Open && !enough && primary_awaited.is_some();
        let warming = self.warming.map(|warming| warming.until);
        let ordered = self.members.iter().filter_map(|member| member.overrides.until()).min();
        let growing = self.members.iter().filter_map(|member| member.ramp_now(now)).map(|(_, next)| next).min();
        let ending = [ejected.min(), ordered, growing, until, primary_awaited.filter(|_| meanwhile)];
        let again = [waiting, warming, carried].into_iter().chain(ending);
        (view, used, again.flatten().min())
    }

    /// Those that drain and still take requests of the sessions that are at them, and until when.
    fn resumable(&mut self, now: Instant) -> Vec<(Candidate, Instant)> {
        if self.policy.traffic.sticky.is_none() {
            return Vec::new();
        }
        let one = |member: &mut Member| {
            let until = member.resumable_until(now)?;
            Some((Candidate::new(member.upstream.clone(), member.places_now(now)), until))
        };
        self.members.iter_mut().filter(|member| !member.retiring).filter_map(one).collect()
    }

    /// Counts its upstreams under the newest view's service.
    pub(super) fn count_strength(&self, checks: &Checks, now: Instant) -> Strength {
        let able = self.members.iter().filter(|member| !member.retiring && member.is_eligible()).count();
        let total = self.policy.upstreams.len();
        let mut strength = Strength { able, total, below_half: 2 * able < total, again: None };
        let asked = strength.below_half && self.service == Service::Open && self.warming.is_none();
        if asked && !self.watch.is_below_half() {
            let own = self.members.iter().filter(|member| !member.retiring);
            let awaited = own.filter_map(|member| member.first_verdict_until(checks, now));
            let mut awaited: Vec<Instant> = awaited.collect();
            // Members whose first verdict is pending do not count as missing yet.
            strength.below_half = 2 * able < total - awaited.len();
            if !strength.below_half {
                // When enough of them count as missing for fewer than half to be left; not earlier, because a look
                // costs a scan.
                let enough = 2 * able + awaited.len() - total;
                strength.again = Some(*awaited.select_nth_unstable(enough).1);
            }
        }
        strength
    }

    /// The input for the pool's watch.
    pub(super) fn seen(&self) -> Seen {
        let (serving, below_half) = (self.serving.clone(), self.strength.below_half);
        Seen { serving, below_half, warming: self.warming.is_some() }
    }

    /// Removed upstreams that serve for the configured ones.
    pub(super) fn retiring(&self) -> usize {
        self.members.iter().filter(|member| member.retiring).count()
    }

    /// What keeps its upstreams out, for the sentences of an outage.
    pub(super) fn causes(&self, checks: &Checks) -> Causes {
        let mut causes = Causes {
            total: self.policy.upstreams.len(),
            needed: self.needed().max(1),
            other: match (&self.policy.when_no_healthy, &self.serving) {
                (WhenNoHealthy::Pool(other), Serving::Out(Way::Refuse)) => Some(other.clone()),
                _ => None,
            },
            ..Causes::default()
        };
        for member in self.members.iter().filter(|member| !member.retiring) {
            match (member.admin(), member.state) {
                _ if !member.has_address() => {
                    causes.unresolved += 1;
                    causes.host = causes.host.or_else(|| member.upstream.address.host_name().cloned());
                }
                (AdminState::Enabled, HealthState::Healthy) => causes.able += 1,
                (AdminState::Enabled, HealthState::Unknown) => causes.unknown += 1,
                (AdminState::Enabled, HealthState::Unhealthy) => {
                    causes.unhealthy += 1;
                    if causes.found.is_none() {
                        let decides = member.decides(checks);
                        let check = member.prefix(&member.rules.checks[decides].name);
                        let last = checks[&member.checks[decides]].last.as_ref();
                        causes.found = last.map(|(_, report)| found(&check, report));
                    }
                }
                (order @ (AdminState::Draining | AdminState::Disabled), state) => {
                    match order {
                        AdminState::Draining => causes.draining += 1,
                        AdminState::Disabled | AdminState::Enabled => causes.disabled += 1,
                    }
                    if member.is_asked_out() {
                        causes.asked.get_or_insert_with(|| member.upstream.address.clone());
                    } else if state == HealthState::Healthy && causes.ordered.is_none() {
                        causes.ordered = Some((member.upstream.address.clone(), order));
                    }
                }
            }
        }
        let mut own = self.members.iter().filter(|member| !member.retiring);
        causes.only = own.next().filter(|_| causes.total == 1).map(|member| member.upstream.address.clone());
        causes
    }

    /// Why it does not serve normally, and since when; `None` while it does.
    fn out_of_order(&self, checks: &Checks) -> Option<OutOfOrder> {
        if self.service == Service::Open {
            return None;
        }
        let (causes, outage) = (self.causes(checks), self.watch.outage());
        Some(OutOfOrder {
            way: outage.map(|outage| outage.way.clone()),
            since: outage.map(|outage| outage.since),
            way_since: outage.map(|outage| outage.way_since),
            reason: causes.reason(),
            remedy: causes.remedy(&self.policy.name),
        })
    }

    /// How many upstreams must be healthy for the pool to serve normally; backups count if there are no primaries.
    pub(super) fn needed(&self) -> usize {
        // Of those that could be healthy: a name without an address cannot.
        let total = self.of_rank(self.backups_alone()).filter(|member| member.has_address()).count();
        self.policy.min_healthy.needed(total)
    }

    /// The same while removed members serve: as many as had to be healthy before are enough.
    fn needed_now(&self) -> usize {
        let needed = self.needed();
        self.warming.map_or(needed, |warming| warming.needed.min(needed))
    }

    /// Why an order that takes this upstream out needs force; `None`: it does not.
    pub(super) fn needs_force(&self, address: &Address, checks: &Checks, now: Instant) -> Option<NeedsForce> {
        let rule = if self.used.all { Rule::FailOpen } else { self.rule() };
        let able = |without| self.able(without, self.used.all, checks, now);
        let left = rule.left_too_few(able(None), able(Some(address)))?;
        Some(NeedsForce {
            pool: self.policy.name.clone(),
            upstream: address.clone(),
            left,
            needed: rule.needed(),
            otherwise: self.policy.when_no_healthy.clone(),
        })
    }

    /// The rule by which it serves normally.
    pub(super) fn rule(&self) -> Rule {
        if self.backups_alone() { Rule::BackupsAlone(self.needed_now()) } else { Rule::AtLeast(self.needed_now()) }
    }

    /// Why those that are ejected must be let back, if they must.
    pub(super) fn lacks(&self, checks: &Checks, now: Instant) -> Option<EjectionEnd> {
        let able = self.able(None, false, checks, now);
        match self.rule().is_enough(able) {
            _ if !able.any() => Some(EjectionEnd::Last),
            true => None,
            false => Some(EjectionEnd::MinHealthy),
        }
    }

    /// How many may serve without the upstream of this address.
    pub(super) fn able(&self, without: Option<&Address>, fail_open: bool, checks: &Checks, now: Instant) -> Able {
        let others = || self.members.iter().filter(|member| Some(&member.upstream.address) != without);
        let count = |backup| {
            let ranked = others().filter(|member| member.policy().backup == backup);
            ranked.filter(|member| member.eligibility(fail_open).is_eligible()).count()
        };
        let awaited = others().any(|m| !m.policy().backup && m.first_verdict_until(checks, now).is_some());
        let backups_wait = awaited && !self.backups_meanwhile && !fail_open;
        Able { primaries: count(false), backups: if backups_wait { 0 } else { count(true) } }
    }

    /// Whether the configuration has no primaries.
    fn backups_alone(&self) -> bool {
        self.of_rank(false).next().is_none()
    }

    fn of_rank(&self, backup: bool) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.policy().backup == backup && !member.retiring)
    }

    /// Whether a member may be picked now, or why not: its own eligibility, and whether its rank is in use.
    fn eligibility(&self, member: &Member) -> Eligibility {
        let own = member.eligibility(self.used.all);
        let in_use = if member.policy().backup { self.used.backups } else { self.used.primaries };
        match own {
            Eligibility::Eligible if !in_use => Eligibility::Not(match (member.policy().backup, self.service) {
                (true, Service::Waiting { .. }) => Ineligible::PrimaryAwaited,
                (true | false, _) => Ineligible::TooFewHealthy,
            }),
            own @ (Eligibility::Eligible | Eligibility::Not(_)) => own,
        }
    }

    /// After a probe without a change of state: `Retry-After` advances while the pool does not serve.
    pub(super) fn refresh_usable_at(&mut self, checks: &Checks, now: Instant) {
        match self.service {
            Service::Open | Service::FailOpen => {}
            Service::Waiting { .. } | Service::NoneEligible(_) => self.set_usable_at(checks, now),
        }
    }

    /// Publishes when the pool could serve again (for `Retry-After`), unless the pool is large and this was published
    /// just now.
    pub(super) fn set_usable_at(&mut self, checks: &Checks, now: Instant) {
        let fresh = self.usable_refreshed.is_some_and(|at| now < at + USABLE_REFRESH);
        if fresh && self.members.len() > 16 {
            return;
        }
        self.usable_refreshed = Some(now);
        let enabled = self.members.iter().filter(|member| member.admin() == AdminState::Enabled);
        self.shared.set_usable_at(enabled.filter_map(|member| member.usable_at(checks)).min());
    }

    pub(super) fn status(&self, checks: &Checks, now: Instant) -> PoolStatus {
        let upstreams: Vec<_> = self.members.iter().map(|member| self.upstream_status(member, checks, now)).collect();
        let enabled = || self.members.iter().filter(|m| !m.retiring && m.admin() == AdminState::Enabled);
        let eligible = upstreams.iter().filter(|upstream| upstream.eligibility.is_eligible()).count();
        let judged = self.healthy > 0 || enabled().all(|member| member.state != HealthState::Unknown);
        let any_unhealthy = enabled().any(|member| member.state == HealthState::Unhealthy);
        let serves = match self.service {
            Service::Open => true,
            Service::FailOpen | Service::Waiting { .. } | Service::NoneEligible(_) => false,
        };
        let summary = if serves && enabled().all(Member::is_eligible) {
            PoolSummary::Healthy
        } else if serves || self.fail_open {
            PoolSummary::Degraded
        } else if judged || any_unhealthy {
            PoolSummary::Unhealthy
        } else {
            PoolSummary::Unknown
        };
        PoolStatus {
            name: self.policy.name.clone(),
            summary,
            healthy: self.healthy,
            total: self.policy.upstreams.len(),
            eligible,
            service: (&self.serving).into(),
            fail_open: self.fail_open,
            warming: self.warming.is_some(),
            warming_until: self.warming.map(|warming| warming.until),
            progress: self.warming.map(|_| self.progress()),
            out_of_order: self.out_of_order(checks),
            judged,
            first_probe: self.members.iter().flat_map(|m| m.tracks(checks)).filter_map(Track::first_start).min(),
            shared: self.shared.clone(),
            upstreams,
        }
    }

    fn any_enabled(&self) -> bool {
        self.members.iter().any(|member| member.admin() == AdminState::Enabled && member.has_address())
    }

    /// One upstream with its history.
    pub(super) fn detail(&self, address: &Address, checks: &Checks, now: Instant) -> Option<UpstreamDetail> {
        let member = self.members.iter().find(|member| member.upstream.address == *address)?;
        Some(UpstreamDetail {
            status: self.upstream_status(member, checks, now),
            policy: member.rules.clone(),
            history: member.history.transitions(&self.policy.name, address),
        })
    }

    fn upstream_status(&self, member: &Member, checks: &Checks, now: Instant) -> UpstreamStatus {
        let eligibility = self.eligibility(member);
        let policies = member.rules.checks.iter();
        let all: Vec<_> = policies.zip(&member.checks).map(|(policy, id)| check_status(policy, &checks[id])).collect();
        let decides = member.decides(checks);
        let check = &all[decides];
        let unknown_because = checks[&member.checks[decides]].unknown_because;
        let why = why(eligibility, member, (check, unknown_because), member.asked(checks), now);
        UpstreamStatus {
            upstream: member.upstream.clone(),
            name: member.policy().name.clone(),
            state: member.state,
            eligibility,
            why,
            since: member.since,
            weight: member.weight(),
            slow_start: member
                .ramp_now(now)
                .zip(member.began.as_ref().and_then(|began| began.ramp))
                .map(|((part, _), ramp)| SlowStart { part, until: ramp.until(member.rules.traffic.slow_start) }),
            degraded: member.degraded(checks),
            backup: member.policy().backup,
            admin: member.admin(),
            asked: member.asked(checks).cloned(),
            overrides: member.overrides.clone(),
            ejection: member.ejections.current().cloned(),
            ejections_total: member.ejections.total(),
            carried: member.carried.is_some(),
            retiring: member.retiring,
            unverified: all.iter().any(|check| check.spec.tls.as_ref().is_some_and(|tls| !tls.verify)),
            streak: check.streak,
            checks_total: member.checks_total,
            transitions_total: member.transitions_total,
            last_check: check.last_check.clone(),
            next_due: check.next_due,
            decides,
            checks: all,
        }
    }
}

/// What a probe found, with its hint if both fit: part of a hint is none.
fn found(check: &str, report: &ProbeReport) -> String {
    let whole = format!("{check}{}: {}", report.code, report.sentence());
    match whole.chars().nth(REASON_CHARS_MAX) {
        None => whole,
        Some(_) => format!("{check}{}: {}", report.code, report.reason),
    }
}

fn check_status(policy: &CheckPolicy, check: &Check) -> CheckStatus {
    let streak = |run: Run| Streak { pass: run.pass, count: run.count, needed: check.track.needed(run.pass) };
    CheckStatus {
        name: policy.name.clone(),
        preset: policy.preset,
        tls_files: policy.tls_files.clone(),
        spec: check.key.spec.clone(),
        timing: check.key.timing,
        target: check.key.target.clone(),
        state: check.track.state(),
        streak: check.track.run().map(streak),
        last_check: check.last.as_ref().map(|(at, report)| LastCheck { at: *at, report: report.clone() }),
        certificate_expiry: check.certificate_expiry.as_deref().copied(),
        next_due: check.track.next_due(),
        in_flight: check.track.in_flight(),
        due: check.track.due(),
    }
}

/// Why an upstream takes no requests, in one sentence; `None` if it may. With the deciding check comes why it is unknown;
/// `asked` is the answer of the agent that takes it out.
fn why(
    eligibility: Eligibility,
    member: &Member,
    (check, because): (&CheckStatus, Option<Cause>),
    asked: Option<&Arc<ProbeReport>>,
    now: Instant,
) -> Option<String> {
    // An upstream in use under fail_open is eligible, but what is wrong with it is still shown.
    let shown = match (eligibility, member.eligibility(false)) {
        (Eligibility::Eligible, own) => own,
        (not @ Eligibility::Not(_), _) => not,
    };
    let Eligibility::Not(reason) = shown else { return None };
    Some(match reason {
        Ineligible::TooFewHealthy => "fewer upstreams are healthy than min_healthy requires".to_owned(),
        Ineligible::PrimaryAwaited => "it waits for a primary's first verdict".to_owned(),
        Ineligible::Unhealthy => failed(member, check),
        Ineligible::Unknown => format!("{}{}", member.prefix(&check.name), unknown(check, because)),
        Ineligible::Ejected => member.ejections.current().map_or_else(String::new, |ejected| {
            let left = Measured(ejected.until.saturating_duration_since(now));
            format!("ejected for {left} more: {}", ejected.reason())
        }),
        Ineligible::Draining | Ineligible::Disabled => {
            let ordered = match (asked, member.overrides.admin()) {
                (Some(report), _) => format!("{reason}: {}", report.reason),
                (None, Some(order)) => format!("{reason}, {}", order.sentence(now)),
                (None, None) => format!("{reason}, as the file says"),
            };
            match member.state {
                HealthState::Unhealthy => format!("{ordered}; {}", failed(member, check)),
                HealthState::Healthy | HealthState::Unknown => ordered,
            }
        }
    })
}

fn failed(member: &Member, check: &CheckStatus) -> String {
    match &check.last_check {
        _ if member.carried.is_some() => {
            "its checks failed under the previous configuration; the new ones have no verdict yet".to_owned()
        }
        Some(last) => format!("{}{}", member.prefix(&check.name), code_and_sentence(last)),
        None => "its checks failed".to_owned(),
    }
}

fn code_and_sentence(last: &LastCheck) -> String {
    format!("{}: {}", last.report.code, last.report.sentence())
}

/// Why there is no verdict. `because` is what ended the last one; a probe that passes or fails after that says more.
fn unknown(check: &CheckStatus, because: Option<Cause>) -> String {
    let last = check.last_check.as_ref();
    match (because, check.streak, last.map(code_and_sentence)) {
        (_, Some(run), Some(last)) => {
            let word = if run.pass { "passes" } else { "failures" };
            format!("not judged yet: {} of {} {word}; {last}", run.count, run.needed)
        }
        (Some(Cause::Stale), _, found) => {
            let without_verdict = |last: &&LastCheck| last.report.code.judgement() == Judgement::NoVerdict;
            let found = found.filter(|_| last.filter(without_verdict).is_some());
            let found = found.map_or_else(String::new, |found| format!("; {found}"));
            format!("stale: no probe has passed or failed for too long{found}")
        }
        (Some(Cause::ProbePanic), ..) => "its probe panicked".to_owned(),
        (Some(Cause::Threshold) | None, None, Some(last)) => format!("not judged yet; {last}"),
        (Some(Cause::Threshold) | None, _, None) => "not judged yet: its first probe has not ended".to_owned(),
    }
}
