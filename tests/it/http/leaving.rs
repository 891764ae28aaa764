//! Clients that disconnect while their request is in flight, with many or few bytes unread: the upstream request is
//! cancelled soon, and pipelined bytes are bounded.

use std::time::Duration;

use roundsman::pool::{Otherwise, Service};
use socket2::SockRef;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::rig::{Client, Rig, SOON, get, post};
use super::upgrades::{SWITCH, UPGRADE};
use crate::lanes::each::{in_each_lane, once};
use crate::origin::{Act, Origin, Reply};
use crate::support::assert_eventually;

/// A disconnect is noticed within a second; this allows for a machine ten times slower.
const NOTICED: Duration = Duration::from_secs(15);

/// How a client disconnects.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Fin,
    Reset,
}

/// A connection whose buffers hold all that the client sends before it disconnects.
async fn connect(rig: &Rig) -> Client {
    let client = rig.connect().await;
    SockRef::from(&client.stream).set_send_buffer_size(4 * 1024 * 1024).unwrap();
    client
}

fn leave(client: Client, how: Leaving) {
    if matches!(how, Leaving::Reset) {
        SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(client);
}

/// Pipelined requests of at least this many bytes in all.
fn pipelined(bytes: usize) -> String {
    get("/following").repeat(bytes.div_ceil(get("/following").len()))
}

in_each_lane!(a_client_that_disconnects_with_unread_bytes_cancels_its_request);
async fn a_client_that_disconnects_with_unread_bytes_cancels_its_request() {
    let origin = Origin::new().on("/slow").reply(Reply::hang()).on("/ws").reply(Reply::hang()).start().await;
    for (path, request) in [("/slow", get("/slow")), ("/slow", post("/slow", "hello")), ("/ws", UPGRADE.to_owned())] {
        for bytes in [0, 10, 64 * 1024, 65 * 1024, 100 * 1024, 1024 * 1024] {
            for how in [Leaving::Fin, Leaving::Reset] {
                let case = format!("{path}, {bytes} bytes, {how:?}");
                let rig = Rig::over(&[&origin]);
                let before = origin.count(path);
                let mut client = connect(&rig).await;
                client.send(&request).await;
                assert_eventually(&case, SOON, || origin.count(path) == before + 1).await;
                client.send(pipelined(bytes)).await;
                let left = Instant::now();
                leave(client, how);
                assert_eventually(&case, NOTICED, || origin.open_connections() == 0).await;
                assert_eventually(&case, NOTICED, || rig.plane.connections() == 0).await;
                assert!(left.elapsed() < NOTICED, "{case}: {:?}", left.elapsed());
                assert_eq!(rig.plane.in_flight(), 0, "{case}");
            }
        }
    }
    assert_eq!(origin.count("/following"), 0, "no pipelined request was sent after the disconnect");
}

in_each_lane!(a_waiting_client_that_disconnects_with_unread_bytes_frees_its_place);
async fn a_waiting_client_that_disconnects_with_unread_bytes_frees_its_place() {
    let rig = Rig::at(&[]);
    let until = Instant::now() + Duration::from_secs(300);
    rig.set_service(Service::Waiting { until, then: Otherwise::Reject });
    for request in [get("/"), post("/", "hello"), UPGRADE.to_owned()] {
        for bytes in [0, 64 * 1024, 100 * 1024, 1024 * 1024] {
            for how in [Leaving::Fin, Leaving::Reset] {
                let mut client = connect(&rig).await;
                client.send(&request).await;
                assert_eventually("it waits", SOON, || rig.pool.shared.waiting() == 1).await;
                client.send(pipelined(bytes)).await;
                leave(client, how);
                let case = format!("{bytes} bytes, {how:?}");
                assert_eventually(&case, NOTICED, || rig.pool.shared.waiting() == 0).await;
                assert_eventually(&case, NOTICED, || rig.plane.in_flight() == 0).await;
            }
        }
    }
}

in_each_lane!(thousands_of_pipelined_requests_are_answered_in_order);
async fn thousands_of_pipelined_requests_are_answered_in_order() {
    let origin = Origin::new().on("/slow").reply(Reply::ok("slow").delay(Duration::from_millis(300))).start().await;
    let rig = Rig::over(&[&origin]);
    let client = connect(&rig).await;
    let (read, mut write) = tokio::io::split(client.stream);
    const MANY: usize = 4_000;
    let sending = tokio::spawn(async move {
        let requests: String = (0..MANY).map(|n| get(&format!("/{n}/{}", "x".repeat(200)))).collect();
        tokio::io::AsyncWriteExt::write_all(&mut write, (get("/slow") + &requests).as_bytes()).await.unwrap();
        write
    });
    let mut client = Client::new(tokio::io::join(read, tokio::io::sink()));
    assert_eq!(client.answer().await.text(), "slow");
    for n in 0..MANY {
        assert_eq!(client.answer().await.status, 200, "{n}");
    }
    drop(sending.await.unwrap());
    let targets: Vec<_> = origin.all_requests().iter().map(|seen| seen.target.clone()).collect();
    let in_order = (0..MANY).all(|n| targets[n + 1].starts_with(&format!("/{n}/")));
    assert!(in_order && targets.len() == MANY + 1, "{} requests", targets.len());
}

in_each_lane!(pipelined_bytes_are_read_up_to_a_limit);
async fn pipelined_bytes_are_read_up_to_a_limit() {
    let origin = Origin::new().on("/slow").reply(Reply::hang()).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    SockRef::from(&client.stream).set_send_buffer_size(64 * 1024).unwrap();
    client.send(get("/slow")).await;
    assert_eventually("the request has arrived", SOON, || origin.count("/slow") == 1).await;
    let (mut sent, piece) = (0, pipelined(64 * 1024));
    let sending = async {
        while tokio::io::AsyncWriteExt::write_all(&mut client.stream, piece.as_bytes()).await.is_ok() {
            sent += piece.len();
            assert!(sent < 80 << 20, "the proxy reads without a limit");
        }
    };
    // The client stalls long before: both kernels and the proxy buffer some.
    assert!(tokio::time::timeout(Duration::from_secs(3), sending).await.is_err(), "writing ended instead of stalling");
    assert!(sent > 0, "nothing was pipelined");
    leave(client, Leaving::Reset);
    assert_eventually("the upstream request is cancelled", NOTICED, || origin.open_connections() == 0).await;
}

once!(a_tunnel_ends_a_minute_after_one_side_closes_if_the_other_is_silent);
async fn a_tunnel_ends_a_minute_after_one_side_closes_if_the_other_is_silent() {
    for upstream_ends in [false, true] {
        let mut acts = vec![Act::Write(SWITCH.as_bytes().to_vec())];
        acts.push(if upstream_ends { Act::Close } else { Act::Wait(Duration::from_secs(600)) });
        let origin = Origin::new().on("/ws").reply(Reply::acts(acts)).start().await;
        let rig = Rig::build(&[origin.address()], Handle::current(), 100);
        let mut client = rig.connect().await;
        client.send(UPGRADE).await;
        assert_eq!(client.answer().await.status, 101);
        if upstream_ends {
            // Otherwise the paused clock runs ahead of the origin, which has a thread of its own.
            assert_eventually("the origin has closed", NOTICED, || origin.open_connections() == 0).await;
        }
        tokio::time::pause();
        let ended = Instant::now();
        let kept = if upstream_ends {
            client.ends().await;
            Some(client)
        } else {
            drop(client);
            None
        };
        assert_eventually("the tunnel has ended", Duration::from_secs(3_000), || rig.plane.connections() == 0).await;
        assert!((59..130).contains(&ended.elapsed().as_secs()), "{upstream_ends}: {:?}", ended.elapsed());
        assert_eq!(rig.plane.in_flight(), 0);
        drop(kept);
        tokio::time::resume();
    }
}
