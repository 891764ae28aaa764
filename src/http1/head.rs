//! Parses request heads strictly: an accepted head has one reading only. `exchange::judge` decides what it means.
//!
//! Lines end in CRLF only; one empty line before a request is skipped (RFC 9112, 2.2). A head is rejected as soon as its
//! first invalid line is complete, so that the sender need not wait for a deadline.

use super::fields::{Span, is_token, is_visible, offset};
use super::{BadByte, Fault, Fields, Reading, TargetPart, limits};
use crate::model::policy::ClientLimits;

/// Size limits of a head.
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
    /// Those of a listener without keys.
    pub const REQUEST: Limits = Limits::of(&ClientLimits::DEFAULT);
    /// Those of a head that has passed the limits of its listener before.
    pub const MAX: Limits = Limits::of(&ClientLimits::MAX);

    /// Those of a listener.
    pub const fn of(limits: &ClientLimits) -> Limits {
        Limits { head_bytes: limits.header_bytes, fields: limits.headers, target_bytes: limits.target_bytes }
    }

    /// The head exceeds `head_bytes`.
    pub(super) fn too_large(&self) -> Fault {
        Fault::HeadBytes(self.head_bytes >> 10)
    }
}

/// The supported versions, for clients and upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A complete request head: a view of the bytes it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// A token without lower-case letters, at most 32 bytes.
    pub method: &'a str,
    /// Visible ASCII, not empty; not validated further.
    pub target: &'a str,
    /// Its version.
    pub version: Version,
    /// Its fields, in order.
    pub fields: Fields<'a>,
    /// Bytes of the head, with a skipped empty line before it and the empty line after it.
    pub len: usize,
}

/// Reads one request head whose bytes may arrive in pieces, and then keeps the positions of its parts: the head is parsed
/// once, and can be looked at as long as its bytes are there. Examines every line once.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Where the incomplete line begins; after the end, the length of the head.
    next: usize,
    /// Up to here there is no line end.
    seen: usize,
    line: Option<RequestLine>,
    spans: Vec<Span>,
    complete: bool,
}

/// The positions of the parts of a request line.
#[derive(Debug, Clone, Copy)]
struct RequestLine {
    start: u16,
    method_len: u16,
    target_len: u16,
    version: Version,
}

impl HeadReader {
    /// Begins a new head. The room for positions is kept.
    pub fn reset(&mut self) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        *self = HeadReader { spans, ..HeadReader::default() };
    }

    /// `buf` is everything that has arrived of this head, and perhaps more. `None`: more bytes are needed. After a fault,
    /// call [`HeadReader::reset`].
    pub fn read<'a>(&'a mut self, buf: &'a [u8], limits: &Limits) -> Result<Option<Head<'a>>, Fault> {
        if self.next == 0 {
            match buf {
                [b'\r', b'\n', ..] => (self.next, self.seen) = (2, 2),
                [b'\r'] | [] => return Ok(None),
                [..] => {}
            }
        }
        while !self.complete {
            let Some((line, after)) = line_at(buf, self.next, self.seen)? else {
                self.seen = buf.len();
                if self.line.is_none() {
                    partial_request_line(&buf[self.next..], limits)?;
                }
                return if buf.len() >= limits.head_bytes { Err(limits.too_large()) } else { Ok(None) };
            };
            match self.line {
                None => self.line = Some(RequestLine::read(line, self.next, limits)?),
                Some(_) if after > limits.head_bytes.min(1 << 16) => return Err(limits.too_large()),
                Some(_) if line.is_empty() => self.complete = true,
                Some(_) if self.spans.len() == limits.fields => return Err(Fault::HeadFields(limits.fields)),
                Some(_) => self.spans.push(Span::of(line, self.next, Reading::Request)?),
            }
            (self.next, self.seen) = (after, after);
        }
        Ok(self.head(buf))
    }

    /// The head that was read; `None` before it is complete. `buf` begins with the bytes it was read from.
    pub fn head<'a>(&'a self, buf: &'a [u8]) -> Option<Head<'a>> {
        let RequestLine { start, method_len, target_len, version } = self.line.filter(|_| self.complete)?;
        let method = usize::from(start)..usize::from(start + method_len);
        let target = method.end + 1..method.end + 1 + usize::from(target_len);
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(buf.get(range)?).ok();
        let fields = Fields::over(&self.spans, buf);
        Some(Head { method: text(method)?, target: text(target)?, version, fields, len: self.next })
    }

    /// Forgets the empty line before the head, and returns its length: the caller removes as many bytes from the buffer.
    pub fn drop_lead(&mut self) -> usize {
        let Some(line) = &mut self.line else { return 0 };
        let lead = std::mem::take(&mut line.start);
        if lead > 0 {
            self.spans.iter_mut().for_each(|span| span.rebase(lead));
            self.next -= usize::from(lead);
        }
        usize::from(lead)
    }
}

impl RequestLine {
    /// Reads a line that begins at `start` of the buffer.
    fn read(line: &[u8], start: usize, limits: &Limits) -> Result<RequestLine, Fault> {
        let (method, target, version) = request_line(line, limits)?;
        let (method_len, target_len) = (offset(method.len())?, offset(target.len())?);
        Ok(RequestLine { start: offset(start)?, method_len, target_len, version })
    }
}

/// The line that begins at `start`, without its CRLF, and where the next begins. `None`: its end has not arrived; up to
/// `seen` it is known not to be there.
fn line_at(buf: &[u8], start: usize, seen: usize) -> Result<Option<(&[u8], usize)>, Fault> {
    let Some(end) = memchr::memchr(b'\n', &buf[seen..]).map(|at| seen + at) else {
        // A CR before another byte never becomes a line end. The last byte before may have been one.
        let rest = &buf[seen.saturating_sub(1).max(start)..];
        return match memchr::memchr(b'\r', rest) {
            Some(at) if at + 1 < rest.len() => Err(Fault::Head("a CR without LF")),
            Some(_) | None => Ok(None),
        };
    };
    match buf[start..end].strip_suffix(b"\r") {
        Some(line) => Ok(Some((line, end + 1))),
        None => Err(Fault::Head("a line that ends in a bare LF")),
    }
}

/// Method, target and version of a request line.
fn request_line<'a>(line: &'a [u8], limits: &Limits) -> Result<(&'a [u8], &'a [u8], Version), Fault> {
    let method = method(line)?;
    let rest = line.get(method.len() + 1..).unwrap_or_default();
    let space = memchr::memchr(b' ', rest);
    let target = &rest[..space.unwrap_or(rest.len())];
    if target.len() > limits.target_bytes {
        return Err(Fault::TargetTooLong);
    }
    let Some(space) = space else { return Err(Fault::Head("a request line without a version")) };
    if target.is_empty() {
        return Err(Fault::Head("a request line without a target"));
    }
    if !is_visible(target) {
        return Err(Fault::TargetByte(invisible(target)));
    }
    Ok((method, target, version(&rest[space + 1..])?))
}

/// The first byte of `target` that is not visible ASCII; there is one.
fn invisible(target: &[u8]) -> BadByte {
    let at = target.iter().position(|b| !is_visible(&[*b])).unwrap_or_default();
    let part = match target {
        [b'/', ..] if target[..at].contains(&b'?') => TargetPart::Query,
        [b'/', ..] => TargetPart::Path,
        _ => TargetPart::Whole,
    };
    BadByte { byte: target[at], part }
}

/// Rejects a request line whose end has not arrived, as far as it is known.
fn partial_request_line(line: &[u8], limits: &Limits) -> Result<(), Fault> {
    let start = &line[..line.len().min(limits::METHOD_BYTES + 1)];
    if !start.contains(&b' ') {
        if line.len() > limits::METHOD_BYTES || !is_method(line.strip_suffix(b"\r").unwrap_or(line)) {
            return Err(Fault::Head("a method that is not a token, too long or lower-case"));
        }
        return Ok(());
    }
    let method = method(line)?;
    let rest = &line[method.len() + 1..];
    if rest.len() > limits.target_bytes && !rest[..=limits.target_bytes].contains(&b' ') {
        return Err(Fault::TargetTooLong);
    }
    Ok(())
}

fn method(line: &[u8]) -> Result<&[u8], Fault> {
    let bad = Fault::Head("a method that is not a token, too long or lower-case");
    let end = memchr::memchr(b' ', line).ok_or(bad)?;
    let method = &line[..end];
    if method.is_empty() || method.len() > limits::METHOD_BYTES || !is_method(method) {
        return Err(bad);
    }
    Ok(method)
}

/// Methods are case-sensitive and all registered ones are upper-case; upstreams disagree about `get`.
fn is_method(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| is_token(*b) && !b.is_ascii_lowercase())
}

pub(super) fn version(text: &[u8]) -> Result<Version, Fault> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Fault::Version)
        }
        _ => Err(Fault::Head("a request line without a version")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http1::Known;
    use Refused::{HeadTooLarge, Malformed, TargetTooLong, Version};

    /// Faults, by the response to the client.
    #[derive(Debug, PartialEq, Eq)]
    enum Refused {
        Malformed,
        HeadTooLarge,
        TargetTooLong,
        Version,
    }

    fn read(bytes: &[u8]) -> Result<Option<usize>, Refused> {
        HeadReader::default().read(bytes, &Limits::REQUEST).map(|head| head.map(|head| head.len)).map_err(refused)
    }

    fn refused(fault: Fault) -> Refused {
        match fault {
            Fault::Head(_) | Fault::TargetByte(_) => Malformed,
            Fault::HeadBytes(32) | Fault::HeadFields(100) => HeadTooLarge,
            Fault::TargetTooLong => TargetTooLong,
            Fault::Version => Version,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_is_split_and_the_bytes_after_it_are_left() {
        let bytes = b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nx-pad: \t v w\t \r\n\r\nbody";
        let mut reader = HeadReader::default();
        let head = reader.read(bytes, &Limits::REQUEST).unwrap().unwrap();
        assert_eq!((head.method, head.target, head.version), ("POST", "/a?b=c", super::Version::Http11));
        assert_eq!(head.len, bytes.len() - 4);
        let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
        assert_eq!(fields, [(&b"Host"[..], &b"a"[..]), (b"X-Empty", b""), (b"x-pad", b"v w")]);
        assert_eq!(head.fields.all(Known::Host).collect::<Vec<_>>(), [b"a"]);
    }

    #[test]
    fn a_head_with_more_than_one_reading_is_rejected() {
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
            ("GET / HTTP/0.9\r\n\r\n", Err(Version)),
            ("GET / HTTP/1.2\r\n\r\n", Err(Version)),
            ("GET / HTTP/2.0\r\n\r\n", Err(Version)),
            ("GET / HTTP/3.0\r\n\r\n", Err(Version)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(Version)),
            ("GET / HTTP/11\r\n\r\n", Err(Malformed)),
            ("GET / http/1.1\r\n\r\n", Err(Malformed)),
            ("GET / HTTPS/1.1\r\n\r\n", Err(Malformed)),
        ] {
            assert_eq!(read(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn a_large_head_is_distinguished_from_a_malformed_one() {
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

    /// Bytes similar to a request head: lines of valid and invalid ones.
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

    /// The parts of good heads.
    type Parts = (&'static str, String, &'static str, Vec<(String, String)>);

    fn parts() -> impl Strategy<Value = Parts> {
        let method = prop::sample::select(vec!["GET", "POST", "M-SEARCH"]);
        let version = prop::sample::select(vec!["HTTP/1.1", "HTTP/1.0"]);
        let field = ("[A-Za-z!#$%&'*+.^_`|~0-9-]{1,12}", "([!-~]([ -~\t]{0,12}[!-~])?)?");
        (method, "[!-~]{1,40}", version, prop::collection::vec(field, 0..6))
    }

    /// A head of these parts, with this white space around its values.
    fn written((method, target, version, fields): &Parts, space: &str) -> Vec<u8> {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}:{space}{value}{space}\r\n")).collect();
        format!("{method} {target} {version}\r\n{lines}\r\n").into_bytes()
    }

    /// Good heads in which one byte is another one.
    fn changed() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![prop::sample::select(b"\r\n \t:\0".to_vec()), any::<u8>()];
        (parts(), any::<prop::sample::Index>(), byte).prop_map(|(parts, at, byte)| {
            let mut bytes = written(&parts, " ");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        })
    }

    proptest! {
        /// A good head is taken with each of its parts as it was written, once all of it is there and not before.
        #[test]
        fn a_good_head_is_accepted_with_its_parts(
            parts in parts(), space in "[ \t]{0,3}", rest in prop::collection::vec(any::<u8>(), 0..20)
        ) {
            let bytes = written(&parts, &space);
            for end in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..end]), Ok(None), "the first {} bytes", end);
            }
            let all = [bytes.as_slice(), &rest].concat();
            let mut reader = HeadReader::default();
            let head = reader.read(&all, &Limits::REQUEST).map_err(refused).unwrap().expect("it is whole");
            let version = if parts.2 == "HTTP/1.1" { super::Version::Http11 } else { super::Version::Http10 };
            prop_assert_eq!((head.method, head.target, head.version), (parts.0, parts.1.as_str(), version));
            prop_assert_eq!(head.len, bytes.len());
            let fields: Vec<_> = head.fields.iter().map(|field| (field.name, field.value)).collect();
            let wanted: Vec<_> = parts.3.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(fields, wanted);
        }

        /// What is accepted says of every line what is in it.
        #[test]
        fn an_accepted_head_is_made_of_its_parts(
            bytes in prop_oneof![changed(), heads(), prop::collection::vec(any::<u8>(), 0..300)]
        ) {
            if let Ok(Some(head)) = HeadReader::default().read(&bytes, &Limits::REQUEST) {
                let text = bytes[..head.len].strip_prefix(b"\r\n").unwrap_or(&bytes[..head.len]);
                let mut lines = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").expect("it ends in CRLF"));
                let first = lines.next().unwrap_or_default();
                let line = format!("{} {} HTTP/1.", head.method, head.target);
                prop_assert!(first.starts_with(line.as_bytes()));
                for field in head.fields.iter() {
                    let (name, value) = lines.next().unwrap_or_default().split_at(field.name.len());
                    prop_assert_eq!((name, Known::of(name)), (field.name, field.known));
                    prop_assert_eq!(value.strip_prefix(b":").map(<[u8]>::trim_ascii), Some(field.value));
                }
                prop_assert_eq!(lines.next(), Some(&b""[..]), "the empty line follows");
            }
        }

        /// The result is the same byte by byte, and a head is never found before all of it has arrived.
        #[test]
        fn the_result_does_not_depend_on_how_the_bytes_are_cut(bytes in prop_oneof![changed(), heads()]) {
            let mut reader = HeadReader::default();
            let mut pieces = Ok(None);
            for end in 1..=bytes.len() {
                pieces = reader.read(&bytes[..end], &Limits::REQUEST).map(|head| head.map(|head| head.len));
                if !matches!(pieces, Ok(None)) {
                    break;
                }
            }
            let mut reader = HeadReader::default();
            let whole = reader.read(&bytes, &Limits::REQUEST).map(|head| head.map(|head| head.len));
            match (pieces, whole) {
                (Err(first), Err(all)) => prop_assert_eq!(refused(first), refused(all)),
                (pieces, whole) => prop_assert_eq!(pieces, whole),
            }
        }
    }
}
