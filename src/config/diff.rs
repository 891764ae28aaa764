//! What a reload changes: two configurations in, the difference out, or what cannot be changed without a restart. Sockets
//! are matched by address, so that a renamed listener keeps its socket; pools by name.

use std::num::NonZeroUsize;

use crate::model::policy::{Config, ListenerPolicy};
use crate::model::{Address, Name};

/// What differs between a running configuration and its successor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Listeners.
    pub listeners: ListenerDiff,
    /// Pools.
    pub pools: PoolDiff,
    /// Whether the list of routes differs.
    pub routes_changed: bool,
    /// Whether `drain_delay` or `drain_timeout` differs.
    pub drain_changed: bool,
    /// Whether the admin's token differs.
    pub admin_token_changed: bool,
}

/// Listeners by address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerDiff {
    /// Listeners to bind.
    pub added: Vec<ListenerPolicy>,
    /// Listeners to close; their connections finish.
    pub removed: Vec<ListenerPolicy>,
    /// Listeners that keep their socket and get another name or pool, in their new form.
    pub changed: Vec<ListenerPolicy>,
}

/// Pools by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolDiff {
    /// New pools.
    pub added: Vec<Name>,
    /// Pools that no longer exist.
    pub removed: Vec<Name>,
    /// Pools that differ in anything.
    pub changed: Vec<Name>,
}

impl Diff {
    /// Whether nothing that a user can observe differs.
    pub fn is_unchanged(&self) -> bool {
        *self == Diff::default()
    }
}

/// A change that a running process cannot make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NeedsRestart {
    /// The lane is chosen once.
    #[error("runtime.lane: a change needs a restart")]
    Lane,
    /// The worker threads are started once.
    #[error("runtime.threads: a change from {} to {} needs a restart", show(*.from), show(*.to))]
    Threads {
        /// The running value.
        from: Option<NonZeroUsize>,
        /// The new value.
        to: Option<NonZeroUsize>,
    },
    /// Reloads arrive through the admin socket; it is not moved while it is in use.
    #[error("admin.address: a change from {from} to {to} needs a restart")]
    Admin {
        /// The running value.
        from: Address,
        /// The new value.
        to: Address,
    },
    /// The new socket could be bound only after the old one is closed, and connections would be refused in between.
    #[error("listeners.{name}.address: {to} overlaps {from}, which is bound; this needs a restart")]
    Overlap {
        /// The listener.
        name: Name,
        /// The bound address.
        from: Address,
        /// The new value.
        to: Address,
    },
}

fn show(threads: Option<NonZeroUsize>) -> String {
    threads.map_or_else(|| "the default".to_owned(), |n| n.to_string())
}

/// The difference from `old` to `new`.
///
/// # Errors
/// Everything that needs a restart; then nothing of `new` may be applied.
pub fn diff(old: &Config, new: &Config) -> Result<Diff, Vec<NeedsRestart>> {
    let refused = needs_restart(old, new);
    if !refused.is_empty() {
        return Err(refused);
    }
    Ok(Diff {
        listeners: listeners(&old.listeners, &new.listeners),
        pools: pools(old, new),
        routes_changed: old.routes != new.routes,
        drain_changed: (old.runtime.drain_delay, old.runtime.drain_timeout)
            != (new.runtime.drain_delay, new.runtime.drain_timeout),
        admin_token_changed: old.admin.token != new.admin.token,
    })
}

fn needs_restart(old: &Config, new: &Config) -> Vec<NeedsRestart> {
    let mut out = Vec::new();
    if old.runtime.threads != new.runtime.threads {
        out.push(NeedsRestart::Threads { from: old.runtime.threads, to: new.runtime.threads });
    }
    if old.runtime.lane != new.runtime.lane {
        out.push(NeedsRestart::Lane);
    }
    if old.admin.address != new.admin.address {
        out.push(NeedsRestart::Admin { from: old.admin.address.clone(), to: new.admin.address.clone() });
    }
    let bound: Vec<_> = old.listeners.iter().map(|l| &l.address).chain([&old.admin.address]).collect();
    for listener in &new.listeners {
        let to = &listener.address;
        let kept = old.listeners.iter().any(|l| l.address == *to);
        if let Some(from) = bound.iter().find(|from| !kept && (from.covers(to) || to.covers(from))) {
            out.push(NeedsRestart::Overlap { name: listener.name.clone(), from: (*from).clone(), to: to.clone() });
        }
    }
    out
}

fn listeners(old: &[ListenerPolicy], new: &[ListenerPolicy]) -> ListenerDiff {
    let find = |all: &[ListenerPolicy], address: &Address| all.iter().find(|l| l.address == *address).cloned();
    let removed = old.iter().filter(|l| find(new, &l.address).is_none()).cloned().collect();
    let mut out = ListenerDiff { removed, ..ListenerDiff::default() };
    for listener in new {
        match find(old, &listener.address) {
            None => out.added.push(listener.clone()),
            Some(before) if before != *listener => out.changed.push(listener.clone()),
            Some(_) => {}
        }
    }
    out
}

fn pools(old: &Config, new: &Config) -> PoolDiff {
    let mut out = PoolDiff::default();
    for pool in &new.pools {
        match old.pools.iter().find(|p| p.name == pool.name) {
            None => out.added.push(pool.name.clone()),
            Some(before) if before != pool => out.changed.push(pool.name.clone()),
            Some(_) => {}
        }
    }
    let gone = old.pools.iter().filter(|p| !new.pools.iter().any(|q| q.name == p.name));
    out.removed = gone.map(|p| p.name.clone()).collect();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets::EmptyEnv;
    use crate::config::{Source, parse};

    fn config(text: &str) -> Config {
        match parse(&Source { file: "x", text: text.as_bytes() }, &EmptyEnv) {
            Ok(parsed) => parsed.config,
            Err(all) => panic!("{}", crate::config::diagnostic::render_all(&all, false)),
        }
    }

    const BASE: &str = "runtime.threads = 2\nlisteners.web = { address = \"127.0.0.1:80\", pool = \"a\" }\n\
        pools.a.upstreams = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\npools.b.upstreams = [\"10.0.0.3:1\", \"10.0.0.4:1\"]\n";

    fn names(all: &[Name]) -> Vec<&str> {
        all.iter().map(Name::as_str).collect()
    }

    #[test]
    fn an_equal_configuration_changes_nothing() {
        let same = format!("# a comment\n{}", BASE.replace("= 2\n", "= 2   \n"));
        assert!(diff(&config(BASE), &config(&same)).unwrap().is_unchanged());
    }

    #[test]
    fn a_renamed_listener_keeps_its_socket() {
        let new = config(&BASE.replace("listeners.web", "listeners.www"));
        let listeners = diff(&config(BASE), &new).unwrap().listeners;
        assert!(listeners.added.is_empty() && listeners.removed.is_empty());
        assert_eq!(listeners.changed, new.listeners);
    }

    #[test]
    fn another_address_is_another_listener() {
        let (old, new) = (config(BASE), config(&BASE.replace("127.0.0.1:80", "127.0.0.1:81")));
        let listeners = diff(&old, &new).unwrap().listeners;
        assert_eq!(listeners, ListenerDiff { added: new.listeners, removed: old.listeners, changed: Vec::new() });
    }

    #[test]
    fn pools_are_added_removed_and_changed_by_name() {
        let new = BASE.replace("pools.b", "pools.c").replace("10.0.0.2:1", "10.0.0.9:1");
        let pools = diff(&config(BASE), &config(&new)).unwrap().pools;
        assert_eq!(
            (names(&pools.added), names(&pools.removed), names(&pools.changed)),
            (vec!["c"], vec!["b"], vec!["a"])
        );
    }

    #[test]
    fn a_change_that_needs_a_restart_is_named_and_refuses_the_reload() {
        let cases = [
            (("threads = 2", "threads = 4"), "runtime.threads: a change from 2 to 4 needs a restart"),
            (("runtime.threads = 2\n", ""), "runtime.threads: a change from 2 to the default needs a restart"),
            (
                ("127.0.0.1:80", "0.0.0.0:80"),
                "listeners.web.address: 0.0.0.0:80 overlaps 127.0.0.1:80, which is bound; this needs a restart",
            ),
            (
                ("runtime.", "admin.address = \"127.0.0.1:9901\"\nruntime."),
                "admin.address: a change from 127.0.0.1:9900 to 127.0.0.1:9901 needs a restart",
            ),
        ];
        for ((from, to), sentence) in cases {
            let new = BASE.replace(from, to).replace("10.0.0.2:1", "10.0.0.9:1");
            let refused = diff(&config(BASE), &config(&new)).unwrap_err();
            assert_eq!(refused.iter().map(ToString::to_string).collect::<Vec<_>>(), [sentence]);
        }
    }

    #[test]
    fn the_drain_times_and_the_routes_change_at_run_time() {
        let new = format!("runtime.drain_delay = \"5s\"\n{BASE}[[routes]]\npool = \"b\"\n");
        let diff = diff(&config(BASE), &config(&new)).unwrap();
        assert!(diff.drain_changed && diff.routes_changed && !diff.is_unchanged());
    }
}
