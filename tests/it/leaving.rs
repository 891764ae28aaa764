//! What becomes of requests and tunnels in flight at an upstream that is drained, removed or unhealthy, on the real
//! program.

use std::time::Duration;

use roundsman::admin::json::EventWhat;
use roundsman::model::HealthState;
use roundsman::model::policy::Lane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::client::get;
use crate::lanes::each::{current, in_each_lane};
use crate::origin::{Act, Origin, Reply};
use crate::program::{Program, pool};
use crate::storm::watch::Clock;

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// No part of a test takes so long, but for what must not be waited for.
const LATE: Duration = Duration::from_secs(20);

/// Few checks; one pass is enough, and so is one failure.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"500ms\"\ntimeout = \"400ms\"\n\
                    fast_interval = \"100ms\"\nhealthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// An origin that answers only its checks, streams at `/stream`, and switches protocols at `/ws`.
async fn endless(name: &str) -> Origin {
    let stream = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst").then(Act::Hang);
    let paths = Origin::new().named(name).on("/hang").reply(Reply::hang()).on("/stream").reply(stream);
    paths.on("/ws").reply(Reply::upgrade_echo()).start().await
}

fn text(origins: &[&Origin], keys: &str) -> String {
    let upstreams: Vec<String> = origins.iter().map(|origin| origin.text()).collect();
    let text = pool("api", &upstreams.iter().map(String::as_str).collect::<Vec<_>>(), RARE);
    text.replace("[pools.api]\n", &format!("[pools.api]\nbalance = \"first\"\n{keys}\n"))
}

/// A program whose first upstream takes every request for as long as it may.
async fn with(origins: &[&Origin], keys: &str) -> Program {
    let program = Program::start_ready(&text(origins, keys)).await;
    for origin in origins {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    program
}

/// A connection on which this head has been sent, and everything that comes on it until it is closed.
async fn conversation(program: &Program, head: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(program.web).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    (stream, Vec::new())
}

async fn to_the_end(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it is closed");
    // It may be reset: what came before that counts.
    let (Ok(_) | Err(_)) = read;
    String::from_utf8_lossy(&all).into_owned()
}

async fn wait_for(origin: &Origin, path: &str, requests: u64) {
    let deadline = Instant::now() + PATIENCE;
    while origin.count(path) < requests {
        assert!(Instant::now() < deadline, "{path} has not arrived");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn ask(program: &Program, path: &'static str) -> JoinHandle<(u16, String)> {
    let web = program.web;
    tokio::spawn(async move {
        let answer = get(web, path).await;
        (answer.status, answer.text())
    })
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
const STREAM: &str = "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /hang HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";

/// A way to lose the first of two upstreams.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Drain,
    Removal,
    Unhealthy,
}

in_each_lane!(what_is_in_flight_at_a_lost_upstream_ends_when_the_pool_says_so, flavor = "multi_thread");
async fn what_is_in_flight_at_a_lost_upstream_ends_when_the_pool_says_so() {
    for (loss, keys) in [
        (Loss::Drain, "drain_timeout = \"300ms\"\ntunnel_drain = \"500ms\""),
        (Loss::Removal, "drain_timeout = \"300ms\"\ntunnel_drain = \"0s\""),
        (Loss::Unhealthy, "on_unhealthy = \"close\""),
    ] {
        let (one, two) = (endless("one").await, Origin::plain("two").await);
        let program = with(&[&one, &two], keys).await;
        let asked = ask(&program, "/hang");
        let (posted, _) = conversation(&program, POST).await;
        let (mut streamed, _) = conversation(&program, STREAM).await;
        let (mut tunnel, _) = conversation(&program, UPGRADE).await;
        wait_for(&one, "/hang", 2).await;
        let mut head = [0; 12];
        timeout(PATIENCE, streamed.read_exact(&mut head)).await.expect("a head").unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        timeout(PATIENCE, tunnel.read_exact(&mut head)).await.expect("a head").unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        match loss {
            Loss::Drain => {
                let (code, _, err) = program.command(&["drain", "api", &one.text()]).await;
                assert_eq!(code, Some(0), "{err}");
            }
            Loss::Removal => assert_eq!(program.reload(&text(&[&two], keys)).await.0, 200),
            Loss::Unhealthy => one.set("/healthz", Reply::status(503)),
        }
        let (began, clock) = (Instant::now(), Clock::new());
        let mut ended = Vec::new();
        // A request that may be repeated is; one that may not gets an answer; a response that has begun breaks off.
        let (status, body) = timeout(PATIENCE, asked).await.expect("it ends").unwrap();
        match (status, &*body) {
            (200, "hello from two") => {}
            (502, _) if current() == Some(Lane::General) => {}
            (status, body) => panic!("{loss:?}: {status} {body}"),
        }
        ended.push(clock.now());
        assert!(to_the_end(posted).await.starts_with("HTTP/1.1 502"), "{loss:?}");
        ended.push(clock.now());
        let rest = to_the_end(streamed).await;
        assert!(rest.ends_with("first"), "{loss:?}: {rest}");
        ended.push(clock.now());
        to_the_end(tunnel).await;
        ended.push(clock.now());
        if let Loss::Unhealthy = loss {
            let is_loss = |what: &EventWhat| matches!(what, EventWhat::Transition { to: HealthState::Unhealthy, .. });
            let mut events = program.events(0).await.events.into_iter();
            let lost = clock.moment(&events.rfind(|event| is_loss(&event.what)).expect("it is unhealthy").at);
            // 100 ms on a quiet machine.
            let most = lost + Duration::from_secs(1);
            assert!(ended.iter().all(|end| *end <= most), "unhealthy at {lost:?}, ended at {ended:?}");
        }
        assert!(began.elapsed() < LATE, "{loss:?}: {:?}", began.elapsed());
        let deadline = Instant::now() + PATIENCE;
        while one.open_connections() > 0 {
            assert!(Instant::now() < deadline, "{loss:?}: {}", program.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        program.assert_no_panic();
    }
}

in_each_lane!(what_is_in_flight_goes_on_by_default_and_after_an_undrain, flavor = "multi_thread");
async fn what_is_in_flight_goes_on_by_default_and_after_an_undrain() {
    let (one, two) = (endless("one").await, Origin::plain("two").await);
    one.set("/slow", Reply::ok("slow").delay(Duration::from_secs(4)));
    let program = with(&[&one, &two], "drain_timeout = \"2s\"\ntunnel_drain = \"2s\"").await;
    let (mut tunnel, _) = conversation(&program, UPGRADE).await;
    let asked = ask(&program, "/slow");
    wait_for(&one, "/slow", 1).await;
    for order in ["drain", "undrain"] {
        assert_eq!(program.command(&[order, "api", &one.text()]).await.0, Some(0));
    }
    // It fails its checks meanwhile, and nothing in flight is touched.
    one.set("/healthz", Reply::status(503));
    program.wait_for_state("api", &one.text(), "unhealthy", PATIENCE).await;
    assert_eq!(asked.await.unwrap(), (200, "slow".to_owned()));
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        timeout(PATIENCE, tunnel.read_exact(&mut byte)).await.expect("a head").unwrap();
        head.push(byte[0]);
    }
    tunnel.write_all(b"still there").await.unwrap();
    let mut echo = [0; 11];
    timeout(PATIENCE, tunnel.read_exact(&mut echo)).await.expect("an echo").unwrap();
    assert_eq!(&echo, b"still there");
    program.assert_no_panic();
}
