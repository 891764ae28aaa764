//! The real program and scripted origins: carries out the plan, records when each act took effect, and collects the
//! evidence.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::Signal;
use roundsman::admin::json::{EventInfo, EventWhat};
use roundsman::model::{AdminState, HealthState};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::clients::Clients;
use super::ending::{Base, Ending};
use super::evidence::{End, Evidence, Order};
use super::model::{Answer, At, Config, HOST, Mode, ORIGINS, PATHS, Reach, SERVICES, Traffic};
use super::oracle::Violation;
use super::plan::{Act, How, first, first_hosts};
use super::watch::{Clock, Seen, Watch};
use super::{ANSWERS_MIN, SAMPLES_MIN};
use crate::discovery::{set_hosts, with_hosts_and};
use crate::origin::{Act as Step, BlackHole, Origin, Reply, own_host};
use crate::program::{Program, fetch, free_address, try_fetch};

/// Ten times what a slow machine needs; nothing that goes well waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Every origin has its own host and this port, because a name resolves to hosts.
const PORT: u16 = 7080;
/// The number of clients.
const CLIENTS: u64 = 16;
/// The environment of a storm.
pub struct World {
    program: Program,
    origins: Vec<Origin>,
    addresses: Vec<SocketAddr>,
    deaf: HashMap<usize, BlackHole>,
    listeners: [SocketAddr; 2],
    clock: Clock,
    watch: Watch,
    clients: Clients,
    config: Config,
    modes: [Mode; ORIGINS],
    /// The newest event that has been looked at.
    seq: u64,
    base: Base,
    evidence: Evidence,
    violations: Vec<Violation>,
    /// Whether host names can be changed here.
    pub names: bool,
}

impl World {
    /// Starts with good origins, of which the program has verdicts, and begins the load.
    pub async fn start(seed: u64) -> World {
        let mut origins = Vec::new();
        for index in 0..ORIGINS {
            let address = SocketAddr::new(IpAddr::V4(own_host()), PORT);
            origins.push(Origin::new().named(&index.to_string()).at(address).start().await);
        }
        let addresses: Vec<SocketAddr> = origins.iter().map(Origin::socket_addr).collect();
        for origin in &origins {
            play(origin, &Mode::GOOD);
        }
        let second = free_address();
        let file = |names: bool| {
            let addresses = addresses.clone();
            move |web, admin| first(names).render(&[web, second], admin, &addresses)
        };
        let named = with_hosts_and(&hosts_file(&addresses, &first_hosts(true)), file(true)).await;
        let (program, names) = match named {
            Some(program) => (program, true),
            None => (Program::spawn_whole(|web, admin, _| file(false)(web, admin)).when_live().await, false),
        };
        program.wait_until_ready().await;
        let (config, clock) = (first(names), Clock::new());
        let watch = Watch::start(program.admin, clock);
        wait_until_well(&program, &config, &addresses).await;
        // Some threads begin with the first request.
        for service in 0..SERVICES {
            assert_eq!(fetch(program.web, "GET", &format!("/s{service}/0")).await.0, 200);
        }
        let seq = program.events(0).await.last;
        let base = Base { descriptors: program.descriptors(), threads: program.threads() };
        let listeners = [program.web, second];
        let clients = Clients::start(seed, CLIENTS, clock.start, listeners);
        let mut evidence = Evidence::default();
        evidence.configs.push((At::ZERO, config.clone()));
        evidence.modes.extend((0..ORIGINS).map(|origin| (At::ZERO, origin, Mode::GOOD)));
        World {
            program,
            origins,
            addresses,
            deaf: HashMap::new(),
            listeners,
            clock,
            watch,
            clients,
            config,
            modes: [Mode::GOOD; ORIGINS],
            seq,
            base,
            evidence,
            violations: Vec::new(),
            names,
        }
    }

    /// Carries out an act, and records when it took effect.
    pub async fn act(&mut self, act: Act) {
        match act {
            Act::Mode(origin, mode) => self.set_mode(origin, mode),
            Act::Edit(config, how) => self.edit(config, how).await,
            Act::Wrong(text, how) => self.wrong(text, how).await,
            Act::Order { pool, origin, to } => self.order(&pool, origin, to).await,
            Act::Hosts(hosts) => self.change_hosts(&hosts).await,
            Act::Stop(time) => self.stop(time).await,
        }
    }

    fn set_mode(&mut self, index: usize, mode: Mode) {
        let before = std::mem::replace(&mut self.modes[index], mode);
        self.note(format!("origin {index}: {mode:?}"));
        let origin = &self.origins[index];
        let began = self.clock.now();
        block_in_place(|| {
            play(origin, &mode);
            if before.reach != mode.reach {
                self.deaf.remove(&index);
                match mode.reach {
                    Reach::Open => origin.revive(),
                    Reach::Dead => origin.kill(),
                    Reach::Deaf => {
                        origin.kill();
                        self.deaf.insert(index, BlackHole::at(self.addresses[index]));
                    }
                }
            }
        });
        self.evidence.modes.push((began, index, worse(&before, &mode)));
        self.evidence.modes.push((self.clock.now(), index, mode));
    }

    async fn edit(&mut self, config: Config, how: How) {
        let text = config.render(&self.listeners, self.program.admin, &self.addresses);
        self.note(format!("edit by {how:?}: {}", difference(&self.config, &config)));
        let reloads = self.reload(&text, how).await;
        for (at, result) in reloads {
            match &*result {
                "applied" => {
                    self.evidence.configs.push((at, config.clone()));
                    self.note(format!("applied at {at:?}"));
                }
                "unchanged" => {}
                result => self.fault("operator", format!("a good file was {result}:\n{text}\n{}", self.program.log())),
            }
        }
        self.clients.shared.listener.store(config.listener, Ordering::SeqCst);
        self.config = config;
    }

    async fn wrong(&mut self, text: &str, how: How) {
        self.note(format!("wrong by {how:?}: {}", text.trim_end()));
        let whole = self.config.render(&self.listeners, self.program.admin, &self.addresses) + text;
        for (_, result) in self.reload(&whole, how).await {
            if result != "refused" {
                self.fault("operator", format!("a wrong file was {result}: {text}"));
            }
        }
    }

    /// Writes the file and reloads it; returns the results from the event ring.
    async fn reload(&mut self, text: &str, how: How) -> Vec<(At, String)> {
        self.program.write_raw(text);
        match how {
            How::Api => {}
            How::Hup => self.program.signal(Signal::SIGHUP),
            How::HupStorm => {
                for _ in 0..10 {
                    self.program.signal(Signal::SIGHUP);
                }
            }
        }
        // After ten signals one more reload by the API: it is the last one, so its response shows that all are done.
        if how != How::Hup {
            self.program.order_reload().await;
        }
        let mut reloads = Vec::new();
        for event in self.events_until(|event| matches!(event.what, EventWhat::Reload { .. })).await {
            if let EventWhat::Reload { result, .. } = event.what {
                reloads.push((self.clock.moment(&event.at), result));
            }
        }
        reloads
    }

    async fn order(&mut self, pool: &str, origin: usize, to: AdminState) {
        let word = match to {
            AdminState::Enabled => "enable",
            AdminState::Draining => "drain",
            AdminState::Disabled => "disable",
        };
        let address = self.addresses[origin];
        let path = format!("/api/v1/pools/{pool}/upstreams/{address}/{word}");
        let answer = try_fetch(self.program.admin, "POST", &path).await;
        let at = self.clock.now();
        self.note(format!("{word} {pool} {origin}: {answer:?}"));
        match answer {
            Ok((200, _)) => {
                let events = self.program.events(self.seq).await.events;
                let own = events.iter().find(|event| matches!(&event.what, EventWhat::Admin(_)));
                let at = own.map_or(at, |event| self.clock.moment(&event.at));
                self.seq = events.last().map_or(self.seq, |event| event.seq);
                self.evidence.orders.push(Order { at, pool: pool.to_owned(), origin, to });
            }
            // An order that would leave a pool without an upstream may be refused.
            Ok((409, _)) => {}
            answer => self.fault("operator", format!("POST {path}: {answer:?}")),
        }
    }

    async fn change_hosts(&mut self, hosts: &[usize]) {
        self.note(format!("{HOST} resolves to {hosts:?}"));
        set_hosts(&self.program, &hosts_file(&self.addresses, hosts));
        let config = self.config.with_hosts(hosts);
        let pools: Vec<&String> = config.pools.iter().filter(|(_, p)| p.is_named()).map(|(name, _)| name).collect();
        let mut missing = pools.into_iter().cloned().collect::<Vec<_>>();
        let events = self
            .events_until(move |event| {
                if let EventWhat::Addresses { pool, .. } = &event.what {
                    missing.retain(|name| name != pool);
                }
                missing.is_empty()
            })
            .await;
        let mut changes = events.iter().filter(|event| matches!(event.what, EventWhat::Addresses { .. }));
        if let Some(last) = changes.next_back() {
            self.evidence.configs.push((self.clock.moment(&last.at), config.clone()));
        }
        self.config = config;
    }

    async fn stop(&mut self, time: Duration) {
        self.note(format!("stopped for {time:?}"));
        let began = self.clock.now();
        self.program.signal(Signal::SIGSTOP);
        sleep(time).await;
        self.program.signal(Signal::SIGCONT);
        self.evidence.standstills.push((began, self.clock.now()));
    }

    /// Waits until one of the new events matches, and returns all new ones.
    async fn events_until(&mut self, mut awaited: impl FnMut(&EventInfo) -> bool) -> Vec<EventInfo> {
        let end = Instant::now() + PATIENCE;
        let mut all: Vec<EventInfo> = Vec::new();
        loop {
            let events = self.program.events(self.seq).await.events;
            self.seq = events.last().map_or(self.seq, |event| event.seq);
            // `awaited` sees each of them, also those after the match.
            let mut there = false;
            for event in &events {
                there |= awaited(event);
            }
            all.extend(events);
            if there {
                return all;
            }
            if Instant::now() > end {
                self.fault("operator", format!("the act did not take effect: {all:?}"));
                return all;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn note(&mut self, what: String) {
        self.evidence.diary.push((self.clock.now(), what));
    }

    fn fault(&mut self, rule: &'static str, what: String) {
        self.violations.push(Violation { rule, at: self.clock.now(), what });
    }

    /// Restores the start, ends the load, and checks that all resources are freed.
    pub async fn calm(mut self) -> (Evidence, Vec<Violation>) {
        self.note("calm".to_owned());
        for origin in 0..ORIGINS {
            self.set_mode(origin, Mode::GOOD);
        }
        self.edit(first(self.names).with_hosts(&self.hosts()), How::Api).await;
        if self.names && self.hosts() != first_hosts(true) {
            self.change_hosts(&first_hosts(true)).await;
        }
        let config = self.config.clone();
        for (pool, policy) in &config.pools {
            for member in &policy.members {
                self.order(pool, member.origin, AdminState::Enabled).await;
            }
        }
        wait_until_well(&self.program, &config, &self.addresses).await;
        self.wait_until_shown().await;
        let World { clients, watch, .. } = self;
        let shared = clients.shared.clone();
        clients.stop().await;
        let Seen { events, statuses, hiccups } = std::mem::take(&mut *watch.seen.lock());
        self.evidence.outcomes = std::mem::take(&mut *shared.outcomes.lock());
        let mut ending = Ending {
            program: self.program,
            base: self.base,
            clock: self.clock,
            evidence: self.evidence,
            violations: self.violations,
        };
        ending.wait_for_base().await;
        drop(watch);
        ending.evidence.hiccups = hiccups;
        ending.take_events(&events, &self.addresses);
        ending.take_statuses(&statuses, &self.addresses);
        ending.take_arrivals(&self.origins);
        (ending.evidence, ending.violations)
    }

    /// Lets the load go on until there is enough to judge: a storm of a few acts may be over before a busy machine has
    /// answered anything.
    async fn wait_until_shown(&self) {
        let end = Instant::now() + PATIENCE;
        let answered = || {
            let outcomes = self.clients.shared.outcomes.lock();
            outcomes.iter().filter(|outcome| outcome.end == End::Answered).count()
        };
        let samples = || self.watch.seen.lock().statuses.len();
        while (answered() <= ANSWERS_MIN || samples() <= SAMPLES_MIN) && Instant::now() < end {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The origins of the name in the current configuration; the last ones, if no pool has it.
    fn hosts(&self) -> Vec<usize> {
        let configs = self.evidence.configs.iter().rev().map(|(_, config)| config);
        let pools = configs.flat_map(|config| config.pools.values()).find(|pool| pool.is_named());
        let named = pools.map(|pool| pool.members.iter().filter(|m| m.by_name).map(|m| m.origin).collect());
        let mut named: Vec<usize> = named.unwrap_or_default();
        named.sort_unstable();
        named
    }
}

fn hosts_file(addresses: &[SocketAddr], hosts: &[usize]) -> String {
    let lines = hosts.iter().map(|origin| format!("{} {HOST}\n", addresses[*origin].ip()));
    format!("127.0.0.1 localhost\n{}", lines.collect::<String>())
}

/// Scripts an origin that listens.
fn play(origin: &Origin, mode: &Mode) {
    for path in 0..PATHS {
        let reply = match mode.paths[path] {
            Answer::Pass => Reply::status(200),
            Answer::Fail => Reply::status(503),
            Answer::Hang => Reply::hang(),
        };
        origin.set(&format!("/h/{path}"), reply);
    }
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\na part of it";
    origin.set(
        "*",
        match mode.traffic {
            Traffic::Good => Reply::target(),
            Traffic::Slow => Reply::target().delay(Duration::from_millis(150)),
            Traffic::Resets => Reply::reset(),
            Traffic::Cuts => Reply::raw(part).then_reset(),
            Traffic::Stalls => Reply::acts(vec![Step::Wait(Duration::from_millis(1_500)), Step::Reset]),
            Traffic::ClosesSilently => Reply::target().closing_silently(),
            Traffic::Chatters => Reply::target().with_surplus("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked"),
        },
    );
}

/// What an origin may do while its mode changes.
fn worse(before: &Mode, after: &Mode) -> Mode {
    let mut paths = after.paths;
    for (path, before) in paths.iter_mut().zip(before.paths) {
        if before != Answer::Pass {
            *path = before;
        }
    }
    Mode {
        reach: if before.reach == Reach::Open { after.reach } else { before.reach },
        paths,
        traffic: if before.traffic.breaks() { before.traffic } else { after.traffic },
    }
}

/// A short description of an edit.
fn difference(before: &Config, after: &Config) -> String {
    let mut words = Vec::new();
    if before.listener != after.listener {
        words.push("listener".to_owned());
    }
    if before.services != after.services {
        words.push(format!("services {:?} to {:?}", before.services, after.services));
    }
    for (name, pool) in &after.pools {
        let Some(old) = before.pools.get(name) else {
            words.push(format!("new {name} {}", short(pool)));
            continue;
        };
        if old != pool {
            words.push(format!("{name} {} to {}", short(old), short(pool)));
        }
    }
    words.join("; ")
}

fn short(pool: &super::model::Pool) -> String {
    let members: Vec<String> = pool
        .members
        .iter()
        .map(|member| {
            let backup = if member.backup { "b" } else { "" };
            let admin = if member.admin == AdminState::Enabled { "" } else { "d" };
            format!("{}{backup}{admin}x{}", member.origin, member.weight)
        })
        .collect();
    let require = if pool.require_all { "all" } else { "any" };
    let (kinds, timing) = (&pool.kinds, &pool.timing);
    let times = format!("{}/{} rise {} fall {}", timing.interval, timing.fast, timing.rise, timing.fall);
    format!("[{} min {} {require} of {kinds:?} {times}]", members.join(" "), pool.min_healthy)
}

/// Every upstream of the configuration is healthy, and there are no others.
async fn wait_until_well(program: &Program, config: &Config, addresses: &[SocketAddr]) {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = program.status().await;
        let healthy = |pool: &str, origin: usize| {
            let upstreams = status.pools.get(pool).map(|pool| &pool.upstreams);
            let mut found = upstreams.into_iter().flatten().filter(|u| u.address == addresses[origin].to_string());
            found.any(|upstream| upstream.state == HealthState::Healthy && !upstream.retiring)
        };
        let all = config.pools.iter().flat_map(|(name, pool)| pool.members.iter().map(move |member| (name, member)));
        let ill: Vec<_> = all.filter(|(name, member)| !healthy(name, member.origin)).collect();
        if ill.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "not healthy within {PATIENCE:?}: {ill:?}\n{}", program.log());
        sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::PLAIN;
    use super::*;

    #[test]
    fn while_a_mode_changes_the_worse_of_both_is_assumed() {
        let dead = Mode { reach: Reach::Dead, ..Mode::GOOD };
        assert_eq!(worse(&Mode::GOOD, &dead).reach, Reach::Dead);
        assert_eq!(worse(&dead, &Mode::GOOD).reach, Reach::Dead);
        let failing = Mode { paths: [Answer::Fail, Answer::Pass, Answer::Pass], ..Mode::GOOD };
        assert_eq!(worse(&failing, &Mode::GOOD), failing);
        let cutting = Mode { traffic: Traffic::Cuts, ..Mode::GOOD };
        assert_eq!(worse(&cutting, &Mode::GOOD), cutting);
        assert_eq!(worse(&Mode::GOOD, &Mode::GOOD), Mode::GOOD);
    }

    #[test]
    fn a_host_name_resolves_to_the_addresses_of_its_origins() {
        let addresses: Vec<SocketAddr> =
            (0..ORIGINS).map(|n| SocketAddr::from(([127, 0, 0, n as u8 + 1], PORT))).collect();
        let text = hosts_file(&addresses, &[PLAIN]);
        assert_eq!(text, "127.0.0.1 localhost\n127.0.0.7 storm\n");
    }
}
