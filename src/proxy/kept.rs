//! Connections to one upstream that our own lanes keep between requests.
//!
//! They have no task and no timer of their own. One is looked at right before it is used; what is too old is dropped when
//! another is kept, and once a second while any is open. All close at once when the upstream may not be picked any more.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::conduct::{Conduct, Heard, listen};
use super::connect::{UpstreamIo, dial};
use super::front::InFlight;
use crate::exchange::{Attempt, ConnectError, Reuse};
use crate::http1::ResponseReader;
use crate::model::policy::UpstreamConnections;
use crate::pool::sharded::Sharded;
use crate::pool::{Connection, Upstream};

/// How often too old connections are looked for while any is idle.
const SWEEP: Duration = Duration::from_secs(1);
/// Room made for a read: most responses come in one.
const READ_ROOM: usize = 16 * 1024;
/// Room made for a read in a large body. A client that does not read may hold so much of our memory, and what it has not
/// been sent of [`super::client`]'s.
const BODY_ROOM: usize = 32 * 1024;
/// The most room for reading that an idle connection keeps.
const ROOM_KEPT: usize = 16 * 1024;

/// What the data path keeps with an upstream from the first request on.
pub(super) struct DataPath {
    /// What it does with kept connections.
    pub(super) conduct: Arc<Conduct>,
    /// The connections of our own lanes.
    pub(super) kept: Arc<Kept>,
    /// The template of the general lane.
    pub(super) peer: OnceLock<Box<HttpPeer>>,
}

impl DataPath {
    /// The one of this upstream.
    pub(super) fn of(upstream: &Upstream) -> &DataPath {
        let data_path = upstream.data_path.get_or_init(|| {
            let conduct: Arc<Conduct> = Arc::default();
            let kept = Arc::new(Kept::new(conduct.clone()));
            upstream.connections.insert(kept.clone());
            Box::new(DataPath { conduct, kept, peer: OnceLock::new() })
        });
        data_path.downcast_ref().expect("nothing else is put there")
    }
}

/// Boxed: each request takes one out and puts it back.
type Idle = Vec<Box<Link>>;

/// The idle connections of one upstream.
pub(super) struct Kept {
    conduct: Arc<Conduct>,
    /// Each worker has its own, because a connection is in the readiness queue of the worker that made it. The one used last
    /// is at the end, and is used first. Held for a push or a pop; another thread takes it only to close what is idle.
    idle: Sharded<Mutex<Idle>>,
    /// Open connections, those in use included. All workers share it, with the writes of [`Links`].
    open: Arc<AtomicUsize>,
    sweeping: AtomicBool,
}

/// One connection to an upstream, with the buffer of what was read on it.
pub(super) struct Link {
    io: UpstreamIo,
    /// What was read and not used.
    pub(super) read: BytesMut,
    /// What is to be sent first.
    pub(super) write: BytesMut,
    /// Reads heads at the front of `read`.
    pub(super) reader: ResponseReader,
    /// Under which epoch of its upstream's connections it was dialled.
    epoch: u64,
    /// Its last response had no body: what comes now may be one all the same.
    bodiless: bool,
    /// It has served a request.
    used: bool,
    /// Until when it may be used again.
    idle_until: Instant,
    open: Open,
}

/// Counts an open connection: for its upstream, and for the whole data plane.
struct Open {
    upstream: Arc<AtomicUsize>,
    links: Arc<Links>,
}

impl Open {
    fn new(upstream: &Arc<AtomicUsize>, links: &Arc<Links>) -> Open {
        upstream.fetch_add(1, Ordering::Relaxed);
        links.open.fetch_add(1, Ordering::Relaxed);
        Open { upstream: upstream.clone(), links: links.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.upstream.fetch_sub(1, Ordering::Relaxed);
        self.links.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All connections of the data plane to upstreams. All workers share the count: one write when a connection opens, one when
/// it closes, none for a request on a kept one.
#[derive(Debug)]
pub(super) struct Links {
    open: AtomicUsize,
    idle_max: usize,
    workers: usize,
}

impl Links {
    /// No connection yet; at most `idle_max` are kept between requests, by so many workers.
    pub(super) fn new(idle_max: usize, workers: usize) -> Links {
        Links { open: AtomicUsize::new(0), idle_max, workers: workers.max(1) }
    }

    /// What each worker may keep of so many.
    fn share(&self, all: usize) -> usize {
        all.div_ceil(self.workers)
    }

    /// Whether one more may be kept while so many requests are under way, each of which may use one.
    fn has_room(&self, in_flight: &InFlight) -> bool {
        let open = self.open.load(Ordering::Relaxed);
        open < self.idle_max || open.saturating_sub(in_flight.count()) < self.idle_max
    }
}

impl Kept {
    fn new(conduct: Arc<Conduct>) -> Kept {
        Kept { conduct, idle: Sharded::default(), open: Arc::default(), sweeping: AtomicBool::new(false) }
    }

    /// An idle connection that this request may use, if there is one. It may still be dirty: see [`Kept::is_dirty`].
    pub(super) fn take(&self, epoch: u64, reuse: Reuse, now: Instant) -> Option<Box<Link>> {
        if !self.conduct.allows(reuse, now) {
            return None;
        }
        let mut idle = self.idle.mine().lock();
        // Closing a socket takes longer than the lock may be held.
        let mut unusable = Vec::new();
        let found = loop {
            match idle.pop() {
                Some(link) if link.epoch == epoch && !link.is_old(now) => break Some(link),
                Some(link) => unusable.push(link),
                None => break None,
            }
        };
        drop(idle);
        drop(unusable);
        found
    }

    /// A new connection. Gives up when the epoch ends. Cancel-safe.
    pub(super) async fn dial(
        &self,
        upstream: &Upstream,
        attempt: &Attempt,
        links: &Arc<Links>,
    ) -> Result<Box<Link>, ConnectError> {
        let epoch = attempt.epoch;
        let io = dial(upstream, epoch, attempt.timeouts.connect).await?;
        Ok(Box::new(Link {
            io,
            read: BytesMut::new(),
            write: BytesMut::new(),
            reader: ResponseReader::default(),
            epoch,
            bodiless: false,
            used: false,
            idle_until: Instant::now(),
            open: Open::new(&self.open, links),
        }))
    }

    /// Whether nothing may be sent on this connection, because it has served a request and is closed since, or bytes have
    /// come that nobody asked for. Asked right before the first byte is written: what comes later cannot be told from a
    /// response.
    pub(super) fn is_dirty(&self, upstream: &Upstream, link: &mut Link, now: Instant) -> bool {
        if !link.used {
            return false;
        }
        let bodiless = std::mem::take(&mut link.bodiless);
        let heard = listen(link.io.as_fd().as_raw_fd());
        match heard {
            Heard::Nothing => {}
            Heard::Bytes => self.on_unasked(upstream, bodiless, now),
            Heard::End => self.conduct.on_closed(now),
        }
        heard != Heard::Nothing || self.conduct.is_suspect(bodiless, now)
    }

    fn on_unasked(&self, upstream: &Upstream, bodiless: bool, now: Instant) {
        self.conduct.on_unasked(bodiless, now);
        upstream.note_unasked(now);
    }

    /// Keeps a connection whose request has ended. `bodiless`: its response had no body by its status or method;
    /// `in_flight`: requests under way in the data plane.
    pub(super) fn give_back(
        self: &Arc<Kept>,
        upstream: &Upstream,
        mut link: Box<Link>,
        bodiless: bool,
        limits: UpstreamConnections,
        in_flight: &InFlight,
        now: Instant,
    ) {
        if !link.read.is_empty() {
            return self.on_unasked(upstream, bodiless, now);
        }
        (link.used, link.bodiless, link.idle_until) = (true, bodiless, now + limits.idle_timeout);
        if self.conduct.is_suspect(bodiless, now) || !link.open.links.has_room(in_flight) {
            return;
        }
        link.reader.reset();
        if link.read.capacity() > ROOM_KEPT {
            link.read = BytesMut::new();
        }
        let mut idle = self.idle.mine().lock();
        // Under the lock that closing them takes: what is pushed under the epoch that ends is closed.
        if link.epoch != upstream.connections.epoch() {
            return;
        }
        let most = link.open.links.share(limits.idle_per_upstream);
        let most = most.saturating_sub(self.conduct.idle.load(Ordering::Relaxed));
        if idle.len() >= most {
            return;
        }
        let old = idle.first().is_some_and(|first| first.is_old(now)).then(|| prune(&mut idle, now));
        idle.push(link);
        drop(idle);
        drop(old);
        if !self.sweeping.load(Ordering::SeqCst) && !self.sweeping.swap(true, Ordering::SeqCst) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// The upstream closed a kept connection when the request was on its way already.
    pub(super) fn closed_too_early(&self, now: Instant) {
        self.conduct.on_closed(now);
    }
}

/// Those that are too old.
fn prune(idle: &mut Idle, now: Instant) -> Idle {
    // An upstream may say how long it keeps each of them, so that the first is not always the oldest.
    idle.extract_if(.., |link| link.is_old(now)).collect()
}

/// Drops connections that are too old, until none is open.
async fn sweep(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(kept) = kept.upgrade() else { return };
        let now = Instant::now();
        for idle in kept.idle.all() {
            let old = prune(&mut idle.lock(), now);
            drop(old);
        }
        // Before the look: what is kept after it starts another sweep. One that is in use now may soon be idle.
        kept.sweeping.store(false, Ordering::SeqCst);
        if kept.count() == 0 || kept.sweeping.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

impl Connection for Kept {
    fn close_if_idle(&self) {
        for idle in self.idle.all() {
            let closed = std::mem::take(&mut *idle.lock());
            drop(closed);
        }
    }

    fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} open)", self.count())
    }
}

impl Link {
    /// The socket, for bytes that are no requests. The link still counts as open.
    pub(super) fn io_mut(&mut self) -> &mut UpstreamIo {
        &mut self.io
    }

    /// Whether it has served a request before.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    fn is_old(&self, now: Instant) -> bool {
        now >= self.idle_until
    }

    /// Reads into the buffer; 0 at the end. `large`: much more is to come.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, large: bool) -> Poll<std::io::Result<usize>> {
        if self.read.capacity() == 0 {
            // Thousands may wait for their first byte: they need no buffer yet.
            ready!(self.io.poll_readable(cx));
        }
        self.read.reserve(if large { BODY_ROOM } else { READ_ROOM } - self.read.len().min(READ_ROOM / 2));
        pin!(self.io.read_buf(&mut self.read)).poll(cx)
    }

    /// Writes some of these bytes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    /// Writes what is in `write`.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.write.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.write))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                n => self.write.advance(n),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
