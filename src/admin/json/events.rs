//! The JSON of events. The words in `kind` and the keys are stable; more may be added.

use serde::{Deserialize, Serialize};

use crate::model::{AdminState, HealthState};
use crate::pool::Changes;

/// `GET /api/v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventsReply {
    /// Oldest first.
    pub events: Vec<EventInfo>,
    /// The number of the newest event; the `after` of the next request.
    pub last: u64,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventInfo {
    /// Counts events from 1 for the life of the process.
    pub seq: u64,
    /// When it happened.
    pub at: String,
    /// The event in words, as the log on a terminal has it. Several mistakes of a refused configuration are a line each.
    #[serde(default)]
    pub text: String,
    /// What happened.
    #[serde(flatten)]
    pub what: EventWhat,
}

/// A setting of an upstream that an order changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderedInfo<T> {
    /// The pool.
    pub pool: String,
    /// The upstream.
    pub upstream: String,
    /// What it is set to.
    pub to: T,
    /// How long it holds; absent if no end is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Why; absent if the operator gave no reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The origin of the order: a command or the API, with the address of the client; or the upstream's agent.
    #[serde(default)]
    pub by: String,
}

/// What happened, tagged by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventWhat {
    /// An upstream's state changed.
    Transition {
        /// The pool.
        pool: String,
        /// The upstream.
        upstream: String,
        /// The old state.
        from: HealthState,
        /// The new state.
        to: HealthState,
        /// The code of the probe that decided; null if none did.
        code: Option<String>,
        /// One sentence.
        reason: String,
        /// How long that probe took.
        duration_ms: Option<f64>,
        /// Healthy upstreams of the pool after it.
        healthy_left: usize,
    },
    /// An operator, or its agent, changed the admin state of an upstream.
    Admin(OrderedInfo<AdminState>),
    /// An operator changed the weight of an upstream, or the time of such an order is over.
    Weight(OrderedInfo<u32>),
    /// A pool began or stopped refusing its requests with 503.
    Refusing(OutageInfo),
    /// A pool began or stopped using upstreams that are not healthy.
    FailOpen(OutageInfo),
    /// A pool began or stopped sending its requests to another pool.
    OtherPool(OutageInfo),
    /// A pool began to serve with fewer than half of its upstreams, or serves with half of them again.
    BelowHalf {
        /// The pool.
        pool: String,
        /// Fewer than half.
        on: bool,
        /// Upstreams that are healthy and enabled.
        able: usize,
        /// Upstreams of the configuration.
        total: usize,
    },
    /// Removed upstreams began or stopped serving in place of those of the configuration.
    Warming {
        /// The pool.
        pool: String,
        /// Begun, or how it ended.
        phase: WarmingWord,
        /// When begun: removed upstreams that serve.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retiring: Option<usize>,
        /// When begun: they serve at most this long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_most_seconds: Option<f64>,
        /// When begun: upstreams of the configuration that can serve.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        able: Option<usize>,
        /// When begun: how many must be able to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        needed: Option<usize>,
        /// When ended: how long they served.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasted_seconds: Option<f64>,
        /// When failed: why those of the configuration cannot serve.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// When failed: what would change that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// A reload was done.
    Reload {
        /// `applied`, `unchanged` or `refused`.
        result: String,
        /// The configuration's number after it.
        generation: u64,
        /// Why it was refused.
        error: Option<String>,
        /// The origin of the order: the start, a signal, a command or the API, with the address of the client.
        #[serde(default)]
        by: String,
        /// Its changes to pools and upstreams; absent if there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changes: Option<Changes>,
    },
    /// A reload added an upstream.
    UpstreamAdded {
        /// The pool.
        pool: String,
        /// The upstream.
        upstream: String,
    },
    /// A reload removed an upstream.
    UpstreamRemoved {
        /// The pool.
        pool: String,
        /// The upstream.
        upstream: String,
    },
    /// A reload added and removed more upstreams than get their own events (50): the numbers of the others.
    UpstreamsChanged {
        /// Added.
        added: usize,
        /// Removed.
        removed: usize,
    },
    /// The host names of a pool resolved to other addresses.
    Addresses {
        /// The pool.
        pool: String,
        /// New upstreams.
        added: Vec<String>,
        /// Removed upstreams.
        removed: Vec<String>,
    },
    /// An upstream began or ceased to fail nearly all requests while its checks pass.
    RequestsFail {
        /// The pool.
        pool: String,
        /// The upstream.
        upstream: String,
        /// True at the beginning, false at the end.
        on: bool,
        /// Its last requests.
        requests: u64,
        /// Of these: answered with a status of 500 or above.
        server_errors: u64,
        /// Of these: broken after the connection was made.
        broken: u64,
        /// Of these: without a connection.
        connect_failures: u64,
        /// When ended: `succeeds`, `no_longer_passes` or `few_requests`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// More upstreams began or ceased to fail requests at once than get their own events (16): the numbers of the others.
    RequestsFailMore {
        /// Began.
        began: usize,
        /// Ceased.
        ended: usize,
    },
    /// Live traffic ejected an upstream, or an ejection has ended.
    Ejected {
        /// The pool.
        pool: String,
        /// The upstream.
        upstream: String,
        /// True at the beginning, false at the end.
        on: bool,
        /// At the beginning: why, in one sentence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// At the beginning: how long it lasts if nothing ends it before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
        /// At the end: `over`, `last`, `min_healthy`, `passes`, `recovered` or `off`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// At the end: how long it lasted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lasted_seconds: Option<f64>,
    },
    /// The checks of an upstream pass and say that it is worse than others, or no longer so.
    Degraded {
        /// The pool.
        pool: String,
        /// The upstream.
        upstream: String,
        /// Whether it is from now on.
        on: bool,
        /// Then: the share of its weight that it takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<f64>,
    },
    /// A probe panicked.
    ProbePanic {
        /// The pool.
        pool: String,
        /// The upstream.
        upstream: String,
    },
    /// The scheduler of probes was restarted.
    CheckerRestart,
}

/// A pool that does not serve normally: `kind` says what its requests get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutageInfo {
    /// The pool.
    pub pool: String,
    /// True at the beginning, false at the end. Beginnings and ends alternate.
    pub on: bool,
    /// The pool that takes the requests; absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    /// When begun: why, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When begun: what would change it, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// When ended: whether the pool serves normally again; if not, the next event is the beginning of another of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<bool>,
    /// When ended: seconds since this began; if the pool serves again, seconds since it stopped serving normally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted_seconds: Option<f64>,
}

/// The phase of the warming of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmingWord {
    /// Removed upstreams serve.
    Began,
    /// The upstreams of the configuration serve.
    Ended,
    /// The removed upstreams are gone, and those of the configuration cannot serve.
    Failed,
}
