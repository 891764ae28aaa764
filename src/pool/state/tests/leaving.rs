//! When requests and tunnels in flight at a lost upstream must end.

use futures_util::FutureExt;

use super::super::super::upstream::InFlight;
use super::*;

fn limited(addresses: &[&str], close_unhealthy: bool) -> PoolPolicy {
    let leaving = LeavingPolicy { requests: Some(5 * SECOND), tunnels: 9 * SECOND, close_unhealthy };
    PoolPolicy { traffic: Arc::new(TrafficPolicy { leaving, ..TrafficPolicy::default() }), ..pool("api", addresses) }
}

/// A running pool of healthy upstreams, with something in flight at each.
fn running(close_unhealthy: bool) -> World {
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![limited(&[A, B], close_unhealthy)]);
    world.run(SECOND);
    for address in [A, B] {
        let (_, upstream) = world.in_flight(address);
        assert_eq!(upstream.connections.epoch_ended(u64::MAX).now_or_never(), Some(()), "as every dial looks");
    }
    world
}

impl World {
    /// What is in flight there: the epoch under which it was picked, and where.
    fn in_flight(&self, address: &str) -> (u64, Arc<Upstream>) {
        let members = &self.state.pools[0].members;
        let member = members.iter().find(|member| member.upstream.address.to_string() == address).expect("a member");
        (member.upstream.connections.epoch(), member.upstream.clone())
    }

    /// In how many seconds it must have ended: a request, and a tunnel.
    fn ends(&self, (epoch, upstream): &(u64, Arc<Upstream>)) -> (Option<u64>, Option<u64>) {
        let seconds = |what| Some((upstream.connections.cut_at(*epoch, what)? - self.now).as_secs());
        (seconds(InFlight::Request), seconds(InFlight::Tunnel))
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_limits_what_is_in_flight_from_the_order_on_and_its_end_lifts_that() {
    for to in [AdminState::Draining, AdminState::Disabled] {
        let mut world = running(true);
        let (at_a, at_b) = (world.in_flight(A), world.in_flight(B));
        assert_eq!((world.ends(&at_a), world.ends(&at_b)), ((None, None), (None, None)));
        world.give(Some("api"), A, &ordered(to, false)).unwrap();
        assert_eq!((world.ends(&at_a), world.ends(&at_b)), ((Some(5), Some(9)), (None, None)));
        // Neither a second order nor the removal begins the time anew.
        world.run(2 * SECOND);
        let other = if to == AdminState::Draining { AdminState::Disabled } else { AdminState::Draining };
        world.give(Some("api"), A, &ordered(other, false)).unwrap();
        assert_eq!(world.ends(&at_a), (Some(3), Some(7)));
        world.give(Some("api"), A, &ordered(AdminState::Enabled, false)).unwrap();
        assert_eq!(world.ends(&at_a), (None, None), "it goes on");
        world.give(Some("api"), A, &ordered(to, false)).unwrap();
        world.run(2 * SECOND);
        world.configure(vec![limited(&[B], true)]);
        assert_eq!((world.ends(&at_a), world.ends(&at_b)), ((Some(3), Some(7)), (None, None)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_limits_what_is_in_flight_also_when_the_pool_goes() {
    let mut world = running(false);
    let (at_a, at_b) = (world.in_flight(A), world.in_flight(B));
    world.configure(vec![limited(&[B], false)]);
    assert_eq!((world.ends(&at_a), world.ends(&at_b)), ((Some(5), Some(9)), (None, None)));
    world.configure(vec![pool("web", &[C])]);
    assert_eq!(world.ends(&at_b), (Some(5), Some(9)));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_an_unhealthy_upstream_goes_on_unless_the_pool_closes_it() {
    for (close, ends) in [(false, (None, None)), (true, (Some(0), Some(0)))] {
        let mut world = running(close);
        let before = world.in_flight(A);
        world.set(A, 'F');
        let deadline = world.now + 60 * SECOND;
        while world.health("api", A) != HealthState::Unhealthy {
            assert!(world.now < deadline);
            world.run(MS);
        }
        assert_eq!(world.ends(&before), ends);
        // What comes after its recovery is not meant.
        world.set(A, 'P');
        world.run(30 * SECOND);
        assert_eq!(world.health("api", A), HealthState::Healthy);
        assert_eq!(world.ends(&world.in_flight(A)), (None, None));
    }
}
