//! Weights in lowest terms, laid end to end on a line, for all algorithms. A position on the line is a slot, so a
//! uniform draw of a position is a weighted draw of a slot.

use crate::model::FineWeight;

/// Draws that may hit a skipped slot before the exact scan. With one skipped slot of three equal ones, eight draws in a
/// row hit it once in 6,561 picks.
const DRAWS_MAX: usize = 8;

/// The shares of all slots, in lowest terms: weights 100 and 200 are shares 1 and 2.
#[derive(Debug)]
pub(super) struct Shares {
    /// The end of each slot's piece of the line; the last one is the total.
    ends: Box<[u64]>,
    /// Every share is 1: a position is a slot.
    even: bool,
}

impl Shares {
    pub(super) fn new(weights: &[FineWeight]) -> Shares {
        let divisor = weights.iter().fold(0, |d, w| gcd(d, u64::from(w.as_u32()))).max(1);
        let mut end = 0;
        let ends: Box<[u64]> = weights
            .iter()
            .map(|w| {
                end += u64::from(w.as_u32()) / divisor;
                end
            })
            .collect();
        let even = end == ends.len() as u64;
        Shares { ends, even }
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The sum of all shares; 0 without slots.
    pub(super) fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether all slots have the same share.
    pub(super) fn is_even(&self) -> bool {
        self.even
    }

    /// The share of slot `index`, 1 to 1,000,000.
    pub(super) fn of(&self, index: usize) -> u64 {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        self.ends[index] - begin
    }

    /// The slot at `position`, which is below the total.
    pub(super) fn at(&self, position: u64) -> usize {
        if self.even { position as usize } else { self.ends.partition_point(|end| *end <= position) }
    }

    /// A weighted draw; `None` without slots.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        match self.total() {
            0 => None,
            total => Some(self.at(rng.u64(0..total))),
        }
    }

    /// A weighted draw of those that are not skipped; `None` if there is none. Costs a few draws while few are skipped,
    /// at worst two passes over all slots.
    pub(super) fn draw_unskipped(&self, rng: &mut fastrand::Rng, skip: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..DRAWS_MAX {
            let drawn = self.draw(rng)?;
            if !skip(drawn) {
                return Some(drawn);
            }
        }
        let left = || (0..self.len()).filter(|i| !skip(*i));
        let total: u64 = left().map(|i| self.of(i)).sum();
        if total == 0 {
            return None;
        }
        let mut position = rng.u64(0..total);
        left().find(|i| {
            let share = self.of(*i);
            let here = position < share;
            position = position.saturating_sub(share);
            here
        })
    }
}

pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// For the tests of all algorithms.
#[cfg(test)]
pub(super) mod testing {
    use crate::model::{FineWeight, Weight};

    pub fn weights(numbers: &[u32]) -> Vec<FineWeight> {
        numbers.iter().map(|w| Weight::try_new(i64::from(*w)).expect("1 to 1,000").into()).collect()
    }

    /// Names of so many slots.
    pub fn names(slots: usize) -> Vec<u64> {
        (0..slots).map(|slot| crate::balance::hashing::hash(format!("10.0.0.{slot}:80").as_bytes())).collect()
    }

    /// Asserts that counts follow shares within five standard deviations, which a correct picker fails once in a
    /// million tries with a new seed.
    #[track_caller]
    pub fn assert_follows(counts: &[u64], shares: &[u32]) {
        let (n, total) = (counts.iter().sum::<u64>() as f64, f64::from(shares.iter().sum::<u32>()));
        for (i, (count, share)) in counts.iter().zip(shares).enumerate() {
            let p = f64::from(*share) / total;
            let (want, deviation) = (n * p, (n * p * (1.0 - p)).sqrt());
            assert!((*count as f64 - want).abs() <= 5.0 * deviation, "slot {i}: {count}, expected {want}: {counts:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{assert_follows, weights};
    use super::*;

    #[test]
    fn shares_are_in_lowest_terms() {
        for (numbers, total, even) in [
            (&[][..], 0, true),
            (&[7], 1, true),
            (&[100, 200], 3, false),
            (&[500; 3], 3, true),
            (&[6, 10, 15], 31, false),
        ] {
            let shares = Shares::new(&weights(numbers));
            assert_eq!((shares.total(), shares.is_even()), (total, even), "{numbers:?}");
            assert_eq!((0..shares.len()).map(|i| shares.of(i)).sum::<u64>(), total);
        }
    }

    #[test]
    fn a_position_is_the_slot_whose_piece_it_falls_into() {
        let shares = Shares::new(&weights(&[1, 3, 2]));
        assert_eq!((0..6).map(|p| shares.at(p)).collect::<Vec<_>>(), [0, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn the_remaining_slots_keep_their_proportions_when_others_are_skipped() {
        let numbers = [970, 10, 20];
        let shares = Shares::new(&weights(&numbers));
        let mut rng = fastrand::Rng::with_seed(3);
        let mut counts = [0u64; 3];
        for _ in 0..30_000 {
            counts[shares.draw_unskipped(&mut rng, |i| i == 0).expect("two are left")] += 1;
        }
        assert_eq!(counts[0], 0);
        assert_follows(&counts[1..], &numbers[1..]);
        assert_eq!(shares.draw_unskipped(&mut rng, |_| true), None);
    }
}
