//! How many retries a pool may make: a share of its requests of the last ten seconds, and a few each second in any case. When
//! many requests fail at once, trying each of them again would double the load of the upstreams that are left. The budget is
//! Finagle's, which Envoy and Linkerd have taken over.
//!
//! Requests are counted by each worker for itself. All workers share the count of retries: one write for each of them.

use super::recent::{Recent, SECONDS};
use super::sharded::Sharded;
use crate::model::policy::RetryBudget;

/// Requests and retries of the last seconds.
#[derive(Debug, Default)]
pub struct Budget {
    requests: Sharded<Recent>,
    retries: Recent,
}

impl Budget {
    /// Counts a request. `second`: the number of this second, which never goes back.
    pub fn on_request(&self, second: u64) {
        self.requests.mine().add(second);
    }

    /// Takes a retry out of the budget; false if there is none left. Workers that ask at the same moment may take a few more.
    pub fn try_draw(&self, policy: &RetryBudget, second: u64) -> bool {
        let requests: u64 = self.requests.all().map(|recent| recent.sum(second)).sum();
        let share = policy.share.of_rounded_up(usize::try_from(requests).unwrap_or(usize::MAX));
        let most = u64::from(policy.min_per_second) * SECONDS + u64::try_from(share).unwrap_or(u64::MAX);
        if self.retries.sum(second) >= most {
            return false;
        }
        self.retries.add(second);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ratio;

    fn policy(share: f64, min_per_second: u32) -> RetryBudget {
        RetryBudget { share: Ratio::try_new(share).unwrap(), min_per_second }
    }

    /// How many of so many draws succeed.
    fn draws(budget: &Budget, policy: &RetryBudget, second: u64, times: usize) -> usize {
        (0..times).filter(|_| budget.try_draw(policy, second)).count()
    }

    #[test]
    fn retries_are_a_share_of_the_requests_of_ten_seconds_and_a_few_in_any_case() {
        // Requests in each of the ten seconds, the policy, and how many retries that allows.
        for (requests, policy, want) in [
            (0, policy(0.2, 10), 100),
            (0, policy(0.2, 0), 0),
            (100, policy(0.2, 0), 200),
            (100, policy(0.2, 10), 300),
            (100, policy(0.0, 1), 10),
            (100, policy(1.0, 0), 1_000),
            (0, policy(0.5, 0), 0),
        ] {
            let budget = Budget::default();
            for second in 50..60 {
                (0..requests).for_each(|_| budget.on_request(second));
            }
            assert_eq!(draws(&budget, &policy, 59, 2_000), want, "{requests} {policy:?}");
        }
    }

    #[test]
    fn what_is_ten_seconds_old_counts_no_longer() {
        let (budget, policy) = (Budget::default(), policy(0.5, 0));
        (0..100).for_each(|_| budget.on_request(0));
        assert_eq!(draws(&budget, &policy, 0, 10), 10);
        assert_eq!(draws(&budget, &policy, 9, 100), 40, "the requests of second 0, less what was drawn then");
        assert_eq!(draws(&budget, &policy, 10, 100), 0, "no request in the last ten seconds");
        (0..100).for_each(|_| budget.on_request(12));
        assert_eq!(draws(&budget, &policy, 12, 100), 10, "those drawn in second 9 still count");
        assert_eq!(draws(&budget, &policy, 19, 100), 40, "and now they do not");
        // After a long silence, a slot that is used again begins at nothing.
        (0..10).for_each(|_| budget.on_request(12 + 16 * 1_000));
        assert_eq!(draws(&budget, &policy, 12 + 16 * 1_000, 100), 5);
    }

    #[test]
    fn requests_of_all_workers_count() {
        let budget = Budget::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| budget.on_request(3)));
            }
        });
        let drawn = draws(&budget, &policy(0.5, 0), 3, 200);
        assert!((96..=100).contains(&drawn), "threads that share a shard may lose one when a second begins: {drawn}");
    }
}
