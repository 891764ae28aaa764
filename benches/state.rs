//! Question: how many probe results per second can the single writer of a pool's state process, and what does a change
//! of an upstream's health cost in a pool of 3, 100 and 10,000?
//!
//! `pass/N`: a probe starts and passes, and nothing changes (nearly all probes). `flip/N`: it ends the other way, so
//! that its upstream changes state and a view is built. `track`: the verdict of one check alone, without the pool.
//! `reload/10000`: the same configuration once more, every verdict kept, and a snapshot and views made. `memory`:
//! resident bytes for each of 10,000 upstreams that have become healthy and not changed since, the prober's own share
//! aside.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use roundsman::health::Track;
use roundsman::health::track::Slot;
use roundsman::model::policy::*;
use roundsman::model::{Address, AdminState, Code, Judgement, Name, ProbeReport, Ratio, Trace, Weight};
use roundsman::pool::Hints;
use roundsman::pool::state::{ProbeToken, State};
use tokio::time::Instant;

const TIMING: Timing = Timing {
    interval: Duration::from_secs(1),
    unhealthy_interval: None,
    timeout: Duration::from_millis(500),
    healthy_threshold: 1,
    unhealthy_threshold: 1,
    fast_interval: Duration::from_secs(1),
    start_period: Duration::ZERO,
    jitter: Ratio::ZERO,
};

fn config(upstreams: usize) -> Config {
    let upstreams = (0..upstreams).map(|i| UpstreamPolicy {
        address: format!("10.{}.{}.{}:80", i >> 16, i >> 8 & 255, i & 255).parse().expect("an address"),
        name: None,
        weight: Weight::ONE,
        backup: false,
        health_address: None,
        admin: AdminState::Enabled,
    });
    let pool = PoolPolicy {
        name: Name::try_new("api").expect("a name"),
        upstreams: upstreams.collect(),
        balance: Balance::RoundRobin,
        when_no_healthy: WhenNoHealthy::Reject,
        min_healthy: MinHealthy::Count(1),
        checks: vec![CheckPolicy {
            name: "tcp".into(),
            spec: Arc::new(ProbeSpec::connect()),
            timing: TIMING,
            preset: None,
            tls_files: Arc::default(),
        }],
        require: Require::All,
        resolve: Duration::from_secs(30),
        traffic: Arc::default(),
    };
    let second = Duration::from_secs(1);
    Config {
        runtime: RuntimePolicy { threads: None, lane: Lane::Auto, drain_delay: Duration::ZERO, drain_timeout: second },
        listeners: vec![],
        routes: vec![],
        pools: vec![Arc::new(pool)],
        admin: AdminPolicy { address: "127.0.0.1:9900".parse().expect("an address"), written: false, token: None },
        forwarded: Arc::default(),
        access_log: None,
    }
}

fn report(code: Code) -> Arc<ProbeReport> {
    let (head, body) = (Box::from([b'h'; 200]), Box::from([b'b'; 64]));
    let trace = Trace { head, body, ..Trace::default() };
    Arc::new(ProbeReport { trace, ..ProbeReport::new(code, Duration::from_millis(1), "connected") })
}

/// A pool whose probes end one by one, in the order in which they are due.
struct World {
    state: State,
    now: Instant,
    due: VecDeque<(ProbeToken, Address)>,
    healthy: HashMap<Address, bool>,
}

impl World {
    fn new(upstreams: usize) -> World {
        let now = Instant::now();
        let mut state = State::new(now, 1, Hints::none());
        state.configure(&config(upstreams), &[], "bench", now);
        let mut world = World { state, now, due: VecDeque::new(), healthy: HashMap::new() };
        while world.healthy.len() < upstreams {
            world.wait();
            let batch: Vec<_> = world.due.drain(..).collect();
            world.healthy.extend(batch.iter().map(|(_, address)| (address.clone(), true)));
            let ended = batch.into_iter().map(|(token, _)| (token, report(Code::L4Ok)));
            world.state.on_probes(ended, world.now);
        }
        assert_eq!(world.eligible(), upstreams, "every upstream is healthy before anything is measured");
        world
    }

    fn eligible(&self) -> usize {
        self.state.status(false, self.now).pools[0].eligible
    }

    /// Advances to the next instant at which probes are due.
    fn wait(&mut self) {
        while self.due.is_empty() {
            self.now = self.now.max(self.state.next_deadline().expect("a probe is always due"));
            let (work, _) = self.state.on_tick(self.now);
            self.due.extend(work.start.into_iter().map(|job| (job.token, job.check.upstream.clone())));
        }
    }

    /// The next due probe passes.
    fn pass(&mut self) {
        self.wait();
        let (token, _) = self.due.pop_front().expect("not empty");
        self.state.on_probes([(token, report(Code::L4Ok))], self.now);
    }

    /// The next due probe contradicts the state of its upstream.
    fn flip(&mut self) {
        self.wait();
        let (token, address) = self.due.pop_front().expect("not empty");
        let healthy = self.healthy.get_mut(&address).expect("every upstream is known");
        *healthy = !*healthy;
        let code = if *healthy { Code::L4Ok } else { Code::L4Con };
        self.state.on_probes([(token, report(code))], self.now);
    }

    /// Changes of state so far, of all upstreams.
    fn transitions(&self) -> u64 {
        let status = self.state.status(false, self.now);
        status.pools[0].upstreams.iter().map(|upstream| upstream.transitions_total).sum()
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux always reports it");
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
}

fn reload(c: &mut Criterion) {
    let before = resident();
    let mut world = World::new(10_000);
    println!("memory: {} bytes an upstream", resident().saturating_sub(before) / 10_000);
    let config = config(10_000);
    c.bench_function("reload/10000", |b| {
        b.iter(|| {
            let (_, effects) = world.state.configure(&config, &[], "bench", world.now);
            assert!(effects.snapshot.is_some() && effects.views.len() == 1);
            effects
        })
    });
    let (work, _) = world.state.on_tick(world.now);
    assert!(work.start.len() < 100, "no burst: {}", work.start.len());
    assert_eq!(world.eligible(), 10_000, "verdicts are kept");
}

fn benches(c: &mut Criterion) {
    reload(c);
    for n in [3, 100, 10_000] {
        let mut world = World::new(n);
        c.bench_function(&format!("pass/{n}"), |b| b.iter(|| world.pass()));
        assert_eq!(world.eligible(), n, "nothing has changed");
        let before = world.transitions();
        c.bench_function(&format!("flip/{n}"), |b| b.iter(|| world.flip()));
        let wrong = world.healthy.values().filter(|healthy| **healthy).count() != world.eligible();
        assert!(!wrong && world.transitions() > before, "every answer was a change of state");
    }
    let now = Instant::now();
    let mut track = Track::new(TIMING, Slot { origin: now, part: 0 }, now, now);
    let mut clock = now;
    c.bench_function("track", |b| {
        b.iter(|| {
            clock += Duration::from_secs(1);
            track.on_start(clock);
            track.on_end(Judgement::Pass, clock, 0.5)
        });
    });
}

criterion_group! {
    name = group;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = benches
}
criterion_main!(group);
