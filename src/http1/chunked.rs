//! The chunked transfer coding (RFC 9112, section 7.1): finds the data and the end without copying or changing a byte, and
//! rejects framing that two parsers could read differently.
//!
//! Sizes are 1 to 16 hex digits; every line ends in CRLF; extensions and trailers are bounded. In a request an extension
//! has a name, complete quotes and no control characters, and a trailer no field for framing, routing or trust (RFC 9110,
//! 6.5.1). In a response extensions and such trailers are skipped, whatever they contain, because they are not forwarded;
//! white space before an extension is skipped too.

use super::fields::{Known, field_line, is_space, is_token, is_value, put};
use super::{Fault, Reading};

/// Limits for the bytes of a body that are not data.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Bytes of one chunk's extensions.
    extension: u32,
    /// Bytes of all extensions of a body: small chunks with long extensions must not multiply the bytes read.
    extensions: u32,
    /// Bytes of the trailer section.
    trailer: usize,
}

const REQUEST: Bounds = Bounds { extension: 256, extensions: 16 * 1024, trailer: 8 * 1024 };
/// Pingora's limits for one extension and for the trailers; it has no limit for all extensions.
const ANSWER: Bounds = Bounds { extension: 8 * 1024, extensions: 1024 * 1024, trailer: 64 * 1024 };

/// Decodes one body.
#[derive(Debug, Clone, Default)]
pub struct Chunked {
    reading: Reading,
    state: State,
    data_bytes: u64,
    /// The most of them.
    most: Option<u64>,
    extension_bytes: u32,
    trailer_bytes: usize,
    /// A trailer line, as far as received.
    line: Vec<u8>,
    /// Trailer lines of a response that can be forwarded, in canonical form.
    trailers: Vec<u8>,
}

/// The next thing in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'i> {
    /// The rest of the input has no data.
    More,
    /// Data, not empty.
    Data(&'i [u8]),
    /// The body and its trailers have ended.
    End,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, Default)]
enum State {
    /// The first digit of a size.
    #[default]
    SizeStart,
    /// More digits, or the byte after them.
    Size { digits: u32, size: u64 },
    /// White space after a size, in a response.
    Space { size: u64, bytes: u32 },
    /// Extensions, up to CR.
    Extension { size: u64, bytes: u32, within: Within },
    /// The LF after a size line.
    SizeEnd { size: u64 },
    /// Data.
    Data { left: u64 },
    /// The CR after data.
    DataCr,
    /// The LF after data.
    DataLf,
    /// A trailer line, or the empty line at the end; `empty`: nothing of it was received.
    Trailer { empty: bool },
    /// The LF of a trailer line, or that of the end.
    TrailerLf { empty: bool },
    /// After the end.
    Done,
}

/// The size in a canonical size line at the front, and the length of that line. `None`: it is none, or it is 0.
fn canonical_size(input: &[u8]) -> Option<(usize, usize)> {
    // More digits than these would not fit into any buffer.
    let digits = input.iter().take(7).take_while(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')).count();
    let (line, rest) = input.split_at(digits);
    if line.first().is_none_or(|first| *first == b'0') || !rest.starts_with(b"\r\n") {
        return None;
    }
    let size = line.iter().fold(0, |size, b| size << 4 | usize::from(if *b > b'9' { b - b'a' + 10 } else { b - b'0' }));
    Some((size, digits + 2))
}

/// Where in the extensions of a request the next byte is (RFC 9112, 7.1.1). In a response always [`Within::Rest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// After `;`: a name must follow.
    Start,
    /// In or after a name, outside quotes.
    Rest,
    /// In a quoted value.
    Quoted,
    /// After `\` in a quoted value.
    Escaped,
}

impl Within {
    /// Where it is after this byte of a request.
    fn after(self, byte: u8) -> Result<Within, Fault> {
        match (self, byte) {
            _ if !is_value(&[byte]) => Err(Fault::Chunk("a control character in an extension")),
            (Within::Start, _) if is_space(byte) => Ok(Within::Start),
            (Within::Start, _) if is_token(byte) => Ok(Within::Rest),
            (Within::Start, _) => Err(Fault::Chunk("an extension without a name")),
            (Within::Rest, b';') => Ok(Within::Start),
            (Within::Rest, b'"') => Ok(Within::Quoted),
            (Within::Quoted, b'"') => Ok(Within::Rest),
            (Within::Quoted, b'\\') => Ok(Within::Escaped),
            (Within::Escaped, _) => Ok(Within::Quoted),
            (Within::Rest | Within::Quoted, _) => Ok(self),
        }
    }

    /// Whether the line may end here.
    fn check_end(self) -> Result<(), Fault> {
        match self {
            Within::Rest => Ok(()),
            Within::Start => Err(Fault::Chunk("an extension without a name")),
            Within::Quoted | Within::Escaped => Err(Fault::Chunk("an extension with an open quote")),
        }
    }
}

const MAX_SIZE_DIGITS: u32 = 16;
/// The end of a body without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const STRAY: Fault = Fault::Chunk("a line that does not end in CRLF");

impl Chunked {
    /// A decoder at the start of a body.
    pub fn new(reading: Reading) -> Chunked {
        Chunked { reading, ..Chunked::default() }
    }

    /// It may have at most so many bytes of data: refused before the first byte of the chunk that goes beyond.
    pub fn within(self, most: Option<u64>) -> Chunked {
        Chunked { most, ..self }
    }

    /// Consumes `input` from the front, up to the next step to report. The data does not depend on how a body is split into
    /// calls. After a fault, and after the end, it consumes nothing.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, Fault> {
        while let Some((&byte, rest)) = input.split_first() {
            match self.state {
                State::Done => return Ok(Step::End),
                State::Data { left } => {
                    let n = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let (piece, rest) = input.split_at(n);
                    *input = rest;
                    self.data_bytes = self.data_bytes.saturating_add(n as u64);
                    let left = left - n as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok(Step::Data(piece));
                }
                State::SizeStart
                | State::Size { .. }
                | State::Space { .. }
                | State::Extension { .. }
                | State::SizeEnd { .. }
                | State::DataCr
                | State::DataLf
                | State::Trailer { .. }
                | State::TrailerLf { .. } => {
                    self.state = self.step(byte)?;
                    *input = rest;
                }
            }
        }
        Ok(if self.is_done() { Step::End } else { Step::More })
    }

    /// Consumes the whole chunks at the front that are in canonical form: how many bytes. They can be forwarded as they are.
    /// The last chunk is one of them if no trailers follow it; then the body has ended. For bodies without a limit.
    pub fn whole_chunks(&mut self, input: &[u8]) -> usize {
        let mut end = 0;
        if matches!(self.state, State::SizeStart) && self.most.is_none() {
            while let Some((size, data)) = canonical_size(&input[end..])
                && let Some(after) = input[end + data..].get(size..size + 2)
                && after == b"\r\n"
            {
                end += data + size + 2;
                self.data_bytes = self.data_bytes.saturating_add(size as u64);
            }
            if input[end..].starts_with(LAST_CHUNK) {
                end += LAST_CHUNK.len();
                self.state = State::Done;
            }
        }
        end
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes of data so far, without framing.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// The trailer fields of a response that can be forwarded: lines in canonical form.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn bounds(&self) -> Bounds {
        match self.reading {
            Reading::Request => REQUEST,
            Reading::Answer => ANSWER,
        }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::SizeStart, _) => Ok(State::Size { digits: 1, size: hex(byte)? }),
            (State::Size { size, .. } | State::Space { size, .. }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Extension { size, within, .. }, b'\r') => within.check_end().map(|()| State::SizeEnd { size }),
            (State::Size { size, .. }, b';') => self.extension(size, 1, self.within_start()),
            (State::Space { size, bytes }, b';') => self.extension(size, bytes + 1, self.within_start()),
            (State::Size { size, .. }, _) if self.forgives(byte) => self.space(size, 1),
            (State::Space { size, bytes }, _) if self.forgives(byte) => self.space(size, bytes + 1),
            (State::Size { digits, size }, _) => {
                let digit = hex(byte)?;
                if digits == MAX_SIZE_DIGITS {
                    return Err(Fault::Chunk("a size over 64 bits"));
                }
                Ok(State::Size { digits: digits + 1, size: size << 4 | digit })
            }
            (State::Space { .. }, _) => Err(Fault::Chunk("invalid size")),
            (State::Extension { size, bytes, within }, _) => {
                let within = if self.reading == Reading::Request { within.after(byte)? } else { within };
                self.extension(size, bytes + 1, within)
            }
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailer { empty: true }),
            (State::SizeEnd { size }, b'\n') => match self.most {
                Some(most) if size > most.saturating_sub(self.data_bytes) => Err(Fault::BodyTooLarge),
                Some(_) | None => Ok(State::Data { left: size }),
            },
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::SizeStart),
            (State::DataCr | State::DataLf, _) => Err(Fault::Chunk("longer than its size")),
            (State::Trailer { empty }, b'\r') => Ok(State::TrailerLf { empty }),
            (State::Trailer { .. }, _) => self.trailer(byte),
            (State::TrailerLf { empty: true }, b'\n') => Ok(State::Done),
            (State::TrailerLf { empty: false }, b'\n') => self.trailer_line(),
            (State::SizeEnd { .. } | State::TrailerLf { .. }, _) => Err(STRAY),
            (State::Data { .. } | State::Done, _) => Ok(self.state),
        }
    }

    /// Whether this is white space that is allowed before an extension.
    fn forgives(&self, byte: u8) -> bool {
        self.reading == Reading::Answer && is_space(byte)
    }

    fn space(&mut self, size: u64, bytes: u32) -> Result<State, Fault> {
        self.count_extension(bytes).map(|()| State::Space { size, bytes })
    }

    fn extension(&mut self, size: u64, bytes: u32, within: Within) -> Result<State, Fault> {
        self.count_extension(bytes).map(|()| State::Extension { size, bytes, within })
    }

    /// Where extensions begin.
    fn within_start(&self) -> Within {
        match self.reading {
            Reading::Request => Within::Start,
            Reading::Answer => Within::Rest,
        }
    }

    fn count_extension(&mut self, bytes: u32) -> Result<(), Fault> {
        self.extension_bytes += 1;
        if bytes > self.bounds().extension || self.extension_bytes > self.bounds().extensions {
            return Err(Fault::Chunk("too many bytes of extensions"));
        }
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > self.bounds().trailer {
            return Err(Fault::Chunk("too many bytes of trailers"));
        }
        if byte == b'\n' {
            return Err(STRAY);
        }
        self.line.push(byte);
        Ok(State::Trailer { empty: false })
    }

    fn trailer_line(&mut self) -> Result<State, Fault> {
        let field = field_line(&self.line, self.reading);
        let good = match field {
            Ok(field) => may_be_trailer(field.known),
            Err(_) => false,
        };
        match (self.reading, field) {
            (Reading::Request, Err(fault)) => return Err(Fault::Chunk(fault.words())),
            (Reading::Request, Ok(_)) if !good => {
                return Err(Fault::Chunk("a trailer field that belongs in the head"));
            }
            (Reading::Answer, Ok(field)) if good => put(&mut self.trailers, &[field.name, b": ", field.value, b"\r\n"]),
            (Reading::Request | Reading::Answer, _) => {}
        }
        self.line.clear();
        Ok(State::Trailer { empty: true })
    }
}

/// Whether it may come after the body: it frames nothing, routes nothing, and says nothing about who asks.
fn may_be_trailer(known: Known) -> bool {
    match known {
        Known::Other => true,
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
        | Known::Forwarded
        | Known::Underscored => false,
    }
}

fn hex(byte: u8) -> Result<u64, Fault> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(Fault::Chunk("invalid size"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads over `bytes`: how many of them belong to the body.
    fn scan(chunks: &mut Chunked, bytes: &[u8]) -> Result<usize, Fault> {
        let mut rest = bytes;
        while let Step::Data(_) = chunks.next(&mut rest)? {}
        Ok(bytes.len() - rest.len())
    }

    /// Feeds the pieces one after the other; returns the bytes consumed, and whether the body ended.
    fn feed_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(usize, bool), Fault> {
        let mut chunks = Chunked::new(Reading::Request);
        let mut consumed = 0;
        for piece in pieces {
            consumed += scan(&mut chunks, piece)?;
        }
        Ok((consumed, chunks.is_done()))
    }

    #[test]
    fn a_body_ends_and_the_bytes_after_it_are_not_consumed() {
        for (body, rest) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n"),
            ("A\r\n0123456789\r\n0\r\n\r\n", "x"),
            ("5;a=b;c=\"d e\"\r\nhello\r\n0;z\r\n\r\n", "0\r\n\r\n"),
            ("5; a = b ;c=\";\\\";\"\r\nhello\r\n0;z=\"\"\r\n\r\n", "x"),
            ("5;a=b/c+d==;e\t\r\nhello\r\n0\r\n\r\n", ""),
            ("5\r\nhello\r\n000\r\nX-Sum: 1\r\nEtag:\r\n\r\n", "\r\n"),
            ("0000000000000001\r\na\r\n0\r\n\r\n", ""),
            ("2\r\n\r\n\r\n0\r\n\r\n", ""),
        ] {
            let all = format!("{body}{rest}");
            assert_eq!(feed_all([all.as_bytes()]), Ok((body.len(), true)), "{body:?}");
        }
        let mut chunks = Chunked::new(Reading::Request);
        for (piece, consumed, data_bytes, done) in
            [(&b"5\r\nhel"[..], 6, 3, false), (b"lo\r\n0\r\n\r\nmore", 9, 5, true), (b"more", 0, 5, true)]
        {
            assert_eq!(scan(&mut chunks, piece), Ok(consumed));
            assert_eq!((chunks.data_bytes(), chunks.is_done()), (data_bytes, done));
        }
    }

    #[test]
    fn trailers_of_a_response_are_kept_but_for_those_that_belong_in_the_head() {
        for (lines, want) in [
            ("", ""),
            ("X-Sum:1\r\nETag: \"a\" \r\n", "X-Sum: 1\r\nETag: \"a\"\r\n"),
            ("Content-Length: 5\r\nX: y\r\nTransfer-Encoding: chunked\r\nConnection: x\r\n", "X: y\r\n"),
            ("no colon\r\nX: y\r\nA\0: b\r\n", "X: y\r\n"),
            ("X : y\r\n", "X: y\r\n"),
        ] {
            let text = format!("1\r\na\r\n0\r\n{lines}\r\nnext");
            for cut in 1..text.len() {
                let mut chunks = Chunked::new(Reading::Answer);
                let mut left = 0;
                for piece in text.as_bytes().chunks(cut) {
                    left += piece.len() - scan(&mut chunks, piece).unwrap();
                }
                assert_eq!((std::str::from_utf8(chunks.trailers()).unwrap(), left), (want, 4), "{lines:?} by {cut}");
            }
        }
    }

    #[test]
    fn a_chunk_that_goes_beyond_the_limit_is_refused_before_its_first_byte() {
        for (body, most, data) in [
            ("5\r\nhello\r\n0\r\n\r\n", 5, Ok(5)),
            ("5\r\nhello\r\n0\r\n\r\n", 4, Err(0)),
            ("2\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n", 5, Ok(5)),
            ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 4, Err(2)),
            ("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 5, Err(5)),
            ("ffffffffffffffff;a=b\r\n", u64::MAX - 1, Err(0)),
            ("1\r\na\r\nffffffffffffffff\r\n", u64::MAX, Err(1)),
            ("0\r\n\r\n", 0, Ok(0)),
        ] {
            for cut in 1..=body.len() {
                let mut chunks = Chunked::new(Reading::Request).within(Some(most));
                let mut pieces = body.as_bytes().chunks(cut);
                let fault = pieces.find_map(|piece| scan(&mut chunks, piece).err());
                let got = match fault {
                    None if chunks.is_done() => Ok(chunks.data_bytes()),
                    None => panic!("{body:?} has not ended"),
                    Some(fault) => {
                        assert_eq!(fault, Fault::BodyTooLarge, "{body:?} by {cut}");
                        Err(chunks.data_bytes())
                    }
                };
                assert_eq!(got, data, "{body:?} within {most} by {cut}");
            }
        }
    }

    #[test]
    fn ambiguous_framing_is_rejected() {
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
            "5;\r\nhello\r\n",
            "5; \r\nhello\r\n",
            "5;\t\r\nhello\r\n",
            "5;;a\r\nhello\r\n",
            "5;a;\r\nhello\r\n",
            "5;a; ;b\r\nhello\r\n",
            "5;=x\r\nhello\r\n",
            "5;\"a\"\r\nhello\r\n",
            "5;a=\"b\r\nhello\r\n",
            "5;a=\"b\\\"\r\nhello\r\n",
            "0;\r\n\r\n",
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

    /// The data of a response body, and the bytes of the body, if it ended.
    fn answer(body: &[u8], cut: usize) -> Result<(Vec<u8>, Option<usize>), Fault> {
        let mut chunks = Chunked::new(Reading::Answer);
        let (mut data, mut taken) = (Vec::new(), 0);
        for mut piece in body.chunks(cut) {
            let length = piece.len();
            loop {
                match chunks.next(&mut piece)? {
                    Step::Data(more) => data.extend_from_slice(more),
                    Step::More => break,
                    Step::End => return Ok((data, Some(taken + length - piece.len()))),
                }
            }
            taken += length;
        }
        Ok((data, None))
    }

    #[test]
    fn a_response_may_have_unambiguous_deviations() {
        let bounds = ANSWER;
        let extension = |n: u32| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(n as usize - 1));
        let trailer = |n: usize| format!("0\r\n{}\r\n\r\n", "x".repeat(n));
        let many = format!("1;{}\r\na\r\n", "x".repeat(8_000)).repeat(132);
        for (body, data) in [
            ("2 ; level = 1\r\nok\r\n0\r\n\r\n", Some("ok")),
            ("2\t \r\nok\r\n0 \r\n\r\n", Some("ok")),
            ("2;a=\"; \0\"\r\nok\r\n00;x\r\n\r\n", Some("ok")),
            ("2\r\nok\r\n0\r\nContent-Length: 9\r\nno colon\r\n\0\r\n\r\n", Some("ok")),
            ("000000000000000A\r\n0123456789\r\n0\r\n\r\n", Some("0123456789")),
            (&extension(bounds.extension), Some("a")),
            (&extension(bounds.extension + 1), None),
            (&trailer(bounds.trailer), Some("")),
            (&trailer(bounds.trailer + 1), None),
            (&many, None),
            // Pingora rejects these too.
            (" 2\r\nok\r\n", None),
            ("0x2\r\nok\r\n", None),
            ("+2\r\nok\r\n", None),
            ("2 2\r\nok\r\n", None),
            ("2\nok\r\n", None),
            ("2;a\rb\r\nok\r\n", None),
            ("2\r\nok\n", None),
            ("2\r\nokk\r\n", None),
            ("2\r\nok\r\n0\r\n\n", None),
            ("2\r\nok\r\n0\r\nX: y\n\r\n", None),
            ("10000000000000000\r\n", None),
            // Pingora accepts this, and the README lists it: a last chunk without a size.
            ("2\r\nok\r\n\r\n\r\n", None),
        ] {
            let whole = answer(format!("{body}rest").as_bytes(), usize::MAX);
            assert_eq!(whole, answer(format!("{body}rest").as_bytes(), 1), "{:?}", &body[..body.len().min(60)]);
            let want = data.map(|data| (data.as_bytes().to_vec(), Some(body.len())));
            assert_eq!(whole.ok(), want, "{:?}", &body[..body.len().min(60)]);
        }
    }

    #[test]
    fn a_huge_chunk_is_only_counted() {
        let mut chunks = Chunked::new(Reading::Request);
        scan(&mut chunks, b"ffffffffffffffff\r\n").unwrap();
        assert_eq!(scan(&mut chunks, &[b'x'; 1_000]), Ok(1_000));
        assert!(!chunks.is_done());
    }

    /// A good body with chunks of these sizes.
    fn chunks_of(sizes: &[usize]) -> Vec<u8> {
        let chunks: String = sizes.iter().map(|n| format!("{n:x}\r\n{}\r\n", "z".repeat(*n))).collect();
        format!("{chunks}0\r\n\r\n").into_bytes()
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
        fn the_result_does_not_depend_on_the_pieces(body in bodies(), cut in 1_usize..9) {
            let whole = feed_all([body.as_slice()]);
            let pieces = feed_all(body.chunks(cut));
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn the_data_of_a_response_does_not_depend_on_the_pieces(body in bodies(), cut in 1_usize..9) {
            prop_assert_eq!(answer(&body, usize::MAX).ok(), answer(&body, cut).ok());
        }

        /// We accept the size lines that pingora accepts, except one without a size, and read the same size.
        #[test]
        fn a_size_line_is_read_as_pingora_reads_it(line in "[0-9a-fA-F]{0,17}[ \\t]{0,2}(;[a-z\\x00\\n \r]{0,4})?[ \\txX+]?") {
            let mut line = [line.as_bytes(), b"\r\n"].concat();
            // It may end before, in what was to be an extension; what follows is not part of it.
            if let Ok(httparse::Status::Complete((end, _))) = httparse::parse_chunk_size(&line) {
                line.truncate(end);
            }
            let theirs = match httparse::parse_chunk_size(&line) {
                Ok(httparse::Status::Complete((_, size))) if hex(line[0]).is_ok() => Some(size),
                Ok(_) | Err(_) => None,
            };
            let mut chunks = Chunked::new(Reading::Answer);
            let ours = scan(&mut chunks, &line).ok().and(match chunks.state {
                State::Data { left } => Some(left),
                State::Trailer { empty: true } => Some(0),
                _ => None,
            });
            prop_assert_eq!(ours, theirs, "{}", line.escape_ascii());
        }

        #[test]
        fn changed_bodies_are_read_alike_and_end_where_they_end(
            sizes in prop::collection::vec(1_usize..30, 0..5),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in 1_usize..50,
        ) {
            let mut body = chunks_of(&sizes);
            let at = at.index(body.len());
            body[at] = byte;
            body.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let whole = feed_all([body.as_slice()]);
            prop_assert_eq!(whole, feed_all(body.chunks(cut)));
            if let Ok((consumed, done)) = whole {
                // What has not ended takes all there is; what has ended, ended with its empty line.
                prop_assert!(done || consumed == body.len(), "{} of {}", consumed, body.len());
                prop_assert!(!done || body[..consumed].ends_with(b"\r\n\r\n"), "{}", body.escape_ascii());
            }
        }

        #[test]
        fn every_good_body_is_found_whole(chunks in prop::collection::vec(1_usize..100, 0..10)) {
            let mut body = chunks_of(&chunks);
            let len = body.len();
            body.extend_from_slice(b"GET / HTTP/1.1\r\n");
            prop_assert_eq!(feed_all([body.as_slice()]), Ok((len, true)));
            let data = "z".repeat(chunks.iter().sum());
            prop_assert_eq!(answer(&body, usize::MAX), Ok((data.into_bytes(), Some(len))));
        }
    }
}
