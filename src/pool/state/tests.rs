//! The rows of health.md, each on the pure state with a scripted clock and scripted probes.

mod agent;
mod checks;
mod degraded;
mod leaving;
mod names;
mod orders;
mod outages;
mod passive;
mod ramp;
mod reloads;
mod scale;
mod sessions;
mod traffic;
mod warming;

use tokio::sync::mpsc;

use super::super::orders::{Command, Order, OrderError};
use super::super::outage::Way;
use super::super::snapshot::ListenerId;
use super::super::status::{PoolSummary, UpstreamStatus};
use super::super::upstream::Hint;
use super::super::view::{Choice, Otherwise, Service};
use super::*;
use crate::model::policy::*;
use crate::model::{AdminState, Code, Ratio, Trace, Weight};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A state with a clock, and origins whose answers a test sets.
struct World {
    state: State,
    now: Instant,
    origins: HashMap<String, char>,
    /// Every probe made: when, for which upstream, with which kind of check.
    probes: Vec<(Duration, String, &'static str)>,
    views: HashMap<Name, Arc<View>>,
    snapshot: Option<Arc<Snapshot>>,
    closed: Vec<String>,
    start: Instant,
    flying: Vec<(Instant, ProbeToken, char)>,
    hints: mpsc::Receiver<Hint>,
}

impl World {
    fn new() -> World {
        let (now, (sender, hints)) = (Instant::now(), Hints::channel());
        World {
            state: State::new(now, 7, sender),
            now,
            origins: HashMap::new(),
            probes: vec![],
            views: HashMap::new(),
            snapshot: None,
            closed: vec![],
            start: now,
            flying: vec![],
            hints,
        }
    }

    /// Sets the answers of an origin: `P` passes, `d` passes and is degraded, `F` fails, `-` gives no verdict, `!` panics, `.` never ends. `ADDRESS
    /// KIND` sets them for probes of that kind only.
    fn set(&mut self, address: &str, answer: char) {
        self.origins.insert(address.to_owned(), answer);
    }

    fn take(&mut self, effects: Effects) {
        for (pool, view) in effects.views {
            if let Some(before) = self.views.insert(pool.name.clone(), view) {
                self.picks_before_publication(&before);
            }
        }
        self.snapshot = effects.snapshot.or(self.snapshot.take());
        self.closed.extend(effects.close_idle.iter().map(|upstream| upstream.address.to_string()));
    }

    /// Requests still pick from the old view while its effects are carried out: none gets what the event took out, nor
    /// a backup in its place.
    fn picks_before_publication(&self, before: &View) {
        let mut rng = fastrand::Rng::with_seed(1);
        let shared = PoolShared::new(self.now);
        let choice = Choice { pool: &shared, tried: &[], key: None, bounded: false, now: self.now };
        let picked = before.pick(before.read(self.now), &choice, &mut rng);
        let Some(picked) = picked.map(|place| before.candidate(place)) else { return };
        assert_eq!(picked.epoch, picked.upstream.connections.epoch(), "{} is lost", picked.upstream.address);
        let primaries = before.primaries.candidates();
        let hold = primaries.iter().all(|candidate| !candidate.upstream.fresh_until.has_come(self.now));
        let is_primary = primaries.iter().any(|candidate| candidate.upstream.id == picked.upstream.id);
        assert!(primaries.is_empty() || !hold || is_primary, "{} instead of a primary", picked.upstream.address);
    }

    /// The state takes the hints of the data path.
    fn take_hints(&mut self) {
        while let Ok(hint) = self.hints.try_recv() {
            let effects = self.state.on_hint(hint, self.now);
            self.take(effects);
        }
    }

    fn configure(&mut self, pools: Vec<PoolPolicy>) -> Applied {
        let config = config(pools);
        let (applied, effects) = self.state.configure(&config, &[], "test", self.now);
        self.take(effects);
        applied
    }

    /// Lets time pass; probes end 2 ms after their start.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            let next_end = self.flying.iter().map(|(at, ..)| *at).min();
            let next = [self.state.next_deadline(), next_end].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            let now = self.now;
            for (_, token, answer) in self.flying.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
                let effects = self.state.on_probes([(token, report(answer))], now);
                self.take(effects);
            }
            let (work, effects) = self.state.on_tick(now);
            self.take(effects);
            self.flying.retain(|(_, token, _)| !work.cancel.contains(token));
            for job in work.start {
                let at = now - self.start;
                self.probes.push((at, job.check.target.to_string(), job.check.spec.kind.as_str()));
                let (target, kind) = (job.check.target.to_string(), job.check.spec.kind.as_str());
                let answer = self.origins.get(&format!("{target} {kind}")).or_else(|| self.origins.get(&target));
                match answer.copied().unwrap_or('F') {
                    '.' => {}
                    answer => self.flying.push((now + 2 * MS, job.token, answer)),
                }
            }
        }
        panic!("the state does not come to rest");
    }

    fn upstream(&self, pool: &str, address: &str) -> UpstreamStatus {
        let status = self.state.status(false, self.now);
        let pool = status.pools.into_iter().find(|p| p.name.as_str() == pool).expect("such a pool");
        pool.upstreams.into_iter().find(|u| u.upstream.address.to_string() == address).expect("such an upstream")
    }

    fn health(&self, pool: &str, address: &str) -> HealthState {
        self.upstream(pool, address).state
    }

    fn eligible(&self, pool: &str) -> Vec<String> {
        let view = &self.views[&name(pool)];
        let of = |tier: &super::super::view::Tier| -> Vec<String> {
            tier.candidates().iter().map(|c| c.upstream.address.to_string()).collect()
        };
        [of(&view.primaries), of(&view.backups)].concat()
    }

    fn service(&self, pool: &str) -> Service {
        self.views[&name(pool)].service
    }

    fn probed_as(&self, address: &str, kind: &str) -> usize {
        self.probes.iter().filter(|(_, target, of)| target == address && *of == kind).count()
    }

    fn probed(&self, address: &str) -> usize {
        self.probes.iter().filter(|(_, target, _)| target == address).count()
    }
}

/// An order, with force or without.
fn ordered(to: AdminState, force: bool) -> Order<'static> {
    let command = match to {
        AdminState::Enabled => Command::Enable,
        AdminState::Draining => Command::Drain { resume: crate::pool::DRAIN_RESUME },
        AdminState::Disabled => Command::Disable,
    };
    Order { command, reason: "", by: "test", force, lasts: None }
}

const A: &str = "127.0.0.1:9001";
const B: &str = "127.0.0.1:9002";
const C: &str = "127.0.0.1:9003";

fn name(text: &str) -> Name {
    Name::try_new(text).unwrap()
}

fn timing() -> Timing {
    Timing {
        interval: SECOND,
        unhealthy_interval: None,
        timeout: SECOND / 2,
        healthy_threshold: 2,
        unhealthy_threshold: 2,
        fast_interval: SECOND / 10,
        start_period: Duration::ZERO,
        jitter: Ratio::ZERO,
    }
}

fn tcp(port: PortRule) -> Arc<ProbeSpec> {
    Arc::new(ProbeSpec { port, ..ProbeSpec::connect() })
}

fn http(path: &str) -> Arc<ProbeSpec> {
    let kind = ProbeKind::Http(HttpProbe::get(path, Expect::default()));
    Arc::new(ProbeSpec { port: PortRule::Same, tls: None, kind, max_duration: None })
}

fn check(spec: Arc<ProbeSpec>, timing: Timing) -> CheckPolicy {
    CheckPolicy { name: spec.kind.as_str().into(), spec, timing, preset: None, tls_files: Arc::default() }
}

fn upstream(address: &str) -> UpstreamPolicy {
    UpstreamPolicy {
        address: address.parse().unwrap(),
        name: None,
        weight: Weight::ONE,
        backup: false,
        health_address: None,
        admin: AdminState::Enabled,
    }
}

fn pool(text: &str, addresses: &[&str]) -> PoolPolicy {
    PoolPolicy {
        name: name(text),
        upstreams: addresses.iter().map(|address| upstream(address)).collect(),
        balance: Balance::RoundRobin,
        when_no_healthy: WhenNoHealthy::Reject,
        min_healthy: MinHealthy::Count(1),
        checks: vec![check(tcp(PortRule::Same), timing())],
        require: Require::All,
        resolve: Duration::from_secs(30),
        traffic: Arc::default(),
    }
}

fn config(pools: Vec<PoolPolicy>) -> Config {
    Config {
        runtime: RuntimePolicy {
            threads: None,
            lane: Lane::Auto,
            drain_delay: Duration::ZERO,
            drain_timeout: 30 * SECOND,
        },
        listeners: vec![],
        routes: vec![],
        pools: pools.into_iter().map(Arc::new).collect(),
        admin: AdminPolicy { address: "127.0.0.1:9900".parse().unwrap(), written: false, token: None },
        forwarded: Arc::default(),
        access_log: None,
    }
}

fn report(answer: char) -> Arc<ProbeReport> {
    let code = match answer {
        'P' | 'd' | 'u' | 'r' | 'm' => Code::L4Ok,
        'F' => Code::L4Con,
        '-' => Code::NoRes,
        '!' => Code::Panic,
        other => panic!("no such answer: {other}"),
    };
    let degraded = (answer == 'd').then(|| crate::model::Ratio::percent(25));
    let asks = match answer {
        'u' => Some(AdminState::Enabled),
        'r' => Some(AdminState::Draining),
        'm' => Some(AdminState::Disabled),
        _ => None,
    };
    Arc::new(ProbeReport { degraded, asks, ..ProbeReport::new(code, 2 * MS, "scripted") })
}

/// A world in which these upstreams of pool `api` are healthy.
fn healthy(addresses: &[&str]) -> World {
    let mut world = World::new();
    addresses.iter().for_each(|address| world.set(address, 'P'));
    world.configure(vec![pool("api", addresses)]);
    world.run(SECOND / 2);
    assert_eq!(world.eligible("api").len(), addresses.len());
    world
}

#[tokio::test(start_paused = true)]
async fn an_upstream_begins_unknown_is_probed_at_once_and_gets_nothing_before_its_passes() {
    let mut world = World::new();
    world.set(A, 'P');
    world.configure(vec![pool("api", &[A])]);
    assert_eq!(world.health("api", A), HealthState::Unknown);
    assert!(world.eligible("api").is_empty());
    world.run(Duration::ZERO);
    assert_eq!(world.probed(A), 1);
    world.run(99 * MS);
    assert!(world.eligible("api").is_empty(), "one pass of two is not enough");
    world.run(10 * MS);
    assert_eq!(world.eligible("api"), [A]);
    assert_eq!(world.upstream("api", A).transitions_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_upstream_is_out_within_the_detection_time() {
    let mut world = healthy(&[A, B]);
    world.set(A, 'F');
    world.run(timing().worst_detection());
    assert_eq!(world.health("api", A), HealthState::Unhealthy);
    assert_eq!(world.eligible("api"), [B]);
    assert_eq!(world.closed, [A], "its idle connections close");
    let why = world.upstream("api", A).why.unwrap();
    assert_eq!(why, "L4CON: scripted");
}

#[tokio::test(start_paused = true)]
async fn first_probes_start_at_most_a_thousand_a_second() {
    let mut world = World::new();
    let addresses: Vec<String> = (0..2_000).map(|i| format!("127.1.{}.{}:80", i / 250, i % 250 + 1)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.configure(vec![PoolPolicy {
        checks: vec![check(
            tcp(PortRule::Same),
            Timing { interval: 60 * SECOND, fast_interval: 60 * SECOND, ..timing() },
        )],
        ..pool("api", &addresses)
    }]);
    world.run(SECOND / 2);
    assert!((500..=501).contains(&world.probes.len()), "{}", world.probes.len());
    world.run(2 * SECOND);
    assert_eq!(world.probes.len(), 2_000);
}

#[tokio::test(start_paused = true)]
async fn equal_checks_share_one_probe_and_different_ones_are_independent() {
    let mut world = World::new();
    world.set(A, 'P');
    world.set("127.0.0.1:9101", 'F');
    let other = check(tcp(PortRule::Offset(100)), timing());
    let pools = vec![pool("one", &[A]), pool("two", &[A]), PoolPolicy { checks: vec![other], ..pool("three", &[A]) }];
    world.configure(pools);
    world.run(2 * SECOND);
    assert_eq!(world.health("one", A), HealthState::Healthy);
    assert_eq!(world.health("two", A), HealthState::Healthy);
    assert_eq!(world.health("three", A), HealthState::Unhealthy);
    let status = world.upstream("two", A);
    assert_eq!(status.checks_total as usize, world.probed(A), "one probe serves both");
}

#[tokio::test(start_paused = true)]
async fn a_reload_without_a_change_of_the_check_keeps_everything() {
    let mut world = healthy(&[A, B]);
    world.set(B, 'F');
    world.run(3 * SECOND);
    let before = (world.upstream("api", A), world.upstream("api", B));
    let heavier = UpstreamPolicy { weight: Weight::try_new(5).unwrap(), ..upstream(A) };
    let changed = PoolPolicy {
        upstreams: vec![heavier, UpstreamPolicy { backup: true, ..upstream(B) }],
        balance: Balance::Random,
        ..pool("api", &[])
    };
    for _ in 0..200 {
        world.configure(vec![pool("api", &[A, B])]);
        world.configure(vec![changed.clone()]);
    }
    let after = (world.upstream("api", A), world.upstream("api", B));
    for (before, after) in [(before.0, after.0), (before.1, after.1)] {
        assert_eq!(after.state, before.state);
        assert_eq!(after.since, before.since);
        assert_eq!(after.streak, before.streak);
        assert_eq!(after.next_due, before.next_due);
        assert_eq!(after.checks_total, before.checks_total);
        assert!(Arc::ptr_eq(&after.upstream, &before.upstream), "load and counters stay");
        assert!(!after.carried);
    }
    assert_eq!(world.eligible("api"), [A]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_definition_carries_the_verdict_until_the_new_check_has_one() {
    for (new, want) in [('P', HealthState::Healthy), ('F', HealthState::Unhealthy)] {
        let mut world = healthy(&[A, B]);
        world.set(B, 'F');
        world.run(3 * SECOND);
        let changed = check(http("/healthz"), timing());
        let probes = world.probes.len();
        world.set(A, new);
        world.configure(vec![PoolPolicy { checks: vec![changed], ..pool("api", &[A, B]) }]);
        let (a, b) = (world.upstream("api", A), world.upstream("api", B));
        assert_eq!((a.state, a.carried), (HealthState::Healthy, true));
        assert_eq!((b.state, b.carried), (HealthState::Unhealthy, true));
        assert_eq!(a.streak, None);
        assert!(b.streak.is_some_and(|s| !s.pass), "a failing run goes on");
        assert_eq!(world.eligible("api"), [A]);
        world.run(5 * MS);
        assert_eq!(world.probes.len(), probes + 2, "probed at once");
        assert_eq!(world.eligible("api"), [A], "one result is not a verdict");
        world.run(SECOND / 2);
        let a = world.upstream("api", A);
        assert_eq!((a.state, a.carried), (want, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_result_of_the_old_definition_is_dropped() {
    let mut world = healthy(&[A]);
    world.set(A, '.');
    world.run(2 * SECOND);
    let (token, _) = world.state.flights.iter().map(|(t, c)| (*t, *c)).next().expect("a probe hangs");
    let changed = check(http("/healthz"), timing());
    world.configure(vec![PoolPolicy { checks: vec![changed], ..pool("api", &[A]) }]);
    let (work, _) = world.state.on_tick(world.now);
    assert_eq!(work.cancel, [token]);
    world.state.on_probes([(token, report('F')), (token, report('F'))], world.now);
    let a = world.upstream("api", A);
    assert_eq!((a.state, a.streak), (HealthState::Healthy, None));
}

#[tokio::test(start_paused = true)]
async fn a_new_timing_carries_state_and_run_and_the_probe_in_flight() {
    let mut world = healthy(&[A]);
    world.set(A, 'F');
    world.run(SECOND + 3 * MS);
    let slower = Timing { unhealthy_threshold: 5, ..timing() };
    world.configure(vec![PoolPolicy { checks: vec![check(tcp(PortRule::Same), slower)], ..pool("api", &[A]) }]);
    let a = world.upstream("api", A);
    assert_eq!(a.state, HealthState::Healthy);
    assert!(a.streak.is_some_and(|s| !s.pass && s.needed == 5));
    assert!(!a.carried);
    assert_eq!(world.state.checks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_pool_changing_its_timing_leaves_the_other_pool_its_check() {
    let mut world = World::new();
    world.set(A, 'P');
    world.configure(vec![pool("one", &[A]), pool("two", &[A])]);
    world.run(SECOND);
    let slower = check(tcp(PortRule::Same), Timing { healthy_threshold: 3, ..timing() });
    world.configure(vec![pool("one", &[A]), PoolPolicy { checks: vec![slower], ..pool("two", &[A]) }]);
    assert_eq!(world.state.checks.len(), 2);
    assert_eq!(world.health("one", A), HealthState::Healthy);
    assert_eq!(world.health("two", A), HealthState::Healthy);
    world.configure(vec![pool("one", &[A]), pool("two", &[A])]);
    assert_eq!(world.state.checks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_or_split_pool_takes_the_existing_verdict() {
    let mut world = healthy(&[A, B]);
    world.configure(vec![pool("renamed", &[A]), pool("split", &[B])]);
    assert_eq!(world.eligible("renamed"), [A]);
    assert_eq!(world.eligible("split"), [B]);
    assert_eq!(world.upstream("renamed", A).transitions_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_upstream_is_gone_and_its_probe_ends() {
    let mut world = healthy(&[A, B]);
    world.configure(vec![pool("api", &[A])]);
    assert_eq!(world.eligible("api"), [A]);
    assert_eq!(world.closed, [B]);
    let probed = world.probed(B);
    world.run(5 * SECOND);
    assert_eq!(world.probed(B), probed);
    assert_eq!(world.state.checks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn removed_healthy_members_serve_until_a_new_one_is_healthy() {
    let mut world = healthy(&[A]);
    world.set(B, 'P');
    let applied = world.configure(vec![pool("api", &[B])]);
    assert_eq!(applied.warming, [(name("api"), world.now + 30 * SECOND)]);
    assert_eq!(world.eligible("api"), [A]);
    assert!(world.upstream("api", A).retiring);
    world.run(SECOND / 2);
    assert_eq!(world.eligible("api"), [B]);
    assert_eq!(world.state.checks.len(), 1, "the removed one is not probed any more");
}

#[tokio::test(start_paused = true)]
async fn retiring_ends_after_thirty_seconds_and_a_further_reload_does_not_extend_it() {
    let mut world = healthy(&[A]);
    world.configure(vec![pool("api", &[B])]);
    world.run(20 * SECOND);
    assert_eq!(world.eligible("api"), [A]);
    let applied = world.configure(vec![pool("api", &[C])]);
    assert_eq!(applied.warming, [(name("api"), world.now + 10 * SECOND)]);
    world.run(9 * SECOND);
    assert_eq!(world.eligible("api"), [A]);
    world.run(2 * SECOND);
    assert!(world.eligible("api").is_empty());
    assert!(matches!(world.service("api"), Service::NoneEligible(Otherwise::Reject)));
}

#[tokio::test(start_paused = true)]
async fn a_failing_retiring_member_stops_serving() {
    let mut world = healthy(&[A]);
    world.configure(vec![pool("api", &[B])]);
    world.set(A, 'F');
    world.run(3 * SECOND);
    assert!(world.eligible("api").is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_wait_while_a_first_probe_is_young_and_not_longer() {
    let mut world = World::new();
    world.set(A, '.');
    world.configure(vec![pool("api", &[A])]);
    assert!(matches!(world.service("api"), Service::Waiting { then: Otherwise::Reject, .. }));
    world.run(2_999 * MS);
    assert!(matches!(world.service("api"), Service::Waiting { .. }));
    world.run(10 * MS);
    assert_eq!(world.service("api"), Service::NoneEligible(Otherwise::Reject));
}

#[tokio::test(start_paused = true)]
async fn backups_serve_only_without_primaries_and_wait_for_a_first_verdict() {
    let mut world = World::new();
    world.set(A, '.');
    world.set(B, 'P');
    let backup = UpstreamPolicy { backup: true, ..upstream(B) };
    world.configure(vec![PoolPolicy { upstreams: vec![upstream(A), backup], ..pool("api", &[]) }]);
    world.run(SECOND);
    assert!(matches!(world.service("api"), Service::Waiting { .. }), "the primary may still come");
    world.run(3 * SECOND);
    assert_eq!(world.service("api"), Service::Open);
    assert_eq!(world.eligible("api"), [B]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_below_min_healthy_has_no_eligible_upstream() {
    let mut world = World::new();
    [A, B, C].iter().for_each(|address| world.set(address, 'P'));
    let share = MinHealthy::Share(Ratio::try_new(0.5).unwrap());
    world.configure(vec![PoolPolicy { min_healthy: share, ..pool("api", &[A, B, C]) }]);
    world.run(SECOND);
    world.set(A, 'F');
    world.run(3 * SECOND);
    assert_eq!(world.service("api"), Service::Open);
    world.set(B, 'F');
    world.run(3 * SECOND);
    assert_eq!(world.service("api"), Service::NoneEligible(Otherwise::Reject), "one of three is fewer than half");
    let left = world.upstream("api", C);
    assert_eq!((left.state, left.eligibility.is_eligible()), (HealthState::Healthy, false));
    assert_eq!(left.why.as_deref(), Some("fewer upstreams are healthy than min_healthy requires"));
    assert_eq!(world.state.status(false, world.now).pools[0].eligible, 0, "status and requests agree");
}

#[tokio::test(start_paused = true)]
async fn fail_open_uses_all_enabled_upstreams_and_logs_once() {
    let mut world = World::new();
    [A, B, C].iter().for_each(|address| world.set(address, 'F'));
    let disabled = UpstreamPolicy { admin: AdminState::Disabled, ..upstream(C) };
    world.configure(vec![PoolPolicy {
        when_no_healthy: WhenNoHealthy::FailOpen,
        upstreams: vec![upstream(A), upstream(B), disabled],
        ..pool("api", &[])
    }]);
    world.run(10 * SECOND);
    assert_eq!(world.service("api"), Service::FailOpen);
    assert_eq!(world.eligible("api"), [A, B]);
    let began = |e: &Event| matches!(e.kind, EventKind::OutageBegan { way: Way::FailOpen, .. });
    let episodes = || world.state.events_after(0).into_iter().filter(began);
    assert_eq!(episodes().count(), 1);
    let status = world.state.status(false, world.now);
    assert!(status.pools[0].fail_open);
    assert_eq!(status.pools[0].summary, PoolSummary::Degraded);
}

#[tokio::test(start_paused = true)]
async fn another_pool_takes_over_by_number() {
    let mut world = World::new();
    world.set(B, 'P');
    let when = WhenNoHealthy::Pool(name("spare"));
    world.configure(vec![PoolPolicy { when_no_healthy: when, ..pool("api", &[A]) }, pool("spare", &[B])]);
    world.run(4 * SECOND);
    let Service::NoneEligible(Otherwise::Pool(id)) = world.service("api") else { panic!("{:?}", world.service("api")) };
    assert_eq!(world.snapshot.as_ref().unwrap().pool(id).unwrap().name, name("spare"));
}

#[tokio::test(start_paused = true)]
async fn draining_and_disabled_upstreams_are_probed_and_take_nothing() {
    let mut world = healthy(&[A, B]);
    let address: Address = A.parse().unwrap();
    for state in [AdminState::Draining, AdminState::Disabled] {
        let (_, effects) = world.state.order(Some("api"), &address, &ordered(state, true), world.now).unwrap();
        world.take(effects);
        assert_eq!(world.eligible("api"), [B]);
        let probed = world.probed(A);
        world.run(3 * SECOND);
        assert!(world.probed(A) > probed);
        assert_eq!(world.health("api", A), HealthState::Healthy);
    }
    world.configure(vec![pool("api", &[A, B])]);
    assert_eq!(world.eligible("api"), [B], "the override survives a reload");
    world.configure(vec![pool("api", &[B])]);
    world.configure(vec![pool("api", &[A, B])]);
    world.run(SECOND);
    assert_eq!(world.eligible("api"), [A, B], "and ends when the upstream leaves the file");
    let none =
        world.state.order(Some("api"), &"127.0.0.1:1".parse().unwrap(), &ordered(AdminState::Enabled, true), world.now);
    assert!(matches!(none, Err(OrderError::NoUpstream { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_panic_makes_that_upstream_unknown_and_no_other() {
    let mut world = healthy(&[A, B]);
    world.set(A, '!');
    world.run(SECOND);
    assert_eq!(world.health("api", A), HealthState::Unknown);
    assert_eq!(world.upstream("api", A).why.as_deref(), Some("its probe panicked"));
    assert_eq!(world.eligible("api"), [B]);
    assert!(world.state.status(false, world.now).checker.probe_panics_total > 0);
    world.set(A, 'P');
    world.run(SECOND);
    assert_eq!(world.eligible("api"), [A, B]);
}

#[tokio::test(start_paused = true)]
async fn a_carried_verdict_ends_with_a_panic_and_with_silence() {
    for answer in ['!', '.'] {
        let mut world = healthy(&[A]);
        world.set(A, answer);
        let changed = check(http("/healthz"), timing());
        world.configure(vec![PoolPolicy { checks: vec![changed], ..pool("api", &[A]) }]);
        assert!(world.upstream("api", A).carried);
        assert_eq!(world.eligible("api"), [A]);
        world.run(31 * SECOND);
        assert_eq!(world.health("api", A), HealthState::Unknown, "{answer}");
        assert!(!world.upstream("api", A).carried);
        assert!(world.eligible("api").is_empty());
        let deadline = world.state.next_deadline();
        assert!(deadline.is_none_or(|at| at > world.now), "the timer does not spin");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_listener_routes_as_before_for_a_while() {
    let mut world = World::new();
    let (web, other) = ((name("web"), ListenerId(0)), (name("other"), ListenerId(1)));
    let listener = |entry: &(Name, ListenerId), port: u16| ListenerPolicy {
        name: entry.0.clone(),
        address: format!("127.0.0.1:{port}").parse().unwrap(),
        pool: Some(name("api")),
        client: ClientPolicy::default(),
        rate_limit: None,
        marks: Arc::default(),
        ready_path: None,
    };
    let both = Config { listeners: vec![listener(&web, 1), listener(&other, 2)], ..config(vec![pool("api", &[A])]) };
    let one = Config { listeners: vec![listener(&web, 1)], ..config(vec![pool("api", &[A])]) };
    let apply = |world: &mut World, config: &Config, listeners: &[(Name, ListenerId)]| {
        let (_, effects) = world.state.configure(config, listeners, "test", world.now);
        world.take(effects);
        world.snapshot.clone().unwrap()
    };
    apply(&mut world, &both, &[web.clone(), other.clone()]);
    for _ in 0..3 {
        let snapshot = apply(&mut world, &one, std::slice::from_ref(&web));
        assert!(snapshot.listener(other.1).is_none());
        assert_eq!(snapshot.routing(other.1).listener(other.1).and_then(|entry| entry.pool), Some(PoolId(0)));
        assert!(snapshot.departed()[0].last.departed().is_empty(), "no chain of old configurations");
        world.run(SECOND);
    }
    world.run(15 * SECOND);
    let snapshot = apply(&mut world, &one, std::slice::from_ref(&web));
    assert!(snapshot.departed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lack_of_our_own_resources_gives_no_verdict() {
    let mut world = healthy(&[A]);
    world.set(A, '-');
    world.run(28 * SECOND);
    assert_eq!(world.eligible("api"), [A]);
    assert_eq!(world.upstream("api", A).last_check.unwrap().report.code, Code::NoRes);
    world.run(4 * SECOND);
    assert_eq!(world.health("api", A), HealthState::Unknown, "but it confirms none either");
    assert!(world.eligible("api").is_empty());
    world.set(A, 'P');
    world.run(SECOND / 2);
    assert_eq!(world.eligible("api"), [A]);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_no_probe_confirms_goes_stale() {
    let mut world = healthy(&[A]);
    world.set(A, '.');
    world.run(28 * SECOND);
    assert_eq!(world.eligible("api"), [A]);
    world.run(4 * SECOND);
    assert_eq!(world.health("api", A), HealthState::Unknown);
    assert!(world.eligible("api").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hint_brings_the_next_probe_forward_and_changes_no_verdict() {
    let mut world = healthy(&[A]);
    world.run(2 * SECOND);
    let status = world.upstream("api", A);
    let before = world.probed(A);
    world.run(status.next_due - world.now + 150 * MS);
    assert_eq!(world.probed(A), before + 1);
    world.state.on_hint(Hint::Failed(status.upstream.id), world.now);
    assert_eq!(world.health("api", A), HealthState::Healthy);
    world.run(MS);
    assert_eq!(world.probed(A), before + 2);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_scheduler_keeps_verdicts_and_probes_again() {
    let mut world = healthy(&[A]);
    world.set(A, '.');
    world.run(2 * SECOND);
    world.set(A, 'P');
    let effects = world.state.on_scheduler_restart(world.now);
    world.take(effects);
    assert_eq!(world.eligible("api"), [A]);
    let probed = world.probed(A);
    world.run(10 * MS);
    assert_eq!(world.probed(A), probed + 1);
    assert_eq!(world.state.status(false, world.now).checker.restarts_total, 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_counts_to_the_first_possible_pass() {
    for unhealthy_interval in [None, Some(100 * SECOND)] {
        let mut world = World::new();
        let interval = 20 * SECOND;
        let (healthy_threshold, fast_interval) = (3, 2 * SECOND);
        let timing = Timing { interval, unhealthy_interval, healthy_threshold, fast_interval, ..timing() };
        world.configure(vec![PoolPolicy { checks: vec![check(tcp(PortRule::Same), timing)], ..pool("api", &[A]) }]);
        // Until some time after a probe, wherever its slot is.
        world.run(250 * SECOND);
        let (last, _, _) = world.probes.last().cloned().expect("it was probed");
        let status = world.upstream("api", A);
        assert_eq!(status.state, HealthState::Unhealthy);
        let in_force = unhealthy_interval.unwrap_or(interval);
        assert_eq!(status.next_due - world.start, last + in_force);
        let snapshot = world.snapshot.as_ref().unwrap();
        let pool = snapshot.pools().next().unwrap();
        let want = (status.next_due - world.now).as_secs_f64() + 2.0 * 2.0;
        assert_eq!(pool.shared.retry_after(world.now), want.ceil() as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn pools_share_a_probe_only_with_the_same_unhealthy_interval() {
    let with = |unhealthy_interval: Option<Duration>| {
        vec![check(tcp(PortRule::Same), Timing { unhealthy_interval, ..timing() })]
    };
    for (other, checks) in [(Some(5 * SECOND), 1), (Some(6 * SECOND), 2), (None, 2)] {
        let mut world = World::new();
        world.configure(vec![
            PoolPolicy { checks: with(Some(5 * SECOND)), ..pool("api", &[A]) },
            PoolPolicy { checks: with(other), ..pool("other", &[A]) },
        ]);
        assert_eq!(world.state.checks.len(), checks, "{other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_of_many_are_spread_over_the_interval() {
    let mut world = World::new();
    let addresses: Vec<String> = (0..1_000).map(|i| format!("127.1.{}.{}:80", i / 250, i % 250 + 1)).collect();
    addresses.iter().for_each(|address| world.set(address, 'P'));
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.configure(vec![pool("api", &addresses)]);
    world.run(10 * SECOND);
    let from = world.probes.len();
    world.run(SECOND);
    let mut windows = [0usize; 10];
    for (at, ..) in &world.probes[from..] {
        windows[(at.as_millis() as usize / 100) % 10] += 1;
    }
    assert!((990..=1_010).contains(&(world.probes.len() - from)), "{}", world.probes.len() - from);
    assert!(windows.iter().all(|n| *n <= 200), "{windows:?}");
}
