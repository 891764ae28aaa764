//! From the keys as written to a [`Config`] that cannot be wrong: defaults, references, duplicates, and rules between
//! keys. Its type has already checked each single value. All mistakes are reported, each at its place.

mod access;
mod check;
mod nowhere;
mod pool;
mod route;
mod rules;
mod sessions;
mod sockets;
mod traffic;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::raw;
use super::read::{At, ByName, Field, nearest, quoted, shown_key};
use super::report::{Found, Report};
use crate::model::policy::{
    AdminPolicy, Config, FALLBACK_POOLS_MAX, Lane, ListenerPolicy, Marks, PoolPolicy, RuntimePolicy,
};
use crate::model::{Address, Name};

/// Long enough for ordinary requests, short enough for an operator who waits for the restart.
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The loopback, so that the admin is not exposed by default.
const DEFAULT_ADMIN_ADDRESS: &str = "127.0.0.1:9900";
/// A token of 16 bytes from a random source cannot be guessed over the network.
const TOKEN_BYTES_MIN: usize = 16;

/// Makes the configuration, or `None` if something needed is missing or wrong (and reported).
pub fn validate(file: &raw::File, report: &mut Report) -> Option<Config> {
    let names = Names::collect(file);
    let runtime = runtime(file);
    let listeners = listeners(file, &names, report);
    let admin = admin(file, report);
    sockets::refuse_overlaps(file, &listeners, &admin, report);
    let own = sockets::OwnSockets::new(file, &listeners, &admin);
    let pools = pools(file, &names, &own, report);
    check::warn_about_unverified(file, report);
    let routes = route::routes(file, &names, report);
    nowhere::warn(file, &listeners, &routes, &pools, report);
    sessions::warn(file, &listeners, &routes, &pools, report);
    if report.has_errors() {
        return None;
    }
    let forwarded = Arc::new(traffic::forwarded(file));
    let listeners = listeners.into_iter().flatten().collect();
    let access_log = access::access_log(file, report).map(Arc::new);
    Some(Config { runtime, listeners, routes, pools, admin: admin?, forwarded, access_log })
}

/// The names of pools and listeners, including those with mistakes: a reference to one of these is not another mistake.
struct Names<'a> {
    pools: Vec<&'a str>,
    listeners: Vec<&'a str>,
    /// If the list itself is broken, every reference is accepted.
    pools_known: bool,
    listeners_known: bool,
}

/// Whether all names and their keys are known: every entry is a table, and no table is under a misspelt key.
fn are_known<T, const MAX: usize>(field: &Field<ByName<T, MAX>>, others: bool) -> bool {
    match field {
        Field::Good(all) => !others && all.value.0.iter().all(|(_, table)| table.is_some()),
        Field::Absent => !others,
        Field::Bad => false,
    }
}

impl<'a> Names<'a> {
    fn collect(file: &'a raw::File) -> Names<'a> {
        let pools = file.pools.value().map(|by_name| &by_name.0);
        let listeners = file.listeners.value().map(|by_name| &by_name.0);
        Names {
            pools: pools.into_iter().flatten().map(|(name, _)| name.value.as_str()).collect(),
            listeners: listeners.into_iter().flatten().map(|(name, _)| name.value.as_str()).collect(),
            pools_known: are_known(&file.pools, file.others),
            listeners_known: are_known(&file.listeners, file.others),
        }
    }

    /// The pool that `name` refers to.
    fn pool(&self, name: &str, span: &Range<usize>, key: &str, report: &mut Report) -> Option<Name> {
        resolve("pool", name, &self.pools, self.pools_known, span, key, report)
    }

    /// The listener that `name` refers to.
    fn listener(&self, name: &str, span: &Range<usize>, key: &str, report: &mut Report) -> Option<Name> {
        resolve("listener", name, &self.listeners, self.listeners_known, span, key, report)
    }
}

fn resolve(
    kind: &str,
    name: &str,
    all: &[&str],
    all_known: bool,
    span: &Range<usize>,
    key: &str,
    report: &mut Report,
) -> Option<Name> {
    if !all.contains(&name) {
        if all_known {
            let near = nearest(name, all.iter().copied());
            let mut found = Found::error(span.clone(), key, format!("there is no {kind} {}", quoted(name)));
            if (1..=8).contains(&all.len()) {
                let names: Vec<_> = all.iter().map(|name| quoted(name)).collect();
                found = found.expected(format!("the name of a {kind}: {}", names.join(", ")));
            }
            report.add(found.suggestion(near.map(|name| quoted(&name))));
        }
        return None;
    }
    // A bad name is reported where it is declared.
    Name::try_new(name).ok()
}

/// The name of a table, or a report that it cannot be one.
fn table_name(name: &At<String>, key: &str, report: &mut Report) -> Option<Name> {
    match Name::try_new(&name.value) {
        Ok(name) => Some(name),
        Err(error) => {
            let message = format!("{} cannot be a name: {error}", quoted(&name.value));
            report.add(Found::error(name.span.clone(), key, message));
            None
        }
    }
}

fn runtime(file: &raw::File) -> RuntimePolicy {
    let raw = file.runtime.value();
    let threads = raw.and_then(|r| r.threads.value()).and_then(|count| usize::try_from(count.0).ok());
    RuntimePolicy {
        threads: threads.and_then(NonZeroUsize::new),
        lane: raw.and_then(|r| r.lane.value()).map_or(Lane::Auto, |lane| lane.0),
        drain_delay: raw.and_then(|r| r.drain_delay.value()).map_or(Duration::ZERO, |span| span.0),
        drain_timeout: raw.and_then(|r| r.drain_timeout.value()).map_or(DEFAULT_DRAIN_TIMEOUT, |span| span.0),
    }
}

/// One entry per table of the file, in its order; `None` where it has mistakes.
fn listeners(file: &raw::File, names: &Names<'_>, report: &mut Report) -> Vec<Option<ListenerPolicy>> {
    let all = file.listeners.value().map_or(&[][..], |by_name| &by_name.0);
    if all.is_empty() && !matches!(file.listeners, Field::Bad) && !file.others {
        report.add(Found::missing("there is no listener; write [listeners.NAME] with an address"));
    }
    let one = |(name, raw): &(At<String>, Option<At<raw::Listener>>)| {
        let key = format!("listeners.{}", shown_key(&name.value));
        let good_name = table_name(name, &key, report);
        let At { value: raw, span } = raw.as_ref()?;
        let pool = raw.pool.get().map(|p| names.pool(&p.value.0, &p.span, &format!("{key}.pool"), report));
        if raw.address.is_absent() && !raw.others && names.listeners_known {
            report.add(Found::error(span.clone(), &key, "`address` is missing").expected("address = \"ip:port\""));
        }
        let address = raw.address.value()?.0.clone();
        let client = traffic::client(raw, &key, report);
        let rate_limit = rules::rate_limit(&raw.rate_limit, &format!("{key}.rate_limit"), report);
        let marks = Arc::new(Marks {
            request_id: raw.request_id.value().map(|name| name.0.clone()),
            traceparent: raw.traceparent.value().copied().unwrap_or_default(),
        });
        let ready_path = raw.ready_path.value().map(|path| path.0.clone());
        Some(ListenerPolicy { name: good_name?, address, pool: pool.flatten(), client, rate_limit, marks, ready_path })
    };
    all.iter().map(one).collect()
}

fn pools(file: &raw::File, names: &Names<'_>, own: &sockets::OwnSockets, report: &mut Report) -> Vec<Arc<PoolPolicy>> {
    let all = file.pools.value().map_or(&[][..], |by_name| &by_name.0);
    if all.is_empty() && !matches!(file.pools, Field::Bad) && !file.others {
        report.add(Found::missing("there is no pool; write [pools.NAME] with its upstreams"));
    }
    let histograms = file.admin.value().and_then(|admin| admin.upstream_histograms.value()) == Some(&true);
    let one = |(name, raw): &(At<String>, Option<At<raw::Pool>>)| {
        let key = format!("pools.{}", shown_key(&name.value));
        let good_name = table_name(name, &key, report);
        let mut pool = pool::pool(good_name, raw.as_ref()?, &key, names, own, report)?;
        if histograms {
            Arc::make_mut(&mut pool.traffic).histograms = true;
        }
        Some(Arc::new(pool))
    };
    let pools = all.iter().filter_map(one).collect();
    refuse_cycles(all, report);
    pools
}

/// Refuses pools that refer to each other in a circle, reported once per circle at its first reference in the file, and
/// chains that are longer than a request follows.
fn refuse_cycles(all: &[(At<String>, Option<At<raw::Pool>>)], report: &mut Report) {
    let next = |raw: &raw::Pool| match raw.when_no_healthy.value() {
        Some(raw::NoHealthy::Elsewhere(elsewhere)) => elsewhere.pool.get().cloned(),
        Some(raw::NoHealthy::Reject | raw::NoHealthy::FailOpen) | None => None,
    };
    let edges: HashMap<&str, At<raw::Name>> =
        all.iter().filter_map(|(name, raw)| Some((name.value.as_str(), next(&raw.as_ref()?.value)?))).collect();
    let mut reported: Vec<&str> = Vec::new();
    for (start, _) in all {
        let mut path = vec![start.value.as_str()];
        while let Some(edge) = edges.get(path[path.len() - 1]).filter(|_| path.len() <= all.len()) {
            path.push(&edge.value.0);
            if edge.value.0 == start.value {
                break;
            }
        }
        let circle = path.len() > 1 && path[path.len() - 1] == path[0];
        if circle && !reported.contains(&path[0]) {
            let key = format!("pools.{}.when_no_healthy.pool", shown_key(&start.value));
            let message = format!("the pools refer to each other in a circle: {}", path.join(" -> "));
            report.add(Found::error(edges[path[0]].span.clone(), key, message));
            reported.extend(&path);
        }
        // Reported where a chain becomes too long, and not again for the pools above it. A path into a circle is not a
        // chain.
        let distinct: HashSet<&str> = path.iter().copied().take(FALLBACK_POOLS_MAX + 2).collect();
        if path.len() == FALLBACK_POOLS_MAX + 1 && distinct.len() == path.len() {
            let key = format!("pools.{}.when_no_healthy.pool", shown_key(&start.value));
            let message = format!("the chain is longer than a request follows: {}", path.join(" -> "));
            let expected = format!("at most {} fallback pools in a chain", FALLBACK_POOLS_MAX - 1);
            report.add(Found::error(edges[path[0]].span.clone(), key, message).expected(expected));
        }
    }
}

fn admin(file: &raw::File, report: &mut Report) -> Option<AdminPolicy> {
    let default = || DEFAULT_ADMIN_ADDRESS.parse::<Address>().expect("the constant is an address");
    let Some(raw) = file.admin.get() else {
        return Some(AdminPolicy { address: default(), written: false, token: None });
    };
    let raw = &raw.value;
    if let Some(token) = raw.token.get() {
        let text = token.value.0.expose();
        let problem = match text {
            _ if text.len() < TOKEN_BYTES_MIN => Some("the token is shorter than 16 bytes"),
            _ if !text.bytes().all(|b| b.is_ascii_graphic()) => {
                Some("the token holds characters other than printable ASCII")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            let found = Found::error(token.span.clone(), "admin.token", problem);
            report.add(found.expected("16 or more printable ASCII characters without spaces"));
        }
    }
    if matches!(raw.address, Field::Bad) {
        return None;
    }
    let address = raw.address.value().map_or_else(default, |address| address.0.clone());
    let no_token = raw.token.is_absent() && !raw.others;
    if let (Some(at), true, false) = (raw.address.get(), no_token, address.is_local()) {
        let message = "other machines could reach the admin, and it has no token";
        let expected = "a loopback address, or `token = { file = \"…\" }` in [admin]";
        report.add(Found::error(at.span.clone(), "admin.address", message).expected(expected));
    }
    Some(AdminPolicy { address, written: true, token: raw.token.value().map(|token| token.0.clone()) })
}
