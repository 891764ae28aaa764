//! How requests travel: the limits and timeouts of a listener's clients, and those of a pool's upstreams. The defaults of
//! their keys are given here.
//!
//! The parts are plain numbers, so that whatever carries a request copies what it needs and holds nothing.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
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
    /// Bytes of a request body, without its framing: then 413; `None`: any number.
    pub body_bytes: Option<u64>,
    /// Open connections of the listener: at the limit no other is accepted; `None`: as many as there are descriptors.
    pub connections: Option<NonZeroU32>,
    /// Open connections of one client address: another one is closed at once; `None`: any number.
    pub connections_per_client: Option<NonZeroU32>,
    /// Requests of one connection: the answer to the last of them closes it; `None`: any number.
    pub requests_per_connection: Option<NonZeroU32>,
}

impl ClientLimits {
    /// What holds without keys.
    pub const DEFAULT: ClientLimits = ClientLimits {
        header_bytes: 32 * 1024,
        headers: 100,
        target_bytes: 16 * 1024,
        body_bytes: None,
        connections: None,
        connections_per_client: None,
        requests_per_connection: None,
    };

    /// No configuration allows more: for a head that has passed its own limits before.
    pub const MAX: ClientLimits =
        ClientLimits { header_bytes: 1 << 16, headers: 1 << 16, target_bytes: 1 << 16, ..ClientLimits::DEFAULT };
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits::DEFAULT
    }
}

/// Between a pool and its upstreams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficPolicy {
    /// Each upstream has a histogram of how long it takes.
    pub histograms: bool,
    /// The cookie by which requests stay with an upstream.
    pub sticky: Option<Arc<str>>,
    /// How long an upstream may take.
    pub timeouts: UpstreamTimeouts,
    /// Which connections are kept.
    pub connections: UpstreamConnections,
    /// What is sent again.
    pub retry: RetryPolicy,
    /// When live traffic ejects an upstream.
    pub passive: PassivePolicy,
    /// What becomes of requests in flight at an upstream that is lost.
    pub leaving: LeavingPolicy,
    /// What of requests and upstreams `balance` needs to know.
    pub choosing: Choosing,
    /// How long the weight of an upstream grows that recovers, is let back or is added; zero: it has all of it at once.
    pub slow_start: Duration,
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
    /// Over a whole request, from its head to the end of its response, retries and waits included: then 504. `None`: no limit.
    pub request: Option<Duration>,
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
            request: None,
            tunnel_idle: Duration::from_secs(3_600),
            tunnel_half_idle: Duration::from_secs(60),
        }
    }
}

/// `connections` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamConnections {
    /// The most requests in flight at each upstream; `None`: no limit.
    pub max_per_upstream: Option<u32>,
    /// The most requests that wait for a free place.
    pub queue_length: u32,
    /// How long they wait: then 503.
    pub queue_timeout: Duration,
    /// Idle connections kept per upstream; 0: none.
    pub idle_per_upstream: usize,
    /// How long an idle connection is kept: shorter than what common servers keep (Node and uvicorn: 5 s).
    pub idle_timeout: Duration,
}

impl UpstreamConnections {
    /// What holds without keys.
    pub const DEFAULT: UpstreamConnections = UpstreamConnections {
        max_per_upstream: None,
        queue_length: 0,
        queue_timeout: Duration::from_secs(1),
        idle_per_upstream: 128,
        idle_timeout: Duration::from_secs(4),
    };
}

impl Default for UpstreamConnections {
    fn default() -> UpstreamConnections {
        UpstreamConnections::DEFAULT
    }
}

/// `retry` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: u32,
    /// After which failures.
    pub on: Failures,
    /// A method that is not idempotent may be carried out twice.
    pub non_idempotent: bool,
    /// How many retries there may be.
    pub budget: RetryBudget,
    /// The most bytes of a request body that are kept so that it can be sent again. The general lane keeps at most 64 KiB.
    pub replay_bytes: usize,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        let (on, budget) = (Failures::new([Failure::Connect, Failure::Reset]), RetryBudget::default());
        RetryPolicy { retries: 1, on, non_idempotent: false, budget, replay_bytes: 64 * 1024 }
    }
}

/// How a request fails on an upstream: it may be sent again (`retry`), and an upstream where it happens several times in a
/// row may be ejected (`passive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// No connection could be made: nothing was sent.
    Connect,
    /// The connection broke before a whole response head. For `passive`, a malformed head counts too.
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

impl Failure {
    /// Every one.
    pub const ALL: [Failure; 6] = [
        Failure::Connect,
        Failure::Reset,
        Failure::Timeout,
        Failure::BadGateway,
        Failure::Unavailable,
        Failure::GatewayTimeout,
    ];

    /// The word used in the file, JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Reset => "reset",
            Failure::Timeout => "timeout",
            Failure::BadGateway => "502",
            Failure::Unavailable => "503",
            Failure::GatewayTimeout => "504",
        }
    }

    /// The failure that a response with this status is.
    pub fn of_status(status: u16) -> Option<Failure> {
        match status {
            502 => Some(Failure::BadGateway),
            503 => Some(Failure::Unavailable),
            504 => Some(Failure::GatewayTimeout),
            _ => None,
        }
    }
}

/// A set of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures(u8);

impl Failures {
    /// These.
    pub fn new(failures: impl IntoIterator<Item = Failure>) -> Failures {
        Failures(failures.into_iter().fold(0, |bits, failure| bits | 1 << failure as u8))
    }

    /// Those of this number, which [`Failures::bits`] gave.
    pub fn from_bits(bits: u8) -> Failures {
        Failures(bits)
    }

    /// A number for this set.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether this is one of them.
    pub fn has(self, failure: Failure) -> bool {
        self.0 & 1 << failure as u8 != 0
    }

    /// Whether there are no others than this one.
    pub fn is_only(self, failure: Failure) -> bool {
        self == Failures::new([failure])
    }

    /// Whether one of them is a response.
    pub fn has_status(self) -> bool {
        [Failure::BadGateway, Failure::Unavailable, Failure::GatewayTimeout].into_iter().any(|status| self.has(status))
    }
}

/// `connect, 503`.
impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Failure::ALL.into_iter().filter(|failure| self.has(*failure));
        for (index, failure) in all.enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, failure.as_str())?;
        }
        Ok(())
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

/// `passive` of a pool: an upstream whose requests fail is ejected, that is, gets none for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassivePolicy {
    /// So many failures in a row eject; 0: none do.
    pub consecutive_failures: u32,
    /// What counts as a failure.
    pub failures: Failures,
    /// How long the first ejection lasts; the second takes twice as long, and so on.
    pub base: Duration,
    /// The longest ejection; and with each such time without one, the next is shorter by `base`.
    pub max: Duration,
    /// The largest share of the primaries, or of the backups, that may be ejected; of two or more one always may.
    pub max_share: Ratio,
}

impl PassivePolicy {
    /// Whether upstreams are ejected at all.
    pub fn is_on(&self) -> bool {
        self.consecutive_failures > 0
    }
}

impl Default for PassivePolicy {
    fn default() -> PassivePolicy {
        PassivePolicy {
            consecutive_failures: 5,
            failures: Failures::new(Failure::ALL),
            base: Duration::from_secs(10),
            max: Duration::from_secs(300),
            max_share: Ratio::percent(50),
        }
    }
}

/// What an algorithm needs to know that is not known without it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choosing {
    /// What requests are hashed by.
    pub key: Option<HashKey>,
    /// How long upstreams take to answer.
    pub latency: bool,
    /// How many requests of the pool are in flight.
    pub load: bool,
}

/// What a request is hashed or counted by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HashKey {
    /// The address of its client.
    #[default]
    ClientIp,
    /// Its path, in normal form and without the query.
    Path,
    /// The value of this field, a name in lower case; the first of several.
    Header(Arc<str>),
    /// The value of this cookie.
    Cookie(Arc<str>),
}

/// `client_ip`, `header:x-user`.
impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::ClientIp => f.write_str("client_ip"),
            HashKey::Path => f.write_str("path"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// `drain_timeout`, `tunnel_drain` and `on_unhealthy` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeavingPolicy {
    /// How long requests in flight at a removed or draining upstream may last; `None`: until their own time is over.
    pub requests: Option<Duration>,
    /// The same for tunnels.
    pub tunnels: Duration,
    /// What is in flight at an upstream that becomes unhealthy ends at once.
    pub close_unhealthy: bool,
}

impl LeavingPolicy {
    /// Whether a request in flight may have to end.
    pub fn ends_requests(&self) -> bool {
        self.requests.is_some() || self.close_unhealthy
    }
}

impl Default for LeavingPolicy {
    fn default() -> LeavingPolicy {
        LeavingPolicy { requests: None, tunnels: Duration::from_secs(3_600), close_unhealthy: false }
    }
}

/// `on_unhealthy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnhealthy {
    /// What is in flight goes on.
    Keep,
    /// It ends at once.
    Close,
}
