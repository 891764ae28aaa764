//! The chunked transfer coding (RFC 9112, section 7.1), read strictly: CRLF line ends, hexadecimal sizes without blanks.
//! Extensions and trailers are skipped; all framing together is bounded.

use super::Malformed;

/// Bytes of sizes, extensions, line ends and trailers: enough for 64 KiB in chunks of one byte.
const FRAMING_BYTES_MAX: usize = 1 << 20;

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    body_bytes: u64,
    framing_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// In the size: how many digits, and their value.
    Size(u8, u64),
    /// In an extension.
    Extension(u64),
    /// Before the LF of a size line.
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

/// What came of some bytes.
#[derive(Debug)]
pub(super) enum Step<'i> {
    /// Only framing.
    More,
    /// A piece of the body, not empty.
    Data(&'i [u8]),
    /// The body and its trailers have ended.
    End,
}

impl Chunked {
    pub(super) fn new() -> Chunked {
        Chunked { at: At::Size(0, 0), body_bytes: 0, framing_bytes: 0 }
    }

    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Takes bytes off the front of `input` up to the next thing to report.
    pub(super) fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Step<'i>, Malformed> {
        while let Some((&byte, rest)) = input.split_first() {
            if let At::Data(left) = self.at {
                let piece = super::take(input, left);
                let left = left - piece.len() as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data(left) };
                self.body_bytes = self.body_bytes.saturating_add(piece.len() as u64);
                return Ok(Step::Data(piece));
            }
            *input = rest;
            self.framing_bytes += 1;
            if self.framing_bytes > FRAMING_BYTES_MAX {
                return Err(Malformed::Chunk("over 1 MiB of sizes, extensions and trailers"));
            }
            if matches!((self.at, byte), (At::EndLf, b'\n')) {
                return Ok(Step::End);
            }
            self.at = self.at.after(byte)?;
        }
        Ok(Step::More)
    }
}

impl At {
    fn after(self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self, byte) {
            (At::Size(digits, size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let value = char::from(byte).to_digit(16).expect("the arm takes hexadecimal digits only");
                if digits == 16 {
                    return Err(Malformed::Chunk("size over 64 bits"));
                }
                At::Size(digits + 1, size << 4 | u64::from(value))
            }
            (At::Size(1.., size), b'\r') => At::SizeLf(size),
            (At::Size(1.., size), b';') => At::Extension(size),
            (At::Size(..), _) => return Err(Malformed::Chunk("invalid size")),
            (At::Extension(size), b'\r') => At::SizeLf(size),
            (At::Extension(_), b'\n') => return Err(Malformed::Chunk("stray line end")),
            (At::Extension(size), _) => At::Extension(size),
            (At::SizeLf(0), b'\n') => At::TrailerStart,
            (At::SizeLf(size), b'\n') => At::Data(size),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0, 0),
            (At::DataCr | At::DataLf, _) => return Err(Malformed::Chunk("longer than its size")),
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerStart | At::Trailer, b'\n') => return Err(Malformed::Chunk("stray line end")),
            (At::TrailerStart | At::Trailer, _) => At::Trailer,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::SizeLf(_) | At::TrailerLf | At::EndLf, _) => return Err(Malformed::Chunk("stray line end")),
            (At::Data(_), _) => unreachable!("data is taken in pieces, not byte by byte"),
        })
    }
}
