//! Which requests are retried, and on which upstream.

use std::sync::atomic::Ordering;
use std::time::Duration;

use roundsman::model::Address;
use roundsman::model::policy::{ClientPolicy, Lane, TrafficPolicy, UpstreamConnections};
use roundsman::pool::RequestLane;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{Rig, SOON, get, post};
use super::upgrades::UPGRADE;
use crate::lanes::each::{self, in_each_lane};
use crate::origin::{Act, Origin, Reply, refusing_address};
use crate::support::assert_eventually;

fn put(path: &str, body: &str) -> String {
    post(path, body).replacen("POST", "PUT", 1)
}

in_each_lane!(a_refused_connection_is_retried_elsewhere_for_every_method_and_body);
async fn a_refused_connection_is_retried_elsewhere_for_every_method_and_body() {
    let origin = Origin::plain("a").await;
    let rig = Rig::at(&[refusing_address(), origin.address()]);
    let mut client = rig.connect().await;
    let big = "x".repeat(200_000);
    let chunked = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n",
        big.len()
    );
    for (request, body) in
        [(post("/echo", "hello"), "hello"), (post("/echo", &big), &big), (chunked, &big), (post("/echo", ""), "")]
    {
        for _ in 0..2 {
            client.send(&request).await;
            let answer = client.answer().await;
            assert!(answer.status == 200 && answer.text() == body, "{}", answer.status);
        }
    }
    assert_eq!(origin.count("/echo"), 8);
    assert_eq!(rig.pool.shared.stats.retries.total(), 4, "every second request");
    assert_eq!(rig.upstreams[0].connect_failures_total.load(Ordering::Relaxed), 4);
}

in_each_lane!(a_reset_before_the_response_is_retried_for_idempotent_requests_with_a_small_body);
async fn a_reset_before_the_response_is_retried_for_idempotent_requests_with_a_small_body() {
    let big = "x".repeat(70_000);
    for (request, again) in [
        (get("/x"), true),
        (put("/x", "hello"), true),
        (put("/x", &big), false),
        (post("/x", "hello"), false),
        (post("/x", ""), false),
    ] {
        let dying = Origin::new().on("/x").reply(Reply::reset()).start().await;
        let good = Origin::plain("good").await;
        let rig = Rig::over(&[&dying, &good]);
        let shown = &request[..20];
        let mut statuses = [rig.ask(&request).await.status, rig.ask(&request).await.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, if again { 200 } else { 502 }], "{shown:?}");
        assert_eq!(dying.count("/x"), 1, "{shown:?}");
        assert_eq!(good.count("/x"), if again { 2 } else { 1 }, "{shown:?}");
        if again {
            let bodies: Vec<_> = good.requests("/x").iter().map(|seen| seen.body.clone()).collect();
            assert_eq!(bodies[0], bodies[1], "{shown:?}");
        }
    }
}

in_each_lane!(nothing_is_retried_once_a_response_has_begun);
async fn nothing_is_retried_once_a_response_has_begun() {
    for reply in [
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
        Reply::raw("HTTP/1.1 103 Early Hints\r\n\r\n").then(Act::Wait(Duration::from_millis(100))).then_reset(),
    ] {
        let dying = Origin::new().on("/x").reply(reply.clone()).start().await;
        let other = Origin::plain("b").await;
        let rig = Rig::over(&[&dying, &other]);
        let mut good = 0;
        for _ in 0..2 {
            let answer = rig.ask(get("/x")).await;
            let is_broken = answer.status == 103 || !answer.whole;
            assert!(is_broken || answer.text() == "hello from b\n", "{reply:?}: {answer:?}");
            good += u32::from(!is_broken);
        }
        assert_eq!(good, 1, "{reply:?}: the other upstream gets one request");
        assert_eq!((dying.count("/x"), other.count("/x")), (1, 1), "{reply:?}");
    }
}

in_each_lane!(a_response_head_that_breaks_off_is_no_response_yet);
async fn a_response_head_that_breaks_off_is_no_response_yet() {
    for (request, tries) in [(get("/x"), 2), (post("/x", "hello"), 1)] {
        let dying = [(); 2].map(|()| Origin::new().on("/x").reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-")).start());
        let dying = futures_util::future::join_all(dying).await;
        let rig = Rig::over(&dying.iter().collect::<Vec<_>>());
        let answer = rig.ask(&request).await;
        let want = (502, "the connection to the upstream broke (upstream_broke)\n");
        assert_eq!((answer.status, answer.text().as_str()), want, "{request}");
        assert_eq!(dying.iter().map(|origin| origin.count("/x")).sum::<u64>(), tries, "{request}");
    }
}

in_each_lane!(a_request_is_retried_at_most_once);
async fn a_request_is_retried_at_most_once() {
    let origins = [Reply::reset(), Reply::close(), Reply::reset()];
    let mut running = vec![];
    for reply in origins {
        running.push(Origin::new().on("/x").reply(reply).start().await);
    }
    let rig = Rig::over(&running.iter().collect::<Vec<_>>());
    let answer = rig.ask(get("/x")).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (502, "the connection to the upstream broke (upstream_broke)\n")
    );
    assert_eq!(running.iter().map(|origin| origin.count("/x")).sum::<u64>(), 2);
}

in_each_lane!(a_kept_connection_closed_by_the_upstream_fails_no_request);
async fn a_kept_connection_closed_by_the_upstream_fails_no_request() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    // In the express lane an idle connection that the upstream has closed goes when its time is up.
    let connections =
        UpstreamConnections { idle_timeout: Duration::from_millis(200), ..UpstreamConnections::default() };
    rig.set_policies(ClientPolicy::default(), TrafficPolicy { connections, ..TrafficPolicy::default() });
    let mut client = rig.connect().await;
    for round in 0..20 {
        client.send(if round % 2 == 0 { get("/x") } else { post("/x", "hello") }).await;
        assert_eq!(client.answer().await.status, 200, "{round}");
        origin.reset_connections();
        assert_eventually("the close is noticed", SOON, || rig.upstreams[0].connections.is_empty()).await;
    }
    assert_eq!(origin.count("/x"), 20);
}

in_each_lane!(a_request_reset_on_a_kept_connection_is_retried_on_a_new_one_to_the_same_upstream);
async fn a_request_reset_on_a_kept_connection_is_retried_on_a_new_one_to_the_same_upstream() {
    // Answers one request on a connection and resets it at the next.
    let origin = Origin::new().on("/one").reply(200).on("/two").reply(Reply::reset()).times(1).then(200).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(get("/one")).await;
    assert_eq!(client.answer().await.status, 200);
    client.send(get("/two")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!((origin.count("/two"), origin.accepted()), (2, 2));

    origin.set("/three", Reply::reset());
    client.send(get("/one")).await;
    assert_eq!(client.answer().await.status, 200);
    client.send(post("/three", "hello")).await;
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(origin.count("/three"), 1, "a POST is not retried");
    client.send(get("/one")).await;
    assert_eq!(client.answer().await.status, 200, "the client's connection is kept");
}

in_each_lane!(killing_one_of_two_upstreams_under_load_fails_no_get);
async fn killing_one_of_two_upstreams_under_load_fails_no_get() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let rig = std::sync::Arc::new(Rig::over(&[&a, &b]));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move {
                let mut client = rig.connect().await;
                for _ in 0..150 {
                    client.send(get("/x")).await;
                    assert_eq!(client.answer().await.status, 200);
                }
            })
        })
        .collect();
    assert_eventually("the load has begun", SOON, || a.count("/x") > 100).await;
    a.kill();
    for client in clients {
        client.await.expect("no request fails");
    }
    assert!(b.count("/x") > 1_000);
}

in_each_lane!(a_status_is_passed_on_and_never_retried);
async fn a_status_is_passed_on_and_never_retried() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await];
    let rig = Rig::over(&[&origins[0], &origins[1]]);
    for status in [429, 500, 502, 503, 504] {
        origins.iter().for_each(|origin| {
            origin.forget();
            origin.set("/x", status);
        });
        assert_eq!(rig.ask(get("/x")).await.status, status);
        assert_eq!(origins[0].count("/x") + origins[1].count("/x"), 1, "{status}");
    }
}

/// A server that answers the first request of every connection and resets it at the second.
async fn serve_one_each(listener: TcpListener) {
    while let Ok((mut connection, _)) = listener.accept().await {
        tokio::spawn(async move {
            read_head(&mut connection).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if connection.write_all(answer).await.is_ok() && read_head(&mut connection).await {
                let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
            }
        });
    }
}

/// Reads one head; false at the end of the connection.
async fn read_head(connection: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

in_each_lane!(after_a_stale_connection_the_request_is_sent_on_a_new_one_on_the_other_upstream_too);
async fn after_a_stale_connection_the_request_is_sent_on_a_new_one_on_the_other_upstream_too() {
    let listeners = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let addresses: Vec<_> = listeners.iter().map(|listener| Address::Inet(listener.local_addr().unwrap())).collect();
    for listener in listeners {
        tokio::spawn(serve_one_each(listener));
    }
    let rig = Rig::at(&addresses);
    let mut client = rig.connect().await;
    for round in 0..10 {
        // One connection to each upstream is kept, and each is reset at the next request.
        for _ in 0..2 {
            client.send(get("/")).await;
            assert_eq!(client.answer().await.status, 200, "{round}");
        }
        let idle = || rig.upstreams.iter().all(|upstream| upstream.in_flight.load(Ordering::Relaxed) == 0);
        assert_eventually("both connections are kept", SOON, idle).await;
    }
    let retries = rig.pool.shared.stats.retries.total();
    assert!(retries > 0, "some requests met a connection that was reset");
}

in_each_lane!(requests_are_counted_by_what_carries_them);
async fn requests_are_counted_by_what_carries_them() {
    let origin = Origin::plain("a").await;
    origin.set("/switch", Reply::upgrade_echo());
    let rig = Rig::over(&[&origin]);
    assert_eq!(rig.ask(get("/")).await.status, 200);
    assert_eq!(rig.ask(post("/echo", "x")).await.status, 200);
    assert_eq!(rig.ask(UPGRADE).await.status, 200, "the upstream refuses the upgrade");
    assert_eq!(rig.ask("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 405);
    assert_eq!(rig.ask("nonsense\r\n\r\n").await.status, 400);
    // Upgrades are for the express lane, and once the upstream switches for the tunnel.
    let mut client = rig.connect().await;
    client.send(UPGRADE.replace("/ws", "/switch")).await;
    assert_eq!(client.answer().await.status, 101);
    let (express, general) = if each::current() == Some(Lane::General) { (1, 2) } else { (3, 0) };
    let wanted = [(RequestLane::Express, express), (RequestLane::General, general), (RequestLane::Tunnel, 1)];
    assert_eventually("all are counted", SOON, || rig.plane.stats().by_lane() == wanted).await;
}
