//! Warnings about what leads nowhere: a listener that answers every request with 404, a pool or route without requests, a
//! path with characters that are patterns in other programs. `route` decides which routes hide others.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::config::raw;
use crate::config::read::{At, shown_key};
use crate::config::report::{Found, Report};
use crate::model::Name;
use crate::model::policy::{ListenerPolicy, PoolPolicy, PoolShare, RoutePolicy, WhenNoHealthy};
use crate::route::{self, Hidden};

/// Warns about listeners that lead to no pool, and routes and pools that get no requests. With mistakes in the file there is no
/// such warning: the missing reference may be one of them.
pub fn warn(
    file: &raw::File,
    listeners: &[Option<ListenerPolicy>],
    routes: &[RoutePolicy],
    pools: &[Arc<PoolPolicy>],
    report: &mut Report,
) {
    for_each_path(file, |path, span, key, use_of| literal(path, span, key, use_of, report));
    if report.has_errors() {
        return;
    }
    let places = file.listeners.value().map_or(&[][..], |by_name| &by_name.0);
    for (listener, (name, _)) in listeners.iter().zip(places) {
        let Some(listener) = listener else { continue };
        let is_routed = || routes.iter().any(|route| route.listener.as_ref().is_none_or(|only| *only == listener.name));
        if listener.pool.is_none() && !is_routed() {
            let key = format!("listeners.{}", shown_key(&name.value));
            let found = Found::warning(
                name.span.clone(),
                key,
                "every request gets 404: this listener has no pool and no route",
            );
            report.add(found.expected("`pool` below it, or [[routes]] with a `pool`"));
        }
    }
    let listeners: Vec<&ListenerPolicy> = listeners.iter().flatten().collect();
    let hidden = route::hidden(&listeners.iter().map(|listener| &listener.name).collect::<Vec<_>>(), routes);
    let leads = leads(file, &listeners, routes, &hidden);
    let reached = reached(leads.iter().filter(|lead| lead.taken_by.is_empty()).map(|lead| lead.pool), pools);
    for (name, _) in file.pools.value().map_or(&[][..], |by_name| &by_name.0) {
        if !reached.contains(name.value.as_str()) {
            let hidden = leads.iter().find(|lead| lead.pool == name.value);
            let why =
                hidden.map_or(String::new(), |lead| format!(": {} takes every request of {}", lead.taken_by, lead.of));
            let message = format!("this pool gets no requests, but it is checked{why}");
            let found = Found::warning(name.span.clone(), format!("pools.{}", shown_key(&name.value)), message);
            report.add(found.expected(match hidden {
                Some(_) => "a narrower route, or another use of this pool",
                None => "its name as `pool` of a listener, of [[routes]] or of `when_no_healthy`",
            }));
        }
    }
    for lead in leads.iter().filter(|lead| !lead.taken_by.is_empty() && reached.contains(lead.pool)) {
        let message = format!("this is never used: {} takes every request of {}", lead.taken_by, lead.of);
        let found = Found::warning(lead.span.clone(), &lead.key, message);
        report.add(found.expected("a narrower route there, or nothing here"));
    }
}

/// A place of the file that names the pool of some requests.
struct Lead<'a> {
    pool: &'a str,
    span: Range<usize>,
    key: String,
    /// Whose requests they are.
    of: String,
    /// The routes that take all of them to another pool; empty if it gets some, or if the pool is the same.
    taken_by: String,
}

fn leads<'a>(
    file: &raw::File,
    listeners: &[&'a ListenerPolicy],
    routes: &'a [RoutePolicy],
    hidden: &Hidden,
) -> Vec<Lead<'a>> {
    let of_listeners = file.listeners.value().map_or(&[][..], |by_name| &by_name.0).iter();
    let of_routes = file.routes.value().map_or(&[][..], |list| &list.0).iter();
    let leads_to = |route: &RoutePolicy, pool: &Name| route.pools.iter().any(|share| share.pool == *pool);
    let taken_by = |by: Option<&[usize]>, pool: &Name| {
        by.filter(|by| by.iter().any(|taker| !leads_to(&routes[*taker], pool))).map_or(String::new(), named)
    };
    let defaults = listeners.iter().zip(of_listeners).enumerate().filter_map(|(index, (listener, (_, raw)))| {
        let key = format!("listeners.{}", shown_key(listener.name.as_str()));
        Some(Lead {
            pool: listener.pool.as_ref()?.as_str(),
            span: raw.as_ref()?.value.pool.get()?.span.clone(),
            of: key.clone(),
            key: key + ".pool",
            taken_by: taken_by(hidden.defaults.get(&index).map(std::slice::from_ref), listener.pool.as_ref()?),
        })
    });
    let routed = routes.iter().zip(of_routes).enumerate().flat_map(|(index, (route, raw))| {
        let weighty = route.pools.iter().filter(|share| share.weight > 0);
        weighty.filter_map(move |PoolShare { pool, .. }| {
            Some(Lead {
                pool: pool.as_str(),
                span: raw.as_ref()?.span.clone(),
                of: format!("routes[{index}]"),
                key: format!("routes[{index}]"),
                taken_by: taken_by(hidden.routes.get(&index).map(Vec::as_slice), pool),
            })
        })
    });
    defaults.chain(routed).collect()
}

/// `routes[0]`, or the first of several routes that together do something.
fn named(routes: &[usize]) -> String {
    match routes {
        [] => String::new(),
        [one] => format!("routes[{one}]"),
        [first, second] => format!("routes[{first}] with routes[{second}]"),
        [first, rest @ ..] => format!("routes[{first}] with {} other routes", rest.len()),
    }
}

/// The pools that get requests: `open`, and where they send theirs while they have too few healthy upstreams.
fn reached<'a>(open: impl Iterator<Item = &'a str>, pools: &'a [Arc<PoolPolicy>]) -> HashSet<&'a str> {
    let mut reached: HashSet<&str> = HashSet::new();
    let mut open: Vec<&str> = open.collect();
    while let Some(name) = open.pop() {
        if reached.insert(name)
            && let Some(pool) = pools.iter().find(|pool| pool.name.as_str() == name)
            && let WhenNoHealthy::Pool(other) = &pool.when_no_healthy
        {
            open.push(other.as_str());
        }
    }
    reached
}

/// What a path is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Prefix,
    Exact,
    Check,
}

fn for_each_path(file: &raw::File, mut each: impl FnMut(&str, &Range<usize>, String, Use)) {
    let routes = file.routes.value().map_or(&[][..], |list| &list.0);
    for (index, route) in routes.iter().enumerate() {
        let Some(At { value: route, .. }) = route else { continue };
        if let Some(at) = route.path.get() {
            each(&at.value.0, &at.span, format!("routes[{index}].path"), Use::Prefix);
        }
        if let Some(at) = route.path_exact.get() {
            each(&at.value.0, &at.span, format!("routes[{index}].path_exact"), Use::Exact);
        }
    }
    for (name, pool) in file.pools.value().map_or(&[][..], |by_name| &by_name.0) {
        let Some(health) = pool.as_ref().and_then(|pool| pool.value.health.value()) else { continue };
        let key = format!("pools.{}.health", shown_key(&name.value));
        let entries = health.checks.value().map_or(&[][..], |list| &list.0).iter().enumerate();
        let entries =
            entries.filter_map(|(index, entry)| Some((format!("{key}.checks[{index}]"), &entry.as_ref()?.value.probe)));
        for (key, probe) in std::iter::once((key.clone(), &health.probe)).chain(entries) {
            if let Some(at) = probe.path.get() {
                each(&at.value.0, &at.span, format!("{key}.path"), Use::Check);
            }
        }
    }
}

/// Warns about patterns: other programs have them where we have prefixes.
fn literal(path: &str, span: &Range<usize>, key: String, use_of: Use, report: &mut Report) {
    // A `{` is `%7B` in the normal form of a route.
    let sign = match path {
        path if path.contains('*') => "*",
        path if use_of != Use::Check && path.contains("%7B") && path.contains("%7D") => "{}",
        _ => return,
    };
    let message = match use_of {
        Use::Prefix | Use::Exact => format!("the {sign} in this path is taken literally: patterns are not supported"),
        Use::Check => format!("the {sign} in this path is sent as it is"),
    };
    let stem = path.strip_suffix("/**").or(path.strip_suffix("/*")).filter(|stem| !stem.contains(['*', '%']));
    let prefix = stem.map(|stem| if stem.is_empty() { "/" } else { stem });
    let found = Found::warning(span.clone(), key, message);
    report.add(match (use_of, prefix) {
        (Use::Prefix, Some(prefix)) => {
            found.expected("a prefix, which takes everything below it").suggestion(Some(format!("\"{prefix}\"")))
        }
        (Use::Exact, Some(prefix)) => found.expected(format!("`path = \"{prefix}\"`, which takes everything below it")),
        (Use::Prefix | Use::Exact, None) => found.expected("`path` with a prefix on segment boundaries"),
        (Use::Check, _) => found.expected("one path that answers"),
    });
}
