//! A log line for people, in the order of `roundsman events`: pool and upstream, what happened, why, and then the other
//! fields. Several mistakes of a configuration are one indented line each.
//!
//! Text from upstreams and clients is escaped, so that it cannot move the cursor or begin a line.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::Level;

use super::Line;

/// Fields with their own place in the line.
const PLACED: [&str; 9] = ["pool", "upstream", "from", "to", "code", "reason", "next", "healthy_left", "error"];
/// Left out of a change of health, whose reason already has the duration of the probe.
const DURATION: &str = "duration_ms";

/// Writes the line with its newline.
pub fn write(line: &Line, to: &mut impl fmt::Write, colour: bool) -> fmt::Result {
    let paint = |code: &'static str| if colour { code } else { "" };
    let (bold, dim, reset) = (paint("\x1b[1m"), paint("\x1b[2m"), paint("\x1b[0m"));
    let level = paint(match line.level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    });
    write!(to, "{dim}{}{reset} ", line.time.strftime("%Y-%m-%d %H:%M:%S%.3fZ"))?;
    write!(to, "{level}{:<5}{reset} ", line.level.as_str())?;
    let subject = [text(line, "pool"), text(line, "upstream")].into_iter().flatten().collect::<Vec<_>>();
    for (index, name) in subject.iter().enumerate() {
        let end = if index + 1 == subject.len() { "  " } else { " " };
        write!(to, "{}{end}", Visible(name))?;
    }
    let change = match (text(line, "from"), text(line, "to")) {
        (Some(from), Some(state)) => Some(format!("{} → {}", Visible(from), state_in_colour(state, colour))),
        (None, Some(state)) => Some(format!("now {}", state_in_colour(state, colour))),
        (_, None) => None,
    };
    let is_change = text(line, "from").is_some() && change.is_some();
    match change {
        Some(change) => to.write_str(&change)?,
        None => write!(to, "{bold}{}{reset}", Visible(without_subject(line)))?,
    }
    let why = [text(line, "code"), text(line, "reason")].into_iter().flatten().collect::<Vec<_>>().join(" ");
    if !why.is_empty() {
        write!(to, "{}{}", if is_change { "  " } else { ": " }, Visible(&why))?;
    }
    if let Some(next) = text(line, "next") {
        write!(to, "; {}", Visible(next))?;
    }
    if let Some(left) = field(line, "healthy_left") {
        write!(to, "  ({left} healthy)")?;
    }
    let mistakes: Vec<&str> = text(line, "error").map(|error| error.lines().collect()).unwrap_or_default();
    match mistakes.as_slice() {
        [] => {}
        [only] => write!(to, ": {}", Visible(only))?,
        several => write!(to, ": {} mistakes", several.len())?,
    }
    write_others(line, is_change, to, dim, reset)?;
    if mistakes.len() > 1 {
        for mistake in mistakes {
            write!(to, "\n    {}", Visible(mistake))?;
        }
    }
    writeln!(to)
}

/// The message without its first word if the line has named that already: "Pool refuses requests" becomes
/// `api  refuses requests`.
fn without_subject(line: &Line) -> &str {
    let named = match (text(line, "pool"), text(line, "upstream")) {
        (_, Some(_)) => "Upstream ",
        (Some(_), None) => "Pool ",
        (None, None) => return &line.message,
    };
    line.message.strip_prefix(named).unwrap_or(&line.message)
}

/// Writes the other fields as `name=value`.
fn write_others(line: &Line, is_change: bool, to: &mut impl fmt::Write, dim: &str, reset: &str) -> fmt::Result {
    let mut gap = "  ";
    for (name, value) in &line.fields {
        let placed = PLACED.contains(name) && (value.is_string() || *name == "healthy_left");
        if value == "" || placed || (is_change && *name == DURATION) {
            continue;
        }
        write!(to, "{gap}{dim}{name}={reset}")?;
        match value {
            Value::String(text) => write!(to, "{}", Word(text))?,
            other => write!(to, "{other}")?,
        }
        gap = " ";
    }
    Ok(())
}

fn field<'l>(line: &'l Line, name: &str) -> Option<&'l Value> {
    line.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
}

/// A text field that is not empty.
fn text<'l>(line: &'l Line, name: &str) -> Option<&'l str> {
    field(line, name)?.as_str().filter(|text| !text.is_empty())
}

fn state_in_colour(state: &str, colour: bool) -> String {
    let code = match state {
        "healthy" | "enabled" => "\x1b[32m",
        "unhealthy" | "disabled" => "\x1b[31m",
        _ => "\x1b[33m",
    };
    if colour { format!("{code}{}\x1b[0m", Visible(state)) } else { Visible(state).to_string() }
}

/// A text as one word: quoted if it is empty or contains spaces, quotes, an equals sign or a backslash.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
        if !self.0.is_empty() && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c => write!(f, "{}", Visible(c.encode_utf8(&mut [0; 4])))?,
            }
        }
        f.write_char('"')
    }
}

/// A text with its control characters escaped, so that it cannot move the cursor or begin a line.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(level: Level, message: &str, fields: Vec<(&'static str, Value)>) -> String {
        let line = Line { level, message: message.to_owned(), fields, ..Line::default() };
        let mut out = String::new();
        write(&line, &mut out, false).expect("a String takes everything");
        out
    }

    #[test]
    fn lines_look_like_events() {
        let subject = || vec![("pool", json!("api")), ("upstream", json!("10.0.0.1:80"))];
        let with = |more: Vec<(&'static str, Value)>| [subject(), more].concat();
        let change = with(vec![
            ("from", json!("healthy")),
            ("to", json!("unhealthy")),
            ("code", json!("L4CON")),
            ("reason", json!("connect: refused\n")),
            ("hint", json!("")),
            ("duration_ms", json!(0.4)),
            ("healthy_left", json!(2)),
        ]);
        let refused = |error: &str| vec![("generation", json!(3)), ("error", json!(error))];
        for (message, fields, want) in [
            (
                "Health changed",
                change,
                "api 10.0.0.1:80  healthy → unhealthy  L4CON connect: refused\\n  (2 healthy)\n",
            ),
            (
                "Admin state changed",
                with(vec![("to", json!("draining")), ("reason", json!("upgrade"))]),
                "api 10.0.0.1:80  now draining: upgrade\n",
            ),
            (
                "Pool refuses requests",
                vec![("pool", json!("api")), ("reason", json!("none is healthy")), ("next", json!("wait"))],
                "api  refuses requests: none is healthy; wait\n",
            ),
            ("Upstream added", subject(), "api 10.0.0.1:80  added\n"),
            ("Pool added", vec![], "Pool added\n"),
            (
                "Configuration refused; nothing changed",
                refused("a.toml:3: bad"),
                "Configuration refused; nothing changed: a.toml:3: bad  generation=3\n",
            ),
            (
                "Configuration refused; nothing changed",
                refused("a.toml:3: bad\nb.toml:9: \x1b[2Jworse"),
                "Configuration refused; nothing changed: 2 mistakes  generation=3\n    a.toml:3: bad\n    \
                 b.toml:9: \\u{1b}[2Jworse\n",
            ),
            (
                "Started",
                vec![("pid", json!(7)), ("listeners", json!("web=127.0.0.1:80 b=[::1]:80")), ("to", json!(5))],
                "Started  pid=7 listeners=\"web=127.0.0.1:80 b=[::1]:80\" to=5\n",
            ),
            ("Stopped", vec![], "Stopped\n"),
        ] {
            let line = shown(Level::WARN, message, fields);
            assert_eq!(line.strip_prefix("1970-01-01 00:00:00.000Z WARN  "), Some(want), "{line}");
        }
    }
}
