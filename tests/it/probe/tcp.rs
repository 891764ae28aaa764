//! TCP probes that send and expect texts: answers in pieces, too much, too little, and connections that break.

use std::sync::Arc;
use std::time::Duration;

use roundsman::model::policy::{Payload, PortRule, ProbeKind, ProbeSpec, TcpProbe};
use roundsman::model::{Code, ProbeReport};
use roundsman::probe::probe;
use tokio::time::Instant;

use super::{LONG, SHORT, SLACK, on_accept};
use crate::origin::{Act, Ending, Origin, Reply};
use crate::support::assert_eventually;

async fn talk(origin: &Origin, send: Option<&str>, expect: Option<&str>, timeout: Duration) -> ProbeReport {
    let kind = ProbeKind::Tcp(TcpProbe::of(send.map(|text| Payload::plain(text.as_bytes())), expect.map(Into::into)));
    let spec = Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None });
    let started = Instant::now();
    let report = probe(&origin.address(), &origin.address(), &spec, timeout).await;
    let limit = if timeout == LONG { LONG / 2 } else { timeout + SLACK };
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_text_passes_in_any_pieces() {
    let tick = Duration::from_millis(2);
    for acts in [
        vec![Act::Write(b"220 mail ready\r\n".to_vec())],
        vec![Act::Write(b"220 mail rea".to_vec()), Act::Wait(tick), Act::Write(b"dy".to_vec())],
        vec![Act::Write([&[b'x'; 60_000][..], b" ready"].concat())],
        vec![Act::Write(b"rearea".to_vec()), Act::Wait(tick), Act::Drip(b"ready".to_vec(), tick)],
    ] {
        let origin = on_accept(Reply::acts(acts).then_hang());
        let report = talk(&origin, None, Some("ready"), LONG).await;
        assert_eq!((report.code, report.status, report.hint), (Code::L7Ok, None, None), "{}", report.sentence());
        assert!(report.reason.starts_with("answered as expected in "), "{}", report.reason);
        assert!(!report.trace.body.is_empty() && report.trace.body.len() <= 256);
        assert!(report.trace.answered_in.unwrap() <= report.duration);
    }
}

/// A peer gets 100 ms to close the connection, which do not count into the duration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_close_of_the_peer_is_not_part_of_the_duration() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = roundsman::model::Address::Inet(listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut peer, b"ready").await.unwrap();
        // Until the test ends.
        std::future::pending::<()>().await;
        drop(peer);
    });
    let kind = ProbeKind::Tcp(TcpProbe::of(None, Some("ready".into())));
    let spec = Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None });
    let begun = Instant::now();
    let report = probe(&upstream, &upstream, &spec, LONG).await;
    let whole = begun.elapsed();
    silent.abort();
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    assert!(report.duration + Duration::from_millis(90) <= whole, "{:?} of {whole:?}", report.duration);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_sends_closes_its_connection_cleanly() {
    let origin = Origin::plain("a").await;
    let request = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let report = talk(&origin, Some(request), Some("hello from a"), LONG).await;
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    assert_eq!(origin.count("/healthz"), 1);
    assert_eventually("the origin sees the end", SLACK, || origin.endings() == [Ending::Eof]).await;
    let report = talk(&origin, Some(request), None, LONG).await;
    assert_eq!(report.code, Code::L4Ok, "{}", report.sentence());
    assert_eventually("the request has arrived", SLACK, || origin.count("/healthz") == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_text_is_reported_with_the_bytes_received() {
    let wait = Act::Wait(Duration::from_millis(50));
    for (name, reply, timeout, code, says) in [
        (
            "nothing",
            Reply::hang(),
            SHORT,
            Code::L7Tout,
            &["no \"ready\" within 300ms (connected in ", "(it accepts connections but sends nothing"][..],
        ),
        (
            "something else",
            Reply::raw("read\x1b").then_hang(),
            SHORT,
            Code::L7Tout,
            &["no \"ready\" within 300ms (connected in ", r#"; got "read\u{1b}""#],
        ),
        (
            "a drip",
            Reply::acts(vec![Act::EndlessDrip(b"x".to_vec(), Duration::from_millis(20))]),
            SHORT,
            Code::L7Tout,
            &["no \"ready\" within 300ms", "; got \"xx"],
        ),
        (
            "too much",
            Reply::acts(vec![]).then_endless([b'x'; 4096]),
            LONG,
            Code::L7Rsp,
            &["no \"ready\" in the first 64 KiB (the rest is not read); got \"xxx", "…"],
        ),
        (
            "a close",
            Reply::close(),
            LONG,
            Code::L7Rsp,
            &["connection closed before \"ready\" arrived: 0 bytes received"],
        ),
        (
            "a close after a part",
            Reply::raw("read"),
            LONG,
            Code::L7Rsp,
            &["connection closed before \"ready\" arrived: 4 bytes received; got \"read\""],
        ),
        (
            "a reset",
            Reply::acts(vec![wait.clone()]).then_reset(),
            LONG,
            Code::L7Rsp,
            &["connection reset before \"ready\" arrived: 0 bytes received"],
        ),
        (
            "a reset after a part",
            Reply::raw("read").then(wait).then_reset(),
            LONG,
            Code::L7Rsp,
            &["connection reset before \"ready\" arrived: 4 bytes received; got \"read\""],
        ),
    ] {
        let origin = on_accept(reply);
        let report = talk(&origin, None, Some("ready"), timeout).await;
        let sentence = report.sentence();
        assert_eq!(report.code, code, "{name}: {sentence}");
        let mut rest = sentence.as_str();
        for part in says {
            let at = rest.find(part).unwrap_or_else(|| panic!("{name}: {sentence:?} does not have {part:?}"));
            rest = &rest[at + part.len()..];
        }
        assert!(origin.bytes_written() < 32 << 20, "{name}: {} bytes were taken", origin.bytes_written());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hint_for_a_silent_server_depends_on_whether_a_text_was_sent() {
    for (send, hint) in [
        (None, "it accepts connections but sends nothing: it may wait for the client to send first"),
        (Some("PING\r\n"), "it accepts connections but does not answer what was sent"),
    ] {
        let origin = on_accept(Reply::hang());
        let report = talk(&origin, send, Some("ready"), SHORT).await;
        assert_eq!((report.code, report.hint), (Code::L7Tout, Some(hint)), "{send:?}: {}", report.sentence());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_has_the_local_address_and_the_connect_time() {
    let origin = Origin::plain("a").await;
    let report = talk(&origin, None, None, LONG).await;
    assert_eq!(report.code, Code::L4Ok);
    let trace = report.trace;
    assert!(trace.local.is_some_and(|local| local.ip().is_loopback() && local.port() > 0));
    assert!(trace.connected_in.unwrap() <= report.duration);
    assert_eq!((trace.tls, trace.answered_in), (None, None));
    assert!(trace.head.is_empty() && trace.body.is_empty());
}
