//! Logs: one line per event on stderr, for people on a terminal, as JSON otherwise or by flag. Panics are logged and
//! counted. `log` records of libraries come through the same door.
//!
//! Writing never blocks who logs: lines go through a bounded queue to a thread of their own, and are counted and dropped
//! when nobody takes them. What is logged, and at which level, is the callers' business; never a secret.

use std::io::IsTerminal;

mod filter;
mod format;
mod panics;
mod start;
mod writer;

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

/// What the command line says about logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `None`: human on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// A level, or directives as in `RUST_LOG`; `None`: `RUST_LOG`, else info. What directives do not name stays as without them.
    pub level: Option<String>,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It asks for a level that does not exist, or for nothing.
    #[error("{0}")]
    Level(#[from] filter::BadFilter),
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
    /// No thread for the writer.
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
    // In every build as in a release: pingora's traces take what an upstream sends for UTF-8, and panic where it is not.
    tracing_log::LogTracer::init_with_filter(log::LevelFilter::Info).map_err(|_| LogError::Twice)?;
    panics::install();
    Ok(())
}

/// Whether what goes to stderr may be coloured: a terminal shows it, and the user has not asked for no colour.
pub fn colour_on_stderr() -> bool {
    std::io::stderr().is_terminal() && colour_wanted()
}

/// Whether the user has not asked for no colour (<https://no-color.org>).
pub fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}
