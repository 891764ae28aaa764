//! Reloads that remove the upstreams that serve: these serve on until those of the new configuration can, as it judges
//! them, and no longer. What was judged under an earlier check is carried for a while, and not for ever.

use std::time::Duration;

use roundsman::model::{AdminState, HealthState};
use tokio::time::Instant;

use super::{PATIENCE, apply, upstream};
use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply};
use crate::program::{Program, fetch, pool};
use crate::support::assert_eventually;

const TIMING: &str =
    "interval = \"2s\"\ntimeout = \"1s\"\nfast_interval = \"200ms\"\nhealthy_threshold = 1\njitter = 0\n";

fn one(path: &str, fall: u32) -> String {
    format!("type = \"http\"\npath = \"{path}\"\nunhealthy_threshold = {fall}\n{TIMING}")
}

fn two(require: &str) -> String {
    let checks = "[{ type = \"http\", path = \"/one\" }, { type = \"http\", path = \"/two\" }]";
    format!("require = \"{require}\"\nunhealthy_threshold = 2\nchecks = {checks}\n{TIMING}")
}

in_each_lane!(a_reload_that_judges_the_kept_ones_unhealthy_lets_the_removed_serve_on, flavor = "multi_thread");
/// One upstream is removed, and the other becomes unhealthy by the very reload.
async fn a_reload_that_judges_the_kept_ones_unhealthy_lets_the_removed_serve_on() {
    for case in ["require", "moved", "thresholds", "already unhealthy"] {
        let (kept, removed) = (Origin::plain("kept").await, Origin::plain("removed").await);
        let (both, alone) = ([&*kept.text(), &*removed.text()], [&*kept.text()]);
        kept.set("/two", 503);
        let judge = || pool("judge", &alone, &one("/two", 1));
        let (before, after) = match case {
            "require" => (pool("api", &both, &two("any")), pool("api", &alone, &two("all"))),
            // Another pool has judged it by then.
            "moved" => {
                (pool("api", &both, &one("/one", 1)) + &judge(), pool("api", &alone, &one("/two", 1)) + &judge())
            }
            "thresholds" => (pool("api", &both, &one("/two", 1_000)), pool("api", &alone, &one("/two", 1))),
            _ => (pool("api", &both, &one("/two", 1)), pool("api", &alone, &one("/two", 1))),
        };
        if case == "thresholds" {
            kept.set("/two", 200);
        }
        let program = Program::start_ready(&before).await;
        program.wait_for_state("api", &removed.text(), "healthy", PATIENCE).await;
        if case == "already unhealthy" {
            program.wait_for_state("api", &kept.text(), "unhealthy", PATIENCE).await;
        } else {
            program.wait_for_state("api", &kept.text(), "healthy", PATIENCE).await;
        }
        kept.set("/two", 503);
        let from = kept.count("/two");
        assert_eventually("it fails its check", PATIENCE, || kept.count("/two") > from + 2).await;
        let load = Load::start(program.web, &Plan::post(4, 200));
        assert_eventually("the load goes on", PATIENCE, || load.count() > 20).await;
        assert_eq!(apply(&program, &after).await, ["api"], "{case}");
        let kept_now = upstream(&program, "api", &kept.text()).await;
        assert_eq!((kept_now.state, kept_now.eligible), (HealthState::Unhealthy, false), "{case}");
        let served = kept.count("/");
        let goal = load.count() + 60;
        assert_eventually("the load goes on", PATIENCE, || load.count() >= goal).await;
        assert_eq!(failures(&load.stop().await), Vec::<String>::new(), "{case}");
        // One may have been on its way.
        assert!(kept.count("/") <= served + 4, "{case}: {} after the reload", kept.count("/") - served);
        assert!(upstream(&program, "api", &removed.text()).await.retiring, "{case}");
        program.assert_no_panic();
    }
}

in_each_lane!(
    the_removed_serve_until_the_new_can_alone_whatever_backup_is_kept_and_however_many_are_needed,
    flavor = "multi_thread"
);
/// Blue and green: all primaries are replaced, while a backup is kept, or while two must be healthy.
async fn the_removed_serve_until_the_new_can_alone_whatever_backup_is_kept_and_however_many_are_needed() {
    // No upstream becomes unhealthy because the machine is slow: then a backup would serve, rightly.
    let check = format!("type = \"http\"\npath = \"/healthz\"\nunhealthy_threshold = 1_000\n{TIMING}");
    for (needed, with_backup) in [(1, true), (2, false), (2, true)] {
        let origins = ["old", "old too", "new", "new too", "backup"].map(|name| Origin::new().named(name).start());
        let [a, b, c, d, backup] =
            futures_util::future::join_all(origins).await.try_into().unwrap_or_else(|_| panic!());
        let file = |primaries: [&Origin; 2]| {
            let mut list: Vec<_> = primaries.iter().map(|origin| format!("\"{}\"", origin.text())).collect();
            list.extend(with_backup.then(|| format!("{{ address = \"{}\", backup = true }}", backup.text())));
            let upstreams = list.join(", ");
            format!("[pools.api]\nmin_healthy = {needed}\nupstreams = [{upstreams}]\n[pools.api.health]\n{check}\n")
        };
        let program = Program::start_ready(&file([&a, &b])).await;
        for origin in [&a, &b] {
            program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
        }
        if with_backup {
            program.wait_for_state("api", &backup.text(), "healthy", PATIENCE).await;
        }
        let load = Load::start(program.web, &Plan::post(8, 200));
        [&c, &d].iter().for_each(|origin| origin.set("/healthz", Reply::hang()));
        assert_eq!(apply(&program, &file([&c, &d])).await, ["api"], "{needed} {with_backup}");
        let goal = load.count() + 100;
        assert_eventually("the load goes on", PATIENCE, || load.count() >= goal).await;
        // One of two is not enough where two are needed.
        c.set("/healthz", 200);
        program.wait_for_state("api", &c.text(), "healthy", PATIENCE).await;
        assert_eq!(program.pool("api").await.warming, needed == 2, "{needed} {with_backup}");
        d.set("/healthz", 200);
        program.wait_for_state("api", &d.text(), "healthy", PATIENCE).await;
        assert!(!program.pool("api").await.warming);
        let old = a.count("/") + b.count("/");
        let goal = load.count() + 60;
        assert_eventually("the load goes on", PATIENCE, || load.count() >= goal).await;
        assert!(a.count("/") + b.count("/") <= old + 8, "they are gone");
        assert_eq!(failures(&load.stop().await), Vec::<String>::new(), "{needed} {with_backup}");
        assert_eq!(backup.count("/"), 0, "there was always a primary");
        program.assert_no_panic();
    }
}

in_each_lane!(who_retires_takes_orders_and_comes_back_without_them, flavor = "multi_thread");
async fn who_retires_takes_orders_and_comes_back_without_them() {
    let (old, new) = (Origin::plain("old").await, Origin::plain("new").await);
    new.set("/healthz", 503);
    let check = format!("type = \"http\"\npath = \"/healthz\"\nunhealthy_threshold = 1\n{TIMING}");
    let before = pool("api", &[&old.text()], &check);
    let program = Program::start_ready(&before).await;
    assert_eq!(apply(&program, &pool("api", &[&new.text()], &check)).await, ["api"]);
    program.wait_for_state("api", &new.text(), "unhealthy", PATIENCE).await;
    assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
    let order = |what: &str| format!("/api/v1/pools/api/upstreams/{}/{what}", old.text());
    assert_eq!(fetch(program.admin, "POST", &order("disable")).await.0, 200);
    let retiring = upstream(&program, "api", &old.text()).await;
    assert_eq!((retiring.retiring, retiring.eligible, retiring.admin), (true, false, AdminState::Disabled));
    assert_eq!(fetch(program.web, "GET", "/").await.0, 503);
    assert_eq!(fetch(program.admin, "POST", &order("enable")).await.0, 200);
    assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
    assert_eq!(fetch(program.admin, "POST", &order("drain")).await.0, 200);
    assert_eq!(fetch(program.web, "GET", "/").await.0, 503);
    // It had left the file, and the order with it.
    apply(&program, &before).await;
    let back = upstream(&program, "api", &old.text()).await;
    assert_eq!((back.retiring, back.eligible, back.admin), (false, true, AdminState::Enabled));
    assert_eq!(back.state, HealthState::Healthy, "its verdict still applies");
    assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
}

/// The file's own `draining`, lifted by an order: the order ends when the upstream leaves the file, also if it retires.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_ends_with_the_upstream_in_the_file() {
    let (old, new) = (Origin::plain("old").await, Origin::plain("new").await);
    new.set("/healthz", 503);
    let check = format!("[pools.api.health]\ntype = \"http\"\npath = \"/healthz\"\n{TIMING}");
    let drained = format!("{{ address = \"{}\", admin = \"draining\" }}", old.text());
    let before = format!("[pools.api]\nupstreams = [{drained}]\n{check}");
    let program = Program::start(&before).await;
    program.wait_for_state("api", &old.text(), "healthy", PATIENCE).await;
    let enable = format!("/api/v1/pools/api/upstreams/{}/enable", old.text());
    assert_eq!(fetch(program.admin, "POST", &enable).await.0, 200);
    assert_eq!(fetch(program.web, "GET", "/").await.0, 200);
    let without = format!("[pools.api]\nupstreams = [\"{}\"]\n{check}", new.text());
    assert_eq!(apply(&program, &without).await, ["api"]);
    assert!(upstream(&program, "api", &old.text()).await.eligible, "it retires, still under the order");
    apply(&program, &before).await;
    let back = upstream(&program, "api", &old.text()).await;
    assert_eq!((back.admin, back.eligible), (AdminState::Draining, false));
}

in_each_lane!(what_is_carried_is_found_out_however_often_the_check_changes, flavor = "multi_thread");
/// A credential that is rotated again and again makes the check a new one each time.
async fn what_is_carried_is_found_out_however_often_the_check_changes() {
    for (health, within) in [(Reply::status(503), 5), (Reply::hang(), 30)] {
        let (good, bad) = (Origin::plain("good").await, Origin::plain("bad").await);
        let file = |round: u32| {
            let timing = "interval = \"2s\"\ntimeout = \"1s\"\nfast_interval = \"200ms\"\nunhealthy_threshold = 3\n";
            let check =
                format!("type = \"http\"\npath = \"/healthz\"\nheaders = {{ X-Round = \"{round}\" }}\n{timing}");
            pool("api", &[&good.text(), &bad.text()], &check)
        };
        let program = Program::start_ready(&file(0)).await;
        program.wait_for_state("api", &bad.text(), "healthy", PATIENCE).await;
        let load = Load::start(program.web, &Plan::get(2, 20));
        bad.set("/healthz", health);
        let began = Instant::now();
        let mut round = 0;
        // Each round is over before a probe that hangs has failed.
        while program.upstream("api", &bad.text()).await.expect("it is there").state == HealthState::Healthy {
            round += 1;
            assert!(began.elapsed() < Duration::from_secs(within) + PATIENCE, "carried for {:?}", began.elapsed());
            assert_eq!(program.reload(&file(round)).await.0, 200);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        assert!(round > 0);
        let served = bad.count("/");
        let goal = load.count() + 20;
        assert_eventually("the load goes on", PATIENCE, || load.count() >= goal).await;
        assert!(bad.count("/") <= served + 2, "nothing goes there any more");
        assert_eq!(failures(&load.stop().await), Vec::<String>::new());
    }
}
