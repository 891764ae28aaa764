//! A whole file in another language: one message at its beginning helps more than one per line.

use serde_json::Value as Json;

use crate::config::report::Found;

/// How many lines are examined.
const LINES_MAX: usize = 400;

/// The language of a file that has hardly a line of TOML, if it is recognised.
pub fn other_format(text: &str) -> Option<Found> {
    let has_code = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']) && !line.starts_with("//");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(has_code).take(LINES_MAX).collect();
    let first = *lines.first()?;
    if serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok() || serde_json::from_str::<Vec<Json>>(text).is_ok() {
        return found(text, first, "JSON", TABLES);
    }
    let share = |is: fn(&str) -> bool| lines.iter().filter(|line| is(line)).count();
    if lines.len() < 2 || share(is_toml) * 5 > lines.len() {
        return None;
    }
    let word = first.split_whitespace().next().unwrap_or("");
    let most = |is: fn(&str) -> bool| share(is) * 2 > lines.len();
    let (name, expected) = match () {
        () if first.starts_with('{') || (first.starts_with('[') && most(is_json)) => ("JSON", TABLES),
        () if most(is_yaml) => ("YAML", TABLES),
        () if first.contains('{') && (NGINX.contains(&word) || lines.iter().any(|line| ends_statement(line))) => {
            ("a configuration of nginx", FIRST_TABLES)
        }
        () if first.ends_with('{') => ("a configuration of another program, such as Caddy", FIRST_TABLES),
        () if HAPROXY.contains(&word) => ("a configuration of HAProxy", FIRST_TABLES),
        () if most(|line| line.ends_with(';') || line.ends_with('{') || line == "}") => {
            ("a configuration of nginx", FIRST_TABLES)
        }
        () => return None,
    };
    found(text, first, name, expected)
}

fn found(text: &str, first: &str, name: &str, expected: &str) -> Option<Found> {
    let at = text.find(first)?;
    Some(Found::syntax(Some(at..at + first.len()), format!("the file is {name}, not TOML")).expected(expected))
}

const TABLES: &str = "TOML: [pools.NAME] in place of nested keys, key = value, upstreams = [\"ip:port\"]";
/// What a file begins with.
pub const FIRST_TABLES: &str =
    "[listeners.NAME] with address = \"ip:port\" and pool = \"NAME\", [pools.NAME] with upstreams = [\"ip:port\"]";
/// The blocks that a file of nginx begins with.
const NGINX: [&str; 5] = ["http", "events", "stream", "upstream", "server"];
/// The sections of HAProxy.
const HAPROXY: [&str; 9] =
    ["global", "defaults", "frontend", "backend", "listen", "resolvers", "userlist", "peers", "cache"];

/// `server 10.0.0.1:80;`, also as the last one of a block: `upstream a { server 10.0.0.1:80; }`.
fn ends_statement(line: &str) -> bool {
    line.trim_end_matches(['}', ' ']).ends_with(';')
}

fn is_toml(line: &str) -> bool {
    let header = line.starts_with('[') && line.contains(']');
    let key = line.split_once('=').is_some_and(|(key, value)| {
        let key = key.trim_end();
        !value.starts_with(['=', '>']) && !key.is_empty() && !key.contains([' ', ':', '{', '(']) && !line.ends_with(';')
    });
    header || key
}

fn is_yaml(line: &str) -> bool {
    let key = line.strip_prefix("- ").unwrap_or(line);
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"');
    let pair = key.split_once(':').is_some_and(|(key, rest)| {
        key.chars().all(word) && (rest.is_empty() || rest.starts_with(' ')) && !line.ends_with(['{', ';'])
    });
    pair || line.starts_with("- ") || line == "---"
}

fn is_json(line: &str) -> bool {
    line.starts_with(['{', '}', '[', ']', '"'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_language_is_recognised_and_toml_with_mistakes_is_not() {
        for (text, language) in [
            ("pools:\n  api:\n    upstreams:\n      - 10.0.0.1:80\n", Some("YAML")),
            ("---\nlisteners:\n  web: { address: \"x\" }\n", Some("YAML")),
            ("{\n  \"pools\": {}\n}\n", Some("JSON")),
            ("[{\"a\":1}]", Some("JSON")),
            ("{\"pools\": {\"a\": {}}}\n", Some("JSON")),
            ("[\"a\"]\nx\n", None),
            ("# x\nupstream a {\n  server 10.0.0.1:80;\n}\n", Some("nginx")),
            ("http { upstream app {\n server 10.0.0.1:80; }\n}\n", Some("nginx")),
            ("http {\n  upstream app { server 10.0.0.1:80; }\n}\n", Some("nginx")),
            ("http {\n  upstream app {\n    zone a 64k\n  }\n}\n", Some("nginx")),
            ("frontend web\n  bind *:80\n  default_backend b\n", Some("HAProxy")),
            (":80 {\n  reverse_proxy 10.0.0.1:80\n}\n", Some("Caddy")),
            ("[pools.a]\nupstreams: [\"10.0.0.1:80\"]\n", None),
            ("pools.a = 1\nserver 10.0.0.1:80;\nserver 10.0.0.2:80;\n", None),
            ("hello\nworld\n", None),
            ("a: b\n", None),
        ] {
            let found = other_format(text).map(|found| format!("{found:?}"));
            assert_eq!(found.is_some(), language.is_some(), "{text}: {found:?}");
            assert!(found.unwrap_or_default().contains(language.unwrap_or("")), "{text}");
        }
    }
}
