//! Events as JSON.

use super::super::clock::Clock;
use super::super::json::*;
use super::{millis, seconds};
use crate::model::Ratio;
use crate::model::{Address, Name};
use crate::pool::{Event, EventKind, Requests, Setting, WarmingPhase, Way, sentence};

/// One event.
pub fn event(event: Event, clock: &Clock) -> EventInfo {
    let text = sentence(&event.kind);
    let what = match event.kind {
        EventKind::Transition(t) => EventWhat::Transition {
            pool: t.pool.to_string(),
            upstream: t.upstream.to_string(),
            from: t.from,
            to: t.to,
            code: t.code.map(|code| code.as_str().to_string()),
            reason: t.reason,
            duration_ms: t.duration.map(millis),
            healthy_left: t.healthy_left,
        },
        EventKind::Ordered { pool, upstream, to, lasts, reason, by } => {
            let (pool, upstream, seconds) = (pool.to_string(), upstream.to_string(), lasts.map(seconds));
            match to {
                Setting::Admin(to) => EventWhat::Admin(OrderedInfo { pool, upstream, to, seconds, reason, by }),
                Setting::Weight(to) => {
                    let to = to.as_u32();
                    EventWhat::Weight(OrderedInfo { pool, upstream, to, seconds, reason, by })
                }
            }
        }
        EventKind::OutageBegan { pool, way, reason, remedy } => {
            let began = OutageInfo { reason: Some(reason), next: Some(remedy), ..outage(&pool, &way, true) };
            outage_kind(&way)(began)
        }
        EventKind::OutageEnded { pool, way, serves, lasted } => {
            let lasted_seconds = Some(seconds(lasted));
            outage_kind(&way)(OutageInfo { serves: Some(serves), lasted_seconds, ..outage(&pool, &way, false) })
        }
        EventKind::BelowHalf { pool, on, able, total } => {
            EventWhat::BelowHalf { pool: pool.to_string(), on, able, total }
        }
        EventKind::Warming { pool, phase } => warming(&pool, phase),
        EventKind::Reload { result, generation, error, by, changes } => {
            let changes = (!changes.is_empty()).then_some(changes);
            EventWhat::Reload { result: result.to_string(), generation, error, by, changes }
        }
        EventKind::UpstreamAdded { pool, upstream } => {
            EventWhat::UpstreamAdded { pool: pool.to_string(), upstream: upstream.to_string() }
        }
        EventKind::UpstreamRemoved { pool, upstream } => {
            EventWhat::UpstreamRemoved { pool: pool.to_string(), upstream: upstream.to_string() }
        }
        EventKind::UpstreamsChanged { added, removed } => EventWhat::UpstreamsChanged { added, removed },
        EventKind::Addresses { pool, added, removed } => {
            let texts = |addresses: Vec<Address>| addresses.iter().map(Address::to_string).collect();
            EventWhat::Addresses { pool: pool.to_string(), added: texts(added), removed: texts(removed) }
        }
        EventKind::RequestsFail { pool, upstream, window } => requests_fail(&pool, &upstream, window, None),
        EventKind::RequestsFailOver { pool, upstream, over, window } => {
            requests_fail(&pool, &upstream, window, Some(over.as_str()))
        }
        EventKind::RequestsFailMore { began, ended } => EventWhat::RequestsFailMore { began, ended },
        EventKind::Ejected { pool, upstream, ejected } => EventWhat::Ejected {
            pool: pool.to_string(),
            upstream: upstream.to_string(),
            on: true,
            reason: Some(ejected.reason()),
            seconds: Some(seconds(ejected.lasts())),
            why: None,
            lasted_seconds: None,
        },
        EventKind::EjectionEnded { pool, upstream, why, lasted } => EventWhat::Ejected {
            pool: pool.to_string(),
            upstream: upstream.to_string(),
            on: false,
            reason: None,
            seconds: None,
            why: Some(why.as_str().to_owned()),
            lasted_seconds: Some(seconds(lasted)),
        },
        EventKind::Degraded { pool, upstream, weight } => EventWhat::Degraded {
            pool: pool.to_string(),
            upstream: upstream.to_string(),
            on: weight.is_some(),
            weight: weight.map(Ratio::as_f64),
        },
        EventKind::ProbePanic { pool, upstream } => {
            EventWhat::ProbePanic { pool: pool.to_string(), upstream: upstream.to_string() }
        }
        EventKind::CheckerRestart => EventWhat::CheckerRestart,
    };
    EventInfo { seq: event.seq, at: clock.date(event.at), text, what }
}

/// Which kind of event an outage is.
fn outage_kind(way: &Way) -> fn(OutageInfo) -> EventWhat {
    match way {
        Way::Refuse => EventWhat::Refusing,
        Way::FailOpen => EventWhat::FailOpen,
        Way::OtherPool(_) => EventWhat::OtherPool,
    }
}

fn outage(pool: &Name, way: &Way, on: bool) -> OutageInfo {
    let other = match way {
        Way::OtherPool(other) => Some(other.to_string()),
        Way::Refuse | Way::FailOpen => None,
    };
    OutageInfo { pool: pool.to_string(), on, other, reason: None, next: None, serves: None, lasted_seconds: None }
}

fn warming(pool: &Name, phase: WarmingPhase) -> EventWhat {
    let pool = pool.to_string();
    let (mut retiring, mut at_most_seconds, mut lasted_seconds) = (None, None, None);
    let (mut able, mut needed, mut reason, mut next) = (None, None, None, None);
    let word = match phase {
        WarmingPhase::Began { retiring: count, at_most, progress } => {
            (able, needed) = (Some(progress.able), Some(progress.needed));
            (retiring, at_most_seconds) = (Some(count), Some(seconds(at_most)));
            WarmingWord::Began
        }
        WarmingPhase::Ended { lasted } => {
            lasted_seconds = Some(seconds(lasted));
            WarmingWord::Ended
        }
        WarmingPhase::Failed { lasted, reason: why, remedy } => {
            (lasted_seconds, reason, next) = (Some(seconds(lasted)), Some(why), Some(remedy));
            WarmingWord::Failed
        }
    };
    EventWhat::Warming { pool, phase: word, retiring, at_most_seconds, able, needed, lasted_seconds, reason, next }
}

fn requests_fail(pool: &Name, upstream: &Address, window: Requests, why: Option<&str>) -> EventWhat {
    let Requests { ended: requests, server_errors, broken, connect_failures } = window;
    let (pool, upstream) = (pool.to_string(), upstream.to_string());
    let (on, why) = (why.is_none(), why.map(str::to_owned));
    EventWhat::RequestsFail { pool, upstream, on, requests, server_errors, broken, connect_failures, why }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::admin::testing;
    use crate::model::{AdminState, Code, HealthState, Weight};
    use crate::pool::{Changes, Ejected, EjectionEnd, Listed, Over, Progress, Transition};

    #[tokio::test(start_paused = true)]
    async fn events_are_flat_objects_tagged_by_kind() {
        let transition = Transition {
            pool: testing::name("api"),
            upstream: "10.0.0.1:80".parse().unwrap(),
            from: HealthState::Unknown,
            to: HealthState::Healthy,
            code: Some(Code::L7Ok),
            reason: "200 in 1.9 ms".into(),
            duration: Some(std::time::Duration::from_micros(1_900)),
            healthy_left: 1,
        };
        let address = "10.0.0.9:80".parse().unwrap();
        let (api, upstream) = (|| testing::name("api"), || "10.0.0.9:80".parse().unwrap());
        let second = std::time::Duration::from_secs(1);
        let began = |way| EventKind::OutageBegan { pool: api(), way, reason: "r".into(), remedy: "n".into() };
        let warm = |phase| EventKind::Warming { pool: api(), phase };
        let window = Requests { ended: 10, server_errors: 10, broken: 0, connect_failures: 0 };
        let order = |to: Setting, reason: &str| EventKind::Ordered {
            pool: api(),
            upstream: upstream(),
            to,
            lasts: Some(second),
            reason: reason.to_owned(),
            by: "command from 127.0.0.1:4711".to_owned(),
        };
        let kinds = [
            (EventKind::Transition(transition), "transition"),
            (began(Way::Refuse), "refusing"),
            (began(Way::FailOpen), "fail_open"),
            (began(Way::OtherPool(testing::name("spare"))), "other_pool"),
            (EventKind::OutageEnded { pool: api(), way: Way::FailOpen, serves: true, lasted: second }, "fail_open"),
            (EventKind::BelowHalf { pool: api(), on: true, able: 1, total: 3 }, "below_half"),
            (
                warm(WarmingPhase::Began {
                    retiring: 2,
                    at_most: 30 * second,
                    progress: Progress { able: 0, needed: 1, backups: 0 },
                }),
                "warming",
            ),
            (warm(WarmingPhase::Ended { lasted: second }), "warming"),
            (warm(WarmingPhase::Failed { lasted: second, reason: "r".into(), remedy: "n".into() }), "warming"),
            (
                EventKind::Reload {
                    result: "applied",
                    generation: 2,
                    error: None,
                    by: "signal HUP".into(),
                    changes: Changes {
                        pools_added: Listed { count: 1, names: vec!["api".into()] },
                        ..Changes::default()
                    },
                },
                "reload",
            ),
            (EventKind::UpstreamAdded { pool: api(), upstream: upstream() }, "upstream_added"),
            (EventKind::UpstreamRemoved { pool: api(), upstream: upstream() }, "upstream_removed"),
            (EventKind::UpstreamsChanged { added: 9_950, removed: 0 }, "upstreams_changed"),
            (EventKind::Addresses { pool: testing::name("api"), added: vec![], removed: vec![address] }, "addresses"),
            (EventKind::RequestsFail { pool: api(), upstream: upstream(), window }, "requests_fail"),
            (
                EventKind::RequestsFailOver { pool: api(), upstream: upstream(), over: Over::FewRequests, window },
                "requests_fail",
            ),
            (EventKind::RequestsFailMore { began: 1, ended: 0 }, "requests_fail_more"),
            (EventKind::Ejected { pool: api(), upstream: upstream(), ejected: Ejected::example() }, "ejected"),
            (EventKind::Degraded { pool: api(), upstream: upstream(), weight: None }, "degraded"),
            (
                EventKind::EjectionEnded { pool: api(), upstream: upstream(), why: EjectionEnd::Last, lasted: second },
                "ejected",
            ),
            (order(Setting::Admin(AdminState::Draining), "kernel"), "admin"),
            (order(Setting::Admin(AdminState::Enabled), ""), "admin"),
            (order(Setting::Weight(Weight::ONE), ""), "weight"),
            (EventKind::CheckerRestart, "checker_restart"),
        ];
        for (kind, word) in kinds {
            let said = sentence(&kind);
            let info = event(Event { seq: 7, at: Instant::now(), kind }, &Clock::start());
            let value = serde_json::to_value(&info).unwrap();
            assert_eq!((&value["seq"], &value["kind"]), (&json!(7), &json!(word)));
            assert_eq!(value["text"], said);
            assert!(value["reason"] != "", "an empty reason is left out: {value}");
            assert_eq!(serde_json::from_value::<EventInfo>(value).unwrap(), info);
        }
    }
}
