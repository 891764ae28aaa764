//! Connections on both sides: reuse, pipelining, timeouts, limits, and when they are closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use roundsman::model::Address;
use roundsman::pool::{AnswerReason, ListenerId};
use roundsman::proxy::Plane;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::rig::{Client, Rig, SOON, get, post, within};
use crate::lanes::differences::keep_alive;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::support::{assert_eventually, assert_read, backlog};

/// Less than the 4 s for which an idle upstream connection is kept.
const IDLE: Duration = Duration::from_millis(3_500);

in_each_lane!(one_connection_on_each_side_carries_many_requests);
async fn one_connection_on_each_side_carries_many_requests() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    for i in 0..200 {
        client.send(if i % 2 == 0 { get("/x") } else { post("/x", "hello") }).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, keep_alive()));
    }
    assert_eq!((origin.count("/x"), origin.accepted()), (200, 1));
    assert_eq!(rig.upstreams[0].requests_total(), 200);
    assert_eventually("the request is settled", SOON, || rig.upstreams[0].in_flight.load(Ordering::Relaxed) == 0).await;
}

in_each_lane!(pipelined_requests_are_answered_in_order);
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::new().on("/slow").reply(Reply::ok("slow").delay(Duration::from_millis(100))).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let big = "x".repeat(200_000);
    client.send([get("/slow"), chunked.to_owned(), post("/echo", &big), get("/slow"), get("/last")].concat()).await;
    for body in ["slow", "hello", &big, "slow", &format!("hello from {}\n", origin.name())] {
        let answer = client.answer().await;
        assert!(answer.status == 200 && answer.text() == body, "{answer:?}");
    }
}

in_each_lane!(concurrent_clients_each_get_their_own_responses);
async fn concurrent_clients_each_get_their_own_responses() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await];
    let rig = Arc::new(Rig::over(&[&origins[0], &origins[1]]));
    let clients = (0..64).map(|n| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let mut client = rig.connect().await;
            for i in 0..50 {
                let body = format!("{n}-{i}").repeat(n % 7 * 300 + 1);
                client.send(post("/echo", &body)).await;
                assert_eq!(client.answer().await.text(), body);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no client task panics");
    }
    assert_eq!(origins[0].count("/echo") + origins[1].count("/echo"), 3_200);
    assert_eq!(origins[0].count("/echo"), 1_600, "round robin is exact");
    assert_eventually("all connections are closed", SOON, || {
        rig.plane.connections() == 0 && rig.plane.in_flight() == 0
    })
    .await;
}

in_each_lane!(a_head_has_ten_seconds_from_its_first_byte, start_paused = true);
async fn a_head_has_ten_seconds_from_its_first_byte() {
    let rig = Rig::build(&[], Handle::current(), 100);
    let mut client = rig.connect().await;
    let began = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nHost".chunks(1) {
        client.send(byte).await;
        let early = began.elapsed() < Duration::from_secs(10);
        assert_eq!(rig.answered(AnswerReason::HeaderTimeout), u64::from(!early), "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
    client.ends().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(rig.answered(AnswerReason::HeaderTimeout), 1);
}

in_each_lane!(a_request_body_stalled_for_a_minute_is_a_408_and_cancels_the_upstream_request, start_paused = true);
async fn a_request_body_stalled_for_a_minute_is_a_408_and_cancels_the_upstream_request() {
    let origin = Origin::plain("a").await;
    let rig = Rig::build(&[origin.address()], Handle::current(), 100);
    for (fields, start) in [("Content-Length: 10", "hel"), ("Transfer-Encoding: chunked", "5\r\nhel")] {
        let mut client = rig.connect().await;
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{start}")).await;
        let began = Instant::now();
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (408, "the request body took too long (body_timeout)\n"));
        assert_eq!(began.elapsed().as_secs(), 60);
        client.ends().await;
    }
    tokio::time::resume();
    assert_eventually("the upstream connection is closed", SOON, || origin.open_connections() == 0).await;
}

in_each_lane!(a_client_that_does_not_read_is_disconnected_after_a_minute, start_paused = true);
async fn a_client_that_does_not_read_is_disconnected_after_a_minute() {
    let rig = Rig::build(&[], Handle::current(), 100);
    let mut client = rig.connect().await;
    // Enough responses to fill every buffer, for a client that reads none.
    let many = get("/").repeat(1_000);
    let began = Instant::now();
    while tokio::time::timeout(Duration::from_secs(600), client.stream.write_all(many.as_bytes()))
        .await
        .is_ok_and(|r| r.is_ok())
    {}
    assert_eventually("its connection is closed", Duration::from_secs(600), || rig.plane.connections() == 0).await;
    assert!((60..130).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

in_each_lane!(a_silent_connection_is_closed_after_ten_seconds_without_a_response, start_paused = true);
async fn a_silent_connection_is_closed_after_ten_seconds_without_a_response() {
    let rig = Rig::build(&[], Handle::current(), 100);
    for bytes in ["", "\r\n"] {
        let mut client = rig.connect().await;
        client.send(bytes).await;
        let began = Instant::now();
        client.ends().await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }
    assert_eq!(rig.plane.stats().silent.load(Ordering::Relaxed), 2);
    assert_eq!(rig.answered(AnswerReason::HeaderTimeout), 0);
}

in_each_lane!(an_idle_connection_is_closed_after_75_seconds_and_a_slow_second_head_after_ten, start_paused = true);
async fn an_idle_connection_is_closed_after_75_seconds_and_a_slow_second_head_after_ten() {
    let rig = Rig::build(&[], Handle::current(), 100);
    let mut client = rig.connect().await;
    client.send(get("/")).await;
    assert_eq!(client.answer().await.status, 503);
    let began = Instant::now();
    client.ends().await;
    assert_eq!(began.elapsed().as_secs(), 75);

    let mut client = rig.connect().await;
    client.send(get("/")).await;
    assert_eq!(client.answer().await.status, 503);
    tokio::time::sleep(Duration::from_secs(70)).await;
    client.send("GET /").await;
    let began = Instant::now();
    assert_eq!(client.answer().await.status, 408);
    assert_eq!(began.elapsed().as_secs(), 10);
}

in_each_lane!(a_stop_closes_idle_connections_and_finishes_requests);
async fn a_stop_closes_idle_connections_and_finishes_requests() {
    let origin = Origin::new().on("/slow").reply(Reply::ok("slow").delay(Duration::from_millis(500))).start().await;
    let rig = Rig::over(&[&origin]);
    let (mut silent, mut idle) = (rig.connect().await, rig.connect().await);
    let (mut half, mut busy, mut late) = (rig.connect().await, rig.connect().await, rig.connect().await);
    for client in [&mut idle, &mut late] {
        client.send(get("/")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    half.send("GET /half HT").await;
    late.send("GET /late HTTP/1.1\r\n").await;
    for client in [&half, &late] {
        assert_read(&client.stream).await;
    }
    assert_eventually("all are connected", SOON, || rig.plane.connections() == 5).await;
    busy.send(get("/slow") + &get("/dropped")).await;
    assert_eventually("the slow request is in flight", SOON, || origin.count("/slow") == 1).await;
    rig.listener.stop();
    within(silent.ends()).await;
    within(idle.ends()).await;
    half.send("TP/1.1\r\nHost: a\r\n\r\n").await;
    late.send("Host: a\r\n\r\n").await;
    for client in [&mut half, &mut late, &mut busy] {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
        client.ends().await;
    }
    assert_eq!(origin.count("/dropped"), 0);
    within(rig.plane.drained()).await;
    assert_eq!((rig.plane.connections(), rig.plane.in_flight()), (0, 0));
    assert!(TcpStream::connect(rig.address).await.is_err(), "the listener is closed");
}

in_each_lane!(a_request_sent_during_a_stop_is_answered);
async fn a_request_sent_during_a_stop_is_answered() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let (mut new, mut kept, mut silent) = (rig.connect().await, rig.connect().await, rig.connect().await);
    kept.send(get("/")).await;
    assert_eq!(kept.answer().await.field("connection"), keep_alive());
    assert_eventually("all are connected", SOON, || rig.plane.connections() == 3).await;
    let stopped = Instant::now();
    rig.listener.stop();
    // Requests from here on are sent after the stop.
    let refused = || std::net::TcpStream::connect(rig.address).is_err();
    assert_eventually("new connections are refused", SOON, refused).await;
    for client in [&mut new, &mut kept] {
        client.send(get("/crossing")).await;
    }
    for client in [&mut new, &mut kept] {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
        client.ends().await;
    }
    silent.ends().await;
    within(rig.plane.drained()).await;
    assert!(stopped.elapsed() < Duration::from_secs(5), "a silent client is not waited for: {:?}", stopped.elapsed());
}

in_each_lane!(a_stop_serves_connections_still_in_the_backlog);
/// On one thread, so that nothing is accepted between the connects and the stop.
async fn a_stop_serves_connections_still_in_the_backlog() {
    for connections_max in [1_000, 3] {
        // At the limit of clients this takes longer than a stop waits otherwise.
        let slow = Reply::ok("").delay(Duration::from_millis(100));
        let origin = Origin::new().on("/waiting").reply(slow).start().await;
        let rig = Rig::build(&[origin.address()], Handle::current(), connections_max);
        assert_eq!(rig.ask(get("/first")).await.status, 200);
        let mut clients: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = std::net::TcpStream::connect(rig.address).expect("the backlog takes it");
                std::io::Write::write_all(&mut stream, get("/waiting").as_bytes()).expect("its first bytes fit");
                stream.set_nonblocking(true).unwrap();
                Client::new(TcpStream::from_std(stream).unwrap())
            })
            .collect();
        rig.listener.stop();
        within(rig.plane.drained()).await;
        assert_eq!((rig.plane.connections(), origin.count("/waiting")), (0, 20), "at most {connections_max}");
        for client in &mut clients {
            assert_eq!(client.answer().await.status, 200, "at most {connections_max}");
        }
    }
}

in_each_lane!(drained_waits_for_every_stopped_listener);
async fn drained_waits_for_every_stopped_listener() {
    let rig = Rig::build(&[], Handle::current(), 100);
    within(rig.plane.drained()).await;
    rig.listener.stop();
    // On this one thread the listener cannot have noticed the stop yet.
    assert!(rig.plane.drained().now_or_never().is_none(), "it still accepts");
    within(rig.plane.drained()).await;
    assert!(TcpStream::connect(rig.address).await.is_err(), "the listener is closed");
}

in_each_lane!(a_removed_listener_finishes_its_requests);
async fn a_removed_listener_finishes_its_requests() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(get("/")).await;
    assert_eq!(client.answer().await.status, 200);
    let kept =
        roundsman::pool::Snapshot::new(2, roundsman::pool::Routes::default(), vec![], vec![Some(rig.pool.clone())]);
    rig.published.store(Arc::new(kept));
    client.send(get("/")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (404, Some("close")));
    client.ends().await;
}

in_each_lane!(at_the_connection_limit_accepting_pauses_until_one_closes);
async fn at_the_connection_limit_accepting_pauses_until_one_closes() {
    let origin = Origin::plain("a").await;
    let rig = Rig::build(&[origin.address()], Handle::current(), 3);
    let mut clients = vec![];
    for _ in 0..3 {
        let mut client = rig.connect().await;
        client.send(get("/")).await;
        assert_eq!(client.answer().await.status, 200);
        clients.push(client);
    }
    let mut fourth = rig.connect().await;
    fourth.send(get("/fourth")).await;
    let early = tokio::time::timeout(Duration::from_millis(200), fourth.answer()).await;
    assert!(early.is_err() && origin.count("/fourth") == 0, "the fourth has no response yet");
    assert_eq!((backlog(rig.address), rig.plane.connections()), (Some(1), 3), "the fourth waits in the backlog");
    clients.pop();
    assert_eq!(fourth.answer().await.status, 200);
}

in_each_lane!(idle_connections_close_at_once_when_their_upstream_becomes_unhealthy);
async fn idle_connections_close_at_once_when_their_upstream_becomes_unhealthy() {
    let origin = Origin::new().on("/slow").reply(Reply::ok("slow").delay(Duration::from_millis(400))).start().await;
    let rig = Rig::over(&[&origin]);
    let (mut one, mut two) = (rig.connect().await, rig.connect().await);
    // Two requests at once, so that there are two connections.
    for client in [&mut one, &mut two] {
        client.send(get("/slow")).await;
    }
    for client in [&mut one, &mut two] {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!((origin.accepted(), origin.open_connections()), (2, 2));
    assert_eq!(rig.upstreams[0].connections.len(), 2);
    one.send(get("/slow")).await;
    assert_eventually("one connection is in use", SOON, || origin.count("/slow") == 3).await;
    let asked = Instant::now();
    rig.lose(0);
    assert_eventually("the idle connection is closed", SOON, || origin.open_connections() <= 1).await;
    assert!(asked.elapsed() < IDLE, "not only by its idle timeout: {:?}", asked.elapsed());
    assert_eq!(one.answer().await.text(), "slow", "the request in flight finishes");
    assert_eventually("it is closed after its request", SOON, || origin.open_connections() == 0).await;
    assert!(asked.elapsed() < IDLE, "not only by its idle timeout: {:?}", asked.elapsed());
    assert_eventually("and forgotten", SOON, || rig.upstreams[0].connections.is_empty()).await;
    one.send(get("/after")).await;
    assert_eq!(one.answer().await.status, 200);
    assert_eq!(origin.accepted(), 3, "on a new connection");
    assert_eq!(rig.upstreams[0].connections.len(), 1);
}

in_each_lane!(closing_idle_upstream_connections_under_load_fails_no_request);
async fn closing_idle_upstream_connections_under_load_fails_no_request() {
    let origin = Origin::plain("a").await;
    let rig = Arc::new(Rig::over(&[&origin]));
    let clients = (0..8).map(|_| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let mut client = rig.connect().await;
            for _ in 0..200 {
                client.send(post("/x", "hello")).await;
                assert_eq!(client.answer().await.status, 200);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let closing = tokio::spawn({
        let rig = rig.clone();
        async move {
            loop {
                // The connections are closed without a new epoch: a request whose upstream is lost every millisecond
                // would fail after four picks.
                rig.upstreams[0].connections.close_idle();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for client in clients {
        client.await.expect("a POST cannot be repeated, so none may meet a closed connection");
    }
    closing.abort();
    assert_eq!(origin.count("/x"), 1_600);
    assert!(origin.accepted() > 8, "some connections were closed and replaced");
    rig.lose(0);
    assert_eventually("no connection is left", SOON, || rig.upstreams[0].connections.is_empty()).await;
}

in_each_lane!(an_idle_upstream_connection_closes_within_four_seconds);
async fn an_idle_upstream_connection_closes_within_four_seconds() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    assert_eq!(rig.ask(get("/")).await.status, 200);
    assert_eq!(origin.open_connections(), 1);
    let idle = Instant::now();
    assert_eventually("it is closed", SOON, || origin.open_connections() == 0).await;
    assert!(idle.elapsed() > Duration::from_secs(3), "{:?}", idle.elapsed());
    assert_eventually("and forgotten", SOON, || rig.upstreams[0].connections.is_empty()).await;
}

in_each_lane!(unix_sockets_work_on_both_sides);
async fn unix_sockets_work_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::new().named("u").at_unix(&dir.path().join("origin.sock")).start().await;
    let rig = Rig::over(&[&origin]);
    let path = dir.path().join("front.sock");
    let bound = Plane::bind(&Address::Unix(Arc::from(path.as_path()))).unwrap();
    let listener = rig.plane.serve(rig.plane.ready(bound, ListenerId(0)).unwrap(), ListenerId(0));
    let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
    for _ in 0..3 {
        client.send(get("/x")).await;
        assert_eq!(client.answer().await.text(), "hello from u\n");
    }
    assert_eq!((origin.count("/x"), origin.accepted()), (3, 1));
    let seen = &origin.requests("/x")[0];
    assert_eq!(seen.field("x-forwarded-for"), None, "a unix socket has no address");
    assert_eq!(rig.upstreams[0].connections.len(), 1);
    listener.stop();
    assert_eventually("the socket file is removed", SOON, || !path.exists()).await;
    client.ends().await;
}
