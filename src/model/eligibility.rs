//! Which upstreams may be picked now, and why the others may not. The published view, status, metrics and `explain` all
//! call [`eligibility`], so that they agree.

use std::fmt;

use super::health::{AdminState, HealthState};

/// Whether an upstream may receive a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Eligibility {
    /// It may be picked.
    Eligible,
    /// It may not, for this reason.
    Not(Ineligible),
}

impl Eligibility {
    pub fn is_eligible(self) -> bool {
        self == Eligibility::Eligible
    }
}

/// Why an upstream may not be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ineligible {
    /// Its checks have not reached a threshold yet.
    Unknown,
    /// Its checks failed.
    Unhealthy,
    /// An operator drains it.
    Draining,
    /// An operator disabled it.
    Disabled,
    /// Live traffic ejected it.
    Ejected,
    /// It is healthy, but fewer than `min_healthy` are, so none is used.
    TooFewHealthy,
    /// It is a healthy backup that waits for a primary's first verdict.
    PrimaryAwaited,
}

impl Ineligible {
    /// The word used in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Ineligible::Unknown => "unknown",
            Ineligible::Unhealthy => "unhealthy",
            Ineligible::Draining => "draining",
            Ineligible::Disabled => "disabled",
            Ineligible::Ejected => "ejected",
            Ineligible::TooFewHealthy => "too_few_healthy",
            Ineligible::PrimaryAwaited => "primary_awaited",
        }
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The rule. With `fail_open` (configured, while too few are healthy) health and ejection do not count; the operator's
/// setting always does.
pub fn eligibility(health: HealthState, admin: AdminState, ejected: bool, fail_open: bool) -> Eligibility {
    match admin {
        AdminState::Draining => return Eligibility::Not(Ineligible::Draining),
        AdminState::Disabled => return Eligibility::Not(Ineligible::Disabled),
        AdminState::Enabled => {}
    }
    if fail_open {
        return Eligibility::Eligible;
    }
    match health {
        HealthState::Unknown => Eligibility::Not(Ineligible::Unknown),
        HealthState::Unhealthy => Eligibility::Not(Ineligible::Unhealthy),
        HealthState::Healthy if ejected => Eligibility::Not(Ineligible::Ejected),
        HealthState::Healthy => Eligibility::Eligible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AdminState::*;
    use HealthState::*;

    #[test]
    fn only_an_enabled_healthy_upstream_is_eligible() {
        for health in [Unknown, Healthy, Unhealthy] {
            for admin in [Enabled, Draining, Disabled] {
                for ejected in [false, true] {
                    let want = health == Healthy && admin == Enabled && !ejected;
                    assert_eq!(eligibility(health, admin, ejected, false).is_eligible(), want);
                    assert_eq!(eligibility(health, admin, ejected, true).is_eligible(), admin == Enabled);
                }
            }
        }
    }
}
