//! The admin plane: liveness, readiness, health, status, metrics, events and the operator's orders, over HTTP on a
//! separate socket, threads and runtimes, so that the data plane cannot starve it and it cannot block the data plane:
//! one thread for connections, which answers the two probes, and one that answers everything else.
//!
//! The table [`routes::ROUTES`] defines its endpoints. It gets its data from its [`Host`], which `app` implements. Its
//! JSON types ([`json`]) are shared with `cli` and separate from the internal types.
//!
//! Must never block the data plane, show a secret, or trust a browser.

pub mod asker;
pub mod body;
pub mod clock;
pub mod connections;
pub mod explain;
pub mod guard;
pub mod handlers;
pub mod health;
pub mod host;
pub mod io;
pub mod json;
pub mod negotiate;
pub mod page;
pub mod readiness;
pub mod render;
pub mod reply;
pub mod routes;
pub mod server;
pub mod shared;
pub mod socket;
pub mod target;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use host::{
    Access, CheckAnswer, Condition, ConfigFile, Host, LastReload, MetricsFormat, ProcessInfo, ReloadAnswer,
};
pub use server::Handle;
pub use socket::{BindError, Bound, bind};
