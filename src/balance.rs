//! Chooses one slot of several. Pickers work on plain slots and know only their weights and loads.
//!
//! A picker is built when a pool's eligible set changes and is immutable afterwards; a pick takes no lock and does not
//! allocate, and its work is bounded whatever `skip` says. Must never know what an upstream is. One file per algorithm;
//! `shares` holds what they have in common.

mod bound;
mod first;
pub mod hashing;
mod least_request;
mod maglev;
mod peak_ewma;
mod random;
mod ring;
mod round_robin;
mod shares;

use std::sync::atomic::AtomicUsize;

use self::least_request::LeastRequest;
use self::maglev::Maglev;
use self::peak_ewma::PeakEwma;
use self::random::Random;
use self::ring::Ring;
use self::round_robin::RoundRobin;
use crate::model::FineWeight;
use crate::model::policy::Balance;

/// Chooses an index in `0..n`, where `n` is the number of weights it was built from.
#[derive(Debug)]
pub struct Picker(Algorithm);

#[derive(Debug)]
enum Algorithm {
    RoundRobin(RoundRobin),
    Random(Random),
    LeastRequest(LeastRequest),
    PeakEwma(PeakEwma),
    Hash(Ring),
    Maglev(Maglev),
    /// Of so many slots.
    First(usize),
}

/// What a picker asks about slots while it chooses. Each algorithm asks for what it needs, and of few slots.
pub trait Slots {
    /// The requests in flight.
    fn load(&self, index: usize) -> u32;

    /// The requests in flight of all slots, and perhaps of others of the same pool.
    fn load_of_all(&self) -> u64 {
        0
    }

    /// How long it takes to answer, in seconds; 0: not known.
    fn latency(&self, _index: usize) -> f32 {
        0.0
    }

    /// Whether it cannot be chosen.
    fn skips(&self, index: usize) -> bool;
}

impl Picker {
    /// A picker over these weights, which may be empty. `names`: a number for each slot, the same whenever a picker is built
    /// and in every process; only algorithms that hash use it.
    pub fn build(balance: Balance, weights: &[FineWeight], names: &[u64]) -> Picker {
        Picker(match balance {
            Balance::RoundRobin => Algorithm::RoundRobin(RoundRobin::build(weights)),
            Balance::Random => Algorithm::Random(Random::build(weights)),
            Balance::LeastRequest => Algorithm::LeastRequest(LeastRequest::build(weights)),
            Balance::PeakEwma => Algorithm::PeakEwma(PeakEwma::build(weights)),
            Balance::Hash(bound) => Algorithm::Hash(Ring::build(weights, names, bound)),
            Balance::Maglev(bound) => Algorithm::Maglev(Maglev::build(weights, names, bound)),
            Balance::First => Algorithm::First(weights.len()),
        })
    }

    /// Chooses an index that is not skipped; `None` if there is none. `cursor` is the position of round robin, kept by the
    /// caller over rebuilds so that a new picker does not begin with the first slot again; `key` is the hash of what the
    /// request is chosen by ([`hashing::hash`]).
    ///
    /// The turns of a skipped slot are divided among the others by their weights; they do not all go to its neighbour. The
    /// keys of a slot that is skipped are as well.
    pub fn pick(
        &self,
        cursor: &AtomicUsize,
        slots: &impl Slots,
        key: Option<u64>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let (load, skip) = (|index| slots.load(index), |index| slots.skips(index));
        match (&self.0, key) {
            (Algorithm::RoundRobin(picker), _) => picker.pick(cursor, rng, skip),
            (Algorithm::Random(picker), _) => picker.pick(rng, skip),
            (Algorithm::LeastRequest(picker), _) => picker.pick(cursor, load, rng, skip),
            (Algorithm::PeakEwma(picker), _) => picker.pick(slots, rng),
            (Algorithm::Hash(ring), Some(key)) => ring.pick(key, slots, rng),
            (Algorithm::Hash(ring), None) => ring.keyless().pick(cursor, load, rng, skip),
            (Algorithm::Maglev(maglev), Some(key)) => maglev.pick(key, slots, rng),
            (Algorithm::Maglev(maglev), None) => maglev.keyless().pick(cursor, load, rng, skip),
            (Algorithm::First(count), _) => first::pick(*count, slots),
        }
    }

    /// Chooses for a request that has tried others already (they are skipped), without taking a turn of the rotation.
    ///
    /// If retries took turns, they could fall into step with it: with two slots, one dead, every request would go to
    /// the dead one first and take the other's turn for its retry.
    pub fn pick_other(&self, slots: &impl Slots, key: Option<u64>, rng: &mut fastrand::Rng) -> Option<usize> {
        let (load, skip) = (|index| slots.load(index), |index| slots.skips(index));
        match (&self.0, key) {
            (Algorithm::RoundRobin(picker), _) => picker.pick_other(rng, skip),
            (Algorithm::Random(picker), _) => picker.pick(rng, skip),
            (Algorithm::LeastRequest(picker), _) => picker.pick_other(load, rng, skip),
            (Algorithm::PeakEwma(picker), _) => picker.pick(slots, rng),
            (Algorithm::Hash(ring), Some(key)) => ring.pick(key, slots, rng),
            (Algorithm::Hash(ring), None) => ring.keyless().pick_other(load, rng, skip),
            (Algorithm::Maglev(maglev), Some(key)) => maglev.pick(key, slots, rng),
            (Algorithm::Maglev(maglev), None) => maglev.keyless().pick_other(load, rng, skip),
            (Algorithm::First(count), _) => first::pick(*count, slots),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use proptest::prelude::*;

    use super::shares::testing::{assert_follows, names, weights};
    use super::*;
    use crate::model::policy::LoadBound;

    const BOUND: LoadBound = LoadBound::DEFAULT;
    const ALL: [Balance; 7] = [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::PeakEwma,
        Balance::Hash(BOUND),
        Balance::Maglev(BOUND),
        Balance::First,
    ];
    /// Those that follow the weights when every slot is idle, whatever the requests are.
    const BY_WEIGHT: [Balance; 3] = [Balance::RoundRobin, Balance::Random, Balance::LeastRequest];

    /// Slots by hand.
    struct Fake<L, K> {
        load: L,
        skip: K,
        latencies: Vec<f32>,
        all: u64,
    }

    impl<L: Fn(usize) -> u32, K: Fn(usize) -> bool> Slots for Fake<L, K> {
        fn load(&self, index: usize) -> u32 {
            (self.load)(index)
        }

        fn load_of_all(&self) -> u64 {
            self.all
        }

        fn latency(&self, index: usize) -> f32 {
            self.latencies.get(index).copied().unwrap_or(0.0)
        }

        fn skips(&self, index: usize) -> bool {
            (self.skip)(index)
        }
    }

    /// Idle slots, of which these are skipped.
    fn idle(skip: impl Fn(usize) -> bool) -> impl Slots {
        Fake { load: |_| 0, skip, latencies: vec![], all: 0 }
    }

    fn build(balance: Balance, numbers: &[u32]) -> Picker {
        Picker::build(balance, &weights(numbers), &names(numbers.len()))
    }

    #[test]
    fn an_empty_picker_picks_nothing() {
        for balance in ALL {
            let picker = build(balance, &[]);
            let mut rng = fastrand::Rng::with_seed(1);
            for key in [None, Some(7)] {
                assert_eq!(picker.pick(&AtomicUsize::new(0), &idle(|_| false), key, &mut rng), None, "{balance:?}");
                assert_eq!(picker.pick_other(&idle(|_| false), key, &mut rng), None, "{balance:?}");
            }
        }
    }

    #[test]
    fn the_cursor_may_wrap() {
        for balance in ALL {
            let picker = build(balance, &[3, 2, 1]);
            let cursor = AtomicUsize::new(usize::MAX - 2);
            let mut rng = fastrand::Rng::with_seed(1);
            for _ in 0..6 {
                assert!(picker.pick(&cursor, &idle(|_| false), None, &mut rng).is_some(), "{balance:?}");
            }
        }
    }

    #[test]
    fn a_dead_slot_does_not_draw_first_tries_because_of_its_retries() {
        for balance in BY_WEIGHT {
            for numbers in [&[1, 1][..], &[1, 1, 1], &[5, 1, 1]] {
                let picker = build(balance, numbers);
                let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(7));
                let mut first_tries = 0i64;
                for _ in 0..7_000 {
                    let first = picker.pick(&cursor, &idle(|_| false), None, &mut rng).expect("not empty");
                    if first == 0 {
                        first_tries += 1;
                        let other = picker.pick_other(&idle(|i| i == 0), None, &mut rng);
                        assert!(other.is_some_and(|i| i != 0));
                    }
                }
                let want = 7_000 * i64::from(numbers[0]) / i64::from(numbers.iter().sum::<u32>());
                assert!((first_tries - want).abs() < 250, "{balance:?} {numbers:?}: {first_tries}, expected {want}");
            }
        }
    }

    /// How many of 30,000 requests each slot gets, each of which ends before the next.
    fn distribution(picker: &Picker, slots: usize, key: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
        let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(3));
        let mut counts = vec![0; slots];
        for request in 0..30_000 {
            let picked = picker.pick(&cursor, &idle(|_| false), key(request), &mut rng);
            counts[picked.expect("not empty")] += 1;
        }
        counts
    }

    /// The largest distance of a slot from its share, in hundredths of that share.
    fn worst(counts: &[u64], numbers: &[u32]) -> f64 {
        let (all, total) = (counts.iter().sum::<u64>() as f64, f64::from(numbers.iter().sum::<u32>()));
        let distance = |(count, number): (&u64, &u32)| {
            let want = all * f64::from(*number) / total;
            (*count as f64 - want).abs() / want * 100.0
        };
        counts.iter().zip(numbers).map(distance).fold(0.0, f64::max)
    }

    #[test]
    fn each_algorithm_follows_the_weights_as_closely_as_it_says() {
        for (balance, most) in [
            (Balance::RoundRobin, 2.0),
            (Balance::Random, 5.0),
            (Balance::LeastRequest, 5.0),
            (Balance::PeakEwma, 5.0),
            (Balance::Maglev(LoadBound::NONE), 5.0),
            // With 160 points and more for a slot, an arc of the ring is some 8 % longer or shorter than another.
            (Balance::Hash(LoadBound::NONE), 30.0),
        ] {
            for numbers in [&[1, 1, 1][..], &[3, 2, 1], &[1; 10]] {
                let counts = distribution(&build(balance, numbers), numbers.len(), |request| {
                    balance.hashes().then(|| hashing::hash(&request.to_be_bytes()))
                });
                let worst = worst(&counts, numbers);
                assert!(worst <= most, "{balance:?} {numbers:?}: {worst} % off: {counts:?}");
            }
        }
        // In the order of the file.
        assert_eq!(distribution(&build(Balance::First, &[1, 9]), 2, |_| None), [30_000, 0]);
        let picker = build(Balance::First, &[1, 1, 1]);
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(picker.pick(&AtomicUsize::new(0), &idle(|i| i == 0), None, &mut rng), Some(1));
    }

    #[test]
    fn a_pick_allocates_nothing_whatever_the_algorithm() {
        for balance in
            [BY_WEIGHT.as_slice(), &[Balance::PeakEwma, Balance::Hash(BOUND), Balance::Maglev(BOUND), Balance::First]]
                .concat()
        {
            for slots in [3, 100, 1_000] {
                let picker = build(balance, &vec![1; slots]);
                let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(1));
                let counted = allocation_counter::measure(|| {
                    for request in 0..200u64 {
                        let key = Some(hashing::hash(&request.to_be_bytes()));
                        assert!(picker.pick(&cursor, &idle(|_| false), key, &mut rng).is_some());
                        assert!(picker.pick(&cursor, &idle(|i| i % 2 == 0), key, &mut rng).is_some());
                        assert!(picker.pick_other(&idle(|i| i > 0), key, &mut rng).is_some());
                    }
                });
                assert_eq!(counted.count_total, 0, "{balance:?}, {slots} slots");
            }
        }
    }

    #[test]
    fn a_key_has_one_slot_whatever_the_order_of_the_slots_and_without_a_key_it_is_the_least_loaded() {
        for balance in [Balance::Hash(BOUND), Balance::Maglev(BOUND)] {
            let (there, names) = (build(balance, &[1, 2, 3, 4]), names(4));
            let backwards: Vec<u64> = names.iter().rev().copied().collect();
            let back = Picker::build(balance, &weights(&[4, 3, 2, 1]), &backwards);
            let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(1));
            for request in 0..1_000u64 {
                let key = Some(hashing::hash(&request.to_be_bytes()));
                let mut of =
                    |picker: &Picker| picker.pick(&cursor, &idle(|_| false), key, &mut rng).expect("not empty");
                let (one, again, other) = (of(&there), of(&there), of(&back));
                assert_eq!((one, 3 - one), (again, other), "{balance:?} {request}");
            }
            let loads = [2, 1, 3, 4];
            let busy = Fake { load: |i: usize| loads[i], skip: |_| false, latencies: vec![], all: 10 };
            // Of 2/1, 1/2, 3/3 and 4/4.
            assert_eq!(there.pick(&cursor, &busy, None, &mut rng), Some(1), "{balance:?}");
        }
    }

    #[test]
    fn when_a_slot_leaves_few_keys_move_but_its_own() {
        for balance in [Balance::Hash(LoadBound::NONE), Balance::Maglev(LoadBound::NONE)] {
            for slots in [3usize, 10, 50] {
                let names = names(slots);
                let whole = Picker::build(balance, &weights(&vec![1; slots]), &names);
                for gone in [0, slots / 2, slots - 1] {
                    let left: Vec<usize> = (0..slots).filter(|slot| *slot != gone).collect();
                    let left_names: Vec<u64> = left.iter().map(|slot| names[*slot]).collect();
                    let fewer = Picker::build(balance, &weights(&vec![1; slots - 1]), &left_names);
                    let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(1));
                    let moved = |request: &u64| {
                        let key = Some(hashing::hash(&request.to_be_bytes()));
                        let mut of = |picker: &Picker| picker.pick(&cursor, &idle(|_| false), key, &mut rng).unwrap();
                        of(&whole) != left[of(&fewer)]
                    };
                    let share = (0..30_000)
                        .filter({
                            let mut moved = moved;
                            move |request| moved(request)
                        })
                        .count() as f64
                        / 30_000.0;
                    let ideal = 1.0 / slots as f64;
                    assert!(share <= 1.3 * ideal, "{balance:?}: slot {gone} of {slots}: {share} moved, ideal {ideal}");
                }
            }
        }
    }

    #[test]
    fn no_slot_gets_far_more_than_its_share_of_the_load_though_all_requests_have_one_key() {
        for balance in [Balance::Hash(BOUND), Balance::Maglev(BOUND)] {
            let numbers = [1, 1, 2];
            let picker = build(balance, &numbers);
            let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(1));
            let mut loads = [0u32; 3];
            for all in 0..400u64 {
                let slots = Fake { load: |i: usize| loads[i], skip: |_| false, latencies: vec![], all };
                let picked = picker.pick(&cursor, &slots, Some(7), &mut rng).expect("not empty");
                loads[picked] += 1;
                for (load, number) in loads.iter().zip(numbers) {
                    let most = (1.25 * (all + 1) as f64 * f64::from(number) / 4.0).ceil().max(f64::from(bound::FREE));
                    assert!(f64::from(*load) <= most, "{balance:?}: {loads:?} after {}", all + 1);
                }
            }
            let unbounded = if let Balance::Hash(_) = balance {
                Balance::Hash(LoadBound::NONE)
            } else {
                Balance::Maglev(LoadBound::NONE)
            };
            let first = build(unbounded, &numbers).pick(&cursor, &idle(|_| false), Some(7), &mut rng);
            let slots = Fake { load: |_| 9_999, skip: |_| false, latencies: vec![], all: 29_997 };
            assert_eq!(build(unbounded, &numbers).pick(&cursor, &slots, Some(7), &mut rng), first, "without a bound");
        }
    }

    #[test]
    fn the_slot_that_answers_first_is_preferred_and_one_that_is_not_known_is_asked_once() {
        let picker = build(Balance::PeakEwma, &[1, 1]);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut share = |loads: [u32; 2], latencies: [f32; 2]| {
            let slots = Fake { load: |i: usize| loads[i], skip: |_| false, latencies: latencies.to_vec(), all: 0 };
            (0..1_000).filter(|_| picker.pick(&AtomicUsize::new(0), &slots, None, &mut rng) == Some(0)).count()
        };
        // Loads, latencies, and how many of a thousand go to the first; a few draws meet the same slot twice.
        for (loads, latencies, want) in [
            ([0, 0], [0.010, 0.100], 950..=1_000),
            ([0, 0], [0.100, 0.010], 0..=50),
            // Nine that wait make it as slow as the other.
            ([20, 0], [0.010, 0.100], 0..=50),
            ([5, 0], [0.010, 0.100], 950..=1_000),
            // Nothing is known of it: it is asked, but by one request at a time.
            ([0, 0], [0.0, 0.010], 950..=1_000),
            ([1, 0], [0.0, 0.010], 0..=50),
        ] {
            let got = share(loads, latencies);
            assert!(want.contains(&got), "{loads:?} {latencies:?}: {got}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_pick_is_one_that_is_not_skipped_and_there_is_one_while_any_is_left(
            numbers in proptest::collection::vec((1u32..=1_000, any::<bool>(), 0u32..5), 0..40),
            seed in any::<u64>(),
            start in any::<usize>(),
            key in any::<Option<u64>>(),
        ) {
            let parts: Vec<u32> = numbers.iter().map(|n| n.0).collect();
            for balance in ALL {
                let picker = build(balance, &parts);
                let (cursor, mut rng) = (AtomicUsize::new(start), fastrand::Rng::with_seed(seed));
                let all = numbers.iter().map(|n| u64::from(n.2)).sum();
                let slots = Fake { load: |i: usize| numbers[i].2, skip: |i: usize| numbers[i].1, latencies: vec![], all };
                let any_left = numbers.iter().any(|n| !n.1);
                for _ in 0..20 {
                    let other = picker.pick_other(&slots, key, &mut rng);
                    for pick in [picker.pick(&cursor, &slots, key, &mut rng), other] {
                        prop_assert_eq!(pick.is_some(), any_left);
                        prop_assert!(pick.is_none_or(|i| i < parts.len() && !slots.skips(i)));
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
                let picker = build(Balance::RoundRobin, &vec![1; n]);
                counts[picker.pick(&cursor, &idle(|_| false), None, &mut rng).expect("not empty")] += 1;
            }
            prop_assert_eq!(cursor.load(Ordering::Relaxed), picks);
            prop_assert!(counts.iter().all(|c| (picks / n..=picks.div_ceil(n)).contains(c)));
        }
    }

    #[test]
    fn the_keys_of_a_slot_that_cannot_be_picked_spread_over_the_others() {
        for balance in [Balance::Hash(LoadBound::NONE), Balance::Maglev(LoadBound::NONE)] {
            let picker = build(balance, &[1; 10]);
            let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(1));
            let mut counts = [0u64; 10];
            for request in 0..100_000u64 {
                let key = Some(hashing::hash(&request.to_be_bytes()));
                if picker.pick(&cursor, &idle(|_| false), key, &mut rng) == Some(4) {
                    counts[picker.pick_other(&idle(|i| i == 4), key, &mut rng).expect("nine are left")] += 1;
                }
            }
            assert_eq!(counts[4], 0);
            let least = counts.iter().enumerate().filter(|(i, _)| *i != 4).map(|(_, count)| *count).min();
            let mean = counts.iter().sum::<u64>() / 9;
            assert!(least.is_some_and(|least| least * 4 > mean), "{balance:?}: {counts:?}");
        }
        assert_follows(&[10, 10], &[1, 1]);
    }
}
