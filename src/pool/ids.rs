//! Maps whose keys are numbers that this process counts up itself. No peer can choose them, so they need no hash that
//! resists collisions; the one of the standard library takes several times as long as the look-up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by [`super::state::CheckId`], [`super::UpstreamId`] and other numbers of our own.
pub(super) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Spreads one number over all bits of the hash.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // Odd, so that different numbers stay different: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4).
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // The map takes the place from the low bits, of which the product has the worst.
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;
    use crate::pool::UpstreamId;

    #[test]
    fn numbers_in_any_stride_are_spread_over_the_places_of_a_map() {
        let build = BuildHasherDefault::<IdHasher>::default();
        for stride in [1, 2, 3, 64, 1 << 10, 1 << 20, 1 << 32] {
            let places: HashSet<u64> = (0..1_024).map(|n| build.hash_one(UpstreamId(n * stride)) & 1_023).collect();
            assert!(places.len() > 400, "stride {stride}: {} of 1,024 places", places.len());
        }
    }
}
