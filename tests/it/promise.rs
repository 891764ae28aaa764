//! The promise on the real program: no request is sent to an upstream that has not passed, and a reload fails no
//! request.

use std::time::Duration;

use roundsman::admin::json::ReloadResult;
use tokio::time::Instant;

use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply, refusing_address};
use crate::program::{Program, STEADY, pool};
use crate::support::assert_eventually;

/// Ten times what a slow machine needs; nothing that goes well waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

in_each_lane!(an_upstream_whose_check_fails_never_gets_a_request, flavor = "multi_thread");
async fn an_upstream_whose_check_fails_never_gets_a_request() {
    let good = Origin::plain("good").await;
    // Its check is slow, so that the first requests come while it is unknown.
    let slowly = Reply::status(503).delay(Duration::from_millis(400));
    let sick = Origin::new().on("/healthz").reply(slowly).start().await;
    let dead = refusing_address().to_string();
    let program = Program::start(&pool("api", &[&good.text(), &sick.text(), &dead], STEADY)).await;
    let load = Load::start(program.web, &Plan::post(8, 400));
    program.wait_for_state("api", &sick.text(), "unhealthy", PATIENCE).await;
    program.wait_for_state("api", &dead, "unhealthy", PATIENCE).await;
    assert_eventually("the load continues", PATIENCE, || load.count() > 200).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    assert_eq!(sick.count("/"), 0, "the unhealthy one would have answered on its traffic port");
    assert_eq!(program.upstream("api", &dead).await.expect("status lists it").requests_total, 0);
    program.assert_no_panic();
}

/// Two good upstreams of these weights and others, as TOML.
fn weighted(good: [&Origin; 2], weight: u32, others: &[&str]) -> String {
    let mut entries: Vec<String> =
        good.iter().map(|origin| format!("{{ address = \"{}\", weight = {weight} }}", origin.text())).collect();
    // Only the first weight: a common factor would change nothing.
    entries[1] = format!("\"{}\"", good[1].text());
    entries.extend(others.iter().map(|address| format!("\"{address}\"")));
    format!("[pools.api]\nupstreams = [{}]\n[pools.api.health]\n{STEADY}\n", entries.join(", "))
}

in_each_lane!(a_hundred_reloads_under_load_fail_no_request_and_send_none_to_a_dead_upstream, flavor = "multi_thread");
async fn a_hundred_reloads_under_load_fail_no_request_and_send_none_to_a_dead_upstream() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let dead = refusing_address().to_string();
    let program = Program::start_ready(&weighted([&a, &b], 1, &[&dead])).await;
    program.wait_for_state("api", &dead, "unhealthy", PATIENCE).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    program.wait_for_state("api", &b.text(), "healthy", PATIENCE).await;
    let load = Load::start(program.web, &Plan::numbered_post(8, 200));
    let mut results = Vec::new();
    for round in 0..100 {
        // The weight changes with every second reload.
        let (status, reply) = program.reload(&weighted([&a, &b], 1 + (round / 2) % 2, &[&dead])).await;
        assert_eq!(status, 200, "{reply:?}");
        results.push(reply.result);
        let upstream = program.upstream("api", &dead).await.expect("status lists it");
        assert_eq!((upstream.requests_total, upstream.connect_failures_total), (0, 0), "after {round} reloads");
    }
    let count = load.count() + 100;
    assert_eventually("the load continues", PATIENCE, || load.count() >= count).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new(), "of {}", outcomes.len());
    assert_eq!(results.iter().filter(|result| **result == ReloadResult::Applied).count(), 49, "{results:?}");
    assert_eq!(results.iter().filter(|result| **result == ReloadResult::Unchanged).count(), 51, "{results:?}");
    assert_eq!(program.upstream("api", &dead).await.expect("status lists it").requests_total, 0);
    for upstream in program.pool("api").await.upstreams {
        assert_eq!(upstream.transitions_total, 1, "a verdict was forgotten: {upstream:?}");
    }
    let (counts_a, counts_b) = (a.counts(), b.counts());
    let twice = counts_a.keys().filter(|path| path.starts_with("/n/") && counts_b.contains_key(*path)).count();
    assert_eq!(twice, 0);
    program.assert_no_panic();
}

fn assert_served_after_second_check(origin: &Origin, round: u32) {
    let first = origin.requests("/").iter().map(|seen| seen.at).min().expect("it has served a request");
    let checks: Vec<Instant> = origin.requests("/healthz").iter().map(|seen| seen.at).take(3).collect();
    assert!(checks.len() > 1 && checks[1] < first, "round {round}: served at {first:?}, checks: {checks:?}");
}

in_each_lane!(upstreams_added_by_a_reload_get_no_request_before_they_pass, flavor = "multi_thread");
async fn upstreams_added_by_a_reload_get_no_request_before_they_pass() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let program = Program::start_ready(&weighted([&a, &b], 1, &[])).await;
    let load = Load::start(program.web, &Plan::post(8, 200));
    let dead = refusing_address().to_string();
    let sick = Origin::new().on("/healthz").reply(503).start().await;
    let sick_text = sick.text();
    // Kept to the end: an origin that is dropped while it serves would fail its requests.
    let mut kept = Vec::new();
    for round in 0..10 {
        let fresh = Origin::plain("fresh").await;
        let (status, reply) = program.reload(&weighted([&a, &b], 1, &[&dead, &sick_text, &fresh.text()])).await;
        assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{reply:?}");
        assert_eventually("the new one serves", PATIENCE, || !fresh.requests("/").is_empty()).await;
        assert_served_after_second_check(&fresh, round);
        kept.push(fresh);
    }
    program.wait_for_state("api", &sick.text(), "unhealthy", PATIENCE).await;
    program.wait_for_state("api", &dead, "unhealthy", PATIENCE).await;
    let count = load.count() + 100;
    assert_eventually("the load continues", PATIENCE, || load.count() >= count).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new(), "of {}", outcomes.len());
    assert_eq!(sick.count("/"), 0, "its check fails, its traffic port answers");
    assert_eq!(program.upstream("api", &dead).await.expect("status lists it").requests_total, 0);
    program.assert_no_panic();
}

in_each_lane!(a_changed_check_keeps_the_old_verdict_until_it_has_its_own, flavor = "multi_thread");
async fn a_changed_check_keeps_the_old_verdict_until_it_has_its_own() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    b.set("/deep", Reply::hang());
    let before = weighted([&a, &b], 1, &[]);
    let program = Program::start_ready(&before).await;
    for origin in [&a, &b] {
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    }
    let load = Load::start(program.web, &Plan::post(8, 200));
    let (status, reply) = program.reload(&before.replace("/healthz", "/deep").replace("500ms", "2s")).await;
    assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{reply:?}");
    let now = program.upstream("api", &b.text()).await.expect("status lists it");
    assert!(now.state.as_str() == "healthy" && now.carried, "the new check cannot have a verdict yet: {now:?}");
    program.wait_for_state("api", &b.text(), "unhealthy", PATIENCE).await;
    let now = program.upstream("api", &a.text()).await.expect("status lists it");
    assert_eq!((now.state.as_str(), now.transitions_total), ("healthy", 1), "{now:?}");
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new(), "of {}", outcomes.len());
    program.assert_no_panic();
}

in_each_lane!(an_upstream_removed_and_added_back_fails_no_request_and_must_pass_again, flavor = "multi_thread");
async fn an_upstream_removed_and_added_back_fails_no_request_and_must_pass_again() {
    let (a, b, c) = (Origin::plain("a").await, Origin::plain("b").await, Origin::plain("c").await);
    let without = weighted([&a, &b], 1, &[]);
    let with = weighted([&a, &b], 1, &[&c.text()]);
    let program = Program::start_ready(&with).await;
    let load = Load::start(program.web, &Plan::post(8, 300));
    for round in 0..8 {
        assert_eventually("it serves", PATIENCE, || !c.requests("/").is_empty()).await;
        assert_served_after_second_check(&c, round);
        let (status, reply) = program.reload(&without).await;
        assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{reply:?}");
        assert!(program.upstream("api", &c.text()).await.is_none());
        // Requests picked before the reload was applied may still arrive: one for each client.
        let (before, answers) = (c.count("/"), load.count());
        assert_eventually("the load continues", PATIENCE, || load.count() > answers + 40).await;
        assert!(c.count("/") <= before + 8, "{} requests after it was removed", c.count("/") - before);
        let settled = c.total();
        assert_eventually("the load continues", PATIENCE, || load.count() > answers + 80).await;
        assert_eq!(c.total(), settled, "requests and checks long after it was removed");
        c.forget();
        let (status, reply) = program.reload(&with).await;
        assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{reply:?}");
    }
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new(), "of {}", outcomes.len());
    program.assert_no_panic();
}
