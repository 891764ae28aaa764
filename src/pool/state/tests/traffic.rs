//! Upstreams that fail requests and pass their checks, with the counters that leases keep.

use super::super::super::lease::{Lease, Settled};
use super::super::super::traffic::{Over, Requests};
use super::*;

impl World {
    /// Ten requests to an upstream, which end with this status; `None`: the connection breaks.
    fn request(&self, pool: &str, address: &str, status: Option<u16>) {
        let upstream = self.upstream(pool, address).upstream;
        for _ in 0..10 {
            let mut lease = Lease::take(upstream.clone());
            lease.on_sent();
            match status {
                Some(status) => {
                    lease.on_answer(status, MS);
                    lease.settle(Settled::Done);
                }
                None => lease.settle(Settled::Failed(Failure::Reset)),
            }
        }
    }

    /// The reports about requests so far.
    fn traffic(&self) -> Vec<EventKind> {
        let of = |event: &Event| {
            matches!(
                event.kind,
                EventKind::RequestsFail { .. }
                    | EventKind::RequestsFailOver { .. }
                    | EventKind::RequestsFailMore { .. }
            )
        };
        self.state.events_after(0).into_iter().filter(of).map(|event| event.kind).collect()
    }
}

fn window(ended: u64, server_errors: u64) -> Requests {
    Requests { ended, server_errors, ..Requests::default() }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_5xx_and_passes_its_checks_is_reported_and_so_is_the_end() {
    let mut world = healthy(&[A, B]);
    let shown = |world: &World, address: &str| {
        let explained = world.state.explain("api", Some(&address.parse().unwrap()), false, world.now).unwrap();
        let why = world.upstream("api", address).why;
        assert_eq!(explained.upstream.unwrap().status.why, why);
        assert!(explained.pool.upstreams.iter().any(|u| u.upstream.address.to_string() == address && u.why == why));
        why
    };
    assert_eq!(shown(&world, A), None);
    for _ in 0..20 {
        world.request("api", A, Some(500));
        world.request("api", B, Some(404));
        world.run(5 * SECOND);
    }
    let (pool, upstream) = (name("api"), A.parse::<Address>().unwrap());
    let began = EventKind::RequestsFail { pool: pool.clone(), upstream: upstream.clone(), window: window(10, 10) };
    assert_eq!(world.traffic(), [began], "once, however long it lasts");
    // It survives a reload.
    world.configure(vec![pool_of_three()]);
    world.run(5 * SECOND);
    assert_eq!(world.traffic().len(), 1);
    let sentence = "answers 5xx to 10 of its last 10 requests, and passes its checks";
    assert_eq!((shown(&world, A).as_deref(), shown(&world, B)), (Some(sentence), None), "as long as it lasts");
    world.request("api", A, Some(500));
    world.request("api", A, None);
    world.run(5 * SECOND);
    let newer = "fails 20 of its last 20 requests (10 answered with 5xx, 10 broken), and passes its checks";
    assert_eq!(shown(&world, A).as_deref(), Some(newer));
    world.request("api", A, Some(200));
    world.run(6 * SECOND);
    let over = EventKind::RequestsFailOver { pool, upstream, over: Over::Succeeds, window: window(10, 0) };
    assert_eq!(world.traffic()[1..], [over]);
    assert_eq!(shown(&world, A), None);
}

fn pool_of_three() -> PoolPolicy {
    pool("api", &[A, B, C])
}

#[tokio::test(start_paused = true)]
async fn what_fails_its_checks_too_is_not_reported_again() {
    let mut world = healthy(&[A, B]);
    world.set(A, 'F');
    for _ in 0..4 {
        world.request("api", A, None);
        world.run(5 * SECOND);
    }
    assert_eq!(world.health("api", A), HealthState::Unhealthy);
    assert_eq!(world.traffic(), []);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_are_counted_and_not_named() {
    let addresses: Vec<String> = (1..=100).map(|port| format!("127.0.0.1:{port}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut world = healthy(&addresses);
    for status in [500, 500, 200] {
        addresses.iter().for_each(|address| world.request("api", address, Some(status)));
        world.run(5 * SECOND);
    }
    world.run(SECOND);
    let reports = world.traffic();
    assert_eq!(reports.len(), 2 * 17, "{reports:?}");
    assert_eq!(reports[16], EventKind::RequestsFailMore { began: 84, ended: 0 });
    assert_eq!(reports[33], EventKind::RequestsFailMore { began: 0, ended: 84 });
}
