//! The real process: how it starts ([`start`]), how it stops ([`stop`]), what it does while not all upstreams are
//! healthy ([`service`]), and what it reports ([`report`], [`metrics`], [`outages`]).

mod metrics;
mod outages;
mod report;
mod service;
mod start;
mod stop;

use std::time::Duration;

use crate::program::http_check;

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The limit for what must happen within a second, with room for a machine ten times slower.
const WITHIN_A_SECOND: Duration = Duration::from_secs(10);
