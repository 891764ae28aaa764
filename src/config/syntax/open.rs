//! Lists, tables in braces and texts of several lines that are not closed: for a parser everything below one belongs to
//! it, which causes a chain of errors. Lists and tables are found by lines that can only begin something new: a header, or
//! `key =` in a list.

use std::ops::Range;

use toml_parser::lexer::TokenKind;

use crate::config::report::Found;

/// How many are reported at most.
const FOUND_MAX: usize = 50;

/// What is not closed, each with the statement that it spoils: from its key to the line that begins something new.
pub fn unclosed(text: &str) -> Vec<(Found, Range<usize>)> {
    let mut out = Vec::new();
    let mut scan = Scan {
        text,
        open: Vec::new(),
        statement: 0,
        fresh: true,
        mismatched: None,
        last: None,
        header: false,
        value: false,
        unquoted: None,
    };
    for token in toml_parser::Source::new(text).lex() {
        let span = token.span().start()..token.span().end();
        if let Some(spoilt) = scan.take(token.kind(), &span) {
            out.push(spoilt);
        }
        if out.len() >= FOUND_MAX {
            break;
        }
    }
    out
}

struct Scan<'t> {
    text: &'t str,
    /// The brackets and braces that are open, with their places.
    open: Vec<(TokenKind, usize)>,
    /// Where the statement begins.
    statement: usize,
    /// Nothing was read of this line yet.
    fresh: bool,
    /// The first bracket that one of another kind has closed.
    mismatched: Option<(TokenKind, usize)>,
    /// The last token other than white space and comments.
    last: Option<TokenKind>,
    /// In a header.
    header: bool,
    /// The `=` of the statement was read: what opens now is a value, not a block of another language.
    value: bool,
    /// Where the first string of the statement that has no closing quote ends: what should have followed is in it.
    unquoted: Option<usize>,
}

impl Scan<'_> {
    fn take(&mut self, kind: TokenKind, span: &Range<usize>) -> Option<(Found, Range<usize>)> {
        match kind {
            TokenKind::Whitespace | TokenKind::Comment => return None,
            TokenKind::Newline => {
                (self.fresh, self.header) = (true, false);
                return None;
            }
            TokenKind::Eof => {
                return (!self.open.is_empty()).then(|| self.spoilt(self.text.len()));
            }
            _ => {}
        }
        if let Some(quotes) = self.open_text(kind, span) {
            let found =
                Found::syntax(Some(span.start..span.start + quotes.len()), "the text that begins here is not closed");
            let statement = if self.open.is_empty() && self.fresh { span.start } else { self.statement };
            return Some((found.expected(format!("`{quotes}` at its end")), statement..self.text.len()));
        }
        let mut found = None;
        if self.fresh {
            self.fresh = false;
            if !self.open.is_empty() && self.begins_something_new(span.start) {
                let line_start = self.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
                found = Some(self.spoilt(line_start));
            }
            if self.open.is_empty() {
                (self.statement, self.value, self.unquoted) = (span.start, false, None);
                self.header = kind == TokenKind::LeftSquareBracket;
            }
        }
        if !self.header {
            self.value |= kind == TokenKind::Equals;
            match kind {
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket if !self.value => {}
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => self.open.push((kind, span.start)),
                TokenKind::BasicString | TokenKind::LiteralString if !is_closed(&self.text[span.clone()]) => {
                    self.unquoted.get_or_insert(span.end);
                }
                TokenKind::RightSquareBracket => found = self.close(TokenKind::LeftSquareBracket, span).or(found),
                TokenKind::RightCurlyBracket => found = self.close(TokenKind::LeftCurlyBracket, span).or(found),
                _ => {}
            }
        }
        self.last = Some(kind);
        found
    }

    /// The quotes of a text of several lines without its end, which is then the last token of the file.
    fn open_text(&mut self, kind: TokenKind, span: &Range<usize>) -> Option<&'static str> {
        let quotes = match kind {
            TokenKind::MlBasicString => "\"\"\"",
            TokenKind::MlLiteralString => "'''",
            _ => return None,
        };
        let inner = self.text[span.clone()].get(quotes.len()..)?;
        let is_closed = match inner.strip_suffix(quotes) {
            Some(inner) if kind == TokenKind::MlBasicString => {
                (inner.len() - inner.trim_end_matches('\\').len()).is_multiple_of(2)
            }
            Some(_) => true,
            None => false,
        };
        if is_closed {
            return None;
        }
        self.open.clear();
        Some(quotes)
    }

    /// Closes what is open up to the last `kind`. What lies between is not closed; it is reported at the end of the
    /// statement.
    fn close(&mut self, kind: TokenKind, span: &Range<usize>) -> Option<(Found, Range<usize>)> {
        let last = self.open.last().copied()?;
        match self.open.iter().rposition(|(open, _)| *open == kind) {
            Some(at) if last.0 == kind => self.open.truncate(at),
            Some(at) => {
                self.mismatched.get_or_insert(last);
                self.open.truncate(at);
            }
            // One too many: the parser reports it.
            None => {}
        }
        let line_end = self.text[span.end..].find('\n').map_or(self.text.len(), |end| span.end + end);
        (self.open.is_empty() && self.mismatched.is_some()).then(|| self.spoilt(line_end))
    }

    /// Whether the line that begins at `at` cannot continue what is open.
    fn begins_something_new(&self, at: usize) -> bool {
        let line = self.text[at..].lines().next().unwrap_or("");
        let in_list = self.open.last().is_some_and(|(kind, _)| *kind == TokenKind::LeftSquareBracket);
        let continues = matches!(self.last, Some(TokenKind::Comma | TokenKind::LeftCurlyBracket));
        is_header(line) || (begins_with_key(line) && (in_list || !continues))
    }

    /// Reports the bracket that one of another kind has closed, else the first open one, and clears all.
    fn spoilt(&mut self, end: usize) -> (Found, Range<usize>) {
        let first = self.open.first().copied();
        let (kind, at) = self.mismatched.take().or(first).unwrap_or((TokenKind::LeftSquareBracket, self.statement));
        self.open.clear();
        if let Some(at) = self.unquoted.take() {
            let found = super::open_string(self.text, &(at..at), super::NOT_CLOSED);
            return (found, self.statement..end);
        }
        let (what, end_mark) = match kind {
            TokenKind::LeftCurlyBracket => ("the table that begins here is not closed", "}"),
            _ => ("the list that begins here is not closed", "]"),
        };
        let found = Found::syntax(Some(at..at + 1), what).expected(format!("`{end_mark}` after its last entry"));
        (found, self.statement..end)
    }
}

/// Whether a string ends in the quote that it begins with.
fn is_closed(string: &str) -> bool {
    let quote = string.chars().next().unwrap_or('"');
    let Some(inner) = string.get(1..).and_then(|rest| rest.strip_suffix(quote)) else { return false };
    let escapes = inner.len() - inner.trim_end_matches('\\').len();
    quote == '\'' || escapes % 2 == 0
}

/// `[pools.api]` or `[[routes]]` alone on a line; `["a"]` and `[1]` are entries.
fn is_header(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or("").trim();
    let inner = line.strip_prefix("[[").and_then(|l| l.strip_suffix("]]"));
    let inner = inner.or_else(|| line.strip_prefix('[').and_then(|l| l.strip_suffix(']')));
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | ' ');
    inner.is_some_and(|inner| inner.starts_with(|c: char| c.is_ascii_alphabetic()) && inner.chars().all(word))
}

/// `key =`, with a bare or dotted key.
fn begins_with_key(line: &str) -> bool {
    let Some((key, _)) = line.split_once('=') else { return false };
    let key = key.trim();
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unclosed_value_is_reported_once_and_hides_its_consequences() {
        for (text, spoilt) in [
            ("a = [1, 2]\nb = {c = [1]}\n", &[][..]),
            ("a = [\n  [1],\n  [\"x\"],\n]\n[t]\n", &[]),
            ("a = {\n  b = 1,\n  c = 2\n}\n", &[]),
            ("a = [1,\n[t]\nb = 1\n", &["a = [1,\n"]),
            ("a = [1\nb = 1\nc = [2\n[[t]] # x\n", &["a = [1\n", "c = [2\n"]),
            ("x = 1\na = { b = [1]\nc = 2\n", &["a = { b = [1]\n"]),
            ("a = [{ b = 1, \"c\"", &["a = [{ b = 1, \"c\""]),
            ("[t\na = 1\n", &[]),
            ("a = 1\nb = \"\"\"\nx\nc = 1\n", &["b = \"\"\"\nx\nc = 1\n"]),
            ("a = 1\nb = ['''\nx''\n[t]\n", &["b = ['''\nx''\n[t]\n"]),
            ("b = \"\"\"\nx\\\"\"\"\n", &["b = \"\"\"\nx\\\"\"\"\n"]),
            ("b = \"\"\"\nx\"\"\"\"\nc = ''''''\nd = \"\"\"\\\\\"\"\"\n", &[]),
            ("a = [\n{ b = 1 ,\n\"c\",\n] # x\nd = 1\n", &["a = [\n{ b = 1 ,\n\"c\",\n] # x"]),
            ("a = { b = [1 }\nd = 1\n", &["a = { b = [1 }"]),
            ("a = [1]]\nb = 1\n", &[]),
            ("server {\n\"x\": [\n[t]\na = 1\n", &[]),
        ] {
            let found: Vec<_> = unclosed(text).into_iter().map(|(_, range)| &text[range]).collect();
            assert_eq!(found, spoilt, "{text:?}");
        }
    }
}
