//! Faults of upstreams, on the real program under load: killed, stopped, frozen, all down and back; and what the
//! checker does with failures that the data path reports. Faults of our own process are in [`own`].
//!
//! An origin with a separate health port (`Twin`) answers on its traffic port whatever its check says, so that a
//! request sent in spite of the verdict is answered, counted, and found here.

mod own;
mod stage;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::time::Duration;

use nix::sys::signal::Signal;
use roundsman::model::HealthState;
use tokio::time::Instant;

use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply, Twin, refusing_address};
use crate::program::{Program, STEADY, fetch, pool, pool_of};
use crate::support::assert_eventually;

/// Ten times what a slow machine needs; nothing that goes well waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

const NONE: Vec<String> = Vec::new();

/// Waits until the load has `more` further responses.
async fn answered(load: &Load, more: usize) {
    let enough = load.count() + more;
    assert_eventually("the load continues", PATIENCE * 3, || load.count() >= enough).await;
}

/// `requests_total` of an upstream that gets no new requests: waits until those picked before the verdict have ended.
async fn settled_total(program: &Program, address: &str) -> u64 {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        let upstream = program.upstream("api", address).await.expect("status lists it");
        if upstream.in_flight == 0 && last == Some(upstream.requests_total) {
            return upstream.requests_total;
        }
        assert!(Instant::now() < end, "requests are still sent to {address}: {upstream:?}\n{}", program.log());
        last = Some(upstream.requests_total);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// How often each numbered request reached any of these.
fn arrivals(origins: &[&Origin]) -> HashMap<String, u64> {
    let mut all = HashMap::new();
    for (path, count) in origins.iter().flat_map(|origin| origin.counts()) {
        if path.starts_with("/n/") {
            *all.entry(path).or_insert(0) += count;
        }
    }
    all
}

in_each_lane!(a_killed_upstream_fails_no_get_and_gets_no_request_once_unhealthy, flavor = "multi_thread");
async fn a_killed_upstream_fails_no_get_and_gets_no_request_once_unhealthy() {
    let (a, b, c) = (Origin::plain("a").await, Origin::plain("b").await, Origin::plain("c").await);
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text(), &c.text()], STEADY)).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    let load = Load::start(program.web, &Plan::get(8, 200));
    assert_eventually("it serves", PATIENCE, || a.count("/") > 10).await;
    a.kill();
    program.wait_for_state("api", &a.text(), "unhealthy", PATIENCE).await;
    let total = settled_total(&program, &a.text()).await;
    answered(&load, 100).await;
    assert_eq!(program.upstream("api", &a.text()).await.expect("status lists it").requests_total, total);
    let before = a.count("/");
    let check = a.count("/healthz");
    a.set("/healthz", 503);
    a.revive();
    assert_eventually("it is probed again", PATIENCE, || a.count("/healthz") > check + 2).await;
    assert_eq!(a.count("/"), before, "it is running again, but has not passed");
    a.set("/healthz", 200);
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    assert_eventually("it serves again", PATIENCE, || a.count("/") > before).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), NONE, "of {}", outcomes.len());
    program.assert_no_panic();
}

in_each_lane!(a_killed_upstream_fails_only_posts_in_flight_and_none_is_sent_twice, flavor = "multi_thread");
async fn a_killed_upstream_fails_only_posts_in_flight_and_none_is_sent_twice() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await, Origin::plain("c").await];
    let [a, b, c] = &origins;
    // Slow, so that some requests are in flight when it is killed.
    a.set("*", Reply::status(200).delay(Duration::from_millis(20)));
    a.set("/healthz", 200);
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text(), &c.text()], STEADY)).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    let clients = 8;
    let load = Load::start(program.web, &Plan::numbered_post(clients, 200));
    assert_eventually("it serves", PATIENCE, || a.total() > 30).await;
    let (killing, killed) = {
        let begin = Instant::now();
        a.kill();
        (begin, Instant::now())
    };
    program.wait_for_state("api", &a.text(), "unhealthy", PATIENCE).await;
    answered(&load, 50).await;
    let outcomes = load.stop().await;
    let seen = arrivals(&[a, b, c]);
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    assert!(seen.len() >= 80, "{}", seen.len());
    // A request may already be on the connection that is reset; its client gets a 502, because sending it again could
    // execute it twice. Requests after the reset are refused or go to another upstream.
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.answer != Ok(200)).collect();
    assert!(failed.len() <= clients as usize, "at most one for each connection: {failed:?}");
    for outcome in failed {
        assert_eq!(outcome.answer, Ok(502), "{outcome:?}");
        assert!(outcome.at <= killed + Duration::from_millis(500), "begun long after the kill: {outcome:?}");
        assert!(outcome.at + outcome.took >= killing, "ended before the kill: {outcome:?}");
    }
    program.assert_no_panic();
}

in_each_lane!(a_stopped_process_fails_by_timeout_and_returns_after_its_passes, flavor = "multi_thread");
/// The frozen process is a second roundsman in front of an origin: a real server that can be stopped with a signal.
async fn a_stopped_process_fails_by_timeout_and_returns_after_its_passes() {
    let (backend_origin, other) = (Origin::plain("backend").await, Origin::plain("other").await);
    let backend = Program::start_ready(&pool("api", &[&backend_origin.text()], STEADY)).await;
    let frozen = backend.web.to_string();
    let program = Program::start_ready(&pool("api", &[&frozen, &other.text()], STEADY)).await;
    program.wait_for_state("api", &frozen, "healthy", PATIENCE).await;
    let load = Load::start(program.web, &Plan::get(8, 100));
    assert_eventually("it serves", PATIENCE, || backend_origin.count("/") > 10).await;
    backend.signal(Signal::SIGSTOP);
    program.wait_for_state("api", &frozen, "unhealthy", PATIENCE).await;
    let found = program.transitions("api", &frozen).await.pop().expect("a transition");
    assert_eq!(found.code.as_deref(), Some("L7TOUT"), "{found:?}");
    let total = program.upstream("api", &frozen).await.expect("status lists it").requests_total;
    for _ in 0..20 {
        assert_eq!(fetch(program.web, "GET", "/after").await.0, 200);
    }
    assert_eq!(other.count("/after"), 20);
    let now = program.upstream("api", &frozen).await.expect("status lists it");
    assert!(now.requests_total <= total + 8, "only those that were already sent: {now:?}");
    let passes = now.transitions_total;
    backend.signal(Signal::SIGCONT);
    program.wait_for_state("api", &frozen, "healthy", PATIENCE).await;
    assert_eq!(program.upstream("api", &frozen).await.expect("status lists it").transitions_total, passes + 1);
    let served = backend_origin.count("/");
    assert_eventually("it serves again", PATIENCE, || backend_origin.count("/") > served).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), NONE, "requests it held while stopped were answered after it continued");
    program.assert_no_panic();
}

in_each_lane!(with_all_upstreams_down_requests_get_503_at_once_without_a_connection_attempt, flavor = "multi_thread");
async fn with_all_upstreams_down_requests_get_503_at_once_without_a_connection_attempt() {
    let twins = [Twin::start("a").await, Twin::start("b").await];
    let program = Program::start_ready(&pool_of("api", &[twins[0].entry(), twins[1].entry()], STEADY)).await;
    let mut client = std::net::TcpStream::connect(program.web).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    assert_eq!(ask(&mut client).0, 200);
    for twin in &twins {
        twin.health.set("/healthz", 503);
    }
    for twin in &twins {
        program.wait_for_state("api", &twin.traffic.text(), "unhealthy", PATIENCE).await;
    }
    let counted = |origin: &Origin| (origin.accepted(), origin.total());
    let before: Vec<_> = twins.iter().map(|twin| counted(&twin.traffic)).collect();
    let mut times = Vec::new();
    for _ in 0..100 {
        let begin = Instant::now();
        let (status, head) = ask(&mut client);
        times.push(begin.elapsed());
        assert_eq!(status, 503, "{head}");
        let after = head.to_ascii_lowercase();
        let after = after.lines().find_map(|line| line.strip_prefix("retry-after: ").map(str::to_owned));
        let after: u64 = after.as_deref().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        assert!((1..=300).contains(&after), "{head}");
    }
    times.sort();
    assert!(times[50] < Duration::from_millis(500), "the median: {:?}", times[50]);
    let after: Vec<_> = twins.iter().map(|twin| counted(&twin.traffic)).collect();
    assert_eq!(after, before, "connections and requests on the traffic ports, which answer all the time");
    twins[1].health.set("/healthz", 200);
    program.wait_for_state("api", &twins[1].traffic.text(), "healthy", PATIENCE).await;
    let (status, head) = ask(&mut client);
    assert_eq!(status, 200, "on the connection that got all the 503s: {head}");
    assert!(head.contains("X-Origin: b") || head.contains("x-origin: b"), "{head}");
    program.assert_no_panic();
}

/// One GET on a connection that stays open: the status and the head.
fn ask(client: &mut std::net::TcpStream) -> (u16, String) {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the connection is open");
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        bytes.push(0);
        let last = bytes.len() - 1;
        client.read_exact(&mut bytes[last..]).expect("an answer");
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length = text.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    client.read_exact(&mut body).expect("a body");
    (text[9..12].parse().expect("a status"), text)
}

in_each_lane!(a_failed_request_brings_the_next_probe_forward_and_changes_no_verdict, flavor = "multi_thread");
async fn a_failed_request_brings_the_next_probe_forward_and_changes_no_verdict() {
    let slow = STEADY.replace("interval = \"500ms\"\ntimeout", "interval = \"300s\"\ntimeout");
    assert!(slow.contains("300s"), "{slow}");
    let (dying, good) = (Origin::plain("dying").await, Origin::plain("good").await);
    // Its check passes, and nothing listens on its traffic port.
    let (wrong, health) = (refusing_address().to_string(), Origin::plain("health").await);
    let wrong_entry = format!("{{ address = \"{wrong}\", health_address = \"{}\" }}", health.text());
    let quote = |origin: &Origin| format!("\"{}\"", origin.text());
    let program = Program::start_ready(&pool_of("api", &[quote(&dying), quote(&good), wrong_entry], &slow)).await;
    for address in [&dying.text(), &good.text(), &wrong] {
        program.wait_for_state("api", address, "healthy", PATIENCE).await;
    }
    dying.kill();
    let checks = program.upstream("api", &wrong).await.expect("status lists it").checks_total;
    let begin = Instant::now();
    // One retry each: with two of three refusing, some of these fail, and every one may hint.
    for _ in 0..12 {
        assert!([200, 502, 503].contains(&fetch(program.web, "GET", "/").await.0));
    }
    program.wait_for_state("api", &dying.text(), "unhealthy", PATIENCE).await;
    assert!(begin.elapsed() < Duration::from_secs(60), "the regular probe is due once in 300 s");
    let found = program.transitions("api", &dying.text()).await.pop().expect("a transition");
    assert_eq!((found.from, found.to), (HealthState::Healthy, HealthState::Unhealthy));
    assert_eq!(found.code.as_deref(), Some("L4CON"), "the result of a probe: {found:?}");
    let end = Instant::now() + PATIENCE;
    loop {
        let upstream = program.upstream("api", &wrong).await.expect("status lists it");
        assert_eq!(upstream.state, HealthState::Healthy, "its probes pass, although requests fail");
        assert_eq!(upstream.transitions_total, 1);
        if upstream.checks_total >= checks + 2 {
            assert!(upstream.connect_failures_total > 0, "{upstream:?}");
            break;
        }
        assert!(Instant::now() < end, "the hints caused no probe: {upstream:?}");
        let _ = fetch(program.web, "GET", "/").await;
    }
    program.assert_no_panic();
}

in_each_lane!(an_unhealthy_verdict_closes_idle_connections_and_lets_requests_in_flight_finish, flavor = "multi_thread");
async fn an_unhealthy_verdict_closes_idle_connections_and_lets_requests_in_flight_finish() {
    let (sick, well) = (Twin::start("sick").await, Twin::start("well").await);
    sick.traffic.set("/slow", Reply::status(200).delay(Duration::from_secs(3)));
    for twin in [&sick, &well] {
        twin.traffic.set("/warm", Reply::status(200).delay(Duration::from_millis(100)));
    }
    let routes = "[[routes]]\npath = \"/well\"\npool = \"well\"\n";
    let pools = [pool_of("api", &[sick.entry()], STEADY), pool_of("well", &[well.entry()], STEADY)].concat();
    well.traffic.set("/well", Reply::status(200).delay(Duration::from_millis(100)));
    let program = Program::start_ready(&format!("{routes}{pools}")).await;
    let warm = |path: &'static str| {
        let requests = (0..6).map(|_| fetch(program.web, "GET", path));
        async { assert!(futures_util::future::join_all(requests).await.iter().all(|answer| answer.0 == 200)) }
    };
    // On a machine that stalls for seconds both may time out; then the round proves nothing and is repeated.
    for _ in 0..5 {
        sick.health.set("/healthz", 200);
        program.wait_for_state("api", &sick.traffic.text(), "healthy", PATIENCE).await;
        let begun = sick.traffic.count("/slow");
        let web = program.web;
        let slow = tokio::spawn(async move { fetch(web, "GET", "/slow").await.0 });
        assert_eventually("the slow request is in flight", PATIENCE, || sick.traffic.count("/slow") > begun).await;
        // Those of `well` have been idle for longer than those of `sick`: an idle timeout would close them first.
        warm("/well").await;
        warm("/warm").await;
        assert!(sick.traffic.open_connections() > 1, "{}", sick.traffic.open_connections());
        sick.health.set("/healthz", 503);
        assert_eventually("idle ones are closed", PATIENCE, || sick.traffic.open_connections() <= 1).await;
        let conclusive = well.traffic.open_connections() > 0;
        assert_eq!(slow.await.expect("it ends"), 200, "in flight when the verdict changed");
        program.wait_for_state("api", &sick.traffic.text(), "unhealthy", PATIENCE).await;
        if conclusive {
            assert_eventually("the last connection is closed", PATIENCE, || sick.traffic.open_connections() == 0).await;
            return program.assert_no_panic();
        }
    }
    panic!("connections to the sick upstream did not close before those to the healthy one:\n{}", program.log());
}

in_each_lane!(flapping_verdicts_fail_no_request, flavor = "multi_thread");
/// A verdict closes idle connections, but never one that a request has just taken: that would fail a POST.
async fn flapping_verdicts_fail_no_request() {
    let twins = [Twin::start("a").await, Twin::start("b").await, Twin::start("c").await];
    let nervous = STEADY.replace("_threshold = 2", "_threshold = 1").replace("500ms", "200ms");
    let entries: Vec<String> = twins.iter().map(Twin::entry).collect();
    let program = Program::start_ready(&pool_of("api", &entries, &nervous)).await;
    let flapping = twins[0].traffic.text();
    program.wait_for_state("api", &flapping, "healthy", PATIENCE).await;
    let load = Load::start(program.web, &Plan::numbered_post(16, 500));
    for _ in 0..10 {
        twins[0].health.set("/healthz", 503);
        program.wait_for_state("api", &flapping, "unhealthy", PATIENCE).await;
        twins[0].health.set("/healthz", 200);
        program.wait_for_state("api", &flapping, "healthy", PATIENCE).await;
        let served = twins[0].traffic.total();
        assert_eventually("it serves", PATIENCE, || twins[0].traffic.total() > served + 5).await;
    }
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), NONE, "of {}", outcomes.len());
    let seen = arrivals(&[&twins[0].traffic, &twins[1].traffic, &twins[2].traffic]);
    assert_eq!(seen.values().filter(|count| **count > 1).count(), 0, "sent twice");
    assert_eq!(seen.len(), outcomes.len(), "each arrived");
    program.assert_no_panic();
}
