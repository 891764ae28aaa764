//! The command line: parses the arguments and calls the command. `run` and `demo` become the process; the other
//! commands ask a running process over its admin socket, or read a file.
//!
//! Exit status: 0 ok; 1 run-time failure; 2 usage error, or a pool or upstream that does not exist; 78 bad
//! configuration.

use std::process::ExitCode;

mod advice;
mod args;
pub mod check;
mod client;
mod events;
mod explain;
mod hangup;
mod identity;
mod locate;
mod orders;
mod probe;
mod reload;
pub mod schema;
mod status;
mod steps;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod watch;

pub use hangup::Hangup;

use crate::app::load::EXIT_BAD_CONFIG;
use crate::{app, demo, telemetry};
use args::{Command, LogArgs, RunArgs};

/// Runs the command that the arguments name. `clap` exits the process on a usage error.
pub fn main(hangup: &Hangup) -> ExitCode {
    app::dumps::forbid();
    let command = advice::parse().command;
    match &command {
        Command::Run(_) | Command::Demo(_) => {}
        Command::Reload(_)
        | Command::Status(_)
        | Command::Check(_)
        | Command::Schema
        | Command::Events(_)
        | Command::Explain(_)
        | Command::Probe(_)
        | Command::Drain(_)
        | Command::Undrain(_)
        | Command::Disable(_)
        | Command::Enable(_)
        | Command::Weight(_) => hangup.ends_the_process(),
    }
    match command {
        Command::Run(args) => run(&args, hangup),
        Command::Demo(args) => demo::run(args.options()),
        Command::Check(args) => answer(check::run(&args)),
        Command::Schema => answer(schema::run()),
        Command::Reload(args) => answer(reload::run(&args)),
        Command::Status(args) => answer(status::run(&args)),
        Command::Events(args) => answer(events::run(&args)),
        Command::Explain(args) => answer(explain::run(&args)),
        Command::Probe(args) => answer(probe::run(&args)),
        Command::Drain(args) => answer(orders::drain(&args)),
        Command::Undrain(args) => answer(orders::run("undrain", &args)),
        Command::Disable(args) => answer(orders::disable(&args)),
        Command::Enable(args) => answer(orders::run("enable", &args)),
        Command::Weight(args) => answer(orders::weight(&args)),
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// At run time.
    #[error("{0}")]
    Runtime(String),
    /// The configuration is bad, or cannot be read.
    #[error("{0}")]
    Config(String),
    /// The arguments are valid one by one, but not together.
    #[error("{0}")]
    Usage(String),
    /// The command line names a pool or an upstream that does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The reader of stdout has gone.
    #[error("the output is closed")]
    OutputClosed,
}

fn answer(result: Result<ExitCode, Failure>) -> ExitCode {
    let failure = match result {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    match failure {
        // `roundsman events | head` succeeds.
        Failure::OutputClosed => ExitCode::SUCCESS,
        Failure::Runtime(_) => fail(&failure, ExitCode::FAILURE),
        Failure::Usage(_) | Failure::NotFound(_) => fail(&failure, ExitCode::from(2)),
        Failure::Config(_) => fail(&failure, ExitCode::from(EXIT_BAD_CONFIG)),
    }
}

fn fail(failure: &Failure, code: ExitCode) -> ExitCode {
    text::complain(&failure.to_string());
    code
}

fn run(args: &RunArgs, hangup: &Hangup) -> ExitCode {
    if let Err(code) = set_up_logs(&args.log) {
        return code;
    }
    let config = match (&args.listen, args.file.path()) {
        (Some(listen), _) => {
            let to = args.to.iter().map(ToString::to_string).collect();
            app::ConfigSource::Inline { listen: listen.to_string(), to }
        }
        (None, named) => match locate::config_file(named) {
            Ok(file) => app::ConfigSource::File(file),
            Err(missing) => {
                // The text for people names the file.
                let file = telemetry::is_json().then_some(missing.file);
                let fields = vec![("file", file.into()), ("reason", missing.message.into())];
                telemetry::not_started("Configuration refused", fields);
                return ExitCode::from(EXIT_BAD_CONFIG);
            }
        },
    };
    let code = app::run(&app::RunOptions { config, hup: hangup.flag() });
    telemetry::flush();
    code
}

fn set_up_logs(args: &LogArgs) -> Result<(), ExitCode> {
    telemetry::init(&args.options()).map_err(|error| {
        text::complain(&error.to_string());
        match error {
            telemetry::LogError::Level(_) => ExitCode::from(2),
            telemetry::LogError::Twice | telemetry::LogError::Thread(_) => ExitCode::FAILURE,
        }
    })
}
