//! Field lines: where names and values stand, and which of the names we know. Shared by request and response heads.

use smallvec::SmallVec;

use super::{Limits, line_at};
use crate::exchange::answer::Refusal;
use crate::exchange::limits::HEAD_FIELDS;
use crate::pool::AnswerReason;

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name: a token, in the case in which it came.
    pub name: &'a [u8],
    /// Its value, without white space around it; no control characters but tabs. May be empty, may hold bytes over 0x7f.
    pub value: &'a [u8],
    /// Which name it is.
    pub known: Known,
}

/// The field names that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Known {
    /// Host.
    Host,
    /// Content-Length.
    ContentLength,
    /// Transfer-Encoding.
    TransferEncoding,
    /// Connection.
    Connection,
    /// Keep-Alive.
    KeepAlive,
    /// Proxy-Connection.
    ProxyConnection,
    /// TE.
    Te,
    /// Upgrade.
    Upgrade,
    /// HTTP2-Settings.
    Http2Settings,
    /// Expect.
    Expect,
    /// Proxy-Authorization, Proxy-Authenticate, Proxy-Authentication-Info.
    ProxyAuth,
    /// Authorization.
    Authorization,
    /// Cookie.
    Cookie,
    /// What tells upstreams about the client: Forwarded, X-Forwarded-anything and X-Real-IP, with `_` for `-` too (many
    /// application servers cannot tell the two apart).
    Forwarded,
    /// Any other.
    Other,
}

impl Known {
    /// Which name this is, in any case.
    pub fn of(name: &[u8]) -> Known {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Known::Te,
            4 if is("host") => Known::Host,
            6 if is("cookie") => Known::Cookie,
            6 if is("expect") => Known::Expect,
            7 if is("upgrade") => Known::Upgrade,
            9 if is("forwarded") || same_folded(name, b"x-real-ip") => Known::Forwarded,
            10 if is("connection") => Known::Connection,
            10 if is("keep-alive") => Known::KeepAlive,
            13 if is("authorization") => Known::Authorization,
            14 if is("content-length") => Known::ContentLength,
            14 if is("http2-settings") => Known::Http2Settings,
            16 if is("proxy-connection") => Known::ProxyConnection,
            17 if is("transfer-encoding") => Known::TransferEncoding,
            18 if is("proxy-authenticate") => Known::ProxyAuth,
            19 if is("proxy-authorization") => Known::ProxyAuth,
            25 if is("proxy-authentication-info") => Known::ProxyAuth,
            12.. if same_folded(&name[..12], b"x-forwarded-") => Known::Forwarded,
            _ => Known::Other,
        }
    }
}

/// Equal but for case and `_` for `-`.
fn same_folded(name: &[u8], known: &[u8]) -> bool {
    let fold = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    name.len() == known.len() && name.iter().map(fold).eq(known.iter().copied())
}

/// Where one field stands in its head. Heads have at most 64 KiB.
#[derive(Debug, Clone, Copy)]
struct Span {
    name: u16,
    name_len: u16,
    value: u16,
    value_len: u16,
    known: Known,
}

/// The fields of a head, in order.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    buf: &'a [u8],
    spans: SmallVec<[Span; HEAD_FIELDS]>,
}

impl<'a> Fields<'a> {
    /// Reads the field lines that begin at `next`, up to and with the empty line; the number is where that ends. `None`:
    /// the empty line has not arrived.
    pub(super) fn parse(
        buf: &'a [u8],
        mut next: usize,
        limits: &Limits,
    ) -> Result<Option<(Fields<'a>, usize)>, Refusal> {
        let mut spans = SmallVec::new();
        while let Some((line, after)) = line_at(buf, next)? {
            if after > limits.head_bytes.min(1 << 16) {
                return Err(Refusal::new(AnswerReason::HeadTooLarge, "the head is too large"));
            }
            if line.is_empty() {
                return Ok(Some((Fields { buf, spans }, after)));
            }
            if spans.len() == limits.fields {
                return Err(Refusal::new(AnswerReason::HeadTooLarge, "the head has too many fields"));
            }
            spans.push(span(line, next)?);
            next = after;
        }
        Ok(None)
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + '_ {
        self.spans.iter().map(|span| self.field(span))
    }

    /// The values of every field with this name, in order. `Known::Other` and the names that stand for several give all
    /// of theirs.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.spans.iter().filter(move |span| span.known == known).map(|span| self.field(span).value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn field(&self, span: &Span) -> Field<'a> {
        let slice = |at: u16, len: u16| &self.buf[usize::from(at)..usize::from(at) + usize::from(len)];
        Field { name: slice(span.name, span.name_len), value: slice(span.value, span.value_len), known: span.known }
    }
}

/// Reads one field line without its CRLF. White space before the name is obs-fold or a trick.
pub(crate) fn field_line(line: &[u8]) -> Result<Field<'_>, Refusal> {
    let colon = memchr::memchr(b':', line).ok_or(Refusal::malformed("a field line without a colon"))?;
    let (name, rest) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(Refusal::malformed("a field name that is no token, or white space around it"));
    }
    if !is_value(rest) {
        return Err(Refusal::malformed("a control character in a field value"));
    }
    Ok(Field { name, value: trim(rest), known: Known::of(name) })
}

/// Where the field of this line stands, which begins at `start` of its head.
fn span(line: &[u8], start: usize) -> Result<Span, Refusal> {
    let Field { name, value, known } = field_line(line)?;
    let rest = &line[name.len() + 1..];
    let lead = if value.is_empty() { 0 } else { rest.iter().take_while(|b| is_space(**b)).count() };
    let at = |n: usize| u16::try_from(n).map_err(|_| Refusal::new(AnswerReason::HeadTooLarge, "the head is too large"));
    Ok(Span {
        name: at(start)?,
        name_len: at(name.len())?,
        value: at(start + name.len() + 1 + lead)?,
        value_len: at(value.len())?,
        known,
    })
}

/// A value without the white space around it.
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let Some(first) = value.iter().position(|b| !is_space(*b)) else { return &[] };
    let last = value.iter().rposition(|b| !is_space(*b)).unwrap_or(first);
    &value[first..=last]
}

/// The elements of a comma-separated value, without white space and without empty ones.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|element| !element.is_empty())
}

/// Whether this byte may stand in a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(b: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0;
        while b < 256 {
            let c = b as u8;
            table[b] = c.is_ascii_alphanumeric()
                || matches!(
                    c,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
            b += 1;
        }
        table
    };
    TABLE[usize::from(b)]
}

/// Whether a value holds only what it may: tab, space, visible ASCII and bytes over 0x7f. Without early exit, so that it
/// runs many bytes at a time.
pub(crate) fn is_value(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t')) | (*b == 0x7f))
}

/// Whether all bytes are visible ASCII.
pub(crate) fn is_visible(text: &[u8]) -> bool {
    !text.iter().fold(false, |bad, b| bad | (*b < 0x21) | (*b > 0x7e))
}

fn is_space(b: u8) -> bool {
    b == b' ' || b == b'\t'
}
