//! Draws the next act of a storm from its seed. Keeps its own record of the state and uses no other input, so that a
//! seed is the same script on every machine.

use std::time::Duration;

use fastrand::Rng;
use roundsman::model::AdminState;

use super::model::{Answer, Config, Kind, Member, Mode, ORIGINS, PATHS, PLAIN, Pool, Reach, SERVICES, Timing, Traffic};

/// One act.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// An origin changes its mode.
    Mode(usize, Mode),
    /// The file changes and is reloaded.
    Edit(Config, How),
    /// The file gets this at its end, and must be refused.
    Wrong(&'static str, How),
    /// The operator gives an order.
    Order { pool: String, origin: usize, to: AdminState },
    /// The host name resolves to these origins.
    Hosts(Vec<usize>),
    /// The program is stopped for this time.
    Stop(Duration),
}

/// How a reload is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Api,
    Hup,
    /// Ten in a row.
    HupStorm,
}

/// Texts that make a file invalid, each for another reason.
const WRONG: &[&str] = &[
    "intervall = \"1s\"\n",
    "[[routes]]\npath = \"/x\"\npool = \"nowhere\"\n",
    "[pools.empty]\nupstreams = []\n",
    "[pools.half]\nupstreams = [\"127.0.0.1:1\"\n",
    "[pools.slow]\nupstreams = [\"127.0.0.1:1\"]\n[pools.slow.health]\ninterval = \"1s\"\ntimeout = \"2s\"\n",
    "[listeners.taken]\naddress = \"192.0.2.1:1\"\npool = \"p0\"\n",
];

/// The number of pool names: few, so that names are used again.
const NAMES: usize = 5;

/// The script.
#[derive(Debug)]
pub struct Plan {
    rng: Rng,
    config: Config,
    modes: [Mode; ORIGINS],
    hosts: Vec<usize>,
    /// Whether host names can be changed here.
    names: bool,
}

impl Plan {
    pub fn new(seed: u64, names: bool) -> Plan {
        Plan {
            rng: Rng::with_seed(seed),
            config: first(names),
            modes: [Mode::GOOD; ORIGINS],
            hosts: first_hosts(names),
            names,
        }
    }

    /// The next act, and the pause after it.
    pub fn next(&mut self) -> (Act, Duration) {
        let act = loop {
            if let Some(act) = self.draw() {
                break act;
            }
        };
        let quiet = match self.rng.u32(0..20) {
            0..7 => 5..60,
            7..15 => 60..300,
            15..19 => 300..1_000,
            // Long enough for the detection times.
            _ => 1_200..3_500,
        };
        (act, Duration::from_millis(self.rng.u64(quiet)))
    }

    fn draw(&mut self) -> Option<Act> {
        let bad = self.modes.iter().filter(|mode| **mode != Mode::GOOD).count();
        // Few origins fail for long: where all fail, the rules have nothing to check.
        if bad > 2 && self.rng.bool() {
            return Some(self.heal());
        }
        match self.rng.u32(0..100) {
            0..30 => Some(self.harm()),
            30..38 => Some(self.heal()),
            38..76 => self.edit(),
            76..80 => Some(Act::Wrong(self.rng.choice(WRONG)?, self.how())),
            80..91 => self.order(),
            91..96 => self.new_hosts(),
            _ => Some(Act::Stop(Duration::from_millis(self.rng.u64(20..700)))),
        }
    }

    fn heal(&mut self) -> Act {
        let ill: Vec<usize> = (0..ORIGINS).filter(|origin| self.modes[*origin] != Mode::GOOD).collect();
        let origin = self.rng.choice(&ill).copied().unwrap_or(0);
        self.become_mode(origin, Mode::GOOD)
    }

    fn harm(&mut self) -> Act {
        let origin = self.rng.usize(0..ORIGINS);
        let mut mode = self.modes[origin];
        let answers = [Answer::Fail, Answer::Fail, Answer::Hang, Answer::Pass];
        match self.rng.u32(0..20) {
            0..5 => mode.reach = Reach::Dead,
            5..7 => mode.reach = Reach::Deaf,
            7..10 => mode = Mode { reach: Reach::Open, paths: [answers[self.rng.usize(0..4)]; PATHS], ..mode },
            10..14 => {
                mode.reach = Reach::Open;
                mode.paths[self.rng.usize(0..PATHS)] = answers[self.rng.usize(0..4)];
            }
            _ => {
                let all = [
                    Traffic::Slow,
                    Traffic::Resets,
                    Traffic::Cuts,
                    Traffic::Stalls,
                    Traffic::ClosesSilently,
                    Traffic::Chatters,
                ];
                mode = Mode { reach: Reach::Open, traffic: all[self.rng.usize(0..all.len())], ..mode };
            }
        }
        self.become_mode(origin, mode)
    }

    fn become_mode(&mut self, origin: usize, mode: Mode) -> Act {
        self.modes[origin] = mode;
        Act::Mode(origin, mode)
    }

    fn how(&mut self) -> How {
        [How::Api, How::Api, How::Hup, How::HupStorm][self.rng.usize(0..4)]
    }

    fn order(&mut self) -> Option<Act> {
        let pool = self.any_pool();
        let member = *self.rng.choice(&self.config.pools[&pool].members)?;
        let to = [AdminState::Draining, AdminState::Disabled, AdminState::Enabled, AdminState::Enabled];
        Some(Act::Order { pool, origin: member.origin, to: to[self.rng.usize(0..4)] })
    }

    fn new_hosts(&mut self) -> Option<Act> {
        if !self.names {
            return None;
        }
        let mut hosts: Vec<usize> = (PLAIN..ORIGINS).filter(|_| self.rng.bool()).collect();
        if hosts.is_empty() {
            hosts.push(self.rng.usize(PLAIN..ORIGINS));
        }
        if hosts == self.hosts || !self.config.pools.values().any(Pool::is_named) {
            return None;
        }
        self.hosts.clone_from(&hosts);
        self.config = self.config.with_hosts(&hosts);
        Some(Act::Hosts(hosts))
    }

    fn any_pool(&mut self) -> String {
        self.config.services[self.rng.usize(0..SERVICES)].clone()
    }

    /// One to three changes of the file at once; `None` when they cancel out.
    fn edit(&mut self) -> Option<Act> {
        let before = self.config.clone();
        for _ in 0..self.rng.u32(1..4) {
            self.change();
        }
        if self.config == before {
            return None;
        }
        let how = self.how();
        Some(Act::Edit(self.config.clone(), how))
    }

    fn change(&mut self) {
        let name = self.any_pool();
        match self.rng.u32(0..100) {
            0..10 => return self.rename(&name),
            10..17 => return self.split_or_join(),
            17..22 => {
                self.config.listener = 1 - self.config.listener;
                return;
            }
            22..100 => {}
            _ => unreachable!("the range ends there"),
        }
        let hosts = if self.names { self.hosts.clone() } else { vec![] };
        let rng = &mut self.rng;
        let pool = self.config.pools.get_mut(&name).expect("services name existing pools");
        match rng.u32(0..100) {
            0..16 => {
                let origin = rng.usize(0..PLAIN);
                if !pool.has(origin) {
                    pool.members.push(Member::plain(origin));
                }
            }
            16..32 => {
                if pool.members.len() > 1 {
                    let gone = pool.members.swap_remove(rng.usize(0..pool.members.len()));
                    if gone.by_name {
                        pool.members.retain(|member| !member.by_name);
                    }
                }
            }
            32..46 => {
                // Other origins, as far as there are any.
                let others: Vec<usize> = (0..PLAIN).filter(|origin| !pool.has(*origin)).collect();
                let chosen: Vec<Member> = others.into_iter().filter(|_| rng.bool()).map(Member::plain).collect();
                if !chosen.is_empty() {
                    pool.members = chosen;
                }
            }
            46..52 => {
                if let Some(index) = (0..pool.members.len()).find(|_| rng.bool()) {
                    pool.members[index].weight = rng.u32(1..5);
                }
            }
            52..60 => {
                if let Some(index) = (0..pool.members.len()).find(|_| rng.bool()) {
                    pool.members[index].backup = !pool.members[index].backup;
                }
            }
            60..64 => {
                if let Some(index) = (0..pool.members.len()).find(|_| rng.bool()) {
                    pool.members[index].admin = if rng.bool() { AdminState::Enabled } else { AdminState::Draining };
                }
            }
            64..70 => pool.min_healthy = rng.usize(1..3),
            70..76 => pool.require_all = !pool.require_all,
            76..84 => pool.timing = timing(rng),
            84..95 => pool.kinds = kinds(rng),
            _ => {
                if pool.is_named() {
                    pool.members.retain(|member| !member.by_name);
                } else {
                    pool.members.extend(hosts.iter().map(|origin| Member::named(*origin)));
                }
            }
        }
        tidy(pool, rng);
    }

    fn rename(&mut self, from: &str) {
        let Some(to) = self.free_name() else { return };
        let pool = self.config.pools.remove(from).expect("services name existing pools");
        self.config.pools.insert(to.clone(), pool);
        for service in self.config.services.iter_mut().filter(|service| *service == from) {
            service.clone_from(&to);
        }
    }

    /// A service gets its own pool, or that of another.
    fn split_or_join(&mut self) {
        let service = self.rng.usize(0..SERVICES);
        let mine = self.config.services[service].clone();
        let shared = self.config.services.iter().filter(|pool| **pool == mine).count() > 1;
        let to = if shared { self.free_name() } else { Some(self.any_pool()) };
        let Some(to) = to else { return };
        if shared {
            let pool = self.config.pools[&mine].clone();
            self.config.pools.insert(to.clone(), pool);
        }
        self.config.services[service] = to;
        let Config { services, pools, .. } = &mut self.config;
        pools.retain(|name, _| services.contains(name));
    }

    fn free_name(&mut self) -> Option<String> {
        let free: Vec<String> =
            (0..NAMES).map(|n| format!("p{n}")).filter(|name| !self.config.pools.contains_key(name)).collect();
        self.rng.choice(free)
    }
}

/// The configuration of the start, to which every storm returns.
pub fn first(names: bool) -> Config {
    let timing = Timing { interval: 600, timeout: 600, fast: 40, rise: 2, fall: 2 };
    let pool = |members: Vec<Member>, kinds: &[Kind], require_all| Pool {
        members,
        min_healthy: 1,
        kinds: kinds.to_vec(),
        timing,
        require_all,
    };
    let plain = |origins: &[usize]| origins.iter().map(|origin| Member::plain(*origin)).collect::<Vec<_>>();
    let mut named = plain(&[5]);
    named.extend(first_hosts(names).into_iter().map(Member::named));
    let pools = [
        ("p0", pool(plain(&[0, 1, 2]), &[Kind::Http(0)], true)),
        ("p1", pool(plain(&[2, 3, 4]), &[Kind::Http(0), Kind::Http(1)], false)),
        ("p2", pool(named, &[Kind::Http(2)], true)),
    ];
    Config {
        listener: 0,
        services: ["p0", "p1", "p2"].map(str::to_owned),
        pools: pools.into_iter().map(|(name, pool)| (name.to_owned(), pool)).collect(),
    }
}

/// What [`super::model::HOST`] resolves to at the start.
pub fn first_hosts(names: bool) -> Vec<usize> {
    if names { vec![PLAIN, PLAIN + 1] } else { vec![] }
}

fn timing(rng: &mut Rng) -> Timing {
    let interval = [600, 1_000][rng.usize(0..2)];
    Timing { interval, timeout: 600, fast: [30, 60][rng.usize(0..2)], rise: rng.u64(1..4), fall: rng.u64(1..4) }
}

/// One to three different checks.
fn kinds(rng: &mut Rng) -> Vec<Kind> {
    let mut all = vec![Kind::Http(0), Kind::Http(1), Kind::Http(2), Kind::Tcp];
    rng.shuffle(&mut all);
    all.truncate([1, 1, 2, 3][rng.usize(0..4)]);
    all
}

/// Makes a pool valid: an upstream with an address, and a `min_healthy` that can be met.
fn tidy(pool: &mut Pool, rng: &mut Rng) {
    if pool.members.is_empty() {
        pool.members.push(Member::plain(rng.usize(0..PLAIN)));
    }
    let primaries = pool.members.iter().filter(|member| !member.backup).count();
    let most = if primaries == 0 { pool.members.len() } else { primaries };
    pool.min_healthy = pool.min_healthy.clamp(1, most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_script_and_only_valid_pools() {
        for seed in 0..50 {
            let (mut plan, mut again) = (Plan::new(seed, true), Plan::new(seed, true));
            for _ in 0..200 {
                let next = plan.next();
                assert_eq!(next, again.next(), "seed {seed}");
                let Act::Edit(config, _) = next.0 else { continue };
                for service in 0..SERVICES {
                    let pool = config.pool(service);
                    assert!(
                        !pool.members.is_empty() && pool.min_healthy <= pool.members.len(),
                        "seed {seed}: {pool:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_kind_of_act_is_drawn() {
        let mut plan = Plan::new(1, true);
        let acts: Vec<Act> = (0..500).map(|_| plan.next().0).collect();
        let count = |kind: fn(&Act) -> bool| acts.iter().filter(|act| kind(act)).count();
        let counts = [
            count(|act| matches!(act, Act::Mode(_, Mode { reach: Reach::Dead, .. }))),
            count(|act| matches!(act, Act::Mode(_, Mode { reach: Reach::Deaf, .. }))),
            count(|act| matches!(act, Act::Mode(_, Mode { traffic: Traffic::ClosesSilently, .. }))),
            count(|act| matches!(act, Act::Edit(_, How::HupStorm))),
            count(|act| matches!(act, Act::Wrong(..))),
            count(|act| matches!(act, Act::Order { .. })),
            count(|act| matches!(act, Act::Hosts(_))),
            count(|act| matches!(act, Act::Stop(_))),
        ];
        assert!(counts.iter().all(|count| *count > 2), "{counts:?}");
    }
}
