//! Ejection by live traffic, together with everything else that decides whether an upstream is used.

use proptest::prelude::*;

use super::super::super::passive::EjectionEnd;
use super::*;
use crate::model::{Eligibility, FineWeight, Ineligible};

use Failure::{Connect, Reset, Unavailable};

impl World {
    /// So many requests to an upstream, with this outcome, and what the state makes of it.
    fn outcomes(&mut self, address: &str, outcome: Option<Failure>, times: usize) {
        let upstream = self.upstream("api", address).upstream;
        let snapshot = self.snapshot.clone().expect("it is configured");
        let pool = snapshot.pools().find(|pool| pool.name.as_str() == "api").expect("such a pool");
        for _ in 0..times {
            match outcome {
                Some(failure) => pool.on_failure(&upstream, failure, self.now),
                None => pool.on_response(&upstream, 200, MS, self.now),
            }
        }
        self.take_hints();
    }

    fn is_ejected(&self, address: &str) -> bool {
        self.upstream("api", address).ejection.is_some()
    }

    /// Ejections begun (`None`) and ended so far, each with the port of its upstream.
    fn ejections(&self) -> Vec<(u16, Option<EjectionEnd>)> {
        let of = |event: Event| match event.kind {
            EventKind::Ejected { upstream, .. } => Some((upstream.port()?, None)),
            EventKind::EjectionEnded { upstream, why, .. } => Some((upstream.port()?, Some(why))),
            _ => None,
        };
        self.state.events_after(0).into_iter().filter_map(of).collect()
    }
}

fn with_passive(pool: PoolPolicy, passive: PassivePolicy) -> PoolPolicy {
    PoolPolicy { traffic: Arc::new(TrafficPolicy { passive, ..TrafficPolicy::default() }), ..pool }
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_for_a_while_and_a_success_between_them_does_not() {
    let mut world = healthy(&[A, B, C]);
    for failure in [Connect, Reset, Failure::Timeout, Failure::BadGateway, Unavailable, Failure::GatewayTimeout] {
        world.outcomes(A, Some(failure), 4);
        world.outcomes(A, None, 1);
    }
    assert_eq!(world.ejections(), []);
    world.outcomes(A, Some(Reset), 5);
    assert_eq!(world.eligible("api"), [B, C]);
    assert_eq!(world.closed, [A], "its idle connections close");
    let status = world.upstream("api", A);
    assert_eq!(status.state, HealthState::Healthy, "the verdict of its checks is another thing");
    assert_eq!(status.eligibility, Eligibility::Not(Ineligible::Ejected));
    assert_eq!(status.why.as_deref(), Some("ejected for 10.0 s more: its last 5 requests failed (reset)"));
    world.run(3 * SECOND);
    let why = world.upstream("api", A).why;
    assert_eq!(why.as_deref(), Some("ejected for 7.0 s more: its last 5 requests failed (reset)"));
    world.run(7 * SECOND - MS);
    assert_eq!(world.eligible("api"), [B, C]);
    world.run(MS);
    assert_eq!(world.eligible("api"), [A, B, C]);
    assert_eq!(world.ejections(), [(9001, None), (9001, Some(EjectionEnd::Over))]);
    assert_eq!((world.upstream("api", A).why, world.upstream("api", A).ejections_total), (None, 1));
    // What failed before counts no longer; the next one lasts longer.
    world.outcomes(A, Some(Reset), 4);
    assert!(!world.is_ejected(A));
    world.outcomes(A, Some(Reset), 1);
    world.run(19 * SECOND);
    assert!(world.is_ejected(A));
    world.run(SECOND);
    assert!(!world.is_ejected(A));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_makes_the_next_probe_due_now() {
    let mut world = healthy(&[A, B]);
    world.run(700 * MS);
    let before = world.probed(A);
    world.outcomes(A, Some(Reset), 5);
    world.run(50 * MS);
    assert_eq!((world.probed(A), world.is_ejected(A)), (before + 1, true));
    world.outcomes(B, Some(Unavailable), 9);
    assert!(!world.is_ejected(B), "and that of the last one is as it was");
}

#[tokio::test(start_paused = true)]
async fn the_last_that_can_serve_is_never_ejected_and_when_the_others_are_lost_those_that_were_serve_again() {
    let mut world = healthy(&[A, B]);
    world.outcomes(A, Some(Connect), 5);
    world.outcomes(B, Some(Connect), 50);
    assert_eq!((world.is_ejected(A), world.is_ejected(B)), (true, false));
    world.set(B, 'F');
    world.run(timing().worst_detection());
    assert_eq!(world.health("api", B), HealthState::Unhealthy);
    assert_eq!(world.eligible("api"), [A], "at once");
    assert_eq!(world.ejections(), [(9001, None), (9001, Some(EjectionEnd::Last))]);
    // An operator's order takes the others out as well.
    let mut world = healthy(&[A, B]);
    world.outcomes(A, Some(Reset), 5);
    let order = ordered(AdminState::Draining, true);
    let (_, effects) = world.state.order(Some("api"), &B.parse().unwrap(), &order, world.now).unwrap();
    world.take(effects);
    assert_eq!(world.eligible("api"), [A]);
    // And so does a reload.
    let mut world = healthy(&[A, B]);
    world.outcomes(A, Some(Reset), 5);
    world.configure(vec![pool("api", &[A, C])]);
    assert_eq!(world.eligible("api"), [B], "a removed one serves until another can");
    world.run(31 * SECOND);
    assert_eq!(world.eligible("api"), [A]);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_ejected_than_the_share_of_their_rank_allows() {
    let addresses: Vec<String> = (1..=10).map(|port| format!("127.0.0.1:{port}")).collect();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    for (share, want) in [(50, 5), (0, 1), (29, 2), (100, 9)] {
        let passive = PassivePolicy { max_share: Ratio::percent(share), ..PassivePolicy::default() };
        let mut world = healthy(&all);
        world.configure(vec![with_passive(pool("api", &all), passive)]);
        for _ in 0..2 {
            all.iter().for_each(|address| world.outcomes(address, Some(Reset), 5));
            world.run(50 * MS);
        }
        assert_eq!(world.ejections().len(), want, "{share} %");
        assert_eq!(world.eligible("api").len(), 10 - want);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejection_that_would_leave_fewer_than_min_healthy_does_not_hold() {
    let three = || PoolPolicy { min_healthy: MinHealthy::Count(2), ..pool("api", &[A, B, C]) };
    let mut world = healthy(&[A, B, C]);
    world.configure(vec![three()]);
    world.outcomes(A, Some(Reset), 5);
    world.run(50 * MS);
    world.outcomes(B, Some(Reset), 5);
    world.run(50 * MS);
    assert_eq!((world.is_ejected(A), world.is_ejected(B)), (true, false));
    world.set(C, 'F');
    world.run(timing().worst_detection());
    assert_eq!(world.eligible("api"), [A, B]);
    assert_eq!(world.ejections()[1..], [(9001, Some(EjectionEnd::MinHealthy))]);
}

#[tokio::test(start_paused = true)]
async fn backups_count_as_others_and_can_be_ejected_themselves() {
    let backup = |address: &str| UpstreamPolicy { backup: true, ..upstream(address) };
    let ranked = |primaries: &[&str], backups: &[&str]| PoolPolicy {
        upstreams: primaries.iter().map(|a| upstream(a)).chain(backups.iter().map(|a| backup(a))).collect(),
        ..pool("api", &[])
    };
    let mut world = healthy(&[A, B, C]);
    let passive = PassivePolicy { max_share: Ratio::percent(100), ..PassivePolicy::default() };
    world.configure(vec![with_passive(ranked(&[A], &[B, C]), passive)]);
    world.outcomes(A, Some(Reset), 5);
    assert_eq!(world.eligible("api"), [B, C], "the backups serve");
    world.run(50 * MS);
    world.outcomes(B, Some(Reset), 5);
    assert_eq!(world.eligible("api"), [C]);
    world.run(50 * MS);
    world.outcomes(C, Some(Reset), 5);
    assert_eq!(world.eligible("api"), [C], "it is the last");
}

#[tokio::test(start_paused = true)]
async fn statuses_eject_only_an_upstream_that_gives_them_at_least_twice_as_often_as_the_others() {
    let mut world = healthy(&[A, B, C]);
    // The application is at fault, not one upstream.
    for _ in 0..20 {
        [A, B, C].iter().for_each(|address| world.outcomes(address, Some(Unavailable), 1));
        world.run(50 * MS);
    }
    assert_eq!(world.ejections(), []);
    // Ten seconds later that is forgotten.
    world.run(11 * SECOND);
    for address in [B, C] {
        world.outcomes(address, None, 80);
        world.outcomes(address, Some(Unavailable), 4);
    }
    world.outcomes(A, Some(Unavailable), 5);
    assert!(world.is_ejected(A));
    // Among others a reset counts as much.
    world.outcomes(B, Some(Reset), 3);
    assert!(!world.is_ejected(B));
}

#[tokio::test(start_paused = true)]
async fn only_where_connect_failures_ejected_it_do_passes_at_the_same_address_let_it_back() {
    let elsewhere = || check(tcp(PortRule::Port(9101)), timing());
    let both = |checks| PoolPolicy { checks, ..pool("api", &[A, B]) };
    let here = || check(tcp(PortRule::Same), timing());
    for (failure, checks, lifted) in [
        (Connect, vec![here()], true),
        (Reset, vec![here()], false),
        (Connect, vec![elsewhere()], false),
        (Connect, vec![elsewhere(), here()], true),
    ] {
        let mut world = World::new();
        ["127.0.0.1:9101", A, B].iter().for_each(|address| world.set(address, 'P'));
        world.configure(vec![both(checks.clone())]);
        world.run(SECOND);
        world.outcomes(A, Some(failure), 5);
        assert!(world.is_ejected(A));
        world.run(10 * MS);
        assert!(world.is_ejected(A), "one pass is not enough");
        world.run(3 * timing().interval);
        assert_eq!(world.is_ejected(A), !lifted, "{failure:?} {checks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn checks_that_fail_and_pass_again_end_an_ejection() {
    let mut world = healthy(&[A, B]);
    world.outcomes(A, Some(Reset), 5);
    world.set(A, 'F');
    world.run(2 * SECOND);
    let status = world.upstream("api", A);
    assert_eq!((status.state, status.eligibility), (HealthState::Unhealthy, Eligibility::Not(Ineligible::Unhealthy)));
    world.set(A, 'P');
    world.run(2 * SECOND);
    assert_eq!(world.eligible("api"), [A, B]);
    assert_eq!(world.ejections()[1..], [(9001, Some(EjectionEnd::Recovered))]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_an_ejection_and_one_that_switches_passive_off_ends_it() {
    let mut world = healthy(&[A, B]);
    world.outcomes(A, Some(Reset), 5);
    let random = || PoolPolicy { balance: Balance::Random, ..pool("api", &[A, B, C]) };
    world.configure(vec![random()]);
    assert!(world.is_ejected(A));
    let off = PassivePolicy { consecutive_failures: 0, ..PassivePolicy::default() };
    world.configure(vec![with_passive(random(), off)]);
    assert_eq!((world.is_ejected(A), world.eligible("api")), (false, vec![A.to_owned(), B.to_owned()]));
    assert_eq!(world.ejections()[1..], [(9001, Some(EjectionEnd::Off))]);
    world.outcomes(A, Some(Reset), 50);
    assert!(!world.is_ejected(A));
}

/// An event of the property.
#[derive(Debug, Clone)]
enum Act {
    Answer(usize, char),
    Fail(usize, Failure, usize),
    Succeed(usize),
    Order(usize, Command),
    Wait(u64),
    Reload { members: Vec<bool>, backups: Vec<bool>, min: u32, share: u32, on: bool, ramps: bool },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let which = 0..5usize;
    let failure = proptest::sample::select(Failure::ALL.to_vec());
    let answers = vec!['P', 'P', 'P', 'F', 'F', '-', '!', 'd', 'u', 'r', 'm'];
    let orders = [AdminState::Enabled, AdminState::Draining, AdminState::Disabled].map(|to| ordered(to, true).command);
    let order = proptest::sample::select([&orders[..], &[Command::Weight(Weight::try_new(7).unwrap())]].concat());
    let flags = || proptest::collection::vec(any::<bool>(), 5);
    let reload = (flags(), flags(), 1..4u32, 0..=100u32, proptest::bool::weighted(0.9), any::<bool>());
    let act = prop_oneof![
        3 => (which.clone(), proptest::sample::select(answers)).prop_map(|(i, answer)| Act::Answer(i, answer)),
        6 => (which.clone(), failure, 1..12usize).prop_map(|(i, failure, n)| Act::Fail(i, failure, n)),
        2 => which.clone().prop_map(Act::Succeed),
        2 => (which, order).prop_map(|(i, to)| Act::Order(i, to)),
        3 => (1..8_000u64).prop_map(Act::Wait),
        1 => reload.prop_map(|(members, backups, min, share, on, ramps)| {
            Act::Reload { members, backups, min, share, on, ramps }
        }),
    ];
    proptest::collection::vec(act, 1..60)
}

const ALL: [&str; 5] = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5"];

/// What must hold after every event.
fn check_invariants(world: &World, policy: &PoolPolicy, epochs: &mut HashMap<UpstreamId, (u64, bool)>) {
    let status = world.state.status(false, world.now);
    let pool = status.pools.iter().find(|pool| pool.name.as_str() == "api").expect("it is configured");
    let published: Vec<UpstreamId> = {
        let view = &world.views[&name("api")];
        view.primaries.candidates().iter().chain(view.backups.candidates()).map(|c| c.upstream.id).collect()
    };
    let passive = &policy.traffic.passive;
    for upstream in &pool.upstreams {
        let (id, eligible) = (upstream.upstream.id, upstream.eligibility.is_eligible());
        assert_eq!(published.contains(&id), eligible, "{}: what is shown is what is picked", upstream.upstream.address);
        let epoch = upstream.upstream.connections.epoch();
        // That of its pool, which may have too few others, is not its own.
        let own = eligible
            || matches!(upstream.eligibility, Eligibility::Not(Ineligible::TooFewHealthy | Ineligible::PrimaryAwaited));
        if let Some((before, was)) = epochs.insert(id, (epoch, own)) {
            assert!(!was || own || epoch > before, "every loss begins an epoch");
        }
        let fit = upstream.state == HealthState::Healthy && upstream.admin == AdminState::Enabled;
        assert!(!eligible || fit, "nothing makes an upstream eligible that is not healthy and enabled");
        assert!(!eligible || upstream.ejection.is_none(), "none that is ejected is picked");
        assert!(upstream.asked.is_none() || !eligible, "what its agent takes out is not picked");
        let worse = upstream.degraded.is_some();
        assert!(!worse || upstream.state == HealthState::Healthy, "only what is healthy is degraded");
        let part = upstream.slow_start.map_or(Ratio::ONE, |slow| slow.part);
        assert!(Ratio::percent(10) <= part && part <= Ratio::ONE, "a weight grows from a tenth");
        let whole = part.times(upstream.degraded.unwrap_or(Ratio::ONE));
        let (_, weighs) =
            world.weights().into_iter().find(|(at, _)| *at == upstream.upstream.address.to_string()).unwrap();
        assert_eq!(weighs, FineWeight::new(upstream.weight, whole), "and what is degraded weighs less beside that");
        if let Some(ejected) = &upstream.ejection {
            assert!(passive.is_on() && ejected.until > world.now && upstream.why.is_some());
        }
    }
    let able = |backup: Option<bool>| {
        let ranked = pool.upstreams.iter().filter(|u| backup.is_none_or(|backup| u.backup == backup));
        ranked.filter(|u| u.state == HealthState::Healthy && u.admin == AdminState::Enabled).collect::<Vec<_>>()
    };
    let ejected = able(None).iter().filter(|u| u.ejection.is_some()).count();
    assert!(ejected == 0 || pool.eligible > 0, "an ejection never leaves a pool without an upstream: {pool:?}");
    if world.service("api") != Service::Open {
        assert_eq!(ejected, 0, "a pool that does not serve has nothing ejected");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_only_what_may_be_picked_is_and_ejections_leave_enough(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            ALL.iter().for_each(|address| world.set(address, 'P'));
            let mut policy = pool("api", &ALL);
            world.configure(vec![policy.clone()]);
            world.run(SECOND / 2);
            let mut epochs = HashMap::new();
            for act in acts {
                match act {
                    Act::Answer(i, answer) => world.set(ALL[i], answer),
                    Act::Fail(..) | Act::Succeed(_) | Act::Order(..) if !has(&world, &act) => continue,
                    Act::Fail(i, failure, times) => world.outcomes(ALL[i], Some(failure), times),
                    Act::Succeed(i) => world.outcomes(ALL[i], None, 1),
                    Act::Order(i, command) => {
                        let order = Order { command, ..ordered(AdminState::Enabled, true) };
                        match world.state.order(Some("api"), &ALL[i].parse().unwrap(), &order, world.now) {
                            Ok((_, effects)) => world.take(effects),
                            // What an agent takes out, no order takes back.
                            Err(OrderError::Conflict(_)) => assert!(world.upstream("api", ALL[i]).asked.is_some()),
                            Err(other) => panic!("{other}"),
                        }
                    }
                    Act::Wait(ms) => world.run(Duration::from_millis(ms)),
                    Act::Reload { members, backups, min, share, on, ramps } => {
                        let ranked = |i: usize| UpstreamPolicy { backup: backups[i], ..upstream(ALL[i]) };
                        let upstreams: Vec<_> = (0..5).filter(|i| members[*i]).map(ranked).collect();
                        if upstreams.is_empty() {
                            continue;
                        }
                        let passive = PassivePolicy {
                            consecutive_failures: if on { 3 } else { 0 },
                            max_share: Ratio::percent(share),
                            ..PassivePolicy::default()
                        };
                        let min_healthy = MinHealthy::Count(min.min(upstreams.len() as u32));
                        let slow_start = if ramps { 20 * SECOND } else { Duration::ZERO };
                        let traffic = Arc::new(TrafficPolicy { passive, slow_start, ..TrafficPolicy::default() });
                        policy = PoolPolicy { upstreams, min_healthy, traffic, ..pool("api", &[]) };
                        world.configure(vec![policy.clone()]);
                    }
                }
                check_invariants(&world, &policy, &mut epochs);
            }
        });
    }
}

/// Whether the pool has the upstream that is acted on.
fn has(world: &World, act: &Act) -> bool {
    let (Act::Fail(i, ..) | Act::Succeed(i) | Act::Order(i, _)) = act else { return true };
    let status = world.state.status(false, world.now);
    status.pools[0].upstreams.iter().any(|u| u.upstream.address.to_string() == ALL[*i])
}
