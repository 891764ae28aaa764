//! A value of one line in another notation: `{"type": "http"}` of JSON and YAML, and lists in parentheses or braces. It is
//! rewritten as TOML has it.

use toml::de::DeTable;

use super::{WORD_BYTES_MAX, line};
use crate::config::report::Found;

/// The longest line that is rewritten, in bytes, and how deep its brackets may be nested.
const LINE_BYTES_MAX: usize = 1_000;
const DEPTH_MAX: usize = 16;

/// Explains the value in the line around `at`, if only its notation is wrong.
pub fn explain(text: &str, at: usize) -> Option<Found> {
    let line = line::code_of(text, at);
    let code = &text[line.clone()];
    if code.len() > LINE_BYTES_MAX {
        return None;
    }
    let (key, value) = code.split_once('=')?;
    let value = value.trim_start();
    if !line::is_bare_key(key.trim()) || !value.starts_with(['{', '[', '(']) {
        return None;
    }
    let (meant, slip) = rewrite(value.trim_end_matches([',', ';']).trim_end())?;
    let (message, expected) = match slip {
        Slip::Colon => ("a key and its value have `=` between them, not `:`", "a table: { key = value }"),
        Slip::Parentheses => ("a list in parentheses", "a list in [ ]"),
        Slip::Braces => ("a list in braces, which hold keys and values", "a list in [ ]"),
    };
    let found = Found::syntax(Some(line.end - value.len()..line.end), message).expected(expected);
    Some(found.suggestion(Some(meant).filter(|meant| meant.len() <= WORD_BYTES_MAX)))
}

/// What is not written as in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slip {
    Colon,
    Parentheses,
    Braces,
}

/// `value` in TOML, and the first slip in it. `None`: there is none, or more is wrong.
fn rewrite(value: &str) -> Option<(String, Slip)> {
    let mut reader = Rewriter { tokens: tokens(value)?, at: 0, slip: None };
    let meant = reader.value(0)?;
    let slip = reader.slip.filter(|_| reader.at == reader.tokens.len())?;
    DeTable::parse(&format!("x = {meant}")).is_ok().then_some((meant, slip))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    /// A bracket of any kind, or a comma.
    Mark(char),
    /// `=`, or a `:` after a key.
    Assign(char),
    /// With its quotes.
    Text(&'t str),
    Word(&'t str),
}

/// The tokens of `value`; `None`: a string is not closed.
fn tokens(value: &str) -> Option<Vec<Token<'_>>> {
    let mut out = Vec::new();
    let mut rest = value.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '{' | '}' | '[' | ']' | '(' | ')' | ',' => {
                out.push(Token::Mark(first));
                1
            }
            '=' => {
                out.push(Token::Assign(first));
                1
            }
            ':' if matches!(out.last(), Some(Token::Text(_) | Token::Word(_))) => {
                out.push(Token::Assign(first));
                1
            }
            '"' | '\'' => {
                let length = text_length(rest, first)?;
                out.push(Token::Text(&rest[..length]));
                length
            }
            _ => {
                let length = word_length(rest);
                out.push(Token::Word(&rest[..length]));
                length
            }
        };
        rest = rest[length..].trim_start();
    }
    Some(out)
}

/// The length of the string that `text` begins with.
fn text_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of the word that `text` begins with. A `:` ends a key where a value follows, and is part of `10.0.0.1:80`.
fn word_length(text: &str) -> usize {
    let ends = |(at, c): (usize, char)| match c {
        ':' => {
            let rest = &text[at + 1..];
            rest.is_empty()
                || rest.starts_with(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '{' | '[' | '('))
        }
        c => c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | '(' | ')' | ',' | '=' | '"' | '\''),
    };
    let mut chars = text.char_indices().skip(1);
    chars.find(|one| ends(*one)).map_or(text.len(), |(at, _)| at)
}

struct Rewriter<'t> {
    tokens: Vec<Token<'t>>,
    at: usize,
    slip: Option<Slip>,
}

impl<'t> Rewriter<'t> {
    fn next(&mut self) -> Option<Token<'t>> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    fn value(&mut self, depth: usize) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.next()? {
            Token::Text(text) => Some(text.to_owned()),
            Token::Word(word) => word_meant(word),
            Token::Mark('[') => self.list(']', depth),
            Token::Mark('(') => {
                self.slip.get_or_insert(Slip::Parentheses);
                self.list(')', depth)
            }
            Token::Mark('{') => match (self.tokens.get(self.at)?, self.tokens.get(self.at + 1)) {
                (_, Some(Token::Assign(_))) | (Token::Mark('}'), _) => self.table(depth),
                (Token::Text(_), _) => {
                    self.slip.get_or_insert(Slip::Braces);
                    self.list('}', depth)
                }
                _ => None,
            },
            Token::Mark(_) | Token::Assign(_) => None,
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Option<String> {
        let mut entries = Vec::new();
        while *self.tokens.get(self.at)? != Token::Mark(end) {
            entries.push(self.value(depth + 1)?);
            self.separator(end)?;
        }
        self.at += 1;
        Some(format!("[{}]", entries.join(", ")))
    }

    fn table(&mut self, depth: usize) -> Option<String> {
        let mut pairs = Vec::new();
        while *self.tokens.get(self.at)? != Token::Mark('}') {
            let key = match self.next()? {
                Token::Text(text) => text.get(1..text.len() - 1).filter(|key| is_plain(key)).unwrap_or(text),
                Token::Word(word) if line::is_bare_key(word) => word,
                _ => return None,
            };
            match self.next()? {
                Token::Assign('=') => {}
                Token::Assign(_) => {
                    self.slip.get_or_insert(Slip::Colon);
                }
                _ => return None,
            }
            pairs.push(format!("{key} = {}", self.value(depth + 1)?));
            self.separator('}')?;
        }
        self.at += 1;
        Some(if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) })
    }

    /// A comma, which the end may follow, or the end, which stays.
    fn separator(&mut self, end: char) -> Option<()> {
        match self.tokens.get(self.at)? {
            Token::Mark(',') => self.at += 1,
            mark if *mark == Token::Mark(end) => {}
            _ => return None,
        }
        Some(())
    }
}

/// Whether a key needs no quotes.
fn is_plain(key: &str) -> bool {
    !key.contains('.') && line::is_bare_key(key)
}

/// A word as a value: as it is if TOML has it, else as a text.
fn word_meant(word: &str) -> Option<String> {
    match word {
        "null" | "nil" | "None" => None,
        _ if DeTable::parse(&format!("x = {word}")).is_ok() => Some(word.to_owned()),
        _ if word.contains('\\') || word.chars().any(char::is_control) => None,
        _ => Some(format!("\"{word}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_other_notations_become_ours() {
        for (value, meant) in [
            (r#"{"type": "http"}"#, Some((r#"{ type = "http" }"#, Slip::Colon))),
            (r#"{"X-A": "b", "X.B":5,}"#, Some((r#"{ X-A = "b", "X.B" = 5 }"#, Slip::Colon))),
            (r#"{type: "http", path: /up}"#, Some((r#"{ type = "http", path = "/up" }"#, Slip::Colon))),
            ("{ Host: foo }", Some((r#"{ Host = "foo" }"#, Slip::Colon))),
            (r#"{ a = 1, "b": {c: [1, true]} }"#, Some(("{ a = 1, b = { c = [1, true] } }", Slip::Colon))),
            (r#"[{"address":"a:1"}]"#, Some((r#"[{ address = "a:1" }]"#, Slip::Colon))),
            (r#"("10.0.0.1:80")"#, Some((r#"["10.0.0.1:80"]"#, Slip::Parentheses))),
            (r#"("10.0.0.1:80", 10.0.0.2:80,)"#, Some((r#"["10.0.0.1:80", "10.0.0.2:80"]"#, Slip::Parentheses))),
            (r#"{"10.0.0.1:80"}"#, Some((r#"["10.0.0.1:80"]"#, Slip::Braces))),
            (r#"{"a:1", "b:2"}"#, Some((r#"["a:1", "b:2"]"#, Slip::Braces))),
            // Other mistakes have their own messages.
            (r#"["a:1", "b:2"]"#, None),
            ("[10.0.0.1:80]", None),
            ("[[::1]:80]", None),
            (r#"{"a": null}"#, None),
            (r#"{"a": "b"#, None),
            (r#"{"a": 1]"#, None),
            (r#"{"a": 1} x"#, None),
            ("{a}", None),
            ("{", None),
            ("(", None),
            ("", None),
        ] {
            let found = rewrite(value);
            assert_eq!(found.as_ref().map(|(text, slip)| (text.as_str(), *slip)), meant, "{value}");
        }
        for bracket in ["(", "[", "{a:{", "{\"a\": ["] {
            assert_eq!(rewrite(&bracket.repeat(900 / bracket.len())), None);
        }
    }
}
