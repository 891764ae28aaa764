//! Which upstreams may be picked over any history of answers, orders and reloads, compared with a reference that counts
//! anew after each step; and what a reload does to a pool that served.

use proptest::prelude::*;

use super::*;

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// These probes of this upstream pass or fail from now on.
    Answer(usize, &'static str, bool),
    /// Time passes.
    Run(u64),
    /// A reload, or a change of the addresses of a host name, which is handled the same way.
    Reload(File, bool),
    /// An operator's order.
    Admin(usize, AdminState),
}

/// The configuration of pool `api`.
#[derive(Debug, Clone)]
struct File {
    members: [bool; 4],
    backups: [bool; 4],
    min_healthy: u32,
    thresholds: (u32, u32),
    /// Which checks: `tcp`, `http`, or both.
    kinds: (bool, bool),
    require: Require,
    /// Another pool checks every upstream with the same `http` check.
    judged: bool,
    /// The interval, in seconds.
    interval: u32,
    /// Unhealthy upstreams are probed at a third of that rate.
    rarely: bool,
}

const ALL: [&str; 4] = [A, B, C, "127.0.0.1:9004"];

fn file() -> impl Strategy<Value = File> {
    let require = prop_oneof![Just(Require::All), Just(Require::Any)];
    let (bools, kinds) =
        (any::<[bool; 4]>(), prop_oneof![Just((true, false)), Just((false, true)), Just((true, true))]);
    let intervals = (prop_oneof![Just(1), Just(300)], any::<bool>());
    (bools, bools, 1u32..3, (1u32..3, 1u32..4), kinds, require, any::<bool>(), intervals).prop_map(
        |(members, backups, min_healthy, thresholds, kinds, require, judged, (interval, rarely))| {
            let members = if members == [false; 4] { [true, false, false, false] } else { members };
            File { members, backups, min_healthy, thresholds, kinds, require, judged, interval, rarely }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just("tcp"), Just("http")];
    let admin = prop_oneof![Just(AdminState::Enabled), Just(AdminState::Draining), Just(AdminState::Disabled)];
    prop_oneof![
        3 => (0usize..4, kind, prop::bool::weighted(0.6)).prop_map(|(i, kind, pass)| Step::Answer(i, kind, pass)),
        3 => (1u64..3_000).prop_map(Step::Run),
        1 => (30_000u64..120_000).prop_map(Step::Run),
        4 => (file(), any::<bool>()).prop_map(|(file, readdress)| Step::Reload(file, readdress)),
        1 => (0usize..4, admin).prop_map(|(i, to)| Step::Admin(i, to)),
    ]
}

impl File {
    fn pools(&self) -> Vec<PoolPolicy> {
        let (healthy_threshold, unhealthy_threshold) = self.thresholds;
        let interval = SECOND * self.interval;
        let unhealthy_interval = self.rarely.then_some(3 * interval);
        let timing = Timing { interval, unhealthy_interval, healthy_threshold, unhealthy_threshold, ..timing() };
        let spec = |kind| if kind == "tcp" { tcp(PortRule::Same) } else { http("/healthz") };
        let kinds = [("tcp", self.kinds.0), ("http", self.kinds.1)].into_iter().filter(|(_, wanted)| *wanted);
        let checks = kinds.map(|(kind, _)| check(spec(kind), timing)).collect();
        let member = |i: &usize| UpstreamPolicy { backup: self.backups[*i], ..upstream(ALL[*i]) };
        let upstreams = (0..4).filter(|i| self.members[*i]).collect::<Vec<_>>().iter().map(member).collect();
        let (require, min_healthy) = (self.require, MinHealthy::Count(self.min_healthy));
        let mut pools = vec![PoolPolicy { checks, require, min_healthy, upstreams, ..pool("api", &[]) }];
        if self.judged {
            pools.push(PoolPolicy { checks: vec![check(spec("http"), timing)], ..pool("judge", &ALL) });
        }
        pools
    }
}

/// What the reference knows of pool `api` at one instant.
struct Seen {
    members: Vec<UpstreamStatus>,
    open: bool,
    /// How many configured upstreams must be healthy, and of which rank.
    needed: usize,
    backups_alone: bool,
}

impl Seen {
    fn of(world: &World, file: &File) -> Seen {
        let status = world.state.status(false, world.now);
        let backups_alone = (0..4).all(|i| !file.members[i] || file.backups[i]);
        let needed = file.min_healthy as usize;
        let members = status.pools.into_iter().next().expect("pool api").upstreams;
        Seen { members, open: world.service("api") == Service::Open, needed, backups_alone }
    }

    /// Healthy and enabled members, by address.
    fn able<'a>(&'a self, which: impl Fn(&UpstreamStatus) -> bool + 'a) -> impl Iterator<Item = &'a UpstreamStatus> {
        let able = |u: &&UpstreamStatus| u.state == HealthState::Healthy && u.admin == AdminState::Enabled;
        self.members.iter().filter(able).filter(move |u| which(u))
    }

    /// Whether the configured upstreams can serve alone: primaries, else backups for backups.
    fn alone(&self) -> bool {
        let count = |backup| self.able(|u| !u.retiring && u.backup == backup).count();
        let primary_leaves = self.members.iter().any(|u| u.retiring && !u.backup);
        match self.backups_alone {
            true => count(true) >= self.needed.max(1),
            false => count(false) >= self.needed.max(1) || (count(true) > 0 && !primary_leaves),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// No upstream is picked that is not healthy and enabled, or that has never passed. A reload takes no upstream from
    /// a pool that served and cannot serve alone afterwards; a retiring upstream leaves when it can, or after 30 s.
    #[test]
    fn a_reload_empties_no_pool_and_makes_no_upstream_eligible(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        let all_checks = (1, (2, 2), (true, false), Require::All);
        let (min_healthy, thresholds, kinds, require) = all_checks;
        let (members, backups) = ([true; 4], [false; 4]);
        let mut file = File { members, backups, min_healthy, thresholds, kinds, require, judged: false, interval: 1, rarely: false };
        let mut ever_passing = [false; 4];
        world.configure(file.pools());
        let mut removed_at = None;
        for step in &steps {
            let before = Seen::of(&world, &file);
            let was_warming = before.members.iter().any(|u| u.retiring);
            match step {
                Step::Answer(i, kind, pass) => {
                    ever_passing[*i] |= pass;
                    world.set(&format!("{} {kind}", ALL[*i]), if *pass { 'P' } else { 'F' });
                }
                Step::Run(ms) => world.run(Duration::from_millis(*ms)),
                Step::Reload(new, readdress) => {
                    file = new.clone();
                    if *readdress {
                        let effects = world.state.readdress(&config(file.pools()), &[], world.now);
                        world.take(effects);
                    } else {
                        world.configure(file.pools());
                    }
                }
                Step::Admin(i, to) => {
                    let (address, open) = (ALL[*i].parse().unwrap(), world.service("api") == Service::Open);
                    match world.state.order(Some("api"), &address, &ordered(*to, false), world.now) {
                        Ok((_, effects)) => {
                            world.take(effects);
                            // Enabling may close it: requests then wait for the first verdict of a primary.
                            let closing = open && *to != AdminState::Enabled && world.service("api") != Service::Open;
                            prop_assert!(!closing, "{:?} without force closed the pool: {:?}", step, steps);
                        }
                        Err(OrderError::NeedsForce(why)) => {
                            let served = world.eligible("api").contains(&ALL[*i].to_owned());
                            prop_assert!(served && *to != AdminState::Enabled, "{} at {:?}: {:?}", why, step, steps);
                            let forced = world.state.order(Some("api"), &address, &ordered(*to, true), world.now);
                            world.take(forced.expect("force does it").1);
                            let left = world.eligible("api").len();
                            let few = world.service("api") != Service::Open || left < why.needed;
                            prop_assert!(few, "{} is not a reason at {:?}: {:?}", why, step, steps);
                        }
                        Err(OrderError::NoPool(_) | OrderError::NoUpstream { .. } | OrderError::Conflict(_)) => {}
                    }
                }
            }
            let after = Seen::of(&world, &file);
            let eligible = world.eligible("api");
            let retiring: Vec<String> = after.members.iter().filter(|u| u.retiring).map(|u| u.upstream.address.to_string()).collect();
            // None that is not able, and none that never passed.
            for address in &eligible {
                prop_assert!(after.able(|u| u.upstream.address.to_string() == *address).count() == 1, "{} after {:?}", address, step);
                let i = ALL.iter().position(|a| a == address).unwrap();
                prop_assert!(ever_passing[i], "{} never passed", address);
            }
            if let Step::Reload(..) = step {
                // Upstreams that left although the pool may need them.
                let gone = before.able(|_| true).map(|u| u.upstream.address.to_string());
                let gone: Vec<String> = gone.filter(|a| (0..4).all(|i| ALL[i] != a || !file.members[i])).collect();
                if before.open && !after.alone() && !gone.is_empty() {
                    for address in &gone {
                        prop_assert!(retiring.contains(address), "{} went, and {:?} cannot serve: {:?}", address, step, steps);
                    }
                    // Enough of those that served are still able, by the rule under which they did.
                    let by_backups = !before.backups_alone && before.able(|u| !u.backup).count() < before.needed.max(1);
                    let needed = if by_backups { 1 } else { before.needed };
                    let rank = before.backups_alone || by_backups;
                    if after.able(|u| u.backup == rank).count() >= needed.max(1) {
                        prop_assert!(!eligible.is_empty(), "the pool is empty after {:?} of {:?}", step, steps);
                    }
                    if !was_warming {
                        removed_at = Some(world.now);
                    }
                }
            }
            // An upstream retires only because the others cannot serve, and for 30 s at most.
            if !retiring.is_empty() {
                prop_assert!(!after.alone(), "{:?} retire for nothing after {:?} of {:?}", retiring, step, steps);
                let since = removed_at.expect("a reload removed them");
                prop_assert!(world.now < since + 30 * SECOND, "{:?} stay for too long", retiring);
            } else {
                removed_at = None;
            }
            prop_assert_eq!(world.state.status(false, world.now).pools[0].warming, !retiring.is_empty());
            prop_assert_eq!(world.state.by_key.len(), world.state.checks.len());
        }
    }
}

/// The last pass may be longer ago than a verdict stays valid under the new interval.
#[tokio::test(start_paused = true)]
async fn a_shorter_interval_expires_no_verdict_and_needs_no_warming() {
    let file = |interval: u32, addresses: &[&str]| {
        let timing = Timing { interval: SECOND * interval, ..timing() };
        PoolPolicy { checks: vec![check(tcp(PortRule::Same), timing)], ..pool("api", addresses) }
    };
    for after in [40, 200, 590] {
        let mut world = World::new();
        [A, B].iter().for_each(|address| world.set(address, 'P'));
        world.configure(vec![file(600, &[A, B])]);
        world.run(SECOND);
        world.run(SECOND * after);
        world.configure(vec![file(1, &[A])]);
        assert_eq!(world.eligible("api"), [A], "after {after} s");
        let reading = world.views[&name("api")].read(world.now);
        assert_eq!(reading.service, Service::Open, "readers think so too");
        for _ in 0..100 {
            world.run(SECOND);
            let effects = world.state.expire(world.now);
            world.take(effects);
            assert_eq!(world.eligible("api"), [A], "after {after} s");
        }
        // It must still be confirmed.
        world.set(A, '.');
        world.run(32 * SECOND);
        assert!(world.eligible("api").is_empty());
    }
}
