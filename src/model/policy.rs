//! Validated configuration: what `config` makes of a file. The rest of the code sees only this.
//!
//! Every value here has been validated. Equality of two values means that no difference is visible to a user, so a
//! reload that yields an equal [`Config`] changes nothing.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::secret::may_name_a_secret;
use super::{Address, AdminState, Name, Ratio, Secret, Weight};

mod access;
mod check;
mod describe;
mod expect;
mod files;
mod forwarded;
mod rules;
mod steps;
mod traffic;
mod upgrades;

pub use access::*;
pub use check::*;
pub use describe::Hex;
pub use expect::*;
pub use files::*;
pub use forwarded::*;
pub use rules::*;
pub use steps::*;
pub use traffic::*;
pub use upgrades::*;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Process-wide settings.
    pub runtime: RuntimePolicy,
    /// Listening sockets, in file order; no two share an address.
    pub listeners: Vec<ListenerPolicy>,
    /// Routes in file order; `route` decides the order of matching.
    pub routes: Vec<RoutePolicy>,
    /// Pools in file order, at least one, names distinct.
    pub pools: Vec<Arc<PoolPolicy>>,
    /// The admin socket.
    pub admin: AdminPolicy,
    /// What is believed of who a request is from.
    pub forwarded: Arc<ForwardedPolicy>,
    /// Which requests are logged; `None`: none.
    pub access_log: Option<Arc<AccessPolicy>>,
}

/// The most pools that one request may try: its own, and the fallbacks by `when_no_healthy = { pool = … }`.
pub const FALLBACK_POOLS_MAX: usize = 8;

/// What carries the requests that are no tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lane {
    /// The express lane where it can, and else the general one.
    #[default]
    Auto,
    /// The general lane.
    General,
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimePolicy {
    /// Worker threads of the data plane; `None`: the cores this process may use. A change needs a restart.
    pub threads: Option<NonZeroUsize>,
    /// What carries requests. A change needs a restart.
    pub lane: Lane,
    /// On TERM: how long readiness fails while connections are still accepted.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
}

/// `[listeners.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// Its name, which routes refer to.
    pub name: Name,
    /// The socket.
    pub address: Address,
    /// Where requests go that match no route; without it they get 404.
    pub pool: Option<Name>,
    /// Its limits and timeouts.
    pub client: ClientPolicy,
    /// How many requests it lets through.
    pub rate_limit: Option<RateLimit>,
    /// What it adds to requests.
    pub marks: Arc<Marks>,
    /// The path, in normal form, that is answered as `/readyz` of the admin is, before routing.
    pub ready_path: Option<Arc<str>>,
}

/// One of `[[routes]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Which hosts it matches.
    pub host: HostPattern,
    /// Which paths it matches.
    pub path: PathPattern,
    /// Which methods it matches; empty: all.
    pub methods: Vec<Arc<str>>,
    /// On which listener; `None`: on all.
    pub listener: Option<Name>,
    /// What else its requests have: all of it. At most one of each part and name.
    pub conditions: Vec<Condition>,
    /// Where its requests go: at least one pool with a weight above 0, or none if its rules have an answer.
    pub pools: Vec<PoolShare>,
    /// What else is done with its requests.
    pub rules: Option<Arc<RouteRules>>,
}

/// What requests a route is for, in a form in which equal ones are equal. No two routes of a configuration have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Matching {
    host: HostPattern,
    path: PathPattern,
    methods: Vec<Arc<str>>,
    listener: Option<Name>,
    conditions: Vec<Condition>,
}

/// `GET,HEAD api.example.com/v1 on web header:x-beta=1`, for people and metrics. What has the name of a secret is not shown.
impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Matching { host, path, methods, listener, conditions } = self;
        if !methods.is_empty() {
            write!(f, "{} ", methods.join(","))?;
        }
        match host {
            HostPattern::Any => {}
            HostPattern::Exact(host) => f.write_str(host)?,
            HostPattern::Suffix(suffix) => write!(f, "*{suffix}")?,
        }
        match path {
            PathPattern::Prefix(path) => f.write_str(path)?,
            PathPattern::Exact(path) => write!(f, "={path}")?,
        }
        if let Some(listener) = listener {
            write!(f, " on {listener}")?;
        }
        conditions.iter().try_for_each(|Condition { part, name, value }| {
            let part = match part {
                RequestPart::Header => "header",
                RequestPart::Query => "query",
                RequestPart::Cookie => "cookie",
            };
            write!(f, " {part}:{name}")?;
            match value {
                None => Ok(()),
                Some(_) if may_name_a_secret(name) => f.write_str("=*"),
                Some(value) => write!(f, "={value}"),
            }
        })
    }
}

impl RoutePolicy {
    /// What requests it is for.
    pub fn matching(&self) -> Matching {
        let RoutePolicy { host, path, methods, listener, conditions, pools: _, rules: _ } = self.clone();
        let mut matching = Matching { host, path, methods, listener, conditions };
        matching.methods.sort();
        matching.conditions.sort();
        matching
    }
}

/// A pool of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolShare {
    /// The pool.
    pub pool: Name,
    /// Its share of the requests, as a part of the sum of all weights of the route.
    pub weight: u32,
}

impl PoolShare {
    /// All requests go to this pool.
    pub fn all(pool: Name) -> Vec<PoolShare> {
        vec![PoolShare { pool, weight: 1 }]
    }
}

/// `header`, `query` and `cookie` of a route: something that its requests have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Condition {
    /// Where it is.
    pub part: RequestPart,
    /// Its name; of a field in lower case.
    pub name: Arc<str>,
    /// Its whole value; `None`: any.
    pub value: Option<Arc<str>>,
}

impl Condition {
    /// Whether every request that meets this meets the other.
    pub fn implies(&self, other: &Condition) -> bool {
        let same = (self.part, &self.name) == (other.part, &other.name);
        same && (other.value.is_none() || self.value == other.value)
    }
}

/// A part of a request head with names and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestPart {
    /// The fields of the head.
    Header,
    /// The query of the target.
    Query,
    /// The cookies.
    Cookie,
}

/// Which hosts a route matches. Texts are lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host, and requests without one.
    Any,
    /// This host.
    Exact(Arc<str>),
    /// Every host that ends in this, which begins with a dot: `*.example.com` is `.example.com`.
    Suffix(Arc<str>),
}

/// Which paths a route matches. Texts begin with `/` and are in the normal form in which requests are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path and everything below it: `/v1` matches `/v1` and `/v1/x`, not `/v10`. `/` matches everything. Stored
    /// without a trailing slash, except `/` itself.
    Prefix(Arc<str>),
    /// Exactly this path.
    Exact(Arc<str>),
}

/// `[pools.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolPolicy {
    /// Its name.
    pub name: Name,
    /// Its upstreams in file order: at least one, addresses distinct.
    pub upstreams: Vec<UpstreamPolicy>,
    /// How one of the eligible upstreams is chosen.
    pub balance: Balance,
    /// What happens while too few are healthy.
    pub when_no_healthy: WhenNoHealthy,
    /// The fewest healthy upstreams with which the pool serves.
    pub min_healthy: MinHealthy,
    /// How its upstreams are checked: at least one check, names distinct.
    pub checks: Vec<CheckPolicy>,
    /// How many of the checks must pass.
    pub require: Require,
    /// How often the host names among its upstreams are resolved; 1 s to 24 h.
    pub resolve: Duration,
    /// How its requests travel.
    pub traffic: Arc<TrafficPolicy>,
}

/// One upstream of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// Where its requests go. In the file it may be a name; `discovery` replaces the name by its addresses, and leaves
    /// it if there are none yet.
    pub address: Address,
    /// The host name that resolved to the address; the default of its checks' Host and TLS name.
    pub name: Option<Arc<str>>,
    /// Its share of the traffic.
    pub weight: Weight,
    /// Used only while no primary is eligible.
    pub backup: bool,
    /// Where its checks go, regardless of the check's port rule.
    pub health_address: Option<Address>,
    /// The admin state in the file; one set at run time wins.
    pub admin: AdminState,
}

/// `balance`. What requests are hashed by is in [`TrafficPolicy::choosing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, exact over a cycle.
    RoundRobin,
    /// Weighted random.
    Random,
    /// Fewest requests in flight for its weight.
    LeastRequest,
    /// Likely to answer first: latency and requests in flight.
    PeakEwma,
    /// Consistent hashing on a ring.
    Hash(LoadBound),
    /// Maglev hashing.
    Maglev(LoadBound),
    /// The first that can be taken, in file order.
    First,
}

impl Balance {
    /// Whether it chooses by a key of the request.
    pub fn hashes(self) -> bool {
        matches!(self, Balance::Hash(_) | Balance::Maglev(_))
    }

    /// Whether it needs to know how many requests of the pool are in flight.
    pub fn is_bounded(self) -> bool {
        matches!(self, Balance::Hash(bound) | Balance::Maglev(bound) if bound.hundredths().is_some())
    }

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::Random => "random",
            Balance::LeastRequest => "least_request",
            Balance::PeakEwma => "peak_ewma",
            Balance::Hash(_) => "hash",
            Balance::Maglev(_) => "maglev",
            Balance::First => "first",
        }
    }
}

/// `bounded_load`: how many times its share of the requests in flight an upstream may have before a key goes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadBound(u32);

impl LoadBound {
    /// What holds without a key.
    pub const DEFAULT: LoadBound = LoadBound(125);
    /// None.
    pub const NONE: LoadBound = LoadBound(0);

    /// `None` unless it is a number from 1 to 100, or 0 for none; two digits of its fraction count.
    pub fn try_new(times: f64) -> Option<LoadBound> {
        if times == 0.0 {
            return Some(LoadBound::NONE);
        }
        (times.is_finite() && (1.0..=100.0).contains(&times)).then(|| LoadBound((times * 100.0).round() as u32))
    }

    /// In hundredths; `None`: there is no bound.
    pub fn hundredths(self) -> Option<u32> {
        (self.0 > 0).then_some(self.0)
    }
}

/// `when_no_healthy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhenNoHealthy {
    /// 503 with `Retry-After`.
    Reject,
    /// Use every upstream that is neither disabled nor draining.
    FailOpen,
    /// Use another pool; no cycles.
    Pool(Name),
}

/// `min_healthy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinHealthy {
    /// This many, at least 1.
    Count(u32),
    /// This share of the pool's upstreams, rounded up, at least one.
    Share(Ratio),
}

impl MinHealthy {
    /// How many of `total` upstreams must be healthy, at least 1.
    pub fn needed(self, total: usize) -> usize {
        match self {
            MinHealthy::Count(n) => (n as usize).max(1),
            MinHealthy::Share(share) => share.of_rounded_up(total).max(1),
        }
    }
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminPolicy {
    /// Where it listens.
    pub address: Address,
    /// Whether the table is in the file: then a failed bind is fatal, otherwise a warning.
    pub written: bool,
    /// The bearer token.
    pub token: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_at_least_one() {
        assert_eq!(MinHealthy::Share(Ratio::try_new(0.3).unwrap()).needed(10), 3);
        assert_eq!(MinHealthy::Share(Ratio::ZERO).needed(10), 1);
    }
}
