//! The families that tell of pools and their upstreams.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use super::families::{Counters, Families, Gauges};
use crate::model::{Code, HealthState};
use crate::pool::{AnswerReason, PoolStatus, RequestClass, Status, UpstreamStatus};

const STATES: [HealthState; 3] = [HealthState::Unknown, HealthState::Healthy, HealthState::Unhealthy];

/// Writes them all.
pub fn encode(to: &mut Families<'_>, status: &Status) -> fmt::Result {
    encode_pools(to, &status.pools)?;
    encode_requests(to, &status.pools)?;
    encode_probes(to, &status.pools)?;
    encode_upstream_health(to, &status.pools)?;
    encode_upstream_load(to, &status.pools)
}

fn encode_pools(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    let each = |value: fn(&PoolStatus) -> u64| {
        move |series: &mut Gauges<'_>| {
            pools.iter().try_for_each(|pool| series.put(&[("pool", pool.name.as_str())], value(pool)))
        }
    };
    to.gauges("roundsman_pool_upstreams", "Upstreams of the configuration", each(|p| p.total as u64))?;
    to.gauges("roundsman_pool_healthy", "Healthy upstreams", each(|p| p.healthy as u64))?;
    to.gauges("roundsman_pool_eligible", "Upstreams that may be picked", each(|p| p.eligible as u64))?;
    let help = "Whether it uses upstreams that are not healthy, as when_no_healthy says";
    to.gauges("roundsman_pool_fail_open", help, each(|p| u64::from(p.fail_open)))?;
    let help = "Requests that wait for an upstream to become healthy";
    to.gauges("roundsman_requests_waiting", help, each(|p| u64::from(p.shared.waiting())))
}

fn encode_requests(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    to.counters("roundsman_requests", "Requests by the class of the status the client saw", |series| {
        for pool in pools {
            for class in RequestClass::ALL {
                let count = pool.shared.stats.requests[class as usize].load(Relaxed);
                series.put(&[("pool", pool.name.as_str()), ("class", class.as_str())], count)?;
            }
        }
        Ok(())
    })?;
    to.counters("roundsman_answers", "Our own answers by reason", |series| {
        for pool in pools {
            for reason in AnswerReason::ALL {
                let count = pool.shared.stats.answers.get(reason);
                series.put(&[("pool", pool.name.as_str()), ("reason", reason.as_str())], count)?;
            }
        }
        Ok(())
    })?;
    to.counters("roundsman_retries", "Attempts after the first", |series| {
        let count = |pool: &PoolStatus| pool.shared.stats.retries.load(Relaxed);
        pools.iter().try_for_each(|pool| series.put(&[("pool", pool.name.as_str())], count(pool)))
    })?;
    let help = "From the whole request head to the end of the answer";
    to.histograms("roundsman_request_duration_seconds", help, |series| {
        let each = |pool: &PoolStatus| series.put(&[("pool", pool.name.as_str())], &pool.shared.stats.request_seconds);
        pools.iter().try_for_each(each)
    })?;
    let help = "From the request on its way to the upstream to the head of its answer";
    to.histograms("roundsman_upstream_response_seconds", help, |series| {
        let each = |pool: &PoolStatus| series.put(&[("pool", pool.name.as_str())], &pool.shared.stats.upstream_seconds);
        pools.iter().try_for_each(each)
    })
}

fn encode_probes(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    to.counters("roundsman_probes", "Probes by outcome", |series| {
        for pool in pools {
            for code in Code::ALL {
                let count = pool.shared.stats.probes[code as usize].load(Relaxed);
                series.put(&[("pool", pool.name.as_str()), ("code", code.as_str())], count)?;
            }
        }
        Ok(())
    })?;
    to.histograms("roundsman_probe_duration_seconds", "How long probes took", |series| {
        let each = |pool: &PoolStatus| series.put(&[("pool", pool.name.as_str())], &pool.shared.stats.probe_seconds);
        pools.iter().try_for_each(each)
    })
}

fn encode_upstream_health(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    to.gauges("roundsman_upstream_state", "1 for the state it is in, 0 for the others", |series| {
        for (pool, upstream, address) in upstreams(pools) {
            for state in STATES {
                let labels = [("pool", pool), ("upstream", address.as_str()), ("state", state.as_str())];
                series.put(&labels, u64::from(upstream.state == state))?;
            }
        }
        Ok(())
    })?;
    let healthy = |u: &UpstreamStatus| u64::from(u.state == HealthState::Healthy);
    to.gauges("roundsman_upstream_healthy", "Whether its checks say healthy", |s| gauge_each(s, pools, healthy))?;
    let eligible = |u: &UpstreamStatus| u64::from(u.eligibility.is_eligible());
    to.gauges("roundsman_upstream_eligible", "Whether it may be picked", |s| gauge_each(s, pools, eligible))?;
    let transitions = |u: &UpstreamStatus| u.transitions_total;
    to.counters("roundsman_upstream_transitions", "Changes of its state", |s| count_each(s, pools, transitions))?;
    let checks = |u: &UpstreamStatus| u.checks_total;
    to.counters("roundsman_upstream_checks", "Probes of it that ended with a verdict", |s| count_each(s, pools, checks))
}

fn encode_upstream_load(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    let in_flight = |u: &UpstreamStatus| u64::from(u.upstream.in_flight.load(Relaxed));
    to.gauges("roundsman_upstream_in_flight", "Requests in flight", |s| gauge_each(s, pools, in_flight))?;
    let connections = |u: &UpstreamStatus| u.upstream.connections.len() as u64;
    to.gauges("roundsman_upstream_connections", "Open connections to it", |s| gauge_each(s, pools, connections))?;
    let requests = |u: &UpstreamStatus| u.upstream.requests_total.load(Relaxed);
    to.counters("roundsman_upstream_requests", "Requests sent to it", |s| count_each(s, pools, requests))?;
    let failures = |u: &UpstreamStatus| u.upstream.connect_failures_total.load(Relaxed);
    let help = "Connections to it that could not be made";
    to.counters("roundsman_upstream_connect_failures", help, |s| count_each(s, pools, failures))?;
    let broken = |u: &UpstreamStatus| u.upstream.broken_total.load(Relaxed);
    let help = "Requests that broke after the connection was made";
    to.counters("roundsman_upstream_broken", help, |s| count_each(s, pools, broken))?;
    let unasked = |u: &UpstreamStatus| u.upstream.unasked.total();
    let help = "Connections closed because it sent bytes that nobody had asked for";
    to.counters("roundsman_upstream_unasked", help, |s| count_each(s, pools, unasked))?;
    let malformed = |u: &UpstreamStatus| u.upstream.faults.total();
    let help = "Malformed answers to requests";
    to.counters("roundsman_upstream_malformed", help, |s| count_each(s, pools, malformed))
}

fn gauge_each(series: &mut Gauges<'_>, pools: &[PoolStatus], value: impl Fn(&UpstreamStatus) -> u64) -> fmt::Result {
    upstreams(pools).try_for_each(|(pool, u, address)| series.put(&[("pool", pool), ("upstream", &address)], value(u)))
}

fn count_each(series: &mut Counters<'_>, pools: &[PoolStatus], value: impl Fn(&UpstreamStatus) -> u64) -> fmt::Result {
    upstreams(pools).try_for_each(|(pool, u, address)| series.put(&[("pool", pool), ("upstream", &address)], value(u)))
}

/// Every upstream with its pool's name and its address.
fn upstreams(pools: &[PoolStatus]) -> impl Iterator<Item = (&str, &UpstreamStatus, String)> {
    pools.iter().flat_map(|pool| pool.upstreams.iter().map(|u| (pool.name.as_str(), u, u.upstream.address.to_string())))
}
