//! The data plane on real sockets: what clients are answered, and what upstreams see. The health of the upstreams is given;
//! what decides it is tested elsewhere.

mod answers;
mod bodies;
mod connections;
mod framing;
mod kept;
mod leaving;
mod retries;
pub mod rig;
pub mod upgrades;
