//! What a configuration changes of pools and upstreams, by name and bounded: a reload may change ten thousand. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::events::EventKind;
use crate::model::policy::PoolPolicy;
use crate::model::{Address, Name};

/// Names that a list holds.
pub const LISTED_MAX: usize = 16;

/// Upstreams of one reload that have an event of their own, so that it leaves room for others in the ring.
pub const UPSTREAM_EVENTS_MAX: usize = 50;

/// What differs between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New pools.
    pub pools_added: Listed,
    /// Pools that are gone.
    pub pools_removed: Listed,
    /// Pools that are in both and differ in anything.
    pub pools_changed: Listed,
    /// New upstreams, as `POOL ADDRESS`, those of new pools included.
    pub upstreams_added: Listed,
    /// Upstreams that are gone, as `POOL ADDRESS`, those of removed pools included.
    pub upstreams_removed: Listed,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// How many, and the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// How many.
    pub count: usize,
    /// The first [`LISTED_MAX`].
    pub names: Vec<String>,
}

/// `a, b and 3 more`; empty where there is none.
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

/// The difference between two lists of pools, and the events for the upstreams that came and went: one each up to
/// [`UPSTREAM_EVENTS_MAX`], one for all the others.
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
    own: Vec<EventKind>,
    added: usize,
    removed: usize,
}

impl Events {
    fn push(&mut self, added: bool, pool: &Name, upstream: &Address) {
        match (self.own.len() < UPSTREAM_EVENTS_MAX, added) {
            (true, true) => {
                self.own.push(EventKind::UpstreamAdded { pool: pool.clone(), upstream: upstream.clone() });
            }
            (true, false) => {
                self.own.push(EventKind::UpstreamRemoved { pool: pool.clone(), upstream: upstream.clone() });
            }
            (false, true) => self.added += 1,
            (false, false) => self.removed += 1,
        }
    }

    fn finish(mut self) -> Vec<EventKind> {
        if self.added + self.removed > 0 {
            self.own.push(EventKind::UpstreamsChanged { added: self.added, removed: self.removed });
        }
        self.own
    }
}
