//! The whole server over real sockets with a fake host: every row of `ROUTES`, and the requests that must be refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::connections::HEADS_MAX;
use super::json::{ProcessState, StatusReply};
use super::routes::ROUTES;
use super::testing::{FakeHost, Ordered, mistake, name, pool};
use super::{Handle, bind};
use crate::model::HealthState::{Healthy, Unhealthy, Unknown};
use crate::model::policy::AdminPolicy;
use crate::model::{Address, AdminState, Secret};
use crate::pool::{EventKind, Setting};

/// The limit of every wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    host: Arc<FakeHost>,
    address: SocketAddr,
    _handle: Handle,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}{}", self.head, self.body))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

fn serve(host: Arc<FakeHost>) -> Server {
    let policy = AdminPolicy { address: any_port(), written: true, token: None };
    let bound = bind(&policy).expect("the loopback has a free port");
    let Address::Inet(address) = *bound.address() else { panic!("an Internet address") };
    let handle = bound.spawn(host.clone()).expect("a thread");
    Server { host, address, _handle: handle }
}

/// Port 0, which a configuration file must not use.
fn any_port() -> Address {
    Address::Inet(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn usual() -> Server {
    serve(FakeHost::with(vec![pool("api", &[Healthy, Unhealthy]), pool("web", &[Unhealthy])]))
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a good timeout");
        stream
    }

    /// Sends these bytes and reads to the end of the connection.
    fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        let _ = stream.write_all(request);
        read_answer(stream)
    }

    fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| *name == "Host") {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        // Otherwise a response to HEAD would not end with the connection.
        request.push_str("Connection: close\r\n");
        for (name, value) in fields {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        // The only one that needs a body.
        let body = if path.ends_with("/weight") { r#"{"weight":2}"# } else { "" };
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.raw(format!("{request}\r\n{body}").as_bytes())
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }
}

/// Reads as much as the head announces, or to the end of the connection (a response to HEAD).
fn read_answer(mut stream: impl Read) -> Answer {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 << 10]);
    let whole = |bytes: &[u8]| {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        Some(bytes.len() >= end + length?.parse::<usize>().ok()?)
    };
    while whole(&bytes) != Some(true) {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    let text = String::from_utf8(bytes).expect("responses are UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
    Answer { status, head: head.to_string(), body: body.to_string() }
}

fn path_of(pattern: &str) -> String {
    pattern.replace("{pool}", "api").replace("{address}", "10.0.0.1:80")
}

#[test]
fn every_endpoint_answers_with_security_fields_and_head_like_get() {
    let server = usual();
    for route in &ROUTES {
        let path = path_of(route.path);
        let answer = server.ask(route.method.as_str(), &path, &[]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.field("connection"), Some("close"), "{path}");
        assert_eq!(answer.field("access-control-allow-origin"), None, "{path}");
        assert!(answer.field("content-type").is_some(), "{path}");
        if route.method == http::Method::GET {
            let head = server.ask("HEAD", &path, &[]);
            assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
            assert!(head.field("content-length").is_some_and(|n| n != "0"), "{path}");
        }
        for other in ["DELETE", "PUT", "OPTIONS", "TRACE", "BREW"] {
            let refused = server.ask(other, &path, &[]);
            let allow = if route.method == http::Method::GET { "GET, HEAD" } else { "POST" };
            assert_eq!((refused.status, refused.field("allow")), (405, Some(allow)), "{other} {path}");
        }
    }
    assert_eq!(server.get("/").field("content-type"), Some("text/html; charset=utf-8"));
    assert!(server.get("/").field("content-security-policy").is_some_and(|p| p.starts_with("default-src 'none'")));
    for path in ["/nothing", "/api/v1", "/api/v2/status", "/health/api/x", "/etc/passwd", "/../x", "/%2e%2e/"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()["error"].is_string()), (404, true), "{path}");
    }
}

#[test]
fn with_a_token_everything_except_the_probes_requires_it() {
    let server = usual();
    let token = "0123456789abcdef0123456789abcdef";
    server.host.replies.lock().token = Some(Secret::new(token));
    for route in &ROUTES {
        let (path, method) = (path_of(route.path), route.method.as_str());
        let without = server.ask(method, &path, &[]);
        if route.open {
            assert_eq!(without.status, 200, "{path}");
            continue;
        }
        assert_eq!(without.status, 401, "{path}");
        assert!(without.field("www-authenticate").is_some_and(|v| v.starts_with("Bearer")), "{path}");
        assert!(!without.body.contains(token));
        let wrong = server.ask(method, &path, &[("Authorization", "Bearer 0123456789abcdef")]);
        assert_eq!(wrong.status, 401, "{path}");
        let with = server.ask(method, &path, &[("Authorization", &format!("Bearer {token}"))]);
        assert_eq!(with.status, 200, "{path}");
    }
    assert_eq!(server.get("/nothing").status, 401);
    assert_eq!(server.ask("DELETE", "/api/v1/status", &[]).status, 401);
}

#[test]
fn a_page_of_another_site_can_neither_read_nor_order() {
    let server = usual();
    for host in ["evil.example", "evil.example:9900", "127.0.0.1.evil.example"] {
        for route in &ROUTES {
            let answer = server.ask(route.method.as_str(), &path_of(route.path), &[("Host", host)]);
            assert_eq!(answer.status, 403, "{host} {}", route.path);
        }
    }
    for host in ["127.0.0.1:1", "[::1]:1", "localhost:1"] {
        assert_eq!(server.ask("GET", "/health", &[("Host", host)]).status, 200, "{host}");
    }
    let own = format!("http://{}", server.address);
    for route in ROUTES.iter().filter(|route| route.method == http::Method::POST) {
        let order = |name, value: &str| server.ask("POST", &path_of(route.path), &[(name, value)]).status;
        assert_eq!(order("Origin", "https://evil.example"), 403, "{}", route.path);
        assert_eq!(order("Origin", "null"), 403, "{}", route.path);
        assert_eq!(order("Sec-Fetch-Site", "cross-site"), 403, "{}", route.path);
        assert_eq!(order("Sec-Fetch-Site", "same-site"), 403, "{}", route.path);
        assert_eq!(order("Origin", &own), 200, "{}", route.path);
    }
    assert_eq!(server.host.replies.lock().reloads.len(), 1, "refused orders must not be carried out");
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_the_server_goes_on() {
    let server = usual();
    let long = "x".repeat(9_000);
    let requests: &[(String, &[u16])] = &[
        (format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), &[431]),
        (format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[414, 431]),
        ("GET /health HTTP/1.1\r\n\r\n".into(), &[400]),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[403]),
        ("nonsense\r\n\r\n".into(), &[400]),
        ("\u{16}\u{3}\u{1}\r\n\r\n".into(), &[400]),
        ("POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n".into(), &[413]),
        (
            "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
                .into(),
            &[400],
        ),
        ("POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(), &[400]),
        ("GET /health HTTP/1.0\r\n\r\n".into(), &[200]),
        ("GET /api/v1/events?after=x HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
        ("POST /api/v1/reload?dry_run=perhaps HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400]),
    ];
    for (request, statuses) in requests {
        let shown = &request[..request.len().min(80)];
        assert!(statuses.contains(&server.raw(request.as_bytes()).status), "{shown:?}");
    }
    let chunk = format!("{:x}\r\n{}\r\n", 40_000, "x".repeat(40_000));
    let chunked = format!(
        "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    assert_eq!(server.raw(chunked.as_bytes()).status, 413);
    assert!(server.host.replies.lock().reloads.is_empty());
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn a_panic_in_a_handler_affects_one_response() {
    let server = usual();
    server.host.replies.lock().broken = true;
    let answer = server.get("/api/v1/status");
    assert_eq!((answer.status, answer.json()), (500, json!({ "error": "internal error" })));
    assert_eq!(server.get("/livez").status, 200);
    server.host.replies.lock().broken = false;
    assert_eq!(server.get("/api/v1/status").status, 200);
}

#[test]
fn sixty_four_silent_connections_do_not_shut_out_the_next() {
    let server = usual();
    let mut silent: Vec<_> = (0..HEADS_MAX).map(|_| server.connect()).collect();
    let begin = Instant::now();
    let mut next = server.connect();
    next.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    drop(silent.pop());
    assert_eq!(read_answer(next).status, 200);
    assert!(begin.elapsed() < Duration::from_secs(4), "a place was free at once");
}

#[test]
fn simultaneous_requests_share_a_snapshot_until_an_order() {
    let server = usual();
    while server.get("/readyz").status != 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
    *server.host.revision.lock() = Some(1);
    let before = server.host.pictures.load(Ordering::Relaxed);
    let begin = Instant::now();
    let asked: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let answers: Vec<_> = asked.into_iter().map(read_answer).collect();
    let pictures = server.host.pictures.load(Ordering::Relaxed) - before;
    // On a slow machine the requests are not simultaneous.
    let most = 1 + begin.elapsed().as_millis() as u64 / 100;
    assert!((1..=most.min(39)).contains(&pictures), "{pictures} snapshots for 40 requests, of {most} allowed");
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body) || pictures > 1);
    for revision in 2..20 {
        server.host.replies.lock().status.generation = revision;
        *server.host.revision.lock() = Some(revision);
        assert_eq!(server.get("/api/v1/status").json()["generation"], revision, "an order shows at once");
    }
}

#[test]
fn slow_readers_hold_neither_memory_nor_the_probes() {
    let many = (0..30).map(|n| pool(&format!("pool-{n}"), &[Healthy; 100]));
    let server = serve(FakeHost::with(many.collect()));
    // Each gets its own snapshot of some 1.5 MB, so that 32 MiB hold about twenty.
    let slow: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let begin = Instant::now();
    for _ in 0..10 {
        assert_eq!(server.get("/livez").status, 200);
        assert_eq!(server.get("/readyz").status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let answers: Vec<_> = slow.into_iter().map(read_answer).collect();
    let (whole, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(whole.len() >= 10, "{} were answered", whole.len());
    for refused in others {
        assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{}", refused.body);
    }
}

#[test]
fn health_is_503_only_if_no_pool_can_serve() {
    let server = usual();
    let answer = server.get("/health");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(answer.json()["unhealthy"][0]["upstream"], "10.0.0.2:80");
    assert_eq!(answer.json()["components"], Value::Null);
    let detailed = server.get("/health?detailed=true").json();
    assert_eq!(detailed["components"], json!({ "api": "degraded", "web": "unhealthy" }));
    assert!(detailed["uptime_seconds"].is_number() && detailed["version"].is_string() && detailed["now"].is_string());

    assert_eq!(server.get("/health/api").status, 200);
    assert_eq!(server.get("/health/api").json()["status"], "degraded");
    assert_eq!(server.get("/health/web").status, 503);
    assert_eq!(server.get("/health/none").status, 404);

    server.host.replies.lock().status.pools = vec![pool("web", &[Unhealthy])];
    let answer = server.get("/health");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("unhealthy")));
    assert!(answer.json()["reason"].is_string());
    server.host.replies.lock().status.pools = vec![pool("web", &[Healthy])];
    assert_eq!(server.get("/health").json(), json!({ "status": "healthy" }));
}

#[test]
fn readiness_waits_for_every_pool_latches_and_ends_when_draining() {
    let server = serve(FakeHost::with(vec![pool("api", &[Unknown])]));
    let answer = server.get("/readyz");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    assert!(answer.json()["reason"].as_str().unwrap().contains("1 of 1 pools"));
    assert_eq!(server.get("/api/v1/status").json()["ready"], false);
    server.host.replies.lock().status.pools = vec![pool("api", &[Healthy])];
    let begin = Instant::now();
    while server.get("/readyz").status != 200 {
        assert!(begin.elapsed() < PATIENCE, "it is evaluated every few milliseconds");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.host.replies.lock().status.pools = vec![pool("api", &[Unknown])];
    assert_eq!(server.get("/readyz").status, 200, "once ready it stays ready");
    server.host.replies.lock().process.state = ProcessState::Draining;
    assert_eq!(server.get("/readyz").status, 503);
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/api/v1/status").json()["state"], "draining");
}

#[test]
fn a_reload_answers_with_its_result_or_with_every_error() {
    let server = usual();
    let good = server.ask("POST", "/api/v1/reload", &[]);
    assert_eq!(good.status, 200);
    assert_eq!((&good.json()["result"], &good.json()["last_reload"]["result"]), (&json!("applied"), &json!("applied")));
    assert_eq!((&good.json()["generation"], &good.json()["warming"]), (&json!(4), &json!(["api"])));
    assert_eq!(good.json()["changes"]["pools_changed"], json!({ "count": 1, "names": ["api"] }));

    server.host.replies.lock().diagnostics = vec![mistake(), mistake()];
    let bad = server.ask("POST", "/api/v1/reload", &[]);
    assert_eq!((bad.status, &bad.json()["result"]), (422, &json!("refused")));
    assert_eq!(bad.json()["errors"].as_array().map(Vec::len), Some(2));
    assert_eq!(bad.json()["errors"][0]["suggestion"], "interval");
    assert_eq!(server.get("/api/v1/status").json()["config"]["last_reload"]["result"], "refused");

    let reloads = server.host.replies.lock().reloads.clone();
    let trial = server.ask("POST", "/api/v1/reload?dry_run=true", &[]);
    assert_eq!((trial.status, &trial.json()["dry_run"]), (422, &json!(true)));
    assert_eq!(server.host.replies.lock().reloads, reloads, "a trial applies nothing");
}

#[test]
fn an_order_reaches_the_upstream_it_names() {
    let server = usual();
    let order = |path: &str, body: &str| {
        let length = body.len();
        server.raw(
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
        )
    };
    let upstream = "/api/v1/pools/api/upstreams/10.0.0.1%3A80";
    let drained = order(&format!("{upstream}/drain"), r#"{"reason":"kernel\nupgrade"}"#);
    let mut reply = drained.json();
    let note = reply.as_object_mut().and_then(|reply| reply.remove("note")).expect("how long it lasts");
    let lasts = "an order survives reloads while its upstream is in the file, and ends with the process; to make it permanent, ";
    assert_eq!(note, format!("{lasts}set `admin = \"draining\"` of the upstream in the file"));
    let want =
        json!({ "pool": "api", "upstream": "10.0.0.1:80", "admin": "draining", "was": "enabled", "in_flight": 0 });
    assert_eq!((drained.status, reply), (200, want));
    let undrained = order(&format!("{upstream}/undrain"), "").json();
    assert_eq!((&undrained["admin"], &undrained["note"]), (&json!("enabled"), &json!("")), "it ends an order");
    assert_eq!(order(&format!("{upstream}/disable"), "").json()["admin"], "disabled");
    assert_eq!(order(&format!("{upstream}/undrain"), "").status, 409, "undrain does not enable what is disabled");
    assert_eq!(order(&format!("{upstream}/enable"), "").json()["was"], "disabled");
    let orders = server.host.replies.lock().orders.clone();
    let Ordered { pool, upstream: address, to, reason, by, lasts: time } = &orders[0];
    let drained = (&**pool, &**address, *to, &**reason, *time);
    assert_eq!(drained, ("api", "10.0.0.1:80", Setting::Admin(AdminState::Draining), "kernel upgrade", None));
    assert!(by.starts_with("admin API, client 127.0.0.1:"), "{by}");
    assert_eq!(orders.len(), 4);
    server.host.replies.lock().in_file = AdminState::Disabled;
    let differs = order(&format!("{upstream}/enable"), "").json();
    let note = format!("the file has `admin = \"disabled\"`; {lasts}remove that from the upstream in the file");
    assert_eq!(differs["note"], note, "the file says otherwise");
    server.host.replies.lock().orders.pop();

    assert_eq!(order("/api/v1/pools/none/upstreams/10.0.0.1:80/drain", "").status, 404);
    assert_eq!(order("/api/v1/pools/api/upstreams/10.0.0.9:80/drain", "").status, 404);
    assert_eq!(order("/api/v1/pools/api/upstreams/unix:%2Frun%2Fa.sock/drain", "").status, 404);
    assert_eq!(order("/api/v1/pools/api/upstreams/nonsense/drain", "").status, 400);
    assert_eq!(order(&format!("{upstream}/drain"), "{").status, 400);
    for body in [
        r#"{"until":1}"#,
        r#"{"force":1}"#,
        r#"{"force":"true"}"#,
        "[]",
        "true",
        r#"{"for":"5"}"#,
        r#"{"for":"1ms"}"#,
        r#"{"for":5}"#,
        r#"{"weight":5}"#,
    ] {
        assert_eq!(order(&format!("{upstream}/drain"), body).status, 400, "{body}");
    }

    server.host.replies.lock().needs_force = true;
    for body in ["", "{}", r#"{"force":false}"#] {
        let refused = order(&format!("{upstream}/drain"), body);
        assert_eq!(refused.status, 409, "{body}");
        let message = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(message.starts_with("without 10.0.0.1:80, no upstream") && message.contains("--force"), "{message}");
    }
    assert_eq!(server.host.replies.lock().orders.len(), 4, "nothing was changed");
    assert_eq!(order(&format!("{upstream}/drain"), r#"{"force":true}"#).json()["admin"], "draining");
    assert_eq!(order(&format!("{upstream}/undrain"), "").status, 200, "letting it serve again needs no force");
}

#[test]
fn an_order_may_end_by_itself_set_a_weight_or_hold_in_every_pool() {
    let server = usual();
    let order = |path: &str, body: &str| {
        let length = body.len();
        let head = format!("POST /api/v1/pools/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        server.raw(format!("{head}{body}").as_bytes())
    };
    let drained = order("api/upstreams/10.0.0.1:80/drain", r#"{"for":"1h30m"}"#).json();
    assert_eq!(drained["note"], "it ends by itself after 1h 30m, or with the process");
    assert_eq!(server.host.replies.lock().orders[0].lasts, Some(Duration::from_secs(5_400)));
    let weighed = order("api/upstreams/10.0.0.1:80/weight", r#"{"weight":7}"#).json();
    assert_eq!(
        (&weighed["weight"], &weighed["was_weight"], &weighed["admin"]),
        (&json!(7), &json!(1), &json!("draining"))
    );
    let note = weighed["note"].as_str().expect("how long it lasts");
    assert!(note.ends_with("to make it permanent, set `weight = 7` of the upstream in the file"), "{note}");
    for body in ["", "{}", r#"{"weight":0}"#, r#"{"weight":1001}"#, r#"{"weight":"5"}"#, r#"{"weight":1.5}"#] {
        assert_eq!(order("api/upstreams/10.0.0.1:80/weight", body).status, 400, "{body}");
    }
    let everywhere = order("*/upstreams/10.0.0.1:80/undrain", "").json();
    let orders = everywhere["orders"].as_array().expect("a list");
    assert_eq!((&orders[0]["pool"], &orders[0]["was"]), (&json!("api"), &json!("draining")));
    assert_eq!((orders.len(), &orders[1]["was"]), (2, &json!("enabled")), "the other pool has it too");
    let nowhere = order("*/upstreams/10.0.0.9:80/drain", "");
    let message = nowhere.json()["error"].as_str().expect("a sentence").to_owned();
    assert!(nowhere.status == 404 && message.starts_with("no pool has upstream \"10.0.0.9:80\""), "{message}");
}

#[test]
fn events_are_listed_after_a_number_and_a_request_may_wait_for_one() {
    let server = usual();
    let push = |pool: &str| {
        let kind = EventKind::BelowHalf { pool: name(pool), on: true, able: 1, total: 3 };
        server.host.replies.lock().events.push(Instant::now(), kind);
    };
    assert_eq!(server.get("/api/v1/events").json(), json!({ "events": [], "last": 0 }));
    push("api");
    push("web");
    let all = server.get("/api/v1/events").json();
    assert_eq!((&all["events"][1]["pool"], &all["last"]), (&json!("web"), &json!(2)));
    assert_eq!(server.get("/api/v1/events?after=1").json()["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.get("/api/v1/events?after=2").json(), json!({ "events": [], "last": 2 }));
    let earlier_process = server.get("/api/v1/events?after=900").json();
    assert_eq!(earlier_process["last"], 2, "a number of an earlier process returns all events");

    let waiting = std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.get("/api/v1/events?after=2&wait=20"));
        while server.host.replies.lock().events.after(2).next().is_none() {
            push("late");
        }
        asked.join().unwrap()
    });
    assert_eq!(waiting.json()["events"][0]["pool"], "late");
}

#[test]
fn metrics_are_open_metrics_if_accepted() {
    let server = usual();
    let plain = server.get("/metrics");
    assert_eq!(plain.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(plain.body.contains("open=false"));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = server.ask("GET", "/metrics", &[("Accept", accept)]);
    assert_eq!(open.field("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.body.contains("open=true"));
}

#[test]
fn every_format_of_metrics_is_rendered_separately() {
    let server = usual();
    while server.get("/readyz").status != 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
    // One revision: a rendering may be shared by all requests.
    *server.host.revision.lock() = Some(1);
    for _ in 0..2 {
        for (query, upstreams) in
            [("", true), ("?upstreams=false", false), ("?upstreams=true", true), ("?upstreams=0", false)]
        {
            for (accept, open) in [("text/plain", false), ("application/openmetrics-text", true)] {
                for (encoding, packed) in [("gzip", true), ("gzip;q=0", false), ("identity", false)] {
                    let path = format!("/metrics{query}");
                    let mut stream = server.connect();
                    let request = format!(
                        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nAccept-Encoding: {encoding}\r\n\
                         Connection: close\r\n\r\n"
                    );
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).unwrap();
                    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
                    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                    assert!(
                        head.starts_with("http/1.1 200") && head.contains("vary: accept, accept-encoding\r\n"),
                        "{head}"
                    );
                    assert_eq!(head.contains("content-encoding: gzip\r\n"), packed, "{path} {encoding}: {head}");
                    let mut body = String::new();
                    match packed {
                        true => drop(flate2::read::GzDecoder::new(&bytes[end..]).read_to_string(&mut body).unwrap()),
                        false => body.push_str(std::str::from_utf8(&bytes[end..]).expect("text")),
                    }
                    assert_eq!(
                        body,
                        format!("# metrics open={open} upstreams={upstreams}\n"),
                        "{path} {accept} {encoding}"
                    );
                }
            }
        }
    }
    assert_eq!(server.get("/metrics?upstreams=perhaps").status, 400);
}

#[test]
fn the_65th_kept_connection_closes_an_idle_one() {
    let server = usual();
    const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut kept: Vec<_> = (0..HEADS_MAX).map(|_| server.connect()).collect();
    for stream in &mut kept {
        for _ in 0..2 {
            stream.write_all(ASK).unwrap();
            let answer = read_answer(&mut *stream);
            assert_eq!((answer.status, answer.field("connection")), (200, None));
        }
    }
    for _ in 0..HEADS_MAX {
        // Even if its first bytes come late, a new connection does not wait for an idle one to close.
        let mut next = server.connect();
        next.write_all(ASK).unwrap();
        assert_eq!(read_answer(&mut next).status, 200);
    }
    let mut end = Vec::new();
    assert_eq!(kept[0].read_to_end(&mut end).unwrap_or(0), 0, "the connection idle for longest is closed");
    let refused = "POST /api/v1/reload HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(server.raw(refused.as_bytes()).field("connection"), Some("close"), "its body is not read");
    let whole = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(server.raw(whole.as_bytes()).field("connection"), None);
}

#[test]
fn a_unix_socket_serves_the_same_and_stopping_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let address: Address = format!("unix:{}", path.display()).parse().unwrap();
    let host = FakeHost::with(vec![pool("api", &[Healthy])]);
    let handle = bind(&AdminPolicy { address, written: true, token: None }).unwrap().spawn(host).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let status: StatusReply = serde_json::from_value(read_answer(stream).json()).unwrap();
    assert_eq!(status.pools.get("api").map(|pool| pool.healthy), Some(1));
    handle.stop();
    assert!(!path.exists());
}

#[test]
fn stopping_lets_a_request_in_flight_finish_and_is_quick_when_idle() {
    let server = usual();
    let Server { host, address, _handle: handle } = server;
    host.replies.lock().reload_takes = Duration::from_millis(300);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let idle = TcpStream::connect(address).unwrap();
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    waiting.write_all(b"GET /api/v1/events?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let begin = Instant::now();
    // The second answer proves that the first request has been read: connections are accepted in order.
    let mut probe = TcpStream::connect(address).unwrap();
    probe.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_answer(probe).status, 200);
    handle.stop();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(read_answer(stream).status, 200);
    assert_eq!(read_answer(waiting).status, 200, "a waiting request is answered at once");
    drop(idle);
    assert!(TcpStream::connect(address).is_err(), "the socket is closed");
}

#[test]
fn a_pool_and_an_upstream_are_explained_and_similar_names_suggested() {
    let mut named = pool("api", &[Healthy, Unhealthy]);
    named.upstreams[1].name = Some("api.internal".into());
    let server = serve(FakeHost::with(vec![named]));
    let whole = server.ask("GET", "/api/v1/pools/api/explain", &[]);
    assert_eq!(whole.status, 200);
    assert!(whole.json()["text"].as_str().unwrap().starts_with("Pool api is degraded: 1 of 2 upstreams is healthy."));
    for upstream in ["10.0.0.2:80", "10.0.0.2%3A80", "api.internal", "api.internal:80"] {
        let one = server.ask("GET", &format!("/api/v1/pools/api/upstreams/{upstream}/explain"), &[]);
        assert_eq!((one.status, one.json()["upstream"].as_str()), (200, Some("10.0.0.2:80")), "{upstream}");
        assert_eq!((&one.json()["eligible"], &one.json()["state"]), (&json!(false), &json!("unhealthy")));
    }
    for (path, message) in [
        ("/api/v1/pools/apj/explain", "there is no pool \"apj\"; did you mean api?"),
        ("/api/v1/pools/apj/upstreams/10.0.0.1:80/explain", "there is no pool \"apj\"; did you mean api?"),
        (
            "/api/v1/pools/api/upstreams/10.0.0.1:81/explain",
            "pool \"api\" has no upstream \"10.0.0.1:81\"; did you mean 10.0.0.1:80 or 10.0.0.2:80?",
        ),
    ] {
        let answer = server.ask("GET", path, &[]);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (404, Some(message)));
    }
    for (upstream, status, said) in [
        ("10.0.0.9:81", 404, "pool \"api\" has no upstream \"10.0.0.9:81\""),
        ("10.0.0.1", 404, "pool \"api\" has no upstream \"10.0.0.1\"; did you mean 10.0.0.1:80?"),
        ("api.internal", 404, "pool \"api\" has no upstream \"api.internal\"; did you mean 10.0.0.2:80?"),
        ("nonsense!", 400, "upstream address: "),
    ] {
        let answer = server.ask("POST", &format!("/api/v1/pools/api/upstreams/{upstream}/drain"), &[]);
        let error = answer.json()["error"].as_str().expect("a sentence").to_owned();
        assert!(answer.status == status && error.starts_with(said), "{upstream}: {} {error}", answer.status);
    }
}
