//! The state of the upstreams: which are healthy, which may be picked, how busy they are. One writer, many readers.
//!
//! [`state`] is the pure decision: events in, effects out. [`controller`] is its async shell and the only writer.
//! Readers load what it publishes: one [`Snapshot`] for the whole process (changes with configuration) and
//! one [`View`] per pool (changes with health, drain and membership). [`Upstream`] outlives both.
//!
//! Must never filter upstreams at pick time: the eligible set is computed when something changes. Readers skip only
//! verdicts that are out of date.

pub mod answers;
pub mod budget;
pub mod changes;
pub mod controller;
pub mod events;
pub mod faults;
mod flights;
mod hinted;
pub mod history;
mod ids;
pub mod instant;
pub mod latency;
pub mod lease;
pub mod limit;
mod lines;
mod log;
pub mod orders;
pub mod outage;
pub mod outcomes;
pub mod passive;
mod pools;
pub mod queue;
mod ramp;
mod recent;
pub mod sentence;
pub mod sharded;
pub mod snapshot;
pub mod state;
pub mod stats;
pub mod status;
#[cfg(test)]
pub mod testing;
pub mod traffic;
pub mod upstream;
pub mod view;

pub use crate::health::{Due, Run};
pub use answers::{Answered, Answers};
pub use changes::{Changes, Listed};
pub use controller::{CheckFiles, Controller, ProbeFuture, Prober};
pub use events::{Event, EventKind, EventRing, Transition, WarmingPhase};
pub use faults::{Faults, LastFault};
pub use lease::{Lease, Settled};
pub use limit::Limit;
pub use orders::{Command, DRAIN_RESUME, Done, NeedsForce, Order, OrderError, Override, Overrides, Setting};
pub use outage::{Progress, Way};
pub use outcomes::Row;
pub use passive::{Ejected, EjectionEnd};
pub use queue::{Awaits, WAITING_MAX};
pub use sentence::sentence;
pub use snapshot::{
    Departed, Goal, ListenerEntry, ListenerId, Pool, PoolId, PoolShared, Published, Route, Routes, Snapshot, Split,
    Waiting,
};
pub use state::{Applied, CheckKey, Kept, ProbeJob};
pub use stats::{
    AnswerReason, Distribution, FrontStats, Histogram, PoolStats, ReasonCount, RequestClass, RequestLane, Retries,
    RouteStats,
};
pub use status::{
    CheckStatus, CheckerStatus, ExplainError, Explanation, LastCheck, OutOfOrder, PoolStatus, PoolSummary,
    ServiceState, SlowStart, Status, Streak, UpstreamDetail, UpstreamStatus,
};
pub use traffic::{Over, Requests};
pub use upstream::{Connection, Connections, CutOff, Hint, Hints, InFlight, Upstream, UpstreamId};
pub use view::{
    Candidate, Choice, FIRST_VERDICT_WAIT, Otherwise, Pick, Reading, Rules, Service, Tier, Tried, View, session_number,
};
