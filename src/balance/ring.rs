//! Consistent hashing on a ring (Karger et al., STOC 1997): each slot has many points on a ring, and a key belongs to the next
//! point. When a slot leaves, only its keys move, and they spread over the others.
//!
//! A slot's points depend on its own name and weight alone, and not on the order or the number of the others.

use super::Slots;
use super::bound::is_full;
use super::hashing::mix;
use super::least_request::LeastRequest;
use crate::model::FineWeight;
use crate::model::policy::LoadBound;

/// The points of the heaviest slot, in a pool that is not very large: the shares of equal slots then differ by about 8 %.
const POINTS: u64 = 160;
/// The most points of a ring, about: sorting them takes some 20 ms.
const POINTS_MAX: u64 = 1 << 18;
/// The most points that one pick looks at, before it takes any slot that it can.
const STEPS_MAX: usize = 256;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Ring {
    /// Places on the ring, in order, each with its slot.
    points: Box<[(u32, u32)]>,
    bound: LoadBound,
    /// For requests without a key.
    keyless: LeastRequest,
}

impl Ring {
    /// `names`: a number for each slot that is the same in every ring.
    pub(super) fn build(weights: &[FineWeight], names: &[u64], bound: LoadBound) -> Ring {
        let most = weights.iter().map(|weight| u64::from(weight.as_u32())).max().unwrap_or(1).next_power_of_two();
        let mut each = POINTS;
        while each > 1 && each * weights.len() as u64 > POINTS_MAX {
            each /= 2;
        }
        let mut points = Vec::new();
        for (slot, (weight, name)) in (0u32..).zip(weights.iter().zip(names)) {
            // As if the heaviest had the next power of two: another one that comes or goes seldom changes that.
            let count = (each * 2 * u64::from(weight.as_u32()) / most).max(1);
            points.extend((0..count).map(|point| ((mix(name ^ mix(point)) >> 32) as u32, slot)));
        }
        // Where two points fall together, the name decides, and not the order of the slots.
        points.sort_unstable_by_key(|(place, slot)| (*place, names[*slot as usize]));
        Ring { points: points.into_boxed_slice(), bound, keyless: LeastRequest::build(weights) }
    }

    pub(super) fn keyless(&self) -> &LeastRequest {
        &self.keyless
    }

    /// The slot of a key: the first on the ring that is neither skipped nor full.
    pub(super) fn pick(&self, key: u64, slots: &impl Slots, rng: &mut fastrand::Rng) -> Option<usize> {
        let place = (key >> 32) as u32;
        let first = self.points.partition_point(|(point, _)| *point < place);
        let around = self.points[first..].iter().chain(&self.points[..first]).take(STEPS_MAX);
        let mut full = None;
        for (_, slot) in around {
            let slot = *slot as usize;
            if slots.skips(slot) {
                continue;
            }
            if !is_full(slot, self.bound, self.keyless.shares(), slots) {
                return Some(slot);
            }
            full.get_or_insert(slot);
        }
        full.or_else(|| self.keyless.shares().draw_unskipped(rng, |index| slots.skips(index)))
    }
}
