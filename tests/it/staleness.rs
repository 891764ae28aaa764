//! Verdicts that no probe confirms any more, on the real program: whatever prevents probes from passing or failing, no
//! request is sent on an expired verdict. A verdict is valid for at least 30 s.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use roundsman::admin::json::{HealthReply, PoolWord};
use roundsman::model::HealthState;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::lanes::each::in_each_lane;
use crate::load::{Load, Outcome, Plan, failures};
use crate::origin::{Origin, Reply};
use crate::program::{Program, fetch, pool};
use crate::support::{assert_eventually, skipped};

/// Ten times what a slow machine needs; nothing that goes well waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a verdict of [`CHECK`] is valid.
const HOLDS: Duration = Duration::from_secs(30);

/// A request may be in flight when the verdict expires.
const SLACK: Duration = Duration::from_secs(2);

const CHECK: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"1s\"\ntimeout = \"1s\"\nfast_interval = \"200ms\"\n\
                     healthy_threshold = 2\nunhealthy_threshold = 3\njitter = 0\n";

/// Arrivals of requests other than probes.
fn requests(origin: &Origin) -> Vec<Instant> {
    origin.requests("/").iter().map(|request| request.at).collect()
}

/// The outcomes of requests sent after `from`.
fn answers(outcomes: &[Outcome], from: Instant) -> Vec<&Outcome> {
    outcomes.iter().filter(|outcome| outcome.at > from).collect()
}

in_each_lane!(after_a_stop_requests_wait_for_new_verdicts_and_none_reaches_a_failing_upstream, flavor = "multi_thread");
async fn after_a_stop_requests_wait_for_new_verdicts_and_none_reaches_a_failing_upstream() {
    let slowly = |status| Reply::status(status).delay(Duration::from_millis(400));
    let origin = |name| Origin::new().named(name).on("/healthz").reply(slowly(200)).start();
    let (good, bad) = (origin("good").await, origin("bad").await);
    let program = Program::start_ready(&pool("api", &[&good.text(), &bad.text()], CHECK)).await;
    program.wait_for_state("api", &good.text(), "healthy", PATIENCE).await;
    program.wait_for_state("api", &bad.text(), "healthy", PATIENCE).await;
    let load = Load::start(program.web, &Plan::get(8, 100));
    // A probe is in flight: its response comes before the stop, and is read after it.
    let probes = bad.count("/healthz");
    assert_eventually("a probe is in flight", PATIENCE, || bad.count("/healthz") > probes).await;
    let stopped = Instant::now();
    program.signal(Signal::SIGSTOP);
    bad.set("/healthz", 503);
    tokio::time::sleep(HOLDS + Duration::from_millis(700)).await;
    program.signal(Signal::SIGCONT);
    let woken = Instant::now();
    program.wait_for_state("api", &good.text(), "healthy", PATIENCE).await;
    program.wait_for_state("api", &bad.text(), "unhealthy", PATIENCE).await;
    let count = load.count() + 50;
    assert_eventually("the load continues", PATIENCE, || load.count() >= count).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    // The stop may have come between the last check of a verdict and the write.
    let under_way = |outcome: &&Outcome| outcome.at < stopped && outcome.at + outcome.took > woken;
    let under_way = outcomes.iter().filter(under_way).count();
    let late = requests(&bad).into_iter().filter(|at| *at > woken).count();
    assert!(late <= under_way, "{late} to an upstream that has not passed since; {under_way} were in flight");
    assert!(requests(&good).iter().any(|at| *at > woken));
    program.assert_no_panic();
}

in_each_lane!(without_probes_nothing_is_sent_after_the_verdicts_expire, flavor = "multi_thread");
/// The checker gets no descriptor; requests have theirs.
async fn without_probes_nothing_is_sent_after_the_verdicts_expire() {
    let origin = Origin::plain("a").await;
    let program = Program::start_ready(&pool("api", &[&origin.text()], CHECK)).await;
    // One client: two at once would need a second upstream connection, for which there is no descriptor.
    let load = Load::start(program.web, &Plan::get(1, 20));
    assert_eventually("the connections are made", PATIENCE, || load.count() > 10).await;
    program.limit_descriptors(3);
    let limited = Instant::now();
    let probes = origin.count("/healthz");
    tokio::time::sleep(HOLDS + Duration::from_secs(6)).await;
    assert!(origin.count("/healthz") <= probes + 1, "no probe got a descriptor");
    let sent = requests(&origin);
    let last = sent.iter().max().expect("it got requests").saturating_duration_since(limited);
    assert!(last <= HOLDS + SLACK, "the last was sent {last:?} after the last verdict");
    assert!(last >= HOLDS - Duration::from_secs(5), "the verdicts were valid until then: {last:?}");
    program.limit_descriptors(1_024);
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    let served = origin.count("/") + 5;
    assert_eventually("it serves again", PATIENCE, || origin.count("/") >= served).await;
    let outcomes = load.stop().await;
    let refused: Vec<_> = outcomes.iter().filter(|outcome| outcome.answer == Ok(503)).collect();
    assert!(!refused.is_empty(), "after that requests get 503");
    let first = refused.iter().map(|outcome| outcome.at.saturating_duration_since(limited)).min().expect("some");
    assert!(first >= HOLDS - Duration::from_secs(5), "and not before: {first:?}");
    let first = refused.iter().map(|outcome| outcome.took).max().expect("some");
    assert!(first >= Duration::from_secs(2), "the first of them waited for a verdict: {first:?}");
}

in_each_lane!(a_stopped_checker_is_reported_and_its_verdicts_expire, flavor = "multi_thread");
async fn a_stopped_checker_is_reported_and_its_verdicts_expire() {
    let origin = Origin::plain("a").await;
    let program = Program::start_ready(&pool("api", &[&origin.text()], CHECK)).await;
    let load = Load::start(program.web, &Plan::get(4, 40));
    let Some(still) = StoppedThread::hold(program.thread("checker")).await else {
        return skipped("this machine does not let a test stop a thread (ptrace)");
    };
    let stopped = Instant::now();
    origin.set("/healthz", 503);
    let end = stopped + PATIENCE;
    while !program.status().await.checker.stale {
        assert!(Instant::now() < end, "status does not report the stopped checker");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let health = health(&program).await;
    assert_eq!(health.status, PoolWord::Degraded);
    assert!(health.reason.as_deref().is_some_and(|why| why.contains("checker is not running")), "{health:?}");
    assert!(program.command(&["explain", "api"]).await.1.contains("The checker is not running"));
    // Without queries of the status: readers of a view check the time themselves.
    tokio::time::sleep((stopped + HOLDS + SLACK * 3).saturating_duration_since(Instant::now())).await;
    let last = requests(&origin).into_iter().max().expect("it got requests").saturating_duration_since(stopped);
    assert!(last <= HOLDS + SLACK, "the last was sent {last:?} after the checker stopped");
    let upstream = program.upstream("api", &origin.text()).await.expect("status lists it");
    assert_eq!((upstream.state, upstream.eligible), (HealthState::Unknown, false));
    assert!(upstream.why.as_deref().is_some_and(|why| why.contains("stale")), "{upstream:?}");
    assert_eq!(self::health(&program).await.status, PoolWord::Unhealthy);
    let asked = Instant::now();
    // Requests have already waited for it: a query of the status begins no new wait.
    assert_eq!(fetch(program.web, "GET", "/").await.0, 503);
    assert!(asked.elapsed() < Duration::from_secs(2), "503 at once, and not after {:?}", asked.elapsed());
    still.go_on().await;
    origin.set("/healthz", 200);
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    let served = origin.count("/") + 5;
    assert_eventually("it serves again", PATIENCE, || origin.count("/") >= served).await;
    assert!(!program.status().await.checker.stale);
    let outcomes = load.stop().await;
    let later = answers(&outcomes, asked);
    assert!(later.iter().any(|outcome| outcome.answer == Ok(200)), "it serves again: {later:?}");
    assert!(later.iter().all(|outcome| matches!(outcome.answer, Ok(200 | 503))), "{later:?}");
    program.assert_no_panic();
}

async fn health(program: &Program) -> HealthReply {
    serde_json::from_slice(&fetch(program.admin, "GET", "/health").await.1).expect("an answer of /health")
}

/// A stopped thread of the program. Continues when dropped.
struct StoppedThread {
    release: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

impl StoppedThread {
    /// `None`: this machine does not allow it.
    async fn hold(thread: Pid) -> Option<StoppedThread> {
        let (release, wait) = oneshot::channel::<()>();
        let (done, released) = oneshot::channel();
        let (holding, held) = oneshot::channel();
        // All ptrace calls about one thread must come from one thread.
        std::thread::spawn(move || {
            let stop = || {
                ptrace::seize(thread, ptrace::Options::empty())?;
                ptrace::interrupt(thread)?;
                waitpid(thread, Some(WaitPidFlag::__WALL))
            };
            let stopped = stop();
            let _ = holding.send(stopped.map(|_| ()));
            if stopped.is_ok() {
                let _ = wait.blocking_recv();
                // The thread is gone if the program is.
                let _ = ptrace::detach(thread, None);
            }
            let _ = done.send(());
        });
        match held.await.expect("the thread reports") {
            Ok(()) => Some(StoppedThread { release, released }),
            Err(Errno::EPERM | Errno::ENOSYS) => None,
            Err(error) => panic!("stop a thread: {error}"),
        }
    }

    async fn go_on(self) {
        let _ = self.release.send(());
        self.released.await.expect("it continues");
    }
}
