//! One upstream explained: its state, what its streaks still need, why it may or may not be picked, each check with the
//! steps of its last probe, when the next probe is due and why, and its last changes.

use std::time::Duration;

use tokio::time::Instant;

use super::super::clock::Clock;
use super::super::json::{CheckExplainInfo, TransitionInfo, UpstreamExplainReply};
use super::super::render::{last_check, malformed, streak};
use super::{due_in, missing, rounded};
use crate::model::policy::{Require, Timing};
use crate::model::trace::{Probed, steps};
use crate::model::units::counted;
use crate::model::{Eligibility, HealthState, Ineligible, Weight};
use crate::pool::{CheckStatus, Due, Explanation, Override, Streak, UpstreamDetail, UpstreamStatus};

/// `GET /api/v1/pools/POOL/upstreams/ADDRESS/explain`.
pub fn upstream(
    explanation: &Explanation,
    detail: &UpstreamDetail,
    clock: &Clock,
    now: Instant,
) -> UpstreamExplainReply {
    let status = &detail.status;
    let resolve = status.upstream.address.host_name().map(|_| detail.policy.resolve);
    let checks = status.checks.iter().enumerate();
    let transitions = detail.history.iter().map(|(at, change)| TransitionInfo {
        at: clock.date(*at),
        from: change.from,
        to: change.to,
        code: change.code.map(|code| code.as_str().to_owned()),
        reason: change.reason.clone(),
    });
    UpstreamExplainReply {
        pool: explanation.pool.name.to_string(),
        upstream: status.upstream.address.to_string(),
        name: status.name.as_deref().map(str::to_owned),
        now: clock.date(now),
        state: status.state,
        since: clock.date(status.since),
        eligible: status.eligibility.is_eligible(),
        eligibility: eligibility(explanation, status, now) + &weight(status, now),
        why: status.why.clone(),
        hint: explanation.hint.clone(),
        admin: status.admin,
        malformed_total: status.upstream.faults.total(),
        last_malformed: status.upstream.faults.last().map(|last| malformed(last, clock)),
        require: require(detail.policy.require, status.checks.len()),
        checks: checks
            .map(|(i, check)| match (check_info(status, check, i == status.decides, clock, now), resolve) {
                (info, None) => info,
                (info, Some(every)) => CheckExplainInfo { next: next_lookup(every), next_due: None, ..info },
            })
            .collect(),
        transitions: transitions.collect(),
    }
}

fn check_info(
    status: &UpstreamStatus,
    check: &CheckStatus,
    decides: bool,
    clock: &Clock,
    now: Instant,
) -> CheckExplainInfo {
    let (upstream, name) = (&status.upstream.address, status.name.as_deref());
    let steps = check.last_check.as_ref().map_or_else(Vec::new, |last| {
        steps(&Probed { upstream, name, target: &check.target, spec: &check.spec, report: &last.report })
    });
    CheckExplainInfo {
        name: check.name.to_string(),
        preset: check.preset.map(str::to_owned),
        probe: check.spec.to_string(),
        timing: timing(&check.timing),
        target: check.target.to_string(),
        state: check.state,
        decides,
        streak: check.streak.map(streak),
        needs: needs(check),
        next: next(check, now),
        next_due: (!check.in_flight).then(|| clock.date(check.next_due)),
        in_flight: check.in_flight,
        last_check: check.last_check.as_ref().map(|last| last_check(last, clock)),
        steps,
    }
}

/// The verdict of `model::eligibility`, as the controller published it, in a sentence.
fn eligibility(explanation: &Explanation, status: &UpstreamStatus, now: Instant) -> String {
    let carried = if status.carried { " (verdict carried over from an earlier check definition)" } else { "" };
    let growing = status.slow_start.map_or_else(String::new, |slow| {
        let left = rounded(slow.until.saturating_duration_since(now));
        format!(
            ", with {:.0} % of its weight for now: it has all of it in {left} (slow_start)",
            slow.part.as_f64() * 100.0
        )
    });
    let worse = status.degraded.map_or_else(String::new, |share| {
        format!(", and degraded: it takes {:.0} % of its weight", share.as_f64() * 100.0)
    });
    let why_not = match (status.eligibility, status.state) {
        (Eligibility::Eligible, _) if status.retiring => {
            let left = explanation.pool.warming_until.map(|until| rounded(until.saturating_duration_since(now)));
            let most = left.map_or_else(String::new, |left| format!(", at most {left} more"));
            return format!(
                "It takes requests although it was removed from the configuration, until a new upstream is \
                 healthy{most}."
            );
        }
        (Eligibility::Eligible, HealthState::Healthy) if status.backup => {
            return format!(
                "It takes requests as a backup, if no primary can serve: it is healthy{carried}{growing}{worse}."
            );
        }
        (Eligibility::Eligible, HealthState::Healthy) => {
            return format!("It takes requests: it is healthy and enabled{carried}{growing}{worse}.");
        }
        (Eligibility::Eligible, state @ (HealthState::Unknown | HealthState::Unhealthy)) => {
            return format!(
                "It takes requests although it is {state}: too few upstreams are healthy, and when_no_healthy is \
                 \"fail_open\"."
            );
        }
        (Eligibility::Not(why_not), _) => why_not,
    };
    let reason = match why_not {
        Ineligible::Unknown if status.upstream.address.host_name().is_some() => {
            "its name has no address yet".to_owned()
        }
        Ineligible::Unknown => "its checks have not reached a verdict".to_owned(),
        Ineligible::Unhealthy => format!("its checks failed{carried}"),
        Ineligible::Draining => ordered(status, "draining", "undrain", now),
        Ineligible::Disabled => ordered(status, "disabled", "enable", now),
        Ineligible::Ejected => ejected(status, now),
        Ineligible::TooFewHealthy => {
            format!("it is healthy, but too few upstreams are (min_healthy requires {})", explanation.needed)
        }
        Ineligible::PrimaryAwaited => {
            "it is a healthy backup, and the pool waits for the first verdict on a primary".to_owned()
        }
    };
    format!("It takes no requests: {reason}.")
}

/// A further sentence where its weight is not that of the file.
fn weight(status: &UpstreamStatus, now: Instant) -> String {
    let sentence = |order: &Override<Weight>| format!(" Its weight is {}, {}.", order.to.as_u32(), order.sentence(now));
    status.overrides.weight().map_or_else(String::new, sentence)
}

/// Its requests failed; and what lets it back.
fn ejected(status: &UpstreamStatus, now: Instant) -> String {
    let Some(ejected) = &status.ejection else { return "live traffic ejected it".to_owned() };
    let left = rounded(ejected.until.saturating_duration_since(now));
    let sooner = match ejected.ends_by_passes() {
        true => ", or sooner if its checks connect to it or no other upstream can serve",
        false => ", or sooner if no other upstream can serve",
    };
    format!("live traffic ejected it, because {}; it is let back in {left}{sooner}", ejected.reason())
}

/// An order keeps it out; and perhaps its checks do as well, so that the end of the order is not enough.
fn ordered(status: &UpstreamStatus, state: &str, command: &str, now: Instant) -> String {
    let by_order = || format!("`roundsman {command}`");
    let (origin, ends) = match (&status.asked, status.overrides.admin()) {
        (Some(report), _) => (format!("because {}", report.reason), "another answer of its agent".to_owned()),
        (None, Some(order)) => (order.sentence(now), by_order()),
        (None, None) => ("as the file says".to_owned(), by_order()),
    };
    let order = format!("it is {state}, {origin}");
    let also = match status.state {
        HealthState::Healthy => return format!("{order}; {ends} ends that"),
        _ if status.upstream.address.host_name().is_some() => "its name has no address yet",
        HealthState::Unhealthy => "its checks fail",
        HealthState::Unknown => "its checks have not reached a verdict",
    };
    let needs = match missing(status) {
        _ if status.upstream.address.host_name().is_some() => "an address that passes its checks".to_owned(),
        Some((_, 1)) if status.checks.len() == 1 => "1 more pass".to_owned(),
        Some((_, passes)) if status.checks.len() == 1 => format!("{passes} passes in a row"),
        Some(_) | None => "checks that pass".to_owned(),
    };
    format!("{order}, and {also}: it needs {ends} and {needs}")
}

fn require(require: Require, checks: usize) -> Option<String> {
    if checks < 2 {
        return None;
    }
    Some(match require {
        Require::All if checks == 2 => "both checks must be healthy".to_owned(),
        Require::All => format!("all {checks} checks must be healthy"),
        Require::Any => format!("one of {checks} checks must be healthy"),
        Require::Count(_) => format!("{} of {checks} checks must be healthy", require.needed(checks)),
    })
}

/// How far the current streak is from a verdict, and which results would end it.
fn needs(check: &CheckStatus) -> String {
    let Timing { healthy_threshold, unhealthy_threshold, .. } = check.timing;
    let up = |count| format!("{} it healthy", makes(count, "pass", "passes"));
    let down = |count| format!("{} it unhealthy", makes(count, "failure", "failures"));
    let Some(Streak { pass, count, needed }) = check.streak else {
        return format!("no result yet; {}, {}", up(healthy_threshold), down(unhealthy_threshold));
    };
    let run = if pass { counted(count, "pass", "passes") } else { counted(count, "failure", "failures") };
    let left = needed.saturating_sub(count);
    match (pass, check.state, left) {
        (true, HealthState::Healthy, _) | (true, _, 0) => format!("{run} in a row; {}", down(unhealthy_threshold)),
        (false, HealthState::Unhealthy, _) | (false, _, 0) => format!("{run} in a row; {}", up(healthy_threshold)),
        (true, HealthState::Unknown | HealthState::Unhealthy, left) => {
            format!("{run} of {needed}; {} it healthy", more(left))
        }
        (false, HealthState::Unknown | HealthState::Healthy, left) => {
            format!("{run} of {needed}; {} it unhealthy", more(left))
        }
    }
}

fn makes(count: u32, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one} makes") } else { format!("{count} {many} in a row make") }
}

fn more(count: u32) -> String {
    if count == 1 { "1 more makes".to_owned() } else { format!("{count} more in a row make") }
}

fn timing(timing: &Timing) -> String {
    let mut text = format!("every {}", exact(timing.interval));
    if timing.jitter.as_f64() > 0.0 {
        text.push_str(&format!(" ± {}", exact(timing.interval.mul_f64(timing.jitter.as_f64()))));
    }
    if let Some(unhealthy_interval) = timing.unhealthy_interval {
        text.push_str(&format!(", every {} while unhealthy", exact(unhealthy_interval)));
    }
    let (fast, timeout) = (exact(timing.fast_interval), exact(timing.timeout));
    text.push_str(&format!(", every {fast} until a change is confirmed, each at most {timeout}"));
    text
}

/// A host name without an address is not probed, only looked up.
fn next_lookup(every: Duration) -> String {
    format!("waits for an address: its name is looked up again at least every {}", exact(every))
}

/// When the next probe is due, and why.
fn next(check: &CheckStatus, now: Instant) -> String {
    let timing = &check.timing;
    let (interval, fast) = (exact(timing.interval_in(check.state)), exact(timing.fast_interval));
    let key = match (check.state, timing.unhealthy_interval) {
        (HealthState::Unhealthy, Some(_)) => "unhealthy_interval",
        (HealthState::Unknown | HealthState::Healthy | HealthState::Unhealthy, _) => "interval",
    };
    if check.in_flight {
        let ago = rounded(now.saturating_duration_since(check.next_due));
        return format!("is running: it was due {ago} ago");
    }
    let why = match check.due {
        Due::First => "the first probe starts at once".to_owned(),
        Due::Redefined => "the check definition has changed, so it is probed at once".to_owned(),
        Due::Fast(None) => format!("there is no verdict yet, so fast_interval ({fast}) applies"),
        Due::Fast(Some(run)) => {
            let (result, key) =
                if run.pass { ("passed", "healthy_threshold") } else { ("failed", "unhealthy_threshold") };
            format!("it {result}, but {key} is not reached yet, so fast_interval ({fast}) applies")
        }
        Due::StartPeriod => {
            let period = exact(timing.start_period);
            format!(
                "it has not passed yet and its start_period ({period}) is not over, so fast_interval ({fast}) applies"
            )
        }
        Due::Slot => format!("its slot in the {key} ({interval}), so that probes are spread over time"),
        Due::Regular => format!("the {key} is {interval}"),
        Due::Hint => "a request to it failed, so it is probed early".to_owned(),
        Due::Retimed => format!("the {key} became shorter ({interval})"),
        Due::Again => "the previous probe was cancelled or lost".to_owned(),
        Due::Spread => "this process was suspended, so overdue probes are spread over time".to_owned(),
    };
    format!("{}: {why}", due_in(check, now))
}

/// A duration of the configuration: `10 s`, `250 ms`, `1.5 s`, `1 h`.
fn exact(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, length)| ms > 0 && ms.is_multiple_of(*length)) {
        Some((unit, length)) => format!("{} {unit}", ms / length),
        None if ms == 0 => "0 s".to_owned(),
        None if ms > 1_000 => format!("{:.1} s", duration.as_secs_f64()),
        None => format!("{ms} ms"),
    }
}
