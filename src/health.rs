//! When an upstream is healthy, and when to probe it again: strict consecutive thresholds in both directions, the start
//! period, staleness, the instant of the next probe, and the joint verdict of several checks. Pure: `now` and chance
//! are arguments.
//!
//! Must never know what a probe does or what a socket is.

pub mod combine;
pub mod track;

pub use combine::{Vote, combine, decides};
pub use track::{Cause, Change, Due, Run, Track};
