//! Wires everything: start, reload, shutdown, readiness. The only module that knows all the others.
//!
//! Order at start: configuration → sockets → first probes → serve. Threads: the data plane's workers, one for the
//! checker, one for the admin plane, and the main thread for signals, so that none can starve another.

pub mod dumps;
pub mod files;
pub mod host;
pub mod load;
pub mod reload;
pub mod signals;
pub mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use start::run;

/// The options of `roundsman run`.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where the configuration comes from.
    pub config: ConfigSource,
    /// Set by every SIGHUP since the first instruction of main, so that a signal before the handler of `run` is not
    /// lost.
    pub hup: Arc<AtomicBool>,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file, read again on reload.
    File(PathBuf),
    /// `--listen ADDR --to ADDR,ADDR`.
    Inline {
        /// The listening address.
        listen: String,
        /// The upstreams, as written.
        to: Vec<String>,
    },
}
