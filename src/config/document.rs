//! Bytes to a TOML document with the place of every value. Decides what is text at all and how large a document may be;
//! hostile input is refused before it costs memory or stack. What the keys mean is left to `raw`.

use toml::Spanned;
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::report::{Found, Report};

/// What reading a document may cost, in bytes by the estimate of [`cost`]. With it the process stays under 200 MB for
/// every file of 16 MiB; 65,535 upstreams written as tables fit.
const COST_MAX: usize = 140_000_000;
/// Up to this size every syntax mistake is looked for; in a larger file only the first (each costs memory).
const RECOVER_BYTES_MAX: usize = 256 << 10;

/// A document, perhaps with holes.
#[derive(Debug)]
pub struct Document<'a> {
    /// The top table.
    pub table: Spanned<DeTable<'a>>,
    /// Whether parts of the file were not TOML and are missing.
    pub broken: bool,
}

/// The text of a file without its byte order mark.
///
/// # Errors
/// A sentence about a file that is no text, or holds nothing.
pub fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Err("the file is UTF-16; a configuration is UTF-8"),
        _ if bytes.len() > super::FILE_BYTES_MAX => return Err("the file is larger than 16 MiB"),
        _ => {}
    }
    if bytes.contains(&0) {
        return Err("the file holds NUL bytes; a configuration is UTF-8 text");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "the file is not UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let says_nothing = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    match text.lines().all(says_nothing) {
        true if text.trim().is_empty() => Err("the file is empty"),
        true => Err("the file holds only comments"),
        false => Ok(text),
    }
}

/// Parses `text`, reporting every syntax mistake. `None` where not even a part can be used.
pub fn parse<'a>(text: &'a str, report: &mut Report) -> Option<Document<'a>> {
    if let Some(at) = too_costly(text) {
        report.add(
            Found::error(at..at, "", "the file holds more than can be read safely")
                .expected("fewer values: a pool has at most 65,535 upstreams"),
        );
        return None;
    }
    if text.len() > RECOVER_BYTES_MAX {
        return match DeTable::parse(text) {
            Ok(table) => Some(Document { table, broken: false }),
            Err(error) => {
                report.add(Found::syntax(error.span(), sentence(error.message())));
                None
            }
        };
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report.add(Found::syntax(error.span(), sentence(error.message())));
    }
    Some(Document { table, broken: !errors.is_empty() })
}

/// Says in our words what the parser says in its own, where ours help more.
fn sentence(message: &str) -> String {
    match message {
        "duplicate key" => "this key or table is written twice".to_owned(),
        m if m.starts_with("cannot recurse further") || m.starts_with("recursion limit") => {
            "nested too deeply".to_owned()
        }
        m if m.starts_with("string values must be quoted") => {
            "not a value; texts and durations are written in quotes".to_owned()
        }
        m if m.starts_with("invalid basic string, expected `\"`") => "the string has no closing quote".to_owned(),
        m => m.to_owned(),
    }
}

/// Where the document has become larger than may be read, by tokens and not by bytes: 16 MiB of brackets take fifty
/// times the memory of 16 MiB of comment.
fn too_costly(text: &str) -> Option<usize> {
    let mut total = 0;
    toml_parser::Source::new(text).lex().find_map(|token| {
        total += cost(token.kind());
        (total > COST_MAX).then(|| token.span().start())
    })
}

/// What a token may cost while parsing: itself, its event, and the table, array or entry that it may open.
fn cost(kind: TokenKind) -> usize {
    let opens = match kind {
        TokenKind::Dot | TokenKind::LeftCurlyBracket => 600,
        TokenKind::LeftSquareBracket => 320,
        TokenKind::Equals | TokenKind::Comma => 100,
        _ => 0,
    };
    64 + opens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_or_says_nothing_is_refused_with_its_reason() {
        for (bytes, reason) in [
            (&b""[..], "the file is empty"),
            (b"\xEF\xBB\xBF \r\n", "the file is empty"),
            (b"# a\n  # b", "the file holds only comments"),
            (b"\xFF\xFEa\0", "the file is UTF-16; a configuration is UTF-8"),
            (b"a = \"\0\"", "the file holds NUL bytes; a configuration is UTF-8 text"),
            (b"a = \"\xC3\"", "the file is not UTF-8"),
        ] {
            assert_eq!(text(bytes), Err(reason));
        }
        assert_eq!(text(b"\xEF\xBB\xBFa = 1"), Ok("a = 1"));
    }

    #[test]
    fn every_syntax_mistake_is_reported() {
        let mut report = Report::new("x");
        assert!(parse("a = \nb = 10s\nc = 1\nc = 2\n", &mut report).unwrap().broken);
        let lines: Vec<_> = report.finish("a = \nb = 10s\nc = 1\nc = 2\n").iter().map(|d| d.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(4)]);
    }

    #[test]
    fn hostile_documents_are_refused_and_cost_no_stack() {
        for text in [
            format!("a={}", "[".repeat(1_000_000)),
            format!("a={}", "{a=".repeat(300_000)),
            "[".repeat(1_000_000),
            "a.".repeat(500_000),
            "\n".repeat(16 << 20),
            "[a.b]\n".repeat(200_000),
            format!("a=[{}]", "[],".repeat(1_000_000)),
        ] {
            let mut report = Report::new("x");
            let usable = parse(&text, &mut report).is_some_and(|d| !d.broken);
            assert!(!usable && report.has_errors(), "{}", &text[..10]);
            assert!(report.finish(&text).len() <= 101);
        }
    }
}
