//! Which addresses the host names of a configuration stand for, off the request path. [`table`] (pure) knows what was
//! answered last and when to ask again; [`expand`] (pure) puts addresses in the place of names; [`Discovery`] asks.
//!
//! Asking is the system's business ([`SystemResolver`]), so that `/etc/hosts`, search domains and everything else of
//! `nsswitch.conf` hold as for every other program. What a changed answer does to a pool is `app`'s and `pool`'s.

mod expand;
mod prober;
mod resolver;
mod table;

use std::collections::HashSet;
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

use crate::model::policy::Config;
use table::News;

/// How long a start or a reload waits for names that it does not know; then it goes on without them.
pub const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// After this long a lookup counts as failed. The system's own patience is longer: it asks every name server twice.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Lookups at once.
const LOOKUPS_MAX: usize = 32;
/// With nothing due, the loop still looks this often.
const IDLE: Duration = Duration::from_secs(3_600);

/// The names in use, and the loop that asks for their addresses.
pub struct Discovery {
    resolver: Arc<dyn Resolver>,
    table: Mutex<Table>,
    wake: Notify,
    /// Counts answers, whatever they say.
    answers: watch::Sender<u64>,
    /// Counts answers that differ from the one before.
    changes: watch::Sender<u64>,
    /// What the log has already.
    told: Mutex<HashSet<Remark>>,
}

impl Discovery {
    /// Knows no names yet; [`Discovery::add`] gives it some, [`Discovery::run`] asks.
    pub fn new(resolver: Arc<dyn Resolver>) -> Discovery {
        Discovery {
            resolver,
            table: Mutex::default(),
            wake: Notify::new(),
            answers: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            told: Mutex::default(),
        }
    }

    /// The names of `config` are asked for as soon as possible, those that are known already too; the last good answers
    /// stand meanwhile.
    pub fn add(&self, config: &Config) {
        self.table.lock().add(wanted(config), Instant::now());
        self.wake.notify_one();
    }

    /// Forgets every name that `config` does not have. What is still answered about them is dropped.
    pub fn keep_only(&self, config: &Config) {
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
        // Whatever has not come by then comes as a change.
        let _ = tokio::time::timeout(within, answered).await;
    }

    /// `config` with the addresses that its names stand for now.
    pub fn expand(&self, config: &Config) -> Config {
        let (pools, remarks) = expand::expand(config, &self.table.lock());
        self.tell(remarks);
        Config { pools, ..config.clone() }
    }

    /// Wakes whoever must expand again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Why a name has no addresses, in a sentence.
    pub fn problem(&self, host: &str) -> String {
        self.table.lock().problem(host)
    }

    /// Asks whenever a name is due. Does not end; dropping the future ends it.
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

    fn on_answer(&self, host: &Arc<str>, answer: Result<Vec<std::net::IpAddr>, ResolveError>) {
        let chance = fastrand::f64() * 2.0 - 1.0;
        let outcome = self.table.lock().answer(host, answer, Instant::now(), chance);
        match outcome.news {
            Some(News::Fails { error, known: true }) => {
                tracing::warn!(name = %host, %error, "Name does not resolve; its last addresses stay");
            }
            Some(News::Fails { error, known: false }) => tracing::warn!(name = %host, %error, "Name does not resolve"),
            Some(News::Recovered) => tracing::info!(name = %host, "Name resolves again"),
            None => {}
        }
        if !outcome.refused.is_empty() {
            let addresses: Vec<String> = outcome.refused.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(" ");
            tracing::warn!(name = %host, %addresses, "Addresses of a name that cannot be upstreams are left out");
        }
        if outcome.changed {
            self.changes.send_modify(|count| *count += 1);
        }
        self.answers.send_modify(|count| *count += 1);
    }

    /// Logs what was not logged before; what is true no more is forgotten, so that it is told when it comes back.
    fn tell(&self, remarks: Vec<Remark>) {
        let remarks: HashSet<Remark> = remarks.into_iter().collect();
        let mut told = self.told.lock();
        for remark in remarks.difference(&told) {
            tracing::warn!(pool = %remark.pool, name = %remark.host, address = %remark.address, "{}", remark.what);
        }
        *told = remarks;
    }
}

/// `config` with the addresses that its names stand for, asked for once: for commands that go without a running process.
pub async fn resolved(config: &Config, resolver: Arc<dyn Resolver>) -> Config {
    let discovery = Discovery::new(resolver);
    discovery.add(config);
    tokio::select! {
        () = discovery.run() => {}
        () = discovery.settled(config, LOOKUP_TIMEOUT) => {}
    }
    discovery.expand(config)
}

/// The names of a configuration, and how often each is asked for.
fn wanted(config: &Config) -> impl Iterator<Item = (&Arc<str>, Duration)> {
    config.pools.iter().flat_map(|pool| {
        let hosts = pool.upstreams.iter().filter_map(|upstream| upstream.address.host_name());
        hosts.map(|host| (host, pool.resolve))
    })
}

#[cfg(test)]
mod tests;
