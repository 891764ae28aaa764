//! Readers of a view: which verdicts they count, and what they do when too few are valid.

use std::time::Duration;

use super::*;
use crate::model::Name;
use crate::pool::Hints;

const SECOND: Duration = Duration::from_secs(1);

/// Upstreams whose verdicts are valid for so many seconds; `None`: forever.
fn tier(first: u64, seconds: &[Option<u64>], now: Instant) -> Tier {
    let member = |(i, holds): (u64, &Option<u64>)| {
        let (name, address) = (Name::try_new("api").unwrap(), format!("127.0.0.1:{}", 80 + i).parse().unwrap());
        let upstream = Arc::new(Upstream::new(UpstreamId(i), name, address, Hints::none()));
        upstream.fresh_until.set(holds.map(|seconds| now + SECOND * seconds as u32));
        (upstream, FineWeight::ONE)
    };
    Tier::build(Balance::RoundRobin, (first..).zip(seconds).map(member))
}

/// The upstreams picked in 64 tries, by number.
fn picked(view: &View, reading: Reading, tried: &[Tried]) -> Vec<u64> {
    let (pool, mut rng) = (PoolShared::new(Instant::now()), fastrand::Rng::with_seed(1));
    let choice = Choice { pool: &pool, tried, key: None, bounded: false, now: Instant::now() };
    let mut ids: Vec<u64> = (0..64)
        .filter_map(|_| view.pick(reading, &choice, &mut rng))
        .map(|place| view.candidate(place).upstream.id.0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn rules(needed: usize, otherwise: Otherwise) -> Rules {
    Rules { needed, backups_alone: false, otherwise }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_no_longer_picks_goes_elsewhere_or_gets_nothing() {
    use Service::{FailOpen, NoneEligible, Open, Waiting};
    let other = Otherwise::Pool(PoolId(7));
    let (until, reject, fail_open) = (Instant::now(), Otherwise::Reject, Otherwise::FailOpen);
    for (service, may_pick, other_pool) in [
        (Open, true, None),
        (FailOpen, true, None),
        (NoneEligible(fail_open), true, None),
        (NoneEligible(reject), false, None),
        (NoneEligible(other), false, Some(PoolId(7))),
        (Waiting { until, then: fail_open }, true, None),
        (Waiting { until, then: reject }, false, None),
        (Waiting { until, then: other }, false, Some(PoolId(7))),
    ] {
        assert_eq!((service.may_pick(), service.other_pool()), (may_pick, other_pool), "{service:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_pass_over_what_is_out_of_date_and_count_the_rest() {
    use Service::{FailOpen, Open, Waiting};
    let now = Instant::now();
    let wait = |from: u64, then| Waiting { until: now + SECOND * from as u32 + FIRST_VERDICT_WAIT, then };
    let (reject, fail_open) = (Otherwise::Reject, Otherwise::FailOpen);
    // Primaries and backups (seconds for which each is valid), rules; the second of the look, what is found, what is
    // picked.
    for (primaries, backups, rules, rows) in [
        // One of two is out of date: the other serves alone.
        (vec![10, 20], vec![], rules(1, reject), vec![(9, Open, vec![0, 1]), (10, Open, vec![1])]),
        // With fewer than min_healthy, none is used; requests wait for 3 s from the first look.
        (
            vec![10, 20],
            vec![],
            rules(2, reject),
            vec![
                (9, Open, vec![0, 1]),
                (12, wait(12, reject), vec![]),
                (14, wait(12, reject), vec![]),
                (15, Service::NoneEligible(reject), vec![]),
            ],
        ),
        // Backups wait for the primaries, too.
        (
            vec![10],
            vec![90],
            rules(1, reject),
            vec![
                (9, Open, vec![0]),
                (10, wait(10, reject), vec![]),
                (13, Open, vec![100]),
                (90, Service::NoneEligible(reject), vec![]),
            ],
        ),
        // A backup that is out of date does not matter while the primaries hold.
        (vec![50], vec![10], rules(1, reject), vec![(10, Open, vec![0]), (49, Open, vec![0])]),
        // Only backups are in the view, because no primary is healthy: requests do not wait while one is valid.
        (vec![], vec![10, 20], rules(1, reject), vec![(10, Open, vec![101]), (20, wait(20, reject), vec![])]),
        // fail_open uses all, as it does when nothing is healthy.
        (
            vec![10, 10],
            vec![],
            rules(1, fail_open),
            vec![(10, wait(10, fail_open), vec![]), (13, FailOpen, vec![0, 1])],
        ),
    ] {
        let holds = |seconds: &[u64]| seconds.iter().map(|s| Some(*s)).collect::<Vec<_>>();
        let tiers = (tier(0, &holds(&primaries), now), tier(100, &holds(&backups), now));
        let view = View::new(Service::Open, tiers.0, tiers.1, rules);
        for (second, service, who) in rows {
            let reading = view.read(now + SECOND * second);
            let case = format!("{primaries:?} {backups:?} at {second} s");
            assert_eq!(reading.service, service, "{case}");
            if matches!(service, Open | FailOpen) {
                assert_eq!(picked(&view, reading, &[]), who, "{case}");
                let may = |id: u64| view.find(reading, UpstreamId(id)).is_some();
                assert!((0..102).all(|id| !may(id) || who.contains(&id) || id >= 100), "{case}");
            } else {
                assert!(view.find(reading, UpstreamId(0)).is_none(), "{case}");
                assert!(view.is_awaited() || matches!(service, Service::NoneEligible(_)), "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn passes_move_the_instant_on_without_a_new_view() {
    let now = Instant::now();
    let view =
        View::new(Service::Open, tier(0, &[Some(10), Some(10)], now), tier(9, &[], now), rules(2, Otherwise::Reject));
    for round in 1u32..50 {
        let later = now + SECOND * 9 * round;
        let reading = view.read(later);
        assert_eq!((reading.service, reading.pass_over), (Service::Open, None), "round {round}");
        for candidate in view.primaries.candidates() {
            candidate.upstream.fresh_until.set(Some(later + 10 * SECOND));
        }
    }
    assert!(!view.is_awaited());
}

#[tokio::test(start_paused = true)]
async fn views_without_expiry_are_read_as_published() {
    let now = Instant::now();
    let waiting = Service::Waiting { until: now + SECOND, then: Otherwise::Reject };
    for service in [Service::FailOpen, waiting, Service::NoneEligible(Otherwise::FailOpen)] {
        let view = View::new(service, tier(0, &[Some(1), None], now), tier(9, &[], now), rules(1, Otherwise::FailOpen));
        let reading = view.read(now + 100 * SECOND);
        assert_eq!((reading.service, reading.pass_over), (service, None));
    }
    let view = View::new(Service::Open, tier(0, &[None], now), tier(9, &[], now), rules(1, Otherwise::Reject));
    assert_eq!(view.read(now + 1_000 * SECOND).service, Service::Open);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_lost_in_one_epoch_may_be_picked_in_a_later_one_and_a_failed_one_may_not() {
    let now = Instant::now();
    let view = |tier| View::new(Service::Open, tier, Tier::build(Balance::RoundRobin, []), rules(1, Otherwise::Reject));
    let before = view(tier(0, &[None], now));
    let upstream = before.primaries.candidates()[0].upstream.clone();
    let epoch = before.primaries.candidates()[0].epoch;
    let lost = [Tried { id: upstream.id, epoch: Some(epoch) }];
    let failed = [Tried { id: upstream.id, epoch: None }];
    assert!(picked(&before, before.read(now), &lost).is_empty());
    upstream.connections.begin_epoch();
    let after = view(Tier::build(Balance::RoundRobin, [(upstream, FineWeight::ONE)]));
    assert_eq!(picked(&after, after.read(now), &lost), [0]);
    assert!(picked(&after, after.read(now), &failed).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_upstream_is_not_picked_and_no_backup_replaces_it_before_a_newer_view_says_so() {
    let now = Instant::now();
    for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let members = |first, seconds: &[Option<u64>]| {
            let candidates = tier(first, seconds, now).candidates.into_vec();
            Tier::build(balance, candidates.into_iter().map(|candidate| (candidate.upstream, FineWeight::ONE)))
        };
        let view = View::new(Service::Open, members(0, &[None; 3]), members(100, &[None]), rules(1, Otherwise::Reject));
        let lose = |i: usize| view.primaries.candidates()[i].upstream.connections.begin_epoch();
        let reading = view.read(now);
        let failed = |id| Tried { id: UpstreamId(id), epoch: None };
        assert_eq!(picked(&view, reading, &[]), [0, 1, 2]);
        assert_eq!(picked(&view, reading, &[failed(0), failed(1), failed(2)]), [100], "all failed, and none is lost");
        lose(1);
        assert_eq!(picked(&view, reading, &[]), [0, 2]);
        assert_eq!(picked(&view, reading, &[failed(0)]), [2]);
        assert!(view.find(reading, UpstreamId(1)).is_none() && view.find(reading, UpstreamId(2)).is_some());
        assert_eq!(
            picked(&view, reading, &[failed(0), failed(2)]),
            Vec::<u64>::new(),
            "what replaces 1 is not known yet"
        );
        lose(0);
        lose(2);
        assert_eq!(picked(&view, reading, &[]), Vec::<u64>::new());
        assert!(view.is_outdated() && view.is_awaited());
        let after = View::new(Service::Open, members(0, &[]), members(100, &[None]), rules(1, Otherwise::Reject));
        assert_eq!(picked(&after, after.read(now), &[]), [100]);
    }
}
