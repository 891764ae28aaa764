//! A fake host, and pools in every state, for the tests of `admin`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::host::*;
use super::json::{Diagnostic, ProcessState, ReloadResult};
use super::readiness::Readiness;
use crate::model::policy::*;
use crate::model::{Address, AdminState, Code, HealthState, Name, ProbeReport, Secret, Weight};
use crate::pool::*;

/// A valid name.
pub fn name(text: &str) -> Name {
    Name::try_new(text).expect("a good name")
}

/// A running process without conditions.
pub fn process() -> ProcessInfo {
    let now = Instant::now();
    ProcessInfo {
        pid: 4_242,
        state: ProcessState::Running,
        listeners: vec![(name("web"), "10.0.0.9:8080".parse().expect("a good address"))],
        started: now,
        by_lane: vec![(RequestLane::Express, 5), (RequestLane::Tunnel, 2)],
        config: ConfigFile { file: Some("roundsman.toml".into()), loaded_at: now, hash: "".into(), last_reload: None },
        conditions: Vec::new(),
    }
}

/// A configuration with these pools.
pub fn status(pools: Vec<PoolStatus>) -> Status {
    Status { generation: 3, pools, checker: testing::checker() }
}

/// A pool of enabled upstreams in these states, at 10.0.0.1:80, 10.0.0.2:80 and so on.
pub fn pool(pool_name: &str, states: &[HealthState]) -> PoolStatus {
    let upstreams = states.iter().enumerate().map(|(i, state)| upstream(pool_name, i + 1, *state)).collect();
    finish(pool_name, upstreams)
}

/// A pool with its totals computed from these upstreams.
pub fn finish(pool_name: &str, upstreams: Vec<UpstreamStatus>) -> PoolStatus {
    let enabled = || upstreams.iter().filter(|u| u.admin == AdminState::Enabled);
    let healthy = upstreams.iter().filter(|u| u.state == HealthState::Healthy).count();
    let eligible = upstreams.iter().filter(|u| u.eligibility.is_eligible()).count();
    let summary = match eligible {
        0 if enabled().all(|u| u.state == HealthState::Unknown) => PoolSummary::Unknown,
        0 => PoolSummary::Unhealthy,
        _ if enabled().all(|u| u.state == HealthState::Healthy) => PoolSummary::Healthy,
        _ => PoolSummary::Degraded,
    };
    let judged = healthy > 0 || enabled().all(|u| u.state != HealthState::Unknown);
    let service = match summary {
        PoolSummary::Healthy | PoolSummary::Degraded => ServiceState::Normal,
        PoolSummary::Unhealthy => ServiceState::Refusing,
        PoolSummary::Unknown => ServiceState::Waiting,
    };
    PoolStatus { judged, service, ..testing::pool(pool_name, summary, upstreams, Instant::now()) }
}

/// One enabled upstream.
pub fn upstream(pool_name: &str, number: usize, state: HealthState) -> UpstreamStatus {
    let now = Instant::now();
    let address: Address = format!("10.0.0.{number}:80").parse().expect("a good address");
    let (pass, code, http, reason) = match state {
        HealthState::Unhealthy => (false, Code::L7Sts, 503, "status 503, expected 200-299; body: \"<b>\\u{1b}[31m\""),
        HealthState::Healthy | HealthState::Unknown => (true, Code::L7Ok, 200, "200 in 1.9 ms"),
    };
    let report = ProbeReport { status: Some(http), ..ProbeReport::new(code, Duration::from_micros(1_900), reason) };
    let mut found = UpstreamStatus {
        why: (state != HealthState::Healthy).then(|| reason.to_string()),
        streak: (state != HealthState::Unknown).then_some(Streak { pass, count: 3, needed: 2 }),
        checks_total: 9,
        last_check: (state != HealthState::Unknown).then(|| LastCheck { at: now, report: Arc::new(report) }),
        ..testing::upstream(number as u64, pool_name, address.clone(), state, now)
    };
    found.checks.push(CheckStatus {
        streak: found.streak,
        last_check: found.last_check.clone(),
        next_due: now + Duration::from_millis(800),
        ..testing::check("tcp", address, state, now)
    });
    found
}

/// The explanation of a pool that rejects requests while too few upstreams are healthy.
pub fn explanation(pool: &PoolStatus) -> Explanation {
    let policy = |u: &UpstreamStatus| UpstreamPolicy {
        address: u.upstream.address.clone(),
        name: u.name.clone(),
        weight: u.weight,
        backup: u.backup,
        health_address: None,
        admin: AdminState::Enabled,
    };
    let check = CheckPolicy {
        name: "http".into(),
        spec: Arc::new(ProbeSpec::connect()),
        timing: Timing::defaults(),
        preset: None,
        tls_files: Arc::default(),
    };
    let policy = PoolPolicy {
        name: pool.name.clone(),
        upstreams: pool.upstreams.iter().map(policy).collect(),
        balance: Balance::RoundRobin,
        when_no_healthy: WhenNoHealthy::Reject,
        min_healthy: MinHealthy::Count(1),
        checks: vec![check],
        require: Require::All,
        resolve: std::time::Duration::from_secs(30),
        traffic: Arc::default(),
    };
    let service = if pool.eligible > 0 { Service::Open } else { Service::NoneEligible(Otherwise::Reject) };
    let checker = status(vec![]).checker;
    Explanation {
        checker,
        policy: Arc::new(policy),
        pool: pool.clone(),
        service,
        needed: 1,
        upstream: None,
        hint: None,
    }
}

/// A check with the state of `upstream`.
pub fn check(name: &str, upstream: &UpstreamStatus) -> CheckStatus {
    let (address, due) = (upstream.upstream.address.clone(), upstream.next_due);
    CheckStatus {
        streak: upstream.streak,
        last_check: upstream.last_check.clone(),
        ..testing::check(name, address, upstream.state, due)
    }
}

/// A host that returns what the test put into it.
pub struct FakeHost {
    /// What it returns.
    pub replies: Mutex<Replies>,
    /// Its revision; `None`: a new one for every request, so that tests may change what it returns.
    pub revision: Mutex<Option<u64>>,
    readiness: Readiness,
    asked: AtomicU64,
    /// How often its status was read.
    pub pictures: AtomicU64,
}

/// An order that a fake host has carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    pub pool: String,
    pub upstream: String,
    pub to: Setting,
    pub reason: String,
    pub by: String,
    pub lasts: Option<Duration>,
}

/// What a fake host returns.
pub struct Replies {
    /// Its pools.
    pub status: Status,
    /// Its process.
    pub process: ProcessInfo,
    /// Its token.
    pub token: Option<Secret>,
    /// Its events.
    pub events: EventRing,
    /// The mistakes in its file.
    pub diagnostics: Vec<Diagnostic>,
    /// The orders that it was given.
    pub orders: Vec<Ordered>,
    /// The admin state in the file.
    pub in_file: AdminState,
    /// It refuses to drain or disable without force.
    pub needs_force: bool,
    /// It panics when its status is read.
    pub broken: bool,
    /// The origins of the reloads ordered.
    pub reloads: Vec<String>,
    /// How long a reload takes.
    pub reload_takes: Duration,
}

impl FakeHost {
    /// A host with these pools.
    pub fn with(pools: Vec<PoolStatus>) -> Arc<FakeHost> {
        let replies = Replies {
            status: status(pools),
            process: process(),
            token: None,
            events: EventRing::default(),
            diagnostics: Vec::new(),
            orders: Vec::new(),
            in_file: AdminState::Enabled,
            needs_force: false,
            broken: false,
            reloads: Vec::new(),
            reload_takes: Duration::ZERO,
        };
        Arc::new(FakeHost {
            replies: Mutex::new(replies),
            revision: Mutex::new(None),
            readiness: Readiness::default(),
            asked: AtomicU64::new(0),
            pictures: AtomicU64::new(0),
        })
    }
}

/// A mistake in a file.
pub fn mistake() -> Diagnostic {
    Diagnostic {
        file: Some("roundsman.toml".into()),
        line: Some(31),
        column: Some(1),
        key: Some("pools.api.health.intervall".into()),
        message: "unknown key".into(),
        expected: None,
        suggestion: Some("interval".into()),
        severity: "error".into(),
    }
}

#[async_trait]
impl Host for FakeHost {
    fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn status(&self, _now: Instant) -> Status {
        self.pictures.fetch_add(1, Ordering::Relaxed);
        let replies = self.replies.lock();
        let (broken, status) = (replies.broken, replies.status.clone());
        drop(replies);
        assert!(!broken, "a fault the test put in");
        status
    }

    fn events_after(&self, seq: u64) -> Vec<Event> {
        self.replies.lock().events.after(seq).cloned().collect()
    }

    fn explain(&self, pool: &str, upstream: Option<&Address>) -> Result<Explanation, ExplainError> {
        let replies = self.replies.lock();
        let found = replies.status.pools.iter().find(|p| p.name.as_str() == pool);
        let mut explanation = explanation(found.ok_or_else(|| ExplainError::NoPool(pool.to_owned()))?);
        if let Some(address) = upstream {
            let found = explanation.pool.upstreams.iter().find(|u| u.upstream.address == *address).cloned();
            let status = found.ok_or_else(|| ExplainError::NoUpstream(name(pool), address.clone()))?;
            let policy = explanation.policy.clone();
            explanation.upstream = Some(UpstreamDetail { status, policy, history: Vec::new() });
        }
        Ok(explanation)
    }

    fn process(&self) -> ProcessInfo {
        self.replies.lock().process.clone()
    }

    fn state(&self) -> ProcessState {
        self.replies.lock().process.state
    }

    fn revision(&self) -> u64 {
        self.revision.lock().unwrap_or_else(|| self.asked.fetch_add(1, Ordering::Relaxed))
    }

    fn access(&self) -> Access {
        Access { token: self.replies.lock().token.clone(), address: "127.0.0.1:9900".parse().expect("good") }
    }

    fn metrics(&self, format: MetricsFormat) -> String {
        format!("# metrics open={} upstreams={}\n", format.open_metrics, format.upstreams)
    }

    fn order(&self, pool: Option<&str>, upstream: &Address, order: &Order<'_>) -> Result<Vec<Done>, OrderError> {
        let Order { command, reason, by, force, lasts } = *order;
        let mut replies = self.replies.lock();
        let takes_out = matches!(command, Command::Drain { .. } | Command::Disable);
        if replies.needs_force && !force && takes_out {
            let (pool, upstream) = (name(pool.unwrap_or("api")), upstream.clone());
            let otherwise = WhenNoHealthy::Reject;
            return Err(OrderError::NeedsForce(Box::new(NeedsForce { pool, upstream, left: 0, needed: 1, otherwise })));
        }
        let in_file = match command.setting() {
            Setting::Admin(_) => Setting::Admin(replies.in_file),
            Setting::Weight(_) => Setting::Weight(Weight::ONE),
        };
        let mut done = vec![];
        let Replies { status, orders, .. } = &mut *replies;
        for known in status.pools.iter_mut().filter(|known| pool.is_none_or(|pool| known.name.as_str() == pool)) {
            let Some(u) = known.upstreams.iter_mut().find(|u| u.upstream.address == *upstream) else { continue };
            let was = match command.setting() {
                Setting::Admin(to) => Setting::Admin(std::mem::replace(&mut u.admin, to)),
                Setting::Weight(to) => Setting::Weight(std::mem::replace(&mut u.weight, to)),
            };
            if command == Command::Undrain && was == Setting::Admin(AdminState::Disabled) {
                u.admin = AdminState::Disabled;
                return Err(OrderError::Conflict("the upstream is disabled, not draining; enable it"));
            }
            orders.push(Ordered {
                pool: known.name.to_string(),
                upstream: upstream.to_string(),
                to: command.setting(),
                reason: reason.into(),
                by: by.into(),
                lasts,
            });
            done.push(Done { pool: known.name.clone(), was, in_file });
        }
        Ok(done)
    }

    async fn reload(&self, by: String) -> ReloadAnswer {
        let takes = self.replies.lock().reload_takes;
        tokio::time::sleep(takes).await;
        let check = self.check().await;
        let last = LastReload { result: check.result, at: Instant::now(), error: check.error };
        let mut replies = self.replies.lock();
        replies.reloads.push(by);
        replies.process.config.last_reload = Some(last.clone());
        let warming = vec![(name("api"), Instant::now() + Duration::from_secs(30))];
        ReloadAnswer { last, generation: 4, warming, changes: check.changes, diagnostics: check.diagnostics }
    }

    async fn check(&self) -> CheckAnswer {
        let diagnostics = self.replies.lock().diagnostics.clone();
        let error = diagnostics.first().map(|d| d.message.clone());
        let result = if error.is_some() { ReloadResult::Refused } else { ReloadResult::Applied };
        let changed = Listed { count: usize::from(error.is_none()), names: vec!["api".into()] };
        let changes = Changes { pools_changed: changed, ..Changes::default() };
        CheckAnswer { result, error, changes, diagnostics }
    }
}
