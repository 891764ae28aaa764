//! The families with one series or a few per pool.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::families::{Families, Gauges};
use crate::model::Code;
use crate::model::policy::Failure;
use crate::pool::{AnswerReason, PoolStatus, RequestClass, RouteStats, ServiceState};

/// Writes them all.
pub fn encode(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    encode_pools(to, pools)?;
    encode_requests(to, pools)?;
    encode_probes(to, pools)
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
    to.gauges("roundsman_pool_service_state", "1 for what its requests get now, 0 for the others", |series| {
        for pool in pools {
            for state in ServiceState::ALL {
                let labels = [("pool", pool.name.as_str()), ("state", state.as_str())];
                series.put(&labels, u64::from(pool.service == state))?;
            }
        }
        Ok(())
    })?;
    let help = "Whether it uses upstreams that are not healthy (when_no_healthy = \"fail_open\")";
    to.gauges("roundsman_pool_fail_open", help, each(|p| u64::from(p.fail_open)))?;
    let help = "Whether removed upstreams serve until those of the configuration can";
    to.gauges("roundsman_pool_warming", help, each(|p| u64::from(p.warming)))?;
    let help = "Requests that wait for an upstream: to become healthy, or for a place on one";
    to.gauges("roundsman_requests_waiting", help, each(|p| u64::from(p.shared.waiting())))?;
    let help = "Requests that wait for a place on an upstream";
    to.gauges("roundsman_queue_length", help, each(|p| u64::from(p.shared.queued())))
}

fn encode_requests(to: &mut Families<'_>, pools: &[PoolStatus]) -> fmt::Result {
    to.counters("roundsman_requests", "Requests by the class of the status the client saw", |series| {
        for pool in pools {
            for class in RequestClass::ALL {
                let count = pool.shared.stats.requests(class);
                series.put(&[("pool", pool.name.as_str()), ("class", class.as_str())], count)?;
            }
        }
        Ok(())
    })?;
    to.counters("roundsman_answers", "Responses made by roundsman itself, by reason", |series| {
        for pool in pools {
            for reason in AnswerReason::ALL {
                let count = pool.shared.stats.answers.get(reason);
                series.put(&[("pool", pool.name.as_str()), ("reason", reason.as_str())], count)?;
            }
        }
        Ok(())
    })?;
    to.counters("roundsman_retries", "Attempts after the first, by what the one before failed with", |series| {
        for pool in pools {
            for cause in Failure::ALL {
                let count = pool.shared.stats.retries.of(cause);
                series.put(&[("pool", pool.name.as_str()), ("reason", cause.as_str())], count)?;
            }
        }
        Ok(())
    })?;
    to.counters("roundsman_retries_refused", "Attempts that the retry budget did not allow", |series| {
        let count = |pool: &PoolStatus| pool.shared.stats.retries_refused.load(Relaxed);
        pools.iter().try_for_each(|pool| series.put(&[("pool", pool.name.as_str())], count(pool)))
    })?;
    let help = "How long requests waited for a place on an upstream";
    to.histograms("roundsman_queue_wait_seconds", help, |series| {
        let each = |pool: &PoolStatus| series.put(&[("pool", pool.name.as_str())], pool.shared.stats.queue_seconds());
        pools.iter().try_for_each(each)
    })?;
    let help = "From the complete request head to the end of the response";
    to.histograms("roundsman_request_duration_seconds", help, |series| {
        let each = |pool: &PoolStatus| series.put(&[("pool", pool.name.as_str())], pool.shared.stats.request_seconds());
        pools.iter().try_for_each(each)
    })?;
    let help = "From the first byte of a request sent to an upstream to the head of its response";
    to.histograms("roundsman_upstream_response_seconds", help, |series| {
        let each =
            |pool: &PoolStatus| series.put(&[("pool", pool.name.as_str())], pool.shared.stats.upstream_seconds());
        pools.iter().try_for_each(each)
    })
}

/// Writes those of the routes. Routes that are told apart only by what is not shown count together.
pub fn encode_routes(to: &mut Families<'_>, routes: &[(String, Arc<RouteStats>)]) -> fmt::Result {
    let mut all: BTreeMap<&str, Vec<&RouteStats>> = BTreeMap::new();
    routes.iter().for_each(|(route, stats)| all.entry(route).or_default().push(stats));
    let help = "Requests that have followed a route, by the class of the status the client saw";
    to.counters("roundsman_route_requests", help, |series| {
        for (route, stats) in &all {
            for class in RequestClass::ALL {
                let count: u64 = stats.iter().map(|stats| stats.get(class)).sum();
                series.put(&[("route", route), ("class", class.as_str())], count)?;
            }
        }
        Ok(())
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
        let each =
            |pool: &PoolStatus| series.put(&[("pool", pool.name.as_str())], pool.shared.stats.probe_seconds.read());
        pools.iter().try_for_each(each)
    })
}
