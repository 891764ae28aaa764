//! The normal form of a path: two spellings of the same resource (RFC 3986, section 6.2.2) become one text, so that
//! another spelling of a path cannot bypass a route.
//!
//! Used for patterns when a configuration is read and for the path of every request. Only for comparing: the bytes of a
//! request go to the upstream unchanged. What two parsers could read differently (dot segments, NUL) is rejected, not
//! repaired.

use std::borrow::Cow;

/// Why a path has no normal form. For a request: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty or does not begin with `/`.
    #[error("a path must begin with /")]
    NotAbsolute,
    /// A segment is `.` or `..`, raw or encoded. `/`, `\` and their escapes all end a segment, and so does a `;` after
    /// it, because some servers read them so: `/a/..%2Fb`, `/a/..;/b`.
    #[error("a path must not contain a . or .. segment, raw or encoded")]
    DotSegment,
    /// `%00`.
    #[error("a path must not contain %00")]
    Nul,
    /// A `%` without two hexadecimal digits after it.
    #[error("a % in a path must be followed by two hexadecimal digits")]
    Escape,
    /// A control character, a space, `?` or `#`: the text is not just a path.
    #[error("a path must not contain the byte 0x{0:02x}")]
    Byte(u8),
}

/// The normal form of `path` (without its query): escapes of unreserved characters are decoded, other escapes have
/// upper-case digits, and bytes that RFC 3986 does not allow in a path are escaped. `%2F` and `//` stay as they are.
///
/// The result is ASCII. Allocates only when the normal form differs from the path.
pub fn normalise(path: &[u8]) -> Result<Cow<'_, str>, PathError> {
    if path.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let normal = if path.iter().all(|b| is_plain(*b)) {
        Cow::Borrowed(std::str::from_utf8(path).expect("plain bytes are ASCII"))
    } else {
        Cow::Owned(rewrite(path)?)
    };
    if has_dot_segment(normal.as_bytes()) {
        return Err(PathError::DotSegment);
    }
    Ok(normal)
}

fn rewrite(path: &[u8]) -> Result<String, PathError> {
    let mut normal = String::with_capacity(path.len() + 16);
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match *byte {
            b'%' => {
                let [high, low, after @ ..] = tail else { return Err(PathError::Escape) };
                rest = after;
                match hex_value(*high)? << 4 | hex_value(*low)? {
                    0 => return Err(PathError::Nul),
                    decoded if is_unreserved(decoded) => normal.push(char::from(decoded)),
                    decoded => push_escape(&mut normal, decoded),
                }
            }
            plain if is_plain(plain) => normal.push(char::from(plain)),
            b'?' | b'#' | 0..=b' ' | 0x7f => return Err(PathError::Byte(*byte)),
            odd => push_escape(&mut normal, odd),
        }
    }
    Ok(normal)
}

/// Whether a segment of a path in the normal form is `.` or `..`. Checks closely only a dot after the end of a segment.
fn has_dot_segment(path: &[u8]) -> bool {
    (1..path.len()).any(|at| path[at] == b'.' && ends_segment_before(path, at) && is_dot_segment(&path[at..]))
}

fn ends_segment_before(path: &[u8], at: usize) -> bool {
    let before = &path[..at];
    before.ends_with(b"/") || before.ends_with(b"%2F") || before.ends_with(b"%5C")
}

fn is_dot_segment(from: &[u8]) -> bool {
    let after = from.strip_prefix(b"..").or_else(|| from.strip_prefix(b".")).unwrap_or(from);
    after.is_empty() || [&b"/"[..], b";", b"%2F", b"%5C"].iter().any(|end| after.starts_with(end))
}

fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn hex_value(digit: u8) -> Result<u8, PathError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(PathError::Escape),
    }
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Bytes that a path may hold unescaped: `pchar` and `/` (RFC 3986, section 3.3).
fn is_plain(byte: u8) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let others = b"-._~/:@!$&'()*+,;=";
        let mut i = 0;
        while i < 256 {
            plain[i] = (i as u8).is_ascii_alphanumeric();
            i += 1;
        }
        let mut i = 0;
        while i < others.len() {
            plain[others[i] as usize] = true;
            i += 1;
        }
        plain
    };
    PLAIN[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(path: &str) -> Result<String, PathError> {
        normalise(path.as_bytes()).map(Cow::into_owned)
    }

    #[test]
    fn two_spellings_of_one_path_become_one() {
        for (path, want) in [
            ("/", "/"),
            ("/v1/users", "/v1/users"),
            ("/%76%31", "/v1"),
            ("/%7Euser/%7euser", "/~user/~user"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("//a///b/", "//a///b/"),
            ("/a%20b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/%c3%a9", "/%C3%A9"),
            ("/{id}", "/%7Bid%7D"),
            ("/a;v=1,2:@!$&'()*+", "/a;v=1,2:@!$&'()*+"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/%252E", "/%252E"),
            ("/a\\b", "/a%5Cb"),
            ("/.well-known/acme", "/.well-known/acme"),
            ("/...", "/..."),
            ("/a.b/..c/d..", "/a.b/..c/d.."),
            ("/%2E%2Ea", "/..a"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(want), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_rejected() {
        use PathError::*;
        for (path, error) in [
            ("", NotAbsolute),
            ("a", NotAbsolute),
            ("*", NotAbsolute),
            ("%2Fa", NotAbsolute),
            ("/..", DotSegment),
            ("/.", DotSegment),
            ("/a/../b", DotSegment),
            ("/a/./b", DotSegment),
            ("/a/..", DotSegment),
            ("/a/%2e%2e/b", DotSegment),
            ("/a/.%2E/b", DotSegment),
            ("/a/%2e", DotSegment),
            ("//..//", DotSegment),
            ("/a/..%2Fb", DotSegment),
            ("/a%2f..%2fb", DotSegment),
            ("/a/..\\b", DotSegment),
            ("/a%5c..%5cb", DotSegment),
            ("/a/..;/b", DotSegment),
            ("/a/.;x=1/b", DotSegment),
            ("/%00", Nul),
            ("/a%00b", Nul),
            ("/%", Escape),
            ("/%4", Escape),
            ("/%4g", Escape),
            ("/%-1", Escape),
            ("/% 41", Escape),
            ("/a b", Byte(b' ')),
            ("/a?b", Byte(b'?')),
            ("/a#b", Byte(b'#')),
            ("/a\tb", Byte(b'\t')),
            ("/a\0b", Byte(0)),
            ("/a\x7f", Byte(0x7f)),
        ] {
            assert_eq!(normal(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_compared_by_its_escape() {
        assert_eq!(normalise(b"/\xff").as_deref(), Ok("/%FF"));
    }

    #[test]
    fn a_path_in_normal_form_is_borrowed() {
        assert!(matches!(normalise(b"/v1/users/42"), Ok(Cow::Borrowed(_))));
        assert!(matches!(normalise(b"/%41"), Ok(Cow::Owned(_))));
    }

    /// The bytes that a path encodes, each with whether it was escaped; `None` if an escape is broken.
    fn decoded(path: &[u8]) -> Option<Vec<(u8, bool)>> {
        let (mut bytes, mut rest) = (Vec::new(), path);
        while let [byte, tail @ ..] = rest {
            let (decoded, after) = match (byte, tail) {
                (b'%', [high, low, after @ ..]) => (hex_value(*high).ok()? << 4 | hex_value(*low).ok()?, after),
                (b'%', _) => return None,
                (byte, after) => (*byte, after),
            };
            bytes.push((decoded, *byte == b'%'));
            rest = after;
        }
        Some(bytes)
    }

    /// Whether a segment is `.` or `..`: `/` and `\` end one in any form, `;` only unescaped.
    fn has_dots(bytes: &[(u8, bool)]) -> bool {
        bytes.split(|(byte, _)| matches!(byte, b'/' | b'\\')).any(|segment| {
            let name = segment.iter().take_while(|byte| **byte != (b';', false)).map(|(byte, _)| *byte);
            matches!(&name.collect::<Vec<u8>>()[..], b"." | b"..")
        })
    }

    /// Paths made of pieces that matter to the rules.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let harmless = ["/", "a", "A-~", "%41", "%2f", "%5C", "%252e", "%c3", "é", "{", ";", "..x", "%3b"];
        let faulty = [".", "..", "%2E", "%00", "%", "%4", "%zz", " ", "?", "#", "\0", "\\"];
        let select = |pieces: &[&'static str]| proptest::sample::select(pieces.to_vec());
        let piece = prop_oneof![9 => select(&harmless), 1 => select(&faulty)];
        proptest::collection::vec(piece, 0..16).prop_map(|pieces| format!("/{}", pieces.concat()).into_bytes())
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..64)
    }

    proptest! {
        /// An accepted path is in normal form and has the bytes of the original; a rejected one has the fault that the
        /// error names.
        #[test]
        fn accepted_paths_are_normal_and_rejected_ones_faulty(path in prop_oneof![8 => pieces(), 1 => bytes()]) {
            let original = decoded(&path);
            let has = |byte: u8| path.contains(&byte);
            match normalise(&path) {
                Ok(normal) => {
                    let original = original.expect("an accepted path has no broken escape");
                    let same = decoded(normal.as_bytes()).expect("so has its normal form");
                    prop_assert!(original.iter().map(|(byte, _)| byte).eq(same.iter().map(|(byte, _)| byte)));
                    prop_assert!(normal.starts_with('/') && !has_dots(&original) && !original.contains(&(0, true)));
                    for (byte, escaped) in same {
                        let allowed = if escaped { !is_unreserved(byte) } else { is_plain(byte) };
                        prop_assert!(allowed, "{byte:#04x}, escaped: {escaped}, in {normal}");
                    }
                    prop_assert!(matches!(normalise(normal.as_bytes()), Ok(again) if again == normal), "{}", normal);
                }
                Err(PathError::NotAbsolute) => prop_assert_ne!(path.first(), Some(&b'/')),
                Err(PathError::Escape) => prop_assert_eq!(original, None),
                Err(PathError::Nul) => prop_assert!(path.windows(3).any(|escape| escape == b"%00")),
                Err(PathError::Byte(byte)) => {
                    prop_assert!(has(byte) && matches!(byte, 0..=b' ' | 0x7f | b'?' | b'#'));
                }
                Err(PathError::DotSegment) => prop_assert!(has_dots(&original.expect("escapes are read first"))),
            }
        }

        #[test]
        fn escaping_every_byte_changes_nothing(path in "(/[a-zA-Z0-9._~-]{1,8}){1,4}") {
            let escaped: String = path.bytes().map(|b| if b == b'/' { "/".into() } else { format!("%{b:02x}") }).collect();
            prop_assert_eq!(normal(&escaped), normal(&path));
        }
    }
}
