//! The faults, each on a stage of its own, each judged by the same rules.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use roundsman::admin::json::ReloadResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backend::Backend;
use super::{PATIENCE, Seen, Stage};
use crate::lanes::each::{in_each_lane, once};
use crate::load::{Load, Plan};
use crate::program::{Program, fetch, try_fetch};
use crate::support::assert_eventually;

const NONE: [&str; 0] = [];
const SECOND: Duration = Duration::from_secs(1);

/// What a POST may see of an upstream that has died: one on each connection, at the time of the death.
fn only_posts_in_flight(seen: &Seen, deaths: &[(Instant, Instant)]) {
    for outcome in seen.failures() {
        assert_eq!(outcome.answer, Ok(502), "{outcome:?}");
        let ended = outcome.at + outcome.took;
        let around = |(begin, end): &(Instant, Instant)| *begin <= ended && outcome.at <= *end + SECOND;
        assert!(deaths.iter().any(around), "not at a death: {outcome:?}");
        assert!(outcome.method != "GET", "GETs are retried: {outcome:?}");
    }
}

/// Has these die, once in each round, and come back; the time of each death.
async fn deaths(
    stage: &mut Stage,
    victims: impl Fn(usize) -> Vec<usize>,
    die: fn(&mut Backend),
) -> Vec<(Instant, Instant)> {
    let mut deaths = Vec::new();
    for round in 0..stage.form.rounds {
        let victims = victims(round);
        let begin = Instant::now();
        victims.iter().for_each(|victim| die(&mut stage.backends[*victim]));
        deaths.push((begin, Instant::now()));
        for victim in &victims {
            let detected = stage.until(*victim, "unhealthy").await;
            stage.note(&format!("unhealthy after {detected:.2?}"));
        }
        stage.pass(SECOND / 2).await;
        for victim in victims {
            stage.backends[victim].revive();
            stage.until(victim, "healthy").await;
        }
        stage.pass(SECOND / 2).await;
    }
    deaths
}

in_each_lane!(killed, flavor = "multi_thread");
/// kill -9 of one of three, under GETs and POSTs.
async fn killed() {
    let Some(mut stage) = Stage::start("kill -9 of one of three", "").await else { return };
    stage.load().await;
    let deaths = deaths(&mut stage, |round| vec![round % 3], Backend::kill).await;
    only_posts_in_flight(&stage.judged().await, &deaths);
}

in_each_lane!(two_of_three_killed, flavor = "multi_thread");
/// Two of three at once: with two retries no GET is lost.
async fn two_of_three_killed() {
    let Some(mut stage) = Stage::start("kill -9 of two of three", "retry = { retries = 2 }").await else { return };
    stage.load().await;
    let deaths = deaths(&mut stage, |_| vec![0, 1], Backend::kill).await;
    only_posts_in_flight(&stage.judged().await, &deaths);
}

in_each_lane!(stopped_gracefully, flavor = "multi_thread");
/// A graceful stop of an upstream with warm connections.
async fn stopped_gracefully() {
    let Some(mut stage) = Stage::start("graceful stop behind warm connections", "").await else { return };
    stage.load().await;
    let deaths = deaths(&mut stage, |round| vec![round % 3], Backend::stop_gracefully).await;
    let seen = stage.judged().await;
    // A POST may have been written into a connection that the upstream was closing.
    only_posts_in_flight(&seen, &deaths);
    assert_eq!(seen.failed("/drip/"), NONE, "what is in flight finishes");
}

/// What lets GETs survive an upstream that does not answer.
const IMPATIENT: &str = "retry = { on = [\"connect\", \"reset\", \"timeout\"] }\ntimeouts.first_byte = \"1s\"";

in_each_lane!(frozen, flavor = "multi_thread");
/// SIGSTOP and SIGCONT. The general lane sends nothing again after a timeout, as documented.
async fn frozen() {
    silent(
        "SIGSTOP and SIGCONT",
        |stage, victim| stage.backends[victim].signal(Signal::SIGSTOP),
        |stage, victim| {
            stage.backends[victim].signal(Signal::SIGCONT);
        },
    )
    .await;
}

in_each_lane!(accepts_and_never_answers, flavor = "multi_thread");
/// An upstream that accepts connections, and reads and answers nothing.
async fn accepts_and_never_answers() {
    let (hang, go) = (|stage: &mut Stage, victim: usize| stage.backends[victim].order("hang"), "go");
    silent("accepts and never answers", hang, |stage, victim| stage.backends[victim].order(go)).await;
}

async fn silent(name: &'static str, fall: impl Fn(&mut Stage, usize), rise: impl Fn(&mut Stage, usize)) {
    let is_general = crate::lanes::each::current() == Some(roundsman::model::policy::Lane::General);
    let Some(mut stage) = Stage::start(name, IMPATIENT).await else { return };
    stage.load().await;
    let mut falls = Vec::new();
    for round in 0..stage.form.rounds {
        let victim = round % 3;
        let begin = Instant::now();
        fall(&mut stage, victim);
        let detected = stage.until(victim, "unhealthy").await;
        stage.note(&format!("unhealthy after {detected:.2?}"));
        falls.push((begin, Instant::now() + SECOND));
        stage.pass(SECOND / 2).await;
        rise(&mut stage, victim);
        stage.until(victim, "healthy").await;
    }
    let form = stage.form;
    let seen = stage.judged().await;
    for outcome in seen.failures() {
        assert!(matches!(outcome.answer, Ok(502 | 504)), "{outcome:?}");
        assert!(outcome.method != "GET" || is_general, "GETs are retried: {outcome:?}");
        let most = if form.full { 3 * SECOND } else { 30 * SECOND };
        assert!(outcome.took < most, "bounded by the timeouts: {outcome:?}");
        assert!(
            falls.iter().any(|(begin, end)| outcome.at <= *end && outcome.at + outcome.took >= *begin),
            "{outcome:?}"
        );
    }
}

in_each_lane!(all_down, flavor = "multi_thread");
/// All of them down by their checks, which answer requests all the time; and back.
async fn all_down() {
    let Some(mut stage) = Stage::start("all down and back", "").await else { return };
    stage.load().await;
    for _ in 0..stage.form.rounds {
        for backend in 0..3 {
            stage.backends[backend].order("health 503");
        }
        for backend in 0..3 {
            stage.until(backend, "unhealthy").await;
        }
        stage.pass(SECOND).await;
        for backend in 0..3 {
            stage.backends[backend].order("health 200");
        }
        for backend in 0..3 {
            stage.until(backend, "healthy").await;
        }
        stage.pass(SECOND / 2).await;
    }
    let seen = stage.judged().await;
    let refused = seen.outcomes.iter().filter(|outcome| outcome.answer == Ok(503)).count();
    assert!(refused > 100, "{refused} of {} got 503", seen.outcomes.len());
    let other = seen.outcomes.iter().find(|outcome| !matches!(outcome.answer, Ok(200 | 503)));
    assert!(other.is_none(), "{other:?}");
}

in_each_lane!(checks_pass_and_requests_fail, flavor = "multi_thread");
/// The checks of one pass and its requests are reset: at most one request in a hundred goes there after it is ejected.
async fn checks_pass_and_requests_fail() {
    let Some(mut stage) = Stage::start("checks pass, requests fail", "").await else { return };
    stage.load().await;
    let begin = stage.now();
    stage.backends[0].order("traffic reset");
    stage.flows(3_000 * stage.form.rounds).await;
    let end = stage.now();
    stage.backends[0].order("traffic good");
    let at = stage.address(0);
    let info = stage.program.upstream("api", &at).await.expect("it is there");
    assert!(info.ejections_total > 0 && info.state.as_str() == "healthy", "{info:?}");
    let seen = stage.judged().await;
    let during = |backend: usize| {
        seen.evidence.arrivals.iter().filter(|a| a.backend == backend && a.at > begin && a.at < end).count()
    };
    let (bad, good) = (during(0), during(1) + during(2));
    assert!(bad * 100 <= good + 500, "{bad} of {} reached the one that fails them", bad + good);
    for outcome in seen.failures() {
        assert!(outcome.answer == Ok(502) && outcome.method != "GET", "{outcome:?}");
    }
}

once!(flapping, flavor = "multi_thread");
/// The verdict on one changes again and again, and fails nothing.
async fn flapping() {
    let Some(mut stage) = Stage::start("flapping", "").await else { return };
    stage.load().await;
    for _ in 0..stage.form.rounds * 3 {
        stage.backends[0].order("health 503");
        stage.until(0, "unhealthy").await;
        stage.backends[0].order("health 200");
        stage.until(0, "healthy").await;
    }
    let seen = stage.judged().await;
    assert_eq!(seen.failed("/"), NONE);
}

/// How many reloads, ten a second.
fn reloads(stage: &Stage) -> u32 {
    if stage.form.full { 200 } else { 50 }
}

once!(reloaded_as_it_is, flavor = "multi_thread");
/// 200 reloads of the same file, ten a second (50 in the short form).
async fn reloaded_as_it_is() {
    let Some(mut stage) = Stage::start("reloads of the same file", "").await else { return };
    stage.load().await;
    let verdicts = stage.verdicts().await;
    let mut ticks = tokio::time::interval(SECOND / 10);
    for _ in 0..reloads(&stage) {
        ticks.tick().await;
        let (status, reply) = stage.program.order_reload().await;
        assert_eq!((status, reply.result), (200, ReloadResult::Unchanged), "{reply:?}");
    }
    assert_eq!(stage.verdicts().await, verdicts, "no verdict is forgotten");
    assert_eq!(stage.judged().await.failed("/"), NONE);
}

once!(reloaded_with_random_edits, flavor = "multi_thread");
/// The same with edits drawn from a seed: weights, balancing, times, intervals, and one upstream that comes and goes.
async fn reloaded_with_random_edits() {
    let seed = std::env::var("ROUNDSMAN_FAULTS_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seed: u64 = seed.unwrap_or(11);
    let Some(mut stage) = Stage::start("reloads with random edits", "").await else { return };
    let mut rng = fastrand::Rng::with_seed(seed);
    stage.load().await;
    let mut ticks = tokio::time::interval(SECOND / 10);
    for number in 0..reloads(&stage) {
        ticks.tick().await;
        // The third one comes and goes every two seconds, so that it sometimes passes in between.
        let members = if number / 20 % 2 == 0 { 3 } else { 2 };
        let text = edited(&stage, members, &mut rng);
        let (status, reply) = stage.program.reload(&text).await;
        assert_eq!(status, 200, "seed {seed}, edit {number}: {reply:?}\n{text}");
    }
    let whole = stage.file("");
    assert_eq!(stage.program.reload(&whole).await.0, 200);
    stage.until(2, "healthy").await;
    let seen = stage.judged().await;
    assert_eq!(seen.failed("/"), NONE, "seed {seed}: ROUNDSMAN_FAULTS_SEED={seed}");
}

fn edited(stage: &Stage, members: usize, rng: &mut fastrand::Rng) -> String {
    const BALANCES: [&str; 7] = ["round_robin", "least_request", "random", "peak_ewma", "maglev", "hash", "first"];
    let upstreams: Vec<String> = (0..members)
        .map(|index| format!("{{ address = \"{}\", weight = {} }}", stage.address(index), rng.u32(1..20)))
        .collect();
    let balance = BALANCES[rng.usize(0..BALANCES.len())];
    let (idle, slow) = (rng.u32(1..60), ["0s", "5s"][rng.usize(0..2)]);
    let check = stage
        .form
        .check()
        .replace("interval = \"500ms\"", ["interval = \"500ms\"", "interval = \"600ms\""][rng.usize(0..2)]);
    format!(
        "[access_log]\nto = \"./access.log\"\n[pools.api]\nupstreams = [{}]\nbalance = \"{balance}\"\nslow_start = \"{slow}\"\n\
         timeouts.idle = \"{idle}s\"\n[pools.api.health]\n{check}\n",
        upstreams.join(", ")
    )
}

once!(reloaded_to_bad_files, flavor = "multi_thread");
/// Every kind of bad file: refused as a whole, with its mistakes, and nothing changes.
async fn reloaded_to_bad_files() {
    let Some(mut stage) = Stage::start("reloads to bad files", "").await else { return };
    stage.load().await;
    let verdicts = stage.verdicts().await;
    let generation = stage.program.status().await.generation;
    let file = stage.program.file();
    let good = std::fs::read(&file).expect("the good one");
    let mut kinds = 0;
    let invalid = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/invalid")).expect("the files");
    for path in invalid
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
    {
        std::fs::copy(&path, &file).expect("put it in place");
        refused(&stage.program, &path.display().to_string()).await;
        kinds += 1;
    }
    assert!(kinds > 40, "{kinds} files");
    let odd: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("UTF-16", good.iter().flat_map(|byte| [*byte, 0]).collect()),
        ("NUL bytes", [&good[..], &[0; 64]].concat()),
        ("large", [&good[..], &b"# a comment\n".repeat(8 << 20)].concat()),
        ("deep", [b"x = ".as_slice(), &b"[".repeat(100_000)].concat()),
    ];
    for (name, bytes) in odd {
        std::fs::write(&file, bytes).expect("put it in place");
        refused(&stage.program, name).await;
    }
    std::fs::remove_file(&file).expect("remove it");
    refused(&stage.program, "not there").await;
    std::fs::create_dir(&file).expect("a directory");
    refused(&stage.program, "a directory").await;
    std::fs::remove_dir(&file).expect("remove it");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    refused(&stage.program, "a FIFO").await;
    std::fs::remove_file(&file).expect("remove it");
    std::os::unix::fs::symlink("/dev/zero", &file).expect("a link");
    refused(&stage.program, "/dev/zero").await;
    std::fs::remove_file(&file).expect("remove it");
    std::fs::write(&file, good).expect("put it back");
    assert_eq!(stage.program.status().await.generation, generation, "nothing has changed");
    assert_eq!(stage.verdicts().await, verdicts);
    let (status, reply) = stage.program.order_reload().await;
    assert_eq!((status, reply.result), (200, ReloadResult::Unchanged), "{reply:?}");
    assert_eq!(stage.judged().await.failed("/"), NONE);
}

async fn refused(program: &Program, what: &str) {
    let (status, reply) = program.order_reload().await;
    assert_eq!((status, reply.result), (422, ReloadResult::Refused), "{what}: {reply:?}");
    assert!(reply.error.as_deref().is_some_and(|error| error.contains("roundsman.toml")), "{what}: {reply:?}");
}

once!(storms_of_hups, flavor = "multi_thread");
/// Hundreds of SIGHUPs at once, with edits between them: the last content runs, and nothing fails.
async fn storms_of_hups() {
    let Some(mut stage) = Stage::start("storms of SIGHUP", "").await else { return };
    stage.load().await;
    for round in 0..stage.form.rounds * 3 {
        let idle = format!("timeouts.idle = \"{}s\"", 10 + round);
        for number in 0..200 {
            if number % 50 == 0 {
                stage.program.write(&stage.file(&idle));
            }
            stage.program.signal(Signal::SIGHUP);
        }
        stage.pass(SECOND / 2).await;
    }
    let last = format!("timeouts.idle = \"{}s\"", 10 + stage.form.rounds * 3 - 1);
    assert!(std::fs::read_to_string(stage.program.file()).expect("the file").contains(&last));
    let end = Instant::now() + PATIENCE;
    while stage.program.order_reload().await.1.result != ReloadResult::Unchanged {
        assert!(Instant::now() < end, "the last content does not run:\n{}", stage.program.log());
    }
    assert_eq!(stage.judged().await.failed("/"), NONE);
}

once!(hup_at_start, flavor = "multi_thread");
/// SIGHUP from the first moment of the process on: it starts, and serves.
async fn hup_at_start() {
    let Some(stage) = Stage::start("SIGHUP at start", "").await else { return };
    for round in 0..stage.form.rounds * 5 {
        let mut program = Program::spawn(&stage.file(""));
        let begin = Instant::now();
        // Before the process has a handler a signal would end it: it is sent once the log shows that it has begun.
        assert_eventually("it logs", PATIENCE, || !program.log().is_empty()).await;
        while try_fetch(program.admin, "GET", "/readyz").await.map_or(0, |answer| answer.0) != 200 {
            assert!(program.is_alive(), "round {round}: {}", program.log());
            assert!(begin.elapsed() < PATIENCE, "round {round}: {}", program.log());
            program.signal(Signal::SIGHUP);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(fetch(program.web, "GET", "/warm/0").await.0, 200);
        program.assert_no_panic();
    }
    stage.judged().await;
}

once!(stopped_with_slow_requests, flavor = "multi_thread");
/// SIGTERM with 20 slow requests in flight, and SIGHUP while it stops: every one is answered, and the process ends.
async fn stopped_with_slow_requests() {
    let Some(mut stage) = Stage::start("SIGTERM with 20 slow requests", "").await else { return };
    let slow =
        Load::start(stage.program.web, &Plan { path: "/slow/{n}", answer: Some(super::right), ..Plan::get(20, 40) });
    let flying = || {
        stage
            .backends
            .iter()
            .map(|backend| backend.arrived().iter().filter(|a| a.path.starts_with("/slow/")).count())
            .sum::<usize>()
    };
    assert_eventually("they are in flight", PATIENCE, || flying() >= 20).await;
    let begin = Instant::now();
    stage.program.signal(Signal::SIGTERM);
    for _ in 0..5 {
        stage.program.signal(Signal::SIGHUP);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.keep(slow);
    stage.stop_load().await;
    let status = stage.program.wait_for_exit(PATIENCE).await;
    assert!(status.success(), "{status}: {}", stage.program.log());
    stage.note(&format!("ended after {:.2?}, each request takes 2 s", begin.elapsed()));
    let seen = stage.judged_after_its_end().await;
    let answered = seen.outcomes.iter().filter(|outcome| outcome.answer == Ok(200)).count();
    assert!(answered >= 20, "{answered} were answered: {:?}", seen.failed("/slow/"));
    let refused =
        |text: &str| text.starts_with("connect: ") || text.contains("Canceled") || text.contains("ChannelClosed");
    let lost = seen.outcomes.iter().find(|outcome| outcome.answer.as_ref().is_err_and(|text| !refused(text)));
    assert!(lost.is_none(), "{lost:?}");
}

once!(few_descriptors, flavor = "multi_thread");
/// 128 descriptors and 300 clients: no verdict changes, and the admin answers.
async fn few_descriptors() {
    let Some(mut stage) = Stage::start_with_descriptors("128 descriptors, 300 clients", 128).await else { return };
    let verdicts = stage.verdicts().await;
    let load = Load::start(stage.program.web, &Plan { answer: Some(super::right), ..Plan::numbered_get(300, 600) });
    stage.keep(load);
    stage.flows(200).await;
    stage.pass(2 * SECOND).await;
    assert_eq!(stage.verdicts().await, verdicts, "our own lack of descriptors marks nothing down");
    let seen = stage.judged().await;
    let other = seen.outcomes.iter().find(|outcome| !matches!(outcome.answer, Ok(200 | 502 | 503)));
    assert!(other.is_none(), "{other:?}");
}

once!(slow_clients, flavor = "multi_thread");
/// Senders of slow heads, of bodies that stop, and readers that stop: each is closed in time, and good clients see nothing of it.
/// 500 of each (100 in the short form).
async fn slow_clients() {
    let full = super::Form::of_this_run().full;
    let (each, time) = if full { (500, 4 * SECOND) } else { (100, SECOND) };
    // Large responses come from a process of their own: those that answer the others have to answer their checks as well.
    let dir = tempfile::tempdir().expect("a directory");
    let large = Backend::start(dir.path(), "large");
    let tables = format!(
        "[listeners.web.timeouts]\nheader = \"{0}s\"\nbody_idle = \"{0}s\"\n[[routes]]\npath = \"/big\"\npool = \"large\"\n\
         [pools.large]\nupstreams = [\"{1}\"]\n",
        time.as_secs(),
        large.address
    );
    let Some(mut stage) = Stage::start_with("slow clients", "", &tables).await else { return };
    stage.program.wait_for_state("large", &large.address.to_string(), "healthy", PATIENCE).await;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it is our own");
    stage.load().await;
    let web = stage.program.web;
    let (mut heads, mut bodies, mut readers) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let reading = Arc::new(AtomicUsize::new(0));
    for _ in 0..each {
        // What the kernel takes meanwhile is taken: the time begins when it takes no more.
        readers.spawn(slow_reader(web, 3 * time + SECOND / 2 * stage.lenience(), reading.clone()));
    }
    // Filling the kernel's buffers, with gigabytes, is work for this machine and not what is measured.
    assert_eventually("they read", PATIENCE, || reading.load(Ordering::Relaxed) == each).await;
    let (end, window) = (Instant::now() + PATIENCE, Duration::from_millis(300));
    loop {
        let used = stage.program.processor_time();
        stage.pass(window).await;
        if stage.program.processor_time() - used < window / 3 {
            break;
        }
        assert!(Instant::now() < end, "the buffers are never full");
    }
    let begin = Instant::now();
    for _ in 0..each {
        heads.spawn(slow_head(web));
        bodies.spawn(slow_body(web));
        // Not all in one moment: a thousand a second.
        stage.pass(Duration::from_millis(2)).await;
    }
    // Closed within half a second, at which it is looked at.
    let latest = time + SECOND / 2 * stage.lenience();
    let mut longest = [Duration::ZERO; 2];
    for (longest, clients) in longest.iter_mut().zip([&mut heads, &mut bodies]) {
        while let Some(ended) = clients.join_next().await {
            let (took, answer) = ended.expect("no panic");
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?} after {took:?}");
            *longest = (*longest).max(took);
        }
    }
    // Readers read on later, gigabytes of what the kernel has kept.
    let closed = Instant::now();
    while let Some(ended) = readers.join_next().await {
        let (read, whole) = ended.expect("no panic");
        assert!(read < whole, "a reader that has stopped got all of {whole} bytes");
    }
    assert!(
        longest.iter().all(|took| *took <= latest),
        "heads and bodies: closed after {longest:?}; the time is {time:?}"
    );
    stage.note(&format!(
        "{each} of each, closed after at most {:.2?} and {:.2?}; the time is {time:?}",
        longest[0], longest[1]
    ));
    let seen = stage.judged().await;
    assert_eq!(seen.failed("/"), NONE);
    let good =
        seen.outcomes.iter().filter(|outcome| outcome.path.starts_with("/n/") && (begin..closed).contains(&outcome.at));
    let p99 = super::longest(good.map(|outcome| outcome.took).collect(), 0.99);
    println!("slow clients: p99 of good clients beside them {p99:.1?}");
    // A worker that waited for a slow client would keep the others for as long as that may take.
    let most = if full { Duration::from_millis(5) } else { time / 2 };
    assert!(p99 < most, "p99 of good clients: {p99:?}");
}

/// Sends a head byte by byte; how long that lasts after its first byte, and the answer.
async fn slow_head(web: SocketAddr) -> (Duration, String) {
    let mut stream = TcpStream::connect(web).await.expect("it listens");
    stream.write_all(b"GET /slow-head HTTP/1.1\r\nHost: a\r\nX-A: ").await.expect("sent");
    let begin = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let dripping = async {
        while writer.write_all(b"a").await.is_ok() {
            tokio::time::sleep(SECOND / 5).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = reader.read_to_end(&mut answer) => {}
        () = dripping => {}
    }
    (begin.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a part of a body, and stops; how long it takes from then on, and the answer.
async fn slow_body(web: SocketAddr) -> (Duration, String) {
    let mut stream = TcpStream::connect(web).await.expect("it listens");
    stream.write_all(b"POST /slow-body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc").await.expect("sent");
    let begin = Instant::now();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    (begin.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

/// Reads a little of a large response, stops for this long, and reads on; how much it got, and how much there is.
async fn slow_reader(web: SocketAddr, stops: Duration, reading: Arc<AtomicUsize>) -> (usize, usize) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    let mut stream = socket.connect(web).await.expect("it listens");
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut first = [0; 1_024];
    let read = stream.read(&mut first).await.expect("an answer");
    assert!(first.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&first[..read]));
    reading.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(stops).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    (read + rest.len(), 16 << 20)
}
