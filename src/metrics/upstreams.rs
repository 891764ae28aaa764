//! The families with series per upstream: health, admin state, load and responses. `?upstreams=false` leaves them out.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use super::families::{Counters, Families, Gauges};
use crate::model::{AdminState, HealthState};
use crate::pool::{PoolStatus, RequestClass, UpstreamStatus};

const STATES: [HealthState; 3] = [HealthState::Unknown, HealthState::Healthy, HealthState::Unhealthy];
const ADMIN_STATES: [AdminState; 3] = [AdminState::Enabled, AdminState::Draining, AdminState::Disabled];

/// Writes them all.
pub fn encode(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    encode_upstream_health(to, pools)?;
    encode_admin(to, pools)?;
    encode_certificates(to, pools)?;
    encode_upstream_load(to, pools)?;
    encode_histograms(to, pools)?;
    encode_answers(to, pools)
}

fn encode_upstream_health(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    to.gauges("roundsman_upstream_state", "1 for its current state, 0 for the others", |series| {
        for (pool, upstream, address) in upstreams(pools) {
            for state in STATES {
                let labels = [("pool", pool), ("upstream", address.as_str()), ("state", state.as_str())];
                series.put(&labels, u64::from(upstream.state == state))?;
            }
        }
        Ok(())
    })?;
    let healthy = |u: &UpstreamStatus| u64::from(u.state == HealthState::Healthy);
    to.gauges("roundsman_upstream_healthy", "Whether its checks found it healthy", |s| gauge_each(s, pools, healthy))?;
    let eligible = |u: &UpstreamStatus| u64::from(u.eligibility.is_eligible());
    to.gauges("roundsman_upstream_eligible", "Whether it may be picked", |s| gauge_each(s, pools, eligible))?;
    let ejected = |u: &UpstreamStatus| u64::from(u.ejection.is_some());
    to.gauges("roundsman_upstream_ejected", "Whether live traffic ejected it", |s| gauge_each(s, pools, ejected))?;
    let ejections = |u: &UpstreamStatus| u.ejections_total;
    let help = "Ejections by live traffic";
    to.counters("roundsman_upstream_ejections", help, |s| count_each(s, pools, ejections))?;
    let transitions = |u: &UpstreamStatus| u.transitions_total;
    to.counters("roundsman_upstream_transitions", "Changes of its state", |s| count_each(s, pools, transitions))?;
    let checks = |u: &UpstreamStatus| u.checks_total;
    to.counters("roundsman_upstream_checks", "Probes of it that ended with a verdict", |s| count_each(s, pools, checks))
}

fn encode_admin(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    let help = "1 for its admin state (set by an operator or the file), 0 for the others";
    to.gauges("roundsman_upstream_admin_state", help, |series| {
        for (pool, upstream, address) in upstreams(pools) {
            for state in ADMIN_STATES {
                let labels = [("pool", pool), ("upstream", address.as_str()), ("state", state.as_str())];
                series.put(&labels, u64::from(upstream.admin == state))?;
            }
        }
        Ok(())
    })
}

fn encode_certificates(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    let help = "When the certificate seen by its last TLS probe expires, in seconds since 1970";
    to.gauges("roundsman_check_certificate_expiry_seconds", help, |series| {
        for (pool, upstream, address) in upstreams(pools) {
            for check in &upstream.checks {
                let Some(expiry) = check.certificate_expiry else { continue };
                series.put(&[("pool", pool), ("upstream", &address), ("check", &check.name)], expiry)?;
            }
        }
        Ok(())
    })
}

fn encode_histograms(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    let help = "From the first byte of a request sent to it to the head of its response, with upstream_histograms";
    to.histograms("roundsman_upstream_seconds", help, |series| {
        for (pool, upstream, address) in upstreams(pools) {
            let Some(histogram) = upstream.upstream.histogram.get() else { continue };
            series.put(&[("pool", pool), ("upstream", &address)], histogram.read())?;
        }
        Ok(())
    })
}

fn encode_upstream_load(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    let in_flight = |u: &UpstreamStatus| u64::from(u.upstream.in_flight.load(Relaxed));
    to.gauges("roundsman_upstream_in_flight", "Requests in flight", |s| gauge_each(s, pools, in_flight))?;
    let connections = |u: &UpstreamStatus| u.upstream.connections.len() as u64;
    to.gauges("roundsman_upstream_connections", "Open connections to it", |s| gauge_each(s, pools, connections))?;
    let requests = |u: &UpstreamStatus| u.upstream.requests_total();
    to.counters("roundsman_upstream_requests", "Requests sent to it", |s| count_each(s, pools, requests))?;
    let failures = |u: &UpstreamStatus| u.upstream.connect_failures_total.load(Relaxed);
    let help = "Failed connection attempts";
    to.counters("roundsman_upstream_connect_failures", help, |s| count_each(s, pools, failures))?;
    let broken = |u: &UpstreamStatus| u.upstream.broken_total.load(Relaxed);
    let help = "Requests that failed after the connection was made, also in the middle of a response";
    to.counters("roundsman_upstream_broken", help, |s| count_each(s, pools, broken))?;
    let unasked = |u: &UpstreamStatus| u.upstream.unasked.total();
    let help = "Connections closed because it sent bytes without a request";
    to.counters("roundsman_upstream_unasked", help, |s| count_each(s, pools, unasked))?;
    let malformed = |u: &UpstreamStatus| u.upstream.faults.total();
    let help = "Malformed responses to requests";
    to.counters("roundsman_upstream_malformed", help, |s| count_each(s, pools, malformed))
}

fn encode_answers(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    to.counters("roundsman_upstream_responses", "Its final responses by class", |series| {
        for (pool, upstream, address) in upstreams(pools) {
            let answered = upstream.upstream.answered();
            for (class, count) in RequestClass::ALL.into_iter().zip(answered.by_class) {
                let labels = [("pool", pool), ("upstream", address.as_str()), ("class", class.as_str())];
                series.put(&labels, count)?;
            }
        }
        Ok(())
    })?;
    let help = "From the first byte of a request sent to the head of the final response; without buckets";
    to.histograms("roundsman_upstream_response_time_seconds", help, |series| {
        upstreams(pools).try_for_each(|(pool, upstream, address)| {
            let answered = upstream.upstream.answered();
            series.put_sum(&[("pool", pool), ("upstream", &address)], answered.seconds, answered.count())
        })
    })
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
