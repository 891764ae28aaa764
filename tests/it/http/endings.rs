//! How the client's connection ends, or that it goes on, after each kind of exchange; and that a request means the same
//! wherever its bytes are cut.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;

use super::rig::{Client, Rig, SOON, get, within};
use crate::lanes::each::in_each_lane;
use crate::origin::{Act, Origin, Reply};
use crate::support::assert_eventually;

/// What a client sees after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The next request is answered.
    Stays,
    /// A clean close.
    Closed,
    Reset,
}

use Ending::{Closed, Reset, Stays};

/// The first lines of a response: with a length, in chunks, and until the end of the connection.
const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\n";

async fn ending(client: &mut Client) -> Ending {
    client.send(get("/next")).await;
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match within(client.stream.read(&mut piece)).await {
            Ok(0) => return Closed,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(_) => return Reset,
        }
        if bytes.windows(5).any(|window| window == b"hello") {
            return Stays;
        }
    }
}

in_each_lane!(a_client_connection_ends_as_its_exchange_did);
async fn a_client_connection_ends_as_its_exchange_did() {
    let new = "HTTP/1.1\r\nHost: a\r\n";
    let (get, old) = (format!("GET /x {new}\r\n"), "GET /x HTTP/1.0\r\n\r\n".to_owned());
    let kept_old = "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned();
    let closing = format!("GET /x {new}Connection: close\r\n\r\n");
    let post = |framing: &str, body: &str| format!("POST /x {new}{framing}\r\n\r\n{body}");
    let wait = || Act::Wait(Duration::from_millis(20));
    let whole = |head: &str, body: &str| Reply::raw(format!("{head}{body}"));
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nready";
    for (what, request, reply, status, is_whole, want) in [
        ("a whole response", &get, Reply::ok("ready"), 200, true, Stays),
        ("a whole response in chunks", &get, Reply::ok("").chunked(["ready"]), 200, true, Stays),
        ("a response until the end", &get, whole(CLOSE, "ready"), 200, true, Stays),
        ("the upstream's last", &get, Reply::raw(last), 200, true, Stays),
        ("the client's last", &closing, Reply::ok("ready"), 200, true, Closed),
        ("an HTTP/1.0 client", &old, Reply::ok("ready"), 200, true, Closed),
        ("an HTTP/1.0 client that stays", &kept_old, Reply::ok("ready"), 200, true, Stays),
        ("chunks to HTTP/1.0", &kept_old, Reply::ok("").chunked(["ready"]), 200, true, Closed),
        ("until the end to HTTP/1.0", &kept_old, whole(CLOSE, "ready"), 200, true, Closed),
        ("half a body", &get, whole(LENGTH, "rea"), 200, false, Closed),
        ("half a body, then a reset", &get, whole(LENGTH, "rea").then(wait()).then_reset(), 200, false, Closed),
        ("half its chunks", &get, whole(CHUNKS, "5\r\nrea"), 200, false, Closed),
        ("a malformed chunk", &get, whole(CHUNKS, "5\r\nready\r\nx\r\n").then_hang(), 200, false, Closed),
        ("a reset response until the end", &get, whole(CLOSE, "rea").then(wait()).then_reset(), 200, false, Closed),
        ("no response", &get, Reply::reset(), 502, true, Stays),
        ("a malformed response", &get, Reply::raw("nonsense\r\n\r\n").then_hang(), 502, true, Stays),
        ("a body", &post("Content-Length: 2", "ab"), Reply::ok("ready"), 200, true, Stays),
        ("a malformed body", &post("Transfer-Encoding: chunked", "x\r\n"), Reply::hang(), 400, true, Closed),
        ("a malformed head", &"GET /x\r\n".to_owned(), Reply::hang(), 400, true, Closed),
    ] {
        let origin = Origin::new().on("/x").reply(reply).start().await;
        let rig = Rig::build(&[origin.address()], Handle::current(), 100);
        let mut client = rig.connect().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.whole), (status, is_whole), "{what}: {answer:?}");
        let said = answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        assert!(want != Stays || !said, "{what}: the client is told that it closes");
        // A response without framing has been read to its end already.
        assert_eq!(ending(&mut client).await, want, "{what}: {answer:?}");
    }
}

in_each_lane!(only_a_reset_ends_a_response_that_is_cut_and_has_no_other_end);
async fn only_a_reset_ends_a_response_that_is_cut_and_has_no_other_end() {
    let wait = Act::Wait(Duration::from_millis(20));
    for (what, reply) in [
        ("chunks", Reply::raw(format!("{CHUNKS}5\r\nhello\r\n")).then(wait.clone())),
        ("a malformed chunk", Reply::raw(format!("{CHUNKS}5\r\nhello\r\nx\r\n")).then(wait.clone())),
        ("until the end", Reply::raw(format!("{CLOSE}hello")).then(wait).then_reset()),
    ] {
        let origin = Origin::new().on("/x").reply(reply).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        client.send("GET /x HTTP/1.0\r\n\r\n").await;
        let mut bytes = Vec::new();
        let end = within(client.stream.read_to_end(&mut bytes)).await;
        assert!(end.is_err(), "{what}: a clean end after {:?}", String::from_utf8_lossy(&bytes));
    }
}

in_each_lane!(requests_mean_the_same_wherever_they_are_cut);
async fn requests_mean_the_same_wherever_they_are_cut() {
    let origin = Origin::plain("a").await;
    let rig = Rig::build(&[origin.address()], Handle::current(), 100);
    let stream = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nGET / H\
                  POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\none\r\n0\r\nX: y\r\n\r\n\
                  GET /last HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 1..stream.len() {
        let mut client = rig.connect().await;
        client.send(&stream[..cut]).await;
        // Everybody is on this one thread: they take what has come before the rest comes.
        for _ in 0..6 {
            tokio::task::yield_now().await;
        }
        client.send(&stream[cut..]).await;
        for body in ["GET / H", "one", &format!("hello from {}\n", origin.name())] {
            let answer = client.answer().await;
            assert!(answer.status == 200 && answer.whole && answer.text() == body, "cut after {cut}: {answer:?}");
        }
    }
    assert_eq!(
        (origin.count("/echo"), origin.count("/last")),
        (2 * (stream.len() as u64 - 1), stream.len() as u64 - 1)
    );
}

in_each_lane!(bytes_after_the_last_request_do_not_reset_its_response);
async fn bytes_after_the_last_request_do_not_reset_its_response() {
    let reply =
        Reply::acts(vec![Act::Wait(Duration::from_millis(50)), Act::Write(format!("{CLOSE}ready").into_bytes())]);
    let origin = Origin::new().on("/x").reply(reply).start().await;
    for last in ["GET /x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"] {
        let rig = Rig::over(&[&origin]);
        let before = origin.count("/x");
        let mut client = rig.connect().await;
        client.send(last).await;
        assert_eventually("the request is at the upstream", SOON, || origin.count("/x") > before).await;
        // Nobody needs them any more, and nobody has read them.
        client.send(get("/more")).await;
        let mut bytes = Vec::new();
        let end = within(client.stream.read_to_end(&mut bytes)).await;
        assert!(end.is_ok(), "{last:?}: {end:?} after {:?}", String::from_utf8_lossy(&bytes));
        assert!(bytes.windows(5).any(|window| window == b"ready"), "{last:?}");
    }
}
