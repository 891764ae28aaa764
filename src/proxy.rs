//! The data path: sockets in, sockets out. Listeners accept ([`listen`]), the front owns a connection between requests
//! ([`front`], over [`client`]) on one of the [`workers`], and each request goes to the lane that fits it: [`general`] (pingora-proxy, to which
//! [`lent_client`] lends the connection and [`handover`] the request), [`express`] (our own, for HTTP/1) or [`tunnel`] (an
//! upgrade). Connections to upstreams are dialled in [`connect`].
//!
//! Must never decide what `exchange` decides.

pub mod client;
mod conduct;
pub mod connect;
mod date;
mod ended;
mod express;
pub mod front;
mod gate;
pub mod general;
pub mod handover;
mod kept;
pub mod lent_client;
pub mod listen;
pub mod stall;
pub mod tunnel;
mod verdict;
mod wire;
mod workers;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use front::{Front, InFlight};
use gate::{Admitted, Gate};
use general::General;
use kept::Links;
use listen::{AcceptedNow, ClientStream, Listener, REST, Stop};
pub use listen::{Bound, ListenerHandle};
pub use workers::Workers;

use crate::bind::BindError;
use crate::exchange::Desk;
use crate::exchange::limits::STOP_GRACE;
use crate::model::Address;
use crate::model::policy::{ClientLimits, Lane};
use crate::pool::{FrontStats, ListenerId, Published};

/// For how long a listener that stops tries to accept who is connected already, while we lack descriptors or are at the
/// limit of clients.
const BACKLOG_MAX: Duration = Duration::from_secs(5);

/// Idle connections kept to all upstreams together, where descriptors allow it.
const IDLE_MAX: usize = 8_192;

/// The data plane of one process.
pub struct Plane {
    front: Arc<Front>,
    workers: Workers,
    slots: Arc<Semaphore>,
    open: Arc<Open>,
}

/// What is open.
#[derive(Debug, Default)]
struct Open {
    /// Connections, those whose tunnel goes on included. All workers share it: two writes for each connection.
    count: AtomicUsize,
    /// Of every task that accepts, what tells it to stop.
    accepting: Mutex<Vec<Stop>>,
    /// Told when there may be nothing left.
    none: Notify,
}

impl Open {
    /// No connection, and nobody who could still accept one after a stop.
    fn is_drained(&self) -> bool {
        // In this order: who stops accepting has counted its last connection before.
        let closing = self.accepting.lock().iter().any(Stop::is_set);
        !closing && self.count.load(Ordering::Acquire) == 0
    }
}

impl Plane {
    /// Serves nothing yet. `desk` gets what is recorded of requests. At most `connections_max` clients are connected at a time; at the limit we stop accepting.
    pub fn new(
        published: Published,
        connections_max: usize,
        lane: Lane,
        workers: Workers,
        desk: Arc<dyn Desk>,
    ) -> Arc<Plane> {
        // A client and its upstream take two descriptors; what is kept idle beyond that comes off the clients' share.
        let idle_max = (connections_max / 8).clamp(1, IDLE_MAX);
        let clients_max = connections_max.saturating_sub(idle_max / 2).clamp(1, Semaphore::MAX_PERMITS);
        let conf = ServerConf {
            // The pool of idle connections is one for all upstreams and multiplied by the threads.
            threads: 1,
            upstream_keepalive_pool_size: idle_max,
            // The exchange counts attempts; pingora must not.
            max_retries: usize::MAX,
            ..ServerConf::default()
        };
        let general = Arc::new(http_proxy(&Arc::new(conf), General));
        let (_, never) = watch::channel(false);
        let stats = Arc::new(FrontStats::default());
        let links = Arc::new(Links::new(idle_max, workers.count()));
        let in_flight = InFlight::default();
        let front = Arc::new(Front { published, stats, desk, lane, links, general, in_flight, never });
        let slots = Arc::new(Semaphore::new(clients_max));
        Arc::new(Plane { front, workers, slots, open: Arc::default() })
    }

    /// Binds a socket; see [`Bound::bind`].
    pub fn bind(address: &Address) -> Result<Bound, BindError> {
        Bound::bind(address)
    }

    /// Makes a socket ready to accept: the last step that can fail. It is to be served under this number.
    pub fn ready(&self, bound: Bound, id: ListenerId) -> io::Result<Listener> {
        let _context = self.workers.acceptor(id.0).enter();
        bound.listen()
    }

    /// Begins accepting. Each connection is a task of its own; a panic in one ends that one, as the runtime has it.
    pub fn serve(self: &Arc<Plane>, listener: Listener, id: ListenerId) -> ListenerHandle {
        let (mut handle, stop) = ListenerHandle::new();
        let accepting = Accepting::new(self, &stop);
        let plane = self.clone();
        handle.accepting = Some(self.workers.acceptor(id.0).spawn(async move {
            // Ends after the socket, which `accept` owns.
            let _accepting = accepting;
            plane.accept(listener, id, stop).await;
        }));
        handle
    }

    /// Client connections open now.
    pub fn connections(&self) -> usize {
        self.open.count.load(Ordering::Acquire)
    }

    /// Requests under way now, tunnels included.
    pub fn in_flight(&self) -> usize {
        self.front.in_flight.count()
    }

    /// Completes when no client is connected and every listener that was told to stop has closed its socket: then nobody is
    /// connected any more, unless another listener goes on. Cancel-safe.
    pub async fn drained(&self) {
        loop {
            let none = self.open.none.notified();
            if self.open.is_drained() {
                return;
            }
            none.await;
        }
    }

    /// What happened before any pool was found.
    pub fn stats(&self) -> &Arc<FrontStats> {
        &self.front.stats
    }

    async fn accept(self: Arc<Plane>, mut listener: Listener, id: ListenerId, stop: Stop) {
        let gate = Arc::new(Gate::default());
        let limits =
            || self.front.published.load().listener(id).map_or(ClientLimits::DEFAULT, |entry| entry.client.limits);
        loop {
            let next = async {
                gate.room(limits).await;
                let slot = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
                (slot, listener.accept(&self.front.stats).await)
            };
            let (slot, stream) = tokio::select! {
                biased;
                () = stop.wait() => break,
                accepted = next => accepted,
            };
            self.spawn(&gate, slot, stream, id, &stop);
        }
        // Who is connected already but not accepted would be reset with the socket.
        let stopped = Instant::now();
        let mut end = stopped + STOP_GRACE;
        while Instant::now() < end {
            if gate.room(limits).now_or_never().is_none() {
                end = stopped + BACKLOG_MAX;
                let Ok(()) = tokio::time::timeout_at(end, gate.room(limits)).await else { break };
            }
            let slot = match self.slots.clone().try_acquire_owned() {
                Ok(slot) => slot,
                Err(_) => {
                    // At the limit of clients. Others end soon because of the same stop.
                    end = stopped + BACKLOG_MAX;
                    let free = tokio::time::timeout_at(end, self.slots.clone().acquire_owned()).await;
                    let Ok(Ok(slot)) = free else { break };
                    slot
                }
            };
            match listener.accept_now() {
                AcceptedNow::Client(stream) => self.spawn(&gate, slot, stream, id, &stop),
                AcceptedNow::Scarcity => {
                    end = stopped + BACKLOG_MAX;
                    drop(slot);
                    tokio::time::sleep(REST).await;
                }
                AcceptedNow::Broken => {}
                AcceptedNow::Nobody => break,
            }
        }
    }

    /// Gives the connection to a worker, unless its client has too many.
    fn spawn(
        self: &Arc<Plane>,
        gate: &Arc<Gate>,
        slot: OwnedSemaphorePermit,
        stream: ClientStream,
        id: ListenerId,
        stop: &Stop,
    ) {
        let Some(admitted) = self.admit(gate, stream.client(), id) else { return };
        let counted = Counted::new(self);
        let (placed, elsewhere) = self.workers.place();
        let held = (counted, admitted, placed, slot);
        let (front, stop) = (self.front.clone(), stop.clone());
        let Some(runtime) = elsewhere else {
            tokio::spawn(front::serve(front, stream, id, stop, held));
            return;
        };
        // Out of the queue of this worker, and into that of the other. What fails is a connection that is gone.
        let Ok(stream) = stream.detach() else { return };
        runtime.spawn(async move {
            if let Ok(stream) = stream.attach() {
                // A task of its own: this one has to hold the arguments beside what is made of them.
                tokio::spawn(front::serve(front, stream, id, stop, held));
            }
        });
    }
}

impl Plane {
    fn admit(&self, gate: &Arc<Gate>, client: Option<IpAddr>, id: ListenerId) -> Option<Admitted> {
        let snapshot = self.front.published.load();
        // If a reload has removed the listener, these are the last of its clients.
        let Some(entry) = snapshot.listener(id) else { return gate.admit(client, &ClientLimits::DEFAULT) };
        let admitted = gate.admit(client, &entry.client.limits);
        if let (None, Some(client)) = (&admitted, client) {
            self.front.stats.refused.fetch_add(1, Ordering::Relaxed);
            if let Some(unlogged) = gate.on_refused(client, Instant::now()) {
                let listener = &entry.name;
                tracing::warn!(%listener, %client, unlogged, "Closed a connection: its client has as many open as limits.connections_per_client allows");
            }
        }
        admitted
    }
}

/// A task that accepts.
struct Accepting {
    open: Arc<Open>,
    stop: Stop,
}

impl Accepting {
    fn new(plane: &Plane, stop: &Stop) -> Accepting {
        plane.open.accepting.lock().push(stop.clone());
        Accepting { open: plane.open.clone(), stop: stop.clone() }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.open.accepting.lock().retain(|stop| !stop.is_same(&self.stop));
        self.open.none.notify_waiters();
    }
}

/// One open connection.
struct Counted(Arc<Plane>);

impl Counted {
    fn new(plane: &Arc<Plane>) -> Counted {
        plane.open.count.fetch_add(1, Ordering::AcqRel);
        let stats = &plane.front.stats;
        stats.connections.fetch_add(1, Ordering::Relaxed);
        stats.connections_open.fetch_add(1, Ordering::Relaxed);
        Counted(plane.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.front.stats.connections_open.fetch_sub(1, Ordering::Relaxed);
        if self.0.open.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.open.none.notify_waiters();
        }
    }
}
