//! The proxy's own responses: in time, without a connection attempt where no upstream is eligible, and with the
//! client's connection kept where the framing of the request allows it.

use std::time::Duration;

use roundsman::pool::{AnswerReason, Otherwise, Service};
use roundsman::proxy::Plane;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::rig::{Rig, SOON, get, post};
use crate::lanes::each::in_each_lane;
use crate::origin::{BlackHole, Origin, Reply, refusing_address};
use crate::support::assert_eventually;

in_each_lane!(without_eligible_upstreams_503_is_sent_at_once_without_connecting_and_keeps_the_connection);
async fn without_eligible_upstreams_503_is_sent_at_once_without_connecting_and_keeps_the_connection() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    rig.set_service(Service::NoneEligible(Otherwise::Reject));
    let mut client = rig.connect().await;
    for request in [get("/"), post("/", "hello"), get("/")] {
        let asked = Instant::now();
        client.send(request).await;
        let answer = client.answer().await;
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("(none_eligible)"), "{answer:?}");
        assert_eq!(answer.field("retry-after"), Some("30"));
        assert_eq!(answer.field("connection"), None);
    }
    client.head_only = true;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 503);
    client.head_only = false;
    rig.set_service(Service::Open);
    client.send(get("/back")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!((origin.accepted(), origin.total()), (1, 1), "only the last request reached it");
    assert_eq!(rig.answered(AnswerReason::NoneEligible), 4);
}

in_each_lane!(an_unread_body_is_discarded_up_to_a_limit_or_the_connection_closes);
async fn an_unread_body_is_discarded_up_to_a_limit_or_the_connection_closes() {
    let rig = Rig::with_nothing();
    let start = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let chunks = |bytes: usize| format!("{:x}\r\n{}\r\n0\r\n\r\n", bytes, "x".repeat(bytes));
    let sized = |bytes: usize| start(&format!("Content-Length: {bytes}\r\n")) + &"x".repeat(bytes);
    for (request, stays) in [
        (sized(0), true),
        (sized(60_000), true),
        (sized(70_000), false),
        (start("Transfer-Encoding: chunked\r\n") + &chunks(30_000), true),
        (start("Transfer-Encoding: chunked\r\n") + "5\nhello", false),
        (start("Content-Length: 5\r\nExpect: 100-continue\r\n"), false),
        (start("Content-Length: 5\r\nConnection: close\r\n") + "hello", false),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), true),
    ] {
        let shown = request[..request.len().min(80)].to_owned();
        let mut client = rig.connect().await;
        client.send(request).await;
        assert_eq!(client.answer().await.status, 503, "{shown:?}");
        client.send(get("/next")).await;
        let next = client.try_answer().await;
        assert_eq!(next.map(|answer| answer.status), stays.then_some(503), "{shown:?}");
    }
}

in_each_lane!(bytes_after_the_declared_length_begin_the_next_request);
async fn bytes_after_the_declared_length_begin_the_next_request() {
    let rig = Rig::with_nothing();
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await;
    assert_eq!(client.answer().await.status, 503);
    client.send(format!("lo{}", get("/"))).await;
    assert_eq!(client.answer().await.status, 503);
    client.send(post("/", "hello") + "rest of nothing\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 503);
    assert_eq!(client.answer().await.status, 400);
}

in_each_lane!(without_route_and_pool_the_answer_is_404);
async fn without_route_and_pool_the_answer_is_404() {
    let rig = Rig::with_nothing();
    rig.published.store(std::sync::Arc::new(roundsman::pool::Snapshot::empty()));
    let answer = rig.ask(get("/")).await;
    // The listener is removed from the configuration too, so the connection ends.
    assert_eq!((answer.status, answer.field("connection")), (404, Some("close")));
}

in_each_lane!(a_request_waiting_for_a_first_verdict_is_served_when_it_comes);
async fn a_request_waiting_for_a_first_verdict_is_served_when_it_comes() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let until = Instant::now() + Duration::from_secs(60);
    rig.set_service(Service::Waiting { until, then: Otherwise::Reject });
    let mut client = rig.connect().await;
    client.send(get("/one") + &get("/two")).await;
    let waits = || rig.pool.shared.waiting() == 1;
    assert_eventually("it waits", SOON, waits).await;
    assert_eq!(rig.plane.in_flight(), 1);
    assert_eq!(origin.accepted(), 0);
    rig.set_service(Service::Open);
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 200, "a request pipelined while it waited is not lost");
    assert_eq!(rig.pool.shared.waiting(), 0);
}

in_each_lane!(a_waiting_client_that_disconnects_frees_its_place);
async fn a_waiting_client_that_disconnects_frees_its_place() {
    let rig = Rig::at(&[]);
    let until = Instant::now() + Duration::from_secs(60);
    rig.set_service(Service::Waiting { until, then: Otherwise::Reject });
    let mut client = rig.connect().await;
    client.send(get("/")).await;
    assert_eventually("it waits", SOON, || rig.pool.shared.waiting() == 1).await;
    drop(client);
    assert_eventually("the client is gone", SOON, || rig.pool.shared.waiting() == 0 && rig.plane.connections() == 0)
        .await;
}

in_each_lane!(a_failure_of_every_upstream_is_answered_and_keeps_the_connection);
async fn a_failure_of_every_upstream_is_answered_and_keeps_the_connection() {
    let rig = Rig::at(&[refusing_address(), refusing_address()]);
    let mut client = rig.connect().await;
    for request in [get("/"), post("/", "hello"), get("/")] {
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (502, None));
        assert_eq!(answer.text(), "no connection to the upstream (connect_failed)\n");
    }
    assert_eq!(rig.answered(AnswerReason::ConnectFailed), 3);
}

in_each_lane!(a_truncated_or_malformed_response_is_a_502_that_keeps_the_connection);
async fn a_truncated_or_malformed_response_is_a_502_that_keeps_the_connection() {
    for (reply, reason) in [
        (Reply::reset(), "upstream_broke"),
        (Reply::close(), "upstream_broke"),
        (Reply::raw("HTTP/1.1 200 OK\r\nContent-"), "upstream_broke"),
        (Reply::raw("nonsense\r\n\r\n"), "bad_response"),
        (Reply::raw("HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n"), "bad_response"),
        (Reply::raw("HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n"), "bad_response"),
        (Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), "bad_response"),
        (Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"), "bad_response"),
        (
            Reply::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
            "bad_response",
        ),
        (Reply::raw(format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70_000))), "bad_response"),
        (Reply::raw(format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(2 << 20))), "bad_response"),
        (Reply::raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(201))), "bad_response"),
        (Reply::raw(format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(300))), "bad_response"),
        (Reply::raw("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)), "bad_response"),
    ] {
        let origin = Origin::new().on("/x").reply(reply.clone()).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        client.send(post("/x", "hello")).await;
        let mut answer = client.answer().await;
        while answer.status < 200 {
            answer = client.answer().await;
        }
        let code = format!("({reason})\n");
        assert!(answer.status == 502 && answer.text().ends_with(&code), "{reply:?}: {answer:?}");
        assert_eq!(origin.count("/x"), 1, "{reply:?}");
        client.send(get("/next")).await;
        assert_eq!(client.answer().await.status, 200, "{reply:?}");
    }
}

in_each_lane!(a_slow_upstream_is_a_504_even_if_it_keeps_sending, start_paused = true);
async fn a_slow_upstream_is_a_504_even_if_it_keeps_sending() {
    let drip = crate::origin::Act::EndlessDrip(b"A".to_vec(), Duration::from_millis(5));
    for reply in [Reply::hang(), Reply::raw("HTTP/1.1 200 OK\r\nX: ").then(drip)] {
        let origin = Origin::new().on("/x").reply(reply).start().await;
        let rig = Rig::build(&[origin.address()], Handle::current(), 100);
        let mut client = rig.connect().await;
        client.send(get("/x")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (504, "the upstream took too long (upstream_timeout)\n"));
        // The origin does not run on the paused clock.
        tokio::time::resume();
        client.send(get("/next")).await;
        assert_eq!(client.answer().await.status, 200, "and the connection stays");
        tokio::time::pause();
    }
}

in_each_lane!(the_response_timeout_starts_at_the_end_of_a_slow_upload, start_paused = true);
async fn the_response_timeout_starts_at_the_end_of_a_slow_upload() {
    let origin = Origin::new().on("/x").reply(Reply::hang()).start().await;
    let rig = Rig::build(&[origin.address()], Handle::current(), 100);
    let mut client = rig.connect().await;
    let began = Instant::now();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.text(), "the upstream took too long (upstream_timeout)\n");
    assert!((258..=262).contains(&began.elapsed().as_secs()), "60 s after its last byte: {:?}", began.elapsed());
}

in_each_lane!(a_connect_timeout_is_retried_on_another_upstream);
async fn a_connect_timeout_is_retried_on_another_upstream() {
    let hole = BlackHole::start();
    let origin = Origin::plain("a").await;
    let rig = Rig::at(&[hole.address(), origin.address()]);
    let asked = Instant::now();
    for _ in 0..2 {
        assert_eq!(rig.ask(post("/", "x")).await.status, 200);
    }
    assert!(asked.elapsed() >= Duration::from_secs(2), "one of the two requests tried the black hole first");
    assert_eq!(origin.total(), 2);
}

in_each_lane!(connect_timeouts_on_every_upstream_are_a_504, start_paused = true);
async fn connect_timeouts_on_every_upstream_are_a_504() {
    let (hole, other) = (BlackHole::start(), BlackHole::start());
    let rig = Rig::build(&[hole.address(), other.address()], Handle::current(), 100);
    let asked = Instant::now();
    let answer = rig.ask(get("/")).await;
    assert_eq!(answer.text(), "connecting to the upstream took too long (connect_timeout)\n");
    assert_eq!(answer.status, 504);
    assert_eq!(asked.elapsed().as_secs(), 4, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_failed_bind_names_the_address_and_the_reason() {
    let rig = Rig::with_nothing();
    let taken = roundsman::model::Address::Inet(rig.address);
    let error = Plane::bind(&taken).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: the address is in use (")), "{error}");
}
