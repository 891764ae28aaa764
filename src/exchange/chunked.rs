//! Finds the end of a chunked body without changing it, and refuses framing that two parsers could read differently.
//! The bytes themselves are forwarded by whoever feeds them, once they have passed here.
//!
//! Sizes are 1 to 16 hex digits; extensions are bounded and hold no control characters; every line ends in CRLF; the
//! trailer section is bounded and holds nothing that belongs to framing, routing or trust (RFC 9110, 6.5.1).

use super::answer::Refusal;
use super::head::Known;
use super::head::fields::{field_line, is_value};

/// Bytes of one chunk's extensions.
pub const EXTENSION_BYTES_MAX: u32 = 256;
/// Bytes of all extensions of a body, so that small chunks with long extensions do not multiply what is read.
pub const EXTENSIONS_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of the trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Where in a chunked body the scan stands.
#[derive(Debug, Clone, Default)]
pub struct Chunked {
    state: State,
    data_bytes: u64,
    extension_bytes: u32,
    trailer_bytes: usize,
    line: Vec<u8>,
}

/// What one call found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that belong to the body; less than were given only where it ended.
    pub consumed: usize,
    /// Whether the body has ended.
    pub done: bool,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// The first digit of a size.
    #[default]
    SizeStart,
    /// More digits, or what ends them.
    Size { digits: u32, size: u64 },
    /// Extensions, up to CR.
    Extension { size: u64, bytes: u32 },
    /// The LF after a size line.
    SizeEnd { size: u64 },
    /// Data.
    Data { left: u64 },
    /// The CR after data.
    DataCr,
    /// The LF after data.
    DataLf,
    /// A trailer line, or the empty line at the end.
    Trailer,
    /// The LF of a trailer line.
    TrailerLf,
    /// Behind the end.
    Done,
}

const MAX_SIZE_DIGITS: u32 = 16;

impl Chunked {
    /// At the start of a body.
    pub fn new() -> Chunked {
        Chunked::default()
    }

    /// Scans the next bytes. The answer is the same however a body is cut into calls. After a refusal, and after the
    /// end, nothing more is consumed.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, Refusal> {
        let mut at = 0;
        while at < bytes.len() {
            if matches!(self.state, State::Done) {
                break;
            }
            at += match self.state {
                State::Data { left } => self.data(left, bytes.len() - at),
                State::SizeStart
                | State::Size { .. }
                | State::Extension { .. }
                | State::SizeEnd { .. }
                | State::DataCr
                | State::DataLf
                | State::Trailer
                | State::TrailerLf
                | State::Done => {
                    self.state = self.step(bytes[at])?;
                    1
                }
            };
        }
        Ok(Progress { consumed: at, done: self.is_done() })
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes of data so far, without framing.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Passes over data, of which `available` bytes are there; the answer is how many.
    fn data(&mut self, left: u64, available: usize) -> usize {
        let n = available.min(usize::try_from(left).unwrap_or(usize::MAX));
        self.data_bytes = self.data_bytes.saturating_add(n as u64);
        let left = left - n as u64;
        self.state = if left == 0 { State::DataCr } else { State::Data { left } };
        n
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::SizeStart, _) => {
                let digit = hex(byte).ok_or(Refusal::malformed("a chunk size that is no hex number"))?;
                Ok(State::Size { digits: 1, size: digit })
            }
            (State::Size { size, .. }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { size, .. }, b';') => self.extension(size, 1),
            (State::Size { digits, size }, _) => {
                let digit = hex(byte).ok_or(Refusal::malformed("a chunk size that is no hex number"))?;
                if digits == MAX_SIZE_DIGITS {
                    return Err(Refusal::malformed("a chunk size of more than 16 digits"));
                }
                Ok(State::Size { digits: digits + 1, size: size << 4 | digit })
            }
            (State::Extension { size, .. }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Extension { .. }, _) if !is_value(&[byte]) => {
                Err(Refusal::malformed("a control character in a chunk extension"))
            }
            (State::Extension { size, bytes }, _) => self.extension(size, bytes + 1),
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::SizeStart),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::Trailer, _) => self.trailer(byte),
            (State::TrailerLf, b'\n') => self.trailer_line(),
            (State::SizeEnd { .. } | State::DataCr | State::DataLf | State::TrailerLf, _) => {
                Err(Refusal::malformed("a line of chunk framing that does not end in CRLF"))
            }
            (State::Data { .. } | State::Done, _) => Ok(self.state),
        }
    }

    fn extension(&mut self, size: u64, bytes: u32) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        if bytes > EXTENSION_BYTES_MAX || self.extension_bytes > EXTENSIONS_BYTES_MAX {
            return Err(Refusal::malformed("too many bytes of chunk extensions"));
        }
        Ok(State::Extension { size, bytes })
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Refusal::malformed("a trailer section that is too large"));
        }
        if byte == b'\n' {
            return Err(Refusal::malformed("a line of chunk framing that does not end in CRLF"));
        }
        self.line.push(byte);
        Ok(State::Trailer)
    }

    fn trailer_line(&mut self) -> Result<State, Refusal> {
        if self.line.is_empty() {
            return Ok(State::Done);
        }
        let known = field_line(&self.line)?.known;
        self.line.clear();
        match known {
            Known::Other => Ok(State::Trailer),
            Known::Host
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::Expect
            | Known::ProxyAuth
            | Known::Authorization
            | Known::Cookie
            | Known::Forwarded => Err(Refusal::malformed("a trailer field that belongs into the head")),
        }
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds the pieces one after the other; the sum of what was consumed, and whether it is done.
    fn feed_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(usize, bool), Refusal> {
        let mut scan = Chunked::new();
        let mut consumed = 0;
        for piece in pieces {
            consumed += scan.feed(piece)?.consumed;
        }
        Ok((consumed, scan.is_done()))
    }

    #[test]
    fn a_body_ends_where_it_ends_and_what_follows_is_not_touched() {
        for (body, rest) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n"),
            ("A\r\n0123456789\r\n0\r\n\r\n", "x"),
            ("5;a=b;c=\"d e\"\r\nhello\r\n0;z\r\n\r\n", "0\r\n\r\n"),
            ("5\r\nhello\r\n000\r\nX-Sum: 1\r\nEtag:\r\n\r\n", "\r\n"),
            ("0000000000000001\r\na\r\n0\r\n\r\n", ""),
            ("2\r\n\r\n\r\n0\r\n\r\n", ""),
        ] {
            let all = format!("{body}{rest}");
            assert_eq!(feed_all([all.as_bytes()]), Ok((body.len(), true)), "{body:?}");
        }
        let mut scan = Chunked::new();
        assert_eq!(scan.feed(b"5\r\nhel"), Ok(Progress { consumed: 6, done: false }));
        assert_eq!(scan.data_bytes(), 3);
        assert_eq!(scan.feed(b"lo\r\n0\r\n\r\nmore"), Ok(Progress { consumed: 9, done: true }));
        assert_eq!(scan.feed(b"more"), Ok(Progress { consumed: 0, done: true }));
    }

    #[test]
    fn framing_that_is_read_in_two_ways_is_refused() {
        let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
        let many_extensions = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(90);
        let long_trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(9_000));
        let many_trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(3_000));
        for body in [
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n",
            "-5\r\nhello\r\n",
            "5_0\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "00000000000000005\r\nhello\r\n",
            "fffffffffffffffff\r\n",
            "5;ext\nhello\r\n",
            "5;e\0xt\r\nhello\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5\r\rhello",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nHost: a\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
            "0\r\nAuthorization: x\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: \x01\r\n\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            &long_extension,
            &many_extensions,
            &long_trailer,
            &many_trailers,
        ] {
            assert!(feed_all([body.as_bytes()]).is_err(), "{:?}", &body[..body.len().min(60)]);
        }
    }

    #[test]
    fn a_huge_chunk_is_only_counted() {
        let mut scan = Chunked::new();
        scan.feed(b"ffffffffffffffff\r\n").unwrap();
        assert_eq!(scan.feed(&[b'x'; 1_000]), Ok(Progress { consumed: 1_000, done: false }));
    }

    /// Something near a chunked body: pieces that occur in good and in bad ones.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "5\r\nhello\r\n",
            "1\r\na\r\n",
            "0\r\n",
            "\r\n",
            "\r",
            "\n",
            ";x=y",
            "X: y\r\n",
            "5",
            "a",
            "0",
            "f\r\n",
            " ",
            "Host: a\r\n",
        ]);
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_how_the_bytes_are_cut(body in bodies(), cut in 1_usize..9) {
            let whole = feed_all([body.as_slice()]);
            let pieces = feed_all(body.chunks(cut));
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), cut in 1_usize..50) {
            prop_assert_eq!(feed_all([body.as_slice()]), feed_all(body.chunks(cut)));
        }

        #[test]
        fn every_good_body_is_found_whole(chunks in prop::collection::vec(1_usize..100, 0..10)) {
            let mut body = Vec::new();
            for n in &chunks {
                body.extend_from_slice(format!("{n:x}\r\n{}\r\n", "z".repeat(*n)).as_bytes());
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let len = body.len();
            body.extend_from_slice(b"GET / HTTP/1.1\r\n");
            prop_assert_eq!(feed_all([body.as_slice()]), Ok((len, true)));
        }
    }
}
