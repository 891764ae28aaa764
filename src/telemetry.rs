//! Logs: one line per event on stderr, for people on a terminal, as JSON otherwise or by flag. Panics are logged and
//! counted. `log` records of libraries come through the same door.
//!
//! Writing never blocks who logs: lines go through a bounded queue to a thread of their own, and are counted and dropped
//! when nobody takes them. What is logged, and at which level, is the callers' business; never a secret.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

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
    /// A level, or directives as in `RUST_LOG`; `None`: `RUST_LOG`, else info.
    pub level: Option<String>,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is none.
    #[error("log level {0:?}: expected error, warn, info, debug, trace or off, or directives as in RUST_LOG")]
    Level(String),
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
    /// No thread for the writer.
    #[error("start the log writer: {0}")]
    Thread(#[from] std::io::Error),
}

/// Libraries that outsiders can make say as much as they like: a line for every failed handshake, every client that leaves, every
/// byte too many of an upstream. They are off; what matters of that, our own lines and counters say, at a bounded rate. Others
/// are asked for warnings.
const LIBRARIES: &str =
    "pingora_core=off,pingora_proxy=off,pingora_pool=off,pingora_http=off,h2=off,hyper=off,hyper_util=off,rustls=off";

/// Sets up logging and the panic hook for the life of the process. Call [`flush`] before the process ends.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    let filter = filter(options.level.as_deref(), std::env::var("RUST_LOG").ok().as_deref())?;
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

fn filter(flag: Option<&str>, environment: Option<&str>) -> Result<EnvFilter, LogError> {
    let wanted = flag.or(environment.filter(|text| !text.trim().is_empty())).unwrap_or("info");
    // A bare level is ours; libraries stay at warnings.
    let directives = match tracing::level_filters::LevelFilter::from_str(wanted) {
        Ok(level) => {
            let libraries = level.min(tracing::level_filters::LevelFilter::WARN);
            format!("{libraries},roundsman={level},{LIBRARIES}")
        }
        Err(_) => format!("{LIBRARIES},{wanted}"),
    };
    EnvFilter::try_new(directives).map_err(|_| LogError::Level(wanted.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment_and_a_bare_level_is_ours_alone() {
        let text = |flag, environment| filter(flag, environment).map(|f| f.to_string()).unwrap_or_default();
        assert!(text(None, None).contains("roundsman=info"));
        assert!(text(None, Some("debug")).contains("roundsman=debug"));
        assert!(text(Some("trace"), Some("debug")).contains("roundsman=trace"));
        assert!(text(Some("trace"), None).contains("warn"), "{}", text(Some("trace"), None));
        assert!(text(Some("roundsman::probe=trace"), None).contains("roundsman::probe=trace"));
        assert!(text(None, Some("")).contains("roundsman=info"));
        assert!(matches!(filter(Some("a=b=c"), None), Err(LogError::Level(_))));
    }
}
