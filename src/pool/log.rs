//! One log line per event. Levels: a reader of only `warn` and `error` learns of every outage, every lost upstream and
//! every order that takes one out. Improvements and routine events are `info`.
//!
//! On a terminal the line is the field `sentence`, which is the text of `roundsman events`. JSON has the other fields.

use super::changes::{Changes, Listed};
use super::events::{EventKind, Transition, WarmingPhase};
use super::orders::Setting;
use super::outage::Way;
use super::sentence::sentence;
use super::traffic::Requests;
use crate::model::{Address, AdminState, Code, HealthState, Name};

/// The most addresses in a log line.
const LISTED_MAX: usize = 16;

/// Logs an event; `hint` is what may help, such as a secret that has changed on disk.
pub(super) fn event(kind: &EventKind, hint: Option<&str>) {
    let sentence = sentence(kind);
    let sentence = sentence.as_str();
    match kind {
        EventKind::Transition(change) => transition(change, hint, sentence),
        EventKind::Ordered { pool, upstream, to, lasts, reason, by } => {
            let reason = (!reason.is_empty()).then_some(reason.as_str());
            let seconds = lasts.map(|lasts| lasts.as_secs_f64());
            match to {
                Setting::Admin(to @ (AdminState::Draining | AdminState::Disabled)) => {
                    tracing::warn!(%pool, %upstream, %to, seconds, %by, reason, sentence, "Admin state changed");
                }
                Setting::Admin(to @ AdminState::Enabled) => {
                    tracing::info!(%pool, %upstream, %to, seconds, %by, reason, sentence, "Admin state changed");
                }
                Setting::Weight(to) => {
                    let to = to.as_u32();
                    tracing::info!(%pool, %upstream, to, seconds, %by, reason, sentence, "Weight changed");
                }
            }
        }
        EventKind::OutageBegan { pool, way, reason, remedy } => {
            outage_began(pool, way, [reason.as_str(), remedy.as_str()], hint, sentence);
        }
        EventKind::OutageEnded { pool, way, serves, lasted } => {
            let seconds = lasted.as_secs_f64();
            match (serves, way) {
                (true, _) => tracing::info!(%pool, down_seconds = seconds, sentence, "Pool serves again"),
                (false, Way::Refuse) => {
                    tracing::info!(%pool, lasted_seconds = seconds, sentence, "Pool no longer refuses requests")
                }
                (false, Way::FailOpen) => {
                    tracing::info!(%pool, lasted_seconds = seconds, sentence, "Pool no longer fails open")
                }
                (false, Way::OtherPool(other)) => {
                    tracing::info!(
                        %pool,
                        %other,
                        lasted_seconds = seconds,
                        sentence,
                        "Pool no longer sends its requests to another pool"
                    );
                }
            }
        }
        EventKind::BelowHalf { pool, on: true, able, total } => {
            tracing::warn!(%pool, able, total, sentence, "Pool serves with fewer than half of its upstreams");
        }
        EventKind::BelowHalf { pool, on: false, able, total } => {
            tracing::info!(%pool, able, total, sentence, "Pool serves with at least half of its upstreams again");
        }
        EventKind::Warming { pool, phase } => warming(pool, phase, sentence),
        EventKind::Reload { result: "refused", generation, error, by, .. } => {
            let error = error.as_deref();
            tracing::error!(generation, %by, error, sentence, "Configuration refused; nothing changed");
        }
        EventKind::Reload { result, generation, by, changes, .. } => {
            reload(result, *generation, by, changes, sentence);
        }
        EventKind::UpstreamAdded { pool, upstream } => tracing::info!(%pool, %upstream, sentence, "Upstream added"),
        EventKind::UpstreamRemoved { pool, upstream } => tracing::info!(%pool, %upstream, sentence, "Upstream removed"),
        EventKind::UpstreamsChanged { added, removed } => {
            tracing::info!(added, removed, sentence, "More upstreams were added or removed");
        }
        EventKind::Addresses { pool, added, removed } => {
            let (added, removed) = (addresses(added), addresses(removed));
            tracing::info!(%pool, added, removed, sentence, "Addresses changed");
        }
        EventKind::RequestsFail { pool, upstream, window } => {
            let Requests { ended: requests, server_errors, broken, connect_failures } = *window;
            tracing::warn!(
                %pool,
                %upstream,
                requests,
                server_errors,
                broken,
                connect_failures,
                sentence,
                "Upstream fails requests and passes its checks"
            );
        }
        EventKind::RequestsFailOver { pool, upstream, over, window } => {
            let (requests, failed, why) = (window.ended, window.failed(), over.as_str());
            tracing::info!(
                %pool,
                %upstream,
                requests,
                failed,
                why,
                sentence,
                "Upstream no longer fails requests while it passes its checks"
            );
        }
        EventKind::RequestsFailMore { began: 0, ended } => {
            tracing::info!(began = 0, ended, sentence, "More upstreams fail requests and pass their checks");
        }
        EventKind::RequestsFailMore { began, ended } => {
            tracing::warn!(began, ended, sentence, "More upstreams fail requests and pass their checks");
        }
        EventKind::Ejected { pool, upstream, ejected } => {
            let (seconds, reason, count) = (ejected.lasts().as_secs_f64(), ejected.reason(), ejected.count);
            tracing::warn!(%pool, %upstream, seconds, reason, count, sentence, "Upstream ejected");
        }
        EventKind::EjectionEnded { pool, upstream, why, lasted } => {
            let (lasted_seconds, why) = (lasted.as_secs_f64(), why.as_str());
            tracing::info!(%pool, %upstream, why, lasted_seconds, sentence, "Ejection ended");
        }
        EventKind::Degraded { pool, upstream, weight: Some(weight) } => {
            tracing::warn!(%pool, %upstream, weight = weight.as_f64(), sentence, "Upstream is degraded");
        }
        EventKind::Degraded { pool, upstream, weight: None } => {
            tracing::info!(%pool, %upstream, sentence, "Upstream is no longer degraded");
        }
        EventKind::ProbePanic { pool, upstream } => {
            tracing::error!(%pool, %upstream, sentence, "A probe panicked; this upstream is now unknown");
        }
        EventKind::CheckerRestart => tracing::warn!(sentence, "Probe scheduler restarted"),
    }
}

/// Logs a change of an upstream's state. `hint` names what may help, such as a secret that has changed on disk.
fn transition(change: &Transition, hint: Option<&str>, sentence: &str) {
    // A line's level is part of its callsite, so there are two.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                pool = %change.pool,
                upstream = %change.upstream,
                from = %change.from,
                to = %change.to,
                code = change.code.map(Code::as_str),
                reason = %change.reason,
                hint,
                duration_ms = change.duration.map(|duration| duration.as_secs_f64() * 1e3),
                healthy_left = change.healthy_left,
                sentence,
                "Health changed"
            )
        };
    }
    match (change.from, change.to) {
        (_, HealthState::Healthy) | (HealthState::Unhealthy | HealthState::Unknown, HealthState::Unknown) => {
            line!(info)
        }
        (HealthState::Healthy, _) | (_, HealthState::Unhealthy) => line!(warn),
    }
}

fn outage_began(pool: &Name, way: &Way, [reason, next]: [&str; 2], hint: Option<&str>, sentence: &str) {
    match way {
        Way::Refuse => tracing::error!(%pool, reason, next, hint, sentence, "Pool refuses requests"),
        Way::FailOpen => tracing::error!(
            %pool,
            reason,
            next,
            hint,
            sentence,
            "Pool fails open: it uses every enabled upstream, healthy or not"
        ),
        Way::OtherPool(other) => {
            tracing::error!(%pool, %other, reason, next, hint, sentence, "Pool sends its requests to another pool")
        }
    }
}

fn warming(pool: &Name, phase: &WarmingPhase, sentence: &str) {
    match phase {
        WarmingPhase::Began { retiring, at_most, progress } => tracing::warn!(
            %pool,
            retiring,
            at_most_seconds = at_most.as_secs_f64(),
            able = progress.able,
            needed = progress.needed,
            sentence,
            "Warming began: removed upstreams serve until new ones are healthy"
        ),
        WarmingPhase::Ended { lasted } => tracing::info!(
            %pool,
            lasted_seconds = lasted.as_secs_f64(),
            sentence,
            "Warming ended: the upstreams of the configuration serve"
        ),
        WarmingPhase::Failed { lasted, reason, remedy } => tracing::error!(
            %pool,
            lasted_seconds = lasted.as_secs_f64(),
            %reason,
            next = %remedy,
            sentence,
            "Warming ended, but too few upstreams of the configuration are healthy"
        ),
    }
}

fn reload(result: &str, generation: u64, by: &str, changes: &Changes, sentence: &str) {
    let listed = |list: &Listed| (list.count > 0).then(|| list.to_string());
    tracing::info!(
        generation,
        result,
        %by,
        pools_added = listed(&changes.pools_added),
        pools_removed = listed(&changes.pools_removed),
        pools_changed = listed(&changes.pools_changed),
        upstreams_added = listed(&changes.upstreams_added),
        upstreams_removed = listed(&changes.upstreams_removed),
        sentence,
        "Configuration loaded"
    );
}

/// The first addresses, and how many more there are.
fn addresses(all: &[Address]) -> String {
    let mut text = all.iter().take(LISTED_MAX).map(Address::to_string).collect::<Vec<_>>().join(" ");
    if all.len() > LISTED_MAX {
        text.push_str(&format!(" and {} more", all.len() - LISTED_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Level, Metadata, Subscriber};

    use super::*;
    use crate::pool::outage::Progress;
    use crate::pool::passive::{Ejected, EjectionEnd};
    use crate::pool::traffic::Over;

    /// Records the levels of lines.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl Subscriber for Levels {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().push(*event.metadata().level());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    fn level(kind: &EventKind) -> Level {
        let levels = Levels::default();
        tracing::subscriber::with_default(levels.clone(), || event(kind, None));
        let seen = levels.0.lock().clone();
        assert_eq!(seen.len(), 1, "one line an event: {kind:?}");
        seen[0]
    }

    #[test]
    fn losses_are_warnings_and_outages_are_errors() {
        use HealthState::{Healthy, Unhealthy, Unknown};
        let (pool, upstream) = (|| Name::try_new("api").unwrap(), || "10.0.0.1:80".parse::<Address>().unwrap());
        let change = |from, to| {
            let (code, duration, reason, healthy_left) = (None, None, String::new(), 1);
            let (pool, upstream) = (pool(), upstream());
            EventKind::Transition(Transition { pool, upstream, from, to, code, reason, duration, healthy_left })
        };
        let order = |to| EventKind::Ordered {
            pool: pool(),
            upstream: upstream(),
            to,
            lasts: None,
            reason: String::new(),
            by: String::new(),
        };
        let progress = Progress { able: 0, needed: 1, backups: 0 };
        let window = Requests::default();
        let began = |way| EventKind::OutageBegan { pool: pool(), way, reason: String::new(), remedy: String::new() };
        let ended = |way, serves| EventKind::OutageEnded { pool: pool(), way, serves, lasted: Duration::ZERO };
        let half = |on| EventKind::BelowHalf { pool: pool(), on, able: 1, total: 3 };
        let warming = |phase| EventKind::Warming { pool: pool(), phase };
        let lasted = Duration::ZERO;
        let reload = |result| {
            let (generation, error, by, changes) = (2, None, String::new(), Changes::default());
            EventKind::Reload { result, generation, error, by, changes }
        };
        let other = || Way::OtherPool(pool());
        for (kind, want) in [
            (change(Unknown, Healthy), Level::INFO),
            (change(Unhealthy, Healthy), Level::INFO),
            (change(Unhealthy, Unknown), Level::INFO),
            (change(Healthy, Unhealthy), Level::WARN),
            (change(Healthy, Unknown), Level::WARN),
            (change(Unknown, Unhealthy), Level::WARN),
            (order(Setting::Admin(AdminState::Draining)), Level::WARN),
            (order(Setting::Admin(AdminState::Disabled)), Level::WARN),
            (order(Setting::Admin(AdminState::Enabled)), Level::INFO),
            (order(Setting::Weight(crate::model::Weight::ONE)), Level::INFO),
            (EventKind::Ejected { pool: pool(), upstream: upstream(), ejected: Ejected::example() }, Level::WARN),
            (
                EventKind::Degraded {
                    pool: pool(),
                    upstream: upstream(),
                    weight: Some(crate::model::Ratio::percent(25)),
                },
                Level::WARN,
            ),
            (EventKind::Degraded { pool: pool(), upstream: upstream(), weight: None }, Level::INFO),
            (
                EventKind::EjectionEnded {
                    pool: pool(),
                    upstream: upstream(),
                    why: EjectionEnd::Over,
                    lasted: Duration::ZERO,
                },
                Level::INFO,
            ),
            (began(Way::Refuse), Level::ERROR),
            (began(Way::FailOpen), Level::ERROR),
            (began(other()), Level::ERROR),
            (ended(Way::Refuse, true), Level::INFO),
            (ended(Way::Refuse, false), Level::INFO),
            (ended(Way::FailOpen, false), Level::INFO),
            (ended(other(), false), Level::INFO),
            (half(true), Level::WARN),
            (half(false), Level::INFO),
            (warming(WarmingPhase::Began { retiring: 1, at_most: lasted, progress }), Level::WARN),
            (warming(WarmingPhase::Ended { lasted }), Level::INFO),
            (warming(WarmingPhase::Failed { lasted, reason: String::new(), remedy: String::new() }), Level::ERROR),
            (reload("applied"), Level::INFO),
            (reload("unchanged"), Level::INFO),
            (reload("refused"), Level::ERROR),
            (EventKind::UpstreamAdded { pool: pool(), upstream: upstream() }, Level::INFO),
            (EventKind::UpstreamRemoved { pool: pool(), upstream: upstream() }, Level::INFO),
            (EventKind::UpstreamsChanged { added: 1, removed: 0 }, Level::INFO),
            (EventKind::RequestsFail { pool: pool(), upstream: upstream(), window }, Level::WARN),
            (
                EventKind::RequestsFailOver { pool: pool(), upstream: upstream(), over: Over::Succeeds, window },
                Level::INFO,
            ),
            (EventKind::RequestsFailMore { began: 1, ended: 0 }, Level::WARN),
            (EventKind::RequestsFailMore { began: 0, ended: 1 }, Level::INFO),
            (EventKind::ProbePanic { pool: pool(), upstream: upstream() }, Level::ERROR),
            (EventKind::CheckerRestart, Level::WARN),
        ] {
            assert_eq!(level(&kind), want, "{kind:?}");
        }
    }
}
