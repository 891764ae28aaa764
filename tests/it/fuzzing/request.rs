//! What must hold for the head of a request, whatever its bytes are: it is read the same in any pieces; if it is accepted,
//! what goes upstream is canonical, means the same, and claims nothing about the client. Shared with the fuzz target
//! `request`.

use std::net::IpAddr;

use roundsman::exchange::{Facts, Framing, RequestEdits, Scheme, judge};
use roundsman::http1::{Fault, Head, HeadReader, Known, Limits};

use super::strict;

const CLIENT: &str = "192.0.2.1";
const UPSTREAM: &str = "10.0.0.7:80";

/// Fields that must not go upstream as a client sent them: framing between two hops, and claims about the client.
const OURS: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "http2-settings",
    "proxy-authorization",
    "proxy-authenticate",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
];

/// In pieces that depend on the bytes.
pub fn holds(bytes: &[u8]) {
    let cuts: Vec<usize> = bytes.iter().rev().take(16).map(|byte| usize::from(*byte) % 48 + 1).collect();
    holds_in_pieces(bytes, &cuts);
}

/// In pieces of these lengths, repeated.
pub fn holds_in_pieces(bytes: &[u8], cuts: &[usize]) {
    let whole = accepted(bytes, &[]);
    for cuts in [&[1][..], cuts] {
        let again = accepted(bytes, cuts);
        assert_eq!(whole.is_ok(), again.is_ok(), "cut by {cuts:?}: {whole:?}, {again:?}: {}", bytes.escape_ascii());
        if whole.is_ok() {
            assert_eq!(whole, again, "cut by {cuts:?}: {}", bytes.escape_ascii());
        }
    }
    let Ok(Some(length)) = whole else { return };
    let mut reader = HeadReader::default();
    let head = reader.read(bytes, &Limits::REQUEST).expect("it was accepted").expect("it is whole");
    assert_eq!(head.len, length);
    let Ok(facts) = judge(&head) else { return };
    rewritten(bytes, &head, &facts);
}

/// The length of the head; `None`: it is not whole.
fn accepted(bytes: &[u8], cuts: &[usize]) -> Result<Option<usize>, Fault> {
    let mut reader = HeadReader::default();
    let mut lengths = cuts.iter().cycle();
    let mut end = 0;
    loop {
        end = lengths.next().map_or(bytes.len(), |cut| end + (*cut).max(1)).min(bytes.len());
        if let Some(head) = reader.read(&bytes[..end], &Limits::REQUEST)? {
            return Ok(Some(head.len));
        }
        if end == bytes.len() {
            return Ok(None);
        }
    }
}

/// The name of a protocol. Case says nothing in that of WebSocket (RFC 6455, 4.2.1), and it is sent in the usual one.
fn protocol(name: &[u8]) -> Vec<u8> {
    if name.eq_ignore_ascii_case(b"websocket") { b"websocket".to_vec() } else { name.to_vec() }
}

fn rewritten(bytes: &[u8], head: &Head<'_>, facts: &Facts<'_>) {
    let shown = bytes.escape_ascii();
    let client: IpAddr = CLIENT.parse().expect("an address");
    let mut edits = RequestEdits::of_client(Some(client), Scheme::Http);
    edits.begin(head, facts);
    edits.aim(&UPSTREAM.parse().expect("an address"));
    let mut out = Vec::new();
    edits.write_to(head, &mut out);
    let strict = strict::request(&out).unwrap_or_else(|why| panic!("{why}: {shown}\n{}", out.escape_ascii()));
    assert_eq!(strict.line, format!("{} {} HTTP/1.1", head.method, facts.target), "{shown}");
    let framing = match strict.framing().unwrap_or_else(|why| panic!("{why}: {shown}")) {
        None => Framing::None,
        Some(strict::Framing::Length(length)) => Framing::Length(length),
        Some(strict::Framing::Chunked) => Framing::Chunked,
    };
    assert_eq!(framing, facts.framing, "{shown}");
    assert_eq!(strict.all("host"), [facts.authority.unwrap_or(UPSTREAM)], "{shown}");
    assert_eq!(strict.all("x-forwarded-for"), [CLIENT], "{shown}");
    assert_eq!(strict.all("x-forwarded-proto"), ["http"], "{shown}");
    assert_eq!(strict.all("x-forwarded-host"), facts.authority.into_iter().collect::<Vec<_>>(), "{shown}");
    let upgrade = facts.upgrade.map(|_| "Upgrade");
    assert_eq!(strict.all("connection"), upgrade.into_iter().collect::<Vec<_>>(), "{shown}");
    let ours = |name: &str| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        OURS.contains(&name.as_str()) || name == "host"
    };
    for (name, _) in &strict.fields {
        let lower = name.to_ascii_lowercase();
        let known = matches!(
            lower.as_str(),
            "host" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "connection" | "upgrade"
        );
        assert!(known || !ours(name), "{name}: {shown}");
    }
    // Everything else goes as it came, in its order.
    let mut came = head.fields.iter();
    for (name, value) in strict.fields.iter().filter(|(name, _)| !ours(name)) {
        let same = came.by_ref().any(|field| {
            let value_came = strict::latin(field.value);
            let coding = field.known == Known::TransferEncoding && value_came.eq_ignore_ascii_case(value);
            strict::latin(field.name) == *name && (value_came == *value || coding)
        });
        assert!(same, "{name}: {value:?} did not come, or in another order: {shown}");
    }
    // Our own reader takes it in the same sense.
    let mut reader = HeadReader::default();
    let limits = Limits { head_bytes: 1 << 16, fields: 200, ..Limits::REQUEST };
    let again = reader.read(&out, &limits).unwrap_or_else(|why| panic!("{why}: {shown}")).expect("it is whole");
    let again = judge(&again).unwrap_or_else(|refusal| panic!("{}: {shown}", refusal.why));
    let means = |facts: &Facts<'_>| (facts.method, facts.path.to_string(), facts.framing, facts.upgrade.map(protocol));
    assert_eq!(means(&again), means(facts), "{shown}");
}
