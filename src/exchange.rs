//! The rules for one request, without a socket: what a head may look like, where it goes, what happens when that fails,
//! what is changed on the way, and what we answer ourselves.
//!
//! A lane reads, writes and waits; it hands in what happened and does what comes out. In the order of a request:
//! [`crate::http1::HeadReader`] → [`judge`] → [`Exchange::begin`] → [`Exchange::on_connected`] or [`Exchange::on_connect_failed`] →
//! [`Exchange::on_response`] or [`Exchange::on_broken`] → [`Exchange::on_end`]. Time and chance are arguments.
//!
//! Must never do I/O, spawn, log or read a clock, and must never be lenient where two parsers could differ.

pub mod answer;
pub mod authority;
pub mod clock;
mod conditions;
pub mod edits;
pub mod ending;
pub mod journal;
pub mod judge;
mod key;
pub mod limits;
pub mod machine;
mod origin;
pub mod response;
mod rules;
mod seek;
pub mod steps;
mod target;
pub mod upgrade;

pub use answer::{Added, OwnAnswer, Refusal};
pub use clock::{ClientClock, Listening, Silence, Turn, UpstreamClock};
pub use edits::{RequestEdits, ResponseEdits};
pub use ending::{Course, Ending, Finish, Request, ending};
pub use journal::{Carried, Noted, Outcome, Try};
pub use judge::{Facts, Framing, Leftover, Method, judge};
pub use machine::Exchange;
pub use steps::{
    Attempt, Broken, ConnectError, Desk, End, EndWord, Entry, Lent, Next, NoDesk, ReadyAnswer, Record, Replay, Reuse,
    Scheme,
};
