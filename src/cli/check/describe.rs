//! What a configuration does, in words: where it listens, and per pool what is probed, how often, and how long a dead
//! upstream can go unnoticed.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use super::routes::{describe_records, describe_routes};
use crate::model::policy::{
    Balance, CheckPolicy, ClientPolicy, Config, Failures, ListenerPolicy, LoadBound, MinHealthy, PoolPolicy, Require,
    RetryBudget, TrafficPolicy, UpstreamPolicy, WhenNoHealthy,
};
use crate::model::units::counted;
use crate::model::written::{show_duration, show_size};
use crate::model::{AdminState, Ratio, Weight};

/// Upstreams listed per pool at most.
const UPSTREAMS_LISTED_MAX: usize = 20;

/// Describes a valid configuration, pool by pool.
pub fn describe(config: &Config) -> String {
    let mut out = String::new();
    for listener in &config.listeners {
        let pool =
            listener.pool.as_ref().map_or("404 unless a route matches".to_owned(), |pool| format!("pool {pool}"));
        let _ = writeln!(out, "listener {} on {}: {pool}", listener.name, listener.address);
        let changed = changed_of_clients(listener);
        if !changed.is_empty() {
            let _ = writeln!(out, "  clients    {}", changed.join(", "));
        }
    }
    describe_routes(config, &mut out);
    describe_records(config, &mut out);
    let token = if config.admin.token.is_some() { ", with a token" } else { "" };
    let _ = writeln!(out, "admin on {}{token}", config.admin.address);
    for pool in &config.pools {
        out.push('\n');
        describe_pool(pool, &mut out);
    }
    out
}

fn describe_pool(pool: &PoolPolicy, out: &mut String) {
    let balance = match &pool.traffic.choosing.key {
        Some(key) => format!("{} by {key}{}", pool.balance.as_str(), bound(pool.balance)),
        None => pool.balance.as_str().to_owned(),
    };
    let total = pool.upstreams.len();
    let upstreams = counted(total, "upstream", "upstreams");
    let _ = writeln!(out, "pool {}: {upstreams}, {balance}; {}", pool.name, when_no_healthy(pool));
    let several = pool.checks.len() > 1;
    if several {
        let _ = writeln!(out, "  checks     {}", require(pool));
    }
    for check in &pool.checks {
        if several {
            let _ = writeln!(out, "  check      {}", check.name);
        }
        describe_check(check, several, out);
    }
    let _ =
        writeln!(out, "  detection  a dead upstream gets no requests after {} at worst", show(worst_detection(pool)));
    let recovery = show(worst_return(pool));
    let _ = writeln!(out, "  recovery   an upstream that recovers gets requests after {recovery} at worst");
    let changed = changed_of_traffic(&pool.traffic);
    if !changed.is_empty() {
        let _ = writeln!(out, "  requests   {}", changed.join(", "));
    }
    for upstream in pool.upstreams.iter().take(UPSTREAMS_LISTED_MAX) {
        let _ = writeln!(out, "  upstream   {}{}", upstream.address, notes(upstream, pool));
    }
    if total > UPSTREAMS_LISTED_MAX {
        let _ = writeln!(out, "  and {} more", total - UPSTREAMS_LISTED_MAX);
    }
}

/// `bounded_load`, unless it is the default.
fn bound(balance: Balance) -> String {
    match balance {
        Balance::Hash(bound) | Balance::Maglev(bound) if bound != LoadBound::DEFAULT => {
            format!(", bounded_load = {}", f64::from(bound.hundredths().unwrap_or(0)) / 100.0)
        }
        _ => String::new(),
    }
}

fn describe_check(check: &CheckPolicy, several: bool, out: &mut String) {
    let timing = &check.timing;
    if let Some(preset) = check.preset {
        let _ = writeln!(out, "  preset     {preset}");
    }
    let _ = writeln!(out, "  probe      {}", check.spec);
    let _ = writeln!(out, "  how often  {}", how_often(check));
    let found =
        if several { format!("; found after {} at worst", show(timing.worst_detection())) } else { String::new() };
    let _ = writeln!(
        out,
        "  verdict    healthy after {}, unhealthy after {}{found}",
        counted(timing.healthy_threshold, "pass", "passes"),
        counted(timing.unhealthy_threshold, "failure", "failures"),
    );
}

fn require(pool: &PoolPolicy) -> String {
    let total = pool.checks.len();
    match pool.require {
        Require::All => format!("{total}; all must pass"),
        Require::Any => format!("{total}; one must pass"),
        Require::Count(needed) => format!("{total}; {needed} must pass"),
    }
}

/// How long an upstream that fails every check can still get requests: until fewer of its checks pass than `require`.
fn worst_detection(pool: &PoolPolicy) -> Duration {
    let mut each: Vec<_> = pool.checks.iter().map(|check| check.timing.worst_detection()).collect();
    each.sort_unstable();
    let needed = pool.require.needed(each.len());
    each[each.len() - needed]
}

/// How long an upstream that passes every check again can go without requests: until as many pass as `require`.
fn worst_return(pool: &PoolPolicy) -> Duration {
    let mut each: Vec<_> = pool.checks.iter().map(|check| check.timing.worst_return()).collect();
    each.sort_unstable();
    each[pool.require.needed(each.len()) - 1]
}

fn when_no_healthy(pool: &PoolPolicy) -> String {
    let few = match pool.min_healthy {
        MinHealthy::Count(1) => "none is healthy".to_owned(),
        // How many upstreams a name has is known only once it is resolved.
        MinHealthy::Share(share) if pool.upstreams.iter().any(|upstream| upstream.name.is_some()) => {
            format!("fewer than {} % are healthy", share.as_f64() * 100.0)
        }
        MinHealthy::Count(_) | MinHealthy::Share(_) => {
            format!("fewer than {} are healthy", pool.min_healthy.needed(pool.upstreams.len()))
        }
    };
    match &pool.when_no_healthy {
        WhenNoHealthy::Reject => format!("503 while {few}"),
        WhenNoHealthy::FailOpen => format!("all are used while {few}"),
        WhenNoHealthy::Pool(other) => format!("pool {other} while {few}"),
    }
}

fn how_often(check: &CheckPolicy) -> String {
    let timing = &check.timing;
    let mut out = format!("every {}", show(timing.interval));
    if timing.jitter.as_f64() > 0.0 {
        let _ = write!(out, " (±{})", show(timing.interval.mul_f64(timing.jitter.as_f64())));
    }
    if let Some(rarely) = timing.unhealthy_interval {
        let _ = write!(out, ", every {} while unhealthy", show(rarely));
    }
    let (fast, timeout) = (show(timing.fast_interval), show(timing.timeout));
    let _ = write!(out, ", every {fast} until a change is confirmed, each at most {timeout}");
    if !timing.start_period.is_zero() {
        let _ = write!(out, "; failures count after {}", show(timing.start_period));
    }
    out
}

/// `key = value`, unless it is the default.
fn changed<T: PartialEq>(key: &str, value: T, default: T, show: impl FnOnce(T) -> String) -> Option<String> {
    (value != default).then(|| format!("{key} = {}", show(value)))
}

/// What a listener has of its own for its clients.
fn changed_of_clients(listener: &ListenerPolicy) -> Vec<String> {
    let ListenerPolicy { name: _, address: _, pool: _, client, rate_limit, marks, ready_path } = listener;
    let (ClientPolicy { timeouts, limits }, default) = (client, ClientPolicy::default());
    let number = |key, value: usize, default: usize| changed(key, value, default, |value| value.to_string());
    let limit = |key, most: Option<NonZeroU32>| most.map(|most| format!("{key} = {most}"));
    let all = [
        changed("header", timeouts.header, default.timeouts.header, show),
        changed("keep_alive", timeouts.keep_alive, default.timeouts.keep_alive, show),
        changed("body_idle", timeouts.body_idle, default.timeouts.body_idle, show),
        number("header_bytes", limits.header_bytes, default.limits.header_bytes),
        number("headers", limits.headers, default.limits.headers),
        number("target_bytes", limits.target_bytes, default.limits.target_bytes),
        changed("body_bytes", limits.body_bytes, default.limits.body_bytes, |limit| {
            limit.map_or("unlimited".to_owned(), show_size)
        }),
        limit("connections", limits.connections),
        limit("connections_per_client", limits.connections_per_client),
        limit("requests_per_connection", limits.requests_per_connection),
        rate_limit.as_ref().map(|limit| format!("rate_limit = {limit}")),
        marks.request_id.as_ref().map(|field| format!("request_id = {field}")),
        marks.traceparent.then(|| "traceparent = true".to_owned()),
        ready_path.as_ref().map(|path| format!("ready_path = {path}")),
    ];
    all.into_iter().flatten().collect()
}

/// What a pool has of its own that says how requests travel.
fn changed_of_traffic(traffic: &TrafficPolicy) -> Vec<String> {
    let TrafficPolicy {
        timeouts,
        connections,
        retry,
        passive,
        leaving,
        choosing: _,
        slow_start,
        upgrades,
        sticky,
        histograms: _,
    } = traffic;
    let default = TrafficPolicy::default();
    let request = |request: Option<Duration>| request.map_or("0s".to_owned(), show);
    let ejection = |(base, max, share): (Duration, Duration, Ratio)| {
        format!("{{ base = {}, max = {}, max_share = {} }}", show(base), show(max), share.as_f64())
    };
    let budget = |budget: RetryBudget| {
        format!("{{ share = {}, min_per_second = {} }}", budget.share.as_f64(), budget.min_per_second)
    };
    let (idle, kept) = (connections.idle_timeout, connections.idle_per_upstream);
    let list = |failures: Failures| format!("[{failures}]");
    let all = [
        changed("connect", timeouts.connect, default.timeouts.connect, show),
        changed("first_byte", timeouts.first_byte, default.timeouts.first_byte, show),
        changed("idle", timeouts.idle, default.timeouts.idle, show),
        changed("request", timeouts.request, default.timeouts.request, request),
        changed("tunnel_idle", timeouts.tunnel_idle, default.timeouts.tunnel_idle, show),
        changed("max_per_upstream", connections.max_per_upstream, None, |most| most.unwrap_or(0).to_string()),
        changed("queue.length", connections.queue_length, default.connections.queue_length, |most| most.to_string()),
        changed("queue.timeout", connections.queue_timeout, default.connections.queue_timeout, show),
        changed("idle_per_upstream", kept, default.connections.idle_per_upstream, |kept| kept.to_string()),
        changed("idle_timeout", idle, default.connections.idle_timeout, show),
        changed("sticky", sticky.clone(), None, |cookie| cookie.map_or_else(String::new, |cookie| cookie.to_string())),
        changed("retries", retry.retries, default.retry.retries, |retries| retries.to_string()),
        changed("retry.on", retry.on, default.retry.on, list),
        changed("non_idempotent", retry.non_idempotent, default.retry.non_idempotent, |on| on.to_string()),
        changed("budget", retry.budget, default.retry.budget, budget),
        changed("consecutive_failures", passive.consecutive_failures, default.passive.consecutive_failures, |count| {
            count.to_string()
        }),
        changed("failure", passive.failures, default.passive.failures, list),
        changed(
            "ejection",
            (passive.base, passive.max, passive.max_share),
            (default.passive.base, default.passive.max, default.passive.max_share),
            ejection,
        ),
        changed("drain_timeout", leaving.requests, None, request),
        changed("tunnel_drain", leaving.tunnels, default.leaving.tunnels, show),
        changed("on_unhealthy", leaving.close_unhealthy, false, |_| "close".to_owned()),
        changed("slow_start", *slow_start, default.slow_start, show),
        changed("upgrades", upgrades, &default.upgrades, |upgrades| upgrades.to_string()),
    ];
    all.into_iter().flatten().collect()
}

fn notes(upstream: &UpstreamPolicy, pool: &PoolPolicy) -> String {
    let (mut notes, checks) = (Vec::new(), &pool.checks);
    if upstream.address.host_name().is_some() {
        notes.push(format!("each of its addresses, resolved every {}", show(pool.resolve)));
    }
    for check in checks {
        let target = check.spec.target(upstream);
        match (target != upstream.address, checks.len()) {
            (false, _) => {}
            (true, 1) => notes.push(format!("probed at {target}")),
            (true, _) => notes.push(format!("{} at {target}", check.name)),
        }
    }
    if upstream.weight != Weight::ONE {
        notes.push(format!("weight {}", upstream.weight.as_u32()));
    }
    if upstream.backup {
        notes.push("backup".to_owned());
    }
    if upstream.admin != AdminState::Enabled {
        notes.push(upstream.admin.to_string());
    }
    if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) }
}

/// Rounded down to milliseconds: shorter times do not matter to a reader.
fn show(duration: Duration) -> String {
    show_duration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}
