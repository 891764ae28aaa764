//! Turns the host's data into the JSON of the API: instants into dates, states into words, counters into numbers. The
//! clock is an argument.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::clock::Clock;
use super::host::{CheckAnswer, LastReload, ProcessInfo, ReloadAnswer};
use super::json::*;
use crate::model::date;
use crate::pool::{
    Answered, CheckStatus, LastCheck, LastFault, OutOfOrder, Override, PoolStatus, PoolSummary, Status, Streak,
    UpstreamStatus, Way,
};

mod events;

pub use self::events::event;

/// `GET /api/v1/status`.
pub fn status(status: &Status, process: &ProcessInfo, ready: bool, clock: &Clock, now: Instant) -> StatusReply {
    StatusReply {
        version: crate::VERSION.to_string(),
        generation: status.generation,
        pid: process.pid,
        uptime_seconds: uptime(process, now),
        state: process.state,
        ready,
        listeners: listeners(process),
        requests_by_lane: process.by_lane.iter().map(|(lane, count)| (lane.as_str().to_owned(), *count)).collect(),
        config: ConfigInfo {
            file: process.config.file.clone(),
            loaded_at: clock.date(process.config.loaded_at),
            hash: process.config.hash.to_string(),
            last_reload: process.config.last_reload.as_ref().map(|last| last_reload(last, clock)),
        },
        checker: CheckerInfo {
            stale: status.checker.stale,
            restarts_total: status.checker.restarts_total,
            probe_panics_total: status.checker.probe_panics_total,
            probes_in_flight: status.checker.probes_in_flight,
            probe_lag_ms: millis(status.checker.lag),
        },
        pools: Ordered(status.pools.iter().map(|pool| (pool.name.to_string(), pool_info(pool, clock, now))).collect()),
    }
}

/// `GET /api/v1/process`.
pub fn process(process: &ProcessInfo) -> ProcessReply {
    ProcessReply {
        version: crate::VERSION.to_string(),
        pid: process.pid,
        state: process.state,
        file: process.config.file.clone(),
        listeners: listeners(process),
    }
}

fn listeners(process: &ProcessInfo) -> Vec<ListenerInfo> {
    let all = process.listeners.iter();
    all.map(|(name, address)| ListenerInfo { name: name.to_string(), address: address.to_string() }).collect()
}

/// Since the start, to the millisecond.
pub fn uptime(process: &ProcessInfo, now: Instant) -> f64 {
    now.saturating_duration_since(process.started).as_millis() as f64 / 1e3
}

/// The word for a pool.
pub fn pool_word(summary: PoolSummary) -> PoolWord {
    match summary {
        PoolSummary::Healthy => PoolWord::Healthy,
        PoolSummary::Degraded => PoolWord::Degraded,
        PoolSummary::Unhealthy => PoolWord::Unhealthy,
        PoolSummary::Unknown => PoolWord::Unknown,
    }
}

/// Why a pool does not serve normally and what would change that, on one line.
pub fn reason(out: &OutOfOrder) -> String {
    format!("{}; {}", out.reason, out.remedy)
}

fn pool_info(pool: &PoolStatus, clock: &Clock, now: Instant) -> PoolInfo {
    PoolInfo {
        status: pool_word(pool.summary),
        healthy: pool.healthy,
        total: pool.total,
        eligible: pool.eligible,
        fail_open: pool.fail_open,
        warming: pool.warming,
        warming_seconds: pool.warming_until.map(|until| seconds(until.saturating_duration_since(now))),
        reason: pool.out_of_order.as_ref().map(reason),
        down_since: pool.out_of_order.as_ref().and_then(|out| out.way_since).map(|since| clock.date(since)),
        other_pool: pool.out_of_order.as_ref().and_then(|out| match &out.way {
            Some(Way::OtherPool(other)) => Some(other.to_string()),
            Some(Way::Refuse | Way::FailOpen) | None => None,
        }),
        waiting: pool.shared.waiting(),
        upstreams: pool.upstreams.iter().map(|upstream| upstream_info(upstream, clock, now)).collect(),
    }
}

fn upstream_info(status: &UpstreamStatus, clock: &Clock, now: Instant) -> UpstreamInfo {
    let upstream = &status.upstream;
    let answered = upstream.answered();
    UpstreamInfo {
        address: upstream.address.to_string(),
        name: status.name.as_ref().map(|name| name.to_string()),
        state: status.state,
        eligible: status.eligibility.is_eligible(),
        why: status.why.clone(),
        since: clock.date(status.since),
        weight: status.weight.as_u32(),
        slow_start: status.slow_start.map(|slow| SlowStartInfo {
            part: slow.part.as_f64(),
            seconds_left: seconds(slow.until.saturating_duration_since(now)),
        }),
        degraded: status.degraded.map(crate::model::Ratio::as_f64),
        backup: status.backup,
        admin: status.admin,
        admin_order: status.overrides.admin().map(|order| order_info(order, clock)),
        agent: status.asked.as_ref().map(|report| report.reason.to_string()),
        weight_order: status.overrides.weight().map(|order| order_info(order, clock)),
        ejected: status.ejection.is_some(),
        ejection: status.ejection.as_ref().map(|ejected| EjectionInfo {
            since: clock.date(ejected.since),
            until: clock.date(ejected.until),
            seconds_left: seconds(ejected.until.saturating_duration_since(now)),
            reason: ejected.reason(),
            count: ejected.count,
        }),
        ejections_total: status.ejections_total,
        carried: status.carried,
        retiring: status.retiring,
        in_flight: upstream.in_flight.load(Ordering::Relaxed),
        requests_total: upstream.requests_total(),
        connections: upstream.connections.len(),
        connect_failures_total: upstream.connect_failures_total.load(Ordering::Relaxed),
        broken_total: upstream.broken_total.load(Ordering::Relaxed),
        responses_total: responses(answered),
        response_seconds_count: answered.count(),
        response_seconds_sum: answered.seconds,
        certificate_expires_at: status.checks.iter().filter_map(|check| check.certificate_expiry).min().map(date),
        unasked_total: upstream.unasked.total(),
        malformed_total: upstream.faults.total(),
        last_malformed: upstream.faults.last().map(|last| malformed(last, clock)),
        unverified: status.unverified,
        streak: status.streak.map(streak),
        checks_total: status.checks_total,
        transitions_total: status.transitions_total,
        last_check: status.last_check.as_ref().map(|check| last_check(check, clock)),
        checks: match &status.checks[..] {
            [] | [_] => Vec::new(),
            several => several.iter().map(|check| check_info(check, clock)).collect(),
        },
    }
}

fn order_info<T>(order: &Override<T>, clock: &Clock) -> OrderInfo {
    let until = order.until.map(|until| clock.date(until));
    OrderInfo { at: clock.date(order.at), until, by: order.by.clone(), reason: order.reason.clone() }
}

/// The last malformed answer of an upstream.
pub(super) fn malformed(last: LastFault, clock: &Clock) -> MalformedInfo {
    MalformedInfo { at: clock.date(last.at), reason: last.fault.to_string() }
}

/// One check of an upstream.
pub fn check_info(check: &CheckStatus, clock: &Clock) -> CheckInfo {
    CheckInfo {
        name: check.name.to_string(),
        state: check.state,
        streak: check.streak.map(streak),
        last_check: check.last_check.as_ref().map(|last| last_check(last, clock)),
        certificate_expires_at: check.certificate_expiry.map(date),
    }
}

fn responses(answered: Answered) -> ResponsesInfo {
    let [informational, success, redirection, client_error, server_error] = answered.by_class;
    ResponsesInfo { informational, success, redirection, client_error, server_error }
}

/// Seconds since 1970 as RFC 3339; out of range: the beginning of 1970.
fn date(seconds: i64) -> String {
    date::with_seconds(seconds).unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// A run of equal results.
pub(super) fn streak(streak: Streak) -> StreakInfo {
    let result = if streak.pass { Verdict::Pass } else { Verdict::Fail };
    StreakInfo { result, count: streak.count, needed: streak.needed }
}

/// The last finished probe.
pub(super) fn last_check(check: &LastCheck, clock: &Clock) -> LastCheckInfo {
    LastCheckInfo {
        at: clock.date(check.at),
        result: Verdict::of(check.report.code),
        code: check.report.code.as_str().to_string(),
        status: check.report.status,
        duration_ms: millis(check.report.duration),
        reason: check.report.sentence(),
    }
}

fn last_reload(last: &LastReload, clock: &Clock) -> LastReloadInfo {
    LastReloadInfo { result: last.result, at: clock.date(last.at), error: last.error.clone() }
}

/// `POST /api/v1/reload`.
pub fn reload(answer: ReloadAnswer, clock: &Clock, now: Instant) -> ReloadReply {
    let last = last_reload(&answer.last, clock);
    let left = |until: &Instant| seconds(until.saturating_duration_since(now));
    ReloadReply {
        result: last.result,
        at: last.at.clone(),
        error: last.error.clone(),
        dry_run: false,
        generation: answer.generation,
        warming: answer.warming.iter().map(|(name, _)| name.to_string()).collect(),
        warming_seconds: Ordered(answer.warming.iter().map(|(name, until)| (name.to_string(), left(until))).collect()),
        changes: (!answer.changes.is_empty()).then_some(answer.changes),
        errors: answer.diagnostics,
        last_reload: Some(last),
    }
}

/// `POST /api/v1/reload?dry_run=true`.
pub fn check(answer: CheckAnswer, process: &ProcessInfo, generation: u64, clock: &Clock, now: Instant) -> ReloadReply {
    ReloadReply {
        result: answer.result,
        at: clock.date(now),
        error: answer.error,
        dry_run: true,
        generation,
        warming: Vec::new(),
        warming_seconds: Ordered(Vec::new()),
        changes: (!answer.changes.is_empty()).then_some(answer.changes),
        errors: answer.diagnostics,
        last_reload: process.config.last_reload.as_ref().map(|last| last_reload(last, clock)),
    }
}

/// Seconds to the millisecond.
fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

/// Milliseconds to the microsecond.
fn millis(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admin::testing;
    use crate::model::HealthState;

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    fn has(value: &Value, contract: &[&str]) {
        for key in contract {
            assert!(keys(value).contains(key), "{key} is missing in {value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn status_has_the_keys_and_values_of_the_contract() {
        let mut process = testing::process();
        let now = process.started + std::time::Duration::from_millis(12_500);
        let last = LastReload { result: ReloadResult::Refused, at: now, error: Some("bad".into()) };
        let host = testing::status(vec![testing::pool("api", &[HealthState::Healthy, HealthState::Unhealthy])]);
        let clock = Clock::start();
        let before = serde_json::to_value(status(&host, &process, true, &clock, now)).unwrap();
        assert_eq!(before["config"]["last_reload"], Value::Null);
        process.config.last_reload = Some(last);
        let value = serde_json::to_value(status(&host, &process, true, &clock, now)).unwrap();

        has(&value, &["version", "generation", "uptime_seconds", "state", "config", "pools"]);
        assert_eq!(value["uptime_seconds"], json!(12.5));
        assert_eq!((&value["state"], &value["generation"]), (&json!("running"), &json!(3)));
        assert_eq!(value["requests_by_lane"], json!({ "express": 5, "tunnel": 2 }));
        has(&value["config"], &["file", "loaded_at", "last_reload"]);
        assert_eq!(keys(&value["config"]["last_reload"]), ["result", "at", "error"]);
        assert_eq!(value["config"]["last_reload"]["result"], "refused");

        let pool = &value["pools"]["api"];
        has(pool, &["status", "healthy", "total", "upstreams"]);
        assert_eq!((&pool["status"], &pool["healthy"], &pool["total"]), (&json!("degraded"), &json!(1), &json!(2)));
        let contract = [
            "address",
            "state",
            "eligible",
            "why",
            "since",
            "weight",
            "backup",
            "admin",
            "ejected",
            "in_flight",
            "requests_total",
            "streak",
            "checks_total",
            "transitions_total",
            "last_check",
            "carried",
            "retiring",
        ];
        let (up, down) = (&pool["upstreams"][0], &pool["upstreams"][1]);
        has(up, &contract);
        assert_eq!(up["why"], Value::Null);
        assert_eq!(up["streak"], json!({ "result": "pass", "count": 3, "needed": 2 }));
        assert_eq!(keys(&up["last_check"]), ["at", "result", "code", "status", "duration_ms", "reason"]);
        assert_eq!(up["last_check"]["duration_ms"], json!(1.9));
        assert_eq!((&up["last_check"]["code"], &up["last_check"]["result"]), (&json!("L7OK"), &json!("pass")));
        assert_eq!(
            (&down["state"], &down["eligible"], &down["admin"]),
            (&json!("unhealthy"), &json!(false), &json!("enabled"))
        );
        assert!(down["why"].as_str().unwrap().starts_with("status 503"));

        for absent in ["checks", "unverified", "name", "ejection"] {
            assert!(!keys(up).contains(&absent), "{absent} is absent if it has nothing to report");
        }

        let read: StatusReply = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), value);
    }

    #[tokio::test(start_paused = true)]
    async fn several_checks_and_unverified_certificates_are_shown() {
        let mut upstream = testing::upstream("api", 1, HealthState::Unhealthy);
        upstream.name = Some("api.internal".into());
        upstream.unverified = true;
        upstream.checks = vec![testing::check("http", &upstream), testing::check("tcp", &upstream)];
        upstream.checks[1].state = HealthState::Healthy;
        upstream.checks[1].last_check = None;
        let host = testing::status(vec![testing::finish("api", vec![upstream])]);
        let reply = status(&host, &testing::process(), true, &Clock::start(), Instant::now());
        assert_eq!(reply.pools.0[0].1.upstreams[0].marks(), ["unverified"]);
        let value = serde_json::to_value(&reply).unwrap();
        let up = &value["pools"]["api"]["upstreams"][0];
        assert_eq!((&up["name"], &up["unverified"]), (&json!("api.internal"), &json!(true)));
        let checks = up["checks"].as_array().unwrap();
        assert_eq!(keys(&checks[0]), ["name", "state", "streak", "last_check"]);
        assert_eq!((&checks[0]["name"], &checks[0]["state"]), (&json!("http"), &json!("unhealthy")));
        assert_eq!(checks[0]["last_check"], up["last_check"]);
        assert_eq!((&checks[1]["name"], &checks[1]["last_check"]), (&json!("tcp"), &Value::Null));
        assert_eq!(serde_json::from_value::<StatusReply>(value.clone()).unwrap(), reply);
    }
}
