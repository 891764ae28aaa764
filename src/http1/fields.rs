//! Field lines: positions of names and values, and the known names. Shared by request heads, response heads and trailers.

use std::ops::Range;

use bytes::BufMut;

use super::{Fault, Reading};

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name: a token, in its original case.
    pub name: &'a [u8],
    /// Its value, without white space around it; no control characters but tabs. May be empty, may hold bytes over 0x7f.
    pub value: &'a [u8],
    /// The known name, in any case.
    pub known: Known,
}

/// The field names that have a rule.
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
    /// Fields about the client: Forwarded, X-Forwarded-anything and X-Real-IP, also with `_` for `-` (many application
    /// servers treat both alike).
    Forwarded,
    /// A name for framing or of a hop-by-hop field, with `_` for one `-` or more, as in `Transfer_Encoding`.
    Underscored,
    /// Any other.
    Other,
}

impl<'a> Field<'a> {
    /// A field whose name and value are already verified.
    pub fn new(name: &'a [u8], value: &'a [u8]) -> Field<'a> {
        Field { name, value, known: Known::of(name) }
    }
}

impl Known {
    /// The known name that `name` is, in any case.
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
            10 if same_folded(name, b"keep-alive") => Known::Underscored,
            14 if same_folded(name, b"content-length") || same_folded(name, b"http2-settings") => Known::Underscored,
            16 if same_folded(name, b"proxy-connection") => Known::Underscored,
            17 if same_folded(name, b"transfer-encoding") => Known::Underscored,
            18 if same_folded(name, b"proxy-authenticate") => Known::Underscored,
            19 if same_folded(name, b"proxy-authorization") => Known::Underscored,
            25 if same_folded(name, b"proxy-authentication-info") => Known::Underscored,
            _ => Known::Other,
        }
    }
}

/// Appends these parts, one after the other.
pub(crate) fn put(out: &mut impl BufMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.put_slice(part));
}

/// Equal except for case and `_` for `-`.
fn same_folded(name: &[u8], known: &[u8]) -> bool {
    let fold = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    name.len() == known.len() && name.iter().map(fold).eq(known.iter().copied())
}

/// The position of one field in its head. Heads have at most 64 KiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    name: u16,
    name_len: u16,
    value: u16,
    value_len: u16,
    known: Known,
    /// The value contains line ends, which [`Span::unfold`] removes.
    folded: bool,
}

impl Span {
    /// The position of the field in this line, which begins at `start` of its head.
    pub(super) fn of(line: &[u8], start: usize, reading: Reading) -> Result<Span, Fault> {
        let Parts { name_len, value, value_len } = Parts::of(line, reading)?;
        Ok(Span {
            name: offset(start)?,
            name_len: offset(name_len)?,
            value: offset(start + value)?,
            value_len: offset(value_len)?,
            known: Known::of(&line[..name_len]),
            folded: false,
        })
    }

    /// Extends the value over a line end, up to `end`.
    pub(super) fn fold(&mut self, end: usize) -> Result<(), Fault> {
        self.value_len = offset(end)? - self.value;
        self.folded = true;
        Ok(())
    }

    /// Replaces every fold by one space (RFC 9112, 5.2). `bytes` is the whole head; the bytes after the shortened value are
    /// unused.
    pub(super) fn unfold(&mut self, bytes: &mut [u8]) {
        if !self.folded {
            return;
        }
        let (start, end) = (usize::from(self.value), usize::from(self.value) + usize::from(self.value_len));
        let mut flat = Vec::with_capacity(end - start);
        for line in bytes[start..end].split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
            if !flat.is_empty() {
                flat.push(b' ');
            }
            flat.extend_from_slice(line);
        }
        bytes[start..start + flat.len()].copy_from_slice(&flat);
        self.value_len = u16::try_from(flat.len()).expect("it is shorter than with its folds");
        self.folded = false;
    }

    /// The same position where `lead` bytes before the head are gone.
    pub(super) fn rebase(&mut self, lead: u16) {
        self.name -= lead;
        self.value -= lead;
    }

    pub(super) fn is_folded(&self) -> bool {
        self.folded
    }

    /// The line with its end, if it is written as it would be sent on.
    fn canonical(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let (start, colon) = (usize::from(self.name), usize::from(self.name) + usize::from(self.name_len));
        let end = usize::from(self.value) + usize::from(self.value_len);
        let is_plain = usize::from(self.value) == colon + 2 && bytes[colon + 1] == b' ' && !self.is_folded();
        (is_plain && bytes.get(end..end + 2) == Some(b"\r\n")).then_some(start..end + 2)
    }

    /// The field itself; `bytes` is the whole head.
    pub(super) fn field<'a>(&self, bytes: &'a [u8]) -> Field<'a> {
        let slice = |at: u16, len: u16| &bytes[usize::from(at)..usize::from(at) + usize::from(len)];
        Field { name: slice(self.name, self.name_len), value: slice(self.value, self.value_len), known: self.known }
    }
}

pub(super) fn offset(n: usize) -> Result<u16, Fault> {
    u16::try_from(n).map_err(|_| Fault::HeadBytes(64))
}

/// What becomes of a field when its head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It goes.
    No,
    /// It stays.
    AsItIs,
    /// It stays with this value.
    Value(&'static [u8]),
}

impl Keep {
    /// Stays, or goes.
    pub fn unless(drops: bool) -> Keep {
        if drops { Keep::No } else { Keep::AsItIs }
    }
}

/// The fields of a head, in order: positions, and the bytes they point into.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    buf: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Fields<'a> {
    pub(super) fn over(spans: &'a [Span], buf: &'a [u8]) -> Fields<'a> {
        Fields { buf, spans }
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + Clone + use<'a> {
        let Fields { buf, spans } = *self;
        spans.iter().map(move |span| span.field(buf))
    }

    /// The values of every field with this name, in order. `Known::Other` and the other variants that cover several names
    /// return the values of all of them.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let Fields { buf, spans } = *self;
        spans.iter().filter(move |span| span.known == known).map(move |span| span.field(buf).value)
    }

    /// Appends the lines of those that are kept, in canonical form. Neighbours that are in it already are copied together.
    pub fn write_kept(&self, out: &mut impl BufMut, mut keep: impl FnMut(&Field<'a>) -> Keep) {
        let Fields { buf, spans } = *self;
        // Lines that are to be copied as they are.
        let (mut start, mut end) = (0, 0);
        for span in spans {
            let field = span.field(buf);
            let line = match keep(&field) {
                Keep::No => continue,
                Keep::AsItIs => span.canonical(buf).ok_or(field.value),
                Keep::Value(value) => Err(value),
            };
            match line {
                Ok(line) if line.start == end => end = line.end,
                Ok(line) => {
                    out.put_slice(&buf[start..end]);
                    (start, end) = (line.start, line.end);
                }
                Err(value) => {
                    out.put_slice(&buf[start..end]);
                    (start, end) = (0, 0);
                    put(out, &[field.name, b": ", value, b"\r\n"]);
                }
            }
        }
        out.put_slice(&buf[start..end]);
    }
}

/// The positions of name and value in a field line.
struct Parts {
    name_len: usize,
    value: usize,
    value_len: usize,
}

impl Parts {
    /// Splits a line without its line end. White space before the name is an error: the caller handles folds.
    fn of(line: &[u8], reading: Reading) -> Result<Parts, Fault> {
        // The usual line: a token, a colon.
        let token = line.iter().position(|b| !is_token(*b)).unwrap_or(line.len());
        if token > 0 && line.get(token) == Some(&b':') {
            return Parts::after(line, token, token);
        }
        let colon = memchr::memchr(b':', line).ok_or(Fault::Head("a field without a colon"))?;
        let name = match reading {
            Reading::Request => &line[..colon],
            // A recipient of a response removes it (RFC 9112, 5.1).
            Reading::Answer => trim_end(&line[..colon]),
        };
        if name.is_empty() {
            return Err(Fault::Head("a field without a name"));
        }
        if !name.iter().all(|b| is_token(*b)) {
            return Err(Fault::Head("a field name with white space or another character that is not allowed"));
        }
        Parts::after(line, name.len(), colon)
    }

    /// The rest of the line after a good name.
    fn after(line: &[u8], name_len: usize, colon: usize) -> Result<Parts, Fault> {
        let rest = &line[colon + 1..];
        if !is_value(rest) {
            return Err(Fault::Head("a control character in a field value"));
        }
        let value = trim(rest);
        let lead = if value.is_empty() { 0 } else { rest.iter().take_while(|b| is_space(**b)).count() };
        Ok(Parts { name_len, value: colon + 1 + lead, value_len: value.len() })
    }
}

/// Reads one field line without its line end.
pub(super) fn field_line(line: &[u8], reading: Reading) -> Result<Field<'_>, Fault> {
    let Parts { name_len, value, value_len } = Parts::of(line, reading)?;
    Ok(Field::new(&line[..name_len], &line[value..value + value_len]))
}

/// A value without the white space around it.
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let Some(first) = value.iter().position(|b| !is_space(*b)) else { return &[] };
    let last = value.iter().rposition(|b| !is_space(*b)).unwrap_or(first);
    &value[first..=last]
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| !is_space(*b)).map_or(0, |last| last + 1);
    &text[..end]
}

/// The elements of a comma-separated value, without white space and without empty ones.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|element| !element.is_empty())
}

/// Whether this byte is allowed in a token (RFC 9110, 5.6.2).
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

/// Whether a value has only allowed bytes: tab, space, visible ASCII and bytes over 0x7f. Without early exit, so that the
/// compiler vectorises it.
pub(crate) fn is_value(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, b| bad | ((*b < 0x20) & (*b != b'\t')) | (*b == 0x7f))
}

/// Whether all bytes are visible ASCII.
pub(crate) fn is_visible(text: &[u8]) -> bool {
    !text.iter().fold(false, |bad, b| bad | (*b < 0x21) | (*b > 0x7e))
}

/// Whether this is white space within a line.
pub(super) fn is_space(b: u8) -> bool {
    b == b' ' || b == b'\t'
}
