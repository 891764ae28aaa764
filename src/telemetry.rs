//! Logs: one line per event on stderr, human-readable on a terminal, otherwise or by flag as JSON. Panics are logged
//! and counted. `log` records of libraries use the same writer.
//!
//! Logging never blocks the caller: lines go through a bounded queue to a writer thread, and are counted and dropped if
//! the output is blocked. Callers decide what is logged and at which level; never a secret.

use std::io::IsTerminal;

mod access;
mod filter;
mod format;
mod panics;
mod start;
mod writer;

pub use access::{AccessLog, OpenError, Output, open as open_access_log};
pub use panics::panics_total;
pub use start::{is_json, not_started};
pub use writer::{dropped_total, flush};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The logging options of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `None`: human on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// A level, or directives as in `RUST_LOG`; `None`: `RUST_LOG`, else info. Targets without a directive keep their
    /// default.
    pub level: Option<String>,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter names a level that does not exist, or none at all.
    #[error("{0}")]
    Level(#[from] filter::BadFilter),
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
    /// The writer thread could not be started.
    #[error("start the log writer: {0}")]
    Thread(#[from] std::io::Error),
}

/// Sets up logging and the panic hook for the life of the process. Call [`flush`] before the process ends.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    let environment = std::env::var_os("RUST_LOG").map(|value| value.to_string_lossy().into_owned());
    let filter = filter::filter(options.level.as_deref(), environment.as_deref())?;
    let terminal = std::io::stderr().is_terminal();
    let look = match options.format {
        Some(LogFormat::Json) => format::Look::Json,
        Some(LogFormat::Human) => format::Look::Human { colour: colour_on_stderr() },
        None if terminal => format::Look::Human { colour: colour_on_stderr() },
        None => format::Look::Json,
    };
    start::note(look);
    let lines = writer::start(std::io::stderr())?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).event_format(look).finish();
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    // The same in every build as in a release: pingora's trace records expect UTF-8 from upstreams and panic otherwise.
    tracing_log::LogTracer::init_with_filter(log::LevelFilter::Info).map_err(|_| LogError::Twice)?;
    panics::install();
    Ok(())
}

/// Whether stderr may be coloured: it is a terminal, and the user has not turned colours off.
pub fn colour_on_stderr() -> bool {
    std::io::stderr().is_terminal() && colour_wanted()
}

/// Whether the user has not turned colours off, with `NO_COLOR` (<https://no-color.org>) or `TERM=dumb`.
pub fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}
