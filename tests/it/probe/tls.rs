//! Probes over TLS: both versions, descriptions of every certificate problem, and handshakes that end anywhere.

use std::sync::Arc;

use roundsman::model::policy::{
    Certificate, ClientIdentity, Payload, PortRule, ProbeKind, ProbeSpec, TcpProbe, TlsPolicy,
};
use roundsman::model::{Address, Code, ProbeReport, Secret};
use roundsman::probe::{Prepared, probe};
use rustls::version::{TLS12, TLS13};
use tokio::time::Instant;

use super::{LONG, SHORT, SLACK, answers, contains, get, http_spec};
use crate::origin::tls::{CERTIFICATES, Identity, Limit, TlsOrigin, certificates};
use crate::origin::{Act, Origin, Reply};
use crate::program::{Program, pool};
use crate::support::assert_eventually;

/// Verifies with the test's CA.
pub(super) fn trusting() -> TlsPolicy {
    with_roots(&CERTIFICATES.ca)
}

pub(super) fn with_roots(root: &Identity) -> TlsPolicy {
    let roots = vec![Certificate(Arc::from(&root.der()[..]))];
    TlsPolicy { verify: true, server_name: None, roots: Some(roots), client: None }
}

pub(super) fn unverified() -> TlsPolicy {
    TlsPolicy { verify: false, roots: None, ..trusting() }
}

pub(super) fn showing(identity: &Identity) -> TlsPolicy {
    let key = std::fs::read_to_string(&identity.key_pem).unwrap();
    let chain = identity.chain.iter().map(|c| Certificate(Arc::from(&c[..]))).collect();
    TlsPolicy { client: Some(ClientIdentity { chain, key: Secret::new(&key) }), ..trusting() }
}

pub(super) fn spec(tls: TlsPolicy, kind: ProbeKind) -> Arc<ProbeSpec> {
    Arc::new(ProbeSpec { port: PortRule::Same, tls: Some(tls), kind, max_duration: None })
}

async fn tls(target: &Address, policy: TlsPolicy) -> ProbeReport {
    probe(target, target, &spec(policy, ProbeKind::Tls), LONG).await
}

async fn https(target: &Address, policy: TlsPolicy) -> ProbeReport {
    probe(target, target, &spec(policy, ProbeKind::Http(contains("hello"))), LONG).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_passes_in_either_version_and_closes_cleanly() {
    for (version, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        let origin = TlsOrigin::with(&CERTIFICATES.good).version(version).start();
        for _ in 0..2 {
            let report = tls(&origin.address(), trusting()).await;
            assert_eq!((report.code, report.hint), (Code::L6Ok, None), "{}", report.reason);
            assert!(report.reason.starts_with("TLS handshake in "), "{}", report.reason);
            let trace = report.trace.tls.expect("a handshake was made");
            assert_eq!((&*trace.version, trace.verified, trace.alpn), (name, true, None));
            assert_eq!(
                trace.certificate.as_deref(),
                Some(
                    "CN=api.internal; names localhost, api.internal, 127.0.0.1, ::1; issuer CN=Test CA; \
                     until 2099-01-01T00:00:00Z"
                )
            );
            assert!(report.trace.connected_in.unwrap() < trace.done_in.unwrap());
            assert!(trace.done_in.unwrap() <= report.duration);
            assert_eq!(report.trace.local.unwrap().ip().to_string(), "127.0.0.1");
        }
        assert_eventually("both connections have ended", SLACK, || origin.handshakes().len() == 2).await;
        for handshake in origin.handshakes() {
            assert!(handshake.done && handshake.close_notify && !handshake.resumed, "{name}: {handshake:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_problems_are_described() {
    let c = &*CERTIFICATES;
    for (name, identity, policy, sentence) in [
        (
            "expired",
            &c.expired,
            trusting(),
            "certificate expired at 2021-02-03T00:00:00Z (renew it, or check this machine's clock)",
        ),
        (
            "not yet",
            &c.not_yet,
            trusting(),
            "certificate not yet valid until 2090-01-01T00:00:00Z (check the clocks of both machines)",
        ),
        (
            "wrong name",
            &c.wrong_name,
            trusting(),
            "certificate is not for 127.0.0.1: it has wrong.example, *.wrong.example \
             (set tls.server_name to a name that the certificate has)",
        ),
        (
            "another name configured",
            &c.good,
            TlsPolicy { server_name: Some("b.example".into()), ..trusting() },
            "certificate is not for b.example: it has localhost, api.internal, 127.0.0.1, ::1 \
             (set tls.server_name to a name that the certificate has)",
        ),
        (
            "unknown issuer",
            &c.good,
            with_roots(&c.other_ca),
            "certificate of an unknown issuer: CN=Test CA \
             (tls.ca_file does not hold its CA, or the server does not send the intermediate certificates)",
        ),
        (
            "unknown to the system",
            &c.good,
            TlsPolicy { roots: None, ..trusting() },
            "certificate of an unknown issuer: CN=Test CA \
             (set tls.ca_file to its CA, or make the server send the intermediate certificates)",
        ),
        (
            "self-signed",
            &c.self_signed,
            trusting(),
            "self-signed certificate (CN=self.internal) \
             (tls.ca_file does not hold this certificate: add it, or use one that a CA in that file has issued)",
        ),
        (
            "self-signed",
            &c.self_signed,
            TlsPolicy { roots: None, ..trusting() },
            "self-signed certificate (CN=self.internal) (set tls.ca_file to this certificate, or tls.verify = false)",
        ),
        (
            "for clients",
            &c.for_clients,
            trusting(),
            "certificate not accepted: it is not for servers: its extended key usage is clientAuth \
             (its extended key usage needs serverAuth)",
        ),
    ] {
        for version in [&TLS12, &TLS13] {
            let origin = TlsOrigin::with(identity).version(version).start();
            let report = tls(&origin.address(), policy.clone()).await;
            if report.reason.contains("this machine has no root certificates") {
                // A test beside the code covers such a machine.
                assert_eq!((name, report.code), ("unknown to the system", Code::L6Rsp));
                continue;
            }
            assert_eq!((report.code, report.sentence().as_str()), (Code::L6Rsp, sentence), "{name}");
            let trace = report.trace.tls.expect("the trace of the handshake");
            assert_eq!((trace.done_in, trace.verified), (None, false), "{name}");
            let issuer = if name == "self-signed" { "issuer CN=self.internal" } else { "issuer CN=Test CA" };
            assert!(trace.certificate.as_deref().is_some_and(|c| c.contains(issuer)), "{:?}", trace.certificate);
            let unverified = TlsPolicy { verify: false, ..policy.clone() };
            let report = tls(&origin.address(), unverified).await;
            assert_eq!(report.code, Code::L6Ok, "{name}, not verified: {}", report.sentence());
            assert!(!report.trace.tls.unwrap().verified);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_self_signed_certificate_is_accepted_for_its_names_only() {
    let own = with_roots(&CERTIFICATES.self_signed);
    let origin = TlsOrigin::with(&CERTIFICATES.self_signed).start();
    assert_eq!(tls(&origin.address(), own.clone()).await.code, Code::L6Ok);
    let elsewhere = TlsPolicy { server_name: Some("b.example".into()), ..own };
    let report = tls(&origin.address(), elsewhere).await;
    assert!(report.reason.starts_with("certificate is not for b.example"), "{}", report.reason);
    // Another certificate with the same name is not trusted.
    let another = certificates();
    let report = tls(&origin.address(), with_roots(&another.self_signed)).await;
    assert_eq!((report.code, &*report.reason), (Code::L6Rsp, "self-signed certificate (CN=self.internal)"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_an_upstream_is_sent_as_sni_and_verified() {
    let plain = Origin::plain("a").await;
    let origin = TlsOrigin::with(&CERTIFICATES.good).before(&plain).start();
    let port = origin.address().port().unwrap();
    for (policy_name, host, name, sni, code, host_sent) in [
        (None, None, None, None, Code::L7Ok, format!("127.0.0.1:{port}")),
        (None, None, Some("api.internal"), Some("api.internal"), Code::L7Ok, format!("api.internal:{port}")),
        (None, Some("localhost:1"), Some("b.example"), Some("localhost"), Code::L7Ok, "localhost:1".into()),
        (Some("api.internal"), Some("b.example"), None, Some("api.internal"), Code::L7Ok, "b.example".into()),
        (None, Some("b.example"), None, None, Code::L6Rsp, String::new()),
    ] {
        plain.forget();
        let before = origin.handshakes().len();
        let policy = TlsPolicy { server_name: policy_name.map(Into::into), ..trusting() };
        let kind = ProbeKind::Http(roundsman::model::policy::HttpProbe { host: host.map(Into::into), ..get() });
        let target = origin.address();
        let report = Prepared::new(&target, &target, name, &spec(policy, kind), LONG).run().await;
        assert_eq!(report.code, code, "{}", report.sentence());
        assert_eventually("the connection has ended", SLACK, || origin.handshakes().len() == before + 1).await;
        assert_eq!(origin.handshakes()[before].server_name.as_deref(), sni);
        let seen = plain.requests("/healthz");
        assert_eq!(seen.first().and_then(|s| s.field("host")).unwrap_or_default(), host_sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_over_tls_passes_or_fails_like_any_other() {
    let plain = Origin::new().named("a").on("/healthz").reply(200).times(1).then(503).start_blocking();
    let origin = TlsOrigin::with(&CERTIFICATES.good).alpn(&["h2", "http/1.1"]).before(&plain).start();
    let spec = spec(trusting(), ProbeKind::Http(get()));
    let target = origin.address();
    let report = probe(&target, &target, &spec, LONG).await;
    assert_eq!((report.code, report.status), (Code::L7Ok, Some(200)), "{}", report.sentence());
    let trace = report.trace;
    let shaken = trace.tls.unwrap();
    assert_eq!(shaken.alpn.as_deref(), Some("http/1.1"));
    assert!(shaken.done_in.unwrap() < trace.answered_in.unwrap() && trace.answered_in.unwrap() <= report.duration);
    let report = probe(&target, &target, &spec, LONG).await;
    assert_eq!((report.code, report.status), (Code::L7Sts, Some(503)), "{}", report.sentence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_sent() {
    let c = &*CERTIFICATES;
    let plain = Origin::plain("a").await;
    for version in [&TLS12, &TLS13] {
        let alone = TlsOrigin::with(&c.good).version(version).requires_client(&c.ca).start();
        let inside = TlsOrigin::with(&c.good).version(version).requires_client(&c.ca).before(&plain).start();
        let report = tls(&alone.address(), showing(&c.client)).await;
        assert_eq!(report.code, Code::L6Ok, "{}", report.sentence());
        assert_eventually("the connection has ended", SLACK, || alone.handshakes().len() == 1).await;
        assert!(alone.handshakes()[0].client_certificate);
        assert_eq!(https(&inside.address(), showing(&c.client)).await.code, Code::L7Ok);
        let foreign = certificates();
        let report = https(&inside.address(), showing(&foreign.client)).await;
        assert_eq!(report.code, Code::L6Rsp, "{}", report.sentence());
        assert_eq!(report.hint, Some("it may not accept our client certificate"), "{}", report.reason);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_port_and_a_tls_port_are_distinguished() {
    let banner = |text: &str| Origin::new().on_accept(Reply::raw(text).then_hang()).start_blocking();
    for (origin, sentence) in [
        (
            banner("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
            r#"plain HTTP answered the TLS handshake: "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" (this port speaks plain HTTP: remove TLS from the check)"#,
        ),
        (
            banner("SSH-2.0-OpenSSH_9.2\r\n"),
            r#"the answer to the TLS handshake is not TLS: "SSH-2.0-OpenSSH_9.2\r\n" (this port does not speak TLS)"#,
        ),
    ] {
        let report = https(&origin.address(), trusting()).await;
        assert_eq!((report.code, report.sentence().as_str()), (Code::L6Rsp, sentence));
        assert!(sentence.contains(std::str::from_utf8(&report.trace.body[..7]).unwrap()));
    }
    // A plain request to a port that speaks TLS.
    let origin = TlsOrigin::with(&CERTIFICATES.good).start();
    let target = origin.address();
    let report = probe(&target, &target, &http_spec(get()), LONG).await;
    assert_eq!((report.code, report.hint), (Code::L7Rsp, Some("this port speaks TLS")), "{}", report.reason);
    let text = ProbeKind::Tcp(TcpProbe::of(Some(Payload::plain(b"PING\r\n")), Some("PONG".into())));
    let plain = Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind: text, max_duration: None });
    let report = probe(&target, &target, &plain, LONG).await;
    assert_eq!((report.code, report.hint), (Code::L7Rsp, Some("this port speaks TLS")), "{}", report.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_a_common_protocol_is_reported() {
    let origin = TlsOrigin::with(&CERTIFICATES.good).alpn(&["h2"]).start();
    let report = https(&origin.address(), trusting()).await;
    assert_eq!(
        (report.code, report.sentence().as_str()),
        (Code::L6Rsp, "TLS refused: it does not speak http/1.1 (it may speak HTTP/2 only: set version = \"h2\")")
    );
    // An alert about the version, as a server for TLS 1.0 sends it.
    let old = Origin::new().on_accept(Reply::raw(b"\x15\x03\x01\0\x02\x02\x46")).start_blocking();
    let report = https(&old.address(), trusting()).await;
    let version = "TLS refused: it speaks only TLS 1.1 or older, and a check needs TLS 1.2 or 1.3";
    assert_eq!((report.code, &*report.reason), (Code::L6Rsp, version));
    let refusing = Origin::new().on_accept(Reply::raw(b"\x15\x03\x03\0\x02\x02\x28")).start_blocking();
    let report = https(&refusing.address(), trusting()).await;
    assert_eq!(&*report.reason, "TLS refused with alert handshake_failure");
    // It has not asked for a certificate, so the lack of one is not the reason.
    assert!(report.hint.is_some_and(|hint| hint.contains("cipher suite") && !hint.contains("certificate")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_handshake_fails_at_the_deadline() {
    // With TLS 1.3 the handshake is complete after some 900 bytes; after that the response is missing.
    let plain = Origin::plain("a").await;
    for bytes in [0, 1, 5, 100, 300, 500] {
        let origin = TlsOrigin::with(&CERTIFICATES.good).before(&plain).limited(bytes, Limit::Stall).start();
        let started = Instant::now();
        let target = origin.address();
        let report = probe(&target, &target, &spec(trusting(), ProbeKind::Http(get())), SHORT).await;
        assert!((SHORT..SHORT + SLACK).contains(&started.elapsed()), "{bytes}: {:?}", started.elapsed());
        assert_eq!(report.code, Code::L6Tout, "{bytes}: {}", report.sentence());
        assert!(report.reason.starts_with("no TLS handshake within 300ms (connected in "), "{}", report.reason);
        let hint = match bytes {
            0 | 1 => "this port may not speak TLS, or its server is overloaded or stopped",
            _ => "its server is overloaded or stopped, or the network loses packets",
        };
        assert_eq!(report.hint, Some(hint), "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ends_after_any_byte_fails_at_once() {
    let plain = answers(Reply::ok("hello"));
    let spec = spec(trusting(), ProbeKind::Http(contains("hello")));
    for (limit, word) in [(Limit::Reset, "connection reset"), (Limit::Close, "connection closed")] {
        let (mut in_handshake, mut in_answer) = (0, 0);
        for bytes in (0..1_600).step_by(100) {
            let origin = TlsOrigin::with(&CERTIFICATES.good).before(&plain).limited(bytes, limit).start();
            let started = Instant::now();
            let target = origin.address();
            let report = probe(&target, &target, &spec, LONG).await;
            assert!(started.elapsed() < LONG / 2, "{bytes}: {:?}", started.elapsed());
            let sentence = report.sentence();
            match report.code {
                Code::L6Rsp => {
                    assert!(report.reason.ends_with(" in the TLS handshake"), "{bytes}: {sentence}");
                    assert!(report.reason.starts_with(word) || limit == Limit::Close, "{bytes}: {sentence}");
                    in_handshake += 1;
                }
                Code::L7Rsp => {
                    assert!(sentence.contains("connection "), "{bytes}: {sentence}");
                    in_answer += 1;
                }
                code => assert_eq!(code, Code::L7Ok, "{bytes}: {sentence}"),
            }
        }
        assert!(in_handshake >= 4 && in_answer >= 1, "{limit:?}: {in_handshake} and {in_answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_check_works_over_tls() {
    let plain = Origin::new()
        .on_accept(Reply::acts(vec![Act::Write(b"220 rea".to_vec()), Act::Write(b"dy\r\n".to_vec())]).then_hang())
        .start_blocking();
    let origin = TlsOrigin::with(&CERTIFICATES.good).before(&plain).start();
    let kind = ProbeKind::Tcp(TcpProbe::of(None, Some("220 ready".into())));
    let target = origin.address();
    let report = probe(&target, &target, &spec(unverified(), kind), LONG).await;
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    assert_eq!(&*report.trace.body, b"220 ready\r\n");
    let silent = ProbeKind::Tcp(TcpProbe::default());
    let report = probe(&target, &target, &spec(trusting(), silent), LONG).await;
    assert_eq!(report.code, Code::L6Ok, "{}", report.sentence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_over_tls_uses_the_name_localhost() {
    let plain = Origin::plain("a").await;
    let origin = TlsOrigin::with(&CERTIFICATES.good).before(&plain).start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tls.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let relayed = format!("127.0.0.1:{}", origin.address().port().unwrap());
    let relay = tokio::spawn(async move {
        let (mut unix, _) = listener.accept().await.unwrap();
        let mut tcp = tokio::net::TcpStream::connect(relayed).await.unwrap();
        // Either side may close first.
        let _ = tokio::io::copy_bidirectional(&mut unix, &mut tcp).await;
    });
    let report = https(&Address::Unix(Arc::from(path.as_path())), trusting()).await;
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    assert_eq!(report.trace.local, None);
    relay.await.unwrap();
    assert_eventually("the connection has ended", SLACK, || origin.handshakes().len() == 1).await;
    assert_eq!(origin.handshakes()[0].server_name.as_deref(), Some("localhost"));
    assert_eq!(plain.requests("/healthz")[0].field("host"), Some("localhost"));
}

/// The keys of the file, and the reasons that the program reports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_checks_of_a_configuration_file_work_in_the_program() {
    let c = &*CERTIFICATES;
    let plain = Origin::plain("a").await;
    let open = TlsOrigin::with(&c.good).before(&plain).start();
    let closed = TlsOrigin::with(&c.good).requires_client(&c.ca).start();
    let expired = TlsOrigin::with(&c.expired).before(&plain).start();
    let quoted = |path: &std::path::Path| format!("{:?}", path.display().to_string());
    let (ca, other) = (quoted(&c.ca.pem), quoted(&c.other_ca.pem));
    let shown = format!("client_cert = {}, client_key = {}", quoted(&c.client.pem), quoted(&c.client.key_pem));
    let get = "type = \"http\"\nscheme = \"https\"\npath = \"/healthz\"";
    let table = [
        ("api", &open, format!("{get}\ntls = {{ ca_file = {ca} }}"), None),
        ("names", &open, format!("{get}\nhost = \"api.internal\"\ntls = {{ ca_file = {ca} }}"), None),
        ("hands", &open, format!("type = \"tls\"\ntls = {{ ca_file = {ca} }}"), None),
        ("shown", &closed, format!("type = \"tls\"\ntls = {{ ca_file = {ca}, {shown} }}"), None),
        ("loose", &expired, format!("{get}\ntls = {{ verify = false }}"), None),
        ("unshown", &closed, format!("type = \"tls\"\ntls = {{ ca_file = {ca} }}"), Some("client certificate")),
        ("foreign", &open, format!("{get}\ntls = {{ ca_file = {other} }}"), Some("unknown issuer: CN=Test CA")),
        ("old", &expired, format!("{get}\ntls = {{ ca_file = {ca} }}"), Some("expired at 2021-02-03")),
        (
            "named",
            &open,
            format!("{get}\ntls = {{ ca_file = {ca}, server_name = \"b.example\" }}"),
            Some("certificate is not for b.example: it has localhost, api.internal, 127.0.0.1, ::1"),
        ),
    ];
    let pools: Vec<String> = table
        .iter()
        .map(|(name, origin, check, _)| {
            let address = origin.address().to_string();
            pool(
                name,
                &[&address],
                &format!("{check}\ninterval = \"1s\"\nunhealthy_threshold = 1\nhealthy_threshold = 1"),
            )
        })
        .collect();
    let program = Program::start(&pools.concat()).await;
    for (name, origin, _, problem) in &table {
        let address = origin.address().to_string();
        let state = if problem.is_some() { "unhealthy" } else { "healthy" };
        program.wait_for_state(name, &address, state, LONG).await;
        let upstream = program.upstream(name, &address).await.unwrap();
        assert_eq!(upstream.unverified, *name == "loose", "{name}");
        let why = upstream.why.unwrap_or_default();
        assert!(why.contains(problem.unwrap_or_default()), "{name}: {why}");
    }
}
