//! What a reload must bind: two configurations in, the new listeners out, or what cannot be changed without a restart.
//! Sockets are matched by address, so that a renamed listener keeps its socket.

use std::num::NonZeroUsize;

use crate::model::policy::{Config, ListenerPolicy};
use crate::model::{Address, Name};

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

/// The listeners of `new` whose addresses `old` does not have: to be bound before anything is applied.
///
/// # Errors
/// Everything that needs a restart; then nothing of `new` may be applied.
pub fn new_listeners<'c>(old: &Config, new: &'c Config) -> Result<Vec<&'c ListenerPolicy>, Vec<NeedsRestart>> {
    let refused = needs_restart(old, new);
    if !refused.is_empty() {
        return Err(refused);
    }
    Ok(new.listeners.iter().filter(|listener| !has_address(old, &listener.address)).collect())
}

fn has_address(config: &Config, address: &Address) -> bool {
    config.listeners.iter().any(|listener| listener.address == *address)
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
        let kept = has_address(old, to);
        if let Some(from) = bound.iter().find(|from| !kept && (from.covers(to) || to.covers(from))) {
            out.push(NeedsRestart::Overlap { name: listener.name.clone(), from: (*from).clone(), to: to.clone() });
        }
    }
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

    #[test]
    fn only_an_address_that_was_not_there_is_bound() {
        let cases = [
            ("threads = 2\n", "threads = 2   \n", None),
            ("listeners.web", "listeners.www", None),
            ("10.0.0.2:1", "10.0.0.9:1", None),
            ("127.0.0.1:80", "127.0.0.1:81", Some("127.0.0.1:81")),
            (
                "listeners.web",
                "listeners.two = { address = \"127.0.0.1:82\", pool = \"a\" }\nlisteners.web",
                Some("127.0.0.1:82"),
            ),
        ];
        for (from, to, want) in cases {
            let new = config(&BASE.replace(from, to));
            let old = config(BASE);
            let bound = new_listeners(&old, &new).unwrap();
            let addresses: Vec<String> = bound.iter().map(|listener| listener.address.to_string()).collect();
            assert_eq!(addresses, Vec::from_iter(want), "{to}");
        }
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
            let refused = new_listeners(&config(BASE), &config(&new)).unwrap_err();
            assert_eq!(refused.iter().map(ToString::to_string).collect::<Vec<_>>(), [sentence]);
        }
    }
}
