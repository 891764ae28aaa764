//! Which process answers: its number, its configuration file and its listeners on one line, so that nobody takes the
//! answer of another process on the same admin address for that of theirs. For people at a terminal only: a program that
//! reads the output gets the answer and nothing else.

use std::io::{self, IsTerminal};

use http::StatusCode;

use super::Failure;
use super::client::{self, Ask};
use super::locate::Target;
use super::text::{Colour, Paint, one_line};
use crate::admin::json::{ListenerInfo, ProcessReply};

/// Listeners on the line.
const LISTENERS_MAX: usize = 3;

/// The line, to be printed above an answer. Empty if stdout is not a terminal, and if the process is of a version without
/// this request.
///
/// # Errors
/// The process cannot be reached, or refuses the request.
pub async fn line(target: &Target) -> Result<String, Failure> {
    if !io::stdout().is_terminal() {
        return Ok(String::new());
    }
    let answer = client::ask(target, Ask::get("/api/v1/process")).await;
    let answer = answer.map_err(|error| Failure::Runtime(error.to_string()))?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(String::new());
    }
    let reply: ProcessReply = answer.json(&[StatusCode::OK])?;
    Ok(Paint::for_stdout().text(Some(Colour::Dim), &process(&reply)) + "\n")
}

/// [`line`], for code that is not async.
pub fn line_now(target: &Target) -> Result<String, Failure> {
    client::runtime()?.block_on(line(target))
}

/// `process 4242 of roundsman.toml, listens on 127.0.0.1:8080`.
fn process(reply: &ProcessReply) -> String {
    let file =
        reply.file.as_deref().map_or_else(|| "run without a file".to_owned(), |file| format!("of {}", one_line(file)));
    format!("process {} {file}{}", reply.pid, listens(&reply.listeners))
}

/// `, listens on 127.0.0.1:8080, 127.0.0.1:8443 and 2 more`; empty without listeners.
pub fn listens(listeners: &[ListenerInfo]) -> String {
    if listeners.is_empty() {
        return String::new();
    }
    let some: Vec<String> = listeners.iter().take(LISTENERS_MAX).map(|listener| one_line(&listener.address)).collect();
    let more = match listeners.len().saturating_sub(LISTENERS_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(", listens on {}{more}", some.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::json::ProcessState;

    #[test]
    fn a_process_is_named_by_its_number_file_and_listeners() {
        for (file, listeners, want) in [
            (Some("roundsman.toml"), 1, "process 4242 of roundsman.toml, listens on 127.0.0.1:8081"),
            (Some("a\n\u{1b}[2J"), 0, "process 4242 of a\\n\\u{1b}[2J"),
            (None, 3, "process 4242 run without a file, listens on 127.0.0.1:8081, 127.0.0.1:8082, 127.0.0.1:8083"),
            (
                None,
                10_000,
                "process 4242 run without a file, listens on 127.0.0.1:8081, 127.0.0.1:8082, 127.0.0.1:8083 and 9997 more",
            ),
        ] {
            let listener =
                |port| ListenerInfo { name: format!("l{port}"), address: format!("127.0.0.1:{}", 8_080 + port) };
            let reply = ProcessReply {
                version: "0.1.0".into(),
                pid: 4_242,
                state: ProcessState::Running,
                file: file.map(str::to_owned),
                listeners: (1..=listeners).map(listener).collect(),
            };
            assert_eq!(process(&reply), want);
        }
    }
}
