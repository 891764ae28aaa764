//! Upstreams that are healthy and worse than others: they weigh less, and nothing else changes.

use super::*;
use crate::model::{FineWeight, Ratio};

impl World {
    /// The events about it, with the share.
    fn degradations(&self) -> Vec<(String, Option<Ratio>)> {
        let of = |event: Event| match event.kind {
            EventKind::Degraded { upstream, weight, .. } => Some((upstream.to_string(), weight)),
            _ => None,
        };
        self.state.events_after(0).into_iter().filter_map(of).collect()
    }

    /// The weights in the view.
    pub(super) fn weights(&self) -> Vec<(String, FineWeight)> {
        let pool = &self.state.pools[0];
        let weigh = |member: &super::super::super::pools::Member| {
            (member.upstream.address.to_string(), member.weight_now(&self.state.checks, self.now))
        };
        pool.members.iter().map(weigh).collect()
    }
}

fn quarter() -> Option<Ratio> {
    Some(Ratio::percent(25))
}

#[tokio::test(start_paused = true)]
async fn it_weighs_less_from_the_first_such_answer_to_the_first_that_is_not() {
    let mut world = healthy(&[A, B]);
    let full = world.weights();
    let transitions = world.upstream("api", A).transitions_total;
    world.set(A, 'd');
    world.run(11 * SECOND);
    assert_eq!(world.health("api", A), HealthState::Healthy);
    assert_eq!(world.degradations(), [(A.to_owned(), quarter())], "once, however many such answers come");
    assert_eq!(world.upstream("api", A).degraded, quarter());
    let part = FineWeight::new(Weight::ONE, Ratio::percent(25));
    assert_eq!(world.weights(), [(A.to_owned(), part), full[1].clone()]);
    assert_eq!(world.eligible("api"), [A, B], "it is eligible");
    // What fails says neither; one failure makes no verdict.
    world.set(A, 'F');
    for _ in 0..100 {
        if world.upstream("api", A).streak.is_some_and(|streak| !streak.pass) {
            break;
        }
        world.run(100 * MS);
    }
    assert_eq!(world.upstream("api", A).streak.map(|streak| streak.count), Some(1));
    assert_eq!(world.weights()[0].1, part);
    world.set(A, 'P');
    world.run(11 * SECOND);
    assert_eq!(world.degradations(), [(A.to_owned(), quarter()), (A.to_owned(), None)]);
    assert_eq!(world.weights(), full);
    assert_eq!(world.upstream("api", A).transitions_total, transitions, "no transition");
}

#[tokio::test(start_paused = true)]
async fn it_weighs_less_in_every_algorithm() {
    for (balance, most) in super::ramp::BY_WEIGHT {
        let mut world = World::new();
        [A, B].iter().for_each(|address| world.set(address, 'P'));
        world.configure(vec![PoolPolicy { balance, ..pool("api", &[A, B]) }]);
        world.run(SECOND);
        world.set(A, 'd');
        world.run(3 * SECOND);
        let percent = world.percent(A);
        assert!(percent.abs_diff(20) <= most, "{balance:?}: {percent} %, not 20");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_unhealthy_is_not_degraded_and_comes_back_as_its_answers_say() {
    let mut world = healthy(&[A, B]);
    world.set(A, 'd');
    world.run(11 * SECOND);
    world.set(A, 'F');
    world.run(60 * SECOND);
    assert_eq!((world.health("api", A), world.upstream("api", A).degraded), (HealthState::Unhealthy, None));
    assert_eq!(world.degradations().len(), 1, "its becoming unhealthy is the event");
    world.set(A, 'd');
    world.run(60 * SECOND);
    assert_eq!((world.health("api", A), world.upstream("api", A).degraded), (HealthState::Healthy, quarter()));
    assert_eq!(world.degradations().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_it_and_it_multiplies_with_a_growing_weight() {
    let mut world = healthy(&[A, B]);
    world.set(A, 'd');
    world.run(11 * SECOND);
    world.configure(vec![pool("api", &[A, B, C])]);
    assert_eq!(world.upstream("api", A).degraded, quarter());
    assert_eq!(Ratio::percent(10).times(Ratio::percent(25)), Ratio::try_new(0.025).unwrap());
}
