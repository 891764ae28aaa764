//! Who may be picked now, and why not. The one answer to that question: the published view, status, metrics and
//! `explain` all call [`eligibility`].

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
    /// Whether it may be picked.
    pub fn is_eligible(self) -> bool {
        self == Eligibility::Eligible
    }
}

/// Why an upstream is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ineligible {
    /// Its checks have not reached a threshold yet.
    Unknown,
    /// Its checks failed.
    Unhealthy,
    /// The operator drains it.
    Draining,
    /// The operator disabled it.
    Disabled,
    /// Live traffic ejected it.
    Ejected,
    /// It is healthy, but fewer than `min_healthy` are, and fewer count as none.
    TooFewHealthy,
    /// It is a healthy backup, and a primary's first verdict is awaited.
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

/// The rule itself. With `fail_open` (the pool's written policy, while too few are healthy) health and ejection do not
/// count; what the operator said always does.
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
