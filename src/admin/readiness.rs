//! When `/readyz` returns 200: every named condition is met and every pool has had a first verdict. It latches: once
//! ready, only the end of the process makes it not ready again; what happens to pools later is reported by `/health`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::host::{Host, ProcessInfo};
use super::json::{ProbeReply, ProcessState};
use super::reply;
use crate::model::{AdminState, HealthState};
use crate::pool::{PoolStatus, Status};

/// A pool counts as judged this long after its first probe, whatever the results.
pub const JUDGED_AFTER: Duration = Duration::from_secs(30);

/// Why the process is not ready. Names no pool, because `/readyz` needs no token; but it names a host name that does
/// not resolve, because an operator must fix that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The process is stopping.
    #[error("draining")]
    Draining,
    /// A condition is not met.
    #[error("not ready yet: {0}")]
    Condition(&'static str),
    /// No configuration is applied yet.
    #[error("no configuration is loaded yet")]
    NoConfiguration,
    /// Pools wait for their first checks, or for addresses to check.
    #[error("{}", waits(*.waiting, *.total, .unresolved))]
    Pools {
        /// Pools not judged yet.
        waiting: usize,
        /// All pools.
        total: usize,
        /// Those of them that wait only for host names.
        unresolved: Unresolved,
    },
}

/// Pools that wait for host names to resolve, before which nothing can be checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unresolved {
    /// How many.
    pub pools: usize,
    /// The first names, [`NAMED_MAX`] at most.
    pub names: Vec<Arc<str>>,
    /// How many more names there are.
    pub more: usize,
}

/// Host names in one reason.
const NAMED_MAX: usize = 3;

fn waits(waiting: usize, total: usize, unresolved: &Unresolved) -> String {
    let verb = |count| if count == 1 { "waits" } else { "wait" };
    let checks = waiting - unresolved.pools;
    let mut parts = vec![];
    if checks > 0 {
        parts.push(format!("{checks} of {total} pools {} for first checks", verb(checks)));
    }
    if unresolved.pools > 0 {
        let mut names = unresolved.names.join(", ");
        if unresolved.more > 0 {
            names.push_str(&format!(" and {} more", unresolved.more));
        }
        let what = if unresolved.names.len() > 1 { "host names" } else { "the host name" };
        let pools = unresolved.pools;
        parts.push(format!("{pools} of {total} pools {} for {what} {names} to resolve", verb(pools)));
    }
    parts.join("; ")
}

/// The host names that a pool waits for; empty if it also waits for checks of addresses.
fn awaited_names(pool: &PoolStatus) -> Vec<&Arc<str>> {
    let unknown = pool
        .upstreams
        .iter()
        .filter(|u| !u.retiring && u.admin == AdminState::Enabled && u.state == HealthState::Unknown);
    let names: Option<Vec<_>> = unknown.map(|u| u.upstream.address.host_name()).collect();
    names.unwrap_or_default()
}

/// The rule without the latch.
pub fn evaluate(process: &ProcessInfo, status: &Status, now: Instant) -> Result<(), NotReady> {
    if process.state == ProcessState::Draining {
        return Err(NotReady::Draining);
    }
    if let Some(condition) = process.conditions.iter().find(|condition| !condition.met) {
        return Err(NotReady::Condition(condition.name));
    }
    if status.generation == 0 {
        return Err(NotReady::NoConfiguration);
    }
    let mut unresolved = Unresolved::default();
    let mut waiting = 0;
    for pool in status.pools.iter().filter(|pool| !is_judged(pool, now)) {
        waiting += 1;
        let names = awaited_names(pool);
        unresolved.pools += usize::from(!names.is_empty());
        for name in names.into_iter().filter(|name| !unresolved.names.contains(name)).collect::<Vec<_>>() {
            if unresolved.names.len() < NAMED_MAX {
                unresolved.names.push(name.clone());
            } else {
                unresolved.more += 1;
            }
        }
    }
    match waiting {
        0 => Ok(()),
        waiting => Err(NotReady::Pools { waiting, total: status.pools.len(), unresolved }),
    }
}

/// One upstream is healthy, or no enabled one is unknown, or the first probe was [`JUDGED_AFTER`] ago.
fn is_judged(pool: &PoolStatus, now: Instant) -> bool {
    pool.judged || pool.first_probe.is_some_and(|first| now.saturating_duration_since(first) >= JUDGED_AFTER)
}

/// The rule with the latch.
#[derive(Debug, Default)]
pub struct Readiness {
    was_ready: AtomicBool,
    /// Why it was not, at the last evaluation.
    not_ready: Mutex<Option<NotReady>>,
}

/// How often readiness is evaluated until the process is ready.
const POLL: Duration = Duration::from_millis(50);
/// Pause between two evaluations, as a multiple of the time one takes: they use at most a quarter of the thread.
const SHARE: u32 = 3;

/// Evaluates readiness until the process is ready, so that it latches even without requests.
pub async fn watch(host: Arc<dyn Host>) {
    loop {
        let begin = Instant::now();
        if host.readiness().was_ready() || host.readiness().evaluate(&*host, begin) {
            return;
        }
        tokio::time::sleep(POLL.max(SHARE * begin.elapsed())).await;
    }
}

/// The JSON of an answer, with its line end.
pub fn to_json(ready: &Result<(), NotReady>) -> String {
    let answer = match ready {
        Ok(()) => ProbeReply { status: "ready".into(), reason: None },
        Err(why) => ProbeReply { status: "not_ready".into(), reason: Some(why.to_string()) },
    };
    String::from_utf8_lossy(&reply::to_json(&answer)).into_owned()
}

impl Readiness {
    /// Whether it was ready once.
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    /// Whether a process in this state is ready, or why not, as of the last evaluation. Returns at once.
    pub fn now(&self, state: ProcessState) -> Result<(), NotReady> {
        match (state, self.was_ready()) {
            (ProcessState::Draining, _) => Err(NotReady::Draining),
            (ProcessState::Starting | ProcessState::Running, true) => Ok(()),
            (ProcessState::Starting | ProcessState::Running, false) => {
                Err(self.not_ready.lock().clone().unwrap_or(NotReady::NoConfiguration))
            }
        }
    }

    /// Evaluates it anew; true if the process is ready.
    pub fn evaluate(&self, host: &dyn Host, now: Instant) -> bool {
        let before = self.was_ready();
        match self.check(&host.process(), &host.status(now), now) {
            Ok(()) => {
                if !before {
                    tracing::info!("Ready");
                }
                true
            }
            Err(why) => {
                *self.not_ready.lock() = Some(why);
                false
            }
        }
    }

    /// Whether the process is ready now.
    pub fn check(&self, process: &ProcessInfo, status: &Status, now: Instant) -> Result<(), NotReady> {
        match evaluate(process, status, now) {
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
    use crate::admin::testing::{finish, name as testing_name, pool, process, status, upstream};
    use crate::model::HealthState::{Healthy, Unhealthy, Unknown};
    use crate::pool::{Hints, Upstream, UpstreamId};

    #[tokio::test(start_paused = true)]
    async fn readiness_needs_a_verdict_of_every_pool() {
        let now = Instant::now();
        let waiting = |waiting, total| Err(NotReady::Pools { waiting, total, unresolved: Unresolved::default() });
        let ready = |pools| evaluate(&process(), &status(pools), now);
        assert_eq!(ready(vec![pool("a", &[Unknown, Unknown])]), waiting(1, 1));
        assert_eq!(ready(vec![pool("a", &[Unknown, Healthy])]), Ok(()));
        assert_eq!(ready(vec![pool("a", &[Unhealthy, Unhealthy])]), Ok(()));
        assert_eq!(ready(vec![pool("a", &[Healthy]), pool("b", &[Unknown])]), waiting(1, 2));
        let mut tired = pool("a", &[Unknown]);
        tired.first_probe = Some(now);
        assert_eq!(
            evaluate(&process(), &status(vec![tired.clone()]), now + JUDGED_AFTER - Duration::from_millis(1)),
            waiting(1, 1)
        );
        assert_eq!(evaluate(&process(), &status(vec![tired]), now + JUDGED_AFTER), Ok(()));
    }

    /// A pool of host names that have no address.
    fn unresolved(pool_name: &str, names: &[&str]) -> PoolStatus {
        let upstreams = names.iter().enumerate().map(|(i, name)| {
            let mut upstream = upstream(pool_name, i + 1, Unknown);
            let (id, address) = (UpstreamId(i as u64), name.parse().expect("a good address"));
            upstream.upstream = Arc::new(Upstream::new(id, testing_name(pool_name), address, Hints::none()));
            upstream
        });
        finish(pool_name, upstreams.collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_waits_for_a_host_name_names_it() {
        let reason = |pools| evaluate(&process(), &status(pools), Instant::now()).unwrap_err().to_string();
        let api = || unresolved("a", &["api.internal:80"]);
        assert_eq!(reason(vec![api()]), "1 of 1 pools waits for the host name api.internal to resolve");
        assert_eq!(
            reason(vec![api(), pool("b", &[Unknown]), pool("c", &[Healthy])]),
            "1 of 3 pools waits for first checks; 1 of 3 pools waits for the host name api.internal to resolve"
        );
        let many: Vec<PoolStatus> = (0..5).map(|i| unresolved("a", &[&format!("n{i}:80"), "api:80"])).collect();
        assert_eq!(reason(many), "5 of 5 pools wait for host names n0, api, n1 and 3 more to resolve");
        let mut both = api();
        both.upstreams.push(upstream("a", 2, Unknown));
        assert_eq!(reason(vec![both]), "1 of 1 pools waits for first checks");
    }

    #[tokio::test(start_paused = true)]
    async fn draining_is_reported_before_conditions_and_those_before_pools() {
        let now = Instant::now();
        let mut process = process();
        process.conditions = vec![Condition { name: "config", met: true }, Condition { name: "listeners", met: false }];
        let status = status(vec![pool("a", &[Healthy])]);
        assert_eq!(evaluate(&process, &status, now), Err(NotReady::Condition("listeners")));
        process.state = ProcessState::Draining;
        assert_eq!(evaluate(&process, &status, now), Err(NotReady::Draining));
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_configuration_it_is_not_ready() {
        let mut empty = status(vec![]);
        empty.generation = 0;
        assert_eq!(evaluate(&process(), &empty, Instant::now()), Err(NotReady::NoConfiguration));
    }

    #[tokio::test(start_paused = true)]
    async fn once_ready_only_draining_makes_it_not_ready() {
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
