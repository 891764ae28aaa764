//! Bounded loads: a key may go to another slot than its own while that one has far more than its share of the requests
//! (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018).

use super::Slots;
use super::shares::Shares;
use crate::model::policy::LoadBound;

/// With fewer requests in flight no slot is full: a key that has a few at once should not be torn apart.
pub(super) const FREE: u32 = 8;

/// Whether this slot has so many requests in flight that the next one goes elsewhere: more than `bound` times its share of all
/// that would then be in flight.
pub(super) fn is_full(index: usize, bound: LoadBound, shares: &Shares, slots: &impl Slots) -> bool {
    let Some(hundredths) = bound.hundredths() else { return false };
    let (load, all) = (slots.load(index), slots.load_of_all() + 1);
    // load >= bound * all * share / total.
    let left = u128::from(load) * 100 * u128::from(shares.total());
    load >= FREE && left >= u128::from(hundredths) * u128::from(all) * u128::from(shares.of(index))
}
