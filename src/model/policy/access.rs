//! `[access_log]`: a line for each request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Ratio;

/// Which requests are logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPolicy {
    /// Where lines go.
    pub to: AccessTarget,
    /// How they look.
    pub format: AccessFormat,
    /// Those that are logged; empty: all.
    pub only: Vec<AccessClass>,
    /// The share of the plain successes that is logged.
    pub sample: Ratio,
    /// Paths in normal form that are left out.
    pub except_paths: Vec<Arc<str>>,
    /// What of the query is shown.
    pub query: ShownQuery,
    /// Keys that are left out.
    pub drop: Vec<AccessKey>,
    /// Fields of requests that are shown, names in lower case.
    pub headers: Vec<Arc<str>>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AccessTarget {
    /// To the standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
    /// To the syslog that listens on this unix socket.
    Syslog(PathBuf),
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// A JSON object.
    Json,
    /// Apache's combined format.
    Combined,
}

/// A kind of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessClass {
    /// A status of 400 and above, or another end than a whole response.
    Errors,
    /// Those that took longer than this.
    Slow(Duration),
    /// Those with more than one attempt.
    Retried,
}

/// What of the query is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownQuery {
    /// All of it.
    Whole,
    /// The names without the values.
    Keys,
    /// Nothing.
    Nothing,
}

macro_rules! access_keys {
    ($($name:ident = $word:literal,)*) => {
        /// The keys of a JSON line.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "they are explained in docs/access-log.md")]
        pub enum AccessKey { $($name,)* }

        impl AccessKey {
            /// Every one, in the order of the line.
            pub const ALL: [AccessKey; [$($word),*].len()] = [$(AccessKey::$name),*];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self { $(AccessKey::$name => $word,)* }
            }
        }
    };
}

access_keys! {
    Time = "time",
    Id = "id",
    Listener = "listener",
    Client = "client",
    Method = "method",
    Host = "host",
    Path = "path",
    Protocol = "protocol",
    Status = "status",
    Reason = "reason",
    BytesIn = "bytes_in",
    BytesOut = "bytes_out",
    Duration = "duration_ms",
    Queue = "queue_ms",
    Attempts = "attempts",
    Pool = "pool",
    Retried = "retried",
    Tls = "tls",
    TraceId = "trace_id",
    UserAgent = "user_agent",
    Referer = "referer",
    Headers = "headers",
    End = "end",
}
