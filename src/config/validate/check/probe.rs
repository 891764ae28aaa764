//! What a check does, by its type. A key that belongs to another type is refused, because it would do nothing.

use std::sync::Arc;

use super::{expect, steps, tls};
use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::values::Kind;
use crate::config::values::header::Headers;
use crate::model::policy::{GrpcProbe, HeaderText, HttpProbe, HttpVersion, ProbeKind, TlsPolicy, WebsocketProbe};

/// The types that a key belongs to, the likeliest first. A key that is not listed belongs to all.
const KEYS: &[(&str, &[Kind])] = &[
    ("scheme", &[Kind::Http, Kind::Grpc, Kind::Websocket]),
    ("tls", &[Kind::Tls, Kind::Http, Kind::Grpc, Kind::Websocket, Kind::Tcp, Kind::Agent]),
    ("send", &[Kind::Tcp, Kind::Agent]),
    ("steps", &[Kind::Tcp]),
    ("path", &[Kind::Http, Kind::Websocket]),
    ("method", &[Kind::Http]),
    ("version", &[Kind::Http]),
    ("host", &[Kind::Http, Kind::Grpc, Kind::Websocket]),
    ("headers", &[Kind::Http, Kind::Grpc, Kind::Websocket]),
    ("basic_auth", &[Kind::Http, Kind::Grpc, Kind::Websocket]),
    ("body", &[Kind::Http]),
    ("service", &[Kind::Grpc]),
    ("subprotocol", &[Kind::Websocket]),
    ("degraded", &[Kind::Http]),
];

/// What the check does on the connection, and its TLS.
pub fn probe(raw: &raw::Probe, key: &str, report: &mut Report) -> (ProbeKind, Option<TlsPolicy>) {
    let kind = match &raw.kind {
        Field::Good(kind) => kind.value.0,
        Field::Absent if !raw.others => Kind::Tcp,
        // Every rule depends on the type, and a mistake in it, or a key that may be meant as it, is already reported.
        Field::Absent | Field::Bad => return (ProbeKind::Tls, None),
    };
    refuse_keys_of_other_kinds(raw, kind, key, report);
    refuse_headers_of_the_protocol(raw, kind, key, report);
    if matches!(kind, Kind::Tls | Kind::Grpc | Kind::Websocket | Kind::Agent) {
        expect::duration_alone(&raw.expect, kind, &format!("{key}.expect"), report);
    }
    let tls = tls::tls(raw, kind, key, report);
    let probe = match kind {
        Kind::Tcp => ProbeKind::Tcp(steps::tcp(raw, key, report)),
        Kind::Tls => ProbeKind::Tls,
        Kind::Http => ProbeKind::Http(http(raw, key, report)),
        Kind::Grpc => ProbeKind::Grpc(GrpcProbe {
            service: raw.service.value().map_or_else(|| Arc::from(""), |service| service.0.clone()),
            host: host(raw),
            headers: headers(raw, key, report),
        }),
        Kind::Websocket => ProbeKind::Websocket(WebsocketProbe {
            path: path(raw),
            host: host(raw),
            headers: headers(raw, key, report),
            subprotocol: raw.subprotocol.value().map(|token| token.0.clone()),
        }),
        Kind::Agent => ProbeKind::Agent(steps::agent(raw, key, report)),
    };
    (probe, tls)
}

fn http(raw: &raw::Probe, key: &str, report: &mut Report) -> HttpProbe {
    let method = raw.method.value().map_or_else(|| Arc::from("GET"), |method| method.0.clone());
    if let Some(at) = raw.body.get() {
        let key = format!("{key}.body");
        match &*method {
            "HEAD" => {
                let found = Found::error(at.span.clone(), key, "a request with HEAD has no body");
                report.add(found.expected("method = \"POST\", or no `body`"));
            }
            "GET" => {
                let found = Found::warning(at.span.clone(), key, "servers may refuse a GET with a body");
                report.add(found.expected("method = \"POST\" beside it"));
            }
            _ => {}
        }
    }
    HttpProbe {
        version: raw.version.value().map_or(HttpVersion::Http1, |version| version.0),
        path: path(raw),
        host: host(raw),
        headers: headers(raw, key, report),
        body: raw.body.value().map(|body| body.0.clone()),
        expect: expect::expect(&raw.expect, &method, &format!("{key}.expect"), report),
        degraded: expect::degraded(&raw.degraded, &method, &format!("{key}.degraded"), report).map(Arc::new),
        method,
    }
}

fn path(raw: &raw::Probe) -> Arc<str> {
    raw.path.value().map_or_else(|| Arc::from("/"), |path| path.0.clone())
}

fn host(raw: &raw::Probe) -> Option<Arc<str>> {
    raw.host.value().map(|host| host.0.clone())
}

/// The header fields, followed by that of `basic_auth`.
fn headers(raw: &raw::Probe, key: &str, report: &mut Report) -> Vec<(Arc<str>, HeaderText)> {
    let mut headers = raw.headers.value().map_or_else(Vec::new, |headers| headers.0.clone());
    let Some(At { value, span }) = raw.basic_auth.get() else { return headers };
    let key = format!("{key}.basic_auth");
    if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
        let found = Found::error(span.clone(), &key, "sets the field Authorization, which `headers` sets too");
        report.add(found.expected("one of the two"));
    }
    if let Some(secret) = value.authorization(span, &key, report) {
        headers.push((Arc::from("Authorization"), HeaderText::Secret(secret)));
    }
    headers
}

fn refuse_keys_of_other_kinds(raw: &raw::Probe, kind: Kind, key: &str, report: &mut Report) {
    let note = if raw.kind.is_absent() { " (the default)" } else { "" };
    for (name, span) in raw.written() {
        let Some((_, kinds)) = KEYS.iter().find(|(known, kinds)| *known == name && !kinds.contains(&kind)) else {
            continue;
        };
        let words: Vec<_> = kinds.iter().map(|kind| format!("\"{}\"", kind.as_str())).collect();
        let words = match words.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => words.concat(),
        };
        let this = kind.as_str();
        let message = format!("belongs to type = {words}; this check is of type \"{this}\"{note}");
        let expected = format!("type = \"{}\" beside it", kinds[0].as_str());
        report.add(Found::error(span, format!("{key}.{name}"), message).expected(expected));
    }
}

/// Refuses fields that the handshake or the call sets itself.
fn refuse_headers_of_the_protocol(raw: &raw::Probe, kind: Kind, key: &str, report: &mut Report) {
    let Some(At { value: Headers(fields), span }) = raw.headers.get() else { return };
    for (name, _) in fields {
        let lower = name.to_ascii_lowercase();
        let ours = match kind {
            Kind::Tcp | Kind::Tls | Kind::Http | Kind::Agent => false,
            Kind::Grpc => lower == "content-type" || lower.starts_with("grpc-"),
            Kind::Websocket => lower.starts_with("sec-websocket-"),
        };
        if ours {
            let message = format!("the field {name} belongs to the protocol; the checker sets it itself");
            report.add(Found::error(span.clone(), format!("{key}.headers"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_probe_has_its_types() {
        let of_all = ["type", "port", "port_offset", "expect"];
        for name in raw::Probe::NAMES {
            assert_ne!(KEYS.iter().any(|(known, _)| known == name), of_all.contains(name), "{name}");
        }
    }
}
