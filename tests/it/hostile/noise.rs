//! Neither an upstream that sends more than was requested nor a client that sends garbage can fill the log.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::client::get;
use crate::lanes::each::in_each_lane;
use crate::origin::{Act, Origin, Reply};
use crate::program::{Program, fetch, pool, try_fetch};
use crate::support::assert_eventually;

/// A check that does not fail on a busy machine.
const CALM: &str = "interval = \"2s\"\ntimeout = \"2s\"\nfast_interval = \"50ms\"\nunhealthy_threshold = 10\n";

/// Requests, each of which is a reason to log.
const REQUESTS: usize = 2_000;
/// Log lines allowed for them.
const LINES: usize = 4;

in_each_lane!(unrequested_bytes_are_counted_and_logged_once_a_minute, flavor = "multi_thread");
async fn unrequested_bytes_are_counted_and_logged_once_a_minute() {
    let more = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more than that";
    let origin = Origin::new().named("a").on("/x").reply(Reply::raw(more).then(Act::Hang)).start().await;
    let check = format!("type = \"http\"\npath = \"/healthz\"\n{CALM}");
    let program = Program::start_ready(&pool("api", &[&origin.text()], &check)).await;
    let before = program.log().lines().count();
    for _ in 0..REQUESTS {
        let (status, body) = fetch(program.web, "GET", "/x").await;
        assert_eq!((status, &body[..]), (200, &b"ok"[..]));
    }
    let counted =
        || async { program.upstream("api", &origin.text()).await.map_or(0, |upstream| upstream.unasked_total) };
    let counted = counted().await;
    // Only those whose surplus came with the response: on a busy machine fewer than half.
    assert!(counted > REQUESTS as u64 / 10, "{counted} of {REQUESTS} were counted");
    let series = format!("roundsman_upstream_unasked_total{{pool=\"api\",upstream=\"{}\"}}", origin.text());
    // The last ones may be counted after their responses were read.
    let metric = program.metric(&series).await.unwrap_or_default();
    assert!((counted as f64..=REQUESTS as f64).contains(&metric), "{metric}, and {counted} in the status");
    let message = "sent bytes that no request asked for";
    assert_eventually("it is logged", Duration::from_secs(20), || program.log().contains(message)).await;
    let lines: Vec<String> = program.log().lines().skip(before).map(str::to_owned).collect();
    assert!(lines.len() <= LINES, "{} lines: {:#?}", lines.len(), &lines[..lines.len().min(10)]);
    program.assert_no_panic();
}

in_each_lane!(an_upstream_that_only_closes_or_is_silent_is_not_counted_for_unrequested_bytes, flavor = "multi_thread");
async fn an_upstream_that_only_closes_or_is_silent_is_not_counted_for_unrequested_bytes() {
    let origin = Origin::plain("a").await;
    let check = format!("type = \"http\"\npath = \"/healthz\"\n{CALM}");
    let program = Program::start_ready(&pool("api", &[&origin.text()], &check)).await;
    for _ in 0..200 {
        assert_eq!(get(program.web, "/").await.status, 200);
    }
    assert_eq!(program.upstream("api", &origin.text()).await.map(|upstream| upstream.unasked_total), Some(0));
}

in_each_lane!(garbage_from_clients_and_upstreams_does_not_fill_the_log, flavor = "multi_thread");
async fn garbage_from_clients_and_upstreams_does_not_fill_the_log() {
    let origins = [
        Origin::new().named("a").on("/x").reply(Reply::raw("HTTP/1.1 nonsense\r\n\r\n")).start().await,
        Origin::new()
            .named("b")
            .on("/x")
            .reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"))
            .start()
            .await,
        Origin::new()
            .named("c")
            .on("/x")
            .reply(Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno"))
            .start()
            .await,
    ];
    let addresses: Vec<String> = origins.iter().map(Origin::text).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let check = format!("type = \"http\"\npath = \"/healthz\"\n{CALM}");
    // None is spared the requests.
    let keys = "[pools.api.passive]\nconsecutive_failures = 0\n";
    let program = Program::start_ready(&(pool("api", &addresses, &check) + keys)).await;
    for address in &addresses {
        program.wait_for_state("api", address, "healthy", Duration::from_secs(20)).await;
    }
    let before = program.log().lines().count();
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\n",
        b"\0\0\0\0\0\0\0\0",
    ];
    let mut cut = 0;
    for round in 0..50 {
        for bytes in garbage {
            let mut stream = TcpStream::connect(program.web).expect("it listens");
            let _ = stream.write_all(bytes);
            if round % 2 == 0 {
                // A reset: its response is discarded.
                let _ = stream.set_nonblocking(true);
            }
        }
        for _ in 0..6 {
            match try_fetch(program.web, "GET", "/x").await {
                Ok((status, _)) => assert_eq!(status, 502),
                Err(_) => cut += 1,
            }
        }
    }
    assert!((1..300).contains(&cut), "one of three upstreams ends its responses early: {cut} of 300");
    for origin in &origins {
        assert!(origin.count("/x") >= 50, "{} got {} requests", origin.name(), origin.count("/x"));
    }
    let refused = program.metric("roundsman_front_answers_total{reason=\"malformed\"}").await;
    assert!(refused >= Some(75.0), "three of six kinds are malformed and not all are reset: {refused:?}");
    assert_eq!(get(program.admin, "/livez").await.status, 200);
    let lines: Vec<String> = program.log().lines().skip(before).map(str::to_owned).collect();
    let library: Vec<_> = lines.iter().filter(|line| line.contains("target")).collect();
    assert!(library.is_empty(), "{} lines of libraries: {:#?}", library.len(), &library[..library.len().min(10)]);
    program.assert_no_panic();
}
