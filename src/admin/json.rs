//! The JSON of the admin API, written by `admin` and read by `cli`. Keys are stable; more may be added. Dates are RFC
//! 3339 in UTC with milliseconds.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::events::*;
pub use self::explain::*;
pub use self::ordered::Ordered;
use crate::model::{AdminState, Code, HealthState, Judgement};
use crate::pool::Changes;

mod events;
mod explain;
pub mod glance;
mod ordered;

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The version of the process.
    pub version: String,
    /// Counts applied configurations.
    pub generation: u64,
    /// The number of the process.
    #[serde(default)]
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: f64,
    /// Its phase.
    pub state: ProcessState,
    /// Whether `/readyz` returns 200.
    pub ready: bool,
    /// Where it listens for requests, in file order.
    #[serde(default)]
    pub listeners: Vec<ListenerInfo>,
    /// Requests so far, by what carried them to an upstream: `express`, `general`, `tunnel`.
    #[serde(default)]
    pub requests_by_lane: BTreeMap<String, u64>,
    /// The running configuration.
    pub config: ConfigInfo,
    /// The state of the checker itself.
    pub checker: CheckerInfo,
    /// Pools by name, in file order.
    pub pools: Ordered<PoolInfo>,
}

/// `GET /api/v1/process`: which process this is. Cheap, unlike a status of many upstreams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReply {
    /// Its version.
    pub version: String,
    /// Its number.
    pub pid: u32,
    /// Its phase.
    pub state: ProcessState,
    /// Its configuration file, as given on the command line; null when made from `--listen` and `--to`.
    pub file: Option<String>,
    /// Where it listens for requests, in file order.
    pub listeners: Vec<ListenerInfo>,
}

/// A socket that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerInfo {
    /// Its name in the configuration.
    pub name: String,
    /// Its address.
    pub address: String,
}

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Not serving yet.
    Starting,
    /// Serving.
    Running,
    /// Stopping; requests in flight finish.
    Draining,
}

/// `config` of a status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigInfo {
    /// The file; null when made from `--listen` and `--to`.
    pub file: Option<String>,
    /// When the running configuration was loaded.
    pub loaded_at: String,
    /// The SHA-256 of the file as it was last read and accepted, in hexadecimal: as `sha256sum` prints it. Empty when
    /// made from `--listen` and `--to`.
    #[serde(default)]
    pub hash: String,
    /// The last reload; null before the first.
    pub last_reload: Option<LastReloadInfo>,
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastReloadInfo {
    /// Its result in one word.
    pub result: ReloadResult,
    /// When it was done.
    pub at: String,
    /// Why it was refused.
    pub error: Option<String>,
}

/// The result of a reload in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    /// The new configuration runs.
    Applied,
    /// The file has no change that a user can observe.
    Unchanged,
    /// The new configuration has mistakes or could not be applied; the old one keeps running.
    Refused,
}

/// The state of the checker itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CheckerInfo {
    /// It is not running (it is being restarted, or its thread is blocked): verdicts may be out of date.
    pub stale: bool,
    /// How often it had to be restarted.
    pub restarts_total: u64,
    /// How many probes panicked.
    pub probe_panics_total: u64,
    /// Probes in flight.
    pub probes_in_flight: usize,
    /// The latest start of a probe after it was due, over the last minute, in milliseconds; one overdue now counts.
    #[serde(default)]
    pub probe_lag_ms: f64,
}

/// The state of a pool in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolWord {
    /// Every enabled upstream is healthy.
    Healthy,
    /// It serves, but not every enabled upstream is healthy.
    Degraded,
    /// It has no eligible upstream.
    Unhealthy,
    /// It has no eligible upstream yet, because no check has reached a verdict.
    Unknown,
}

/// One pool of a status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// The state in one word.
    pub status: PoolWord,
    /// Healthy upstreams, retiring ones not counted.
    pub healthy: usize,
    /// Upstreams of the configuration.
    pub total: usize,
    /// Upstreams that may be picked now.
    pub eligible: usize,
    /// It uses upstreams that are not healthy (`when_no_healthy = "fail_open"`).
    pub fail_open: bool,
    /// Removed upstreams still serve until a new one is healthy.
    pub warming: bool,
    /// How much longer they serve at most, in seconds; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warming_seconds: Option<f64>,
    /// Why it does not serve normally, and what would change that; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it refuses requests, fails open or sends them to `other_pool`, whichever it does now; absent while it
    /// serves normally, and while requests wait for a first verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_since: Option<String>,
    /// The pool that its requests go to while it does not, as `when_no_healthy` says; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_pool: Option<String>,
    /// Requests that wait for an upstream.
    pub waiting: u32,
    /// In file order, retiring ones last.
    pub upstreams: Vec<UpstreamInfo>,
}

/// One upstream of a status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpstreamInfo {
    /// Where its requests go.
    pub address: String,
    /// The host name that the address was resolved from; absent where the file has an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The verdict of its checks.
    pub state: HealthState,
    /// Whether it may be picked.
    pub eligible: bool,
    /// Why it is not healthy or not eligible; or that it fails requests although its checks pass. Null if nothing is
    /// wrong with it.
    pub why: Option<String>,
    /// Since when it is in this state.
    pub since: String,
    /// Its weight.
    pub weight: u32,
    /// Its growing weight; absent while it has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStartInfo>,
    /// Its checks say that it is worse than others: the share of its weight that it takes; absent while they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<f64>,
    /// Whether it is a backup.
    pub backup: bool,
    /// Its admin state.
    pub admin: AdminState,
    /// The order that set it; absent if the file did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_order: Option<OrderInfo>,
    /// What its agent says, if that takes it out and no order or file does; otherwise absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The order that set its weight; absent if the file did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_order: Option<OrderInfo>,
    /// Whether live traffic ejected it.
    pub ejected: bool,
    /// That ejection; absent while none holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<EjectionInfo>,
    /// Ejections since it was added.
    #[serde(default)]
    pub ejections_total: u64,
    /// Whether its verdict was reached under an earlier check definition.
    pub carried: bool,
    /// Whether it was removed from the configuration and serves until a new upstream is healthy.
    pub retiring: bool,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests sent to it.
    pub requests_total: u64,
    /// Open connections to it.
    pub connections: usize,
    /// Failed connection attempts.
    pub connect_failures_total: u64,
    /// Requests that failed after the connection was made, also in the middle of a response.
    pub broken_total: u64,
    /// Its final responses by class.
    #[serde(default)]
    pub responses_total: ResponsesInfo,
    /// Number of response times: from the first byte of a request sent to the head of its final response.
    #[serde(default)]
    pub response_seconds_count: u64,
    /// Their sum.
    #[serde(default)]
    pub response_seconds_sum: f64,
    /// When the certificate seen by its checks expires; the earliest of several. Absent if none was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<String>,
    /// Connections closed because it sent bytes without a request.
    #[serde(default)]
    pub unasked_total: u64,
    /// Malformed responses to requests.
    #[serde(default)]
    pub malformed_total: u64,
    /// The last of them; null before the first.
    #[serde(default)]
    pub last_malformed: Option<MalformedInfo>,
    /// Whether one of its checks does not verify the certificate (`verify = false`); absent if all do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
    /// The current run of equal results, of the check that decides; null before the first.
    pub streak: Option<StreakInfo>,
    /// Probes that ended with a verdict.
    pub checks_total: u64,
    /// Changes of state.
    pub transitions_total: u64,
    /// The last finished probe, of the check that decides; null before the first.
    pub last_check: Option<LastCheckInfo>,
    /// Its checks in file order; absent if there is only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckInfo>,
}

/// The growing weight of an upstream that has just begun to take requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowStartInfo {
    /// Which part of its weight it has, 0 to 1.
    pub part: f64,
    /// Seconds until it has all of it.
    pub seconds_left: f64,
}

/// An operator's order that holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderInfo {
    /// When it was given.
    pub at: String,
    /// When it ends by itself; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Its origin: a command or the API, with the address of the client.
    pub by: String,
    /// Why; absent if the operator gave no reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// An ejection by live traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EjectionInfo {
    /// When it began.
    pub since: String,
    /// When it ends at the latest.
    pub until: String,
    /// Seconds until then.
    pub seconds_left: f64,
    /// Why, in one sentence.
    pub reason: String,
    /// Its length is that of so many first ones: it grows with each that follows soon.
    pub count: u32,
}

/// A malformed response to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MalformedInfo {
    /// When it arrived.
    pub at: String,
    /// What was wrong with it.
    pub reason: String,
}

/// One of several checks of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckInfo {
    /// Its name.
    pub name: String,
    /// Its own verdict.
    pub state: HealthState,
    /// The current run of equal results; null before the first.
    pub streak: Option<StreakInfo>,
    /// The last finished probe; null before the first.
    pub last_check: Option<LastCheckInfo>,
    /// When the certificate it last saw expires; absent if none was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<String>,
}

/// Final responses of an upstream by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResponsesInfo {
    /// 101 (interim responses do not count).
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// 200 to 299.
    #[serde(rename = "2xx")]
    pub success: u64,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    pub redirection: u64,
    /// 400 to 499.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// 500 and above.
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

impl Diagnostic {
    /// On one line: `roundsman.toml:31:1: error: pools.api.health.intervall: unknown key; did you mean …?`. Not escaped.
    pub fn sentence(&self) -> String {
        let mut line = self.file.clone().unwrap_or_else(|| "configuration".to_owned());
        for number in [self.line, self.column].into_iter().flatten() {
            line.push_str(&format!(":{number}"));
        }
        line.push_str(&format!(": {}: ", self.severity));
        if let Some(key) = &self.key {
            line.push_str(&format!("{key}: "));
        }
        line.push_str(&self.message);
        if let Some(expected) = &self.expected {
            line.push_str(&format!("; expected {expected}"));
        }
        if let Some(near) = &self.suggestion {
            line.push_str(&format!("; did you mean `{near}`?"));
        }
        line
    }
}

impl UpstreamInfo {
    /// Its special conditions, as words for display.
    pub fn marks(&self) -> Vec<&'static str> {
        let admin = match self.admin {
            AdminState::Enabled => None,
            AdminState::Draining => Some("draining"),
            AdminState::Disabled => Some("disabled"),
        };
        let flag = |on: bool, word| on.then_some(word);
        let fail_open = self.eligible && self.state != HealthState::Healthy && !self.retiring;
        let flags = [
            admin,
            flag(self.ejected, "ejected"),
            flag(self.degraded.is_some(), "degraded"),
            flag(fail_open, "in use"),
            flag(self.backup, "backup"),
            flag(self.carried, "carried"),
            flag(self.retiring, "retiring"),
            flag(self.unverified, "unverified"),
        ];
        flags.into_iter().flatten().collect()
    }

    /// The weight that it takes now: all of its weight, or the part of it that `slow_start` and `degraded` leave.
    pub fn weight_now(&self) -> f64 {
        let part = self.slow_start.as_ref().map_or(1.0, |slow| slow.part);
        f64::from(self.weight) * part * self.degraded.unwrap_or(1.0)
    }
}

/// Pass or fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Not as expected.
    Fail,
}

impl Verdict {
    /// The verdict of a code; `None` if the code is not a verdict.
    pub fn of(code: Code) -> Option<Verdict> {
        match code.judgement() {
            Judgement::Pass => Some(Verdict::Pass),
            Judgement::Fail => Some(Verdict::Fail),
            Judgement::NoVerdict | Judgement::Broken => None,
        }
    }
}

/// A run of equal results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreakInfo {
    /// The result that is repeated.
    pub result: Verdict,
    /// The length of the run; keeps counting after the threshold.
    pub count: u32,
    /// The threshold.
    pub needed: u32,
}

/// The last finished probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastCheckInfo {
    /// When it finished.
    pub at: String,
    /// Its verdict; null if there was none (roundsman lacked resources, a panic).
    pub result: Option<Verdict>,
    /// The outcome code.
    pub code: String,
    /// The status of the response, if one was read.
    pub status: Option<u16>,
    /// How long it took.
    pub duration_ms: f64,
    /// One sentence.
    pub reason: String,
}

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthReply {
    /// The state in one word.
    pub status: PoolWord,
    /// Why it is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Enabled upstreams that are not eligible, and where no upstream is, the others too; absent when there are none, 50 at
    /// most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<UnhealthyInfo>,
    /// With `?detailed=true`: pool name to status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<Ordered<PoolWord>>,
    /// With `?detailed=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<f64>,
    /// With `?detailed=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// With `?detailed=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

/// `GET /health/POOL`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolHealthReply {
    /// The state in one word.
    pub status: PoolWord,
    /// Its name.
    pub pool: String,
    /// Healthy upstreams.
    pub healthy: usize,
    /// Upstreams of the configuration.
    pub total: usize,
    /// Upstreams that may be picked now.
    pub eligible: usize,
    /// Why it does not serve with its own upstreams, and what would change that; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Enabled upstreams that are not eligible, and where no upstream is, the others too; absent when there are none, 50 at
    /// most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<UnhealthyInfo>,
}

/// An upstream that should serve but does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnhealthyInfo {
    /// Its pool.
    pub pool: String,
    /// Its address.
    pub upstream: String,
    /// Why.
    pub reason: String,
}

/// `GET /livez` and `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    /// `ok`, `ready` or `not_ready`.
    pub status: String,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /api/v1/reload`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadReply {
    /// Its result, or the result it would have.
    pub result: ReloadResult,
    /// When it was done.
    pub at: String,
    /// Why it was refused, in one sentence.
    pub error: Option<String>,
    /// Whether the file was only validated.
    pub dry_run: bool,
    /// The configuration's number now.
    pub generation: u64,
    /// Pools whose removed upstreams still serve until a new one is healthy.
    pub warming: Vec<String>,
    /// How much longer those serve at most, by pool, in seconds.
    #[serde(default)]
    pub warming_seconds: Ordered<f64>,
    /// What it changed, or would change, in pools and upstreams; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// Every error, and warnings.
    pub errors: Vec<Diagnostic>,
    /// As in status.
    pub last_reload: Option<LastReloadInfo>,
}

/// One mistake in a configuration file, as `check --format json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file.
    pub file: Option<String>,
    /// From 1; null for a file that cannot be read.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// The key, as in `pools.api.health.timeout`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What is accepted.
    pub expected: Option<String>,
    /// A similar valid name.
    pub suggestion: Option<String>,
    /// `error` or `warning`.
    pub severity: String,
}

/// The response to an order in every pool that has the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdersReply {
    /// One for each pool, in file order.
    pub orders: Vec<OrderReply>,
}

/// The response to `drain`, `undrain`, `disable`, `enable` and `weight`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderReply {
    /// The pool.
    pub pool: String,
    /// The upstream.
    pub upstream: String,
    /// The admin state now.
    pub admin: AdminState,
    /// The admin state before.
    pub was: AdminState,
    /// The weight now, after `weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// The weight before, after `weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_weight: Option<u32>,
    /// Requests still in flight there.
    pub in_flight: u32,
    /// How long the order lasts, in a sentence; empty if the file says the same.
    #[serde(default)]
    pub note: String,
}

/// The response to a request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// One sentence.
    pub error: String,
}

macro_rules! words {
    ($($name:ident { $($variant:ident = $word:literal),* })*) => {$(
        impl $name {
            /// The word used in the API.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

words! {
    ProcessState { Starting = "starting", Running = "running", Draining = "draining" }
    ReloadResult { Applied = "applied", Unchanged = "unchanged", Refused = "refused" }
    PoolWord { Healthy = "healthy", Degraded = "degraded", Unhealthy = "unhealthy", Unknown = "unknown" }
    Verdict { Pass = "pass", Fail = "fail" }
}
