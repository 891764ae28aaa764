//! Validated configuration: what `config` makes of a file, and all that the rest of the house ever sees of it.
//!
//! Every value here has passed its checks; equality of two values means that nothing a user can observe differs, so a
//! reload that yields an equal [`Config`] changes nothing.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::{Address, AdminState, Name, Ratio, Secret, Weight};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Process-wide settings.
    pub runtime: RuntimePolicy,
    /// Listening sockets, in file order; no two share an address.
    pub listeners: Vec<ListenerPolicy>,
    /// Routes in file order; the order they are tried in is `route`'s business.
    pub routes: Vec<RoutePolicy>,
    /// Pools in file order, at least one, names distinct.
    pub pools: Vec<Arc<PoolPolicy>>,
    /// The admin socket.
    pub admin: AdminPolicy,
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimePolicy {
    /// Worker threads of the data plane; `None`: the cores this process may use. A change needs a restart.
    pub threads: Option<NonZeroUsize>,
    /// On TERM: how long readiness is red while connections are still accepted.
    pub drain_delay: Duration,
    /// How long what is in flight may then take.
    pub drain_timeout: Duration,
}

/// `[listeners.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// Its name, which routes refer to.
    pub name: Name,
    /// The socket.
    pub address: Address,
    /// Where requests go that no route takes; without it they get 404.
    pub pool: Option<Name>,
}

/// One of `[[routes]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Which hosts it takes.
    pub host: HostPattern,
    /// Which paths it takes.
    pub path: PathPattern,
    /// Which methods it takes; empty: all.
    pub methods: Vec<Arc<str>>,
    /// On which listener; `None`: on all.
    pub listener: Option<Name>,
    /// Where its requests go.
    pub pool: Name,
}

/// Which hosts a route takes. Texts are lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host, and requests without one.
    Any,
    /// This host.
    Exact(Arc<str>),
    /// Every host that ends in this, which begins with a dot: `*.example.com` is `.example.com`.
    Suffix(Arc<str>),
}

/// Which paths a route takes. Texts begin with `/` and are in the normal form that requests are compared in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path and everything below it: `/v1` takes `/v1` and `/v1/x`, not `/v10`. `/` takes everything. Kept without
    /// a trailing slash, `/` itself excepted.
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
    /// How one of the eligible is chosen.
    pub balance: Balance,
    /// What happens while too few are healthy.
    pub when_no_healthy: WhenNoHealthy,
    /// How few count as none.
    pub min_healthy: MinHealthy,
    /// How its upstreams are checked.
    pub check: CheckPolicy,
}

/// One upstream of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// Where its requests go.
    pub address: Address,
    /// Its share of the traffic.
    pub weight: Weight,
    /// Used only while no primary is eligible.
    pub backup: bool,
    /// Where its checks go, over every port rule of the check.
    pub health_address: Option<Address>,
    /// What the file says of it; an override given at run time wins.
    pub admin: AdminState,
}

/// `balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, exact over a cycle.
    RoundRobin,
    /// Weighted random.
    Random,
    /// Fewest requests in flight for its weight.
    LeastRequest,
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

/// `[pools.NAME.health]`: what is asked, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPolicy {
    /// What a probe does and what it expects. A change of it is a change of definition.
    pub spec: Arc<ProbeSpec>,
    /// When probes run and how many make a verdict.
    pub timing: Timing,
}

/// When probes run and how many make a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// From start to start of probes; 10 ms to 24 h.
    pub interval: Duration,
    /// Over one whole probe; at most `interval`.
    pub timeout: Duration,
    /// Consecutive passes that make an upstream healthy; 1 to 1,000.
    pub healthy_threshold: u32,
    /// Consecutive failures that make it unhealthy; 1 to 1,000.
    pub unhealthy_threshold: u32,
    /// The interval while a streak against the present state is open; at most `interval`.
    pub fast_interval: Duration,
    /// How long after first sight failures are not counted.
    pub start_period: Duration,
    /// Share of `interval`, both ways, 0 to 0.5.
    pub jitter: Ratio,
}

impl Timing {
    /// The longest a dead upstream can stay healthy (health.md, "Time and load").
    pub fn worst_detection(&self) -> Duration {
        self.interval.mul_f64(1.0 + self.jitter.as_f64())
            + self.fast_interval.max(self.timeout) * (self.unhealthy_threshold - 1)
            + self.timeout
    }

    /// After this long without the end of a probe a verdict is out of date.
    pub fn stale_after(&self) -> Duration {
        (3 * (self.interval + self.timeout)).max(Duration::from_secs(30))
    }
}

/// What a probe does. A new kind is a new variant; the compiler then lists the places to visit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProbeSpec {
    /// Connect and close.
    Tcp(TcpProbe),
    /// One HTTP/1.1 request.
    Http(HttpProbe),
}

impl ProbeSpec {
    /// The address a probe of `upstream` dials.
    pub fn target(&self, upstream: &UpstreamPolicy) -> Address {
        let rule = match self {
            ProbeSpec::Tcp(p) => p.port,
            ProbeSpec::Http(p) => p.port,
        };
        match &upstream.health_address {
            Some(address) => address.clone(),
            None => rule.apply(&upstream.address),
        }
    }

    /// The word of the file: `tcp`, `http`.
    pub fn kind(&self) -> &'static str {
        match self {
            ProbeSpec::Tcp(_) => "tcp",
            ProbeSpec::Http(_) => "http",
        }
    }
}

/// `type = "tcp"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpProbe {
    /// Which port is dialled.
    pub port: PortRule,
}

/// `type = "http"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// Which port is dialled.
    pub port: PortRule,
    /// The request target: begins with `/`, may hold a query, printable ASCII without spaces.
    pub path: Arc<str>,
    /// The method, a token.
    pub method: Arc<str>,
    /// The Host field; `None`: the address dialled, `localhost` for a unix socket.
    pub host: Option<Arc<str>>,
    /// Further fields, in file order. Names are tokens, values hold no control characters.
    pub headers: Vec<(Arc<str>, HeaderText)>,
    /// What the answer must look like.
    pub expect: Expect,
}

/// The value of a header a probe sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderText {
    /// Written in the file.
    Plain(Arc<str>),
    /// Read from a file or the environment; never printed.
    Secret(Secret),
}

impl HeaderText {
    /// The bytes for the wire.
    pub fn expose(&self) -> &str {
        match self {
            HeaderText::Plain(text) => text,
            HeaderText::Secret(secret) => secret.expose(),
        }
    }
}

/// Which port a probe dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PortRule {
    /// The upstream's own.
    #[default]
    Same,
    /// This one.
    Port(u16),
    /// The upstream's own plus this; `config` has made sure that it stays within 1 to 65535 for every upstream.
    Offset(i32),
}

impl PortRule {
    /// The address to dial for `upstream`. A unix address has no port and stays as it is.
    pub fn apply(self, upstream: &Address) -> Address {
        match self {
            PortRule::Same => upstream.clone(),
            PortRule::Port(port) => upstream.with_port(port),
            PortRule::Offset(offset) => match upstream.port() {
                None => upstream.clone(),
                Some(port) => {
                    let shifted = (i32::from(port) + offset).clamp(1, i32::from(u16::MAX));
                    upstream.with_port(u16::try_from(shifted).expect("clamped to 1 to 65535"))
                }
            },
        }
    }
}

/// What an HTTP answer must look like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expect {
    /// Inclusive ranges of status codes, each 100 to 599; never empty.
    pub status: Vec<(u16, u16)>,
    /// What the body must hold.
    pub body: Option<BodyRule>,
}

/// A rule over the first 64 KiB of a body.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BodyRule {
    /// Holds this text.
    Contains(Arc<str>),
    /// Is this text, byte for byte.
    Equals(Arc<str>),
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminPolicy {
    /// Where it listens.
    pub address: Address,
    /// Whether the table was written: then a failed bind is fatal, otherwise a warning.
    pub written: bool,
    /// The bearer token.
    pub token: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_detection_time_follows_its_formula() {
        let timing = Timing {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            fast_interval: Duration::from_secs(1),
            start_period: Duration::ZERO,
            jitter: Ratio::try_new(0.1).unwrap(),
        };
        assert_eq!(timing.worst_detection(), Duration::from_secs(11 + 2 * 5 + 5));
        assert_eq!(timing.stale_after(), Duration::from_secs(45));
    }

    #[test]
    fn an_offset_moves_the_port_and_leaves_a_unix_socket_alone() {
        let a: Address = "10.0.0.1:8290".parse().unwrap();
        assert_eq!(PortRule::Offset(911).apply(&a).to_string(), "10.0.0.1:9201");
        assert_eq!(PortRule::Port(9201).apply(&a).to_string(), "10.0.0.1:9201");
        let unix: Address = "unix:/run/a.sock".parse().unwrap();
        assert_eq!(PortRule::Port(9201).apply(&unix), unix);
    }

    #[test]
    fn a_share_needs_at_least_one() {
        assert_eq!(MinHealthy::Share(Ratio::try_new(0.3).unwrap()).needed(10), 3);
        assert_eq!(MinHealthy::Share(Ratio::ZERO).needed(10), 1);
    }
}
