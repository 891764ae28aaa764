//! A row for each event.

use super::super::changes::Listed;
use super::super::orders::Setting;
use super::super::outage::Progress;
use super::super::passive::Ejected;
use super::*;
use crate::model::{AdminState, Code, HealthState, Weight};

fn name(text: &str) -> Name {
    Name::try_new(text).expect("a name")
}

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

fn order(reason: &str, by: &str) -> EventKind {
    let (reason, by) = (reason.to_owned(), by.to_owned());
    EventKind::Ordered {
        pool: name("api"),
        upstream: address("10.0.0.1:80"),
        to: Setting::Admin(AdminState::Draining),
        lasts: None,
        reason,
        by,
    }
}

fn reloaded(result: &'static str, generation: u64, error: Option<&str>, changes: Changes) -> EventKind {
    EventKind::Reload { result, generation, error: error.map(str::to_owned), by: "signal HUP".into(), changes }
}

fn window(ended: u64, server_errors: u64, broken: u64, connect_failures: u64) -> Requests {
    Requests { ended, server_errors, broken, connect_failures }
}

#[test]
fn every_event_is_a_sentence() {
    let (pool, upstream) = (|| name("api"), || address("10.0.0.1:80"));
    let (reason, remedy) = (|| "none can serve".to_owned(), || "this ends".to_owned());
    let began = |way| EventKind::OutageBegan { pool: pool(), way, reason: reason(), remedy: remedy() };
    let ended =
        |way, serves, ms| EventKind::OutageEnded { pool: pool(), way, serves, lasted: Duration::from_millis(ms) };
    let other = || Way::OtherPool(name("spare"));
    let half = |on, able| EventKind::BelowHalf { pool: pool(), on, able, total: 3 };
    let warming = |phase| EventKind::Warming { pool: pool(), phase };
    let second = Duration::from_secs(1);
    let progress = Progress { able: 0, needed: 1, backups: 0 };
    let transition = Transition {
        pool: pool(),
        upstream: upstream(),
        from: HealthState::Healthy,
        to: HealthState::Unhealthy,
        code: Some(Code::L4Con),
        reason: "connect: refused\n\u{1b}[2J".into(),
        duration: Some(second),
        healthy_left: 2,
    };
    let changes = Changes {
        pools_added: Listed { count: 1, names: vec!["b".into()] },
        upstreams_added: Listed { count: 3, names: vec!["b 10.0.0.1:80".into(), "b 10.0.0.2:80".into()] },
        ..Changes::default()
    };
    let let_back = |why| EventKind::EjectionEnded { pool: pool(), upstream: upstream(), why, lasted: 2 * second };
    let fails = |window| EventKind::RequestsFail { pool: pool(), upstream: upstream(), window };
    let over = |over, window| EventKind::RequestsFailOver { pool: pool(), upstream: upstream(), over, window };
    let table = [
        (
            EventKind::Transition(transition),
            "api 10.0.0.1:80  healthy → unhealthy  L4CON connect: refused\\n\\u{1b}[2J  (2 healthy)",
        ),
        (order("", ""), "api 10.0.0.1:80  now draining"),
        (
            order("kernel", "command from 127.0.0.1:4711"),
            "api 10.0.0.1:80  now draining (command from 127.0.0.1:4711): kernel",
        ),
        (
            EventKind::Ordered {
                pool: pool(),
                upstream: upstream(),
                to: Setting::Weight(Weight::ONE),
                lasts: Some(1_800 * second),
                reason: String::new(),
                by: "admin API".into(),
            },
            "api 10.0.0.1:80  now weight 1 for 30m (admin API)",
        ),
        (
            EventKind::Ejected { pool: pool(), upstream: upstream(), ejected: Ejected::example() },
            "api 10.0.0.1:80  ejected for 10.0 s: its last 5 requests failed (connect)",
        ),
        (let_back(EjectionEnd::Over), "api 10.0.0.1:80  no longer ejected after 2.0 s"),
        (
            EventKind::Degraded { pool: pool(), upstream: upstream(), weight: Some(crate::model::Ratio::percent(25)) },
            "api 10.0.0.1:80  degraded: healthy, with 25 % of its weight",
        ),
        (
            EventKind::Degraded { pool: pool(), upstream: upstream(), weight: None },
            "api 10.0.0.1:80  no longer degraded",
        ),
        (
            let_back(EjectionEnd::Last),
            "api 10.0.0.1:80  ejection lifted: last: no other upstream can serve, after 2.0 s",
        ),
        (let_back(EjectionEnd::MinHealthy), "api 10.0.0.1:80  ejection lifted: min_healthy requires it, after 2.0 s"),
        (
            let_back(EjectionEnd::Passes),
            "api 10.0.0.1:80  ejection lifted: its checks connect to it again, after 2.0 s",
        ),
        (let_back(EjectionEnd::Recovered), "api 10.0.0.1:80  ejection lifted: its checks pass again, after 2.0 s"),
        (let_back(EjectionEnd::Off), "api 10.0.0.1:80  ejection lifted: passive is off now, after 2.0 s"),
        (began(Way::Refuse), "api  refuses requests: none can serve; this ends"),
        (
            began(Way::FailOpen),
            "api  fails open (uses every enabled upstream, healthy or not): none can serve; this ends",
        ),
        (began(other()), "api  sends its requests to pool spare: none can serve; this ends"),
        (ended(Way::Refuse, true, 9_715), "api  serves again after 9.7 s"),
        (ended(Way::Refuse, true, 3_725_000), "api  serves again after 1h 2m"),
        (ended(Way::Refuse, false, 3_000), "api  no longer refuses requests, after 3.0 s"),
        (ended(Way::FailOpen, false, 3_000), "api  no longer fails open, after 3.0 s"),
        (ended(other(), false, 250), "api  no longer sends its requests to pool spare, after 250 ms"),
        (half(true, 1), "api  serves with fewer than half of its upstreams: 1 of 3 can serve"),
        (half(false, 2), "api  serves with at least half of its upstreams again: 2 of 3 can serve"),
        (
            warming(WarmingPhase::Began { retiring: 2, at_most: 30 * second, progress }),
            "api  removed upstreams serve 30 s more at most: no upstream of the new configuration can serve yet",
        ),
        (
            warming(WarmingPhase::Ended { lasted: 2 * second }),
            "api  upstreams of the new configuration serve, after 2.0 s; the removed ones are gone",
        ),
        (
            warming(WarmingPhase::Failed { lasted: 30 * second, reason: reason(), remedy: remedy() }),
            "api  removed upstreams are gone after 30.0 s, and the new ones cannot serve: none can serve; this ends",
        ),
        (reloaded("applied", 1, None, Changes::default()), "Configuration loaded, generation 1 (signal HUP)"),
        (
            reloaded("applied", 3, None, changes),
            "Reload applied, generation 3 (signal HUP); pools added: b; upstreams added: b 10.0.0.1:80, b 10.0.0.2:80 \
             and 1 more",
        ),
        (reloaded("unchanged", 3, None, Changes::default()), "Reload unchanged, generation 3 (signal HUP)"),
        (
            reloaded("refused", 3, Some("a.toml:3: bad"), Changes::default()),
            "Reload refused, generation 3 is still running (signal HUP): a.toml:3: bad",
        ),
        (
            reloaded("refused", 3, Some("a.toml:3: bad\nb.toml:9: \u{1b}[2Jworse"), Changes::default()),
            "Reload refused, generation 3 is still running (signal HUP): 2 mistakes\n    a.toml:3: bad\n    b.toml:9: \
             \\u{1b}[2Jworse",
        ),
        (EventKind::UpstreamAdded { pool: pool(), upstream: upstream() }, "api 10.0.0.1:80  added"),
        (EventKind::UpstreamRemoved { pool: pool(), upstream: upstream() }, "api 10.0.0.1:80  removed"),
        (
            EventKind::UpstreamsChanged { added: 9_950, removed: 0 },
            "More upstreams were added or removed: 9950 added, 0 removed",
        ),
        (
            EventKind::Addresses { pool: pool(), added: vec![address("10.0.0.3:80")], removed: vec![upstream()] },
            "api  addresses changed: +10.0.0.3:80 -10.0.0.1:80",
        ),
        (
            fails(window(12, 11, 0, 0)),
            "api 10.0.0.1:80  answers 5xx to 11 of its last 12 requests, and passes its checks",
        ),
        (
            fails(window(10, 4, 5, 0)),
            "api 10.0.0.1:80  fails 9 of its last 10 requests (4 answered with 5xx, 5 broken), and passes its checks",
        ),
        (
            fails(window(10, 0, 0, 10)),
            "api 10.0.0.1:80  fails 10 of its last 10 requests (10 without a connection), and passes its checks",
        ),
        (
            over(Over::Succeeds, window(40, 2, 0, 0)),
            "api 10.0.0.1:80  no longer fails nearly all requests: 2 of its last 40",
        ),
        (
            over(Over::NoLongerPasses, window(0, 0, 0, 0)),
            "api 10.0.0.1:80  no longer passes its checks; before that it failed nearly all requests",
        ),
        (
            over(Over::FewRequests, window(3, 0, 0, 0)),
            "api 10.0.0.1:80  gets too few requests to know whether it still fails them",
        ),
        (
            EventKind::RequestsFailMore { began: 9_984, ended: 1 },
            "More upstreams fail nearly all requests and pass their checks: 9984 began, 1 ended",
        ),
        (
            EventKind::ProbePanic { pool: pool(), upstream: upstream() },
            "api 10.0.0.1:80  its probe panicked; its state is unknown now",
        ),
        (EventKind::CheckerRestart, "The checker crashed and was restarted"),
    ];
    for (kind, want) in table {
        assert_eq!(sentence(&kind), want);
    }
}

#[test]
fn lists_are_bounded() {
    let mistakes: Vec<String> = (0..100).map(|line| format!("a.toml:{line}: bad")).collect();
    let refused = sentence(&reloaded("refused", 3, Some(&mistakes.join("\n")), Changes::default()));
    assert_eq!(refused.lines().count(), 1 + MISTAKES_MAX + 1, "{refused}");
    assert!(
        refused.contains(": 100 mistakes\n") && refused.ends_with("\n    and 80 more; `roundsman check` shows all")
    );
    let added = (0..100).map(|part| address(&format!("10.0.0.{part}:80"))).collect();
    let changed = sentence(&EventKind::Addresses { pool: name("api"), added, removed: vec![] });
    assert!(changed.ends_with(" +10.0.0.15:80 and 84 more"), "{changed}");
}
