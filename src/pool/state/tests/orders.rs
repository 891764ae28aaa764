//! What operators order: how long it holds, where, and what it survives.

use super::super::super::orders::{Done, Setting};
use super::*;

impl World {
    pub(super) fn give(
        &mut self,
        pool: Option<&str>,
        address: &str,
        order: &Order<'_>,
    ) -> Result<Vec<Done>, OrderError> {
        let (done, effects) = self.state.order(pool, &address.parse().unwrap(), order, self.now)?;
        self.take(effects);
        Ok(done)
    }

    /// The settings that orders have changed so far, with the origin.
    fn ordered(&self) -> Vec<(String, String)> {
        let of = |event: Event| match event.kind {
            EventKind::Ordered { upstream, to, by, .. } => Some((format!("{upstream} {to}"), by)),
            _ => None,
        };
        self.state.events_after(0).into_iter().filter_map(of).collect()
    }
}

fn weight(weight: i64, lasts: Option<Duration>) -> Order<'static> {
    let command = Command::Weight(Weight::try_new(weight).unwrap());
    Order { command, reason: "", by: "test", force: false, lasts }
}

#[tokio::test(start_paused = true)]
async fn an_order_ends_by_itself_and_then_the_file_holds_again() {
    let mut world = healthy(&[A, B]);
    let drain = Order { lasts: Some(5 * SECOND), reason: "kernel", ..ordered(AdminState::Draining, false) };
    let done = world.give(Some("api"), A, &drain).unwrap();
    let (was, in_file) = (Setting::Admin(AdminState::Enabled), Setting::Admin(AdminState::Enabled));
    assert_eq!(done, [Done { pool: name("api"), was, in_file }]);
    assert_eq!(world.eligible("api"), [B]);
    assert_eq!(world.upstream("api", A).why.as_deref(), Some("draining, ordered 0s ago (test): kernel; ends in 5s"));
    world.run(2 * SECOND);
    assert_eq!(world.upstream("api", A).why.as_deref(), Some("draining, ordered 2s ago (test): kernel; ends in 3s"));
    // A reload changes neither the order nor its end.
    world.configure(vec![pool("api", &[A, B, C])]);
    world.run(3 * SECOND - MS);
    assert_eq!(world.eligible("api"), [B]);
    let probed = world.probed(A);
    world.run(MS);
    assert_eq!(world.eligible("api"), [A, B], "its checks have gone on meanwhile");
    assert!(probed > 5);
    let events = [("draining", "test"), ("enabled", "the time of the order is over")];
    assert_eq!(world.ordered(), events.map(|(to, by)| (format!("{A} {to}"), by.to_owned())));
    assert!(world.upstream("api", A).overrides.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_order_that_takes_the_end_of_another_away_is_an_event() {
    let mut world = healthy(&[A, B]);
    let drain = ordered(AdminState::Draining, false);
    world.give(Some("api"), A, &Order { lasts: Some(5 * SECOND), ..drain }).unwrap();
    world.give(Some("api"), A, &drain).unwrap();
    world.give(Some("api"), A, &drain).unwrap();
    assert_eq!(world.ordered().len(), 2, "the third changes nothing");
    world.run(60 * SECOND);
    assert_eq!(world.eligible("api"), [B], "it does not end");
}

#[tokio::test(start_paused = true)]
async fn an_order_may_end_in_what_the_file_says_and_a_new_one_replaces_it() {
    let mut world = healthy(&[A, B]);
    let disabled = UpstreamPolicy { admin: AdminState::Disabled, ..upstream(A) };
    world.configure(vec![PoolPolicy { upstreams: vec![disabled, upstream(B)], ..pool("api", &[]) }]);
    assert_eq!(world.upstream("api", A).why.as_deref(), Some("disabled, as the file says"));
    let enable = Order { lasts: Some(5 * SECOND), ..ordered(AdminState::Enabled, false) };
    world.give(Some("api"), A, &enable).unwrap();
    assert_eq!(world.eligible("api"), [A, B]);
    let closed = world.closed.len();
    world.run(5 * SECOND);
    assert_eq!(world.eligible("api"), [B]);
    assert_eq!(world.closed[closed..], [A], "its idle connections close");
    // The new order has no end.
    world.give(Some("api"), A, &enable).unwrap();
    world.give(Some("api"), A, &ordered(AdminState::Enabled, false)).unwrap();
    world.run(60 * SECOND);
    assert_eq!(world.eligible("api"), [A, B]);
}

#[tokio::test(start_paused = true)]
async fn a_weight_is_ordered_like_an_admin_state() {
    let mut world = healthy(&[A, B]);
    let of = |world: &World| world.upstream("api", A).weight.as_u32();
    let done = world.give(Some("api"), A, &weight(5, Some(5 * SECOND))).unwrap();
    assert_eq!((done[0].was, done[0].in_file), (Setting::Weight(Weight::ONE), Setting::Weight(Weight::ONE)));
    assert_eq!(of(&world), 5);
    let mut picks = 0;
    let (view, shared, mut rng) = (&world.views[&name("api")], PoolShared::new(world.now), fastrand::Rng::with_seed(1));
    let choice = Choice { pool: &shared, tried: &[], key: None, bounded: false, now: world.now };
    for _ in 0..600 {
        let place = view.pick(view.read(world.now), &choice, &mut rng).expect("two are eligible");
        picks += usize::from(view.candidate(place).upstream.address.to_string() == A);
    }
    assert_eq!(picks, 500, "five of six");
    world.configure(vec![pool("api", &[A, B, C])]);
    assert_eq!(of(&world), 5, "a reload keeps it");
    world.run(5 * SECOND);
    assert_eq!(of(&world), 1);
    assert!(!world.closed.contains(&A.to_owned()), "it takes nothing out");
    // Both orders hold at once, and end one by one.
    world.give(Some("api"), A, &weight(7, Some(3 * SECOND))).unwrap();
    let drain = Order { lasts: Some(SECOND), ..ordered(AdminState::Draining, false) };
    world.give(Some("api"), A, &drain).unwrap();
    world.run(2 * SECOND);
    assert_eq!((world.eligible("api").len(), of(&world)), (2, 7));
    world.run(SECOND);
    assert_eq!(of(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn an_order_in_every_pool_is_carried_out_in_all_of_them_or_in_none() {
    let mut world = World::new();
    [A, B].iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![pool("one", &[A, B]), pool("two", &[A]), pool("three", &[B])]);
    world.run(SECOND);
    let refused = world.give(None, A, &ordered(AdminState::Draining, false));
    assert!(matches!(refused, Err(OrderError::NeedsForce(why)) if why.pool == name("two")));
    assert_eq!((world.eligible("one").len(), world.eligible("two").len()), (2, 1), "nothing was done");
    let done = world.give(None, A, &ordered(AdminState::Draining, true)).unwrap();
    assert_eq!(done.iter().map(|done| done.pool.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((world.eligible("one").len(), world.eligible("two").len()), (1, 0));
    let nowhere = world.give(None, C, &ordered(AdminState::Draining, true));
    assert!(matches!(nowhere, Err(OrderError::NoUpstream { pool: None, .. })));
    // Undrain does not enable what is disabled, and then nothing else either.
    world.give(Some("two"), A, &ordered(AdminState::Disabled, true)).unwrap();
    let undrain = Order { command: Command::Undrain, ..ordered(AdminState::Enabled, false) };
    assert!(matches!(world.give(None, A, &undrain), Err(OrderError::Conflict(_))));
    assert_eq!(world.eligible("one").len(), 1);
}
