//! One probe, step by step: what was dialled, the result of the handshake, what was sent, what came back, and which
//! rule decided. Made from the definition of the check and the report of the probe, for `explain` and `probe`.
//!
//! Pure. Data from the peer is escaped here, credentials of ours and of the peer are masked, and of the fields that we
//! send only the names are shown. What a step found wrong is in the report's sentence.

mod dialogue;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Address;
use super::policy::{Act, HeaderText, HttpVersion, ProbeKind, ProbeSpec, secrets};
use super::probe::{Code, Judgement, ProbeReport, TlsTrace, Trace};
use super::quote::{Escaped, Excerpt, Quoted};
use super::secret::may_name_a_secret;
use super::units::Measured;

/// The most fields of an answer that are shown.
const FIELDS_MAX: usize = 32;

/// One step of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which one.
    pub step: Phase,
    /// Whether it went as it should; always `true` for a step that only informs (a field, a hint).
    pub ok: bool,
    /// One line; control characters are escaped.
    pub text: String,
}

/// The possible steps, in the order in which they occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Which address was dialled.
    Target,
    /// The connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// What was sent.
    Request,
    /// The first line of the answer.
    Answer,
    /// One field of the answer.
    Field,
    /// The beginning of the answer's body.
    Body,
    /// The result of the probe.
    Verdict,
    /// What to try.
    Hint,
}

impl Phase {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Target => "target",
            Phase::Connect => "connect",
            Phase::Tls => "tls",
            Phase::Request => "request",
            Phase::Answer => "answer",
            Phase::Field => "field",
            Phase::Body => "body",
            Phase::Verdict => "verdict",
            Phase::Hint => "hint",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A probe that has ended, with its definition.
#[derive(Debug, Clone, Copy)]
pub struct Probed<'a> {
    /// The upstream that was probed.
    pub upstream: &'a Address,
    /// The host name that resolved to its address.
    pub name: Option<&'a str>,
    /// The address that was dialled.
    pub target: &'a Address,
    /// The definition of the probe.
    pub spec: &'a ProbeSpec,
    /// The result.
    pub report: &'a ProbeReport,
}

/// How far a probe got: the layer that its outcome belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    /// Nothing was tried.
    None,
    /// Connecting.
    Connection,
    /// TLS.
    Handshake,
    /// The protocol above.
    Protocol,
}

fn layer(code: Code) -> Layer {
    match code {
        Code::NoRes | Code::Panic => Layer::None,
        Code::L4Ok | Code::L4Con | Code::L4Tout => Layer::Connection,
        Code::L6Ok | Code::L6Rsp | Code::L6Tout => Layer::Handshake,
        Code::L7Ok | Code::L7Tout | Code::L7Rsp | Code::L7Sts => Layer::Protocol,
    }
}

/// The steps of a probe, as far as it got; at most a few dozen. The last is the verdict, or the hint after it.
pub fn steps(probed: &Probed<'_>) -> Vec<Step> {
    let mut steps = Steps::default();
    let (report, spec) = (probed.report, probed.spec);
    match probed.upstream.host_name() {
        None => steps.good(Phase::Target, target(probed)),
        Some(host) => steps.add(Phase::Target, false, format!("{host} has no address; nothing was dialled")),
    }
    let reached = connect(report, &mut steps);
    // A check that starts TLS in the middle shows the handshake as one of its steps.
    let tls = spec.tls.as_ref().filter(|_| !matches!(&spec.kind, ProbeKind::Tcp(tcp) if tcp.starts_tls()));
    let shaken = reached && tls.is_none_or(|tls| handshake(tls.verify, report, &mut steps));
    if shaken && let Some(request) = request(spec, probed) {
        steps.good(Phase::Request, request);
    }
    match &spec.kind {
        ProbeKind::Tcp(tcp) if tcp.numbered => dialogue::add_steps(tcp, spec, report, &mut steps),
        _ if shaken => answer(spec, report, &mut steps),
        _ => {}
    }
    let passed = report.code.judgement() == Judgement::Pass;
    steps.add(Phase::Verdict, passed, format!("{}, {}: {}", word(report.code), report.code, report.reason));
    if let Some(hint) = report.hint {
        steps.good(Phase::Hint, hint.to_owned());
    }
    steps.0
}

#[derive(Debug, Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, step: Phase, ok: bool, text: String) {
        self.0.push(Step { step, ok, text });
    }

    fn good(&mut self, step: Phase, text: String) {
        self.add(step, true, text);
    }
}

fn word(code: Code) -> &'static str {
    match code.judgement() {
        Judgement::Pass => "pass",
        Judgement::Fail => "fail",
        Judgement::NoVerdict | Judgement::Broken => "no verdict",
    }
}

fn target(probed: &Probed<'_>) -> String {
    let Probed { upstream, name, target, .. } = probed;
    let mut text = match name {
        Some(name) => format!("{} resolved to {upstream}", Escaped(name.as_bytes())),
        None => target.to_string(),
    };
    if target != upstream {
        match name {
            Some(_) => text.push_str(&format!("; the check dials {target}")),
            None => text.push_str(&format!(", where the check goes; requests go to {upstream}")),
        }
    }
    text
}

/// Adds the connection; returns whether there was one.
fn connect(report: &ProbeReport, steps: &mut Steps) -> bool {
    let trace = &report.trace;
    let passed = report.code.judgement() == Judgement::Pass;
    let connected = trace.connected_in.is_some() || layer(report.code) > Layer::Connection || passed;
    if !connected {
        let text = match layer(report.code) {
            Layer::None => return false,
            Layer::Connection | Layer::Handshake | Layer::Protocol => {
                format!("no connection after {}", Measured(report.duration))
            }
        };
        steps.add(Phase::Connect, false, text);
        return false;
    }
    let mut text = "connected".to_owned();
    if let Some(took) = trace.connected_in {
        text.push_str(&format!(" in {}", Measured(took)));
    }
    if let Some(local) = trace.local {
        text.push_str(&format!(" from {local}"));
    }
    steps.good(Phase::Connect, text);
    true
}

/// Adds the handshake; returns whether it was completed.
fn handshake(verify: bool, report: &ProbeReport, steps: &mut Steps) -> bool {
    let failed = layer(report.code) == Layer::Handshake && report.code != Code::L6Ok;
    let Some(tls) = report.trace.tls.as_deref() else {
        if failed {
            steps.add(Phase::Tls, false, "the handshake did not finish".to_owned());
        }
        return !failed && layer(report.code) > Layer::Connection;
    };
    let done = tls.done_in.is_some() && !failed;
    steps.add(Phase::Tls, done, handshake_words(tls, verify));
    if !done && !report.trace.body.is_empty() {
        steps.good(Phase::Body, format!("{}, which is not a TLS handshake", Quoted(&report.trace.body)));
    }
    done
}

fn handshake_words(tls: &TlsTrace, verify: bool) -> String {
    let mut parts = Vec::new();
    let version = if tls.version.is_empty() { "TLS" } else { &tls.version };
    parts.push(match tls.done_in {
        Some(at) => format!("{version}, done {} after the start", Measured(at)),
        None => format!("{version}, handshake failed"),
    });
    if let Some(alpn) = &tls.alpn {
        parts.push(format!("ALPN {alpn}"));
    }
    let trust = match (tls.verified, verify) {
        (true, _) => "verified",
        (false, false) => "not verified, because verify = false",
        (false, true) => "not accepted",
    };
    match &tls.certificate {
        Some(certificate) => parts.push(format!("certificate {trust}: {certificate}")),
        None => parts.push("no certificate seen".to_owned()),
    }
    parts.join("; ")
}

/// What was sent, without any value that could be secret.
fn request(spec: &ProbeSpec, probed: &Probed<'_>) -> Option<String> {
    let host = |host: &Option<Arc<str>>| match (host, probed.name) {
        (Some(host), _) => format!(", host {}", Escaped(host.as_bytes())),
        (None, Some(name)) => {
            let default_port = if spec.tls.is_some() { 443 } else { 80 };
            let port = probed.target.port().filter(|port| *port != default_port);
            format!(", host {}{}", Escaped(name.as_bytes()), port.map_or(String::new(), |port| format!(":{port}")))
        }
        (None, None) => String::new(),
    };
    match &spec.kind {
        ProbeKind::Tcp(tcp) | ProbeKind::Agent(tcp) => {
            let sent = tcp.steps.first().filter(|_| !tcp.numbered);
            match &sent?.act {
                Act::Send(payload) => Some(format!("{} bytes (not shown)", payload.expose().len())),
                Act::Wait(_) | Act::StartTls => None,
            }
        }
        ProbeKind::Tls => None,
        ProbeKind::Http(http) => {
            let version = match http.version {
                HttpVersion::Http1 => "HTTP/1.1",
                HttpVersion::H2 => "HTTP/2",
            };
            let body = http.body.as_ref().map_or(String::new(), |body| format!(", a body of {} bytes", body.len()));
            let (host, fields) = (host(&http.host), field_names(&http.headers));
            Some(format!("{} {} {version}{host}{fields}{body}", http.method, http.path))
        }
        ProbeKind::Grpc(grpc) => {
            let service = match &*grpc.service {
                "" => "of the whole server".to_owned(),
                service => format!("of the service {}", Quoted(service.as_bytes())),
            };
            let (host, fields) = (host(&grpc.host), field_names(&grpc.headers));
            Some(format!("grpc.health.v1.Health/Check {service}{host}{fields}"))
        }
        ProbeKind::Websocket(websocket) => {
            let (host, fields) = (host(&websocket.host), field_names(&websocket.headers));
            let asked = websocket.subprotocol.as_ref().map_or(String::new(), |name| format!(", subprotocol {name}"));
            Some(format!("GET {} HTTP/1.1, Upgrade: websocket{asked}{host}{fields}", websocket.path))
        }
    }
}

fn field_names(headers: &[(Arc<str>, HeaderText)]) -> String {
    if headers.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = headers.iter().map(|(name, _)| &**name).collect();
    format!(", with {} (values are not shown)", names.join(", "))
}

/// Adds what came back.
fn answer(spec: &ProbeSpec, report: &ProbeReport, steps: &mut Steps) {
    let Trace { head, body, answered_in, .. } = &report.trace;
    let secrets: Vec<&str> = secrets(spec.kind.headers()).collect();
    let masked = |bytes: &[u8]| match spec.kind.dialogue() {
        Some(dialogue) => dialogue.masked(bytes),
        None => Excerpt::of(bytes).without(secrets.iter().copied()),
    };
    let after = answered_in.map_or(String::new(), |at| format!(", {} after the start", Measured(at)));
    // An unexpected status is wrong itself; everything else is wrong in what follows.
    let status_ok = report.code != Code::L7Sts;
    let head = masked(head);
    let mut lines = head.bytes().split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    match (lines.next().filter(|line| !line.is_empty()), report.status) {
        (Some(first), _) => steps.add(Phase::Answer, status_ok, format!("{}{after}", Escaped(first))),
        (None, Some(status)) => steps.add(Phase::Answer, status_ok, format!("status {status}{after}")),
        (None, None) if layer(report.code) != Layer::Protocol || report.code == Code::L7Ok => {}
        (None, None) if body.is_empty() => steps.add(Phase::Answer, false, "none received".to_owned()),
        (None, None) => match spec.kind.dialogue() {
            Some(_) => steps.good(Phase::Answer, format!("data received{after}")),
            None => steps.add(Phase::Answer, false, format!("not in this protocol{after}")),
        },
    }
    for line in lines.take_while(|line| !line.is_empty()).take(FIELDS_MAX) {
        steps.good(Phase::Field, field(line));
    }
    let body = masked(body);
    if !body.bytes().is_empty() {
        let cut = if report.trace.body.len() >= Trace::BODY_BYTES_MAX { " (its first 256 bytes)" } else { "" };
        steps.good(Phase::Body, format!("{}{cut}", Quoted(body.bytes())));
    }
}

/// One field of an answer; the value of one that carries a credential is masked.
fn field(line: &[u8]) -> String {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        // A folded line continues the value before it, which may be secret.
        return " ***".to_owned();
    }
    let name = line.split(|byte| *byte == b':').next().unwrap_or(line);
    if may_name_a_secret(&String::from_utf8_lossy(name)) {
        return format!("{}: ***", Escaped(name));
    }
    Escaped(line).to_string()
}

#[cfg(test)]
mod tests;
