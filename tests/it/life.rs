//! The life of the real process: how it starts ([`start`]), how it stops ([`stop`]), what it does while nothing is eligible
//! ([`service`]), and what it reports about all of it ([`tell`], [`outages`]).

mod metrics;
mod outages;
mod service;
mod start;
mod stop;
mod tell;

use std::time::Duration;

use crate::program::QUICK;

/// How long anything may take on a slow machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the contract promises within a second, on a machine ten times slower than it should be.
const WITHIN_A_SECOND: Duration = Duration::from_secs(10);

fn http_check() -> String {
    format!("type = \"http\"\npath = \"/healthz\"\n{QUICK}")
}
