//! The probes in flight: polls them, collects their reports, and cancels those that are no longer needed. Part of the
//! controller's shell; what a report means is decided by [`super::state`].
//!
//! All probes run in the scheduler's own task: with a task for each, waking and joining cost as much as the probe's own
//! code. A probe that panics ends only itself, and one whose peer always has more to read does not hold up the others:
//! tokio limits the operations on sockets and timers in one poll of a task (`coop`, 128), and a probe that used them up
//! goes to the end of the queue.

use std::collections::HashSet;
use std::future::{self, Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use tokio::task::coop;
use tokio::time::Instant;

use super::controller::{ProbeFuture, Prober};
use super::state::{Ended, ProbeJob, ProbeToken};
use crate::model::{Code, ProbeReport};

/// Polls whose reports are collected, if each used up what the task may do in one: a few hundred probes end together, and
/// their changes make one view. A probe that can always go on delays the reports of the others by so many polls.
const ROUNDS_MAX: u32 = 8;

/// The probes in flight. Dropping it cancels them.
#[derive(Default)]
pub(super) struct Flights {
    all: FuturesUnordered<Flight>,
    /// Those that have ended in earlier polls of [`Flights::ended`].
    ended: Vec<Ended>,
    /// How many polls in a row have used up what the task may do in one.
    rounds: u32,
    /// The longest delay between a probe's due time and its start since the last read, in microseconds.
    late_us: Arc<AtomicU64>,
}

/// One probe in flight.
struct Flight {
    token: ProbeToken,
    /// When it was due, and where its delay is noted; `None` once it has begun.
    due: Option<(Instant, Arc<AtomicU64>)>,
    probe: ProbeFuture,
}

impl Flights {
    /// Starts a probe; it begins when [`Flights::ended`] is polled.
    pub(super) fn start(&mut self, prober: &Arc<dyn Prober>, job: ProbeJob) {
        let (token, due) = (job.token, Some((job.due, self.late_us.clone())));
        // Making the future may panic as well.
        let made = catch_unwind(AssertUnwindSafe(|| prober.probe(job)));
        let probe = made.unwrap_or_else(|_| Box::pin(future::ready(panic_report())));
        self.all.push(Flight { token, due, probe });
    }

    /// Drops these probes, begun or not, with their sockets.
    pub(super) fn cancel(&mut self, tokens: &[ProbeToken]) {
        if tokens.is_empty() {
            return;
        }
        let tokens: HashSet<ProbeToken> = tokens.iter().copied().collect();
        let all = std::mem::take(&mut self.all);
        self.all = all.into_iter().filter(|flight| !tokens.contains(&flight.token)).collect();
    }

    /// The longest delay between a probe's due time and its start since the last call.
    pub(super) fn take_late(&self) -> Duration {
        Duration::from_micros(self.late_us.swap(0, Ordering::Relaxed))
    }

    /// All probes that have ended, at least one; pending while none has. Cancel-safe. What else the task waits for must be
    /// polled before it: this may use up what the task may do in one poll.
    pub(super) async fn ended(&mut self) -> Vec<Ended> {
        poll_fn(|cx| {
            while let Poll::Ready(Some(next)) = Pin::new(&mut self.all).poll_next(cx) {
                self.ended.push(next);
            }
            if !coop::has_budget_remaining() && self.rounds < ROUNDS_MAX {
                self.rounds += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.rounds = 0;
            if self.ended.is_empty() { Poll::Pending } else { Poll::Ready(std::mem::take(&mut self.ended)) }
        })
        .await
    }
}

impl Future for Flight {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        if !coop::has_budget_remaining() {
            // It could do nothing now. Twice in a row, and the queue waits for the next poll of the task.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let flight = self.get_mut();
        if let Some((due, late_us)) = flight.due.take() {
            // The probe begins only here, so that a thread that is too busy shows as lag.
            let late = Instant::now().saturating_duration_since(due);
            late_us.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| flight.probe.as_mut().poll(cx)));
        let report = ready!(polled.unwrap_or_else(|_| Poll::Ready(panic_report())));
        Poll::Ready((flight.token, report))
    }
}

fn panic_report() -> Arc<ProbeReport> {
    Arc::new(ProbeReport::new(Code::Panic, Duration::ZERO, "the probe panicked"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use futures_util::FutureExt;

    use super::super::state::{CheckKey, Kept};
    use super::*;
    use crate::model::Ratio;
    use crate::model::policy::{ProbeSpec, Timing};

    /// By port: 1 panics before it returns a future, 2 while it is polled, and 5 can always go on, as one that reads what
    /// a peer sends without end. The others need three operations that count for `coop`, and from 1,000 on they then wait
    /// for ever. Keeps the ports of the futures that exist.
    #[derive(Default)]
    struct Scripted(Arc<Mutex<BTreeSet<u16>>>);

    struct Open(u16, Arc<Mutex<BTreeSet<u16>>>);

    impl Drop for Open {
        fn drop(&mut self) {
            self.1.lock().unwrap().remove(&self.0);
        }
    }

    impl Prober for Scripted {
        fn probe(&self, job: ProbeJob) -> ProbeFuture {
            let port = job.check.target.port().unwrap();
            assert_ne!(port, 1, "injected fault");
            self.0.lock().unwrap().insert(port);
            let open = Open(port, self.0.clone());
            Box::pin(async move {
                // All of it, not only the number.
                let open = open;
                assert_ne!(open.0, 2, "injected fault");
                let mut operations = 0;
                while operations < 3 || open.0 == 5 {
                    coop::consume_budget().await;
                    operations += 1;
                }
                if open.0 >= 1_000 {
                    future::pending::<()>().await;
                }
                Arc::new(ProbeReport::new(Code::L4Ok, Duration::ZERO, "connected"))
            })
        }
    }

    fn job(port: u16) -> ProbeJob {
        let target: crate::model::Address = format!("127.0.0.1:{port}").parse().unwrap();
        let second = Duration::from_secs(1);
        let timing = Timing {
            interval: second,
            unhealthy_interval: None,
            timeout: second,
            healthy_threshold: 1,
            unhealthy_threshold: 1,
            fast_interval: second,
            start_period: Duration::ZERO,
            jitter: Ratio::ZERO,
        };
        let spec = Arc::new(ProbeSpec::connect());
        let check = Arc::new(CheckKey { upstream: target.clone(), target, name: None, spec, timing });
        ProbeJob { token: ProbeToken(u64::from(port)), check, due: Instant::now(), kept: Kept::default() }
    }

    /// Starts these probes and cancels some. Returns the `wanted` first that end, and the ports of those that go on after
    /// 1002 was cancelled too.
    async fn run(
        ports: impl IntoIterator<Item = u16>,
        cancelled: &[u16],
        wanted: usize,
    ) -> (Vec<(u64, Code)>, Vec<u16>) {
        let scripted = Scripted::default();
        let open = scripted.0.clone();
        let prober: Arc<dyn Prober> = Arc::new(scripted);
        let mut flights = Flights::default();
        ports.into_iter().for_each(|port| flights.start(&prober, job(port)));
        let tokens: Vec<_> = cancelled.iter().map(|port| ProbeToken(u64::from(*port))).collect();
        flights.cancel(&tokens);
        let mut ended = Vec::new();
        while ended.len() < wanted {
            ended.extend(flights.ended().await.iter().map(|(token, report)| (token.0, report.code)));
        }
        flights.cancel(&[ProbeToken(1_002)]);
        let open = open.lock().unwrap().iter().copied().collect();
        ended.sort_unstable();
        (ended, open)
    }

    #[tokio::test(start_paused = true)]
    async fn probes_that_end_together_are_reported_together() {
        let prober: Arc<dyn Prober> = Arc::new(Scripted::default());
        let mut flights = Flights::default();
        (10..50).for_each(|port| flights.start(&prober, job(port)));
        // 40 probes with three operations each are within what a task may do in one poll.
        let ended = flights.ended().now_or_never().unwrap_or_default();
        assert_eq!(ended.len(), 40);
        // These need several polls.
        (50..250).for_each(|port| flights.start(&prober, job(port)));
        assert_eq!(flights.ended().await.len(), 200);
    }

    /// On a thread of its own: if one probe does hold up the others, it holds up its thread for ever.
    #[test]
    fn a_probe_that_can_always_go_on_does_not_hold_up_the_others_however_many_they_are() {
        let (ends, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = ends.send(runtime.block_on(run(5..900, &[], 894)));
        });
        let (ended, open) = ended.recv_timeout(Duration::from_secs(60)).expect("the others end");
        assert_eq!(ended, (6..900).map(|port| (port, Code::L4Ok)).collect::<Vec<_>>());
        assert_eq!(open, [5], "a probe that has ended keeps no socket");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_probe_is_dropped_whether_it_had_begun_or_not_and_no_other_is() {
        let (ended, open) = run([3, 4, 1_000, 1_001, 1_002], &[3, 1_001], 1).await;
        assert_eq!(ended, [(4, Code::L4Ok)]);
        assert_eq!(open, [1_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_one_probe() {
        let (ended, open) = run([1, 2, 3], &[], 3).await;
        assert_eq!(ended, [(1, Code::Panic), (2, Code::Panic), (3, Code::L4Ok)]);
        assert_eq!(open, [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_delay_of_the_latest_start_is_kept_until_it_is_read() {
        let prober: Arc<dyn Prober> = Arc::new(Scripted::default());
        let mut flights = Flights::default();
        flights.start(&prober, job(1_000));
        tokio::time::advance(Duration::from_millis(7)).await;
        assert_eq!(flights.take_late(), Duration::ZERO, "it has not begun");
        assert!(flights.ended().now_or_never().is_none());
        assert_eq!((flights.take_late(), flights.take_late()), (Duration::from_millis(7), Duration::ZERO));
    }
}
