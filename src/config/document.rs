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
    /// How much of the file it holds.
    pub state: State,
}

/// How much of a file its document holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All.
    Whole,
    /// All but single values: what tables and keys there are is sure.
    Holes,
    /// What the parser could make of it.
    Broken,
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
            Ok(table) => Some(Document { table, state: State::Whole }),
            Err(error) => {
                report.add(mistake(&error, text));
                None
            }
        };
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut state = State::Whole;
    for error in &errors {
        report.add(mistake(error, text));
        state = match state {
            State::Whole if is_duplicate(error) => State::Whole,
            State::Whole | State::Holes if is_hole(error) || is_duplicate(error) => State::Holes,
            State::Whole | State::Holes | State::Broken => State::Broken,
        };
    }
    Some(Document { table, state })
}

/// One syntax mistake; of a duplicate it names the key.
fn mistake(error: &toml::de::Error, text: &str) -> Found {
    let span = error.span();
    let written = span.clone().and_then(|span| text.get(span)).unwrap_or("");
    match span {
        Some(span) if is_duplicate(error) => {
            let name = super::read::cut(written, 64);
            Found::error(span.clone(), path(text, span.start, &name), format!("`{name}` is written twice"))
        }
        Some(span) if written == "null" => {
            let found = Found::syntax(Some(span), "TOML has no null".to_owned());
            found.expected("`is = \"null\"` in a rule of `expect.json`; elsewhere leave the key out")
        }
        span => Found::syntax(span, sentence(error.message())),
    }
}

/// The second of two is left out, and the document is whole without it.
fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

/// A value that is not one, on a line of its own.
fn is_hole(error: &toml::de::Error) -> bool {
    let message = error.message();
    [NOT_QUOTED, NOT_CLOSED].iter().any(|hole| message.starts_with(hole))
}

const NOT_QUOTED: &str = "string values must be quoted";
const NOT_CLOSED: &str = "invalid basic string, expected `\"`";

/// The path of the key that stands at `at`, as far as the lines say it: the table header above, or the header itself.
fn path(text: &str, at: usize, name: &str) -> String {
    let line_start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let before = text[line_start..at].trim_start();
    if let Some(header) = before.strip_prefix("[[").or(before.strip_prefix('[')) {
        return format!("{header}{name}");
    }
    let header = text[..line_start].lines().rev().find_map(|line| line.trim_start().strip_prefix('['));
    match header.and_then(|header| header.trim_start_matches('[').split(']').next()) {
        Some(header) if before.is_empty() && header.len() <= 256 => format!("{header}.{name}"),
        _ => name.to_owned(),
    }
}

/// Says in our words what the parser says in its own, where ours help more.
fn sentence(message: &str) -> String {
    match message {
        m if m.starts_with("cannot recurse further") || m.starts_with("recursion limit") => {
            "nested too deeply".to_owned()
        }
        m if m.starts_with(NOT_QUOTED) => "not a value; texts and durations are written in quotes".to_owned(),
        m if m.starts_with(NOT_CLOSED) => "the string has no closing quote".to_owned(),
        m => m.to_owned(),
    }
}

/// Where the document has become larger than may be read, by tokens and not by bytes: 16 MiB of brackets take fifty
/// times the memory of 16 MiB of comment.
fn too_costly(text: &str) -> Option<usize> {
    let mut total = 0;
    let mut braces = 0_usize;
    toml_parser::Source::new(text).lex().find_map(|token| {
        match token.kind() {
            TokenKind::LeftCurlyBracket => braces += 1,
            TokenKind::RightCurlyBracket => braces = braces.saturating_sub(1),
            _ => {}
        }
        total += cost(token.kind(), braces > 0);
        (total > COST_MAX).then(|| token.span().start())
    })
}

/// What a token may cost while parsing, as measured (`tests/hostile.rs`): itself, its event, and the table, list or entry
/// that it may open. The first few entries of an inline table come with its brace.
fn cost(kind: TokenKind, in_braces: bool) -> usize {
    let opens = match kind {
        TokenKind::Dot => 600,
        TokenKind::LeftSquareBracket => 320,
        TokenKind::LeftCurlyBracket => 150,
        TokenKind::Equals if in_braces => 300,
        TokenKind::Equals => 400,
        TokenKind::Comma if in_braces => 100,
        TokenKind::Comma => 250,
        // Little each, but the list of them doubles.
        TokenKind::Newline => 20,
        _ => 0,
    };
    50 + opens
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
        let document = parse("a = \nb = 10s\nc = 1\nc = 2\n", &mut report).unwrap();
        assert_eq!(document.state, State::Holes);
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
            let usable = parse(&text, &mut report).is_some_and(|d| d.state == State::Whole && !report.has_errors());
            assert!(!usable && report.has_errors(), "{}", &text[..10]);
            assert!(report.finish(&text).len() <= 101);
        }
    }
}
