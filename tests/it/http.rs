//! The data plane on real sockets: what clients and upstreams receive. Tests set the health of the upstreams
//! themselves.

mod answers;
mod bodies;
mod budget;
mod connections;
mod endings;
mod framing;
mod hostile;
mod kept;
mod leaving;
mod policies;
mod retries;
#[allow(dead_code, reason = "a vocabulary for every test; not every word is in use at every time")]
pub mod rig;
pub mod upgrades;
