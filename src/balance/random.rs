//! Weighted random choice: a position on the line of shares, and a binary search for its slot. Has no state, so many
//! balancers in front of the same upstreams do not fall into step.

use super::shares::Shares;
use crate::model::FineWeight;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Random(Shares);

impl Random {
    pub(super) fn build(weights: &[FineWeight]) -> Random {
        Random(Shares::new(weights))
    }

    pub(super) fn pick(&self, rng: &mut fastrand::Rng, skip: impl Fn(usize) -> bool) -> Option<usize> {
        self.0.draw_unskipped(rng, skip)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shares::testing::{assert_follows, weights};
    use super::*;

    #[test]
    fn picks_follow_the_weights() {
        for numbers in [&[1][..], &[1, 1, 1], &[5, 1, 1], &[1_000, 1], &[3; 40]] {
            let picker = Random::build(&weights(numbers));
            let mut rng = fastrand::Rng::with_seed(11);
            let mut counts = vec![0; numbers.len()];
            for _ in 0..60_000 {
                counts[picker.pick(&mut rng, |_| false).expect("not empty")] += 1;
            }
            assert_follows(&counts, numbers);
        }
    }
}
