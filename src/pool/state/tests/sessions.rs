//! Where sessions may go on: as long as their upstream can be picked, and for a while at one that drains.

use super::super::super::view::session_number;
use super::*;
use crate::pool::Reading;

fn sticky(upstreams: Vec<UpstreamPolicy>) -> PoolPolicy {
    let traffic = TrafficPolicy { sticky: Some("rm_affinity".into()), ..TrafficPolicy::default() };
    PoolPolicy { upstreams, traffic: Arc::new(traffic), ..pool("api", &[]) }
}

fn world(upstreams: Vec<UpstreamPolicy>) -> World {
    let mut world = World::new();
    [A, B, C].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![sticky(upstreams)]);
    world.run(2 * SECOND);
    world
}

impl World {
    /// Where a session at this upstream goes on.
    fn goes_on(&self, address: &str) -> Option<String> {
        let (view, number) = (&self.views[&name("api")], session_number(&name("api"), &address.parse().unwrap()));
        let reading: Reading = view.read(self.now);
        let place = view.pinned(reading, number, self.now)?;
        let candidate = view.candidate(place);
        assert_eq!(candidate.epoch, candidate.upstream.connections.epoch());
        Some(candidate.upstream.address.to_string())
    }

    fn drain(&mut self, address: &str, resume: Duration) {
        let drain = Order { command: Command::Drain { resume }, ..ordered(AdminState::Draining, true) };
        self.give(Some("api"), address, &drain).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_while_its_upstream_can_be_picked() {
    let mut world = world(vec![upstream(A), upstream(B)]);
    assert_eq!((world.goes_on(A).as_deref(), world.goes_on(B).as_deref()), (Some(A), Some(B)));
    assert_eq!(world.goes_on(C), None, "no upstream of the pool");
    world.set(A, 'F');
    world.run(10 * SECOND);
    assert_eq!((world.goes_on(A), world.goes_on(B).as_deref()), (None, Some(B)));
    world.set(A, 'P');
    world.run(20 * SECOND);
    assert_eq!(world.goes_on(A).as_deref(), Some(A));
    world.give(Some("api"), A, &ordered(AdminState::Disabled, true)).unwrap();
    assert_eq!(world.goes_on(A), None);
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_at_an_upstream_that_drains_until_its_time_is_over() {
    let mut world = world(vec![upstream(A), upstream(B)]);
    world.drain(A, 30 * SECOND);
    assert_eq!(world.eligible("api"), [B]);
    assert_eq!(world.goes_on(A).as_deref(), Some(A), "it is kept being probed");
    world.run(30 * SECOND - MS);
    assert_eq!(world.goes_on(A).as_deref(), Some(A));
    world.run(MS);
    assert_eq!(world.goes_on(A), None);
    // An order without a time gives it five minutes.
    world.give(Some("api"), A, &ordered(AdminState::Enabled, false)).unwrap();
    world.give(Some("api"), A, &ordered(AdminState::Draining, true)).unwrap();
    world.run(300 * SECOND - MS);
    assert_eq!(world.goes_on(A).as_deref(), Some(A));
    world.run(MS);
    assert_eq!(world.goes_on(A), None);
}

#[tokio::test(start_paused = true)]
async fn it_leaves_one_that_drains_once_that_is_unhealthy_or_disabled() {
    for disable in [false, true] {
        let mut world = world(vec![upstream(A), upstream(B)]);
        world.drain(A, 300 * SECOND);
        let epoch = world.upstream("api", A).upstream.connections.epoch();
        if disable {
            world.give(Some("api"), A, &ordered(AdminState::Disabled, true)).unwrap();
        } else {
            world.set(A, 'F');
            world.run(10 * SECOND);
        }
        assert_eq!(world.goes_on(A), None, "disabled: {disable}");
        assert!(
            world.upstream("api", A).upstream.connections.epoch() > epoch,
            "what was picked is not sent any more; disabled: {disable}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_at_the_last_one_even_where_nothing_else_is_left() {
    let mut world = world(vec![upstream(A), upstream(B)]);
    world.drain(A, 300 * SECOND);
    world.drain(B, Duration::ZERO);
    assert_eq!(world.eligible("api"), [""; 0]);
    assert_eq!((world.goes_on(A).as_deref(), world.goes_on(B)), (Some(A), None));
}

#[tokio::test(start_paused = true)]
async fn a_session_leaves_a_backup_when_a_primary_is_back() {
    let backup = UpstreamPolicy { backup: true, ..upstream(B) };
    let mut world = world(vec![upstream(A), backup]);
    assert_eq!(world.goes_on(B), None, "a primary serves");
    world.set(A, 'F');
    world.run(10 * SECOND);
    assert_eq!(world.goes_on(B).as_deref(), Some(B));
    world.set(A, 'P');
    world.run(20 * SECOND);
    assert_eq!(world.goes_on(B), None);
}

#[tokio::test(start_paused = true)]
async fn draining_in_the_file_counts_from_when_it_was_read() {
    let mut world = world(vec![upstream(A), upstream(B)]);
    let draining = || UpstreamPolicy { admin: AdminState::Draining, ..upstream(A) };
    world.configure(vec![sticky(vec![draining(), upstream(B)])]);
    world.run(200 * SECOND);
    assert_eq!(world.goes_on(A).as_deref(), Some(A));
    // Another reload does not begin the time anew.
    world.configure(vec![sticky(vec![draining(), upstream(B), upstream(C)])]);
    world.run(100 * SECOND - MS);
    assert_eq!(world.goes_on(A).as_deref(), Some(A));
    world.run(MS);
    assert_eq!(world.goes_on(A), None);
}

#[test]
fn a_number_is_the_same_everywhere_and_no_two_pools_share_one() {
    let number = |pool: &str, address: &str| session_number(&name(pool), &address.parse().unwrap());
    assert_eq!(number("api", "10.0.0.1:80"), number("api", "10.0.0.1:80"));
    assert_ne!(number("api", "10.0.0.1:80"), number("web", "10.0.0.1:80"));
    assert_ne!(number("api", "10.0.0.1:80"), number("api", "10.0.0.1:81"));
    // It must not change with a release: cookies outlive it.
    assert_eq!(format!("{:016x}", number("api", "10.0.0.1:80")), "85ed040e7e76669f");
}
