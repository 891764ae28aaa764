//! Which upstreams serve when not all are healthy: `when_no_healthy` in its three forms, `min_healthy`, backups.

use std::time::Duration;

use roundsman::admin::json::{EventWhat, PoolWord};
use tokio::time::Instant;

use super::{PATIENCE, http_check};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::origin::Origin;
use crate::program::{Program, free_address, pool};
use crate::support::assert_eventually;

/// `pool` with these keys beside `upstreams`.
fn pool_with(name: &str, upstreams: &[&str], keys: &str) -> String {
    pool(name, upstreams, &http_check()).replacen("\n[pools", &format!("\n{keys}\n[pools"), 1)
}

async fn fail(program: &Program, name: &str, origin: &Origin) {
    origin.set("/healthz", 503);
    program.wait_for_state(name, &origin.text(), "unhealthy", PATIENCE).await;
}

/// Waits until this is what the requests of the pool get, as the metrics have it.
async fn service_state(program: &Program, name: &str, state: &str) {
    let series = |state: &str| format!("roundsman_pool_service_state{{pool=\"{name}\",state=\"{state}\"}}");
    let end = Instant::now() + PATIENCE;
    // A scrape may be as old as 100 ms.
    while program.metric(&series(state)).await != Some(1.0) {
        assert!(Instant::now() < end, "{state}: {}", program.metrics().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn recover(program: &Program, name: &str, origin: &Origin) {
    origin.set("/healthz", 200);
    program.wait_for_state(name, &origin.text(), "healthy", PATIENCE).await;
}

in_each_lane!(with_all_upstreams_unhealthy_requests_get_503_at_once_until_one_recovers, flavor = "multi_thread");
async fn with_all_upstreams_unhealthy_requests_get_503_at_once_until_one_recovers() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text()], &http_check())).await;
    fail(&program, "api", &a).await;
    fail(&program, "api", &b).await;
    let mut client = Client::connect(program.web).await;
    let mut quickest = Duration::MAX;
    for _ in 0..20 {
        let began = Instant::now();
        let answer = client.get("/").await;
        quickest = quickest.min(began.elapsed());
        assert_eq!(answer.status, 503);
        let retry: u64 = answer.field("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=300).contains(&retry), "{retry}");
        assert_ne!(answer.field("connection"), Some("close"), "the connection is kept");
        assert!(!answer.text().contains("127."), "the response names no address: {answer:?}");
    }
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
    assert_eq!((a.count("/"), b.count("/")), (0, 0));
    service_state(&program, "api", "refusing").await;
    assert_eq!(program.metric("roundsman_answers_total{pool=\"api\",reason=\"none_eligible\"}").await, Some(20.0));
    recover(&program, "api", &b).await;
    assert_eq!(client.get("/").await.text(), "hello from b", "on the same connection");
    service_state(&program, "api", "normal").await;
}

in_each_lane!(fail_open_uses_all_enabled_upstreams_and_is_logged_once, flavor = "multi_thread");
async fn fail_open_uses_all_enabled_upstreams_and_is_logged_once() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let pools = pool_with("api", &[&a.text(), &b.text()], "when_no_healthy = \"fail_open\"");
    let program = Program::start_ready(&pools).await;
    fail(&program, "api", &a).await;
    assert_eq!(get(program.web, "/").await.text(), "hello from b");
    assert_eq!(a.count("/"), 0, "while one is healthy, the unhealthy one gets nothing");
    fail(&program, "api", &b).await;
    let mut client = Client::connect(program.web).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(a.count("/") >= 4 && b.count("/") >= 4, "both get requests: {} {}", a.count("/"), b.count("/"));
    let status = program.pool("api").await;
    assert!(status.fail_open && status.status == PoolWord::Degraded && status.healthy == 0, "{status:?}");
    assert_eq!(program.metric("roundsman_pool_fail_open{pool=\"api\"}").await, Some(1.0));
    service_state(&program, "api", "fail_open").await;
    recover(&program, "api", &a).await;
    let before = b.count("/");
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "hello from a");
    }
    assert_eq!(b.count("/"), before);
    let fail_open = program.events(0).await.events.into_iter().filter_map(|event| match event.what {
        EventWhat::FailOpen(info) => Some((info.on, info.serves)),
        _ => None,
    });
    assert_eq!(fail_open.collect::<Vec<_>>(), [(true, None), (false, Some(true))]);
    assert_eventually("the end is logged", PATIENCE, || program.log().contains("Pool serves again")).await;
    let log = program.log();
    assert_eq!((log.matches("Pool fails open").count(), log.matches("Pool serves again").count()), (1, 1), "{log}");
}

in_each_lane!(another_pool_takes_over_until_this_one_recovers, flavor = "multi_thread");
async fn another_pool_takes_over_until_this_one_recovers() {
    let (a, spare) = (Origin::plain("a").await, Origin::plain("spare").await);
    let pools = pool_with("api", &[&a.text()], "when_no_healthy = { pool = \"spare\" }")
        + &pool("spare", &[&spare.text()], &http_check());
    let program = Program::start_ready(&pools).await;
    program.wait_for_state("spare", &spare.text(), "healthy", PATIENCE).await;
    let mut client = Client::connect(program.web).await;
    assert_eq!(client.get("/").await.text(), "hello from a");
    fail(&program, "api", &a).await;
    assert_eq!(client.get("/").await.text(), "hello from spare");
    service_state(&program, "api", "other_pool").await;
    service_state(&program, "spare", "normal").await;
    fail(&program, "spare", &spare).await;
    assert_eq!(client.get("/").await.status, 503);
    service_state(&program, "api", "refusing").await;
    recover(&program, "api", &a).await;
    assert_eq!(client.get("/").await.text(), "hello from a");
}

in_each_lane!(the_longest_chain_of_pools_is_followed_to_its_end, flavor = "multi_thread");
async fn the_longest_chain_of_pools_is_followed_to_its_end() {
    let last = Origin::plain("last").await;
    let names: Vec<String> = std::iter::once("api".to_owned()).chain((2..=8).map(|n| format!("p{n}"))).collect();
    let mut pools = String::new();
    for (name, next) in names.iter().zip(&names[1..]) {
        let dead = free_address().to_string();
        pools += &pool_with(name, &[&dead], &format!("when_no_healthy = {{ pool = \"{next}\" }}"));
    }
    let program = Program::start_ready(&(pools + &pool("p8", &[&last.text()], &http_check()))).await;
    program.wait_for_state("p8", &last.text(), "healthy", PATIENCE).await;
    assert_eq!(get(program.web, "/").await.text(), "hello from last");
    program.assert_no_panic();
}

in_each_lane!(a_pool_below_min_healthy_does_not_serve, flavor = "multi_thread");
async fn a_pool_below_min_healthy_does_not_serve() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await, Origin::plain("c").await];
    let texts = origins.each_ref().map(Origin::text);
    let texts = texts.each_ref().map(String::as_str);
    for min in ["2", "0.5"] {
        let program = Program::start_ready(&pool_with("api", &texts, &format!("min_healthy = {min}"))).await;
        for origin in &origins {
            program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
        }
        let mut client = Client::connect(program.web).await;
        fail(&program, "api", &origins[0]).await;
        assert_eq!(client.get("/").await.status, 200, "two of three are enough");
        fail(&program, "api", &origins[1]).await;
        let before = origins[2].count("/");
        assert_eq!(client.get("/").await.status, 503, "one healthy upstream is not enough");
        assert_eq!(origins[2].count("/"), before);
        recover(&program, "api", &origins[0]).await;
        assert_eq!(client.get("/").await.status, 200);
        recover(&program, "api", &origins[1]).await;
    }
}

in_each_lane!(backups_serve_only_while_no_primary_is_eligible, flavor = "multi_thread");
async fn backups_serve_only_while_no_primary_is_eligible() {
    let (a, spare) = (Origin::plain("a").await, Origin::plain("spare").await);
    let both = pool("api", &[&a.text(), &spare.text()], &http_check());
    let backup = format!("{{ address = \"{}\", backup = true }}", spare.text());
    let program = Program::start_ready(&both.replace(&format!("\"{}\"", spare.text()), &backup)).await;
    program.wait_for_state("api", &spare.text(), "healthy", PATIENCE).await;
    program.wait_for_state("api", &a.text(), "healthy", PATIENCE).await;
    let mut client = Client::connect(program.web).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "hello from a");
    }
    fail(&program, "api", &a).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "hello from spare");
    }
    recover(&program, "api", &a).await;
    assert_eq!(client.get("/").await.text(), "hello from a");
    assert_eq!(spare.count("/"), 10);
}
