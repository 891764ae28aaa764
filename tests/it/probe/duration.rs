//! `expect.max_duration`: a correct response that takes too long, with every kind of check.

use std::sync::Arc;
use std::time::Duration;

use roundsman::model::policy::{BodyRule, Expect, HttpProbe, ProbeKind, ProbeSpec, TcpProbe, TlsPolicy};
use roundsman::model::{Address, Code, ProbeReport};
use roundsman::probe::probe;

use super::grpc::{healthy_server, of};
use super::websocket::{pong, serving, websocket};
use super::{LONG, answers, get, on_accept};
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::origin::{Act, Origin, Reply};

/// No response is as fast as this.
const NO_TIME: Duration = Duration::from_nanos(1);

async fn within(max: Duration, target: &Address, tls: bool, kind: ProbeKind) -> ProbeReport {
    let tls = tls.then_some(TlsPolicy { verify: false, server_name: None, roots: None, client: None });
    let spec = ProbeSpec { tls, kind, max_duration: Some(max), ..ProbeSpec::connect() };
    probe(target, target, &Arc::new(spec), LONG).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_correct_response_fails_if_it_is_later_than_max_duration() {
    let origin = Origin::plain("a").await;
    let tls = TlsOrigin::with(&CERTIFICATES.good).start();
    let text = on_accept(Reply::acts(vec![Act::Write(b"220 ready".to_vec())]).then_hang());
    let (grpc, _reporter) = healthy_server();
    let expecting = || TcpProbe::of(None, Some("ready".into()));
    for (name, target, over_tls, kind, passes, fails, status) in [
        ("tcp", origin.address(), false, ProbeKind::Tcp(TcpProbe::default()), Code::L4Ok, Code::L4Tout, None),
        ("text", text.address(), false, ProbeKind::Tcp(expecting()), Code::L7Ok, Code::L7Tout, None),
        ("tls", tls.address(), true, ProbeKind::Tls, Code::L6Ok, Code::L6Tout, None),
        ("http", origin.address(), false, ProbeKind::Http(get()), Code::L7Ok, Code::L7Tout, Some(200)),
        ("grpc", grpc.address.clone(), false, ProbeKind::Grpc(of("")), Code::L7Ok, Code::L7Tout, Some(200)),
    ] {
        let slow = within(NO_TIME, &target, over_tls, kind.clone()).await;
        assert_eq!((slow.code, slow.status), (fails, status), "{name}: {}", slow.sentence());
        assert!(slow.reason.starts_with("right, but after ") && slow.hint.is_none(), "{name}: {}", slow.sentence());
        let quick = within(LONG, &target, over_tls, kind).await;
        assert_eq!((quick.code, quick.status), (passes, status), "{name}: {}", quick.sentence());
    }
    for (max, code) in [(NO_TIME, Code::L7Tout), (LONG, Code::L7Ok)] {
        let server = serving("", |payload| pong(&payload));
        let report = within(max, &server.address, false, ProbeKind::Websocket(websocket())).await;
        assert_eq!((report.code, report.status), (code, Some(101)), "websocket: {}", report.sentence());
    }
    // A response that fails anyway is reported with its own reason.
    let missing = answers(Reply::status(503));
    let report = within(NO_TIME, &missing.address(), false, ProbeKind::Http(get())).await;
    assert_eq!(report.code, Code::L7Sts, "{}", report.sentence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_duration_counts_to_the_byte_that_decides_or_to_the_end() {
    let (pause, max) = (Duration::from_millis(200), Duration::from_millis(150));
    let excluded = Expect { body: vec![BodyRule::NotContains("down".into())], ..Expect::default() };
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    for (name, expect, acts) in [
        ("the head comes late", Expect::default(), vec![Act::Wait(pause), Act::Write(head.clone())]),
        (
            "the text comes late",
            Expect { body: vec![BodyRule::Contains("up".into())], ..Expect::default() },
            vec![Act::Write(head.clone()), Act::Wait(pause), Act::Write(b"up".to_vec())],
        ),
        ("the end comes late", excluded, vec![Act::Write([&head[..], b"up"].concat()), Act::Wait(pause), Act::Close]),
    ] {
        let origin = on_accept(Reply::acts(acts).then_hang());
        let report = within(max, &origin.address(), false, ProbeKind::Http(HttpProbe { expect, ..get() })).await;
        assert_eq!((report.code, report.status), (Code::L7Tout, Some(200)), "{name}: {}", report.sentence());
        assert!(report.reason.ends_with("; at most 150 ms"), "{name}: {}", report.sentence());
    }
}
