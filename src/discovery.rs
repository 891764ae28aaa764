//! Resolves the host names of a configuration, off the request path. [`table`] (pure) keeps the last answers and when
//! to look up again; [`expand`] (pure) replaces names by their addresses; [`Discovery`] does the lookups.
//!
//! The system resolves ([`SystemResolver`]), so that `/etc/hosts`, search domains and everything else in
//! `nsswitch.conf` apply as for every other program. `app` and `pool` decide what a changed answer does to a pool.

mod expand;
mod prober;
mod resolver;
mod table;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use expand::Remark;
pub use prober::NamingProber;
pub use resolver::{ResolveError, Resolver, SystemResolver};
pub use table::{ADDRESSES_MAX, Table};

use crate::model::Name;
use crate::model::policy::{Config, PoolPolicy};
use table::News;

/// How long a start or a reload waits for new names; then it continues without their addresses.
pub const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// A lookup that takes longer counts as failed. The system waits longer: it asks every name server twice.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// The most lookups at once.
const LOOKUPS_MAX: usize = 32;
/// Pools of a name in a log line.
const POOLS_NAMED_MAX: usize = 3;
/// With nothing due, the loop still looks this often.
const IDLE: Duration = Duration::from_secs(3_600);

/// The names in use, and the loop that resolves them.
pub struct Discovery {
    resolver: Arc<dyn Resolver>,
    table: Mutex<Table>,
    wake: Notify,
    /// Counts answers of any kind.
    answers: watch::Sender<u64>,
    /// Counts answers that differ from the one before.
    changes: watch::Sender<u64>,
    /// What has been logged already.
    logged: Mutex<HashSet<Remark>>,
    /// The pools of each name, for the log.
    pools: Mutex<HashMap<Arc<str>, Vec<Name>>>,
}

impl Discovery {
    /// Starts without names; [`Discovery::add`] adds them, [`Discovery::run`] resolves them.
    pub fn new(resolver: Arc<dyn Resolver>) -> Discovery {
        Discovery {
            resolver,
            table: Mutex::default(),
            wake: Notify::new(),
            answers: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            logged: Mutex::default(),
            pools: Mutex::default(),
        }
    }

    /// Resolves the names of `config` as soon as possible, known ones too; the last good answers stay in use meanwhile.
    pub fn add(&self, config: &Config) {
        self.note_pools(config);
        self.table.lock().add(wanted(config), Instant::now());
        self.wake.notify_one();
    }

    /// Forgets every name that `config` does not have. Later answers about them are dropped.
    pub fn keep_only(&self, config: &Config) {
        self.note_pools(config);
        self.table.lock().keep_only(wanted(config), Instant::now());
        self.wake.notify_one();
    }

    /// Returns when every name of `config` has been answered once, with addresses or an error, or after `within`.
    pub async fn settled(&self, config: &Config, within: Duration) {
        let mut answers = self.answers.subscribe();
        let answered = async {
            while !wanted(config).all(|(host, _)| self.table.lock().is_answered(host)) {
                // The sender is ours, so this ends with a new answer.
                let _ = answers.changed().await;
            }
        };
        // A later answer counts as a change.
        let _ = tokio::time::timeout(within, answered).await;
    }

    /// `config` with the current addresses of its names.
    pub fn expand(&self, config: &Config) -> Config {
        let (pools, remarks) = expand::expand(config, &self.table.lock());
        self.log_remarks(remarks);
        Config { pools, ..config.clone() }
    }

    /// Changes when [`Discovery::expand`] must be called again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Why a name has no addresses, in one sentence.
    pub fn problem(&self, host: &str) -> String {
        self.table.lock().problem(host)
    }

    /// Resolves every name when it is due. Does not end; dropping the future ends it.
    pub async fn run(&self) {
        let mut lookups = FuturesUnordered::new();
        self.table.lock().begin();
        loop {
            let (due, next) = {
                let mut table = self.table.lock();
                let due = table.due(Instant::now(), LOOKUPS_MAX - lookups.len());
                (due, table.next_due())
            };
            lookups.extend(due.into_iter().map(|host| self.look_up(host)));
            let next = next.filter(|_| lookups.len() < LOOKUPS_MAX).unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                Some((host, answer)) = lookups.next() => self.on_answer(&host, answer),
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    async fn look_up(&self, host: Arc<str>) -> (Arc<str>, Result<Vec<std::net::IpAddr>, ResolveError>) {
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, self.resolver.resolve(&host)).await;
        (host, answer.unwrap_or(Err(ResolveError::TimedOut(LOOKUP_TIMEOUT))))
    }

    fn note_pools(&self, config: &Config) {
        let mut pools: HashMap<Arc<str>, Vec<Name>> = HashMap::new();
        for pool in &config.pools {
            for host in hosts(pool) {
                let of_name = pools.entry(host.clone()).or_default();
                if of_name.last() != Some(&pool.name) {
                    of_name.push(pool.name.clone());
                }
            }
        }
        *self.pools.lock() = pools;
    }

    /// The pools of a name, the first few by name: `api, web and 3 more`.
    fn pools_of(&self, host: &str) -> String {
        let pools = self.pools.lock();
        let all = pools.get(host).map_or(&[][..], Vec::as_slice);
        let named = all.iter().take(POOLS_NAMED_MAX).map(Name::as_str).collect::<Vec<_>>().join(", ");
        match all.len().saturating_sub(POOLS_NAMED_MAX) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }

    fn on_answer(&self, host: &Arc<str>, answer: Result<Vec<std::net::IpAddr>, ResolveError>) {
        let chance = fastrand::f64() * 2.0 - 1.0;
        let outcome = self.table.lock().answer(host, answer, Instant::now(), chance);
        if let Some(news) = outcome.news {
            let pools = self.pools_of(host);
            match news {
                News::Fails { error, known: true } => {
                    tracing::warn!(name = %host, %pools, %error, "Name does not resolve; its last addresses stay in use");
                }
                News::Fails { error, known: false } => {
                    tracing::warn!(name = %host, %pools, %error, "Name does not resolve");
                }
                News::Recovered => tracing::info!(name = %host, %pools, "Name resolves again"),
            }
        }
        if !outcome.refused.is_empty() {
            let addresses: Vec<String> = outcome.refused.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(" ");
            let pools = self.pools_of(host);
            tracing::warn!(name = %host, %pools, %addresses, "Addresses of a name cannot be upstreams and are ignored");
        }
        if outcome.changed {
            self.changes.send_modify(|count| *count += 1);
        }
        self.answers.send_modify(|count| *count += 1);
    }

    /// Logs what was not logged before. Forgets what no longer applies, so that it is logged again when it returns.
    fn log_remarks(&self, remarks: Vec<Remark>) {
        let remarks: HashSet<Remark> = remarks.into_iter().collect();
        let mut logged = self.logged.lock();
        for remark in remarks.difference(&logged) {
            tracing::warn!(pool = %remark.pool, name = %remark.host, address = %remark.address, "{}", remark.what);
        }
        *logged = remarks;
    }
}

/// `config` with the addresses of its names, resolved once: for commands that run without a process.
pub async fn resolved(config: &Config, resolver: Arc<dyn Resolver>) -> Config {
    let discovery = Discovery::new(resolver);
    discovery.add(config);
    tokio::select! {
        () = discovery.run() => {}
        () = discovery.settled(config, LOOKUP_TIMEOUT) => {}
    }
    discovery.expand(config)
}

/// The names of a configuration, and how often each is resolved.
fn wanted(config: &Config) -> impl Iterator<Item = (&Arc<str>, Duration)> {
    config.pools.iter().flat_map(|pool| hosts(pool).map(|host| (host, pool.resolve)))
}

fn hosts(pool: &PoolPolicy) -> impl Iterator<Item = &Arc<str>> {
    pool.upstreams.iter().filter_map(|upstream| upstream.address.host_name())
}

#[cfg(test)]
mod tests;
