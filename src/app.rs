//! Wires everything: start, reload, shutdown. The only room that knows all the others.

pub mod load;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What `roundsman run` was asked for.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where the configuration comes from.
    pub config: ConfigSource,
    /// Set by every SIGHUP since the first instruction of main, so that one that came before the handler of `run` is not
    /// lost.
    pub hup: Arc<AtomicBool>,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file, reread on reload.
    File(PathBuf),
    /// `--listen ADDR --to ADDR,ADDR`.
    Inline {
        /// The listening address.
        listen: String,
        /// The upstreams, as written.
        to: Vec<String>,
    },
}

/// Runs the proxy to its end; the answer is the process's exit status.
pub fn run(options: RunOptions) -> ExitCode {
    tracing::error!(config = ?options.config, "This build cannot run yet");
    ExitCode::FAILURE
}
