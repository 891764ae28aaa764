//! Weighted round robin: over one cycle every slot gets exactly its share, and its turns are spread over the cycle.
//!
//! Every pick draws a ticket from a shared cursor, and a ticket is a position in a fixed order, so there is no state to
//! lock and exactness does not depend on the order of threads. The order is nginx's smooth one (`a a b a c a a` for 5,
//! 1, 1) if the cycle is small enough to be stored, otherwise a walk over the line of shares in steps near the golden
//! section of its length: such steps reach every piece at even distances, and reaching every position once makes the
//! counts exact.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::shares::{Shares, gcd};
use crate::model::FineWeight;

/// The longest cycle that is stored: 64 KiB per view.
const TABLE_SLOTS_MAX: u64 = 16_384;
/// The most work spent on computing one (cycle times slots), about a millisecond: it is done on every change of the
/// eligible set.
const TABLE_STEPS_MAX: u64 = 1 << 20;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct RoundRobin {
    shares: Shares,
    order: Order,
}

#[derive(Debug)]
enum Order {
    /// Slot by slot; also the order without slots.
    Even,
    /// The whole cycle.
    Table(Box<[u32]>),
    /// Steps of this length along the line; coprime to its length.
    Walk(u64),
}

impl RoundRobin {
    pub(super) fn build(weights: &[FineWeight]) -> RoundRobin {
        let shares = Shares::new(weights);
        let (n, total) = (shares.len() as u64, shares.total());
        let order = if shares.is_even() {
            Order::Even
        } else if total <= TABLE_SLOTS_MAX && total * n <= TABLE_STEPS_MAX {
            Order::Table(smooth(&shares))
        } else {
            Order::Walk(golden_step(total))
        };
        RoundRobin { shares, order }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The slot whose turn it is. If it is skipped, a weighted draw among the others replaces it.
    pub(super) fn pick(
        &self,
        cursor: &AtomicUsize,
        rng: &mut fastrand::Rng,
        skip: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let turn = self.turn(cursor)?;
        if skip(turn) { self.pick_other(rng, skip) } else { Some(turn) }
    }

    /// A weighted draw that takes no turn.
    pub(super) fn pick_other(&self, rng: &mut fastrand::Rng, skip: impl Fn(usize) -> bool) -> Option<usize> {
        self.shares.draw_unskipped(rng, skip)
    }

    /// Takes the next turn; `None` without slots.
    pub(super) fn turn(&self, cursor: &AtomicUsize) -> Option<usize> {
        let total = self.shares.total();
        if total == 0 {
            return None;
        }
        let place = cursor.fetch_add(1, Ordering::Relaxed) as u64 % total;
        Some(match &self.order {
            Order::Even => place as usize,
            Order::Table(slots) => slots[place as usize] as usize,
            Order::Walk(step) => {
                let position = u128::from(place) * u128::from(*step) % u128::from(total);
                self.shares.at(position as u64)
            }
        })
    }
}

/// nginx's order (`ngx_http_upstream_get_peer`): every slot gains its share, the one with the most takes the turn and
/// pays the total; the first of equals wins.
fn smooth(shares: &Shares) -> Box<[u32]> {
    let total = shares.total() as i64;
    let gains: Vec<i64> = (0..shares.len()).map(|i| shares.of(i) as i64).collect();
    let mut credit = vec![0i64; gains.len()];
    (0..total)
        .map(|_| {
            let mut richest = 0;
            for (i, gain) in gains.iter().enumerate() {
                credit[i] += gain;
                if credit[i] > credit[richest] {
                    richest = i;
                }
            }
            credit[richest] -= total;
            richest as u32
        })
        .collect()
}

/// The first number from the golden section of `total` upwards that is coprime to it, so that its steps reach every
/// position.
fn golden_step(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_749_894_9) as u64;
    (golden.max(1)..).find(|step| gcd(*step, total) == 1).expect("total + 1 is prime to total")
}

#[cfg(test)]
mod tests {
    use super::super::shares::testing::{assert_follows, weights};
    use super::*;
    use proptest::prelude::*;

    fn picks(picker: &RoundRobin, cursor: &AtomicUsize, n: u64) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(1);
        (0..n).map(|_| picker.pick(cursor, &mut rng, |_| false).expect("not empty")).collect()
    }

    fn counts(picks: &[usize], n: usize) -> Vec<u64> {
        let mut counts = vec![0; n];
        picks.iter().for_each(|i| counts[*i] += 1);
        counts
    }

    #[test]
    fn small_orders_are_those_of_nginx() {
        for (numbers, want) in [
            (&[1][..], "a"),
            (&[1, 1, 1], "abc"),
            (&[5, 1, 1], "aabacaa"),
            (&[50, 10, 10], "aabacaa"),
            (&[4, 2, 1], "abacaba"),
            (&[1, 2], "bab"),
        ] {
            let picker = RoundRobin::build(&weights(numbers));
            let order = picks(&picker, &AtomicUsize::new(0), want.len() as u64);
            let order: String = order.iter().map(|i| char::from(b'a' + *i as u8)).collect();
            assert_eq!(order, want, "{numbers:?}");
        }
    }

    #[test]
    fn over_a_cycle_every_slot_gets_exactly_its_share_wherever_it_begins() {
        let many: Vec<u32> = (1..=300).collect();
        let odd: Vec<u32> = (0..97).map(|i| 1 + i * 7919 % 1_000).collect();
        for numbers in [&[1][..], &[3, 1], &[7, 5, 3, 2], &[1_000, 999], &[1_000, 1, 1], &[8, 8, 8], &many, &odd] {
            let picker = RoundRobin::build(&weights(numbers));
            let total = picker.shares.total();
            let cursor = AtomicUsize::new(12_345);
            let got = counts(&picks(&picker, &cursor, total), numbers.len());
            let want: Vec<u64> = (0..numbers.len()).map(|i| picker.shares.of(i)).collect();
            assert_eq!(got, want);
        }
    }

    #[test]
    fn only_short_cycles_are_stored() {
        let written = |numbers: &[u32]| match RoundRobin::build(&weights(numbers)).order {
            Order::Even => "even",
            Order::Table(_) => "table",
            Order::Walk(_) => "walk",
        };
        assert_eq!(written(&[]), "even");
        assert_eq!(written(&[1; 10_000]), "even");
        assert_eq!(written(&[5, 1, 1]), "table");
        assert_eq!(written(&[&[996; 20][..], &[997]].concat()), "walk");
        assert_eq!(written(&(0..2_000).map(|i| 1 + i % 2).collect::<Vec<_>>()), "walk");
    }

    #[test]
    fn turns_are_spread_over_the_cycle() {
        let odd: Vec<u32> = (0..97).map(|i| 1 + i * 7919 % 1_000).collect();
        let halves: Vec<u32> = (0..2_000).map(|i| 1 + i % 2).collect();
        for numbers in [&[5, 1, 1][..], &[7, 5, 3, 2], &[100, 1], &odd, &halves] {
            let picker = RoundRobin::build(&weights(numbers));
            let total = picker.shares.total();
            let mut seen = vec![0u64; numbers.len()];
            for (k, pick) in picks(&picker, &AtomicUsize::new(0), total).into_iter().enumerate() {
                seen[pick] += 1;
                let fair = (k + 1) as f64 * picker.shares.of(pick) as f64 / total as f64;
                // How far the picked slot is ahead of its share. With a stored cycle, never a whole turn. The walk's
                // bound grows with the logarithm of the cycle.
                let bound = if matches!(picker.order, Order::Walk(_)) { 4.0 } else { 1.0 };
                assert!(seen[pick] as f64 - fair < bound, "slot {pick} after {k}: {} of {fair}", seen[pick]);
            }
        }
    }

    #[test]
    fn several_pickers_on_one_cursor_continue_where_the_last_one_stopped() {
        let (cursor, numbers) = (AtomicUsize::new(0), [1, 1, 1, 1]);
        let first = RoundRobin::build(&weights(&numbers));
        assert_eq!(picks(&first, &cursor, 2), [0, 1]);
        let second = RoundRobin::build(&weights(&numbers));
        assert_eq!(picks(&second, &cursor, 3), [2, 3, 0]);
    }

    #[test]
    fn the_turns_of_a_skipped_slot_are_divided_by_weight() {
        let numbers = [4, 1, 3];
        let picker = RoundRobin::build(&weights(&numbers));
        let (cursor, mut rng) = (AtomicUsize::new(0), fastrand::Rng::with_seed(5));
        let mut counts = [0; 3];
        for _ in 0..40_000 {
            counts[picker.pick(&cursor, &mut rng, |i| i == 0).expect("two are left")] += 1;
        }
        assert_eq!(counts[0], 0);
        assert_follows(&counts[1..], &numbers[1..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn counts_are_exact_for_any_weights(numbers in proptest::collection::vec(1u32..=1_000, 1..60)) {
            let picker = RoundRobin::build(&weights(&numbers));
            let got = counts(&picks(&picker, &AtomicUsize::new(0), picker.shares.total()), numbers.len());
            let want: Vec<u64> = (0..numbers.len()).map(|i| picker.shares.of(i)).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn the_step_is_prime_to_the_total(total in 2u64..5_000_000_000) {
            prop_assert_eq!(gcd(golden_step(total), total), 1);
        }
    }
}
