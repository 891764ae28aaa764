//! How requests travel: the limits and timeouts of a listener's clients, and those of a pool's upstreams. The defaults of
//! their keys are given here.
//!
//! The parts are plain numbers, so that whatever carries a request copies what it needs and holds nothing.

use std::time::Duration;

use super::Upgrades;
use crate::model::Ratio;

/// Between a listener and its clients. What a reload changes holds from a connection's next request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientPolicy {
    /// How long a client may take.
    pub timeouts: ClientTimeouts,
    /// How large a request head may be.
    pub limits: ClientLimits,
}

/// `timeouts` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For a whole request head, from its first byte (from accept for the first): then 408 and close.
    pub header: Duration,
    /// Between the end of a response and the first byte of the next request: then the connection closes.
    pub keep_alive: Duration,
    /// Between two reads of a request body (408), and between two writes to a client that does not read.
    pub body_idle: Duration,
}

impl ClientTimeouts {
    /// What holds without keys.
    pub const DEFAULT: ClientTimeouts = ClientTimeouts {
        header: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        body_idle: Duration::from_secs(60),
    };
}

impl Default for ClientTimeouts {
    fn default() -> ClientTimeouts {
        ClientTimeouts::DEFAULT
    }
}

/// `limits` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes of a request head, its empty line included; at most 65,536: then 431.
    pub header_bytes: usize,
    /// Fields of a request head: then 431.
    pub headers: usize,
    /// Bytes of a request target: then 414.
    pub target_bytes: usize,
}

impl ClientLimits {
    /// What holds without keys.
    pub const DEFAULT: ClientLimits = ClientLimits { header_bytes: 32 * 1024, headers: 100, target_bytes: 16 * 1024 };

    /// No configuration allows more: for a head that has passed its own limits before.
    pub const MAX: ClientLimits = ClientLimits { header_bytes: 1 << 16, headers: 1 << 16, target_bytes: 1 << 16 };
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits::DEFAULT
    }
}

/// Between a pool and its upstreams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficPolicy {
    /// How long an upstream may take.
    pub timeouts: UpstreamTimeouts,
    /// Which connections are kept.
    pub connections: UpstreamConnections,
    /// What is sent again.
    pub retry: RetryPolicy,
    /// The protocols to which requests may switch.
    pub upgrades: Upgrades,
}

/// `timeouts` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To connect.
    pub connect: Duration,
    /// From the last byte of the request until the whole response head is there: then 504.
    pub first_byte: Duration,
    /// Between two reads of a response body, and between two writes of a request body (504).
    pub idle: Duration,
    /// An upgraded connection without a byte in either direction.
    pub tunnel_idle: Duration,
    /// The same once one of its sides has ended: what still flows the other way keeps the connection, silence does not.
    pub tunnel_half_idle: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> UpstreamTimeouts {
        UpstreamTimeouts {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(3_600),
            tunnel_half_idle: Duration::from_secs(60),
        }
    }
}

/// `connections` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamConnections {
    /// Idle connections kept per upstream; 0: none.
    pub idle_per_upstream: usize,
    /// How long an idle connection is kept: shorter than what common servers keep (Node and uvicorn: 5 s).
    pub idle_timeout: Duration,
}

impl Default for UpstreamConnections {
    fn default() -> UpstreamConnections {
        UpstreamConnections { idle_per_upstream: 128, idle_timeout: Duration::from_secs(4) }
    }
}

/// `retry` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: u32,
    /// After which failures.
    pub on: RetryOn,
    /// A method that is not idempotent may be carried out twice.
    pub non_idempotent: bool,
    /// How many retries there may be.
    pub budget: RetryBudget,
    /// The most bytes of a request body that are kept so that it can be sent again. The general lane keeps at most 64 KiB.
    pub replay_bytes: usize,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        let (on, budget) = (RetryOn::default(), RetryBudget::default());
        RetryPolicy { retries: 1, on, non_idempotent: false, budget, replay_bytes: 64 * 1024 }
    }
}

/// A failure after which a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryCause {
    /// No connection could be made: nothing was sent.
    Connect,
    /// The connection broke before a whole response head.
    Reset,
    /// No response head in time.
    Timeout,
    /// The response has status 502.
    BadGateway,
    /// The response has status 503.
    Unavailable,
    /// The response has status 504.
    GatewayTimeout,
}

impl RetryCause {
    /// The cause that a response with this status is.
    pub fn of_status(status: u16) -> Option<RetryCause> {
        match status {
            502 => Some(RetryCause::BadGateway),
            503 => Some(RetryCause::Unavailable),
            504 => Some(RetryCause::GatewayTimeout),
            _ => None,
        }
    }
}

/// The failures after which requests are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryOn(u8);

impl RetryOn {
    /// These.
    pub fn new(causes: impl IntoIterator<Item = RetryCause>) -> RetryOn {
        RetryOn(causes.into_iter().fold(0, |bits, cause| bits | 1 << cause as u8))
    }

    /// Whether this is one of them.
    pub fn has(self, cause: RetryCause) -> bool {
        self.0 & 1 << cause as u8 != 0
    }
}

impl Default for RetryOn {
    fn default() -> RetryOn {
        RetryOn::new([RetryCause::Connect, RetryCause::Reset])
    }
}

/// `budget` of `retry`: how many retries a pool may make in ten seconds. Those after a failed connect are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of the requests of these ten seconds.
    pub share: Ratio,
    /// So many more for each second.
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { share: Ratio::percent(20), min_per_second: 10 }
    }
}
