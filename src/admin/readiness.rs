//! When `/readyz` is green: every named condition is met and every pool has been judged once. It latches: once green, only
//! the end of the process makes it red, because what happens to pools afterwards is what `/health` tells.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::host::ProcessInfo;
use super::json::ProcessState;
use crate::pool::{PoolStatus, Status};

/// A pool counts as judged this long after its first probe, whatever came out.
pub const JUDGED_AFTER: Duration = Duration::from_secs(30);

/// Why the process is not ready. Names no pool: `/readyz` answers without a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It was told to stop.
    #[error("draining")]
    Draining,
    /// A condition is not met.
    #[error("not done yet: {0}")]
    Condition(&'static str),
    /// No configuration runs.
    #[error("no configuration is loaded yet")]
    NoConfiguration,
    /// Pools wait for their first checks.
    #[error("{waiting} of {total} pools wait for their first checks")]
    Pools {
        /// Pools not judged yet.
        waiting: usize,
        /// All pools.
        total: usize,
    },
}

/// The rule without its latch.
pub fn judge(process: &ProcessInfo, status: &Status, now: Instant) -> Result<(), NotReady> {
    if process.state == ProcessState::Draining {
        return Err(NotReady::Draining);
    }
    if let Some(condition) = process.conditions.iter().find(|condition| !condition.met) {
        return Err(NotReady::Condition(condition.name));
    }
    if status.generation == 0 {
        return Err(NotReady::NoConfiguration);
    }
    let waiting = status.pools.iter().filter(|pool| !is_judged(pool, now)).count();
    match waiting {
        0 => Ok(()),
        waiting => Err(NotReady::Pools { waiting, total: status.pools.len() }),
    }
}

/// One upstream is healthy, or no enabled one is unknown, or its first probe is long ago.
fn is_judged(pool: &PoolStatus, now: Instant) -> bool {
    pool.judged || pool.first_probe.is_some_and(|first| now.saturating_duration_since(first) >= JUDGED_AFTER)
}

/// The rule with its latch.
#[derive(Debug, Default)]
pub struct Readiness {
    was_ready: AtomicBool,
}

impl Readiness {
    /// Whether it was ready once.
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// Whether the process is ready now.
    pub fn check(&self, process: &ProcessInfo, status: &Status, now: Instant) -> Result<(), NotReady> {
        match judge(process, status, now) {
            Ok(()) => {
                self.was_ready.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(NotReady::Draining) => Err(NotReady::Draining),
            Err(_) if self.was_ready.load(Ordering::Relaxed) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Condition;
    use crate::admin::testing::{pool, process, status};
    use crate::model::HealthState::{Healthy, Unhealthy, Unknown};

    #[tokio::test(start_paused = true)]
    async fn every_pool_must_have_been_judged_once() {
        let now = Instant::now();
        let waiting = |waiting, total| Err(NotReady::Pools { waiting, total });
        let ready = |pools| judge(&process(), &status(pools), now);
        assert_eq!(ready(vec![pool("a", &[Unknown, Unknown])]), waiting(1, 1));
        assert_eq!(ready(vec![pool("a", &[Unknown, Healthy])]), Ok(()));
        assert_eq!(ready(vec![pool("a", &[Unhealthy, Unhealthy])]), Ok(()));
        assert_eq!(ready(vec![pool("a", &[Healthy]), pool("b", &[Unknown])]), waiting(1, 2));
        let mut tired = pool("a", &[Unknown]);
        tired.first_probe = Some(now);
        assert_eq!(
            judge(&process(), &status(vec![tired.clone()]), now + JUDGED_AFTER - Duration::from_millis(1)),
            waiting(1, 1)
        );
        assert_eq!(judge(&process(), &status(vec![tired]), now + JUDGED_AFTER), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn conditions_come_before_pools_and_draining_before_all() {
        let now = Instant::now();
        let mut process = process();
        process.conditions = vec![Condition { name: "config", met: true }, Condition { name: "listeners", met: false }];
        let status = status(vec![pool("a", &[Healthy])]);
        assert_eq!(judge(&process, &status, now), Err(NotReady::Condition("listeners")));
        process.state = ProcessState::Draining;
        assert_eq!(judge(&process, &status, now), Err(NotReady::Draining));
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_configuration_it_is_red() {
        let mut empty = status(vec![]);
        empty.generation = 0;
        assert_eq!(judge(&process(), &empty, Instant::now()), Err(NotReady::NoConfiguration));
    }

    #[tokio::test(start_paused = true)]
    async fn once_green_only_draining_makes_it_red() {
        let now = Instant::now();
        let readiness = Readiness::default();
        let mut process = process();
        let good = status(vec![pool("a", &[Healthy])]);
        let bad = status(vec![pool("a", &[Unknown])]);
        assert!(readiness.check(&process, &bad, now).is_err());
        assert_eq!(readiness.check(&process, &good, now), Ok(()));
        assert_eq!(readiness.check(&process, &bad, now), Ok(()));
        process.state = ProcessState::Draining;
        assert_eq!(readiness.check(&process, &good, now), Err(NotReady::Draining));
    }
}
