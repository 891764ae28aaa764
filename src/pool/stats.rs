//! Counters of the data path, held by pools and read by `metrics` at scrape time. Plain atomics: the request path looks
//! nothing up by name and takes no lock. What every request writes is in [`Sharded`] counters, which no two workers share;
//! the others say how often they are written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::sharded::Sharded;
use crate::model::Code;
use crate::model::policy::Failure;

/// Counters of one pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    traffic: Sharded<Traffic>,
    /// Responses that we generated ourselves, by reason.
    pub answers: ReasonCount,
    /// Attempts after the first. All workers share it: one write for each of them.
    pub retries: Retries,
    /// Those that the budget did not allow. All workers share it: one write for each of them.
    pub retries_refused: AtomicU64,
    /// All workers share it: one write for each request that has waited.
    queue_seconds: Histogram,
    /// Probes of its upstreams by outcome, in the order of `Code::ALL`.
    pub probes: [AtomicU64; Code::ALL.len()],
    /// The duration of those probes.
    pub probe_seconds: Histogram,
}

/// Attempts after the first, by what the one before failed with.
#[derive(Debug, Default)]
pub struct Retries([AtomicU64; Failure::ALL.len()]);

impl Retries {
    /// Counts one.
    pub fn inc(&self, cause: Failure) {
        self.0[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those for this reason.
    pub fn of(&self, cause: Failure) -> u64 {
        self.0[cause as usize].load(Ordering::Relaxed)
    }

    /// All.
    pub fn total(&self) -> u64 {
        Failure::ALL.into_iter().map(|cause| self.of(cause)).sum()
    }
}

/// Requests of one route, by the class of the status that the client got.
#[derive(Debug, Default)]
pub struct RouteStats(Sharded<[AtomicU64; RequestClass::ALL.len()]>);

impl RouteStats {
    /// Counts one that has ended.
    pub fn inc(&self, class: RequestClass) {
        self.0.mine()[class as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those of this class.
    pub fn get(&self, class: RequestClass) -> u64 {
        self.0.all().map(|counts| counts[class as usize].load(Ordering::Relaxed)).sum()
    }
}

/// What every request of a pool counts, in the memory of its worker.
#[derive(Debug, Default)]
struct Traffic {
    requests: [AtomicU64; RequestClass::ALL.len()],
    request_seconds: Histogram,
    upstream_seconds: Histogram,
}

impl PoolStats {
    /// Counts one finished request.
    pub fn record_request(&self, class: RequestClass, took: Duration) {
        let traffic = self.traffic.mine();
        traffic.requests[class as usize].fetch_add(1, Ordering::Relaxed);
        traffic.request_seconds.observe(took);
    }

    /// Counts one request that was dropped in the middle; how long it took is not known.
    pub fn record_dropped(&self) {
        self.traffic.mine().requests[RequestClass::Aborted as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the time from sending a request to the upstream to the upstream's response head.
    pub fn record_upstream(&self, took: Duration) {
        self.traffic.mine().upstream_seconds.observe(took);
    }

    /// Counts a request that has waited for a place since then.
    pub fn record_queued(&self, since: Option<Instant>, now: Instant) {
        if let Some(since) = since {
            self.queue_seconds.observe(now.saturating_duration_since(since));
        }
    }

    /// Requests by the class of the status that the client got.
    pub fn requests(&self, class: RequestClass) -> u64 {
        self.traffic.all().map(|traffic| traffic.requests[class as usize].load(Ordering::Relaxed)).sum()
    }

    /// How long requests waited for a place on an upstream, whatever came of it.
    pub fn queue_seconds(&self) -> Distribution {
        self.queue_seconds.read()
    }

    /// From the complete request head to the end of the response.
    pub fn request_seconds(&self) -> Distribution {
        Distribution::sum(self.traffic.all().map(|traffic| &traffic.request_seconds))
    }

    /// From sending the request to the upstream to the upstream's response head.
    pub fn upstream_seconds(&self) -> Distribution {
        Distribution::sum(self.traffic.all().map(|traffic| &traffic.upstream_seconds))
    }

    /// Counts one finished probe of an upstream of this pool.
    pub fn record_probe(&self, code: Code, took: Duration) {
        self.probes[code as usize].fetch_add(1, Ordering::Relaxed);
        self.probe_seconds.observe(took);
    }
}

/// Counters of the listeners, of what belongs to no pool.
#[derive(Debug, Default)]
pub struct FrontStats {
    /// Client connections accepted. All workers share this and the counts below: one write, or two, for each connection.
    pub connections: AtomicU64,
    /// Client connections open now.
    pub connections_open: AtomicU64,
    /// Connections closed because their client sent nothing in time.
    pub silent: AtomicU64,
    /// Connections closed because their client had as many as it may.
    pub refused: AtomicU64,
    /// How often accepting paused because descriptors or memory ran out.
    pub accept_rests: AtomicU64,
    /// Our own responses to requests that reached no pool, rejected heads included.
    pub answers: ReasonCount,
    by_lane: Sharded<[AtomicU64; RequestLane::ALL.len()]>,
}

impl FrontStats {
    /// Counts a request for which an upstream was picked, and which this lane has had to its end, or to a switch of protocols.
    pub fn count_lane(&self, lane: RequestLane) {
        self.by_lane.mine()[lane as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests by lane, in the order of the enum.
    pub fn by_lane(&self) -> [(RequestLane, u64); RequestLane::ALL.len()] {
        let sum = |lane: usize| self.by_lane.all().map(|shard| shard[lane].load(Ordering::Relaxed)).sum();
        RequestLane::ALL.map(|lane| (lane, sum(lane as usize)))
    }
}

/// What carries a request to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestLane {
    /// Our own lane for HTTP/1.
    Express,
    /// pingora-proxy.
    General,
    /// Our own lane, up to a switch of protocols; then a tunnel.
    Tunnel,
}

impl RequestLane {
    /// Every lane, in the order of the enum.
    pub const ALL: [RequestLane; 3] = [RequestLane::Express, RequestLane::General, RequestLane::Tunnel];

    /// The word used in metrics and status.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestLane::Express => "express",
            RequestLane::General => "general",
            RequestLane::Tunnel => "tunnel",
        }
    }
}

/// The outcome of a request: the class of the status that the client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestClass {
    /// 101.
    Informational,
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// 500 to 599, and 600 to 999, which a client takes for the same (RFC 9110, 15).
    ServerError,
    /// The client left before it got a status, or the response ended early.
    Aborted,
}

impl RequestClass {
    /// Every class, in the order of the enum.
    pub const ALL: [RequestClass; 6] = [
        RequestClass::Informational,
        RequestClass::Success,
        RequestClass::Redirection,
        RequestClass::ClientError,
        RequestClass::ServerError,
        RequestClass::Aborted,
    ];

    /// The class of a status; codes outside 100 to 999 never get this far.
    pub fn of(status: u16) -> RequestClass {
        match status {
            0..=199 => RequestClass::Informational,
            200..=299 => RequestClass::Success,
            300..=399 => RequestClass::Redirection,
            400..=499 => RequestClass::ClientError,
            500.. => RequestClass::ServerError,
        }
    }

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestClass::Informational => "1xx",
            RequestClass::Success => "2xx",
            RequestClass::Redirection => "3xx",
            RequestClass::ClientError => "4xx",
            RequestClass::ServerError => "5xx",
            RequestClass::Aborted => "aborted",
        }
    }
}

macro_rules! answer_reasons {
    ($($(#[$doc:meta])* $name:ident = ($status:literal, $word:literal),)*) => {
        /// Why we responded ourselves. The word is in the response body and in metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AnswerReason { $($(#[$doc])* $name,)* }

        impl AnswerReason {
            /// Every reason, in the order of the enum.
            pub const ALL: [AnswerReason; [$($status),*].len()] = [$(AnswerReason::$name),*];

            /// The reason code in bodies, logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(AnswerReason::$name => $word,)* }
            }

            /// The status it goes with.
            pub fn status(self) -> u16 {
                match self { $(AnswerReason::$name => $status,)* }
            }
        }
    };
}

answer_reasons! {
    /// The head or a chunk is invalid, or two parsers could read it differently.
    Malformed = (400, "malformed"),
    /// No route matches, and the listener has no pool.
    NoRoute = (404, "no_route"),
    /// CONNECT or TRACE.
    Method = (405, "method"),
    /// The head did not arrive in time.
    HeaderTimeout = (408, "header_timeout"),
    /// The rest of the body did not arrive in time.
    BodyTimeout = (408, "body_timeout"),
    /// The body is too large.
    BodyTooLarge = (413, "body_too_large"),
    /// The target is too long.
    TargetTooLong = (414, "target_too_long"),
    /// An expectation other than 100-continue.
    Expectation = (417, "expectation"),
    /// A `rate_limit` is used up.
    RateLimited = (429, "rate_limited"),
    /// The head is too large or has too many fields.
    HeadTooLarge = (431, "head_too_large"),
    /// A transfer coding that we do not support.
    NotImplemented = (501, "not_implemented"),
    /// No connection to an upstream could be made.
    ConnectFailed = (502, "connect_failed"),
    /// The upstream closed or reset the connection before its response head.
    UpstreamBroke = (502, "upstream_broke"),
    /// The upstream's response is malformed.
    BadResponse = (502, "bad_response"),
    /// No upstream is eligible.
    NoneEligible = (503, "none_eligible"),
    /// Too many requests wait already.
    QueueFull = (503, "queue_full"),
    /// No upstream had a free place in time.
    QueueTimeout = (503, "queue_timeout"),
    /// We have no descriptors or ports left.
    Resources = (503, "resources"),
    /// Connecting to the upstream took too long.
    ConnectTimeout = (504, "connect_timeout"),
    /// The response took too long.
    UpstreamTimeout = (504, "upstream_timeout"),
    /// The time of the whole request was over.
    RequestTimeout = (504, "request_timeout"),
    /// An HTTP version that we do not support.
    Version = (505, "version"),
}

/// One counter per reason.
#[derive(Debug, Default)]
pub struct ReasonCount([AtomicU64; AnswerReason::ALL.len()]);

impl ReasonCount {
    /// Counts one.
    pub fn inc(&self, reason: AnswerReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self, reason: AnswerReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}

/// A histogram of durations with fixed bounds, from 0.5 ms to 60 s.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; Histogram::BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Upper bounds in microseconds; one more bucket takes the rest.
    pub const BOUNDS_US: [u64; 16] = [
        500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
        10_000_000, 30_000_000, 60_000_000,
    ];

    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = Histogram::BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Its values now.
    pub fn read(&self) -> Distribution {
        Distribution::sum([self])
    }
}

/// The values of histograms at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Distribution {
    /// Counts per bucket, not cumulative; the last bucket counts what exceeds every bound.
    pub counts: [u64; Histogram::BOUNDS_US.len() + 1],
    /// The sum of all durations, in seconds.
    pub seconds: f64,
}

impl Distribution {
    fn sum<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Distribution {
        let (mut counts, mut us) = ([0; Histogram::BOUNDS_US.len() + 1], 0);
        for histogram in histograms {
            for (count, bucket) in counts.iter_mut().zip(&histogram.buckets) {
                *count += bucket.load(Ordering::Relaxed);
            }
            us += histogram.sum_us.load(Ordering::Relaxed);
        }
        Distribution { counts, seconds: us as f64 / 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_order_of_their_enums() {
        for (i, class) in RequestClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, i);
        }
        for (i, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, i);
        }
        for (i, lane) in RequestLane::ALL.into_iter().enumerate() {
            assert_eq!(lane as usize, i);
        }
        for (i, reason) in AnswerReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }

    #[test]
    fn a_duration_on_a_bound_belongs_below_it() {
        let h = Histogram::default();
        for us in [500, 501, 70_000_000] {
            h.observe(Duration::from_micros(us));
        }
        let Distribution { counts, seconds } = h.read();
        assert_eq!((counts[0], counts[1], counts[16]), (1, 1, 1));
        assert!((seconds - 70.001_001).abs() < 1e-9);
    }
}
