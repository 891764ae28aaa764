//! roundsman: a reverse proxy and load balancer that sends requests only to upstreams that its health checker has found
//! healthy.
//!
//! `ARCHITECTURE.md` describes the modules; each decides one thing. `main → cli → app` wire the rest;
//! `model http1 config health balance route exchange` are pure, `pool` keeps the state of the upstreams, and
//! `bind tls discovery probe proxy admin metrics telemetry` touch the world.

pub mod admin;
pub mod app;
pub mod balance;
pub mod bind;
pub mod cli;
pub mod config;
pub mod demo;
pub mod discovery;
pub mod exchange;
pub mod health;
pub mod http1;
pub mod metrics;
pub mod model;
pub mod pool;
pub mod probe;
pub mod proxy;
pub mod route;
pub mod telemetry;
pub mod tls;

/// The version of this build, from `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
