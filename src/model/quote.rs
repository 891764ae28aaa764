//! Makes texts from outside fit to print: at most 256 characters, with everything escaped that is not plain text.
//!
//! What an upstream sends ends up in logs, terminals and pages; control characters, line ends, invisible and
//! right-to-left characters and broken UTF-8 must have no effect there.

use std::fmt;

mod mask;
pub use mask::mask_all;

/// The most characters of a quotation; an ellipsis replaces the rest.
const CHARS_MAX: usize = 256;
/// The most bytes of 256 characters, and one more to see that the text was longer.
pub const BYTES_MAX: usize = 4 * CHARS_MAX + 1;

/// Displays bytes in quotation marks, truncated and escaped.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        escape(self.0, &['\''], CHARS_MAX, f)?;
        f.write_str("\"")
    }
}

/// Displays bytes as [`Quoted`] does, without the quotation marks: for a text on a separate line. Quotation marks and
/// backslashes have no effect there, and stay as they are.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, &['\'', '"', '\\'], CHARS_MAX, f)
    }
}

/// Displays a text with its control characters escaped, so that it cannot move the cursor or begin a line. For texts whose
/// parts from outside are cut and escaped already.
#[derive(Debug, Clone, Copy)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// Writes at most `left` characters, and an ellipsis for the rest; characters of `plain` are not escaped.
fn escape(bytes: &[u8], plain: &[char], mut left: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if left == 0 {
                return f.write_str("…");
            }
            left -= 1;
            if plain.contains(&c) { write!(f, "{c}")? } else { write!(f, "{}", c.escape_debug())? }
        }
        for byte in chunk.invalid() {
            if left == 0 {
                return f.write_str("…");
            }
            left -= 1;
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// The first bytes of a text, kept for quoting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excerpt(Vec<u8>);

impl Excerpt {
    /// The first of `bytes`.
    pub fn of(bytes: &[u8]) -> Excerpt {
        let mut excerpt = Excerpt::default();
        excerpt.push(bytes);
        excerpt
    }

    /// Keeps as much of `bytes` as there is room for.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = BYTES_MAX - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether it holds all that a quotation can show.
    pub fn is_full(&self) -> bool {
        self.0.len() == BYTES_MAX
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Replaces our own credentials by `***` if the peer sent them back.
    pub fn without<'s>(mut self, secrets: impl Iterator<Item = &'s str>) -> Excerpt {
        mask_all(&mut self.0, secrets);
        self
    }
}

/// `text` as a string literal, cut to a length for messages.
pub fn quoted(text: &str) -> String {
    format!("{:?}", cut(text, 80))
}

/// At most `max` characters of `text`.
pub fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_other_than_plain_text_are_escaped() {
        for (bytes, shown) in [
            (&b"{\"status\":\"unhealthy\"}"[..], r#""{\"status\":\"unhealthy\"}""#),
            (b"it's", r#""it's""#),
            (b"a\r\nb\tc\0\x1b[31m", r#""a\r\nb\tc\0\u{1b}[31m""#),
            ("naïve \u{202e}evil \u{200b}".as_bytes(), r#""naïve \u{202e}evil \u{200b}""#),
            (b"\xff\xfe ok \xc3", r#""\xff\xfe ok \xc3""#),
            (b"back\\slash", r#""back\\slash""#),
            (b"", r#""""#),
        ] {
            assert_eq!(Quoted(bytes).to_string(), shown);
        }
    }

    #[test]
    fn a_text_on_a_separate_line_keeps_its_quotation_marks() {
        assert_eq!(Escaped(b"W/\"a\\b\" it's\x1b[2J\r\n").to_string(), "W/\"a\\b\" it's\\u{1b}[2J\\r\\n");
        assert_eq!(Escaped(&b"x".repeat(300)).to_string().chars().count(), 256 + 1);
    }

    #[test]
    fn a_quotation_has_at_most_256_characters() {
        let shown = Quoted("ü".repeat(300).as_bytes()).to_string();
        assert_eq!(shown.chars().count(), 256 + 3);
        assert!(shown.ends_with("ü…\""));
        assert_eq!(Quoted(&b"x".repeat(256)).to_string().chars().count(), 256 + 2);
        assert_eq!(Quoted(&[0xff; 300]).to_string().matches("\\xff").count(), 256);
    }

    #[test]
    fn an_excerpt_keeps_what_a_quotation_can_show() {
        let mut excerpt = Excerpt::default();
        for _ in 0..3 {
            excerpt.push(&[b'x'; 500]);
        }
        assert!(excerpt.is_full());
        assert_eq!(excerpt.bytes().len(), BYTES_MAX);
    }

    #[test]
    fn credentials_that_come_back_are_masked() {
        let shown = |text: &str, secret: &str| {
            let mut excerpt = Excerpt::default();
            excerpt.push(text.as_bytes());
            String::from_utf8(excerpt.without([secret].into_iter()).bytes().to_vec()).unwrap()
        };
        assert_eq!(shown("bad token: Bearer s3cret!", "Bearer s3cret"), "bad token: ***!");
        assert_eq!(shown("bad token: s3cret, s3cret", "Bearer s3cret"), "bad token: ***, ***");
        assert_eq!(shown("cut at the end: s3cr", "s3cret"), "cut at the end: ***");
        assert_eq!(shown("a, b, c", "a"), "a, b, c");
        assert_eq!(shown("nothing of it", "s3cret"), "nothing of it");
    }
}
