//! The heads of answers, as three parsers judge them: pingora's in the general lane, ours in the tunnel lane (what an
//! upgrade is answered with), the checker's in a probe. Where they differ, the README says so, row for row: a row that is
//! right no more fails here, and so does one that is missing there.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::origin::{Origin, Reply};
use crate::program::{Program, QUICK, pool};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a parser makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The client gets it, the probe passes.
    Taken,
    /// The client gets 502, the probe fails.
    Refused,
    /// The client gets the head and no more: the body came to no end.
    Cut,
}

use Verdict::{Cut, Refused, Taken};

/// One answer: what is odd about it, its bytes, and the verdicts of general lane, tunnel lane and checker.
struct Row {
    odd: &'static str,
    bytes: Vec<u8>,
    verdicts: [Verdict; 3],
}

/// An answer with this first line and these fields, each with its line end, and the body `ok`.
fn row(odd: &'static str, head: &str, verdicts: [Verdict; 3]) -> Row {
    Row { odd, bytes: format!("{head}\r\nok").into_bytes(), verdicts }
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
    Row { odd, bytes: format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}").into_bytes(), verdicts }
}

/// Every byte is itself, so that a text can hold any.
fn latin(mut row: Row) -> Row {
    let text = String::from_utf8(row.bytes).expect("it was made of text");
    row.bytes = text.chars().map(|c| u8::try_from(u32::from(c)).expect("up to U+00FF")).collect();
    row
}

fn rows() -> Vec<Row> {
    const ALL: [Verdict; 3] = [Taken; 3];
    const NONE: [Verdict; 3] = [Refused; 3];
    let chunks = "Transfer-Encoding: chunked\r\n";
    let length = "Content-Length: 2\r\n";
    vec![
        field("nothing", "X: a\r\n", ALL),
        // Lines.
        body("bare LF at the end of every line", "", "", [Taken, Refused, Taken])
            .with("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        field("bare LF at the end of one field", "X: a\n", [Taken, Refused, Taken]),
        field("bare LF as the empty line", "X: a\r\n", [Taken, Refused, Taken])
            .with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok"),
        field("bare CR in a value", "X: a\rb\r\n", NONE),
        field("bare CR at the end of a field", "X: a\rY: b\r\n", NONE),
        status("one empty line before it", "\r\nHTTP/1.1 200 OK", [Taken, Refused, Refused]),
        status("two empty lines before it", "\r\n\r\nHTTP/1.1 200 OK", [Taken, Refused, Refused]),
        // Status lines.
        status("no reason phrase", "HTTP/1.1 200 ", ALL),
        status("no reason phrase and no space before it", "HTTP/1.1 200", ALL),
        status("two spaces before the status", "HTTP/1.1  200 OK", NONE),
        status("a tab before the status", "HTTP/1.1\t200 OK", NONE),
        status("a space before the version", " HTTP/1.1 200 OK", NONE),
        latin(status("bytes over 0x7F in the reason phrase", "HTTP/1.1 200 \u{e9}", ALL)),
        status("a control character in the reason phrase", "HTTP/1.1 200 a\x01b", NONE),
        status("HTTP/1.0", "HTTP/1.0 200 OK", ALL),
        status("HTTP/1.2", "HTTP/1.2 200 OK", NONE),
        status("HTTP/2.0", "HTTP/2.0 200 OK", NONE),
        status("version in lower case", "http/1.1 200 OK", NONE),
        status("status 099", "HTTP/1.1 099 OK", NONE),
        status("status 600", "HTTP/1.1 600 OK", NONE),
        status("status of two digits", "HTTP/1.1 20 OK", NONE),
        status("status of four digits", "HTTP/1.1 2000 OK", NONE),
        status("sign before the status", "HTTP/1.1 +20 OK", NONE),
        status("seventeen interim answers before it", &("HTTP/1.1 103 H\r\n\r\n".repeat(17) + "HTTP/1.1 200 OK"), NONE),
        status("a switch of protocols that nobody asked for", "HTTP/1.1 101 S\r\nUpgrade: h2c", NONE),
        // Fields.
        field("folded field", "X: a\r\n b\r\n", [Taken, Refused, Refused]),
        row("space before the first field", "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n", NONE),
        field("space before the colon", "X : a\r\n", [Taken, Refused, Refused]),
        field("space in a name", "X Y: a\r\n", NONE),
        field("field without a name", ": a\r\n", NONE),
        field("field without a colon", "X\r\n", NONE),
        field("field without a value", "X:\r\n", ALL),
        latin(field("bytes over 0x7F in a name", "X\u{e9}: a\r\n", NONE)),
        latin(field("bytes over 0x7F in a value", "X: \u{80}\u{e9}\u{ff}\r\n", ALL)),
        field("NUL in a value", "X: a\0b\r\n", NONE),
        field("control character in a value", "X: a\x01b\r\n", NONE),
        field("DEL in a value", "X: a\x7fb\r\n", NONE),
        field("tab in a value", "X: a\tb\r\n", ALL),
        field("200 fields", &"X: a\r\n".repeat(199), ALL),
        field("201 fields", &"X: a\r\n".repeat(200), [Refused, Refused, Taken]),
        field("300 fields", &"X: a\r\n".repeat(299), NONE),
        field("a head of 60 KiB", &format!("X: {}\r\n", "x".repeat(60 << 10)), [Taken, Taken, Refused]),
        field("a head of 65 KiB", &format!("X: {}\r\n", "x".repeat(65 << 10)), NONE),
        // Where it ends.
        body("a length beside chunks", &format!("{length}{chunks}"), "2\r\nok\r\n0\r\n\r\n", [Taken, Refused, Taken]),
        body("two equal lengths", &length.repeat(2), "ok", [Refused, Refused, Taken]),
        body("two lengths that differ", "Content-Length: 2\r\nContent-Length: 3\r\n", "ok", NONE),
        body("`2, 2` as its length", "Content-Length: 2, 2\r\n", "ok", [Refused, Refused, Taken]),
        body("`+2` as its length", "Content-Length: +2\r\n", "ok", NONE),
        body("`0x2` as its length", "Content-Length: 0x2\r\n", "ok", NONE),
        body("`-2` as its length", "Content-Length: -2\r\n", "ok", NONE),
        body("nothing as its length", "Content-Length:\r\n", "ok", NONE),
        body("`02` as its length", "Content-Length: 02\r\n", "ok", ALL),
        body("chunks twice", &chunks.repeat(2), "2\r\nok\r\n0\r\n\r\n", [Refused, Refused, Taken]),
        body("chunks in another case", "transfer-encoding: CHUNKED\r\n", "2\r\nok\r\n0\r\n\r\n", ALL),
        body(
            "another coding before the chunks",
            "Transfer-Encoding: gzip, chunked\r\n",
            "2\r\nok\r\n0\r\n\r\n",
            [Refused, Refused, Taken],
        ),
        body("another coding alone", "Transfer-Encoding: identity\r\n", "ok", [Refused, Refused, Taken]),
        body("chunks of HTTP/1.0", chunks, "2\r\nok\r\n0\r\n\r\n", ALL)
            .with("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        body("white space before a chunk extension", chunks, "2 ;a=b\r\nok\r\n0\r\n\r\n", [Taken, Cut, Refused]),
        body("bare LF after a chunk's size", chunks, "2\nok\r\n0\r\n\r\n", [Cut, Cut, Refused]),
        body("`0x2` as a chunk's size", chunks, "0x2\r\nok\r\n0\r\n\r\n", [Cut, Cut, Refused]),
        body("trailers", chunks, "2\r\nok\r\n0\r\nX: a\r\n\r\n", ALL),
        body("no length", "", "ok", ALL),
    ]
}

impl Row {
    /// These bytes instead.
    fn with(mut self, bytes: &str) -> Row {
        self.bytes = bytes.into();
        self
    }
}

/// The rows that one of the three takes and another does not, as the README has them.
fn differences(rows: &[Row]) -> String {
    let mut text = String::from("| an answer with | to a request | to an upgrade | to a check |\n|---|---|---|---|\n");
    let differ = |row: &&Row| row.verdicts.iter().any(|verdict| (*verdict == Taken) != (row.verdicts[0] == Taken));
    for Row { odd, verdicts: [general, tunnel, check], .. } in rows.iter().filter(differ) {
        let lane = |verdict: &Verdict| match verdict {
            Taken => "passed on",
            Refused => "502",
            Cut => "broken off",
        };
        let check = if *check == Taken { "passes" } else { "fails" };
        let _ = writeln!(text, "| {odd} | {} | {} | {check} |", lane(general), lane(tunnel));
    }
    text
}

#[test]
fn the_readme_lists_the_differences_between_the_lanes() {
    let readme = include_str!("../../README.md");
    let differences = differences(&rows());
    assert!(readme.contains(&differences), "the README does not have this table:\n{differences}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heads_of_answers_are_judged_as_the_table_says() {
    let rows = rows();
    let origin = Origin::new().start().await;
    let mut text = pool("api", &[&origin.text()], &format!("type = \"http\"\npath = \"/healthz\"\n{QUICK}"));
    for (number, row) in rows.iter().enumerate() {
        origin.set(&format!("/{number}"), Reply::raw(&row.bytes));
        let check = format!(
            "type = \"http\"\npath = \"/{number}\"\ninterval = \"60s\"\ntimeout = \"20s\"\n\
             healthy_threshold = 1\nunhealthy_threshold = 1\nexpect = {{ body = {{ contains = \"ok\" }} }}\n"
        );
        text += &pool(&format!("p{number}"), &[&origin.text()], &check);
    }
    let program = Program::start_ready(&text).await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let (general, tunnel) = (ask(program.web, number, "close").await, ask(program.web, number, "upgrade").await);
        let seen = [general, tunnel, checked(&program, number).await];
        if seen != row.verdicts {
            wrong.push(format!("{}: {seen:?}, and not {:?}", row.odd, row.verdicts));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    program.assert_no_panic();
}

/// What a client gets that asks so.
async fn ask(web: SocketAddr, number: usize, connection: &str) -> Verdict {
    let mut client = TcpStream::connect(web).await.expect("the listener accepts");
    let request =
        format!("GET /{number} HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\nUpgrade: websocket\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("it takes a request");
    let mut bytes = Vec::new();
    let answer = tokio::time::timeout(PATIENCE, client.read_to_end(&mut bytes)).await;
    // However it ends: a 502 is to be seen, and the body of an answer that is passed on.
    let _ = answer.expect("it answers and closes");
    let mut rest = &bytes[..];
    while rest.starts_with(b"HTTP/1.1 1") {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole interim head");
        rest = &rest[end + 4..];
    }
    let text = String::from_utf8_lossy(rest);
    match text.get(9..12) {
        Some("502") => Refused,
        Some("200") if text.contains("ok") => Taken,
        Some("200") if text.ends_with("\r\n\r\n") => Cut,
        _ => panic!("row {number}, {connection}: {:?}", String::from_utf8_lossy(&bytes)),
    }
}

/// What the checker makes of it.
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
