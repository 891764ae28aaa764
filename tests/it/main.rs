//! Tests with real sockets, one binary: scripted origins, the prober, and the real program.

mod access_log;
mod agent;
mod choosing;
mod commands;
#[allow(dead_code, unused_imports, reason = "a vocabulary for every test; not every word is in use at every time")]
mod origin;
mod probe;
mod selftest;
#[allow(dead_code, unused_imports, reason = "a vocabulary for every test; not every word is in use at every time")]
mod support;

#[allow(dead_code, reason = "a vocabulary for every test; not every word is in use at every time")]
mod client;
#[allow(dead_code, reason = "a vocabulary for every test; not every word is in use at every time")]
mod load;
#[allow(dead_code, reason = "a vocabulary for every test; not every word is in use at every time")]
mod program;
mod pty;

mod demo;
mod differential;
mod discovery;
mod ejection;
mod examples;
mod faults;
mod fuzzing;
mod health;
mod hostile;
mod http;
mod lanes;
mod leaving;
mod life;
mod lost;
mod memory;
mod orders;
mod promise;
mod queue;
mod reload;
mod routes;
mod rules;
mod servers;
mod staleness;
mod sticky;
mod storm;
mod systems;
mod tidy;
