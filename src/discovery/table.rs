//! The state of each name: its last good addresses, what has failed since, and when to look up again. Pure: answers in,
//! time and chance as arguments.
//!
//! An error and an empty answer keep the last good addresses: a name server that is down must not take upstreams down.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ResolveError;
use crate::model::Address;

/// The most addresses of one name that are used: the first in sorted order.
pub const ADDRESSES_MAX: usize = 256;
/// A name that did not resolve is looked up again after this long, then after twice as long, up to its `resolve`.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How much earlier or later than `resolve` a name is looked up, as a share of `resolve`.
const JITTER: f64 = 0.1;

/// Every name in use.
#[derive(Debug, Default)]
pub struct Table {
    names: HashMap<Arc<str>, Entry>,
    /// The names by due time, without those in flight.
    queue: BTreeSet<(Instant, Arc<str>)>,
    /// Lookups in flight, including those of names that are no longer in use.
    in_flight: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    every: Duration,
    /// Sorted and distinct; empty until the first good answer.
    good: Vec<IpAddr>,
    /// The error of the newest lookup, if it failed.
    error: Option<ResolveError>,
    failures: u32,
    answered: bool,
    /// Addresses in the newest answer that cannot be used.
    refused: Vec<IpAddr>,
    due: Instant,
}

/// The effect of an answer.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The name has other addresses than before.
    pub changed: bool,
    /// Something to log, once.
    pub news: Option<News>,
    /// Addresses that cannot be used, if they differ from the last time.
    pub refused: Vec<IpAddr>,
}

/// Something to log.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// The first failure after a success, or the first of all.
    Fails {
        /// Why.
        error: ResolveError,
        /// Whether there are addresses from before.
        known: bool,
    },
    /// The first success after a failure.
    Recovered,
}

impl Table {
    /// Adds these names, due at once, and each once in `Duration` after that; the shortest counts.
    pub fn add<'a>(&mut self, wanted: impl Iterator<Item = (&'a Arc<str>, Duration)>, now: Instant) {
        for (host, every) in shortest(wanted) {
            let entry = self.names.entry(host.clone()).or_insert_with(|| Entry::new(every, now));
            entry.every = entry.every.min(every);
            self.queue.remove(&(entry.due, host.clone()));
            entry.due = entry.due.min(now);
            if !self.in_flight.contains(&host) {
                self.queue.insert((entry.due, host));
            }
        }
    }

    /// Drops all names but these.
    pub fn keep_only<'a>(&mut self, wanted: impl Iterator<Item = (&'a Arc<str>, Duration)>, now: Instant) {
        let wanted = shortest(wanted);
        self.names.retain(|host, _| wanted.contains_key(host));
        self.queue.retain(|(_, host)| wanted.contains_key(host));
        for (host, entry) in &mut self.names {
            entry.every = wanted[host];
            let latest = now + entry.every;
            if entry.due > latest && self.queue.remove(&(entry.due, host.clone())) {
                entry.due = latest;
                self.queue.insert((entry.due, host.clone()));
            }
        }
    }

    /// Clears the lookups in flight, after a restart of the loop.
    pub fn begin(&mut self) {
        for host in std::mem::take(&mut self.in_flight) {
            if let Some(entry) = self.names.get(&host) {
                self.queue.insert((entry.due, host));
            }
        }
    }

    /// The names to look up now, at most `room`: the most overdue first.
    pub fn due(&mut self, now: Instant, room: usize) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        while due.len() < room && self.queue.first().is_some_and(|(at, _)| *at <= now) {
            let (_, host) = self.queue.pop_first().expect("just looked at");
            self.in_flight.insert(host.clone());
            due.push(host);
        }
        due
    }

    /// When [`Table::due`] returns something next.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// A lookup ended. `chance` is from -1 to 1. An answer for a name that is no longer in use is dropped.
    pub fn answer(
        &mut self,
        host: &Arc<str>,
        answer: Result<Vec<IpAddr>, ResolveError>,
        now: Instant,
        chance: f64,
    ) -> Outcome {
        self.in_flight.remove(host);
        let Some(entry) = self.names.get_mut(host) else { return Outcome::default() };
        let outcome = entry.take(answer);
        entry.due = now + entry.pause(chance);
        self.queue.insert((entry.due, host.clone()));
        outcome
    }

    /// The addresses of a name; empty if it never had any, or is not in use.
    pub fn addresses(&self, host: &str) -> &[IpAddr] {
        self.names.get(host).map_or(&[], |entry| &entry.good)
    }

    /// Whether a name has been answered, with addresses or an error; true for a name that is not in use.
    pub fn is_answered(&self, host: &str) -> bool {
        self.names.get(host).is_none_or(|entry| entry.answered)
    }

    /// Why a name has no upstream, in one sentence.
    pub fn problem(&self, host: &str) -> String {
        match self.names.get(host) {
            Some(Entry { good, .. }) if !good.is_empty() => {
                format!("{host} resolves only to addresses of roundsman itself")
            }
            Some(Entry { error: Some(error), .. }) => format!("{host} does not resolve: {error}"),
            Some(_) | None => format!("{host} is being resolved"),
        }
    }
}

impl Entry {
    fn new(every: Duration, now: Instant) -> Entry {
        Entry { every, good: vec![], error: None, failures: 0, answered: false, refused: vec![], due: now }
    }

    fn take(&mut self, answer: Result<Vec<IpAddr>, ResolveError>) -> Outcome {
        self.answered = true;
        let answer = answer.and_then(|addresses| {
            let any = !addresses.is_empty();
            let (good, refused) = split_usable(addresses);
            match (good.is_empty(), any) {
                (true, false) => Err(ResolveError::Empty),
                (true, true) => Err(ResolveError::Unusable(refused)),
                (false, _) => Ok((good, refused)),
            }
        });
        match answer {
            Ok((good, refused)) => {
                let recovered = self.error.take().is_some();
                self.failures = 0;
                let changed = self.good != good;
                self.good = good;
                let new = if self.refused == refused { vec![] } else { refused.clone() };
                self.refused = refused;
                Outcome { changed, news: recovered.then_some(News::Recovered), refused: new }
            }
            Err(error) => {
                let first = self.error.is_none();
                self.failures = self.failures.saturating_add(1);
                self.error = Some(error.clone());
                let known = !self.good.is_empty();
                Outcome { news: first.then_some(News::Fails { error, known }), ..Outcome::default() }
            }
        }
    }

    /// How long until the next lookup.
    fn pause(&self, chance: f64) -> Duration {
        let pause = match self.failures {
            0 => self.every,
            n => (RETRY_MIN * 2u32.saturating_pow((n - 1).min(20))).min(self.every),
        };
        pause.mul_f64(1.0 + JITTER * chance)
    }
}

fn shortest<'a>(wanted: impl Iterator<Item = (&'a Arc<str>, Duration)>) -> HashMap<Arc<str>, Duration> {
    let mut out: HashMap<Arc<str>, Duration> = HashMap::new();
    for (host, every) in wanted {
        let known = out.entry(host.clone()).or_insert(every);
        *known = every.min(*known);
    }
    out
}

/// The usable addresses, sorted, distinct and at most [`ADDRESSES_MAX`]; and some of the unusable ones. A link-local
/// IPv6 address needs an interface, which a name does not give.
fn split_usable(addresses: Vec<IpAddr>) -> (Vec<IpAddr>, Vec<IpAddr>) {
    const REFUSED_MAX: usize = 8;
    let canonical = addresses.into_iter().map(|ip| ip.to_canonical());
    let usable = |ip: &IpAddr| {
        let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !link_local && Address::Inet((*ip, 1).into()).upstream_problem().is_none()
    };
    let (mut good, mut refused): (Vec<IpAddr>, Vec<IpAddr>) = canonical.partition(usable);
    for (list, max) in [(&mut good, ADDRESSES_MAX), (&mut refused, REFUSED_MAX)] {
        list.sort_unstable();
        list.dedup();
        list.truncate(max);
    }
    (good, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn host() -> Arc<str> {
        "api".into()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn table(every: Duration, now: Instant) -> Table {
        let mut table = Table::default();
        table.add([(&host(), every)].into_iter(), now);
        assert_eq!(table.due(now, 9), [host()]);
        table
    }

    fn failed() -> ResolveError {
        ResolveError::System("no such name".into())
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_sorted_distinct_bounded_and_usable() {
        let now = Instant::now();
        let mut table = table(SECOND, now);
        let answer = [
            "10.0.0.2",
            "::1",
            "10.0.0.1",
            "::ffff:10.0.0.2",
            "fe80::1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "169.254.0.9",
        ];
        let outcome = table.answer(&host(), Ok(ips(&answer)), now, 0.0);
        assert!(outcome.changed);
        assert_eq!(table.addresses("api"), ips(&["10.0.0.1", "10.0.0.2", "169.254.0.9", "::1"]));
        let refused = ips(&["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "fe80::1", "ff02::1"]);
        assert_eq!(outcome.refused, refused);

        let mut turned = ips(&answer);
        turned.reverse();
        assert_eq!(table.answer(&host(), Ok(turned), now, 0.0), Outcome::default(), "another order is not a change");

        let many: Vec<IpAddr> =
            (0..10_000u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n))).collect();
        table.answer(&host(), Ok(many), now, 0.0);
        assert_eq!(table.addresses("api").len(), ADDRESSES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_and_an_empty_answer_keep_the_last_good_addresses() {
        let now = Instant::now();
        let mut table = table(SECOND, now);
        table.answer(&host(), Ok(ips(&["10.0.0.1"])), now, 0.0);
        let outcome = table.answer(&host(), Err(failed()), now, 0.0);
        assert_eq!(outcome.news, Some(News::Fails { error: failed(), known: true }));
        assert!(!outcome.changed);
        for bad in [Err(failed()), Ok(vec![]), Ok(ips(&["fe80::1"]))] {
            assert_eq!(table.answer(&host(), bad, now, 0.0), Outcome::default(), "reported once");
            assert_eq!(table.addresses("api"), ips(&["10.0.0.1"]));
        }
        let outcome = table.answer(&host(), Ok(ips(&["10.0.0.1"])), now, 0.0);
        assert_eq!(outcome, Outcome { news: Some(News::Recovered), ..Outcome::default() });
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_every_interval_and_sooner_while_it_fails() {
        let now = Instant::now();
        let mut table = table(10 * SECOND, now);
        let failures = [SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND, 10 * SECOND, 10 * SECOND];
        for pause in failures {
            table.answer(&host(), Err(failed()), now, 0.0);
            assert_eq!(table.next_due(), Some(now + pause));
            assert!(table.due(now + pause - SECOND / 10, 9).is_empty());
            assert_eq!(table.due(now + pause, 9), [host()]);
            assert!(table.due(now + 99 * SECOND, 9).is_empty(), "one lookup at a time");
        }
        for (chance, pause) in [(0.0, 10 * SECOND), (1.0, 11 * SECOND), (-1.0, 9 * SECOND)] {
            table.answer(&host(), Ok(ips(&["10.0.0.1"])), now, chance);
            assert_eq!(table.next_due(), Some(now + pause));
            assert_eq!(table.due(now + pause, 9), [host()]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_interval_counts_and_a_reload_may_change_it() {
        let now = Instant::now();
        let mut table = Table::default();
        table.add([(&host(), 60 * SECOND), (&host(), 20 * SECOND)].into_iter(), now);
        assert_eq!(table.due(now, 9), [host()]);
        table.answer(&host(), Ok(ips(&["10.0.0.1"])), now, 0.0);
        assert_eq!(table.next_due(), Some(now + 20 * SECOND));
        table.keep_only([(&host(), 5 * SECOND)].into_iter(), now);
        assert_eq!(table.next_due(), Some(now + 5 * SECOND));
        table.add([(&host(), 5 * SECOND)].into_iter(), now);
        assert_eq!(table.next_due(), Some(now), "a reload asks at once");
        assert_eq!(table.addresses("api"), ips(&["10.0.0.1"]), "and keeps what is known meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_for_a_removed_name_is_dropped_and_lookups_do_not_overlap() {
        let now = Instant::now();
        let mut table = table(SECOND, now);
        table.keep_only([].into_iter(), now);
        assert!(table.is_answered("api"), "nothing waits for it");
        table.add([(&host(), SECOND)].into_iter(), now);
        assert!(table.due(now, 9).is_empty() && !table.is_answered("api"), "the earlier lookup still runs");
        table.keep_only([].into_iter(), now);
        assert_eq!(table.answer(&host(), Ok(ips(&["10.0.0.1"])), now, 0.0), Outcome::default());
        assert!(table.addresses("api").is_empty() && table.next_due().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_due_than_there_is_room_for() {
        let now = Instant::now();
        let mut table = Table::default();
        let hosts: Vec<Arc<str>> = (0..10).map(|n| Arc::from(format!("h{n}"))).collect();
        table.add(hosts.iter().map(|host| (host, SECOND)), now);
        assert_eq!(table.due(now, 4).len(), 4);
        assert_eq!(table.due(now, 9).len(), 6);
        table.begin();
        assert_eq!(table.due(now, 99).len(), 10, "after a restart of the loop nothing is in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn the_problem_of_a_name_is_a_sentence() {
        let now = Instant::now();
        let mut table = table(SECOND, now);
        assert_eq!(table.problem("api"), "api is being resolved");
        table.answer(&host(), Err(failed()), now, 0.0);
        assert_eq!(table.problem("api"), "api does not resolve: no such name");
        table.answer(&host(), Ok(vec![]), now, 0.0);
        assert_eq!(table.problem("api"), "api does not resolve: the answer is empty");
        table.answer(&host(), Ok(ips(&["fe80::1"])), now, 0.0);
        assert_eq!(table.problem("api"), "api does not resolve: none of its addresses can be an upstream (fe80::1)");
    }
}
