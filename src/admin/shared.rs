//! The state that handlers share: the process, readiness, and rendered texts, each of which serves all requests within
//! a tenth of a second.
//!
//! A rendering includes every order that was answered before the request came: [`Host::revision`] counts orders and
//! reloads, and a rendering of another revision is not used. All of this runs on the single thread `admin-answers`, so
//! that a waiting request finds the text rendered by the one before; only readiness is read from the thread of
//! connections, without rendering.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use super::clock::Clock;
use super::connections::Connections;
use super::host::{Host, MetricsFormat};
use super::json::StatusReply;
use super::readiness::NotReady;
use super::render;
use crate::pool::Status;

/// How long a rendering is used.
pub const SHARED_FOR: Duration = Duration::from_millis(100);
/// Requests answered at the same time; `/livez` and `/readyz` need no place.
pub const PLACES_MAX: usize = 64;
/// Requests that may wait for events at the same time, so that there is room for others.
pub const WAITERS_MAX: usize = 32;

/// The state that handlers share.
pub struct Shared {
    /// The process.
    pub host: Arc<dyn Host>,
    /// For dates.
    pub clock: Clock,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// Places for requests.
    pub places: Arc<Semaphore>,
    /// Places for requests that wait for events.
    pub waiters: Semaphore,
    /// The runtime that answers all requests except the probes.
    pub answers: tokio::runtime::Handle,
    /// Becomes true when the server stops: requests that wait for events are then answered at once.
    pub stopped: watch::Receiver<bool>,
    status: Mutex<Option<Made<Arc<Status>>>>,
    texts: Mutex<[Option<Made<Bytes>>; TEXTS]>,
}

/// A text that is the same for every client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// `/api/v1/status`.
    Status,
    /// The page.
    Page,
    /// `/metrics`: one text per format.
    Metrics {
        /// What is in it.
        format: MetricsFormat,
        /// Compressed.
        gzip: bool,
    },
}

const TEXTS: usize = 10;

impl Text {
    /// Its index among the renderings, unique for each.
    fn place(self) -> usize {
        match self {
            Text::Status => 0,
            Text::Page => 1,
            Text::Metrics { format: MetricsFormat { open_metrics, upstreams }, gzip } => {
                2 + usize::from(open_metrics) + 2 * usize::from(upstreams) + 4 * usize::from(gzip)
            }
        }
    }
}

/// A value made once for several requests.
struct Made<T> {
    what: T,
    revision: u64,
    /// When making it began.
    at: Instant,
}

impl<T: Clone> Made<T> {
    /// The value, if it is valid for a request that came at `asked`: of this revision, and begun at most [`SHARED_FOR`]
    /// before.
    fn good(made: &Option<Made<T>>, revision: u64, asked: Instant) -> Option<T> {
        let good =
            |made: &&Made<T>| made.revision == revision && asked.saturating_duration_since(made.at) <= SHARED_FOR;
        made.as_ref().filter(good).map(|made| made.what.clone())
    }
}

impl Shared {
    /// For a server of `host` that answers on `answers`.
    pub fn new(host: Arc<dyn Host>, answers: tokio::runtime::Handle, stopped: watch::Receiver<bool>) -> Shared {
        Shared {
            host,
            clock: Clock::start(),
            connections: Arc::default(),
            places: Arc::new(Semaphore::new(PLACES_MAX)),
            waiters: Semaphore::new(WAITERS_MAX),
            answers,
            stopped,
            status: Mutex::new(None),
            texts: Mutex::new([const { None }; TEXTS]),
        }
    }

    /// Whether the process is ready, or why not, as of the last evaluation. Returns at once, without a snapshot of the
    /// pools.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.host.readiness().now(self.host.state())
    }

    /// A snapshot of the pools for a request that came at `asked`: at most [`SHARED_FOR`] older, and of the newest
    /// revision.
    pub fn status(&self, asked: Instant) -> Arc<Status> {
        let revision = self.host.revision();
        let mut status = self.status.lock();
        if let Some(status) = Made::good(&status, revision, asked) {
            return status;
        }
        *status = None;
        let at = Instant::now();
        let mut what = self.host.status(at);
        self.host.add_hints(&mut what);
        let what = Arc::new(what);
        *status = Some(Made { what: what.clone(), revision, at });
        what
    }

    /// The same as the JSON of the API.
    pub fn status_reply(&self, asked: Instant) -> StatusReply {
        let (status, process, now) = (self.status(asked), self.host.process(), Instant::now());
        let ready = self.host.readiness().check(&process, &status, now).is_ok();
        render::status(&status, &process, ready, &self.clock, now)
    }

    /// The text of this kind for a request that came at `asked`; rendered by `render` unless a recent one is valid.
    pub fn text(&self, kind: Text, asked: Instant, render: impl FnOnce() -> Vec<u8>) -> Bytes {
        let revision = self.host.revision();
        let mut texts = self.texts.lock();
        let slot = &mut texts[kind.place()];
        if let Some(text) = Made::good(slot, revision, asked) {
            return text;
        }
        *slot = None;
        let at = Instant::now();
        let what = Bytes::from(render());
        *slot = Some(Made { what: what.clone(), revision, at });
        what
    }

    /// Drops what is too old to be used.
    fn forget_old(&self, now: Instant) {
        let old = |at: Instant| now.saturating_duration_since(at) > SHARED_FOR;
        self.status.lock().take_if(|made| old(made.at));
        for slot in self.texts.lock().iter_mut() {
            slot.take_if(|made| old(made.at));
        }
    }

    /// Frees the memory of old renderings.
    pub async fn keep_small(self: Arc<Shared>) {
        loop {
            sleep(SHARED_FOR * 5).await;
            self.forget_old(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_its_own_place() {
        let metrics = (0..8).map(|bits| Text::Metrics {
            format: MetricsFormat { open_metrics: bits & 1 > 0, upstreams: bits & 2 > 0 },
            gzip: bits & 4 > 0,
        });
        let mut places: Vec<usize> = metrics.chain([Text::Status, Text::Page]).map(Text::place).collect();
        places.sort_unstable();
        assert_eq!(places, (0..TEXTS).collect::<Vec<_>>());
    }
}
