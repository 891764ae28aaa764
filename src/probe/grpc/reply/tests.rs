//! Answers to health checks of every kind, whole and in pieces.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use nix::errno::Errno;
use proptest::prelude::*;

use super::*;
use crate::model::policy::HeaderText;
use crate::model::{Code, ProbeReport, Secret};
use crate::probe::finding::{Circumstances, Finding};

/// Names and values of fields.
type Fields<'a> = &'a [(&'a str, &'a str)];

const GRPC: Fields<'_> = &[("content-type", "application/grpc")];
const OK: Fields<'_> = &[("grpc-status", "0")];

fn map(fields: Fields<'_>) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    fields.iter().map(pair).collect()
}

/// An answer: its head, the pieces of its body, and its trailers; without trailers it ends as `cut` says.
struct Answer<'a> {
    status: u16,
    head: Fields<'a>,
    body: &'a [u8],
    trailers: Option<Fields<'a>>,
    cut: Cutoff,
}

/// A complete answer with this message and these trailers.
fn answer<'a>(body: &'a [u8], trailers: Fields<'a>) -> Answer<'a> {
    Answer { status: 200, head: GRPC, body, trailers: Some(trailers), cut: Cutoff::Closed }
}

fn probe(service: &str) -> GrpcProbe {
    let secret = ("authorization".into(), HeaderText::Secret(Secret::new("Bearer s3cret")));
    GrpcProbe { service: service.into(), host: None, headers: vec![secret] }
}

fn report(probe: &GrpcProbe, answer: &Answer<'_>, piece: usize) -> ProbeReport {
    let mut reply = Reply::new(probe);
    let mut trace = Trace::default();
    let mut progress = Progress::More;
    if answer.status != 0 {
        progress = reply.on_head(answer.status, &map(answer.head));
        for piece in answer.body.chunks(piece) {
            if progress != Progress::Done {
                progress = reply.on_body(piece);
            }
        }
    }
    if let (Some(trailers), true) = (answer.trailers, progress != Progress::Done) {
        reply.on_end(Some(&map(trailers)).filter(|map| !map.is_empty()));
    }
    let called = reply.finish(answer.cut, &mut trace);
    let report = Finding::Grpc(called).report(&Circumstances {
        took: Duration::from_micros(1_900),
        connected_in: Some(Duration::from_micros(300)),
        handshake_in: None,
        timeout: Duration::from_secs(5),
        elsewhere: None,
    });
    ProbeReport { trace, ..report }
}

#[track_caller]
fn check(service: &str, answer: &Answer<'_>, code: Code, sentence: &str) {
    let probe = probe(service);
    let whole = report(&probe, answer, usize::MAX);
    let dripped = report(&probe, answer, 1);
    assert_eq!((whole.code, whole.sentence().as_str()), (code, sentence));
    assert_eq!((whole.code, whole.sentence()), (dripped.code, dripped.sentence()), "the pieces must not matter");
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";

#[test]
fn only_serving_passes() {
    check("", &answer(SERVING, OK), Code::L7Ok, "SERVING in 1.9 ms");
    for (body, service, sentence) in [
        (NOT_SERVING, "", "NOT_SERVING, expected SERVING (it runs, but reports that it is not ready)"),
        (
            NOT_SERVING,
            "shop.Cart",
            "NOT_SERVING for \"shop.Cart\", expected SERVING (it runs, but reports that it is not ready)",
        ),
        // The default of an enumeration is not on the wire.
        (&b"\0\0\0\0\0"[..], "", "UNKNOWN, expected SERVING (it has set no status yet: it may still be starting)"),
        (
            b"\0\0\0\0\x02\x08\x03",
            "shop.Cart",
            "SERVICE_UNKNOWN for \"shop.Cart\", expected SERVING \
             (check `service`: a full name such as package.Service, or leave it out for the whole server)",
        ),
        (b"\0\0\0\0\x02\x08\x11", "", "health status 17, expected SERVING"),
    ] {
        check(service, &answer(body, OK), Code::L7Sts, sentence);
    }
}

#[test]
fn an_error_of_grpc_has_its_name_and_message() {
    let unimplemented: Fields<'_> = &[("grpc-status", "12"), ("grpc-message", "unknown service grpc.health.v1.Health")];
    let sentence = "no health service: grpc-status UNIMPLEMENTED (12); message: \"unknown service \
                    grpc.health.v1.Health\" (register grpc.health.v1.Health in its server; type = \"tcp\" sees only whether the port is open)";
    check("", &answer(b"", unimplemented), Code::L7Sts, sentence);
    // Trailers only: everything is in the head.
    let early = [GRPC, unimplemented].concat();
    let only = Answer { status: 200, head: &early, body: b"", trailers: Some(&[]), cut: Cutoff::Closed };
    check("", &only, Code::L7Sts, sentence);
    for (code, service, sentence) in [
        (
            "5",
            "shop.Cart",
            "unknown service \"shop.Cart\": grpc-status NOT_FOUND (5) \
             (check `service`: a full name such as package.Service, or leave it out for the whole server)",
        ),
        (
            "5",
            "",
            "no health status of the whole server: grpc-status NOT_FOUND (5) \
             (set `service` to the full name of one that it has)",
        ),
        (
            "14",
            "",
            "grpc-status UNAVAILABLE (14), expected OK \
             (it is starting or going down, or a proxy in front of it cannot reach a server)",
        ),
        (
            "16",
            "",
            "grpc-status UNAUTHENTICATED (16), expected OK (it does not accept the credentials that the check sends)",
        ),
        (
            "7",
            "",
            "grpc-status PERMISSION_DENIED (7), expected OK (it refuses the credentials, the Host, an Origin or our address)",
        ),
        ("99", "", "grpc-status 99, expected OK"),
    ] {
        check(service, &answer(b"", &[("grpc-status", code)]), Code::L7Sts, sentence);
    }
    // An error counts, whatever the message.
    let late: Fields<'_> = &[("grpc-status", "13")];
    let sentence = "grpc-status INTERNAL (13), expected OK (see its log)";
    check("", &answer(SERVING, late), Code::L7Sts, sentence);
}

#[test]
fn a_message_is_decoded_quoted_and_masked() {
    let sentence = |message: &str| {
        let trailers = [("grpc-status", "10"), ("grpc-message", message)];
        report(&probe(""), &answer(b"", &trailers), 1).reason.into_string()
    };
    let prefix = "grpc-status ABORTED (10), expected OK; message: ";
    for (message, shown) in [
        ("down%20for%20%C3%A4", "\"down for ä\""),
        ("100%", "\"100%\""),
        ("%4", "\"%4\""),
        ("%zz%41", "\"%zzA\""),
        ("a%0D%0Ab%1B%00", "\"a\\r\\nb\\u{1b}\\0\""),
        ("%FF", "\"\\xff\""),
        ("bad token s3cret", "\"bad token ***\""),
        ("bad%20token%20%733cret", "\"bad token ***\""),
    ] {
        assert_eq!(sentence(message), format!("{prefix}{shown}"), "{message}");
    }
    assert_eq!(sentence(&"x".repeat(9_000)).chars().count(), prefix.chars().count() + 256 + 3);
}

#[test]
fn an_answer_that_is_not_grpc_is_recognised() {
    let html: Fields<'_> = &[("content-type", "text/html")];
    let http = |status, head, body| Answer { status, head, body, trailers: Some(&[]), cut: Cutoff::Closed };
    for (answer, code, sentence) in [
        (
            http(404, html, &b"<h1>nope"[..]),
            Code::L7Sts,
            "status 404, expected 200; body: \"<h1>nope\" (this port speaks HTTP/2 but not gRPC, or a proxy there does not forward gRPC)",
        ),
        (
            http(302, &[("location", "/login")], b""),
            Code::L7Sts,
            "status 302, expected 200; location: \"/login\" \
             (redirects are not followed: check the final path, or list the status)",
        ),
        (
            http(401, &[], b"s3cret?"),
            Code::L7Sts,
            "status 401, expected 200; body: \"***?\" (it does not accept the credentials that the check sends)",
        ),
        (
            http(200, html, b"<h1>hello"),
            Code::L7Rsp,
            "content-type \"text/html\", expected application/grpc; body: \"<h1>hello\" \
             (this port speaks HTTP/2 but not gRPC, or a proxy there does not forward gRPC)",
        ),
        (
            http(200, &[], b""),
            Code::L7Rsp,
            "no content-type, expected application/grpc (this port speaks HTTP/2 but not gRPC, or a proxy there does not forward gRPC)",
        ),
        (
            http(200, GRPC, SERVING),
            Code::L7Rsp,
            "the answer ended without a grpc-status (a proxy in front of it may drop trailers)",
        ),
        // A proxy may send a grpc-status with an HTTP status other than 200.
        (
            http(503, &[("grpc-status", "14")], b""),
            Code::L7Sts,
            "grpc-status UNAVAILABLE (14), expected OK \
             (it is starting or going down, or a proxy in front of it cannot reach a server)",
        ),
    ] {
        check("", &answer, code, sentence);
    }
    for (value, grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("Application/GRPC", true),
        ("application/grpc-web", false),
        ("application/grp", false),
        ("application/json", false),
    ] {
        assert_eq!(is_grpc(value.as_bytes()), grpc, "{value}");
    }
}

#[test]
fn a_violation_of_grpc_is_named() {
    let long = [&b"\0\0\0\x10\x01"[..], &[0; 5_000]].concat();
    for (body, sentence) in [
        (&b""[..], "grpc-status OK without a message"),
        (b"\0\0\0", "the message ended after 3 of 5 bytes"),
        (b"\0\0\0\0\x02\x08", "the message ended after 1 of 2 bytes"),
        (b"\x01\0\0\0\x02\x08\x01", "a compressed message, which was not asked for"),
        (b"<html>", "malformed message: its first byte is 0x3c"),
        (b"\0\0\0\0\x02\x08\x01\0", "more than one message"),
        (&long, "a message of 4097 bytes, of which at most 4 KiB are read"),
        (b"\0\xff\xff\xff\xff\0", "a message of 4294967295 bytes, of which at most 4 KiB are read"),
        (b"\0\0\0\0\x02\x08\x80", "malformed message: not a HealthCheckResponse"),
        (b"\0\0\0\0\x03\x0a\x01x", "malformed message: not a HealthCheckResponse"),
    ] {
        check("", &answer(body, OK), Code::L7Rsp, sentence);
    }
    // Unknown fields are skipped, as protobuf requires.
    check("", &answer(b"\0\0\0\0\x05\x12\x01x\x08\x01", OK), Code::L7Ok, "SERVING in 1.9 ms");
    for status in ["", "x", "-1", "+1", "1 ", "9999999999"] {
        check("", &answer(SERVING, &[("grpc-status", status)]), Code::L7Rsp, "malformed grpc-status");
    }
}

#[test]
fn the_reason_of_an_incomplete_answer_has_its_progress() {
    let slow = "it answers too slowly for this timeout";
    let closed = "this port may speak HTTP/1 only, TLS or another protocol, or its server is going down";
    for (status, body, cut, code, sentence) in [
        (
            0,
            &b""[..],
            Cutoff::Deadline,
            Code::L7Tout,
            "no answer within 5s (connected in 0.3 ms) \
             (it accepts connections but does not answer: overloaded, stopped, or another protocol)"
                .to_owned(),
        ),
        (200, b"", Cutoff::Deadline, Code::L7Tout, format!("no message within 5s (connected in 0.3 ms) ({slow})")),
        (
            200,
            SERVING,
            Cutoff::Deadline,
            Code::L7Tout,
            format!("no grpc-status within 5s: only its message was received (connected in 0.3 ms) ({slow})"),
        ),
        (
            200,
            &SERVING[..6],
            Cutoff::Deadline,
            Code::L7Tout,
            format!("no complete message within 5s: 6 bytes of it received (connected in 0.3 ms) ({slow})"),
        ),
        (0, b"", Cutoff::Closed, Code::L7Rsp, format!("connection closed without an answer ({closed})")),
        (
            0,
            b"",
            Cutoff::Broke(Errno::ECONNRESET),
            Code::L7Rsp,
            format!("connection reset without an answer ({closed})"),
        ),
        (200, SERVING, Cutoff::Closed, Code::L7Rsp, "connection closed inside the answer".to_owned()),
    ] {
        check("", &Answer { status, head: GRPC, body, trailers: None, cut }, code, &sentence);
    }
    let probe = probe("");
    let mut reply = Reply::new(&probe);
    let ended = (0..=INTERIM_ANSWERS).map(|_| reply.on_head(103, &HeaderMap::new())).collect::<Vec<_>>();
    assert_eq!(ended.last(), Some(&Progress::Done));
    assert_eq!(ended.iter().filter(|p| **p == Progress::More).count(), INTERIM_ANSWERS as usize);
    assert_eq!(reply.finish(Cutoff::Closed, &mut Trace::default()).outcome, GrpcAnswer::Violation(Violation::Interim));
}

#[test]
fn the_trace_is_masked_and_bounded() {
    let seen = report(&probe(""), &answer(SERVING, &[("grpc-status", "0"), ("x-echo", "s3cret")]), 3).trace;
    let head = "HTTP/2 200\r\ncontent-type: application/grpc\r\ngrpc-status: 0\r\nx-echo: ***\r\n";
    assert_eq!(String::from_utf8_lossy(&seen.head), head);
    assert_eq!(&*seen.body, SERVING);
    let huge = "x".repeat(4_000);
    let page = Answer {
        status: 500,
        head: &[("x-huge", &huge)],
        body: huge.as_bytes(),
        trailers: Some(&[]),
        cut: Cutoff::Closed,
    };
    let seen = report(&probe(""), &page, 100).trace;
    assert_eq!((seen.head.len(), seen.body.len()), (Trace::HEAD_BYTES_MAX, Trace::BODY_BYTES_MAX));
}

proptest! {
    #[test]
    fn any_bytes_give_the_same_finding_in_any_pieces(
        body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(8), any::<u8>()], 0..64),
        status in "[0-9]{0,3}",
        size in 1usize..16,
    ) {
        let probe = probe("a.B");
        let trailers = [("grpc-status", status.as_str())];
        let whole = report(&probe, &answer(&body, &trailers), usize::MAX);
        let cut = report(&probe, &answer(&body, &trailers), size);
        prop_assert_eq!((whole.code, whole.sentence()), (cut.code, cut.sentence()));
        prop_assert!(whole.code != Code::L7Ok || body.starts_with(b"\0"));
    }
}
