//! A log line for people. Of an event it is the sentence that `roundsman events` prints too, with a hint if there is one.
//! Of anything else: pool and upstream, the message, the reason, and then the other fields.
//!
//! Text from upstreams and clients is escaped, so that it cannot move the cursor or begin a line.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::Level;

use super::{Line, SENTENCE};
use crate::model::date;
use crate::model::quote::Visible;

/// Fields with their own place in the line.
const PLACED: [&str; 5] = ["pool", "upstream", "code", "reason", "error"];
/// What may not be in the sentence of an event, because it is found later.
const HINT: &str = "hint";

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
    write!(to, "{dim}{}{reset} ", date::with_millis(line.time).replacen('T', " ", 1))?;
    write!(to, "{level}{:<5}{reset} ", line.level.as_str())?;
    if let Some(sentence) = text(line, SENTENCE) {
        write_sentence(line, sentence, to, colour)?;
        let in_sentence = text(line, HINT).is_some_and(|hint| sentence.contains(&Visible(hint).to_string()));
        write_others(line, |name| name == HINT && !in_sentence, to, dim, reset)?;
        return writeln!(to);
    }
    let subject = [text(line, "pool"), text(line, "upstream")].into_iter().flatten().collect::<Vec<_>>();
    for (index, name) in subject.iter().enumerate() {
        let end = if index + 1 == subject.len() { "  " } else { " " };
        write!(to, "{}{end}", Visible(name))?;
    }
    write!(to, "{bold}{}{reset}", Visible(without_subject(line)))?;
    let why = [text(line, "code"), text(line, "reason")].into_iter().flatten().collect::<Vec<_>>().join(" ");
    for text in [Some(why.as_str()).filter(|why| !why.is_empty()), text(line, "error")].into_iter().flatten() {
        write!(to, ": {}", Visible(text))?;
    }
    write_others(line, |name| !PLACED.contains(&name), to, dim, reset)?;
    writeln!(to)
}

/// Writes the sentence of an event, whose parts are escaped already. In colour, the new state or what happened stands out.
fn write_sentence(line: &Line, sentence: &str, to: &mut impl fmt::Write, colour: bool) -> fmt::Result {
    if !colour {
        return to.write_str(sentence);
    }
    if let Some(state) = text(line, "to") {
        // In front of it is an arrow, or "now".
        let places = [format!("→ {state}"), format!("now {state}")];
        if let Some(place) = places.iter().find(|place| sentence.contains(place.as_str())) {
            let painted = place.replace(state, &in_colour(state));
            return to.write_str(&sentence.replacen(place.as_str(), &painted, 1));
        }
    }
    let subject = if text(line, "pool").is_some() { sentence.find("  ").map_or(0, |at| at + 2) } else { 0 };
    let (subject, rest) = sentence.split_at(subject);
    let end = [": ", ", ", " (", "\n"].into_iter().filter_map(|mark| rest.find(mark)).min().unwrap_or(rest.len());
    let (what, rest) = rest.split_at(end);
    write!(to, "{subject}\x1b[1m{what}\x1b[0m{rest}")
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

/// Writes the fields of these names as `name=value`.
fn write_others(
    line: &Line,
    of: impl Fn(&str) -> bool,
    to: &mut impl fmt::Write,
    dim: &str,
    reset: &str,
) -> fmt::Result {
    let mut gap = "  ";
    for (name, value) in line.fields.iter().filter(|(name, value)| value != "" && of(name)) {
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

fn in_colour(state: &str) -> String {
    let code = match state {
        "healthy" | "enabled" => "\x1b[32m",
        "unhealthy" | "disabled" => "\x1b[31m",
        _ => "\x1b[33m",
    };
    format!("{code}{state}\x1b[0m")
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
    fn an_event_is_its_sentence_and_other_lines_have_their_fields() {
        let subject = || vec![("pool", json!("api")), ("upstream", json!("10.0.0.1:80"))];
        let with = |more: Vec<(&'static str, Value)>| [subject(), more].concat();
        let sentence = "api 10.0.0.1:80  healthy → unhealthy  L4CON refused  (2 healthy)";
        let change = |hint: &str| {
            with(vec![
                ("to", json!("unhealthy")),
                ("hint", json!(hint)),
                ("left", json!(2)),
                ("sentence", json!(sentence)),
            ])
        };
        for (message, fields, want) in [
            ("Health changed", change(""), format!("{sentence}\n")),
            ("Health changed", change("reload it"), format!("{sentence}  hint=\"reload it\"\n")),
            ("Health changed", change("L4CON refused"), format!("{sentence}\n")),
            ("Upstream is odd", subject(), "api 10.0.0.1:80  is odd\n".into()),
            ("Pool is odd", vec![], "Pool is odd\n".into()),
            (
                "Answer is malformed",
                with(vec![("code", json!("L7RSP")), ("reason", json!("no\nstatus")), ("not_logged", json!(3))]),
                "api 10.0.0.1:80  Answer is malformed: L7RSP no\\nstatus  not_logged=3\n".into(),
            ),
            ("Address is busy", vec![("error", json!("in use\x1b[2J"))], "Address is busy: in use\\u{1b}[2J\n".into()),
            (
                "Started",
                vec![("pid", json!(7)), ("listeners", json!("web=127.0.0.1:80 b=[::1]:80")), ("to", json!(5))],
                "Started  pid=7 listeners=\"web=127.0.0.1:80 b=[::1]:80\" to=5\n".into(),
            ),
            ("Stopped", vec![], "Stopped\n".into()),
        ] {
            let line = shown(Level::WARN, message, fields);
            assert_eq!(line.strip_prefix("1970-01-01 00:00:00.000Z WARN  "), Some(want.as_str()), "{line}");
        }
    }

    #[test]
    fn colour_changes_nothing_else() {
        for (to, sentence, want) in [
            ("unhealthy", "api a:1  healthy → unhealthy  L4CON  (2 healthy)", "\x1b[31munhealthy\x1b[0m"),
            ("draining", "api a:1  now draining (signal HUP)", "now \x1b[33mdraining\x1b[0m"),
            ("", "api  refuses requests: none; later", "api  \x1b[1mrefuses requests\x1b[0m: none"),
            ("", "api  serves again", "api  \x1b[1mserves again\x1b[0m"),
        ] {
            let fields = vec![("pool", json!("api")), ("to", json!(to)), ("sentence", json!(sentence))];
            let line = Line { fields, ..Line::default() };
            let (mut plain, mut painted) = (String::new(), String::new());
            write(&line, &mut plain, false).expect("a String takes everything");
            write(&line, &mut painted, true).expect("a String takes everything");
            assert!(painted.contains(want), "{painted}");
            let parts = painted.split('\x1b').enumerate();
            let bare: String = parts
                .map(|(part, text)| if part == 0 { text } else { text.split_once('m').expect("an escape").1 })
                .collect();
            assert_eq!(bare, plain);
        }
    }
}
