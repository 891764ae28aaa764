//! The body of a message: which of the bytes that arrive belong to it, which of those are data, and whether it has ended.
//! One code for request bodies, for response bodies in every lane, and for checks.

use bytes::BufMut;

use super::chunked::{Chunked, Step};
use super::fields::put;
use super::{Fault, Reading, ResponseFraming};

/// A body, as far as it has been read.
#[derive(Debug, Clone)]
pub enum Body {
    /// A known number of bytes.
    Length {
        /// All.
        total: u64,
        /// Those that have not been read.
        left: u64,
    },
    /// Chunks.
    Chunked(Chunked),
    /// Everything until the connection ends.
    UntilClose {
        /// Those that have been read.
        read: u64,
    },
}

impl Body {
    /// The body of a message that has none.
    pub const NONE: Body = Body::length(0);

    /// A body of this many bytes.
    pub const fn length(total: u64) -> Body {
        Body::Length { total, left: total }
    }

    /// The body of a response.
    pub fn response(framing: ResponseFraming) -> Body {
        match framing {
            ResponseFraming::None => Body::NONE,
            ResponseFraming::Length(length) => Body::length(length),
            ResponseFraming::Chunked => Body::Chunked(Chunked::new(Reading::Answer)),
            ResponseFraming::UntilClose => Body::UntilClose { read: 0 },
        }
    }

    /// Consumes `input` from the front, up to the next step to report; data is never empty. The data does not depend on how
    /// a body is split into calls. After a fault, and after the end, it consumes nothing. `End` is reported as soon as the
    /// last byte was reported; the end of the connection is for [`Body::is_whole_at_close`].
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, Fault> {
        match self {
            Body::Length { left: 0, .. } => Ok(Step::End),
            Body::Chunked(chunked) => chunked.next(input),
            Body::Length { .. } | Body::UntilClose { .. } if input.is_empty() => Ok(Step::More),
            Body::Length { left, .. } => {
                let (piece, rest) = input.split_at(input.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
                *left -= piece.len() as u64;
                *input = rest;
                Ok(Step::Data(piece))
            }
            Body::UntilClose { read } => {
                *read = read.saturating_add(input.len() as u64);
                Ok(Step::Data(std::mem::take(input)))
            }
        }
    }

    /// Scans the next bytes without separating data from framing, for callers that forward both: how many of them belong to
    /// the body. Fewer than all only where it has ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut rest = bytes;
        while let Step::Data(_) = self.next(&mut rest)? {}
        Ok(bytes.len() - rest.len())
    }

    /// The trailer fields of a response that can be forwarded: lines in canonical form.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Body::Chunked(chunked) => chunked.trailers(),
            Body::Length { .. } | Body::UntilClose { .. } => b"",
        }
    }

    /// Consumes whole chunks at the front that are written as [`put_chunk`] and [`put_last_chunk`] would write them, so that
    /// they can be forwarded as they are: how many bytes. A last chunk with trailers is not one of them.
    pub fn whole_chunks(&mut self, input: &[u8]) -> usize {
        match self {
            Body::Chunked(chunked) => chunked.whole_chunks(input),
            Body::Length { .. } | Body::UntilClose { .. } => 0,
        }
    }

    /// Whether more is known to come than the next read is likely to bring, or may come.
    pub fn is_large(&self) -> bool {
        match self {
            Body::Length { left, .. } => *left > LARGE,
            Body::Chunked(chunked) => chunked.data_bytes() > LARGE,
            Body::UntilClose { read } => *read > LARGE,
        }
    }

    /// The most bytes that can be read without reading past the end; `None`: that is not known.
    pub fn most(&self) -> Option<u64> {
        match self {
            Body::Length { left, .. } => Some(*left),
            Body::Chunked(_) | Body::UntilClose { .. } => None,
        }
    }

    /// Bytes of data so far, without framing.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Body::Length { total, left } => total - left,
            Body::Chunked(chunked) => chunked.data_bytes(),
            Body::UntilClose { read } => *read,
        }
    }

    /// Whether its last byte has been read. Never for one that ends with its connection.
    pub fn is_done(&self) -> bool {
        match self {
            Body::Length { left, .. } => *left == 0,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::UntilClose { .. } => false,
        }
    }

    /// Whether it is whole if the connection ends here.
    pub fn is_whole_at_close(&self) -> bool {
        self.is_done() || matches!(self, Body::UntilClose { .. })
    }
}

/// Bytes of data from which on a body is large.
const LARGE: u64 = 16 * 1024;

/// Writes one chunk in canonical form: lower-case digits, no extension. `data` is not empty.
pub fn put_chunk(out: &mut impl BufMut, data: &[u8]) {
    put_chunk_size(out, data.len());
    put(out, &[data, b"\r\n"]);
}

/// Writes the line before a chunk of so many bytes, at least one. Its data and a CRLF follow.
pub fn put_chunk_size(out: &mut impl BufMut, size: usize) {
    let mut digits = [0; 16];
    let mut start = digits.len();
    let mut left = size;
    while left > 0 {
        start -= 1;
        digits[start] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    put(out, &[&digits[start..], b"\r\n"]);
}

/// Writes the end of a chunked body with these trailer lines.
pub fn put_last_chunk(out: &mut impl BufMut, trailers: &[u8]) {
    put(out, &[b"0\r\n", trailers, b"\r\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` in pieces of `cut`: the data, what was left unread, and the body.
    fn read(mut body: Body, bytes: &[u8], cut: usize) -> Result<(Vec<u8>, usize, Body), Fault> {
        let (mut data, mut left) = (Vec::new(), bytes.len());
        for piece in bytes.chunks(cut) {
            let mut rest = piece;
            while let Step::Data(more) = body.next(&mut rest)? {
                assert!(!more.is_empty());
                data.extend_from_slice(more);
            }
            left -= piece.len() - rest.len();
            if body.is_done() {
                break;
            }
        }
        Ok((data, left, body))
    }

    #[test]
    fn a_body_ends_where_its_framing_says_however_its_bytes_are_cut() {
        for (framing, bytes, data, left, done, whole) in [
            (ResponseFraming::None, "next", "", 4, true, true),
            (ResponseFraming::Length(0), "next", "", 4, true, true),
            (ResponseFraming::Length(3), "onenext", "one", 4, true, true),
            (ResponseFraming::Length(9), "onenext", "onenext", 0, false, false),
            (ResponseFraming::Chunked, "3\r\none\r\n0\r\n\r\nnext", "one", 4, true, true),
            (ResponseFraming::Chunked, "3\r\none\r\n2\r\nt", "onet", 0, false, false),
            (ResponseFraming::Chunked, "3;a=b\r\none\r\n00\r\nA: b\r\n\r\n", "one", 0, true, true),
            (ResponseFraming::UntilClose, "onenext", "onenext", 0, false, true),
            (ResponseFraming::UntilClose, "", "", 0, false, true),
        ] {
            for cut in 1..=bytes.len().max(1) {
                let (got, rest, body) = read(Body::response(framing), bytes.as_bytes(), cut).unwrap();
                let seen = (std::str::from_utf8(&got).unwrap(), rest, body.is_done(), body.is_whole_at_close());
                assert_eq!(seen, (data, left, done, whole), "{framing:?} {bytes:?} cut by {cut}");
                assert_eq!(body.data_bytes(), data.len() as u64);
                let mut fed = Body::response(framing);
                assert_eq!(fed.feed(bytes.as_bytes()), Ok(bytes.len() - left), "{framing:?} {bytes:?}");
            }
        }
    }

    #[test]
    fn no_more_is_read_than_belongs_to_a_body_of_known_length() {
        let mut body = Body::length(5);
        assert_eq!(body.most(), Some(5));
        assert_eq!(body.feed(b"ab"), Ok(2));
        assert_eq!(body.most(), Some(3));
        assert_eq!(Body::response(ResponseFraming::Chunked).most(), None);
        assert_eq!(Body::response(ResponseFraming::UntilClose).most(), None);
    }

    #[test]
    fn whole_chunks_in_canonical_form_are_found_and_nothing_else_is() {
        for (bytes, whole) in [
            ("3\r\none\r\n2\r\nab\r\n0\r\n\r\n", 20),
            ("3\r\none\r\n0\r\n\r\nnext", 13),
            ("3\r\none\r\n0\r\n\r", 8),
            ("3\r\none\r\n0\r\nA: b\r\n\r\n", 8),
            ("3\r\none\r\n00\r\n\r\n", 8),
            ("3\r\none\r\n0;a\r\n\r\n", 8),
            ("a\r\n0123456789\r\n", 15),
            ("3\r\none\r\n2\r\nab\r", 8),
            ("3\r\none", 0),
            ("3\r\none\r\n02\r\nab\r\n", 8),
            ("A\r\n0123456789\r\n", 0),
            ("3;a=b\r\none\r\n", 0),
            ("3 \r\none\r\n", 0),
            ("3\r\none!!", 0),
            ("3\none\r\n", 0),
            ("0\r\n\r\n", 5),
            ("\r\n", 0),
            ("ffffffffffffffff\r\nx\r\n", 0),
            ("11111111111111111\r\nx\r\n", 0),
            ("", 0),
        ] {
            let mut body = Body::response(ResponseFraming::Chunked);
            assert_eq!(body.whole_chunks(bytes.as_bytes()), whole, "{bytes:?}");
            // What they are is what the decoder says, and it goes on after them.
            let mut by_decoder = Body::response(ResponseFraming::Chunked);
            let mut rest = &bytes.as_bytes()[..whole];
            while let Step::Data(_) = by_decoder.next(&mut rest).unwrap() {}
            assert_eq!(by_decoder.data_bytes(), body.data_bytes(), "{bytes:?}");
            assert_eq!(by_decoder.is_done(), body.is_done(), "{bytes:?}");
            let ends = |mut body: Body| {
                let mut rest = &bytes.as_bytes()[whole..];
                loop {
                    match body.next(&mut rest) {
                        Ok(Step::Data(_)) => {}
                        other => return (other.is_ok(), body.is_done(), rest.len()),
                    }
                }
            };
            assert_eq!(ends(body), ends(by_decoder), "{bytes:?}");
        }
    }

    #[test]
    fn chunks_are_written_as_the_strictest_reader_takes_them() {
        for length in [1, 9, 10, 15, 16, 255, 256, 4_095, 65_536] {
            let (data, mut out) = (vec![b'x'; length], Vec::new());
            put_chunk(&mut out, &data);
            assert!(out.starts_with(format!("{length:x}\r\nx").as_bytes()), "{length}");
            put_last_chunk(&mut out, b"");
            let body = Body::Chunked(Chunked::new(Reading::Request));
            let (got, left, body) = read(body, &out, out.len()).unwrap();
            assert_eq!((got.len(), left, body.is_done()), (length, 0, true));
        }
    }
}
