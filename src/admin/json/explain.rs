//! The JSON of `explain` and `probe`: a pool or an upstream with the reasons for what it is.

use serde::{Deserialize, Serialize};

use super::{LastCheckInfo, MalformedInfo, PoolWord, StreakInfo, Verdict};
use crate::model::trace::Step;
use crate::model::{AdminState, HealthState};

/// `GET /api/v1/pools/POOL/explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolExplainReply {
    /// The pool.
    pub pool: String,
    /// When this was so.
    pub now: String,
    /// In a word.
    pub status: PoolWord,
    /// The whole story in one paragraph.
    pub text: String,
    /// Healthy upstreams, retiring ones not counted.
    pub healthy: usize,
    /// Upstreams of the configuration.
    pub total: usize,
    /// Upstreams that may be picked now.
    pub eligible: usize,
    /// How many must be healthy for the pool to serve in order.
    pub needed: usize,
    /// What a request to this pool gets now, in a sentence.
    pub requests: String,
    /// Those that take no requests, and those that do although they are not healthy, by reason; the most frequent first.
    pub out: Vec<OutInfo>,
    /// What can change it, and when; null when all is well.
    pub next: Option<String>,
}

/// Upstreams that are out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutInfo {
    /// Why: `unhealthy`, `unknown`, `draining`, `disabled`, `ejected`, `too_few_healthy`, `primary_awaited`, or
    /// `fail_open` for those in use although they are not healthy.
    pub why: String,
    /// The code of the last probe, where that is the reason.
    pub code: Option<String>,
    /// The reason in words, of the first of them.
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
    /// When this was so.
    pub now: String,
    /// What its checks say.
    pub state: HealthState,
    /// Since when.
    pub since: String,
    /// Whether it may be picked.
    pub eligible: bool,
    /// Why it is, or is not, in a sentence.
    pub eligibility: String,
    /// Why it is not healthy or not eligible, as in status; null when all is well.
    pub why: Option<String>,
    /// What may help: the secrets of failing checks that have changed on disk; absent where there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What the operator says.
    pub admin: AdminState,
    /// Malformed answers to requests.
    #[serde(default)]
    pub malformed_total: u64,
    /// The last of them; null before the first.
    #[serde(default)]
    pub last_malformed: Option<MalformedInfo>,
    /// How many of its checks must hold, in words; null for one check.
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
    /// The preset that it was made of; null: none.
    #[serde(default)]
    pub preset: Option<String>,
    /// What is asked and expected, in words.
    pub probe: String,
    /// How often, in words.
    pub timing: String,
    /// The address dialled.
    pub target: String,
    /// Its own verdict.
    pub state: HealthState,
    /// Whether status shows this one as the one that decides.
    pub decides: bool,
    /// The run of equal results that is going on.
    pub streak: Option<StreakInfo>,
    /// What that run still needs, in words.
    pub needs: String,
    /// When the next probe is due, and why then, in words.
    pub next: String,
    /// When the next probe is due; null while one is in flight, and while a name has no address.
    pub next_due: Option<String>,
    /// Whether a probe is in flight.
    pub in_flight: bool,
    /// The last probe that ended; null before the first.
    pub last_check: Option<LastCheckInfo>,
    /// That probe step by step.
    pub steps: Vec<Step>,
}

/// A change of an upstream's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransitionInfo {
    /// When.
    pub at: String,
    /// What it was.
    pub from: HealthState,
    /// What it became.
    pub to: HealthState,
    /// The code of the probe that decided; null when none did.
    pub code: Option<String>,
    /// Why.
    pub reason: String,
}

/// What `roundsman probe --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialReply {
    /// The pool; null for `--url`.
    pub pool: Option<String>,
    /// The upstream, as it was resolved: one for each address.
    pub upstreams: Vec<TrialInfo>,
    /// Whether it passes.
    pub result: Verdict,
    /// For `--url`: the lines to put into the configuration file.
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
    /// The preset that it was made of; null: none.
    #[serde(default)]
    pub preset: Option<String>,
    /// What is asked and expected, in words.
    pub probe: String,
    /// What it means; null when it was no verdict (our own lack of resources).
    pub result: Option<Verdict>,
    /// The outcome code.
    pub code: String,
    /// The status of the answer, where one was read.
    pub status: Option<u16>,
    /// How long it took.
    pub duration_ms: f64,
    /// One sentence.
    pub reason: String,
    /// Step by step.
    pub steps: Vec<Step>,
}
