//! The two states of an upstream that the data path never changes: the verdict of its checks, and the operator's
//! setting.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The verdict of the checks. Only `Healthy` upstreams may receive requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// No threshold has been reached yet, or the last verdict is out of date.
    Unknown,
    /// `healthy_threshold` consecutive passes, and no `unhealthy_threshold` consecutive failures since.
    Healthy,
    /// `unhealthy_threshold` consecutive failures, and no `healthy_threshold` consecutive passes since.
    Unhealthy,
}

impl HealthState {
    /// The word used in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthState::Unknown => "unknown",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether an upstream is meant to take requests, as its operator or its agent says. The later, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// Takes requests when healthy.
    #[default]
    Enabled,
    /// Takes no new requests; those in flight finish. Still probed.
    Draining,
    /// Takes no requests. Still probed.
    Disabled,
}

impl AdminState {
    /// The word used in the file, JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AdminState::Enabled => "enabled",
            AdminState::Draining => "draining",
            AdminState::Disabled => "disabled",
        }
    }
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
