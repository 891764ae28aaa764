//! Reads response heads as a user agent reads them, from bytes that arrive in any pieces: lines may end in a bare LF, empty
//! lines may come first, fields may be folded and have white space before the colon. The result is in canonical form.
//!
//! An invalid line is rejected as soon as it has arrived. The result does not depend on the pieces.

use bytes::BufMut;

use super::fields::{Keep, Span, is_space, is_value};
use super::head::{Version, version};
use super::limits::{RESPONSE_HEAD_BYTES, RESPONSE_HEAD_FIELDS};
use super::{Fault, Field, Fields, Reading};

const PREFIX: &[u8] = b"HTTP/1.";
const TOO_LARGE: Fault = Fault::HeadBytes(RESPONSE_HEAD_BYTES >> 10);

/// A complete response head in canonical form: a view of the bytes it was read from.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// The upstream's version.
    pub version: Version,
    /// 0 to 999.
    pub status: u16,
    /// Bytes of the head as received, with the empty lines before it and the one after it.
    pub len: usize,
    /// The reason phrase; may be empty, may have bytes over 0x7f.
    pub reason: &'a [u8],
    fields: Fields<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Appends the lines of the fields that are kept; see [`Fields::write_kept`].
    pub fn write_kept(&self, out: &mut impl BufMut, keep: impl FnMut(&Field<'a>) -> Keep) {
        self.fields.write_kept(out, keep);
    }

    /// The fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + Clone + use<'a> {
        self.fields.iter()
    }
}

/// The bytes of this head when it is forwarded, or a fault if that, or the number of its fields, is over the limit. For
/// heads that another parser has read.
pub fn check_size<'a>(reason: &[u8], fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<usize, Fault> {
    let mut bytes = "HTTP/1.1 200 \r\n\r\n".len() + reason.len();
    for (number, (name, value)) in fields.enumerate() {
        if number == RESPONSE_HEAD_FIELDS {
            return Err(Fault::HeadFields(RESPONSE_HEAD_FIELDS));
        }
        bytes += name.len() + ": \r\n".len() + value.len();
    }
    if bytes > RESPONSE_HEAD_BYTES { Err(TOO_LARGE) } else { Ok(bytes) }
}

/// Reads one response head whose bytes arrive in pieces, and then keeps the positions of its parts, as
/// [`super::HeadReader`] does. Examines every line once: the work stays in proportion to the head.
#[derive(Debug, Default)]
pub struct ResponseReader {
    /// Where the incomplete line begins; after the end, the length of the head.
    next: usize,
    /// Up to here there is no line end.
    seen: usize,
    status_line: Option<StatusLine>,
    /// On the heap: thousands of readers may wait for their first byte.
    spans: Vec<Span>,
    /// The head without its folds, where it has any; otherwise empty.
    flat: Vec<u8>,
    complete: bool,
}

#[derive(Debug, Clone, Copy)]
struct StatusLine {
    version: Version,
    status: u16,
    reason: (usize, usize),
}

impl ResponseReader {
    /// Begins a new head. The room for positions is kept.
    pub fn reset(&mut self) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        *self = ResponseReader { spans, ..ResponseReader::default() };
    }

    /// `buf` is everything that has arrived of this head, and perhaps more. `None`: more bytes are needed. After a fault,
    /// call [`ResponseReader::reset`].
    pub fn read<'a>(&'a mut self, buf: &'a [u8]) -> Result<Option<ResponseHead<'a>>, Fault> {
        while !self.complete {
            if self.status_line.is_none() {
                check_start(&buf[self.next..])?;
            }
            let Some(end) = memchr::memchr(b'\n', &buf[self.seen..]).map(|at| self.seen + at) else {
                self.seen = buf.len();
                return if buf.len() < RESPONSE_HEAD_BYTES { Ok(None) } else { Err(TOO_LARGE) };
            };
            if end >= RESPONSE_HEAD_BYTES {
                return Err(TOO_LARGE);
            }
            let start = std::mem::replace(&mut self.next, end + 1);
            self.seen = self.next;
            let line = &buf[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.contains(&b'\r') {
                return Err(Fault::Head("a CR without LF"));
            }
            match (line, self.status_line) {
                // Before the status line (RFC 9112, 2.2). Pingora skips any number of them.
                ([], None) => {}
                (_, None) => self.status_line = Some(StatusLine::read(line, start)?),
                ([], Some(_)) => self.finish(buf)?,
                ([first, ..], Some(_)) if is_space(*first) => self.fold(line, start)?,
                (_, Some(_)) if self.spans.len() == RESPONSE_HEAD_FIELDS => {
                    return Err(Fault::HeadFields(RESPONSE_HEAD_FIELDS));
                }
                (_, Some(_)) => {
                    let span = Span::of(line, start, Reading::Answer)?;
                    if self.spans.is_empty() {
                        // Enough for most heads: growing by doubling copies.
                        self.spans.reserve(16);
                    }
                    self.spans.push(span);
                }
            }
        }
        Ok(self.head(buf))
    }

    /// The head that was read; `None` before it is complete. `buf` begins with the bytes it was read from.
    pub fn head<'a>(&'a self, buf: &'a [u8]) -> Option<ResponseHead<'a>> {
        let StatusLine { version, status, reason } = self.status_line.filter(|_| self.complete)?;
        let bytes = if self.flat.is_empty() { buf.get(..self.next)? } else { &self.flat };
        let fields = Fields::over(&self.spans, bytes);
        Some(ResponseHead { version, status, len: self.next, reason: bytes.get(reason.0..reason.1)?, fields })
    }

    /// Where the first unread line begins: the one after the invalid line, or the incomplete one.
    pub fn position(&self) -> usize {
        self.next
    }

    /// Reads a line that continues the field before it.
    fn fold(&mut self, line: &[u8], start: usize) -> Result<(), Fault> {
        let span = self.spans.last_mut().ok_or(Fault::Head("white space before the first field"))?;
        if !is_value(line) {
            return Err(Fault::Head("a control character in a field value"));
        }
        span.fold(start + line.len())
    }

    fn finish(&mut self, buf: &[u8]) -> Result<(), Fault> {
        self.complete = true;
        if self.spans.iter().any(Span::is_folded) {
            self.flat = buf[..self.next].to_vec();
            let ResponseReader { spans, flat, .. } = self;
            spans.iter_mut().for_each(|span| span.unfold(flat));
        }
        if self.next + 2 * self.spans.len() + PREFIX.len() <= RESPONSE_HEAD_BYTES {
            // In canonical form a line is at most two bytes longer.
            return Ok(());
        }
        let head = self.head(buf).expect("it is complete");
        check_size(head.reason, head.fields().map(|field| (field.name, field.value)))?;
        Ok(())
    }
}

impl StatusLine {
    /// Reads a line that begins at `at` of its head. A missing reason phrase is like an empty one (RFC 9112, 4).
    fn read(line: &[u8], at: usize) -> Result<StatusLine, Fault> {
        let (version_text, rest) = line.split_at_checked(8).ok_or(Fault::Head("invalid version"))?;
        let version = match version(version_text) {
            Ok(version) => version,
            Err(Fault::Version) => return Err(Fault::Version),
            Err(_) => return Err(Fault::Head("invalid version")),
        };
        let bad = Fault::Head("invalid status");
        let [b' ', hundreds, tens, ones, phrase @ ..] = rest else { return Err(bad) };
        let digits = [*hundreds, *tens, *ones];
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(bad);
        }
        match phrase {
            [] => {}
            [b' ', text @ ..] if is_value(text) => {}
            [b' ', ..] => return Err(Fault::Head("a control character in the reason phrase")),
            [..] => return Err(bad),
        }
        let status = digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
        let reason = (at + (line.len() - phrase.len() + 1).min(line.len()), at + line.len());
        Ok(StatusLine { version, status, reason })
    }
}

/// Rejects bytes that cannot become a status line at the first wrong byte: another protocol may never send a line end.
fn check_start(bytes: &[u8]) -> Result<(), Fault> {
    match bytes {
        [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..] => Ok(()),
        _ if PREFIX.iter().zip(bytes).all(|(due, byte)| due == byte) => Ok(()),
        _ => Err(Fault::NotHttp),
    }
}

#[cfg(test)]
mod tests;
