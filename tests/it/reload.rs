//! What a reload keeps, changes and refuses, on the real program: the table of health.md row by row ([`carry`],
//! [`change`], [`warm`]), sockets and routes ([`sockets`]), the keys of requests ([`policies`]), and reloads that are
//! refused, many, or under load ([`order`]).

mod carry;
mod change;
mod order;
mod policies;
mod sockets;
mod warm;

use std::time::Duration;

use roundsman::admin::json::{ReloadResult, UpstreamInfo};

use crate::program::Program;

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A rare HTTP check of `path`: an interval of a minute, one pass, one failure.
fn rare(path: &str) -> String {
    format!(
        "type = \"http\"\npath = \"{path}\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
         healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n"
    )
}

/// The upstream, which must exist.
async fn upstream(program: &Program, pool: &str, address: &str) -> UpstreamInfo {
    program.upstream(pool, address).await.unwrap_or_else(|| panic!("{pool} has no {address}"))
}

/// Reloads and expects it to be applied; the answer's `warming`.
async fn apply(program: &Program, pools: &str) -> Vec<String> {
    let (status, reply) = program.reload(pools).await;
    assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{:?}", reply.errors);
    reply.warming
}
