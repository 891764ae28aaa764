//! The requests that wait for a pool: for the first verdict of an upstream, or for one that has a free place.
//!
//! They are woken one by one, in the order in which they came: whatever happens in the pool calls the first, and whoever is
//! called calls the next when it leaves the queue, or when it must go on waiting although the next may have more luck. So no
//! place that becomes free is missed, nobody overtakes, and a change does not wake a thousand tasks at once.
//!
//! Requests that an upstream has failed wait in the same line and are counted apart: they do not want every place, so they
//! may not use up the room of those that do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most requests that wait for one pool's verdicts.
pub const WAITING_MAX: u32 = 1_000;

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// An upstream that may be picked.
    Verdict,
    /// A free place on one; no later request may take it before.
    Place,
}

/// See the head of this file. A request that does not wait touches two counters of it.
#[derive(Debug, Default)]
pub struct Queue {
    for_verdict: Line,
    for_place: Line,
}

/// Those that wait for the same.
#[derive(Debug, Default)]
struct Line {
    waiters: Mutex<VecDeque<Arc<Waiter>>>,
    /// Those that no upstream has failed yet.
    fresh: AtomicU32,
    /// The others.
    again: AtomicU32,
}

#[derive(Debug, Default)]
struct Waiter {
    called: Notify,
}

/// A place in the queue. Dropping it frees the place and calls the next.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    awaits: Awaits,
    /// An upstream has failed it.
    again: bool,
    waiter: Arc<Waiter>,
}

impl Queue {
    /// The last place in the queue, or `None` if `most` wait for the same. What it waits for may have come while it was on its
    /// way: so it is called once, and for a place the first of all is. `again`: an upstream has failed it.
    pub fn join(self: &Arc<Self>, awaits: Awaits, most: u32, again: bool) -> Option<Ticket> {
        let line = self.line(awaits);
        let more = |waiting: u32| (waiting < most).then_some(waiting + 1);
        line.count(again).fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).ok()?;
        // Whoever frees a place before this is seen to have done so, and whoever does after it sees this one waiting.
        fence(Ordering::SeqCst);
        let waiter = Arc::new(Waiter::default());
        let mut waiters = line.waiters.lock();
        waiters.push_back(waiter.clone());
        match awaits {
            Awaits::Verdict => waiter.called.notify_one(),
            // Otherwise it would overtake one that has been called and has not looked yet.
            Awaits::Place => waiters[0].called.notify_one(),
        }
        drop(waiters);
        Some(Ticket { queue: self.clone(), awaits, again, waiter })
    }

    /// Calls the first that waits, of each kind.
    pub fn call(&self) {
        self.for_verdict.call();
        self.call_for_place();
    }

    /// Calls the first that waits for a place. Cheap where none does: every request that ends comes here.
    pub fn call_for_place(&self) {
        self.for_place.call();
    }

    /// How many wait.
    pub fn len(&self) -> u32 {
        self.for_verdict.len() + self.for_place()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait for a place.
    pub fn for_place(&self) -> u32 {
        self.for_place.len()
    }

    fn line(&self, awaits: Awaits) -> &Line {
        match awaits {
            Awaits::Verdict => &self.for_verdict,
            Awaits::Place => &self.for_place,
        }
    }
}

impl Line {
    fn call(&self) {
        if self.len() > 0
            && let Some(first) = self.waiters.lock().front()
        {
            first.called.notify_one();
        }
    }

    fn len(&self) -> u32 {
        self.fresh.load(Ordering::SeqCst) + self.again.load(Ordering::SeqCst)
    }

    fn count(&self, again: bool) -> &AtomicU32 {
        if again { &self.again } else { &self.fresh }
    }
}

impl Ticket {
    /// Completes when it is this one's turn to look again. Cancel-safe.
    pub async fn called(&self) {
        self.waiter.called.notified().await;
    }

    /// What it waits for.
    pub fn awaits(&self) -> Awaits {
        self.awaits
    }

    /// It was called in vain and goes on waiting: the next one may have more luck.
    pub fn pass_on(&self) {
        let waiters = self.queue.line(self.awaits).waiters.lock();
        let own = waiters.iter().position(|waiter| Arc::ptr_eq(waiter, &self.waiter));
        if let Some(next) = own.and_then(|own| waiters.get(own + 1)) {
            next.called.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let line = self.queue.line(self.awaits);
        let mut waiters = line.waiters.lock();
        if let Some(own) = waiters.iter().position(|waiter| Arc::ptr_eq(waiter, &self.waiter)) {
            waiters.remove(own);
            line.count(self.again).fetch_sub(1, Ordering::SeqCst);
            // The one after it: those before it have been called in vain, or are about to look.
            if let Some(next) = waiters.get(own) {
                next.called.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Which of these are called now; each is called once.
    fn called(tickets: &[Ticket]) -> Vec<usize> {
        (0..tickets.len()).filter(|index| tickets[*index].called().now_or_never().is_some()).collect()
    }

    #[test]
    fn they_are_called_one_by_one_in_the_order_in_which_they_came() {
        let queue = Arc::new(Queue::default());
        let mut tickets: Vec<Ticket> = (0..4).map(|_| queue.join(Awaits::Place, 4, false).expect("room")).collect();
        assert!(queue.join(Awaits::Place, 4, false).is_none(), "it is full");
        assert!(queue.join(Awaits::Place, 1, true).is_some(), "those that have failed elsewhere do not count");
        assert!(queue.join(Awaits::Verdict, 1, false).is_some(), "nor do those that wait for something else");
        assert_eq!(called(&tickets), [0], "the first looks when another has joined");
        assert_eq!(called(&tickets), [] as [usize; 0]);
        queue.call();
        queue.call();
        assert_eq!(called(&tickets), [0]);
        // It goes on waiting.
        tickets[0].pass_on();
        assert_eq!(called(&tickets), [1]);
        // It has what it waited for.
        drop(tickets.remove(1));
        assert_eq!(called(&tickets), [1], "the third");
        drop(tickets.remove(0));
        assert_eq!(called(&tickets), [0]);
        // A client that leaves while it is called must not keep the call.
        queue.call();
        drop(tickets.remove(0));
        assert_eq!((called(&tickets), queue.for_place()), (vec![0], 1));
        tickets[0].pass_on();
        drop(tickets);
        queue.call();
        assert!(queue.is_empty());
    }
}
