//! The result of one probe: the table of outcomes, and the report that goes from `probe` to `pool`.
//!
//! The codes are HAProxy's (`check_statuses` in its `src/check.c`), because operators already know them. They are the
//! same in logs, JSON, command line and metrics.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::health::AdminState;
use super::units::Ratio;

/// The outcome codes. `L4`: connecting; `L6`: TLS; `L7`: the protocol above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// Connected.
    L4Ok,
    /// Refused or unreachable.
    L4Con,
    /// No connection within the deadline.
    L4Tout,
    /// Handshake done.
    L6Ok,
    /// Handshake refused, or a certificate problem.
    L6Rsp,
    /// No handshake within the deadline.
    L6Tout,
    /// The answer is as expected.
    L7Ok,
    /// No complete answer within the deadline.
    L7Tout,
    /// The answer is malformed, or an expectation other than the status failed.
    L7Rsp,
    /// Another status than expected.
    L7Sts,
    /// The probe could not be made because our own resources (descriptors, ports, memory) or an address (the host name
    /// does not resolve) are missing: no verdict.
    NoRes,
    /// The probe itself failed: no verdict, and the upstream becomes unknown.
    Panic,
}

impl Code {
    /// Every code, for tables and metrics.
    pub const ALL: [Code; 12] = [
        Code::L4Ok,
        Code::L4Con,
        Code::L4Tout,
        Code::L6Ok,
        Code::L6Rsp,
        Code::L6Tout,
        Code::L7Ok,
        Code::L7Tout,
        Code::L7Rsp,
        Code::L7Sts,
        Code::NoRes,
        Code::Panic,
    ];

    /// The code in logs, JSON, command line and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::L4Ok => "L4OK",
            Code::L4Con => "L4CON",
            Code::L4Tout => "L4TOUT",
            Code::L6Ok => "L6OK",
            Code::L6Rsp => "L6RSP",
            Code::L6Tout => "L6TOUT",
            Code::L7Ok => "L7OK",
            Code::L7Tout => "L7TOUT",
            Code::L7Rsp => "L7RSP",
            Code::L7Sts => "L7STS",
            Code::NoRes => "NORES",
            Code::Panic => "PANIC",
        }
    }

    /// The meaning of the code for the upstream.
    pub fn judgement(self) -> Judgement {
        match self {
            Code::L4Ok | Code::L6Ok | Code::L7Ok => Judgement::Pass,
            Code::L4Con | Code::L4Tout | Code::L6Rsp | Code::L6Tout => Judgement::Fail,
            Code::L7Tout | Code::L7Rsp | Code::L7Sts => Judgement::Fail,
            Code::NoRes => Judgement::NoVerdict,
            Code::Panic => Judgement::Broken,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The effect of a probe on the streaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// One more pass.
    Pass,
    /// One more failure.
    Fail,
    /// Neither: our own resources ran out.
    NoVerdict,
    /// The probe panicked: the upstream's verdict no longer counts.
    Broken,
}

/// The result of one probe.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeReport {
    /// The outcome; `code.judgement()` is its effect.
    pub code: Code,
    /// The status of the answer, if one was read.
    pub status: Option<u16>,
    /// From the start of the probe to its end.
    pub duration: Duration,
    /// One sentence with the values: `status 503, expected 200-299; body: "…"`. Texts from the upstream in it are
    /// truncated and escaped.
    pub reason: Box<str>,
    /// What the operator can try, if a hint is known.
    pub hint: Option<&'static str>,
    /// It passed, but is worse than others: the share of its weight that it takes.
    pub degraded: Option<Ratio>,
    /// It passed, and is an agent's answer: whether the upstream wants requests.
    pub asks: Option<AdminState>,
    /// What the probe saw on its way, for `explain`.
    pub trace: Trace,
}

impl ProbeReport {
    /// An outcome with its reason, and nothing else.
    pub fn new(code: Code, duration: Duration, reason: &str) -> ProbeReport {
        let (status, hint, degraded, asks, trace) = (None, None, None, None, Trace::default());
        ProbeReport { code, status, duration, reason: reason.into(), hint, degraded, asks, trace }
    }

    /// Whether it says more about the upstream than that it passes.
    pub fn says_more(&self) -> bool {
        self.degraded.is_some() || self.asks.is_some()
    }

    /// The reason, followed by the hint if there is one.
    pub fn sentence(&self) -> String {
        match self.hint {
            Some(hint) => format!("{} ({hint})", self.reason),
            None => self.reason.to_string(),
        }
    }
}

/// What a probe saw on its way, as far as it got. Small, and rendered only on request: ten thousand are kept. Data from
/// the peer is kept as it came, bounded, with our own credentials masked; the code that shows it escapes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// Our end of the connection; `None` before there was one, and for unix sockets.
    pub local: Option<SocketAddr>,
    /// From the start of the probe to the connection.
    pub connected_in: Option<Duration>,
    /// The result of the TLS handshake.
    pub tls: Option<Box<TlsTrace>>,
    /// From the start of the probe to the first byte of an answer.
    pub answered_in: Option<Duration>,
    /// The first bytes of the answer's head: at most [`Trace::HEAD_BYTES_MAX`].
    pub head: Box<[u8]>,
    /// The first bytes of its body, or of data that is not an answer: at most [`Trace::BODY_BYTES_MAX`].
    pub body: Box<[u8]>,
    /// For a check in steps, each step that began.
    pub dialogue: Box<[StepTrace]>,
}

impl Trace {
    /// Bytes of an answer's head that are kept.
    pub const HEAD_BYTES_MAX: usize = 1 << 10;
    /// Bytes of a body that are kept.
    pub const BODY_BYTES_MAX: usize = 256;
}

/// One step of a check in steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepTrace {
    /// From the start of the probe to its end; `None`: it was not done.
    pub done_in: Option<Duration>,
    /// The first bytes received in it, as they came: at most [`Trace::BODY_BYTES_MAX`].
    pub received: Box<[u8]>,
}

/// The result of a TLS handshake in words; each text is escaped and at most 256 bytes long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsTrace {
    /// From the start of the probe to the end of the handshake; `None`: it failed.
    pub done_in: Option<Duration>,
    /// `TLSv1.3`; empty if it failed before the version was agreed.
    pub version: Box<str>,
    /// `h2`, if a protocol was agreed.
    pub alpn: Option<Box<str>>,
    /// Whether the certificate was verified.
    pub verified: bool,
    /// The peer's certificate: subject, names, issuer, end of validity. `None`: none was seen.
    pub certificate: Option<Box<str>>,
    /// When that certificate expires, in seconds since 1970.
    pub expires: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words() {
        let mut words: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
