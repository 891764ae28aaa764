//! Maps a request (listener, host, path, method) to a target. Pure; the most specific route wins.
//!
//! Order: exact host, longest wildcard suffix, any host; then equal path, longest prefix; then more conditions (method,
//! listener, header, query, cookie); then file order. It is an order over all routes that match the request: if no route of the exact host
//! matches, those of the wildcards are tried, and so on. [`normalise`] and [`normalise_host`] make the compared forms.

mod host;
mod reach;
mod site;

use std::collections::HashMap;
use std::fmt;

pub use crate::model::path::{PathError, normalise};
pub use host::{HOST_BYTES_MAX, HostError, normalise_host};
pub use reach::{Hidden, hidden};

use self::site::{Lengths, Rule, Site};
use crate::model::Name;
use crate::model::policy::{Condition, HostPattern, RoutePolicy};

/// All routes of one configuration. The cost of a look-up grows with the number of different prefix lengths, not with
/// the number of routes.
#[derive(Debug, Clone)]
pub struct Table<T> {
    exact: HashMap<Box<str>, Site<T>>,
    /// By suffix, which begins with a dot.
    wildcard: HashMap<Box<str>, Site<T>>,
    suffix_lengths: Lengths,
    any: Site<T>,
}

/// The parts of a request that routing uses.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The number of its listener.
    pub listener: u32,
    /// Its host without port and trailing dot (see [`normalise_host`]), in any case; `None` in HTTP/1.0 without one.
    pub host: Option<&'a str>,
    /// Its path in the normal form (see [`normalise`]): unreserved `%XX` decoded, no dot segments.
    pub path: &'a str,
    /// Its method.
    pub method: &'a str,
    /// Whether it meets a condition.
    pub holds: &'a dyn Fn(&Condition) -> bool,
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Query { listener, host, path, method, holds: _ } = self;
        write!(f, "{method} {host:?} {path} on {listener}")
    }
}

impl<T: Copy> Table<T> {
    /// A table without routes.
    pub fn empty() -> Table<T> {
        Table {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            suffix_lengths: Lengths::default(),
            any: Site::default(),
        }
    }

    /// Sorts the routes so that the most specific comes first. `listener` and `target` translate names; a route with a
    /// name that they do not know is left out (validation has refused such files). `target` is asked in file order.
    pub fn build(
        routes: &[RoutePolicy],
        listener: impl Fn(&Name) -> Option<u32>,
        mut target: impl FnMut(&RoutePolicy) -> Option<T>,
    ) -> Table<T> {
        let mut table = Table::empty();
        for route in routes {
            let Some(target) = target(route) else { continue };
            let on = match &route.listener {
                None => None,
                Some(name) => match listener(name) {
                    None => continue,
                    number => number,
                },
            };
            table.add(route, on, target);
        }
        table
    }

    fn add(&mut self, route: &RoutePolicy, listener: Option<u32>, target: T) {
        let (methods, also) = (route.methods.clone().into(), route.conditions.clone().into());
        let rule = Rule { methods, listener, also, target };
        self.site_of(&route.host).add(&route.path, rule);
    }

    fn site_of(&mut self, host: &HostPattern) -> &mut Site<T> {
        match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(host) => self.exact.entry((**host).into()).or_default(),
            HostPattern::Suffix(suffix) => {
                self.suffix_lengths.add(suffix.len());
                self.wildcard.entry((**suffix).into()).or_default()
            }
        }
    }

    /// The target of the most specific route that matches the request. Does not allocate.
    pub fn find(&self, query: &Query<'_>) -> Option<T> {
        let mut folded = [0; HOST_BYTES_MAX];
        let of_host = query.host.and_then(|host| self.find_by_host(fold(host, &mut folded)?, query));
        of_host.or_else(|| self.any.find(query))
    }

    fn find_by_host(&self, host: &str, query: &Query<'_>) -> Option<T> {
        if let Some(found) = self.exact.get(host).and_then(|site| site.find(query)) {
            return Some(found);
        }
        // A wildcard matches at least one byte, so a suffix is shorter than the host.
        self.suffix_lengths.up_to(host.len().saturating_sub(1)).find_map(|length| {
            let suffix = host.get(host.len() - length..)?;
            if suffix.starts_with('.') { self.wildcard.get(suffix)?.find(query) } else { None }
        })
    }
}

/// `host` in lower case, in `buffer`; `None` if it is longer than any host of a configuration.
fn fold<'a>(host: &str, buffer: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a str> {
    let folded = buffer.get_mut(..host.len())?;
    folded.copy_from_slice(host.as_bytes());
    folded.make_ascii_lowercase();
    std::str::from_utf8(folded).ok()
}

#[cfg(test)]
mod tests;
