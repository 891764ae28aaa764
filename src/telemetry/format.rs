//! The format of a log line. Human, as `roundsman events` prints it ([`human`]): `2026-11-21 10:00:00.123Z WARN  api
//! 10.0.0.1:80  healthy → unhealthy  L4CON refused  (2 healthy)`. JSON: one flat object per line.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::model::date;

mod human;

/// The field with the whole line for people; not in JSON.
const SENTENCE: &str = "sentence";

/// The format of log lines, with or without colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// For people.
    Human {
        /// With colours.
        colour: bool,
    },
    /// For machines.
    Json,
}

impl<S, N> FormatEvent<S, N> for Look
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut line = Line { time: now(), level: *metadata.level(), ..Line::default() };
        event.record(&mut line);
        if !metadata.target().starts_with("roundsman") {
            line.fields.push(("target", Value::from(metadata.target())));
        }
        match self {
            Look::Human { colour } => human::write(&line, &mut writer, *colour),
            Look::Json => line.write_json(&mut writer),
        }
    }
}

/// A line of level `error` with this message and these fields; null fields are left out.
pub(super) fn error_line(look: Look, message: &str, fields: Vec<(&'static str, Value)>) -> String {
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let line = Line { time: now(), level: Level::ERROR, message: message.to_owned(), fields };
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = match look {
        Look::Human { colour } => human::write(&line, &mut text, colour),
        Look::Json => line.write_json(&mut text),
    };
    text
}

/// The system's clock, as a time since the beginning of 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time, level, message and fields of an event.
struct Line {
    /// Since the beginning of 1970.
    time: Duration,
    level: Level,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Default for Line {
    fn default() -> Line {
        Line { time: Duration::ZERO, level: Level::INFO, message: String::new(), fields: Vec::new() }
    }
}

impl Line {
    fn write_json(self, to: &mut impl fmt::Write) -> fmt::Result {
        let mut object = Map::new();
        object.insert("time".into(), date::with_millis(self.time).into());
        object.insert("level".into(), self.level.as_str().to_ascii_lowercase().into());
        object.insert("message".into(), self.message.into());
        for (name, value) in self.fields {
            match value.as_str().filter(|text| name == "error" && text.contains('\n')) {
                _ if name == SENTENCE => {}
                Some(several) => drop(object.insert("errors".into(), several.lines().collect())),
                None => drop(object.entry(name).or_insert(value)),
            }
        }
        writeln!(to, "{}", Value::Object(object))
    }

    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            // The source of a record of the `log` crate is in its metadata.
            (name, _) if name.starts_with("log.") => {}
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    /// Floats are durations and shares; three decimals are enough.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::from((value * 1e3).round() / 1e3));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::from(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// The text of an event.
    fn shown(look: Look, log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let to = kept.clone();
        let subscriber = tracing_subscriber::fmt().event_format(look).with_writer(move || to.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = kept.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn health_changed() {
        let upstream: std::net::SocketAddr = "127.0.0.1:9001".parse().unwrap();
        let reason = "200 in 1.9 ms";
        tracing::info!(pool = "api", %upstream, ms = 0.073_819_000_1, code = %"L7OK", reason, hint = "", "Health changed");
    }

    #[test]
    fn a_human_line_looks_like_an_event_and_its_date_has_a_zone() {
        let line = shown(Look::Human { colour: false }, health_changed);
        let (time, rest) = line.split_at(25);
        let date = time.trim_end().replacen(' ', "T", 1);
        assert!(humantime::parse_rfc3339(&date).is_ok() && time.ends_with("Z "), "{time:?}");
        assert_eq!(rest, "INFO  api 127.0.0.1:9001  Health changed: L7OK 200 in 1.9 ms  ms=0.074\n");
    }

    #[test]
    fn the_reason_why_a_process_does_not_start_looks_like_a_log_line() {
        let fields = || vec![("reason", Value::from("in use\x1b[2J")), ("file", Value::Null)];
        let line = error_line(Look::Human { colour: false }, "Cannot start", fields());
        assert_eq!(line.get(23..), Some("Z ERROR Cannot start: in use\\u{1b}[2J\n"), "{line}");
        let line = error_line(Look::Json, "Cannot start", fields());
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["level"], &value["reason"]), (&"error".into(), &"in use\x1b[2J".into()));
        assert_eq!(value.get("file"), None);
    }

    #[test]
    fn a_json_line_is_one_flat_object_with_numbers_as_numbers() {
        let line = shown(Look::Json, health_changed);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["level"], &value["message"]), (&"info".into(), &"Health changed".into()));
        assert_eq!((&value["upstream"], &value["ms"]), (&"127.0.0.1:9001".into(), &0.074.into()));
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn the_sentence_of_an_event_is_for_people_and_several_mistakes_are_a_list_in_json() {
        let (error, sentence) = ("a.toml:3: bad\nb.toml:9: worse", "Reload refused: 2 mistakes\n    a.toml:3: bad");
        let log = || tracing::error!(generation = 3, error, sentence, "Configuration refused; nothing changed");
        let value: Value = serde_json::from_str(&shown(Look::Json, log)).unwrap();
        assert_eq!(value["errors"], serde_json::json!(["a.toml:3: bad", "b.toml:9: worse"]));
        assert!(value.get("error").is_none() && value.get("sentence").is_none(), "{value}");
        let one = || tracing::error!(error = "a.toml:3: bad", sentence, "Configuration refused; nothing changed");
        let value: Value = serde_json::from_str(&shown(Look::Json, one)).unwrap();
        assert_eq!((&value["error"], value.get("errors")), (&"a.toml:3: bad".into(), None));
        let people = shown(Look::Human { colour: false }, log);
        assert!(people.ends_with(" ERROR Reload refused: 2 mistakes\n    a.toml:3: bad\n"), "{people}");
    }

    #[test]
    fn text_from_an_upstream_cannot_forge_a_line_or_move_the_cursor() {
        let log = || tracing::warn!(reason = "a\n2026 INFO  Forged\x1b[2J\"", "x\ny");
        for look in [Look::Human { colour: false }, Look::Json] {
            let line = shown(look, log);
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains('\x1b'), "{line:?}");
        }
        let human = shown(Look::Human { colour: false }, log);
        assert!(human.contains(r#"x\ny: a\n2026 INFO  Forged\u{1b}[2J""#), "{human}");
    }

    #[test]
    fn lines_are_coloured_only_on_request() {
        assert!(!shown(Look::Human { colour: false }, health_changed).contains('\x1b'));
        assert!(shown(Look::Human { colour: true }, health_changed).contains("\x1b[32mINFO \x1b[0m"));
    }
}
