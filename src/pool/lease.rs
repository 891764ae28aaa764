//! A request's hold on an upstream. Taken when the upstream is picked, settled when the attempt ends, and released in
//! `Drop` at the latest, so that a cancelled request is counted too.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::snapshot::PoolShared;
use super::upstream::Upstream;
use crate::model::policy::Failure;

/// One attempt's hold on an upstream: counts as in flight until it is settled. Afterwards it still knows the upstream, and can
/// be taken again.
///
/// Two of the writes that a request makes to memory which all workers share are here: in flight up, in flight down.
#[derive(Debug)]
pub struct Lease {
    upstream: Arc<Upstream>,
    held: bool,
    /// How many its upstream had in flight when this hold began, it included.
    number: u32,
    /// The pool in whose load it counts as well, while it is held.
    counted_in: Option<Arc<PoolShared>>,
}

/// How an attempt on an upstream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// A complete response with any status, or the client left.
    Done,
    /// It failed before a response head had come. A hint for the checker.
    Failed(Failure),
    /// The response broke off after its head.
    BrokeOff,
    /// It failed in a way that says nothing about the upstream's health: a stale pooled connection, or our own
    /// descriptors or ports ran out.
    NotTheUpstream,
}

impl Lease {
    /// Takes hold of an upstream that was just picked.
    pub fn take(upstream: Arc<Upstream>) -> Lease {
        let number = upstream.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        Lease { upstream, held: true, number, counted_in: None }
    }

    /// Takes hold of the same upstream again. The lease has been settled.
    pub fn retake(&mut self) {
        debug_assert!(!self.held, "an attempt ends before the next begins");
        if !std::mem::replace(&mut self.held, true) {
            self.number = self.upstream.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        }
    }

    /// Takes hold of this upstream instead; returns the one before. The lease has been settled.
    pub fn take_other(&mut self, upstream: Arc<Upstream>) -> Arc<Upstream> {
        self.release();
        let before = std::mem::replace(&mut self.upstream, upstream);
        self.retake();
        before
    }

    /// Counts in the load of this pool too, until it is settled.
    pub fn count_in(&mut self, pool: &Arc<PoolShared>) {
        if self.held && self.counted_in.is_none() {
            pool.in_flight.fetch_add(1, Ordering::Relaxed);
            self.counted_in = Some(pool.clone());
        }
    }

    /// Whether its upstream had no more requests in flight than it may when this hold began, it included. Of several that
    /// took the last place at once, one has it.
    pub fn fits(&self, places: u32) -> bool {
        self.number <= places
    }

    /// Whether the attempt goes on.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The request is being sent. A pick that sends nothing is not counted as a request.
    pub fn on_sent(&self) {
        self.upstream.count_request();
    }

    /// Counts the head of its final response, which arrived `took` after the first byte was sent.
    pub fn on_answer(&self, status: u16, took: Duration) {
        self.upstream.count_answer(status, took);
    }

    /// The upstream held, or held last.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Ends the hold with this outcome. Does nothing if it has ended.
    pub fn settle(&mut self, how: Settled) {
        if !self.release() {
            return;
        }
        match how {
            Settled::Done | Settled::NotTheUpstream => {}
            Settled::Failed(Failure::Connect) => {
                self.upstream.count_request();
                self.upstream.connect_failures_total.fetch_add(1, Ordering::Relaxed);
                self.upstream.hint();
            }
            Settled::Failed(_) => {
                self.upstream.broken_total.fetch_add(1, Ordering::Relaxed);
                self.upstream.hint();
            }
            Settled::BrokeOff => {
                self.upstream.broken_total.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// True if it was held.
    fn release(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        if let Some(pool) = self.counted_in.take() {
            pool.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if held {
            // Whoever joins the queue after this sees the free place, and who is in it is called: also in a pool that had no
            // limit when this hold began.
            self.upstream.in_flight.fetch_sub(1, Ordering::SeqCst);
            self.upstream.queue.call_for_place();
        }
        held
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::pool::upstream::{Hint, Hints, UpstreamId};

    #[test]
    fn a_dropped_lease_releases_its_place_and_only_failures_hint() {
        let (hints, mut receiver) = Hints::channel();
        let name = Name::try_new("api").unwrap();
        let upstream = Arc::new(Upstream::new(UpstreamId(1), name, "127.0.0.1:80".parse().unwrap(), hints));
        drop(Lease::take(upstream.clone()));
        Lease::take(upstream.clone()).settle(Settled::NotTheUpstream);
        let mut lease = Lease::take(upstream.clone());
        lease.on_sent();
        lease.settle(Settled::Done);
        lease.retake();
        lease.settle(Settled::BrokeOff);
        assert_eq!(upstream.broken_total.load(Ordering::Relaxed), 1);
        assert!(receiver.try_recv().is_err());
        lease.retake();
        assert_eq!(upstream.in_flight.load(Ordering::Relaxed), 1);
        let pool = Arc::new(PoolShared::new(tokio::time::Instant::now()));
        lease.count_in(&pool);
        lease.count_in(&pool);
        assert_eq!(pool.in_flight.load(Ordering::Relaxed), 1, "once");
        lease.settle(Settled::Failed(Failure::Connect));
        assert_eq!((upstream.in_flight.load(Ordering::Relaxed), pool.in_flight.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(upstream.requests_total(), 2, "one was sent, one could not connect");
        assert_eq!(receiver.try_recv(), Ok(Hint::Failed(UpstreamId(1))));
    }
}
