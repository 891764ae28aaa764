//! The prober against real sockets: well-behaved, hostile and absent upstreams. The tables beside `probe::answer` test
//! the meaning of each response; these tests check that code and sentence come in time, and that sockets are closed.

mod client_certificates;
mod duration;
mod grpc;
mod h2;
mod sockets;
mod steps;
mod tcp;
mod tls;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use roundsman::model::policy::{BodyRule, Expect, HeaderText, HttpProbe, PortRule, ProbeKind, ProbeSpec};
use roundsman::model::{Address, Code, ProbeReport, Secret};
use roundsman::probe::probe;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::origin::{Act, BlackHole, Origin, Reply, refusing_address};
use crate::support::assert_eventually;

/// The timeout of probes that must run into it.
const SHORT: Duration = Duration::from_millis(300);
/// The timeout of probes that must end before it; a test fails if they take half of it.
const LONG: Duration = Duration::from_secs(20);
/// How much later a busy machine may be.
const SLACK: Duration = Duration::from_secs(3);

fn tcp() -> Arc<ProbeSpec> {
    Arc::new(ProbeSpec::connect())
}

fn get() -> HttpProbe {
    HttpProbe::get("/healthz", Expect::default())
}

fn contains(text: &str) -> HttpProbe {
    HttpProbe { expect: Expect { body: vec![BodyRule::Contains(text.into())], ..Expect::default() }, ..get() }
}

fn equals(text: &str) -> HttpProbe {
    HttpProbe { expect: Expect { body: vec![BodyRule::Equals(text.into())], ..Expect::default() }, ..get() }
}

fn http_spec(probe: HttpProbe) -> Arc<ProbeSpec> {
    Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind: ProbeKind::Http(probe), max_duration: None })
}

async fn http(target: &Address, spec: HttpProbe, timeout: Duration) -> ProbeReport {
    probe(target, target, &http_spec(spec), timeout).await
}

/// One hostile or unusual upstream and the expected report.
struct Case {
    name: &'static str,
    origin: Origin,
    spec: HttpProbe,
    timeout: Duration,
    code: Code,
    /// Parts of the sentence, in this order.
    says: &'static [&'static str],
}

impl Case {
    async fn run(self) {
        let Case { name, origin, spec, timeout, code, says } = self;
        let started = Instant::now();
        let report = http(&origin.address(), spec, timeout).await;
        let took = started.elapsed();
        let sentence = report.sentence();
        assert_eq!(report.code, code, "{name}: {sentence}");
        let mut rest = sentence.as_str();
        for part in says {
            let at =
                rest.find(part).unwrap_or_else(|| panic!("{name}: {sentence:?} does not have {part:?} in its place"));
            rest = &rest[at + part.len()..];
        }
        let limit = if timeout == LONG { LONG / 2 } else { timeout + SLACK };
        assert!(took < limit, "{name}: took {took:?}");
        assert!(report.duration <= took, "{name}: {:?} is longer than {took:?}", report.duration);
        if timeout == SHORT {
            assert!(took >= SHORT, "{name}: ended before its deadline, after {took:?}: {sentence}");
        }
        // 64 KiB for the probe, and what the kernel buffers on both sides.
        assert!(origin.bytes_written() < 32 << 20, "{name}: {} bytes were taken", origin.bytes_written());
        assert_eventually(&format!("{name}: the connection is closed"), SLACK, || origin.open_connections() == 0).await;
    }
}

fn answers(reply: Reply) -> Origin {
    Origin::new().named("a").on("/healthz").reply(reply).start_blocking()
}

fn on_accept(reply: Reply) -> Origin {
    Origin::new().named("a").on_accept(reply).start_blocking()
}

async fn run_all(cases: Vec<Case>) {
    let mut running = JoinSet::new();
    for case in cases {
        running.spawn(case.run());
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

const OK_HEAD: &str = "HTTP/1.1 200 OK\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_response_fails_at_the_deadline() {
    let tick = Duration::from_millis(100);
    let case = |name, origin, spec, says| Case { name, origin, spec, timeout: SHORT, code: Code::L7Tout, says };
    run_all(vec![
        case("no answer", answers(Reply::hang()), get(), &["no answer within 300ms (connected in ", " ms)"]),
        case("no reading", on_accept(Reply::acts(vec![Act::Wait(SLACK / 3)])), get(), &["no answer within 300ms"]),
        case(
            "a head that drips",
            answers(Reply::acts(vec![Act::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), tick)])),
            get(),
            &["no complete answer within 300ms: ", " of its head received (connected in "],
        ),
        case(
            "a head that stops",
            answers(Reply::acts(vec![Act::Write(OK_HEAD.into())]).then_hang()),
            get(),
            &["no complete answer within 300ms: 17 bytes of its head received"],
        ),
        case(
            "a body that drips",
            answers(
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
                    .then(Act::EndlessDrip(b"x".to_vec(), tick)),
            ),
            contains("ready"),
            &["no \"ready\" in the body within 300ms: ", "body: \"x", "too slowly"],
        ),
        case(
            "a body without a length on a connection that stays open",
            answers(Reply::raw("HTTP/1.1 200 OK\r\n\r\nok").then_hang()),
            equals("ok"),
            &[
                "no complete body within 300ms: the answer has no length and its connection stayed open; 2 bytes received",
                "(it must send Content-Length or chunks, or close when asked to;",
            ],
        ),
        case(
            "a body that stops",
            answers(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok").then_hang()),
            equals("ok plus 8."),
            &["no complete body within 300ms: 2 of 10 bytes received", "body: \"ok\""],
        ),
        case(
            "one interim answer",
            answers(Reply::raw("HTTP/1.1 102 Processing\r\n\r\n").then_hang()),
            get(),
            &["no final answer within 300ms: 1 interim received"],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_or_malformed_response_fails_at_once() {
    let case = |name, origin, spec, code, says| Case { name, origin, spec, timeout: LONG, code, says };
    let rsp = |name, reply: Reply, says| case(name, answers(reply), get(), Code::L7Rsp, says);
    let field = |name: &str, bytes: usize| format!("{name}: {}\r\n", "x".repeat(bytes));
    run_all(vec![
        rsp("an endless head", Reply::raw(OK_HEAD).then_endless("A: b\r\n"), &["the head has more than 200 fields"]),
        rsp(
            "1,000 fields",
            Reply::raw(format!("{OK_HEAD}{}\r\n", "A: b\r\n".repeat(1_000))),
            &["more than 200 fields"],
        ),
        rsp(
            "a field of 1 MB",
            Reply::raw(format!("{OK_HEAD}{}\r\n", field("A", 1 << 20))),
            &["the head is over 64 KiB"],
        ),
        rsp(
            "endless interim answers",
            Reply::acts(vec![]).then_endless("HTTP/1.1 100 Continue\r\n\r\n"),
            &["more than 16"],
        ),
        rsp("garbage", Reply::raw("garbage\r\n"), &["not an HTTP/1.1 answer: \"garbage\\r\\n\"", "another protocol"]),
        rsp("endless zeros", Reply::acts(vec![]).then_endless([0; 4096]), &["not an HTTP/1.1 answer: \"\\0\\0", "…"]),
        rsp(
            "a TLS alert",
            Reply::raw(b"\x15\x03\x03\0\x02\x02\x46"),
            &["not an HTTP/1.1 answer", "this port speaks TLS"],
        ),
        rsp(
            "HTTP/2",
            Reply::raw(b"\0\0\x12\x04\0\0\0\0\0"),
            &["not an HTTP/1.1 answer", "it speaks HTTP/2: set version"],
        ),
        case(
            "a banner before the request",
            on_accept(Reply::raw("SSH-2.0-OpenSSH_9.2\r\n").then_hang()),
            get(),
            Code::L7Rsp,
            &["not an HTTP/1.1 answer: \"SSH-2.0-OpenSSH_9.2\\r\\n\""],
        ),
        rsp("an upgrade", Reply::upgrade_echo(), &["answered 101 Switching Protocols"]),
        case(
            "an endless body without the text",
            answers(Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_endless([b'x'; 4096])),
            contains("ready"),
            Code::L7Rsp,
            &["body does not contain \"ready\" in its first 64 KiB", "body: \"xxx", "…"],
        ),
        case(
            "an endless body that is not equal",
            answers(Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_endless([b'x'; 4096])),
            equals("xxy"),
            Code::L7Rsp,
            &["body is not \"xxy\"; body: \"xxx"],
        ),
        case(
            "an endless body after a bad status",
            answers(Reply::raw("HTTP/1.1 503 No\r\n\r\n").then_endless([b'x'; 4096])),
            get(),
            Code::L7Sts,
            &["status 503, expected 200-299; body: \"xxx"],
        ),
        case(
            "a bad status whose body never comes",
            answers(Reply::raw("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n").then_hang()),
            get(),
            Code::L7Sts,
            &["status 503, expected 200-299"],
        ),
        case(
            "an endless body that no rule needs",
            answers(Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_endless([b'x'; 4096])),
            get(),
            Code::L7Ok,
            &["200 in "],
        ),
        case(
            "10 GiB with the text in front",
            answers(
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\nready").then_endless([b'x'; 4096]),
            ),
            contains("ready"),
            Code::L7Ok,
            &["200 in "],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_or_reset_is_reported_with_its_step() {
    let case = |name, origin, spec, says| Case { name, origin, spec, timeout: LONG, code: Code::L7Rsp, says };
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    // The reset waits a little: it must not discard the bytes before it.
    let then_reset = |bytes: &str| Reply::raw(bytes).then(Act::Wait(Duration::from_millis(50))).then_reset();
    run_all(vec![
        case("closed before the request", on_accept(Reply::close()), get(), &["connection ", " without an answer"]),
        case("closed after the request", answers(Reply::close()), get(), &["connection closed without an answer"]),
        case(
            "closed in the head",
            answers(Reply::raw(OK_HEAD)),
            get(),
            &["connection closed inside an answer: 17 bytes"],
        ),
        case(
            "closed in the body",
            answers(Reply::raw(body)),
            contains("ready"),
            &["body does not contain \"ready\" and was cut short: connection closed, 3 of 10 bytes received", "abc"],
        ),
        case(
            "closed in a chunk",
            answers(Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok")),
            equals("ok"),
            &["body was cut short: connection closed, 2 bytes received, but not its end"],
        ),
        case(
            "closed before the last chunk",
            answers(Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")),
            equals("ok"),
            &["body was cut short"],
        ),
        case("reset before an answer", on_accept(then_reset("")), get(), &["connection reset without an answer"]),
        case("reset after the request", answers(Reply::reset()), get(), &["connection reset without an answer"]),
        case(
            "reset in the head",
            answers(then_reset(OK_HEAD)),
            get(),
            &["connection reset inside an answer: 17 bytes"],
        ),
        case("reset in the body", answers(then_reset(body)), equals("abc"), &["connection reset, 3 of 10 bytes"]),
        case(
            "reset instead of the end",
            answers(then_reset("HTTP/1.1 200 OK\r\n\r\nok")),
            equals("ok"),
            &["body was cut short: connection reset, 2 bytes received, but not its end"],
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn well_formed_responses_pass_or_fail_by_status_and_body() {
    let case =
        |name, reply: Reply, spec, code, says| Case { name, origin: answers(reply), spec, timeout: LONG, code, says };
    let head = HttpProbe { method: "HEAD".into(), ..get() };
    let drip = Duration::from_millis(2);
    run_all(vec![
        case("200", Reply::status(200), get(), Code::L7Ok, &["200 in ", " ms"]),
        case("204", Reply::status(204), get(), Code::L7Ok, &["204 in "]),
        case("HEAD", Reply::status(200), head.clone(), Code::L7Ok, &["200 in "]),
        case("HEAD refused", Reply::status(405), head, Code::L7Sts, &["status 405", "does not accept HEAD"]),
        case("interim answers", Reply::status(200).interim(103).interim(102), get(), Code::L7Ok, &["200 in "]),
        case("chunked", Reply::ok("").chunked(["is re", "ady"]), contains("ready"), Code::L7Ok, &["200 in "]),
        case("chunked, equal", Reply::ok("").chunked(["o", "k"]), equals("ok"), Code::L7Ok, &["200 in "]),
        case("by length", Reply::ok("ok"), equals("ok"), Code::L7Ok, &["200 in "]),
        case("until close", Reply::ok("").until_close("ok"), equals("ok"), Code::L7Ok, &["200 in "]),
        case("in single bytes", Reply::ok("is ready").pace(1, drip), contains("ready"), Code::L7Ok, &["200 in "]),
        case("empty", Reply::ok(""), equals(""), Code::L7Ok, &["200 in "]),
        case(
            "unhealthy",
            Reply::status(503).body(r#"{"status":"unhealthy","reason":"No ASR workers available"}"#),
            get(),
            Code::L7Sts,
            &["status 503, expected 200-299 (reason: No ASR workers available)"],
        ),
        case(
            "a body that arrives after its head",
            Reply::status(503).body("starting").body_delay(Duration::from_millis(10)),
            get(),
            Code::L7Sts,
            &["; body: \"starting\""],
        ),
        case(
            "unequal",
            Reply::ok("unhealthy"),
            equals("healthy"),
            Code::L7Rsp,
            &["body is not \"healthy\"; body: \"unhealthy\""],
        ),
        case(
            "a redirect",
            Reply::status(302).header("Location", "http://elsewhere/"),
            get(),
            Code::L7Sts,
            &["status 302, expected 200-299; location: \"http://elsewhere/\"", "redirects are not followed"],
        ),
        case(
            "404",
            Reply::status(404),
            get(),
            Code::L7Sts,
            &["status 404", "(path wrong, endpoint disabled, or another Host is expected)"],
        ),
        case("401", Reply::status(401), get(), Code::L7Sts, &["status 401", "(needs credentials)"]),
        case(
            "hostile text",
            Reply::ok("\x1b[2J\u{202e}"),
            contains("x"),
            Code::L7Rsp,
            &[r#"body: "\u{1b}[2J\u{202e}""#],
        ),
    ])
    .await;
}

#[tokio::test]
async fn redirects_are_not_followed_with_or_without_credentials() {
    let elsewhere = Origin::plain("elsewhere").await;
    let place = format!("http://{}/?you=s3cret", elsewhere.text());
    let origin = answers(Reply::status(307).header("Location", &place).body("you sent Bearer s3cret"));
    let headers = vec![("Authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret")))];
    let report = http(&origin.address(), HttpProbe { headers, ..get() }, LONG).await;
    assert_eq!((report.code, report.status), (Code::L7Sts, Some(307)));
    let sentence = report.sentence();
    assert!(!sentence.contains("s3cret") && sentence.contains("; body: \"you sent ***\""), "{sentence}");
    assert_eq!((origin.total(), elsewhere.accepted()), (1, 0));
    assert_eq!(origin.requests("/healthz")[0].field("authorization"), Some("Bearer s3cret"));
}

#[tokio::test]
async fn a_probe_sends_one_request_with_its_user_agent_and_closes() {
    let origin = Origin::plain("a").await;
    let spec = HttpProbe { path: "/healthz?full=1".into(), ..get() };
    let report = http(&origin.address(), spec, LONG).await;
    assert_eq!((report.code, report.status, report.hint), (Code::L7Ok, Some(200), None));
    let seen = &origin.requests("/healthz")[0];
    let expected = format!(
        "GET /healthz?full=1 HTTP/1.1\r\nHost: {}\r\nUser-Agent: roundsman-probe/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        origin.text(),
        roundsman::VERSION
    );
    assert_eq!(String::from_utf8_lossy(&seen.head), expected);
    assert_eq!((origin.total(), origin.accepted()), (1, 1));
}

#[tokio::test]
async fn a_tcp_probe_connects_and_sends_nothing() {
    let origin = Origin::plain("a").await;
    let report = probe(&origin.address(), &origin.address(), &tcp(), LONG).await;
    assert_eq!((report.code, report.status, report.hint), (Code::L4Ok, None, None));
    assert!(report.reason.starts_with("connected in ") && report.reason.ends_with(" ms"), "{}", report.reason);
    assert_eq!((origin.total(), origin.bytes_read()), (0, 0), "a TCP probe sends nothing");
}

#[tokio::test]
async fn an_absent_upstream_is_refused_or_times_out() {
    let refusing = refusing_address();
    for spec in [tcp(), http_spec(get())] {
        let report = probe(&refusing, &refusing, &spec, LONG).await;
        assert_eq!(
            (report.code, report.sentence()),
            (Code::L4Con, "connection refused (nothing listens there)".into())
        );
        let upstream: Address = "127.0.0.1:1".parse().unwrap();
        let report = probe(&refusing, &upstream, &spec, LONG).await;
        assert_eq!(&*report.reason, format!("connection refused at {refusing}"));
        let hole = BlackHole::start();
        let started = Instant::now();
        let report = probe(&hole.address(), &hole.address(), &spec, SHORT).await;
        assert_eq!((report.code, &*report.reason), (Code::L4Tout, "no connection within 300ms"));
        assert!((SHORT..SHORT + SLACK).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_killed_upstream_fails_and_passes_again_when_it_returns() {
    let origin = Origin::plain("a").await;
    let codes = async || {
        let http = http(&origin.address(), get(), LONG).await.code;
        (http, probe(&origin.address(), &origin.address(), &tcp(), LONG).await.code)
    };
    assert_eq!(codes().await, (Code::L7Ok, Code::L4Ok));
    origin.kill();
    assert_eq!(codes().await, (Code::L4Con, Code::L4Con));
    origin.revive();
    assert_eq!(codes().await, (Code::L7Ok, Code::L4Ok));
}

#[tokio::test]
async fn a_unix_socket_is_probed_like_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.sock");
    let target = Address::Unix(Arc::from(path.as_path()));
    let missing = probe(&target, &target, &tcp(), LONG).await;
    assert_eq!((missing.code, missing.sentence()), (Code::L4Con, "no such socket (nothing listens there)".into()));
    let origin = Origin::new().named("a").at_unix(&path).start().await;
    assert_eq!(probe(&target, &target, &tcp(), LONG).await.code, Code::L4Ok);
    assert_eq!(http(&target, contains("hello from a"), LONG).await.code, Code::L7Ok);
    assert_eq!(origin.requests("/healthz")[0].field("host"), Some("localhost"));
    drop(origin);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let abandoned = probe(&target, &target, &tcp(), LONG).await;
    assert_eq!((abandoned.code, &*abandoned.reason), (Code::L4Con, "connection refused"));
}

#[tokio::test]
async fn a_unix_socket_whose_backlog_is_full_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.sock");
    let socket = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let address = socket2::SockAddr::unix(&path).unwrap();
    let listener = socket();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let filler = socket();
    filler.connect(&address).unwrap();
    let target = Address::Unix(Arc::from(path.as_path()));
    let report = probe(&target, &target, &tcp(), LONG).await;
    assert_eq!((report.code, &*report.reason), (Code::L4Con, "connection not accepted: the backlog is full"));
}

#[tokio::test]
async fn a_dropped_probe_closes_its_socket() {
    let origin = answers(Reply::hang());
    let address = origin.address();
    let task = tokio::spawn(async move { http(&address, get(), LONG).await });
    assert_eventually("the request has arrived", SLACK, || origin.count("/healthz") == 1).await;
    assert_eq!(origin.open_connections(), 1);
    task.abort();
    assert_eventually("the connection is closed", SLACK, || origin.open_connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_upstreams_delay_no_other_probe() {
    let hanging = answers(Reply::hang());
    let mut waiting = JoinSet::new();
    for _ in 0..200 {
        let address = hanging.address();
        waiting.spawn(async move { http(&address, get(), LONG).await });
    }
    assert_eventually("all of them wait for a response", SLACK, || hanging.count("/healthz") == 200).await;
    let origin = Origin::plain("a").await;
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(http(&origin.address(), get(), LONG).await.code, Code::L7Ok);
        assert!(started.elapsed() < SLACK);
    }
    waiting.shutdown().await;
}

/// The limit of open files applies to the process: the probe runs in a child process, which runs this test alone.
#[test]
fn a_lack_of_our_own_descriptors_gives_no_verdict() {
    const CHILD: &str = "ROUNDSMAN_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        return probe_without_descriptors();
    }
    let this = "probe::a_lack_of_our_own_descriptors_gives_no_verdict";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args([this, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn probe_without_descriptors() {
    use nix::sys::resource::{Resource, setrlimit};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Address::Inet(listener.local_addr().unwrap());
    assert_eq!(runtime.block_on(probe(&target, &target, &tcp(), LONG)).code, Code::L4Ok);
    setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
    let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(held.len() < 64);
    for spec in [tcp(), http_spec(get())] {
        let report = runtime.block_on(probe(&target, &target, &spec, LONG));
        assert_eq!(report.code, Code::NoRes);
        assert_eq!(&*report.reason, "not probed: this process has no file descriptors left (EMFILE)");
    }
    drop(held);
    assert_eq!(runtime.block_on(probe(&target, &target, &tcp(), LONG)).code, Code::L4Ok);
}
