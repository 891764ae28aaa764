//! Answers of every kind, fed in pieces of every kind.

use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;

mod degraded;
mod limits;
mod rules;

use super::judge::BODY_BYTES_MAX;
use super::*;
use crate::http1::limits::{INTERIM_ANSWERS, RESPONSE_HEAD_BYTES, RESPONSE_HEAD_FIELDS};
use crate::model::policy::{BodyRule, Expect, StatusRule};
use crate::model::{Code, ProbeReport, Trace};
use crate::probe::finding::Circumstances;
use crate::probe::fuzz::pieces;

fn get(body: Option<BodyRule>) -> HttpProbe {
    HttpProbe::get("/healthz", Expect { body: body.into_iter().collect(), ..Expect::default() })
}

fn head() -> HttpProbe {
    HttpProbe { method: "HEAD".into(), ..get(None) }
}

fn contains(text: &str) -> HttpProbe {
    get(Some(BodyRule::Contains(text.into())))
}

fn equals(text: &str) -> HttpProbe {
    get(Some(BodyRule::Equals(text.into())))
}

/// The report of an answer in these pieces, after which the connection ends with `end`.
fn report<'a>(probe: &HttpProbe, pieces: impl IntoIterator<Item = &'a [u8]>, end: Stop) -> ProbeReport {
    let mut answer = Answer::new(probe);
    let done = pieces.into_iter().any(|piece| answer.feed(piece) == Progress::Done);
    answer.finish(if done { Stop::Enough } else { end }).report(&Circumstances {
        took: Duration::from_micros(1_900),
        connected_in: Some(Duration::from_micros(300)),
        handshake_in: None,
        timeout: Duration::from_secs(5),
        elsewhere: None,
    })
}

/// The report is the same for the answer in one piece and byte by byte.
#[track_caller]
fn check(probe: &HttpProbe, answer: impl AsRef<[u8]>, end: Stop, code: Code, sentence: &str) {
    let answer = answer.as_ref();
    let whole = report(probe, [answer], end);
    let dripped = report(probe, answer.chunks(1), end);
    assert_alike(&whole, &dripped);
    assert_eq!((whole.code, whole.sentence().as_str()), (code, sentence));
}

/// The pieces must not matter, except for the body that is kept of a passing answer: no more than needed is read.
#[track_caller]
fn assert_alike(a: &ProbeReport, b: &ProbeReport) {
    let unless_passing = |report: &ProbeReport| match report.code {
        Code::L7Ok => ProbeReport { trace: Trace { body: Box::default(), ..report.trace.clone() }, ..report.clone() },
        _ => report.clone(),
    };
    assert_eq!(unless_passing(a), unless_passing(b), "the pieces must not matter");
}

const OK: &str = "200 in 1.9 ms";

#[test]
fn the_status_decides_without_a_body_rule() {
    let any = get(None);
    for (answer, code, sentence) in [
        ("HTTP/1.1 200 OK\r\n\r\n", Code::L7Ok, OK),
        ("HTTP/1.0 200\r\n\r\n", Code::L7Ok, OK),
        ("HTTP/1.1 200 OK\nA: b\n\n", Code::L7Ok, OK),
        ("HTTP/1.1 204 No Content\r\n\r\n", Code::L7Ok, "204 in 1.9 ms"),
        // The body is not read, so that nothing in it matters.
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense", Code::L7Ok, OK),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Code::L7Ok, OK),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            Code::L7Ok,
            OK,
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 58\r\n\r\n\
             {\"status\":\"unhealthy\",\"reason\":\"No ASR workers available\"}",
            Code::L7Sts,
            "status 503, expected 200-299 (reason: No ASR workers available)",
        ),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Code::L7Sts, "status 500, expected 200-299"),
        // A broken body does not hide the status.
        (
            "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX",
            Code::L7Sts,
            "status 500, expected 200-299; body: \"abc\"",
        ),
        ("HTTP/1.1 600 What\r\n\r\n", Code::L7Sts, "status 600, expected 200-299"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
            Code::L7Sts,
            "status 302, expected 200-299; location: \"http://elsewhere/\" \
             (redirects are not followed: check the final path, or list the status)",
        ),
        ("HTTP/1.1 401 No\r\n\r\n", Code::L7Sts, "status 401, expected 200-299 (needs credentials)"),
        (
            "HTTP/1.1 403 No\r\n\r\n",
            Code::L7Sts,
            "status 403, expected 200-299 (it refuses the credentials, the Host, an Origin or our address)",
        ),
        (
            "HTTP/1.1 404 No\r\n\r\n",
            Code::L7Sts,
            "status 404, expected 200-299 (path wrong, endpoint disabled, or another Host is expected)",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port",
            Code::L7Sts,
            "status 400, expected 200-299; body: \"The plain HTTP request was sent to HTTPS port\" (this port speaks TLS)",
        ),
    ] {
        check(&any, answer, Stop::Closed, code, sentence);
    }
    let not_found =
        HttpProbe { expect: Expect { status: StatusRule::In(vec![(404, 404)]), ..Expect::default() }, ..get(None) };
    check(&not_found, "HTTP/1.1 404 No\r\n\r\n", Stop::Closed, Code::L7Ok, "404 in 1.9 ms");
}

#[test]
fn an_answer_to_head_has_no_body_whatever_it_declares() {
    check(&head(), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Stop::Closed, Code::L7Ok, OK);
    let sentence = "status 405, expected 200-299 (it does not accept HEAD: use GET)";
    check(&head(), "HTTP/1.1 405 No\r\nContent-Length: 9\r\n\r\n", Stop::Deadline, Code::L7Sts, sentence);
    let rule = HttpProbe { method: "HEAD".into(), ..contains("x") };
    let sentence = "body does not contain \"x\"; it is empty (an answer to HEAD has no body: use GET)";
    check(&rule, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", Stop::Closed, Code::L7Rsp, sentence);
}

#[test]
fn contains_passes_as_soon_as_its_text_is_received() {
    let ready = contains("ready");
    for (answer, end) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nis ready", Stop::Broke(Fault::Theirs(Errno::ECONNRESET))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nre\r\n3\r\nadyXX", Stop::Closed),
        ("HTTP/1.1 200 OK\r\n\r\nready", Stop::Deadline),
    ] {
        check(&ready, answer, end, Code::L7Ok, OK);
    }
    check(&contains(""), "HTTP/1.1 200 OK\r\n\r\n", Stop::Deadline, Code::L7Ok, OK);
}

#[test]
fn contains_quotes_the_body_without_its_text() {
    let ready = contains("ready");
    for (answer, end, code, sentence) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstarting",
            Stop::Closed,
            Code::L7Rsp,
            "body does not contain \"ready\"; body: \"starting\"",
        ),
        ("HTTP/1.1 204 No\r\n\r\n", Stop::Closed, Code::L7Rsp, "body does not contain \"ready\"; it is empty"),
        ("HTTP/1.1 200 OK\r\n\r\nread", Stop::Closed, Code::L7Rsp, "body does not contain \"ready\"; body: \"read\""),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nrea",
            Stop::Closed,
            Code::L7Rsp,
            "body does not contain \"ready\" and was cut short: connection closed, 3 of 10 bytes received; body: \"rea\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n",
            Stop::Deadline,
            Code::L7Tout,
            "no \"ready\" in the body within 5s: 3 bytes received, but not its end (connected in 0.3 ms); body: \"rea\" \
             (it answers too slowly for this timeout)",
        ),
    ] {
        check(&ready, answer, end, code, sentence);
    }
}

#[test]
fn equals_needs_the_complete_body() {
    let ok = equals("ok");
    for (answer, end, code, sentence) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Stop::Deadline, Code::L7Ok, OK),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Stop::Deadline, Code::L7Ok, OK),
        ("HTTP/1.1 200 OK\r\n\r\nok", Stop::Closed, Code::L7Ok, OK),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=\"y\"\r\no\r\n01\r\nk\r\n0\r\nT: x\r\n\r\n",
            Stop::Deadline,
            Code::L7Ok,
            OK,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n",
            Stop::Closed,
            Code::L7Rsp,
            "body is not \"ok\"; body: \"ok\\n\" \
             (port and path answer, and only white space around the text differs: equals compares every byte)",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Stop::Closed, Code::L7Rsp, "body is not \"ok\"; it is empty"),
        ("HTTP/1.1 200 OK\r\n\r\nno, not", Stop::Closed, Code::L7Rsp, "body is not \"ok\"; body: \"no, not\""),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok",
            Stop::Closed,
            Code::L7Rsp,
            "body was cut short: connection closed, 2 of 100 bytes received; body: \"ok\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
            Stop::Closed,
            Code::L7Rsp,
            "body was cut short: connection closed, 2 bytes received, but not its end; body: \"ok\"",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nok",
            Stop::Broke(Fault::Theirs(Errno::ECONNRESET)),
            Code::L7Rsp,
            "body was cut short: connection reset, 2 bytes received, but not its end; body: \"ok\"",
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nok",
            Stop::Deadline,
            Code::L7Tout,
            "no complete body within 5s: the answer has no length and its connection stayed open; 2 bytes received \
             (connected in 0.3 ms); body: \"ok\" (it must send Content-Length or chunks, or close when asked to; \
             a contains rule passes without the end)",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            Stop::Deadline,
            Code::L7Tout,
            "no complete body within 5s: 2 bytes received, but not its end (connected in 0.3 ms); body: \"ok\" \
             (it answers too slowly for this timeout)",
        ),
    ] {
        check(&ok, answer, end, code, sentence);
    }
    check(
        &equals("healthy"),
        "HTTP/1.1 200 OK\r\n\r\nunhealthy",
        Stop::Closed,
        Code::L7Rsp,
        "body is not \"healthy\"; body: \"unhealthy\"",
    );
    check(&equals(""), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Stop::Closed, Code::L7Ok, OK);
}

#[test]
fn a_rule_sees_64_kib_of_a_body() {
    let with = |before: usize, text: &str| format!("HTTP/1.1 200 OK\r\n\r\n{}{text}", "x".repeat(before));
    check(&contains("ready"), with(BODY_BYTES_MAX - 5, "ready"), Stop::Deadline, Code::L7Ok, OK);
    let late = report(&contains("ready"), [with(BODY_BYTES_MAX - 4, "ready").as_bytes()], Stop::Closed);
    assert_eq!(late.code, Code::L7Rsp);
    let start = "body does not contain \"ready\" in its first 64 KiB (the rest is not read); body: \"xxx";
    assert!(late.reason.starts_with(start), "{}", late.reason);
    let exactly = "x".repeat(BODY_BYTES_MAX);
    check(&equals(&exactly), with(BODY_BYTES_MAX, ""), Stop::Closed, Code::L7Ok, OK);
    let longer = report(&equals(&exactly), [with(BODY_BYTES_MAX, "x").as_bytes()], Stop::Closed);
    assert_eq!(longer.code, Code::L7Rsp);
}

#[test]
fn only_needed_bytes_are_read() {
    let mut answer = Answer::new(equals_static());
    assert_eq!(answer.feed(b"HTTP/1.1 200 OK\r\n\r\nok"), Progress::More);
    assert_eq!(answer.feed(b"x"), Progress::Settled, "failed; more would only be quoted");
    assert_eq!(answer.feed(&[b'x'; 2_000]), Progress::Done);
    let plain = get(None);
    let mut answer = Answer::new(&plain);
    assert_eq!(answer.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r"), Progress::More);
    assert_eq!(answer.feed(b"\n"), Progress::Done);
}

fn equals_static() -> &'static HttpProbe {
    static PROBE: std::sync::LazyLock<HttpProbe> = std::sync::LazyLock::new(|| equals("ok"));
    &PROBE
}

#[test]
fn a_malformed_answer_is_named() {
    let fields = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(n));
    let padded = |n: usize| format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(n - 24));
    let interim = |n: u32| format!("{}HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n".repeat(n as usize));
    let chunk = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let extension = chunk(&format!("1;{}", "x".repeat(1 << 20)));
    let length = |value: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n");
    let coding = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let max = RESPONSE_HEAD_FIELDS;
    for (answer, code, sentence) in [
        (fields(max), Code::L7Rsp, "body does not contain \"ready\"; it is empty"),
        (fields(max + 1), Code::L7Rsp, "the head has more than 200 fields"),
        (fields(1_000), Code::L7Rsp, "the head has more than 200 fields"),
        (padded(RESPONSE_HEAD_BYTES), Code::L7Rsp, "body does not contain \"ready\"; it is empty"),
        (padded(RESPONSE_HEAD_BYTES + 1), Code::L7Rsp, "the head is over 64 KiB"),
        (padded(1 << 20), Code::L7Rsp, "the head is over 64 KiB"),
        (format!("HTTP/1.1 {}", "x".repeat(1 << 16)), Code::L7Rsp, "the head is over 64 KiB"),
        (interim(INTERIM_ANSWERS), Code::L7Rsp, "body does not contain \"ready\"; it is empty"),
        (interim(INTERIM_ANSWERS + 1), Code::L7Rsp, "more than 16 interim answers"),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
            Code::L7Rsp,
            "answered 101 Switching Protocols, which was not asked for (an Upgrade header of the check may ask for it: use type = \"websocket\")",
        ),
        (length("x"), Code::L7Rsp, "malformed Content-Length: not one number of at most 64 bits"),
        (length("+1"), Code::L7Rsp, "malformed Content-Length: not one number of at most 64 bits"),
        (length("1, 2"), Code::L7Rsp, "malformed Content-Length: not one number of at most 64 bits"),
        (length(&format!("{}0", u64::MAX)), Code::L7Rsp, "malformed Content-Length: not one number of at most 64 bits"),
        (coding(&chunked.repeat(2)), Code::L7Rsp, "malformed Transfer-Encoding: chunked is given twice"),
        (
            coding("Transfer-Encoding: gzip, chunked\r\n"),
            Code::L7Rsp,
            "unsupported Transfer-Encoding: a coding other than chunked",
        ),
        (
            coding("Transfer-Encoding: identity\r\n"),
            Code::L7Rsp,
            "malformed Transfer-Encoding: the last coding is not chunked",
        ),
        ("HTTP/1.1 2x0 OK\r\n\r\n".to_owned(), Code::L7Rsp, "malformed head: invalid status"),
        ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), Code::L7Rsp, "status 99 is outside 100 to 999"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(), Code::L7Rsp, "malformed head: a field without a colon"),
        (
            "HTTP/1.1 200 OK\r\na: \0\r\n\r\n".to_owned(),
            Code::L7Rsp,
            "malformed head: a control character in a field value",
        ),
        ("HTTP/1.9 200 OK\r\n\r\n".to_owned(), Code::L7Rsp, "malformed head: invalid version"),
        (chunk("xyz\r\n"), Code::L7Rsp, "malformed chunk: invalid size"),
        (chunk("\r\n"), Code::L7Rsp, "malformed chunk: invalid size"),
        (chunk("1 1\r\n"), Code::L7Rsp, "malformed chunk: invalid size"),
        (chunk("1\n"), Code::L7Rsp, "malformed chunk: invalid size"),
        (chunk("00000000000000001"), Code::L7Rsp, "malformed chunk: a size over 64 bits"),
        (chunk("1\r\nab"), Code::L7Rsp, "malformed chunk: longer than its size"),
        (chunk("0\r\n\n"), Code::L7Rsp, "malformed chunk: a line that does not end in CRLF"),
        (extension, Code::L7Rsp, "malformed chunk: too many bytes of extensions"),
    ] {
        check(&contains("ready"), answer, Stop::Closed, code, sentence);
    }
}

#[test]
fn bytes_that_are_not_http_are_quoted_with_a_guess() {
    for (answer, sentence) in [
        (
            &b"\x15\x03\x01\x00\x02\x02\x16"[..],
            "not an HTTP/1.1 answer: \"\\u{15}\\u{3}\\u{1}\\0\\u{2}\\u{2}\\u{16}\" (this port speaks TLS)",
        ),
        (
            b"220 mail.example ESMTP\r\n",
            "not an HTTP/1.1 answer: \"220 mail.example ESMTP\\r\\n\" (this port speaks another protocol than HTTP)",
        ),
        (
            b"\0\0\x06\x04\0\0\0\0\0",
            "not an HTTP/1.1 answer: \"\\0\\0\\u{6}\\u{4}\\0\\0\\0\\0\\0\" (it speaks HTTP/2: set version = \"h2\")",
        ),
        (
            b"HTTP/2 200\r\n\r\n",
            "not an HTTP/1.1 answer: \"HTTP/2 200\\r\\n\\r\\n\" (another version of HTTP than 1.0 or 1.1)",
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTQ",
            "not an HTTP/1.1 answer: \"HTTQ\" (this port speaks another protocol than HTTP)",
        ),
        (b"\xff\xff", "not an HTTP/1.1 answer: \"\\xff\\xff\" (this port speaks another protocol than HTTP)"),
    ] {
        check(&get(None), answer, Stop::Deadline, Code::L7Rsp, sentence);
    }
}

#[test]
fn the_reason_of_an_incomplete_answer_has_its_progress() {
    let reset = Stop::Broke(Fault::Theirs(Errno::ECONNRESET));
    let port = "this port may speak TLS or another protocol, or its server is going down";
    for (answer, end, code, sentence) in [
        ("", Stop::Closed, Code::L7Rsp, format!("connection closed without an answer ({port})")),
        ("", reset, Code::L7Rsp, format!("connection reset without an answer ({port})")),
        (
            "",
            Stop::Deadline,
            Code::L7Tout,
            "no answer within 5s (connected in 0.3 ms) \
             (it accepts connections but does not answer: overloaded, stopped, or another protocol)"
                .to_owned(),
        ),
        (
            "HTTP/1.1 200",
            Stop::Closed,
            Code::L7Rsp,
            "connection closed inside an answer: 12 bytes of its head received".to_owned(),
        ),
        ("H", reset, Code::L7Rsp, "connection reset inside an answer: 1 byte of its head received".to_owned()),
        (
            "HTTP/1.1 200 OK\r\n",
            Stop::Deadline,
            Code::L7Tout,
            "no complete answer within 5s: 17 bytes of its head received (connected in 0.3 ms) \
             (it answers too slowly for this timeout)"
                .to_owned(),
        ),
        (
            "HTTP/1.1 102 Processing\r\n\r\n",
            Stop::Deadline,
            Code::L7Tout,
            "no final answer within 5s: 1 interim received (connected in 0.3 ms) (it answers too slowly for this timeout)"
                .to_owned(),
        ),
        (
            "",
            Stop::Broke(Fault::Ours(Errno::ENOBUFS)),
            Code::NoRes,
            "not probed: this machine has no buffers left (ENOBUFS)".to_owned(),
        ),
    ] {
        check(&get(None), answer, end, code, &sentence);
    }
}

/// Texts similar to an answer, so that random ones reach every state.
fn almost_an_answer() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(&b"HTTP/1.1 200 OK\r\n"[..]),
        1 => Just(&b"HTTP/1.0 503 No\r\n"[..]),
        1 => Just(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]),
        4 => Just(&b"\r\n"[..]),
        2 => Just(&b"Transfer-Encoding: chunked\r\n"[..]),
        1 => Just(&b"Content-Length: 5\r\n"[..]),
        1 => Just(&b"3\r\nrea\r\n"[..]),
        1 => Just(&b"2;e=1\r\ndy\r\n"[..]),
        1 => Just(&b"0\r\n\r\n"[..]),
        1 => Just(&b"ready"[..]),
        1 => Just(&b"xxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..]),
    ];
    let noise = prop::collection::vec(any::<u8>(), 0..8);
    prop::collection::vec(prop_oneof![8 => part.prop_map(<[u8]>::to_vec), 1 => noise], 0..16)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_give_the_same_finding_in_any_pieces(
        bytes in prop_oneof![4 => almost_an_answer(), 1 => prop::collection::vec(any::<u8>(), 0..600)],
        cuts in prop::collection::vec(1_usize..40, 1..20),
        rule in 0_usize..4,
        end in prop_oneof![
            Just(Stop::Closed), Just(Stop::Deadline), Just(Stop::Broke(Fault::Theirs(Errno::ECONNRESET)))
        ],
    ) {
        let probe = &[get(None), head(), contains("ready"), equals("ready")][rule];
        let pieces = pieces(&bytes, &cuts).collect::<Vec<_>>();
        let whole = if bytes.is_empty() { Vec::new() } else { vec![&bytes[..]] };
        let whole = report(probe, whole, end);
        assert_alike(&whole, &report(probe, pieces, end));
        prop_assert!(whole.reason.chars().count() < 8_000);
    }
}

/// An answer with a parsed head, as from HTTP/2, has the same report as its text.
#[test]
fn a_parsed_answer_is_checked_like_its_text() {
    let of = |probe: &HttpProbe, statuses: &[u16], fields: &[(&str, &str)], body: Option<&str>, stop: Stop| {
        let mut answer = Answer::new(probe);
        let fields: Vec<_> = fields.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes())).collect();
        let mut done = statuses.iter().any(|status| answer.feed_head(*status, &fields) == Progress::Done);
        if let Some(body) = body {
            done = done || (!body.is_empty() && answer.feed(body.as_bytes()) == Progress::Done);
            if !done {
                answer.feed_end();
            }
        }
        let report = answer.finish(stop).report(&Circumstances {
            took: Duration::from_micros(1_900),
            connected_in: None,
            handshake_in: None,
            timeout: Duration::from_secs(5),
            elsewhere: None,
        });
        (report.code, report.sentence())
    };
    let ten = &[("content-length", "10")][..];
    for (probe, statuses, fields, body, stop, code, sentence) in [
        (get(None), &[200][..], &[][..], Some(""), Stop::Enough, Code::L7Ok, OK),
        (get(None), &[103, 200], &[], None, Stop::Enough, Code::L7Ok, OK),
        (head(), &[200], ten, Some(""), Stop::Enough, Code::L7Ok, OK),
        (contains("ready"), &[200], &[], Some("is ready"), Stop::Enough, Code::L7Ok, OK),
        (equals("ok"), &[200], &[], Some("ok"), Stop::Enough, Code::L7Ok, OK),
        (equals("ok"), &[200], &[], Some(""), Stop::Enough, Code::L7Rsp, "body is not \"ok\"; it is empty"),
        (
            get(None),
            &[503],
            &[],
            Some("down"),
            Stop::Enough,
            Code::L7Sts,
            "status 503, expected 200-299; body: \"down\"",
        ),
        (
            equals("ok plus 8."),
            &[200],
            ten,
            None,
            Stop::Deadline,
            Code::L7Tout,
            "no complete body within 5s: 0 of 10 bytes received (it answers too slowly for this timeout)",
        ),
        (
            get(None),
            &[101],
            &[],
            None,
            Stop::Enough,
            Code::L7Rsp,
            "answered 101 Switching Protocols, which was not asked for \
             (an Upgrade header of the check may ask for it: use type = \"websocket\")",
        ),
        (get(None), &[103; 17], &[], None, Stop::Enough, Code::L7Rsp, "more than 16 interim answers"),
        (get(None), &[200], &[("a", "b"); 201], None, Stop::Enough, Code::L7Rsp, "the head has more than 200 fields"),
    ] {
        assert_eq!(of(&probe, statuses, fields, body, stop), (code, sentence.to_owned()), "{statuses:?} {body:?}");
    }
}
