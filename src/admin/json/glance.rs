//! Values for display, derived from the numbers and dates of the API; for the page and for the commands.

use std::time::{Duration, SystemTime};

use super::{PoolInfo, PoolWord, UpstreamInfo};
use crate::model::HealthState;
pub use crate::model::units::glance;

impl PoolWord {
    /// What is to be looked at first: 0.
    pub fn urgency(self) -> u8 {
        match self {
            PoolWord::Unhealthy => 0,
            PoolWord::Unknown => 1,
            PoolWord::Degraded => 2,
            PoolWord::Healthy => 3,
        }
    }
}

impl PoolInfo {
    /// What its requests get while it does not serve in order; `None` while it does, and while they wait for a first verdict.
    pub fn outage(&self) -> Option<String> {
        self.down_since.as_ref()?;
        Some(match &self.other_pool {
            _ if self.fail_open => "fail open: upstreams that are not healthy are in use".to_owned(),
            Some(other) => format!("its requests go to pool {other}"),
            None => "refuses requests".to_owned(),
        })
    }

    /// How many of its upstreams take requests, where that differs from how many are healthy: by an order, `min_healthy` or
    /// an ejection.
    pub fn serving(&self) -> Option<usize> {
        let plain = self.fail_open || self.warming || self.eligible == self.healthy;
        (!plain && self.healthy > 0).then_some(self.eligible)
    }
}

impl PoolInfo {
    /// How many of its upstreams fail their requests although their checks pass.
    pub fn failing(&self) -> usize {
        let well = |upstream: &&UpstreamInfo| upstream.eligible && upstream.state == HealthState::Healthy;
        self.upstreams.iter().filter(well).filter(|upstream| upstream.why.is_some()).count()
    }
}

impl UpstreamInfo {
    /// Its host name, if its address does not show it already: a name without an address is its own address.
    pub fn name_beside(&self) -> Option<&str> {
        let shown = |name: &&str| self.address.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        self.name.as_deref().filter(|name| !shown(name))
    }

    /// Requests that failed at the upstream: no connection, a broken connection, or a 5xx response.
    pub fn errors_total(&self) -> u64 {
        let counts = [self.connect_failures_total, self.broken_total, self.responses_total.server_error];
        counts.into_iter().fold(0, u64::saturating_add)
    }

    /// The mean response time since the start; before the first request, the duration of the last check; `None` before
    /// that, and if that check gave no verdict: it may have sent nothing.
    pub fn latency(&self) -> Option<Duration> {
        let seconds = match (self.response_seconds_count, &self.last_check) {
            (0, last) => last.as_ref().filter(|last| last.result.is_some())?.duration_ms / 1e3,
            (count, _) => self.response_seconds_sum / count as f64,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// A short time with at least two digits: `0.42 ms`, `12 ms`, `1.2 s`.
pub fn short(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ..1.0 => format!("{ms:.2} ms"),
        ..10.0 => format!("{ms:.1} ms"),
        ..1_000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

/// How long ago an RFC 3339 date was; 0 if it is in the future, because clocks differ; `None` if it is not a date.
pub fn ago(date: &str, now: SystemTime) -> Option<Duration> {
    let then = humantime::parse_rfc3339(date).ok()?;
    Some(now.duration_since(then).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_are_of_every_kind_and_latency_is_of_requests_if_there_were_any() {
        let upstream = |more: serde_json::Value| -> UpstreamInfo {
            let mut value = json!({
                "address": "10.0.0.1:80", "state": "healthy", "eligible": true, "why": null,
                "since": "2026-11-21T10:00:00.000Z", "weight": 1, "backup": false, "admin": "enabled", "ejected": false,
                "carried": false, "retiring": false, "in_flight": 0, "requests_total": 0, "connections": 0,
                "connect_failures_total": 1, "broken_total": 2, "streak": null, "checks_total": 0,
                "transitions_total": 0, "last_check": null,
            });
            let more = more.as_object().expect("an object").clone();
            value.as_object_mut().expect("an object").extend(more);
            serde_json::from_value(value).expect("the shape of the API")
        };
        let last = json!({ "at": "2026-11-21T10:00:00.000Z", "result": "pass", "code": "L7OK", "status": 200,
                           "duration_ms": 1.5, "reason": "200" });
        let answers = json!({ "1xx": 0, "2xx": 100, "3xx": 5, "4xx": 7, "5xx": 4 });
        let quiet = upstream(json!({}));
        assert_eq!((quiet.errors_total(), quiet.latency()), (3, None));
        let checked = upstream(json!({ "last_check": last }));
        assert_eq!(checked.latency(), Some(Duration::from_micros(1_500)));
        let asked = upstream(json!({ "last_check": last, "responses_total": answers,
                                     "response_seconds_count": 116, "response_seconds_sum": 2.32 }));
        assert_eq!((asked.errors_total(), asked.latency()), (7, Some(Duration::from_millis(20))));
        let unresolved = json!({ "at": "2026-11-21T10:00:00.000Z", "result": null, "code": "NORES", "status": null,
                                 "duration_ms": 0.0, "reason": "api.internal does not resolve" });
        assert_eq!(upstream(json!({ "last_check": unresolved })).latency(), None, "nothing was sent");
        for (address, name, want) in [
            ("10.0.0.1:80", Some("api.internal"), Some("api.internal")),
            ("api.internal:80", Some("api.internal"), None),
            ("api.internal.example:80", Some("api.internal"), Some("api.internal")),
            ("10.0.0.1:80", None, None),
        ] {
            assert_eq!(upstream(json!({ "address": address, "name": name })).name_beside(), want, "{address}");
        }
        let nonsense = upstream(json!({ "response_seconds_count": 1, "response_seconds_sum": -1.0 }));
        assert_eq!(nonsense.latency(), None);
    }

    #[test]
    fn a_pool_says_what_its_requests_get_and_how_many_of_its_upstreams_take_them() {
        let pool = |eligible: usize, more: serde_json::Value| -> (Option<String>, Option<usize>) {
            let mut value = json!({ "status": "unhealthy", "healthy": 2, "total": 3, "eligible": eligible, "fail_open": false,
                                    "warming": false, "waiting": 0, "upstreams": [] });
            value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            let pool: PoolInfo = serde_json::from_value(value).expect("the shape of the API");
            (pool.outage(), pool.serving())
        };
        let since = "2026-11-21T10:00:00.000Z";
        assert_eq!(pool(2, json!({})), (None, None));
        assert_eq!(pool(1, json!({})), (None, Some(1)), "one is drained");
        assert_eq!(pool(0, json!({ "down_since": since })), (Some("refuses requests".into()), Some(0)));
        let other = json!({ "down_since": since, "other_pool": "web" });
        assert_eq!(pool(0, other), (Some("its requests go to pool web".into()), Some(0)));
        let open = json!({ "down_since": since, "fail_open": true });
        assert_eq!(pool(3, open).1, None, "what is not healthy is in use");
        assert_eq!(pool(3, json!({ "warming": true })), (None, None), "removed ones serve");
        assert_eq!(pool(0, json!({ "healthy": 0, "down_since": since })).1, None, "as the number of healthy ones says");
    }

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        for (seconds, want) in [
            (0, "0s"),
            (12, "12s"),
            (60, "1m"),
            (125, "2m 5s"),
            (3_600, "1h"),
            (3_659, "1h"),
            (7_384, "2h 3m"),
            (277_200, "3d 5h"),
        ] {
            assert_eq!(glance(Duration::from_secs(seconds)), want);
        }
    }

    #[test]
    fn a_short_time_has_two_digits() {
        for (us, want) in
            [(420, "0.42 ms"), (1_900, "1.9 ms"), (12_345, "12 ms"), (999_000, "999 ms"), (1_234_000, "1.2 s")]
        {
            assert_eq!(short(Duration::from_micros(us)), want);
        }
    }

    #[test]
    fn a_date_in_the_future_is_zero_ago() {
        let now = humantime::parse_rfc3339("2026-11-21T10:00:00.000Z").unwrap();
        assert_eq!(ago("2026-11-21T09:59:00.000Z", now), Some(Duration::from_secs(60)));
        assert_eq!(ago("2026-11-21T10:01:00.000Z", now), Some(Duration::ZERO));
        assert_eq!(ago("yesterday", now), None);
    }
}
