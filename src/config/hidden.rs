//! Decides which bytes of a file must not be shown, and masks them in messages. It goes by names (`token`,
//! `Authorization`, …), wherever they are: in a known table or a misspelt one, nested, quoted, in another case, in a
//! line that is not TOML; and by form: `user:password@`, `Bearer …`, `password=…` within a text, private keys.
//!
//! It reads tokens instead of the document, because it must work on a file that does not parse. In doubt it hides: too
//! much is an asterisk, too little is a password in a log. Every diagnostic passes through here (`report`).

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;
use toml_parser::lexer::{Token, TokenKind};

use crate::model::quote::mask_all;
use crate::model::secret::may_name_a_secret;

/// How many hidden values are searched for in a message about another place.
const LOOKED_FOR_MAX: usize = 256;
/// How many hidden values fit into what a message quotes.
const QUOTED_MAX: usize = 16;
/// Shorter hidden values, in bytes, occur in messages by chance.
const FAR_BYTES_MIN: usize = 6;
/// How much of a hidden value is searched for, in bytes.
const SPELLED_BYTES_MAX: usize = 4 << 10;
/// A message that shares this many bytes with a hidden value is not shown.
const PART_BYTES: usize = 4;
/// Keys of `{ file = "…", prefix = "…" }`: they say where a secret is, and are shown.
const OPEN_KEYS: [&str; 6] = ["file", "env", "prefix", "suffix", "user", "username"];
/// Tables whose keys are names that the user has chosen.
const NAMED: [&str; 2] = ["pools", "listeners"];
/// Replaces a message that would show a part of a hidden value.
const NOT_SHOWN: &str = "not accepted; the value may be a secret and is not shown";

/// The hidden parts of a file.
#[derive(Debug, Default)]
pub struct Hidden {
    /// Ascending, without overlap.
    ranges: Vec<Range<usize>>,
}

impl Hidden {
    /// Finds what to hide in `text`, and hides `known` too.
    pub fn of(text: &str, known: Vec<Range<usize>>) -> Hidden {
        let mut scan = Scan::new(text, known);
        toml_parser::Source::new(text).lex().for_each(|token| scan.take(token));
        let mut ranges = scan.hidden;
        for form in [&*USER_INFO, &*SCHEME, &*PRIVATE_KEY] {
            ranges.extend(form.captures_iter(text).filter_map(|found| Some(found.get(1)?.range())));
        }
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
        for range in ranges.into_iter().filter(|range| !range.is_empty()) {
            match merged.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => merged.push(range),
            }
        }
        Hidden { ranges: merged }
    }

    /// The hidden parts that overlap `range`, ascending.
    pub fn within(&self, range: Range<usize>) -> impl Iterator<Item = &Range<usize>> {
        let first = self.ranges.partition_point(|hidden| hidden.end <= range.start);
        self.ranges[first..].iter().take_while(move |hidden| hidden.start < range.end)
    }

    /// Whether a part of `range` is hidden.
    pub fn touches(&self, range: &Range<usize>) -> bool {
        self.within(range.start..range.end.max(range.start + 1)).next().is_some()
    }

    /// `message`, which is about the bytes `about`, with hidden values masked: those in `about` in every spelling, the
    /// others as written. A fixed text replaces a message that would still show a part of one.
    pub fn without_any(&self, text: &str, message: &str, about: &Range<usize>) -> String {
        let shown = self.without(text, message, Some(about));
        let mut near = self.within(about.start..about.end.max(about.start + 1)).take(QUOTED_MAX);
        let shares = near.any(|range| text.get(range.clone()).is_some_and(|secret| shares_a_part(&shown, secret)));
        if shares { NOT_SHOWN.to_owned() } else { shown }
    }

    /// The same for one of our own phrases, which may share parts with a secret by chance.
    pub fn without(&self, text: &str, message: &str, about: Option<&Range<usize>>) -> String {
        let written = |range: &Range<usize>| text.get(range.clone());
        // A message quotes the beginning of what it is about, and no more than 80 characters.
        let about = about.map_or(0..0, |about| about.start..about.end.max(about.start + 1));
        let near: Vec<&str> = self.within(about).filter_map(written).take(QUOTED_MAX).collect();
        let far = self.ranges.iter().take(LOOKED_FOR_MAX).filter_map(written);
        let far = far.filter(|secret| inner(secret).len() >= FAR_BYTES_MIN && message.contains(inner(secret)));
        let secrets: Vec<String> = near.iter().copied().chain(far).flat_map(spellings).collect();
        let mut bytes = message.as_bytes().to_vec();
        mask_all(&mut bytes, secrets.iter().map(String::as_str));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `scheme://user:password@`.
static USER_INFO: LazyLock<Regex> = LazyLock::new(|| form(r#"://([^\s"'@/]*:[^\s"']*@)"#));
/// `Bearer …` and similar schemes.
static SCHEME: LazyLock<Regex> = LazyLock::new(|| {
    form(r#"(?i)\b(?:bearer|basic|digest|negotiate|token|apikey|auth|pass)[ \t]+([^\s"',;{}\[\]=][^\s"',;{}\[\]]{3,})"#)
});
/// A private key in PEM, with or without its end.
static PRIVATE_KEY: LazyLock<Regex> =
    LazyLock::new(|| form(r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(.*?)(?:-----END|\z)"));
/// `user:password@host` without a scheme.
static BARE_USER_INFO: LazyLock<Regex> = LazyLock::new(|| form(r#"([A-Za-z0-9._~%+-]+:[^\s"'/@]+@)[^\s"'@]"#));
/// The beginning of `password=…` within a text, in any notation: JSON, a query, a header, a connection string.
static NAME: LazyLock<Regex> = LazyLock::new(|| form(r#"([A-Za-z0-9_.-]*)\\?["']?\s*[:=]\s*"#));
/// The value that follows. Searched for only after the name of a secret: a text may hold a million names.
static VALUE: LazyLock<Regex> = LazyLock::new(|| form(r#"\A(?:\\?"[^"\n]*"?|'[^'\n]*'?|[^\s"'&;,}]+)"#));

fn form(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant")
}

/// How a hidden value may appear in a message: each of its lines, as written and with its escapes replaced.
fn spellings(written: &str) -> Vec<String> {
    let start = &written
        [..(0..=SPELLED_BYTES_MAX.min(written.len())).rev().find(|at| written.is_char_boundary(*at)).unwrap_or(0)];
    let decoded = toml::from_str::<toml::Table>(&format!("a = {start}"));
    let decoded = decoded.ok().and_then(|table| Some(table.get("a")?.as_str()?.to_owned()));
    let texts = [Some(inner(start).to_owned()), decoded];
    let lines = texts.iter().flatten().flat_map(|text| text.lines()).map(str::trim);
    lines.filter(|line| !matches!(*line, "true" | "false")).map(str::to_owned).collect()
}

/// The text between the quotes.
fn inner(written: &str) -> &str {
    written.trim_matches(['"', '\'', ' ', '\t', '\r', '\n'])
}

/// Whether `message` shows a part of `secret`, in any case.
fn shares_a_part(message: &str, secret: &str) -> bool {
    let (message, secret) = (message.to_ascii_lowercase(), inner(secret).to_ascii_lowercase());
    let windows = secret.as_bytes().windows(PART_BYTES).take(SPELLED_BYTES_MAX);
    windows.filter(|part| !part.contains(&b'*')).any(|part| memchr::memmem::find(message.as_bytes(), part).is_some())
}

/// The table or list that tokens are in.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    kind: Kind,
    /// Everything in it is hidden, except the keys that say where a secret is.
    secret: bool,
    /// How many keys lead to it.
    keys: usize,
    /// Whether the first of them is one of [`NAMED`].
    named: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Statements,
    List,
    Table,
}

/// The part of `key = value` that is being read.
#[derive(Debug, Clone, Copy)]
enum State {
    /// A key, or text that is not one.
    Key,
    /// A value; `table` is its level if it is a table.
    Value { secret: bool, table: Level },
}

/// Reads tokens and collects what to hide. Its memory is a few bytes per open bracket.
struct Scan<'t> {
    text: &'t str,
    hidden: Vec<Range<usize>>,
    base: Level,
    open: Vec<Level>,
    state: State,
    /// The parts of a possible key since the last separator.
    recent: Vec<Range<usize>>,
    /// In a table header.
    header: bool,
    line_start: usize,
    /// Nothing but white space so far.
    line_empty: bool,
    /// A secret was named in this line.
    line_secret: bool,
    /// The last key named a secret: text that is not a key may continue its value.
    awaited: bool,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str, hidden: Vec<Range<usize>>) -> Scan<'t> {
        Scan {
            text,
            hidden,
            base: Level::default(),
            open: Vec::new(),
            state: State::Key,
            recent: Vec::new(),
            header: false,
            line_start: 0,
            line_empty: true,
            line_secret: false,
            awaited: false,
        }
    }

    fn take(&mut self, token: Token) {
        let span = token.span().start()..token.span().end();
        match token.kind() {
            TokenKind::Whitespace => return,
            TokenKind::Newline | TokenKind::Eof => return self.on_line_end(span),
            TokenKind::Comment => self.on_comment(span),
            TokenKind::Equals => self.on_equals(),
            TokenKind::Dot => self.hide_if_secret(span),
            TokenKind::Comma => self.on_comma(span.start),
            TokenKind::LeftSquareBracket => self.on_open_list(),
            TokenKind::RightSquareBracket if self.header => self.on_header(),
            TokenKind::LeftCurlyBracket => self.on_open_table(),
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => self.on_close(span.start),
            TokenKind::LiteralString
            | TokenKind::BasicString
            | TokenKind::MlLiteralString
            | TokenKind::MlBasicString
            | TokenKind::Atom => self.on_text(span),
        }
        self.line_empty = false;
    }

    fn level(&self) -> Level {
        self.open.last().copied().unwrap_or(self.base)
    }

    fn names_a_secret(&self, range: &Range<usize>) -> bool {
        let name = unescaped(&self.text[range.clone()]);
        may_name_a_secret(&name) || is_nearly_a_secret(&name)
    }

    fn on_text(&mut self, span: Range<usize>) {
        self.hide_if_secret(span.clone());
        self.hide_forms(span.clone());
        // A key has a few parts; more are a list without commas.
        if self.recent.len() < 64 {
            self.recent.push(span);
        }
    }

    fn hide_if_secret(&mut self, span: Range<usize>) {
        if let State::Value { secret: true, .. } = self.state {
            self.hidden.push(span);
            self.line_secret = true;
        }
    }

    /// Hides what looks like a secret within a text or comment.
    fn hide_forms(&mut self, span: Range<usize>) {
        let text = &self.text[span.clone()];
        if !text.contains([':', '=']) {
            return;
        }
        let mut hide = |range: Range<usize>| self.hidden.push(span.start + range.start..span.start + range.end);
        let mut from = 0;
        while let Some(found) = NAME.captures_at(text, from) {
            let start = found.get_match().end();
            let name = &found[1];
            // The value of one pair may be the name of the next.
            from = start;
            if !may_name_a_secret(name) {
                continue;
            }
            let Some(value) = VALUE.find(&text[start..]) else { continue };
            let value = start..start + value.end();
            // These have values of several words.
            let lower = name.to_ascii_lowercase();
            let long = lower.contains("authorization") || lower.contains("cookie");
            let end =
                if long { text[value.end..].find(['"', '\'', '\n']).map(|at| value.end + at) } else { Some(value.end) };
            let end = end.unwrap_or(text.len());
            from = end;
            hide(value.start..end);
            if inner(&text[value]).trim_matches('\\').is_empty() {
                // A quote is missing somewhere: the value follows this text.
                let line = self.text[span.end..].find('\n').map_or(self.text.len(), |at| span.end + at);
                hide(text.len()..line - span.start);
            }
        }
        BARE_USER_INFO.captures_iter(text).filter_map(|found| found.get(1)).for_each(|found| hide(found.range()));
    }

    fn on_comment(&mut self, span: Range<usize>) {
        if self.line_secret || matches!(self.state, State::Value { secret: true, .. }) {
            self.hidden.push(span);
        } else {
            self.hide_forms(span);
        }
    }

    fn on_equals(&mut self) {
        let was_secret = matches!(self.state, State::Value { secret: true, .. });
        if self.level().kind == Kind::List {
            // A list holds no keys: it was not closed.
            self.open.clear();
        }
        let level = self.level();
        let mut table = Level { kind: Kind::Table, secret: was_secret || level.secret, ..level };
        let mut secret = table.secret;
        let keys = std::mem::take(&mut self.recent);
        for (index, key) in keys.iter().enumerate() {
            let at = level.keys + index;
            let names = self.names_a_secret(key);
            secret |= names;
            // The name of a pool does not make the table below it secret, but a plain value in its place.
            let is_name = at == 1 && if index > 0 { self.is_named(&keys[0]) } else { level.named };
            let is_below = index + 1 < keys.len();
            if is_name && is_below {
                secret = table.secret;
            } else if !is_name {
                table.secret |= names;
            }
        }
        if let [only] = &keys[..]
            && level.secret
            && OPEN_KEYS.contains(&&*unescaped(&self.text[only.clone()]))
        {
            secret = false;
        }
        table.named = if level.keys == 0 { keys.first().is_some_and(|key| self.is_named(key)) } else { level.named };
        table.keys = level.keys + keys.len();
        self.line_secret |= secret;
        self.awaited = false;
        self.state = State::Value { secret, table };
    }

    fn is_named(&self, key: &Range<usize>) -> bool {
        NAMED.contains(&&*unescaped(&self.text[key.clone()]))
    }

    /// The text up to `end` is not `key = value`: hides what follows the name of a secret in it, or all of it where
    /// only secrets are expected or it may continue the value above.
    fn on_no_pair(&mut self, end: usize) {
        if !matches!(self.state, State::Key) || self.level().kind == Kind::List {
            return;
        }
        let first = self.recent.first().map(|part| part.start);
        let named = self.recent.iter().find(|part| self.names_a_secret(part)).map(|part| part.end);
        let all = self.level().secret || (self.awaited && self.open.is_empty());
        let from = if all { first } else { named };
        self.hidden.extend(from.map(|from| from..end));
    }

    fn on_comma(&mut self, at: usize) {
        self.on_no_pair(at);
        self.recent.clear();
        match self.level().kind {
            Kind::Statements => {}
            Kind::Table => self.state = State::Key,
            Kind::List => {
                let level = self.level();
                self.state = State::Value { secret: level.secret, table: Level { kind: Kind::Table, ..level } };
            }
        }
    }

    fn on_open_list(&mut self) {
        let begins = self.line_empty && (self.open.is_empty() && !self.awaited || self.is_header_line());
        if begins || self.header {
            self.base.secret = self.open.last().is_some_and(|level| level.secret) && begins;
            self.open.clear();
            self.recent.clear();
            self.state = State::Key;
            self.header = true;
            return;
        }
        let level = self.level();
        let (secret, table) = match self.state {
            State::Value { secret, table } => (secret, table),
            State::Key => (level.secret, level),
        };
        self.open.push(Level { kind: Kind::List, secret, ..table });
        self.state = State::Value { secret, table };
        self.recent.clear();
    }

    /// Whether this line can only be the header of a table, although a bracket above is open.
    fn is_header_line(&self) -> bool {
        let line = self.text[self.line_start..].lines().next().unwrap_or("").trim();
        let line = line.split('#').next().unwrap_or("").trim_end();
        line.starts_with('[') && line.ends_with(']') && !line.contains([',', '='])
    }

    fn on_header(&mut self) {
        let keys = std::mem::take(&mut self.recent);
        let named = keys.first().is_some_and(|key| self.is_named(key));
        let names = |(index, key): (usize, &Range<usize>)| !(named && index == 1) && self.names_a_secret(key);
        let secret = self.base.secret || keys.iter().enumerate().any(names);
        self.awaited = false;
        self.base = Level { kind: Kind::Statements, secret, keys: keys.len(), named };
        self.header = false;
    }

    fn on_open_table(&mut self) {
        let level = self.level();
        let table = match self.state {
            State::Value { table, .. } => table,
            State::Key => Level { kind: Kind::Table, ..level },
        };
        self.open.push(Level { kind: Kind::Table, ..table });
        self.state = State::Key;
        self.recent.clear();
    }

    fn on_close(&mut self, at: usize) {
        self.on_no_pair(at);
        let Some(closed) = self.open.pop() else { return };
        self.state = State::Value { secret: closed.secret, table: Level { kind: Kind::Table, ..self.level() } };
        self.recent.clear();
    }

    fn on_line_end(&mut self, span: Range<usize>) {
        self.on_no_pair(span.start);
        if self.open.is_empty() {
            self.awaited |= matches!(self.state, State::Value { secret: true, .. });
            self.state = State::Key;
            self.header = false;
        } else if self.level().kind == Kind::Table {
            self.state = State::Key;
        }
        self.recent.clear();
        self.line_start = span.end;
        self.line_empty = true;
        self.line_secret = false;
    }
}

/// Whether a word of `name` is a misspelt name of a secret.
fn is_nearly_a_secret(name: &str) -> bool {
    const NAMES: [&str; 7] = ["authorization", "cookie", "token", "secret", "password", "credentials", "apikey"];
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| (4..=16).contains(&word.len()));
    let close = |word: &str, name: &str| {
        word.len().abs_diff(name.len()) <= 2
            && strsim::damerau_levenshtein(&word.to_lowercase(), name) <= if name.len() > 6 { 2 } else { 1 }
    };
    words.take(8).any(|word| NAMES.iter().any(|name| close(word, name)))
}

/// A key without quotes, and with its escapes replaced.
fn unescaped(written: &str) -> std::borrow::Cow<'_, str> {
    if !written.contains('\\') {
        return inner(written).into();
    }
    match toml::from_str::<toml::Table>(&format!("{written} = 1")) {
        Ok(table) => table.keys().next().cloned().unwrap_or_default().into(),
        Err(_) => inner(written).into(),
    }
}

#[cfg(test)]
mod tests;
