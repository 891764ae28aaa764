//! The model of a storm: the modes of origins and the configurations. Values only: [`super::plan`] draws them,
//! [`super::world`] carries them out, [`super::oracle`] checks the evidence against them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use roundsman::model::AdminState;

/// A moment, counted from the start of the storm.
pub type At = Duration;

/// Origins that pools list by address: the first ones.
pub const PLAIN: usize = 6;
/// The number of origins; pools list the others only by the name [`HOST`].
pub const ORIGINS: usize = 9;
/// The host name.
pub const HOST: &str = "storm";
/// The services that clients request: `/s0/…`, `/s1/…`. The pool of a service changes.
pub const SERVICES: usize = 3;
/// Paths of checks: `/h/0`, `/h/1`, …
pub const PATHS: usize = 3;

/// Whether an origin can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It listens.
    Open,
    /// It does not: its connections were reset.
    Dead,
    /// It neither accepts nor refuses connections; those it had were reset.
    Deaf,
}

/// What an origin answers to a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Pass,
    /// 503.
    Fail,
    /// Nothing.
    Hang,
}

/// How an origin responds to requests that are not checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// It answers.
    Good,
    /// After a while.
    Slow,
    /// It resets the connection instead.
    Resets,
    /// It resets the connection inside the response.
    Cuts,
    /// It is silent for some time and then resets the connection.
    Stalls,
    /// It answers, and closes in the same segment without `Connection: close`.
    ClosesSilently,
    /// It answers, and sends an unrequested response with it.
    Chatters,
}

impl Traffic {
    /// Whether it fails requests.
    pub fn breaks(self) -> bool {
        match self {
            Traffic::Resets | Traffic::Cuts | Traffic::Stalls => true,
            Traffic::Good | Traffic::Slow | Traffic::ClosesSilently | Traffic::Chatters => false,
        }
    }
}

/// The complete behaviour of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub reach: Reach,
    pub paths: [Answer; PATHS],
    pub traffic: Traffic,
}

impl Mode {
    /// Good behaviour.
    pub const GOOD: Mode = Mode { reach: Reach::Open, paths: [Answer::Pass; PATHS], traffic: Traffic::Good };

    /// Whether a check of this kind passes.
    pub fn passes(&self, kind: Kind) -> bool {
        let open = self.reach == Reach::Open;
        match kind {
            Kind::Tcp => open,
            Kind::Http(path) => open && self.paths[path] == Answer::Pass,
        }
    }

    /// Whether a check of this kind gets no answer at all.
    pub fn hangs(&self, kind: Kind) -> bool {
        match (self.reach, kind) {
            (Reach::Deaf, _) => true,
            (Reach::Dead, _) | (Reach::Open, Kind::Tcp) => false,
            (Reach::Open, Kind::Http(path)) => self.paths[path] == Answer::Hang,
        }
    }
}

/// The kind of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Http(usize),
}

/// When checks run, in milliseconds, and how many make a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub interval: u64,
    pub timeout: u64,
    pub fast: u64,
    pub rise: u64,
    pub fall: u64,
}

impl Timing {
    /// The longest that it may take until an origin that passes is healthy.
    pub fn up(&self) -> Duration {
        // A hanging probe may be in flight, and a failing one may have begun just before.
        Duration::from_millis(self.interval + self.timeout + self.rise * self.fast)
    }

    /// The longest that it may take until an origin that fails is unhealthy: the formula of `roundsman check`.
    pub fn down(&self) -> Duration {
        Duration::from_millis(self.interval + (self.fall - 1) * self.fast.max(self.timeout) + self.timeout)
    }
}

/// One upstream of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub origin: usize,
    pub weight: u32,
    pub backup: bool,
    pub admin: AdminState,
    /// The file has [`HOST`] instead.
    pub by_name: bool,
}

impl Member {
    pub fn plain(origin: usize) -> Member {
        Member { origin, weight: 1, backup: false, admin: AdminState::Enabled, by_name: false }
    }

    pub fn named(origin: usize) -> Member {
        Member { by_name: true, ..Member::plain(origin) }
    }
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub members: Vec<Member>,
    pub min_healthy: usize,
    pub kinds: Vec<Kind>,
    pub timing: Timing,
    /// Whether every check must pass, or one is enough.
    pub require_all: bool,
}

impl Pool {
    /// Whether an origin passes its checks as this pool requires them.
    pub fn judges(&self, mode: &Mode) -> bool {
        let mut passes = self.kinds.iter().map(|kind| mode.passes(*kind));
        if self.require_all { passes.all(|passes| passes) } else { passes.any(|passes| passes) }
    }

    /// Whether both have the same checks, whatever they require.
    pub fn checks_as(&self, other: &Pool) -> bool {
        self.kinds == other.kinds && self.timing == other.timing
    }

    pub fn has(&self, origin: usize) -> bool {
        self.members.iter().any(|member| member.origin == origin)
    }

    /// Whether [`HOST`] is in its list.
    pub fn is_named(&self) -> bool {
        self.members.iter().any(|member| member.by_name)
    }
}

/// One configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which of the world's two addresses is listened on.
    pub listener: usize,
    /// The pool of each service.
    pub services: [String; SERVICES],
    pub pools: BTreeMap<String, Pool>,
}

impl Config {
    /// The pool of a service.
    pub fn pool(&self, service: usize) -> &Pool {
        &self.pools[&self.services[service]]
    }

    /// The same, where [`HOST`] resolves to these origins.
    pub fn with_hosts(&self, hosts: &[usize]) -> Config {
        let mut config = self.clone();
        for pool in config.pools.values_mut().filter(|pool| pool.is_named()) {
            pool.members.retain(|member| !member.by_name);
            pool.members.extend(hosts.iter().map(|origin| Member::named(*origin)));
        }
        config
    }

    /// The file.
    pub fn render(&self, listeners: &[SocketAddr; 2], admin: SocketAddr, origins: &[SocketAddr]) -> String {
        let mut text = format!(
            "[listeners.web]\naddress = \"{}\"\npool = \"{}\"\n[admin]\naddress = \"{admin}\"\n",
            listeners[self.listener], self.services[0]
        );
        for (service, pool) in self.services.iter().enumerate() {
            let _ = write!(text, "[[routes]]\npath = \"/s{service}\"\npool = \"{pool}\"\n");
        }
        for (name, pool) in &self.pools {
            render_pool(&mut text, name, pool, origins);
        }
        text
    }
}

fn render_pool(text: &mut String, name: &str, pool: &Pool, origins: &[SocketAddr]) {
    let mut upstreams: Vec<String> = Vec::new();
    for member in pool.members.iter().filter(|member| !member.by_name) {
        upstreams.push(format!(
            "{{ address = \"{}\", weight = {}, backup = {}, admin = \"{}\" }}",
            origins[member.origin],
            member.weight,
            member.backup,
            member.admin.as_str()
        ));
    }
    if pool.is_named() {
        upstreams.push(format!("\"{HOST}:{}\"", origins[PLAIN].port()));
    }
    let Timing { interval, timeout, fast, rise, fall } = pool.timing;
    let _ = write!(
        text,
        "[pools.{name}]\nupstreams = [{}]\nmin_healthy = {}\nresolve = \"1s\"\n[pools.{name}.health]\n\
         interval = \"{interval}ms\"\ntimeout = \"{timeout}ms\"\nfast_interval = \"{fast}ms\"\nhealthy_threshold = {rise}\n\
         unhealthy_threshold = {fall}\njitter = 0\nrequire = \"{}\"\n",
        upstreams.join(", "),
        pool.min_healthy,
        if pool.require_all { "all" } else { "any" }
    );
    for kind in &pool.kinds {
        let _ = match kind {
            Kind::Tcp => writeln!(text, "[[pools.{name}.health.checks]]\ntype = \"tcp\""),
            Kind::Http(path) => writeln!(text, "[[pools.{name}.health.checks]]\ntype = \"http\"\npath = \"/h/{path}\""),
        };
    }
}
