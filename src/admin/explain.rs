//! `explain` in words: the state of a pool in one paragraph, and ([`upstream`]) everything about one upstream. Only
//! renders what the controller reports; eligibility, service and reasons are decided there.

mod upstream;

use std::time::Duration;

use tokio::time::Instant;

use super::clock::Clock;
use super::json::{OutInfo, PoolExplainReply};
use super::render::pool_word;
use crate::model::policy::WhenNoHealthy;
use crate::model::units::Measured;
use crate::model::{AdminState, Eligibility, HealthState, Ineligible};
use crate::pool::{
    CheckStatus, Explanation, Otherwise, OutOfOrder, PoolStatus, PoolSummary, Service, UpstreamStatus, Way,
};

pub use upstream::upstream;

/// Upstreams named per reason.
const NAMED_MAX: usize = 3;
/// Addresses per reason in JSON.
const LISTED_MAX: usize = 20;
/// Reasons in the paragraph.
const REASONS_MAX: usize = 6;
/// The longest reason in the paragraph, in characters.
const REASON_CHARS_MAX: usize = 200;

/// `GET /api/v1/pools/POOL/explain`.
pub fn pool(explanation: &Explanation, clock: &Clock, now: Instant) -> PoolExplainReply {
    let pool = &explanation.pool;
    let groups = groups(&pool.upstreams);
    let requests = requests(explanation, now);
    let next = next(explanation, now);
    let mut text = vec![headline(explanation)];
    text.extend(groups.iter().take(REASONS_MAX).map(|group| sentence(group, explanation.hint.as_deref())));
    if let Some(more) = groups.len().checked_sub(REASONS_MAX).filter(|more| *more > 0) {
        text.push(format!("There are {more} more reasons."));
    }
    text.extend(failing(&pool.upstreams));
    if pool.warming {
        let left = pool.warming_until.map(|until| rounded(until.saturating_duration_since(now)));
        let most = left.map_or_else(String::new, |left| format!(", at most {left} more"));
        text.push(format!("Removed upstreams still serve until a new one is healthy{most}."));
    }
    text.extend(pool.out_of_order.as_ref().and_then(|out| how_long(out, now)));
    if explanation.checker.stale {
        text.push(
            "The checker is not running: verdicts stay valid until they expire, and there are no new ones.".to_owned(),
        );
    }
    text.extend(explanation.hint.as_ref().map(|hint| format!("{}.", begin_sentence(hint))));
    text.push(requests.clone());
    let remedy = remedy(pool);
    // An order that ends it is in the remedy.
    let shown = next.as_ref().filter(|next| next.is_probe || remedy.is_none());
    text.extend(remedy.into_iter().chain(shown.map(|next| next.text.clone())));
    PoolExplainReply {
        pool: pool.name.to_string(),
        now: clock.date(now),
        status: pool_word(pool.summary),
        text: text.join(" "),
        healthy: pool.healthy,
        total: pool.total,
        eligible: pool.eligible,
        needed: explanation.needed,
        requests,
        out: groups.iter().map(Group::info).collect(),
        next: next.map(|next| next.text),
    }
}

/// How long it has been out of order; `None` while requests wait for a first verdict.
fn how_long(out: &OutOfOrder, now: Instant) -> Option<String> {
    let time = |since: Option<Instant>| Some(rounded(now.saturating_duration_since(since?)));
    Some(match out.way.as_ref()? {
        // Before that, it may have served in another way.
        Way::Refuse => format!("It has not served for {}.", time(out.way_since)?),
        Way::FailOpen | Way::OtherPool(_) => {
            format!("Too few of its upstreams have been healthy for {}.", time(out.since)?)
        }
    })
}

/// What ends the outage, as `/health` and the log say it.
fn remedy(pool: &PoolStatus) -> Option<String> {
    let out = pool.out_of_order.as_ref().filter(|out| out.way.is_some())?;
    Some(format!("{}.", begin_sentence(&out.remedy)))
}

/// With a capital letter, unless it begins with a name, such as that of a key or a field.
fn begin_sentence(text: &str) -> String {
    let word = text.split(' ').next().unwrap_or_default();
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let (first, rest) = text.split_at(usize::from(is_plain));
    first.to_ascii_uppercase() + rest
}

fn headline(explanation: &Explanation) -> String {
    let pool = &explanation.pool;
    let (name, word) = (&pool.name, pool.summary.as_str());
    let healthy = match (pool.healthy, pool.total) {
        (1, 1) => "its only upstream is healthy".to_owned(),
        (0, 1) => "its only upstream is not healthy".to_owned(),
        (2, 2) => "both upstreams are healthy".to_owned(),
        (healthy, total) if healthy == total => format!("all {total} upstreams are healthy"),
        (0, total) => format!("none of its {total} upstreams is healthy"),
        (1, total) => format!("1 of {total} upstreams is healthy"),
        (healthy, total) => format!("{healthy} of {total} upstreams are healthy"),
    };
    let few = match explanation.service {
        Service::Open => String::new(),
        Service::FailOpen | Service::Waiting { .. } | Service::NoneEligible(_) if explanation.needed > 1 => {
            format!(", and min_healthy requires {}", explanation.needed)
        }
        Service::FailOpen | Service::Waiting { .. } | Service::NoneEligible(_) => String::new(),
    };
    match pool.summary {
        PoolSummary::Unknown => format!("Pool {name} is {word} (no verdict yet): {healthy}{few}."),
        PoolSummary::Healthy | PoolSummary::Degraded | PoolSummary::Unhealthy => {
            format!("Pool {name} is {word}: {healthy}{few}.")
        }
    }
}

/// Why an upstream is out, or in use although it is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Not(Ineligible),
    FailOpen,
}

impl Out {
    fn of(status: &UpstreamStatus) -> Option<Out> {
        match (status.eligibility, status.state) {
            (Eligibility::Not(why), _) => Some(Out::Not(why)),
            (Eligibility::Eligible, HealthState::Healthy) => None,
            (Eligibility::Eligible, HealthState::Unknown | HealthState::Unhealthy) => Some(Out::FailOpen),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Out::Not(why) => why.as_str(),
            Out::FailOpen => "fail_open",
        }
    }

    /// Whether the last probe is the reason.
    fn is_of_checks(self) -> bool {
        match self {
            Out::FailOpen | Out::Not(Ineligible::Unhealthy | Ineligible::Unknown) => true,
            Out::Not(Ineligible::Draining | Ineligible::Disabled | Ineligible::Ejected) => false,
            Out::Not(Ineligible::TooFewHealthy | Ineligible::PrimaryAwaited) => false,
        }
    }

    /// Follows `10.0.0.1:80 is`, or `are`.
    fn predicate(self) -> &'static str {
        match self {
            Out::FailOpen => "not healthy but in use (fail_open)",
            Out::Not(Ineligible::Unhealthy) => "unhealthy",
            Out::Not(Ineligible::Unknown) => "not judged yet",
            Out::Not(Ineligible::Draining) => "draining",
            Out::Not(Ineligible::Disabled) => "disabled",
            Out::Not(Ineligible::Ejected) => "ejected by live traffic",
            Out::Not(Ineligible::TooFewHealthy) => "healthy, but too few upstreams are",
            Out::Not(Ineligible::PrimaryAwaited) => "healthy, but waiting for the first verdict on a primary",
        }
    }
}

/// Upstreams that are out for one reason.
struct Group<'a> {
    out: Out,
    code: Option<&'static str>,
    members: Vec<&'a UpstreamStatus>,
}

impl Group<'_> {
    /// The first member's reason as in status, without the words that the paragraph itself has.
    fn reason(&self) -> &str {
        let why = self.members[0].why.as_deref().unwrap_or("");
        let shorter = ["not judged yet: ", "not judged yet; "].into_iter().find_map(|known| why.strip_prefix(known));
        shorter.unwrap_or(why)
    }

    fn info(&self) -> OutInfo {
        OutInfo {
            why: self.out.word().to_owned(),
            code: self.code.map(str::to_owned),
            reason: self.reason().to_owned(),
            count: self.members.len(),
            upstreams: self.members.iter().take(LISTED_MAX).map(|u| u.upstream.address.to_string()).collect(),
        }
    }
}

/// Groups by reason, the most frequent first; within a group in file order.
fn groups(upstreams: &[UpstreamStatus]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for status in upstreams {
        let Some(out) = Out::of(status) else { continue };
        let last = status.last_check.as_ref().filter(|_| out.is_of_checks());
        let code = last.map(|last| last.report.code.as_str());
        match groups.iter_mut().find(|group| group.out == out && group.code == code) {
            Some(group) => group.members.push(status),
            None => groups.push(Group { out, code, members: vec![status] }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.members.len()));
    groups
}

/// `10.0.0.2:80 and 10.0.0.3:80 are unhealthy: L4CON: connection refused.` Without the hint, which is a sentence of its own.
fn sentence(group: &Group<'_>, hint: Option<&str>) -> String {
    let named = group.members.iter().take(NAMED_MAX).map(|u| named(u)).collect::<Vec<_>>();
    let verb = if group.members.len() == 1 { "is" } else { "are" };
    let subject = match (named.as_slice(), group.members.len().saturating_sub(NAMED_MAX)) {
        ([one], _) => one.clone(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (named, more) => format!("{} and {more} more", named.join(", ")),
    };
    let mut text = format!("{subject} {verb} {}", group.out.predicate());
    if group.out.is_of_checks() && !group.reason().is_empty() {
        let alike = group.members.iter().all(|member| member.why == group.members[0].why);
        let such = if alike { "" } else { "such as " };
        let whole = hint.map_or_else(|| group.reason().to_owned(), |hint| without(group.reason(), hint));
        let reason: String = whole.chars().take(REASON_CHARS_MAX).collect();
        let dots = if reason.len() < whole.len() { "…" } else { "" };
        text.push_str(&format!(" ({such}{reason}{dots})"));
    }
    text.push('.');
    text
}

fn without(reason: &str, hint: &str) -> String {
    reason.replacen(&format!(" ({hint})"), "", 1)
}

/// Upstreams that are in order but for the requests that they fail: `10.0.0.1:80 answers 5xx to 9 of its last 10 requests,
/// and passes its checks.`
fn failing(upstreams: &[UpstreamStatus]) -> Vec<String> {
    let known = upstreams.iter().filter(|upstream| Out::of(upstream).is_none());
    let failing: Vec<_> = known.filter_map(|upstream| Some((upstream, upstream.why.as_deref()?))).collect();
    let shown = failing.iter().take(NAMED_MAX).map(|(upstream, why)| format!("{} {why}.", named(upstream)));
    let more = match failing.len().saturating_sub(NAMED_MAX) {
        0 => None,
        1 => Some("1 more upstream fails its requests like that.".to_owned()),
        more => Some(format!("{more} more upstreams fail their requests like that.")),
    };
    shown.chain(more).collect()
}

/// The address, with the host name it was resolved from: `127.0.0.1:80 (localhost)`.
fn named(status: &UpstreamStatus) -> String {
    let address = &status.upstream.address;
    match &status.name {
        Some(name) if address.host_name().is_none() => format!("{address} ({name})"),
        Some(_) | None => address.to_string(),
    }
}

/// What a request to the pool gets now.
fn requests(explanation: &Explanation, now: Instant) -> String {
    let pool = &explanation.pool;
    let fallback = || match &explanation.policy.when_no_healthy {
        WhenNoHealthy::Pool(other) => other.to_string(),
        WhenNoHealthy::Reject | WhenNoHealthy::FailOpen => "another".to_owned(),
    };
    let reject = || format!("503 with Retry-After: {}", pool.shared.retry_after(now));
    match explanation.service {
        Service::Open => {
            let eligible = |backup| {
                let found = pool.upstreams.iter().filter(move |u| u.eligibility.is_eligible() && u.backup == backup);
                found.collect::<Vec<_>>()
            };
            let (primaries, backups) = (eligible(false), eligible(true));
            let has_primaries = pool.upstreams.iter().any(|u| !u.backup);
            let idle = match (primaries.len(), backups.len()) {
                (0, _) | (_, 0) => String::new(),
                (_, 1) => format!("; the backup {} is used only if no primary can serve", named(backups[0])),
                (_, all) => format!("; {all} backups are used only if no primary can serve"),
            };
            match (primaries.as_slice(), backups.as_slice()) {
                ([one], _) => format!("Requests go to {}{idle}.", named(one)),
                ([], [one]) if has_primaries => {
                    format!("Requests go to the backup {}, because no primary can serve.", named(one))
                }
                ([], all) if has_primaries => {
                    format!("Requests go to {} backups, because no primary can serve.", all.len())
                }
                ([], [one]) => format!("Requests go to {}.", named(one)),
                ([], all) => format!("Requests go to {} upstreams.", all.len()),
                (all, _) => format!("Requests go to {} upstreams{idle}.", all.len()),
            }
        }
        Service::FailOpen => format!(
            "Requests go to every enabled upstream ({}), healthy or not (when_no_healthy = \"fail_open\").",
            pool.eligible
        ),
        Service::Waiting { until, then } => {
            let left = Measured(until.saturating_duration_since(now));
            let then = match then {
                Otherwise::Reject => format!("get {}", reject()),
                Otherwise::FailOpen => "go to every enabled upstream, healthy or not".to_owned(),
                Otherwise::Pool(_) => format!("go to pool {}", fallback()),
            };
            format!("Requests wait for a first verdict, at most {left} more; then they {then}.")
        }
        Service::NoneEligible(Otherwise::Reject) => format!("Requests get {}.", reject()),
        Service::NoneEligible(Otherwise::FailOpen) => {
            format!("Requests get {}, because no upstream is enabled.", reject())
        }
        Service::NoneEligible(Otherwise::Pool(_)) => {
            match pool.out_of_order.as_ref().and_then(|out| out.way.as_ref()) {
                Some(Way::Refuse) => {
                    format!("Requests get {}: pool {} (when_no_healthy) cannot serve either.", reject(), fallback())
                }
                Some(Way::OtherPool(last)) if last.as_str() != fallback() => {
                    format!("Requests go to pool {last} (when_no_healthy of {} and of other pools).", pool.name)
                }
                Some(Way::OtherPool(_) | Way::FailOpen) | None => {
                    format!("Requests go to pool {} (when_no_healthy).", fallback())
                }
            }
        }
    }
}

/// What can change the state.
struct Next {
    text: String,
    /// It is a probe or a lookup; otherwise an order of an operator, which what ends an outage names too.
    is_probe: bool,
}

/// The upstream that could become healthy first, or the order that keeps a healthy one out.
fn next(explanation: &Explanation, now: Instant) -> Option<Next> {
    let pool = &explanation.pool;
    let out = || pool.upstreams.iter().filter(|u| !u.retiring && Out::of(u).is_some());
    // A host name without an address is not probed.
    let probed = out().filter(|u| u.upstream.address.host_name().is_none());
    let checked = probed.filter(|u| u.admin == AdminState::Enabled && u.state != HealthState::Healthy);
    let first = checked.filter_map(|u| Some((u, missing(u)?))).min_by_key(|(u, (check, passes))| {
        let due = check.next_due.max(now);
        (due + check.timing.fast_interval * passes.saturating_sub(1), u.upstream.address.clone())
    });
    if let Some((status, (check, passes))) = first {
        let (subject, due) = (named(status), due_in(check, now));
        let passes = if passes == 1 { "1 more pass".to_owned() } else { format!("{passes} passes in a row") };
        let text = if pool.upstreams.len() > 1 {
            format!("The first that can become healthy is {subject}: it needs {passes}, and its next probe {due}.")
        } else {
            format!("To become healthy, {subject} needs {passes}, and its next probe {due}.")
        };
        return Some(Next { text, is_probe: true });
    }
    let Some(ordered) = out().find(|u| u.admin != AdminState::Enabled && u.state == HealthState::Healthy) else {
        let host = out().filter(|u| u.admin == AdminState::Enabled).find_map(|u| u.upstream.address.host_name())?;
        let every = rounded(explanation.policy.resolve);
        let text = format!(
            "What can change is the address of {host}: the name is looked up again every {every} at the latest."
        );
        return Some(Next { text, is_probe: true });
    };
    if let Some(report) = &ordered.asked {
        let (subject, says) = (named(ordered), &report.reason);
        let text = format!("What can change is what its agent says about {subject}: {says}.");
        return Some(Next { text, is_probe: true });
    }
    let order = match ordered.admin {
        AdminState::Draining => "undrain",
        AdminState::Disabled => "enable",
        AdminState::Enabled => return None,
    };
    let (name, address) = (&pool.name, &ordered.upstream.address);
    let text = format!("`roundsman {order} {name} {address}` lets {address} take requests again.");
    Some(Next { text, is_probe: false })
}

/// The check that keeps an upstream from being healthy, and how many passes it still needs.
fn missing(status: &UpstreamStatus) -> Option<(&CheckStatus, u32)> {
    let check = status.checks.get(status.decides)?;
    let passes = check.streak.filter(|streak| streak.pass).map_or(0, |streak| streak.count);
    Some((check, check.timing.healthy_threshold.saturating_sub(passes).max(1)))
}

/// `is due in 0.8 s`.
fn due_in(check: &CheckStatus, now: Instant) -> String {
    match check.next_due.checked_duration_since(now) {
        _ if check.in_flight => "is running".to_owned(),
        Some(left) if left >= Duration::from_millis(1) => format!("is due in {}", rounded(left)),
        Some(_) | None => "is due now".to_owned(),
    }
}

/// A duration in its one or two largest units: `0.8 s`, `12 s`, `3 min`, `1 min 30 s`, `2 h 5 min`, `3 d 4 h`.
fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.as_millis() < 100 => format!("{} ms", duration.as_millis()),
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3_600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests;
