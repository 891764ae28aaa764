//! Scripts of (pools, request, events) → steps, over snapshots made by hand, with a clock and a source of chance that the
//! test holds.

use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::super::judge::judge;
use super::super::steps::{NoDesk, Scheme};
use super::*;
use crate::http1::{HeadReader, Limits};
use crate::model::policy::{
    Balance, ClientPolicy, Failures, HostPattern, PathPattern, PoolShare, RetryBudget, RetryPolicy, RoutePolicy,
};
use crate::model::{FineWeight, Name};
use crate::pool::{
    Goal, Hint, Hints, ListenerEntry, ListenerId, Otherwise, PoolShared, Routes, Rules, Service, Tier, UpstreamId, View,
};

mod anew;
mod deadline;
mod log;
mod queue;
mod rules;
mod upgrades;

use Event::*;

/// Routes to pools that are called `p` and their number, on listener `listener`.
fn routes_of(policies: &[RoutePolicy], listener: u32) -> Routes {
    let route = |policy: &RoutePolicy| {
        let number = |share: &PoolShare| share.pool.as_str().strip_prefix('p')?.parse().ok();
        let goal = policy.pools.first().and_then(number).map_or(Goal::None, |id| Goal::Pool(PoolId(id)));
        let rules = policy.rules.clone();
        let limit = rules.as_ref().and_then(|rules| Some(Limit::new(rules.rate_limit.clone()?, Instant::now())));
        Some(Route { matching: policy.matching(), goal, rules, limit, stats: Arc::default() })
    };
    Routes::build(policies, |_| Some(listener), route)
}

/// A process with one listener (number 0) that sends everything to pool 0.
struct World {
    published: Published,
    stats: Arc<FrontStats>,
    hints: mpsc::Receiver<Hint>,
    sender: Hints,
    traffic: Arc<TrafficPolicy>,
    desk: Arc<dyn Desk>,
    now: Instant,
}

/// A pool by hand: what may be done with it, and how many upstreams are eligible.
#[derive(Debug)]
struct Given(Service, usize, usize);

impl World {
    fn new(pools: &[Given]) -> World {
        World::with(pools, TrafficPolicy::default())
    }

    fn with(pools: &[Given], traffic: TrafficPolicy) -> World {
        let (sender, hints) = Hints::channel();
        let now = Instant::now();
        let world = World {
            published: Arc::new(ArcSwap::from_pointee(Snapshot::empty())),
            stats: Arc::new(FrontStats::default()),
            hints,
            sender,
            traffic: Arc::new(traffic),
            desk: Arc::new(NoDesk),
            now,
        };
        let pools: Vec<_> = pools.iter().enumerate().map(|(i, given)| Some(world.pool(i as u32, given))).collect();
        world.publish(pools);
        world
    }

    fn publish(&self, pools: Vec<Option<Arc<Pool>>>) {
        let name = Name::try_new("web").unwrap();
        let listeners = vec![Some(ListenerEntry {
            name,
            pool: (!pools.is_empty()).then_some(PoolId(0)),
            client: ClientPolicy::default(),
            limit: None,
            marks: Arc::default(),
            ready_path: None,
        })];
        self.published.store(Arc::new(Snapshot::new(1, Routes::default(), listeners, pools)));
    }

    fn pool(&self, id: u32, given: &Given) -> Arc<Pool> {
        let name = Name::try_new(&format!("p{id}")).unwrap();
        let shared = Arc::new(PoolShared::new(self.now));
        let view = ArcSwap::from_pointee(self.view_of(&shared, id, given));
        Arc::new(Pool { id: PoolId(id), name, traffic: self.traffic.clone(), shared, view })
    }

    fn view(&self, pool: u32, given: &Given) -> View {
        self.view_of(&self.nth(pool).shared, pool, given)
    }

    fn view_of(&self, shared: &PoolShared, pool: u32, Given(service, primaries, backups): &Given) -> View {
        let name = Name::try_new(&format!("p{pool}")).unwrap();
        let member = |i: usize| {
            let address = format!("127.0.0.{}:{}", pool + 1, 7_001 + i).parse().unwrap();
            let id = UpstreamId(u64::from(pool) * 100 + i as u64);
            let (hints, queue) = (self.sender.clone(), shared.queue.clone());
            (Arc::new(Upstream::with_queue(id, name.clone(), address, hints, queue)), FineWeight::ONE)
        };
        let rules = Rules { needed: 1, backups_alone: false, otherwise: Otherwise::Reject };
        let places = self.traffic.connections.max_per_upstream.unwrap_or(u32::MAX);
        let tier = |range: std::ops::Range<usize>| {
            let members = range.map(member).map(|(upstream, weight)| (upstream, weight, places));
            Tier::with_places(Balance::RoundRobin, members)
        };
        View::new(*service, tier(0..*primaries), tier(50..50 + *backups), rules)
    }

    fn nth(&self, pool: u32) -> Arc<Pool> {
        self.published.load().pool(PoolId(pool)).expect("in the snapshot").clone()
    }

    fn begin(&self, request: &str) -> (Exchange, Next) {
        let bytes = bytes(request);
        let mut reader = HeadReader::default();
        let head = reader.read(&bytes, &Limits::REQUEST).unwrap().expect("a whole head");
        let facts = judge(&head).unwrap();
        let client = Some("192.0.2.1".parse().unwrap());
        let entry = Entry { listener: ListenerId(0), client, scheme: Scheme::Http };
        let (published, stats) = (self.published.clone(), self.stats.clone());
        let mut exchange =
            Exchange::new(published, stats, self.desk.clone(), entry, self.now, fastrand::Rng::with_seed(7));
        let next = exchange.begin(&head, &facts, self.now);
        (exchange, next)
    }

    fn hinted(&mut self) -> usize {
        std::iter::from_fn(|| self.hints.try_recv().ok()).count()
    }
}

/// The head of a request.
fn bytes(request: &str) -> Vec<u8> {
    format!("{request}\r\n\r\n").into_bytes()
}

/// What a lane tells the exchange.
#[derive(Debug, Clone, Copy)]
enum Event {
    Refused,
    ConnectTimeout,
    NoDescriptors,
    /// Connected anew.
    Fresh,
    /// A kept connection was taken.
    Kept,
    /// The upstream closed; the body can be sent again, or not.
    Closed(Replay),
    Slow(Replay),
    Garbage,
    NoMemory,
    Head(u16),
    BadChunk,
}

/// Routes it anew, as a lane does that has kept the head.
fn reroute(exchange: &mut Exchange, request: &str, now: Instant) -> Next {
    let (mut reader, bytes) = (HeadReader::default(), bytes(request));
    let head = reader.read(&bytes, &Limits::REQUEST).unwrap();
    exchange.on_reroute(head, now)
}

/// The place of a request that waits until then.
fn waiting_until(next: Next, until: Instant) -> Waiting {
    match next {
        Next::Wait(waiting) if waiting.until() == until => waiting,
        other => panic!("{other:?}"),
    }
}

fn feed(exchange: &mut Exchange, event: Event, now: Instant) -> Option<Next> {
    let none: [Field<'_>; 0] = [];
    Some(match event {
        Refused => exchange.on_connect_failed(ConnectError::Refused, now),
        ConnectTimeout => exchange.on_connect_failed(ConnectError::TimedOut, now),
        NoDescriptors => exchange.on_connect_failed(ConnectError::Resources, now),
        Fresh | Kept => {
            let lent = if matches!(event, Kept) { Lent::Kept } else { Lent::Fresh };
            return exchange.on_connected(lent, now);
        }
        Closed(replay) => exchange.on_broken(Broken::Closed, replay, now),
        Slow(replay) => exchange.on_broken(Broken::TimedOut, replay, now),
        Garbage => exchange.on_broken(Broken::BadResponse(Fault::NotHttp), Replay::Whole, now),
        NoMemory => exchange.on_broken(Broken::Resources, Replay::Whole, now),
        Head(status) => exchange.on_response(Version::Http11, status, none.into_iter(), Replay::Whole, now),
        BadChunk => exchange.on_client_fault(Refusal::malformed("a chunk")),
    })
}

fn word(next: &Next) -> String {
    match next {
        Next::Attempt(attempt) => format!("attempt{}", if attempt.reuse == Reuse::Never { " fresh" } else { "" }),
        Next::Wait(_) => "wait".into(),
        Next::Reroute => "reroute".into(),
        Next::Forward(..) => "forward".into(),
        Next::Answer(answer) => {
            let reason = answer.reason().map_or("options", AnswerReason::as_str);
            let retry = answer.retry_after.map(|seconds| format!(" after {seconds}")).unwrap_or_default();
            format!("{} {reason}{retry}{}", answer.status(), if answer.close { " close" } else { "" })
        }
        Next::Leave => "leave".into(),
        Next::Abort => "abort".into(),
    }
}

/// Plays the events; the steps in words, and how many hints were sent.
fn play(upstreams: usize, request: &str, events: &[Event]) -> (Vec<String>, usize) {
    let mut world = World::new(&[Given(Service::Open, upstreams, 0)]);
    let (mut exchange, next) = world.begin(request);
    let mut steps = vec![word(&next)];
    let mut last = match next {
        Next::Attempt(_) => exchange.upstream().map(|upstream| upstream.id),
        _ => None,
    };
    for event in events {
        let Some(next) = feed(&mut exchange, *event, world.now) else { continue };
        if let Next::Attempt(Attempt { reuse, .. }) = &next {
            let tried = exchange.upstream().map(|upstream| upstream.id);
            assert_eq!(last == tried, upstreams == 1, "the same one only where there is no other");
            assert!(last != tried || *reuse == Reuse::Never, "the same one only on a fresh connection");
            last = tried;
        }
        steps.push(word(&next));
    }
    let held: u32 = eligible(&world).iter().map(|upstream| upstream.in_flight.load(Ordering::Relaxed)).sum();
    assert!(held <= 1, "an attempt that failed holds nothing");
    drop(exchange);
    let held: u32 = eligible(&world).iter().map(|upstream| upstream.in_flight.load(Ordering::Relaxed)).sum();
    assert_eq!(held, 0, "the end holds nothing");
    (steps, world.hinted())
}

fn eligible(world: &World) -> Vec<Arc<Upstream>> {
    world.nth(0).view.load().primaries.candidates().iter().map(|candidate| candidate.upstream.clone()).collect()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5";
const SOCKET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket";

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_once_elsewhere_where_that_is_safe_and_answered_where_not() {
    use Replay::{Gone, Whole};
    for (upstreams, request, events, steps, hints) in [
        // All is well.
        (2, GET, &[Fresh, Head(200)][..], "attempt, forward", 0),
        (2, GET, &[Fresh, Head(103), Head(503)], "attempt, forward, forward", 0),
        // No connection: nothing was sent, so any method goes elsewhere, once.
        (2, GET, &[Refused, Fresh, Head(200)], "attempt, attempt, forward", 1),
        (2, POST, &[Refused, Fresh, Head(200)], "attempt, attempt, forward", 1),
        (2, POST, &[ConnectTimeout, Fresh, Head(200)], "attempt, attempt, forward", 1),
        (3, GET, &[Refused, Refused], "attempt, attempt, 502 connect_failed", 2),
        (3, GET, &[Refused, ConnectTimeout], "attempt, attempt, 504 connect_timeout", 2),
        (1, GET, &[Refused], "attempt, 502 connect_failed", 1),
        (1, GET, &[ConnectTimeout], "attempt, 504 connect_timeout", 1),
        // What we lack ourselves says nothing about an upstream.
        (2, GET, &[NoDescriptors], "attempt, 503 resources", 0),
        (2, GET, &[Fresh, NoMemory], "attempt, 503 resources", 0),
        // Broken before a byte of the answer.
        (2, GET, &[Fresh, Closed(Whole), Fresh, Head(200)], "attempt, attempt, forward", 1),
        (2, PUT, &[Fresh, Closed(Whole), Fresh, Head(200)], "attempt, attempt, forward", 1),
        (2, PUT, &[Fresh, Closed(Gone)], "attempt, 502 upstream_broke", 1),
        (2, POST, &[Fresh, Closed(Whole)], "attempt, 502 upstream_broke", 1),
        (2, POST, &[Kept, Closed(Whole)], "attempt, 502 upstream_broke", 0),
        (3, GET, &[Fresh, Closed(Whole), Fresh, Closed(Whole)], "attempt, attempt, 502 upstream_broke", 2),
        (3, GET, &[Refused, Fresh, Closed(Whole)], "attempt, attempt, 502 upstream_broke", 2),
        (1, GET, &[Fresh, Closed(Whole)], "attempt, 502 upstream_broke", 1),
        // A kept connection may be closed at any time: no hint, and no second kept one for this request. Without another
        // upstream it is the same one.
        (2, GET, &[Kept, Closed(Whole), Fresh, Head(200)], "attempt, attempt fresh, forward", 0),
        (2, PUT, &[Kept, Closed(Whole), Fresh, Head(200)], "attempt, attempt fresh, forward", 0),
        (2, GET, &[Kept, Closed(Whole), Refused], "attempt, attempt fresh, 502 connect_failed", 1),
        (1, GET, &[Kept, Closed(Whole), Fresh, Head(200)], "attempt, attempt fresh, forward", 0),
        (1, GET, &[Kept, Closed(Whole), Fresh, Closed(Whole)], "attempt, attempt fresh, 502 upstream_broke", 1),
        (1, PUT, &[Kept, Closed(Gone)], "attempt, 502 upstream_broke", 0),
        // Too slow, or no HTTP: not tried again.
        (2, GET, &[Fresh, Slow(Whole)], "attempt, 504 upstream_timeout", 1),
        (2, GET, &[Kept, Slow(Whole)], "attempt, 504 upstream_timeout", 1),
        (2, GET, &[Fresh, Garbage], "attempt, 502 bad_response", 1),
        (2, GET, &[Fresh, Head(99)], "attempt, 502 bad_response", 1),
        (2, GET, &[Fresh, Head(0)], "attempt, 502 bad_response", 1),
        (2, GET, &[Fresh, Head(101)], "attempt, 502 bad_response", 1),
        // A byte of an answer has come: no retry, but while it was interim the client can still be told.
        (2, GET, &[Fresh, Head(103), Closed(Whole)], "attempt, forward, 502 upstream_broke", 1),
        (2, GET, &[Kept, Head(100), Closed(Whole)], "attempt, forward, 502 upstream_broke", 1),
        // What happens after the head says nothing about the upstream's health.
        (2, GET, &[Fresh, Head(200), Closed(Whole)], "attempt, forward, abort", 0),
        (2, GET, &[Kept, Head(200), Closed(Whole)], "attempt, forward, abort", 0),
        (2, GET, &[Fresh, Head(200), Slow(Whole)], "attempt, forward, abort", 0),
        (2, GET, &[Fresh, Head(200), NoMemory], "attempt, forward, abort", 0),
        (2, GET, &[Fresh, Head(200), Head(200)], "attempt, forward, abort", 0),
        // The client's own fault.
        (2, POST, &[Fresh, BadChunk], "attempt, 400 malformed close", 0),
        (2, POST, &[Fresh, Head(200), BadChunk], "attempt, forward, abort", 0),
        // Nothing of ours reaches an upstream.
        (2, "TRACE / HTTP/1.1\r\nHost: a", &[], "405 method", 0),
        (2, "OPTIONS * HTTP/1.1\r\nHost: a", &[], "200 options", 0),
    ] {
        assert_eq!(
            play(upstreams, request, events),
            (steps.split(", ").map(String::from).collect(), hints),
            "{events:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_pool_says_how_often_a_request_is_tried_again_and_how_long_an_attempt_may_take() {
    for (retries, refused, want) in
        [(0, 1, "502"), (0, 0, "attempt"), (1, 1, "attempt"), (1, 2, "502"), (3, 3, "attempt")]
    {
        let mut traffic = TrafficPolicy {
            retry: RetryPolicy { retries, replay_bytes: 7, ..RetryPolicy::default() },
            ..TrafficPolicy::default()
        };
        traffic.timeouts.first_byte = Duration::from_secs(9);
        traffic.connections.idle_per_upstream = 3;
        let world = World::with(&[Given(Service::Open, 5, 0)], traffic.clone());
        let (mut exchange, mut next) = world.begin(GET);
        for _ in 0..refused {
            next = exchange.on_connect_failed(ConnectError::Refused, world.now);
        }
        assert!(word(&next).starts_with(want), "{retries} {refused}: {next:?}");
        if let Next::Attempt(attempt) = next {
            let got = (attempt.timeouts, attempt.connections, attempt.replay_bytes);
            assert_eq!(got, (traffic.timeouts, traffic.connections, 7));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_eligible_follows_the_policy_of_the_pool() {
    use Otherwise::{FailOpen, Reject};
    let at = |seconds| Instant::now() + Duration::from_secs(seconds);
    let pool = |id| Otherwise::Pool(PoolId(id));
    let down = |then| Service::NoneEligible(then);
    let waiting = |then| Service::Waiting { until: at(3), then };
    for (pools, want) in [
        (&[][..], "404 no_route"),
        (&[Given(down(Reject), 0, 0)], "503 none_eligible after 30"),
        (&[Given(Service::Open, 0, 0)], "503 none_eligible after 30"),
        (&[Given(Service::Open, 0, 1)], "attempt"),
        (&[Given(Service::FailOpen, 1, 0)], "attempt"),
        (&[Given(down(FailOpen), 2, 0)], "attempt"),
        (&[Given(waiting(Reject), 0, 0)], "wait"),
        (&[Given(down(pool(1)), 0, 0), Given(Service::Open, 1, 0)], "attempt"),
        (&[Given(down(pool(1)), 0, 0), Given(down(Reject), 0, 0)], "503 none_eligible after 30"),
        (&[Given(down(pool(1)), 0, 0), Given(waiting(Reject), 0, 0)], "wait"),
        (&[Given(down(pool(1)), 0, 0), Given(down(pool(2)), 0, 0), Given(Service::Open, 1, 0)], "attempt"),
        // Validation refuses these; a reload in the middle of a request must not hang on them.
        (&[Given(down(pool(1)), 0, 0), Given(down(pool(0)), 0, 0)], "503 none_eligible after 30"),
        (&[Given(down(pool(9)), 0, 0)], "503 none_eligible after 30"),
    ] {
        let world = World::new(pools);
        let (_exchange, next) = world.begin(GET);
        assert_eq!(word(&next), want);
        let stats = |id: u32| world.published.load().pool(PoolId(id)).map(|pool| pool.shared.clone());
        match (want, stats(0)) {
            ("404 no_route", _) => assert_eq!(world.stats.answers.get(AnswerReason::NoRoute), 1),
            ("503 none_eligible after 30", Some(pool)) => {
                assert_eq!(pool.stats.answers.get(AnswerReason::NoneEligible), 1, "counted where it was routed");
            }
            _ => assert_eq!(world.stats.answers.get(AnswerReason::NoRoute), 0),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_takes_the_first_upstream_and_else_is_told_to_come_again() {
    let until = Instant::now() + Duration::from_secs(3);
    let waiting = Given(Service::Waiting { until, then: Otherwise::Reject }, 0, 0);
    let world = World::new(std::slice::from_ref(&waiting));
    let (mut early, next) = world.begin(GET);
    let its_place = waiting_until(next, until);
    let (mut late, next) = world.begin(GET);
    let other_place = waiting_until(next, until);
    assert_eq!(world.nth(0).shared.waiting(), 2);

    // A change that leaves nothing eligible keeps them waiting, and no longer than was said.
    let longer = Service::Waiting { until: until + Duration::from_secs(60), then: Otherwise::Reject };
    world.nth(0).view.store(Arc::new(world.view(0, &Given(longer, 0, 0))));
    let its_place = waiting_until(early.on_wake(its_place, world.now), until);
    assert_eq!(world.nth(0).shared.waiting(), 2, "it has kept its place");

    other_place.wait().await;
    assert_eq!(Instant::now(), until, "nothing changed, so it waited to the end");
    assert_eq!(word(&late.on_wake(other_place, Instant::now())), "503 none_eligible after 30");

    world.nth(0).view.store(Arc::new(world.view(0, &Given(Service::Open, 1, 0))));
    its_place.wait().await;
    assert_eq!(word(&early.on_wake(its_place, Instant::now())), "attempt");
    assert_eq!(world.nth(0).shared.waiting(), 0, "places are given back");
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_who_waits_at_once() {
    let until = Instant::now() + Duration::from_secs(3);
    let world = World::new(&[Given(Service::Waiting { until, then: Otherwise::Reject }, 0, 0)]);
    let (_exchange, next) = world.begin(GET);
    let place = waiting_until(next, until);
    let pool = world.nth(0);
    let open = Arc::new(world.view(0, &Given(Service::Open, 1, 0)));
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pool.view.store(open);
        pool.shared.announce();
    };
    tokio::join!(place.wait(), change);
    assert_eq!(Instant::now(), until - Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn one_more_than_may_wait_is_turned_away() {
    let until = Instant::now() + Duration::from_secs(3);
    let world = World::new(&[Given(Service::Waiting { until, then: Otherwise::Reject }, 0, 0)]);
    let tickets: Vec<_> =
        std::iter::from_fn(|| world.nth(0).shared.queue.join(Awaits::Verdict, WAITING_MAX, false)).collect();
    assert!(tickets.len() >= 100, "only {} may wait", tickets.len());
    let (_exchange, next) = world.begin(GET);
    assert_eq!(word(&next), "503 queue_full after 30");
    drop(tickets);
    let (_exchange, next) = world.begin(GET);
    assert!(matches!(next, Next::Wait(_)), "places are given back: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_through_the_newest_snapshot() {
    let world = World::new(&[Given(Service::Open, 2, 0)]);
    let first = |world: &World| {
        let (exchange, next) = world.begin(GET);
        assert_eq!(word(&next), "attempt");
        exchange
    };
    // The pool has gone: what its old view holds is not up to date any more.
    let mut exchange = first(&world);
    let old = world.nth(0);
    world.publish(vec![None]);
    assert_eq!(word(&exchange.on_connect_failed(ConnectError::Refused, world.now)), "reroute");
    assert_eq!(word(&reroute(&mut exchange, GET, world.now)), "502 connect_failed");
    // The pool has a new view in a new snapshot: only that is picked from.
    world.publish(vec![Some(old.clone())]);
    let mut exchange = first(&world);
    let view = ArcSwap::from_pointee(world.view(0, &Given(Service::NoneEligible(Otherwise::Reject), 0, 0)));
    let (id, name, shared) = (old.id, old.name.clone(), old.shared.clone());
    world.publish(vec![Some(Arc::new(Pool { id, name, traffic: Arc::default(), shared, view }))]);
    assert_eq!(word(&exchange.on_connect_failed(ConnectError::Refused, world.now)), "502 connect_failed");
}

#[tokio::test(start_paused = true)]
async fn a_stale_connection_is_not_replaced_where_the_upstream_may_not_be_picked_any_more() {
    let down = |then, upstreams| Given(Service::NoneEligible(then), upstreams, 0);
    for (now, want) in [
        (Given(Service::Open, 1, 0), "attempt fresh"),
        (down(Otherwise::FailOpen, 1), "attempt fresh"),
        (down(Otherwise::Reject, 0), "502 upstream_broke"),
        // Below min_healthy one may still be there.
        (down(Otherwise::Reject, 1), "502 upstream_broke"),
    ] {
        let world = World::new(&[Given(Service::Open, 1, 0)]);
        let (mut exchange, _) = world.begin(GET);
        assert!(exchange.on_connected(Lent::Kept, world.now).is_none());
        world.nth(0).view.store(Arc::new(world.view(0, &now)));
        assert_eq!(word(&exchange.on_broken(Broken::Closed, Replay::Whole, world.now)), want);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_where_its_route_says_and_else_where_its_listener_does() {
    let open = || Given(Service::Open, 1, 0);
    let world = World::new(&[open(), open(), open()]);
    let name = |text: &str| Name::try_new(text).unwrap();
    let route = |host, path: &str, pool| RoutePolicy {
        host,
        path: PathPattern::Prefix(path.into()),
        methods: Vec::new(),
        listener: None,
        conditions: Vec::new(),
        pools: PoolShare::all(name(pool)),
        rules: None,
    };
    let routes = [route(HostPattern::Any, "/api", "p1"), route(HostPattern::Exact("b.example".into()), "/", "p2")];
    let pools: Vec<_> = (0..3).map(|id| Some(world.nth(id))).collect();
    for (listener_pool, request, want) in [
        (Some(PoolId(0)), "GET / HTTP/1.1\r\nHost: a", Some("p0")),
        (Some(PoolId(0)), "GET /api/x HTTP/1.1\r\nHost: a", Some("p1")),
        (Some(PoolId(0)), "GET /%61pi/x HTTP/1.1\r\nHost: a", Some("p1")),
        (Some(PoolId(0)), "GET /apix HTTP/1.1\r\nHost: a", Some("p0")),
        (Some(PoolId(0)), "GET / HTTP/1.1\r\nHost: B.example.:80", Some("p2")),
        (Some(PoolId(0)), "GET http://b.example HTTP/1.0", Some("p2")),
        (Some(PoolId(0)), "GET /api HTTP/1.0", Some("p1")),
        (None, "GET /api HTTP/1.0", Some("p1")),
        (None, "GET / HTTP/1.0", None),
    ] {
        let listeners = vec![Some(ListenerEntry {
            name: name("web"),
            pool: listener_pool,
            client: ClientPolicy::default(),
            limit: None,
            marks: Arc::default(),
            ready_path: None,
        })];
        let table = routes_of(&routes, 0);
        world.published.store(Arc::new(Snapshot::new(1, table, listeners, pools.clone())));
        let (mut exchange, _) = world.begin(request);
        exchange.on_end(End::ClientLeft, world.now);
        let record = exchange.ended();
        assert_eq!(record.pool.map(Name::as_str), want, "{request:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_gone_closes_its_connections() {
    let world = World::new(&[Given(Service::NoneEligible(Otherwise::Reject), 0, 0)]);
    let pools = vec![Some(world.nth(0))];
    world.published.store(Arc::new(Snapshot::new(2, Routes::default(), vec![None], pools)));
    let (exchange, next) = world.begin(GET);
    assert!(exchange.must_close());
    assert_eq!(word(&next), "404 no_route close");
}

#[tokio::test(start_paused = true)]
async fn every_end_is_counted_once() {
    let class = |pool: &Arc<Pool>, class: RequestClass| pool.shared.stats.requests(class);
    let none: [Field<'_>; 0] = [];
    let world = World::new(&[Given(Service::Open, 2, 0)]);
    let pool = world.nth(0);
    let later = world.now + Duration::from_millis(40);

    let (mut exchange, _) = world.begin(GET);
    exchange.on_connect_failed(ConnectError::Refused, world.now);
    assert!(exchange.on_connected(Lent::Fresh, world.now).is_none());
    exchange.on_response(Version::Http11, 204, none.into_iter(), Replay::Whole, later);
    exchange.on_end(End::Delivered, later);
    let record = exchange.ended();
    assert_eq!((record.status, record.class, record.attempts), (Some(204), RequestClass::Success, 2));
    assert_eq!((record.took, record.reason), (Some(Duration::from_millis(40)), None));
    assert_eq!(record.pool.map(Name::as_str), Some("p0"));
    assert_eq!(class(&pool, RequestClass::Success), 1);
    assert_eq!((pool.shared.stats.retries.of(Failure::Connect), pool.shared.stats.retries.total()), (1, 1));
    assert!((pool.shared.stats.upstream_seconds().seconds - 0.04).abs() < 1e-9);

    let (mut exchange, _) = world.begin(GET);
    exchange.on_connect_failed(ConnectError::Resources, world.now);
    exchange.on_end(End::Delivered, later);
    let record = exchange.ended();
    assert_eq!((record.status, record.reason), (Some(503), Some(AnswerReason::Resources)));
    assert_eq!(class(&pool, RequestClass::ServerError), 1);
    assert_eq!(pool.shared.stats.answers.get(AnswerReason::Resources), 1);

    let (mut exchange, _) = world.begin(GET);
    assert!(exchange.on_connected(Lent::Fresh, world.now).is_none());
    exchange.on_response(Version::Http11, 200, none.into_iter(), Replay::Whole, later);
    exchange.on_broken(Broken::Closed, Replay::Gone, later);
    exchange.on_end(End::Aborted, later);
    assert_eq!(exchange.ended().class, RequestClass::Aborted);
    let (mut exchange, _) = world.begin(GET);
    exchange.on_end(End::ClientLeft, later);
    assert_eq!(exchange.ended().status, None);
    drop(world.begin(GET));
    assert_eq!(class(&pool, RequestClass::Aborted), 3, "broken off, left, cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_is_counted_when_it_opens_and_not_again() {
    let world = World::new(&[Given(Service::Open, 1, 0)]);
    let (mut exchange, _) = world.begin(SOCKET);
    assert!(exchange.on_connected(Lent::Fresh, world.now).is_none());
    let fields = [Field::new(b"Connection", b"Upgrade"), Field::new(b"Upgrade", b"websocket")];
    assert_eq!(
        word(&exchange.on_response(Version::Http11, 101, fields.into_iter(), Replay::Whole, world.now)),
        "forward"
    );
    let pool = world.nth(0);
    let opened = |pool: &Pool| pool.shared.stats.requests(RequestClass::Informational);
    assert_eq!(opened(&pool), 1);
    assert_eq!(exchange.upstream().map(|upstream| upstream.in_flight.load(Ordering::Relaxed)), Some(1));
    exchange.on_end(End::Delivered, world.now + Duration::from_secs(3_600));
    assert_eq!(opened(&pool), 1);
    assert!(pool.shared.stats.request_seconds().seconds < 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_only_promises_is_cut_short() {
    let world = World::new(&[Given(Service::Open, 1, 0)]);
    let (mut exchange, _) = world.begin(GET);
    assert!(exchange.on_connected(Lent::Fresh, world.now).is_none());
    let none: [Field<'_>; 0] = [];
    let steps: Vec<_> = (0..17)
        .map(|_| word(&exchange.on_response(Version::Http11, 103, none.into_iter(), Replay::Whole, world.now)))
        .collect();
    assert!(steps[..16].iter().all(|step| step == "forward"));
    assert_eq!(steps[16], "502 bad_response");
}

/// The step after these events, which are the same request's.
fn last_step(world: &World, request: &str, events: &[Event]) -> String {
    let (mut exchange, _) = world.begin(request);
    let steps: Vec<_> = events.iter().map(|event| feed(&mut exchange, *event, world.now)).collect();
    steps.last().and_then(Option::as_ref).map_or("send".into(), word)
}

#[tokio::test(start_paused = true)]
async fn a_pool_says_after_what_a_request_is_sent_again() {
    use Failure::{BadGateway, Connect, GatewayTimeout, Reset, Timeout, Unavailable};
    let (whole, gone) = (Replay::Whole, Replay::Gone);
    let all = &[Connect, Reset, Timeout, BadGateway, Unavailable, GatewayTimeout][..];
    // The upstreams, the causes, whether methods that are not idempotent count, the request, what happens, and the last step.
    for (upstreams, on, any_method, request, events, want) in [
        (3, &[][..], false, GET, &[Refused][..], "502 connect_failed"),
        (3, &[Reset], false, GET, &[ConnectTimeout], "504 connect_timeout"),
        (3, &[Connect], false, POST, &[ConnectTimeout], "attempt"),
        (3, &[Connect], false, GET, &[Fresh, Closed(whole)], "502 upstream_broke"),
        (3, &[Reset], false, GET, &[Fresh, Closed(whole)], "attempt"),
        (3, &[Reset], false, GET, &[Fresh, Closed(gone)], "502 upstream_broke"),
        (3, &[Reset], false, POST, &[Fresh, Closed(whole)], "502 upstream_broke"),
        (3, &[Reset], true, POST, &[Fresh, Closed(whole)], "attempt"),
        (3, &[Reset], true, POST, &[Fresh, Closed(gone)], "502 upstream_broke"),
        (3, &[Connect, Reset], false, GET, &[Fresh, Slow(whole)], "504 upstream_timeout"),
        (3, &[Timeout], false, GET, &[Fresh, Slow(whole)], "attempt"),
        (3, &[Timeout], false, POST, &[Fresh, Slow(whole)], "504 upstream_timeout"),
        // Part of a response has gone to the client.
        (3, &[Timeout], false, GET, &[Fresh, Head(200), Slow(whole)], "abort"),
        (3, &[Timeout], false, GET, &[Fresh, Head(103), Slow(whole)], "504 upstream_timeout"),
        (3, &[BadGateway], false, GET, &[Fresh, Head(502)], "attempt"),
        (3, &[BadGateway], false, GET, &[Fresh, Head(503)], "forward"),
        (3, &[Unavailable], false, GET, &[Fresh, Head(503)], "attempt"),
        (3, &[GatewayTimeout], false, GET, &[Fresh, Head(504)], "attempt"),
        (3, all, false, GET, &[Fresh, Head(500)], "forward"),
        (3, all, false, POST, &[Fresh, Head(502)], "forward"),
        (3, all, true, POST, &[Fresh, Head(502)], "attempt"),
        (3, all, false, GET, &[Fresh, Head(103), Head(502)], "forward"),
        // Once: then the response of the second is passed on.
        (3, all, false, GET, &[Fresh, Head(502), Fresh, Head(502)], "forward"),
        // There is no other: its response is better than none.
        (1, all, false, GET, &[Fresh, Head(502)], "forward"),
        // A malformed response is no failure of the network.
        (3, all, false, GET, &[Fresh, Garbage], "502 bad_response"),
    ] {
        let retry =
            RetryPolicy { on: Failures::new(on.iter().copied()), non_idempotent: any_method, ..RetryPolicy::default() };
        let world =
            World::with(&[Given(Service::Open, upstreams, 0)], TrafficPolicy { retry, ..TrafficPolicy::default() });
        assert_eq!(last_step(&world, request, events), want, "{on:?} {any_method} {request} {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_stop_where_their_budget_ends_and_begin_again_later() {
    let budget = RetryBudget { share: crate::model::Ratio::percent(50), min_per_second: 0 };
    let retry = RetryPolicy { budget, on: Failures::new([Failure::Connect, Failure::Reset]), ..RetryPolicy::default() };
    let traffic = TrafficPolicy { retry, ..TrafficPolicy::default() };
    let mut world = World::with(&[Given(Service::Open, 3, 0)], traffic);
    let broken = &[Fresh, Closed(Replay::Whole)];
    let steps: Vec<_> = (0..8).map(|_| last_step(&world, GET, broken)).collect();
    let (again, not) = ("attempt".to_owned(), "502 upstream_broke".to_owned());
    assert_eq!(steps, [&again, &not, &again, &not, &again, &not, &again, &not].map(Clone::clone), "one of two");
    assert_eq!(world.nth(0).shared.stats.retries_refused.load(Ordering::Relaxed), 4);
    // Nothing was sent: that costs nothing.
    assert_eq!(last_step(&world, GET, &[Refused]), again);
    assert_eq!(last_step(&world, POST, &[Refused]), again);
    world.now += Duration::from_secs(11);
    assert_eq!(last_step(&world, GET, broken), again, "those of eleven seconds ago do not count");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_stands_in_for_another_has_a_budget_for_what_it_gets() {
    let budget = RetryBudget { share: crate::model::Ratio::percent(50), min_per_second: 0 };
    let retry = RetryPolicy { budget, ..RetryPolicy::default() };
    let down = Given(Service::NoneEligible(Otherwise::Pool(PoolId(1))), 0, 0);
    let world = World::with(&[down, Given(Service::Open, 3, 0)], TrafficPolicy { retry, ..TrafficPolicy::default() });
    let steps: Vec<_> = (0..4).map(|_| last_step(&world, GET, &[Fresh, Closed(Replay::Whole)])).collect();
    assert_eq!(steps, ["attempt", "502 upstream_broke", "attempt", "502 upstream_broke"], "one of two");
    let retries = |pool| world.nth(pool).shared.stats.retries.total();
    assert_eq!((retries(0), retries(1)), (0, 0), "none of them has been sent");
    let (mut exchange, _) = world.begin(GET);
    for event in [Refused, Fresh, Head(200)] {
        feed(&mut exchange, event, world.now);
    }
    assert_eq!((retries(0), retries(1)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_counted_once_it_has_come_to_something() {
    let world = World::new(&[Given(Service::Open, 3, 0)]);
    let total = || world.nth(0).shared.stats.retries.total();
    let (mut exchange, _) = world.begin(GET);
    feed(&mut exchange, Refused, world.now);
    assert_eq!(total(), 0, "it is picked");
    let next = exchange.on_connected(Lent::Dirty, world.now);
    assert_eq!((word(&next.expect("another connection")).as_str(), total()), ("attempt", 0), "picked again");
    assert!(exchange.on_connected(Lent::Fresh, world.now).is_none());
    assert_eq!(total(), 1, "sent");
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_another_upstream_costs_no_retry() {
    let budget = RetryBudget { share: crate::model::Ratio::percent(50), min_per_second: 0 };
    let retry = RetryPolicy { budget, ..RetryPolicy::default() };
    let world = World::with(&[Given(Service::Open, 1, 0)], TrafficPolicy { retry, ..TrafficPolicy::default() });
    for _ in 0..10 {
        assert_eq!(last_step(&world, GET, &[Fresh, Closed(Replay::Whole)]), "502 upstream_broke");
    }
    let shared = &world.nth(0).shared;
    assert_eq!(shared.stats.retries_refused.load(Ordering::Relaxed), 0);
    assert_eq!((0..10).filter(|_| shared.try_retry(&budget, world.now)).count(), 5, "nothing has been drawn");
}
