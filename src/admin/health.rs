//! What `/health` reports: one word for the process, derived from the words for its pools. Pure.

use tokio::time::Instant;

use super::json::{HealthReply, Ordered, PoolHealthReply, PoolWord, UnhealthyInfo};
use super::render;
use crate::model::{AdminState, HealthState};
use crate::pool::{PoolStatus, Status, UpstreamStatus};

/// The most upstreams named in one answer.
pub const UNHEALTHY_MAX: usize = 50;
/// The most pools that a reason names.
const NAMED_MAX: usize = 8;

/// The response without the details of `?detailed=true`. The process is unhealthy if no pool can serve, and degraded if
/// anything else is wrong.
pub fn health(status: &Status, now: Instant) -> HealthReply {
    let total = status.pools.len();
    let out: Vec<&PoolStatus> = status.pools.iter().filter(|pool| pool.eligible == 0).collect();
    let down: usize = status.pools.iter().map(|pool| down_upstreams(pool).count()).sum();
    let not_well = || status.pools.iter().find(|pool| render::pool_word(pool.summary) != PoolWord::Healthy);
    let (word, reason) = if total == 0 {
        (PoolWord::Unhealthy, Some("no configuration is loaded yet".to_string()))
    } else if out.len() == total {
        (PoolWord::Unhealthy, Some(nothing_serves(&out)))
    } else if !out.is_empty() {
        let (count, named) = (out.len(), named(&out));
        (PoolWord::Degraded, Some(format!("{count} of {total} pools cannot serve: {named}")))
    } else if let Some(pool) = status.pools.iter().find(|pool| pool.warming) {
        let why = reason(pool, now).unwrap_or_else(|| "removed upstreams serve".to_owned());
        (PoolWord::Degraded, Some(format!("pool {}: {why}", pool.name)))
    } else if down > 0 {
        (PoolWord::Degraded, Some(format!("upstreams not eligible: {down}")))
    } else if status.checker.stale {
        (
            PoolWord::Degraded,
            Some(
                "the checker is not running: verdicts stay valid until they expire, and there are no new ones"
                    .to_string(),
            ),
        )
    } else if let Some(pool) = not_well() {
        let name = &pool.name;
        (PoolWord::Degraded, Some(format!("pool {name} is degraded; `roundsman explain {name}` says why")))
    } else {
        (PoolWord::Healthy, None)
    };
    HealthReply {
        status: word,
        reason,
        unhealthy: status.pools.iter().flat_map(unhealthy_of).take(UNHEALTHY_MAX).collect(),
        components: None,
        uptime_seconds: None,
        version: None,
        now: None,
    }
}

/// Pool name to status.
pub fn components(status: &Status) -> Ordered<PoolWord> {
    Ordered(status.pools.iter().map(|pool| (pool.name.to_string(), render::pool_word(pool.summary))).collect())
}

/// The answer for one pool.
pub fn pool_health(pool: &PoolStatus, now: Instant) -> PoolHealthReply {
    PoolHealthReply {
        status: render::pool_word(pool.summary),
        pool: pool.name.to_string(),
        healthy: pool.healthy,
        total: pool.total,
        eligible: pool.eligible,
        reason: reason(pool, now),
        unhealthy: unhealthy_of(pool).take(UNHEALTHY_MAX).collect(),
    }
}

/// Why a pool does not serve with enough of its own upstreams, and what would change that.
fn reason(pool: &PoolStatus, now: Instant) -> Option<String> {
    let warming = || Some(pool.progress?.sentence(pool.warming_until?.saturating_duration_since(now)));
    pool.out_of_order.as_ref().map(render::reason).or_else(warming)
}

/// The reason if no pool serves: that of a single pool, or the names of all.
fn nothing_serves(pools: &[&PoolStatus]) -> String {
    let all_unknown = pools.iter().all(|pool| render::pool_word(pool.summary) == PoolWord::Unknown);
    let text = if all_unknown { "no upstream has passed its checks yet" } else { "no pool has an eligible upstream" };
    format!("{text}: {}", named(pools))
}

/// `api (its only upstream, 10.0.0.1:80, is draining)`, `api, web and 3 more`.
fn named(pools: &[&PoolStatus]) -> String {
    match pools {
        [only] => {
            let why = only.out_of_order.as_ref().map_or_else(String::new, |out| format!(" ({})", out.reason));
            format!("{}{why}", only.name)
        }
        several => {
            let names: Vec<&str> = several.iter().take(NAMED_MAX).map(|pool| pool.name.as_str()).collect();
            let more = match several.len() - names.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{}{more}", names.join(", "))
        }
    }
}

fn unhealthy_of(pool: &PoolStatus) -> impl Iterator<Item = UnhealthyInfo> + '_ {
    down_upstreams(pool).map(|upstream| UnhealthyInfo {
        pool: pool.name.to_string(),
        upstream: upstream.upstream.address.to_string(),
        reason: upstream.why.clone().unwrap_or_else(|| upstream.state.as_str().to_string()),
    })
}

/// Upstreams that should serve but do not. Those an operator took out count only if their pool cannot serve: then they
/// are part of the reason. Retiring ones do not count. Under `fail_open` an unhealthy upstream is eligible and still down.
fn down_upstreams(pool: &PoolStatus) -> impl Iterator<Item = &UpstreamStatus> {
    let cannot_serve = pool.eligible == 0;
    let down = move |u: &&UpstreamStatus| {
        (u.admin == AdminState::Enabled || cannot_serve)
            && !u.retiring
            && (u.state != HealthState::Healthy || !u.eligibility.is_eligible())
    };
    pool.upstreams.iter().filter(down)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::{finish, pool, status, upstream};
    use crate::model::HealthState::{Healthy, Unhealthy, Unknown};
    use crate::model::{Eligibility, Ineligible};
    use crate::pool::PoolSummary;

    fn word(pools: Vec<PoolStatus>) -> (PoolWord, usize) {
        let reply = health(&status(pools), Instant::now());
        assert_eq!(reply.reason.is_none(), reply.status == PoolWord::Healthy, "{reply:?}");
        (reply.status, reply.unhealthy.len())
    }

    #[tokio::test(start_paused = true)]
    async fn the_process_is_unhealthy_only_if_no_pool_serves() {
        assert_eq!(word(vec![pool("a", &[Healthy, Healthy])]), (PoolWord::Healthy, 0));
        assert_eq!(word(vec![pool("a", &[Healthy, Unhealthy])]), (PoolWord::Degraded, 1));
        assert_eq!(word(vec![pool("a", &[Healthy]), pool("b", &[Unhealthy])]), (PoolWord::Degraded, 1));
        assert_eq!(word(vec![pool("a", &[Unhealthy]), pool("b", &[Unhealthy, Unknown])]), (PoolWord::Unhealthy, 3));
        assert_eq!(word(vec![pool("a", &[Unknown])]), (PoolWord::Unhealthy, 1));
        assert_eq!(word(vec![]), (PoolWord::Unhealthy, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_an_operator_took_out_is_not_down() {
        let mut drained = upstream("a", 1, Unhealthy);
        drained.admin = AdminState::Draining;
        drained.eligibility = Eligibility::Not(Ineligible::Draining);
        let pools = vec![finish("a", vec![drained, upstream("a", 2, Healthy)])];
        assert_eq!(word(pools), (PoolWord::Healthy, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_checker_that_is_being_restarted_makes_the_process_degraded() {
        let mut status = status(vec![pool("a", &[Healthy])]);
        status.checker.stale = true;
        assert_eq!(health(&status, Instant::now()).status, PoolWord::Degraded);
    }

    /// A pool that cannot serve, with its reason.
    fn out(name: &str, upstreams: Vec<UpstreamStatus>) -> PoolStatus {
        let (reason, remedy) = (format!("{name} is down"), "this ends".to_owned());
        let mut pool = finish(name, upstreams);
        pool.summary = PoolSummary::Unhealthy;
        pool.out_of_order = Some(crate::pool::OutOfOrder { way: None, since: None, way_since: None, reason, remedy });
        pool
    }

    #[tokio::test(start_paused = true)]
    async fn orders_that_leave_a_pool_without_an_upstream_are_part_of_the_reason() {
        let drained = |number, state| {
            let mut drained = upstream("a", number, state);
            drained.admin = AdminState::Draining;
            drained.eligibility = Eligibility::Not(Ineligible::Draining);
            drained.why = Some(format!("draining {number}"));
            drained
        };
        let all = || out("a", vec![drained(1, Unhealthy), drained(2, Healthy)]);
        let one = health(&status(vec![all()]), Instant::now());
        let listed: Vec<(&str, &str)> = one.unhealthy.iter().map(|u| (&*u.upstream, &*u.reason)).collect();
        assert_eq!(listed, [("10.0.0.1:80", "draining 1"), ("10.0.0.2:80", "draining 2")]);
        assert_eq!(one.reason.as_deref(), Some("no pool has an eligible upstream: a (a is down)"));
        assert_eq!(pool_health(&all(), Instant::now()).unhealthy, one.unhealthy);

        let beside = health(&status(vec![all(), pool("b", &[Healthy])]), Instant::now());
        assert_eq!((beside.status, &beside.unhealthy), (PoolWord::Degraded, &one.unhealthy));
        assert_eq!(beside.reason.as_deref(), Some("1 of 2 pools cannot serve: a (a is down)"));
        let many = (0..20).map(|n| out(&format!("p{n}"), vec![drained(1, Healthy)]));
        let many = health(&status(many.chain([pool("b", &[Healthy])]).collect()), Instant::now());
        let reason = "20 of 21 pools cannot serve: p0, p1, p2, p3, p4, p5, p6, p7 and 12 more";
        assert_eq!(many.reason.as_deref(), Some(reason));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_whose_removed_upstreams_still_serve_says_for_how_long() {
        let mut warming = pool("a", &[Healthy]);
        warming.summary = PoolSummary::Degraded;
        warming.warming = true;
        warming.warming_until = Some(Instant::now() + std::time::Duration::from_secs(12));
        warming.progress = Some(crate::pool::Progress { able: 0, needed: 1, backups: 0 });
        let why = "removed upstreams serve 12 s more at most: no upstream of the new configuration can serve yet";
        assert_eq!(pool_health(&warming, Instant::now()).reason.as_deref(), Some(why));
        let whole = health(&status(vec![warming, pool("b", &[Healthy])]), Instant::now());
        assert_eq!(whole.reason, Some(format!("pool a: {why}")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_is_down_says_why() {
        let mut down = pool("a", &[Unhealthy]);
        let (reason, remedy) = ("all are down".to_owned(), "this ends".to_owned());
        down.out_of_order = Some(crate::pool::OutOfOrder { way: None, since: None, way_since: None, reason, remedy });
        assert_eq!(pool_health(&down, Instant::now()).reason.as_deref(), Some("all are down; this ends"));
        assert_eq!(pool_health(&pool("a", &[Healthy]), Instant::now()).reason, None);
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_are_named_at_most() {
        let many = vec![pool("a", &[Unhealthy; 60]), pool("b", &[Healthy])];
        assert_eq!(word(many), (PoolWord::Degraded, 50));
    }
}
