//! The rules. Takes one file's path and text and returns what is wrong with it; reads no file itself, so that a test
//! can make every rule fail.

use std::collections::BTreeSet;
use std::fmt;

use super::tokens::{Kind, Seen, read};

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// The layers: a module may import its own submodules and modules of lower layers.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli", "demo"],
    &["app"],
    &["admin", "proxy", "probe", "discovery", "metrics", "telemetry"],
    &["tls", "bind"],
    &["exchange"],
    &["pool"],
    &["route", "balance", "health", "config"],
    &["http1"],
    &["model"],
];

/// Imports within a layer, each with its reason.
pub const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("cli", "demo", "`roundsman demo` is one of the commands"),
    ("config", "route", "the look-up of requests decides which routes and pools get none"),
];

/// Modules that only some may import, whatever their layer.
const RESERVED: &[(&str, &[&str])] = &[("config", &["app", "cli"])];

/// Modules that decide and never wait.
const NEVER_WAITS: &[&str] = &["exchange"];

/// The words with which code waits.
const WAITING_WORDS: &[&str] = &["async", "await"];

/// Names that a module must not use, each with the reason.
const FORBIDDEN: &[(&str, &str, &str)] =
    &[("proxy", "AnswerReason", "what a client is answered is decided in `exchange`; a lane passes it on")];

/// Modules that must do no I/O.
const PURE: &[&str] = &["model", "http1", "config", "health", "balance", "route", "exchange", "pool"];

/// Files of pure modules that do, each with its reason. A new file of these modules is pure until it is listed here.
pub const SHELL: &[(&str, &str)] = &[
    ("src/pool/controller.rs", "the async shell around the pure state, and the only writer"),
    ("src/pool/flights.rs", "the probes in flight, which the controller polls"),
    ("src/pool/lines.rs", "it hands the lines of events to the log, in order"),
    ("src/pool/log.rs", "the log lines of events, which the controller writes"),
    ("src/pool/queue.rs", "requests wait on it for their turn"),
    ("src/pool/snapshot.rs", "requests wait on it for a change of their pool"),
    ("src/pool/upstream.rs", "its hints go to the controller through a channel"),
];

/// Crates that do I/O.
const IO_CRATES: &[&str] = &[
    "axum",
    "env_logger",
    "hyper",
    "hyper_util",
    "log",
    "nix",
    "pingora_core",
    "pingora_http",
    "pingora_proxy",
    "socket2",
    "tikv_jemallocator",
    "tracing",
    "tracing_log",
    "tracing_subscriber",
];

/// Paths of `std` that do I/O.
const IO_MODULES: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::SystemTime",
    "fs",
    "env",
    "thread",
    "process",
];

/// Names that mean I/O wherever they come from.
const IO_NAMES: &[&str] = &[
    "JoinSet",
    "OpenOptions",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "spawn",
    "spawn_blocking",
    "spawn_local",
    "stderr",
    "stdin",
    "stdout",
];

const LOGGING_MACROS: &[&str] =
    &["dbg", "debug", "eprint", "eprintln", "error", "info", "print", "println", "trace", "warn"];

/// The top-level module of a source file: `pool` for `src/pool.rs` and all below `src/pool/`. `None` for the root of
/// the library and for files outside `src`.
pub fn top_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let module = inside.split('/').next()?;
    let module = module.strip_suffix(".rs").unwrap_or(module);
    (module != "lib").then_some(module)
}

/// Everything that is wrong with one file.
pub fn check_file(path: &str, text: &str) -> Vec<Finding> {
    check(path, text, is_pure(path))
}

/// Whether a file of [`SHELL`] would be refused if it were not there.
pub fn needs_the_shell(path: &str, text: &str) -> bool {
    check(path, text, true) != check(path, text, false)
}

/// The top-level modules that a file names.
pub fn imported_modules(path: &str, text: &str) -> BTreeSet<String> {
    let seen = read(text, &module_of(path), is_test_file(path)).unwrap_or_default();
    let inside = seen.into_iter().filter(|seen| seen.path[0] == "crate" && seen.path.len() > 1);
    inside.map(|mut seen| seen.path.swap_remove(1)).collect()
}

fn check(path: &str, text: &str, pure: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |line: usize, what: String| findings.push(Finding { file: path.to_owned(), line, what });
    if !text.starts_with("//! ") {
        report(1, "the file does not open with its `//!` head".to_owned());
    }
    let seen = match read(text, &module_of(path), is_test_file(path)) {
        Ok(seen) => seen,
        Err(error) => {
            report(1, format!("the file cannot be read as Rust: {error}"));
            return findings;
        }
    };
    for seen in &seen {
        let name = seen.path.join("::");
        if let Some(problem) = unfinished(seen) {
            report(seen.line, problem);
        }
        if name == "std::time::Instant" {
            report(seen.line, "`std::time::Instant` does not stop with a paused clock; use tokio's".to_owned());
        }
        if let Some(from) = top_module(path) {
            if let Some(problem) = against_the_arrows(from, seen) {
                report(seen.line, problem);
            }
            if !seen.test && NEVER_WAITS.contains(&from) && WAITING_WORDS.contains(&last_of(seen)) {
                report(seen.line, format!("`{from}` waits: `{}`; it gives its lane a step to wait for", last_of(seen)));
            }
            let forbidden =
                FORBIDDEN.iter().find(|(module, word, _)| *module == from && seen.path.iter().any(|part| part == word));
            if let (false, Some((_, word, reason))) = (seen.test, forbidden) {
                report(seen.line, format!("`{from}` uses `{word}`: {reason}"));
            }
            if pure
                && !seen.test
                && let Some(touched) = does_io(seen)
            {
                report(seen.line, format!("pure code {touched}: `{name}`"));
            }
        }
    }
    findings.dedup();
    findings
}

/// The module of a file: `[pool, state]` for `src/pool/state.rs`.
fn module_of(path: &str) -> Vec<String> {
    let Some(inside) = path.strip_prefix("src/").and_then(|p| p.strip_suffix(".rs")) else { return vec![] };
    match inside {
        "lib" | "main" => vec![],
        _ => inside.split('/').map(str::to_owned).collect(),
    }
}

/// Files that are test modules as a whole, by the name that `mod tests;` gives them, and all below them.
fn is_test_file(path: &str) -> bool {
    !path.starts_with("src/") || path.split('/').any(|part| matches!(part, "tests.rs" | "tests"))
}

fn is_pure(path: &str) -> bool {
    top_module(path).is_some_and(|module| PURE.contains(&module)) && !SHELL.iter().any(|(file, _)| *file == path)
}

fn unfinished(seen: &Seen) -> Option<String> {
    let last = seen.path.last()?;
    match seen.kind {
        Kind::Attribute if last == "ignore" => Some("an ignored test is never run".to_owned()),
        Kind::Macro if matches!(last.as_str(), "todo" | "unimplemented") => {
            Some(format!("`{last}!` is unfinished code"))
        }
        Kind::TestModule if !seen.test => Some("`mod tests` is not under `#[cfg(test)]`".to_owned()),
        Kind::Attribute | Kind::Macro | Kind::Path | Kind::Method | Kind::TestModule => None,
    }
}

fn last_of(seen: &Seen) -> &str {
    seen.path.last().map_or("", String::as_str)
}

fn against_the_arrows(from: &str, seen: &Seen) -> Option<String> {
    if !matches!(seen.kind, Kind::Path | Kind::Macro) {
        return None;
    }
    let [root, to, ..] = seen.path.as_slice() else { return None };
    if root != "crate" && root != "roundsman" {
        return None;
    }
    // Every module may use constants at the root, like `VERSION`.
    if to == from || to.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
        return None;
    }
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let (Some(above), Some(below)) = (layer(from), layer(to)) else {
        return Some(format!("`{from}` imports `{to}`, and one of them is in no layer"));
    };
    let reserved = RESERVED.iter().any(|(module, users)| module == to && !users.contains(&from));
    let sideways = SIDEWAYS.iter().any(|(a, b, _)| *a == from && *b == to);
    if (above < below && !reserved) || sideways {
        return None;
    }
    Some(format!("`{from}` imports `{to}` against the arrows: `{}`", seen.path.join("::")))
}

/// What the use of this name would do, if pure code must not do it.
fn does_io(seen: &Seen) -> Option<&'static str> {
    let first = seen.path.first()?.as_str();
    let last = seen.path.last()?.as_str();
    let name = seen.path.join("::");
    match seen.kind {
        Kind::Attribute | Kind::TestModule => return None,
        Kind::Method if last == "elapsed" => return Some("reads a clock"),
        Kind::Method => return last.starts_with("spawn").then_some("spawns"),
        Kind::Macro if LOGGING_MACROS.contains(&last) => return Some("logs or prints"),
        Kind::Macro | Kind::Path => {}
    }
    if seen.path.len() > 1 && last == "now" {
        return Some("reads a clock");
    }
    if first == "tokio" && name != "tokio::time::Instant" && name != "tokio::time::Instant::now" {
        return Some("uses the runtime");
    }
    if first == "fastrand" && !matches!(name.as_str(), "fastrand::Rng" | "fastrand::Rng::with_seed") {
        return Some("draws random numbers");
    }
    let beneath = |module: &&str| name == **module || name.starts_with(&format!("{module}::"));
    let is_io_module = IO_MODULES.iter().any(|module| beneath(module) && (module.contains("::") || name != **module));
    let is_io = IO_CRATES.contains(&first) && seen.path.len() > 1
        || is_io_module
        || IO_NAMES.iter().any(|name| seen.path.iter().any(|part| part == name));
    is_io.then_some("does I/O")
}

#[cfg(test)]
mod tests;
