//! Which request targets the lanes forward: each row is sent through the general lane, the express lane and the tunnel (as
//! an upgrade). What the general lane refuses in addition is in [`GENERAL`], which names the [`Difference`].

use roundsman::model::policy::Lane;

use super::differences::Difference::{self, ComparesAuthorities, RefusesCharacters};
use crate::http::rig::Rig;
use crate::origin::Origin;

/// What a lane does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// The upstream gets this target and this Host.
    Sent(String, String),
    /// The client gets 400 with this line, and the upstream nothing.
    Refused(String),
}

use Seen::{Refused, Sent};

/// What the general lane refuses with 400: each with a test for target and Host.
const GENERAL: &[(Difference, &str, fn(&str, &str) -> bool)] = &[
    (RefusesCharacters, "a query with `\"`, `<` or `>`", |target, _| {
        target.split_once('?').is_some_and(|(_, query)| query.contains(['"', '<', '>']))
    }),
    (RefusesCharacters, "a path with `<`, `>` or a backtick", |target, _| {
        target.split('?').next().unwrap_or_default().contains(['<', '>', '`'])
    }),
    (ComparesAuthorities, "an absolute-form target whose authority is not spelled as in Host", |target, host| {
        let authority = target.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
        authority.is_some_and(|authority| authority != host)
    }),
];

const REFUSED: &str = "malformed request (malformed)\n";

/// A refusal that names this byte.
fn byte(byte: u8, part: &str) -> Seen {
    Refused(format!("malformed request: byte 0x{byte:02x} in the {part} (malformed)\n"))
}

/// Targets, their Host, and what our own lanes do.
fn rows() -> Vec<(String, &'static str, Seen)> {
    let mut rows = Vec::new();
    let mut row = |target: &str, host: &'static str, seen| rows.push((target.to_owned(), host, seen));
    for char in (0x21..=0x7e).map(char::from).filter(|char| !char.is_ascii_alphanumeric()) {
        let (path, query) = (format!("/a{char}b"), format!("/?a{char}b"));
        let sent = |target: &str| Sent(target.to_owned(), "a".to_owned());
        let in_path = match char {
            '\\' | '#' => byte(char as u8, "path"),
            '%' => Refused(REFUSED.to_owned()),
            _ => sent(&path),
        };
        row(&path, "a", in_path);
        row(&query, "a", if char == '#' { byte(b'#', "query") } else { sent(&query) });
    }
    for char in ['\u{80}', '\u{e9}', '\u{ffff}', '\u{1f600}', '\u{7f}', '\u{1}', '\t'] {
        let first = char.to_string().as_bytes()[0];
        row(&format!("/a{char}b"), "a", byte(first, "path"));
        row(&format!("/?a{char}b"), "a", byte(first, "query"));
        row(&format!("http://a/{char}"), "a", byte(first, "target"));
    }
    let filter = "/s?filter={\"state\":\"up\"}";
    row(filter, "a", Sent(filter.to_owned(), "a".to_owned()));
    row("http://a.example/b\\c", "a.example", byte(b'\\', "path"));
    // The Host that goes upstream is the one of the Host field.
    for (target, host, sent) in [
        ("http://a.example/x?y", "a.example", "/x?y"),
        ("http://a.example/x", "A.EXAMPLE", "/x"),
        ("http://A.Example/x", "a.example", "/x"),
        ("HTTP://a.example:80/x", "a.example", "/x"),
        ("http://a.example/x", "a.example:80", "/x"),
        ("http://a.example:/x", "a.example.:80", "/x"),
        ("http://a.example./x", "a.example", "/x"),
        ("http://a.example/x", "a.example.", "/x"),
        ("https://a.example/x", "a.example:443", "/x"),
        ("http://a.example?x", "a.example", "/?x"),
        ("http://a.example", "a.example", "/"),
        ("http://a.example/{|}?<`>", "a.example", "/{|}?<`>"),
        ("http://[::1]/x", "[::1]:80", "/x"),
    ] {
        row(target, host, Sent(sent.to_owned(), host.to_owned()));
    }
    for (target, host) in [
        ("http://a.example/x", "b.example"),
        ("http://a.example:81/x", "a.example"),
        ("https://a.example/x", "a.example:80"),
        ("http://a.example../x", "a.example"),
        ("http://u@a.example/x", "a.example"),
        ("http://[fe80::1%25eth0]/x", "[fe80::1%25eth0]"),
        ("/x", "[fe80::1%25eth0]"),
    ] {
        row(target, host, Refused(REFUSED.to_owned()));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_forwards_the_targets_that_the_table_says() {
    let origin = Origin::plain("a").await;
    let general = Rig::in_lane(Lane::General, &[&origin]);
    let express = Rig::in_lane(Lane::Auto, &[&origin]);
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let rows = rows();
    let mut wrong = Vec::new();
    for (target, host, own) in &rows {
        let narrower = match own {
            Sent(..) if GENERAL.iter().any(|(_, _, refuses)| refuses(target, host)) => &Refused(REFUSED.to_owned()),
            Sent(..) | Refused(_) => own,
        };
        for (lane, rig, fields, want) in
            [("general", &general, "", narrower), ("express", &express, "", own), ("tunnel", &express, upgrade, own)]
        {
            let seen = ask(rig, &origin, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await;
            if seen != *want {
                wrong.push(format!("{lane}: {target:?} of {host}: {seen:?}, not {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    let readme = include_str!("../../../README.md");
    for (difference, what, refuses) in GENERAL {
        assert!(readme.contains(what), "the README does not mention {what}, although {}", difference.why());
        let met = |(target, host, own): &(String, &str, Seen)| refuses(target, host) && matches!(own, Sent(..));
        assert!(rows.iter().any(met), "no row has {what}");
    }
}

async fn ask(rig: &Rig, origin: &Origin, bytes: &str) -> Seen {
    origin.forget();
    let answer = rig.ask(bytes).await;
    let mut requests = origin.all_requests();
    match (answer.status, requests.len()) {
        (200, 1) => {
            let request = requests.remove(0);
            Sent(request.target.clone(), request.values("host").join(", "))
        }
        (400, 0) => Refused(answer.text()),
        other => panic!("{bytes:?}: {other:?}"),
    }
}
