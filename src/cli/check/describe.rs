//! What a configuration does, in words: where it listens, and per pool what is probed, how often, and how long a dead
//! upstream can go unnoticed.

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::units::show_duration;
use crate::model::policy::{
    Balance, CheckPolicy, Config, MinHealthy, PoolPolicy, Require, UpstreamPolicy, WhenNoHealthy,
};
use crate::model::units::counted;
use crate::model::{AdminState, Weight};

/// Upstreams listed per pool at most.
const UPSTREAMS_LISTED_MAX: usize = 20;

/// Describes a valid configuration, pool by pool.
pub fn describe(config: &Config) -> String {
    let mut out = String::new();
    for listener in &config.listeners {
        let pool =
            listener.pool.as_ref().map_or("404 unless a route matches".to_owned(), |pool| format!("pool {pool}"));
        let _ = writeln!(out, "listener {} on {}: {pool}", listener.name, listener.address);
    }
    let routes = config.routes.len();
    let _ = writeln!(out, "{routes} {}", if routes == 1 { "route" } else { "routes" });
    let token = if config.admin.token.is_some() { ", with a token" } else { "" };
    let _ = writeln!(out, "admin on {}{token}", config.admin.address);
    for pool in &config.pools {
        out.push('\n');
        describe_pool(pool, &mut out);
    }
    out
}

fn describe_pool(pool: &PoolPolicy, out: &mut String) {
    let balance = match pool.balance {
        Balance::RoundRobin => "round_robin",
        Balance::Random => "random",
        Balance::LeastRequest => "least_request",
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
    for upstream in pool.upstreams.iter().take(UPSTREAMS_LISTED_MAX) {
        let _ = writeln!(out, "  upstream   {}{}", upstream.address, notes(upstream, pool));
    }
    if total > UPSTREAMS_LISTED_MAX {
        let _ = writeln!(out, "  and {} more", total - UPSTREAMS_LISTED_MAX);
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
