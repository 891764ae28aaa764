//! Hostile peers of checks other than HTTP/1.1: TLS handshakes that are truncated, slow, reset or endless; and peers of
//! TCP checks that wait for a text, of HTTP/2, gRPC and WebSocket checks.

use std::sync::Arc;
use std::time::Duration;

use roundsman::model::Code;
use roundsman::model::policy::{
    GrpcProbe, HttpProbe, HttpVersion, Payload, PortRule, ProbeKind, ProbeSpec, TcpProbe, TlsPolicy, WebsocketProbe,
};

use super::{BYTES_TAKEN_MAX, PATIENCE, TIMEOUT, contains, garbage, within_its_time};
use crate::origin::{Act, Ending, Origin, Reply};
use crate::support::assert_eventually;

/// The first bytes of a handshake record that holds a ServerHello of 118 bytes, of which only some follow.
const HALF_HELLO: &[u8] = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03\x01\x02\x03\x04";
/// fatal, handshake_failure.
const ALERT: &[u8] = b"\x15\x03\x03\x00\x02\x02\x28";

/// A full record of 16 KiB that belongs to a handshake message of 16 MiB.
fn endless_handshake() -> Vec<u8> {
    let mut record = b"\x16\x03\x03\x40\x00".to_vec();
    record.extend_from_slice(b"\x02\xff\xff\xff");
    record.resize(5 + (16 << 10), b'x');
    record
}

async fn hold(name: &str, origin: Origin, spec: &Arc<ProbeSpec>, codes: &[Code]) {
    let report = within_its_time(name, &origin.address(), spec).await;
    assert!(codes.contains(&report.code), "{name}: {} {}", report.code, report.sentence());
    assert_eventually(&format!("{name}: closed"), PATIENCE, || origin.open_connections() == 0).await;
    let (taken, probes) = (origin.bytes_written(), origin.accepted());
    assert!(taken <= BYTES_TAKEN_MAX * probes, "{name}: {taken} bytes were taken in {probes} probes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incomplete_tls_handshake_ends_within_50_ms_of_the_timeout() {
    let tick = Duration::from_millis(10);
    let (late, bad) = (&[Code::L6Tout][..], &[Code::L6Rsp][..]);
    let then_resets = |bytes: &[u8]| Reply::raw(bytes).then(Act::Wait(tick * 2)).then_reset();
    let peers = [
        ("says nothing", Reply::hang(), late),
        ("half a hello", Reply::raw(HALF_HELLO).then_hang(), late),
        ("half a hello, dripped", Reply::acts(vec![Act::Drip(HALF_HELLO.to_vec(), tick), Act::Hang]), late),
        ("half a hello, then closes", Reply::raw(HALF_HELLO), bad),
        ("half a hello, then resets", then_resets(HALF_HELLO), bad),
        // The reset may arrive before our side knows that it is connected.
        ("resets at once", Reply::reset(), &[Code::L6Rsp, Code::L4Con]),
        ("closes at once", Reply::close(), bad),
        ("an alert", Reply::raw(ALERT), bad),
        ("an endless handshake", Reply::acts(vec![]).then_endless(endless_handshake()), bad),
        ("endless alerts", Reply::acts(vec![]).then_endless(b"\x15\x03\x03\x00\x02\x01\x00".repeat(1_000)), bad),
        ("garbage", Reply::raw(garbage(64 << 10)).then_hang(), bad),
        ("plain HTTP", Reply::raw("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), bad),
        ("endless zeros", Reply::acts(vec![]).then_endless([0; 4 << 10]), bad),
    ];
    let tls = TlsPolicy { verify: false, server_name: None, roots: None, client: None };
    let handshake =
        ProbeSpec { port: PortRule::Same, tls: Some(tls.clone()), kind: ProbeKind::Tls, max_duration: None };
    let https = ProbeSpec { tls: Some(tls), ..(*contains("ready")).clone() };
    for spec in [Arc::new(handshake), Arc::new(https)] {
        for (name, does, codes) in &peers {
            let kind = spec.kind.as_str();
            let origin = Origin::new().on_accept(does.clone()).start().await;
            hold(&format!("{name}, {kind}"), origin, &spec, codes).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_text_ends_within_50_ms_of_the_timeout() {
    let tick = Duration::from_millis(10);
    let (late, bad) = (&[Code::L7Tout][..], &[Code::L7Rsp][..]);
    let peers = [
        ("says nothing", Reply::hang(), late),
        ("drips", Reply::acts(vec![Act::EndlessDrip(b"rea".to_vec(), tick)]), late),
        ("sends half of it", Reply::raw("+rea").then_hang(), late),
        ("endless, without it", Reply::acts(vec![]).then_endless([b'x'; 4 << 10]), bad),
        ("sends half of it and closes", Reply::raw("+rea"), bad),
        ("sends half of it and resets", Reply::raw("+rea").then(Act::Wait(tick * 2)).then_reset(), bad),
        ("closes at once", Reply::close(), bad),
        ("resets at once", Reply::reset(), &[Code::L7Rsp, Code::L4Con]),
    ];
    let ping = || Some(Payload::plain(b"PING\r\n"));
    let spec_of = |kind| Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None });
    // A line of an agent that never ends, or is none, is not of another kind.
    let agent = spec_of(ProbeKind::Agent(TcpProbe::agent(ping())));
    let spec = spec_of(ProbeKind::Tcp(TcpProbe::of(ping(), Some("ready".into()))));
    for (name, does, codes) in peers {
        hold(name, Origin::new().on_accept(does.clone()).start().await, &spec, codes).await;
        let codes = [codes, &[Code::L7Rsp]].concat();
        hold(&format!("{name}, agent"), Origin::new().on_accept(does).start().await, &agent, &codes).await;
    }
    // Split anywhere, the text is found, and the connection closes cleanly.
    let origin = Origin::new().on_accept(Reply::acts(vec![Act::Drip(b"+ready\r\n".to_vec(), tick / 10)]).then_hang());
    let origin = origin.start().await;
    let report = within_its_time("drips it", &origin.address(), &spec).await;
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    assert!(report.duration < TIMEOUT, "{:?}", report.duration);
    let ended = || origin.endings() == [Ending::EofInRequest];
    assert_eventually("a clean close", PATIENCE, ended).await;
}

/// One frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
    frame.extend_from_slice(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// `:status: 200` out of the static table.
const STATUS_200: &[u8] = &[0x88];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_http2_frames_end_within_50_ms_of_the_timeout() {
    let settings = frame(SETTINGS, 0, 0, b"");
    let greeted = || Reply::raw(&settings);
    let answered = || Reply::raw([&settings[..], &frame(HEADERS, END_HEADERS, 1, STATUS_200)].concat());
    let begun = || Reply::raw([&settings[..], &frame(HEADERS, 0, 1, STATUS_200)].concat());
    let tick = Duration::from_millis(10);
    let peers = [
        ("says nothing", Reply::hang()),
        ("only settings", greeted().then_hang()),
        ("half a frame", Reply::raw(&settings[..5]).then_hang()),
        ("drips settings", Reply::acts(vec![Act::EndlessDrip(settings.clone(), tick)])),
        ("endless settings", Reply::acts(vec![]).then_endless(settings.repeat(1_000))),
        ("endless pings", greeted().then_endless(frame(PING, 0, 0, &[7; 8]).repeat(1_000))),
        ("an endless head", begun().then_endless(frame(CONTINUATION, 0, 1, &[0; 1 << 10]))),
        ("endless empty continuations", begun().then_endless(frame(CONTINUATION, 0, 1, b"").repeat(1_000))),
        ("an endless body", answered().then_endless(frame(DATA, 0, 1, &[b'x'; 16 << 10]))),
        ("an endless empty body", answered().then_endless(frame(DATA, 0, 1, b"").repeat(1_000))),
        ("an answer without its end", answered().then_hang()),
        ("a frame of 16 MiB", greeted().then_endless(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01xxxxxxxx")),
        ("garbage", Reply::raw(garbage(64 << 10)).then_hang()),
        ("endless zeros", Reply::acts(vec![]).then_endless([0; 4 << 10])),
        ("HTTP/1.1", Reply::raw("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")),
        ("closes at once", Reply::close()),
        ("resets at once", Reply::reset()),
        ("resets after settings", greeted().then(Act::Wait(tick * 2)).then_reset()),
        ("resets inside the answer", answered().then(Act::Wait(tick * 2)).then_reset()),
    ];
    let ProbeKind::Http(get) = contains("ready").kind.clone() else { unreachable!("it is HTTP") };
    let h2 = ProbeKind::Http(HttpProbe { version: HttpVersion::H2, ..get });
    let grpc = ProbeKind::Grpc(GrpcProbe { service: "".into(), host: None, headers: Vec::new() });
    // The reset may arrive before our side knows that it is connected.
    let codes = &[Code::L7Tout, Code::L7Rsp, Code::L4Con];
    for kind in [h2, grpc] {
        let spec = Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None });
        for (name, does) in &peers {
            let origin = Origin::new().on_accept(does.clone()).start().await;
            hold(&format!("{name}, {}", spec.kind.as_str()), origin, &spec, codes).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_websocket_server_ends_within_50_ms_of_the_timeout() {
    let switch = |accept: &str| {
        let text = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        Reply::raw(format!("{text}Sec-WebSocket-Accept: {accept}\r\n\r\n"))
    };
    let tick = Duration::from_millis(10);
    let peers = [
        ("says nothing", Reply::hang(), Code::L7Tout),
        ("drips", Reply::acts(vec![Act::Drip(b"HTTP/1.1 101 Switching Protocols\r\n".to_vec(), tick)]), Code::L7Tout),
        ("accepts another key", switch("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").then_hang(), Code::L7Rsp),
        ("accepts with nonsense", switch("\u{7f}").then_hang(), Code::L7Rsp),
        ("an endless head", Reply::raw("HTTP/1.1 101 Yes\r\n").then_endless("A: b\r\n".repeat(1_000)), Code::L7Rsp),
        ("garbage", Reply::raw(garbage(64 << 10)).then_hang(), Code::L7Rsp),
        ("closes", Reply::close(), Code::L7Rsp),
        ("resets", Reply::reset(), Code::L7Rsp),
        ("no upgrade", Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_endless("x".repeat(1_000)), Code::L7Sts),
    ];
    let probe = WebsocketProbe { path: "/".into(), host: None, headers: Vec::new(), subprotocol: None };
    let spec =
        Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind: ProbeKind::Websocket(probe), max_duration: None });
    for (name, does, code) in peers {
        hold(name, Origin::new().on("*").reply(does).start().await, &spec, &[code]).await;
    }
}
