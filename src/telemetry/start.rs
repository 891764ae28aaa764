//! Reports why the process does not start, in the format of the log but whatever its level: a supervisor reads both
//! from one stream.

use std::io::Write as _;
use std::sync::OnceLock;

use serde_json::Value;

use super::format::{Look, error_line};
use super::writer;

static LOOK: OnceLock<Look> = OnceLock::new();

/// Stores the format of log lines.
pub(super) fn note(look: Look) {
    // Logs are set up once.
    let _ = LOOK.set(look);
}

/// Whether log lines are JSON.
pub fn is_json() -> bool {
    LOOK.get() == Some(&Look::Json)
}

/// Writes one line of level `error` to stderr, as the log's other lines look and after all of them. It bypasses the filter,
/// because the reason why the process does not start must be visible at every level. Null fields are left out.
pub fn not_started(message: &str, fields: Vec<(&'static str, Value)>) {
    writer::flush();
    let look = LOOK.get().copied().unwrap_or(Look::Human { colour: false });
    // `eprint!` panics if stderr is closed.
    let _ = std::io::stderr().write_all(error_line(look, message, fields).as_bytes());
}
