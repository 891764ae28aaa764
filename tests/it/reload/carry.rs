//! State that a reload carries over.

use std::time::Duration;

use roundsman::admin::json::Verdict;
use roundsman::model::{AdminState, HealthState};

use super::{PATIENCE, apply, rare, upstream};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, QUICK, fetch, http_check, pool};
use crate::support::assert_eventually;

in_each_lane!(the_same_upstream_keeps_state_streak_counters_load_and_orders, flavor = "multi_thread");
async fn the_same_upstream_keeps_state_streak_counters_load_and_orders() {
    let good = Origin::new().on("/slow").reply(Reply::ok("slow").delay(Duration::from_secs(3))).start().await;
    let sick = Origin::new().on("/healthz").reply(503).start().await;
    let drained = Origin::plain("drained").await;
    let pools = pool("api", &[&good.text(), &sick.text(), &drained.text()], &http_check());
    let program = Program::start_ready(&pools).await;
    program.wait_for_state("api", &sick.text(), "unhealthy", PATIENCE).await;
    program.wait_for_state("api", &drained.text(), "healthy", PATIENCE).await;
    let path = format!("/api/v1/pools/api/upstreams/{}/drain", drained.text());
    assert_eq!(fetch(program.admin, "POST", &path).await.0, 200);
    for _ in 0..5 {
        assert_eq!(get(program.web, "/").await.status, 200);
    }
    let web = program.web;
    let slow = tokio::spawn(async move { get(web, "/slow").await });
    assert_eventually("the slow request is in flight", PATIENCE, || good.count("/slow") == 1).await;

    let before = program.status().await;
    apply(&program, &format!("{pools}{}", pool("other", &[&good.text()], ""))).await;
    let after = program.status().await;
    assert_eq!(after.generation, before.generation + 1);
    let pairs = before.pools.get("api").unwrap().upstreams.iter().zip(&after.pools.get("api").unwrap().upstreams);
    for (before, after) in pairs {
        assert_eq!(before.address, after.address);
        assert_eq!((before.state, &before.since), (after.state, &after.since), "{}", before.address);
        assert_eq!(before.transitions_total, after.transitions_total);
        assert!(after.checks_total >= before.checks_total, "{before:?} {after:?}");
        assert_eq!(before.requests_total, after.requests_total);
        assert_eq!(before.in_flight, after.in_flight);
        assert_eq!(before.admin, after.admin);
        let (was, is) = (before.streak.unwrap(), after.streak.unwrap());
        assert!(was.result == is.result && is.count >= was.count, "{before:?} {after:?}");
        assert!(!after.carried && !after.retiring);
    }
    assert_eq!(upstream(&program, "api", &good.text()).await.requests_total, 6);
    assert_eq!(upstream(&program, "api", &good.text()).await.in_flight, 1);
    assert_eq!(upstream(&program, "api", &sick.text()).await.state, HealthState::Unhealthy);
    assert_eq!(upstream(&program, "api", &drained.text()).await.admin, AdminState::Draining);
    assert_eq!(slow.await.unwrap().text(), "slow");
    let end = tokio::time::Instant::now() + PATIENCE;
    while upstream(&program, "api", &good.text()).await.in_flight > 0 {
        assert!(tokio::time::Instant::now() < end, "the request stays in flight");
    }
    assert_eq!(drained.count("/"), 0, "a draining upstream gets no request after a reload either");
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_neither_advance_nor_delay_probes() {
    let origin = Origin::plain("a").await;
    let check = "type = \"http\"\npath = \"/healthz\"\ninterval = \"1s\"\nhealthy_threshold = 1\njitter = 0\n";
    let text = |n: usize| pool("api", &[&origin.text()], check) + &pool(&format!("extra{n}"), &["127.0.0.1:1"], "");
    let program = Program::start_ready(&text(0)).await;
    let (first, began) = (origin.count("/healthz"), tokio::time::Instant::now());
    let mut reloads = 0;
    while began.elapsed() < Duration::from_millis(4_500) {
        reloads += 1;
        apply(&program, &text(reloads)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (probes, seconds) = (origin.count("/healthz") - first, began.elapsed().as_secs());
    assert!(reloads > 10, "{reloads}");
    assert!((2..=seconds + 1).contains(&probes), "{probes} probes in {seconds} s over {reloads} reloads");
}

in_each_lane!(changes_of_weight_backup_and_balance_do_not_change_health, flavor = "multi_thread");
async fn changes_of_weight_backup_and_balance_do_not_change_health() {
    let (a, b, spare) = (Origin::plain("a").await, Origin::plain("b").await, Origin::plain("spare").await);
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text(), &spare.text()], &rare("/healthz"))).await;
    for origin in [&a, &b, &spare] {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    let before = program.pool("api").await;
    let (a_text, b_text, spare_text) = (a.text(), b.text(), spare.text());
    let pools = format!(
        "[pools.api]\nbalance = \"round_robin\"\nupstreams = [{{ address = \"{a_text}\", weight = 3 }}, \"{b_text}\", \
         {{ address = \"{spare_text}\", backup = true }}]\n[pools.api.health]\n{}",
        rare("/healthz")
    );
    apply(&program, &pools).await;
    let after = program.pool("api").await;
    for (before, after) in before.upstreams.iter().zip(&after.upstreams) {
        assert_eq!((&before.state, &before.since, before.streak), (&after.state, &after.since, after.streak));
        assert_eq!((before.checks_total, after.carried), (after.checks_total, false));
    }
    assert_eq!((after.upstreams[0].weight, after.upstreams[2].backup), (3, true));
    let mut client = Client::connect(program.web).await;
    for _ in 0..40 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((a.count("/"), b.count("/"), spare.count("/")), (30, 10, 0), "three to one, and no backup");
    apply(&program, &pools.replace("round_robin", "least_request")).await;
    assert_eq!(upstream(&program, "api", &a_text).await.since, before.upstreams[0].since);
    assert_eq!([&a, &b, &spare].map(|origin| origin.count("/healthz")), [1, 1, 1], "the reload caused no probe");
}

in_each_lane!(renamed_and_split_pools_keep_the_verdict, flavor = "multi_thread");
async fn renamed_and_split_pools_keep_the_verdict() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    b.set("/healthz", 503);
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text()], &rare("/healthz"))).await;
    program.wait_for_state("api", &b.text(), "unhealthy", PATIENCE).await;
    let before = upstream(&program, "api", &a.text()).await;
    let probes = || (a.count("/healthz"), b.count("/healthz"));
    let probed = probes();
    let whole = |pools: &str, to: &str| {
        crate::program::config(program.web, program.admin, pools).replace("pool = \"api\"", &format!("pool = \"{to}\""))
    };

    program.write_raw(&whole(&pool("renamed", &[&a.text(), &b.text()], &rare("/healthz")), "renamed"));
    assert_eq!(program.order_reload().await.0, 200);
    assert_eq!(get(program.web, "/").await.text(), "hello from a", "at once, without waiting for a probe");
    let after = upstream(&program, "renamed", &a.text()).await;
    assert_eq!((after.state, after.streak), (HealthState::Healthy, before.streak));
    let sick = upstream(&program, "renamed", &b.text()).await;
    assert_eq!((sick.state, sick.streak.unwrap().result), (HealthState::Unhealthy, Verdict::Fail));

    let split = pool("one", &[&a.text()], &rare("/healthz")) + &pool("two", &[&b.text(), &a.text()], &rare("/healthz"));
    program.write_raw(&whole(&split, "two"));
    assert_eq!(program.order_reload().await.0, 200);
    assert_eq!(get(program.web, "/").await.text(), "hello from a");
    for name in ["one", "two"] {
        assert_eq!(upstream(&program, name, &a.text()).await.state, HealthState::Healthy, "{name}");
    }
    assert_eq!(upstream(&program, "two", &b.text()).await.state, HealthState::Unhealthy);
    assert_eq!(probes(), probed, "the reload caused no probe");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_checks_share_one_probe_and_different_ones_are_independent() {
    let origin = Origin::new().on("/other").reply(503).start().await;
    let other = format!("type = \"http\"\npath = \"/other\"\n{QUICK}");
    let pools = pool("api", &[&origin.text()], &http_check())
        + &pool("twin", &[&origin.text()], &http_check())
        + &pool("stranger", &[&origin.text()], &other);
    let program = Program::start_ready(&pools).await;
    program.wait_for_state("stranger", &origin.text(), "unhealthy", PATIENCE).await;
    let reads = async || {
        let status = program.status().await;
        let of = |name: &str| status.pools.get(name).unwrap().upstreams[0].clone();
        (of("api"), of("twin"))
    };
    assert_eventually("some probes", PATIENCE, || origin.count("/healthz") >= 10).await;
    let sent_before = origin.count("/healthz");
    let (api, twin) = reads().await;
    let sent = origin.count("/healthz");
    assert_eq!(api.checks_total, twin.checks_total, "both pools show the same probes");
    assert!((sent_before - 1..=sent).contains(&api.checks_total), "{sent_before} to {sent} sent: {api:?}");
    assert_eq!((api.state, twin.state), (HealthState::Healthy, HealthState::Healthy));

    // A third pool with the same check gets the verdict at once, and the number of probes stays the same.
    apply(&program, &format!("{pools}{}", pool("third", &[&origin.text()], &http_check()))).await;
    assert_eq!(upstream(&program, "third", &origin.text()).await.state, HealthState::Healthy);
    let (from, began) = (origin.count("/healthz"), tokio::time::Instant::now());
    assert_eventually("ten more", PATIENCE, || origin.count("/healthz") >= from + 10).await;
    let (more, took) = (origin.count("/healthz") - from, began.elapsed());
    assert!(more as f64 <= took.as_secs_f64() / 0.1 + 2.0, "{more} probes in {took:?}, one in 100 ms is due");
}

#[tokio::test(flavor = "multi_thread")]
async fn unhealthy_interval_is_explained_and_a_reload_without_it_probes_at_once() {
    let origin = Origin::new().on("/healthz").reply(503).start().await;
    let rarely = format!("{}\nunhealthy_interval = \"1h\"", http_check());
    let program = Program::start(&pool("api", &[&origin.text()], &rarely)).await;
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    let path = format!("/api/v1/pools/api/upstreams/{}/explain", origin.text());
    let (_, explained) = fetch(program.admin, "GET", &path).await;
    let explained = String::from_utf8_lossy(&explained).into_owned();
    assert!(explained.contains("every 1 h while unhealthy"), "{explained}");
    assert!(explained.contains("its slot in the unhealthy_interval (1 h)"), "{explained}");
    let before = upstream(&program, "api", &origin.text()).await;
    origin.set("/healthz", Reply::ok("up"));
    apply(&program, &pool("api", &[&origin.text()], &http_check())).await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    let after = upstream(&program, "api", &origin.text()).await;
    assert_eq!(after.transitions_total, before.transitions_total + 1, "its state was carried until then");
}
