//! Finds our credentials in data from a peer, in any form: unchanged, escaped as JSON and other languages do, in
//! percent encoding, as character references of HTML, with each character in its own way, and all of it nested up to
//! three deep (JSON within JSON, HTML within JSON); in another case; and in derived forms (`spellings`): Base64, hex,
//! the pair within a Basic credential.
//!
//! The text is read once per depth; then every place holds what may begin there, and where that ends in the text. Where
//! the text is cut, its last bytes may be the beginning of a credential.

use std::collections::BTreeSet;
use std::ops::Range;

mod spellings;
use spellings::{Spelling, spellings};

/// Shorter texts are not masked, because that would turn a quotation into asterisks: a secret with fewer bytes (also a
/// password within a Basic credential) is shown. For Base64 and hex, the encoded form must have this many.
const BYTES_MIN: usize = 4;
/// The most times that a character may be escaped.
const DEPTH: usize = 3;
/// Marks where a quotation was cut.
const ELLIPSIS: &[u8] = "…".as_bytes();
/// Digits of a number that names a character; HTML allows leading zeros.
const DIGITS_MAX: usize = 8;

/// Replaces each of `secrets` by `***` if a peer sent it back. The cost is bounded by the lengths of the text and of
/// the secrets: about forty spellings of each are searched.
pub fn mask_all<'s>(bytes: &mut Vec<u8>, secrets: impl Iterator<Item = &'s str>) {
    if bytes.len() < BYTES_MIN {
        return;
    }
    let mut view = None;
    let mut found = Vec::new();
    for spelling in spellings(secrets, bytes.len()) {
        view.get_or_insert_with(|| View::of(bytes)).find(&spelling, &mut found);
    }
    if !found.is_empty() {
        *bytes = masked(bytes, found);
    }
}

/// `bytes` with `***` for each of the ranges; overlapping ranges become one.
fn masked(bytes: &[u8], mut ranges: Vec<Range<usize>>) -> Vec<u8> {
    ranges.sort_by_key(|range| range.start);
    let mut out = Vec::with_capacity(bytes.len());
    let mut done = 0;
    for Range { start, end } in ranges {
        if start >= done {
            out.extend_from_slice(&bytes[done..start]);
            out.extend_from_slice(b"***");
        }
        done = done.max(end);
    }
    out.extend_from_slice(&bytes[done..]);
    out
}

/// What may begin at a place of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// One character in UTF-8, or one byte, and where it ends in the text.
    Is { bytes: [u8; 4], len: usize, end: usize },
    /// The text is cut here, or within the escape that begins here.
    Cut,
}

impl Unit {
    fn byte(byte: u8, end: usize) -> Unit {
        Unit::Is { bytes: [byte, 0, 0, 0], len: 1, end }
    }

    fn char(c: char, end: usize) -> Unit {
        let mut bytes = [0; 4];
        let len = c.encode_utf8(&mut bytes).len();
        Unit::Is { bytes, len, end }
    }
}

/// A text, and what may begin at each of its places (and after the last) at each depth.
struct View<'t> {
    text: &'t [u8],
    depths: Vec<Vec<Unit>>,
}

impl<'t> View<'t> {
    fn of(text: &'t [u8]) -> View<'t> {
        let mut plain: Vec<Unit> = text.iter().enumerate().map(|(at, byte)| Unit::byte(*byte, at + 1)).collect();
        plain.push(Unit::Cut);
        let mut depths = vec![plain];
        for depth in 0..DEPTH {
            let outer = &depths[depth];
            let inner = (0..=text.len()).map(|at| match unescape(&mut Cursor { text, units: outer, at }) {
                Ok(unit) => unit,
                Err(Miss::Cut) => Unit::Cut,
                Err(Miss::Other) => outer[at],
            });
            let inner = inner.collect();
            depths.push(inner);
        }
        View { text, depths }
    }

    /// Adds every place of a spelling to `found`.
    fn find(&self, spelling: &Spelling, found: &mut Vec<Range<usize>>) {
        let mut at = 0;
        while at < self.text.len() {
            match self.may_begin(&spelling.bytes, at).then(|| self.end_of(&spelling.bytes, at)).flatten() {
                Some(end) => {
                    found.push(if spelling.base64 { self.whole_base64(at..end) } else { at..end });
                    at = end;
                }
                None => at += 1,
            }
        }
    }

    /// Whether `secret` may begin at a place: a quick test that almost always fails.
    fn may_begin(&self, secret: &[u8], at: usize) -> bool {
        self.depths.iter().any(|units| match units[at] {
            Unit::Is { bytes, len, .. } => {
                starts_with(secret, &bytes[..len]) || (secret[0] == b' ' && bytes[0] == b'+')
            }
            Unit::Cut => false,
        })
    }

    /// Includes the characters at both ends that hold some bits of the secret, and the padding.
    fn whole_base64(&self, inner: Range<usize>) -> Range<usize> {
        let is_digit = |at: usize| self.text.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(b));
        let start = inner.start - usize::from(inner.start > 0 && is_digit(inner.start - 1));
        let end = inner.end + usize::from(is_digit(inner.end));
        let padding = self.text[end..].iter().take(2).take_while(|byte| **byte == b'=').count();
        start..end + padding
    }

    /// Where the longest writing of `secret` that begins at `start` ends. There may be several: a writing that ends in
    /// a backslash is found before the one with a doubled backslash.
    fn end_of(&self, secret: &[u8], start: usize) -> Option<usize> {
        let mut longest = None;
        // How much of the secret has matched, and where; in this order, every pair is taken out once.
        let mut open = BTreeSet::from([(0, start)]);
        while let Some((met, at)) = open.pop_first() {
            if met == secret.len() {
                longest = longest.max(Some(at));
                continue;
            }
            for unit in self.depths.iter().map(|units| units[at]) {
                match unit {
                    Unit::Is { bytes, len, end } if starts_with(&secret[met..], &bytes[..len]) => {
                        open.insert((met + len, end));
                    }
                    // HTML forms write a space this way (WHATWG URL, section 5).
                    Unit::Is { bytes: [b'+', ..], end, .. } if secret[met] == b' ' => {
                        open.insert((met + 1, end));
                    }
                    Unit::Cut if met >= BYTES_MIN => longest = longest.max(Some(self.cut_after(at))),
                    Unit::Is { .. } | Unit::Cut => {}
                }
            }
        }
        longest
    }

    /// The next place at which the text is cut.
    fn cut_after(&self, at: usize) -> usize {
        let ellipsis = self.text[at..].windows(ELLIPSIS.len()).position(|window| window == ELLIPSIS);
        ellipsis.map_or(self.text.len(), |offset| at + offset)
    }
}

/// Ignores case: a peer may have changed it.
fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

/// Why there is no escape.
enum Miss {
    /// The text is cut within it.
    Cut,
    /// It is something else.
    Other,
}

/// Reads the characters of an escape, which may be escaped themselves.
struct Cursor<'v> {
    text: &'v [u8],
    units: &'v [Unit],
    at: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<u8, Miss> {
        if self.text[self.at..].starts_with(ELLIPSIS) {
            return Err(Miss::Cut);
        }
        match self.units[self.at] {
            Unit::Is { bytes, len: 1, end } => {
                self.at = end;
                Ok(bytes[0])
            }
            Unit::Is { .. } => Err(Miss::Other),
            Unit::Cut => Err(Miss::Cut),
        }
    }

    fn digit(&mut self, radix: u32) -> Result<u32, Miss> {
        char::from(self.next()?).to_digit(radix).ok_or(Miss::Other)
    }

    /// Exactly `digits` hexadecimal ones.
    fn hex(&mut self, digits: usize) -> Result<u32, Miss> {
        (0..digits).try_fold(0, |number, _| Ok(number << 4 | self.digit(16)?))
    }

    /// Digits up to `close`, the first of which may have been read already.
    fn number(&mut self, first: Option<u8>, radix: u32, close: u8) -> Result<char, Miss> {
        let mut next = first.map_or_else(|| self.next(), Ok)?;
        let mut number: u32 = 0;
        for digits in 0..=DIGITS_MAX {
            if next == close && digits > 0 {
                return char::from_u32(number).ok_or(Miss::Other);
            }
            let digit = char::from(next).to_digit(radix).ok_or(Miss::Other)?;
            number = number.checked_mul(radix).and_then(|number| number.checked_add(digit)).ok_or(Miss::Other)?;
            next = self.next()?;
        }
        Err(Miss::Other)
    }
}

/// Reads one escape of any kind.
fn unescape(cursor: &mut Cursor<'_>) -> Result<Unit, Miss> {
    match cursor.next()? {
        b'\\' => backslash(cursor),
        b'%' => {
            let byte = cursor.hex(2)?;
            Ok(Unit::byte(byte as u8, cursor.at))
        }
        b'&' => {
            let c = reference(cursor)?;
            Ok(Unit::char(c, cursor.at))
        }
        _ => Err(Miss::Other),
    }
}

/// After a backslash: JSON (RFC 8259, section 7), and additions of other languages, such as `\x2f`, `\u{2f}` and `\'`.
fn backslash(cursor: &mut Cursor<'_>) -> Result<Unit, Miss> {
    let byte = match cursor.next()? {
        mark if mark.is_ascii_punctuation() => mark,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => cursor.hex(2)? as u8,
        b'u' => {
            let c = unicode(cursor)?;
            return Ok(Unit::char(c, cursor.at));
        }
        _ => return Err(Miss::Other),
    };
    Ok(Unit::byte(byte, cursor.at))
}

/// After `\u`: four digits, twice for characters beyond the basic plane, or any number of them in braces.
fn unicode(cursor: &mut Cursor<'_>) -> Result<char, Miss> {
    let before = cursor.at;
    if cursor.next()? == b'{' {
        return cursor.number(None, 16, b'}');
    }
    cursor.at = before;
    let high = cursor.hex(4)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).ok_or(Miss::Other);
    }
    if (cursor.next()?, cursor.next()?) != (b'\\', b'u') {
        return Err(Miss::Other);
    }
    let low = cursor.hex(4)?.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(Miss::Other)?;
    char::from_u32(0x10000 + ((high - 0xd800) << 10) + low).ok_or(Miss::Other)
}

/// After `&`: a character reference of HTML, by number or one of the five names that XML also has.
fn reference(cursor: &mut Cursor<'_>) -> Result<char, Miss> {
    let first = cursor.next()?;
    if first == b'#' {
        return match cursor.next()? {
            b'x' | b'X' => cursor.number(None, 16, b';'),
            digit => cursor.number(Some(digit), 10, b';'),
        };
    }
    if !first.is_ascii_alphabetic() {
        return Err(Miss::Other);
    }
    let mut name = String::from(char::from(first));
    while name.len() <= "quot".len() {
        match cursor.next()? {
            b';' => return named(&name.to_ascii_lowercase()).ok_or(Miss::Other),
            letter if letter.is_ascii_alphabetic() => name.push(char::from(letter)),
            _ => break,
        }
    }
    Err(Miss::Other)
}

fn named(name: &str) -> Option<char> {
    let names = [("quot", '"'), ("amp", '&'), ("apos", '\''), ("lt", '<'), ("gt", '>')];
    names.into_iter().find(|(known, _)| *known == name).map(|(_, c)| c)
}

#[cfg(test)]
mod tests;
