//! Host names: what a pool keeps while a name's addresses change, and how a name without an address counts.

use super::*;
use crate::model::Eligibility;

const API: &str = "api:9001";

/// `address`, resolved from the name `api`.
fn resolved(address: &str) -> UpstreamPolicy {
    UpstreamPolicy { name: Some("api".into()), ..upstream(address) }
}

fn named(addresses: &[&str]) -> PoolPolicy {
    PoolPolicy { upstreams: addresses.iter().map(|address| resolved(address)).collect(), ..pool("api", &[]) }
}

impl World {
    fn readdress(&mut self, pools: Vec<PoolPolicy>) -> Vec<EventKind> {
        let generation = self.state.generation;
        let effects = self.state.readdress(&config(pools), &[], self.now);
        let events = effects.events.iter().map(|event| event.kind.clone()).collect();
        self.take(effects);
        assert_eq!(self.state.generation, generation, "it is not a new configuration");
        events
    }

    fn order(&mut self, address: &str, to: AdminState) {
        let (_, effects) =
            self.state.order(Some("api"), &address.parse().unwrap(), &ordered(to, true), self.now).unwrap();
        self.take(effects);
    }
}

fn addresses(added: &[&str], removed: &[&str]) -> EventKind {
    let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    EventKind::Addresses { pool: name("api"), added: parsed(added), removed: parsed(removed) }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_addresses_is_one_event_and_changes_no_other_verdict() {
    let mut world = World::new();
    [A, B, C].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![named(&[A, B]), pool("other", &[A])]);
    world.run(SECOND / 2);
    let before = (world.upstream("api", A).since, world.upstream("other", A).since, world.probed(A));
    assert_eq!(world.readdress(vec![named(&[A, C]), pool("other", &[A])]), [addresses(&[C], &[B])]);
    assert_eq!((world.upstream("api", A).since, world.upstream("other", A).since, world.probed(A)), before);
    assert_eq!(world.eligible("api"), [A], "the removed one is not eligible, the new one has no verdict yet");
    world.run(SECOND / 5);
    assert_eq!(world.eligible("api"), [A, C]);
    assert_eq!(world.readdress(vec![named(&[A, C]), pool("other", &[A])]), [], "nothing differs");
}

#[tokio::test(start_paused = true)]
async fn the_first_addresses_of_a_name_begin_with_all_of_their_weight() {
    let slow = |policy: PoolPolicy| {
        let traffic = Arc::new(TrafficPolicy { slow_start: 20 * SECOND, ..TrafficPolicy::default() });
        PoolPolicy { traffic, ..policy }
    };
    let mut world = World::new();
    [A, B, C].iter().for_each(|address| world.set(address, 'P'));
    let unresolved = PoolPolicy { upstreams: vec![upstream(API)], ..pool("api", &[]) };
    world.configure(vec![slow(unresolved)]);
    world.run(5 * SECOND);
    world.readdress(vec![slow(named(&[A, B]))]);
    world.run(SECOND);
    assert_eq!(world.eligible("api"), [A, B]);
    assert_eq!(world.upstream("api", A).slow_start, None, "there is nobody beside whom it could be slow");
    world.readdress(vec![slow(named(&[A, B, C]))]);
    world.run(SECOND);
    assert!(world.upstream("api", C).slow_start.is_some());
}

#[tokio::test(start_paused = true)]
async fn addresses_that_alone_serve_go_on_until_a_new_one_is_healthy() {
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![named(&[A])]);
    world.run(SECOND / 2);
    world.readdress(vec![named(&[B])]);
    assert_eq!(world.eligible("api"), [A]);
    assert!(world.upstream("api", A).retiring);
    world.run(SECOND / 5);
    assert_eq!(world.eligible("api"), [B]);
}

#[tokio::test(start_paused = true)]
async fn a_name_without_addresses_is_unknown_and_takes_no_requests_even_when_all_do() {
    let mut world = World::new();
    world.set(API, '-');
    world.configure(vec![PoolPolicy { when_no_healthy: WhenNoHealthy::FailOpen, ..named(&[API, A]) }]);
    for seconds in [5, 30, 600] {
        world.run(seconds * SECOND);
        let unresolved = world.upstream("api", API);
        assert_eq!(unresolved.state, HealthState::Unknown);
        assert_ne!(unresolved.eligibility, Eligibility::Eligible);
        assert_eq!(unresolved.why.unwrap(), "not judged yet; NORES: scripted", "however long it takes");
    }
    assert_eq!(world.eligible("api"), [A], "fail_open uses what has an address");
    let events = world.readdress(vec![named(&[B, A])]);
    assert_eq!(events[0], addresses(&[B], &[]), "the name itself is not an address");
}

#[tokio::test(start_paused = true)]
async fn a_share_is_one_of_those_that_have_an_address() {
    let mut world = World::new();
    world.set(A, 'P');
    let half = MinHealthy::Share(Ratio::try_new(0.6).unwrap());
    world.configure(vec![PoolPolicy { min_healthy: half, ..named(&[A, API]) }]);
    world.run(5 * SECOND);
    assert_eq!(world.eligible("api"), [A]);
    world.readdress(vec![PoolPolicy { min_healthy: half, ..named(&[A, B]) }]);
    world.run(5 * SECOND);
    assert!(world.eligible("api").is_empty(), "one of two is less than 0.6");
}

#[tokio::test(start_paused = true)]
async fn an_order_holds_for_an_address_that_leaves_its_name_and_comes_back() {
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![named(&[A, B])]);
    world.run(SECOND / 2);
    world.order(A, AdminState::Draining);
    world.readdress(vec![named(&[B])]);
    world.run(SECOND);
    world.readdress(vec![named(&[A, B])]);
    assert_eq!(world.upstream("api", A).admin, AdminState::Draining);
    assert_eq!(world.upstream("api", B).admin, AdminState::Enabled);
    // The name leaves the file, and the order with it.
    world.configure(vec![pool("api", &[B])]);
    world.configure(vec![named(&[A, B])]);
    assert_eq!(world.upstream("api", A).admin, AdminState::Enabled);
}

#[tokio::test(start_paused = true)]
async fn an_order_about_a_name_holds_for_the_addresses_it_gets() {
    let mut world = World::new();
    world.configure(vec![named(&[API, B])]);
    world.order(API, AdminState::Disabled);
    world.readdress(vec![named(&[A, C, "127.0.0.9:9001", B])]);
    let admin = |world: &World, address| world.upstream("api", address).admin;
    assert_eq!(admin(&world, A), AdminState::Disabled);
    assert_eq!(admin(&world, "127.0.0.9:9001"), AdminState::Disabled);
    assert_eq!(admin(&world, C), AdminState::Enabled, "another port is another entry");
    world.order(A, AdminState::Enabled);
    world.readdress(vec![named(&["127.0.0.8:9001", A, B])]);
    assert_eq!(admin(&world, A), AdminState::Enabled);
    assert_eq!(admin(&world, "127.0.0.8:9001"), AdminState::Enabled, "the name is not an upstream any more");
}

#[tokio::test(start_paused = true)]
async fn an_order_to_an_address_that_retires_ends_with_its_name_in_the_file_and_not_with_its_answer() {
    for leaves_file in [false, true] {
        let mut world = World::new();
        world.set(A, 'P');
        world.configure(vec![named(&[A])]);
        world.run(SECOND / 2);
        if leaves_file {
            world.configure(vec![pool("api", &[B])]);
        } else {
            world.readdress(vec![named(&[B])]);
        }
        assert!(world.upstream("api", A).retiring);
        world.order(A, AdminState::Disabled);
        assert!(world.eligible("api").is_empty(), "it obeys while it retires");
        if leaves_file {
            world.configure(vec![named(&[A])]);
        } else {
            world.readdress(vec![named(&[A])]);
        }
        let want = if leaves_file { AdminState::Enabled } else { AdminState::Disabled };
        assert_eq!(world.upstream("api", A).admin, want, "leaves the file: {leaves_file}");
    }
}
