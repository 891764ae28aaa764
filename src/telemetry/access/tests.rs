//! Which requests get a line, what it looks like, where it goes, and what happens while it cannot be written.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::tempdir;

use super::*;
use crate::exchange::judge::judge;
use crate::exchange::{Desk, End, Entry, Exchange, ReadyAnswer, Scheme};
use crate::http1::{HeadReader, Limits};
use crate::model::policy::{AccessKey, ClientPolicy, Marks, ShownQuery};
use crate::model::{Name, Ratio};
use crate::pool::{ListenerEntry, ListenerId, Routes, Snapshot};

impl Desk for AccessLog {
    fn ready(&self) -> ReadyAnswer {
        ReadyAnswer { ready: true, body: String::new() }
    }

    fn record(&self, record: &Record<'_>) {
        AccessLog::record(self, record);
    }
}

fn policy(format: AccessFormat) -> AccessPolicy {
    AccessPolicy {
        to: AccessTarget::Stdout,
        format,
        only: vec![],
        sample: Ratio::ONE,
        except_paths: vec![],
        query: ShownQuery::Whole,
        drop: vec![],
        headers: vec!["x-tenant".into()],
    }
}

/// A request without a pool through an exchange that writes to this log: 404 at once.
fn ask(log: &Arc<AccessLog>, policy: AccessPolicy, request: &[u8]) {
    let entry = ListenerEntry {
        name: Name::try_new("web").unwrap(),
        pool: None,
        client: ClientPolicy::default(),
        limit: None,
        marks: Arc::new(Marks { request_id: Some("x-request-id".into()), traceparent: false }),
        ready_path: None,
    };
    let snapshot = Snapshot::new(1, Routes::default(), vec![Some(entry)], vec![]);
    let snapshot = snapshot.with_access_log(Some(Arc::new(policy)));
    let published = Arc::new(arc_swap::ArcSwap::from_pointee(snapshot));
    let client: IpAddr = "192.0.2.1".parse().unwrap();
    let entry = Entry { listener: ListenerId(0), client: Some(client), scheme: Scheme::Http };
    let now = Instant::now();
    let rng = fastrand::Rng::with_seed(1);
    let mut exchange = Exchange::new(published, Arc::default(), log.clone(), entry, now, rng);
    let mut reader = HeadReader::default();
    let head = reader.read(request, &Limits::MAX).unwrap().unwrap();
    exchange.begin(&head, &judge(&head).unwrap(), now);
    exchange.on_end(End::Delivered, now + Duration::from_micros(1_234));
}

/// What is waiting to be written.
fn waiting(log: &AccessLog) -> String {
    let bytes: Vec<u8> = log.buffers.all().flat_map(|buffer| std::mem::take(&mut buffer.lock().lines)).collect();
    String::from_utf8(bytes).unwrap()
}

fn line(policy: AccessPolicy, request: &[u8]) -> String {
    let log = Arc::new(AccessLog::default());
    ask(&log, policy, request);
    waiting(&log)
}

const REQUEST: &[u8] =
    b"GET /a\"b?c=d HTTP/1.1\r\nHost: shop.example:81\r\nUser-Agent: curl\xff\"\\\r\nX-Tenant: \xe2\x80\xae\ttwo\r\n\
    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";

#[test]
fn a_json_line_has_the_keys_of_the_contract_in_their_order() {
    let text = line(policy(AccessFormat::Json), REQUEST);
    assert_eq!(text.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys, AccessKey::ALL.map(AccessKey::as_str));
    for (key, want) in [
        ("listener", serde_json::json!("web")),
        ("client", serde_json::json!("192.0.2.1")),
        ("method", serde_json::json!("GET")),
        ("host", serde_json::json!("shop.example:81")),
        ("path", serde_json::json!("/a\"b?c=d")),
        ("protocol", serde_json::json!("HTTP/1.1")),
        ("status", serde_json::json!(404)),
        ("reason", serde_json::json!("no_route")),
        ("bytes_in", serde_json::json!(0)),
        ("duration_ms", serde_json::json!(1.234)),
        ("queue_ms", serde_json::json!(-1)),
        ("attempts", serde_json::json!([])),
        ("pool", serde_json::Value::Null),
        ("retried", serde_json::json!(false)),
        ("tls", serde_json::Value::Null),
        ("trace_id", serde_json::json!("0af7651916cd43dd8448eb211c80319c")),
        ("user_agent", serde_json::json!("curl\u{fffd}\"\\")),
        ("referer", serde_json::Value::Null),
        ("headers", serde_json::json!({ "x-tenant": "\u{202e}\ttwo" })),
        ("end", serde_json::json!("refused")),
    ] {
        assert_eq!(value[key], want, "{key}");
    }
    assert!(!text.contains('\u{202e}'), "it would turn the text of a terminal: {text}");
    assert_eq!(value["id"].as_str().map(str::len), Some(32));
    let time = value["time"].as_str().unwrap();
    let parsed = humantime::parse_rfc3339(time).unwrap();
    assert!(SystemTime::now().duration_since(parsed).unwrap() < Duration::from_secs(600), "{time}");
}

#[test]
fn keys_can_be_left_out() {
    let drop = AccessKey::ALL.into_iter().filter(|key| *key != AccessKey::Status).collect();
    assert_eq!(line(AccessPolicy { drop, ..policy(AccessFormat::Json) }, REQUEST), "{\"status\":404}\n");
    let drop = AccessKey::ALL.to_vec();
    assert_eq!(line(AccessPolicy { drop, ..policy(AccessFormat::Json) }, REQUEST), "{}\n");
}

#[test]
fn combined_is_apaches_to_the_byte() {
    let text = line(policy(AccessFormat::Combined), REQUEST);
    let (start, rest) = text.split_once('[').unwrap();
    let (time, rest) = rest.split_once(']').unwrap();
    assert_eq!(start, "192.0.2.1 - - ");
    assert_eq!(rest, " \"GET /a\\\"b?c=d HTTP/1.1\" 404 - \"-\" \"curl\\xff\\\"\\\\\"\n");
    let parts: Vec<&str> = time.split(['/', ':', ' ']).collect();
    assert_eq!((parts.len(), parts[0].len(), parts[2].len(), parts[6]), (7, 2, 4, "+0000"), "{time}");
    let clock = |seconds| {
        let mut clock = Clock::new(Instant::now(), Duration::ZERO);
        clock.turn_to(seconds);
        clock.texts()
    };
    assert_eq!(clock(951_782_399), ("2000-02-28T23:59:59".to_owned(), "28/Feb/2000:23:59:59 +0000".to_owned()));
}

#[test]
fn a_line_is_bounded_whatever_comes() {
    for byte in [b'a', b'"', 0xff] {
        let long = |bytes: usize| vec![byte; bytes];
        let path = if byte == 0xff { vec![b'a'; 15_000] } else { long(15_000) };
        let request = [
            b"GET /",
            &path[..],
            b" HTTP/1.1\r\nHost: h\r\nUser-Agent: ",
            &long(15_000),
            b"\r\nReferer: ",
            &long(15_000),
            b"\r\nX-Tenant: ",
            &long(15_000),
            b"\r\n\r\n",
        ]
        .concat();
        for format in [AccessFormat::Json, AccessFormat::Combined] {
            let text = line(policy(format), &request);
            assert!(text.len() <= 16 << 10 && text.ends_with('\n'), "{byte} {format:?}: {} bytes", text.len());
            if format == AccessFormat::Json {
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            }
        }
    }
}

#[test]
fn only_what_is_wanted_is_written() {
    let log = Arc::new(AccessLog::default());
    let classes =
        |only: &[AccessClass], sample| AccessPolicy { only: only.to_vec(), sample, ..policy(AccessFormat::Json) };
    // Every one of these is a 404.
    let slow = AccessClass::Slow(Duration::from_millis(1));
    let very_slow = AccessClass::Slow(Duration::from_secs(1));
    for (only, sample, want) in [
        (&[][..], Ratio::ONE, true),
        (&[], Ratio::ZERO, true),
        (&[AccessClass::Errors], Ratio::ONE, true),
        (&[AccessClass::Retried], Ratio::ONE, false),
        (&[slow], Ratio::ZERO, true),
        (&[very_slow], Ratio::ONE, false),
        (&[very_slow, AccessClass::Errors], Ratio::ONE, true),
    ] {
        ask(&log, classes(only, sample), REQUEST);
        assert_eq!(!waiting(&log).is_empty(), want, "{only:?} {sample:?}");
    }
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn lines_reach_the_file_also_after_it_was_moved_away_and_another_was_chosen() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let target = |name: &str| AccessTarget::File(path(name));
    let log = AccessLog::start().unwrap();
    ask(&log, policy(AccessFormat::Json), REQUEST);
    log.flush();
    assert_eq!(log.dropped_total(), 1, "there is no place for it");
    log.write_to(open(Some(&target("a"))).unwrap());
    log.flush();
    ask(&log, policy(AccessFormat::Json), REQUEST);
    log.flush();
    std::fs::rename(path("a"), path("a.1")).unwrap();
    ask(&log, policy(AccessFormat::Json), REQUEST);
    log.flush();
    assert_eq!(read(&path("a.1")).lines().count(), 2, "it goes where it went");
    log.reopen();
    log.flush();
    ask(&log, policy(AccessFormat::Json), REQUEST);
    log.flush();
    assert_eq!((read(&path("a.1")).lines().count(), read(&path("a")).lines().count()), (2, 1));
    ask(&log, policy(AccessFormat::Json), REQUEST);
    log.write_to(open(Some(&target("b"))).unwrap());
    log.flush();
    ask(&log, policy(AccessFormat::Json), REQUEST);
    log.flush();
    assert_eq!((read(&path("a")).lines().count(), read(&path("b")).lines().count()), (2, 1));
    let error = open(Some(&target("none/x"))).unwrap_err().to_string();
    assert!(error.starts_with("access_log: ") && error.contains("none/x: No such file"), "{error}");
    log.stop();
}

#[test]
fn a_syslog_gets_a_datagram_for_each_line_also_after_a_restart() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("log");
    let bind = || {
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let receive = |socket: &std::os::unix::net::UnixDatagram| {
        let mut bytes = [0; 4_096];
        let n = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    };
    let socket = bind();
    let log = AccessLog::start().unwrap();
    log.write_to(open(Some(&AccessTarget::Syslog(path.clone()))).unwrap());
    log.flush();
    for _ in 0..2 {
        ask(&log, policy(AccessFormat::Combined), REQUEST);
    }
    log.flush();
    let start = format!("<190>roundsman[{}]: 192.0.2.1 - - [", std::process::id());
    for _ in 0..2 {
        let text = receive(&socket);
        assert!(text.starts_with(&start) && !text.ends_with('\n'), "{text}");
    }
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    let socket = bind();
    ask(&log, policy(AccessFormat::Combined), REQUEST);
    log.flush();
    assert!(receive(&socket).starts_with(&start));
    assert_eq!(log.dropped_total(), 0);
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    ask(&log, policy(AccessFormat::Combined), REQUEST);
    log.flush();
    assert_eq!(log.dropped_total(), 1, "nobody listens");
    log.stop();
}

#[test]
fn a_blocked_output_blocks_no_request_and_what_is_lost_is_counted() {
    // Without its thread the log is one whose output is blocked.
    let log = Arc::new(AccessLog::default());
    let mut written = 0;
    while log.dropped_total() < 10 {
        ask(&log, policy(AccessFormat::Combined), REQUEST);
        written += 1;
        assert!(written < 100_000, "no bound");
    }
    let held: usize = log.buffers.all().map(|buffer| buffer.lock().lines.len()).sum();
    assert!((BUFFER_BYTES_MAX..BUFFER_BYTES_MAX + (16 << 10)).contains(&held), "{held}");
    assert_eq!(waiting(&log).lines().count() + 10, written);
    ask(&log, policy(AccessFormat::Combined), REQUEST);
    assert_eq!((waiting(&log).lines().count(), log.dropped_total()), (1, 10));
}
