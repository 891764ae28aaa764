//! Slow start: when the weight of an upstream grows, and for every algorithm.

use super::*;

const SLOW: Duration = Duration::from_secs(20);

fn slow(addresses: &[&str]) -> PoolPolicy {
    PoolPolicy {
        traffic: Arc::new(TrafficPolicy { slow_start: SLOW, ..TrafficPolicy::default() }),
        ..pool("api", addresses)
    }
}

/// A running pool of these upstreams.
fn running(addresses: &[&str]) -> World {
    let mut world = World::new();
    addresses.iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![slow(addresses)]);
    world.run(SECOND);
    world
}

impl World {
    /// The hundredths of the requests that an upstream gets now.
    pub(super) fn percent(&self, address: &str) -> u32 {
        let (view, shared, mut rng) =
            (&self.views[&name("api")], PoolShared::new(self.now), fastrand::Rng::with_seed(1));
        let picked = |_: &usize| {
            let choice = Choice { pool: &shared, tried: &[], key: Some(rng.u64(..)), bounded: false, now: self.now };
            let place = view.pick(view.read(self.now), &choice, &mut rng).expect("some are eligible");
            view.candidate(place).upstream.address.to_string() == address
        };
        ((0..30_000).filter(picked).count() as u32 + 150) / 300
    }

    /// Which part of its weight it has, in hundredths.
    fn part(&self, address: &str) -> u32 {
        let slow = self.upstream("api", address).slow_start;
        slow.map_or(100, |slow| (slow.part.as_f64() * 100.0).round() as u32)
    }

    /// Fails its checks until it is unhealthy, and passes them until it is healthy.
    pub(super) fn recover(&mut self, address: &str) {
        self.set(address, 'F');
        self.run(5 * SECOND);
        assert_eq!(self.health("api", address), HealthState::Unhealthy);
        self.set(address, 'P');
        for _ in 0..10_000 {
            if self.health("api", address) == HealthState::Healthy {
                return;
            }
            self.run(MS);
        }
        panic!("it does not recover");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_recovers_grows_from_a_tenth_and_one_at_process_start_does_not() {
    let mut world = running(&[A, B]);
    assert_eq!((world.part(A), world.percent(A)), (100, 50));
    world.recover(A);
    assert_eq!((world.part(A), world.part(B)), (10, 100));
    assert_eq!(world.percent(A), 9, "one of eleven");
    world.run(10 * SECOND);
    assert_eq!((world.part(A), world.percent(A)), (50, 33));
    // A reload does not begin it anew, nor end it.
    world.configure(vec![PoolPolicy { min_healthy: MinHealthy::Count(2), ..slow(&[A, B]) }]);
    assert_eq!(world.part(A), 50);
    world.run(9 * SECOND);
    assert_eq!(world.part(A), 95);
    world.run(SECOND);
    assert_eq!((world.part(A), world.percent(A)), (100, 50));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_added_to_a_running_pool_grows_from_when_it_is_healthy() {
    let mut world = running(&[A, B]);
    world.set(C, 'F');
    world.configure(vec![slow(&[A, B, C])]);
    world.run(30 * SECOND);
    world.set(C, 'P');
    world.run(SECOND);
    assert_eq!((world.part(C), world.part(A)), (10, 100));
    world.run(SLOW);
    assert_eq!(world.part(C), 100);
    // Its verdict may be there already, from another pool.
    let other = PoolPolicy { name: name("other"), ..slow(&[C]) };
    world.configure(vec![slow(&[A, B]), other.clone()]);
    world.run(SECOND);
    world.configure(vec![slow(&[A, B, C]), other]);
    assert_eq!(world.part(C), 10);
    // A new pool has no running members beside which it could be slow.
    let newer = PoolPolicy { name: name("newer"), ..slow(&[A]) };
    world.configure(vec![slow(&[A, B, C]), newer]);
    world.run(SECOND);
    assert_eq!(world.upstream("newer", A).slow_start, None);
}

#[tokio::test(start_paused = true)]
async fn enabling_and_the_end_of_an_ejection_begin_it_and_the_end_of_a_drain_does_not() {
    let mut world = running(&[A, B]);
    let order = |world: &mut World, to| {
        let (_, effects) = world.state.order(Some("api"), &A.parse().unwrap(), &ordered(to, true), world.now).unwrap();
        world.take(effects);
    };
    order(&mut world, AdminState::Draining);
    order(&mut world, AdminState::Enabled);
    assert_eq!(world.part(A), 100);
    order(&mut world, AdminState::Disabled);
    order(&mut world, AdminState::Enabled);
    assert_eq!(world.part(A), 10);
    world.run(SLOW);
    // By the file as well.
    let disabled = UpstreamPolicy { admin: AdminState::Disabled, ..upstream(B) };
    world.configure(vec![PoolPolicy { upstreams: vec![upstream(A), disabled], ..slow(&[]) }]);
    world.configure(vec![slow(&[A, B])]);
    assert_eq!(world.part(B), 10);
    world.run(SLOW);
    let upstream = world.upstream("api", A).upstream;
    let snapshot = world.snapshot.clone().unwrap();
    let pool = snapshot.pools().next().unwrap();
    (0..5).for_each(|_| pool.on_failure(&upstream, Failure::Reset, world.now));
    world.take_hints();
    world.run(10 * SECOND);
    assert_eq!((world.upstream("api", A).ejection, world.part(A)), (None, 10));
}

#[tokio::test(start_paused = true)]
async fn it_holds_for_every_algorithm_and_with_weights() {
    for (balance, most) in BY_WEIGHT {
        for (weight, want) in [(1, 33), (3, 60)] {
            let heavy = UpstreamPolicy { weight: Weight::try_new(weight).unwrap(), ..upstream(A) };
            let policy = PoolPolicy { balance, upstreams: vec![heavy, upstream(B)], ..slow(&[]) };
            let mut world = World::new();
            [A, B].iter().for_each(|address| world.set(address, 'P'));
            world.configure(vec![policy]);
            world.run(SECOND);
            world.recover(A);
            world.run(10 * SECOND);
            let percent = world.percent(A);
            assert!(percent.abs_diff(want) <= most, "{balance:?}, weight {weight}: {percent} %, not {want}");
        }
    }
}

/// Every algorithm that knows weights, and how far from its share an upstream may be, in hundredths of the requests.
pub(super) const BY_WEIGHT: [(Balance, u32); 6] = [
    (Balance::RoundRobin, 1),
    (Balance::Random, 1),
    (Balance::LeastRequest, 1),
    (Balance::PeakEwma, 1),
    (Balance::Maglev(LoadBound::NONE), 1),
    // The arcs of a ring differ.
    (Balance::Hash(LoadBound::NONE), 6),
];

#[tokio::test(start_paused = true)]
async fn how_many_requests_it_may_have_grows_as_well() {
    let connections = UpstreamConnections { max_per_upstream: Some(10), ..UpstreamConnections::default() };
    let traffic = Arc::new(TrafficPolicy { slow_start: SLOW, connections, ..TrafficPolicy::default() });
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![PoolPolicy { traffic, ..pool("api", &[A, B]) }]);
    world.run(SECOND);
    let places = |world: &World| {
        let candidates = world.views[&name("api")].primaries.candidates();
        candidates.iter().map(|candidate| candidate.places).collect::<Vec<_>>()
    };
    assert_eq!(places(&world), [10, 10]);
    world.recover(A);
    assert_eq!(places(&world), [1, 10], "a tenth, and never none");
    world.run(10 * SECOND);
    assert_eq!(places(&world), [5, 10]);
    world.run(10 * SECOND);
    assert_eq!(places(&world), [10, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_expires_begins_it_only_where_the_upstream_was_unhealthy_before() {
    for was_unhealthy in [false, true] {
        let mut world = running(&[A, B]);
        // One that joins, fails, and recovers has had its slow start.
        world.set(C, 'F');
        world.configure(vec![slow(&[A, B, C])]);
        world.run(5 * SECOND);
        world.recover(C);
        world.run(SLOW);
        assert_eq!(world.part(C), 100);
        if was_unhealthy {
            world.set(C, 'F');
            world.run(5 * SECOND);
        }
        // No probe has a verdict for long enough.
        world.set(C, '-');
        world.run(timing().stale_after() + 2 * SECOND);
        assert_eq!(world.health("api", C), HealthState::Unknown);
        world.set(C, 'P');
        for _ in 0..10_000 {
            if world.health("api", C) == HealthState::Healthy {
                break;
            }
            world.run(MS);
        }
        assert_eq!(world.part(C), if was_unhealthy { 10 } else { 100 }, "unhealthy before: {was_unhealthy}");
    }
}
