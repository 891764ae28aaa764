//! The stop: TERM, INT and QUIT let requests in flight finish; a second signal, more than a second later, does not.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{PATIENCE, WITHIN_A_SECOND, http_check};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply};
use crate::program::{Program, config, pool};
use crate::support::assert_eventually;

async fn refuses(program: &Program) -> bool {
    tokio::net::TcpStream::connect(program.web).await.is_err()
}

async fn wait_until_refused(program: &Program) {
    let end = Instant::now() + PATIENCE;
    while !refuses(program).await {
        assert!(Instant::now() < end, "it still accepts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

in_each_lane!(an_idle_process_stops_at_once, flavor = "multi_thread");
async fn an_idle_process_stops_at_once() {
    let origin = Origin::plain("a").await;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
        let mut idle = Client::connect(program.web).await;
        assert_eq!(idle.get("/").await.status, 200);
        let silent = Client::connect(program.web).await;
        program.signal(signal);
        idle.wait_for_close(WITHIN_A_SECOND).await;
        silent.wait_for_close(WITHIN_A_SECOND).await;
        assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0), "{signal}\n{}", program.log());
        assert!(program.log().contains("\"Stopped\""), "{}", program.log());
        assert!(refuses(&program).await);
        program.assert_no_panic();
    }
}

in_each_lane!(a_stop_finishes_requests_in_flight_and_accepts_no_new_ones, flavor = "multi_thread");
async fn a_stop_finishes_requests_in_flight_and_accepts_no_new_ones() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let slow = Reply::ok("whole").delay(Duration::from_secs(2));
        let origin = Origin::new().on("/slow").reply(slow).start().await;
        let mut program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
        let mut idle = Client::connect(program.web).await;
        assert_eq!(idle.get("/").await.status, 200);
        let mut busy = Client::connect(program.web).await;
        let asked = tokio::spawn(async move { (busy.get("/slow").await, busy) });
        assert_eventually("the request is in flight", PATIENCE, || origin.count("/slow") == 1).await;
        program.signal(signal);
        idle.wait_for_close(PATIENCE).await;
        wait_until_refused(&program).await;
        let (answer, busy) = asked.await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "whole"), "{signal}");
        assert_eq!(answer.field("connection"), Some("close"), "{answer:?}");
        busy.wait_for_close(PATIENCE).await;
        assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0), "{}", program.log());
    }
}

in_each_lane!(drain_timeout_ends_requests_still_in_flight, flavor = "multi_thread");
async fn drain_timeout_ends_requests_still_in_flight() {
    let origin = Origin::new().on("/never").reply(Reply::hang()).start().await;
    let pools = pool("api", &[&origin.text()], &http_check()) + "[runtime]\ndrain_timeout = \"700ms\"\n";
    let mut program = Program::start_ready(&pools).await;
    let mut busy = Client::connect(program.web).await;
    let asked = tokio::spawn(async move { busy.send("GET", "/never", &[]).await });
    assert_eventually("the request is in flight", PATIENCE, || origin.count("/never") == 1).await;
    let began = Instant::now();
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0), "{}", program.log());
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(program.log().contains("end of drain_timeout"), "{}", program.log());
    assert!(asked.await.unwrap().is_err(), "its connection is closed");
}

in_each_lane!(a_second_signal_stops_the_process_at_once, flavor = "multi_thread");
async fn a_second_signal_stops_the_process_at_once() {
    for second in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let origin = Origin::new().on("/never").reply(Reply::hang()).start().await;
        let mut program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
        let mut busy = Client::connect(program.web).await;
        let asked = tokio::spawn(async move { busy.send("GET", "/never", &[]).await });
        assert_eventually("the request is in flight", PATIENCE, || origin.count("/never") == 1).await;
        let first = Instant::now();
        program.signal(Signal::SIGTERM);
        assert_eventually("the first signal is handled", PATIENCE, || program.log().contains("\"Stopping\"")).await;
        assert!(program.is_alive(), "it waits for the request");
        // Neither SIGHUP nor a second signal within a second ends it.
        program.signal(Signal::SIGHUP);
        program.signal(second);
        program.signal(Signal::SIGUSR2);
        let end = Instant::now() + PATIENCE;
        while program.is_alive() && !program.log().contains("SIGUSR2 is ignored") {
            assert!(Instant::now() < end, "{}", program.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // On a busy machine the two may appear more than a second apart, but never before a second has passed.
        if !program.is_alive() {
            assert!(first.elapsed() > Duration::from_secs(1), "{}", program.log());
            continue;
        }
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        program.signal(second);
        assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(130), "{}", program.log());
        assert!(asked.await.unwrap().is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usr1_and_usr2_do_not_stop_the_process() {
    let origin = Origin::plain("a").await;
    let mut program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
    program.signal(Signal::SIGUSR1);
    program.signal(Signal::SIGUSR2);
    assert_eventually("a line says so", PATIENCE, || program.log().contains("SIGUSR2 is ignored")).await;
    assert!(program.is_alive());
    assert_eq!(get(program.web, "/").await.status, 200);
    program.assert_no_panic();
}

in_each_lane!(during_drain_delay_readyz_fails_and_requests_are_served, flavor = "multi_thread");
async fn during_drain_delay_readyz_fails_and_requests_are_served() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &http_check()) + "[runtime]\ndrain_delay = \"2s\"\n";
    let mut program = Program::start_ready(&pools).await;
    let load = Load::start(program.web, &Plan::post(2, 50));
    let began = Instant::now();
    program.signal(Signal::SIGTERM);
    let end = Instant::now() + Duration::from_millis(1_500);
    let red = loop {
        let answer = get(program.admin, "/readyz").await;
        if answer.status == 503 {
            break answer;
        }
        assert!(Instant::now() < end, "readyz does not fail");
    };
    assert!(red.text().contains("draining"), "{red:?}");
    assert_eq!(get(program.admin, "/livez").await.status, 200);
    assert_eq!(program.status().await.state.as_str(), "draining");
    assert_eq!(get(program.web, "/").await.status, 200, "new connections are taken");
    assert_eventually("requests after the signal", PATIENCE, || load.count() > 10).await;
    // A request that ends after the delay may have met a closed socket.
    let mut outcomes = load.stop().await;
    outcomes.retain(|outcome| outcome.at + outcome.took < began + Duration::from_secs(2));
    assert!(outcomes.iter().any(|outcome| outcome.at > began), "no request was sent during the delay");
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    assert_eq!(program.wait_for_exit(PATIENCE).await.code(), Some(0), "{}", program.log());
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

in_each_lane!(a_unix_socket_is_served_replaced_when_stale_and_removed_at_the_end, flavor = "multi_thread");
async fn a_unix_socket_is_served_replaced_when_stale_and_removed_at_the_end() {
    let home = tempfile::tempdir().unwrap();
    let (front, back) = (home.path().join("front.sock"), home.path().join("back.sock"));
    let origin = Origin::new().named("a").at_unix(&back).start().await;
    let pools = pool("api", &[&format!("unix:{}", back.display())], &http_check());
    for round in 0..5 {
        if round % 2 == 0 {
            // A stale socket file, as a killed process leaves it.
            drop(std::os::unix::net::UnixListener::bind(&front).unwrap());
        }
        let mut program = Program::spawn_whole(|_, admin, _| {
            let listener = format!("unix:{}", front.display());
            config(admin, admin, &pools).replacen(&admin.to_string(), &listener, 1)
        });
        program.wait_until_ready().await;
        let mut client = Client::connect_unix(&front).await;
        for _ in 0..3 {
            let answer = client.get("/").await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello from a"));
        }
        program.signal(Signal::SIGTERM);
        client.wait_for_close(PATIENCE).await;
        assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0), "{}", program.log());
        assert!(!front.exists(), "round {round}: the socket file still exists");
    }
    assert_eq!(origin.count("/"), 15);
}
