//! States of pools, upstreams and checks for the tests of the modules that show them. Each test changes what it needs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::model::eligibility::eligibility;
use crate::model::policy::{ProbeSpec, Timing};
use crate::model::{Address, AdminState, HealthState, Name, Weight};

/// An enabled primary without checks or probes, in this state since `now`.
pub fn upstream(id: u64, pool: &str, address: Address, state: HealthState, now: Instant) -> UpstreamStatus {
    let pool = Name::try_new(pool).expect("a good name");
    UpstreamStatus {
        upstream: Arc::new(Upstream::new(UpstreamId(id), pool, address, Hints::none())),
        name: None,
        state,
        eligibility: eligibility(state, AdminState::Enabled, false, false),
        why: None,
        since: now,
        weight: Weight::ONE,
        slow_start: None,
        degraded: None,
        asked: None,
        backup: false,
        admin: AdminState::Enabled,
        overrides: crate::pool::Overrides::default(),
        ejection: None,
        ejections_total: 0,
        carried: false,
        retiring: false,
        unverified: false,
        streak: None,
        checks_total: 0,
        transitions_total: 1,
        last_check: None,
        next_due: now,
        decides: 0,
        checks: Vec::new(),
    }
}

/// A TCP check with the default timing that has not run and is due at `now`.
pub fn check(name: &str, target: Address, state: HealthState, now: Instant) -> CheckStatus {
    CheckStatus {
        name: name.into(),
        preset: None,
        tls_files: Arc::default(),
        spec: Arc::new(ProbeSpec::connect()),
        timing: Timing::defaults(),
        target,
        state,
        streak: None,
        last_check: None,
        certificate_expiry: None,
        next_due: now,
        in_flight: false,
        due: Due::Regular,
    }
}

/// A pool whose totals are counted from `upstreams`, without a reason to be out of order.
pub fn pool(name: &str, summary: PoolSummary, upstreams: Vec<UpstreamStatus>, now: Instant) -> PoolStatus {
    PoolStatus {
        name: Name::try_new(name).expect("a good name"),
        summary,
        healthy: upstreams.iter().filter(|u| u.state == HealthState::Healthy).count(),
        total: upstreams.len(),
        eligible: upstreams.iter().filter(|u| u.eligibility.is_eligible()).count(),
        service: ServiceState::Normal,
        fail_open: false,
        warming: false,
        warming_until: None,
        progress: None,
        out_of_order: None,
        judged: true,
        first_probe: None,
        shared: Arc::new(PoolShared::new(now)),
        upstreams,
    }
}

/// A checker that works.
pub fn checker() -> CheckerStatus {
    CheckerStatus { stale: false, restarts_total: 0, probe_panics_total: 0, probes_in_flight: 0, lag: Duration::ZERO }
}
