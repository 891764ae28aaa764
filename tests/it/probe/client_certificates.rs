//! Servers that ask for a client certificate when the check has none: every kind of check, both versions of TLS,
//! servers that refuse with an alert, close without one, or close after the handshake; and servers that accept clients
//! without one.

use roundsman::model::policy::{
    GrpcProbe, HttpProbe, HttpVersion, Payload, ProbeKind, TcpProbe, TlsPolicy, WebsocketProbe,
};
use roundsman::model::{Code, ProbeReport};
use roundsman::probe::probe;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::tls::{showing, spec, trusting};
use super::{LONG, get};
use crate::origin::tls::{CERTIFICATES, TlsOrigin, TlsOriginBuilder};
use crate::origin::{Origin, Reply};

const LACK: &str = ": it asked for a client certificate and the check has none";
const HINT: Option<&str> = Some("set tls.client_cert and tls.client_key");

/// Every kind of check, and the protocol that it offers.
fn kinds() -> Vec<(&'static str, ProbeKind, &'static [&'static str])> {
    let websocket = WebsocketProbe { path: "/".into(), host: None, headers: vec![], subprotocol: None };
    let grpc = GrpcProbe { service: "".into(), host: None, headers: vec![] };
    let said = TcpProbe::of(None, Some("220".into()));
    let asked = TcpProbe::of(Some(Payload::plain(b"PING\r\n")), Some("PONG".into()));
    vec![
        ("tls", ProbeKind::Tls, &[]),
        ("tcp", ProbeKind::Tcp(TcpProbe::default()), &[]),
        ("tcp that only expects", ProbeKind::Tcp(said), &[]),
        ("tcp that sends", ProbeKind::Tcp(asked), &[]),
        ("http", ProbeKind::Http(get()), &["http/1.1"]),
        ("h2", ProbeKind::Http(HttpProbe { version: HttpVersion::H2, ..get() }), &["h2"]),
        ("grpc", ProbeKind::Grpc(grpc), &["h2"]),
        ("websocket", ProbeKind::Websocket(websocket), &["http/1.1"]),
    ]
}

async fn run(origin: &TlsOrigin, policy: TlsPolicy, kind: &ProbeKind) -> ProbeReport {
    let target = origin.address();
    probe(&target, &target, &spec(policy, kind.clone()), LONG).await
}

type Refusing = for<'a> fn(TlsOriginBuilder<'a>) -> TlsOriginBuilder<'a>;

/// The ways to refuse, and how their sentences begin.
const WAYS: [(&str, Refusing, &str); 3] = [
    ("an alert", |origin| origin.requires_client(&CERTIFICATES.ca), "TLS refused with alert "),
    ("a close", |origin| origin.requires_client(&CERTIFICATES.ca).refusing_silently(), "connection "),
    ("a close after the handshake", |origin| origin.asks_client(&CERTIFICATES.ca).leaving(), "connection "),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_client_certificate_is_distinguished_from_other_failures() {
    for (version, spoken) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        for (way, refusing, start) in WAYS {
            for (kind, asked, alpn) in kinds() {
                let name = format!("{kind}, {version:?}, {way}");
                let origin = refusing(TlsOrigin::with(&CERTIFICATES.good).version(version).alpn(alpn)).start();
                let report = run(&origin, trusting(), &asked).await;
                assert_eq!((report.code, report.hint), (Code::L6Rsp, HINT), "{name}: {}", report.sentence());
                let reason = &*report.reason;
                assert!(reason.starts_with(start) && reason.ends_with(LACK), "{name}: {reason}");
                assert!(report.duration < LONG / 2, "{name}: {:?}", report.duration);
                // The server has shown its own certificate before it refuses.
                let tls = report.trace.tls.as_deref().unwrap_or_else(|| panic!("{name}: nothing is known"));
                assert_eq!((&*tls.version, tls.verified), (spoken, true), "{name}: {tls:?}");
                assert!(tls.certificate.is_some() && tls.expires.is_some(), "{name}: {tls:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_an_optional_client_certificate_is_healthy() {
    let plain = Origin::plain("a").await;
    let c = &*CERTIFICATES;
    for version in [&TLS12, &TLS13] {
        for (way, policy) in [("without", trusting()), ("with", showing(&c.client))] {
            let closed = TlsOrigin::with(&c.good).version(version).asks_client(&c.ca).start();
            for kind in [ProbeKind::Tls, ProbeKind::Tcp(TcpProbe::default())] {
                let report = run(&closed, policy.clone(), &kind).await;
                assert_eq!((report.code, report.hint), (Code::L6Ok, None), "{way}, {version:?}: {}", report.reason);
            }
            let open = TlsOrigin::with(&c.good).version(version).asks_client(&c.ca).before(&plain).start();
            let report = run(&open, policy, &ProbeKind::Http(get())).await;
            assert_eq!((report.code, report.hint), (Code::L7Ok, None), "{way}, {version:?}: {}", report.reason);
        }
    }
}

/// As nginx and others do: they accept the handshake and refuse the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_refused_for_a_missing_certificate_has_a_hint() {
    let asked = Some("it asked for a client certificate, which it may need: set tls.client_cert and tls.client_key");
    let c = &*CERTIFICATES;
    for (status, body, asks, hint) in [
        (400, "<center>No required SSL certificate was sent</center>", true, asked),
        (403, "", true, asked),
        (403, r#"{"status":"DOWN"}"#, true, None),
        (403, "", false, Some("it refuses the credentials, the Host, an Origin or our address")),
        (503, "", true, None),
    ] {
        let plain = Origin::new().on("/healthz").reply(Reply::status(status).body(body)).start_blocking();
        let origin = TlsOrigin::with(&c.good).before(&plain);
        let origin = if asks { origin.asks_client(&c.ca) } else { origin }.start();
        let report = run(&origin, trusting(), &ProbeKind::Http(get())).await;
        assert_eq!((report.code, report.hint), (Code::L7Sts, hint), "{status} {body}: {}", report.reason);
    }
}

/// A check with a client certificate is not reported to have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_client_certificate_is_not_reported_as_missing() {
    let c = &*CERTIFICATES;
    let foreign = crate::origin::tls::certificates();
    let versions: [&'static SupportedProtocolVersion; 2] = [&TLS12, &TLS13];
    for version in versions {
        let origin = TlsOrigin::with(&c.good).version(version).requires_client(&c.ca).start();
        let report = run(&origin, showing(&foreign.client), &ProbeKind::Tls).await;
        assert_eq!(report.code, Code::L6Rsp, "{}", report.sentence());
        assert_eq!(report.hint, Some("it may not accept our client certificate"), "{}", report.reason);
        assert!(!report.reason.contains("has none"), "{}", report.reason);
    }
}
