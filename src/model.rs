//! The vocabulary: names, addresses, validated policies, probe outcomes, eligibility.
//!
//! All other code uses these types. A value of a `policy` type cannot be wrong: `config` checked it once and nothing
//! checks it again. This directory must never do I/O, log, spawn, or read a clock.

pub mod address;
pub mod date;
pub mod eligibility;
pub mod health;
pub mod lookup;
pub mod name;
pub mod path;
pub mod policy;
pub mod probe;
pub mod quote;
pub mod secret;
pub mod template;
pub mod trace;
pub mod units;
pub mod written;

pub use address::Address;
pub use eligibility::{Eligibility, Ineligible};
pub use health::{AdminState, HealthState};
pub use name::Name;
pub use probe::{Code, Judgement, ProbeReport, StepTrace, TlsTrace, Trace};
pub use secret::Secret;
pub use units::{FineWeight, Ratio, Weight};
