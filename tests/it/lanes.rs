//! Which responses the lanes and the checker accept: our parser in the express lane, in the tunnel (the response to an
//! upgrade) and in a probe, pingora's in the general lane. The README lists the differences; a row that is wrong or missing
//! there fails here. Responses are passed on in canonical form.
//!
//! [`each`] runs a test in each lane; [`differences`] says why the lanes may differ, here and elsewhere.

pub mod differences;
pub mod each;

mod requests;
mod responses;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use roundsman::http1::{Chunked, Reading, Step};
use roundsman::model::policy::Lane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use differences::Difference::{self, CountsNoWhiteSpace, DropsLengthsBesideChunks, TakesEmptyLastChunks};

use crate::origin::{Origin, Reply};
use crate::program::{Program, http_check, pool};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a parser accepts a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The client gets all of it, the probe passes.
    Taken,
    /// The client gets 502, the probe fails.
    Refused,
    /// The client gets the head, and can see that the body is not whole.
    Cut,
}

use Verdict::{Cut, Refused, Taken};

/// One response: what is unusual about it, its bytes, and the verdicts of the general lane, of our own two lanes, and of the
/// checker.
struct Row {
    odd: &'static str,
    bytes: Vec<u8>,
    verdicts: [Verdict; 3],
    /// Why the general lane has another verdict than our own lanes, if it has.
    why: Option<Difference>,
    /// The method of the request, and the expected status.
    asked: (&'static str, u16),
    /// The body; `None`: the response has none.
    text: Option<&'static str>,
}

/// An answer with this first line and these fields, each with its line end, and the body `ok`.
fn row(odd: &'static str, head: &str, verdicts: [Verdict; 3]) -> Row {
    Row { odd, bytes: format!("{head}\r\nok").into_bytes(), verdicts, why: None, asked: ("GET", 200), text: Some("ok") }
}

/// As [`row`], with a good first line and the length of the body before these fields.
fn field(odd: &'static str, fields: &str, verdicts: [Verdict; 3]) -> Row {
    row(odd, &format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}"), verdicts)
}

/// As [`row`], with this first line and the length of the body.
fn status(odd: &'static str, line: &str, verdicts: [Verdict; 3]) -> Row {
    row(odd, &format!("{line}\r\nContent-Length: 2\r\n"), verdicts)
}

/// As [`row`], with a good first line, these fields alone, and this body.
fn body(odd: &'static str, fields: &str, body: &str, verdicts: [Verdict; 3]) -> Row {
    row(odd, "", verdicts).with(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"))
}

/// As [`row`], with this Content-Length.
fn length(odd: &'static str, value: &str, verdicts: [Verdict; 3]) -> Row {
    body(odd, &format!("Content-Length:{value}\r\n"), "ok", verdicts)
}

/// As [`row`], with this Transfer-Encoding, and the body in one chunk.
fn coding(odd: &'static str, value: &str, verdicts: [Verdict; 3]) -> Row {
    body(odd, &format!("Transfer-Encoding: {value}\r\n"), "2\r\nok\r\n0\r\n\r\n", verdicts)
}

/// As [`row`], with this body in chunks.
fn chunks(odd: &'static str, text: &str, verdicts: [Verdict; 3]) -> Row {
    body(odd, "Transfer-Encoding: chunked\r\n", text, verdicts)
}

/// Turns each character up to U+00FF into the byte of its value.
fn latin(mut row: Row) -> Row {
    let text = String::from_utf8(row.bytes).expect("it was made of text");
    row.bytes = text.chars().map(|c| u8::try_from(u32::from(c)).expect("up to U+00FF")).collect();
    row
}

/// All three accept it.
const ALL: [Verdict; 3] = [Taken; 3];
const NONE: [Verdict; 3] = [Refused; 3];
/// The body is truncated or its framing is broken.
const BROKEN: [Verdict; 3] = [Cut, Cut, Refused];
/// Only pingora accepts it.
const PINGORA: [Verdict; 3] = [Taken, Refused, Refused];

fn rows() -> Vec<Row> {
    [lines(), status_lines(), fields(), lengths(), chunk_framing(), without_body()].into_iter().flatten().collect()
}

fn lines() -> Vec<Row> {
    vec![
        field("nothing", "X: a\r\n", ALL),
        row("bare LF at the end of every line", "", ALL).with("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        field("bare LF at the end of one field", "X: a\n", ALL),
        row("bare LF as the empty line", "", ALL).with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok"),
        field("bare CR in a value", "X: a\rb\r\n", NONE),
        field("bare CR at the end of a field", "X: a\rY: b\r\n", NONE),
        field("two CRs at the end of a field", "X: a\r\r\n", NONE),
        row("bare CRs at the end of every line", "", NONE).with("HTTP/1.1 200 OK\rContent-Length: 2\r\rok"),
        status("one empty line before it", "\r\nHTTP/1.1 200 OK", ALL),
        status("two empty lines before it", "\r\n\nHTTP/1.1 200 OK", ALL),
        status("an empty line between an interim answer and it", "HTTP/1.1 103 H\r\n\r\n\r\nHTTP/1.1 200 OK", ALL),
        status("a CR before it", "\rHTTP/1.1 200 OK", NONE),
        row("nothing at all", "", NONE).with(""),
        row("half a head", "", NONE).with("HTTP/1.1 200 OK\r\nX: a\r\n"),
        row("a body and no head", "", NONE).with("ok"),
        latin(
            row("frames of HTTP/2", "", NONE)
                .with("\0\0\u{12}\u{4}\0\0\0\0\0\0\u{3}\0\0\0\u{64}\0\u{4}\0\0\u{ff}\u{ff}\0\u{5}\0\0\u{ff}\u{ff}"),
        ),
        row("the greeting of HTTP/2", "", NONE).with("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ]
}

fn status_lines() -> Vec<Row> {
    let interim = |line: &str, count: usize| format!("{line}\r\n\r\n").repeat(count) + "HTTP/1.1 200 OK";
    vec![
        status("no reason phrase", "HTTP/1.1 200 ", ALL),
        status("no reason phrase and no space before it", "HTTP/1.1 200", ALL),
        status("spaces in the reason phrase", "HTTP/1.1 200  All  right ", ALL),
        status("a tab in the reason phrase", "HTTP/1.1 200 All\tright", ALL),
        latin(status("bytes over 0x7F in the reason phrase", "HTTP/1.1 200 \u{e9}", ALL)),
        status("a control character in the reason phrase", "HTTP/1.1 200 a\x01b", NONE),
        status("two spaces before the status", "HTTP/1.1  200 OK", NONE),
        status("a tab before the status", "HTTP/1.1\t200 OK", NONE),
        status("a tab after the status", "HTTP/1.1 200\tOK", NONE),
        status("a space before the version", " HTTP/1.1 200 OK", NONE),
        status("no status", "HTTP/1.1", NONE),
        status("HTTP/1.0", "HTTP/1.0 200 OK", ALL),
        status("HTTP/1.2", "HTTP/1.2 200 OK", NONE),
        status("HTTP/2.0", "HTTP/2.0 200 OK", NONE),
        status("HTTP/0.9", "HTTP/0.9 200 OK", NONE),
        status("HTTP/1.10", "HTTP/1.10 200 OK", NONE),
        status("version in lower case", "http/1.1 200 OK", NONE),
        status("another protocol's status line", "ICY 200 OK", NONE),
        status("status 000", "HTTP/1.1 000 OK", NONE),
        status("status 099", "HTTP/1.1 099 OK", NONE),
        status("status 600", "HTTP/1.1 600 OK", ALL).with_status(600),
        status("status 999", "HTTP/1.1 999 OK", ALL).with_status(999),
        status("status of two digits", "HTTP/1.1 20 OK", NONE),
        status("status of four digits", "HTTP/1.1 2000 OK", NONE),
        status("sign before the status", "HTTP/1.1 +20 OK", NONE),
        status("an interim answer before it", &interim("HTTP/1.1 103 Early Hints\r\nLink: a", 1), ALL),
        status("an unexpected 100 before it", &interim("HTTP/1.1 100 Continue", 1), ALL),
        status("an unknown interim answer before it", &interim("HTTP/1.1 199 What", 1), ALL),
        status("an interim answer with a length before it", &interim("HTTP/1.1 103 H\r\nContent-Length: 5", 1), ALL),
        status(
            "an interim answer with two lengths before it",
            &interim("HTTP/1.1 103 H\r\nContent-Length: 5, 6", 1),
            NONE,
        ),
        status("sixteen interim answers before it", &interim("HTTP/1.1 103 H", 16), ALL),
        status("seventeen interim answers before it", &interim("HTTP/1.1 103 H", 17), NONE),
        status("an unrequested switch of protocols", "HTTP/1.1 101 S\r\nUpgrade: h2c", NONE),
    ]
}

fn fields() -> Vec<Row> {
    vec![
        field("folded field", "X: a\r\n b\r\n", ALL),
        field("field folded twice", "X: a\r\n\tb\r\n  c \r\n", ALL),
        field("field folded by bare LF", "X: a\n b\r\n", ALL),
        field("field folded before its value", "X:\r\n a\r\n", ALL),
        field("field folded into nothing", "X: a\r\n \r\n", ALL),
        field("control character in a fold", "X: a\r\n \x01\r\n", NONE),
        row("space before the first field", "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n", NONE),
        field("space before the colon", "X : a\r\n", ALL),
        field("tab before the colon", "X\t: a\r\n", ALL),
        row("space before the colon of its length", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n", ALL),
        field("space in a name", "X Y: a\r\n", NONE),
        field("field without a name", ": a\r\n", NONE),
        field("space for a name", "X: a\r\n : b\r\n", ALL),
        field("field without a colon", "X\r\n", NONE),
        field("second status line", "HTTP/1.1 200 OK\r\n", NONE),
        field("field without a value", "X:\r\n", ALL),
        field("field without white space", "X:a\r\n", ALL),
        latin(field("bytes over 0x7F in a name", "X\u{e9}: a\r\n", NONE)),
        latin(field("bytes over 0x7F in a value", "X: \u{80}\u{e9}\u{ff}\r\n", ALL)),
        field("NUL in a value", "X: a\0b\r\n", NONE),
        field("NUL in a name", "X\0: a\r\n", NONE),
        field("control character in a value", "X: a\x01b\r\n", NONE),
        field("DEL in a value", "X: a\x7fb\r\n", NONE),
        field("tab in a value", "X: a\tb\r\n", ALL),
        field("200 fields", &"X: a\r\n".repeat(199), ALL),
        field("201 fields", &"X: a\r\n".repeat(200), NONE),
        field("300 fields", &"X: a\r\n".repeat(299), NONE),
        field("a head of 40 KiB", &format!("Set-Cookie: {}\r\n", "x".repeat(40 << 10)), ALL),
        field("a head of 60 KiB", &format!("X: {}\r\n", "x".repeat(60 << 10)), ALL),
        field("a head of 65 KiB", &format!("X: {}\r\n", "x".repeat(65 << 10)), NONE),
        field(
            "a head that only white space makes larger than 64 KiB",
            &format!("X: {}\r\n", " ".repeat(65 << 10)),
            PINGORA,
        )
        .because(CountsNoWhiteSpace),
    ]
}

fn lengths() -> Vec<Row> {
    let both = "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n";
    let chunk = "2\r\nok\r\n0\r\n\r\n";
    vec![
        body("no length", "", "ok", ALL),
        body("two equal lengths", &"Content-Length: 2\r\n".repeat(2), "ok", ALL),
        body("two lengths that differ", "Content-Length: 2\r\nContent-Length: 3\r\n", "ok", NONE),
        length("`2, 2` as its length", " 2, 2", ALL),
        length("`2,2 ,\t02` as its length", "2,2 ,\t02 ", ALL),
        length("`2, 3` as its length", " 2, 3", NONE),
        length("`2,` as its length", " 2,", NONE),
        length("`2 2` as its length", " 2 2", NONE),
        length("`+2` as its length", " +2", NONE),
        length("`-2` as its length", " -2", NONE),
        length("`0x2` as its length", " 0x2", NONE),
        length("`2.0` as its length", " 2.0", NONE),
        length("`2;x` as its length", " 2;x", NONE),
        length("`\"2\"` as its length", " \"2\"", NONE),
        length("nothing as its length", "", NONE),
        length("`02` as its length", " 02", ALL),
        length("20 digits as its length", " 00000000000000000002", ALL),
        length("a length of 2 to the 64th", " 18446744073709551616", NONE),
        length("a folded length", "\r\n 2", ALL),
        length("a length over its body", " 3", BROKEN),
        length("a length under its body", " 2\r\nConnection: close", ALL).and("more"),
        coding("chunks in another case", "CHUNKED", ALL),
        coding("chunks folded", "\r\n\tchunked", ALL),
        coding("chunks twice", "chunked\r\nTransfer-Encoding: chunked", NONE),
        coding("`chunked, chunked` as its coding", "chunked, chunked", NONE),
        coding("`chunked,` as its coding", "chunked,", NONE),
        coding("`chunked;q=1` as its coding", "chunked;q=1", NONE),
        coding("another coding before the chunks", "gzip, chunked", NONE),
        coding("another coding in a field before the chunks", "gzip\r\nTransfer-Encoding: chunked", NONE),
        coding("another coding after the chunks", "chunked, gzip", NONE),
        coding("another coding alone", "identity", NONE),
        coding("no coding", "", NONE),
        body("a length beside chunks", both, chunk, PINGORA).because(DropsLengthsBesideChunks),
        body("a malformed length beside chunks", &both.replace('2', "x"), chunk, PINGORA)
            .because(DropsLengthsBesideChunks),
        row("chunks of HTTP/1.0", "", ALL)
            .with(&format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")),
    ]
}

fn chunk_framing() -> Vec<Row> {
    vec![
        chunks("white space before a chunk extension", "2 ; a=b\r\nok\r\n0\r\n\r\n", ALL),
        chunks("white space after a chunk's size", "2 \t\r\nok\r\n0 \r\n\r\n", ALL),
        chunks("white space before a chunk's size", " 2\r\nok\r\n0\r\n\r\n", BROKEN),
        chunks("white space in a chunk's size", "0 2\r\nok\r\n0\r\n\r\n", BROKEN),
        chunks("a chunk extension with a quoted text", "2;a=\"; b\"\r\nok\r\n0;c\r\n\r\n", ALL),
        chunks("a control character in a chunk extension", "2;a\0\r\nok\r\n0\r\n\r\n", ALL),
        chunks("bare CR in a chunk extension", "2;a\rb\r\nok\r\n0\r\n\r\n", BROKEN),
        chunks("zeros before a chunk's size", "0000000000000002\r\nok\r\n000\r\n\r\n", ALL),
        chunks("17 digits as a chunk's size", "00000000000000002\r\nok\r\n0\r\n\r\n", BROKEN),
        chunks("a chunk's size of 2 to the 64th less 1", "ffffffffffffffff\r\nok\r\n0\r\n\r\n", BROKEN),
        chunks("`0x2` as a chunk's size", "0x2\r\nok\r\n0\r\n\r\n", BROKEN),
        chunks("`+2` as a chunk's size", "+2\r\nok\r\n0\r\n\r\n", BROKEN),
        chunks("bare LF after a chunk's size", "2\nok\r\n0\r\n\r\n", BROKEN),
        chunks("bare LF after a chunk", "2\r\nok\n0\r\n\r\n", BROKEN),
        chunks("a chunk longer than its size", "2\r\nokay\r\n0\r\n\r\n", BROKEN),
        chunks("trailers", "2\r\nok\r\n0\r\nX: a\r\nContent-Length: 9\r\n\r\n", ALL),
        chunks("trailers that are no fields", "2\r\nok\r\n0\r\nno colon\r\n\x01: \0\r\n\r\n", ALL),
        chunks("bare LF after a trailer", "2\r\nok\r\n0\r\nX: a\n\r\n", BROKEN),
        chunks("bare LF as the end of the trailers", "2\r\nok\r\n0\r\n\n", BROKEN),
        chunks("no empty line at its end", "2\r\nok\r\n0\r\n", BROKEN),
        chunks("no last chunk", "2\r\nok\r\n", BROKEN),
        chunks("a last chunk without a size", "2\r\nok\r\n\r\n\r\n", [Taken, Cut, Refused])
            .because(TakesEmptyLastChunks),
        Row { text: Some(""), ..chunks("nothing in its chunks", "0\r\n\r\n", ALL) },
    ]
}

fn without_body() -> Vec<Row> {
    let (length, chunked) = ("Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n");
    let head = |odd, fields: &str, verdicts| body(odd, fields, "", verdicts).asked("HEAD", 200);
    let bare = |odd, status: u16, fields: &str| {
        row(odd, "", ALL).with(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n")).asked("GET", status)
    };
    vec![
        head("a length to HEAD", length, ALL),
        head("chunks to HEAD", chunked, ALL),
        head("a malformed length to HEAD", "Content-Length: x\r\n", NONE),
        head("another coding to HEAD", "Transfer-Encoding: gzip\r\n", NONE),
        bare("204 with a length", 204, length),
        bare("204 with chunks", 204, chunked),
        bare("304 with a length", 304, length),
        bare("304 with chunks", 304, chunked),
    ]
}

impl Row {
    /// Replaces the bytes.
    fn with(mut self, bytes: &str) -> Row {
        self.bytes = bytes.into();
        self
    }

    /// Appends these bytes.
    fn and(mut self, bytes: &str) -> Row {
        self.bytes.extend_from_slice(bytes.as_bytes());
        self
    }

    /// Gives it this status.
    fn with_status(self, status: u16) -> Row {
        Row { asked: ("GET", status), ..self }
    }

    /// Says why the general lane has a verdict of its own.
    fn because(self, why: Difference) -> Row {
        Row { why: Some(why), ..self }
    }

    /// Makes it the response to this method, without a body.
    fn asked(self, method: &'static str, status: u16) -> Row {
        Row { asked: (method, status), text: None, ..self }
    }
}

/// The rows on which the three differ, as a table for the README.
fn differences(rows: &[Row]) -> String {
    let mut text =
        String::from("| a response with | `lane = \"general\"` | otherwise | to a check |\n|---|---|---|---|\n");
    let differ = |row: &&Row| row.verdicts.iter().any(|verdict| (*verdict == Taken) != (row.verdicts[0] == Taken));
    for Row { odd, verdicts: [general, own, check], .. } in rows.iter().filter(differ) {
        let lane = |verdict: &Verdict| match verdict {
            Taken => "forwarded",
            Refused => "502",
            Cut => "connection closed",
        };
        let check = if *check == Taken { "passes" } else { "fails" };
        let _ = writeln!(text, "| {odd} | {} | {} | {check} |", lane(general), lane(own));
    }
    text
}

#[test]
fn the_general_lane_has_another_verdict_only_where_the_table_says_why() {
    for row in rows() {
        let Row { odd, verdicts: [general, own, _], why, .. } = row;
        assert_eq!(general != own, why.is_some_and(|why| why.is_in(Lane::General)), "{odd}");
    }
}

#[test]
fn the_readme_lists_the_differences_between_the_lanes() {
    let readme = include_str!("../../README.md");
    let differences = differences(&rows());
    assert!(readme.contains(&differences), "the README does not have this table:\n{differences}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_and_the_checker_accept_what_the_table_says() {
    let rows = rows();
    let origin = Origin::new().start().await;
    let mut text = pool("api", &[&origin.text()], &http_check());
    for (number, row) in rows.iter().enumerate() {
        origin.set(&format!("/{number}"), Reply::raw(&row.bytes));
        let (method, status) = row.asked;
        let expect = match row.text {
            Some(text) => format!("status = \"any\", body = {{ equals = \"{text}\" }}"),
            None => format!("status = [{status}]"),
        };
        let check = format!(
            "type = \"http\"\npath = \"/{number}\"\nmethod = \"{method}\"\ninterval = \"60s\"\ntimeout = \"20s\"\n\
             healthy_threshold = 1\nunhealthy_threshold = 1\nexpect = {{ {expect} }}\n"
        );
        text += &pool(&format!("p{number}"), &[&origin.text()], &check);
    }
    let express = Program::start_ready(&text).await;
    let general = Program::start_ready(&format!("{text}[runtime]\nlane = \"general\"\n")).await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let seen = [
            ask(general.web, row, number, "close").await,
            ask(express.web, row, number, "close").await,
            ask(express.web, row, number, "upgrade, close").await,
            checked(&express, number).await,
        ];
        let [general, own, check] = row.verdicts;
        if seen != [general, own, own, check] {
            let why = row.why.map(Difference::why);
            wrong.push(format!("{}: {seen:?}, and not {:?} ({why:?})", row.odd, row.verdicts));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    express.assert_no_panic();
    general.assert_no_panic();
}

/// What a client receives.
async fn ask(web: SocketAddr, row: &Row, number: usize, connection: &str) -> Verdict {
    let mut client = TcpStream::connect(web).await.expect("the listener accepts");
    let (method, status) = row.asked;
    // Only a GET can be an upgrade.
    let connection = if method == "GET" { connection } else { "close" };
    let request =
        format!("{method} /{number} HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\nUpgrade: websocket\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("the request is accepted");
    let mut bytes = Vec::new();
    let answer = tokio::time::timeout(PATIENCE, client.read_to_end(&mut bytes)).await;
    let ended_well = answer.unwrap_or_else(|_| panic!("{}, {connection}: it does not close", row.odd)).is_ok();
    let mut rest = &bytes[..];
    loop {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        let end = end.unwrap_or_else(|| panic!("{}, {connection}: {}", row.odd, bytes.escape_ascii()));
        let (head, after) = rest.split_at(end);
        if head.starts_with(b"HTTP/1.1 1") {
            rest = after;
            continue;
        }
        return match head.get(9..12) {
            Some(b"502") => Refused,
            Some(seen) if seen == status.to_string().as_bytes() => {
                assert_canonical(row.odd, head);
                if is_whole(method, status, head, after, ended_well) { Taken } else { Cut }
            }
            _ => panic!("{}, {connection}: {}", row.odd, bytes.escape_ascii()),
        };
    }
}

/// Whether a client can see that the response is complete.
fn is_whole(method: &str, status: u16, head: &[u8], body: &[u8], ended_well: bool) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        _ if method == "HEAD" || matches!(status, 204 | 304) => body.is_empty(),
        Some(length) => body.len() == length.parse::<usize>().expect("a number"),
        None if head.contains("transfer-encoding: chunked") => {
            let (mut chunks, mut rest) = (Chunked::new(Reading::Request), body);
            while let Ok(Step::Data(_)) = chunks.next(&mut rest) {}
            chunks.is_done() && rest.is_empty()
        }
        None => ended_well && body == b"ok",
    }
}

/// Whatever the upstream sent: each field has one line, and there is one framing.
fn assert_canonical(odd: &str, head: &[u8]) {
    let lines: Vec<&[u8]> = head.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    let names: Vec<String> = lines[1..lines.len() - 1]
        .iter()
        .map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or_else(|| panic!("{odd}: a bare LF"));
            let name = &line[..line.iter().position(|b| *b == b':').unwrap_or_else(|| panic!("{odd}: a fold"))];
            assert!(
                !name.is_empty() && !line.contains(&b'\r') && !name.contains(&b' '),
                "{odd}: {}",
                line.escape_ascii()
            );
            String::from_utf8_lossy(name).to_ascii_lowercase()
        })
        .collect();
    let ends = names.iter().filter(|name| matches!(name.as_str(), "content-length" | "transfer-encoding")).count();
    assert!(ends <= 1, "{odd}: {names:?}");
}

/// The verdict of the checker.
async fn checked(program: &Program, number: usize) -> Verdict {
    let end = Instant::now() + PATIENCE;
    loop {
        let upstream = program.pool(&format!("p{number}")).await.upstreams.remove(0);
        match upstream.state.as_str() {
            "healthy" => return Taken,
            "unhealthy" => return Refused,
            _ => assert!(Instant::now() < end, "no verdict: {upstream:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
