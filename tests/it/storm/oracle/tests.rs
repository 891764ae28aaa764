//! Each rule on invented logs: it accepts correct ones and reports violations.

use super::super::evidence::{Known, Order, Sample, Transition};
use super::super::model::{Answer, Config, Member};
use super::super::plan::first;
use super::*;

/// All origins of the first configuration are good and healthy from the start.
fn calm() -> Evidence {
    let mut evidence = Evidence::default();
    evidence.modes.extend((0..ORIGINS).map(|origin| (At::ZERO, origin, Mode::GOOD)));
    let config = first(false);
    for (pool, policy) in &config.pools {
        for member in &policy.members {
            evidence.transitions.push(change(0, pool, member.origin, HealthState::Unknown, HealthState::Healthy));
        }
    }
    evidence.configs.push((At::ZERO, config));
    evidence
}

fn ms(ms: u64) -> At {
    Duration::from_millis(ms)
}

fn change(at: u64, pool: &str, origin: usize, from: HealthState, to: HealthState) -> Transition {
    Transition { at: ms(at), pool: pool.to_owned(), origin, from, to }
}

fn down(at: u64, pool: &str, origin: usize) -> Transition {
    change(at, pool, origin, HealthState::Healthy, HealthState::Unhealthy)
}

fn dead() -> Mode {
    Mode { reach: Reach::Dead, ..Mode::GOOD }
}

fn treating(traffic: Traffic) -> Mode {
    Mode { traffic, ..Mode::GOOD }
}

/// The first configuration with something changed.
fn changed(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = first(false);
    change(&mut config);
    config
}

fn replace(config: &mut Config, pool: &str, origins: &[usize]) {
    let pool = config.pools.get_mut(pool).expect("a pool of the first configuration");
    pool.members = origins.iter().map(|origin| Member::plain(*origin)).collect();
    // With its own checks, which have no verdict yet.
    pool.timing.interval = 1_000;
}

/// What the oracle reports of a GET for service 0 that reached this origin at this moment.
fn get_at(mut evidence: Evidence, at: u64, origin: usize) -> Vec<&'static str> {
    evidence.arrivals.push(Arrival { at: ms(at), number: 1, service: 0, post: false, origin });
    rules(&evidence)
}

fn rules(evidence: &Evidence) -> Vec<&'static str> {
    judge(evidence).into_iter().map(|violation| violation.rule).collect()
}

/// What it reports of a request for service 0 that ended like this 10 ms after it was sent.
fn ended(mut evidence: Evidence, sent: u64, post: bool, end: End) -> Vec<&'static str> {
    let (sent, ended) = (ms(sent), ms(sent + 10));
    evidence.outcomes.push(Outcome { number: 1, service: 0, post, sent, ended, end });
    rules(&evidence)
}

fn refused(evidence: Evidence, sent: u64) -> Vec<&'static str> {
    ended(evidence, sent, false, End::Own(503, "none_eligible".to_owned()))
}

fn own(status: u16, reason: &str) -> End {
    End::Own(status, reason.to_owned())
}

#[test]
fn a_request_may_reach_upstreams_that_are_healthy_by_the_ring_and_a_moment_longer() {
    assert_eq!(get_at(calm(), 1_000, 0), [""; 0]);
    assert_eq!(get_at(calm(), 1_000, 3), ["outside"], "it is in another pool");
    let ill = || {
        let mut evidence = calm();
        evidence.transitions.push(down(1_000, "p0", 0));
        evidence
    };
    assert_eq!(get_at(ill(), 1_200, 0), [""; 0], "it was being sent");
    assert_eq!(get_at(ill(), 1_400, 0), ["outside"]);
    let mut stopped = ill();
    stopped.standstills.push((ms(1_010), ms(1_500)));
    assert_eq!(get_at(stopped, 1_600, 0), [""; 0], "it was being sent while the program was stopped");
    let mut late = ill();
    late.hiccups.push((ms(1_300), ms(40)));
    assert_eq!(get_at(late, 1_400, 0), [""; 0], "the machine was busy");
    let mut well = ill();
    well.transitions.push(change(1_390, "p0", 0, HealthState::Unhealthy, HealthState::Healthy));
    assert_eq!(get_at(well, 1_400, 0), [""; 0]);
}

#[test]
fn a_request_may_not_reach_upstreams_taken_out_by_an_order() {
    let ordered = |to: AdminState| {
        let mut evidence = calm();
        evidence.orders.push(Order { at: ms(1_000), pool: "p0".to_owned(), origin: 0, to });
        evidence
    };
    assert_eq!(get_at(ordered(AdminState::Disabled), 1_400, 0), ["outside"]);
    assert_eq!(get_at(ordered(AdminState::Draining), 1_400, 0), ["outside"]);
    assert_eq!(get_at(ordered(AdminState::Enabled), 1_400, 0), [""; 0]);
    let mut back = ordered(AdminState::Disabled);
    back.configs.push((ms(1_100), changed(|config| replace(config, "p0", &[1, 2]))));
    back.configs.push((ms(1_200), first(false)));
    back.transitions.push(change(1_500, "p0", 0, HealthState::Unknown, HealthState::Healthy));
    assert_eq!(get_at(back, 1_600, 0), [""; 0], "the order ended when it left the file");
}

#[test]
fn a_removed_upstream_serves_until_the_new_ones_can_and_no_longer() {
    let removed = |origins: &[usize]| {
        let mut evidence = calm();
        evidence.configs.push((ms(1_000), changed(|config| replace(config, "p0", origins))));
        evidence
    };
    assert_eq!(get_at(removed(&[1, 2]), 1_200, 0), [""; 0], "it was being sent");
    assert_eq!(get_at(removed(&[1, 2]), 1_400, 0), ["outside"], "the others are healthy");
    assert_eq!(get_at(removed(&[3, 4]), 5_000, 0), [""; 0], "the new ones have no verdict");
    assert_eq!(get_at(removed(&[3, 4]), 5_000, 3), ["outside"], "it has no verdict");
    let mut judged = removed(&[3, 4]);
    judged.transitions.push(change(2_000, "p0", 4, HealthState::Unknown, HealthState::Healthy));
    assert_eq!(get_at(judged, 2_500, 0), ["outside"], "a new one is healthy");
    let mut long = removed(&[3, 4]);
    long.modes.push((ms(32_000), 8, dead()));
    assert_eq!(get_at(long, 33_000, 0), ["outside"], "its 30 s are over");
    let mut shown = removed(&[1, 2]);
    let known = Known { state: HealthState::Healthy, retiring: true };
    let upstreams = [(("p0".to_owned(), 0), known)].into();
    shown.samples.push(Sample { asked: ms(1_390), answered: ms(1_392), upstreams });
    assert_eq!(get_at(shown, 1_400, 0), [""; 0], "status shows it as retiring");
}

#[test]
fn a_renamed_pool_keeps_the_verdicts_of_its_checks_only() {
    let renamed = |state: HealthState| {
        let mut evidence = calm();
        let config = changed(|config| {
            let pool = config.pools.remove("p0").expect("it is there");
            config.pools.insert("p4".to_owned(), pool);
            config.services[0] = "p4".to_owned();
        });
        evidence.configs.push((ms(1_000), config));
        let known = Known { state, retiring: false };
        let upstreams = (0..3).map(|origin| (("p4".to_owned(), origin), known)).collect();
        evidence.samples.push(Sample { asked: ms(1_100), answered: ms(1_101), upstreams });
        evidence
    };
    assert_eq!(get_at(renamed(HealthState::Healthy), 1_400, 0), [""; 0]);
    assert_eq!(get_at(renamed(HealthState::Unknown), 1_400, 0), ["outside"]);
    assert_eq!(
        refused(renamed(HealthState::Unknown), 4_000),
        ["empty"],
        "its origins have passed these checks for long"
    );
}

#[test]
fn an_origin_that_has_failed_for_long_gets_nothing_whatever_the_ring_says() {
    let failing = || {
        let mut evidence = calm();
        evidence.modes.push((ms(1_000), 0, Mode { paths: [Answer::Fail; 3], ..Mode::GOOD }));
        evidence
    };
    assert_eq!(get_at(failing(), 3_000, 0), [""; 0], "it may not be detected yet");
    assert_eq!(get_at(failing(), 5_000, 0), ["outside"]);
    let mut redefined = failing();
    let config =
        changed(|c| c.pools.get_mut("p0").expect("it is there").kinds = vec![super::super::model::Kind::Http(1)]);
    redefined.configs.push((ms(4_500), config));
    assert_eq!(get_at(redefined, 5_000, 0), ["outside"], "a failing streak continues under another definition");
    let mut stopped = failing();
    stopped.standstills.push((ms(2_000), ms(4_000)));
    assert_eq!(get_at(stopped, 5_000, 0), [""; 0], "the stopped program could not detect it");
}

#[test]
fn a_post_seen_by_two_origins_is_reported() {
    let seen = |post: bool| {
        let mut evidence = calm();
        for origin in 0..2 {
            evidence.arrivals.push(Arrival { at: ms(1_000), number: 1, service: 0, post, origin });
        }
        rules(&evidence)
    };
    assert_eq!(seen(true), ["twice"]);
    assert_eq!(seen(false), [""; 0]);
}

#[test]
fn a_response_to_another_request_is_reported() {
    assert_eq!(ended(calm(), 1_000, false, End::Answered), [""; 0]);
    assert_eq!(ended(calm(), 1_000, false, End::Unknown), [""; 0]);
    assert_eq!(ended(calm(), 1_000, false, End::Wrong("unasked".to_owned())), ["wrong"]);
}

#[test]
fn a_failed_request_needs_a_cause() {
    // These origins do this from 900 ms on; the request reaches origin 0.
    let with = |modes: &[(usize, Mode)], post: bool, end: &End| {
        let mut evidence = calm();
        evidence.modes.extend(modes.iter().map(|(origin, mode)| (ms(900), *origin, *mode)));
        evidence.arrivals.push(Arrival { at: ms(1_001), number: 1, service: 0, post, origin: 0 });
        ended(evidence, 1_000, post, end.clone())
    };
    let resets = treating(Traffic::Resets);
    let silent = treating(Traffic::ClosesSilently);
    let cuts = treating(Traffic::Cuts);
    let broke = own(502, "upstream_broke");
    let connect = own(502, "connect_failed");
    let (yes, no) = (&[""; 0][..], &["cause"][..]);
    let cases: &[(&str, &[(usize, Mode)], bool, &End, &[&str])] = &[
        ("a POST to one that resets", &[(0, resets)], true, &broke, yes),
        ("a POST, and another one resets", &[(1, resets)], true, &broke, no),
        ("a POST to one that closes silently", &[(0, silent)], true, &broke, no),
        ("a GET, one resets", &[(0, resets)], false, &broke, no),
        ("a GET, two reset", &[(0, resets), (1, resets)], false, &broke, yes),
        ("a GET, one resets and one is dead", &[(0, resets), (1, dead())], false, &broke, yes),
        ("one is dead", &[(1, dead())], true, &connect, no),
        ("two are dead", &[(1, dead()), (2, dead())], true, &connect, yes),
        ("two reset, and none is dead", &[(1, resets), (2, resets)], true, &connect, no),
        ("two of another pool are dead", &[(3, dead()), (4, dead())], true, &connect, no),
        ("an origin that ends early", &[(0, cuts)], false, &End::Cut, yes),
        ("another one ends early", &[(1, cuts)], false, &End::Cut, no),
        ("an origin that is killed", &[(0, dead())], false, &End::Cut, yes),
        ("no origin closes a connection", &[], false, &End::Closed { reused: true }, no),
        ("no origin closes a new connection", &[], false, &End::Closed { reused: false }, no),
        ("there is a listener", &[], false, &End::NoConnection, no),
        ("nothing takes so long", &[(0, resets)], false, &End::GaveUp, no),
        ("answers are good", &[(0, resets)], false, &own(502, "bad_response"), no),
        ("there is a route", &[(0, resets)], false, &own(404, "no_route"), no),
    ];
    for (what, modes, post, end, wanted) in cases {
        assert_eq!(with(modes, *post, end), *wanted, "{what}");
    }
    let mut alone = calm();
    alone.transitions.extend([down(500, "p0", 1), down(500, "p0", 2)]);
    alone.modes.push((ms(900), 0, dead()));
    assert_eq!(ended(alone, 1_000, true, connect), [""; 0], "there was no other");
    for end in [End::NoConnection, End::Closed { reused: true }] {
        let mut moved = calm();
        moved.configs.push((ms(900), changed(|config| config.listener = 1)));
        assert_eq!(ended(moved, 1_000, false, end), [""; 0], "the listener has moved");
    }
}

#[test]
fn a_503_from_a_pool_that_could_serve_is_reported() {
    assert_eq!(refused(calm(), 1_000), ["empty"], "all are healthy");
    let down_at = |at: u64| {
        let mut evidence = calm();
        evidence.transitions.extend((0..3).map(|origin| down(at, "p0", origin)));
        evidence
    };
    assert_eq!(refused(down_at(900), 1_000), [""; 0], "the ring says so, and their checks are young");
    assert_eq!(refused(down_at(900), 9_000), ["empty"], "they have passed for long");
    let mut all_dead = down_at(9_100);
    all_dead.modes.extend((0..3).map(|origin| (ms(9_000), origin, dead())));
    assert_eq!(refused(all_dead, 9_200), [""; 0]);
    let mut drained = calm();
    for origin in 0..3 {
        drained.orders.push(Order { at: ms(500), pool: "p0".to_owned(), origin, to: AdminState::Draining });
    }
    assert_eq!(refused(drained, 9_000), [""; 0]);
    let needs_two = changed(|config| config.pools.get_mut("p0").expect("it is there").min_healthy = 2);
    let mut too_few = calm();
    too_few.configs[0].1 = needs_two;
    too_few.modes.extend((1..3).map(|origin| (ms(500), origin, dead())));
    too_few.transitions.extend((1..3).map(|origin| down(600, "p0", origin)));
    assert_eq!(refused(too_few, 9_000), [""; 0]);
}

#[test]
fn a_reload_may_not_empty_a_pool() {
    let mut replaced = calm();
    replaced.configs.push((ms(5_000), changed(|config| replace(config, "p0", &[3, 4]))));
    assert_eq!(refused(replaced, 5_200), ["empty"], "the removed ones serve");
    // One that passes one of two checks is kept, two that pass both go, and from now on both are required.
    let settled = |found: bool| {
        let mut evidence = calm();
        evidence.configs[0].1.services[0] = "p1".to_owned();
        evidence.modes.push((ms(100), 3, Mode { paths: [Answer::Pass, Answer::Fail, Answer::Pass], ..Mode::GOOD }));
        let config = changed(|config| {
            config.services[0] = "p1".to_owned();
            let pool = config.pools.get_mut("p1").expect("it is there");
            pool.require_all = true;
            pool.members.retain(|member| member.origin == 3);
        });
        evidence.configs.push((ms(6_000), config));
        evidence.transitions.extend(found.then(|| down(6_000, "p1", 3)));
        refused(evidence, 6_100)
    };
    assert_eq!(settled(true), ["empty"], "kept upstreams get their new verdict first");
    assert_eq!(settled(false), ["empty"], "the ring still calls it healthy");
}

#[test]
fn requests_of_a_new_pool_wait_for_its_first_verdicts() {
    let fresh = || {
        let mut evidence = calm();
        let config = changed(|config| {
            let mut pool = config.pools.remove("p0").expect("it is there");
            pool.timing.interval = 1_000;
            config.pools.insert("p4".to_owned(), pool);
            config.services[0] = "p4".to_owned();
        });
        evidence.configs.push((ms(5_000), config));
        evidence
    };
    assert_eq!(refused(fresh(), 5_500), ["empty"]);
    let mut ill = fresh();
    ill.transitions.extend((0..3).map(|n| change(5_300, "p4", n, HealthState::Unknown, HealthState::Unhealthy)));
    assert_eq!(refused(ill, 5_500), [""; 0], "they have verdicts");
}

#[test]
fn a_request_keeps_its_pool_while_the_pool_exists() {
    let swapped = |sent: u64, gone: bool| {
        let mut evidence = calm();
        let config = changed(|config| {
            config.services[0] = "p1".to_owned();
            if gone {
                config.pools.remove("p0");
            }
        });
        evidence.configs.push((ms(1_000), config));
        let (sent, ended, end) = (ms(sent), ms(3_010), End::Answered);
        evidence.outcomes.push(Outcome { number: 1, service: 0, post: false, sent, ended, end });
        evidence
    };
    assert_eq!(get_at(swapped(900, false), 3_000, 0), [""; 0], "a second try");
    assert_eq!(get_at(swapped(900, true), 3_000, 0), ["outside"], "its pool is gone");
    assert_eq!(get_at(swapped(2_000, false), 3_000, 0), ["outside"], "it came when the service was another pool's");
    let mut again = swapped(900, true);
    again.configs.push((ms(1_500), changed(|config| config.services[0] = "p1".to_owned())));
    again.transitions.push(change(1_600, "p0", 0, HealthState::Unknown, HealthState::Healthy));
    assert_eq!(get_at(again, 3_000, 0), ["outside"], "its name has come back, and it is another pool");
}

#[test]
fn a_pool_with_too_few_upstreams_stays_the_pool_of_its_requests() {
    let mut evidence = calm();
    evidence.configs[0].1.pools.get_mut("p0").expect("it is there").min_healthy = 3;
    evidence.modes.push((ms(990), 0, dead()));
    assert_eq!(ended(evidence, 1_000, false, own(502, "connect_failed")), [""; 0]);
}
