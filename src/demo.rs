//! `roundsman demo`: three backends on the loopback, a real roundsman in front of them as a separate process, steady
//! traffic, and a scripted series of failures with figures at the end.
//!
//! Nothing is simulated: the sockets of backends are reset, the proxy is this binary with a configuration file, and
//! every figure is measured. No other module may depend on it.

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

/// The options of the demo.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoOptions {
    /// Run the script and exit, even on a terminal.
    pub script: bool,
    /// Print the generated configuration first.
    pub show_config: bool,
}

/// Why a demo ended before its figures.
#[derive(Debug)]
enum Ended {
    /// The output is closed.
    OutputClosed,
    /// An error, as text.
    Problem(String),
}

impl From<String> for Ended {
    fn from(problem: String) -> Ended {
        Ended::Problem(problem)
    }
}

/// Runs the demo. Succeeds only if no request failed that should not have, and every figure was measured.
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
            // Dropping the demo stops the proxy's process and restores the terminal's mode.
            signal = interrupted() => Err(Ended::Problem(format!("ended by {signal}"))),
        }
    });
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // `roundsman demo | head` succeeds.
        Err(Ended::OutputClosed) => ExitCode::SUCCESS,
        Err(Ended::Problem(problem)) => fail(&problem),
    }
}

fn fail(problem: &str) -> ExitCode {
    // Stderr may be closed too.
    let _ = writeln!(std::io::stderr(), "roundsman demo: {problem}");
    ExitCode::FAILURE
}

/// Completes on a signal that ends the demo, and returns its name.
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
