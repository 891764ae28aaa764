//! What is sent to an upstream and what it must answer: `[pools.NAME.health]` after validation.
//!
//! Equality of two [`ProbeSpec`]s is equality of definition: probes with equal specs at one address are one probe, and
//! a reload that yields an equal spec keeps verdicts. The content of files (certificates, keys) is part of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{CheckFile, Expect, TcpProbe, UpstreamPolicy};
use crate::model::{Address, HealthState, Ratio, Secret};

/// One check: what a probe does, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckPolicy {
    /// Its name in status: its kind, if that distinguishes it.
    pub name: Arc<str>,
    /// What a probe does and what it expects. A change of it is a change of definition.
    pub spec: Arc<ProbeSpec>,
    /// When probes run and how many make a verdict.
    pub timing: Timing,
    /// The preset that it was made of, with the written keys over it. Of no consequence for what is known.
    pub preset: Option<&'static str>,
    /// The files of its TLS, as they were read. Of no consequence for what is known either: the spec has what they held.
    pub tls_files: Arc<[CheckFile]>,
}

/// `require`: how many of an upstream's checks must be healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Require {
    /// Every one.
    #[default]
    All,
    /// One.
    Any,
    /// This many: 1 to the number of checks.
    Count(u32),
}

impl Require {
    /// How many of `total` checks must be healthy, 1 to `total`.
    pub fn needed(self, total: usize) -> usize {
        match self {
            Require::All => total,
            Require::Any => 1,
            Require::Count(n) => (n as usize).clamp(1, total.max(1)),
        }
    }
}

/// When probes run and how many make a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// From start to start of probes; 10 ms to 24 h.
    pub interval: Duration,
    /// The same while the upstream is unhealthy and no streak is open: more than `interval`, up to 24 h. `None`:
    /// `interval`.
    pub unhealthy_interval: Option<Duration>,
    /// Over one whole probe; at most `interval`.
    pub timeout: Duration,
    /// Consecutive passes that make an upstream healthy; 1 to 1,000.
    pub healthy_threshold: u32,
    /// Consecutive failures that make it unhealthy; 1 to 1,000.
    pub unhealthy_threshold: u32,
    /// The interval while a streak against the present state is open; at most `interval`.
    pub fast_interval: Duration,
    /// For this long after an upstream is first seen, failures do not count.
    pub start_period: Duration,
    /// Share of the interval in force, in both directions, 0 to 0.5.
    pub jitter: Ratio,
}

#[cfg(test)]
impl Timing {
    /// The timing of a check without any such key; a test of `config` compares the two.
    pub fn defaults() -> Timing {
        Timing {
            interval: Duration::from_secs(10),
            unhealthy_interval: None,
            timeout: Duration::from_secs(5),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            fast_interval: Duration::from_secs(1),
            start_period: Duration::ZERO,
            jitter: Ratio::try_new(0.1).expect("a share"),
        }
    }
}

impl Timing {
    /// The interval in force while the upstream is in `state` and no streak is open.
    pub fn interval_in(&self, state: HealthState) -> Duration {
        match state {
            HealthState::Unhealthy => self.unhealthy_interval.unwrap_or(self.interval),
            HealthState::Unknown | HealthState::Healthy => self.interval,
        }
    }

    /// The longest a dead upstream can stay healthy (health.md, "Time and load").
    pub fn worst_detection(&self) -> Duration {
        self.worst_change(HealthState::Healthy, self.unhealthy_threshold)
    }

    /// The longest that a recovered upstream can stay unhealthy.
    pub fn worst_return(&self) -> Duration {
        self.worst_change(HealthState::Unhealthy, self.healthy_threshold)
    }

    fn worst_change(&self, from: HealthState, threshold: u32) -> Duration {
        self.interval_in(from).mul_f64(1.0 + self.jitter.as_f64())
            + self.fast_interval.max(self.timeout) * (threshold - 1)
            + self.timeout
    }

    /// After this long without a pass or a failure, a verdict is out of date (health.md, "Probes and verdicts").
    pub fn stale_after(&self) -> Duration {
        let longest = self.interval.max(self.interval_in(HealthState::Unhealthy));
        (3 * (longest + self.timeout)).max(HOLDS_MIN)
    }

    /// How long a verdict may be carried, from the first change of a check's definition since it was reached: long
    /// enough for the changed checks to reach a threshold, however slowly they answer (health.md, "Reload").
    pub fn carried_at_most(&self) -> Duration {
        let threshold = self.healthy_threshold.max(self.unhealthy_threshold);
        self.stale_after().max((self.fast_interval + self.timeout).saturating_mul(threshold))
    }
}

/// A verdict is valid at least this long without being confirmed.
const HOLDS_MIN: Duration = Duration::from_secs(30);

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProbeSpec {
    /// Which port is dialled.
    pub port: PortRule,
    /// TLS below the protocol; `None`: none.
    pub tls: Option<TlsPolicy>,
    /// The protocol of the probe. A new kind is a new variant; the compiler then lists the places to change.
    pub kind: ProbeKind,
    /// How long a correct answer may take, from the start of the probe to the last deciding byte; less than the
    /// timeout.
    pub max_duration: Option<Duration>,
}

impl ProbeSpec {
    /// A plain connect to the upstream's own port: the check of a pool without a health table.
    pub fn connect() -> ProbeSpec {
        ProbeSpec { port: PortRule::Same, tls: None, kind: ProbeKind::Tcp(TcpProbe::default()), max_duration: None }
    }

    /// The address a probe of `upstream` dials.
    pub fn target(&self, upstream: &UpstreamPolicy) -> Address {
        match &upstream.health_address {
            Some(address) => address.clone(),
            None => self.port.apply(&upstream.address),
        }
    }
}

/// The protocol of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Connect and close, or a text sent and a text expected.
    Tcp(TcpProbe),
    /// A TLS handshake and nothing more; `ProbeSpec::tls` says how.
    Tls,
    /// One HTTP request.
    Http(HttpProbe),
    /// One `grpc.health.v1.Health/Check`.
    Grpc(GrpcProbe),
    /// A WebSocket handshake, a ping and its pong.
    Websocket(WebsocketProbe),
    /// A line of HAProxy's agent protocol; perhaps a text is sent for it. See [`TcpProbe::agent`].
    Agent(TcpProbe),
}

impl ProbeKind {
    /// The word of the file: `tcp`, `http`.
    pub fn as_str(&self) -> &'static str {
        match self {
            ProbeKind::Tcp(_) => "tcp",
            ProbeKind::Tls => "tls",
            ProbeKind::Http(_) => "http",
            ProbeKind::Grpc(_) => "grpc",
            ProbeKind::Websocket(_) => "websocket",
            ProbeKind::Agent(_) => "agent",
        }
    }

    /// Whether its answers can say as much as those of `other` beside passing: that the upstream is worse than others, or
    /// that it wants no requests.
    pub fn says_as_much_as(&self, other: &ProbeKind) -> bool {
        match (self, other) {
            (ProbeKind::Agent(_), ProbeKind::Agent(_)) => true,
            (ProbeKind::Http(own), ProbeKind::Http(_)) => own.degraded.is_some(),
            _ => false,
        }
    }

    /// Its steps, if it is a dialogue in texts.
    pub fn dialogue(&self) -> Option<&TcpProbe> {
        match self {
            ProbeKind::Tcp(probe) | ProbeKind::Agent(probe) => Some(probe),
            ProbeKind::Tls | ProbeKind::Http(_) | ProbeKind::Grpc(_) | ProbeKind::Websocket(_) => None,
        }
    }
}

impl ProbeKind {
    /// The configured Host; `None`: not configured, or not a setting of this kind.
    pub fn host(&self) -> Option<&str> {
        match self {
            ProbeKind::Http(probe) => probe.host.as_deref(),
            ProbeKind::Grpc(probe) => probe.host.as_deref(),
            ProbeKind::Websocket(probe) => probe.host.as_deref(),
            ProbeKind::Tcp(_) | ProbeKind::Tls | ProbeKind::Agent(_) => None,
        }
    }

    /// The configured fields, in file order.
    pub fn headers(&self) -> &[(Arc<str>, HeaderText)] {
        match self {
            ProbeKind::Http(probe) => &probe.headers,
            ProbeKind::Grpc(probe) => &probe.headers,
            ProbeKind::Websocket(probe) => &probe.headers,
            ProbeKind::Tcp(_) | ProbeKind::Tls | ProbeKind::Agent(_) => &[],
        }
    }
}

/// `type = "http"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// The HTTP version.
    pub version: HttpVersion,
    /// The request target: begins with `/`, may hold a query, printable ASCII without spaces.
    pub path: Arc<str>,
    /// The method, a token.
    pub method: Arc<str>,
    /// The Host field; `None`: the upstream's name, else the address dialled, `localhost` for a unix socket.
    pub host: Option<Arc<str>>,
    /// Further fields, in file order. Names are tokens, values hold no control characters.
    pub headers: Vec<(Arc<str>, HeaderText)>,
    /// The content of the request; at most 64 KiB.
    pub body: Option<Arc<str>>,
    /// What the answer must look like.
    pub expect: Expect,
    /// What an answer that passes looks like where the upstream is worse than others.
    pub degraded: Option<Arc<Degraded>>,
}

/// A healthy upstream that is worse than others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Degraded {
    /// What its answers look like, beside what every answer must look like. At least one rule.
    pub expect: Expect,
    /// The share of its weight that it takes; above 0.
    pub weight: Ratio,
}

impl HttpProbe {
    /// A plain GET over HTTP/1.1, with defaults for the rest.
    pub fn get(path: &str, expect: Expect) -> HttpProbe {
        HttpProbe {
            version: HttpVersion::Http1,
            path: path.into(),
            method: "GET".into(),
            host: None,
            headers: Vec::new(),
            body: None,
            expect,
            degraded: None,
        }
    }
}

/// Which HTTP a probe speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without.
    H2,
}

/// `type = "grpc"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcProbe {
    /// The service to ask about; empty: the server as a whole.
    pub service: Arc<str>,
    /// The `:authority`; as [`HttpProbe::host`].
    pub host: Option<Arc<str>>,
    /// Further fields (metadata), in file order.
    pub headers: Vec<(Arc<str>, HeaderText)>,
}

/// `type = "websocket"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebsocketProbe {
    /// As [`HttpProbe::path`].
    pub path: Arc<str>,
    /// As [`HttpProbe::host`].
    pub host: Option<Arc<str>>,
    /// Further fields, in file order.
    pub headers: Vec<(Arc<str>, HeaderText)>,
    /// Requested, and must be accepted; a token.
    pub subprotocol: Option<Arc<str>>,
}

/// How a TLS connection is made. Certificates are DER; the code that reads the file parses them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// Whether the peer's certificate is verified; false only if the file says so.
    pub verify: bool,
    /// The name that is sent and that the certificate must hold; `None`: the configured host, else the upstream's name,
    /// else the address dialled.
    pub server_name: Option<Arc<str>>,
    /// Trusted instead of the system's roots; not empty.
    pub roots: Option<Vec<Certificate>>,
    /// What we present when asked for a certificate.
    pub client: Option<ClientIdentity>,
}

/// One certificate, DER.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Certificate(pub Arc<[u8]>);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} bytes)", self.0.len())
    }
}

/// A client certificate with its key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientIdentity {
    /// The certificate and those above it; not empty.
    pub chain: Vec<Certificate>,
    /// The private key, PEM.
    pub key: Secret,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// The values of these fields that must not be shown: the texts to mask in what comes back.
pub fn secrets(headers: &[(Arc<str>, HeaderText)]) -> impl Iterator<Item = &str> {
    let secrets = headers.iter().filter_map(|(_, value)| match value {
        HeaderText::Secret(secret) => Some(secret.to_mask()),
        HeaderText::Plain(_) => None,
    });
    secrets.flatten()
}

/// The value of a header a probe sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderText {
    /// Written in the file.
    Plain(Arc<str>),
    /// Read from a file or the environment; never printed.
    Secret(Secret),
}

/// Whether the fields of a check hold credentials: Authorization, or a value that is kept secret.
pub fn have_credentials(headers: &[(Arc<str>, HeaderText)]) -> bool {
    let is_one = |name: &str, value: &HeaderText| {
        matches!(value, HeaderText::Secret(_)) || name.eq_ignore_ascii_case("authorization")
    };
    headers.iter().any(|(name, value)| is_one(name, value))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_times_follow_their_formulas() {
        let timing = Timing::defaults();
        assert_eq!(timing.worst_detection(), Duration::from_secs(11 + 2 * 5 + 5));
        assert_eq!(timing.worst_return(), Duration::from_secs(11 + 5 + 5));
        assert_eq!(timing.stale_after(), Duration::from_secs(45));
        let rarely = Timing { unhealthy_interval: Some(Duration::from_secs(60)), ..timing };
        assert_eq!(rarely.worst_detection(), timing.worst_detection());
        assert_eq!(rarely.worst_return(), Duration::from_secs(66 + 5 + 5));
        assert_eq!(
            (rarely.stale_after(), rarely.carried_at_most()),
            (Duration::from_secs(195), Duration::from_secs(195))
        );
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
    fn require_needs_one_to_all() {
        for (require, total, needed) in
            [(Require::All, 3, 3), (Require::Any, 3, 1), (Require::Count(2), 3, 2), (Require::Count(9), 3, 3)]
        {
            assert_eq!(require.needed(total), needed, "{require:?} of {total}");
        }
    }
}
