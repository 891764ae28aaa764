//! What is lost between the pick and the first byte is picked anew, and who has lost its pool is routed anew.

use super::*;
use crate::pool::Departed;
use crate::pool::FIRST_VERDICT_WAIT;

/// What a lane finds instead of a connection it may use.
#[derive(Debug, Clone, Copy)]
enum Finds {
    /// Dialling was given up.
    GaveUp,
    /// It is there by now, fresh or kept.
    Connected(Lent),
}

fn find(exchange: &mut Exchange, finds: Finds, now: Instant) -> String {
    shown(next_of(exchange, finds, now).as_ref())
}

fn next_of(exchange: &mut Exchange, finds: Finds, now: Instant) -> Option<Next> {
    match finds {
        Finds::GaveUp => Some(exchange.on_connect_failed(ConnectError::Outdated, now)),
        Finds::Connected(lent) => exchange.on_connected(lent, now),
    }
}

fn shown(next: Option<&Next>) -> String {
    next.map_or("send".into(), word)
}

const FINDS: [Finds; 4] =
    [Finds::GaveUp, Finds::Connected(Lent::Fresh), Finds::Connected(Lent::Kept), Finds::Connected(Lent::Dirty)];

impl World {
    /// Publishes a view of pool 0 that holds these.
    fn show(&self, service: Service, upstreams: &[Arc<Upstream>]) {
        self.show_ranks(service, upstreams, &[]);
    }

    fn show_ranks(&self, service: Service, primaries: &[Arc<Upstream>], backups: &[Arc<Upstream>]) {
        let tier = |upstreams: &[Arc<Upstream>]| {
            Tier::build(Balance::RoundRobin, upstreams.iter().map(|upstream| (upstream.clone(), FineWeight::ONE)))
        };
        let rules = Rules { needed: 1, backups_alone: false, otherwise: Otherwise::Reject };
        self.nth(0).view.store(Arc::new(View::new(service, tier(primaries), tier(backups), rules)));
    }

    fn backups(&self) -> Vec<Arc<Upstream>> {
        self.nth(0).view.load().backups.candidates().iter().map(|candidate| candidate.upstream.clone()).collect()
    }

    fn retries(&self) -> u64 {
        self.nth(0).shared.stats.retries.total()
    }
}

fn picked(exchange: &Exchange) -> UpstreamId {
    exchange.upstream().expect("an attempt is under way").id
}

fn load(upstreams: &[Arc<Upstream>]) -> u32 {
    upstreams.iter().map(|upstream| upstream.in_flight.load(Ordering::Relaxed)).sum()
}

#[tokio::test(start_paused = true)]
async fn an_upstream_lost_before_the_first_byte_gets_nothing_and_the_request_goes_elsewhere() {
    for request in [GET, POST, PUT, SOCKET] {
        for finds in FINDS {
            let world = World::new(&[Given(Service::Open, 3, 0)]);
            let upstreams = eligible(&world);
            let (mut exchange, _) = world.begin(request);
            let first = picked(&exchange);
            let lost = upstreams.iter().find(|upstream| upstream.id == first).expect("one of the three");
            // The epoch ends before a view says so: also the view that still holds it does not give it again.
            lost.connections.begin_epoch();
            assert_eq!(find(&mut exchange, finds, world.now), "attempt", "{request} {finds:?}");
            assert_ne!(picked(&exchange), first, "{request} {finds:?}");
            assert_eq!((load(&upstreams), world.retries()), (1, 0), "nothing was tried: {request} {finds:?}");
            // It has used up no retry.
            let second = picked(&exchange);
            assert_eq!(word(&exchange.on_connect_failed(ConnectError::Refused, world.now)), "attempt");
            assert!(![first, second].contains(&picked(&exchange)));
            assert_eq!(word(&exchange.on_connect_failed(ConnectError::Refused, world.now)), "502 connect_failed");
            assert_eq!((load(&upstreams), world.retries()), (0, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_loss_is_what_the_newest_view_says() {
    let until = Instant::now() + Duration::from_secs(3);
    let waiting = Service::Waiting { until, then: Otherwise::Reject };
    for finds in FINDS {
        for (service, holds, want) in [
            // Under its new epoch it may be picked.
            (Service::Open, true, "attempt"),
            (Service::FailOpen, true, "attempt"),
            (Service::NoneEligible(Otherwise::FailOpen), true, "attempt"),
            (waiting, false, "wait"),
            (Service::NoneEligible(Otherwise::Reject), false, "503 none_eligible after 30"),
            // Below min_healthy one may still be there.
            (Service::NoneEligible(Otherwise::Reject), true, "503 none_eligible after 30"),
        ] {
            let world = World::new(&[Given(Service::Open, 1, 0)]);
            let upstreams = eligible(&world);
            let (mut exchange, _) = world.begin(POST);
            upstreams[0].connections.begin_epoch();
            world.show(service, if holds { &upstreams } else { &[] });
            let next = next_of(&mut exchange, finds, world.now);
            assert_eq!(shown(next.as_ref()), want, "{finds:?} {service:?}");
            if let Some(Next::Wait(waiting)) = next {
                world.show(Service::Open, &upstreams);
                assert_eq!(word(&exchange.on_wake(waiting, world.now)), "attempt");
                assert!(exchange.on_connected(Lent::Kept, world.now).is_none(), "it is sent under the new epoch");
                assert_eq!(world.nth(0).shared.waiting(), 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_changes_its_mind_for_ever_is_not_followed_for_ever() {
    let world = World::new(&[Given(Service::Open, 2, 0)]);
    let upstreams = eligible(&world);
    let (mut exchange, _) = world.begin(GET);
    for round in 1..=5 {
        upstreams.iter().for_each(|upstream| upstream.connections.begin_epoch());
        world.show(Service::Open, &upstreams);
        let want = if round < 5 { "attempt" } else { "503 none_eligible after 30" };
        assert_eq!(find(&mut exchange, Finds::Connected(Lent::Fresh), world.now), want, "{round}");
    }
    assert_eq!((load(&upstreams), world.retries()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_under_a_verdict_that_went_out_of_date_meanwhile() {
    for (held, want) in [(true, "attempt"), (false, "send")] {
        let world = World::new(&[Given(Service::FailOpen, 2, 0)]);
        let upstreams = eligible(&world);
        let at = world.now + Duration::from_secs(10);
        for upstream in &upstreams {
            upstream.fresh_until.set(Some(if held { at } else { world.now - Duration::from_secs(1) }));
        }
        let (mut exchange, _) = world.begin(POST);
        assert!(!exchange.is_outdated(world.now));
        // Where none held when it was picked, all may be used.
        assert_eq!(find(&mut exchange, Finds::Connected(Lent::Kept), at), want, "{held}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_for_a_client_that_left_while_we_dialled() {
    for (lost, request) in [(false, GET), (false, POST), (true, GET), (true, POST)] {
        let world = World::new(&[Given(Service::Open, 2, 0)]);
        let upstreams = eligible(&world);
        let (mut exchange, _) = world.begin(request);
        if lost {
            upstreams.iter().for_each(|upstream| upstream.connections.begin_epoch());
        }
        assert_eq!(find(&mut exchange, Finds::Connected(Lent::TooLate), world.now), "leave", "{lost} {request}");
        exchange.on_end(End::ClientLeft, world.now);
        let record = exchange.ended();
        assert_eq!((record.status, record.class), (None, RequestClass::Aborted), "{lost} {request}");
        assert_eq!((load(&upstreams), world.retries()), (0, 0), "{lost} {request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dirty_connection_is_replaced_to_the_same_upstream_and_the_second_time_by_a_new_one() {
    for request in [GET, POST, PUT] {
        let world = World::new(&[Given(Service::Open, 2, 0)]);
        let upstreams = eligible(&world);
        let (mut exchange, _) = world.begin(request);
        let first = picked(&exchange);
        let dirty = Finds::Connected(Lent::Dirty);
        assert_eq!(find(&mut exchange, dirty, world.now), "attempt", "{request}");
        assert_eq!(picked(&exchange), first, "{request}");
        assert_eq!(find(&mut exchange, dirty, world.now), "attempt fresh", "{request}");
        assert_eq!((picked(&exchange), load(&upstreams), world.retries()), (first, 1, 0), "{request}");
        // It counts as tried only if it fails, and there is a retry left.
        assert_eq!(word(&exchange.on_connect_failed(ConnectError::Refused, world.now)), "attempt", "{request}");
        assert_ne!(picked(&exchange), first, "{request}");
    }
}

/// Routes: `old` to pool 0, `any` to pool 1, and to pool 2 what comes in on listener 7.
fn routes(of: &[&str]) -> Routes {
    let name = |text: &str| Name::try_new(text).unwrap();
    let policy = |route: &&str| {
        let (path, pool, listener) = match *route {
            "old" => ("/", "p0", None),
            "any" => ("/", "p1", None),
            "on seven" => ("/", "p2", Some(name("seven"))),
            other => panic!("no route {other}"),
        };
        let path = PathPattern::Prefix(path.into());
        let (conditions, pools) = (Vec::new(), PoolShare::all(name(pool)));
        RoutePolicy { host: HostPattern::Any, path, methods: Vec::new(), listener, conditions, pools, rules: None }
    };
    let policies: Vec<_> = of.iter().map(policy).collect();
    routes_of(&policies, 7)
}

fn listener(name: &str, pool: u32) -> Option<ListenerEntry> {
    Some(ListenerEntry {
        name: Name::try_new(name).unwrap(),
        pool: Some(PoolId(pool)),
        client: ClientPolicy::default(),
        limit: None,
        marks: Arc::default(),
        ready_path: None,
    })
}

#[tokio::test(start_paused = true)]
async fn who_has_lost_its_pool_goes_where_the_newest_configuration_says() {
    let until = Instant::now() + Duration::from_secs(3);
    let waiting = || Given(Service::Waiting { until, then: Otherwise::Reject }, 0, 0);
    let open = || Given(Service::Open, 1, 0);
    let down = || Given(Service::NoneEligible(Otherwise::Reject), 0, 0);
    // The events before the pool goes, and what loses it.
    type Lose = fn(&mut Exchange, Next, Instant) -> Next;
    let woken: Lose = |exchange, next, now| match next {
        Next::Wait(waiting) => exchange.on_wake(waiting, now),
        other => panic!("{other:?}"),
    };
    let refused: Lose = |exchange, _, now| exchange.on_connect_failed(ConnectError::Refused, now);
    let outdated: Lose = |exchange, _, now| exchange.on_connect_failed(ConnectError::Outdated, now);
    let dirty: Lose = |exchange, _, now| exchange.on_connected(Lent::Dirty, now).expect("it must not be sent");
    let broken: Lose = |exchange, _, now| {
        assert!(exchange.on_connected(Lent::Fresh, now).is_none());
        exchange.on_broken(Broken::Closed, Replay::Whole, now)
    };
    let stale: Lose = |exchange, _, now| {
        assert!(exchange.on_connected(Lent::Kept, now).is_none());
        exchange.on_broken(Broken::Closed, Replay::Whole, now)
    };
    for (before, lose, after, routed, want) in [
        (waiting(), woken, open(), "any", "attempt"),
        (waiting(), woken, waiting(), "any", "wait"),
        (waiting(), woken, down(), "any", "503 none_eligible after 30"),
        (waiting(), woken, open(), "on seven", "404 no_route"),
        (open(), refused, open(), "any", "attempt"),
        (open(), refused, waiting(), "any", "wait"),
        (open(), refused, down(), "any", "502 connect_failed"),
        (open(), refused, open(), "on seven", "502 connect_failed"),
        (open(), outdated, open(), "any", "attempt"),
        (open(), outdated, waiting(), "any", "wait"),
        (open(), outdated, down(), "any", "503 none_eligible after 30"),
        (open(), outdated, open(), "on seven", "404 no_route"),
        (open(), dirty, open(), "any", "attempt"),
        (open(), broken, open(), "any", "attempt"),
        (open(), broken, down(), "any", "502 upstream_broke"),
        (open(), stale, open(), "any", "attempt fresh"),
        (open(), stale, down(), "any", "502 upstream_broke"),
    ] {
        let world = World::new(&[before]);
        let (mut exchange, first) = world.begin(GET);
        let pool = world.pool(1, &after);
        let gone = Some(ListenerEntry {
            name: Name::try_new("web").unwrap(),
            pool: None,
            client: ClientPolicy::default(),
            limit: None,
            marks: Arc::default(),
            ready_path: None,
        });
        let snapshot = Snapshot::new(2, routes(&[routed]), vec![gone], vec![None, Some(pool.clone())]);
        let old = world.nth(0);
        world.published.store(Arc::new(snapshot));
        assert_eq!(word(&lose(&mut exchange, first, world.now)), "reroute");
        assert_eq!(old.shared.waiting(), 0, "its place there is given back");
        let next = reroute(&mut exchange, GET, world.now);
        assert_eq!(word(&next), want, "{routed} {after:?}");
        match next {
            Next::Attempt(_) => assert_eq!(exchange.upstream().map(|upstream| upstream.pool.as_str()), Some("p1")),
            Next::Wait(waiting) => {
                assert_eq!((waiting.until(), pool.shared.waiting()), (until, 1));
                pool.view.store(Arc::new(world.view(1, &open())));
                assert_eq!(word(&exchange.on_wake(waiting, world.now)), "attempt");
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_when_its_pool_goes_and_waits_no_longer_than_was_said_first() {
    let until = Instant::now() + Duration::from_secs(3);
    let waiting = |until| Given(Service::Waiting { until, then: Otherwise::Reject }, 0, 0);
    let world = World::new(&[waiting(until)]);
    let (mut exchange, next) = world.begin(GET);
    let place = waiting_until(next, until);
    let old = world.nth(0);
    let later = world.pool(1, &waiting(until + Duration::from_secs(60)));
    let reload = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pools = vec![None, Some(later.clone())];
        world.published.store(Arc::new(Snapshot::new(2, Routes::default(), vec![listener("web", 1)], pools)));
        old.shared.announce();
    };
    tokio::join!(place.wait(), reload);
    assert_eq!(Instant::now(), until - Duration::from_secs(2));
    assert_eq!(word(&exchange.on_wake(place, Instant::now())), "reroute");
    let place = waiting_until(reroute(&mut exchange, GET, Instant::now()), until);
    place.wait().await;
    assert_eq!(word(&exchange.on_wake(place, Instant::now())), "503 none_eligible after 30");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_has_failed_is_known_by_its_address_in_the_pool_that_takes_its_place() {
    for again in [false, true] {
        let world = World::new(&[Given(Service::Open, 2, 0)]);
        let (mut exchange, _) = world.begin(GET);
        let failed = exchange.upstream().expect("an attempt is under way").address.clone();
        // The same two addresses, in a pool of another name, whose upstreams are others.
        let name = Name::try_new("p1").unwrap();
        let renamed = |(id, old): (u64, Arc<Upstream>)| {
            Arc::new(Upstream::new(UpstreamId(id), name.clone(), old.address.clone(), Hints::none()))
        };
        let upstreams: Vec<_> = (500..).zip(eligible(&world)).map(renamed).collect();
        let pool = world.pool(1, &Given(Service::Open, 0, 0));
        let rules = Rules { needed: 1, backups_alone: false, otherwise: Otherwise::Reject };
        let members = upstreams.iter().map(|upstream| (upstream.clone(), FineWeight::ONE));
        let tiers = (Tier::build(Balance::RoundRobin, members), Tier::build(Balance::RoundRobin, []));
        pool.view.store(Arc::new(View::new(Service::Open, tiers.0, tiers.1, rules)));
        let pools = vec![None, Some(pool)];
        world.published.store(Arc::new(Snapshot::new(2, Routes::default(), vec![listener("web", 1)], pools)));
        if again {
            // Only lost, and not failed: under its new number it may be picked, and so may the other.
            exchange.upstream().expect("under way").connections.begin_epoch();
            assert_eq!(find(&mut exchange, Finds::GaveUp, world.now), "reroute");
            assert_eq!(word(&reroute(&mut exchange, GET, world.now)), "attempt");
            continue;
        }
        assert_eq!(word(&exchange.on_connect_failed(ConnectError::Refused, world.now)), "reroute");
        assert_eq!(word(&reroute(&mut exchange, GET, world.now)), "attempt");
        assert_ne!(exchange.upstream().expect("under way").address, failed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_departed_listener_goes_where_it_would_have_gone_and_else_to_its_successor() {
    let world = World::new(&[Given(Service::Open, 1, 0)]);
    let pools: Vec<_> = (0..4).map(|id| world.pool(id, &Given(Service::Open, 1, 0))).collect();
    let only = |ids: &[usize]| (0..4).map(|id| ids.contains(&id).then(|| pools[id].clone())).collect::<Vec<_>>();
    // Listener 0 was `web`; its last configuration sent everything to pool 0.
    let last = Snapshot::new(1, routes(&["old"]), vec![listener("web", 0)], only(&[0]));
    let last = Departed { id: ListenerId(0), until: world.now + Duration::from_secs(15), last: Arc::new(last) };
    let seven = |entry: Option<ListenerEntry>| (0..8).map(|i| entry.clone().filter(|_| i == 7)).collect::<Vec<_>>();
    for (listeners, now_routes, now_pools, want) in [
        // Its pool is still there, whatever else has changed.
        (seven(listener("web", 3)), &["any", "on seven"][..], &[0, 1, 2, 3][..], Some("p0")),
        (seven(None), &[], &[0], Some("p0")),
        // The pool is gone: as on the listener that has its name now.
        (seven(listener("web", 3)), &[], &[3], Some("p3")),
        (seven(listener("web", 3)), &["on seven"], &[2, 3], Some("p2")),
        (seven(listener("web", 3)), &["any"], &[1, 3], Some("p1")),
        // Nobody has its name: only routes of every listener, and nothing that another listener has for itself.
        (seven(listener("other", 3)), &["any"], &[1, 3], Some("p1")),
        (seven(listener("other", 3)), &["on seven"], &[2, 3], None),
        (seven(None), &[], &[3], None),
    ] {
        let snapshot = Snapshot::new(2, routes(now_routes), listeners, only(now_pools));
        world.published.store(Arc::new(snapshot.with_departed(vec![last.clone()])));
        let (exchange, next) = world.begin(GET);
        assert!(exchange.must_close());
        let case = format!("{now_routes:?} {now_pools:?}");
        match want {
            Some(pool) => {
                assert!(matches!(next, Next::Attempt(_)), "{case}: {next:?}");
                assert_eq!(exchange.upstream().map(|upstream| upstream.pool.as_str()), Some(pool), "{case}");
            }
            None => assert_eq!(word(&next), "503 none_eligible after 1 close", "{case}"),
        }
    }
}

/// Epochs end a moment before the views are published that say so.
#[tokio::test(start_paused = true)]
async fn who_has_lost_every_upstream_waits_for_the_view_that_says_so() {
    for (service, upstreams_left, want) in [
        (Service::Open, true, "attempt"),
        (Service::NoneEligible(Otherwise::Reject), false, "503 none_eligible after 30"),
    ] {
        let world = World::new(&[Given(Service::Open, 2, 0)]);
        let upstreams = eligible(&world);
        let (mut exchange, _) = world.begin(POST);
        upstreams.iter().for_each(|upstream| upstream.connections.begin_epoch());
        let next = next_of(&mut exchange, Finds::GaveUp, world.now);
        let Some(Next::Wait(place)) = next else { panic!("the view has another, and that is lost too: {next:?}") };
        let old = world.nth(0);
        assert_eq!(old.shared.waiting(), 1);
        let publish = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            world.show(service, if upstreams_left { &upstreams } else { &[] });
            old.shared.announce();
        };
        let began = Instant::now();
        tokio::join!(place.wait(), publish);
        assert_eq!(began.elapsed(), Duration::from_millis(5), "it neither spins nor waits on");
        assert_eq!(word(&exchange.on_wake(place, Instant::now())), want);
        assert_eq!(load(&upstreams), u32::from(upstreams_left));
    }
    // If none comes, it is not waited for without end.
    let world = World::new(&[Given(Service::Open, 1, 0)]);
    let (mut exchange, _) = world.begin(GET);
    eligible(&world)[0].connections.begin_epoch();
    let place =
        waiting_until(exchange.on_connect_failed(ConnectError::Outdated, world.now), world.now + FIRST_VERDICT_WAIT);
    place.wait().await;
    assert_eq!(word(&exchange.on_wake(place, Instant::now())), "503 none_eligible after 30");
}

/// An upstream of pool 0 that was not there before.
fn newcomer(id: u64) -> Arc<Upstream> {
    let (name, address) = (Name::try_new("p0").unwrap(), format!("127.0.0.9:{id}").parse().unwrap());
    Arc::new(Upstream::new(UpstreamId(id), name, address, Hints::none()))
}

/// A reload replaces the primaries: until its view is published, nothing says that no primary can serve.
#[tokio::test(start_paused = true)]
async fn a_backup_gets_nothing_while_the_primaries_are_replaced() {
    // More primaries than a request may be picked anew.
    for (primaries, finds) in [1, 2, 12].into_iter().flat_map(|count| FINDS.map(|finds| (count, finds))) {
        for begun_before in [true, false] {
            let case = format!("{primaries} {finds:?} {begun_before}");
            let world = World::new(&[Given(Service::Open, primaries, 1)]);
            let (old, backups) = (eligible(&world), world.backups());
            let lose = || old.iter().for_each(|upstream| upstream.connections.begin_epoch());
            let (mut exchange, next) = if begun_before {
                let (mut exchange, _) = world.begin(POST);
                lose();
                let next = next_of(&mut exchange, finds, world.now);
                (exchange, next)
            } else {
                lose();
                let (exchange, next) = world.begin(POST);
                (exchange, Some(next))
            };
            let Some(Next::Wait(place)) = next else { panic!("{case}: {next:?}") };
            assert_eq!((load(&old), load(&backups), world.retries()), (0, 0, 0), "{case}");
            let new = [newcomer(900)];
            world.show_ranks(Service::Open, &new, &backups);
            assert_eq!(word(&exchange.on_wake(place, world.now)), "attempt", "{case}");
            assert_eq!((load(&new), load(&backups)), (1, 0), "{case}");
        }
    }
    // It serves once the newest view has no primary.
    let world = World::new(&[Given(Service::Open, 2, 1)]);
    let (old, backups) = (eligible(&world), world.backups());
    let (mut exchange, _) = world.begin(GET);
    old.iter().for_each(|upstream| upstream.connections.begin_epoch());
    let next = next_of(&mut exchange, Finds::GaveUp, world.now);
    let Some(Next::Wait(place)) = next else { panic!("{next:?}") };
    world.show_ranks(Service::Open, &[], &backups);
    assert_eq!((word(&exchange.on_wake(place, world.now)), load(&backups)), ("attempt".to_owned(), 1));
}

/// Where some are lost and others are not, nothing waits and no pick is wasted.
#[tokio::test(start_paused = true)]
async fn the_primaries_that_are_left_take_the_requests_of_the_lost_ones() {
    for lost in 1..12 {
        let world = World::new(&[Given(Service::Open, 12, 1)]);
        let primaries = eligible(&world);
        primaries[..lost].iter().for_each(|upstream| upstream.connections.begin_epoch());
        for _ in 0..24 {
            let (exchange, next) = world.begin(GET);
            assert_eq!(word(&next), "attempt");
            assert!(primaries[lost..].iter().any(|upstream| upstream.id == picked(&exchange)), "{lost} lost");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_the_view_that_is_about_to_come_and_for_nothing_else() {
    let until = Instant::now() + Duration::from_secs(3);
    let waiting = Service::Waiting { until, then: Otherwise::Reject };
    let down = Service::NoneEligible(Otherwise::Reject);
    // The view that comes, with a new primary, the backup, or the failed primary under a new epoch.
    for (service, new, backup, again, closed, refused) in [
        (Service::Open, true, true, false, "attempt fresh", "attempt"),
        (Service::Open, false, true, false, "attempt fresh", "attempt"),
        (Service::Open, false, false, true, "attempt fresh", "502 connect_failed"),
        (waiting, false, false, false, "502 upstream_broke", "502 connect_failed"),
        (down, false, false, false, "502 upstream_broke", "502 connect_failed"),
    ] {
        for (kept, want) in [(true, closed), (false, refused)] {
            let case = format!("{service:?} {new} {backup} {again} {kept}");
            let world = World::new(&[Given(Service::Open, 2, 1)]);
            let (old, backups) = (eligible(&world), world.backups());
            let (mut exchange, _) = world.begin(GET);
            if kept {
                assert!(exchange.on_connected(Lent::Kept, world.now).is_none());
            }
            let first = picked(&exchange);
            old.iter().for_each(|upstream| upstream.connections.begin_epoch());
            let next = match kept {
                true => exchange.on_broken(Broken::Closed, Replay::Whole, world.now),
                false => exchange.on_connect_failed(ConnectError::Refused, world.now),
            };
            let Next::Wait(place) = next else { panic!("{case}: {next:?}") };
            assert_eq!((load(&old), load(&backups)), (0, 0), "{case}");
            let mut primaries: Vec<_> = new.then(|| newcomer(900)).into_iter().collect();
            primaries.extend(old.iter().filter(|upstream| again && upstream.id == first).cloned());
            world.show_ranks(service, &primaries, if backup { &backups } else { &[] });
            assert_eq!(word(&exchange.on_wake(place, world.now)), want, "{case}");
            assert_eq!(load(&backups), u32::from(backup && !new), "{case}");
            assert_eq!(world.nth(0).shared.waiting(), 0, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_went_and_came_back_under_its_name_is_another_one() {
    let until = Instant::now() + Duration::from_secs(3);
    let waiting = Given(Service::Waiting { until, then: Otherwise::Reject }, 0, 0);
    for given in [waiting, Given(Service::Open, 2, 0)] {
        let world = World::new(&[given, Given(Service::Open, 1, 0)]);
        let (mut exchange, first) = world.begin(GET);
        // Its name is another service's by now, and its own requests go to pool 1.
        let (other, own) = (world.pool(0, &Given(Service::Open, 2, 0)), world.nth(1));
        let pools = vec![Some(other), Some(own)];
        world.published.store(Arc::new(Snapshot::new(3, Routes::default(), vec![listener("web", 1)], pools)));
        let next = match first {
            Next::Wait(waiting) => exchange.on_wake(waiting, world.now),
            _ => exchange.on_connect_failed(ConnectError::Refused, world.now),
        };
        assert_eq!(word(&next), "reroute");
        let Next::Attempt(_) = reroute(&mut exchange, GET, world.now) else { panic!("an attempt") };
        assert_eq!(exchange.upstream().map(|upstream| upstream.pool.as_str()), Some("p1"));
    }
}
