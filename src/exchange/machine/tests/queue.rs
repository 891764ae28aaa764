//! `connections.max_per_upstream` and its queue.

use futures_util::FutureExt;

use super::*;
use crate::model::policy::UpstreamConnections;

const SECOND: Duration = Duration::from_secs(1);

/// So many upstreams with one place each, and a queue of two for a second.
fn world(upstreams: usize) -> World {
    let connections =
        UpstreamConnections { max_per_upstream: Some(1), queue_length: 2, ..UpstreamConnections::default() };
    World::with(&[Given(Service::Open, upstreams, 0)], TrafficPolicy { connections, ..TrafficPolicy::default() })
}

/// A request that gets a place.
fn served(world: &World) -> Exchange {
    let (exchange, next) = world.begin(GET);
    assert_eq!(word(&next), "attempt");
    exchange
}

/// A request that waits for one.
fn queued(world: &World) -> (Exchange, Waiting) {
    let (exchange, next) = world.begin(GET);
    let waiting = waiting_until(next, world.now + SECOND);
    // The first looks once more, because a place may have become free meanwhile.
    let is_first = world.nth(0).shared.queue.for_place() == 1;
    assert_eq!(waiting.wait().now_or_never().is_some(), is_first);
    (exchange, waiting)
}

/// What a request does that is called; `None`: it is not.
fn turn((exchange, waiting): &mut (Exchange, Option<Waiting>), now: Instant) -> Option<String> {
    waiting.as_ref()?.wait().now_or_never()?;
    let next = exchange.on_wake(waiting.take()?, now);
    let step = word(&next);
    if let Next::Wait(again) = next {
        *waiting = Some(again);
    }
    Some(step)
}

/// How many requests have waited for a place, and for how many seconds.
fn waited(world: &World) -> (u64, f64) {
    let waited = world.nth(0).shared.stats.queue_seconds();
    (waited.counts.iter().sum(), waited.seconds)
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_requests_wait_in_order_and_none_overtakes() {
    let world = world(2);
    let (mut first, mut second) = (served(&world), served(&world));
    assert_ne!(first.upstream().map(|u| u.id), second.upstream().map(|u| u.id), "another upstream has a free place");
    let mut waiting: Vec<_> = (0..2).map(|_| queued(&world)).map(|(exchange, place)| (exchange, Some(place))).collect();
    let (_refused, next) = world.begin(GET);
    assert_eq!(word(&next), "503 queue_full after 1");
    assert_eq!(world.nth(0).shared.waiting(), 2);
    first.on_end(End::Delivered, world.now);
    // Nobody who comes now may have the place.
    let (_late, next) = world.begin(GET);
    assert_eq!(word(&next), "503 queue_full after 1");
    assert_eq!(turn(&mut waiting[1], world.now), None, "it is the other's turn");
    assert_eq!(turn(&mut waiting[0], world.now).as_deref(), Some("attempt"));
    // The next one looks, because there might be two places.
    assert_eq!(turn(&mut waiting[1], world.now).as_deref(), Some("wait"));
    assert_eq!(turn(&mut waiting[1], world.now), None);
    let later = world.now + SECOND / 4;
    second.on_end(End::Delivered, later);
    assert_eq!(turn(&mut waiting[1], later).as_deref(), Some("attempt"));
    assert_eq!(waited(&world), (2, 0.25));
    assert_eq!((world.nth(0).shared.waiting(), world.nth(0).shared.in_flight.load(Ordering::Relaxed)), (0, 2));
    drop(waiting);
    assert_eq!(world.nth(0).shared.in_flight.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_after_a_call_does_not_overtake_the_one_that_is_called() {
    let world = world(1);
    let mut first = served(&world);
    let (exchange, place) = queued(&world);
    let mut waiting = (exchange, Some(place));
    first.on_end(End::Delivered, world.now);
    let (exchange, place) = queued(&world);
    let mut newcomer = (exchange, Some(place));
    assert_eq!(turn(&mut newcomer, world.now), None, "it is the other's turn");
    assert_eq!(turn(&mut waiting, world.now).as_deref(), Some("attempt"));
    assert_eq!(turn(&mut newcomer, world.now).as_deref(), Some("wait"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_frees_its_place_in_the_queue_and_the_one_it_was_called_for() {
    let world = world(1);
    let mut first = served(&world);
    let (gone, place) = queued(&world);
    let (exchange, last) = queued(&world);
    first.on_end(End::Delivered, world.now);
    drop((gone, place));
    assert_eq!(turn(&mut (exchange, Some(last)), world.now).as_deref(), Some("attempt"));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_queue_says() {
    let world = world(1);
    let _first = served(&world);
    let (mut exchange, place) = queued(&world);
    let next = exchange.on_wake(place, world.now + SECOND / 2);
    let place = waiting_until(next, world.now + SECOND);
    assert_eq!(word(&exchange.on_wake(place, world.now + SECOND)), "503 queue_timeout after 1");
    assert_eq!(world.nth(0).shared.waiting(), 0);
    assert_eq!(waited(&world), (0, 0.0), "it has not ended");
    exchange.on_end(End::Delivered, world.now + SECOND);
    assert_eq!(waited(&world), (1, 1.0));
    assert_eq!(world.nth(0).shared.stats.answers.get(AnswerReason::QueueTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_may_wait_and_if_there_is_no_room_its_failure_is_answered() {
    for others in 0..3 {
        let world = world(2);
        let (mut fails, mut busy) = (served(&world), served(&world));
        let waiting: Vec<_> = (0..others).map(|_| queued(&world)).collect();
        // Its own upstream has a free place now, but it has failed the request.
        let place = waits(feed(&mut fails, Refused, world.now).expect("it is decided"));
        assert_eq!(place.wait().now_or_never().is_some(), others == 0);
        drop(waiting);
        busy.on_end(End::Delivered, world.now);
        assert_eq!(word(&fails.on_wake(place, world.now)), "attempt");
    }
    // As many of them as of the others.
    let world = world(4);
    let mut all: Vec<_> = (0..4).map(|_| served(&world)).collect();
    let mut places = vec![];
    for (index, want) in ["wait", "wait", "502 connect_failed"].iter().enumerate() {
        let next = feed(&mut all[index], Refused, world.now).expect("it is decided");
        assert_eq!(word(&next), *want, "{index} wait already");
        if let Next::Wait(place) = next {
            places.push(place);
        }
        // Whatever has become free is taken again.
        let (taken, next) = world.begin(GET);
        all.push(taken);
        drop(next);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_draws_when_it_begins_to_wait_and_not_where_it_may_not() {
    let budget = RetryBudget { share: crate::model::Ratio::percent(100), min_per_second: 0 };
    let connections =
        UpstreamConnections { max_per_upstream: Some(1), queue_length: 1, ..UpstreamConnections::default() };
    let traffic = TrafficPolicy {
        connections,
        retry: RetryPolicy { budget, ..RetryPolicy::default() },
        ..TrafficPolicy::default()
    };
    let world = World::with(&[Given(Service::Open, 3, 0)], traffic);
    let mut all: Vec<_> = (0..3).map(|_| served(&world)).collect();
    let broken = |exchange: &mut Exchange| {
        feed(exchange, Fresh, world.now);
        let next = feed(exchange, Closed(Replay::Whole), world.now).expect("it is decided");
        // Whatever has become free is taken again.
        (next, world.begin(GET))
    };
    let (first, _taken) = broken(&mut all[0]);
    let place = waits(first);
    let (second, _other) = broken(&mut all[1]);
    assert_eq!(word(&second), "502 upstream_broke", "one may wait");
    let left = (0..10).filter(|_| world.nth(0).shared.try_retry(&budget, world.now)).count();
    // Five requests, of which one has been retried: that it still waits is the same.
    assert_eq!(left, 4);
    drop(place);
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_behind_those_that_came_before_it() {
    let connections =
        UpstreamConnections { max_per_upstream: Some(1), queue_length: 4, ..UpstreamConnections::default() };
    let traffic = TrafficPolicy { connections, sticky: Some("SID".into()), ..TrafficPolicy::default() };
    let world = World::with(&[Given(Service::Open, 1, 0)], traffic);
    let pool = world.nth(0);
    let mut view = world.view(0, &Given(Service::Open, 1, 0));
    view.pin(&pool.name, Vec::new());
    let address = view.primaries.candidates()[0].upstream.address.clone();
    pool.view.store(Arc::new(view));
    world.publish(vec![Some(pool.clone())]);
    let mut first = served(&world);
    let (exchange, place) = queued(&world);
    let mut waiting = (exchange, Some(place));
    first.on_end(End::Delivered, world.now);
    let number = crate::pool::session_number(&pool.name, &address);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: SID={number:016x}");
    let (exchange, next) = world.begin(&request);
    let mut session = (exchange, Some(waits(next)));
    assert_eq!(turn(&mut waiting, world.now).as_deref(), Some("attempt"));
    assert_eq!(turn(&mut session, world.now).as_deref(), Some("wait"));
    waiting.0.on_end(End::Delivered, world.now);
    assert_eq!(turn(&mut session, world.now).as_deref(), Some("attempt"));
}

fn waits(next: Next) -> Waiting {
    let Next::Wait(place) = next else { panic!("{}", word(&next)) };
    place
}

#[tokio::test(start_paused = true)]
async fn retries_that_wait_for_others_take_no_place_from_new_requests() {
    let world = world(2);
    let (mut one, mut two) = (served(&world), served(&world));
    let (mut places, first) = (vec![], one.upstream().map(|upstream| upstream.id));
    for _ in 0..2 {
        places.push(waits(feed(&mut one, Refused, world.now).expect("it is decided")));
        // The upstream that refused is idle: a new request joins the queue and has its turn at once.
        let (mut newcomer, next) = world.begin(GET);
        let place = waits(next);
        for waiting in &places {
            if waiting.wait().now_or_never().is_some() {
                waiting.pass_on();
            }
        }
        assert!(place.wait().now_or_never().is_some(), "those before it pass the call on");
        assert_eq!(word(&newcomer.on_wake(place, world.now)), "attempt");
        assert_eq!(newcomer.upstream().map(|upstream| upstream.id), first);
        one = newcomer;
    }
    two.on_end(End::Delivered, world.now);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_began_without_a_limit_frees_its_place_for_those_that_wait() {
    let world = World::with(&[Given(Service::Open, 1, 0)], TrafficPolicy::default());
    let mut older = served(&world);
    let bounded = TrafficPolicy {
        connections: UpstreamConnections { max_per_upstream: Some(1), queue_length: 2, ..Default::default() },
        ..TrafficPolicy::default()
    };
    let was = world.nth(0);
    let members = eligible(&world).into_iter().map(|upstream| (upstream, FineWeight::ONE, 1));
    let tiers =
        (Tier::with_places(Balance::RoundRobin, members), Tier::with_places(Balance::RoundRobin, [].into_iter()));
    let rules = Rules { needed: 1, backups_alone: false, otherwise: Otherwise::Reject };
    let view = ArcSwap::from_pointee(View::new(Service::Open, tiers.0, tiers.1, rules));
    let (id, name, shared, traffic) = (was.id, was.name.clone(), was.shared.clone(), Arc::new(bounded));
    world.publish(vec![Some(Arc::new(Pool { id, name, traffic, shared, view }))]);
    let (exchange, place) = queued(&world);
    let mut waiting = (exchange, Some(place));
    older.on_end(End::Delivered, world.now);
    assert_eq!(turn(&mut waiting, world.now).as_deref(), Some("attempt"));
}

#[tokio::test(start_paused = true)]
async fn without_an_upstream_there_is_nothing_to_wait_for() {
    let world = world(1);
    let _first = served(&world);
    world.nth(0).view.store(Arc::new(world.view(0, &Given(Service::NoneEligible(Otherwise::Reject), 0, 0))));
    let (_exchange, next) = world.begin(GET);
    assert_eq!(word(&next), "503 none_eligible after 30");
}

#[tokio::test(start_paused = true)]
async fn a_backup_does_not_take_what_a_full_primary_cannot() {
    let connections =
        UpstreamConnections { max_per_upstream: Some(1), queue_length: 1, ..UpstreamConnections::default() };
    let traffic = TrafficPolicy { connections, ..TrafficPolicy::default() };
    let world = World::with(&[Given(Service::Open, 1, 1)], traffic);
    let mut first = served(&world);
    let backup = world.nth(0).view.load().backups.candidates()[0].upstream.id;
    assert_ne!(first.upstream().map(|upstream| upstream.id), Some(backup));
    drop(queued(&world));
    // One that has failed on the primary may be sent to the backup.
    let next = first.on_connect_failed(ConnectError::Refused, world.now);
    assert_eq!((word(&next).as_str(), first.upstream().map(|upstream| upstream.id)), ("attempt", Some(backup)));
}
