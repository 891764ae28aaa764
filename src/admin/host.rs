//! What the admin plane asks of the process it runs in. `app` implements [`Host`]; tests have a fake one.
//!
//! Nothing here is JSON: dates are instants, states are enums. `render` turns them into the contract's words.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::json::{Diagnostic, ProcessState, ReloadResult};
use crate::model::{Address, AdminState, Name, Secret};
use crate::pool::{Event, ExplainError, Explanation, Status};

/// The process behind the admin socket. `access`, `state` and `revision` are called from the thread that serves connections and
/// answer at once; the others are called from the one that answers.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// One consistent picture of every pool.
    fn status(&self, now: Instant) -> Status;

    /// The events with a number greater than `seq`, oldest first.
    fn events_after(&self, seq: u64) -> Vec<Event>;

    /// What there is to say about a pool, and perhaps about one of its upstreams.
    ///
    /// # Errors
    /// There is no such pool, or it has no such upstream.
    fn explain(&self, pool: &str, upstream: Option<&Address>) -> Result<Explanation, ExplainError>;

    /// What the process says of itself.
    fn process(&self) -> ProcessInfo;

    /// Where the process is in its life; never waits for anything.
    fn state(&self) -> ProcessState;

    /// Counts what was ordered and reloaded, however it ended: a picture from before the last change is no answer any more. Goes up
    /// before the order is answered, and after it shows; never waits for anything.
    fn revision(&self) -> u64;

    /// Who may ask. Read for every request, because a reload may change the token; never waits for anything.
    fn access(&self) -> Access;

    /// The text of `/metrics`.
    fn metrics(&self, format: MetricsFormat) -> String;

    /// The operator changes what he wants of an upstream; `reason` is his words, may be empty.
    /// `force`: also where too few serve without it.
    fn set_admin(&self, pool: &str, upstream: &Address, to: AdminState, reason: &str, force: bool) -> SetAdmin;

    /// Rereads the configuration, as SIGHUP does, and answers when it is done. Goes on to its end even when this future is
    /// dropped, because the client may leave. `by` is who asks for it, in words.
    async fn reload(&self, by: String) -> ReloadAnswer;

    /// Validates the configuration file as `reload` would and applies nothing.
    async fn check(&self) -> CheckAnswer;
}

/// How `/metrics` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsFormat {
    /// In OpenMetrics 1.0; otherwise in the Prometheus text format 0.0.4.
    pub open_metrics: bool,
    /// With the series per upstream.
    pub upstreams: bool,
}

/// Who may ask.
#[derive(Debug, Clone)]
pub struct Access {
    /// The bearer token; `None`: anybody who reaches the socket.
    pub token: Option<Secret>,
    /// The configured address, whose host is always a good `Host`.
    pub address: Address,
}

/// What the process says of itself.
#[derive(Debug, Clone)]
pub struct ProcessInfo {
    /// Where it is in its life.
    pub state: ProcessState,
    /// When it began.
    pub started: Instant,
    /// What it runs on.
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
    /// As it was named on the command line; `None`: made from `--listen` and `--to`.
    pub file: Option<String>,
    /// When the running configuration was loaded.
    pub loaded_at: Instant,
    /// The SHA-256 of the file as it was last read and accepted, in hexadecimal; empty without a file.
    pub hash: Arc<str>,
    /// The last reload; `None` before the first.
    pub last_reload: Option<LastReload>,
}

/// What became of a reload.
#[derive(Debug, Clone)]
pub struct LastReload {
    /// In a word.
    pub result: ReloadResult,
    /// When it was done.
    pub at: Instant,
    /// Why it was refused, in one sentence.
    pub error: Option<String>,
}

/// The answer to an order to reload.
#[derive(Debug, Clone)]
pub struct ReloadAnswer {
    /// What became of it.
    pub last: LastReload,
    /// The configuration's number now.
    pub generation: u64,
    /// Pools whose removed upstreams still serve until a new one is healthy, each with the instant at which they cease to at
    /// the latest.
    pub warming: Vec<(Name, Instant)>,
    /// Every error when it was refused, and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a reload would do.
#[derive(Debug, Clone)]
pub struct CheckAnswer {
    /// What would become of it.
    pub result: ReloadResult,
    /// Why it would be refused, in one sentence.
    pub error: Option<String>,
    /// Every error, and warnings.
    pub diagnostics: Vec<Diagnostic>,
}

/// What became of an operator's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAdmin {
    /// Done, or it was so already.
    Done,
    /// Not done: too few would serve after it. Why, in a sentence.
    NeedsForce(String),
    /// There is no pool of this name.
    NoPool,
    /// The pool has no upstream with this address.
    NoUpstream,
}
