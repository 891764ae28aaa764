//! Several checks of one upstream: their joint verdict, what a reload keeps of each, and the reference model.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::health::{Due, Run};

/// An HTTP check and a TCP check of the same address.
fn both() -> Vec<CheckPolicy> {
    vec![check(http("/healthz"), timing()), check(tcp(PortRule::Same), timing())]
}

fn api(checks: Vec<CheckPolicy>, require: Require) -> PoolPolicy {
    PoolPolicy { checks, require, ..pool("api", &[A]) }
}

fn world(checks: Vec<CheckPolicy>, require: Require, answers: &[(&str, char)]) -> World {
    let mut world = World::new();
    answers.iter().for_each(|(kind, answer)| world.set(&format!("{A} {kind}"), *answer));
    world.configure(vec![api(checks, require)]);
    world.run(SECOND / 2);
    world
}

#[tokio::test(start_paused = true)]
async fn every_one_of_all_must_hold_and_one_of_any() {
    for (http, tcp, require, want) in [
        ('P', 'P', Require::All, HealthState::Healthy),
        ('F', 'P', Require::All, HealthState::Unhealthy),
        ('P', 'F', Require::All, HealthState::Unhealthy),
        ('P', '.', Require::All, HealthState::Unknown),
        ('F', 'P', Require::Any, HealthState::Healthy),
        ('P', '.', Require::Any, HealthState::Healthy),
        ('F', 'F', Require::Any, HealthState::Unhealthy),
        ('F', '.', Require::Any, HealthState::Unknown),
        ('F', 'P', Require::Count(1), HealthState::Healthy),
        ('F', 'P', Require::Count(2), HealthState::Unhealthy),
    ] {
        let world = world(both(), require, &[("http", http), ("tcp", tcp)]);
        assert_eq!(world.health("api", A), want, "{http}{tcp} {require:?}");
        assert_eq!(world.eligible("api").len(), usize::from(want == HealthState::Healthy), "{http}{tcp} {require:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_check_keeps_its_own_streak_and_the_one_that_decides_is_shown() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
    assert_eq!(world.upstream("api", A).decides, 0);
    world.set(&format!("{A} tcp"), 'F');
    world.run(2 * SECOND);
    let a = world.upstream("api", A);
    let names: Vec<&str> = a.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["http", "tcp"]);
    assert_eq!((a.checks[0].state, a.checks[1].state), (HealthState::Healthy, HealthState::Unhealthy));
    assert!(a.checks[0].streak.is_some_and(|s| s.pass && s.count > 2));
    assert!(a.checks[1].streak.is_some_and(|s| !s.pass && s.count >= 2));
    assert_eq!((a.decides, a.streak), (1, a.checks[1].streak));
    assert_eq!(a.last_check.unwrap().report.code, Code::L4Con);
    assert_eq!(a.why.as_deref(), Some("check tcp: L4CON: scripted"));
    assert_eq!(a.checks_total as usize, world.probes.iter().filter(|(at, ..)| *at < world.now - world.start).count());
    let events = world.state.events_after(0);
    let [.., change, outage] = &events[..] else { panic!("{events:?}") };
    let EventKind::OutageBegan { reason, .. } = &outage.kind else { panic!("{events:?}") };
    assert_eq!(*reason, format!("its only upstream, {A}, is unhealthy (check tcp: L4CON: scripted)"));
    let EventKind::Transition(last) = &change.kind else { panic!("{events:?}") };
    assert_eq!((&*last.reason, last.code), ("check tcp: scripted", Some(Code::L4Con)));
}

#[tokio::test(start_paused = true)]
async fn one_failure_of_one_check_is_followed_fast_and_only_that_check() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
    world.run(2 * SECOND);
    world.set(&format!("{A} tcp"), 'F');
    world.run(SECOND + 5 * MS);
    let since = world.probes.len();
    world.run(SECOND / 2);
    let kinds: Vec<_> = world.probes[since..].iter().map(|(.., kind)| *kind).collect();
    assert!(kinds.iter().filter(|kind| **kind == "http").count() <= 1, "{kinds:?}");
    assert_eq!(world.health("api", A), HealthState::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn a_changed_require_applies_when_it_is_published() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'F')]);
    assert_eq!(world.health("api", A), HealthState::Unhealthy);
    world.configure(vec![api(both(), Require::Any)]);
    assert_eq!(world.eligible("api"), [A], "with the reload, not after it");
    assert!(!world.upstream("api", A).carried);
    world.configure(vec![api(both(), Require::Count(2))]);
    assert!(world.eligible("api").is_empty());
    assert_eq!(world.upstream("api", A).transitions_total, 3);
}

#[tokio::test(start_paused = true)]
async fn an_added_check_does_not_vote_until_it_has_a_verdict() {
    for (answer, want) in [('P', HealthState::Healthy), ('F', HealthState::Unhealthy)] {
        let mut world = world(both()[..1].to_vec(), Require::All, &[("http", 'P'), ("tcp", answer)]);
        let before = world.upstream("api", A);
        world.configure(vec![api(both(), Require::All)]);
        let after = world.upstream("api", A);
        assert_eq!((after.state, after.carried, after.since), (HealthState::Healthy, true, before.since));
        assert_eq!(after.checks[0].streak, before.checks[0].streak);
        assert_eq!(after.checks[0].next_due, before.checks[0].next_due);
        assert_eq!((after.checks[1].streak, after.checks[1].state), (None, HealthState::Unknown));
        assert_eq!(after.decides, 1, "the one that is awaited");
        assert_eq!(world.eligible("api"), [A]);
        world.run(SECOND / 2);
        let settled = world.upstream("api", A);
        assert_eq!((settled.state, settled.carried), (want, false));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_check_still_counts_while_another_has_no_verdict() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
    world.set(&format!("{A} http"), '.');
    world.configure(vec![api(vec![check(http("/other"), timing()), both()[1].clone()], Require::All)]);
    assert!(world.upstream("api", A).carried);
    world.set(&format!("{A} tcp"), 'F');
    world.run(2 * SECOND);
    let a = world.upstream("api", A);
    assert_eq!((a.state, a.carried), (HealthState::Unhealthy, false));
    assert_eq!(a.why.as_deref(), Some("check tcp: L4CON: scripted"));
}

#[tokio::test(start_paused = true)]
async fn a_reload_carries_unhealthy_states_and_makes_no_upstream_eligible() {
    let mut world = world(both(), Require::All, &[("http", 'F'), ("tcp", 'P')]);
    world.set(&format!("{A} http"), '.');
    world.configure(vec![api(vec![check(http("/other"), timing()), both()[1].clone()], Require::All)]);
    world.run(2 * SECOND);
    let a = world.upstream("api", A);
    assert_eq!((a.state, a.carried), (HealthState::Unhealthy, true), "one healthy check of two is not enough");
    assert!(world.eligible("api").is_empty());
    assert!(a.why.unwrap().contains("under the previous configuration"));
}

#[tokio::test(start_paused = true)]
async fn a_removed_check_no_longer_counts_and_its_probe_ends() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'F')]);
    world.configure(vec![api(both()[..1].to_vec(), Require::All)]);
    assert_eq!(world.eligible("api"), [A]);
    assert_eq!(world.state.checks.len(), 1);
    let from = world.probes.len();
    world.run(3 * SECOND);
    assert!(world.probes[from..].iter().all(|(.., kind)| *kind == "http"));
}

#[tokio::test(start_paused = true)]
async fn checks_in_another_order_and_under_other_names_are_the_same_checks() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
    let before = world.upstream("api", A);
    let mut turned = both();
    turned.reverse();
    turned[0].name = "port".into();
    world.configure(vec![api(turned, Require::All)]);
    let after = world.upstream("api", A);
    assert_eq!((&*after.checks[0].name, after.carried), ("port", false));
    for (one, other) in [(0, 1), (1, 0)] {
        assert_eq!(after.checks[one].streak, before.checks[other].streak);
        assert_eq!(after.checks[one].next_due, before.checks[other].next_due);
    }
    assert_eq!(after.state, HealthState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_two_pools_share_is_one_probe_beside_those_they_do_not() {
    let mut world = World::new();
    world.set(&format!("{A} http"), 'F');
    world.set(&format!("{A} tcp"), 'P');
    let one = PoolPolicy { checks: both(), ..pool("one", &[A]) };
    let two = PoolPolicy { checks: both()[1..].to_vec(), ..pool("two", &[A]) };
    world.configure(vec![one, two]);
    world.run(3 * SECOND);
    assert_eq!(world.state.checks.len(), 2);
    assert_eq!(world.health("one", A), HealthState::Unhealthy);
    assert_eq!(world.health("two", A), HealthState::Healthy);
    assert_eq!(world.upstream("two", A).checks_total as usize, world.probed_as(A, "tcp"));
}

#[tokio::test(start_paused = true)]
async fn silence_and_panics_of_one_check_are_those_of_the_upstream() {
    for (answer, why) in
        [('!', "check tcp: its probe panicked"), ('.', "check tcp: stale: no probe has passed or failed for too long")]
    {
        let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
        world.set(&format!("{A} tcp"), answer);
        world.run(32 * SECOND);
        let a = world.upstream("api", A);
        assert_eq!((a.state, a.why.as_deref()), (HealthState::Unknown, Some(why)));
        assert_eq!(a.checks[0].state, HealthState::Healthy, "the other check is not touched");
        assert!(world.eligible("api").is_empty());
        world.set(&format!("{A} tcp"), 'P');
        if answer == '.' {
            let effects = world.state.on_scheduler_restart(world.now);
            world.take(effects);
        }
        world.run(SECOND);
        assert_eq!(world.eligible("api"), [A]);
    }
}

/// The answers of an upstream over time, and its reason after each of them.
#[tokio::test(start_paused = true)]
async fn the_reason_of_an_upstream_without_a_verdict_lasts_as_long_as_its_cause() {
    const FIRST: &str = "not judged yet: its first probe has not ended";
    const NO_VERDICT: &str = "not judged yet; NORES: scripted";
    const STALE: &str = "stale: no probe has passed or failed for too long";
    const STALE_NOW: &str = "stale: no probe has passed or failed for too long; NORES: scripted";
    const PANICKED: &str = "its probe panicked";
    const ONE_PASS: &str = "not judged yet: 1 of 2 passes; L4OK: scripted";
    const FAILED: &str = "L4CON: scripted";
    let table: [&[(char, u64, Option<&str>)]; 7] = [
        // Never judged: nothing is stale, however long that takes.
        &[('-', 1_000, Some(NO_VERDICT)), ('-', 40_000, Some(NO_VERDICT)), ('-', 300_000, Some(NO_VERDICT))],
        &[('.', 1_000, Some(FIRST)), ('.', 300_000, Some(FIRST))],
        // Judged, and then no probe that passes or fails.
        &[('P', 3_000, None), ('-', 20_000, None), ('-', 20_000, Some(STALE_NOW)), ('-', 300_000, Some(STALE_NOW))],
        &[('F', 3_000, Some(FAILED)), ('-', 40_000, Some(STALE_NOW)), ('F', 3_000, Some(FAILED))],
        &[('P', 3_000, None), ('.', 40_000, Some(STALE)), ('.', 300_000, Some(STALE))],
        &[('P', 3_000, None), ('!', 2_000, Some(PANICKED)), ('!', 300_000, Some(PANICKED)), ('P', 3_000, None)],
        // The first probe that passes again says more than what was before it.
        &[('P', 3_000, None), ('-', 40_000, Some(STALE_NOW)), ('1', 0, Some(ONE_PASS)), ('P', 3_000, None)],
    ];
    for history in table {
        let mut world = World::new();
        world.configure(vec![pool("api", &[A])]);
        for (step, (answer, ms, why)) in history.iter().enumerate() {
            if *answer == '1' {
                let before = world.probed(A);
                world.set(A, 'P');
                while world.probed(A) == before {
                    world.run(MS);
                }
                world.run(5 * MS);
            } else {
                world.set(A, *answer);
                world.run(Duration::from_millis(*ms));
            }
            assert_eq!(world.upstream("api", A).why.as_deref(), *why, "step {step} of {history:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_check_ends_what_is_carried() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
    world.set(&format!("{A} http"), '!');
    world.configure(vec![api(vec![check(http("/other"), timing()), both()[1].clone()], Require::All)]);
    assert_eq!(world.eligible("api"), [A]);
    world.run(SECOND / 10);
    assert_eq!(world.health("api", A), HealthState::Unknown);
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_check_that_is_missing() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", '.')]);
    assert!(matches!(world.service("api"), Service::Waiting { .. }));
    world.run(3 * SECOND);
    assert_eq!(world.service("api"), Service::NoneEligible(Otherwise::Reject));
}

#[tokio::test(start_paused = true)]
async fn retry_after_waits_for_as_many_checks_as_are_missing() {
    let slow = Timing { interval: 60 * SECOND, fast_interval: 20 * SECOND, healthy_threshold: 2, ..timing() };
    let checks = vec![check(http("/healthz"), slow), check(tcp(PortRule::Same), timing())];
    for require in [Require::All, Require::Any] {
        let mut world = World::new();
        world.configure(vec![api(checks.clone(), require)]);
        world.run(90 * SECOND);
        let a = world.upstream("api", A);
        assert_eq!(a.state, HealthState::Unhealthy);
        let wait = |i: usize| (a.checks[i].next_due - world.now) + a.checks[i].timing.fast_interval;
        let want = match require {
            Require::All => wait(0).max(wait(1)),
            Require::Any | Require::Count(_) => wait(0).min(wait(1)),
        };
        let shared = &world.snapshot.as_ref().unwrap().pools().next().unwrap().shared;
        assert_eq!(shared.retry_after(world.now), (want.as_secs_f64().ceil() as u64).max(1), "{require:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_brings_every_check_forward() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
    world.run(2 * SECOND);
    let a = world.upstream("api", A);
    let due = a.checks.iter().map(|check| check.next_due).min().unwrap();
    world.run(due - world.now + 300 * MS);
    let (http, tcp) = (world.probed_as(A, "http"), world.probed_as(A, "tcp"));
    world.state.on_hint(Hint::Failed(a.upstream.id), world.now);
    world.run(MS);
    assert_eq!((world.probed_as(A, "http"), world.probed_as(A, "tcp")), (http + 1, tcp + 1));
    assert_eq!(world.health("api", A), HealthState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_retiring_member_keeps_its_checks() {
    let mut world = world(both(), Require::All, &[("http", 'P'), ("tcp", 'P')]);
    let other = PoolPolicy { checks: vec![check(tcp(PortRule::Offset(1_000)), timing())], ..pool("api", &[B]) };
    world.configure(vec![other]);
    let a = world.upstream("api", A);
    assert_eq!((a.retiring, a.checks.len()), (true, 2));
    assert_eq!(world.eligible("api"), [A]);
    world.set(&format!("{A} http"), 'F');
    world.run(2 * SECOND);
    assert!(world.eligible("api").is_empty());
    assert_eq!(world.upstream("api", A).why.as_deref(), Some("check http: L4CON: scripted"));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_whose_check_does_not_verify_is_shown_as_unverified() {
    let tls = |verify| {
        let policy = TlsPolicy { verify, server_name: None, roots: None, client: None };
        Arc::new(ProbeSpec { port: PortRule::Same, tls: Some(policy), kind: ProbeKind::Tls, max_duration: None })
    };
    for verify in [true, false] {
        let checks = vec![both()[0].clone(), check(tls(verify), timing())];
        let world = world(checks, Require::All, &[]);
        assert_eq!(world.upstream("api", A).unverified, !verify);
    }
}

#[tokio::test(start_paused = true)]
async fn explain_has_the_last_ten_changes_and_why_the_next_probe_is_due() {
    let address: Address = A.parse().unwrap();
    let mut world = World::new();
    world.set(A, 'P');
    world.configure(vec![api(both(), Require::All)]);
    let dues = |world: &World| world.upstream("api", A).checks.iter().map(|check| check.due).collect::<Vec<_>>();
    assert_eq!(dues(&world), [Due::First, Due::First]);
    world.run(5 * MS);
    assert_eq!(dues(&world), [Due::Fast(Some(Run { pass: true, count: 1 })); 2]);
    world.run(100 * MS);
    assert_eq!(dues(&world), [Due::Slot, Due::Slot]);
    for round in 0..7 {
        world.set(&format!("{A} tcp"), if round % 2 == 0 { 'F' } else { 'P' });
        world.run(3 * SECOND);
    }
    for _ in 0..3 {
        for answer in ['P', 'F'] {
            world.set(&format!("{A} http"), answer);
            world.set(&format!("{A} tcp"), answer);
            world.run(3 * SECOND);
        }
    }
    let explained = world.state.explain("api", Some(&address), false, world.now).unwrap();
    let upstream = explained.upstream.unwrap();
    assert_eq!(upstream.history.len(), 10);
    assert_eq!(upstream.status.transitions_total, 14);
    assert!(upstream.history.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1.to == pair[1].1.from));
    assert_eq!(upstream.history[9].1.to, HealthState::Unhealthy);
    assert_eq!(upstream.policy.checks.len(), upstream.status.checks.len());
    assert_eq!(upstream.status.checks[1].due, Due::Regular);
    assert_eq!((explained.needed, explained.service), (1, Service::NoneEligible(Otherwise::Reject)));
    assert!(matches!(world.state.explain("web", None, false, world.now), Err(ExplainError::NoPool(_))));
    let other: Address = B.parse().unwrap();
    assert!(matches!(world.state.explain("api", Some(&other), false, world.now), Err(ExplainError::NoUpstream(..))));
}

/// One step of a history that the reference can follow.
#[derive(Debug, Clone)]
enum Op {
    /// The next probe passes or fails, whichever check it is of.
    Probe(bool),
    /// A reload changes the thresholds.
    Thresholds(u32, u32),
    /// A reload changes the definition of one check.
    Definition(usize),
    /// A reload sets exactly these checks; the first is always among them.
    Checks(bool, bool),
    /// A reload changes how many must pass.
    Require(Require),
    /// A reload changes nothing that matters to health.
    Weight(i64),
    /// The operator drains or enables.
    Drain(bool),
    /// So many seconds pass without a verdict.
    Later(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let require = prop_oneof![
        2 => Just(Require::All),
        2 => Just(Require::Any),
        1 => (1u32..4).prop_map(Require::Count),
    ];
    prop_oneof![
        16 => any::<bool>().prop_map(Op::Probe),
        1 => (1u32..4, 1u32..4).prop_map(|(rise, fall)| Op::Thresholds(rise, fall)),
        2 => (0usize..3).prop_map(Op::Definition),
        2 => any::<(bool, bool)>().prop_map(|(second, third)| Op::Checks(second, third)),
        2 => require.prop_map(Op::Require),
        1 => (1i64..9).prop_map(Op::Weight),
        1 => any::<bool>().prop_map(Op::Drain),
        1 => (1u64..80).prop_map(Op::Later),
    ]
}

/// What one check has seen under its current definition.
#[derive(Debug, Clone)]
struct Seen {
    version: u32,
    results: Vec<bool>,
    state: HealthState,
    /// It has its own result; before that, it only has the run of failures of the check that it replaces.
    judged: bool,
    /// When a probe last passed or failed.
    last: Instant,
    stale: bool,
}

/// The reference: the rules of health.md for one upstream with up to three checks, in a few lines.
#[derive(Debug)]
struct Reference {
    /// The interval of each check while unhealthy, or one for all.
    unhealthy_interval: Option<Duration>,
    thresholds: (u32, u32),
    require: Require,
    versions: u32,
    checks: [Option<Seen>; 3],
    state: HealthState,
    /// Since when it is carried.
    carried: Option<Instant>,
}

impl Reference {
    /// How long verdicts stay valid without being confirmed, and how long they are carried: 3 times the longest
    /// interval (1 s, or 20 s while unhealthy) and the timeout, at least 30 s.
    fn holds(&self) -> Duration {
        self.unhealthy_interval.map_or(30 * SECOND, |_| 61 * SECOND + SECOND / 2)
    }

    /// A new check; a run of failures of the check that it replaces continues.
    fn fresh(&mut self, replaced: Option<&Seen>, now: Instant) -> Option<Seen> {
        self.versions += 1;
        let failures = replaced.map_or(0, |seen| seen.results.iter().rev().take_while(|pass| !**pass).count());
        let (results, state) = (vec![false; failures], HealthState::Unknown);
        Some(Seen { version: self.versions, results, state, judged: false, last: now, stale: false })
    }

    /// Forgets what is out of date by now.
    fn expire(&mut self, now: Instant) {
        let holds = self.holds();
        for seen in self.checks.iter_mut().flatten().filter(|seen| !seen.stale && now >= seen.last + holds) {
            (seen.results, seen.state, seen.stale) = (vec![], HealthState::Unknown, true);
            self.carried = None;
        }
        if self.carried.is_some_and(|since| now >= since + holds) {
            self.carried = None;
        }
        self.conclude();
    }

    fn conclude(&mut self) {
        match self.together() {
            HealthState::Unknown if self.carried.is_some() => {}
            state => {
                self.carried = None;
                self.state = state;
            }
        }
    }

    /// `probed` is the version of the check whose probe ended.
    fn apply(&mut self, op: &Op, probed: Option<u32>, now: Instant) {
        self.expire(now);
        let before: Vec<u32> = self.checks.iter().flatten().map(|seen| seen.version).collect();
        match op {
            Op::Probe(pass) => {
                let seen = self.checks.iter_mut().flatten().find(|seen| Some(seen.version) == probed);
                let seen = seen.expect("only checks of the file are probed");
                seen.results.push(*pass);
                (seen.judged, seen.last, seen.stale) = (true, now, false);
            }
            Op::Thresholds(rise, fall) if self.thresholds != (*rise, *fall) => {
                self.thresholds = (*rise, *fall);
                self.checks.iter_mut().flatten().for_each(|seen| seen.judged = true);
            }
            Op::Definition(i) if self.checks[*i].is_some() => {
                let old = self.checks[*i].take();
                self.checks[*i] = self.fresh(old.as_ref(), now);
            }
            Op::Checks(second, third) => {
                for (i, wanted) in [(1, *second), (2, *third)] {
                    match (wanted, self.checks[i].is_some()) {
                        (true, false) => self.checks[i] = self.fresh(None, now),
                        (false, true) => self.checks[i] = None,
                        (true, true) | (false, false) => {}
                    }
                }
            }
            Op::Require(require) => self.require = *require,
            Op::Definition(_) | Op::Thresholds(..) | Op::Weight(_) | Op::Drain(_) | Op::Later(_) => {}
        }
        let (rise, fall) = self.thresholds;
        for seen in self.checks.iter_mut().flatten().filter(|seen| seen.judged) {
            let run = |pass: bool, n: u32| {
                seen.results.len() >= n as usize && seen.results.iter().rev().take(n as usize).all(|r| *r == pass)
            };
            if run(true, rise) {
                seen.state = HealthState::Healthy;
            } else if run(false, fall) {
                seen.state = HealthState::Unhealthy;
            }
        }
        let after: Vec<u32> = self.checks.iter().flatten().map(|seen| seen.version).collect();
        if self.state != HealthState::Unknown && before != after {
            self.carried.get_or_insert(now);
        }
        self.conclude();
    }

    /// The rule of health.md, word for word.
    fn together(&self) -> HealthState {
        let states: Vec<HealthState> = self.checks.iter().flatten().map(|seen| seen.state).collect();
        let are = |state| states.iter().filter(|s| **s == state).count();
        let (healthy, unhealthy, all) = (are(HealthState::Healthy), are(HealthState::Unhealthy), states.len());
        let (is_healthy, is_unhealthy) = match self.require {
            Require::All => (healthy == all, unhealthy >= 1),
            Require::Any => (healthy >= 1, unhealthy == all),
            Require::Count(n) => {
                let n = (n as usize).min(all);
                (healthy >= n, all - unhealthy < n)
            }
        };
        match (is_healthy, is_unhealthy) {
            (true, _) => HealthState::Healthy,
            (false, true) => HealthState::Unhealthy,
            (false, false) => HealthState::Unknown,
        }
    }

    fn policy(&self, weight: i64) -> PoolPolicy {
        let (healthy_threshold, unhealthy_threshold) = self.thresholds;
        let unhealthy_interval = self.unhealthy_interval;
        let timing = Timing { healthy_threshold, unhealthy_threshold, unhealthy_interval, ..timing() };
        let checks = self.checks.iter().enumerate().filter_map(|(i, seen)| {
            let spec = http(&format!("/{}", seen.as_ref()?.version));
            Some(CheckPolicy { name: format!("c{i}").into(), ..check(spec, timing) })
        });
        let member = UpstreamPolicy { weight: Weight::try_new(weight).unwrap(), ..upstream(A) };
        let (checks, require) = (checks.collect(), self.require);
        PoolPolicy { checks, require, upstreams: vec![member], ..pool("api", &[]) }
    }
}

/// The next probe that begins and is still wanted: its token and the version of its check.
fn next_probe(world: &mut World, begun: &mut VecDeque<(ProbeToken, u32)>) -> (ProbeToken, u32) {
    for _ in 0..1_000 {
        while let Some((token, version)) = begun.pop_front() {
            if world.state.flights.contains_key(&token) {
                return (token, version);
            }
        }
        world.now = world.now.max(world.state.next_deadline().expect("a probe is due"));
        let (work, effects) = world.state.on_tick(world.now);
        world.take(effects);
        begun.extend(work.start.iter().map(|job| match &job.check.spec.kind {
            ProbeKind::Http(probe) => (job.token, probe.path[1..].parse().expect("a version")),
            other => panic!("no such check: {other:?}"),
        }));
    }
    panic!("no probe begins");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_state_agrees_with_the_reference_over_reloads_and_drains(
        ops in proptest::collection::vec(op(), 1..80), rarely in any::<bool>(),
    ) {
        let mut world = World::new();
        let mut reference = Reference {
            unhealthy_interval: rarely.then_some(20 * SECOND),
            thresholds: (2, 2),
            require: Require::All,
            versions: 0,
            checks: [None, None, None],
            state: HealthState::Unknown,
            carried: None,
        };
        reference.checks[0] = reference.fresh(None, world.now);
        let (mut weight, mut drained, mut begun) = (1, false, VecDeque::new());
        world.configure(vec![reference.policy(weight)]);
        for op in &ops {
            match op {
                Op::Probe(pass) => {
                    let (token, version) = next_probe(&mut world, &mut begun);
                    reference.apply(op, Some(version), world.now);
                    let answer = report(if *pass { 'P' } else { 'F' });
                    let effects = world.state.on_probes([(token, answer)], world.now);
                    world.take(effects);
                }
                Op::Drain(on) => {
                    drained = *on;
                    let to = if drained { AdminState::Draining } else { AdminState::Enabled };
                    let (_, effects) = world.state.order(Some("api"), &A.parse().unwrap(), &ordered(to, true), world.now).unwrap();
                    world.take(effects);
                }
                Op::Later(seconds) => {
                    world.now += SECOND * *seconds as u32;
                    reference.apply(op, None, world.now);
                }
                Op::Thresholds(..) | Op::Definition(_) | Op::Checks(..) | Op::Require(_) | Op::Weight(_) => {
                    if let Op::Weight(new) = op {
                        weight = *new;
                    }
                    reference.apply(op, None, world.now);
                    world.configure(vec![reference.policy(weight)]);
                }
            }
            let effects = world.state.expire(world.now);
            world.take(effects);
            let a = world.upstream("api", A);
            prop_assert_eq!(a.state, reference.state, "after {:?} of {:?}", op, ops);
            prop_assert_eq!(a.carried, reference.carried.is_some(), "after {:?} of {:?}", op, ops);
            prop_assert_eq!(a.streak, a.checks[a.decides].streak);
            prop_assert_eq!(world.state.checks.len(), reference.checks.iter().flatten().count());
            let serves = !world.eligible("api").is_empty();
            prop_assert_eq!(serves, reference.state == HealthState::Healthy && !drained);
        }
    }
}
