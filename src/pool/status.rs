//! What the controller tells about itself: one consistent picture of every pool, made on request for the admin API,
//! metrics and command line. Instants are turned into dates by whoever prints them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::events::Transition;
use super::outage::Way;
use super::snapshot::PoolShared;
use super::upstream::Upstream;
use super::view::Service;
use crate::health::Due;
use crate::model::policy::{FileSecret, PoolPolicy, ProbeSpec, Timing};
use crate::model::{Address, AdminState, Eligibility, HealthState, Name, ProbeReport, Weight};

/// Every pool of the running configuration.
#[derive(Debug, Clone)]
pub struct Status {
    /// The configuration's number.
    pub generation: u64,
    /// The pools, in file order.
    pub pools: Vec<PoolStatus>,
    /// How the checker itself is.
    pub checker: CheckerStatus,
}

/// How the checker itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckerStatus {
    /// It is not running now (it is being restarted, or its thread stands still): verdicts stand until they are out of date.
    pub stale: bool,
    /// How often it had to be restarted.
    pub restarts_total: u64,
    /// How many probes panicked.
    pub probe_panics_total: u64,
    /// Probes in flight.
    pub probes_in_flight: usize,
    /// The latest start of a probe after it was due, over the last minute; one that is overdue now counts too.
    pub lag: Duration,
}

/// One word for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolSummary {
    /// Every enabled upstream is healthy.
    Healthy,
    /// It serves, but an enabled upstream is not healthy, or it serves in a way the user wrote down for bad days.
    Degraded,
    /// It has nothing eligible.
    Unhealthy,
    /// It has nothing eligible yet, and no enabled upstream has been judged unhealthy.
    Unknown,
}

impl PoolSummary {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            PoolSummary::Healthy => "healthy",
            PoolSummary::Degraded => "degraded",
            PoolSummary::Unhealthy => "unhealthy",
            PoolSummary::Unknown => "unknown",
        }
    }
}

/// One pool.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// Its name.
    pub name: Name,
    /// One word for it.
    pub summary: PoolSummary,
    /// Upstreams that are healthy, retiring ones not counted.
    pub healthy: usize,
    /// Upstreams of the configuration.
    pub total: usize,
    /// Upstreams that may be picked now.
    pub eligible: usize,
    /// It uses upstreams that are not healthy, as `when_no_healthy = "fail_open"` says.
    pub fail_open: bool,
    /// Removed upstreams still serve until a new one is healthy.
    pub warming: bool,
    /// When they cease to serve at the latest; `None` where none does.
    pub warming_until: Option<Instant>,
    /// Why it does not serve in order; `None` while it does.
    pub out_of_order: Option<OutOfOrder>,
    /// Every enabled upstream has been judged, or one is healthy: the pool's part of readiness.
    pub judged: bool,
    /// When its first probe began.
    pub first_probe: Option<Instant>,
    /// Its counters.
    pub shared: Arc<PoolShared>,
    /// Its upstreams, in file order, retiring ones last.
    pub upstreams: Vec<UpstreamStatus>,
}

/// A pool that does not serve with its own healthy upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfOrder {
    /// What its requests get; `None` while they wait for a first verdict.
    pub way: Option<Way>,
    /// Since when it does not serve; `None` while requests wait for a first verdict.
    pub since: Option<Instant>,
    /// Why, in one sentence.
    pub reason: String,
    /// What would change it, in one sentence.
    pub remedy: String,
}

/// One upstream of a pool.
#[derive(Debug, Clone)]
pub struct UpstreamStatus {
    /// Its address, load and counters.
    pub upstream: Arc<Upstream>,
    /// The host name that its address was resolved from.
    pub name: Option<Arc<str>>,
    /// What its checks say.
    pub state: HealthState,
    /// Whether it may be picked.
    pub eligibility: Eligibility,
    /// Why it is not healthy, or not eligible; `None` when all is well.
    pub why: Option<String>,
    /// Since when it is in this state.
    pub since: Instant,
    /// Its weight.
    pub weight: Weight,
    /// Whether it is a backup.
    pub backup: bool,
    /// What the operator says.
    pub admin: AdminState,
    /// Whether live traffic ejected it.
    pub ejected: bool,
    /// Whether its state was reached under an earlier check definition.
    pub carried: bool,
    /// Whether it left the configuration and serves until a new one is healthy.
    pub retiring: bool,
    /// Whether one of its checks does not verify the certificate, as the file says.
    pub unverified: bool,
    /// The run of equal results that is going on, of the check that decides.
    pub streak: Option<Streak>,
    /// Probes that ended with a verdict.
    pub checks_total: u64,
    /// Changes of state.
    pub transitions_total: u64,
    /// The last probe that ended, of the check that decides.
    pub last_check: Option<LastCheck>,
    /// When the next probe of the check that decides is due.
    pub next_due: Instant,
    /// Which of `checks` decides.
    pub decides: usize,
    /// Its checks, in file order; at least one.
    pub checks: Vec<CheckStatus>,
}

/// One check of an upstream.
#[derive(Debug, Clone)]
pub struct CheckStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The preset that it was made of.
    pub preset: Option<&'static str>,
    /// What a probe does and expects.
    pub spec: Arc<ProbeSpec>,
    /// When probes run and how many make a verdict.
    pub timing: Timing,
    /// The address a probe dials.
    pub target: Address,
    /// Its own verdict.
    pub state: HealthState,
    /// The run of equal results that is going on.
    pub streak: Option<Streak>,
    /// The last probe that ended.
    pub last_check: Option<LastCheck>,
    /// When the certificate that a probe saw last ends, in seconds since 1970.
    pub certificate_expiry: Option<i64>,
    /// When the next probe is due; while one is in flight, when that one was.
    pub next_due: Instant,
    /// Whether a probe is in flight.
    pub in_flight: bool,
    /// Why the next probe is due when it is.
    pub due: Due,
}

/// A run of equal results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    /// Whether it is of passes.
    pub pass: bool,
    /// How many; goes on after the threshold.
    pub count: u32,
    /// The threshold.
    pub needed: u32,
}

/// The last probe that ended.
#[derive(Debug, Clone)]
pub struct LastCheck {
    /// When it ended.
    pub at: Instant,
    /// What it found.
    pub report: Arc<ProbeReport>,
}

/// What `explain` needs of one pool, and perhaps of one upstream of it.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The configuration's number.
    pub generation: u64,
    /// How the checker itself is.
    pub checker: CheckerStatus,
    /// What the file says of the pool.
    pub policy: Arc<PoolPolicy>,
    /// The pool, with every upstream.
    pub pool: PoolStatus,
    /// What requests to the pool get now.
    pub service: Service,
    /// How many must be healthy for the pool to serve in order: `min_healthy`, counted.
    pub needed: usize,
    /// The upstream asked about.
    pub upstream: Option<UpstreamDetail>,
    /// A sentence about the secrets of failing checks that have changed on disk; the state does not know, `app` fills it in.
    pub hint: Option<String>,
}

impl Explanation {
    /// The secrets read from files of the checks that fail: of the upstream asked about, else of any.
    pub fn failing_secrets(&self) -> Vec<FileSecret> {
        let asked = self.upstream.as_ref().map(|detail| std::slice::from_ref(&detail.status));
        let upstreams = asked.unwrap_or(&self.pool.upstreams);
        let mut seen: Vec<&Arc<ProbeSpec>> = vec![];
        for check in upstreams.iter().flat_map(|upstream| &upstream.checks) {
            let fails = check.streak.is_some_and(|streak| !streak.pass);
            // All upstreams of a pool share the specs of its checks.
            if fails && !seen.iter().any(|spec| Arc::ptr_eq(spec, &check.spec)) {
                seen.push(&check.spec);
            }
        }
        seen.iter().flat_map(|spec| spec.file_secrets()).collect()
    }
}

/// What `explain` needs of one upstream beyond its status.
#[derive(Debug, Clone)]
pub struct UpstreamDetail {
    /// Its status.
    pub status: UpstreamStatus,
    /// What the file says, or said when it left, of its pool: `checks` and `require` are those in force.
    pub policy: Arc<PoolPolicy>,
    /// Its last changes of state, at most ten, oldest first.
    pub history: Vec<(Instant, Transition)>,
}

/// Nothing of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No pool of that name.
    #[error("no such pool: {0}")]
    NoPool(String),
    /// The pool has no such upstream.
    #[error("pool {0} has no upstream {1}")]
    NoUpstream(Name, Address),
}
