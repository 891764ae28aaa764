//! Stop: TERM, INT and QUIT finish what is in flight; another one, more than a second later, does not.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{PATIENCE, WITHIN_A_SECOND, http_check};
use crate::client::{Client, get};
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

#[tokio::test(flavor = "multi_thread")]
async fn when_idle_it_ends_at_once() {
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_finishes_and_nothing_new_is_accepted() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let slow = Reply::ok("whole").delay(Duration::from_secs(2));
        let origin = Origin::new().on("/slow").reply(slow).start().await;
        let mut program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
        let mut idle = Client::connect(program.web).await;
        assert_eq!(idle.get("/").await.status, 200);
        let mut busy = Client::connect(program.web).await;
        let asked = tokio::spawn(async move { (busy.get("/slow").await, busy) });
        assert_eventually("it is under way", PATIENCE, || origin.count("/slow") == 1).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_is_cut_at_its_end() {
    let origin = Origin::new().on("/never").reply(Reply::hang()).start().await;
    let pools = pool("api", &[&origin.text()], &http_check()) + "[runtime]\ndrain_timeout = \"700ms\"\n";
    let mut program = Program::start_ready(&pools).await;
    let mut busy = Client::connect(program.web).await;
    let asked = tokio::spawn(async move { busy.send("GET", "/never", &[]).await });
    assert_eventually("it is under way", PATIENCE, || origin.count("/never") == 1).await;
    let began = Instant::now();
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait_for_exit(WITHIN_A_SECOND).await.code(), Some(0), "{}", program.log());
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(program.log().contains("end of drain_timeout"), "{}", program.log());
    assert!(asked.await.unwrap().is_err(), "its connection is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for second in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let origin = Origin::new().on("/never").reply(Reply::hang()).start().await;
        let mut program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
        let mut busy = Client::connect(program.web).await;
        let asked = tokio::spawn(async move { busy.send("GET", "/never", &[]).await });
        assert_eventually("it is under way", PATIENCE, || origin.count("/never") == 1).await;
        let first = Instant::now();
        program.signal(Signal::SIGTERM);
        assert_eventually("the first is taken", PATIENCE, || program.log().contains("\"Stopping\"")).await;
        assert!(program.is_alive(), "it waits for the request");
        // Neither a hangup nor a further one of the same stop is a reason to end.
        program.signal(Signal::SIGHUP);
        program.signal(second);
        program.signal(Signal::SIGUSR2);
        let end = Instant::now() + PATIENCE;
        while program.is_alive() && !program.log().contains("SIGUSR2 is ignored") {
            assert!(Instant::now() < end, "{}", program.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A machine that is busy may take the two for more than a second apart, but never before a second has passed.
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
async fn usr1_and_usr2_do_not_end_it() {
    let origin = Origin::plain("a").await;
    let mut program = Program::start_ready(&pool("api", &[&origin.text()], &http_check())).await;
    program.signal(Signal::SIGUSR1);
    program.signal(Signal::SIGUSR2);
    assert_eventually("a line says so", PATIENCE, || program.log().contains("SIGUSR2 is ignored")).await;
    assert!(program.is_alive());
    assert_eq!(get(program.web, "/").await.status, 200);
    program.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_delay_readiness_is_red_and_requests_are_taken() {
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
        assert!(Instant::now() < end, "it is not red");
    };
    assert!(red.text().contains("draining"), "{red:?}");
    assert_eq!(get(program.admin, "/livez").await.status, 200);
    assert_eq!(program.status().await.state.as_str(), "draining");
    assert_eq!(get(program.web, "/").await.status, 200, "new connections are taken");
    assert_eventually("requests after the signal", PATIENCE, || load.count() > 10).await;
    // What ends after the delay may have met a closed socket.
    let mut outcomes = load.stop().await;
    outcomes.retain(|outcome| outcome.at + outcome.took < began + Duration::from_secs(2));
    assert!(outcomes.iter().any(|outcome| outcome.at > began), "no request fell into the delay");
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    assert_eq!(program.wait_for_exit(PATIENCE).await.code(), Some(0), "{}", program.log());
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_served_replaced_when_stale_and_removed_at_the_end() {
    let home = tempfile::tempdir().unwrap();
    let (front, back) = (home.path().join("front.sock"), home.path().join("back.sock"));
    let origin = Origin::new().named("a").at_unix(&back).start().await;
    let pools = pool("api", &[&format!("unix:{}", back.display())], &http_check());
    for round in 0..5 {
        if round % 2 == 0 {
            // What a killed process leaves behind.
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
        assert!(!front.exists(), "round {round}: the socket file is left behind");
    }
    assert_eq!(origin.count("/"), 15);
}
