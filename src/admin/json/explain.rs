//! The JSON of `explain` and `probe`: a pool or an upstream with the reasons for its state.

use serde::{Deserialize, Serialize};

use super::{LastCheckInfo, MalformedInfo, PoolWord, StreakInfo, Verdict};
use crate::model::trace::Step;
use crate::model::{AdminState, HealthState};

/// `GET /api/v1/pools/POOL/explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolExplainReply {
    /// The pool.
    pub pool: String,
    /// The date of this state.
    pub now: String,
    /// The state in one word.
    pub status: PoolWord,
    /// The whole explanation in one paragraph.
    pub text: String,
    /// Healthy upstreams, retiring ones not counted.
    pub healthy: usize,
    /// Upstreams of the configuration.
    pub total: usize,
    /// Upstreams that may be picked now.
    pub eligible: usize,
    /// How many must be healthy for the pool to serve normally.
    pub needed: usize,
    /// What a request to this pool gets now, in a sentence.
    pub requests: String,
    /// Upstreams that take no requests, and those that do although they are not healthy, by reason; the most frequent
    /// first.
    pub out: Vec<OutInfo>,
    /// What can change the state, and when; null if nothing is wrong.
    pub next: Option<String>,
}

/// Upstreams that are out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutInfo {
    /// Why: `unhealthy`, `unknown`, `draining`, `disabled`, `ejected`, `too_few_healthy`, `primary_awaited`, or
    /// `fail_open` for those in use although they are not healthy.
    pub why: String,
    /// The code of the last probe, if that is the reason.
    pub code: Option<String>,
    /// The reason as text, of the first of them.
    pub reason: String,
    /// How many.
    pub count: usize,
    /// Their addresses; 20 at most.
    pub upstreams: Vec<String>,
}

/// `GET /api/v1/pools/POOL/upstreams/ADDRESS/explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpstreamExplainReply {
    /// The pool.
    pub pool: String,
    /// Its address.
    pub upstream: String,
    /// The host name that the address was resolved from.
    pub name: Option<String>,
    /// The date of this state.
    pub now: String,
    /// The verdict of its checks.
    pub state: HealthState,
    /// Since when.
    pub since: String,
    /// Whether it may be picked.
    pub eligible: bool,
    /// Why or why not, in a sentence.
    pub eligibility: String,
    /// Why it is not healthy or not eligible, as in status; null if it is both.
    pub why: Option<String>,
    /// A hint: which files of failing checks have changed on disk; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Its admin state.
    pub admin: AdminState,
    /// Malformed responses to requests.
    #[serde(default)]
    pub malformed_total: u64,
    /// The last of them; null before the first.
    #[serde(default)]
    pub last_malformed: Option<MalformedInfo>,
    /// How many of its checks must be healthy, as text; null for one check.
    pub require: Option<String>,
    /// Its checks, in file order.
    pub checks: Vec<CheckExplainInfo>,
    /// Its last changes of state, at most ten, newest last.
    pub transitions: Vec<TransitionInfo>,
}

/// One check of an upstream, explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckExplainInfo {
    /// Its name.
    pub name: String,
    /// The name of its preset; null: none.
    #[serde(default)]
    pub preset: Option<String>,
    /// What is sent and expected, as text.
    pub probe: String,
    /// The intervals and the timeout, as text.
    pub timing: String,
    /// The address it connects to.
    pub target: String,
    /// Its own verdict.
    pub state: HealthState,
    /// Whether this check decides the state, as in status.
    pub decides: bool,
    /// The current run of equal results.
    pub streak: Option<StreakInfo>,
    /// What that run still needs, as text.
    pub needs: String,
    /// When the next probe is due, and why, as text.
    pub next: String,
    /// When the next probe is due; null while one is in flight, and while a name has no address.
    pub next_due: Option<String>,
    /// Whether a probe is in flight.
    pub in_flight: bool,
    /// The last finished probe; null before the first.
    pub last_check: Option<LastCheckInfo>,
    /// The steps of that probe.
    pub steps: Vec<Step>,
}

/// A change of an upstream's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransitionInfo {
    /// When.
    pub at: String,
    /// The old state.
    pub from: HealthState,
    /// The new state.
    pub to: HealthState,
    /// The code of the probe that decided; null if none did.
    pub code: Option<String>,
    /// Why.
    pub reason: String,
}

/// What `roundsman probe --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialReply {
    /// The pool; null for `--url`.
    pub pool: Option<String>,
    /// One entry for each address of the upstream.
    pub upstreams: Vec<TrialInfo>,
    /// Whether it passes.
    pub result: Verdict,
    /// For `--url`: the lines to add to the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
}

/// The checks of one address, run once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialInfo {
    /// The address.
    pub upstream: String,
    /// The host name that it was resolved from.
    pub name: Option<String>,
    /// Whether enough of its checks pass.
    pub result: Verdict,
    /// How many must pass.
    pub needed: usize,
    /// The checks, in file order.
    pub checks: Vec<TrialCheckInfo>,
}

/// One check, run once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialCheckInfo {
    /// Its name.
    pub name: String,
    /// The name of its preset; null: none.
    #[serde(default)]
    pub preset: Option<String>,
    /// What is sent and expected, as text.
    pub probe: String,
    /// Its verdict; null if there was none (roundsman lacked resources).
    pub result: Option<Verdict>,
    /// The outcome code.
    pub code: String,
    /// The status of the response, if one was read.
    pub status: Option<u16>,
    /// How long it took.
    pub duration_ms: f64,
    /// One sentence.
    pub reason: String,
    /// Step by step.
    pub steps: Vec<Step>,
}
