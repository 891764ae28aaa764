//! Golden texts: what `explain` prints about a pool and about an upstream, in every state.

use std::sync::Arc;

use super::*;
use crate::admin::json::UpstreamExplainReply;
use crate::admin::testing;
use crate::model::eligibility::eligibility;
use crate::model::policy::{MinHealthy, PoolPolicy, Require};
use crate::model::{Code, Ratio, Trace, Weight};
use crate::pool::{Command, Due, Ejected, LastCheck, Overrides, PoolStatus, Run, Streak, Transition, UpstreamDetail};

const UP: HealthState = HealthState::Healthy;
const DOWN: HealthState = HealthState::Unhealthy;
const NEW: HealthState = HealthState::Unknown;

fn text(explanation: &Explanation) -> String {
    pool(explanation, &Clock::start(), Instant::now()).text
}

/// A pool of upstreams in these states after `change`.
fn changed(states: &[HealthState], change: impl FnOnce(&mut [UpstreamStatus])) -> PoolStatus {
    let mut made = testing::pool("api", states);
    change(&mut made.upstreams);
    let sum = testing::finish("api", made.upstreams);
    sum.shared.set_usable_at(Some(Instant::now() + Duration::from_millis(800)));
    sum
}

fn order(status: &mut UpstreamStatus, admin: AdminState) {
    status.admin = admin;
    status.overrides = Overrides::example(admin, None);
    status.eligibility = eligibility(status.state, admin, false, false);
}

fn because(status: &mut UpstreamStatus, code: Code, reason: &str) {
    let last = status.last_check.as_mut().expect("it was checked");
    Arc::make_mut(&mut last.report).code = code;
    status.why = Some(format!("{code}: {reason}"));
}

#[tokio::test(start_paused = true)]
async fn a_healthy_pool_is_two_sentences() {
    let explanation = testing::explanation(&changed(&[UP, UP, UP], |_| {}));
    assert_eq!(text(&explanation), "Pool api is healthy: all 3 upstreams are healthy. Requests go to 3 upstreams.");
    let reply = pool(&explanation, &Clock::start(), Instant::now());
    assert_eq!((reply.out, reply.next), (vec![], None));
    let both = testing::explanation(&changed(&[UP, UP], |_| {}));
    assert_eq!(text(&both), "Pool api is healthy: both upstreams are healthy. Requests go to 2 upstreams.");
    let one = testing::explanation(&changed(&[UP], |_| {}));
    assert_eq!(text(&one), "Pool api is healthy: its only upstream is healthy. Requests go to 10.0.0.1:80.");
}

#[tokio::test(start_paused = true)]
async fn a_degraded_pool_groups_its_upstreams_by_reason_and_says_what_comes_next() {
    let pool_status = changed(&[UP, DOWN, DOWN, DOWN, UP, NEW], |all| {
        because(&mut all[1], Code::L4Con, "connection refused");
        because(&mut all[2], Code::L4Con, "connection refused");
        because(&mut all[3], Code::L7Sts, "status 503, expected 200-299");
        order(&mut all[4], AdminState::Draining);
        all[5].why = Some("not judged yet: its first probe has not ended".into());
        all[5].checks[0].in_flight = true;
        all[3].checks[0].streak = Some(Streak { pass: true, count: 1, needed: 2 });
        all[3].checks[0].next_due = Instant::now() + Duration::from_millis(300);
        all[5].checks[0].next_due = Instant::now() + Duration::from_secs(9);
    });
    let explanation = testing::explanation(&pool_status);
    assert_eq!(
        text(&explanation),
        "Pool api is degraded: 2 of 6 upstreams are healthy. \
         10.0.0.2:80 and 10.0.0.3:80 are unhealthy (L4CON: connection refused). \
         10.0.0.4:80 is unhealthy (L7STS: status 503, expected 200-299). \
         10.0.0.5:80 is draining. \
         10.0.0.6:80 is not judged yet (its first probe has not ended). \
         Requests go to 10.0.0.1:80. \
         The first that can become healthy is 10.0.0.4:80: it needs 1 more pass, and its next probe is due in 0.3 s."
    );
    let reply = pool(&explanation, &Clock::start(), Instant::now());
    let words: Vec<_> = reply.out.iter().map(|out| (out.why.as_str(), out.code.as_deref(), out.count)).collect();
    let want =
        [("unhealthy", Some("L4CON"), 2), ("unhealthy", Some("L7STS"), 1), ("draining", None, 1), ("unknown", None, 1)];
    assert_eq!(words, want);
    assert_eq!(reply.out[0].upstreams, ["10.0.0.2:80", "10.0.0.3:80"]);
}

#[tokio::test(start_paused = true)]
async fn upstreams_that_fail_requests_and_pass_their_checks_are_named() {
    for (failing, want) in [
        (1, "10.0.0.1:80 answers 5xx, and passes its checks. Requests go to 6 upstreams."),
        (4, "10.0.0.3:80 answers 5xx, and passes its checks. 1 more upstream fails its requests like that. Requests"),
        (6, "10.0.0.3:80 answers 5xx, and passes its checks. 3 more upstreams fail their requests like that. Requests"),
    ] {
        let states = changed(&[UP; 6], |all| {
            all[..failing].iter_mut().for_each(|u| u.why = Some("answers 5xx, and passes its checks".into()));
        });
        let said = text(&testing::explanation(&states));
        assert!(said.contains(want), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_explained_service_is_that_of_the_pool() {
    let down = changed(&[DOWN, DOWN], |_| {});
    let with = |service, when_no_healthy| {
        let mut explanation = testing::explanation(&down);
        explanation.service = service;
        let policy = PoolPolicy { when_no_healthy, ..(*explanation.policy).clone() };
        explanation.policy = Arc::new(policy);
        pool(&explanation, &Clock::start(), Instant::now()).requests
    };
    let until = Instant::now() + Duration::from_millis(1_500);
    let other = || WhenNoHealthy::Pool(testing::name("other"));
    for (service, policy, want) in [
        (Service::NoneEligible(Otherwise::Reject), WhenNoHealthy::Reject, "Requests get 503 with Retry-After: 1."),
        (
            Service::NoneEligible(Otherwise::FailOpen),
            WhenNoHealthy::FailOpen,
            "Requests get 503 with Retry-After: 1, because no upstream is enabled.",
        ),
        (
            Service::NoneEligible(Otherwise::Pool(crate::pool::PoolId(1))),
            other(),
            "Requests go to pool other (when_no_healthy).",
        ),
        (
            Service::FailOpen,
            WhenNoHealthy::FailOpen,
            "Requests go to every enabled upstream (0), healthy or not (when_no_healthy = \"fail_open\").",
        ),
        (
            Service::Waiting { until, then: Otherwise::Pool(crate::pool::PoolId(1)) },
            other(),
            "Requests wait for a first verdict, at most 1.5 s more; then they go to pool other.",
        ),
        (
            Service::Waiting { until, then: Otherwise::Reject },
            WhenNoHealthy::Reject,
            "Requests wait for a first verdict, at most 1.5 s more; then they get 503 with Retry-After: 1.",
        ),
    ] {
        assert_eq!(with(service, policy), want);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_says_since_when_and_where_a_chain_of_pools_ends() {
    let with = |way: Way| {
        let mut down = changed(&[DOWN], |_| {});
        let (since, way_since) = (Some(Instant::now()), Some(Instant::now() + Duration::from_secs(9)));
        let (reason, remedy) = ("r".to_owned(), "this ends when a or b".to_owned());
        down.out_of_order = Some(OutOfOrder { way: Some(way), since, way_since, reason, remedy });
        let mut explanation = testing::explanation(&down);
        explanation.service = Service::NoneEligible(Otherwise::Pool(crate::pool::PoolId(1)));
        let when_no_healthy = WhenNoHealthy::Pool(testing::name("spare"));
        explanation.policy = Arc::new(PoolPolicy { when_no_healthy, ..(*explanation.policy).clone() });
        pool(&explanation, &Clock::start(), Instant::now() + Duration::from_secs(12))
    };
    let refused = with(Way::Refuse).text;
    assert!(refused.contains("It has not served for 3.0 s."), "it served in another way before that: {refused}");
    let opened = with(Way::FailOpen).text;
    assert!(opened.contains("Too few of its upstreams have been healthy for 12 s."), "{opened}");
    assert!(opened.contains(" This ends when a or b. To become healthy, 10.0.0.1:80 needs"), "{opened}");
    for (way, want) in [
        (Way::Refuse, "Requests get 503 with Retry-After: 1: pool spare (when_no_healthy) cannot serve either."),
        (Way::OtherPool(testing::name("spare")), "Requests go to pool spare (when_no_healthy)."),
        (
            Way::OtherPool(testing::name("last")),
            "Requests go to pool last (when_no_healthy of api and of other pools).",
        ),
    ] {
        assert_eq!(with(way).requests, want);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_by_orders_says_once_what_ends_it() {
    for (state, command) in [(DOWN, None), (UP, Some("`roundsman undrain api 10.0.0.1:80` lets"))] {
        let mut down = changed(&[state], |all| order(&mut all[0], AdminState::Draining));
        let (way, since) = (Some(Way::Refuse), Some(Instant::now()));
        let (reason, remedy) = ("r".to_owned(), "this ends when it is undrained".to_owned());
        let explained = |down: &PoolStatus| pool(&testing::explanation(down), &Clock::start(), Instant::now());
        let without = explained(&down);
        assert_eq!(without.next.as_deref().map(|next| &next[..38]), command.map(|command| &command[..38]));
        down.out_of_order = Some(OutOfOrder { way, since, way_since: since, reason, remedy });
        let said = explained(&down).text;
        assert!(said.ends_with("Requests get 503 with Retry-After: 1. This ends when it is undrained."), "{said}");
    }
}

#[test]
fn a_sentence_begins_with_a_capital_letter_unless_it_begins_with_a_name() {
    for (text, want) in [
        ("the text that is sent is read from a", "The text that is sent is read from a"),
        ("Authorization is read from a", "Authorization is read from a"),
        ("tls.ca_file is read from a", "tls.ca_file is read from a"),
        ("x-api-key is read from a", "x-api-key is read from a"),
        ("", ""),
    ] {
        assert_eq!(begin_sentence(text), want);
    }
}

#[tokio::test(start_paused = true)]
async fn warming_says_how_long_removed_ones_serve() {
    let mut warming = changed(&[UP, DOWN], |all| all[0].retiring = true);
    (warming.warming, warming.warming_until) = (true, Some(Instant::now() + Duration::from_secs(23)));
    let explanation = testing::explanation(&warming);
    let (status, policy) = (warming.upstreams[0].clone(), explanation.policy.clone());
    let detail = UpstreamDetail { status, policy, history: vec![] };
    assert_eq!(
        upstream(&explanation, &detail, &Clock::start(), Instant::now()).eligibility,
        "It takes requests although it was removed from the configuration, until a new upstream is healthy, at most \
         23 s more."
    );
    let shown = text(&explanation);
    let want = "Removed upstreams still serve until a new one is healthy, at most 23 s more.";
    assert!(shown.contains(want), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn too_few_healthy_and_orders_and_backups_have_their_own_texts() {
    let mut few = testing::explanation(&changed(&[UP, DOWN, DOWN], |all| {
        all[0].eligibility = Eligibility::Not(Ineligible::TooFewHealthy);
    }));
    few.needed = 2;
    few.policy = Arc::new(PoolPolicy { min_healthy: MinHealthy::Count(2), ..(*few.policy).clone() });
    let shown = text(&few);
    assert!(
        shown.starts_with("Pool api is unhealthy: 1 of 3 upstreams is healthy, and min_healthy requires 2."),
        "{shown}"
    );
    assert!(shown.contains("10.0.0.1:80 is healthy, but too few upstreams are."), "{shown}");
    assert!(shown.contains("(L7STS: ") || shown.contains("(status 503"), "{shown}");

    let ordered = testing::explanation(&changed(&[UP], |all| order(&mut all[0], AdminState::Disabled)));
    assert!(
        text(&ordered).ends_with("`roundsman enable api 10.0.0.1:80` lets 10.0.0.1:80 take requests again."),
        "{}",
        text(&ordered)
    );

    for (states, want) in [
        (&[UP, UP, UP][..], "Requests go to 2 upstreams; the backup 10.0.0.3:80 is used only if no primary can serve."),
        (&[UP, DOWN, UP], "Requests go to 10.0.0.1:80; the backup 10.0.0.3:80 is used only if no primary can serve."),
        (&[UP, UP, DOWN], "Requests go to 2 upstreams."),
        (&[UP, UP, UP, UP], "Requests go to 2 upstreams; 2 backups are used only if no primary can serve."),
    ] {
        let idle = testing::explanation(&changed(states, |all| all[2..].iter_mut().for_each(|u| u.backup = true)));
        assert_eq!(pool(&idle, &Clock::start(), Instant::now()).requests, want, "{states:?}");
    }

    let backup = testing::explanation(&changed(&[DOWN, UP], |all| all[1].backup = true));
    assert!(
        text(&backup).contains("Requests go to the backup 10.0.0.2:80, because no primary can serve."),
        "{}",
        text(&backup)
    );
}

#[tokio::test(start_paused = true)]
async fn the_paragraph_is_bounded_with_many_upstreams() {
    let explanation = testing::explanation(&changed(&[DOWN; 200], |all| {
        for (i, status) in all.iter_mut().enumerate() {
            because(status, Code::L7Sts, &format!("{} {}", "y".repeat(1_000), i));
        }
    }));
    let reply = pool(&explanation, &Clock::start(), Instant::now());
    assert!(
        reply.text.contains("10.0.0.1:80, 10.0.0.2:80, 10.0.0.3:80 and 197 more are unhealthy (such as L7STS: yyy")
    );
    assert!(reply.text.chars().count() < 700, "{}", reply.text);
    assert_eq!((reply.out.len(), reply.out[0].count, reply.out[0].upstreams.len()), (1, 200, LISTED_MAX));
}

fn explained(status: UpstreamStatus) -> UpstreamExplainReply {
    let explanation = testing::explanation(&testing::finish("api", vec![status.clone()]));
    let history = vec![(
        Instant::now(),
        Transition {
            pool: testing::name("api"),
            upstream: status.upstream.address.clone(),
            from: UP,
            to: DOWN,
            code: Some(Code::L7Sts),
            reason: "status 503".into(),
            duration: None,
            healthy_left: 0,
        },
    )];
    let detail = UpstreamDetail { status, policy: explanation.policy.clone(), history };
    upstream(&explanation, &detail, &Clock::start(), Instant::now())
}

#[tokio::test(start_paused = true)]
async fn an_upstream_shows_its_last_probe_its_next_and_its_changes() {
    let mut status = testing::upstream("api", 2, DOWN);
    status.checks[0].due = Due::Fast(Some(Run { pass: true, count: 1 }));
    let report = status.last_check.clone().expect("it was checked").report;
    let trace = Trace { connected_in: Some(Duration::from_micros(300)), ..Trace::default() };
    let report = Arc::new(crate::model::ProbeReport { trace, ..(*report).clone() });
    status.checks[0].last_check = Some(LastCheck { at: Instant::now(), report });
    let reply = explained(status);
    assert_eq!((reply.upstream.as_str(), reply.state, reply.eligible), ("10.0.0.2:80", DOWN, false));
    assert_eq!(reply.eligibility, "It takes no requests: its checks failed.");
    let check = &reply.checks[0];
    assert_eq!(check.probe, "tcp: connect and close");
    assert_eq!(check.timing, "every 10 s ± 1 s, every 1 s until a change is confirmed, each at most 5 s");
    assert_eq!(
        check.next,
        "is due in 0.8 s: it passed, but healthy_threshold is not reached yet, so fast_interval (1 s) applies"
    );
    assert!(check.next_due.is_some() && !check.in_flight && check.decides);
    let steps: Vec<_> = check.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(steps, ["target", "connect", "answer", "verdict"]);
    assert_eq!(reply.transitions.len(), 1);
    assert_eq!((reply.transitions[0].from, reply.transitions[0].to), (UP, DOWN));
    assert_eq!(reply.require, None);
    let read: UpstreamExplainReply = serde_json::from_value(serde_json::to_value(&reply).unwrap()).unwrap();
    assert_eq!(read, reply);
}

#[tokio::test(start_paused = true)]
async fn a_streak_says_what_it_still_needs() {
    let needs = |state, streak: Option<(bool, u32)>| {
        let mut status = testing::upstream("api", 1, state);
        let needed = |pass| if pass { 2 } else { 3 };
        status.checks[0].streak = streak.map(|(pass, count)| Streak { pass, count, needed: needed(pass) });
        explained(status).checks[0].needs.clone()
    };
    for (state, streak, want) in [
        (UP, Some((true, 30)), "30 passes in a row; 3 failures in a row make it unhealthy"),
        (UP, Some((false, 1)), "1 failure of 3; 2 more in a row make it unhealthy"),
        (UP, Some((false, 2)), "2 failures of 3; 1 more makes it unhealthy"),
        (DOWN, Some((false, 9)), "9 failures in a row; 2 passes in a row make it healthy"),
        (DOWN, Some((true, 1)), "1 pass of 2; 1 more makes it healthy"),
        (NEW, Some((true, 1)), "1 pass of 2; 1 more makes it healthy"),
        (NEW, Some((false, 1)), "1 failure of 3; 2 more in a row make it unhealthy"),
        (NEW, None, "no result yet; 2 passes in a row make it healthy, 3 failures in a row make it unhealthy"),
    ] {
        assert_eq!(needs(state, streak), want);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_probe_is_due_for_a_reason() {
    let next = |due, in_flight| {
        let mut status = testing::upstream("api", 1, UP);
        status.checks[0].due = due;
        status.checks[0].in_flight = in_flight;
        let at = if in_flight {
            Instant::now() - Duration::from_millis(200)
        } else {
            Instant::now() + Duration::from_secs(75)
        };
        status.checks[0].next_due = at;
        explained(status).checks[0].next.clone()
    };
    assert_eq!(next(Due::Regular, true), "is running: it was due 0.2 s ago");
    for (due, why) in [
        (Due::First, "the first probe starts at once"),
        (Due::Redefined, "the check definition has changed, so it is probed at once"),
        (Due::Fast(None), "there is no verdict yet, so fast_interval (1 s) applies"),
        (
            Due::StartPeriod,
            "it has not passed yet and its start_period (0 s) is not over, so fast_interval (1 s) applies",
        ),
        (Due::Slot, "its slot in the interval (10 s), so that probes are spread over time"),
        (Due::Regular, "the interval is 10 s"),
        (Due::Hint, "a request to it failed, so it is probed early"),
        (Due::Retimed, "the interval became shorter (10 s)"),
        (Due::Again, "the previous probe was cancelled or lost"),
        (Due::Spread, "this process was suspended, so overdue probes are spread over time"),
    ] {
        assert_eq!(next(due, false), format!("is due in 1 min 15 s: {why}"));
    }
    for (state, due, why) in [
        (DOWN, Due::Regular, "the unhealthy_interval is 1 min"),
        (DOWN, Due::Slot, "its slot in the unhealthy_interval (1 min), so that probes are spread over time"),
        (DOWN, Due::Retimed, "the unhealthy_interval became shorter (1 min)"),
        (UP, Due::Regular, "the interval is 10 s"),
    ] {
        let mut status = testing::upstream("api", 1, state);
        let check = &mut status.checks[0];
        (check.due, check.next_due) = (due, Instant::now() + Duration::from_secs(60));
        check.timing.unhealthy_interval = Some(Duration::from_secs(60));
        let explained = &explained(status).checks[0];
        assert_eq!(explained.next, format!("is due in 1 min: {why}"));
        let timing =
            "every 10 s ± 1 s, every 1 min while unhealthy, every 1 s until a change is confirmed, each at most 5 s";
        assert_eq!(explained.timing, timing);
    }
}

#[tokio::test(start_paused = true)]
async fn times_within_a_millisecond_are_now() {
    let mut status = testing::upstream("api", 1, UP);
    for (micros, want) in [(0, "is due now"), (999, "is due now"), (1_000, "is due in 1 ms")] {
        status.checks[0].next_due = Instant::now() + Duration::from_micros(micros);
        assert_eq!(explained(status.clone()).checks[0].next, format!("{want}: the interval is 10 s"));
    }
}

/// The upstream under another address.
fn moved(status: &UpstreamStatus, to: &str) -> Arc<crate::pool::Upstream> {
    let (pool, id) = (testing::name("api"), status.upstream.id);
    Arc::new(crate::pool::Upstream::new(id, pool, to.parse().unwrap(), crate::pool::Hints::none()))
}

#[tokio::test(start_paused = true)]
async fn a_name_without_an_address_waits_for_its_lookup() {
    let mut status = testing::upstream("api", 1, NEW);
    status.upstream = moved(&status, "api.internal:80");
    status.name = Some("api.internal".into());
    let reply = explained(status.clone());
    assert_eq!(reply.checks[0].next, "waits for an address: its name is looked up again at least every 30 s");
    assert_eq!((reply.checks[0].next_due.as_ref(), reply.checks[0].in_flight), (None, false));
    let paragraph = text(&testing::explanation(&testing::finish("api", vec![status])));
    assert!(paragraph.contains(" api.internal:80 is not judged yet"), "{paragraph}");
    assert!(!paragraph.contains("next probe"), "{paragraph}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_names_what_came_from_a_name() {
    let explanation = testing::explanation(&changed(&[UP, DOWN], |all| {
        all.iter_mut().for_each(|status| status.name = Some("localhost".into()));
        because(&mut all[1], Code::L4Con, "connection refused");
    }));
    assert_eq!(
        text(&explanation),
        "Pool api is degraded: 1 of 2 upstreams is healthy. \
         10.0.0.2:80 (localhost) is unhealthy (L4CON: connection refused). \
         Requests go to 10.0.0.1:80 (localhost). \
         The first that can become healthy is 10.0.0.2:80 (localhost): it needs 2 passes in a row, and its next probe is due in 0.8 s."
    );
    let reply = pool(&explanation, &Clock::start(), Instant::now());
    assert_eq!(reply.out[0].upstreams, ["10.0.0.2:80"], "addresses alone for programs");
}

#[tokio::test(start_paused = true)]
async fn eligibility_is_one_sentence() {
    fn sentence(state: HealthState, change: impl FnOnce(&mut UpstreamStatus)) -> String {
        let mut status = testing::upstream("api", 1, state);
        change(&mut status);
        let reply = explained(status.clone());
        assert_eq!(reply.eligible, status.eligibility.is_eligible());
        assert_eq!(reply.eligible, reply.eligibility.starts_with("It takes requests"), "{}", reply.eligibility);
        reply.eligibility
    }
    assert_eq!(sentence(UP, |_| {}), "It takes requests: it is healthy and enabled.");
    assert_eq!(
        sentence(UP, |s| s.backup = true),
        "It takes requests as a backup, if no primary can serve: it is healthy."
    );
    let three = Command::Weight(Weight::try_new(3).expect("it is allowed"));
    assert_eq!(
        sentence(UP, |s| s.overrides = Overrides::example_of(three, Some(Duration::from_secs(90)))),
        "It takes requests: it is healthy and enabled. \
         Its weight is 3, ordered 0s ago (command from 127.0.0.1:4711): kernel; ends in 1m 30s."
    );
    assert_eq!(
        sentence(UP, |s| s.degraded = Some(Ratio::percent(25))),
        "It takes requests: it is healthy and enabled, and degraded: it takes 25 % of its weight."
    );
    assert_eq!(
        sentence(UP, |s| s.carried = true),
        "It takes requests: it is healthy and enabled (verdict carried over from an earlier check definition)."
    );
    assert_eq!(
        sentence(UP, |s| s.retiring = true),
        "It takes requests although it was removed from the configuration, until a new upstream is healthy."
    );
    assert_eq!(
        sentence(DOWN, |s| s.eligibility = Eligibility::Eligible),
        "It takes requests although it is unhealthy: too few upstreams are healthy, and when_no_healthy is \
         \"fail_open\"."
    );
    assert_eq!(sentence(NEW, |_| {}), "It takes no requests: its checks have not reached a verdict.");
    assert_eq!(
        sentence(UP, |s| order(s, AdminState::Draining)),
        "It takes no requests: it is draining, ordered 0s ago (command from 127.0.0.1:4711): kernel; `roundsman undrain` ends that."
    );
    assert_eq!(
        sentence(UP, |s| order(s, AdminState::Disabled)),
        "It takes no requests: it is disabled, ordered 0s ago (command from 127.0.0.1:4711): kernel; `roundsman enable` ends that."
    );
    for (state, passed, admin, want) in [
        (
            DOWN,
            0,
            AdminState::Draining,
            "draining, ordered 0s ago (command from 127.0.0.1:4711): kernel, and its checks fail: it needs `roundsman undrain` and 2 passes in a row",
        ),
        (
            DOWN,
            1,
            AdminState::Disabled,
            "disabled, ordered 0s ago (command from 127.0.0.1:4711): kernel, and its checks fail: it needs `roundsman enable` and 1 more pass",
        ),
        (
            NEW,
            0,
            AdminState::Disabled,
            "disabled, ordered 0s ago (command from 127.0.0.1:4711): kernel, and its checks have not reached a verdict: it needs `roundsman enable` and 2 passes in a row",
        ),
    ] {
        let said = sentence(state, |s| {
            order(s, admin);
            s.checks[0].streak = (passed > 0).then_some(Streak { pass: true, count: passed, needed: 2 });
        });
        assert_eq!(said, format!("It takes no requests: it is {want}."));
    }
    let nameless = sentence(NEW, |s| {
        order(s, AdminState::Disabled);
        s.upstream = moved(s, "api.internal:80");
    });
    assert!(
        nameless.ends_with(
            "and its name has no address yet: it needs `roundsman enable` and an address that passes its checks."
        ),
        "{nameless}"
    );
    for (why, part) in [
        (
            Ineligible::Ejected,
            "live traffic ejected it, because its last 5 requests failed (connect); it is let back in 10 s, or sooner if \
             its checks connect to it or no other upstream can serve",
        ),
        (Ineligible::TooFewHealthy, "min_healthy requires 1"),
        (Ineligible::PrimaryAwaited, "waits for the first verdict on a primary"),
    ] {
        let mut status = testing::upstream("api", 1, UP);
        status.eligibility = Eligibility::Not(why);
        status.ejection = (why == Ineligible::Ejected).then(Ejected::example);
        let reply = explained(status);
        assert!(!reply.eligible && reply.eligibility.contains(part), "{}", reply.eligibility);
    }
}

#[tokio::test(start_paused = true)]
async fn several_checks_say_how_many_must_hold() {
    let mut status = testing::upstream("api", 1, UP);
    status.checks.push(status.checks[0].clone());
    for (require, want) in [
        (Require::All, "both checks must be healthy"),
        (Require::Any, "one of 2 checks must be healthy"),
        (Require::Count(2), "2 of 2 checks must be healthy"),
    ] {
        let explanation = testing::explanation(&testing::finish("api", vec![status.clone()]));
        let policy = Arc::new(PoolPolicy { require, ..(*explanation.policy).clone() });
        let detail = UpstreamDetail { status: status.clone(), policy, history: vec![] };
        let reply = upstream(&explanation, &detail, &Clock::start(), Instant::now());
        assert_eq!(reply.require.as_deref(), Some(want));
        assert_eq!(reply.checks.iter().filter(|check| check.decides).count(), 1);
    }
}

#[test]
fn durations_are_rounded_to_their_largest_units() {
    for (ms, want) in [
        (40, "40 ms"),
        (300, "0.3 s"),
        (1_250, "1.2 s"),
        (12_900, "12 s"),
        (60_000, "1 min"),
        (90_000, "1 min 30 s"),
        (185_000, "3 min 5 s"),
        (3_599_900, "59 min 59 s"),
        (7_500_000, "2 h 5 min"),
        (277_200_000, "3 d 5 h"),
    ] {
        assert_eq!(rounded(Duration::from_millis(ms)), want);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_a_name_without_an_address_says_when_the_name_is_looked_up_again() {
    let pool = changed(&[NEW], |all| all[0].upstream = moved(&all[0], "api.internal:80"));
    let mut explanation = testing::explanation(&pool);
    explanation.policy = Arc::new(PoolPolicy { resolve: Duration::from_secs(12), ..(*explanation.policy).clone() });
    let said = text(&explanation);
    let next = "What can change is the address of api.internal: the name is looked up again every 12 s at the latest.";
    assert!(said.ends_with(next), "{said}");
}
