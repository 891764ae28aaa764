//! `roundsman demo`: three backends on the loopback, a real roundsman in front of them as a process of its own, steady
//! traffic, and a short story of failures with figures at its end.
//!
//! Nothing is pretended: the backends' sockets are really reset, the proxy is this very binary with a configuration file,
//! and every figure is measured. Must never be needed by anything else.

mod backend;
mod duty;
mod keys;
mod output;
mod proxy;
mod stage;
mod story;
mod traffic;

use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

/// How to play.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoOptions {
    /// Play the story and exit even on a terminal, where keys would be taken.
    pub script: bool,
    /// Print the generated configuration first.
    pub show_config: bool,
}

/// Why a demo ended before its figures.
#[derive(Debug)]
enum Ended {
    /// Nobody reads what it prints any more.
    OutputClosed,
    /// This went wrong.
    Problem(String),
}

impl From<String> for Ended {
    fn from(problem: String) -> Ended {
        Ended::Problem(problem)
    }
}

/// Plays the demo. Success only if no request failed that should not have and every figure was measured.
pub fn run(options: DemoOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let terminal = keys::ours() && std::io::stdout().is_terminal();
    let played = runtime.block_on(async {
        tokio::select! {
            played = story::play(options, terminal && !options.script) => played,
            // What plays is dropped, and with it the proxy's process and the terminal's mode.
            signal = interrupted() => Err(Ended::Problem(format!("ended by {signal}"))),
        }
    });
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // `roundsman demo | head` is no failure.
        Err(Ended::OutputClosed) => ExitCode::SUCCESS,
        Err(Ended::Problem(problem)) => fail(&problem),
    }
}

fn fail(problem: &str) -> ExitCode {
    // Standard error may be gone as well.
    let _ = writeln!(std::io::stderr(), "roundsman demo: {problem}");
    ExitCode::FAILURE
}

/// Completes when a signal asks for the end.
async fn interrupted() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
    let [Ok(mut int), Ok(mut term), Ok(mut hup), Ok(mut quit)] = kinds.map(signal) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => "SIGINT",
        _ = term.recv() => "SIGTERM",
        _ = hup.recv() => "SIGHUP",
        _ = quit.recv() => "SIGQUIT",
    }
}
