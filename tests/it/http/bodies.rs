//! Bodies of every framing and size in both directions: whole or visibly truncated, without delay, in bounded memory.

use std::time::Duration;

use roundsman::model::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::rig::{Rig, SOON, get, post, within};
use crate::lanes::differences::Difference::DropsTrailers;
use crate::lanes::each::in_each_lane;
use crate::origin::{Act, Ending, Origin, Reply};
use crate::support::assert_eventually;

const MIB: usize = 1 << 20;
/// The most of a body that two pairs of sockets (up to 36 MiB each) and the proxy may hold together.
const HELD_MAX: usize = 96 * MIB;

in_each_lane!(bodies_are_passed_on_unchanged_in_every_framing);
async fn bodies_are_passed_on_unchanged_in_every_framing() {
    let origin = Origin::new().on("/chunks").reply(Reply::ok("").chunked(["one", "two", "three"])).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    for size in [0, 1, 5_000, 16 * 1024, 65_536, 65_537, 300_000] {
        let body = "abcdefghij".repeat(size / 10 + 1)[..size].to_owned();
        client.send(post("/echo", &body)).await;
        let answer = client.answer().await;
        assert!(answer.status == 200 && answer.whole && answer.text() == body, "{size} bytes with a length");
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for piece in body.as_bytes().chunks(7_001) {
            client.send(format!("{:x};ext=1\r\n", piece.len())).await;
            client.send(piece).await;
            client.send("\r\n").await;
        }
        client.send("0\r\nX-Trailer: 1\r\n\r\n").await;
        let answer = client.answer().await;
        assert!(answer.status == 200 && answer.whole && answer.text() == body, "{size} bytes in chunks");
    }
    client.send(get("/chunks")).await;
    let answer = client.answer().await;
    assert_eq!((answer.text().as_str(), answer.whole), ("onetwothree", true));
    assert_eq!(origin.accepted(), 1, "one connection on each side for all requests");
}

in_each_lane!(trailers_are_passed_on_both_ways);
async fn trailers_are_passed_on_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::at(&[Address::Inet(listener.local_addr().unwrap())]);
    let is_whole = |bytes: &[u8]| bytes.ends_with(b"\r\n0\r\n\r\n") || bytes.ends_with(b"\r\n0\r\nX-Sum: 1\r\n\r\n");
    let origin = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while !is_whole(&got) {
            assert!(stream.read_buf(&mut got).await.unwrap() > 0, "{}", got.escape_ascii());
        }
        let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\nContent-Length: 9\r\nX-Sum: 1\r\n\r\n";
        stream.write_all(response.as_bytes()).await.unwrap();
        (got, stream)
    });
    let mut client = rig.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    while !is_whole(&answer) {
        answer.extend(client.take(1).await);
    }
    let (request, _open) = within(origin).await.unwrap();
    let trailer = if DropsTrailers.is_here() { "" } else { "X-Sum: 1\r\n" };
    for (what, bytes, data) in [("request", request, "abc"), ("response", answer, "one")] {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with(&format!("\r\n3\r\n{data}\r\n0\r\n{trailer}\r\n")), "{what}: {text:?}");
    }
}

in_each_lane!(a_large_response_is_buffered_up_to_a_limit_while_its_client_does_not_read);
async fn a_large_response_is_buffered_up_to_a_limit_while_its_client_does_not_read() {
    let size = 128 * MIB;
    let origin = Origin::new().on("/big").reply(Reply::status(200).big(size as u64)).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(get("/big")).await;
    let (mut last, mut quiet) = (0, Instant::now());
    let is_stalled = || {
        let written = origin.bytes_written();
        if written != last {
            (last, quiet) = (written, Instant::now());
        }
        written > 0 && quiet.elapsed() > Duration::from_millis(300)
    };
    assert_eventually("the origin cannot write more", SOON, is_stalled).await;
    assert!(origin.bytes_written() < HELD_MAX as u64, "{} bytes are buffered", origin.bytes_written());
    let answer = client.answer().await;
    assert!(answer.whole && answer.body.len() == size && answer.body.iter().all(|b| *b == b'x'));
}

in_each_lane!(a_large_request_is_buffered_up_to_a_limit_while_its_upstream_does_not_read);
async fn a_large_request_is_buffered_up_to_a_limit_while_its_upstream_does_not_read() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let piece = vec![b'x'; MIB];
    let rig = Rig::at(&[Address::Inet(deaf.local_addr().unwrap())]);
    let mut client = rig.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 128 * MIB)).await;
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), client.stream.write(&piece)).await {
        sent += written.expect("the connection is open");
        assert!(sent < HELD_MAX, "{sent} bytes are buffered");
    }
    assert!(sent > 64 * 1024, "only {sent} bytes were accepted: the test proves nothing");
    let size = 64 * MIB;
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(format!("POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).await;
    for _ in 0..size / MIB {
        client.send(&piece).await;
    }
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.requests("/sink")[0].body_bytes, size as u64);
}

in_each_lane!(a_slow_body_with_a_length_is_passed_on_as_it_arrives);
async fn a_slow_body_with_a_length_is_passed_on_as_it_arrives() {
    let reply = Reply::ok("0123456789").pace(1, Duration::from_millis(200));
    let origin = Origin::new().on("/slow").reply(reply).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    let asked = Instant::now();
    client.send(get("/slow")).await;
    let head = within(async {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.extend(client.take(1).await);
        }
        client.take(2).await
    });
    assert_eq!(head.await, b"01");
    assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
    assert_eq!(client.take(8).await, b"23456789");
    assert!(asked.elapsed() > Duration::from_millis(1_500), "{:?}", asked.elapsed());
}

in_each_lane!(a_truncated_response_is_visibly_truncated_and_its_connection_is_not_reused);
async fn a_truncated_response_is_visibly_truncated_and_its_connection_is_not_reused() {
    let head = "HTTP/1.1 200 OK\r\n";
    for (reply, got) in [
        (Reply::raw(format!("{head}Content-Length: 10\r\n\r\nhello")), "hello"),
        (Reply::raw(format!("{head}Content-Length: 10\r\n\r\nhello")).then(Act::Wait(SHORT)).then_reset(), "hello"),
        (Reply::raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")), "hello"),
        (Reply::raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo")), "hello"),
        (Reply::raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n")), "hello"),
        (Reply::raw(format!("{head}Content-Length: 10\r\n\r\n")), ""),
    ] {
        let origin = Origin::new().on("/x").reply(reply.clone()).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        client.send(get("/x")).await;
        let answer = client.answer().await;
        assert!(answer.status == 200 && !answer.whole, "{reply:?}: {answer:?}");
        assert!(answer.text().starts_with(got), "{reply:?}: {answer:?}");
        assert_eq!(rig.ask(get("/next")).await.status, 200);
        assert_eq!((origin.count("/x"), origin.accepted()), (1, 2), "{reply:?}");
    }
}

const SHORT: Duration = Duration::from_millis(100);

in_each_lane!(bytes_after_a_response_reach_no_client);
async fn bytes_after_a_response_reach_no_client() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for reply in [
        Reply::raw(format!("{answer}{smuggled}")).then_hang(),
        Reply::raw(answer).then(Act::Wait(SHORT)).then_write(smuggled).then_hang(),
        Reply::raw(format!("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil{smuggled}")).then_hang(),
        Reply::raw(format!("HTTP/1.1 304 Not Modified\r\n\r\nevil{smuggled}")).then_hang(),
    ] {
        let origin = Origin::new().on("/x").reply(reply.clone()).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        client.send(get("/x")).await;
        assert!(client.answer().await.whole, "{reply:?}");
        if format!("{reply:?}").contains("Wait") {
            assert_eventually("the connection is closed", SOON, || origin.open_connections() == 0).await;
        }
        for _ in 0..3 {
            client.send(get("/good")).await;
            assert_eq!(client.answer().await.text(), format!("hello from {}\n", origin.name()), "{reply:?}");
        }
    }
}

in_each_lane!(responses_without_a_body_end_with_their_head);
async fn responses_without_a_body_end_with_their_head() {
    let lying = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let origin = Origin::new()
        .on("/204")
        .reply(Reply::raw("HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"))
        .on("/304")
        .reply(Reply::raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n"))
        .on("/head")
        .reply(Reply::raw(lying))
        .start()
        .await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(get("/204")).await;
    let answer = client.answer().await;
    assert!(answer.status == 204 && answer.field("content-length").is_none(), "{answer:?}");
    client.send(get("/304")).await;
    assert_eq!(client.answer().await.field("etag"), Some("x"));
    client.head_only = true;
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.field("content-length"), Some("5"));
    client.head_only = false;
    client.send(get("/after")).await;
    assert_eq!(client.answer().await.status, 200);
}

in_each_lane!(a_body_ended_by_close_is_chunked_for_http_1_1_and_ended_by_close_for_http_1_0);
async fn a_body_ended_by_close_is_chunked_for_http_1_1_and_ended_by_close_for_http_1_0() {
    let origin = Origin::new()
        .on("/close")
        .reply(Reply::ok("").until_close("until the end"))
        .on("/chunks")
        .reply(Reply::ok("").chunked(["in ", "chunks"]))
        .on("/cut")
        .reply(Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").then(Act::Wait(SHORT)))
        .start()
        .await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(get("/close")).await;
    let answer = client.answer().await;
    assert_eq!((answer.text().as_str(), answer.whole), ("until the end", true));
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    client.send(get("/after")).await;
    assert_eq!(client.answer().await.status, 200);
    for (path, body) in [("/close", "until the end"), ("/chunks", "in chunks")] {
        let answer = rig.ask(format!("GET {path} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")).await;
        assert_eq!((answer.text().as_str(), answer.whole), (body, true));
        assert_eq!((answer.field("transfer-encoding"), answer.field("connection")), (None, Some("close")));
    }
    let mut client = rig.connect().await;
    client.head_only = true;
    client.send("HEAD /chunks HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.field("transfer-encoding"), None);
    let answer = rig.ask("GET /cut HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(!answer.whole, "only a reset shows an HTTP/1.0 client that the body is truncated: {answer:?}");
}

in_each_lane!(an_http_1_0_client_may_keep_its_connection);
async fn an_http_1_0_client_may_keep_its_connection() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (200, Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.field("connection"), Some("close"));
    client.ends().await;
}

in_each_lane!(interim_responses_are_passed_on_to_http_1_1_clients_only);
async fn interim_responses_are_passed_on_to_http_1_1_clients_only() {
    let origin = Origin::new().on("/x").reply(Reply::ok("x").interim(103).interim(102)).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(get("/x")).await;
    let seen = [client.answer().await.status, client.answer().await.status, client.answer().await.status];
    assert_eq!(seen, [103, 102, 200]);
    assert_eq!(rig.ask("GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await.status, 200);
}

in_each_lane!(expect_100_continue_is_answered_by_the_upstream);
async fn expect_100_continue_is_answered_by_the_upstream() {
    let origin = Origin::new()
        .on("/yes")
        .reply(Reply::raw("HTTP/1.1 100 Continue\r\n\r\n").before_body().then(Act::Wait(SHORT)).then_write(OK))
        .on("/no")
        .reply(Reply::raw("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").before_body())
        .start()
        .await;
    let rig = Rig::over(&[&origin]);
    let ask =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let mut client = rig.connect().await;
    client.send(ask("/yes")).await;
    assert_eq!(client.answer().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.answer().await.status, 200);
    // Each script ends its connection, so each has its own pool.
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(ask("/no")).await;
    assert_eq!(client.answer().await.status, 417);
    client.ends().await;
    let rig = Rig::over(&[&origin]);
    // An upstream that ignores the field: the client sends its body after some time.
    let mut client = rig.connect().await;
    client.send(ask("/echo")).await;
    client.send("hello").await;
    let mut answer = client.answer().await;
    while answer.status == 100 {
        answer = client.answer().await;
    }
    assert_eq!(answer.text(), "hello");
    let answer = rig.ask("POST /echo HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"), "an HTTP/1.0 client gets no 100");
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

in_each_lane!(a_response_before_the_end_of_the_request_reaches_the_client);
async fn a_response_before_the_end_of_the_request_reaches_the_client() {
    let reply =
        Reply::raw("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").before_body();
    let origin = Origin::new().on("/up").reply(reply).start().await;
    let rig = Rig::over(&[&origin]);
    let mut client = rig.connect().await;
    client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 64 * MIB)).await;
    client.send(vec![b'x'; 4 * MIB]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "big"));
    assert_eq!(answer.field("connection"), Some("close"));
}

in_each_lane!(a_client_that_disconnects_cancels_its_upstream_request);
async fn a_client_that_disconnects_cancels_its_upstream_request() {
    let big = Reply::status(200).big(64 << 20);
    let origin = Origin::new().on("/hang").reply(Reply::hang()).on("/big").reply(big).start().await;
    let rig = Rig::over(&[&origin]);
    for start in [
        get("/hang"),
        post("/hang", "hello"),
        "POST /hang HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhel".to_owned(),
        get("/big"),
    ] {
        origin.forget();
        let mut client = rig.connect().await;
        client.send(&start).await;
        assert_eventually("the request has arrived", SOON, || origin.total() == 1).await;
        let left = Instant::now();
        drop(client);
        assert_eventually("the upstream connection is closed", SOON, || origin.open_connections() == 0).await;
        assert!(left.elapsed() < Duration::from_secs(2), "{start:?}: {:?}", left.elapsed());
        assert_ne!(origin.endings(), [Ending::Ours], "{start:?}");
        assert_eventually("no request is in flight", SOON, || rig.plane.in_flight() == 0).await;
        assert_eq!(rig.upstreams[0].in_flight.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}
