//! Limits and timeouts come from the listener and the pool of the newest configuration: what a reload changes holds from
//! the next request of a connection that is open already.

use std::num::NonZeroU32;
use std::time::Duration;

use roundsman::model::policy::{
    ClientLimits, ClientPolicy, ClientTimeouts, RetryPolicy, TrafficPolicy, UpstreamConnections, UpstreamTimeouts,
};
use tokio::time::Instant;

use super::rig::{Client, Rig, SOON, get, post, within};
use super::upgrades::UPGRADE;
use crate::lanes::each::{in_each_lane, once};
use crate::origin::{Act, BlackHole, Origin, Reply};
use crate::support::assert_eventually;

/// Shorter than every default that is tested with it.
const SHORT: Duration = Duration::from_millis(400);
/// Still shorter than those defaults, for a busy machine.
const LATE: Duration = Duration::from_secs(9);

fn timeouts(change: impl FnOnce(&mut ClientTimeouts)) -> ClientPolicy {
    let mut policy = ClientPolicy::default();
    change(&mut policy.timeouts);
    policy
}

fn limits(change: impl FnOnce(&mut ClientLimits)) -> ClientPolicy {
    let mut policy = ClientPolicy::default();
    change(&mut policy.limits);
    policy
}

fn upstream(change: impl FnOnce(&mut UpstreamTimeouts)) -> TrafficPolicy {
    let mut policy = TrafficPolicy::default();
    change(&mut policy.timeouts);
    policy
}

/// A connection that has had one response under the defaults, and is open when `client` and `traffic` come.
async fn reloaded(rig: &Rig, client: ClientPolicy, traffic: TrafficPolicy) -> Client {
    rig.set_policies(ClientPolicy::default(), TrafficPolicy::default());
    let mut connection = rig.connect().await;
    connection.send(get("/")).await;
    assert_eq!(connection.answer().await.status, 200);
    rig.set_policies(client, traffic);
    connection
}

in_each_lane!(a_head_is_measured_by_the_limits_of_the_newest_configuration);
async fn a_head_is_measured_by_the_limits_of_the_newest_configuration() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(4));
    for (policy, request, status) in [
        (ClientPolicy::default(), &long, 200),
        (limits(|l| l.header_bytes = 1_000), &long, 431),
        (limits(|l| l.header_bytes = 40_000), &long.replace("X: ", &format!("X: {}", "y".repeat(36_000))), 200),
        (limits(|l| l.headers = 5), &many, 200),
        (limits(|l| l.headers = 4), &many, 431),
        (limits(|l| l.target_bytes = 9), &get("/123456789"), 414),
        (limits(|l| l.target_bytes = 10), &get("/123456789"), 200),
    ] {
        let mut client = reloaded(&rig, policy, TrafficPolicy::default()).await;
        client.send(request).await;
        assert_eq!(client.answer().await.status, status, "{policy:?}");
    }
}

in_each_lane!(a_body_has_as_many_bytes_as_the_newest_configuration_allows);
async fn a_body_has_as_many_bytes_as_the_newest_configuration_allows() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\n";
    let length = format!("{head}Content-Length: 5\r\n\r\nhello");
    let chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n2;long=extension\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
    let expects = format!("{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    for (most, request, status, sent) in [
        (None, &length, 200, 1),
        (Some(5), &length, 200, 1),
        (Some(4), &length, 413, 0),
        (None, &chunks, 200, 1),
        (Some(5), &chunks, 200, 1),
        (Some(4), &chunks, 413, 0),
        (Some(5), &expects, 100, 0),
        (Some(4), &expects, 413, 0),
        (Some(1), &get("/"), 200, 0),
    ] {
        origin.forget();
        let mut client = reloaded(&rig, limits(|l| l.body_bytes = most), TrafficPolicy::default()).await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{most:?} {request}: {}", answer.text());
        let whole = origin.requests("/echo").iter().filter(|seen| seen.body == b"hello").count();
        assert_eq!(whole, sent, "{most:?} {request}");
        if status == 413 {
            assert!(answer.text().contains("(body_too_large)"), "{}", answer.text());
            within(client.ends()).await;
        }
    }
    // Nothing goes upstream where the length is known to be too large.
    origin.forget();
    rig.set_policies(limits(|l| l.body_bytes = Some(4)), TrafficPolicy::default());
    assert_eq!(rig.ask(&length).await.status, 413);
    assert_eq!(origin.total(), 0);
    // A long upload is refused where it goes beyond, while the upstream waits for the rest of it.
    rig.set_policies(limits(|l| l.body_bytes = Some(100_000)), TrafficPolicy::default());
    let mut client = rig.connect().await;
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(10))).await;
    assert_eventually("it goes upstream", Duration::from_secs(20), || origin.bytes_read() > 100_000).await;
    client.send(chunk).await;
    assert_eq!(client.answer().await.status, 413);
    assert!(origin.requests("/echo").iter().all(|seen| seen.body_bytes <= 100_000));
    assert_eventually("it has ended", SOON, || rig.plane.in_flight() == 0).await;
}

in_each_lane!(a_connection_has_as_many_requests_as_the_newest_configuration_allows);
async fn a_connection_has_as_many_requests_as_the_newest_configuration_allows() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let most = |most| limits(|l| l.requests_per_connection = NonZeroU32::new(most));
    rig.set_policies(most(3), TrafficPolicy::default());
    let mut client = rig.connect().await;
    for request in 1..=3 {
        client.send(get("/")).await;
        let answer = client.answer().await;
        let closes = answer.field("connection") == Some("close");
        assert_eq!((answer.status, closes), (200, request == 3), "{request}");
        // Also after it has been quiet for a while.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    within(client.ends()).await;
    // Requests before a reload count, and so do those in one packet.
    let mut client = reloaded(&rig, most(2), TrafficPolicy::default()).await;
    client.send(get("/").repeat(3)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    within(client.ends()).await;
    // Our own answers close it, too.
    rig.set_policies(most(1), TrafficPolicy::default());
    let mut client = rig.connect().await;
    client.send("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (405, Some("close")));
    within(client.ends()).await;
}

once!(a_listener_accepts_as_many_connections_as_the_newest_configuration_allows);
async fn a_listener_accepts_as_many_connections_as_the_newest_configuration_allows() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let most = |most| limits(|l| l.connections = NonZeroU32::new(most));
    rig.set_policies(most(2), TrafficPolicy::default());
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = rig.connect().await;
        client.send(get("/")).await;
        assert_eq!(client.answer().await.status, 200);
        open.push(client);
    }
    // The next ones wait in the kernel, until somebody leaves or a reload makes room.
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = rig.connect().await;
        client.send(get("/")).await;
        waiting.push(client);
    }
    let early = tokio::time::timeout(SHORT, waiting[0].answer()).await;
    assert!(early.is_err() && rig.plane.connections() == 2, "{}", rig.plane.connections());
    open.remove(0);
    assert_eq!(waiting[0].answer().await.status, 200);
    assert_eventually("two are open", SOON, || rig.plane.connections() == 2).await;
    let early = tokio::time::timeout(SHORT, waiting[1].answer()).await;
    assert!(early.is_err(), "the limit still holds");
    rig.set_policies(most(3), TrafficPolicy::default());
    assert_eq!(waiting[1].answer().await.status, 200);
    assert_eq!(rig.plane.connections(), 3);
}

once!(a_client_has_as_many_connections_as_the_newest_configuration_allows);
async fn a_client_has_as_many_connections_as_the_newest_configuration_allows() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let most = |most| limits(|l| l.connections_per_client = NonZeroU32::new(most));
    rig.set_policies(most(2), TrafficPolicy::default());
    let mut open = vec![reached(&rig).await.unwrap(), reached(&rig).await.unwrap()];
    let refused = || rig.plane.stats().refused.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(refused(), 0);
    for _ in 0..3 {
        assert!(reached(&rig).await.is_none(), "it is closed at once");
    }
    assert_eq!((refused(), rig.plane.connections()), (3, 2));
    open.remove(0);
    assert_eventually("one is open", SOON, || rig.plane.connections() == 1).await;
    open.push(reached(&rig).await.expect("one has left"));
    assert!(reached(&rig).await.is_none());
    rig.set_policies(most(3), TrafficPolicy::default());
    open.push(reached(&rig).await.expect("a reload has raised it"));
    assert!(reached(&rig).await.is_none());
    rig.set_policies(ClientPolicy::default(), TrafficPolicy::default());
    open.push(reached(&rig).await.expect("a reload has taken it away"));
}

/// A connection that has had a response; `None`: it was closed before.
async fn reached(rig: &Rig) -> Option<Client> {
    let mut client = rig.connect().await;
    client.send(get("/")).await;
    let answer = client.try_answer().await?;
    assert_eq!(answer.status, 200);
    Some(client)
}

in_each_lane!(a_client_has_the_time_that_the_newest_configuration_gives_it);
async fn a_client_has_the_time_that_the_newest_configuration_gives_it() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let half = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    // What is sent, whether a whole request comes before it under the new limits, and the status; 0: the connection ends.
    for (policy, request_before, bytes, status) in [
        (timeouts(|t| t.header = SHORT), false, "GET / HTTP", 408),
        (timeouts(|t| t.body_idle = SHORT), false, half, 408),
        (timeouts(|t| t.keep_alive = SHORT), true, "", 0),
    ] {
        let mut client = reloaded(&rig, policy, TrafficPolicy::default()).await;
        if request_before {
            client.send(get("/")).await;
            assert_eq!(client.answer().await.status, 200);
        }
        let began = Instant::now();
        client.send(bytes).await;
        match status {
            0 => client.ends().await,
            _ => assert_eq!(client.answer().await.status, status),
        }
        assert!((SHORT..LATE).contains(&began.elapsed()), "{policy:?}: {:?}", began.elapsed());
    }
    rig.set_policies(timeouts(|t| t.header = SHORT), TrafficPolicy::default());
    let began = Instant::now();
    rig.connect().await.ends().await;
    assert!((SHORT..LATE).contains(&began.elapsed()), "a silent client: {:?}", began.elapsed());
}

in_each_lane!(an_upstream_has_the_time_that_the_newest_configuration_gives_it);
async fn an_upstream_has_the_time_that_the_newest_configuration_gives_it() {
    let half = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then(Act::Hang);
    let origin = Origin::new().on("/hang").reply(Reply::hang()).on("/half").reply(half).start().await;
    let hole = BlackHole::start();
    let rig = Rig::over(&[&origin]);
    let deaf = Rig::at(&[hole.address()]);
    for (rig, policy, path, status) in [
        (&rig, upstream(|t| t.first_byte = SHORT), "/hang", 504),
        (&rig, upstream(|t| t.idle = SHORT), "/half", 200),
        // Longer than the default of 2 s.
        (&deaf, upstream(|t| t.connect = 6 * SHORT), "/", 504),
    ] {
        rig.set_policies(ClientPolicy::default(), policy.clone());
        let mut client = rig.connect().await;
        let began = Instant::now();
        client.send(get(path)).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.whole), (status, status != 200), "{policy:?}");
        let least = if path == "/" { 6 * SHORT } else { SHORT };
        assert!((least..LATE).contains(&began.elapsed()), "{policy:?}: {:?}", began.elapsed());
    }
}

in_each_lane!(only_the_time_that_an_upstream_takes_is_the_upstreams);
async fn only_the_time_that_an_upstream_takes_is_the_upstreams() {
    let go_on = Reply::raw("HTTP/1.1 100 Continue\r\n\r\n").before_body().then(Act::Hang);
    let origin = Origin::new().on("/hang").reply(Reply::hang().before_body()).on("/go-on").reply(go_on).start().await;
    let rig = Rig::over(&[&origin]);
    let expects =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    // A client that waits for 100 waits for the upstream.
    rig.set_policies(ClientPolicy::default(), upstream(|t| t.first_byte = SHORT));
    let began = Instant::now();
    assert_eq!(rig.ask(expects("/hang")).await.status, 504);
    assert!((SHORT..LATE).contains(&began.elapsed()), "{:?}", began.elapsed());
    // After the 100 it is the client's turn, which has as long as for every body.
    rig.set_policies(timeouts(|t| t.body_idle = SHORT), TrafficPolicy::default());
    let mut client = rig.connect().await;
    let began = Instant::now();
    client.send(expects("/go-on")).await;
    assert_eq!(client.answer().await.status, 100);
    assert_eq!(client.answer().await.status, 408);
    assert!((SHORT..LATE).contains(&began.elapsed()), "{:?}", began.elapsed());
    // A slow client takes nothing of the upstream's time.
    rig.set_policies(ClientPolicy::default(), upstream(|t| t.first_byte = SHORT));
    let mut client = rig.connect().await;
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nsl").await;
    tokio::time::sleep(5 * SHORT).await;
    client.send("ow").await;
    assert_eq!(client.answer().await.text(), "slow");
}

once!(a_tunnel_may_be_quiet_for_as_long_as_its_pool_says);
async fn a_tunnel_may_be_quiet_for_as_long_as_its_pool_says() {
    let origin = Origin::new().on("/ws").reply(Reply::upgrade_echo()).start().await;
    let rig = Rig::over(&[&origin]);
    rig.set_policies(ClientPolicy::default(), upstream(|t| t.tunnel_idle = SHORT));
    let mut client = rig.connect().await;
    let began = Instant::now();
    client.send(UPGRADE).await;
    assert_eq!(client.answer().await.status, 101);
    within(client.ends()).await;
    assert!((SHORT..LATE).contains(&began.elapsed()), "{:?}", began.elapsed());
}

in_each_lane!(as_many_retries_are_made_and_as_much_body_is_kept_as_the_pool_says);
async fn as_many_retries_are_made_and_as_much_body_is_kept_as_the_pool_says() {
    let put = |body: &str| post("/x", body).replacen("POST", "PUT", 1);
    for (retries, replay_bytes, request, requests) in [
        (0, 65_536, get("/x"), 1),
        (1, 65_536, get("/x"), 2),
        (3, 65_536, get("/x"), 4),
        (3, 65_536, put("hello"), 4),
        (3, 5, put("hello"), 4),
        (3, 4, put("hello"), 1),
    ] {
        let shown = format!("{retries} {replay_bytes} {:?}", &request[..3]);
        let dying: Vec<_> = (0..5).map(|_| Origin::new().on("/x").reply(Reply::reset()).start_blocking()).collect();
        let rig = Rig::over(&dying.iter().collect::<Vec<_>>());
        let retry = RetryPolicy { retries, replay_bytes, ..RetryPolicy::default() };
        rig.set_policies(ClientPolicy::default(), TrafficPolicy { retry, ..TrafficPolicy::default() });
        assert_eq!(rig.ask(&request).await.status, 502, "{shown}");
        let seen: u64 = dying.iter().map(|origin| origin.count("/x")).sum();
        assert_eq!(seen, requests, "{shown}");
    }
}

in_each_lane!(no_connection_is_kept_where_the_pool_keeps_none);
async fn no_connection_is_kept_where_the_pool_keeps_none() {
    let defaults = UpstreamConnections::default();
    for (connections, kept) in [
        (defaults, true),
        (UpstreamConnections { idle_per_upstream: 0, ..defaults }, false),
        (UpstreamConnections { idle_timeout: Duration::ZERO, ..defaults }, false),
    ] {
        let origin = Origin::plain("a").await;
        let rig = Rig::over(&[&origin]);
        rig.set_policies(ClientPolicy::default(), TrafficPolicy { connections, ..TrafficPolicy::default() });
        let mut client = rig.connect().await;
        for _ in 0..3 {
            client.send(get("/")).await;
            assert_eq!(client.answer().await.status, 200);
        }
        assert_eq!(origin.accepted(), if kept { 1 } else { 3 }, "{connections:?}");
    }
}

in_each_lane!(a_connection_is_kept_no_longer_than_its_upstream_keeps_it);
async fn a_connection_is_kept_no_longer_than_its_upstream_keeps_it() {
    for (keep_alive, pause, connections) in [
        ("timeout=60, max=9", Duration::ZERO, 1),
        ("timeout=2", Duration::ZERO, 1),
        ("timeout=2", Duration::from_millis(1_300), 3),
        ("timeout=1", Duration::ZERO, 3),
        ("timeout=0", Duration::ZERO, 3),
    ] {
        let reply = Reply::ok("x").header("Connection", "keep-alive").header("Keep-Alive", keep_alive);
        let origin = Origin::new().on("/").reply(reply).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        for _ in 0..3 {
            client.send(get("/")).await;
            assert_eq!(client.answer().await.status, 200);
            tokio::time::sleep(pause).await;
        }
        assert_eq!(origin.accepted(), connections, "{keep_alive} {pause:?}");
    }
}
