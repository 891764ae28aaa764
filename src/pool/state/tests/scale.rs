//! Many upstreams: probes stay spread whatever happens, a process that was stopped does not make up for it at once, the
//! lag is reported, and nothing grows with time.

use super::super::super::events::EVENTS_MAX;
use super::*;
use crate::health::Due;

const MANY: usize = 1_000;

fn addresses(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("127.1.{}.{}:80", i / 250, i % 250 + 1)).collect()
}

/// In pools of a hundred, so that a change of one costs little.
fn many(n: usize, checks: Vec<CheckPolicy>) -> Vec<PoolPolicy> {
    let addresses = addresses(n);
    let part = |(i, part): (usize, &[String])| {
        let part: Vec<&str> = part.iter().map(String::as_str).collect();
        PoolPolicy { checks: checks.clone(), ..pool(&format!("api{i}"), &part) }
    };
    addresses.chunks(100).enumerate().map(part).collect()
}

fn plain() -> Vec<CheckPolicy> {
    vec![check(tcp(PortRule::Same), timing())]
}

/// `n` upstreams that pass, before their first probe.
fn passing(n: usize) -> World {
    let mut world = World::new();
    addresses(n).iter().for_each(|address| world.set(address, 'P'));
    world.configure(many(n, plain()));
    world
}

impl World {
    fn all_eligible(&self) -> usize {
        self.views.values().map(|view| view.primaries.candidates().len()).sum()
    }

    fn statuses(&self) -> Vec<UpstreamStatus> {
        self.state.status(false, self.now).pools.into_iter().flat_map(|pool| pool.upstreams).collect()
    }

    /// Starts since `from`.
    fn starts(&self, from: Instant) -> Vec<Duration> {
        let from = from - self.start;
        self.probes.iter().map(|(at, ..)| *at).filter(|at| *at >= from).collect()
    }

    /// Asserts that no 100 ms since `from` hold more than a fifth of the starts of the second around them.
    fn assert_spread(&self, from: Instant, what: &str) {
        let starts = self.starts(from);
        assert!(starts.len() >= MANY, "{what}: {} starts", starts.len());
        let within = |from: Duration, to: Duration| {
            starts.partition_point(|at| *at < to) - starts.partition_point(|at| *at < from)
        };
        for at in &starts {
            let window = within(*at, *at + 100 * MS);
            let around = within(at.saturating_sub(450 * MS), *at + 550 * MS).max(MANY);
            assert!(window * 5 <= around, "{what}: {window} of {around} starts after {:?}", (self.start + *at) - from);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_tenth_of_an_interval_holds_a_fifth_of_its_starts() {
    let mut world = passing(MANY);
    let phase = |world: &mut World, what: &str| {
        let from = world.now;
        world.run(4 * SECOND);
        world.assert_spread(from, what);
    };
    phase(&mut world, "start");
    phase(&mut world, "steady");
    addresses(MANY).iter().for_each(|address| world.set(address, 'F'));
    phase(&mut world, "all fail");
    assert!(world.all_eligible() == 0);
    phase(&mut world, "all down");
    addresses(MANY).iter().for_each(|address| world.set(address, 'P'));
    phase(&mut world, "all recover");
    assert_eq!(world.all_eligible(), MANY);
    world.configure(many(MANY, plain()));
    phase(&mut world, "reload");
    world.configure(many(MANY, vec![check(http("/healthz"), timing())]));
    phase(&mut world, "another check");
    world.configure(many(MANY, vec![check(http("/healthz"), timing()), plain().remove(0)]));
    phase(&mut world, "one check more");
    let slow = Timing { interval: 60 * SECOND, ..timing() };
    world.configure(many(MANY, vec![check(http("/healthz"), slow)]));
    world.run(61 * SECOND);
    world.configure(many(MANY, vec![check(http("/healthz"), timing())]));
    phase(&mut world, "a shorter interval");
    assert_eq!(world.all_eligible(), MANY);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_hints_leaves_the_probes_spread() {
    let mut world = passing(MANY);
    world.run(4 * SECOND);
    for status in world.statuses() {
        world.state.on_hint(Hint::Failed(status.upstream.id), world.now);
    }
    world.run(SECOND);
    let from = world.now;
    world.run(4 * SECOND);
    world.assert_spread(from, "after the storm");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_does_not_make_up_for_it_at_once() {
    let mut world = passing(2 * MANY);
    world.run(5 * SECOND);
    let from = world.now;
    world.now += 20 * SECOND;
    let lag = world.state.status(false, world.now).checker.lag;
    assert!(lag >= 19 * SECOND, "what is overdue counts before it begins: {lag:?}");
    world.run(1_999 * MS);
    let starts = world.starts(from);
    let soon = starts.iter().filter(|at| **at < starts[0] + 20 * MS).count();
    assert!(soon <= 60, "{soon} in the first 20 ms");
    for at in &starts {
        let window =
            starts.partition_point(|other| *other < *at + 100 * MS) - starts.partition_point(|other| other < at);
        assert!(window * 5 <= 2 * MANY, "{window} in the 100 ms from {at:?}");
    }
    let mut seen = HashMap::new();
    world.probes.iter().filter(|(at, ..)| *at >= from - world.start).for_each(|(_, target, _)| {
        *seen.entry(target.clone()).or_insert(0) += 1;
    });
    // Those that began in the first second are at their own slots in the second one.
    assert!(seen.values().all(|n| *n <= 3), "{:?}", seen.values().max());
    assert_eq!(seen.len(), 2 * MANY, "each upstream has had its turn");
    let lag = world.state.status(false, world.now).checker.lag;
    assert!((20 * SECOND..23 * SECOND).contains(&lag), "and the lag has the wait in it: {lag:?}");
    assert_eq!(world.all_eligible(), 2 * MANY, "verdicts are kept");
    world.run(2 * SECOND);
    let from = world.now;
    world.run(2 * SECOND);
    assert!((4 * MANY - 20..=4 * MANY + 20).contains(&world.starts(from).len()), "and all is as before");
    world.run(80 * SECOND);
    assert!(world.state.status(false, world.now).checker.lag < MS, "reported for a minute");
}

#[tokio::test(start_paused = true)]
async fn a_long_stop_makes_verdicts_stale_until_new_probes_pass() {
    let mut world = passing(100);
    world.run(5 * SECOND);
    world.now += 60 * SECOND;
    world.run(Duration::ZERO);
    assert!(world.all_eligible() == 0, "no upstream has been probed for a minute");
    world.run(SECOND);
    assert_eq!(world.all_eligible(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_late_tick_starts_all_due_probes_and_reports_the_lag() {
    let mut world = passing(100);
    world.run(5 * SECOND);
    assert!(world.state.status(false, world.now).checker.lag < MS);
    let before = world.probes.len();
    world.now += 400 * MS;
    world.run(Duration::ZERO);
    assert!(world.probes.len() - before >= 20, "{}", world.probes.len() - before);
    let lag = world.state.status(false, world.now).checker.lag;
    assert!((300 * MS..=400 * MS).contains(&lag), "{lag:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_begins_late_after_its_tick_counts_too() {
    let mut world = passing(3);
    world.run(SECOND);
    world.state.on_late_start(70 * MS, world.now);
    assert_eq!(world.state.status(false, world.now).checker.lag, 70 * MS);
}

#[tokio::test(start_paused = true)]
async fn consecutive_reloads_pace_probes_from_the_last_one_and_unknown_upstreams_come_first() {
    let mut world = passing(5 * MANY);
    for version in 0..5 {
        world.configure(many(5 * MANY, vec![check(http(&format!("/{version}")), timing())]));
    }
    let last = world.statuses().iter().map(|u| u.next_due).max().unwrap();
    assert_eq!(last - world.now, 4_999 * MS, "a thousand a second from the last reload on");
    let new = pool("new", &[A]);
    world.run(SECOND);
    let mut pools = many(5 * MANY, vec![check(http("/5"), timing())]);
    pools.push(new);
    world.configure(pools);
    world.set(A, 'P');
    world.run(SECOND);
    assert_eq!(world.eligible("new"), [A], "and unknown upstreams do not wait for those that change again and again");
}

#[tokio::test(start_paused = true)]
async fn a_new_pool_does_not_wait_for_those_whose_check_changed() {
    let mut world = passing(5 * MANY);
    world.run(20 * SECOND);
    world.set(A, 'P');
    let mut pools = many(5 * MANY, vec![check(http("/other"), timing())]);
    pools.push(pool("new", &[A]));
    world.configure(pools);
    assert_eq!(world.upstream("new", A).checks[0].due, Due::First);
    world.run(SECOND / 5);
    assert_eq!(world.eligible("new"), [A]);
    assert_eq!(world.all_eligible(), 5 * MANY + 1, "carried");
}

#[tokio::test(start_paused = true)]
async fn a_reload_of_ten_thousand_keeps_verdicts_and_due_times() {
    let mut world = passing(10 * MANY);
    world.run(20 * SECOND);
    let due = |world: &World| -> Vec<_> {
        world.statuses().iter().map(|u| (u.state, u.next_due, u.streak, u.transitions_total)).collect()
    };
    let before = due(&world);
    assert!(before.iter().all(|(state, ..)| *state == HealthState::Healthy));
    world.configure(many(10 * MANY, plain()));
    assert!(due(&world) == before);
    assert_eq!(world.all_eligible(), 10 * MANY);
    let (work, _) = world.state.on_tick(world.now);
    assert!(work.start.len() < 20 && work.cancel.is_empty(), "{} at once", work.start.len());
}

/// The largest size of one upstream with one check, in bytes, of everything kept per upstream, with maps at their
/// emptiest.
fn bytes_of_one(history: &super::super::super::history::History) -> usize {
    use std::mem::size_of as of;

    use super::super::super::pools::Member;
    use super::super::super::upstream::Upstream;
    use super::super::super::view::Candidate;

    let arc = 2 * of::<usize>();
    // A map is at least 7/16 full, a vector half, a node of a tree almost half.
    let in_map = |entry: usize| (entry + 1) * 16 / 7;
    let check = in_map(of::<(CheckId, Check)>()) + in_map(of::<(Arc<CheckKey>, CheckId)>()) + arc + of::<CheckKey>();
    let timers = 2 * of::<(Instant, Timer)>() + in_map(of::<(ProbeToken, CheckId)>());
    let member = 2 * of::<Member>() + of::<UpstreamPolicy>() + arc + of::<Upstream>();
    let place = in_map(of::<(UpstreamId, (usize, usize))>());
    // In the view: the upstream, and its share; twice while the next one is made.
    let view = 2 * (of::<Candidate>() + 2 * of::<u64>());
    let report = arc + of::<ProbeReport>() + 256 + Trace::HEAD_BYTES_MAX + Trace::BODY_BYTES_MAX;
    check + timers + member + place + view + report + history.heap_bytes()
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_never_changed_takes_less_than_four_kib() {
    let mut world = passing(100);
    world.run(5 * SECOND);
    let member = &world.state.pools[0].members[0];
    assert_eq!(member.transitions_total, 1, "it became healthy and has not changed since");
    let bytes = bytes_of_one(&member.history);
    assert!(bytes <= 3_968, "{bytes} bytes, and what the prober keeps comes to it");
    let detail = world.state.explain("api0", Some(&member.upstream.address), false, world.now).unwrap();
    assert_eq!(detail.upstream.unwrap().history.len(), 1);
}

/// How many entries everything has that could grow.
fn sizes(state: &State) -> [usize; 9] {
    let readers = state.checks.values().map(|check| check.readers.len()).sum();
    [
        state.checks.len(),
        state.by_key.len(),
        state.places.len(),
        state.pool_ids.len(),
        state.pools.iter().map(|pool| pool.members.len()).sum(),
        readers,
        state.cancelled.len(),
        state.dirty.len(),
        // A check has a timer or a probe in flight, whose timer is its staleness.
        state.timers.len(),
    ]
}

#[tokio::test(start_paused = true)]
async fn twenty_four_thousand_probes_leave_everything_as_large_as_it_was() {
    let mut world = passing(100);
    // Some hang, some fall and rise all the time, some break.
    world.set(&addresses(100)[0], '.');
    world.run(60 * SECOND);
    let (begun, before) = (world.probes.len(), sizes(&world.state));
    for round in 0..80 {
        let flapping = if round % 2 == 0 { 'F' } else { 'P' };
        addresses(100)[1..5].iter().for_each(|address| world.set(address, flapping));
        world.set(&addresses(100)[5], if round % 2 == 0 { '!' } else { '-' });
        world.run(3_200 * MS);
        world.flying.retain(|(_, token, _)| world.state.flights.contains_key(token));
    }
    assert!(world.probes.len() - begun >= 24_000, "{}", world.probes.len() - begun);
    assert_eq!(sizes(&world.state), before);
    assert_eq!(world.state.flights.len(), world.flying.len() + 1, "and the one that hangs");
    assert!(world.state.events_after(0).len() <= EVENTS_MAX);
    for member in &world.state.pools[0].members {
        assert!(member.history.heap_bytes() <= 6 << 10, "{}", member.history.heap_bytes());
    }
}
