//! Faults of our own process: no descriptors left, and what load and faults leave once both are over.

use std::time::Duration;

use roundsman::admin::json::ReloadResult;
use roundsman::model::HealthState;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{NONE, PATIENCE, STEADY, answered};
use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply, refusing_address};
use crate::program::{Program, fetch, pool, try_fetch};
use crate::support::{assert_eventually, backlog};

in_each_lane!(more_clients_than_descriptors_change_no_verdict_and_use_little_processor_time, flavor = "multi_thread");
async fn more_clients_than_descriptors_change_no_verdict_and_use_little_processor_time() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await];
    let text = pool("api", &[&origins[0].text(), &origins[1].text()], STEADY);
    let program = Program::start_ready_with_descriptors(&text, 200).await;
    program.wait_for_state("api", &origins[1].text(), "healthy", PATIENCE).await;
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(TcpStream::connect(program.web).await.expect("the backlog takes it"));
    }
    // About 70 clients are accepted: a quarter of the descriptors is reserved, and each client may need a second one.
    let end = Instant::now() + PATIENCE;
    while program.metric("roundsman_connections_open").await < Some(60.0) {
        assert!(Instant::now() < end, "open connections: {:?}", program.metric("roundsman_connections_open").await);
    }
    let before = (Instant::now(), program.processor_time());
    let checks = checked(&program).await;
    // Three probes of each upstream: two failures would make a verdict.
    while checked(&program).await.iter().zip(&checks).any(|(now, then)| *now < then + 3) {
        assert!(Instant::now() < end, "probes have stopped: {checks:?}, then {:?}", checked(&program).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let used = program.processor_time() - before.1;
    assert!(used < before.0.elapsed() / 2, "{used:?} of processor time in {:?}", before.0.elapsed());
    assert!(backlog(program.web) > Some(0), "clients beyond the limit wait in the backlog: {:?}", backlog(program.web));
    assert!(program.descriptors() < 190, "some descriptors are left: {}", program.descriptors());
    for upstream in program.pool("api").await.upstreams {
        assert_eq!((upstream.state, upstream.transitions_total), (HealthState::Healthy, 1), "{upstream:?}");
    }
    drop(clients);
    served_again(&program).await;
}

/// How often each upstream of pool `api` has been checked.
async fn checked(program: &Program) -> Vec<u64> {
    program.pool("api").await.upstreams.iter().map(|upstream| upstream.checks_total).collect()
}

in_each_lane!(without_descriptors_verdicts_are_kept_and_little_processor_time_is_used, flavor = "multi_thread");
/// The limit is lowered under the running program, so that every new descriptor is refused: to listeners, probes,
/// requests and the admin API.
async fn without_descriptors_verdicts_are_kept_and_little_processor_time_is_used() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await];
    let text = pool("api", &[&origins[0].text(), &origins[1].text()], STEADY);
    let program = Program::start_ready(&text).await;
    program.wait_for_state("api", &origins[1].text(), "healthy", PATIENCE).await;
    let probed: Vec<u64> = origins.iter().map(|origin| origin.count("/healthz")).collect();
    program.limit_descriptors(3);
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(TcpStream::connect(program.web).await.expect("the backlog takes it"));
    }
    let before = (Instant::now(), program.processor_time());
    // The program cannot be queried now, so this is a fixed time: four probes of each upstream are due in it, and two
    // failures would make a verdict.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = program.processor_time() - before.1;
    assert!(used < before.0.elapsed() / 2, "{used:?} of processor time in {:?}", before.0.elapsed());
    // One probe of each upstream, and one accept, may have got a descriptor before the limit.
    let now: Vec<u64> = origins.iter().map(|origin| origin.count("/healthz")).collect();
    assert!(
        now.iter().zip(&probed).all(|(now, then)| *now <= then + 1),
        "no probe gets a descriptor: {probed:?}, then {now:?}"
    );
    assert!(backlog(program.web) >= Some(9), "no client is accepted: {:?} wait", backlog(program.web));
    program.limit_descriptors(1_024);
    drop(clients);
    served_again(&program).await;
    let tried = program.metric("roundsman_probes_total{pool=\"api\",code=\"NORES\"}").await;
    assert!(tried >= Some(4.0), "probes were tried all the time: {tried:?}");
    for upstream in program.pool("api").await.upstreams {
        assert_eq!((upstream.state, upstream.transitions_total), (HealthState::Healthy, 1), "{upstream:?}");
    }
    let warnings = program.log().matches("Cannot accept connections; retrying").count();
    assert!((1..=2).contains(&warnings), "one warning per episode: {warnings}\n{}", program.log());
    for origin in &origins {
        let probes = origin.count("/healthz");
        assert_eventually("probes continue", PATIENCE, || origin.count("/healthz") > probes).await;
    }
}

in_each_lane!(connections_to_upstreams_leave_descriptors_for_probes_and_admin, flavor = "multi_thread");
/// Idle connections to upstreams take descriptors too: connections are opened in pool after pool until none is left.
async fn connections_to_upstreams_leave_descriptors_for_probes_and_admin() {
    let mut origins = Vec::new();
    let mut text = String::new();
    // A check that is only late, on a busy machine, must not fail.
    let patient = STEADY.replace("\"500ms\"", "\"2s\"");
    for number in 0..4 {
        let origin = Origin::new().on("*").reply(Reply::status(200).delay(Duration::from_millis(700)));
        let origin = origin.on("/healthz").reply(200).start().await;
        let name = if number == 0 { "api".to_owned() } else { format!("p{number}") };
        text += &pool(&name, &[&origin.text()], &patient);
        text += &format!("[[routes]]\npath = \"/{number}\"\npool = \"{name}\"\n");
        origins.push((name, origin));
    }
    let program = Program::start_ready_with_descriptors(&text, 200).await;
    let mut failed = 0;
    for (number, (_, origin)) in origins.iter().enumerate() {
        let path = format!("/{number}");
        let requests = (0..70).map(|_| try_fetch(program.web, "GET", &path));
        let answers = futures_util::future::join_all(requests);
        let admin = async {
            // As many as must succeed below: each takes a descriptor for its client and one for its upstream.
            assert_eventually("requests are in flight", PATIENCE, || origin.count(&path) >= 70 - 28).await;
            (program.descriptors(), try_fetch(program.admin, "GET", "/livez").await)
        };
        let (answers, (descriptors, admin)) = tokio::join!(answers, admin);
        assert_eq!(admin.expect("admin answers").0, 200, "with {descriptors} descriptors open");
        for answer in answers {
            let status = answer.expect("a response, good or bad").0;
            assert!([200, 502, 503].contains(&status), "{status}");
            failed += u32::from(status != 200);
        }
    }
    for (name, origin) in &origins {
        let upstream = program.upstream(name, &origin.text()).await.expect("status lists it");
        assert_eq!((upstream.state, upstream.transitions_total), (HealthState::Healthy, 1), "{upstream:?}");
    }
    assert!(failed < 28, "an accepted client gets descriptors for its request: {failed} of 280 did not");
    served_again(&program).await;
}

async fn served_again(program: &Program) {
    let end = Instant::now() + PATIENCE;
    while !matches!(try_fetch(program.web, "GET", "/").await, Ok((200, _))) {
        assert!(Instant::now() < end, "it does not recover:\n{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    program.assert_no_panic();
}

in_each_lane!(after_load_and_faults_descriptors_threads_and_memory_return_to_their_baseline, flavor = "multi_thread");
async fn after_load_and_faults_descriptors_threads_and_memory_return_to_their_baseline() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let text = pool("api", &[&a.text(), &b.text()], STEADY);
    let program = Program::start_ready(&text).await;
    // Create what is made once and kept.
    assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
    program.order_reload().await;
    let baseline = (program.descriptors(), program.threads(), program.resident());
    let load = Load::start(program.web, &Plan::get(16, 300));
    for _ in 0..3 {
        answered(&load, 30).await;
        a.kill();
        program.wait_for_state("api", &a.text(), "unhealthy", PATIENCE).await;
        a.revive();
        program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
        program.order_reload().await;
    }
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), NONE, "of {}", outcomes.len());
    let end = Instant::now() + PATIENCE * 2;
    loop {
        let now = (program.descriptors(), program.threads(), program.resident());
        // A probe may be in flight, and this query has its own connection.
        let calm = now.0 <= baseline.0 + 5 && now.1 <= baseline.1 + 1 && now.2 <= baseline.2 + (40 << 20);
        if calm {
            break;
        }
        assert!(Instant::now() < end, "(descriptors, threads, memory) {baseline:?} before, {now:?} after");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    program.assert_no_panic();
}

in_each_lane!(hundreds_of_reloads_do_not_grow_memory_or_descriptors, flavor = "multi_thread");
/// Every reload removes upstreams and adds others under load.
async fn hundreds_of_reloads_do_not_grow_memory_or_descriptors() {
    let (a, b, c) = (Origin::plain("a").await, Origin::plain("b").await, Origin::plain("c").await);
    let dead: Vec<String> = (0..20).map(|_| refusing_address().to_string()).collect();
    let sets = [[&a, &b], [&a, &c]].map(|[one, other]| {
        let (one, other) = (one.text(), other.text());
        let mut addresses = vec![one.as_str(), other.as_str()];
        let half = if addresses[1] == b.text() { &dead[..10] } else { &dead[10..] };
        addresses.extend(half.iter().map(String::as_str));
        pool("api", &addresses, STEADY)
    });
    let program = Program::start_ready(&sets[0]).await;
    let load = Load::start(program.web, &Plan::get(8, 200));
    let mut figures = Vec::new();
    for number in 1..=300 {
        let (status, reply) = program.reload(&sets[number % 2]).await;
        assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{reply:?}");
        if number % 100 == 0 {
            figures.push((program.resident(), program.descriptors(), program.threads()));
        }
    }
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), NONE, "of {}", outcomes.len());
    let (first, last) = (figures[0], figures[2]);
    assert!(last.0 <= first.0 + (10 << 20), "memory after 100, 200 and 300 reloads: {figures:?}");
    assert!(last.1 <= first.1 + 40, "descriptors after 100, 200 and 300 reloads: {figures:?}");
    assert!(last.2 <= first.2 + 2, "threads after 100, 200 and 300 reloads: {figures:?}");
    program.assert_no_panic();
}
