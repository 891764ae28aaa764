//! Maglev hashing (Eisenbud et al., NSDI 2016): a table in which the slots take turns at filling their preferred places, so that
//! each has almost exactly its share of the keys, and few keys move when a slot leaves.

use super::Slots;
use super::bound::is_full;
use super::hashing::mix;
use super::least_request::LeastRequest;
use crate::model::FineWeight;
use crate::model::policy::LoadBound;

/// Up to how many slots a table has which size, a prime. When one of 50 slots leaves, 1.25 times its share of the keys moves, and
/// when one of 100 does, 1.35 times. With more slots more move; but a larger table would take longer than 30 ms to make.
const SIZES: [(usize, usize); 3] = [(8, 4_099), (50, 65_537), (usize::MAX, 262_147)];
/// So many other places are tried for a key whose slot is skipped or full.
const STEPS_MAX: usize = 32;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Maglev {
    table: Box<[u32]>,
    bound: LoadBound,
    /// For requests without a key.
    keyless: LeastRequest,
}

impl Maglev {
    /// `names`: a number for each slot that is the same in every table.
    pub(super) fn build(weights: &[FineWeight], names: &[u64], bound: LoadBound) -> Maglev {
        let keyless = LeastRequest::build(weights);
        Maglev { table: table(weights, names), bound, keyless }
    }

    pub(super) fn keyless(&self) -> &LeastRequest {
        &self.keyless
    }

    /// The slot of a key; if that is skipped or full, those of other places, which the key alone decides.
    pub(super) fn pick(&self, key: u64, slots: &impl Slots, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        let (mut place, mut full) = (key, None);
        for _ in 0..STEPS_MAX {
            let slot = self.table[(place % self.table.len() as u64) as usize] as usize;
            if !slots.skips(slot) {
                if !is_full(slot, self.bound, self.keyless.shares(), slots) {
                    return Some(slot);
                }
                full.get_or_insert(slot);
            }
            place = mix(place.wrapping_add(1));
        }
        full.or_else(|| self.keyless.shares().draw_unskipped(rng, |index| slots.skips(index)))
    }
}

/// The preferred places of a slot, one after the other.
struct Preferred {
    next: usize,
    step: usize,
}

fn table(weights: &[FineWeight], names: &[u64]) -> Box<[u32]> {
    if weights.is_empty() {
        return Box::default();
    }
    let size = SIZES.into_iter().find(|(slots, _)| weights.len() <= *slots).map_or(SIZES[0].1, |(_, size)| size);
    let most = weights.iter().max().map_or(1, |weight| weight.as_u32());
    // In an order that does not depend on that of the slots.
    let mut order: Vec<u32> = (0..weights.len() as u32).collect();
    order.sort_unstable_by_key(|slot| names[*slot as usize]);
    let preferred = |slot: &u32| {
        let name = names[*slot as usize];
        let (place, step) = (mix(name), mix(name ^ 0x9e37_79b9_7f4a_7c15));
        Preferred { next: (place % size as u64) as usize, step: (step % (size as u64 - 1)) as usize + 1 }
    };
    let mut places: Vec<Preferred> = order.iter().map(preferred).collect();
    let mut credits = vec![0u32; order.len()];
    let mut table = vec![u32::MAX; size];
    let mut left = size;
    while left > 0 {
        for (at, slot) in order.iter().enumerate() {
            // A turn costs as much as the heaviest slot gains in a round.
            credits[at] += weights[*slot as usize].as_u32();
            if credits[at] < most {
                continue;
            }
            credits[at] -= most;
            let preferred = &mut places[at];
            while table[preferred.next] != u32::MAX {
                preferred.next = (preferred.next + preferred.step) % size;
            }
            table[preferred.next] = *slot;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    table.into_boxed_slice()
}
