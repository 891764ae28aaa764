//! WebSocket probes against a scripted server: the handshake, the ping and its pong, the close, and their failures. The
//! tables for the 101 and for frames are beside the code.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use roundsman::model::policy::{Certificate, HeaderText, PortRule, ProbeKind, ProbeSpec, TlsPolicy, WebsocketProbe};
use roundsman::model::{Address, Code, ProbeReport, Secret};
use roundsman::probe::{Prepared, probe};
use tokio::time::Instant;

use super::{LONG, SHORT, SLACK, answers};
use crate::origin::Reply;
use crate::origin::tls::{CERTIFICATES, TlsOrigin};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(super) fn websocket() -> WebsocketProbe {
    WebsocketProbe { path: "/ws".into(), host: None, headers: Vec::new(), subprotocol: None }
}

fn spec(probe: WebsocketProbe) -> Arc<ProbeSpec> {
    Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind: ProbeKind::Websocket(probe), max_duration: None })
}

/// A server that serves one connection as a script says.
pub(super) struct Server {
    pub address: Address,
    /// The request, and all bytes after it until the peer closed.
    seen: Receiver<(String, Vec<u8>)>,
}

impl Server {
    fn wait(&self) -> (String, Vec<u8>) {
        self.seen.recv_timeout(SLACK).expect("the server sees the end of the connection")
    }
}

/// `script` gets the connection, the key, and the bytes read after the request.
fn server(script: impl FnOnce(&mut TcpStream, &str, &mut Vec<u8>) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Inet(listener.local_addr().unwrap());
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SLACK)).unwrap();
        let mut received = Vec::new();
        while !received.windows(4).any(|w| w == b"\r\n\r\n") {
            assert!(read_some(&mut stream, &mut received) > 0, "the request ends early");
        }
        let end = received.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let mut rest = received.split_off(end);
        let head = String::from_utf8(received).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default().to_owned();
        script(&mut stream, &key, &mut rest);
        while read_some(&mut stream, &mut rest) > 0 {}
        // The test may have ended.
        let _ = sender.send((head, rest));
    });
    Server { address, seen }
}

fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>) -> usize {
    let mut piece = [0; 1024];
    let read = stream.read(&mut piece).unwrap_or(0);
    into.extend_from_slice(&piece[..read]);
    read
}

fn accepted(key: &str, more: &str) -> Vec<u8> {
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    let accept = BASE64_STANDARD.encode(digest);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Reads a masked frame that must be whole and short: its first byte and its payload.
fn read_frame(stream: &mut TcpStream, rest: &mut Vec<u8>) -> (u8, Vec<u8>) {
    let length = |rest: &[u8]| rest.get(1).map(|b| 6 + usize::from(b & 0x7f));
    while length(rest).is_none_or(|length| rest.len() < length) {
        assert!(read_some(stream, rest) > 0, "the frame ends early");
    }
    let frame: Vec<u8> = rest.drain(..length(rest).unwrap()).collect();
    assert!(frame[1] & 0x80 != 0, "a client masks");
    (frame[0], frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(b, m)| b ^ m).collect())
}

/// Answers the handshake, then the ping as `answer` makes it of the payload.
pub(super) fn serving(more: &'static str, answer: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static) -> Server {
    server(move |stream, key, rest| {
        stream.write_all(&accepted(key, more)).unwrap();
        let (first, payload) = read_frame(stream, rest);
        assert_eq!((first, payload.len()), (0x89, 8), "a final ping");
        stream.write_all(&answer(payload)).unwrap();
    })
}

pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    [&[0x8a, u8::try_from(payload.len()).unwrap()], payload].concat()
}

async fn run(server: &Server, probe_of: WebsocketProbe, timeout: Duration) -> ProbeReport {
    let started = Instant::now();
    let report = probe(&server.address, &server.address, &spec(probe_of), timeout).await;
    let limit = if timeout == LONG { LONG / 2 } else { timeout + SLACK };
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pong_passes_and_a_close_frame_is_sent() {
    let mqtt = WebsocketProbe { subprotocol: Some("mqtt".into()), ..websocket() };
    let server = serving("Sec-WebSocket-Protocol: mqtt\r\n", |payload| {
        // Other frames come first: a text, a ping, a pong for another ping.
        [&b"\x81\x02hi\x89\x00\x8a\x01x"[..], &pong(&payload)].concat()
    });
    let target = server.address.clone();
    let report = Prepared::new(&target, &target, Some("api.internal"), &spec(mqtt), LONG).run().await;
    assert_eq!((report.code, report.status, report.hint), (Code::L7Ok, Some(101), None), "{}", report.sentence());
    assert!(report.reason.starts_with("pong in ") && report.reason.ends_with(" ms"), "{}", report.reason);
    assert!(report.trace.answered_in.unwrap() <= report.duration);
    assert!(report.trace.head.starts_with(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"));
    let (head, mut rest) = server.wait();
    assert!(head.starts_with("GET /ws HTTP/1.1\r\nHost: api.internal:"), "{head}");
    for field in
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: mqtt"]
    {
        assert_eq!(head.matches(&format!("\r\n{field}\r\n")).count(), 1, "{head}");
    }
    let mask: Vec<u8> = rest.drain(..6).collect();
    assert_eq!((mask[0], mask[1]), (0x88, 0x82), "a close with two bytes");
    assert_eq!(rest.iter().zip(&mask[2..]).map(|(b, m)| b ^ m).collect::<Vec<_>>(), 1000_u16.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_probe_has_its_own_key_and_ping() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..2 {
        let server = serving("", |payload| pong(&payload));
        assert_eq!(run(&server, websocket(), LONG).await.code, Code::L7Ok);
        let (head, _) = server.wait();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap().to_owned();
        assert_eq!(BASE64_STANDARD.decode(&key).unwrap().len(), 16);
        assert!(seen.insert(key), "the same key twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_websocket_check_is_reported_with_its_reason() {
    for (name, server, subprotocol, code, sentence) in [
        (
            "a wrong accept",
            server(|stream, _, _| stream.write_all(&accepted("another key", "")).unwrap()),
            None,
            Code::L7Rsp,
            "wrong Sec-WebSocket-Accept: ",
        ),
        (
            "no accept",
            server(|stream, _, _| {
                let head = "HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
            }),
            None,
            Code::L7Rsp,
            "answered 101 without Sec-WebSocket-Accept (it is not a WebSocket server, or a proxy in front of it changes the answer)",
        ),
        (
            "no subprotocol",
            server(|stream, key, _| stream.write_all(&accepted(key, "")).unwrap()),
            Some("mqtt"),
            Code::L7Rsp,
            "subprotocol \"mqtt\" not accepted (check subprotocol: the server has not accepted this one, or uses none)",
        ),
        (
            "another subprotocol",
            server(|stream, key, _| {
                stream.write_all(&accepted(key, "Sec-WebSocket-Protocol: chat\r\n")).unwrap();
            }),
            Some("mqtt"),
            Code::L7Rsp,
            "subprotocol \"chat\", expected \"mqtt\"",
        ),
        (
            "an unrequested subprotocol",
            server(|stream, key, _| {
                stream.write_all(&accepted(key, "Sec-WebSocket-Protocol: chat\r\n")).unwrap();
            }),
            None,
            Code::L7Rsp,
            "subprotocol \"chat\", which was not asked for",
        ),
        (
            "a close instead of a pong",
            serving("", |_| b"\x88\x0e\x03\xf0token missing".to_vec()[..16].to_vec()),
            None,
            Code::L7Rsp,
            "WebSocket closed instead of a pong: 1008 \"token missin\" (it refuses this client: check credentials, Origin and path)",
        ),
        (
            "a masked pong",
            serving("", |_| b"\x8a\x80\0\0\0\0".to_vec()),
            None,
            Code::L7Rsp,
            "no pong, but a masked frame (it violates RFC 6455)",
        ),
        (
            "a close of the connection",
            server(|stream, key, rest| {
                stream.write_all(&accepted(key, "")).unwrap();
                read_frame(stream, rest);
                stream.shutdown(std::net::Shutdown::Both).unwrap();
            }),
            None,
            Code::L7Rsp,
            "connection closed without a pong (it accepts the upgrade and drops the connection: its backend may be down)",
        ),
        (
            "a reset",
            server(|stream, key, rest| {
                stream.write_all(&accepted(key, "")).unwrap();
                read_frame(stream, rest);
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
                *stream = TcpStream::connect(stream.local_addr().unwrap()).unwrap_or_else(|_| refused());
            }),
            None,
            Code::L7Rsp,
            "connection reset without a pong",
        ),
        (
            "no answer at all",
            server(|stream, _, _| stream.shutdown(std::net::Shutdown::Both).unwrap()),
            None,
            Code::L7Rsp,
            "connection closed without an answer",
        ),
    ] {
        let report =
            run(&server, WebsocketProbe { subprotocol: subprotocol.map(Into::into), ..websocket() }, LONG).await;
        assert_eq!(report.code, code, "{name}: {}", report.sentence());
        assert!(report.sentence().starts_with(sentence), "{name}: {}", report.sentence());
    }
}

/// A connection to replace one that is to be dropped.
fn refused() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_pong_fails_at_the_deadline() {
    let silent = server(|stream, key, rest| {
        stream.write_all(&accepted(key, "")).unwrap();
        read_frame(stream, rest);
    });
    let report = run(&silent, websocket(), SHORT).await;
    assert_eq!((report.code, report.status), (Code::L7Tout, Some(101)), "{}", report.sentence());
    assert!(report.reason.starts_with("no pong within 300ms (connected in "), "{}", report.reason);
    let wrong = serving("", |_| [pong(b"another!"), pong(b"")].concat());
    let report = run(&wrong, websocket(), SHORT).await;
    assert_eq!(report.code, Code::L7Tout, "{}", report.sentence());
    assert!(
        report.reason.starts_with("no pong within 300ms, but 2 for other pings (connected in "),
        "{}",
        report.reason
    );
    let stalled = server(|stream, _, _| stream.write_all(b"HTTP/1.1 101 Switching").unwrap());
    let report = run(&stalled, websocket(), SHORT).await;
    assert_eq!(report.code, Code::L7Tout, "{}", report.sentence());
    assert!(report.reason.starts_with("no complete answer within 300ms: "), "{}", report.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_messages_are_read_up_to_a_limit() {
    let endless = server(|stream, key, _| {
        stream.write_all(&accepted(key, "")).unwrap();
        let message = [&b"\x82\x7e\xff\xff"[..], &[0; 65_535]].concat();
        // Ends when the probe has closed.
        for _ in 0..10_000 {
            if stream.write_all(&message).is_err() {
                return;
            }
        }
        panic!("650 MB were read");
    });
    let report = run(&endless, websocket(), LONG).await;
    assert_eq!((report.code, &*report.reason), (Code::L7Rsp, "no pong, but 1 MiB of other messages"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_interim_responses_before_the_101_are_read() {
    let interim = |count: usize| {
        format!("HTTP/1.1 100 Continue\r\nX-Filler: {}\r\n\r\n", "a".repeat(30_000)).repeat(count).into_bytes()
    };
    let within = server(move |stream, key, rest| {
        stream.write_all(&[interim(16), accepted(key, "")].concat()).unwrap();
        let (_, payload) = read_frame(stream, rest);
        stream.write_all(&pong(&payload)).unwrap();
    });
    let report = run(&within, websocket(), LONG).await;
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    for plain in [false, true] {
        let beyond = server(move |stream, key, _| {
            let last = if plain { b"HTTP/1.1 101 Ok\r\n\r\n".to_vec() } else { accepted(key, "") };
            // The probe may close before it has read all.
            let _ = stream.write_all(&[interim(17), last].concat());
        });
        let report = run(&beyond, websocket(), LONG).await;
        assert_eq!((report.code, report.status), (Code::L7Rsp, None), "{}", report.sentence());
        assert_eq!(&*report.reason, "more than 16 interim answers");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_other_than_101_is_reported_by_its_status() {
    for (reply, sentence) in [
        (
            Reply::ok("fine"),
            "status 200, expected 101; body: \"fine\" (this path answers plain requests: check the path of the WebSocket)",
        ),
        (
            Reply::status(404).body("nothing here"),
            "status 404, expected 101; body: \"nothing here\" (path wrong, endpoint disabled, or another Host is expected)",
        ),
        (
            Reply::status(401).body("who are you, s3cret?"),
            "status 401, expected 101; body: \"who are you, ***?\" \
             (it does not accept the credentials that the check sends)",
        ),
    ] {
        let origin = answers(reply);
        let headers = vec![("X-Token".into(), HeaderText::Secret(Secret::new("s3cret")))];
        let probe_of = WebsocketProbe { path: "/healthz".into(), headers, ..websocket() };
        let report = probe(&origin.address(), &origin.address(), &spec(probe_of), LONG).await;
        assert_eq!((report.code, report.sentence().as_str()), (Code::L7Sts, sentence));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_works_over_tls() {
    let plain = serving("", |payload| pong(&payload));
    let inside = plain.address.clone();
    let front = TlsOrigin::with(&CERTIFICATES.good).alpn(&["h2", "http/1.1"]).before_address(&inside).start();
    let roots = vec![Certificate(Arc::from(&CERTIFICATES.ca.der()[..]))];
    let tls = TlsPolicy { verify: true, server_name: None, roots: Some(roots), client: None };
    let kind = ProbeKind::Websocket(websocket());
    let spec = Arc::new(ProbeSpec { port: PortRule::Same, tls: Some(tls), kind, max_duration: None });
    let report = probe(&front.address(), &front.address(), &spec, LONG).await;
    assert_eq!((report.code, report.status), (Code::L7Ok, Some(101)), "{}", report.sentence());
    assert_eq!(report.trace.tls.unwrap().alpn.as_deref(), Some("http/1.1"));
    let (_, rest) = plain.wait();
    assert_eq!(&rest[..2], [0x88, 0x82], "the close frame arrived");
}
