//! The controller's status: one consistent picture of every pool, made on request for the admin API, metrics and
//! command line. Instants become dates where they are printed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::events::Transition;
use super::orders::Overrides;
use super::outage::{Progress, Serving, Way};
use super::passive::Ejected;
use super::snapshot::PoolShared;
use super::upstream::Upstream;
use super::view::Service;
use crate::health::Due;
use crate::model::policy::{CheckFile, PoolPolicy, ProbeSpec, Timing};
use crate::model::{Address, AdminState, Eligibility, HealthState, Name, ProbeReport, Ratio, Weight};

/// Every pool of the running configuration.
#[derive(Debug, Clone)]
pub struct Status {
    /// The configuration's number.
    pub generation: u64,
    /// The pools, in file order.
    pub pools: Vec<PoolStatus>,
    /// The state of the checker itself.
    pub checker: CheckerStatus,
}

/// The state of the checker itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckerStatus {
    /// The checker is not running (it is being restarted, or its thread is stalled): verdicts hold until they are out
    /// of date.
    pub stale: bool,
    /// How often it had to be restarted.
    pub restarts_total: u64,
    /// How many probes panicked.
    pub probe_panics_total: u64,
    /// Probes in flight.
    pub probes_in_flight: usize,
    /// The longest delay of a probe's start over the last minute, including a probe that is overdue now.
    pub lag: Duration,
}

/// The state of a pool in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PoolSummary {
    /// Every enabled upstream is healthy.
    Healthy,
    /// It serves, but an enabled upstream is not healthy, or it serves in the way that is configured for bad days.
    Degraded,
    /// No upstream is eligible.
    Unhealthy,
    /// No upstream is eligible yet, and no enabled upstream has been found unhealthy.
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

/// What the requests of a pool get now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// Its own upstreams, enough of which are healthy.
    Normal,
    /// A wait for the first verdict of an upstream.
    Waiting,
    /// 503 at once.
    Refusing,
    /// Every upstream that is not disabled or draining, healthy or not.
    FailOpen,
    /// Another pool, as configured by `when_no_healthy`.
    OtherPool,
}

impl ServiceState {
    /// Every one.
    pub const ALL: [ServiceState; 5] = [
        ServiceState::Normal,
        ServiceState::Waiting,
        ServiceState::Refusing,
        ServiceState::FailOpen,
        ServiceState::OtherPool,
    ];

    /// The word used in metrics; for an outage, its kind of event.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceState::Normal => "normal",
            ServiceState::Waiting => "waiting",
            ServiceState::Refusing => "refusing",
            ServiceState::FailOpen => "fail_open",
            ServiceState::OtherPool => "other_pool",
        }
    }
}

impl From<&Serving> for ServiceState {
    fn from(serving: &Serving) -> ServiceState {
        match serving {
            Serving::InOrder => ServiceState::Normal,
            Serving::Awaited => ServiceState::Waiting,
            Serving::Out(Way::Refuse) => ServiceState::Refusing,
            Serving::Out(Way::FailOpen) => ServiceState::FailOpen,
            Serving::Out(Way::OtherPool(_)) => ServiceState::OtherPool,
        }
    }
}

/// One pool.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// Its name.
    pub name: Name,
    /// Its state in one word.
    pub summary: PoolSummary,
    /// Upstreams that are healthy, retiring ones not counted.
    pub healthy: usize,
    /// Upstreams of the configuration.
    pub total: usize,
    /// Upstreams that may be picked now.
    pub eligible: usize,
    /// What its requests get now.
    pub service: ServiceState,
    /// It uses upstreams that are not healthy, as configured by `when_no_healthy = "fail_open"`.
    pub fail_open: bool,
    /// Removed upstreams serve until a new one is healthy.
    pub warming: bool,
    /// When they stop serving at the latest; `None` if none serves.
    pub warming_until: Option<Instant>,
    /// How many configured upstreams can serve meanwhile; `None` if no removed one serves.
    pub progress: Option<Progress>,
    /// Why it does not serve normally; `None` while it does.
    pub out_of_order: Option<OutOfOrder>,
    /// Every enabled upstream has a verdict, or one is healthy: the pool's part of readiness.
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
    /// Since when it does not serve normally, in whichever way; `None` while requests wait for a first verdict.
    pub since: Option<Instant>,
    /// Since when its requests get what `way` says.
    pub way_since: Option<Instant>,
    /// Why, in one sentence.
    pub reason: String,
    /// What ends this, in one sentence.
    pub remedy: String,
}

/// One upstream of a pool.
#[derive(Debug, Clone)]
pub struct UpstreamStatus {
    /// Its address, load and counters.
    pub upstream: Arc<Upstream>,
    /// The host name that its address was resolved from.
    pub name: Option<Arc<str>>,
    /// The verdict of its checks.
    pub state: HealthState,
    /// Whether it may be picked.
    pub eligibility: Eligibility,
    /// Why it is not healthy, or not eligible; or that it fails requests although its checks pass. `None` if nothing is
    /// wrong with it.
    pub why: Option<String>,
    /// Since when it is in this state.
    pub since: Instant,
    /// Its weight.
    pub weight: Weight,
    /// Its weight grows; `None`: it has all of it.
    pub slow_start: Option<SlowStart>,
    /// Its checks say that it is worse than others: the share of its weight that it takes.
    pub degraded: Option<Ratio>,
    /// The answer of the agent that takes it out, where its operator does not.
    pub asked: Option<Arc<ProbeReport>>,
    /// Whether it is a backup.
    pub backup: bool,
    /// The operator's setting.
    pub admin: AdminState,
    /// The orders that hold.
    pub overrides: Overrides,
    /// The ejection by live traffic that holds.
    pub ejection: Option<Ejected>,
    /// Ejections so far.
    pub ejections_total: u64,
    /// Whether its state comes from an earlier check definition.
    pub carried: bool,
    /// Whether it was removed from the configuration and serves until a new one is healthy.
    pub retiring: bool,
    /// Whether one of its checks does not verify the certificate, as configured.
    pub unverified: bool,
    /// The current run of equal results of the deciding check.
    pub streak: Option<Streak>,
    /// Probes that ended with a verdict.
    pub checks_total: u64,
    /// Changes of state.
    pub transitions_total: u64,
    /// The last probe that ended, of the deciding check.
    pub last_check: Option<LastCheck>,
    /// When the next probe of the deciding check is due.
    pub next_due: Instant,
    /// Which of `checks` decides.
    pub decides: usize,
    /// Its checks in file order; at least one.
    pub checks: Vec<CheckStatus>,
}

/// The growing weight of an upstream that has just begun to take requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// Which part of its weight it has.
    pub part: Ratio,
    /// When it has all of it.
    pub until: Instant,
}

/// One check of an upstream.
#[derive(Debug, Clone)]
pub struct CheckStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The preset that it was made of.
    pub preset: Option<&'static str>,
    /// The files of its TLS.
    pub tls_files: Arc<[CheckFile]>,
    /// What a probe does and expects.
    pub spec: Arc<ProbeSpec>,
    /// When probes run and how many make a verdict.
    pub timing: Timing,
    /// The address a probe dials.
    pub target: Address,
    /// The verdict of this check alone.
    pub state: HealthState,
    /// The current run of equal results.
    pub streak: Option<Streak>,
    /// The last probe that ended.
    pub last_check: Option<LastCheck>,
    /// When the certificate that a probe saw last ends, in seconds since 1970.
    pub certificate_expiry: Option<i64>,
    /// When the next probe is due; while one is in flight, when that one was due.
    pub next_due: Instant,
    /// Whether a probe is in flight.
    pub in_flight: bool,
    /// Why the next probe is due at that time.
    pub due: Due,
}

/// A run of equal results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    /// Whether the results are passes.
    pub pass: bool,
    /// How many; keeps counting after the threshold.
    pub count: u32,
    /// The threshold.
    pub needed: u32,
}

/// The last probe that ended.
#[derive(Debug, Clone)]
pub struct LastCheck {
    /// When it ended.
    pub at: Instant,
    /// Its report.
    pub report: Arc<ProbeReport>,
}

/// What `explain` needs to know about one pool, and perhaps about one upstream of it.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// How the checker itself is.
    pub checker: CheckerStatus,
    /// The pool's configuration.
    pub policy: Arc<PoolPolicy>,
    /// The pool, with every upstream.
    pub pool: PoolStatus,
    /// What requests to the pool get now.
    pub service: Service,
    /// How many must be healthy for the pool to serve normally: `min_healthy` as a number.
    pub needed: usize,
    /// The upstream asked about.
    pub upstream: Option<UpstreamDetail>,
    /// A sentence about files of failing checks that have changed on disk; see [`Explanation::add_file_hints`].
    pub hint: Option<String>,
}

/// What `explain` needs to know about one upstream beyond its status.
#[derive(Debug, Clone)]
pub struct UpstreamDetail {
    /// Its status.
    pub status: UpstreamStatus,
    /// The configuration of its pool; if it was removed, as it was then. `checks` and `require` are those in force.
    pub policy: Arc<PoolPolicy>,
    /// Its last changes of state, at most ten, oldest first.
    pub history: Vec<(Instant, Transition)>,
}

/// The name does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No pool of that name.
    #[error("no such pool: {0}")]
    NoPool(String),
    /// The pool has no such upstream.
    #[error("pool {0} has no upstream {1}")]
    NoUpstream(Name, Address),
}
