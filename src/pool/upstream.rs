//! One upstream of one pool: what outlives snapshots and views, because requests, connections and counters refer to it
//! across reloads. Its health is not here (the controller owns that); its load, counters and connections are.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::answers::{Answered, Answers};
use super::faults::Faults;
use super::instant::SharedInstant;
use super::latency::Latency;
use super::outcomes::{Counted, Outcomes, Share};
use super::queue::Queue;
use super::sharded::Sharded;
use super::stats::Histogram;
use crate::http1::Fault;
use crate::model::policy::{Failure, PassivePolicy};
use crate::model::{Address, Name};

/// The shortest time between two log lines about malformed responses of one upstream.
pub const MALFORMED_LINE_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two log lines about bytes that no request asked for, from one upstream.
pub const UNASKED_LINE_EVERY: Duration = Duration::from_secs(60);

/// Identifies an upstream (pool and address) for the life of the process; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub u64);

/// One upstream of one pool.
#[derive(Debug)]
pub struct Upstream {
    /// Unique for the life of the process.
    pub id: UpstreamId,
    /// The pool it belongs to.
    pub pool: Name,
    /// Where its requests go.
    pub address: Address,
    /// Requests in flight, kept by leases. All workers share it, because `least_request` compares the sum: two writes for
    /// each attempt.
    pub in_flight: AtomicU32,
    /// Connections that could not be made; kept by leases.
    pub connect_failures_total: AtomicU64,
    /// Requests that failed after the connection was made, also in the middle of a response; kept by leases.
    pub broken_total: AtomicU64,
    /// What every request counts, in the memory of its worker; kept by leases.
    traffic: Sharded<Traffic>,
    /// Until when it counts as healthy if no further probe passes or fails; never while it is not healthy. Written by
    /// the controller, read by whatever picks.
    pub fresh_until: SharedInstant,
    /// Connections closed because it sent bytes on them that no request asked for.
    pub unasked: Faults<()>,
    /// Its malformed responses to requests.
    pub faults: Faults,
    /// Its open connections, so that idle ones can be closed when it becomes unhealthy.
    pub connections: Connections,
    /// Data that the data path keeps with it from its first request on; opaque to everything else.
    pub data_path: OnceLock<Box<dyn Any + Send + Sync>>,
    /// What came of its latest requests.
    pub outcomes: Outcomes,
    /// How long it takes to answer, in pools that balance by it.
    pub latency: Latency,
    /// The same as a histogram, if that is asked for. All workers share it: two writes for each response.
    pub histogram: OnceLock<Box<Histogram>>,
    /// Where requests wait for a place on it: that of its pool.
    pub(super) queue: Arc<Queue>,
    hinted: AtomicBool,
    reported: AtomicBool,
    hints: Hints,
}

/// The wait for the time when what is in flight must have ended.
pub struct CutOff(Pin<Box<dyn Future<Output = ()> + Send>>);

impl CutOff {
    /// Ready from then on.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CutOff")
    }
}

/// What every request to an upstream counts.
#[derive(Debug, Default)]
struct Traffic {
    requests: AtomicU64,
    answers: Answers,
    recent: Counted,
}

impl Upstream {
    /// See [`Connections::cut_reached`].
    pub fn cut_off(self: Arc<Self>, epoch: u64, what: InFlight) -> CutOff {
        CutOff(Box::pin(async move { self.connections.cut_reached(epoch, what).await }))
    }

    /// A new upstream without load. `hints` is where failures seen by the data path are reported.
    pub fn new(id: UpstreamId, pool: Name, address: Address, hints: Hints) -> Upstream {
        Upstream::with_queue(id, pool, address, hints, Arc::default())
    }

    /// The same, with the queue for its places.
    pub fn with_queue(id: UpstreamId, pool: Name, address: Address, hints: Hints, queue: Arc<Queue>) -> Upstream {
        Upstream {
            id,
            pool,
            address,
            in_flight: AtomicU32::new(0),
            connect_failures_total: AtomicU64::new(0),
            broken_total: AtomicU64::new(0),
            traffic: Sharded::default(),
            fresh_until: SharedInstant::never(),
            unasked: Faults::default(),
            faults: Faults::default(),
            connections: Connections::default(),
            data_path: OnceLock::new(),
            outcomes: Outcomes::default(),
            latency: Latency::default(),
            histogram: OnceLock::new(),
            queue,
            hinted: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            hints,
        }
    }

    /// Counts a request that is sent to it, or for which no connection could be made.
    pub fn count_request(&self) {
        self.traffic.mine().requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests sent to it, including those for which no connection could be made.
    pub fn requests_total(&self) -> u64 {
        self.traffic.all().map(|traffic| traffic.requests.load(Ordering::Relaxed)).sum()
    }

    /// Counts the head of a final response, which arrived `took` after the first byte of its request was sent.
    pub fn count_answer(&self, status: u16, took: Duration) {
        self.traffic.mine().answers.record(status, took);
    }

    /// Its final responses and their response times.
    pub fn answered(&self) -> Answered {
        self.traffic.all().map(|traffic| traffic.answers.read()).fold(Answered::default(), Answered::plus)
    }

    /// The data path saw a connect failure, a reset or a timeout: requests an early probe. Never changes a verdict. One
    /// hint is enough until the checker has taken it, so a storm of failures costs one message.
    pub fn hint(&self) {
        self.send_once(&self.hinted, Hint::Failed(self.id));
    }

    /// Counts what came of a request: it failed in this way, or a response has come that is no failure. A row of failures that
    /// may eject it is reported, once until the checker has taken that. `second`: the number of this second.
    pub fn on_outcome(&self, failure: Option<Failure>, policy: &PassivePolicy, second: u64) {
        if !policy.is_on() {
            return;
        }
        match failure {
            Some(failure) if policy.failures.has(failure) => {
                if self.outcomes.on_failure(&self.traffic.mine().recent, failure, second) >= policy.consecutive_failures
                {
                    self.send_once(&self.reported, Hint::FailedInARow(self.id));
                }
            }
            // It did not answer, and that does not count.
            Some(Failure::Connect | Failure::Reset | Failure::Timeout) => {}
            Some(Failure::BadGateway | Failure::Unavailable | Failure::GatewayTimeout) | None => {
                self.outcomes.on_success(&self.traffic.mine().recent, second);
            }
        }
    }

    /// How many of its requests of the last ten seconds have failed.
    pub fn share(&self, second: u64) -> Share {
        self.traffic.all().map(|traffic| traffic.recent.share(second)).fold(Share::default(), Share::plus)
    }

    /// Sends a hint unless one of its kind has not been taken yet.
    fn send_once(&self, sent: &AtomicBool, hint: Hint) {
        if !sent.swap(true, Ordering::Relaxed) && !self.hints.send(hint) {
            sent.store(false, Ordering::Relaxed);
        }
    }

    /// Counts a connection that is closed because this upstream sent bytes on it that no request asked for, and logs
    /// that at most once a minute.
    pub fn note_unasked(&self, now: Instant) {
        if let Some(not_logged) = self.unasked.note((), now, UNASKED_LINE_EVERY) {
            self.log_unasked(not_logged + 1);
        }
    }

    fn log_unasked(&self, connections: u64) {
        tracing::warn!(
            pool = %self.pool,
            upstream = %self.address,
            connections,
            "Upstream sent bytes that no request asked for; the connections are closed"
        );
    }

    /// Counts a response to a request that cannot be passed on, and logs at most one per second.
    pub fn note_malformed(&self, fault: Fault, now: Instant) {
        if let Some(not_logged) = self.faults.note(fault, now, MALFORMED_LINE_EVERY) {
            self.log_malformed(fault, not_logged);
        }
    }

    fn log_malformed(&self, fault: Fault, not_logged: u64) {
        tracing::warn!(
            pool = %self.pool,
            upstream = %self.address,
            reason = %fault,
            not_logged,
            "Malformed answer to a request"
        );
    }

    /// Whether it has ever sent what is counted and rarely logged.
    pub fn has_counted(&self) -> bool {
        self.faults.any() || self.unasked.any()
    }

    /// Logs what [`Upstream::note_malformed`] and [`Upstream::note_unasked`] have counted and not logged, as soon as the
    /// pause between two lines is over. The controller calls it about every second, so that the last ones are logged too.
    pub fn log_counted(&self, now: Instant) {
        if let Some((fault, not_logged)) = self.faults.due(now, MALFORMED_LINE_EVERY) {
            self.log_malformed(fault, not_logged);
        }
        if let Some(((), not_logged)) = self.unasked.due(now, UNASKED_LINE_EVERY) {
            self.log_unasked(not_logged + 1);
        }
    }

    /// The checker has taken this hint; the next failure may send another.
    pub fn hint_taken(&self, hint: Hint) {
        let sent = match hint {
            Hint::Failed(_) => &self.hinted,
            Hint::FailedInARow(_) => &self.reported,
        };
        sent.store(false, Ordering::Relaxed);
    }
}

/// The controller no longer asks a removed upstream, so what it has counted is logged here.
impl Drop for Upstream {
    fn drop(&mut self) {
        if self.has_counted() {
            self.log_counted(Instant::now() + UNASKED_LINE_EVERY);
        }
    }
}

/// What the data path tells the checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A request to this upstream failed: its next probe should come early.
    Failed(UpstreamId),
    /// So many of its requests have failed in a row that it may be ejected.
    FailedInARow(UpstreamId),
}

/// Where hints go: a bounded channel to the checker. A full channel drops the hint, because the regular probe and further
/// failures follow.
#[derive(Clone)]
pub struct Hints(Option<mpsc::Sender<Hint>>);

impl Hints {
    /// Hints kept before one is dropped.
    pub const CAPACITY: usize = 1_024;

    /// The two ends of a hint channel.
    pub fn channel() -> (Hints, mpsc::Receiver<Hint>) {
        let (sender, receiver) = mpsc::channel(Hints::CAPACITY);
        (Hints(Some(sender)), receiver)
    }

    /// Hints that are dropped, for tests that do not need them.
    pub fn none() -> Hints {
        Hints(None)
    }

    fn send(&self, hint: Hint) -> bool {
        self.0.as_ref().is_none_or(|sender| sender.try_send(hint).is_ok())
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hints")
    }
}

/// A connection to an upstream that can be asked to close while it is idle. The data path implements it.
pub trait Connection: Send + Sync + fmt::Debug {
    /// Closes it if no request uses it now. Otherwise it must close when that request ends.
    fn close_if_idle(&self);

    /// How many open connections it is: one, unless it is a collection of them.
    fn count(&self) -> usize {
        1
    }
}

/// What ends requests before they are sent, and while they are.
#[derive(Debug, Default)]
struct Ends {
    epoch_ended: Notify,
    cut: Mutex<Option<Cut>>,
    cut_changed: Notify,
}

/// When what is in flight must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// What was picked under this epoch, or an older one.
    epoch: u64,
    requests: Option<Instant>,
    tunnels: Option<Instant>,
}

/// What is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    /// A request with its response.
    Request,
    /// A tunnel, after a switch of protocols.
    Tunnel,
}

/// The open connections of one upstream.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<HashMap<u64, Arc<dyn Connection>>>,
    epoch: AtomicU64,
    /// Created by the first request that dials: most upstreams of a large pool are never dialled.
    ends: OnceLock<Box<Ends>>,
    next: AtomicU64,
}

impl Connections {
    /// The current generation of connections. A connection made under an older one, or for a request that picked this
    /// upstream under an older one, must not be used (again).
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Begins a new epoch: the upstream may not be picked any more. Called before a new view is published, so that a
    /// request that picked it from the older view sees the epoch changed.
    pub fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        if let Some(ends) = self.ends.get() {
            ends.epoch_ended.notify_waiters();
        }
    }

    /// What is in flight now must have ended then; `None`: it ends by itself. What is picked under a later epoch is meant only
    /// with `later`.
    pub fn cut(&self, requests: Option<Instant>, tunnels: Option<Instant>, later: bool) {
        let cut = Cut { epoch: if later { u64::MAX } else { self.epoch() }, requests, tunnels };
        // Before the first dial nothing is in flight.
        let ends = if later { Some(self.ends.get_or_init(Box::default)) } else { self.ends.get() };
        if let Some(ends) = ends {
            *ends.cut.lock() = Some(cut).filter(|_| requests.is_some() || tunnels.is_some());
            ends.cut_changed.notify_waiters();
        }
    }

    /// When this, which was picked under this epoch, must have ended.
    pub fn cut_at(&self, epoch: u64, what: InFlight) -> Option<Instant> {
        let cut = (*self.ends.get()?.cut.lock()).filter(|cut| epoch <= cut.epoch)?;
        match what {
            InFlight::Request => cut.requests,
            InFlight::Tunnel => cut.tunnels,
        }
    }

    /// Completes when this, which was picked under this epoch, must have ended. Cancel-safe.
    pub async fn cut_reached(&self, epoch: u64, what: InFlight) {
        let ends = self.ends.get_or_init(Box::default);
        loop {
            let mut changed = std::pin::pin!(ends.cut_changed.notified());
            // Before the look, so that no change after it is missed.
            changed.as_mut().enable();
            match self.cut_at(epoch, what) {
                None => changed.await,
                Some(at) => {
                    if tokio::time::timeout_at(at, changed).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Completes when this epoch has ended, so that dialling for it can stop. Cancel-safe.
    pub async fn epoch_ended(&self, epoch: u64) {
        let ends = self.ends.get_or_init(Box::default);
        loop {
            let ended = ends.epoch_ended.notified();
            if self.epoch() != epoch {
                return;
            }
            ended.await;
        }
    }

    /// Registers an open connection; returns the key to remove it with.
    pub fn insert(&self, connection: Arc<dyn Connection>) -> u64 {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(key, connection);
        key
    }

    /// Removes a connection that is about to close.
    pub fn remove(&self, key: u64) {
        self.open.lock().remove(&key);
    }

    /// Open connections.
    pub fn len(&self) -> usize {
        self.open.lock().values().map(|connection| connection.count()).sum()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes idle connections, after a new epoch has begun; one in use closes after its request.
    pub fn close_idle(&self) {
        let open: Vec<_> = self.open.lock().values().cloned().collect();
        for connection in open {
            connection.close_if_idle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Failures;

    #[test]
    fn a_storm_of_failures_sends_one_hint_until_it_is_taken() {
        let (hints, mut receiver) = Hints::channel();
        let name = Name::try_new("api").unwrap();
        let upstream = Upstream::new(UpstreamId(7), name, "127.0.0.1:80".parse().unwrap(), hints);
        upstream.hint();
        upstream.hint();
        assert_eq!(receiver.try_recv(), Ok(Hint::Failed(UpstreamId(7))));
        assert!(receiver.try_recv().is_err());
        upstream.hint_taken(Hint::Failed(UpstreamId(7)));
        upstream.hint();
        assert_eq!(receiver.try_recv(), Ok(Hint::Failed(UpstreamId(7))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_ends_when_it_must_and_what_is_picked_later_is_not_meant() {
        let connections = Connections::default();
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        connections.cut(Some(began), Some(began), false);
        assert_eq!(connections.cut_at(0, InFlight::Request), None, "nothing has been dialled");
        let ended = async |epoch, what| {
            let reached = connections.cut_reached(epoch, what);
            let ended = tokio::time::timeout(60 * second, reached).await.is_ok();
            ended.then(|| began.elapsed())
        };
        let drain = async {
            tokio::time::sleep(second).await;
            connections.cut(Some(began + 3 * second), Some(began + 5 * second), false);
            connections.begin_epoch();
        };
        let (request, tunnel, later, ()) =
            tokio::join!(ended(0, InFlight::Request), ended(0, InFlight::Tunnel), ended(1, InFlight::Request), drain);
        assert_eq!((request, tunnel, later), (Some(3 * second), Some(5 * second), None));
        // An order that ends before that lets them go on.
        let began = Instant::now();
        connections.cut(Some(began + 3 * second), Some(began + 3 * second), false);
        let undrain = async {
            tokio::time::sleep(second).await;
            connections.cut(None, None, false);
        };
        let (request, ()) = tokio::join!(ended(1, InFlight::Request), undrain);
        assert_eq!(request, None);
    }

    #[test]
    fn only_a_row_of_what_counts_is_reported_and_a_response_ends_it() {
        let (hints, mut receiver) = Hints::channel();
        let name = Name::try_new("api").unwrap();
        let upstream = Upstream::new(UpstreamId(7), name, "127.0.0.1:80".parse().unwrap(), hints);
        let failures = Failures::new([Failure::Connect, Failure::Unavailable]);
        let policy = PassivePolicy { consecutive_failures: 3, failures, ..PassivePolicy::default() };
        let mut reported = |outcomes: &[Option<Failure>]| {
            outcomes.iter().for_each(|outcome| upstream.on_outcome(*outcome, &policy, 1));
            receiver.try_recv().ok()
        };
        let (connect, unavailable) = (Some(Failure::Connect), Some(Failure::Unavailable));
        let row = Some(Hint::FailedInARow(UpstreamId(7)));
        assert_eq!(reported(&[connect, unavailable, None]), None);
        assert_eq!(reported(&[connect, connect, Some(Failure::BadGateway)]), None, "a response that does not count");
        assert_eq!(reported(&[connect, Some(Failure::Reset), Some(Failure::Timeout), connect]), None);
        assert_eq!(reported(&[unavailable]), row, "what does not count says nothing");
        assert_eq!(reported(&[connect]), None, "the first has not been taken");
        upstream.hint_taken(Hint::FailedInARow(UpstreamId(7)));
        assert_eq!(reported(&[connect]), row, "it goes on");
        let off = PassivePolicy { consecutive_failures: 0, ..policy };
        upstream.outcomes.end_row();
        upstream.hint_taken(Hint::FailedInARow(UpstreamId(7)));
        (0..9).for_each(|_| upstream.on_outcome(connect, &off, 1));
        assert_eq!((reported(&[]), upstream.outcomes.row().count), (None, 0));
    }
}
