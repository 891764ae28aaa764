//! Turns bytes into a TOML document with the place of every value. Decides what is text and how large a document may
//! be; hostile input is refused before it costs memory or stack. `raw` decides what the keys mean.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::report::{Found, Report};
use super::syntax;

/// The memory that reading a document may take, in bytes as [`cost`] estimates them. It keeps the process under 200 MB
/// for any file of 16 MiB; 65,535 upstreams written as tables fit.
const COST_MAX: usize = 140_000_000;
/// Up to this size every syntax mistake is reported; in a larger file only the first (each costs memory).
const RECOVER_BYTES_MAX: usize = 256 << 10;

/// How much of a file could be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Whole,
    /// All but single values: its tables and keys are certain.
    Holes,
    /// Only parts of it.
    Broken,
}

/// The text of a file without its byte order mark.
///
/// # Errors
/// What is wrong with a file that is not text, or is empty.
pub fn text(bytes: &[u8]) -> Result<&str, Box<NotText<'_>>> {
    let whole = |message: &'static str| Box::new(NotText { found: Found::missing(message), text: "".into() });
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Err(whole(UTF_16)),
        _ if bytes.len() > super::FILE_BYTES_MAX => return Err(whole("the file is larger than 16 MiB")),
        _ => {}
    }
    if let Some(at) = memchr::memchr(0, bytes) {
        let nuls = bytes.iter().take(200).filter(|b| **b == 0).count();
        return Err(match nuls * 3 > bytes.len().min(200) {
            true => whole(UTF_16),
            false => not_text(
                bytes,
                at,
                "the file holds a NUL byte; a configuration is UTF-8 text".to_owned(),
                String::new(),
            ),
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes[at];
        // Most such files come from Windows or old Unixes.
        let meant = if byte >= 0xA0 { format!(" (in Latin-1 it is {})", char::from(byte)) } else { String::new() };
        not_text(
            bytes,
            at,
            format!("the file is not UTF-8: the byte 0x{byte:02X}{meant}"),
            "the file saved as UTF-8".to_owned(),
        )
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    match text.lines().all(is_blank) {
        true => {
            let message = if text.trim().is_empty() { "the file is empty" } else { "the file holds only comments" };
            Err(Box::new(NotText { found: Found::missing(message).expected(syntax::FIRST_TABLES), text: "".into() }))
        }
        false => Ok(text),
    }
}

const UTF_16: &str = "the file is UTF-16; a configuration is UTF-8 (`iconv -f UTF-16 -t UTF-8` converts it)";

/// Why a file is not text.
#[derive(Debug)]
pub struct NotText<'a> {
    /// The mistake.
    pub found: Found,
    /// As much of the file as its place and excerpt need.
    pub text: Cow<'a, str>,
}

/// A mistake at byte `at`; everything before it is text.
fn not_text(bytes: &[u8], at: usize, message: String, expected: String) -> Box<NotText<'_>> {
    let end = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |line| at + line);
    let text = String::from_utf8_lossy(&bytes[..end]);
    let found = Found::error(at..at + 1, "", message);
    Box::new(NotText { found: if expected.is_empty() { found } else { found.expected(expected) }, text })
}

/// The readable part of a text: what cannot be parsed is blanked out, and everything else keeps its place.
#[derive(Debug)]
pub struct Readable<'a> {
    /// It has the length of the file.
    pub text: Cow<'a, str>,
    /// How much of the file it holds.
    pub state: State,
}

/// Reports what in `text` is not TOML. `None` if nothing of it can be used.
pub fn readable<'a>(text: &'a str, report: &mut Report) -> Option<Readable<'a>> {
    if let Some(at) = too_costly(text) {
        report.add(
            Found::error(at..at, "", "the file holds more than can be read safely")
                .expected("fewer values: a pool has at most 65,535 upstreams"),
        );
        return None;
    }
    let whole = Readable { text: text.into(), state: State::Whole };
    if text.len() > RECOVER_BYTES_MAX || DeTable::parse_recoverable(text).1.is_empty() {
        return Some(whole);
    }
    if let Some(found) = syntax::other_format(text) {
        report.add(found);
        return None;
    }
    let mut readable = whole;
    for (found, spoilt) in syntax::unclosed(text) {
        report.add(found);
        readable.blank(&spoilt);
    }
    let statements = statements_of(text);
    let (_, errors) = DeTable::parse_recoverable(&readable.text);
    let mut broken = Vec::new();
    for error in errors.iter().filter(|error| !is_local(error)) {
        report_one(error, text, &statements, report);
        readable.state = State::Broken;
        broken.extend(error.span().map(|span| line_around(text, span.start)));
    }
    // The parser misreads a broken line, so it is blanked. A header is kept: the lines below it depend on it.
    for line in broken.iter().filter(|line| !text[(*line).clone()].trim_start().starts_with('[')) {
        readable.blank(line);
    }
    let is_below_repeated_header =
        |error: &toml::de::Error| error.span().is_some_and(|span| statements.is_below_repeated_header(span.start));
    // After some broken lines the parser no longer reads values; after blank ones it does.
    let (_, errors) = DeTable::parse_recoverable(&readable.text);
    for error in &errors {
        match (is_local(error), readable.state) {
            (true, _) if is_duplicate(error) && is_below_repeated_header(error) => {}
            (true, state) => {
                report_one(error, text, &statements, report);
                if state == State::Whole && !is_duplicate(error) {
                    readable.state = State::Holes;
                }
            }
            (false, _) => error.span().into_iter().for_each(|span| report.mistrust(span)),
        }
    }
    Some(readable)
}

/// A mistake that is only counted needs no explanation.
fn report_one(error: &toml::de::Error, text: &str, statements: &Statements<'_>, report: &mut Report) {
    let is_full = report.is_full();
    report.add(if is_full { Found::syntax(error.span(), error.message()) } else { mistake(error, text, statements) });
}

/// Read when a key is written twice, and once for the file.
type Statements<'t> = LazyCell<syntax::Statements, Box<dyn Fn() -> syntax::Statements + 't>>;

fn statements_of(text: &str) -> Statements<'_> {
    LazyCell::new(Box::new(|| syntax::Statements::of(text)))
}

/// Whether the mistake leaves the document as written, except for one value.
fn is_local(error: &toml::de::Error) -> bool {
    syntax::is_hole(error) || is_duplicate(error)
}

impl Readable<'_> {
    fn blank(&mut self, range: &Range<usize>) {
        self.state = State::Broken;
        let blank: String = self.text[range.clone()]
            .bytes()
            .map(|byte| if matches!(byte, b'\n' | b'\r') { char::from(byte) } else { ' ' })
            .collect();
        self.text.to_mut().replace_range(range.clone(), &blank);
    }

    /// The document. `None` if it cannot be parsed, which is reported.
    pub fn parse(&self, report: &mut Report) -> Option<Spanned<DeTable<'_>>> {
        if self.text.len() <= RECOVER_BYTES_MAX {
            return Some(DeTable::parse_recoverable(&self.text).0);
        }
        match DeTable::parse(&self.text) {
            Ok(table) => Some(table),
            Err(error) => {
                report.add(mistake(&error, &self.text, &statements_of(&self.text)));
                None
            }
        }
    }
}

fn line_around(text: &str, at: usize) -> Range<usize> {
    // The place may lie after the text or inside a character.
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    start..text[at..].find('\n').map_or(text.len(), |end| at + end)
}

/// One syntax mistake; for a duplicate it names the key.
fn mistake(error: &toml::de::Error, text: &str, statements: &Statements<'_>) -> Found {
    let span = error.span();
    let written = span.clone().and_then(|span| text.get(span)).unwrap_or("");
    match span {
        Some(span) if is_duplicate(error) => {
            let name = super::read::cut(written, 64);
            let path = path(text, span.start, &name);
            let first = statements.first_line(span.start);
            let line = first.map_or(String::new(), |line| format!(": first in line {line}"));
            Found::error(span.clone(), path, format!("`{name}` is written twice{line}"))
        }
        _ => syntax::found(error, text),
    }
}

/// Whether a key is written twice. The parser leaves the second out, and the document is whole without it.
fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

/// The path of the key at `at`, as far as the lines show it: the table header above, or the header itself.
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

/// Where the document exceeds [`COST_MAX`]. Tokens count, not bytes: 16 MiB of brackets take fifty times the memory of
/// 16 MiB of comment.
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
        // Each costs little, but the vector that holds them doubles.
        TokenKind::Newline => 20,
        _ => 0,
    };
    50 + opens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_text_or_is_empty_is_refused_with_its_reason() {
        for (bytes, reason) in [
            (&b""[..], "the file is empty"),
            (b"\xEF\xBB\xBF \r\n", "the file is empty"),
            (b"# a\n  # b", "the file holds only comments"),
            (b"\xFF\xFEa\0", UTF_16),
            (b"a\0 \0=\0 \x001\0", UTF_16),
            (b"a = \"\0\"", "the file holds a NUL byte; a configuration is UTF-8 text"),
            (b"a = 1\n# caf\xE9", "the file is not UTF-8: the byte 0xE9 (in Latin-1 it is \u{e9})"),
        ] {
            let not_text = text(bytes).unwrap_err();
            let mut report = Report::new("x");
            report.add(not_text.found);
            let diagnostic = report.finish(&not_text.text).remove(0);
            assert_eq!(diagnostic.message, reason);
            let place = reason.contains("0xE9").then_some((2, 6));
            let place = place.or_else(|| reason.contains("NUL").then_some((1, 6)));
            assert_eq!(diagnostic.line.zip(diagnostic.column), place);
        }
        assert_eq!(text(b"\xEF\xBB\xBFa = 1").unwrap(), "a = 1");
    }

    #[test]
    fn every_syntax_mistake_is_reported() {
        let mut report = Report::new("x");
        let readable = readable("a = \nb = 10s\nc = 1\nc = 2\n", &mut report).unwrap();
        assert_eq!(readable.state, State::Holes);
        let lines: Vec<_> = report.finish("a = \nb = 10s\nc = 1\nc = 2\n").iter().map(|d| d.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(4)]);
    }

    #[test]
    fn hostile_documents_are_refused_with_bounded_stack() {
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
            let readable = readable(&text, &mut report);
            let _ = readable.as_ref().and_then(|readable| readable.parse(&mut report));
            assert!(report.has_errors(), "{}", &text[..10]);
            assert!(report.finish(&text).len() <= 101);
        }
    }
}
