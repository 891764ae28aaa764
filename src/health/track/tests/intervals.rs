//! `unhealthy_interval`: which interval is in force when, what a reload of it changes, and what follows for staleness.

use proptest::prelude::*;

use super::*;

/// Probes every 10 s, and every 60 s while unhealthy.
fn rarely(rise: u32, fall: u32) -> Timing {
    Timing { unhealthy_interval: Some(60 * SECOND), ..timing(rise, fall) }
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_upstream_without_an_open_streak_is_probed_at_its_own_interval() {
    for (results, want) in [
        ("PP", &[1.0, 4.0][..]),
        ("PPP", &[1.0, 4.0, 10.0]),
        ("PPF", &[1.0, 4.0, 1.0]),
        ("PPFF", &[1.0, 4.0, 1.0, 60.0]),
        ("PPFFF", &[1.0, 4.0, 1.0, 60.0, 60.0]),
        ("PPFFP", &[1.0, 4.0, 1.0, 60.0, 1.0]),
        ("PPFFPF", &[1.0, 4.0, 1.0, 60.0, 1.0, 60.0]),
        ("PPFFPP", &[1.0, 4.0, 1.0, 60.0, 1.0, 10.0]),
        ("PPFF-", &[1.0, 4.0, 1.0, 60.0, 60.0]),
        ("PPFF!", &[1.0, 4.0, 1.0, 60.0, 1.0]),
        // The first verdict: its slot is half of the interval in force, from the origin.
        ("FF", &[1.0, 29.0]),
        ("FFF", &[1.0, 29.0, 60.0]),
    ] {
        assert_eq!(gaps(rarely(2, 2), results), want, "{results}");
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_shifts_the_interval_in_force_by_a_share_and_never_the_fast_one() {
    use Judgement::{Fail, Pass};
    // What two probes find, what a third finds, and the seconds to the next one after each.
    for (timing, result, other, least, regular, most) in
        [(timing(1, 2), Pass, Fail, 9, 10, 11), (rarely(2, 1), Fail, Pass, 54, 60, 66)]
    {
        for (chance, want) in [(-1.0, least), (0.0, regular), (1.0, most)] {
            let now = Instant::now();
            let mut track = track(Timing { jitter: Ratio::try_new(0.1).unwrap(), ..timing }, now);
            track.on_start(now);
            track.on_end(result, now, chance);
            let start = track.next_due();
            track.on_start(start);
            track.on_end(result, start, chance);
            assert_eq!(track.next_due() - start, want * SECOND, "{result:?}, {chance}");
            track.on_start(start);
            track.on_end(other, start, chance);
            assert_eq!(track.next_due() - start, SECOND, "{result:?}, {chance}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_it_carries_the_state_and_takes_the_earlier_due_time() {
    // Results so far, timing before and after, and the seconds from the last start to the next probe.
    for (results, before, after, want) in [
        ("FFF", rarely(2, 2), timing(2, 2), 10),
        ("FFF", timing(2, 2), rarely(2, 2), 10),
        ("FFF", rarely(2, 2), Timing { unhealthy_interval: Some(30 * SECOND), ..timing(2, 2) }, 30),
        ("FFF", rarely(2, 2), Timing { interval: 5 * SECOND, ..rarely(2, 2) }, 60),
        ("FFFP", rarely(2, 2), timing(2, 2), 1),
        ("PPP", rarely(2, 2), timing(2, 2), 10),
        ("PPP", timing(2, 2), rarely(2, 2), 10),
    ] {
        let mut now = Instant::now();
        let mut track = track(before, now);
        feed(&mut track, results, &mut now);
        let state = track.state();
        assert_eq!(track.retime(after, now), None);
        assert_eq!(track.state(), state, "{results}");
        let start = track.last_start.expect("it was probed");
        assert_eq!(track.next_due() - start, want * SECOND, "{results}: {before:?} to {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_holds_for_three_of_the_longer_interval() {
    for (results, state) in [("PP", HealthState::Healthy), ("FF", HealthState::Unhealthy)] {
        let mut now = Instant::now();
        let mut track = track(rarely(2, 2), now);
        feed(&mut track, results, &mut now);
        assert_eq!(track.on_tick(now + 194 * SECOND), None);
        let change = track.on_tick(now + 195 * SECOND);
        assert_eq!(change, Some(Change { from: state, to: HealthState::Unknown, cause: Cause::Stale }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_does_not_wait_for_it() {
    let mut now = Instant::now();
    let mut track = track(rarely(1, 1), now);
    feed(&mut track, "FF", &mut now);
    let start = track.last_start.expect("it was probed");
    assert_eq!(track.next_due(), start + 60 * SECOND);
    track.on_hint(now);
    assert_eq!(track.next_due(), start + SECOND);
}

/// The gap that health.md allows after `results`, if the last probe did not have to leave its slot.
fn reference_gap(rise: usize, fall: usize, results: &[bool], unhealthy: Duration) -> Duration {
    match (reference(rise, fall, results), results.last()) {
        (HealthState::Unknown, _) => SECOND,
        (HealthState::Healthy, Some(false)) | (HealthState::Unhealthy, Some(true)) => SECOND,
        (HealthState::Healthy, _) => 10 * SECOND,
        (HealthState::Unhealthy, _) => unhealthy,
    }
}

proptest! {
    #[test]
    fn the_next_probe_follows_the_interval_that_the_reference_names(
        rise in 1u32..4, fall in 1u32..4, unhealthy in 11u32..100,
        results in proptest::collection::vec(any::<bool>(), 1..30),
    ) {
        let unhealthy = unhealthy * SECOND;
        let timing = Timing { unhealthy_interval: Some(unhealthy), ..timing(rise, fall) };
        let mut now = Instant::now();
        let mut track = track(timing, now);
        for end in 1..=results.len() {
            let was = track.state();
            feed(&mut track, if results[end - 1] { "P" } else { "F" }, &mut now);
            let gap = track.next_due() - track.last_start.expect("it was probed");
            let want = reference_gap(rise as usize, fall as usize, &results[..end], unhealthy);
            if was == HealthState::Unknown && track.state() != HealthState::Unknown {
                // At its own slot in the interval in force.
                let of_state = if track.state() == HealthState::Healthy { 10 * SECOND } else { unhealthy };
                prop_assert!(gap <= of_state + SECOND, "{gap:?}");
            } else {
                prop_assert_eq!(gap, want, "after {:?}", &results[..end]);
            }
        }
    }
}
