//! The interface of the admin plane to its process. `app` implements [`Host`]; tests have a fake one.
//!
//! Nothing here is JSON: dates are instants, states are enums. `render` turns them into the words of the API.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::json::{Diagnostic, ProcessState, ReloadResult};
use super::readiness::Readiness;
use crate::model::{Address, Name, Secret};
use crate::pool::{Changes, Done, Event, ExplainError, Explanation, Order, OrderError, RequestLane, Status};

/// The process of the admin socket. `access`, `state` and `revision` are called from the thread that serves connections
/// and must return at once; the others are called from the thread that answers requests.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Whether it is ready, as evaluated last.
    fn readiness(&self) -> &Readiness;

    /// A consistent snapshot of every pool.
    fn status(&self, now: Instant) -> Status;

    /// Adds to what would end each outage of a snapshot which files of its checks have changed on disk. May block for a
    /// fifth of a second.
    fn add_hints(&self, _status: &mut Status) {}

    /// The events with a number greater than `seq`, oldest first.
    fn events_after(&self, seq: u64) -> Vec<Event>;

    /// The data for `explain`: of a pool, and of one of its upstreams if given.
    ///
    /// # Errors
    /// There is no such pool, or it has no such upstream.
    fn explain(&self, pool: &str, upstream: Option<&Address>) -> Result<Explanation, ExplainError>;

    /// The state of the process itself.
    fn process(&self) -> ProcessInfo;

    /// The phase of the process; never blocks.
    fn state(&self) -> ProcessState;

    /// Counts orders and reloads, whatever their result: a snapshot from before the last one must not be served any
    /// more. Increased after the change is visible and before its response; never blocks.
    fn revision(&self) -> u64;

    /// The access rules. Read for every request, because a reload may change the token; never blocks.
    fn access(&self) -> Access;

    /// The text of `/metrics`.
    fn metrics(&self, format: MetricsFormat) -> String;

    /// Carries out an operator's order in a pool, or in every pool that has the upstream.
    ///
    /// # Errors
    /// Why nothing was done.
    fn order(&self, pool: Option<&str>, upstream: &Address, order: &Order<'_>) -> Result<Vec<Done>, OrderError>;

    /// Reloads the configuration, as SIGHUP does, and returns when it is done. The reload continues if this future is
    /// dropped, because the client may disconnect. `by` is the origin of the order, as text.
    async fn reload(&self, by: String) -> ReloadAnswer;

    /// Validates the configuration file as `reload` would and applies nothing.
    async fn check(&self) -> CheckAnswer;
}

/// The format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsFormat {
    /// In OpenMetrics 1.0; otherwise in the Prometheus text format 0.0.4.
    pub open_metrics: bool,
    /// With the series per upstream.
    pub upstreams: bool,
}

/// The access rules of the admin socket.
#[derive(Debug, Clone)]
pub struct Access {
    /// The bearer token; `None`: every client has access.
    pub token: Option<Secret>,
    /// The configured address, whose host is always accepted as `Host`.
    pub address: Address,
}

/// The state of the process itself.
#[derive(Debug, Clone)]
pub struct ProcessInfo {
    /// Its number.
    pub pid: u32,
    /// Its phase.
    pub state: ProcessState,
    /// Its listeners, by name.
    pub listeners: Vec<(Name, Address)>,
    /// When it started.
    pub started: Instant,
    /// Requests so far, by what carried them.
    pub by_lane: Vec<(RequestLane, u64)>,
    /// The running configuration.
    pub config: ConfigFile,
    /// Named conditions of readiness besides the pools' (configuration loaded, listeners bound), in a fixed order.
    pub conditions: Vec<Condition>,
}

/// A named condition of readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Its name, as in `"listeners"`.
    pub name: &'static str,
    /// Whether it holds.
    pub met: bool,
}

/// The running configuration's file.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// Its path as given on the command line; `None`: made from `--listen` and `--to`.
    pub file: Option<String>,
    /// When the running configuration was loaded.
    pub loaded_at: Instant,
    /// The SHA-256 of the file as it was last read and accepted, in hexadecimal; empty without a file.
    pub hash: Arc<str>,
    /// The last reload; `None` before the first.
    pub last_reload: Option<LastReload>,
}

/// The result of a reload.
#[derive(Debug, Clone)]
pub struct LastReload {
    /// Its result in one word.
    pub result: ReloadResult,
    /// When it was done.
    pub at: Instant,
    /// Why it was refused, in one sentence.
    pub error: Option<String>,
}

/// The response to an order to reload.
#[derive(Debug, Clone)]
pub struct ReloadAnswer {
    /// Its result.
    pub last: LastReload,
    /// The configuration's number now.
    pub generation: u64,
    /// Pools whose removed upstreams still serve until a new one is healthy, each with its deadline.
    pub warming: Vec<(Name, Instant)>,
    /// What it changed in pools and upstreams.
    pub changes: Changes,
    /// Every error when it was refused, and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a reload would do.
#[derive(Debug, Clone)]
pub struct CheckAnswer {
    /// The result it would have.
    pub result: ReloadResult,
    /// Why it would be refused, in one sentence.
    pub error: Option<String>,
    /// What it would change in pools and upstreams.
    pub changes: Changes,
    /// Every error, and warnings.
    pub diagnostics: Vec<Diagnostic>,
}
