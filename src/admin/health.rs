//! What `/health` reports: one word for the process, derived from the words for its pools. Pure.

use super::json::{HealthReply, Ordered, PoolHealthReply, PoolWord, UnhealthyInfo};
use super::render;
use crate::model::AdminState;
use crate::pool::{PoolStatus, Status, UpstreamStatus};

/// The most upstreams named in one answer.
pub const UNHEALTHY_MAX: usize = 50;

/// The response without the details of `?detailed=true`. The process is unhealthy if no pool can serve, and degraded if
/// anything else is wrong.
pub fn health(status: &Status) -> HealthReply {
    let total = status.pools.len();
    let serving = status.pools.iter().filter(|pool| pool.eligible > 0).count();
    let down: usize = status.pools.iter().map(|pool| down_upstreams(pool).count()).sum();
    let not_well = status.pools.iter().any(|pool| render::pool_word(pool.summary) != PoolWord::Healthy);
    let (word, reason) = if total == 0 {
        (PoolWord::Unhealthy, Some("no configuration is loaded yet".to_string()))
    } else if serving == 0 {
        (PoolWord::Unhealthy, Some(nothing_serves(status)))
    } else if serving < total {
        (PoolWord::Degraded, Some(format!("{} of {total} pools cannot serve", total - serving)))
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
    } else if not_well {
        (PoolWord::Degraded, Some("a pool is degraded; /api/v1/status shows why".to_string()))
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
pub fn pool_health(pool: &PoolStatus) -> PoolHealthReply {
    PoolHealthReply {
        status: render::pool_word(pool.summary),
        pool: pool.name.to_string(),
        healthy: pool.healthy,
        total: pool.total,
        eligible: pool.eligible,
        reason: pool.out_of_order.as_ref().map(render::reason),
        unhealthy: unhealthy_of(pool).take(UNHEALTHY_MAX).collect(),
    }
}

fn nothing_serves(status: &Status) -> String {
    let all_unknown = status.pools.iter().all(|pool| render::pool_word(pool.summary) == PoolWord::Unknown);
    let text = if all_unknown { "no upstream has passed its checks yet" } else { "no pool has an eligible upstream" };
    text.to_string()
}

fn unhealthy_of(pool: &PoolStatus) -> impl Iterator<Item = UnhealthyInfo> + '_ {
    down_upstreams(pool).map(|upstream| UnhealthyInfo {
        pool: pool.name.to_string(),
        upstream: upstream.upstream.address.to_string(),
        reason: upstream.why.clone().unwrap_or_else(|| upstream.state.as_str().to_string()),
    })
}

/// Upstreams that should serve but do not. Those an operator took out, and retiring ones, do not count. Under
/// `fail_open` an unhealthy upstream is eligible and still down.
fn down_upstreams(pool: &PoolStatus) -> impl Iterator<Item = &UpstreamStatus> {
    let down = |u: &&UpstreamStatus| {
        u.admin == AdminState::Enabled
            && !u.retiring
            && (u.state != crate::model::HealthState::Healthy || !u.eligibility.is_eligible())
    };
    pool.upstreams.iter().filter(down)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::{finish, pool, status, upstream};
    use crate::model::HealthState::{Healthy, Unhealthy, Unknown};
    use crate::model::{Eligibility, Ineligible};

    fn word(pools: Vec<PoolStatus>) -> (PoolWord, usize) {
        let reply = health(&status(pools));
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
        assert_eq!(health(&status).status, PoolWord::Degraded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pool_that_is_down_says_why() {
        let mut down = pool("a", &[Unhealthy]);
        let (reason, remedy) = ("all are down".to_owned(), "this ends".to_owned());
        down.out_of_order = Some(crate::pool::OutOfOrder { way: None, since: None, reason, remedy });
        assert_eq!(pool_health(&down).reason.as_deref(), Some("all are down; this ends"));
        assert_eq!(pool_health(&pool("a", &[Healthy])).reason, None);
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_are_named_at_most() {
        let many = vec![pool("a", &[Unhealthy; 60]), pool("b", &[Healthy])];
        assert_eq!(word(many), (PoolWord::Degraded, 50));
    }
}
