//! The keys of how requests travel, each by what a client sees of it, and after a reload.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{PATIENCE, apply, rare};
use crate::client::{Client, get};
use crate::lanes::differences::Difference::NeverRepeatsTimeouts;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};

/// What a limit of one second may come to: it is looked at twice a second, and a machine may be slow.
const ABOUT_A_SECOND: std::ops::Range<Duration> = Duration::from_millis(900)..Duration::from_secs(20);

/// Failures count, and upstreams stay.
const NOTHING_IS_EJECTED: &str = "[pools.api.passive]\nconsecutive_failures = 0\n";

in_each_lane!(limits_of_clients_hold_from_the_next_request_on, flavor = "multi_thread");
async fn limits_of_clients_hold_from_the_next_request_on() {
    let origin = Origin::plain("a").await;
    let text = |limits: &str| {
        pool("api", &[&origin.text()], &rare("/healthz")) + &format!("[listeners.web.limits]\n{limits}\n")
    };
    let program = Program::start_ready(&text("headers = 4")).await;
    // With Host they are five.
    let fields = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
    let mut client = Client::connect(program.web).await;
    assert_eq!(client.send("GET", "/", &fields[..3]).await.expect("an answer").status, 200);
    let refused = Client::connect(program.web).await.send("GET", "/", &fields).await.expect("an answer");
    assert_eq!(refused.status, 431, "{}", refused.text());
    apply(&program, &text("headers = 5")).await;
    let answer = client.send("GET", "/", &fields).await.expect("an answer");
    assert_eq!(answer.status, 200, "the connection is the same: {}", answer.text());
    apply(&program, &text("header_bytes = \"2KiB\"\ntarget_bytes = \"100B\"")).await;
    for (path, field, status) in [(99, 1_000, 200), (100, 1_000, 414), (10, 2_000, 431)] {
        let mut client = Client::connect(program.web).await;
        let field = "x".repeat(field);
        let answer = client.send("GET", &format!("/{}", "y".repeat(path)), &[("x", &field)]).await.expect("an answer");
        assert_eq!(answer.status, status, "{path} bytes of the path: {}", answer.text());
    }
    program.assert_no_panic();
}

in_each_lane!(a_client_has_as_much_time_as_its_listener_says, flavor = "multi_thread");
async fn a_client_has_as_much_time_as_its_listener_says() {
    let origin = Origin::plain("a").await;
    let text = pool("api", &[&origin.text()], &rare("/healthz"))
        + "[listeners.web.timeouts]\nheader = \"1s\"\nkeep_alive = \"1s\"\nbody_idle = \"1s\"\n";
    let program = Program::start_ready(&text).await;
    // What it sends, and the answer when it sends no more.
    for (sent, status) in [
        ("GET / HTTP/1.1\r\nHos", "HTTP/1.1 408 "),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", "HTTP/1.1 408 "),
        ("", ""),
    ] {
        let mut client = TcpStream::connect(program.web).await.expect("it accepts");
        client.write_all(sent.as_bytes()).await.expect("it is taken");
        let began = Instant::now();
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer)).await;
        read.expect("the connection ends").expect("it is not reset");
        assert!(answer.starts_with(status) && answer.is_empty() == status.is_empty(), "{sent:?}: {answer}");
        assert!(ABOUT_A_SECOND.contains(&began.elapsed()), "{sent:?}: after {:?}", began.elapsed());
    }
    let mut client = Client::connect(program.web).await;
    assert_eq!(client.get("/").await.status, 200);
    let began = Instant::now();
    client.wait_for_close(PATIENCE).await;
    assert!(ABOUT_A_SECOND.contains(&began.elapsed()), "an idle connection: after {:?}", began.elapsed());
    program.assert_no_panic();
}

in_each_lane!(an_upstream_has_as_much_time_as_its_pool_says, flavor = "multi_thread");
async fn an_upstream_has_as_much_time_as_its_pool_says() {
    let origin = Origin::new().on("/silent").reply(Reply::hang()).start().await;
    let text = |keys: &str| pool("api", &[&origin.text()], &rare("/healthz")) + keys;
    let program = Program::start_ready(&text("")).await;
    let web = program.web;
    let patient = tokio::spawn(async move { get(web, "/silent").await.status });
    apply(&program, &text("[pools.api.timeouts]\nfirst_byte = \"1s\"\n")).await;
    let began = Instant::now();
    let answer = get(program.web, "/silent").await;
    assert_eq!((answer.status, answer.text().contains("upstream_timeout")), (504, true), "{}", answer.text());
    assert!(ABOUT_A_SECOND.contains(&began.elapsed()), "after {:?}", began.elapsed());
    assert!(!patient.is_finished(), "a request under way has the time that it began with");
    patient.abort();
    program.assert_no_panic();
}

in_each_lane!(a_request_ends_when_its_time_is_over, flavor = "multi_thread");
async fn a_request_ends_when_its_time_is_over() {
    let slowly = Reply::ok("x".repeat(10_000)).pace(1, Duration::from_millis(100));
    let origin = Origin::new().on("/silent").reply(Reply::hang()).on("/slow").reply(slowly).start().await;
    let keys = "[pools.api.timeouts]\nrequest = \"1s\"\n[pools.api.retry]\non = [\"timeout\"]\nretries = 3\n";
    let other = Origin::new().on("/silent").reply(Reply::hang()).start().await;
    let program =
        Program::start_ready(&(pool("api", &[&origin.text(), &other.text()], &rare("/healthz")) + keys)).await;
    for address in [origin.text(), other.text()] {
        program.wait_for_state("api", &address, "healthy", PATIENCE).await;
    }
    let began = Instant::now();
    let answer = get(program.web, "/silent").await;
    assert_eq!((answer.status, answer.text().as_str()), (504, "the request took too long (request_timeout)"));
    assert!(ABOUT_A_SECOND.contains(&began.elapsed()), "after {:?}", began.elapsed());
    assert_eq!(origin.count("/silent") + other.count("/silent"), 1, "there is no time left for another upstream");
    // Its client is slow itself.
    let mut client = TcpStream::connect(program.web).await.expect("it accepts");
    client.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await.expect("it is taken");
    let (began, mut answer) = (Instant::now(), String::new());
    let read = tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer)).await;
    read.expect("the connection ends").expect("it is not reset");
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("request_timeout"), "{answer}");
    assert!(ABOUT_A_SECOND.contains(&began.elapsed()), "after {:?}", began.elapsed());
    // A response that has begun breaks off.
    let (status, _) = program.reload(&(pool("api", &[&origin.text()], &rare("/healthz")) + keys)).await;
    assert_eq!(status, 200);
    let mut client = TcpStream::connect(program.web).await.expect("it accepts");
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it is taken");
    let (began, mut answer) = (Instant::now(), Vec::new());
    // Whether it is a reset or not, it is not whole.
    let read = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("the connection ends");
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() < 10_000, "{read:?}: {} bytes", answer.len());
    assert!(ABOUT_A_SECOND.contains(&began.elapsed()), "after {:?}", began.elapsed());
    program.assert_no_panic();
}

in_each_lane!(a_request_is_tried_again_as_often_as_its_pool_says, flavor = "multi_thread");
async fn a_request_is_tried_again_as_often_as_its_pool_says() {
    let dying = || Origin::new().on("/x").reply(Reply::reset()).start();
    let (one, two, good) = (dying().await, dying().await, Origin::plain("good").await);
    let upstreams = [one.text(), two.text(), good.text()];
    let upstreams: Vec<&str> = upstreams.iter().map(String::as_str).collect();
    let text = |keys: &str| pool("api", &upstreams, &rare("/healthz")) + NOTHING_IS_EJECTED + keys;
    let program = Program::start_ready(&text("[pools.api.retry]\nretries = 2\n")).await;
    for address in &upstreams {
        program.wait_for_state("api", address, "healthy", PATIENCE).await;
    }
    for number in 0..30 {
        assert_eq!(get(program.web, "/x").await.status, 200, "request {number}: one of three can serve it");
    }
    let tried = one.count("/x") + two.count("/x");
    assert!(tried >= 15, "some requests were tried on the dying ones first: {tried}");
    apply(&program, &text("[pools.api.retry]\nretries = 0\n")).await;
    let mut failed = 0;
    for _ in 0..30 {
        failed += u64::from(get(program.web, "/x").await.status == 502);
    }
    assert_eq!(one.count("/x") + two.count("/x") - tried, failed, "each failure is one attempt");
    assert!(failed >= 15, "{failed} of 30 requests failed");
    program.assert_no_panic();
}

in_each_lane!(a_request_is_tried_again_after_what_its_pool_says, flavor = "multi_thread");
async fn a_request_is_tried_again_after_what_its_pool_says() {
    let bad = Origin::new()
        .on("/502")
        .reply(Reply::status(502).body("not this one"))
        .on("/silent")
        .reply(Reply::hang())
        .on("/reset")
        .reply(Reply::reset());
    let (bad, good) = (bad.start().await, Origin::plain("good").await);
    let upstreams = [bad.text(), good.text()];
    let upstreams: Vec<&str> = upstreams.iter().map(String::as_str).collect();
    let text = |retry: &str| {
        let keys = format!("[pools.api.timeouts]\nfirst_byte = \"1s\"\n[pools.api.retry]\n{retry}\n");
        pool("api", &upstreams, &rare("/healthz")) + NOTHING_IS_EJECTED + &keys
    };
    let program = Program::start_ready(&text("")).await;
    for address in &upstreams {
        program.wait_for_state("api", address, "healthy", PATIENCE).await;
    }
    // Every second request begins at the bad one.
    let statuses = async |method: &'static str, path: &'static str| {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let answer = Client::connect(program.web).await.send(method, path, &[]).await.expect("an answer");
            assert!(answer.status != 200 || answer.text() != "not this one", "{path}");
            seen.push(answer.status);
        }
        seen.sort_unstable();
        seen
    };
    assert_eq!(statuses("GET", "/502").await, [200, 200, 502, 502]);
    assert_eq!(statuses("POST", "/reset").await, [200, 200, 502, 502]);
    apply(&program, &text("on = [\"502\"]")).await;
    assert_eq!(statuses("GET", "/502").await, [200; 4]);
    assert_eq!(statuses("POST", "/502").await, [200, 200, 502, 502], "it may have been carried out");
    assert_eq!(statuses("GET", "/reset").await, [200, 200, 502, 502], "it is not in the list");
    apply(&program, &text("on = [\"502\", \"reset\"]\nnon_idempotent = true")).await;
    assert_eq!(statuses("POST", "/502").await, [200; 4]);
    assert_eq!(statuses("POST", "/reset").await, [200; 4]);
    assert_eq!(statuses("GET", "/silent").await, [200, 200, 504, 504]);
    apply(&program, &text("on = [\"timeout\"]")).await;
    let want = if NeverRepeatsTimeouts.is_here() { [200, 200, 504, 504] } else { [200; 4] };
    assert_eq!(statuses("GET", "/silent").await, want);
    // With an empty budget nothing that may have been carried out is sent again.
    apply(&program, &text("on = [\"502\"]\nbudget = { share = 0.0, min_per_second = 0 }")).await;
    assert_eq!(statuses("GET", "/502").await, [200, 200, 502, 502]);
    program.assert_no_panic();
}

in_each_lane!(as_many_connections_are_kept_as_the_pool_says, flavor = "multi_thread");
async fn as_many_connections_are_kept_as_the_pool_says() {
    let origin = Origin::plain("a").await;
    let text = |keys: &str| pool("api", &[&origin.text()], &rare("/healthz")) + "[pools.api.connections]\n" + keys;
    let program = Program::start_ready(&text("idle_timeout = \"1m\"\n")).await;
    let ten = async || {
        let before = origin.accepted();
        let mut client = Client::connect(program.web).await;
        for _ in 0..10 {
            assert_eq!(client.get("/").await.status, 200);
        }
        origin.accepted() - before
    };
    assert!(ten().await <= 2, "one, and perhaps a check");
    for keys in ["idle_per_upstream = 0\n", "idle_timeout = \"0s\"\n"] {
        apply(&program, &text(keys)).await;
        // One may still be there from before.
        let opened = ten().await;
        assert!(opened >= 9, "{keys}: {opened} connections for ten requests");
    }
    program.assert_no_panic();
}
