//! One line that is not `key = value`: YAML, JSON, a directive of another program, or a missing `=`.

use std::ops::Range;

use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::{CURLY, WORD_BYTES_MAX, tokens};
use crate::config::report::Found;
use crate::config::values::address::{entries, listen_argument};
use crate::config::{foreign, raw};
use crate::model::Address;
use crate::model::written::duration;

/// Explains the line around `at`, if it is recognised.
pub fn explain(text: &str, at: usize, message: &str) -> Option<Found> {
    let line = code_of(text, at);
    let code = &text[line.clone()];
    if code.len() > 1_000 {
        return None;
    }
    let found = |message: &str| Found::syntax(Some(line.clone()), message);
    if let Some(found) = comment(code, &found) {
        return Some(found);
    }
    if let Some(found) = curly_key(code, &found) {
        return Some(found);
    }
    let section = Section::of(text, line.start);
    if let Some(found) = operator(code, &section, &found) {
        return Some(found);
    }
    if message.starts_with("unexpected key or value")
        && let Some(found) = left_over(code, &section, &found)
    {
        return Some(found);
    }
    yaml_or_json(code, &section, &found)
        .or_else(|| directive(code, &found))
        .or_else(|| block(code, &found))
        .or_else(|| invisible(text, &line))
        .or_else(|| without_equals(code, &section, message, &found))
}

/// An entry of a list with more than its address, alone on a line: `"10.0.0.1:80" weight=3,`.
pub fn entry(text: &str, at: usize) -> Option<Found> {
    let line = code_of(text, at);
    let code = text[line.clone()].trim_end_matches(',').trim_end();
    if !code.starts_with(['"', '\'']) || code.contains('[') {
        return None;
    }
    let meant = entries(&code.replace(['"', '\''], "")).filter(|meant| meant.starts_with('{'))?;
    let found = Found::syntax(Some(line.start..line.start + code.len()), "an entry with more than its address");
    Some(found.expected("a table: `{ address = \"ip:port\", weight = 2 }`").suggestion(Some(meant)))
}

/// An IPv6 address with a port and without quotes, which the parser takes for a list.
pub fn address(text: &str, at: usize) -> Option<Found> {
    let line = code_of(text, at);
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let of_ip = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    let mut from = line.start;
    // Brackets in strings are not looked at: what follows them is a quote.
    while let Some(open) = text[from..line.end].find('[').map(|open| from + open) {
        from = open + 1;
        let ip = text[from..line.end].split(|c| !of_ip(c)).next().unwrap_or("");
        let Some(rest) = text[from + ip.len()..line.end].strip_prefix("]:") else { continue };
        let port = rest.bytes().take_while(u8::is_ascii_digit).count();
        let whole = open..from + ip.len() + "]:".len() + port;
        let is_quoted = text[..open].ends_with(['"', '\'']);
        if is_quoted || !(whole.start..=whole.end).contains(&at) || text[whole.clone()].parse::<Address>().is_err() {
            continue;
        }
        let meant = format!("\"{}\"", &text[whole.clone()]);
        return Some(Found::syntax(Some(whole), "an address is written in quotes").suggestion(Some(meant)));
    }
    None
}

/// The longest line that is split into tokens, in bytes: a file may be one line with thousands of mistakes.
const LINE_BYTES_MAX: usize = 4 << 10;

/// The place of the code in the line around `at`: without white space around it and, in a line of usual length, without
/// the comment.
pub fn code_of(text: &str, at: usize) -> Range<usize> {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let usual = end - start <= LINE_BYTES_MAX;
    let comment = usual.then(|| tokens(text, &(start..end)).find(|(kind, _)| *kind == TokenKind::Comment)).flatten();
    let end = comment.map_or(end, |(_, span)| span.start);
    let trimmed = text[start..end].trim_end().len();
    let blank = text[start..end].len() - text[start..end].trim_start().len();
    start + blank.min(trimmed)..start + trimmed
}

/// The string of one line that holds `at` or ends there.
pub fn string_at(text: &str, line: &Range<usize>, at: usize) -> Option<Range<usize>> {
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let kinds = [TokenKind::BasicString, TokenKind::LiteralString];
    let mut strings = tokens(text, line).filter(|(kind, _)| kinds.contains(kind)).map(|(_, span)| span);
    strings.find(|span| (span.start..=span.end).contains(&at))
}

/// Whether the value at `at` is the address of a socket that we listen on.
pub fn listens(text: &str, at: usize) -> bool {
    let line = code_of(text, at);
    let key = text[line.clone()].split('=').next().unwrap_or("").trim();
    key == "address" && matches!(Section::of(text, line.start).table, "Listener" | "Admin")
}

/// The table that a line is in, by the header above it.
struct Section {
    table: &'static str,
}

impl Section {
    fn of(text: &str, line_start: usize) -> Section {
        let header = text[..line_start].lines().rev().find_map(|line| line.trim_start().strip_prefix('['));
        let header = header.map_or("", |header| header.trim_start_matches('[').split(']').next().unwrap_or(""));
        let parts: Vec<&str> = header.split('.').map(str::trim).collect();
        let table = match parts[..] {
            [""] => "File",
            ["pools", _] => "Pool",
            ["pools", _, "health"] => "Health",
            ["pools", _, "health", "expect"] => "Expect",
            ["pools", _, "health", "tls"] => "Tls",
            ["listeners", _] => "Listener",
            ["routes"] => "Route",
            ["admin"] => "Admin",
            ["runtime"] => "Runtime",
            _ => "",
        };
        Section { table }
    }

    /// Our key for a written one, or what to write instead.
    fn key(&self, name: &str) -> Result<String, Option<String>> {
        let own: Vec<&str> = match self.table {
            "File" => raw::File::NAMES.to_vec(),
            "Pool" => raw::Pool::NAMES.to_vec(),
            "Health" => [raw::Health::NAMES, raw::Timing::NAMES, raw::Probe::NAMES].concat(),
            "Expect" => raw::Expect::NAMES.to_vec(),
            "Tls" => raw::Tls::NAMES.to_vec(),
            "Listener" => raw::Listener::NAMES.to_vec(),
            "Route" => raw::Route::NAMES.to_vec(),
            "Admin" => raw::Admin::NAMES.to_vec(),
            "Runtime" => raw::Runtime::NAMES.to_vec(),
            _ => return Ok(name.to_owned()),
        };
        if own.contains(&name.split('.').next().unwrap_or(name)) {
            return Ok(name.to_owned());
        }
        match foreign::key(self.table, name) {
            Some(meant) => match meant.key.filter(|key| own.contains(key)) {
                Some(key) => Ok(key.to_owned()),
                None => Err(Some(meant.instead).filter(|instead| !instead.is_empty())),
            },
            None => Err(None),
        }
    }
}

/// Whether `text` is a key without quotes, which may be dotted.
pub fn is_bare_key(text: &str) -> bool {
    let bare = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    text.len() <= 64 && text.split('.').all(bare)
}

/// A value as TOML writes it: unchanged if it parses, else in quotes.
fn value_of(key: &str, written: &str) -> Option<String> {
    let written = written.trim().trim_end_matches([';', ',']).trim();
    if written.is_empty()
        || written.len() > WORD_BYTES_MAX
        || written.contains(['"', '\'']) && parses(written).is_none()
    {
        return None;
    }
    if key == "balance" {
        return Some(format!("{:?}", foreign::balance(written).unwrap_or(written)));
    }
    Some(parses(written).unwrap_or_else(|| format!("{written:?}")))
}

fn parses(value: &str) -> Option<String> {
    DeTable::parse(&format!("x = {value}")).is_ok().then(|| value.to_owned())
}

fn comment(code: &str, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    let begins = ["//", "--", ";", "/*", "*/", "* ", "<!--"].into_iter().find(|begin| code.starts_with(begin))?;
    let rest = code[begins.len()..].trim_end_matches("*/").trim_end_matches("-->").trim();
    Some(found("comments begin with #").expected("# and the text").suggestion(Some(format!("# {rest}"))))
}

/// A line with typographic quotes round a key or a part of a header.
fn curly_key(code: &str, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    let (key, value) = match code.find('=') {
        Some(equals) if !code.starts_with('[') => code.split_at(equals),
        _ => (code, ""),
    };
    if !code.contains(CURLY) {
        return None;
    }
    let straight = |text: &str| text.replace(CURLY, "\"");
    let lines = [key.replace(CURLY, "") + &straight(value), straight(key) + &straight(value)];
    let meant = lines.into_iter().find(|line| line.len() <= WORD_BYTES_MAX && DeTable::parse(line).is_ok())?;
    let found = found("these quotes are not valid in TOML");
    Some(found.expected("keys without quotes, and texts in straight ones: \"").suggestion(Some(meant)))
}

/// `key: value`, `"key": value`, `- entry`, `---`.
fn yaml_or_json(code: &str, section: &Section, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    if code == "-" || code == "---" || code.starts_with("- ") {
        return Some(
            found("this is YAML; a configuration is TOML").expected("lists in [ ]: `upstreams = [\"ip:port\"]`"),
        );
    }
    let (key, rest) = code.split_once(':')?;
    let (quoted, key) = match key.trim().strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
        Some(key) => (true, key),
        None => (false, key.trim()),
    };
    if !is_bare_key(key) || !(rest.is_empty() || rest.starts_with([' ', '\t', '"', '[', '{']) || quoted) {
        return None;
    }
    let message = match quoted {
        true => "this is JSON; a configuration is TOML",
        false => "this is YAML; a configuration is TOML",
    };
    let rest = rest.trim().trim_end_matches(',');
    if rest.is_empty() || matches!(rest, "{" | "[" | "|" | ">") {
        return Some(found(message).expected("a table in brackets, such as [pools.NAME.health], or key = value"));
    }
    Some(key_and_value(key, rest, section, found(message)))
}

/// Suggests `key = value`, with our key for one of another program.
fn key_and_value(key: &str, rest: &str, section: &Section, found: Found) -> Found {
    match section.key(key) {
        Ok(key) => match value_of(&key, rest) {
            Some(value) => found.suggestion(Some(format!("{key} = {value}"))),
            None => found.expected("key = value"),
        },
        Err(instead) => found.expected(instead.unwrap_or_else(|| "key = value, with a key of this table".to_owned())),
    }
}

/// `==`, `:=`, `=>` and `->` in place of `=`.
fn operator(code: &str, section: &Section, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    let (operator, at) = ["==", ":=", "=>", "->", "=:"]
        .into_iter()
        .filter_map(|operator| Some((operator, code.find(operator)?)))
        .min_by_key(|(_, at)| *at)?;
    let (key, rest) = (code[..at].trim(), code[at + operator.len()..].trim());
    let message = "a key and its value have one `=` between them";
    is_bare_key(key).then(|| key_and_value(key, rest, section, found(message)))
}

/// A complete statement with something after it.
fn left_over(code: &str, section: &Section, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    let header = code.trim_start_matches('[').trim_end_matches(']').trim();
    if code.starts_with('[') && code.ends_with("]]") && DeTable::parse(&format!("[{header}]")).is_ok() {
        let found = found("one bracket too many after the name of a table").expected("as many as before the name");
        return Some(found.suggestion(Some(format!("[{header}]"))).suggestion(Some(format!("[[{header}]]"))));
    }
    let bare = code.trim_end_matches([',', ';']).trim_end();
    if bare != code && DeTable::parse(bare).is_ok() {
        let found = found("a line ends without a comma or semicolon");
        let key = bare.split('=').next().unwrap_or("").trim();
        let good = bare.len() <= WORD_BYTES_MAX && (bare.starts_with('[') || section.key(key).is_ok());
        return Some(found.expected("the line without it").suggestion(good.then(|| bare.to_owned())));
    }
    None
}

/// A line of nginx, HAProxy or Caddy that our file has an equivalent for.
fn directive(code: &str, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    let mut words = code.split_whitespace();
    let first = words.next()?;
    let name = first.trim_end_matches(';');
    let rest = code[first.len()..].trim().trim_end_matches(['{', ';']).trim();
    if code.contains(" = ")
        || (name == code && !matches!(name, "least_conn" | "ip_hash" | "global" | "defaults")) && first == name
    {
        return None;
    }
    let word = rest.split_whitespace().next().unwrap_or("").trim_end_matches(';');
    let shown = |word: &str| if is_bare_key(word) { word.to_owned() } else { "NAME".to_owned() };
    let balance = |word: &str| match foreign::balance(word) {
        Some(ours) => format!("`balance = \"{ours}\"` in [pools.NAME]"),
        None => "`balance` in [pools.NAME], with \"round_robin\", \"random\" or \"least_request\"".to_owned(),
    };
    let check = |key: &str, value: &str| format!("`{key} = {value}` in [pools.NAME.health]");
    let second = rest.split_whitespace().nth(1).unwrap_or("");
    // As they write it, if that is a duration of ours: `5s`, `300ms`.
    let time = |text: &str| match duration(text) {
        Ok(_) => format!("\"{text}\""),
        Err(_) => "\"…\"".to_owned(),
    };
    let client_time = |key: &str, text: &str| format!("`timeouts = {{ {key} = {} }}` in [listeners.NAME]", time(text));
    let upstream_time = |key: &str, text: &str| format!("`timeouts = {{ {key} = {} }}` in [pools.NAME]", time(text));
    let expected = match name {
        "server" | "reverse_proxy" | "server-template" => match entries(code) {
            Some(entries) => format!("`upstreams = [{entries}]` in [pools.NAME]"),
            None => {
                "[listeners.NAME] for where to listen, `upstreams` in [pools.NAME] for where requests go".to_owned()
            }
        },
        "listen" | "bind" => {
            let port = word.parse::<u16>().map_or(word.replace('*', "0.0.0.0"), |port| format!("0.0.0.0:{port}"));
            let port = if port.starts_with(':') { format!("0.0.0.0{port}") } else { port };
            let address = listen_argument(&port).map_or("ip:port".to_owned(), |address| address.to_string());
            format!("[listeners.NAME] and below it `address = \"{address}\"`")
        }
        "frontend" => format!("[listeners.{}] and below it `address = \"ip:port\"`", shown(word)),
        "backend" | "upstream" => format!("[pools.{}] and below it `upstreams = [\"ip:port\"]`", shown(word)),
        "proxy_pass" | "default_backend" | "use_backend" => {
            let target = word.rsplit('/').next().unwrap_or("");
            format!("`pool = \"{}\"` in [listeners.NAME] or [[routes]]", shown(target))
        }
        "location" | "handle" | "route" => "[[routes]] and below it `path = \"/…\"` and `pool = \"NAME\"`".to_owned(),
        "server_name" | "acl" => "`host` or `path` in [[routes]]".to_owned(),
        "balance" | "lb_policy" => balance(word),
        "least_conn" => balance(name),
        "ip_hash" => "`balance = \"hash\"` in [pools.NAME]".to_owned(),
        "option" if word.starts_with("httpchk") => {
            let path = rest.split_whitespace().find(|word| word.starts_with('/')).unwrap_or("/");
            format!("`type = \"http\"` and `path = {path:?}` in [pools.NAME.health]")
        }
        "http-check" | "tcp-check" => "`expect` in [pools.NAME.health]".to_owned(),
        "default-server" => "`interval`, `rise` and `fall` in [pools.NAME.health]".to_owned(),
        "health_check" | "check" => "[pools.NAME.health]".to_owned(),
        _ if name.starts_with("health_") => match foreign::key("Health", name) {
            Some(meant) => match meant.key {
                Some(key) => check(key, &value_of(key, rest).unwrap_or_else(|| "…".to_owned())),
                None => format!("{} in [pools.NAME.health]", meant.instead),
            },
            None => "a key of [pools.NAME.health]".to_owned(),
        },
        "include" | "import" => "everything in one file".to_owned(),
        "global" | "defaults" | "events" | "http" | "stream" => {
            "[runtime], [listeners.NAME], [[routes]] and [pools.NAME]".to_owned()
        }
        "worker_processes" | "nbthread" => "`threads` in [runtime]".to_owned(),
        "client_header_timeout" => client_time("header", word),
        "keepalive_timeout" => client_time("keep_alive", word),
        "client_body_timeout" | "send_timeout" => client_time("body_idle", word),
        "proxy_connect_timeout" => upstream_time("connect", word),
        "proxy_read_timeout" => upstream_time("first_byte", word),
        "proxy_send_timeout" => upstream_time("idle", word),
        "timeout" => match word {
            "connect" => upstream_time("connect", second),
            "server" => upstream_time("first_byte", second),
            "tunnel" => upstream_time("tunnel_idle", second),
            "http-request" => client_time("header", second),
            "http-keep-alive" => client_time("keep_alive", second),
            "client" => client_time("body_idle", second),
            "check" => check("timeout", &time(second)),
            _ => return None,
        },
        "retries" | "proxy_next_upstream_tries" => "`retry = { retries = 1 }` in [pools.NAME]".to_owned(),
        "large_client_header_buffers" | "client_header_buffer_size" => {
            "`limits = { header_bytes = \"32KiB\" }` in [listeners.NAME]".to_owned()
        }
        "keepalive" => "`connections = { idle_per_upstream = 128 }` in [pools.NAME]".to_owned(),
        "maxconn" | "zone" | "proxy_set_header" | "worker_connections" | "option" | "stats" | "errorfile" => {
            "no such line: this version has no such setting".to_owned()
        }
        "log" | "access_log" | "error_log" => "`--log-format` and `--log-level` on the command line".to_owned(),
        _ => return None,
    };
    Some(found("this is a line of another program; a configuration is TOML").expected(expected))
}

/// A brace that begins or ends a block.
fn block(code: &str, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    let expected = match code {
        "{" | "}" | "};" | "}," | "{}" | "}}" | "}]" | "]," | "])" => {
            "tables in brackets: [pools.NAME] and keys below it"
        }
        _ if code.ends_with('{') && !code.contains('=') => {
            "a table in brackets, such as [pools.NAME], and keys below it"
        }
        _ => return None,
    };
    Some(found("a block in braces; a configuration is TOML").expected(expected))
}

/// A character that an editor does not show.
fn invisible(text: &str, line: &Range<usize>) -> Option<Found> {
    let code = &text[line.clone()];
    let unseen = |c: char| matches!(c, '\u{a0}' | '\u{ad}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}' | '\u{3000}' | '\u{feff}');
    let (at, c) = code.char_indices().find(|(_, c)| unseen(*c))?;
    let at = line.start + at;
    let name = match c {
        '\u{a0}' | '\u{202f}' => "a no-break space",
        '\u{feff}' => "a byte order mark",
        '\u{3000}' => "a wide space",
        _ => "an invisible character",
    };
    let message = format!("{name} (U+{:04X}) in the key", u32::from(c));
    Some(Found::syntax(Some(at..at + c.len_utf8()), message).expected("an ordinary space, or none"))
}

/// `key value`, or a key alone.
fn without_equals(code: &str, section: &Section, message: &str, found: &dyn Fn(&str) -> Found) -> Option<Found> {
    if !message.starts_with("key with no value") && !message.starts_with("invalid unquoted key") {
        return None;
    }
    let (key, rest) = code.split_once(char::is_whitespace).map_or((code, ""), |(key, rest)| (key, rest.trim()));
    let key = key.trim_end_matches(';');
    if !is_bare_key(key) {
        return None;
    }
    let bare = found("no `=` between a key and its value");
    if rest.is_empty() {
        return Some(found("a key without `=` and a value").expected("key = value"));
    }
    match rest.split_whitespace().count() == 1 || parses(rest).is_some() {
        true => Some(key_and_value(key, rest, section, bare)),
        false => Some(bare.expected("key = value, with texts in quotes")),
    }
}
