//! When an upstream is healthy, and when to ask again: strict consecutive thresholds in both directions, the start
//! period, staleness, and the instant of the next probe. Pure: `now` and chance are arguments.
//!
//! Must never know what a probe does or what a socket is.

pub mod track;

pub use track::{Cause, Change, Due, Run, Track};
