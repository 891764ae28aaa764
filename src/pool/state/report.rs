//! Turns changes of pools into events: shows each changed pool, and the pools that use it, to its watch.

use std::collections::{BTreeSet, HashSet};

use tokio::time::Instant;

use super::super::events::{EventKind, WarmingPhase};
use super::super::outage::{Notice, Serving, Way};
use super::super::pools::PoolState;
use super::super::view::{Otherwise, Service};
use super::{Effects, State};
use crate::model::policy::FALLBACK_POOLS_MAX;

impl State {
    /// Records the index of each pool, and which pools use it. Call it after the list of pools changed.
    pub(super) fn index_pools(&mut self) {
        self.by_id = self.pools.iter().enumerate().map(|(pool_index, pool)| (pool.id, pool_index)).collect();
        self.users.clear();
        for (pool_index, pool) in self.pools.iter().enumerate() {
            if let Some(other) = pool.fallback {
                self.users.entry(other).or_default().push(pool_index);
            }
        }
    }

    /// Reports the changes of these pools, and of pools that send their requests to them. Looks at each pool a few
    /// times at most, however many have changed.
    pub(super) fn report(&mut self, changed: BTreeSet<usize>, now: Instant, effects: &mut Effects) {
        let mut waiting: Vec<usize> = changed.into_iter().rev().collect();
        let mut looked_at = HashSet::new();
        while let Some(pool_index) = waiting.pop() {
            let serving = self.serving(pool_index);
            let differs = serving != self.pools[pool_index].serving;
            self.pools[pool_index].serving = serving;
            self.observe(pool_index, now, effects);
            // Chains have no cycles; the set keeps one look at each user from becoming many.
            if differs && let Some(users) = self.users.get(&self.pools[pool_index].id) {
                let affected = users.iter().filter(|user| self.pools[**user].service != Service::Open);
                waiting.extend(affected.filter(|user| looked_at.insert((pool_index, **user))));
            }
        }
    }

    /// How a pool serves, from the view of its requests, which follow the chain of other pools.
    fn serving(&self, pool_index: usize) -> Serving {
        let mut pool: &PoolState = &self.pools[pool_index];
        for _ in 0..FALLBACK_POOLS_MAX {
            let own = pool.id == self.pools[pool_index].id;
            let next = match pool.service {
                Service::Open if own => return Serving::InOrder,
                Service::FailOpen if own => return Serving::Out(Way::FailOpen),
                Service::Open | Service::FailOpen => return Serving::Out(Way::OtherPool(pool.policy.name.clone())),
                Service::Waiting { .. } => return Serving::Awaited,
                Service::NoneEligible(Otherwise::Reject | Otherwise::FailOpen) => break,
                Service::NoneEligible(Otherwise::Pool(other)) => self.by_id.get(&other),
            };
            match next {
                Some(next) => pool = &self.pools[*next],
                None => break,
            }
        }
        Serving::Out(Way::Refuse)
    }

    fn observe(&mut self, pool_index: usize, now: Instant, effects: &mut Effects) {
        let pool = &mut self.pools[pool_index];
        let (strength, seen) = (pool.strength, pool.seen());
        for notice in pool.watch.observe(&seen, now) {
            let pool = &self.pools[pool_index];
            let name = pool.policy.name.clone();
            let reason_and_remedy = || {
                let causes = pool.causes(&self.checks);
                (causes.reason(), causes.remedy(&pool.policy.name))
            };
            let kind = match notice {
                Notice::Began(way) => {
                    let (reason, remedy) = reason_and_remedy();
                    EventKind::OutageBegan { pool: name, way, reason, remedy }
                }
                Notice::Ended { way, serves, lasted } => EventKind::OutageEnded { pool: name, way, serves, lasted },
                Notice::BelowHalf(on) => {
                    EventKind::BelowHalf { pool: name, on, able: strength.able, total: strength.total }
                }
                Notice::WarmingBegan => {
                    let until = pool.warming.map_or(now, |warming| warming.until);
                    let (retiring, at_most) = (pool.retiring(), until.saturating_duration_since(now));
                    let progress = pool.progress();
                    EventKind::Warming { pool: name, phase: WarmingPhase::Began { retiring, at_most, progress } }
                }
                Notice::WarmingEnded { well: true, lasted } => {
                    EventKind::Warming { pool: name, phase: WarmingPhase::Ended { lasted } }
                }
                Notice::WarmingEnded { well: false, lasted } => {
                    let (reason, remedy) = reason_and_remedy();
                    EventKind::Warming { pool: name, phase: WarmingPhase::Failed { lasted, reason, remedy } }
                }
            };
            self.log(kind, now, effects);
        }
    }
}
