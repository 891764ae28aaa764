//! What a new configuration changes in pools and upstreams, by name and bounded: a reload may change ten thousand.
//! Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::events::EventKind;
use crate::model::policy::PoolPolicy;
use crate::model::{Address, Name};

/// The most names in a list.
pub const LISTED_MAX: usize = 16;

/// The most upstreams of one reload that get an event each, so that the ring keeps other events.
pub const UPSTREAM_EVENTS_MAX: usize = 50;

/// The difference between two configurations. Its keys in JSON are part of the admin API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// New pools.
    pub pools_added: Listed,
    /// Removed pools.
    pub pools_removed: Listed,
    /// Pools that are in both configurations and differ.
    pub pools_changed: Listed,
    /// New upstreams as `POOL ADDRESS`, including those of new pools.
    pub upstreams_added: Listed,
    /// Removed upstreams as `POOL ADDRESS`, including those of removed pools.
    pub upstreams_removed: Listed,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// What is not empty, each as `pools added: a, b and 3 more`.
    pub fn lists(&self) -> impl Iterator<Item = String> {
        let all = [
            ("pools added", &self.pools_added),
            ("pools removed", &self.pools_removed),
            ("pools changed", &self.pools_changed),
            ("upstreams added", &self.upstreams_added),
            ("upstreams removed", &self.upstreams_removed),
        ];
        all.into_iter().filter(|(_, list)| list.count > 0).map(|(what, list)| format!("{what}: {list}"))
    }

    /// What a reload from `old` to `new` would change.
    pub fn between(old: &[Arc<PoolPolicy>], new: &[Arc<PoolPolicy>]) -> Changes {
        changes(old.iter().map(|pool| &**pool), new.iter().map(|pool| &**pool)).0
    }
}

/// A count, and the first names in configuration order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The full count.
    pub count: usize,
    /// The first [`LISTED_MAX`].
    pub names: Vec<String>,
}

/// `a, b and 3 more`; empty if nothing is listed.
impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match self.count.saturating_sub(self.names.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Listed {
    fn push(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.names.len() < LISTED_MAX {
            self.names.push(name());
        }
    }
}

/// The difference between two lists of pools, and the events for added and removed upstreams: one each up to
/// [`UPSTREAM_EVENTS_MAX`], and one that counts the rest.
pub(super) fn changes<'a>(
    old: impl Iterator<Item = &'a PoolPolicy>,
    new: impl Iterator<Item = &'a PoolPolicy>,
) -> (Changes, Vec<EventKind>) {
    let mut changes = Changes::default();
    let mut events = Events::default();
    let old: Vec<&PoolPolicy> = old.collect();
    let before: HashMap<&Name, &PoolPolicy> = old.iter().map(|pool| (&pool.name, *pool)).collect();
    let mut after = HashSet::new();
    for pool in new {
        after.insert(&pool.name);
        let earlier = before.get(&pool.name).copied();
        match earlier {
            None => changes.pools_added.push(|| pool.name.to_string()),
            Some(earlier) if earlier != pool => changes.pools_changed.push(|| pool.name.to_string()),
            Some(_) => continue,
        }
        for address in missing(earlier, Some(pool)) {
            changes.upstreams_added.push(|| format!("{} {address}", pool.name));
            events.push(true, &pool.name, address);
        }
        for address in missing(Some(pool), earlier) {
            changes.upstreams_removed.push(|| format!("{} {address}", pool.name));
            events.push(false, &pool.name, address);
        }
    }
    for pool in old.iter().filter(|pool| !after.contains(&pool.name)) {
        changes.pools_removed.push(|| pool.name.to_string());
        for address in missing(None, Some(pool)) {
            changes.upstreams_removed.push(|| format!("{} {address}", pool.name));
            events.push(false, &pool.name, address);
        }
    }
    (changes, events.finish())
}

/// The addresses of `all` that `from` does not have, in file order.
fn missing<'a>(from: Option<&'a PoolPolicy>, all: Option<&'a PoolPolicy>) -> Vec<&'a Address> {
    let addresses = |pool: Option<&'a PoolPolicy>| pool.into_iter().flat_map(|p| &p.upstreams).map(|u| &u.address);
    let known: HashSet<&Address> = addresses(from).collect();
    addresses(all).filter(|address| !known.contains(address)).collect()
}

#[derive(Default)]
struct Events {
    events: Vec<EventKind>,
    added: usize,
    removed: usize,
}

impl Events {
    fn push(&mut self, added: bool, pool: &Name, upstream: &Address) {
        match (self.events.len() < UPSTREAM_EVENTS_MAX, added) {
            (true, true) => {
                self.events.push(EventKind::UpstreamAdded { pool: pool.clone(), upstream: upstream.clone() });
            }
            (true, false) => {
                self.events.push(EventKind::UpstreamRemoved { pool: pool.clone(), upstream: upstream.clone() });
            }
            (false, true) => self.added += 1,
            (false, false) => self.removed += 1,
        }
    }

    fn finish(mut self) -> Vec<EventKind> {
        if self.added + self.removed > 0 {
            self.events.push(EventKind::UpstreamsChanged { added: self.added, removed: self.removed });
        }
        self.events
    }
}
