//! The async shell around [`State`]: starts probes, feeds their reports back, and publishes the result. The only writer
//! of views and snapshots.
//!
//! The state is behind one mutex, held for microseconds and never across an await, so that a reload, an operator's
//! order and the status page work even while the scheduler is being restarted. The request path never takes it: it
//! loads what was published, and its hints come through a bounded channel.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::events::Event;
use super::flights::Flights;
use super::instant::SharedInstant;
use super::lines::Lines;
use super::orders::{Done, Order, OrderError};
use super::snapshot::{ListenerId, Published, Snapshot};
use super::state::{Applied, Effects, Ended, ProbeJob, State, Suspects};
use super::status::{ExplainError, Explanation, Status};
use super::upstream::{Hint, Hints, UNASKED_LINE_EVERY};
use crate::model::policy::{CheckFile, Config};
use crate::model::{Address, Name, ProbeReport};

/// The scheduler updates its heartbeat at least this often.
const BEAT: Duration = Duration::from_secs(1);
/// A scheduler without a heartbeat for this long counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(3);
/// How often what the data path only counts (malformed answers, unrequested bytes) is logged.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// A dead scheduler is restarted after this long.
const RESTART_AFTER: Duration = Duration::from_millis(100);

/// A probe being made. Its report is made once, on the heap: `status` and `explain` keep it.
pub type ProbeFuture = Pin<Box<dyn Future<Output = Arc<ProbeReport>> + Send>>;

/// Makes probes. `probe` implements it with sockets, tests with a script.
pub trait Prober: Send + Sync {
    /// Makes one probe, within the timeout of the check. Dropping the future closes what it opened.
    fn probe(&self, job: ProbeJob) -> ProbeFuture;
}

/// Compares the files that a check was made from with what they hold now. `app` implements it, on a separate thread,
/// because reading a file may take long.
pub trait CheckFiles: Send + Sync {
    /// Calls `then` once, soon, with a sentence about the files that have changed; with `None` if none has, or if that is
    /// not known in time. Never blocks the caller.
    fn compare(&self, files: Vec<CheckFile>, then: Box<dyn FnOnce(Option<String>) + Send>);
}

/// The state of all pools, and the tasks that update it.
pub struct Controller {
    state: Mutex<State>,
    published: Published,
    changed: Notify,
    hints: Mutex<Option<mpsc::Receiver<Hint>>>,
    running: AtomicBool,
    /// When the scheduler last showed that it runs.
    beat: SharedInstant,
    check_files: Option<Arc<dyn CheckFiles>>,
    lines: Arc<Lines>,
    #[cfg(test)]
    fault: AtomicBool,
}

impl Controller {
    /// Starts without pools; [`Controller::configure`] sets them, [`Controller::run`] starts probing. `seed` is for the
    /// jitter of intervals.
    pub fn new(now: Instant, seed: u64) -> Controller {
        let (hints, receiver) = Hints::channel();
        Controller {
            state: Mutex::new(State::new(now, seed, hints)),
            published: Arc::new(ArcSwap::from_pointee(Snapshot::empty())),
            changed: Notify::new(),
            hints: Mutex::new(Some(receiver)),
            running: AtomicBool::new(false),
            beat: SharedInstant::never(),
            check_files: None,
            lines: Arc::default(),
            #[cfg(test)]
            fault: AtomicBool::new(false),
        }
    }

    /// Also logs which files have changed on disk when a check that was made from them fails.
    pub fn with_check_files(self, files: Arc<dyn CheckFiles>) -> Controller {
        Controller { check_files: Some(files), ..self }
    }

    /// What the data path loads.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Applies a new configuration and publishes it, once and whole. Carries over what still applies. `by` names
    /// the requester, in words.
    pub fn configure(&self, config: &Config, listeners: &[(Name, ListenerId)], by: &str, now: Instant) -> Applied {
        let applied = self.with_state(|state| state.configure(config, listeners, by, now));
        self.changed.notify_one();
        applied
    }

    /// The addresses of host names have changed. Works as [`Controller::configure`] with an otherwise equal
    /// configuration, and does not count as a new one.
    pub fn readdress(&self, config: &Config, listeners: &[(Name, ListenerId)], now: Instant) {
        self.with_state(|state| ((), state.readdress(config, listeners, now)));
        self.changed.notify_one();
    }

    /// Carries out an operator's order: see [`State::order`].
    ///
    /// # Errors
    /// Why nothing was done.
    pub fn order(
        &self,
        pool: Option<&str>,
        address: &Address,
        order: &Order<'_>,
        now: Instant,
    ) -> Result<Vec<Done>, OrderError> {
        let answer = self.with_state(|state| match state.order(pool, address, order, now) {
            Ok((done, effects)) => (Ok(done), effects),
            Err(error) => (Err(error), Effects::default()),
        });
        self.changed.notify_one();
        answer
    }

    /// Records a reload that `by` requested and that was `unchanged` or `refused`.
    pub fn note_reload(&self, result: &'static str, error: Option<String>, by: &str, now: Instant) {
        self.with_state(|state| ((), state.on_reload_without_effect(result, error, by, now)));
    }

    /// One consistent picture of every pool.
    pub fn status(&self) -> Status {
        let now = Instant::now();
        self.with_state(|state| {
            let effects = state.expire(now);
            (state.status(self.is_stalled(now), now), effects)
        })
    }

    /// What `explain` needs of a pool and perhaps of one of its upstreams.
    pub fn explain(&self, pool: &str, upstream: Option<&Address>) -> Result<Explanation, ExplainError> {
        let now = Instant::now();
        self.with_state(|state| {
            let effects = state.expire(now);
            (state.explain(pool, upstream, self.is_stalled(now), now), effects)
        })
    }

    /// Whether the scheduler has died or stalled.
    fn is_stalled(&self, now: Instant) -> bool {
        let late = |beat| now.saturating_duration_since(beat) > STALLED_AFTER;
        !self.running.load(Ordering::Relaxed) || self.beat.get().is_none_or(late)
    }

    /// The events after number `seq`, oldest first. One whose line waits for a hint comes with its line, and those after
    /// it do too: an event that was read does not change.
    pub fn events_after(&self, seq: u64) -> Vec<Event> {
        self.lines.write(Instant::now());
        let mut state = self.state.lock();
        // Under the lock, so that no event is added between the two.
        let (amended, waiting) = self.lines.take_amended();
        state.amend(amended);
        let mut events = state.events_after(seq);
        events.retain(|event| waiting.is_none_or(|waiting| event.seq < waiting));
        events
    }

    /// Probes until `stop` is true or its sender is dropped. Restarts and reports a scheduler that dies; verdicts are
    /// kept meanwhile.
    pub async fn run(&self, prober: Arc<dyn Prober>, mut stop: watch::Receiver<bool>) {
        let hints = self.hints.lock().take();
        let mut hints = hints.expect("a controller runs once");
        loop {
            let scheduler = AssertUnwindSafe(self.schedule(&prober, &mut hints, &mut stop)).catch_unwind();
            self.beat.set(Some(Instant::now()));
            self.running.store(true, Ordering::Relaxed);
            let ended = scheduler.await;
            self.running.store(false, Ordering::Relaxed);
            if ended.is_ok() {
                // There is no later turn.
                self.log_counted(Instant::now() + UNASKED_LINE_EVERY);
                return;
            }
            tracing::error!("Probe scheduler died; verdicts are kept, restarting it");
            tokio::time::sleep(RESTART_AFTER).await;
            self.with_state(|state| ((), state.on_scheduler_restart(Instant::now())));
        }
    }

    async fn schedule(
        &self,
        prober: &Arc<dyn Prober>,
        hints: &mut mpsc::Receiver<Hint>,
        stop: &mut watch::Receiver<bool>,
    ) {
        let mut flights = Flights::default();
        let mut next_tick = Instant::now();
        let mut next_count = next_tick + COUNT_EVERY;
        // A timer that is earlier than every other one on the runtime makes it write to its reactor. Each probe sets
        // one, so this one stays earlier than theirs.
        let mut first_timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut alarm = std::pin::pin!(tokio::time::sleep_until(next_tick));
        loop {
            #[cfg(test)]
            assert!(!self.fault.swap(false, Ordering::Relaxed), "injected fault");
            let now = Instant::now();
            self.beat.set(Some(now));
            if now >= next_tick {
                let (work, gap) = self.with_state(|state| {
                    let (work, effects) = state.on_tick(now);
                    ((work, state.tick_gap()), effects)
                });
                next_tick = now + gap;
                for job in work.start {
                    flights.start(prober, job);
                }
                // After the starts: a job may be cancelled before it began.
                flights.cancel(&work.cancel);
            }
            if now >= next_count {
                next_count = now + COUNT_EVERY;
                self.log_counted(now);
            }
            let deadline = self.state.lock().next_deadline();
            let wake = deadline.map_or(now + BEAT, |deadline| deadline.max(next_tick).min(now + BEAT));
            if alarm.deadline() != wake {
                alarm.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = &mut alarm => {}
                Some(hint) = hints.recv() => self.with_state(|state| ((), state.on_hint(hint, Instant::now()))),
                () = self.changed.notified() => next_tick = Instant::now(),
                () = &mut first_timer => {
                    let timeout = self.state.lock().shortest_timeout();
                    first_timer.as_mut().reset(Instant::now() + timeout);
                }
                // Last: probes may use up what this task may do in one poll.
                ended = flights.ended() => self.on_probes(ended, flights.take_late()),
            }
        }
    }

    /// Logs what the data path has counted, outside the lock.
    fn log_counted(&self, now: Instant) {
        let counting = self.state.lock().counting();
        counting.iter().for_each(|upstream| upstream.log_counted(now));
    }

    /// Processes all probes that have ended at once, so that many changes make one publication per pool. One of them began
    /// `late` after it was due.
    fn on_probes(&self, ended: Vec<Ended>, late: Duration) {
        let now = Instant::now();
        self.with_state(|state| {
            state.on_late_start(late, now);
            ((), state.on_probes(ended, now))
        });
    }

    /// Runs `act` on the state and carries its effects out. Publication happens under the lock, so that two writers
    /// cannot overtake each other; logging and closing connections happen after it.
    fn with_state<T>(&self, act: impl FnOnce(&mut State) -> (T, Effects)) -> T {
        let mut state = self.state.lock();
        state.amend(self.lines.take_amended().0);
        let (answer, effects) = act(&mut state);
        for (pool, view) in &effects.views {
            pool.view.store(view.clone());
            pool.shared.announce();
        }
        if let Some(snapshot) = &effects.snapshot {
            self.published.store(snapshot.clone());
        }
        for shared in &effects.announce {
            shared.announce();
        }
        let Effects { close_idle, events, mut files, .. } = effects;
        let mut questions = vec![];
        for event in events {
            match (files.remove(&event.seq), &self.check_files) {
                (Some(Suspects { files, guess }), Some(disk)) => {
                    questions.push((disk, files, self.lines.add_hinted(event, guess, Instant::now())));
                }
                (_, _) => self.lines.add(event),
            }
        }
        drop(state);
        for (disk, files, then) in questions {
            disk.compare(files, then);
        }
        for upstream in &close_idle {
            upstream.connections.close_idle();
        }
        self.lines.write(Instant::now());
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::*;
    use crate::model::{AdminState, Code, HealthState, Ratio, Weight};

    /// Passes, except that it panics for port 2 while `panics` is set, hangs for port 3, and never stops reading for port 4.
    #[derive(Default)]
    struct Scripted {
        panics: AtomicBool,
        made: Mutex<Vec<Address>>,
    }

    impl Prober for Scripted {
        fn probe(&self, job: ProbeJob) -> ProbeFuture {
            self.made.lock().push(job.check.target.clone());
            let panics = self.panics.load(Ordering::Relaxed) && job.check.target.port() == Some(2);
            let hangs = job.check.target.port() == Some(3);
            let floods = job.check.target.port() == Some(4);
            Box::pin(async move {
                assert!(!panics, "injected fault");
                if hangs {
                    std::future::pending::<()>().await;
                }
                if floods {
                    loop {
                        tokio::task::coop::consume_budget().await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                Arc::new(ProbeReport::new(Code::L4Ok, Duration::from_millis(1), "connected"))
            })
        }
    }

    fn config(ports: &[u16]) -> Config {
        let upstream = |port: &u16| UpstreamPolicy {
            address: format!("127.0.0.1:{port}").parse().unwrap(),
            name: None,
            weight: Weight::ONE,
            backup: false,
            health_address: None,
            admin: AdminState::Enabled,
        };
        let timing = Timing {
            interval: Duration::from_secs(1),
            unhealthy_interval: None,
            timeout: Duration::from_secs(1),
            healthy_threshold: 1,
            unhealthy_threshold: 1,
            fast_interval: Duration::from_millis(100),
            start_period: Duration::ZERO,
            jitter: Ratio::ZERO,
        };
        let spec = Arc::new(ProbeSpec::connect());
        let pool = PoolPolicy {
            name: Name::try_new("api").unwrap(),
            upstreams: ports.iter().map(upstream).collect(),
            balance: Balance::RoundRobin,
            when_no_healthy: WhenNoHealthy::Reject,
            min_healthy: MinHealthy::Count(1),
            checks: vec![CheckPolicy { name: "tcp".into(), spec, timing, preset: None, tls_files: Arc::default() }],
            require: Require::All,
            resolve: Duration::from_secs(30),
            traffic: Arc::default(),
        };
        Config {
            runtime: RuntimePolicy {
                threads: None,
                lane: Lane::Auto,
                drain_delay: Duration::ZERO,
                drain_timeout: Duration::ZERO,
            },
            listeners: vec![],
            routes: vec![],
            pools: vec![Arc::new(pool)],
            admin: AdminPolicy { address: "127.0.0.1:9900".parse().unwrap(), written: false, token: None },
            forwarded: Arc::default(),
            access_log: None,
        }
    }

    struct Running {
        controller: Arc<Controller>,
        prober: Arc<Scripted>,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Running {
        fn start(ports: &[u16]) -> Running {
            let controller = Arc::new(Controller::new(Instant::now(), 1));
            controller.configure(&config(ports), &[], "test", Instant::now());
            let prober = Arc::new(Scripted::default());
            let (stop, stopped) = watch::channel(false);
            let (runner, scripted) = (controller.clone(), prober.clone());
            let task = tokio::spawn(async move { runner.run(scripted, stopped).await });
            Running { controller, prober, stop, task }
        }

        fn states(&self) -> Vec<HealthState> {
            self.controller.status().pools[0].upstreams.iter().map(|u| u.state).collect()
        }

        fn published(&self) -> usize {
            let snapshot = self.controller.published().load();
            snapshot.pools().next().map_or(0, |pool| pool.view.load().primaries.candidates().len())
        }

        async fn stop(self) {
            self.stop.send(true).expect("it runs");
            self.task.await.expect("it ends in order");
        }
    }

    async fn pass(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn passing_upstreams_are_published() {
        let running = Running::start(&[1, 2]);
        assert_eq!(running.published(), 0);
        pass(50).await;
        assert_eq!(running.states(), [HealthState::Healthy; 2]);
        assert_eq!(running.published(), 2);
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_probe_makes_its_upstream_unknown_and_no_other() {
        let running = Running::start(&[1, 2]);
        pass(50).await;
        running.prober.panics.store(true, Ordering::Relaxed);
        pass(1_500).await;
        assert_eq!(running.states(), [HealthState::Healthy, HealthState::Unknown]);
        assert_eq!(running.published(), 1);
        assert!(running.controller.status().checker.probe_panics_total > 0);
        running.prober.panics.store(false, Ordering::Relaxed);
        pass(500).await;
        assert_eq!(running.published(), 2);
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_scheduler_is_restarted_within_a_second_and_verdicts_are_kept() {
        let running = Running::start(&[1, 2]);
        pass(50).await;
        running.controller.fault.store(true, Ordering::Relaxed);
        running.controller.changed.notify_one();
        pass(50).await;
        let status = running.controller.status();
        assert!(status.checker.stale, "status says that verdicts may be out of date");
        assert_eq!(running.published(), 2, "verdicts are kept");
        pass(900).await;
        let status = running.controller.status();
        assert_eq!((status.checker.stale, status.checker.restarts_total), (false, 1));
        let made = running.prober.made.lock().len();
        pass(1_000).await;
        assert!(running.prober.made.lock().len() > made, "probes go on");
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_probe_delays_no_other_and_is_not_started_twice() {
        let running = Running::start(&[1, 3]);
        pass(10_500).await;
        let made = running.prober.made.lock().clone();
        let count = |port| made.iter().filter(|address| address.port() == Some(port)).count();
        assert!(count(1) >= 10, "{}", count(1));
        assert_eq!(count(3), 1, "at most one probe of an upstream is in flight");
        running.stop().await;
    }

    /// In real time: a paused clock only advances while nothing runs.
    #[tokio::test]
    async fn a_peer_that_always_has_more_to_read_delays_no_other_probe() {
        let running = Running::start(&[1, 4]);
        let count = || running.prober.made.lock().iter().filter(|address| address.port() == Some(1)).count();
        for _ in 0..6_000 {
            if count() >= 3 {
                break;
            }
            pass(10).await;
        }
        assert!(count() >= 3, "the scheduler does not run any more");
        assert_eq!(running.states(), [HealthState::Healthy, HealthState::Unknown]);
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_too_busy_to_begin_a_probe_in_time_shows_as_lag() {
        let running = Running::start(&[1, 2]);
        pass(5_000).await;
        assert!(running.controller.status().checker.lag < Duration::from_millis(20));
        // Time passes while nothing of this runtime runs.
        tokio::time::advance(Duration::from_millis(700)).await;
        pass(50).await;
        let lag = running.controller.status().checker.lag;
        assert!(lag >= Duration::from_millis(300), "{lag:?}");
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_upstream_has_its_probe_cancelled() {
        let running = Running::start(&[1, 3]);
        pass(50).await;
        assert_eq!(running.controller.status().checker.probes_in_flight, 1);
        running.controller.configure(&config(&[1]), &[], "test", Instant::now());
        pass(1).await;
        assert_eq!(running.controller.status().checker.probes_in_flight, 0);
        running.stop().await;
    }
}
