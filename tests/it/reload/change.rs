//! What a reload changes: timing, checks, upstreams, and the secrets that checks send.

use std::time::Duration;

use roundsman::model::HealthState;
use tokio::time::Instant;

use super::{PATIENCE, apply, rare, upstream};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply, refusing_address};
use crate::program::{Program, fetch, http_check, pool};
use crate::support::assert_eventually;

#[tokio::test(flavor = "multi_thread")]
async fn new_thresholds_apply_to_the_open_streak_and_a_shorter_interval_counts_from_the_last_start() {
    let origin = Origin::plain("a").await;
    let check = |more: &str| format!("type = \"http\"\npath = \"/healthz\"\njitter = 0\nhealthy_threshold = 1\n{more}");
    let patient = check("interval = \"100ms\"\nunhealthy_threshold = 1000\n");
    let program = Program::start_ready(&pool("api", &[&origin.text()], &patient)).await;
    origin.set("/healthz", 503);
    let from = origin.count("/healthz");
    assert_eventually("four failures", PATIENCE, || origin.count("/healthz") >= from + 5).await;
    let before = upstream(&program, "api", &origin.text()).await;
    assert_eq!(before.state, HealthState::Healthy);

    apply(&program, &pool("api", &[&origin.text()], &check("interval = \"60s\"\nunhealthy_threshold = 3\n"))).await;
    let after = upstream(&program, "api", &origin.text()).await;
    assert_eq!((after.state, after.carried), (HealthState::Unhealthy, false), "the new thresholds apply at once");
    let streak = after.streak.unwrap();
    assert!(streak.count >= before.streak.unwrap().count && streak.needed == 3, "{streak:?}");
    assert_eq!(get(program.web, "/").await.status, 503);

    // The next probe was due within a minute; under the new interval it is due at once.
    let from = origin.count("/healthz");
    assert_eventually("one probe at the carried time", PATIENCE, || origin.count("/healthz") > from).await;
    let (from, began) = (origin.count("/healthz"), Instant::now());
    apply(&program, &pool("api", &[&origin.text()], &check("interval = \"200ms\"\nunhealthy_threshold = 3\n"))).await;
    assert_eventually("three probes", PATIENCE, || origin.count("/healthz") >= from + 3).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_timeout_applies_to_the_probe_in_flight() {
    let origin = Origin::new().on("/healthz").reply(Reply::hang()).start().await;
    let check = |timing: &str| format!("type = \"http\"\npath = \"/healthz\"\nunhealthy_threshold = 1\n{timing}");
    let patient = check("interval = \"1h\"\ntimeout = \"1h\"\n");
    let program = Program::start(&pool("api", &[&origin.text()], &patient)).await;
    assert_eventually("the first probe", PATIENCE, || origin.count("/healthz") == 1).await;
    let quick = check("interval = \"1s\"\ntimeout = \"300ms\"\n");
    apply(&program, &pool("api", &[&origin.text()], &quick)).await;
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    let last = upstream(&program, "api", &origin.text()).await.last_check.expect("a probe has ended");
    assert_eq!(last.code, "L7TOUT", "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_check_runs_at_once_while_the_old_verdict_is_kept() {
    let origin = Origin::new().on("/new").reply(Reply::status(503).delay(Duration::from_secs(2))).start().await;
    let program = Program::start_ready(&pool("api", &[&origin.text()], &rare("/old"))).await;
    let before = upstream(&program, "api", &origin.text()).await;
    apply(&program, &pool("api", &[&origin.text()], &rare("/new"))).await;
    let carried = upstream(&program, "api", &origin.text()).await;
    assert_eq!((carried.state, carried.carried, carried.eligible), (HealthState::Healthy, true, true));
    assert_eq!((carried.streak, &carried.since), (None, &before.since));
    assert_eq!(get(program.web, "/").await.status, 200);
    let end = Instant::now() + Duration::from_millis(1_500);
    while origin.count("/new") == 0 {
        assert!(Instant::now() < end, "it was not probed at once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    assert!(!upstream(&program, "api", &origin.text()).await.carried);
    assert_eq!(origin.count("/old"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_of_the_old_check_is_dropped() {
    let origin = Origin::plain("a").await;
    let check = |path: &str| {
        format!(
            "type = \"http\"\npath = \"{path}\"\ninterval = \"3s\"\ntimeout = \"3s\"\nfast_interval = \"100ms\"\n\
             healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n"
        )
    };
    let program = Program::start_ready(&pool("api", &[&origin.text()], &check("/old"))).await;
    let from = origin.count("/old");
    origin.set("/old", Reply::status(503).delay(Duration::from_millis(700)));
    assert_eventually("a probe is in flight", PATIENCE, || origin.count("/old") > from).await;
    let before = upstream(&program, "api", &origin.text()).await;
    origin.set("/new", Reply::status(200).delay(Duration::from_millis(1_500)));
    apply(&program, &pool("api", &[&origin.text()], &check("/new"))).await;
    let end = Instant::now() + PATIENCE;
    loop {
        let now = upstream(&program, "api", &origin.text()).await;
        assert_eq!(now.state, HealthState::Healthy, "the old check's 503 does not count");
        if !now.carried {
            assert_eq!(now.transitions_total, before.transitions_total);
            return;
        }
        assert!(Instant::now() < end, "the new check never ended: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

in_each_lane!(a_removed_upstream_gets_no_new_request_and_finishes_those_in_flight, flavor = "multi_thread");
async fn a_removed_upstream_gets_no_new_request_and_finishes_those_in_flight() {
    let a = Origin::new().on("/slow").reply(Reply::ok("whole").delay(Duration::from_secs(2))).start().await;
    let b = Origin::plain("b").await;
    let check = http_check();
    let program = Program::start_ready(&pool("api", &[&a.text()], &check)).await;
    let mut warm = Client::connect(program.web).await;
    assert_eq!(warm.get("/").await.text(), format!("hello from {}", a.text()));
    let web = program.web;
    let slow = tokio::spawn(async move { get(web, "/slow").await });
    assert_eventually("the slow request is in flight", PATIENCE, || a.count("/slow") == 1).await;
    apply(&program, &pool("api", &[&a.text(), &b.text()], &check)).await;
    program.wait_for_state("api", &b.text(), "healthy", PATIENCE).await;
    let path = format!("/api/v1/pools/api/upstreams/{}/drain", a.text());
    assert_eq!(fetch(program.admin, "POST", &path).await.0, 200);

    assert_eq!(apply(&program, &pool("api", &[&b.text()], &check)).await, Vec::<String>::new());
    let (requests, metrics) = (a.count("/"), program.metrics().await);
    assert!(program.upstream("api", &a.text()).await.is_none());
    assert!(!metrics.contains(&a.text()) && metrics.contains(&b.text()), "its series are gone:\n{metrics}");
    for _ in 0..50 {
        assert_eq!(warm.get("/").await.text(), "hello from b");
    }
    assert_eq!(slow.await.unwrap().text(), "whole");
    assert_eq!((a.count("/"), a.count("/slow")), (requests, 1));
    let probes = a.count("/healthz");
    assert_eventually("b is still probed", PATIENCE, || b.count("/healthz") > 20).await;
    assert!(a.count("/healthz") <= probes + 1, "a is not probed any more");

    // The order ended when the upstream was removed.
    apply(&program, &pool("api", &[&b.text(), &a.text()], &check)).await;
    let back = upstream(&program, "api", &a.text()).await;
    assert_eq!((back.admin.to_string().as_str(), back.requests_total), ("enabled", 0));
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
}

in_each_lane!(removed_upstreams_serve_until_a_new_one_is_healthy, flavor = "multi_thread");
async fn removed_upstreams_serve_until_a_new_one_is_healthy() {
    let (old, new) = (Origin::plain("old").await, Origin::plain("new").await);
    new.set("/healthz", 503);
    let check = http_check();
    let program = Program::start_ready(&pool("api", &[&old.text()], &check)).await;
    let load = Load::start(program.web, &Plan::post(4, 100));
    assert_eq!(apply(&program, &pool("api", &[&new.text()], &check)).await, ["api"]);
    program.wait_for_state("api", &new.text(), "unhealthy", PATIENCE).await;
    let warming = program.pool("api").await;
    let retiring = warming.upstreams.iter().find(|u| u.address == old.text()).expect("status lists it as retiring");
    assert!(warming.warming && retiring.retiring && retiring.eligible && retiring.state == HealthState::Healthy);
    assert_eq!(get(program.web, "/").await.text(), "hello from old");
    let probes = old.count("/healthz");
    assert_eventually("it is still probed", PATIENCE, || old.count("/healthz") > probes + 2).await;

    // Another reload during warming replaces the new set.
    let dead = refusing_address().to_string();
    assert_eq!(apply(&program, &pool("api", &[&dead, &new.text()], &check)).await, ["api"]);
    assert_eq!(get(program.web, "/").await.text(), "hello from old");
    assert_eq!(new.count("/"), 0, "no request before it has passed");

    new.set("/healthz", 200);
    program.wait_for_state("api", &new.text(), "healthy", PATIENCE).await;
    let after = program.pool("api").await;
    assert!(!after.warming && after.upstreams.iter().all(|u| u.address != old.text()), "{after:?}");
    assert_eq!(get(program.web, "/").await.text(), "hello from new");
    assert_eq!(failures(&load.stop().await), Vec::<String>::new());
}

in_each_lane!(requests_to_a_new_pool_wait_for_its_first_verdict, flavor = "multi_thread");
async fn requests_to_a_new_pool_wait_for_its_first_verdict() {
    let a = Origin::plain("a").await;
    let b = Origin::new()
        .named("b")
        .on("/healthz")
        .reply(Reply::status(200).delay(Duration::from_millis(700)))
        .start()
        .await;
    let program = Program::start_ready(&pool("api", &[&a.text()], &rare("/healthz"))).await;
    let route = "[[routes]]\npath = \"/b\"\npool = \"b\"\n";
    let pools = pool("api", &[&a.text()], &rare("/healthz")) + &pool("b", &[&b.text()], &rare("/healthz")) + route;
    apply(&program, &pools).await;
    assert_eq!(upstream(&program, "b", &b.text()).await.state, HealthState::Unknown);
    let answer = get(program.web, "/b").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello from b"), "it waited for the verdict");
    let (probe, request) = (b.requests("/healthz")[0].at, b.requests("/b")[0].at);
    assert!(request >= probe + Duration::from_millis(700), "it was sent {:?} after the probe", request - probe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_secrets_again() {
    let origin = Origin::plain("a").await;
    let program = Program::spawn(&pool("api", &[&origin.text()], &rare("/healthz")));
    let secret = program.dir().join("secret");
    std::fs::write(&secret, "first-secret\n").unwrap();
    let headers = format!("headers = {{ Authorization = {{ file = {secret:?}, prefix = \"Bearer \" }} }}\n");
    let pools = pool("api", &[&origin.text()], &(rare("/healthz") + &headers));
    program.wait_until_ready().await;
    apply(&program, &pools).await;
    let sent = |value: &str| {
        let requests = origin.requests("/healthz");
        requests.iter().any(|seen| seen.field("authorization") == Some(&format!("Bearer {value}")))
    };
    assert_eventually("the secret is sent", PATIENCE, || sent("first-secret")).await;
    std::fs::write(&secret, "second-secret\n").unwrap();
    apply(&program, &pools).await;
    assert_eventually("the new secret is sent", PATIENCE, || sent("second-secret")).await;
    std::fs::remove_file(&secret).unwrap();
    let (status, refused) = program.order_reload().await;
    assert_eq!(status, 422, "a secret that cannot be read refuses the whole file: {refused:?}");
    let log = program.log();
    assert!(!log.contains("first-secret") && !log.contains("second-secret"), "{log}");
}
