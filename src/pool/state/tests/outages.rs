//! What is reported about pools: each outage begins once and ends once, with its reason, whatever ends it.

use proptest::prelude::*;

use super::super::super::events::WarmingPhase;
use super::*;

impl World {
    /// The reports of a pool so far, oldest first: `+refuse`, `-refuse` (another way follows), `=refuse` (it serves
    /// again).
    fn reports(&self, pool: &str) -> Vec<String> {
        let of = |event: Event| report_of(&event.kind, pool);
        self.state.events_after(0).into_iter().filter_map(of).collect()
    }

    /// Why the last outage of a pool began, and what would end it.
    fn last_reason(&self, pool: &str) -> (String, String) {
        let events = self.state.events_after(0).into_iter().rev();
        let mut began = events.filter_map(|event| match event.kind {
            EventKind::OutageBegan { pool: of, reason, remedy, .. } if of.as_str() == pool => Some((reason, remedy)),
            _ => None,
        });
        began.next().expect("an outage began")
    }

    fn admin(&mut self, pool: &str, address: &str, to: AdminState) {
        let (_, effects) =
            self.state.order(Some(pool), &address.parse().unwrap(), &ordered(to, true), self.now).unwrap();
        self.take(effects);
    }
}

fn word(way: &Way) -> String {
    match way {
        Way::Refuse => "refuse".to_owned(),
        Way::FailOpen => "open".to_owned(),
        Way::OtherPool(other) => other.to_string(),
    }
}

fn report_of(kind: &EventKind, name: &str) -> Option<String> {
    let (pool, report) = match kind {
        EventKind::OutageBegan { pool, way, .. } => (pool, format!("+{}", word(way))),
        EventKind::OutageEnded { pool, way, serves: false, .. } => (pool, format!("-{}", word(way))),
        EventKind::OutageEnded { pool, way, serves: true, .. } => (pool, format!("={}", word(way))),
        EventKind::BelowHalf { pool, on, .. } => (pool, if *on { "+half" } else { "-half" }.to_owned()),
        EventKind::Warming { pool, phase } => {
            let phase = match phase {
                WarmingPhase::Began { .. } => "+warm",
                WarmingPhase::Ended { .. } => "=warm",
                WarmingPhase::Failed { .. } => "-warm",
            };
            (pool, phase.to_owned())
        }
        _ => return None,
    };
    (pool.as_str() == name).then_some(report)
}

#[tokio::test(start_paused = true)]
async fn an_outage_begins_with_its_reason_and_ends_with_how_long_it_was() {
    let mut world = healthy(&[A, B]);
    assert!(world.reports("api").is_empty(), "beginning to serve is not reported");
    world.set(A, 'F');
    world.run(3 * SECOND);
    assert!(world.reports("api").is_empty(), "one of two is half");
    world.set(B, 'F');
    world.run(10 * SECOND);
    assert_eq!(world.reports("api"), ["+refuse"]);
    let want = "neither of its 2 upstreams can serve: 2 are unhealthy (such as L4CON: scripted)";
    let next = "this ends when an upstream passes its checks";
    assert_eq!(world.last_reason("api"), (want.to_owned(), next.to_owned()));
    let out = world.state.status(false, world.now).pools.remove(0).out_of_order.expect("it is down");
    assert_eq!((out.way, out.reason.as_str(), out.remedy.as_str()), (Some(Way::Refuse), want, next));
    let since = out.since.expect("a while ago");
    assert!(world.now - since > 5 * SECOND);
    world.set(A, 'P');
    world.run(3 * SECOND);
    assert_eq!(world.reports("api"), ["+refuse", "=refuse"]);
    let lasted = world.state.events_after(0).into_iter().find_map(|event| match event.kind {
        EventKind::OutageEnded { lasted, .. } => Some((event.at, lasted)),
        _ => None,
    });
    let (at, lasted) = lasted.expect("it ended");
    assert_eq!(lasted, at - since);
    assert_eq!(world.state.status(false, world.now).pools[0].out_of_order, None);
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_not_down_before_its_first_verdicts_are_due() {
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, '.'));
    world.configure(vec![pool("api", &[A, B])]);
    world.run(2_900 * MS);
    assert!(world.reports("api").is_empty());
    world.run(200 * MS);
    assert_eq!(world.reports("api"), ["+refuse"]);
    let want = "neither of its 2 upstreams can serve: 2 are not judged yet";
    assert_eq!(world.last_reason("api").0, want);
    // Requests wait for upstreams that a reload adds, and that does not end an outage.
    world.configure(vec![pool("api", &[A, B, C])]);
    world.run(SECOND / 10);
    assert!(matches!(world.service("api"), Service::Waiting { .. }));
    world.run(5 * SECOND);
    assert_eq!(world.reports("api"), ["+refuse"]);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_takes_the_last_one_out_is_an_outage() {
    for (order, command, state) in
        [(AdminState::Draining, "undrain", "draining"), (AdminState::Disabled, "enable", "disabled")]
    {
        let mut world = healthy(&[A]);
        world.admin("api", A, order);
        assert_eq!(world.reports("api"), ["+refuse"]);
        let reason = format!("its only upstream, {A}, is {state}");
        let remedy = format!("this ends after `roundsman {command} api {A}`");
        assert_eq!(world.last_reason("api"), (reason, remedy));
        world.admin("api", A, AdminState::Enabled);
        assert_eq!(world.reports("api"), ["+refuse", "=refuse"]);
    }
}

#[tokio::test(start_paused = true)]
async fn fewer_than_min_healthy_is_an_outage() {
    let mut world = World::new();
    [A, B, C].iter().for_each(|address| world.set(address, 'P'));
    let policy = || PoolPolicy { min_healthy: MinHealthy::Count(2), ..pool("api", &[A, B, C]) };
    world.configure(vec![policy()]);
    world.run(SECOND);
    world.set(A, 'F');
    world.run(3 * SECOND);
    assert!(world.reports("api").is_empty());
    world.set(B, 'F');
    world.run(3 * SECOND);
    assert_eq!(world.reports("api"), ["+refuse"]);
    let (reason, remedy) = world.last_reason("api");
    assert!(reason.starts_with("only 1 of its 3 upstreams can serve, and min_healthy requires 2: 2 are"), "{reason}");
    assert_eq!(remedy, "this ends when 1 more upstream passes its checks");
    // A reload with a smaller min_healthy ends it.
    world.configure(vec![pool("api", &[A, B, C])]);
    assert_eq!(world.reports("api"), ["+refuse", "=refuse", "+half"]);
}

#[tokio::test(start_paused = true)]
async fn each_way_of_an_outage_ends_before_the_next_begins() {
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![PoolPolicy { when_no_healthy: WhenNoHealthy::FailOpen, ..pool("api", &[A, B]) }]);
    world.run(SECOND);
    [A, B].iter().for_each(|address| world.set(address, 'F'));
    world.run(3 * SECOND);
    [A, B].iter().for_each(|address| world.admin("api", address, AdminState::Disabled));
    assert_eq!(world.reports("api"), ["+open", "-open", "+refuse"]);
    world.admin("api", A, AdminState::Enabled);
    world.set(A, 'P');
    world.run(3 * SECOND);
    assert_eq!(world.reports("api"), ["+open", "-open", "+refuse", "-refuse", "+open", "=open"]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_pools_is_reported_by_where_its_requests_end() {
    let mut world = World::new();
    [A, B, C].iter().for_each(|address| world.set(address, 'P'));
    let other = |pool: &str| WhenNoHealthy::Pool(name(pool));
    world.configure(vec![
        PoolPolicy { when_no_healthy: other("spare"), ..pool("api", &[A]) },
        PoolPolicy { when_no_healthy: other("last"), ..pool("spare", &[B]) },
        pool("last", &[C]),
    ]);
    world.run(SECOND);
    world.set(A, 'F');
    world.run(3 * SECOND);
    assert_eq!(world.reports("api"), ["+spare"]);
    world.set(B, 'F');
    world.run(3 * SECOND);
    assert_eq!(world.reports("spare"), ["+last"]);
    assert_eq!(world.reports("api"), ["+spare", "-spare", "+last"]);
    world.set(C, 'F');
    world.run(3 * SECOND);
    assert_eq!(world.reports("last"), ["+refuse"]);
    assert_eq!(world.reports("spare"), ["+last", "-last", "+refuse"]);
    assert_eq!(world.reports("api"), ["+spare", "-spare", "+last", "-last", "+refuse"]);
    let (reason, remedy) = world.last_reason("api");
    assert!(reason.ends_with("; its fallback pool spare cannot serve either"), "{reason}");
    assert_eq!(remedy, format!("this ends when {A} passes its checks, or pool spare serves again"));
    world.set(B, 'P');
    world.run(3 * SECOND);
    assert_eq!(world.reports("spare")[3..], ["=refuse"]);
    assert_eq!(world.reports("api")[5..], ["-refuse", "+spare"]);
    assert_eq!(world.reports("last"), ["+refuse"]);
}

/// Beside the whole outage, each way is counted from its own beginning, as the log says.
#[tokio::test(start_paused = true)]
async fn each_way_of_an_outage_has_its_own_time() {
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, 'P'));
    let when_no_healthy = WhenNoHealthy::Pool(name("spare"));
    world.configure(vec![PoolPolicy { when_no_healthy, ..pool("api", &[A]) }, pool("spare", &[B])]);
    world.run(SECOND);
    let mut first = None;
    for (address, answer, way) in
        [(A, 'F', Way::OtherPool(name("spare"))), (B, 'F', Way::Refuse), (B, 'P', Way::OtherPool(name("spare")))]
    {
        world.set(address, answer);
        world.run(20 * SECOND);
        let began = world.state.events_after(0).into_iter().rev().find_map(|event| match event.kind {
            EventKind::OutageBegan { pool, way, .. } if pool.as_str() == "api" => Some((event.at, way)),
            _ => None,
        });
        let (began, logged) = began.expect("an outage began");
        let first = *first.get_or_insert(began);
        let out = world.state.status(false, world.now).pools.remove(0).out_of_order.expect("it is down");
        assert_eq!((logged, out.way), (way.clone(), Some(way.clone())));
        assert_eq!((out.since, out.way_since), (Some(first), Some(began)), "{way:?}");
    }
    assert!(world.now - first.expect("it began") > 50 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn fewer_than_half_is_reported_and_so_is_its_end() {
    const ALL: [&str; 5] = [A, B, C, "127.0.0.1:9004", "127.0.0.1:9005"];
    let mut world = healthy(&ALL);
    for address in &ALL[..2] {
        world.set(address, 'F');
    }
    world.run(3 * SECOND);
    assert!(world.reports("api").is_empty(), "three of five are more than half");
    world.admin("api", C, AdminState::Draining);
    assert_eq!(world.reports("api"), ["+half"]);
    let counted = world.state.events_after(0).into_iter().find_map(|event| match event.kind {
        EventKind::BelowHalf { able, total, .. } => Some((able, total)),
        _ => None,
    });
    assert_eq!(counted, Some((2, 5)));
    world.admin("api", C, AdminState::Enabled);
    assert_eq!(world.reports("api"), ["+half", "-half"]);
    // Upstreams whose first verdict is pending do not count as missing; those without one after the wait do.
    let mut world = healthy(&[A]);
    [B, C].iter().for_each(|address| world.set(address, '.'));
    world.configure(vec![pool("api", &[A, B, C])]);
    world.run(2_900 * MS);
    assert!(world.reports("api").is_empty());
    world.run(200 * MS);
    assert_eq!(world.reports("api"), ["+half"]);
}

#[tokio::test(start_paused = true)]
async fn warming_begins_and_ends_well_or_not() {
    let mut world = healthy(&[A]);
    world.set(B, 'P');
    world.configure(vec![pool("api", &[B])]);
    assert_eq!(world.reports("api"), ["+warm"]);
    assert_eq!(
        world.state.status(false, world.now).pools[0].warming_until,
        Some(world.now + 30 * SECOND),
        "status says how long"
    );
    world.run(SECOND);
    assert_eq!(world.reports("api"), ["+warm", "=warm"]);

    let mut world = healthy(&[A]);
    world.configure(vec![pool("api", &[B])]);
    world.run(20 * SECOND);
    world.configure(vec![pool("api", &[C])]);
    world.run(9 * SECOND);
    assert_eq!(world.reports("api"), ["+warm"], "a further reload begins no other");
    world.run(2 * SECOND);
    assert_eq!(world.reports("api"), ["+warm", "-warm", "+refuse"]);
    let failed = world.state.events_after(0).into_iter().find_map(|event| match event.kind {
        EventKind::Warming { phase: WarmingPhase::Failed { reason, .. }, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(failed.as_deref(), Some(format!("its only upstream, {C}, is unhealthy (L4CON: scripted)").as_str()));
    // A reload that needs no removed upstream warms nothing.
    let mut world = healthy(&[A, B]);
    world.configure(vec![pool("api", &[B])]);
    assert!(world.reports("api").is_empty());
}

#[tokio::test(start_paused = true)]
async fn verdicts_out_of_date_are_an_outage_once_the_wait_is_over() {
    let mut world = healthy(&[A]);
    world.set(A, '-');
    world.run(35 * SECOND);
    assert_eq!(world.health("api", A), HealthState::Unknown);
    assert_eq!(world.reports("api"), ["+refuse"]);
    let began = world.state.events_after(0).into_iter().find(|e| matches!(e.kind, EventKind::OutageBegan { .. }));
    let lost = world.upstream("api", A).since;
    let wait = began.expect("it began").at - lost;
    assert!(wait >= 3 * SECOND - 100 * MS && wait < 4 * SECOND, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_goes_on_over_reloads_and_ends_with_its_pool() {
    let mut world = healthy(&[A]);
    world.set(A, 'F');
    world.run(3 * SECOND);
    let since = |world: &World| world.state.status(false, world.now).pools[0].out_of_order.clone().unwrap().since;
    let before = since(&world);
    world.configure(vec![PoolPolicy { min_healthy: MinHealthy::Count(2), ..pool("api", &[A]) }]);
    world.run(SECOND);
    assert_eq!((world.reports("api"), since(&world)), (vec!["+refuse".to_owned()], before));
    world.configure(vec![pool("web", &[A])]);
    world.configure(vec![pool("api", &[A])]);
    world.run(SECOND);
    assert_eq!(world.reports("api"), ["+refuse", "+refuse"], "a pool that comes back is another one");
}

/// One step of a history of pools `api`, `spare` and `last`, each the fallback of the one before.
#[derive(Debug, Clone)]
enum Step {
    Answer(usize, bool),
    Run(u64),
    Admin(usize, AdminState),
    /// `min_healthy` of `api`; which of its three upstreams it has; what `last` does.
    Reload(u32, [bool; 3], bool),
}

const MEMBERS: [(&str, &str); 5] =
    [("api", A), ("api", B), ("api", C), ("spare", "127.0.0.1:9004"), ("last", "127.0.0.1:9005")];

fn step() -> impl Strategy<Value = Step> {
    let admin = prop_oneof![Just(AdminState::Enabled), Just(AdminState::Draining), Just(AdminState::Disabled)];
    prop_oneof![
        4 => (0usize..5, any::<bool>()).prop_map(|(i, pass)| Step::Answer(i, pass)),
        4 => (1u64..5_000).prop_map(Step::Run),
        2 => (0usize..5, admin).prop_map(|(i, to)| Step::Admin(i, to)),
        1 => (1u32..3, any::<[bool; 3]>(), any::<bool>()).prop_map(|(min, has, open)| Step::Reload(min, has, open)),
    ]
}

fn chain(min_healthy: u32, has: [bool; 3], last_opens: bool) -> Vec<PoolPolicy> {
    let api: Vec<&str> = (0..3).filter(|i| has[*i] || has == [false; 3]).map(|i| MEMBERS[i].1).collect();
    let other = |pool: &str| WhenNoHealthy::Pool(name(pool));
    let last = if last_opens { WhenNoHealthy::FailOpen } else { WhenNoHealthy::Reject };
    vec![
        PoolPolicy {
            when_no_healthy: other("spare"),
            min_healthy: MinHealthy::Count(min_healthy),
            ..pool("api", &api)
        },
        PoolPolicy { when_no_healthy: other("last"), ..pool("spare", &[MEMBERS[3].1]) },
        PoolPolicy { when_no_healthy: last, ..pool("last", &[MEMBERS[4].1]) },
    ]
}

/// What requests find, from the published views only; `None` while they wait.
fn reference(world: &World, pools: &[&str]) -> Option<Option<String>> {
    for (i, pool) in pools.iter().enumerate() {
        match world.service(pool) {
            Service::Open if i == 0 => return Some(None),
            Service::FailOpen if i == 0 => return Some(Some("open".to_owned())),
            Service::Open | Service::FailOpen => return Some(Some((*pool).to_owned())),
            Service::Waiting { .. } => return None,
            Service::NoneEligible(_) => {}
        }
    }
    Some(Some("refuse".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn too_few_healthy_upstreams_serve_in_no_algorithm() {
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastRequest,
        Balance::PeakEwma,
        Balance::Hash(LoadBound::NONE),
        Balance::Maglev(LoadBound::NONE),
        Balance::First,
    ] {
        let mut world = World::new();
        [A, B, C].iter().for_each(|address| world.set(address, 'P'));
        world.configure(vec![PoolPolicy { balance, min_healthy: MinHealthy::Count(2), ..pool("api", &[A, B, C]) }]);
        world.run(SECOND);
        world.set(A, 'F');
        world.run(5 * SECOND);
        assert_eq!(world.eligible("api"), [B, C], "{balance:?}");
        world.set(B, 'F');
        world.run(5 * SECOND);
        assert_eq!((world.eligible("api"), world.service("api").may_pick()), (vec![], false), "{balance:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Over any history: begins and ends alternate, and the last report is what requests find.
    #[test]
    fn status_agrees_with_what_requests_find(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        world.configure(chain(1, [true; 3], false));
        let pools = ["api", "spare", "last"];
        let mut reported: HashMap<&str, (Option<String>, bool, bool)> = HashMap::new();
        let mut seq = 0;
        for step in &steps {
            match step {
                Step::Answer(i, pass) => world.set(MEMBERS[*i].1, if *pass { 'P' } else { 'F' }),
                Step::Run(ms) => world.run(Duration::from_millis(*ms)),
                Step::Admin(i, to) => {
                    let (pool, address) = MEMBERS[*i];
                    if let Ok((_, effects)) = world.state.order(Some(pool), &address.parse().unwrap(), &ordered(*to, true), world.now) {
                        world.take(effects);
                    }
                }
                Step::Reload(min, has, open) => drop(world.configure(chain(*min, *has, *open))),
            }
            for event in world.state.events_after(seq) {
                seq = event.seq;
                for pool in pools {
                    let Some(report) = report_of(&event.kind, pool) else { continue };
                    let (way, half, warm) = reported.entry(pool).or_default();
                    let (sign, what) = report.split_at(1);
                    match (sign, what) {
                        (sign, "half") => prop_assert_ne!(std::mem::replace(half, sign == "+"), sign == "+"),
                        (sign, "warm") => prop_assert_ne!(std::mem::replace(warm, sign == "+"), sign == "+"),
                        ("+", what) => prop_assert_eq!(way.replace(what.to_owned()), None, "{:?}", step),
                        (_, what) => prop_assert_eq!(way.take(), Some(what.to_owned()), "{:?}", step),
                    }
                }
            }
            let status = world.state.status(false, world.now);
            for (i, pool) in pools.iter().enumerate() {
                let (way, _, warm) = reported.entry(pool).or_default();
                if let Some(found) = reference(&world, &pools[i..]) {
                    prop_assert_eq!(&*way, &found, "{} after {:?}", pool, step);
                }
                prop_assert_eq!(*warm, status.pools[i].warming);
                prop_assert_eq!(status.pools[i].out_of_order.is_none(), world.service(pool) == Service::Open);
            }
        }
    }
}
