//! Upgrades: a tunnel after a 101 and never before, which loses no byte of either side.

use std::sync::Arc;
use std::time::Duration;

use roundsman::model::policy::{ClientPolicy, TrafficPolicy, Upgrades};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use super::rig::{Rig, SOON, get, within};
use crate::lanes::each::{in_each_lane, once};
use crate::origin::{Act, Origin, Reply, refusing_address};
use crate::support::assert_eventually;

pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
pub const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

once!(after_a_101_every_byte_of_both_sides_arrives);
async fn after_a_101_every_byte_of_both_sides_arrives() {
    let origin = Origin::new().on("/ws").reply(Reply::upgrade_echo()).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(UPGRADE.to_owned() + "early").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("websocket")));
    assert!(answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(client.take(5).await, b"early");
    for size in [1, 100, 20_000, 300_000] {
        let frame = vec![b'f'; size];
        let (mut read, mut write) = client.stream.split();
        let sending = async { write.write_all(&frame).await.unwrap() };
        let receiving = async {
            let mut got = vec![0; size];
            tokio::io::AsyncReadExt::read_exact(&mut read, &mut got).await.unwrap();
            got
        };
        let ((), got) = within(async { tokio::join!(sending, receiving) }).await;
        assert_eq!(got, frame);
    }
    assert_eq!((rig.plane.in_flight(), rig.plane.connections()), (1, 1));
    let seen = &origin.requests("/ws")[0];
    assert_eq!(seen.values("connection"), ["Upgrade"]);
    assert_eq!(seen.values("upgrade"), ["websocket"]);
    assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.field("sec-websocket-key"), Some("x"));
    drop(client);
    assert_eventually("both sides are closed", SOON, || rig.plane.connections() == 0).await;
    assert_eventually("the origin's connection is closed", SOON, || origin.open_connections() == 0).await;
}

once!(bytes_sent_with_a_101_are_not_lost);
async fn bytes_sent_with_a_101_are_not_lost() {
    let reply = Reply::raw(format!("{SWITCH}first frame")).then(Act::Echo);
    let origin = Origin::new().on("/ws").reply(reply).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.answer().await.status, 101);
    assert_eq!(client.take(11).await, b"first frame");
    client.send("x").await;
    assert_eq!(client.take(1).await, b"x");
    client.stream.shutdown().await.unwrap();
    client.ends().await;
}

once!(all_of_ten_thousand_upgrades_succeed);
async fn all_of_ten_thousand_upgrades_succeed() {
    const CLIENTS: usize = 50;
    let early = Origin::new().on("/ws").reply(Reply::raw(format!("{SWITCH}!")).then(Act::Echo)).start().await;
    let rig = Arc::new(Rig::over(&[&early]));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move {
                let mut done = 0;
                for _ in 0..10_000 / CLIENTS {
                    let mut client = rig.connect().await;
                    client.send(UPGRADE).await;
                    assert_eq!(client.answer().await.status, 101);
                    client.send("ping").await;
                    assert_eq!(client.take(5).await, b"!ping");
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for client in clients {
        done += client.await.expect("no upgrade is lost");
    }
    assert_eq!((done, early.count("/ws")), (10_000, 10_000));
    assert_eventually("all connections are closed", SOON, || {
        rig.plane.connections() == 0 && rig.plane.in_flight() == 0
    })
    .await;
}

once!(a_response_other_than_101_is_passed_on_and_nothing_is_tunnelled);
async fn a_response_other_than_101_is_passed_on_and_nothing_is_tunnelled() {
    for (reply, status, body) in [
        (Reply::ok("no sockets here"), 200, "no sockets here"),
        (Reply::status(426).header("Upgrade", "h2c").body(""), 426, ""),
        (Reply::ok("").chunked(["in ", "chunks"]), 200, "in chunks"),
        (Reply::ok("").until_close("to the end"), 200, "to the end"),
        (Reply::ok("late").interim(103), 200, "late"),
        (Reply::status(304), 304, ""),
    ] {
        let origin = Origin::new().on("/ws").reply(reply.clone()).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        client.send(UPGRADE.to_owned() + &get("/smuggled")).await;
        let mut answer = client.answer().await;
        while answer.status < 200 {
            answer = client.answer().await;
        }
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{reply:?}");
        let connection = if status == 426 { "upgrade, close" } else { "close" };
        assert!(answer.whole && answer.field("connection") == Some(connection), "{answer:?}");
        if answer.field("content-length").is_some() || answer.field("transfer-encoding").is_some() {
            client.ends().await;
        }
        assert_eq!(origin.count("/smuggled"), 0, "{reply:?}");
        assert_eq!(origin.total(), 1, "{reply:?}");
    }
}

once!(a_truncated_response_to_an_upgrade_is_not_ended_cleanly);
async fn a_truncated_response_to_an_upgrade_is_not_ended_cleanly() {
    let broken = Reply::raw("HTTP/1.1 200 OK\r\n\r\na part").then(Act::Wait(Duration::from_millis(100))).then_reset();
    let origin = Origin::new().on("/ws").reply(broken).start().await;
    let answer = Rig::over(&[&origin]).ask(UPGRADE).await;
    assert!(answer.status == 200 && !answer.whole, "{answer:?}");
}

once!(a_stalled_response_to_an_upgrade_is_not_ended_cleanly);
async fn a_stalled_response_to_an_upgrade_is_not_ended_cleanly() {
    let standing = Reply::raw("HTTP/1.1 200 OK\r\n\r\na part").then(Act::Hang);
    let origin = Origin::new().on("/ws").reply(standing).start().await;
    let rig = Rig::build(&[origin.address()], Handle::current(), 100);
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    within(client.stream.peek(&mut [0])).await.expect("the answer begins");
    tokio::time::pause();
    let answer = client.answer().await;
    assert!(answer.status == 200 && !answer.whole, "{answer:?}");
}

once!(a_failed_upgrade_is_retried_and_then_answered_with_502);
async fn a_failed_upgrade_is_retried_and_then_answered_with_502() {
    let good = Origin::new().on("/ws").reply(Reply::upgrade_echo()).start().await;
    let dying = Origin::new().on("/ws").reply(Reply::reset()).start().await;
    for rig in [Rig::at(&[refusing_address(), good.address()]), Rig::over(&[&dying, &good])] {
        for _ in 0..2 {
            assert_eq!(rig.ask(UPGRADE).await.status, 101);
        }
    }
    let rig = Rig::at(&[refusing_address(), refusing_address()]);
    assert_eq!(rig.ask(UPGRADE).await.text(), "no connection to the upstream (connect_failed)\n");
    for bad in ["nonsense\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n"]
    {
        let origin = Origin::new().on("/ws").reply(Reply::raw(bad)).start().await;
        let answer = Rig::over(&[&origin]).ask(UPGRADE).await;
        assert_eq!(answer.text(), "the upstream's answer is malformed (bad_response)\n", "{bad:?}");
    }
    let rig = Rig::with_nothing();
    assert_eq!(rig.ask(UPGRADE).await.status, 503);
}

in_each_lane!(only_websocket_upgrades_are_passed_on_and_the_connection_stays_http);
async fn only_websocket_upgrades_are_passed_on_and_the_connection_stays_http() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        "Connection: Upgrade\r\nUpgrade: foo\r\n",
        "Upgrade: websocket\r\n",
    ] {
        origin.forget();
        let mut client = rig.connect().await;
        client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{}", get("/y"))).await;
        assert_eq!([client.answer().await.status, client.answer().await.status], [200, 200], "{fields:?}");
        assert_eq!((origin.count("/x"), origin.count("/y")), (1, 1), "{fields:?}");
        assert_eq!(origin.requests("/x")[0].field("upgrade"), None, "{fields:?}");
    }
}

once!(bytes_behind_an_upgrade_that_is_not_made_are_no_request);
async fn bytes_behind_an_upgrade_that_is_not_made_are_no_request() {
    let origin = Origin::new().on("/ws").reply(Reply::status(403).delay(Duration::from_millis(100))).start().await;
    let refusing = Rig::over(&[&origin]);
    for (rig, status) in [(&refusing, 403), (&Rig::with_nothing(), 503), (&Rig::at(&[refusing_address()]), 502)] {
        let mut client = rig.connect().await;
        client.send(UPGRADE.to_owned() + &get("/evil")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (status, Some("close")));
        client.ends().await;
    }
    // They come after the head, and before the response.
    let mut client = refusing.connect().await;
    client.send(UPGRADE).await;
    assert_eventually("the request has arrived", SOON, || origin.count("/ws") == 2).await;
    client.send(get("/evil")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (403, Some("close")));
    client.ends().await;
    assert_eq!(origin.count("/evil"), 0);
}

once!(a_client_that_disconnects_before_the_101_cancels_the_upgrade);
async fn a_client_that_disconnects_before_the_101_cancels_the_upgrade() {
    let origin = Origin::new().on("/ws").reply(Reply::hang()).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    assert_eventually("the request has arrived", SOON, || origin.count("/ws") == 1).await;
    drop(client);
    assert_eventually("the upstream request is cancelled", Duration::from_secs(2), || origin.open_connections() == 0)
        .await;
}

once!(a_tunnel_outlives_a_stopped_listener);
async fn a_tunnel_outlives_a_stopped_listener() {
    let origin = Origin::new().on("/ws").reply(Reply::upgrade_echo()).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.answer().await.status, 101);
    rig.listener.stop();
    client.send("still here").await;
    assert_eq!(client.take(10).await, b"still here");
    assert_eq!(rig.plane.in_flight(), 1);
}

in_each_lane!(a_request_switches_only_to_what_its_pool_allows);
async fn a_request_switches_only_to_what_its_pool_allows() {
    let origin = Origin::new().on("/ws").reply(Reply::upgrade_echo()).start().await;
    for (allowed, method, asked, sent) in [
        (&["websocket"][..], "GET", "WebSocket", Some("websocket")),
        (&["websocket"], "GET", "myproto", None),
        (&["websocket"], "GET", "h2c", None),
        (&["websocket"], "POST", "websocket", None),
        (&[], "GET", "websocket", None),
        (&["myproto"], "GET", "websocket", None),
        (&["websocket", "myproto"], "POST", "MyProto", Some("MyProto")),
        (&["tls"], "OPTIONS", "TLS/1.0", Some("TLS/1.0")),
        (&["tls/1.1"], "GET", "TLS/1.0", None),
    ] {
        let rig = Rig::over(&[&origin]);
        let upgrades = Upgrades::new(allowed.iter().map(|name| Arc::from(*name)));
        rig.set_policies(ClientPolicy::default(), TrafficPolicy { upgrades, ..TrafficPolicy::default() });
        let what = format!("{method} {asked} with {allowed:?}");
        origin.forget();
        let mut client = rig.connect().await;
        let path = if sent.is_some() { "/ws" } else { "/plain" };
        let fields = format!("Connection: upgrade\r\nUpgrade: {asked}\r\nContent-Length: 0\r\n");
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        let answer = client.answer().await;
        let seen = &origin.requests(path)[0];
        assert_eq!(seen.field("upgrade"), sent, "{what}");
        if sent.is_some() {
            assert_eq!((answer.status, answer.field("upgrade")), (101, sent), "{what}");
            client.send("ping").await;
            assert_eq!(client.take(4).await, b"ping", "{what}");
        } else {
            assert_eq!(answer.status, 200, "{what}");
            assert!(!seen.values("connection").iter().any(|value| value.eq_ignore_ascii_case("upgrade")), "{what}");
            client.send(get("/next")).await;
            assert_eq!(client.answer().await.status, 200, "{what}: the connection goes on");
        }
    }
}

once!(a_101_to_another_protocol_is_a_502);
async fn a_101_to_another_protocol_is_a_502() {
    for upgrade in ["Upgrade: other", "Upgrade: myproto/2", "Upgrade: myproto, websocket", "X: y"] {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\nConnection: Upgrade\r\n\r\n");
        let origin = Origin::new().on("/ws").reply(Reply::raw(head).then_hang()).start().await;
        let rig = Rig::over(&[&origin]);
        let upgrades = Upgrades::new([Arc::from("myproto")]);
        rig.set_policies(ClientPolicy::default(), TrafficPolicy { upgrades, ..TrafficPolicy::default() });
        let answer = rig.ask("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: myproto\r\n\r\n").await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (502, "the upstream's answer is malformed (bad_response)\n"),
            "{upgrade}"
        );
    }
}
