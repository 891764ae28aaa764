//! Chooses one slot of several. Pickers work on plain slots and know only their weights and loads.
//!
//! A picker is built when a pool's eligible set changes and is immutable afterwards; a pick takes no lock and does not
//! allocate, and its work is bounded whatever `skip` says. Must never know what an upstream is. One file per algorithm;
//! `shares` holds what they have in common.

mod least_request;
mod random;
mod round_robin;
mod shares;

use std::sync::atomic::AtomicUsize;

use self::least_request::LeastRequest;
use self::random::Random;
use self::round_robin::RoundRobin;
use crate::model::Weight;
use crate::model::policy::Balance;

/// Chooses an index in `0..n`, where `n` is the number of weights it was built from.
#[derive(Debug)]
pub struct Picker(Algorithm);

#[derive(Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    Random(Random),
    LeastRequest(LeastRequest),
}

impl Picker {
    /// A picker over these weights, which may be empty.
    pub fn build(balance: Balance, weights: &[Weight]) -> Picker {
        Picker(match balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::build(weights)),
            Balance::Random => Algorithm::Random(Random::build(weights)),
            Balance::LeastRequest => Algorithm::LeastRequest(LeastRequest::build(weights)),
        })
    }

    /// Chooses an index for which `skip` is false; `None` if there is none. `cursor` is the position of round robin,
    /// kept by the caller over rebuilds so that a new picker does not begin with the first slot again; `load` is the
    /// number of requests in flight.
    ///
    /// The turns of a skipped slot are divided among the others by their weights; they do not all go to its neighbour.
    pub fn pick(
        &self,
        cursor: &AtomicUsize,
        load: impl Fn(usize) -> u32,
        rng: &mut fastrand::Rng,
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match &self.0 {
            Algorithm::RoundRobin(picker) => picker.pick(cursor, rng, skip),
            Algorithm::Random(picker) => picker.pick(rng, skip),
            Algorithm::LeastRequest(picker) => picker.pick(cursor, load, rng, skip),
        }
    }

    /// Chooses for a request that has tried others already (`skip`), without taking a turn of the rotation.
    ///
    /// If retries took turns, they could fall into step with it: with two slots, one dead, every request would go to
    /// the dead one first and take the other's turn for its retry.
    pub fn pick_other(
        &self,
        load: impl Fn(usize) -> u32,
        rng: &mut fastrand::Rng,
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match &self.0 {
            Algorithm::RoundRobin(picker) => picker.pick_other(rng, skip),
            Algorithm::Random(picker) => picker.pick(rng, skip),
            Algorithm::LeastRequest(picker) => picker.pick_other(load, rng, skip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::Ordering;

    const ALL: [Balance; 3] = [Balance::RoundRobin, Balance::Random, Balance::LeastRequest];

    fn weights(numbers: &[i64]) -> Vec<Weight> {
        numbers.iter().map(|w| Weight::try_new(*w).expect("1 to 1,000")).collect()
    }

    #[test]
    fn an_empty_picker_picks_nothing() {
        for balance in ALL {
            let picker = Picker::build(balance, &[]);
            let mut rng = fastrand::Rng::with_seed(1);
            assert_eq!(picker.pick(&AtomicUsize::new(0), |_| 0, &mut rng, |_| false), None, "{balance:?}");
            assert_eq!(picker.pick_other(|_| 0, &mut rng, |_| false), None, "{balance:?}");
        }
    }

    #[test]
    fn the_cursor_may_wrap() {
        for balance in ALL {
            let picker = Picker::build(balance, &weights(&[3, 2, 1]));
            let cursor = AtomicUsize::new(usize::MAX - 2);
            let mut rng = fastrand::Rng::with_seed(1);
            for _ in 0..6 {
                assert!(picker.pick(&cursor, |_| 0, &mut rng, |_| false).is_some(), "{balance:?}");
            }
        }
    }

    #[test]
    fn a_dead_slot_does_not_draw_first_tries_because_of_its_retries() {
        for balance in ALL {
            for numbers in [&[1, 1][..], &[1, 1, 1], &[5, 1, 1]] {
                let picker = Picker::build(balance, &weights(numbers));
                let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(7));
                let mut first_tries = 0;
                for _ in 0..7_000 {
                    let first = picker.pick(&cursor, |_| 0, &mut rng, |_| false).expect("not empty");
                    if first == 0 {
                        first_tries += 1;
                        let other = picker.pick_other(|_| 0, &mut rng, |i| i == 0);
                        assert!(other.is_some_and(|i| i != 0));
                    }
                }
                let want = 7_000 * numbers[0] / numbers.iter().sum::<i64>();
                assert!((first_tries - want).abs() < 250, "{balance:?} {numbers:?}: {first_tries}, expected {want}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_pick_is_one_that_is_not_skipped_and_there_is_one_while_any_is_left(
            numbers in proptest::collection::vec((1i64..=1_000, any::<bool>(), 0u32..5), 0..40),
            seed in any::<u64>(),
            start in any::<usize>(),
        ) {
            let slots: Vec<i64> = numbers.iter().map(|n| n.0).collect();
            for balance in ALL {
                let picker = Picker::build(balance, &weights(&slots));
                let (cursor, mut rng) = (AtomicUsize::new(start), fastrand::Rng::with_seed(seed));
                let skip = |i: usize| numbers[i].1;
                let load = |i: usize| numbers[i].2;
                let any_left = numbers.iter().any(|n| !n.1);
                for _ in 0..20 {
                    for pick in [picker.pick(&cursor, load, &mut rng, skip), picker.pick_other(load, &mut rng, skip)] {
                        prop_assert_eq!(pick.is_some(), any_left);
                        prop_assert!(pick.is_none_or(|i| i < slots.len() && !skip(i)));
                    }
                }
            }
        }

        #[test]
        fn a_picker_rebuilt_before_every_pick_still_rotates(n in 2usize..20, picks in 20usize..60) {
            let cursor = AtomicUsize::new(0);
            let mut rng = fastrand::Rng::with_seed(1);
            let mut counts = vec![0; n];
            for _ in 0..picks {
                let picker = Picker::build(Balance::RoundRobin, &vec![Weight::ONE; n]);
                counts[picker.pick(&cursor, |_| 0, &mut rng, |_| false).expect("not empty")] += 1;
            }
            prop_assert_eq!(cursor.load(Ordering::Relaxed), picks);
            prop_assert!(counts.iter().all(|c| (picks / n..=picks.div_ceil(n)).contains(c)));
        }
    }
}
