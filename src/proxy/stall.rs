//! Lets a lane stand still while its client takes nothing. Pingora would go on reading from the upstream meanwhile, and keep
//! ten pieces of 64 KiB for each client that does not read; so it keeps five.
//!
//! The write that waits begins the stall ([`Stall::begin`]) and has a waker of its own, which ends it; until then
//! [`Stall::pace`] does not poll the lane. Nothing else in the lane could go on: pingora neither reads the request nor
//! anything but the next pieces of the answer while it writes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use tokio::task::coop;

/// More polls than tokio lets a task make progress with before it must yield (128).
const BUDGET_MAX: usize = 256;

/// Whether the client of a lane takes nothing.
#[derive(Debug, Default)]
pub struct Stall {
    waits: AtomicBool,
    /// The task of the lane. Taken by whoever ends a stall, never held over anything.
    task: Mutex<Option<Waker>>,
}

impl Stall {
    /// Runs `write` until it waits; then the lane is not polled again before the waker that `write` has left where it
    /// waits is woken.
    pub fn begin<T>(self: &Arc<Stall>, cx: &Context<'_>, write: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        *self.task.lock() = Some(cx.waker().clone());
        self.waits.store(true, Ordering::Release);
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        let written = write(&mut cx);
        if written.is_ready() {
            self.end();
        } else {
            use_up_budget(&mut cx);
        }
        written
    }

    /// The lane may go on.
    pub fn end(&self) {
        self.waits.store(false, Ordering::Release);
    }

    /// Polls the lane unless its client takes nothing.
    pub fn pace<F: Future>(&self, lane: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.waits.load(Ordering::Acquire) {
            let mut task = self.task.lock();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
            drop(task);
            // It may have ended between the look and the lock, with the old waker.
            if self.waits.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        lane.poll(cx)
    }
}

impl Wake for Stall {
    fn wake(self: Arc<Stall>) {
        self.end();
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// The lane's other half may have its turn after this one, in the same poll: it finds nothing it may do.
fn use_up_budget(cx: &mut Context<'_>) {
    for _ in 0..BUDGET_MAX {
        if !coop::has_budget_remaining() || std::pin::pin!(coop::consume_budget()).poll(cx).is_pending() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// A lane that counts how often it is polled.
    async fn counted(polls: &AtomicU32) {
        poll_fn(|_| {
            polls.fetch_add(1, Ordering::Relaxed);
            Poll::<()>::Pending
        })
        .await;
    }

    #[tokio::test]
    async fn a_lane_is_polled_again_when_its_write_is_woken_and_not_before() {
        let (stall, polls) = (Arc::new(Stall::default()), AtomicU32::new(0));
        let mut lane = std::pin::pin!(counted(&polls));
        let mut woken = None;
        poll_fn(|cx| {
            assert!(stall.pace(lane.as_mut(), cx).is_pending());
            assert_eq!(polls.load(Ordering::Relaxed), 1);
            let write = |cx: &mut Context<'_>| {
                woken = Some(cx.waker().clone());
                Poll::<()>::Pending
            };
            assert!(stall.begin(cx, write).is_pending());
            assert!(!coop::has_budget_remaining(), "whoever else is in the lane must not go on");
            assert!(stall.pace(lane.as_mut(), cx).is_pending());
            assert_eq!(polls.load(Ordering::Relaxed), 1, "its client takes nothing");
            woken.take().expect("it waits").wake();
            assert!(stall.pace(lane.as_mut(), cx).is_pending());
            assert_eq!(polls.load(Ordering::Relaxed), 2);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_write_that_need_not_wait_stalls_nothing() {
        let (stall, polls) = (Arc::new(Stall::default()), AtomicU32::new(0));
        let mut lane = std::pin::pin!(counted(&polls));
        poll_fn(|cx| {
            assert_eq!(stall.begin(cx, |_| Poll::Ready(7)), Poll::Ready(7));
            assert!(coop::has_budget_remaining());
            assert!(stall.pace(lane.as_mut(), cx).is_pending());
            assert_eq!(polls.load(Ordering::Relaxed), 1);
            Poll::Ready(())
        })
        .await;
    }
}
