//! What is recorded of requests for the access log, and what `ready_path` answers.

use std::sync::Mutex;

use super::*;
use crate::http1::HttpDate;
use crate::model::Ratio;
use crate::model::policy::{AccessFormat, AccessPolicy, AccessTarget, Marks, ShownQuery};

/// Keeps what is recorded, in words.
#[derive(Debug, Default)]
struct Desktop {
    lines: Mutex<Vec<String>>,
    not_ready: bool,
}

impl Desk for Desktop {
    fn ready(&self) -> ReadyAnswer {
        ReadyAnswer { ready: !self.not_ready, body: format!("ready: {}\n", !self.not_ready) }
    }

    fn record(&self, record: &Record<'_>) {
        let noted = record.noted.expect("it is on");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tries: Vec<String> = record
            .tries
            .iter()
            .map(|tried| {
                let millis = |time: Option<Duration>| time.map_or(-1, |time| time.as_millis() as i64);
                let (connect, first) = (millis(tried.connect), millis(tried.first_byte));
                format!("{} {} {connect} {first} {:?}", tried.upstream, tried.outcome.as_str(), tried.status)
            })
            .collect();
        let fields: Vec<String> = noted.fields().map(|(name, value)| format!("{name}={}", text(value))).collect();
        let line = format!(
            "{:?} {} {} {} {:?} {} {:?} {:?} [{}] [{}] {:?} {}",
            record.client.map(|client| client.to_string()),
            text(noted.method),
            text(noted.host),
            text(noted.target),
            record.status,
            record.end.as_str(),
            record.took.map(|took| took.as_millis()),
            record.queued.map(|queued| queued.as_millis()),
            tries.join(", "),
            fields.join(" "),
            record.carried.sent,
            record.pool.map_or("-", Name::as_str),
        );
        self.lines.lock().unwrap().push(line);
    }
}

fn policy() -> AccessPolicy {
    AccessPolicy {
        to: AccessTarget::Stdout,
        format: AccessFormat::Json,
        only: vec![],
        sample: Ratio::ONE,
        except_paths: vec!["/quiet".into()],
        query: ShownQuery::Whole,
        drop: vec![],
        headers: vec!["x-tenant".into()],
    }
}

fn logged(policy: AccessPolicy, desk: &Arc<Desktop>) -> World {
    let mut world = World::new(&[Given(Service::Open, 2, 0)]);
    world.desk = desk.clone();
    let entry = ListenerEntry {
        name: Name::try_new("web").unwrap(),
        pool: Some(PoolId(0)),
        client: ClientPolicy::default(),
        limit: None,
        marks: Arc::new(Marks::default()),
        ready_path: Some("/lb-ready".into()),
    };
    let snapshot = Snapshot::new(2, Routes::default(), vec![Some(entry)], vec![Some(world.nth(0))]);
    world.published.store(Arc::new(snapshot.with_access_log(Some(Arc::new(policy)))));
    world
}

fn lines(desk: &Desktop) -> Vec<String> {
    std::mem::take(&mut *desk.lines.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn every_end_is_recorded_once() {
    let desk = Arc::new(Desktop::default());
    let world = logged(policy(), &desk);
    let (now, later) = (world.now, world.now + Duration::from_millis(7));
    let none: [Field<'_>; 0] = [];
    let begin = || world.begin("GET /a?b=c HTTP/1.1\r\nHost: h:81\r\nX-TENANT: t");
    // A whole response.
    let (mut exchange, _) = begin();
    assert!(exchange.on_connected(Lent::Fresh, later).is_none());
    exchange.on_response(Version::Http11, 200, none.iter().copied(), Replay::Whole, later + Duration::from_millis(5));
    exchange.carry(Carried { received: 0, sent: 12 });
    exchange.on_end(End::Delivered, later + Duration::from_millis(9));
    drop(exchange);
    let all = lines(&desk);
    assert_eq!(all.len(), 1, "{all:?}");
    let (start, end) = all[0].split_once(" [127.").unwrap_or_else(|| panic!("an attempt: {}", all[0]));
    assert_eq!(start, "Some(\"192.0.2.1\") GET h:81 /a?b=c Some(200) ok Some(16) None");
    assert!(end.ends_with(" ok 7 5 Some(200)] [x-tenant=t] 12 p0"), "{end}");
    // The client leaves, the answer breaks off, the task is given up.
    let (mut exchange, _) = begin();
    exchange.on_end(End::ClientLeft, later);
    let (mut exchange, _) = begin();
    assert!(exchange.on_connected(Lent::Kept, now).is_none());
    exchange.on_response(Version::Http11, 200, none.iter().copied(), Replay::Whole, later);
    exchange.on_broken(Broken::Closed, Replay::Gone, later);
    exchange.on_end(End::Aborted, later);
    drop(begin());
    // Both upstreams refuse.
    let (mut exchange, _) = begin();
    exchange.on_connect_failed(ConnectError::Refused, later);
    let next = exchange.on_connect_failed(ConnectError::TimedOut, later);
    assert!(matches!(next, Next::Answer(_)));
    exchange.on_end(End::Delivered, later);
    let all = lines(&desk);
    for (line, want) in all.iter().zip([
        ("None client_left Some(7)", "under_way -1 -1 None]"),
        ("Some(200) upstream_reset Some(7)", "reset 0 7 Some(200)]"),
        ("None timeout None", "under_way -1 -1 None]"),
        ("Some(504) no_upstream Some(7)", " connect -1 -1 None, 127."),
    ]) {
        let want = if want.0.starts_with("Some(504)") { ("Some(504) timeout Some(7)", want.1) } else { want };
        assert!(line.contains(want.0) && line.contains(want.1), "{line}: {want:?}");
    }
    assert_eq!(all.len(), 4);
    assert!(all[3].contains("connect_timeout -1 -1 None]"), "{}", all[3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_is_recorded_too() {
    let desk = Arc::new(Desktop::default());
    let world = logged(policy(), &desk);
    let (mut exchange, _) = world.begin(GET);
    exchange.on_end(End::ClientLeft, world.now);
    lines(&desk);
    let answer = exchange.on_refused(Refusal::HEAD_TOO_SLOW, world.now);
    assert_eq!(answer.status(), 408);
    exchange.on_end(End::Delivered, world.now);
    assert_eq!(lines(&desk), ["Some(\"192.0.2.1\")    Some(408) timeout Some(0) None [] [] 0 -"]);
}

#[tokio::test(start_paused = true)]
async fn paths_can_be_left_out_and_queries_hidden() {
    for (query, target, want) in [
        (ShownQuery::Whole, "/a?b=c&d", Some("/a?b=c&d")),
        (ShownQuery::Keys, "/a?b=c&d=&e", Some("/a?b&d&e")),
        (ShownQuery::Keys, "/a", Some("/a")),
        (ShownQuery::Nothing, "/a?b=c", Some("/a")),
        (ShownQuery::Whole, "/quiet?x", None),
        (ShownQuery::Whole, "/%71uiet", None),
        (ShownQuery::Whole, "/quiet/x", Some("/quiet/x")),
        (ShownQuery::Whole, "/lb-ready", None),
    ] {
        let desk = Arc::new(Desktop::default());
        let world = logged(AccessPolicy { query, ..policy() }, &desk);
        let (mut exchange, _) = world.begin(&format!("GET {target} HTTP/1.1\r\nHost: h"));
        exchange.on_end(End::ClientLeft, world.now);
        let all = lines(&desk);
        let shown = all.first().map(|line| line.split(' ').nth(3).unwrap());
        assert_eq!((shown, all.len()), (want, usize::from(want.is_some())), "{query:?} {target}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_path_is_answered_as_readyz_is() {
    for (not_ready, request, want) in [
        (
            false,
            "GET /lb-ready HTTP/1.1\r\nHost: h",
            Some("200 OK\r\nContent-Length: 12\r\nContent-Type: application/json"),
        ),
        (true, "HEAD /lb%2dready?x HTTP/1.0", {
            Some("503 Service Unavailable\r\nContent-Length: 13\r\nContent-Type: application/json\r\nRetry-After: 1")
        }),
        (false, "POST /lb-ready HTTP/1.1\r\nHost: h", None),
        (false, "GET /lb-ready/ HTTP/1.1\r\nHost: h", None),
    ] {
        let desk = Arc::new(Desktop { not_ready, ..Desktop::default() });
        let world = logged(policy(), &desk);
        let (mut exchange, next) = world.begin(request);
        let got = match next {
            Next::Answer(answer) => {
                let mut out = Vec::new();
                let added = exchange.added(&answer);
                answer.write_to(&mut out, added, Version::Http11, false, true, HttpDate::of(784_111_777));
                let text = String::from_utf8(out).unwrap();
                let (head, body) = text.split_once("\r\nDate: ").unwrap();
                assert!(body.ends_with(&format!("ready: {}\n", !not_ready)), "{body}");
                Some(head.strip_prefix("HTTP/1.1 ").unwrap().to_owned())
            }
            _ => None,
        };
        assert_eq!(got.as_deref(), want, "{request:?}");
        exchange.on_end(End::Delivered, world.now);
        assert_eq!(world.nth(0).shared.stats.requests(RequestClass::Success), 0);
    }
}
