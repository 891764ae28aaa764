//! Explains text that is not TOML: what it is, and what to write instead. The parser reports where it stopped; people
//! need to know what they wrote: YAML, a line of nginx, a value without quotes, a list that is not closed. Pure; called
//! by `document`, and only for a file that the parser has refused. No message quotes the file: the excerpt shows it,
//! with its secrets masked.

mod line;
mod open;
mod statements;
mod value;
mod whole;

use std::ops::Range;

use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::raw;
use super::report::Found;
use super::values::address::{dial_meant, listen_meant};

pub use open::unclosed;
pub use statements::Statements;
pub use whole::{FIRST_TABLES, other_format};

/// The longest word that a suggestion repeats, in bytes.
const WORD_BYTES_MAX: usize = 200;
/// What editors and web pages turn `"` and `'` into.
const CURLY: [char; 12] = [
    '\u{201c}', '\u{201d}', '\u{201e}', '\u{201f}', '\u{2018}', '\u{2019}', '\u{201a}', '\u{ab}', '\u{bb}', '\u{2033}',
    '\u{ff02}', '`',
];

/// Messages of the parser about one value: the rest of the document is certain.
const HOLES: [&str; 18] = [
    NOT_QUOTED,
    NOT_CLOSED,
    "invalid basic string",
    "invalid literal string",
    "invalid float",
    "invalid boolean",
    "invalid integer",
    "invalid date",
    "invalid time",
    "invalid hexadecimal",
    "invalid octal",
    "invalid binary",
    "unexpected leading zero",
    "unexpected sign",
    "redundant numeric sign",
    "missing escaped value",
    "too few unicode value digits",
    "invalid value",
];
const NOT_QUOTED: &str = "string values must be quoted";
const NOT_CLOSED: &str = "invalid basic string, expected `\"`";

/// Whether a mistake concerns one value alone.
pub fn is_hole(error: &toml::de::Error) -> bool {
    HOLES.iter().any(|hole| error.message().starts_with(hole))
}

/// An error of the parser in our words.
pub fn found(error: &toml::de::Error, text: &str) -> Found {
    let message = error.message();
    let Some(span) = error.span() else { return Found::syntax(None, sentence(message)) };
    if let Some(found) = value::explain(text, span.start).or_else(|| line::address(text, span.start)) {
        return found;
    }
    let starts = |words: &[&str]| words.iter().any(|word| message.starts_with(word));
    if starts(&["missing escaped value", "too few unicode value digits", "invalid value"]) {
        return escape(text, &span);
    }
    if starts(&[NOT_CLOSED, "invalid literal string"]) {
        return open_string(text, &span, message);
    }
    if is_hole(error) {
        return single(text, &span);
    }
    if starts(&["missing comma between array elements"])
        && let Some(found) = line::entry(text, span.start)
    {
        return found;
    }
    if starts(&["unclosed table", "unclosed array table"]) {
        let header = line::code_of(text, span.start.saturating_sub(1));
        let end = if text[header.clone()].starts_with("[[") { "]]" } else { "]" };
        let closed = format!("{}{end}", text[header.clone()].trim_end_matches(']'));
        let good = DeTable::parse(&closed).is_ok();
        return Found::syntax(Some(header), "the header of a table is not closed")
            .expected(format!("`{end}` at its end"))
            .suggestion(good.then_some(closed));
    }
    let of_line =
        ["key with no value", "invalid unquoted key", "invalid key-value pair", "extra `=`", "unexpected key or value"];
    if starts(&of_line) || starts(&["missing key", "missing value for key", "missing table open", "unexpected content"])
    {
        return line::explain(text, span.start, message)
            .unwrap_or_else(|| Found::syntax(Some(span), sentence(message)));
    }
    Found::syntax(Some(span), sentence(message))
}

/// A message of the parser, in our words if they help more.
fn sentence(message: &str) -> String {
    let ours = match message {
        _ if message.starts_with("cannot recurse further") || message.starts_with("recursion limit") => {
            "nested too deeply"
        }
        _ if message.starts_with("key with no value") => "a key without `=` and a value",
        _ if message.starts_with("missing comma between array elements") => {
            "no comma between two entries of the list, or the list is not closed above"
        }
        _ if message.starts_with("missing comma between key-value pairs") => {
            "no comma between two keys of the table in { }"
        }
        _ if message.starts_with("extra comma in array") => "one comma too many; entries have one between them",
        _ if message.starts_with("extra comma in inline table") => "one comma too many; keys have one between them",
        _ if message.starts_with("unexpected `=` in array") => "a key in a list: the list is not closed above",
        _ if message.starts_with("cannot extend value") => {
            "this key already has a value above, so it cannot be a table"
        }
        _ if message.starts_with("carriage return must be followed") => {
            "a carriage return alone: lines end with LF, or with CR and LF"
        }
        _ if message.starts_with("invalid unquoted key") => {
            "this character cannot be in a key without quotes; allowed are A-Z, a-z, 0-9, - and _"
        }
        _ if message.starts_with("unexpected key or value") => "something is left over after the value",
        _ => message,
    };
    ours.to_owned()
}

/// A value that cannot be parsed, such as one without quotes.
fn single(text: &str, span: &Range<usize>) -> Found {
    let word = word_at(text, span);
    let written = &text[word.clone()];
    if let Some(found) = curly(text, word.start) {
        return found;
    }
    let found = |message: &str| Found::syntax(Some(word.clone()), message);
    match written {
        "" => {
            Found::syntax(Some(span.clone()), "no value after `=`").expected("a value; texts and durations in quotes")
        }
        "null" | "nil" | "None" | "none" | "undefined" | "NULL" | "~" => {
            let is_null = raw::JsonRule::NAMES.contains(&"is");
            let of_json = if is_null { "; in a rule of `expect.json`, `is = \"null\"`" } else { "" };
            found("TOML has no null").expected(format!("no key at all where there is no value{of_json}"))
        }
        "True" | "TRUE" | "yes" | "Yes" | "on" | "On" => found("not a value").suggestion(Some("true")),
        "False" | "FALSE" | "no" | "No" | "off" | "Off" => found("not a value").suggestion(Some("false")),
        _ => {
            let bare = written.trim_end_matches(';');
            if bare != written && DeTable::parse(&format!("key = {bare}")).is_ok() {
                return found("a line ends without a comma or semicolon").suggestion(Some(bare.to_owned()));
            }
            let meant = match line::listens(text, word.start) {
                true => listen_meant(bare),
                // A port alone is not an address for an upstream, but it has a likely one.
                false if bare.starts_with([':', '*']) => dial_meant(bare),
                false => meant(bare),
            };
            // One address may stand where a list is needed.
            let list = meant.as_ref().map(|meant| format!("[{meant}]"));
            let found = found("not a value; texts, addresses and durations are written in quotes");
            found.suggestion(meant).suggestion(list)
        }
    }
}

/// The value that a word without quotes probably means.
fn meant(word: &str) -> Option<String> {
    let percent = word.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    if let Some(percent) = percent {
        return Some(format!("{}", (percent * 1e4).round() / 1e6));
    }
    let variable = word.strip_prefix('$').map(|name| name.trim_start_matches('{').trim_end_matches('}'));
    if let Some(name) = variable.filter(|name| super::expand::is_variable_name(name)) {
        return Some(format!("\"${{{name}}}\""));
    }
    let class = word.strip_suffix("xx").filter(|class| matches!(*class, "1" | "2" | "3" | "4" | "5"));
    if let Some(class) = class {
        return Some(format!("\"{class}00-{class}99\""));
    }
    let plain = word.len() <= WORD_BYTES_MAX && !word.contains(['\\', '>', '<']) && !word.chars().any(char::is_control);
    plain.then(|| format!("\"{word}\""))
}

/// The word around `span`: up to white space, a separator or a quote.
fn word_at(text: &str, span: &Range<usize>) -> Range<usize> {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '=' | '[' | ']' | '{' | '}' | '#' | '"' | '\'');
    let start = text[..span.start].rfind(ends).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let rest = &text[start..];
    let braces = if rest.starts_with("${") { rest.find('}').map_or(0, |at| at + 1) } else { 0 };
    let end = rest[braces..].find(ends).map_or(text.len(), |at| start + braces + at);
    start..end.max(start)
}

/// A text in typographic quotes.
fn curly(text: &str, start: usize) -> Option<Found> {
    let rest = text[start..].lines().next().unwrap_or("");
    let rest = rest.strip_prefix(CURLY)?;
    let opening = text[start..].len() - text[start..].strip_prefix(CURLY).unwrap_or("").len();
    let message = "these quotes are not valid in TOML";
    let Some(end) = rest.find(|c: char| CURLY.contains(&c) || c == '"') else {
        return Some(Found::syntax(Some(start..start + opening), message).expected("straight quotes: \""));
    };
    let closing = rest[end..].chars().next().map_or(0, char::len_utf8);
    let inner = &rest[..end];
    let meant = (inner.len() <= WORD_BYTES_MAX && !inner.contains('\\')).then(|| format!("\"{inner}\""));
    let whole = start..start + opening + end + closing;
    Some(Found::syntax(Some(whole), message).expected("straight quotes: \"").suggestion(meant))
}

/// A string that does not end in its line.
fn open_string(text: &str, span: &Range<usize>, message: &str) -> Found {
    let line = line::code_of(text, span.start.saturating_sub(1));
    let string = line::string_at(text, &line, span.start);
    let curly = string.clone().and_then(|string| {
        let written = &text[string.clone()];
        let inner = written.get(1..)?;
        let end = inner.find(|c: char| CURLY.contains(&c))?;
        let closing = inner[end..].chars().next().map_or(0, char::len_utf8);
        Some((string.start..string.start + 1 + end + closing, format!("\"{}\"", &inner[..end])))
    });
    if let Some((whole, meant)) = curly {
        let found = Found::syntax(Some(whole), "this closing quote is not valid in TOML");
        return found.expected("a straight quote: \"").suggestion(Some(meant).filter(|meant| !meant.contains('\\')));
    }
    let quote = if message.starts_with(NOT_CLOSED) { '"' } else { '\'' };
    Found::syntax(Some(span.clone()), "the string has no closing quote").expected(format!("`{quote}`"))
}

/// A `\` that does not begin an escape.
fn escape(text: &str, span: &Range<usize>) -> Found {
    let line = line::code_of(text, span.start);
    let string = line::string_at(text, &line, span.start);
    let meant = string.clone().and_then(|string| {
        let inner = text[string].strip_prefix('"')?.strip_suffix('"')?;
        let plain = !inner.contains('\'') && !inner.contains("\\\"") && !inner.starts_with('"');
        (plain && inner.len() <= WORD_BYTES_MAX).then(|| format!("'{inner}'"))
    });
    let at = string.filter(|_| meant.is_some()).unwrap_or_else(|| span.clone());
    let found = Found::syntax(Some(at), "a \\ in double quotes begins an escape, and this one does not exist");
    match meant {
        // Whether there is such a file is another question.
        Some(path) if is_windows_path(path.trim_matches('\'')) => {
            found.expected(format!("single quotes, which keep a \\ as it is: {path}"))
        }
        meant => found.expected("single quotes, which keep a \\ as it is; or \\\\ for each").suggestion(meant),
    }
}

/// Whether a text begins with the letter of a drive.
pub fn is_windows_path(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic())
}

/// The tokens of a line: kind and place in the file.
fn tokens<'t>(text: &'t str, line: &Range<usize>) -> impl Iterator<Item = (TokenKind, Range<usize>)> + 't {
    let start = line.start;
    let tokens: Vec<_> = toml_parser::Source::new(&text[line.clone()]).lex().collect();
    tokens.into_iter().map(move |token| (token.kind(), start + token.span().start()..start + token.span().end()))
}
