//! Chooses one of several: pickers over plain slots, which know weights and loads and nothing else.
//!
//! A picker is built when a pool's eligible set changes and is immutable afterwards; a pick takes no lock and does not
//! allocate. Must never know what an upstream is.

use std::sync::atomic::AtomicUsize;

use crate::model::Weight;
use crate::model::policy::Balance;

/// Chooses an index in `0..n`, where `n` is the number of weights it was built from.
#[derive(Debug)]
pub struct Picker {
    n: usize,
}

impl Picker {
    /// A picker over these weights; none is fine.
    pub fn build(_balance: Balance, weights: &[Weight]) -> Picker {
        Picker { n: weights.len() }
    }

    /// Chooses an index for which `skip` is false; `None` if there is none. `cursor` is where round robin stands, kept
    /// by the caller over rebuilds; `load` is the number of requests in flight.
    pub fn pick(
        &self,
        cursor: &AtomicUsize,
        _load: impl Fn(usize) -> u32,
        _rng: &mut fastrand::Rng,
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let start = cursor.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (0..self.n).map(|i| (start + i) % self.n).find(|i| !skip(*i))
    }
}
