//! `timeouts.request`: the time of a whole request.

use super::*;
use crate::model::policy::{Failures, UpstreamTimeouts};

const SECOND: Duration = Duration::from_secs(1);

/// Three upstreams, three seconds for a request, and two retries after everything.
fn world() -> World {
    let timeouts = UpstreamTimeouts { request: Some(3 * SECOND), ..UpstreamTimeouts::default() };
    let retry = RetryPolicy { retries: 2, on: Failures::new(Failure::ALL), ..RetryPolicy::default() };
    World::with(&[Given(Service::Open, 3, 0)], TrafficPolicy { timeouts, retry, ..TrafficPolicy::default() })
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_what_is_left_of_the_time_of_the_request() {
    let world = world();
    let (mut exchange, mut next) = world.begin(GET);
    // Seconds since it began, and how long the attempt may take to connect.
    for (after, connect) in [(0.0, 2.0), (0.5, 2.0), (2.25, 0.75)] {
        let now = world.now + Duration::from_secs_f64(after);
        if after > 0.0 {
            next = exchange.on_connect_failed(ConnectError::Refused, now);
        }
        let Next::Attempt(attempt) = &next else { panic!("{next:?}") };
        assert_eq!(attempt.timeouts.connect, Duration::from_secs_f64(connect), "after {after} s");
        assert_eq!(attempt.deadline, Some(world.now + 3 * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn when_its_time_is_over_a_request_ends_and_no_upstream_is_blamed() {
    let whole = Replay::Whole;
    // What happens at once, what at the end of the time, the step then, and how many hints that sends.
    for (before, last, want, hints) in [
        (&[][..], ConnectTimeout, "504 request_timeout", 0),
        (&[Fresh], Slow(whole), "504 request_timeout", 0),
        (&[Kept], Slow(whole), "504 request_timeout", 0),
        (&[Fresh, Head(103)], Slow(whole), "504 request_timeout", 0),
        (&[Fresh, Head(200)], Slow(whole), "abort", 0),
        // The upstream has failed as well; but it is too late for another.
        (&[], Refused, "502 connect_failed", 1),
        (&[Fresh], Closed(whole), "502 upstream_broke", 1),
        (&[Fresh], Head(503), "forward", 0),
    ] {
        let mut world = world();
        let (mut exchange, _) = world.begin(GET);
        for event in before {
            feed(&mut exchange, *event, world.now);
        }
        let upstream = exchange.upstream().expect("an attempt is under way").clone();
        let step = feed(&mut exchange, last, world.now + 3 * SECOND).expect("it ends");
        assert_eq!((word(&step).as_str(), world.hinted()), (want, hints), "{before:?} {last:?}");
        let blamed = matches!(last, Refused | Closed(_) | Head(503));
        assert_eq!(upstream.outcomes.row().count, u32::from(blamed), "{before:?} {last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_longer_than_its_time() {
    let timeouts = UpstreamTimeouts { request: Some(SECOND), ..UpstreamTimeouts::default() };
    let now = Instant::now();
    let waiting = Service::Waiting { until: now + 3 * SECOND, then: Otherwise::Reject };
    let world = World::with(&[Given(waiting, 0, 0)], TrafficPolicy { timeouts, ..TrafficPolicy::default() });
    let (mut exchange, next) = world.begin(GET);
    let waiting = waiting_until(next, world.now + SECOND);
    let step = exchange.on_wake(waiting, world.now + SECOND);
    assert_eq!(word(&step), "504 request_timeout");
}
