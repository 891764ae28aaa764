//! Golden texts: what users read about probes that ended at every layer.

use std::time::Duration;

use super::*;
use crate::model::Secret;
use crate::model::policy::{Expect, GrpcProbe, HttpProbe, Payload, PortRule, TcpProbe, TlsPolicy, WebsocketProbe};

fn http() -> HttpProbe {
    HttpProbe {
        version: HttpVersion::Http1,
        path: "/healthz?full=1".into(),
        method: "GET".into(),
        host: None,
        headers: Vec::new(),
        body: None,
        expect: Expect::default(),
        degraded: None,
    }
}

fn plain(kind: ProbeKind) -> ProbeSpec {
    ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None }
}

fn over_tls(kind: ProbeKind, verify: bool) -> ProbeSpec {
    let tls = TlsPolicy { verify, server_name: None, roots: None, client: None };
    ProbeSpec { tls: Some(tls), ..plain(kind) }
}

fn report(code: Code, status: Option<u16>, reason: &str, trace: Trace) -> ProbeReport {
    ProbeReport { status, trace, ..ProbeReport::new(code, Duration::from_millis(12), reason) }
}

/// Connected, at least.
fn connected() -> Trace {
    Trace {
        local: Some("127.0.0.1:41234".parse().unwrap()),
        connected_in: Some(Duration::from_micros(310)),
        ..Trace::default()
    }
}

fn answered(head: &str, body: &[u8]) -> Trace {
    Trace {
        answered_in: Some(Duration::from_micros(2_300)),
        head: head.as_bytes().into(),
        body: body.into(),
        ..connected()
    }
}

/// Every step on a line, as `ok` or `!!`.
fn shown(spec: &ProbeSpec, report: &ProbeReport) -> String {
    let address = "10.0.0.1:80".parse().unwrap();
    lines(&Probed { upstream: &address, name: None, target: &address, spec, report })
}

fn lines(probed: &Probed<'_>) -> String {
    let line = |step: &Step| format!("{} {} {}\n", if step.ok { "ok" } else { "!!" }, step.step, step.text);
    steps(probed).iter().map(line).collect()
}

#[test]
fn a_name_without_an_address_ends_before_the_connection() {
    let address = "api:80".parse().unwrap();
    let unresolved = report(Code::NoRes, None, "api does not resolve: no such name", Trace::default());
    let spec = plain(ProbeKind::Http(http()));
    let probed = Probed { upstream: &address, name: Some("api"), target: &address, spec: &spec, report: &unresolved };
    assert_eq!(
        lines(&probed),
        "!! target api has no address; nothing was dialled\n\
         !! verdict no verdict, NORES: api does not resolve: no such name\n"
    );
}

#[test]
fn a_refused_connection_ends_at_the_connection() {
    let spec = plain(ProbeKind::Http(http()));
    let refused = ProbeReport {
        hint: Some("nothing listens there"),
        ..report(Code::L4Con, None, "connect: refused", Trace::default())
    };
    assert_eq!(
        shown(&spec, &refused),
        "ok target 10.0.0.1:80\n\
         !! connect no connection after 12 ms\n\
         !! verdict fail, L4CON: connect: refused\n\
         ok hint nothing listens there\n"
    );
    let ours = report(Code::NoRes, None, "not probed: no descriptors (EMFILE)", Trace::default());
    assert_eq!(
        shown(&spec, &ours),
        "ok target 10.0.0.1:80\n!! verdict no verdict, NORES: not probed: no descriptors (EMFILE)\n"
    );
}

#[test]
fn a_connect_check_shows_only_the_connection() {
    let spec = plain(ProbeKind::Tcp(TcpProbe::default()));
    assert_eq!(
        shown(&spec, &report(Code::L4Ok, None, "connected in 0.3 ms", connected())),
        "ok target 10.0.0.1:80\n\
         ok connect connected in 0.3 ms from 127.0.0.1:41234\n\
         ok verdict pass, L4OK: connected in 0.3 ms\n"
    );
    let banner = plain(ProbeKind::Tcp(TcpProbe::of(Some(Payload::plain(b"PING\r\n")), Some("PONG".into()))));
    assert_eq!(
        shown(&banner, &report(Code::L7Rsp, None, "no \"PONG\" came", answered("", b"-ERR\r\n"))),
        "ok target 10.0.0.1:80\n\
         ok connect connected in 0.3 ms from 127.0.0.1:41234\n\
         ok request 6 bytes (not shown)\n\
         ok answer data received, 2.3 ms after the start\n\
         ok body \"-ERR\\r\\n\"\n\
         !! verdict fail, L7RSP: no \"PONG\" came\n"
    );
}

#[test]
fn an_answer_is_shown_from_its_first_line_to_its_body_and_escaped() {
    let spec = plain(ProbeKind::Http(HttpProbe {
        method: "POST".into(),
        host: Some("api.internal".into()),
        body: Some("{}".into()),
        headers: vec![
            ("X-App".into(), HeaderText::Plain("visible".into())),
            ("Authorization".into(), HeaderText::Secret(Secret::new("Bearer hunter2hunter2"))),
        ],
        ..http()
    }));
    let head = "HTTP/1.1 503 Service\x1b[2J Unavailable\r\nContent-Type: text/plain\r\nSet-Cookie: id=42\r\n and more\r\n\
                X-Auth-Token: abc\r\nX-Echo: Bearer hunter2hunter2\r\n\r\n";
    let trace = answered(head, b"\x1b[31mdown\xff, and your token is hunter2hunter2");
    let shown = shown(&spec, &report(Code::L7Sts, Some(503), "status 503, expected 200-299", trace));
    assert_eq!(
        shown,
        "ok target 10.0.0.1:80\n\
         ok connect connected in 0.3 ms from 127.0.0.1:41234\n\
         ok request POST /healthz?full=1 HTTP/1.1, host api.internal, with X-App, Authorization (values are not shown), \
         a body of 2 bytes\n\
         !! answer HTTP/1.1 503 Service\\u{1b}[2J Unavailable, 2.3 ms after the start\n\
         ok field Content-Type: text/plain\n\
         ok field Set-Cookie: ***\n\
         ok field  ***\n\
         ok field X-Auth-Token: ***\n\
         ok field X-Echo: ***\n\
         ok body \"\\u{1b}[31mdown\\xff, and your token is ***\"\n\
         !! verdict fail, L7STS: status 503, expected 200-299\n"
    );
    assert!(!shown.contains("hunter2") && !shown.contains("visible"));
}

#[test]
fn a_cut_body_is_marked_and_a_long_list_of_fields_is_limited() {
    let spec = plain(ProbeKind::Http(http()));
    let fields: String = (0..100).map(|i| format!("X-{i}: y\r\n")).collect();
    let trace = answered(&format!("HTTP/1.1 200 OK\r\n{fields}"), &[b'x'; Trace::BODY_BYTES_MAX]);
    let shown = shown(&spec, &report(Code::L7Rsp, Some(200), "body does not contain \"up\"", trace));
    assert_eq!(shown.matches("ok field ").count(), FIELDS_MAX);
    assert!(shown.contains("x\" (its first 256 bytes)\n"), "{shown}");
    assert!(shown.contains("ok answer HTTP/1.1 200 OK"), "the status was as expected: {shown}");
}

#[test]
fn silence_and_other_protocols_give_no_answer_line() {
    let spec = plain(ProbeKind::Http(http()));
    let silent = shown(&spec, &report(Code::L7Tout, None, "no answer within 1s", connected()));
    assert!(
        silent.contains("ok request GET /healthz?full=1 HTTP/1.1\n!! answer none received\n!! verdict fail, L7TOUT"),
        "{silent}"
    );
    let foreign = shown(&spec, &report(Code::L7Rsp, None, "not an HTTP answer", answered("", b"SSH-2.0-x\r\n")));
    assert!(
        foreign.contains("!! answer not in this protocol, 2.3 ms after the start\nok body \"SSH-2.0-x\\r\\n\"\n"),
        "{foreign}"
    );
    // A report without a trace still shows what is known.
    let bare = shown(&spec, &report(Code::L7Ok, Some(204), "204 in 1.9 ms", Trace::default()));
    assert!(bare.contains("ok connect connected\n") && bare.contains("ok answer status 204\n"), "{bare}");
}

#[test]
fn a_handshake_shows_version_certificate_and_whether_it_was_verified() {
    let tls = |done: bool, verified: bool| TlsTrace {
        done_in: done.then_some(Duration::from_micros(1_900)),
        version: if done { "TLSv1.3".into() } else { "".into() },
        alpn: done.then(|| "h2".into()),
        verified,
        certificate: Some("CN=api, by CN=our CA, valid until 2027-01-01".into()),
        expires: None,
    };
    let with = |tls: TlsTrace| Trace { tls: Some(Box::new(tls)), ..connected() };
    let certificate = "CN=api, by CN=our CA, valid until 2027-01-01";
    let table = [
        (
            true,
            Code::L6Ok,
            with(tls(true, true)),
            format!("ok tls TLSv1.3, done 1.9 ms after the start; ALPN h2; certificate verified: {certificate}\n"),
        ),
        (
            false,
            Code::L6Ok,
            with(tls(true, false)),
            format!(
                "ok tls TLSv1.3, done 1.9 ms after the start; ALPN h2; certificate not verified, because verify = false: {certificate}\n"
            ),
        ),
        (
            true,
            Code::L6Rsp,
            with(tls(false, false)),
            format!("!! tls TLS, handshake failed; certificate not accepted: {certificate}\n"),
        ),
        (true, Code::L6Tout, connected(), "!! tls the handshake did not finish\n".to_owned()),
    ];
    for (verify, code, trace, line) in table {
        let shown = shown(&over_tls(ProbeKind::Tls, verify), &report(code, None, "why", trace));
        let head = "ok target 10.0.0.1:80\nok connect connected in 0.3 ms from 127.0.0.1:41234\n";
        let verdict = if code == Code::L6Ok { "ok verdict pass" } else { "!! verdict fail" };
        assert_eq!(shown, format!("{head}{line}{verdict}, {code}: why\n"));
    }
    let failed =
        shown(&over_tls(ProbeKind::Http(http()), true), &report(Code::L6Rsp, None, "why", with(tls(false, false))));
    assert!(!failed.contains("request"), "nothing was sent: {failed}");
}

#[test]
fn every_kind_says_what_it_asked() {
    let headers = || vec![("X-Key".into(), HeaderText::Plain("v".into()))];
    let grpc = |service: &str| ProbeKind::Grpc(GrpcProbe { service: service.into(), host: None, headers: headers() });
    let websocket =
        WebsocketProbe { path: "/ws".into(), host: None, headers: vec![], subprotocol: Some("chat".into()) };
    let h2 = HttpProbe { version: HttpVersion::H2, ..http() };
    let table = [
        (grpc(""), Some("grpc.health.v1.Health/Check of the whole server, with X-Key (values are not shown)")),
        (grpc("a.B"), Some("grpc.health.v1.Health/Check of the service \"a.B\", with X-Key (values are not shown)")),
        (ProbeKind::Websocket(websocket), Some("GET /ws HTTP/1.1, Upgrade: websocket, subprotocol chat")),
        (ProbeKind::Http(h2), Some("GET /healthz?full=1 HTTP/2")),
        (ProbeKind::Tls, None),
    ];
    for (kind, want) in table {
        let found = steps(&Probed {
            upstream: &"10.0.0.1:80".parse().unwrap(),
            name: None,
            target: &"10.0.0.1:80".parse().unwrap(),
            spec: &plain(kind),
            report: &report(Code::L7Ok, None, "good", connected()),
        });
        let asked = found.iter().find(|step| step.step == Phase::Request).map(|step| step.text.as_str());
        assert_eq!(asked, want);
    }
}

#[test]
fn the_target_shows_the_name_and_another_port() {
    let spec = plain(ProbeKind::Http(http()));
    let good = report(Code::L7Ok, Some(200), "200 in 1 ms", connected());
    let (upstream, other) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.1:9201".parse().unwrap());
    let first = |name, target| {
        let found = steps(&Probed { upstream: &upstream, name, target, spec: &spec, report: &good });
        (found[0].text.clone(), found[2].text.clone())
    };
    assert_eq!(first(None, &other).0, "10.0.0.1:9201, where the check goes; requests go to 10.0.0.1:80");
    assert_eq!(first(Some("api"), &upstream).0, "api resolved to 10.0.0.1:80");
    assert_eq!(first(Some("api"), &other).0, "api resolved to 10.0.0.1:80; the check dials 10.0.0.1:9201");
    assert_eq!(first(Some("api"), &other).1, "GET /healthz?full=1 HTTP/1.1, host api:9201");
    assert_eq!(first(Some("api"), &upstream).1, "GET /healthz?full=1 HTTP/1.1, host api");
}
