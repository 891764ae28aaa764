//! Clients that leave while their request is under way, with much or little of what they sent unread: the work for them
//! ends soon, and what they sent ahead is kept within bounds.

use std::time::Duration;

use roundsman::pool::{Otherwise, Service};
use socket2::SockRef;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::rig::{Client, Rig, SOON, get, post};
use super::upgrades::{SWITCH, UPGRADE};
use crate::origin::{Act, Origin, Reply};
use crate::support::assert_eventually;

/// A client that leaves is noticed within a second; here a machine may be ten times slower than any we know.
const NOTICED: Duration = Duration::from_secs(15);

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Fin,
    Reset,
}

/// A connection that holds whatever the client sends before it leaves.
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

/// Requests of so many bytes in all, or a little more.
fn pipelined(bytes: usize) -> String {
    get("/following").repeat(bytes.div_ceil(get("/following").len()))
}

#[tokio::test]
async fn a_client_that_leaves_much_unread_behind_cancels_the_work_for_it() {
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
    assert_eq!(origin.count("/following"), 0, "nobody was there for the answers");
}

#[tokio::test]
async fn a_client_that_leaves_much_unread_behind_gives_up_its_place_among_those_who_wait() {
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

#[tokio::test]
async fn requests_far_ahead_are_all_answered_in_order_when_their_client_stays() {
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

#[tokio::test]
async fn what_a_client_sends_ahead_is_not_read_for_ever() {
    let origin = Origin::new().on("/slow").reply(Reply::hang()).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    SockRef::from(&client.stream).set_send_buffer_size(64 * 1024).unwrap();
    client.send(get("/slow")).await;
    assert_eventually("it is there", SOON, || origin.count("/slow") == 1).await;
    let (mut sent, piece) = (0, pipelined(64 * 1024));
    let sending = async {
        while tokio::io::AsyncWriteExt::write_all(&mut client.stream, piece.as_bytes()).await.is_ok() {
            sent += piece.len();
            assert!(sent < 80 << 20, "it reads on and on");
        }
    };
    // It stalls long before: both kernels and our own buffer keep some.
    assert!(tokio::time::timeout(Duration::from_secs(3), sending).await.is_err(), "the connection broke");
    assert!(sent > 0, "nothing was sent ahead");
    leave(client, Leaving::Reset);
    assert_eventually("the work is cancelled", NOTICED, || origin.open_connections() == 0).await;
}

#[tokio::test]
async fn a_tunnel_ends_a_minute_after_one_side_if_the_other_says_nothing() {
    for upstream_ends in [false, true] {
        let mut acts = vec![Act::Write(SWITCH.as_bytes().to_vec())];
        acts.push(if upstream_ends { Act::Close } else { Act::Wait(Duration::from_secs(600)) });
        let origin = Origin::new().on("/ws").reply(Reply::acts(acts)).start().await;
        let rig = Rig::build(&[origin.address()], Handle::current(), 100);
        let mut client = rig.connect().await;
        client.send(UPGRADE).await;
        assert_eq!(client.answer().await.status, 101);
        tokio::time::pause();
        let ended = Instant::now();
        let kept = if upstream_ends {
            client.ends().await;
            Some(client)
        } else {
            drop(client);
            None
        };
        assert_eventually("it has ended", Duration::from_secs(3_000), || rig.plane.connections() == 0).await;
        assert!((59..130).contains(&ended.elapsed().as_secs()), "{upstream_ends}: {:?}", ended.elapsed());
        assert_eq!(rig.plane.in_flight(), 0);
        drop(kept);
        tokio::time::resume();
    }
}
