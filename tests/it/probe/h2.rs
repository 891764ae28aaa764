//! Probes over HTTP/2 against real sockets: the request, the meaning of responses, and peers that close early, violate
//! the protocol or speak another one. The tables beside `probe::answer` test the rules for responses; these tests check
//! that the same rules apply.

use std::sync::Arc;

use bytes::Bytes;
use roundsman::model::policy::{
    Certificate, HeaderText, HttpProbe, HttpVersion, PortRule, ProbeKind, ProbeSpec, TlsPolicy,
};
use roundsman::model::{Address, Code, ProbeReport, Secret};
use roundsman::probe::probe;
use tokio::net::TcpListener;
use tokio::time::{Duration, Instant};

use super::{Case, LONG, SHORT, SLACK, contains, equals, get, run_all};
use crate::origin::frames::{
    END_HEADERS, END_STREAM, continuation, data, frame, goaway, head, reset as reset_stream, settings,
};
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::origin::{Act, Origin, Reply};
use crate::program::{Program, pool};
use crate::support::assert_eventually;

fn h2(probe: HttpProbe) -> HttpProbe {
    HttpProbe { version: HttpVersion::H2, ..probe }
}

/// An origin that reads the request and then does this.
pub(super) fn after_request(acts: impl IntoIterator<Item = Act>) -> Origin {
    let first = [Act::Write(settings()), Act::AwaitRequest];
    on_accept(first.into_iter().chain(acts).collect())
}

fn on_accept(acts: Vec<Act>) -> Origin {
    Origin::new().named("h").on_accept(Reply::acts(acts)).start_blocking()
}

/// An origin that sends these frames at once, and nothing more.
pub(super) fn frames<const N: usize>(frames: [Vec<u8>; N]) -> Origin {
    after_request([Act::Write(frames.concat()), Act::Hang])
}

const FLOOD: &str = "over 1 MiB of frames without a complete answer";
const OK: &[(&str, &str)] = &[(":status", "200")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_pass_or_fail_as_over_http1() {
    let case = |name, origin, spec, code, says| Case { name, origin, spec: h2(spec), timeout: LONG, code, says };
    let html: &[(&str, &str)] = &[(":status", "503"), ("content-type", "text/html")];
    let away: &[(&str, &str)] = &[(":status", "302"), ("location", "/login")];
    let ten: &[(&str, &str)] = &[(":status", "200"), ("content-length", "10")];
    let interim: &[(&str, &str)] = &[(":status", "103"), ("link", "</a>")];
    run_all(vec![
        case("a head alone", frames([head(OK, END_STREAM)]), get(), Code::L7Ok, &["200 in "]),
        case("a head, and its body hangs", frames([head(OK, 0)]), get(), Code::L7Ok, &["200 in "]),
        case(
            "an interim answer",
            frames([head(interim, 0), head(interim, 0), head(OK, END_STREAM)]),
            get(),
            Code::L7Ok,
            &["200 in "],
        ),
        case(
            "another status, quoted",
            frames([head(html, 0), data(b"<h1>down", END_STREAM)]),
            get(),
            Code::L7Sts,
            &["status 503, expected 200-299; body: \"<h1>down\""],
        ),
        case(
            "a redirect",
            frames([head(away, END_STREAM)]),
            get(),
            Code::L7Sts,
            &["status 302, expected 200-299; location: \"/login\"", "not followed"],
        ),
        case(
            "a body in pieces",
            frames([head(OK, 0), data(b"not rea", 0), data(b"", 0), data(b"dy", 0)]),
            contains("ready"),
            Code::L7Ok,
            &["200 in "],
        ),
        case(
            "a body that ends with trailers",
            frames([head(OK, 0), data(b"ok", 0), head(&[("x-checksum", "1")], END_STREAM)]),
            equals("ok"),
            Code::L7Ok,
            &["200 in "],
        ),
        case(
            "another body",
            frames([head(OK, 0), data(b"no", END_STREAM)]),
            equals("ok"),
            Code::L7Rsp,
            &["body is not \"ok\"; body: \"no\""],
        ),
        case(
            "a body that has its length",
            frames([head(ten, 0), data(b"ok plus 8.", END_STREAM)]),
            equals("ok plus 8."),
            Code::L7Ok,
            &["200 in "],
        ),
        case(
            "HEAD with the length of its GET",
            frames([head(ten, END_STREAM)]),
            HttpProbe { method: "HEAD".into(), ..get() },
            Code::L7Ok,
            &["200 in "],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_errors_are_described() {
    let case = |name, origin, spec, says| Case { name, origin, spec: h2(spec), timeout: LONG, code: Code::L7Rsp, says };
    let ten: &[(&str, &str)] = &[(":status", "200"), ("content-length", "10")];
    let many: Vec<(String, String)> = (0..300).map(|i| (format!("x-{i}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = OK.iter().copied().chain(many.iter().map(|(n, v)| (&**n, &**v))).collect();
    run_all(vec![
        case(
            "GOAWAY",
            frames([goaway(0, 11, "too_many_pings")]),
            get(),
            &["GOAWAY instead of an answer: ENHANCE_YOUR_CALM, \"too_many_pings\" (it limits how often"],
        ),
        case(
            "GOAWAY of a server that stops",
            frames([goaway(0, 0, "")]),
            get(),
            &["GOAWAY instead of an answer: NO_ERROR (its server is going down)"],
        ),
        case(
            "RST_STREAM",
            frames([reset_stream(7)]),
            get(),
            &["stream reset instead of an answer: REFUSED_STREAM (it accepts no requests now"],
        ),
        case(
            "RST_STREAM: HTTP/1.1 required",
            frames([reset_stream(13)]),
            get(),
            &["stream reset instead of an answer: HTTP_1_1_REQUIRED", "remove version = \"h2\""],
        ),
        case(
            "RST_STREAM inside a body",
            frames([head(ten, 0), data(b"ok", 0), reset_stream(2)]),
            equals("ok plus 8."),
            &["stream reset inside the answer: INTERNAL_ERROR; 2 of 10 bytes received; body: \"ok\""],
        ),
        case(
            "no status",
            frames([head(&[("a", "b")], END_STREAM)]),
            get(),
            &["the answer violates HTTP/2", "(PROTOCOL_ERROR)"],
        ),
        case(
            "DATA before its head",
            frames([data(b"x", 0)]),
            get(),
            &["the answer violates HTTP/2", "(PROTOCOL_ERROR)"],
        ),
        case(
            "a frame over the limit",
            frames([head(OK, 0), data(&[b'x'; 20_000], 0)]),
            contains("ready"),
            &["the answer violates HTTP/2 (FRAME_SIZE_ERROR)"],
        ),
        case(
            "less than its length",
            frames([head(ten, 0), data(b"ok", END_STREAM)]),
            contains("ready"),
            &["the answer violates HTTP/2 (PROTOCOL_ERROR); ", " of 10 bytes received"],
        ),
        case(
            "a push",
            frames([frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82, 0x84, 0x86])]),
            get(),
            &["the answer violates HTTP/2", "(PROTOCOL_ERROR)"],
        ),
        case("300 fields", frames([head(&many, END_STREAM)]), get(), &["the head has more than 200 fields"]),
        case(
            "endless interim answers",
            after_request([Act::Endless(head(&[(":status", "103")], 0))]),
            get(),
            &["more than 16 interim answers"],
        ),
        case("endless PING", after_request([Act::Endless(frame(6, 0, 0, &[0; 8]))]), get(), &[FLOOD]),
        case(
            "endless frames of an unknown kind",
            after_request([Act::Endless(frame(0x77, 0, 0, &[0; 4096]))]),
            get(),
            &[FLOOD],
        ),
        case(
            "endless WINDOW_UPDATE inside a body",
            after_request([
                Act::Write([head(OK, 0), data(b"rea", 0)].concat()),
                Act::Endless(frame(8, 0, 1, &[0, 0, 0, 1])),
            ]),
            contains("ready"),
            &[FLOOD, "; 3 bytes received, but not its end; body: \"rea\""],
        ),
        case(
            "closed without an answer",
            after_request([Act::Close]),
            get(),
            &["connection closed without an answer (this port may speak HTTP/1 only, TLS"],
        ),
        case(
            "closed inside a body without a length: no end",
            after_request([Act::Write([head(OK, 0), data(b"ok", 0)].concat()), Act::Close]),
            equals("ok"),
            &["body was cut short: connection closed, 2 bytes received, but not its end; body: \"ok\""],
        ),
        case(
            "reset inside a body",
            after_request([Act::Write([head(ten, 0), data(b"ok", 0)].concat()), Act::Wait(SHORT), Act::Reset]),
            equals("ok plus 8."),
            &["body was cut short: connection reset, 2 of 10 bytes received"],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_another_protocol_is_recognised() {
    let case = |name, origin, says| Case { name, origin, spec: h2(get()), timeout: LONG, code: Code::L7Rsp, says };
    const HINT: &str = "(it answers in HTTP/1: remove version = \"h2\")";
    let http1 = || Reply::raw("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    run_all(vec![
        case(
            "an HTTP/1 server that closes",
            Origin::new().named("a").start_blocking(),
            &[" without an answer (this port may speak HTTP/1 only, "],
        ),
        case(
            "an HTTP/1 server that answers",
            on_accept(vec![Act::AwaitRequest, Act::Write(b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n".to_vec())]),
            &["not HTTP/2: \"HTTP/1.1 505 HTTP Version Not Supported\\r\\n", HINT],
        ),
        case(
            "an HTTP/1 server that refuses and closes",
            Origin::new().named("a").on_accept(http1()).start_blocking(),
            &["not HTTP/2: \"HTTP/1.1 400 Bad Request\\r\\n", HINT],
        ),
        case(
            "an HTTP/1 server that drips",
            on_accept(vec![Act::Drip(b"HTTP/1.1 505 No".to_vec(), Duration::from_millis(2)), Act::Hang]),
            &["not HTTP/2: \"HTTP/1.1 505 No", HINT],
        ),
        case(
            "a TLS server",
            on_accept(vec![Act::Write(vec![0x15, 3, 1, 0, 2, 2, 70]), Act::Close]),
            &["not HTTP/2: \"\\u{15}\\u{3}\\u{1}", "(this port speaks TLS)"],
        ),
        case(
            "another protocol",
            on_accept(vec![Act::Write(b"SSH-2.0-OpenSSH\r\n".to_vec()), Act::Hang]),
            &["not HTTP/2: \"SSH-2.0-OpenSSH\\r\\n\" (this port speaks another protocol than HTTP/2)"],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_http2_response_fails_at_the_deadline() {
    let tick = Duration::from_millis(20);
    let case =
        |name, origin, spec, says| Case { name, origin, spec: h2(spec), timeout: SHORT, code: Code::L7Tout, says };
    run_all(vec![
        case("nothing at all", on_accept(vec![Act::Hang]), get(), &["no answer within 300ms (connected in "]),
        case("no answer", after_request([Act::Hang]), get(), &["no answer within 300ms (connected in "]),
        case(
            "one interim answer",
            frames([head(&[(":status", "102")], 0)]),
            get(),
            &["no final answer within 300ms: 1 interim received"],
        ),
        case(
            "a head that drips",
            after_request([
                Act::Drip(head(&[(":status", "200"), ("a", &"b".repeat(99))], END_STREAM), tick),
                Act::Hang,
            ]),
            get(),
            &["no answer within 300ms"],
        ),
        case(
            "a body that drips",
            after_request([Act::Write(head(OK, 0)), Act::EndlessDrip(data(b"x", 0), Duration::from_millis(2))]),
            contains("ready"),
            &["no \"ready\" in the body within 300ms: ", "body: \"x", "too slowly"],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_http2_response_is_refused() {
    let case = |name, origin, spec, says| Case { name, origin, spec: h2(spec), timeout: LONG, code: Code::L7Rsp, says };
    let mebibyte = "v".repeat(16_000);
    let bomb: Vec<u8> = [frame(1, 0, 1, &[0x88]), vec![]].concat();
    let parts = continuation(&[("x", &mebibyte)], 0).repeat(64);
    let endless = data(&[b'x'; 16_000], 0);
    run_all(vec![
        case(
            "a head of 1 MiB",
            after_request([Act::Write([bomb.clone(), parts].concat()), Act::Hang]),
            get(),
            &["the answer violates HTTP/2, or its head is over 64 KiB"],
        ),
        case(
            "a head without end",
            after_request([Act::Write(bomb), Act::Endless(continuation(&[], 0))]),
            get(),
            &["the answer violates HTTP/2, or its head is over 64 KiB"],
        ),
        case(
            "a head of 72 KiB",
            after_request([
                Act::Write(frame(1, 0, 1, &[0x88])),
                Act::Write(continuation(&[("x", &mebibyte)], 0).repeat(4)),
                Act::Write(continuation(&[("x", &mebibyte)], END_HEADERS)),
                Act::Hang,
            ]),
            get(),
            &["the answer violates HTTP/2, or its head is over 64 KiB (PROTOCOL_ERROR)"],
        ),
        case(
            "a body over the cap",
            after_request([
                Act::Write([head(OK, 0), endless.repeat(2)].concat()),
                Act::Wait(SHORT),
                Act::Endless(endless.clone()),
            ]),
            contains("ready"),
            &["body does not contain \"ready\" in its first 64 KiB"],
        ),
        case(
            "endless empty DATA",
            after_request([Act::Write(head(OK, 0)), Act::Endless(data(b"", 0))]),
            contains("ready"),
            &["the answer violates HTTP/2 (ENHANCE_YOUR_CALM)"],
        ),
    ])
    .await;
}

/// What a real HTTP/2 server saw of the only request on a connection, and whether the connection ended cleanly.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    line: String,
    fields: Vec<(String, String)>,
    content: Vec<u8>,
    orderly: bool,
}

/// Answers one connection with 200 and this body, with the server side of the library.
async fn serve_one(listener: TcpListener, body: &'static str) -> Asked {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.expect("a request").unwrap();
    let (parts, mut content) = request.into_parts();
    let line = format!("{} {}", parts.method, parts.uri);
    let fields = parts.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
    let answer = async {
        let mut all = Vec::new();
        while let Some(piece) = content.data().await {
            all.extend(piece.unwrap());
        }
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
        all
    };
    let rest = async {
        let mut orderly = true;
        while let Some(next) = connection.accept().await {
            orderly &= next.is_ok();
        }
        orderly
    };
    let (content, orderly) = tokio::join!(answer, rest);
    Asked { line, fields, content, orderly }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_arrives_as_configured_and_the_connection_closes_cleanly() {
    let headers = vec![
        ("X-App".into(), HeaderText::Plain("shop".into())),
        ("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret"))),
    ];
    let big: Arc<str> = "x".repeat(60_000).into();
    let full = HttpProbe {
        method: "POST".into(),
        path: "/check?deep=1".into(),
        host: Some("api.internal".into()),
        headers,
        body: Some("{\"a\":1}".into()),
        ..contains("ready")
    };
    let agent = ("user-agent".to_owned(), format!("roundsman-probe/{}", env!("CARGO_PKG_VERSION")));
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (spec, line, fields, content) in [
        (contains("ready"), "GET http://HERE/healthz", vec![], String::new()),
        (
            full.clone(),
            "POST http://api.internal/check?deep=1",
            vec![field("x-app", "shop"), field("authorization", "Bearer s3cret"), field("content-length", "7")],
            "{\"a\":1}".to_owned(),
        ),
        (
            HttpProbe { method: "PUT".into(), headers: Vec::new(), body: Some(big.clone()), ..full },
            "PUT http://api.internal/check?deep=1",
            vec![field("content-length", "60000")],
            big.to_string(),
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_one(listener, "ready"));
        let report = super::http(&Address::Inet(address), h2(spec), LONG).await;
        assert_eq!((report.code, report.status), (Code::L7Ok, Some(200)), "{}", report.sentence());
        assert!(report.reason.starts_with("200 in "), "{}", report.reason);
        assert!(report.trace.connected_in.unwrap() <= report.trace.answered_in.unwrap());
        assert!(report.trace.answered_in.unwrap() <= report.duration);
        assert!(report.duration < LONG / 2);
        let asked = tokio::time::timeout(SLACK, server).await.expect("the connection has ended").unwrap();
        let fields = [vec![agent.clone(), field("accept", "*/*")], fields].concat();
        assert_eq!(asked.line, line.replace("HERE", &address.to_string()));
        assert_eq!(asked.fields, fields);
        assert_eq!(asked.content.len(), content.len());
        assert!(asked.content == content.as_bytes() && asked.orderly);
    }
}

fn https(spec: HttpProbe) -> Arc<ProbeSpec> {
    let roots = vec![Certificate(Arc::from(&CERTIFICATES.ca.der()[..]))];
    let tls = TlsPolicy { verify: true, server_name: None, roots: Some(roots), client: None };
    Arc::new(ProbeSpec { port: PortRule::Same, tls: Some(tls), kind: ProbeKind::Http(h2(spec)), max_duration: None })
}

async fn over_tls(front: &TlsOrigin, spec: HttpProbe) -> ProbeReport {
    let address = front.address();
    probe(&address, &address, &https(spec), LONG).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_alpn_must_select_h2() {
    let origin = frames([head(OK, 0), data(b"ready", END_STREAM)]);
    let front = |alpn: &[&str]| TlsOrigin::with(&CERTIFICATES.good).alpn(alpn).before(&origin).start();
    let settled = over_tls(&front(&["h2", "http/1.1"]), contains("ready")).await;
    assert_eq!(settled.code, Code::L7Ok, "{}", settled.sentence());
    assert_eq!(settled.trace.tls.as_ref().and_then(|tls| tls.alpn.as_deref()), Some("h2"));
    // A server without ALPN responds without it; one that has ALPN without h2 refuses.
    let unsettled = over_tls(&front(&[]), contains("ready")).await;
    assert_eq!(unsettled.code, Code::L6Rsp);
    let words = "TLS did not negotiate h2 (it does not offer HTTP/2 on this port: remove version = \"h2\")";
    assert_eq!(unsettled.sentence(), words);
    let refused = over_tls(&front(&["http/1.1"]), contains("ready")).await;
    assert_eq!(refused.code, Code::L6Rsp, "{}", refused.sentence());
    assert_eventually("every connection is closed", SLACK, || origin.open_connections() == 0).await;
}

/// The report has what `explain` shows, and masks a credential that the response quotes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_over_http2_is_kept_without_credentials() {
    let echo: &[(&str, &str)] = &[(":status", "500"), ("x-echo", "Bearer s3cret")];
    let origin = frames([head(echo, 0), data(b"s3cret is no token", END_STREAM)]);
    let headers = vec![("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret")))];
    let probe = || h2(HttpProbe { headers: headers.clone(), ..get() });
    let report = super::http(&origin.address(), probe(), LONG).await;
    assert_eq!(report.code, Code::L7Sts);
    assert!(report.sentence().contains("*** is no token"), "{}", report.sentence());
    assert!(!format!("{report:?}").contains("s3cret"), "{report:?}");
    assert_eq!(String::from_utf8_lossy(&report.trace.head), "HTTP/2 500\r\nx-echo: ***\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&report.trace.body), "*** is no token");
    assert_eq!(report.trace.local.unwrap().ip().to_string(), "127.0.0.1");
    let angry = frames([goaway(0, 11, "no more of s3cret")]);
    let report = super::http(&angry.address(), probe(), LONG).await;
    assert!(report.reason.contains("ENHANCE_YOUR_CALM, \"no more of ***\""), "{}", report.reason);
    assert!(!format!("{report:?}").contains("s3cret"), "{report:?}");
}

/// How much two measurements of one process may differ: memory that the allocator keeps for its threads.
const NOISE: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_hostile_http2_responses_do_not_grow_memory() {
    let origins = [
        after_request([Act::Endless(head(&[(":status", "103")], 0))]),
        after_request([Act::Write(head(OK, 0)), Act::Endless(data(b"x", 0))]),
        after_request([Act::Write(head(OK, 0)), Act::Endless(data(&[b'x'; 16_000], 0))]),
        after_request([Act::Write(frame(1, 0, 1, &[0x88])), Act::Endless(continuation(&[], 0))]),
        after_request([Act::Endless(frame(6, 0, 0, &[0; 8]))]),
        after_request([Act::Hang]),
    ];
    let addresses: Vec<String> = origins.iter().map(Origin::text).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let check = "type = \"http\"\nversion = \"h2\"\ninterval = \"50ms\"\ntimeout = \"40ms\"\nfast_interval = \"50ms\"\n\
                 expect = { body = { contains = \"ready\" } }\n";
    let program = Program::start(&pool("api", &addresses, check)).await;
    let settled = async |probes: u64| {
        let end = Instant::now() + LONG;
        loop {
            let pool = program.pool("api").await;
            if pool.upstreams.iter().all(|upstream| upstream.checks_total >= probes) {
                return program.resident();
            }
            assert!(Instant::now() < end, "no {probes} probes of each within {LONG:?}:\n{}", program.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let before = settled(40).await;
    let after = settled(80).await;
    assert!(after <= before + NOISE, "{before} bytes before 240 hostile probes, {after} after");
    for upstream in program.pool("api").await.upstreams {
        assert_eq!(upstream.state.as_str(), "unhealthy", "{upstream:?}");
    }
    program.assert_no_panic();
}
