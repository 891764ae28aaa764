//! Counts of the last ten seconds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Over how many seconds is counted.
pub const SECONDS: u64 = 10;
/// More than that, so that the second which begins does not lie where the oldest is.
const SLOTS: usize = 16;

/// Counts of seconds: in each slot the number of its second, and below it the count.
#[derive(Debug, Default)]
pub struct Recent([AtomicU64; SLOTS]);

impl Recent {
    /// Counts one more. `second`: the number of this second, which never goes back. Two threads that begin a second at once
    /// may lose a count.
    pub fn add(&self, second: u64) {
        let slot = &self.0[second as usize % SLOTS];
        if slot.load(Ordering::Relaxed) >> 32 == second + 1 {
            slot.fetch_add(1, Ordering::Relaxed);
        } else {
            slot.store((second + 1) << 32 | 1, Ordering::Relaxed);
        }
    }

    /// The counts of this second and of those before it, [`SECONDS`] in all.
    pub fn sum(&self, second: u64) -> u64 {
        let counts = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        let recent = counts.filter(|slot| (second + 1).checked_sub(slot >> 32).is_some_and(|age| age < SECONDS));
        recent.map(|slot| slot & 0xffff_ffff).sum()
    }
}
