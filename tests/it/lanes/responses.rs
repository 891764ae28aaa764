//! What the lanes change in the head of a response, and whether they use the upstream's connection again.

use std::time::{SystemTime, UNIX_EPOCH};

use roundsman::http1::HttpDate;
use roundsman::model::policy::Lane;

use super::differences::Difference::{ReplacesDate, SaysKeepAlive};
use crate::http::rig::{Answer, Rig, get};
use crate::origin::{Origin, Reply};

/// A response of the upstream, and what a client sees of it in our own lane. In the general lane `Date` and `Connection` are
/// others: [`ReplacesDate`], [`SaysKeepAlive`].
struct Row {
    odd: &'static str,
    head: &'static str,
    status: u16,
    /// `None`: the time at which it was forwarded.
    date: Option<&'static str>,
    upgrade: Option<&'static str>,
    connection: Option<&'static str>,
    /// The connections that two requests need.
    connections: u64,
}

const TODAY: Option<&str> = Some("today");

/// As most rows are.
const PLAIN: Row = Row {
    odd: "nothing",
    head: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    status: 200,
    date: None,
    upgrade: None,
    connection: None,
    connections: 1,
};

fn rows() -> Vec<Row> {
    vec![
        PLAIN,
        Row {
            odd: "a Date",
            head: "HTTP/1.1 200 OK\r\ndate: today\r\nContent-Length: 2\r\n\r\nok",
            date: TODAY,
            ..PLAIN
        },
        Row {
            odd: "a Date after an interim answer without one",
            head: "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 2\r\n\r\nok",
            date: TODAY,
            ..PLAIN
        },
        Row { odd: "no body", head: "HTTP/1.1 204 None\r\n\r\n", status: 204, ..PLAIN },
        Row {
            odd: "a status over 599",
            head: "HTTP/1.1 600 What\r\nContent-Length: 2\r\n\r\nok",
            status: 600,
            ..PLAIN
        },
        Row {
            odd: "the largest status",
            head: "HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nok",
            status: 999,
            ..PLAIN
        },
        Row { odd: "a status under 100", head: "HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nok", status: 502, ..NEW },
        Row {
            odd: "426 with its protocols",
            head: "HTTP/1.1 426 Up\r\nUpgrade: foo/2, bar\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
            status: 426,
            upgrade: Some("foo/2, bar"),
            connection: Some("upgrade"),
            ..PLAIN
        },
        Row {
            odd: "an offer of protocols with another status",
            head: "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
            ..PLAIN
        },
        Row {
            odd: "HTTP/1.0 that keeps its connection",
            head: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            ..PLAIN
        },
        Row {
            odd: "chunks in HTTP/1.0 that would keep its connection",
            head: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            ..NEW
        },
        Row {
            odd: "chunks",
            head: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            ..PLAIN
        },
    ]
}

/// As [`PLAIN`], with a new connection for each request.
const NEW: Row = Row { connections: 2, ..PLAIN };

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_forwards_the_heads_that_the_table_says() {
    let mut wrong = Vec::new();
    for row in rows() {
        for lane in [Lane::General, Lane::Auto] {
            let date = if ReplacesDate.is_in(lane) { None } else { row.date };
            let connection = if SaysKeepAlive.is_in(lane) { Some("keep-alive") } else { row.connection };
            let origin = Origin::new().on("/x").reply(Reply::raw_kept(row.head)).start().await;
            let rig = Rig::in_lane(lane, &[&origin]);
            let mut client = rig.connect().await;
            for _ in 0..2 {
                let before = seconds();
                client.send(get("/x")).await;
                let mut answer = client.answer().await;
                while answer.status < 200 {
                    assert_eq!(answer.field("date"), None, "{}: an interim answer", row.odd);
                    answer = client.answer().await;
                }
                // An answer of our own has no Connection that a client of HTTP/1.1 would need.
                let connection = if answer.status == 502 { None } else { connection };
                let want = (row.status, row.upgrade, connection);
                let seen = (answer.status, answer.field("upgrade"), answer.field("connection"));
                if seen != want || !is_dated(&answer, date, before) {
                    wrong.push(format!("{lane:?}, {}: {answer:?}, not {want:?}", row.odd));
                }
            }
            if origin.accepted() != row.connections {
                wrong.push(format!("{lane:?}, {}: {} connections", row.odd, origin.accepted()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Whether this is its only Date, or one of the moments since `before`.
fn is_dated(answer: &Answer, date: Option<&str>, before: u64) -> bool {
    let dates: Vec<_> = answer.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("date")).collect();
    let [(_, seen)] = dates[..] else { return false };
    match date {
        Some(date) => seen == date,
        None => (before..=seconds()).any(|second| HttpDate::of(second).as_bytes() == seen.as_bytes()),
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}
