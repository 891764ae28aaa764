//! The controller's whole state, and what each event changes in it (a new configuration: [`carry`]). Pure: events in,
//! [`Effects`] out, time and chance as arguments. [`super::controller`] carries the effects out and is the only caller.
//!
//! What holds after every event, whatever came before (the properties in `tests/passive.rs`, `tests/checks.rs` and
//! `tests/outages.rs` interleave them all):
//! - an upstream is picked only if it is healthy, enabled by its operator and its agent, and not ejected; `fail_open` alone
//!   passes over health and ejection, never over what an operator or an agent says;
//! - what is shown is what is picked: the view and the status come from the same [`crate::model::eligibility`];
//! - every loss of eligibility begins a new epoch of the upstream's connections before a view shows it;
//! - ejections never leave a pool without an upstream, nor with fewer than `min_healthy`;
//! - weights only shrink: by `slow_start` to a tenth at least, by what its checks say (`degraded`) to their share, both multiplied.
//!
//! A verdict belongs to (address, check definition, timing) and lives in a check. Pools are its readers, so equal
//! checks are one probe. Admin state, counters and load belong to pool and address and live in a member.

mod carry;
mod eject;
mod lag;
mod order;
mod pace;
mod report;
mod traffic;

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use self::lag::Lag;
use super::changes::Changes;
use super::events::{Event, EventKind, EventRing, Transition};
use super::ids::IdMap;
use super::passive::EjectionEnd;
use super::pools::{Checks, Member, PoolState};
use super::snapshot::{Pool, PoolId, PoolShared, Snapshot};
use super::status::{CheckerStatus, ExplainError, Explanation, PoolStatus, Status};
use super::traffic::Traffic;
use super::upstream::{Hints, Upstream, UpstreamId};
use super::view::View;
use crate::health::{Cause, Change, Track};
use crate::model::policy::{CheckFile, ProbeSpec, Timing};
use crate::model::{Address, HealthState, Judgement, Name, ProbeReport, Ratio};

/// Identifies one started probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeToken(pub u64);

/// A probe that has ended.
pub type Ended = (ProbeToken, Arc<ProbeReport>);

/// A probe to be made now.
#[derive(Debug, Clone)]
pub struct ProbeJob {
    /// Returned with the report.
    pub token: ProbeToken,
    /// What to probe, and how.
    pub check: Arc<CheckKey>,
    /// When it was due.
    pub due: Instant,
    /// Data that the prober keeps from one probe of this check to the next.
    pub kept: Kept,
}

/// Data that the prober keeps with a check, whose definition and timing never change; opaque to everything else.
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<OnceLock<Arc<dyn Any + Send + Sync>>>);

impl Kept {
    /// The kept data, created by `make` the first time. A check has one prober, so the type is always the same.
    pub fn get_or_make<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
        match self.0.get().and_then(|kept| kept.clone().downcast().ok()) {
            Some(kept) => kept,
            None => {
                let made = make();
                // The first value is kept.
                let _ = self.0.set(made.clone());
                made
            }
        }
    }
}

/// What the shell must do, in this order: publish, announce, close, log.
#[derive(Debug, Default)]
pub struct Effects {
    /// The snapshot of a new configuration.
    pub snapshot: Option<Arc<Snapshot>>,
    /// New views of pools.
    pub views: Vec<(Arc<Pool>, Arc<View>)>,
    /// Pools whose waiting requests must look again.
    pub announce: Vec<Arc<PoolShared>>,
    /// Upstreams whose idle connections close.
    pub close_idle: Vec<Arc<Upstream>>,
    /// How many of those have a new epoch.
    begun: usize,
    /// What to log; it is already in the event ring.
    pub events: Vec<Event>,
    /// The files of the check that made an upstream unhealthy, by the number of its event in `events`.
    pub files: HashMap<u64, Suspects>,
}

/// What may be why a check failed.
#[derive(Debug)]
pub struct Suspects {
    /// Its files, which may have changed since they were read.
    pub files: Vec<CheckFile>,
    /// The hint of the probe, which did not know that.
    pub guess: Option<&'static str>,
}

impl Effects {
    /// These have left their pool.
    fn let_go<'m>(&mut self, gone: impl IntoIterator<Item = &'m Member>, now: Instant) {
        for member in gone {
            member.leave(now);
            self.lose(&member.upstream);
        }
    }

    /// This upstream may not be picked any more.
    fn lose(&mut self, upstream: &Arc<Upstream>) {
        self.close_idle.push(upstream.clone());
    }

    /// Begins a new epoch of every lost upstream, so that a request that picked it from an older view and has sent
    /// nothing yet sees the loss. Called right before the new views are made: until they are published, only older ones
    /// exist.
    fn begin_epochs(&mut self) {
        self.close_idle[self.begun..].iter().for_each(|upstream| upstream.connections.begin_epoch());
        self.begun = self.close_idle.len();
    }
}

/// What the scheduler must do.
#[derive(Debug, Default)]
pub struct Work {
    /// Probes to start now.
    pub start: Vec<ProbeJob>,
    /// Probes in flight whose result is no longer needed.
    pub cancel: Vec<ProbeToken>,
}

/// The result of a new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The number of the configuration.
    pub generation: u64,
    /// Pools in which removed upstreams serve until a new one is healthy, each with the instant at which that ends at
    /// the latest.
    pub warming: Vec<(Name, Instant)>,
    /// What it changed in pools and upstreams.
    pub changes: Changes,
}

/// Checks with equal keys are one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckKey {
    /// The upstream that is checked.
    pub upstream: Address,
    /// The address to dial.
    pub target: Address,
    /// The host name that resolved to the upstream's address.
    pub name: Option<Arc<str>>,
    /// What the probe does and expects.
    pub spec: Arc<ProbeSpec>,
    /// When it is due, and how long it may take.
    pub timing: Timing,
}

/// Without the spec, which may hold certificates: few checks of one address differ in nothing else.
impl Hash for CheckKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.upstream.hash(state);
        self.target.hash(state);
        self.timing.hash(state);
    }
}

impl CheckKey {
    fn same_definition(&self, other: &CheckKey) -> bool {
        self.upstream == other.upstream
            && self.target == other.target
            && self.name == other.name
            && self.spec == other.spec
    }
}

/// Identifies a check for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CheckId(u64);

impl CheckId {
    /// For tests.
    #[cfg(test)]
    pub(super) fn numbered(number: u64) -> CheckId {
        CheckId(number)
    }
}

/// One probe with its verdict and its readers.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) key: Arc<CheckKey>,
    pub(super) track: Track,
    /// Members of pools, each once.
    readers: SmallVec<[UpstreamId; 2]>,
    flight: Option<ProbeToken>,
    deadline: Option<Instant>,
    pub(super) last: Option<(Instant, Arc<ProbeReport>)>,
    /// The expiry of the last certificate seen, in seconds since 1970. Kept when later probes see none.
    pub(super) certificate_expiry: Option<Box<i64>>,
    pub(super) unknown_because: Option<Cause>,
    kept: Kept,
    /// Its last pass, if that says more about the upstream: that it is worse than others, or whether it wants requests.
    pub(super) said: Option<Arc<ProbeReport>>,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Check(CheckId),
    Pool(PoolId),
}

/// The whole state.
#[derive(Debug)]
pub struct State {
    generation: u64,
    current: Arc<Snapshot>,
    origin: Instant,
    rng: fastrand::Rng,
    hints: Hints,
    checks: IdMap<CheckId, Check>,
    by_key: HashMap<Arc<CheckKey>, CheckId>,
    flights: IdMap<ProbeToken, CheckId>,
    cancelled: Vec<ProbeToken>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Pools whose view must be computed again before the event ends.
    dirty: BTreeSet<usize>,
    pool_ids: HashMap<Name, PoolId>,
    pools: Vec<PoolState>,
    /// Each pool's index in `pools`.
    by_id: HashMap<PoolId, usize>,
    /// By pool: the pools that send their requests to it while they cannot serve.
    users: HashMap<PoolId, Vec<usize>>,
    places: IdMap<UpstreamId, (usize, usize)>,
    events: EventRing,
    /// Upstreams that may be ejected, and when they are looked at.
    suspects: Vec<UpstreamId>,
    next_judged: Instant,
    /// Of the upstreams that have had requests.
    traffic: HashMap<UpstreamId, Traffic>,
    next_look: Instant,
    next_id: u64,
    next_paced: Instant,
    tick_gap: Duration,
    /// How many probes the last tick started.
    last_started: usize,
    shortest_timeout: Duration,
    checker_restarts: u64,
    probe_panics: u64,
    lag: Lag,
}

impl State {
    /// Starts without pools. `seed` is for the jitter; `hints` is given to every upstream.
    pub fn new(now: Instant, seed: u64, hints: Hints) -> State {
        State {
            generation: 0,
            current: Arc::new(Snapshot::empty()),
            origin: now,
            rng: fastrand::Rng::with_seed(seed),
            hints,
            checks: IdMap::default(),
            by_key: HashMap::new(),
            flights: IdMap::default(),
            cancelled: Vec::new(),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            pool_ids: HashMap::new(),
            pools: Vec::new(),
            by_id: HashMap::new(),
            users: HashMap::new(),
            places: IdMap::default(),
            events: EventRing::default(),
            suspects: Vec::new(),
            next_judged: now,
            traffic: HashMap::new(),
            next_look: now,
            next_id: 0,
            next_paced: now,
            tick_gap: Duration::ZERO,
            last_started: 0,
            shortest_timeout: Duration::from_secs(3_600),
            checker_restarts: 0,
            probe_panics: 0,
            lag: Lag::default(),
        }
    }

    /// Starts the probes that are due and handles other timers. The only source of jobs.
    pub fn on_tick(&mut self, now: Instant) -> (Work, Effects) {
        let mut effects = Effects::default();
        // Usually as many as last time: a vector that grows is copied.
        let mut start = Vec::with_capacity(self.last_started);
        self.after_standstill(now);
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Check(id) => self.on_check_timer(id, now, &mut start, &mut effects),
                Timer::Pool(id) => {
                    let Some(index) = self.by_id.get(&id).copied() else { continue };
                    self.pools[index].timer = None;
                    self.dirty.insert(index);
                }
            }
        }
        self.last_started = start.len();
        self.judge_suspects(now, &mut effects);
        self.settle(now, &mut effects);
        self.look_at_traffic(now, &mut effects);
        (Work { start, cancel: std::mem::take(&mut self.cancelled) }, effects)
    }

    /// The shortest time from one [`State::on_tick`] to the next: probes due within it start together. Waking a thread,
    /// ours and the one that responds, costs as much as a probe.
    pub fn tick_gap(&self) -> Duration {
        self.tick_gap
    }

    /// The shortest timeout of all checks; an hour without checks.
    pub fn shortest_timeout(&self) -> Duration {
        self.shortest_timeout
    }

    /// When [`State::on_tick`] must be called next; `None`: not before another event.
    pub fn next_deadline(&self) -> Option<Instant> {
        let suspects = (!self.suspects.is_empty()).then_some(self.next_judged);
        self.timers.first().map(|(at, _)| *at).into_iter().chain(suspects).min()
    }

    /// Handles probes that ended, several at once so that many changes make one view. Drops reports that are no longer
    /// needed.
    pub fn on_probes(&mut self, ended: impl IntoIterator<Item = Ended>, now: Instant) -> Effects {
        let mut effects = Effects::default();
        for (token, report) in ended {
            self.on_probe(token, report, now, &mut effects);
        }
        self.settle(now, &mut effects);
        effects
    }

    fn on_probe(&mut self, token: ProbeToken, report: Arc<ProbeReport>, now: Instant, effects: &mut Effects) {
        let Some(id) = self.flights.remove(&token) else { return };
        // A report does not confirm a verdict that was out of date before; it begins a new one.
        self.forget_stale(id, now, effects);
        let chance = self.rng.f64() * 2.0 - 1.0;
        let check = self.checks.get_mut(&id).expect("a flight ends with its check");
        check.flight = None;
        let judgement = report.code.judgement();
        let change = check.track.on_end(judgement, now, chance);
        let (code, took) = (report.code, report.duration);
        if let Some(expires) = report.trace.tls.as_ref().and_then(|tls| tls.expires) {
            check.certificate_expiry = Some(Box::new(expires));
        }
        // What fails says no more than that.
        let said = match judgement {
            Judgement::Pass => report.says_more().then(|| report.clone()),
            Judgement::Fail | Judgement::NoVerdict | Judgement::Broken => check.said.clone(),
        };
        let speaks = said.is_some() || check.said.is_some();
        check.last = Some((now, report));
        if check.track.state() != HealthState::Unknown {
            check.unknown_because = None;
        }
        let readers = check.readers.clone();
        let before = if speaks { self.degraded(&readers) } else { SmallVec::new() };
        self.checks.get_mut(&id).expect("just used").said = said;
        for reader in &readers {
            let (pool, member) = self.places[reader];
            let pool = &mut self.pools[pool];
            pool.shared.stats.record_probe(code, took);
            if matches!(judgement, Judgement::Pass | Judgement::Fail) {
                pool.members[member].checks_total += 1;
            }
        }
        if judgement == Judgement::Broken {
            self.probe_panics += 1;
            self.checks.get_mut(&id).expect("just used").unknown_because = Some(Cause::ProbePanic);
            for reader in &readers {
                let (pool, upstream) = (self.pools[self.places[reader].0].policy.name.clone(), self.upstream(reader));
                self.log(EventKind::ProbePanic { pool, upstream }, now, effects);
            }
        }
        match change {
            Some(change) => self.on_change(id, change, now, effects),
            None => self.refresh(&readers, now),
        }
        if speaks {
            self.note_degraded(&readers, &before, now, effects);
            self.heed(id, &readers, now, effects);
        }
        match judgement {
            Judgement::Pass => self.probed_while_ejected(id, &readers, true, now, effects),
            Judgement::Fail => self.probed_while_ejected(id, &readers, false, now, effects),
            Judgement::NoVerdict | Judgement::Broken => {}
        }
        self.set_check_timer(id);
    }

    /// The scheduler died: its probes in flight are lost and due again.
    pub fn on_scheduler_restart(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.checker_restarts += 1;
        self.flights.clear();
        let ids: Vec<CheckId> = self.checks.keys().copied().collect();
        for id in ids {
            let check = self.checks.get_mut(&id).expect("just listed");
            check.flight = None;
            check.track.on_scheduler_restart(now);
            self.set_check_timer(id);
        }
        self.pace(now);
        self.log(EventKind::CheckerRestart, now, &mut effects);
        effects
    }

    /// Records a reload that `by` requested and that changed nothing or was refused.
    pub fn on_reload_without_effect(
        &mut self,
        result: &'static str,
        error: Option<String>,
        by: &str,
        now: Instant,
    ) -> Effects {
        let mut effects = Effects::default();
        let (generation, by, changes) = (self.generation, by.to_owned(), Changes::default());
        self.log(EventKind::Reload { result, generation, error, by, changes }, now, &mut effects);
        effects
    }

    /// The upstreams that have sent what the data path counts and rarely logs.
    pub fn counting(&self) -> Vec<Arc<Upstream>> {
        let all = self.pools.iter().flat_map(|pool| &pool.members).map(|member| &member.upstream);
        all.filter(|upstream| upstream.has_counted()).cloned().collect()
    }

    /// More is known about these events now: replaces them in the ring, and their reasons in the histories.
    pub fn amend(&mut self, events: Vec<Event>) {
        for event in events {
            if let EventKind::Transition(change) = &event.kind {
                let pool = self.pools.iter_mut().find(|pool| pool.policy.name == change.pool);
                let mut members = pool.into_iter().flat_map(|pool| &mut pool.members);
                if let Some(member) = members.find(|member| member.upstream.address == change.upstream) {
                    member.history.amend(event.at, change.to, &change.reason);
                }
            }
            self.events.replace(event);
        }
    }

    /// The events after number `seq`, oldest first.
    pub fn events_after(&self, seq: u64) -> Vec<Event> {
        self.events.after(seq).cloned().collect()
    }

    /// What `explain` needs about a pool and perhaps one of its upstreams. `stale` as in [`State::status`].
    pub fn explain(
        &self,
        pool: &str,
        upstream: Option<&Address>,
        stale: bool,
        now: Instant,
    ) -> Result<Explanation, ExplainError> {
        let found = self.pools.iter().find(|p| p.policy.name.as_str() == pool);
        let pool = found.ok_or_else(|| ExplainError::NoPool(pool.to_owned()))?;
        let upstream = match upstream {
            None => None,
            Some(address) => {
                let none = || ExplainError::NoUpstream(pool.policy.name.clone(), address.clone());
                let mut detail = pool.detail(address, &self.checks, now).ok_or_else(none)?;
                self.add_traffic(&mut detail.status);
                Some(detail)
            }
        };
        Ok(Explanation {
            checker: self.checker(stale, now),
            policy: pool.policy.clone(),
            pool: self.pool_status(pool, now),
            service: pool.service,
            needed: pool.needed(),
            upstream,
            hint: None,
        })
    }

    fn pool_status(&self, pool: &PoolState, now: Instant) -> PoolStatus {
        let mut status = pool.status(&self.checks, now);
        status.upstreams.iter_mut().for_each(|upstream| self.add_traffic(upstream));
        status
    }

    fn checker(&self, stale: bool, now: Instant) -> CheckerStatus {
        // A probe that is overdue now counts too: a stalled scheduler starts nothing that could be measured.
        let overdue = self.overdue(now);
        CheckerStatus {
            stale,
            restarts_total: self.checker_restarts,
            probe_panics_total: self.probe_panics,
            probes_in_flight: self.flights.len(),
            lag: self.lag.worst(now).max(overdue),
        }
    }

    /// How late the most overdue check is.
    fn overdue(&self, now: Instant) -> Duration {
        let waiting = self.timers.iter().find(|(_, timer)| matches!(timer, Timer::Check(_)));
        waiting.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }

    /// A probe began this long after it was due.
    pub fn on_late_start(&mut self, late: Duration, now: Instant) {
        self.lag.note(late, now);
    }

    /// One consistent picture. `stale`: the scheduler is not running.
    pub fn status(&self, stale: bool, now: Instant) -> Status {
        let checker = self.checker(stale, now);
        let pools = self.pools.iter().map(|pool| self.pool_status(pool, now)).collect();
        Status { generation: self.generation, pools, checker }
    }

    fn on_check_timer(&mut self, id: CheckId, now: Instant, start: &mut Vec<ProbeJob>, effects: &mut Effects) {
        let token = ProbeToken(self.take_id());
        let check = self.checks.get_mut(&id).expect("timers end with their check");
        check.deadline = None;
        self.forget_stale(id, now, effects);
        let check = self.checks.get_mut(&id).expect("timers end with their check");
        if !check.track.in_flight() && check.track.next_due() <= now {
            let due = check.track.next_due();
            self.lag.note(now - due, now);
            if check.track.due().is_paced() {
                self.next_paced = pace::next_after(now);
            }
            // Ticks are apart; the next interval begins where this one ended, so that none is stretched by it.
            check.track.on_start(now - (now - due).min(self.tick_gap));
            check.flight = Some(token);
            self.flights.insert(token, id);
            start.push(ProbeJob { token, check: check.key.clone(), due, kept: check.kept.clone() });
        }
        self.set_check_timer(id);
    }

    /// A check changed its state: every reader follows.
    fn on_change(&mut self, id: CheckId, change: Change, now: Instant, effects: &mut Effects) {
        let readers = self.checks[&id].readers.clone();
        for reader in readers {
            let (pool_index, member_index) = self.places[&reader];
            self.settle_member(pool_index, member_index, Some((id, change.cause)), now, effects);
            self.dirty.insert(pool_index);
        }
    }

    /// Runs at the end of every event: pools that changed get a new view. Every member has its state by now, so it is
    /// known whether removed members are still needed.
    fn settle(&mut self, now: Instant, effects: &mut Effects) {
        let mut changed = std::mem::take(&mut self.dirty);
        let mut gone = vec![];
        for pool_index in &changed {
            self.end_carried(*pool_index, now, effects);
            self.end_orders(*pool_index, now, effects);
            self.end_ejections(*pool_index, now, effects);
            let pool = &mut self.pools[*pool_index];
            if pool.warming.is_some_and(|warming| now >= warming.until || pool.is_warm()) {
                gone.extend(pool.end_warming());
            }
        }
        if !gone.is_empty() {
            effects.let_go(&gone, now);
            self.rebuild_readers(now, effects);
        }
        changed.append(&mut self.dirty);
        // Members that left may have been all that could serve beside those that are ejected.
        for pool_index in changed.iter().filter(|_| !gone.is_empty()) {
            self.end_ejections(*pool_index, now, effects);
        }
        changed.append(&mut self.dirty);
        effects.begin_epochs();
        for pool_index in &changed {
            self.evaluate(*pool_index, now, effects);
        }
        effects.begin_epochs();
        self.report(changed, now, effects);
    }

    /// Ends carried verdicts whose time is up.
    fn end_carried(&mut self, pool_index: usize, now: Instant, effects: &mut Effects) {
        for member_index in 0..self.pools[pool_index].members.len() {
            let member = &mut self.pools[pool_index].members[member_index];
            if member.carried_until(&self.checks).is_some_and(|until| until <= now) {
                member.carried = None;
                self.settle_member(pool_index, member_index, None, now, effects);
            }
        }
    }

    /// Sets a member's state to what its checks say now; a difference is a transition. `cause` is the check that
    /// changed and why; without it, the configuration changed.
    fn settle_member(
        &mut self,
        pool_index: usize,
        member_index: usize,
        cause: Option<(CheckId, Cause)>,
        now: Instant,
        effects: &mut Effects,
    ) {
        let pool = &mut self.pools[pool_index];
        let member = &mut pool.members[member_index];
        let verdict = member.verdict(&self.checks);
        // A broken check also ends what is known under an earlier definition.
        let broke = matches!(cause, Some((_, Cause::Stale | Cause::ProbePanic)));
        if verdict != HealthState::Unknown || broke {
            member.carried = None;
        }
        let to = member.carried.as_ref().map_or(verdict, |carried| carried.state);
        let from = std::mem::replace(&mut member.state, to);
        if from == to {
            return;
        }
        let recovered = from == HealthState::Unhealthy && to == HealthState::Healthy;
        match to {
            HealthState::Healthy if std::mem::take(&mut member.ramps_when_healthy) => member.begin_ramp(now),
            HealthState::Unhealthy => {
                member.ramps_when_healthy = true;
                member.cut_unhealthy(now);
            }
            HealthState::Healthy | HealthState::Unknown => {}
        }
        if let (HealthState::Unknown, Some((_, Cause::Stale))) = (to, cause) {
            // Readers may have noticed it earlier, and waited since then.
            let since = pool.cell.view.load().missed_at().unwrap_or(now);
            for id in &member.checks {
                self.checks.get_mut(id).expect("members have checks").track.await_again(since);
            }
        }
        self.dirty.insert(pool_index);
        member.since = now;
        member.transitions_total += 1;
        if !member.retiring {
            pool.healthy += usize::from(to == HealthState::Healthy);
            pool.healthy -= usize::from(from == HealthState::Healthy);
        }
        let changed = cause.and_then(|(id, _)| member.checks.iter().position(|check| *check == id));
        let changed = changed.unwrap_or_else(|| member.decides(&self.checks));
        let report = self.checks[&member.checks[changed]].last.as_ref().map(|(_, report)| report);
        let guess = report.and_then(|report| report.hint);
        let (code, reason, duration) = match (cause, report) {
            (Some((_, Cause::Stale)), _) => {
                (None, "no probe has passed or failed for too long (stale)".to_owned(), None)
            }
            (None, _) if to == HealthState::Unknown => {
                (None, "no verdict yet under the new configuration".to_owned(), None)
            }
            (_, None) => (None, "the new configuration requires other checks to pass".to_owned(), None),
            (_, Some(report)) => (Some(report.code), report.sentence(), Some(report.duration)),
        };
        let reason = format!("{}{reason}", member.prefix(&member.rules.checks[changed].name));
        if to != HealthState::Healthy {
            effects.lose(&member.upstream);
        }
        let (name, upstream) = (pool.policy.name.clone(), member.upstream.address.clone());
        let healthy_left = pool.healthy;
        let transition = Transition { pool: name, upstream, from, to, code, reason, duration, healthy_left };
        member.history.push(now, &transition);
        let files = match (to, code) {
            (HealthState::Unhealthy, Some(code)) => member.rules.checks[changed].suspect_files(code),
            (HealthState::Unhealthy | HealthState::Healthy | HealthState::Unknown, _) => Vec::new(),
        };
        self.log(EventKind::Transition(transition), now, effects);
        if let (false, Some(event)) = (files.is_empty(), effects.events.last()) {
            effects.files.insert(event.seq, Suspects { files, guess });
        }
        if recovered {
            self.end_ejection(pool_index, member_index, EjectionEnd::Recovered, now, effects);
        }
    }

    /// Computes a pool's view again and sets its timer.
    fn evaluate(&mut self, pool_index: usize, now: Instant, effects: &mut Effects) {
        let pool = &mut self.pools[pool_index];
        if let Some(at) = pool.timer.take() {
            self.timers.remove(&(at, Timer::Pool(pool.id)));
        }
        pool.members.iter().for_each(|member| member.publish_fresh_until(&self.checks));
        let (view, used, deadline) = pool.view(&self.checks, now);
        if pool.used.all && !used.all {
            // `fail_open` has ended: members that are not healthy are out again.
            let out = pool.members.iter().filter(|member| member.state != HealthState::Healthy);
            out.for_each(|member| effects.lose(&member.upstream));
        }
        let fail_open = view.service == super::view::Service::FailOpen;
        pool.set_usable_at(&self.checks, now);
        pool.service = view.service;
        pool.used = used;
        effects.views.push((pool.cell.clone(), Arc::new(view)));
        pool.strength = pool.count_strength(&self.checks, now);
        if let Some(at) = [deadline, pool.strength.again].into_iter().flatten().min() {
            pool.timer = Some(at);
            self.timers.insert((at, Timer::Pool(pool.id)));
        }
        pool.fail_open = fail_open;
    }

    /// How far each of these is worse than others.
    fn degraded(&self, readers: &[UpstreamId]) -> SmallVec<[Option<Ratio>; 4]> {
        let of = |reader: &UpstreamId| {
            let (pool, member) = self.places[reader];
            self.pools[pool].members[member].degraded(&self.checks)
        };
        readers.iter().map(of).collect()
    }

    /// Those of them that have become worse, or are as good as others again, weigh less or more from now on.
    fn note_degraded(&mut self, readers: &[UpstreamId], before: &[Option<Ratio>], now: Instant, effects: &mut Effects) {
        let after = self.degraded(readers);
        for (reader, (was, weight)) in readers.iter().zip(before.iter().zip(after)) {
            let (pool_index, member_index) = self.places[reader];
            let pool = &self.pools[pool_index];
            let member = &pool.members[member_index];
            // One that has become unhealthy has its own event.
            if *was == weight || member.state != HealthState::Healthy {
                continue;
            }
            let (pool, upstream) = (pool.policy.name.clone(), member.upstream.address.clone());
            self.dirty.insert(pool_index);
            self.log(EventKind::Degraded { pool, upstream, weight }, now, effects);
        }
    }

    /// A probe ended without a change of state: updates what readers see.
    fn refresh(&mut self, readers: &[UpstreamId], now: Instant) {
        for reader in readers {
            let (pool_index, member_index) = self.places[reader];
            self.pools[pool_index].members[member_index].publish_fresh_until(&self.checks);
            self.pools[pool_index].refresh_usable_at(&self.checks, now);
        }
    }

    /// Forgets what is out of date. Called before every look, because a stalled checker does not do it.
    pub fn expire(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        let stale = self.checks.iter().filter(|(_, check)| check.track.is_stale(now));
        let mut stale: Vec<CheckId> = stale.map(|(id, _)| *id).collect();
        stale.sort_unstable();
        for id in stale {
            self.forget_stale(id, now, &mut effects);
            self.set_check_timer(id);
        }
        let over = |pool: &PoolState| pool.timer.is_some_and(|at| at <= now);
        self.dirty.extend((0..self.pools.len()).filter(|p| over(&self.pools[*p])));
        self.settle(now, &mut effects);
        effects
    }

    fn forget_stale(&mut self, id: CheckId, now: Instant, effects: &mut Effects) {
        let check = self.checks.get_mut(&id).expect("called with a living check");
        if let Some(change) = check.track.on_tick(now) {
            // Nothing goes stale if no probe has ever passed or failed, as of a host name without an address.
            let judges = |report: &ProbeReport| matches!(report.code.judgement(), Judgement::Pass | Judgement::Fail);
            let judged = check.last.as_ref().is_some_and(|(_, report)| judges(report));
            if change.from != HealthState::Unknown || judged {
                check.unknown_because = Some(change.cause);
            }
            self.on_change(id, change, now, effects);
        }
    }

    fn set_check_timer(&mut self, id: CheckId) {
        let check = self.checks.get_mut(&id).expect("called with a living check");
        let deadline = check.track.deadline();
        if check.deadline == deadline {
            return;
        }
        if let Some(at) = check.deadline.take() {
            self.timers.remove(&(at, Timer::Check(id)));
        }
        if let Some(at) = deadline {
            check.deadline = Some(at);
            self.timers.insert((at, Timer::Check(id)));
        }
    }

    fn log(&mut self, kind: EventKind, now: Instant, effects: &mut Effects) {
        effects.events.push(self.events.push(now, kind).clone());
    }

    fn upstream(&self, id: &UpstreamId) -> Address {
        let (pool_index, member_index) = self.places[id];
        self.pools[pool_index].members[member_index].upstream.address.clone()
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests;
