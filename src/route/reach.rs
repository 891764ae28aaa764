//! Which routes and default pools get no request, because others take every one of theirs. Decided with the look-up that
//! requests use, for one request per route: one that meets its conditions and as few of the other routes' as possible. If
//! any request gets to the route, this one does. Called by the validation of a configuration.

use std::collections::{HashMap, HashSet};

use super::{Query, Table};
use crate::model::Name;
use crate::model::policy::{Condition, HostPattern, PathPattern, RoutePolicy};

/// What all look-ups together may cost, in about 50 ns each. Beyond that nothing is reported: a file may have 10,000
/// routes on 1,000 listeners.
const COST_MAX: usize = 20_000_000;

/// What gets no request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Routes, each with those that take its requests.
    pub routes: HashMap<usize, Vec<usize>>,
    /// Listeners whose requests all meet a route, each with the route that takes most of them.
    pub defaults: HashMap<usize, usize>,
}

/// Finds them; everything is named by its index.
pub fn hidden(listeners: &[&Name], routes: &[RoutePolicy]) -> Hidden {
    let numbers: HashMap<&Name, u32> = listeners.iter().copied().zip(0..).collect();
    let mut table = Table::empty();
    let mut known = Vec::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        let on = route.listener.as_ref().map(|name| numbers.get(name).copied());
        if on != Some(None) {
            table.add(route, on.flatten(), index);
            known.push((index, route, on.flatten()));
        }
    }
    let (unused, mut left) = (Unused::of(routes), COST_MAX);
    let mut found = Hidden::default();
    for (index, route, on) in known {
        let (host, path) = (unused.host(&route.host), unused.path(&route.path));
        let listeners = on.map_or(0..listeners.len() as u32, |number| number..number + 1);
        let methods = if route.methods.is_empty() { vec![OTHER_METHOD] } else { methods(route) };
        let cost = unused.cost(&path);
        let mut queries = listeners.flat_map(|listener| methods.iter().map(move |method| (listener, *method)));
        let mut takers = Vec::new();
        let is_reached = queries.any(|(listener, method)| {
            left = left.saturating_sub(cost);
            let holds = |asked: &Condition| route.conditions.iter().any(|own| own.implies(asked));
            let winner = table.find(&Query { listener, host: host.as_deref(), path: &path, method, holds: &holds });
            takers.extend(winner.filter(|winner| *winner != index && !takers.contains(winner)));
            left == 0 || winner == Some(index)
        });
        match (left, is_reached) {
            (0, _) => return Hidden::default(),
            (_, false) if !takers.is_empty() => drop(found.routes.insert(index, takers)),
            _ => {}
        }
    }
    let path = unused.path(&PathPattern::Prefix("/".into()));
    for listener in 0..listeners.len() as u32 {
        let holds = &|_: &Condition| false;
        let winner = table.find(&Query { listener, host: None, path: &path, method: OTHER_METHOD, holds });
        found.defaults.extend(winner.map(|winner| (listener as usize, winner)));
    }
    found
}

/// A method that no route names.
const OTHER_METHOD: &str = "";

fn methods(route: &RoutePolicy) -> Vec<&str> {
    route.methods.iter().map(|method| &**method).collect()
}

/// Parts of hosts and paths that no route has.
struct Unused {
    label: String,
    segment: String,
    suffixes: usize,
    prefixes: usize,
    /// The most routes that differ in their conditions alone.
    rules: usize,
}

impl Unused {
    fn of(routes: &[RoutePolicy]) -> Unused {
        let (mut labels, mut segments) = (HashSet::new(), HashSet::new());
        let (mut suffixes, mut prefixes) = (HashSet::new(), HashSet::new());
        let mut rules: HashMap<_, usize> = HashMap::new();
        for route in routes {
            *rules.entry((&route.host, &route.path)).or_default() += 1;
            match &route.host {
                HostPattern::Any => {}
                HostPattern::Exact(host) => drop(labels.insert(host.split('.').next().unwrap_or(host))),
                HostPattern::Suffix(suffix) => drop(suffixes.insert(suffix.len())),
            }
            match &route.path {
                PathPattern::Exact(path) => segments.extend(path.split('/')),
                PathPattern::Prefix(path) => {
                    prefixes.insert(path.len());
                    segments.extend(path.split('/'));
                }
            }
        }
        Unused {
            label: new(&labels),
            segment: new(&segments),
            suffixes: suffixes.len(),
            prefixes: prefixes.len(),
            rules: rules.into_values().max().unwrap_or(0),
        }
    }

    /// A host that `pattern` matches, and of the others only those that match all hosts of `pattern`.
    fn host(&self, pattern: &HostPattern) -> Option<String> {
        match pattern {
            HostPattern::Any => None,
            HostPattern::Exact(host) => Some(host.to_string()),
            HostPattern::Suffix(suffix) => Some(format!("{}{suffix}", self.label)),
        }
    }

    /// The same for a path.
    fn path(&self, pattern: &PathPattern) -> String {
        match pattern {
            PathPattern::Exact(path) => path.to_string(),
            PathPattern::Prefix(path) => format!("{}/{}", path.strip_suffix('/').unwrap_or(path), self.segment),
        }
    }

    /// What a look-up of `path` may cost, in look-ups of a short text.
    fn cost(&self, path: &str) -> usize {
        let prefixes = path.bytes().filter(|byte| *byte == b'/').count().min(self.prefixes);
        (2 + self.suffixes) * (1 + prefixes) * (1 + path.len() / 128 + self.rules / 16)
    }
}

/// A short text that is not in `known`.
fn new(known: &HashSet<&str>) -> String {
    (0..=known.len()).map(|number| number.to_string()).find(|text| !known.contains(text.as_str())).unwrap_or_default()
}
