//! Reads HTTP/1.x heads from bytes, strictly: what this accepts has one reading only. Says what stands there; what it
//! means is for `judge` and `response`.
//!
//! Lines end in CRLF and nothing else; one empty line before a request is skipped (RFC 9112, 2.2). A head that breaks a
//! rule is refused as soon as the line that breaks it is there, so that its sender need not wait for a deadline.

pub mod fields;

pub use fields::{Field, Fields, Known};

use super::answer::Refusal;
use super::limits;
use crate::pool::AnswerReason;
use fields::{is_token, is_visible};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, from the first to the empty line inclusive; at most 65,536.
    pub head_bytes: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

impl Limits {
    /// What clients may send.
    pub const REQUEST: Limits =
        Limits { head_bytes: limits::HEAD_BYTES, fields: limits::HEAD_FIELDS, target_bytes: limits::TARGET_BYTES };
    /// What upstreams may send.
    pub const RESPONSE: Limits =
        Limits { head_bytes: limits::RESPONSE_HEAD_BYTES, fields: limits::RESPONSE_HEAD_FIELDS, target_bytes: 0 };
}

/// The versions we speak with clients and upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A whole request head, borrowed from the bytes it was read from.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    /// A token without lower-case letters, at most 32 bytes.
    pub method: &'a str,
    /// Visible ASCII, not empty; not judged yet.
    pub target: &'a str,
    /// Its version.
    pub version: Version,
    /// Its fields, in order.
    pub fields: Fields<'a>,
    /// Bytes of the head, a skipped empty line before it and the empty line after it included.
    pub len: usize,
}

/// A whole response head, borrowed from the bytes it was read from.
#[derive(Debug, Clone)]
pub struct ResponseHead<'a> {
    /// The upstream's version.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: &'a [u8],
    /// Its fields, in order.
    pub fields: Fields<'a>,
    /// Bytes of the head, the empty line after it included.
    pub len: usize,
}

/// Reads a request head. `None`: more bytes are needed. Reads from the start each time: use [`HeadReader`] where bytes
/// arrive piece by piece.
pub fn parse<'a>(buf: &'a [u8], limits: &Limits) -> Result<Option<Head<'a>>, Refusal> {
    let start = match buf {
        [b'\r', b'\n', ..] => 2,
        [b'\r'] | [] => return Ok(None),
        _ => 0,
    };
    let Some((line, next)) = line_at(buf, start)? else {
        return partial_request_line(&buf[start..], limits).and(too_large(buf, limits)).map(|()| None);
    };
    let (method, target, version) = request_line(line, limits)?;
    let Some((fields, len)) = Fields::parse(buf, next, limits)? else { return too_large(buf, limits).map(|()| None) };
    Ok(Some(Head { method, target, version, fields, len }))
}

/// Reads a response head. `None`: more bytes are needed. Every refusal has the reason `BadResponse`.
pub fn parse_response<'a>(buf: &'a [u8], limits: &Limits) -> Result<Option<ResponseHead<'a>>, Refusal> {
    parse_any_response(buf, limits).map_err(|refusal| Refusal { reason: AnswerReason::BadResponse, ..refusal })
}

/// Reads a request head whose bytes arrive piece by piece, and reads it again only when a line has ended: the work stays
/// in proportion to the head even where every byte comes alone.
#[derive(Debug, Default, Clone, Copy)]
pub struct HeadReader {
    seen: usize,
}

impl HeadReader {
    /// `buf` is everything that has arrived of this head. After a whole head begin with a new reader.
    pub fn read<'a>(&mut self, buf: &'a [u8], limits: &Limits) -> Result<Option<Head<'a>>, Refusal> {
        // From one byte back: what follows a CR matters.
        let fresh = &buf[self.seen.saturating_sub(1).min(buf.len())..];
        // The first bytes are always looked at (what is no method may have no line end: a TLS greeting), and so is what
        // may exceed a limit.
        let worth = self.seen <= limits::METHOD_BYTES + 2
            || memchr::memchr2(b'\r', b'\n', fresh).is_some()
            || (self.seen <= limits.target_bytes && buf.len() > limits.target_bytes)
            || buf.len() >= limits.head_bytes;
        self.seen = buf.len();
        if worth { parse(buf, limits) } else { Ok(None) }
    }
}

/// The line that begins at `start`, without its CRLF, and where the next begins. `None`: it has no end yet.
fn line_at(buf: &[u8], start: usize) -> Result<Option<(&[u8], usize)>, Refusal> {
    let rest = &buf[start..];
    let Some(end) = memchr::memchr(b'\n', rest) else {
        // A CR that something else follows can never become a line end.
        return match memchr::memchr(b'\r', rest) {
            Some(at) if at + 1 < rest.len() => Err(Refusal::malformed("a CR without LF")),
            Some(_) | None => Ok(None),
        };
    };
    match end.checked_sub(1) {
        Some(before) if rest[before] == b'\r' => Ok(Some((&rest[..before], start + end + 1))),
        Some(_) | None => Err(Refusal::malformed("a line that ends in a bare LF")),
    }
}

fn too_large(buf: &[u8], limits: &Limits) -> Result<(), Refusal> {
    if buf.len() >= limits.head_bytes {
        return Err(Refusal::new(AnswerReason::HeadTooLarge, "the head is too large"));
    }
    Ok(())
}

/// Method, target and version of a request line.
fn request_line<'a>(line: &'a [u8], limits: &Limits) -> Result<(&'a str, &'a str, Version), Refusal> {
    let method = method(line)?;
    let rest = line.get(method.len() + 1..).unwrap_or_default();
    let space = memchr::memchr(b' ', rest);
    let target = &rest[..space.unwrap_or(rest.len())];
    if target.len() > limits.target_bytes {
        return Err(Refusal::new(AnswerReason::TargetTooLong, "the target is too long"));
    }
    let Some(space) = space else { return Err(Refusal::malformed("a request line without a version")) };
    if target.is_empty() || !is_visible(target) {
        return Err(Refusal::malformed("a target that is not visible ASCII"));
    }
    let target = std::str::from_utf8(target).map_err(|_| Refusal::malformed("a target that is not visible ASCII"))?;
    Ok((method, target, version(&rest[space + 1..])?))
}

/// What can be said of a request line whose end has not arrived.
fn partial_request_line(line: &[u8], limits: &Limits) -> Result<(), Refusal> {
    if !line.contains(&b' ') {
        if line.len() > limits::METHOD_BYTES || !is_method(line.strip_suffix(b"\r").unwrap_or(line)) {
            return Err(Refusal::malformed("a method that is no token, too long or lower-case"));
        }
        return Ok(());
    }
    let method = method(line)?;
    let rest = &line[method.len() + 1..];
    let target = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    if target > limits.target_bytes {
        return Err(Refusal::new(AnswerReason::TargetTooLong, "the target is too long"));
    }
    Ok(())
}

fn method(line: &[u8]) -> Result<&str, Refusal> {
    let bad = Refusal::malformed("a method that is no token, too long or lower-case");
    let end = memchr::memchr(b' ', line).ok_or(bad)?;
    let method = &line[..end];
    if method.is_empty() || method.len() > limits::METHOD_BYTES || !is_method(method) {
        return Err(bad);
    }
    std::str::from_utf8(method).map_err(|_| bad)
}

/// Methods are case-sensitive and every registered one is upper-case: `get` is a mistake that upstreams read differently.
fn is_method(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| is_token(*b) && !b.is_ascii_lowercase())
}

fn version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refusal::new(AnswerReason::Version, "a version other than HTTP/1.0 and HTTP/1.1"))
        }
        _ => Err(Refusal::malformed("a request line without a version")),
    }
}

fn parse_any_response<'a>(buf: &'a [u8], limits: &Limits) -> Result<Option<ResponseHead<'a>>, Refusal> {
    let Some((line, next)) = line_at(buf, 0)? else { return too_large(buf, limits).map(|()| None) };
    let (version, status, reason) = status_line(line)?;
    let Some((fields, len)) = Fields::parse(buf, next, limits)? else { return too_large(buf, limits).map(|()| None) };
    Ok(Some(ResponseHead { version, status, reason, fields, len }))
}

fn status_line(line: &[u8]) -> Result<(Version, u16, &[u8]), Refusal> {
    let bad = Refusal::malformed("a malformed status line");
    let (start, rest) = line.split_at_checked(9).ok_or(bad)?;
    let (start, space) = start.split_at(8);
    let version = version(start)?;
    let (code, reason) = rest.split_at_checked(3).ok_or(bad)?;
    if space != b" " || !code.iter().all(u8::is_ascii_digit) || code[0] == b'0' {
        return Err(bad);
    }
    let reason = match reason {
        [] => reason,
        [b' ', text @ ..] if fields::is_value(text) => text,
        _ => return Err(bad),
    };
    let status = code.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    Ok((version, status, reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use AnswerReason::{BadResponse, HeadTooLarge, Malformed, TargetTooLong};

    fn read(bytes: &[u8]) -> Result<Option<usize>, AnswerReason> {
        parse(bytes, &Limits::REQUEST).map(|head| head.map(|head| head.len)).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_head_is_taken_apart_and_what_follows_it_is_left() {
        let bytes = b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nx-pad: \t v w\t \r\n\r\nbody";
        let head = parse(bytes, &Limits::REQUEST).unwrap().unwrap();
        assert_eq!((head.method, head.target, head.version), ("POST", "/a?b=c", Version::Http11));
        assert_eq!(head.len, bytes.len() - 4);
        let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
        assert_eq!(fields, [(&b"Host"[..], &b"a"[..]), (b"X-Empty", b""), (b"x-pad", b"v w")]);
        assert_eq!(head.fields.all(Known::Host).collect::<Vec<_>>(), [b"a"]);
        assert_eq!((head.fields.len(), head.fields.is_empty()), (3, false));
    }

    #[test]
    fn what_stands_in_a_head_is_refused_unless_it_has_one_reading() {
        let ok = |text: &str| Ok(Some(text.len()));
        for (text, want) in [
            ("GET / HTTP/1.1\r\n\r\n", ok("GET / HTTP/1.1\r\n\r\n")),
            ("GET / HTTP/1.0\r\n\r\n", ok("GET / HTTP/1.0\r\n\r\n")),
            ("M-SEARCH * HTTP/1.1\r\n\r\n", ok("M-SEARCH * HTTP/1.1\r\n\r\n")),
            ("GET / HTTP/1.1\r\nA: \u{e9}\r\n\r\n", ok("GET / HTTP/1.1\r\nA: \u{e9}\r\n\r\n")),
            ("", Ok(None)),
            ("\r", Ok(None)),
            ("\r\n", Ok(None)),
            ("G", Ok(None)),
            ("GET / HT", Ok(None)),
            ("GET / HTTP/1.1\r", Ok(None)),
            ("GET / HTTP/1.1\r\nA: b\r\n\r", Ok(None)),
            // Line ends.
            ("GET / HTTP/1.1\nHost: a\n\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Err(Malformed)),
            ("GET / HTTP/1.1\rHost: a\r\r", Err(Malformed)),
            ("GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", Err(Malformed)),
            ("\n", Err(Malformed)),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("\rGET / HTTP/1.1\r\n\r\n", Err(Malformed)),
            // Field lines.
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nA: b\r\n\tc: d\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nH(st: a\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nH\u{e9}: a\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nA: b\x0bc\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1\r\nA: b\x7fc\r\n\r\n", Err(Malformed)),
            // Request lines.
            ("GET /\r\n\r\n", Err(Malformed)),
            ("GET\r\n", Err(Malformed)),
            ("GET  / HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("GET /  HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("GET / HTTP/1.1 \r\n\r\n", Err(Malformed)),
            ("GET /a b HTTP/1.1\r\n\r\n", Err(Malformed)),
            (" GET / HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("GET\tx HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("GET\t/ ", Err(Malformed)),
            ("get / HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("ge", Err(Malformed)),
            ("G@T / HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("GET /\u{e9} HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("GET /\x01 HTTP/1.1\r\n\r\n", Err(Malformed)),
            ("\x16\x03\x01\x02", Err(Malformed)),
            // Versions.
            ("GET / HTTP/0.9\r\n\r\n", Err(AnswerReason::Version)),
            ("GET / HTTP/1.2\r\n\r\n", Err(AnswerReason::Version)),
            ("GET / HTTP/2.0\r\n\r\n", Err(AnswerReason::Version)),
            ("GET / HTTP/3.0\r\n\r\n", Err(AnswerReason::Version)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(AnswerReason::Version)),
            ("GET / HTTP/11\r\n\r\n", Err(Malformed)),
            ("GET / http/1.1\r\n\r\n", Err(Malformed)),
            ("GET / HTTPS/1.1\r\n\r\n", Err(Malformed)),
        ] {
            assert_eq!(read(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_too_large_is_told_from_what_is_malformed() {
        let get = |target: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(target - 1));
        let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n));
        let padded = |len: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(len - 23));
        for (text, want) in [
            (get(16 * 1024), Ok(Some(16 * 1024 + 17))),
            (get(16 * 1024 + 1), Err(TargetTooLong)),
            (get(1024 * 1024), Err(TargetTooLong)),
            (format!("GET /{}", "a".repeat(16 * 1024)), Err(TargetTooLong)),
            (fields(100), Ok(Some(618))),
            (fields(101), Err(HeadTooLarge)),
            (fields(257), Err(HeadTooLarge)),
            (fields(10_000), Err(HeadTooLarge)),
            (padded(32 * 1024), Ok(Some(32 * 1024))),
            (padded(32 * 1024 + 1), Err(HeadTooLarge)),
            (padded(100 * 1024), Err(HeadTooLarge)),
            (padded(100 * 1024)[..32 * 1024].into(), Err(HeadTooLarge)),
            (format!("{} / HTTP/1.1\r\n\r\n", "A".repeat(33)), Err(Malformed)),
            ("A".repeat(33), Err(Malformed)),
            ("A".repeat(100_000), Err(Malformed)),
        ] {
            assert_eq!(read(text.as_bytes()), want, "{}... of {}", &text[..20], text.len());
        }
    }

    #[test]
    fn a_response_head_is_read_by_the_same_rules() {
        let read = |bytes: &[u8]| {
            let head = parse_response(bytes, &Limits::RESPONSE).map_err(|refusal| refusal.reason)?;
            Ok(head.map(|head| (head.status, String::from_utf8_lossy(head.reason).into_owned(), head.fields.len())))
        };
        let many = |n: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(n));
        for (text, want) in [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Ok(Some((200, "OK".into(), 1)))),
            ("HTTP/1.1 200\r\n\r\n", Ok(Some((200, String::new(), 0)))),
            ("HTTP/1.0 404 \r\n\r\n", Ok(Some((404, String::new(), 0)))),
            ("HTTP/1.1 200 O", Ok(None)),
            (&many(200), Ok(Some((200, "OK".into(), 200)))),
            (&many(201), Err(BadResponse)),
            ("HTTP/1.1 20 OK\r\n\r\n", Err(BadResponse)),
            ("HTTP/1.1 099 OK\r\n\r\n", Err(BadResponse)),
            ("HTTP/1.1 2000 OK\r\n\r\n", Err(BadResponse)),
            ("HTTP/1.1 200OK\r\n\r\n", Err(BadResponse)),
            ("HTTP/2.0 200 OK\r\n\r\n", Err(BadResponse)),
            ("HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\n\r\n", Err(BadResponse)),
            ("HTTP/1.1 200 OK\n\n", Err(BadResponse)),
            ("HTTP/1.1 200 O\x01K\r\n\r\n", Err(BadResponse)),
            ("SSH-2.0-OpenSSH\r\n", Err(BadResponse)),
            (&"x".repeat(64 * 1024), Err(BadResponse)),
        ] {
            assert_eq!(read(text.as_bytes()), want, "{:?}", &text[..text.len().min(40)]);
        }
    }

    /// Bytes near a request head: lines that occur in good and in bad ones.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "GET / HTTP/1.1\r\n",
            "Host: a\r\n",
            "\r\n",
            "\r",
            "\n",
            "A:",
            " ",
            "b",
            "\t",
            "\0",
            "POST /x ",
            "HTTP/1.0",
        ]);
        prop::collection::vec(pieces, 0..10).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, &Limits::REQUEST);
            let _ = parse_response(&bytes, &Limits::RESPONSE);
        }

        /// Byte by byte gives what the whole gives, and a head is never found before all of it is there.
        #[test]
        fn the_result_does_not_depend_on_how_the_bytes_are_cut(bytes in heads()) {
            let mut reader = HeadReader::default();
            let mut pieces = Ok(None);
            for end in 1..=bytes.len() {
                pieces = reader.read(&bytes[..end], &Limits::REQUEST).map(|head| head.map(|head| head.len));
                if !matches!(pieces, Ok(None)) {
                    break;
                }
            }
            let whole = parse(&bytes, &Limits::REQUEST).map(|head| head.map(|head| head.len));
            match (pieces, whole) {
                (Err(first), Err(all)) => prop_assert_eq!(first.reason, all.reason),
                (pieces, whole) => prop_assert_eq!(pieces, whole),
            }
        }
    }
}
