//! A check in words: what it sends, over which TLS, and what must come back. The same words in `check`, `explain` and
//! `probe`.
//!
//! Credentials are not shown. Of headers, sent texts and request bodies, only their presence or length is.

mod steps;

use std::fmt;
use std::sync::Arc;

use super::{
    BodyRule, Degraded, Expect, GrpcProbe, HeaderMatch, HeaderRule, HeaderText, HttpProbe, HttpVersion, JsonMatch,
    JsonRule, PortRule, ProbeKind, ProbeSpec, StatusRule, TlsPolicy, WebsocketProbe,
};
use crate::model::units::Exact;
pub use steps::Hex;

/// The longest text from the file that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// `http: GET /healthz on port 9201, over TLS (certificate verified); expects 200-299 and $.status = "ready"`.
impl fmt::Display for ProbeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.kind)?;
        match self.port {
            PortRule::Same => {}
            PortRule::Port(port) => write!(f, " on port {port}")?,
            PortRule::Offset(offset) => write!(f, " on the traffic's port {offset:+}")?,
        }
        if let Some(tls) = &self.tls {
            let over = match &self.kind {
                ProbeKind::Tls => " ",
                ProbeKind::Tcp(tcp) if tcp.starts_tls() => ", with TLS ",
                ProbeKind::Tcp(_) | ProbeKind::Agent(_) => ", over TLS ",
                ProbeKind::Http(_) | ProbeKind::Grpc(_) | ProbeKind::Websocket(_) => ", over TLS ",
            };
            write!(f, "{over}{tls}")?;
        }
        if let Some(expected) = self.kind.expected() {
            write!(f, "; expects {expected}")?;
        }
        if let ProbeKind::Http(HttpProbe { degraded: Some(degraded), .. }) = &self.kind {
            let Degraded { expect, weight } = &**degraded;
            write!(f, "; degraded, with {:.0} % of its weight, if {expect}", weight.as_f64() * 100.0)?;
        }
        self.max_duration.map_or(Ok(()), |max| write!(f, "; within {}", Exact(max)))
    }
}

/// What is sent on the connection, without what is expected: `GET /healthz`.
impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeKind::Tcp(dialogue) | ProbeKind::Agent(dialogue) => write!(f, "{dialogue}"),
            ProbeKind::Tls => f.write_str("handshake"),
            ProbeKind::Http(http) => write_http(http, f),
            ProbeKind::Grpc(GrpcProbe { service, host, headers }) => {
                f.write_str("Health/Check of ")?;
                match &**service {
                    "" => f.write_str("the whole server")?,
                    service => write!(f, "{}", Shown(service))?,
                }
                of_host(host.as_deref(), f)?;
                with_basic_auth(headers, f)
            }
            ProbeKind::Websocket(WebsocketProbe { path, host, headers, subprotocol }) => {
                write!(f, "upgrade {path}")?;
                of_host(host.as_deref(), f)?;
                with_basic_auth(headers, f)?;
                f.write_str(", ping and pong")?;
                subprotocol.as_ref().map_or(Ok(()), |protocol| write!(f, ", subprotocol {protocol}"))
            }
        }
    }
}

impl ProbeKind {
    /// What must come back, in words; `None` if the protocol alone decides.
    pub fn expected(&self) -> Option<String> {
        match self {
            ProbeKind::Tcp(dialogue) | ProbeKind::Agent(dialogue) => dialogue.expected(),
            ProbeKind::Tls | ProbeKind::Websocket(_) => None,
            ProbeKind::Http(http) => Some(http.expect.to_string()),
            ProbeKind::Grpc(_) => Some("SERVING".to_owned()),
        }
    }
}

fn write_http(http: &HttpProbe, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{} {}", http.method, http.path)?;
    of_host(http.host.as_deref(), f)?;
    with_basic_auth(&http.headers, f)?;
    if let Some(body) = &http.body {
        write!(f, " with a body of {}", bytes(body.len()))?;
    }
    match http.version {
        HttpVersion::Http1 => Ok(()),
        HttpVersion::H2 => f.write_str(" in HTTP/2"),
    }
}

fn of_host(host: Option<&str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    host.map_or(Ok(()), |host| write!(f, " for host {host}"))
}

fn with_basic_auth(headers: &[(Arc<str>, HeaderText)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_basic = |(name, value): &(Arc<str>, HeaderText)| {
        name.eq_ignore_ascii_case("authorization") && value.expose().get(..6).is_some_and(|start| start == "Basic ")
    };
    f.write_str(if headers.iter().any(is_basic) { " with Basic credentials" } else { "" })
}

/// `(certificate verified as api.internal)`; a missing verification is emphasised.
impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.verify { "(certificate verified" } else { "(certificate NOT verified" })?;
        if let Some(name) = &self.server_name {
            write!(f, "{} {name}", if self.verify { " as" } else { ", server name" })?;
        }
        if self.roots.is_some() {
            f.write_str(", against ca_file")?;
        }
        if self.client.is_some() {
            f.write_str(", with a client certificate")?;
        }
        f.write_str(")")
    }
}

/// Every rule: `200-299, the header X-App equal to "a" and $.status equal to "up"`.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rules = vec![match &self.status {
            StatusRule::Any => "any status".to_owned(),
            StatusRule::In(_) => self.status.to_string(),
        }];
        rules.extend(self.headers.iter().map(ToString::to_string));
        rules.extend(self.body.iter().map(ToString::to_string));
        rules.extend(self.json.iter().map(ToString::to_string));
        match rules.split_last() {
            Some((last, [])) => f.write_str(last),
            Some((last, others)) => write!(f, "{} and {last}", others.join(", ")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for HeaderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.value {
            HeaderMatch::Equals(value) => write!(f, "the header {name} equal to {}", Shown(value)),
            HeaderMatch::NotEquals(value) => write!(f, "a header {name} not equal to {}", Shown(value)),
            HeaderMatch::Matches(pattern) => write!(f, "the header {name} matching {}", Shown(pattern.as_str())),
            HeaderMatch::Absent => write!(f, "no header {name}"),
            HeaderMatch::Present => write!(f, "a header {name}"),
        }
    }
}

impl fmt::Display for BodyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyRule::Contains(text) => write!(f, "a body that contains {}", Shown(text)),
            BodyRule::Equals(text) if text.is_empty() => f.write_str("an empty body"),
            BodyRule::Equals(text) => write!(f, "the body {}", Shown(text)),
            BodyRule::Matches(pattern) => write!(f, "a body that matches {}", Shown(pattern.as_str())),
            BodyRule::NotContains(text) => write!(f, "a body that does not contain {}", Shown(text)),
            BodyRule::NotMatches(pattern) => write!(f, "a body that does not match {}", Shown(pattern.as_str())),
        }
    }
}

impl fmt::Display for JsonRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_str();
        match &self.value {
            JsonMatch::Equals(value) => write!(f, "{path} equal to {}", Json(value))?,
            JsonMatch::NotEquals(value) => write!(f, "{path} not equal to {}", Json(value))?,
            JsonMatch::In(values) => {
                let values: Vec<_> = values.iter().map(|value| Json(value).to_string()).collect();
                write!(f, "{path} one of {}", values.join(", "))?;
            }
            JsonMatch::Exists(true) => write!(f, "{path} present")?,
            JsonMatch::Exists(false) => write!(f, "{path} absent")?,
            JsonMatch::Matches(pattern) => write!(f, "{path} matching {}", Shown(pattern.as_str()))?,
            JsonMatch::Within(range) => write!(f, "{path} a number, {range}")?,
            JsonMatch::Is(wanted) => write!(f, "{path} {wanted}")?,
        }
        f.write_str(if self.missing_passes { " (or missing)" } else { "" })
    }
}

/// A text in quotes, escaped and cut.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_CHARS_MAX) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

/// A value as JSON writes it, cut.
struct Json<'a>(&'a serde_json::Value);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.char_indices().nth(SHOWN_CHARS_MAX) {
            None => f.write_str(&text),
            Some((end, _)) => write!(f, "{}…", &text[..end]),
        }
    }
}

fn bytes(number: usize) -> String {
    if number == 1 { "1 byte".to_owned() } else { format!("{number} bytes") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Secret;
    use crate::model::policy::{
        Certificate, ClientIdentity, JsonPath, JsonType, NumberRange, Pattern, Payload, TcpProbe,
    };

    fn http() -> HttpProbe {
        HttpProbe {
            version: HttpVersion::Http1,
            path: "/healthz".into(),
            method: "GET".into(),
            host: None,
            headers: vec![("Authorization".into(), HeaderText::Secret(Secret::new("hunter2")))],
            body: None,
            expect: Expect::default(),
            degraded: None,
        }
    }

    fn tls() -> TlsPolicy {
        TlsPolicy { verify: true, server_name: None, roots: None, client: None }
    }

    #[test]
    fn every_kind_is_described_in_one_line() {
        let tcp = |send: Option<&str>, expect: Option<&str>| {
            ProbeKind::Tcp(TcpProbe::of(send.map(|text| Payload::plain(text.as_bytes())), expect.map(Arc::from)))
        };
        let grpc = |service: &str| {
            ProbeKind::Grpc(GrpcProbe { service: service.into(), host: Some("a.b".into()), headers: Vec::new() })
        };
        let websocket =
            WebsocketProbe { path: "/ws".into(), host: None, headers: Vec::new(), subprotocol: Some("chat".into()) };
        let post = HttpProbe { method: "POST".into(), body: Some("x".into()), version: HttpVersion::H2, ..http() };
        for (port, tls, kind, words) in [
            (PortRule::Same, None, tcp(None, None), "tcp: connect and close"),
            (
                PortRule::Port(6379),
                None,
                tcp(Some("AUTH hunter2\r\n"), Some("+OK")),
                "tcp: connect, send 14 bytes on port 6379; expects a text that contains \"+OK\"",
            ),
            (PortRule::Same, Some(tls()), ProbeKind::Tls, "tls: handshake (certificate verified)"),
            (
                PortRule::Offset(911),
                None,
                ProbeKind::Http(http()),
                "http: GET /healthz on the traffic's port +911; expects 200-299",
            ),
            (
                PortRule::Same,
                Some(TlsPolicy { verify: false, ..tls() }),
                ProbeKind::Http(post),
                "http: POST /healthz with a body of 1 byte in HTTP/2, over TLS (certificate NOT verified); expects 200-299",
            ),
            (PortRule::Same, None, grpc(""), "grpc: Health/Check of the whole server for host a.b; expects SERVING"),
            (PortRule::Same, None, grpc("x.Y"), "grpc: Health/Check of \"x.Y\" for host a.b; expects SERVING"),
            (
                PortRule::Same,
                None,
                ProbeKind::Websocket(websocket),
                "websocket: upgrade /ws, ping and pong, subprotocol chat",
            ),
        ] {
            assert_eq!(ProbeSpec { port, tls, kind, max_duration: None }.to_string(), words);
        }
    }

    #[test]
    fn every_rule_is_described() {
        let header = |value| HeaderRule { name: "X-App".into(), value };
        let json = |path: &str, value, missing_passes| JsonRule {
            path: JsonPath::try_new(path).unwrap(),
            value,
            missing_passes,
        };
        let expect = Expect {
            status: StatusRule::Any,
            headers: vec![
                header(HeaderMatch::Equals("a\n".into())),
                header(HeaderMatch::Matches(Pattern::try_new("^a").unwrap())),
                header(HeaderMatch::Present),
            ],
            body: vec![BodyRule::Contains("up".into())],
            json: vec![
                json("$.a", JsonMatch::Equals(json!("x")), true),
                json("$.b", JsonMatch::NotEquals(json!(1)), false),
                json("$.c", JsonMatch::In(vec![json!(true), json!("b")]), false),
                json("$.d", JsonMatch::Exists(true), false),
                json("$.e", JsonMatch::Exists(false), false),
            ],
        };
        assert_eq!(
            expect.to_string(),
            "any status, the header X-App equal to \"a\\n\", the header X-App matching \"^a\", a header X-App, \
             a body that contains \"up\", $.a equal to \"x\" (or missing), $.b not equal to 1, $.c one of true, \"b\", \
             $.d present and $.e absent"
        );
        let long = BodyRule::Equals("x".repeat(1_000).into());
        assert!(long.to_string().len() < 100 && long.to_string().ends_with("x\"…"));
    }

    #[test]
    fn absent_rules_and_max_duration_are_described() {
        let header = |value| HeaderRule { name: "X-Role".into(), value };
        let json = |value| JsonRule { path: JsonPath::try_new("$.a").unwrap(), value, missing_passes: false };
        let pattern = || Pattern::try_new("^a").unwrap();
        let expect = Expect {
            headers: vec![header(HeaderMatch::NotEquals("replica".into())), header(HeaderMatch::Absent)],
            body: vec![BodyRule::NotContains("down".into()), BodyRule::NotMatches(pattern())],
            json: vec![
                json(JsonMatch::Matches(pattern())),
                json(JsonMatch::Within(NumberRange::try_new(Some(1.into()), Some(5.into())).unwrap())),
                json(JsonMatch::Is(JsonType::Null)),
            ],
            ..Expect::default()
        };
        let basic = HeaderText::Secret(Secret::with_prefix("Basic ", "aHVudGVyMg=="));
        let probe = HttpProbe { headers: vec![("authorization".into(), basic)], expect, ..http() };
        let max_duration = Some(std::time::Duration::from_millis(800));
        let spec = ProbeSpec { kind: ProbeKind::Http(probe), max_duration, ..ProbeSpec::connect() };
        assert_eq!(
            spec.to_string(),
            "http: GET /healthz with Basic credentials; expects 200-299, a header X-Role not equal to \"replica\", \
             no header X-Role, a body that does not contain \"down\", a body that does not match \"^a\", \
             $.a matching \"^a\", $.a a number, 1 to 5 and $.a null; within 800 ms"
        );
        let connect = ProbeSpec { max_duration, ..ProbeSpec::connect() };
        assert_eq!(connect.to_string(), "tcp: connect and close; within 800 ms");
    }

    #[test]
    fn tls_says_what_is_trusted_and_never_shows_a_key() {
        let certificate = Certificate(Arc::from(&b"x"[..]));
        let tls = TlsPolicy {
            verify: true,
            server_name: Some("api.internal".into()),
            roots: Some(vec![certificate.clone()]),
            client: Some(ClientIdentity { chain: vec![certificate], key: Secret::new("hunter2") }),
        };
        assert_eq!(
            tls.to_string(),
            "(certificate verified as api.internal, against ca_file, with a client certificate)"
        );
    }
}
