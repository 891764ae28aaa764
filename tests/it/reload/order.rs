//! Reloads that are refused, that change nothing, that come many at once, and that come under load.

use std::time::Duration;

use nix::sys::signal::Signal;
use roundsman::admin::json::{EventWhat, ReloadResult};

use super::{PATIENCE, apply, rare, upstream};
use crate::client::{Client, get};
use crate::lanes::each::in_each_lane;
use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, Reply};
use crate::program::{Program, QUICK, config, fetch, pool, try_fetch};
use crate::support::assert_eventually;

async fn wait_for_reload(program: &Program, result: ReloadResult) {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let last = program.status().await.config.last_reload;
        if last.as_ref().is_some_and(|last| last.result == result) {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "no reload was {result}: {last:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

in_each_lane!(sighup_and_the_api_reload_alike, flavor = "multi_thread");
async fn sighup_and_the_api_reload_alike() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let program = Program::start_ready(&pool("api", &[&a.text()], &rare("/healthz"))).await;
    assert!(program.status().await.config.last_reload.is_none(), "null before the first");
    program.write(&pool("api", &[&a.text(), &b.text()], &rare("/healthz")));
    program.signal(Signal::SIGHUP);
    wait_for_reload(&program, ReloadResult::Applied).await;
    program.wait_for_state("api", &b.text(), "healthy", PATIENCE).await;
    assert_eq!(program.status().await.generation, 2);

    program.write("nonsense = 1\n");
    program.signal(Signal::SIGHUP);
    wait_for_reload(&program, ReloadResult::Refused).await;
    let by_signal = program.status().await.config.last_reload.unwrap().error;
    let (status, by_post) = program.order_reload().await;
    assert_eq!((status, by_post.result, &by_post.error), (422, ReloadResult::Refused, &by_signal));

    program.write(&pool("api", &[&b.text()], &rare("/healthz")));
    program.signal(Signal::SIGHUP);
    wait_for_reload(&program, ReloadResult::Applied).await;
    assert_eq!(program.status().await.generation, 3, "a refused reload has no generation");
    assert_eq!(get(program.web, "/").await.text(), "hello from b");
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_pools_are_warned_of_at_start_and_after_a_reload() {
    let origin = Origin::plain("a").await;
    let with_unused = |name: &str| {
        pool("api", &[&origin.text()], &rare("/healthz")) + &pool(name, &["127.0.0.1:1", "127.0.0.1:2"], "")
    };
    let program = Program::start_ready(&with_unused("first")).await;
    let warned = |name: &str| {
        let key = format!("pools.{name}");
        program.log().lines().any(|line| line.contains(&key) && line.contains("this pool gets no requests"))
    };
    assert_eventually("the first pool is warned of", PATIENCE, || warned("first")).await;
    assert_eq!(program.reload(&with_unused("second")).await.0, 200);
    assert_eventually("the second pool is warned of", PATIENCE, || warned("second")).await;
}

in_each_lane!(an_invalid_file_changes_nothing_and_is_reported_everywhere, flavor = "multi_thread");
async fn an_invalid_file_changes_nothing_and_is_reported_everywhere() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &rare("/healthz"));
    let program = Program::start_ready(&pools).await;
    let load = Load::start(program.web, &Plan::post(4, 200));
    let before = upstream(&program, "api", &origin.text()).await;
    let bad =
        format!("{pools}\nintervall = \"1s\"\n[pools.two]\nupstreams = []\n[[routes]]\npath = \"/x\"\npool = \"ap\"\n");

    let (status, reply) = program.reload(&bad).await;
    assert_eq!((status, reply.result, reply.generation), (422, ReloadResult::Refused, 1));
    let keys: Vec<&str> = reply.errors.iter().filter_map(|error| error.key.as_deref()).collect();
    for key in ["intervall", "pools.two.upstreams", "routes"] {
        assert!(keys.iter().any(|k| k.contains(key)), "every mistake is named, {key} too: {:?}", reply.errors);
    }
    assert!(reply.errors.iter().all(|error| error.line.is_some() && error.column.is_some()), "{:?}", reply.errors);

    let (code, out, err) = program.command(&["reload"]).await;
    assert_eq!(code, Some(78), "{out}{err}");
    assert!(out.contains("refused") && out.contains("intervall") && out.contains("did you mean"), "{out}{err}");
    let (code, ..) = program.command(&["reload", "--dry-run"]).await;
    assert_eq!(code, Some(78));

    for text in [&b"\xff\xfe"[..], b"", b"[listeners.web]\n"] {
        std::fs::write(program.file(), text).unwrap();
        assert_eq!(program.order_reload().await.0, 422, "{text:?}");
    }
    std::fs::remove_file(program.file()).unwrap();
    assert_eq!(program.order_reload().await.0, 422, "a missing file");

    let last = program.status().await;
    let info = last.config.last_reload.expect("status has the last reload");
    assert_eq!((last.generation, info.result), (1, ReloadResult::Refused));
    assert!(info.error.is_some());
    let refusals =
        || program.log().lines().filter(|line| line.contains("Configuration refused; nothing changed")).count();
    assert_eventually("all are logged", PATIENCE, || refusals() == 6).await;
    let log = program.log();
    let line = log.lines().find(|line| line.contains("Configuration refused; nothing changed")).expect("just seen");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let errors: Vec<&str> = line["errors"].as_array().expect("a list").iter().filter_map(|e| e.as_str()).collect();
    let mistakes = reply.errors.iter().filter(|error| error.severity == "error").count();
    assert_eq!(errors.len(), mistakes, "one text for each mistake, without line ends: {errors:?}");
    assert!(errors.iter().all(|error| error.contains(".toml:") && !error.contains('\n')), "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("; did you mean `\"api\"`?")), "{errors:?}");
    assert_eq!(program.metric("roundsman_config_last_reload_success").await, Some(0.0));
    assert_eq!(program.metric("roundsman_config_generation").await, Some(1.0));
    let after = upstream(&program, "api", &origin.text()).await;
    assert_eq!((after.state, after.since, after.streak), (before.state, before.since, before.streak));
    let refusals = program.events(0).await.events;
    let refused = |what: &EventWhat| matches!(what, EventWhat::Reload { result, .. } if result == "refused");
    assert_eq!(
        refusals.iter().filter(|event| refused(&event.what)).count(),
        6,
        "a dry run is not a reload: {refusals:?}"
    );
    assert_eventually("some load", PATIENCE, || load.count() > 50).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());

    program.write(&pools);
    let (code, out, err) = program.command(&["reload"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("unchanged: generation 1 is still running"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_the_same_content_is_unchanged() {
    let origin = Origin::plain("a").await;
    let pools = pool("api", &[&origin.text()], &rare("/healthz"));
    let program = Program::start_ready(&pools).await;
    let (status, reply) = program.reload(&pools).await;
    assert_eq!((status, reply.result, reply.generation), (200, ReloadResult::Unchanged, 1));
    let (_, reply) = program.reload(&format!("# A comment changes nothing.\n{pools}")).await;
    assert_eq!((reply.result, reply.generation), (ReloadResult::Unchanged, 1));
    assert_eq!(program.status().await.config.last_reload.unwrap().result, ReloadResult::Unchanged);
    assert_eq!(origin.count("/healthz"), 1, "the reload caused no probe");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_needs_a_restart_refuses_the_whole_file() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let program = Program::start_ready(&pool("api", &[&a.text()], &rare("/healthz"))).await;
    let other = pool("api", &[&b.text()], &rare("/healthz"));
    let (status, reply) = program.reload(&format!("{other}[runtime]\nthreads = 7\n")).await;
    assert_eq!((status, reply.result), (422, ReloadResult::Refused));
    assert!(reply.error.as_deref().is_some_and(|error| error.contains("runtime.threads")), "{reply:?}");
    let elsewhere = crate::program::free_address();
    program.write_raw(&config(program.web, elsewhere, &other));
    let (status, reply) = program.order_reload().await;
    assert_eq!(status, 422);
    assert!(reply.error.as_deref().is_some_and(|error| error.contains("admin.address")), "{reply:?}");
    assert!(try_fetch(elsewhere, "GET", "/livez").await.is_err());
    assert!(program.upstream("api", &b.text()).await.is_none(), "no part of the file is applied");
    assert_eq!(get(program.web, "/").await.text(), "hello from a");
    assert_eq!(b.total(), 0);
}

in_each_lane!(a_slow_reload_delays_no_request, flavor = "multi_thread");
async fn a_slow_reload_delays_no_request() {
    let origin = Origin::plain("a").await;
    let pools = |n: u32| {
        let threads = format!("[runtime]\nthreads = 1\n[pools.extra{n}]\nupstreams = [\"127.0.0.1:1\"]\n");
        pool("api", &[&origin.text()], &rare("/healthz")) + &threads
    };
    let program = Program::start_ready(&pools(0)).await;
    assert_eq!(get(program.web, "/").await.status, 200);
    let load = Load::start(program.web, &Plan::post(2, 100));
    program.write(&(pools(1) + &"# nothing\n".repeat(900_000)));
    let (began, admin) = (tokio::time::Instant::now(), program.admin);
    let reload = tokio::spawn(async move { try_fetch(admin, "POST", "/api/v1/reload").await });
    let (status, body) = reload.await.unwrap().expect("an answer");
    let took = began.elapsed();
    assert_eq!(status, 200, "{body:?}");
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    let slowest = outcomes.iter().map(|outcome| outcome.took).max().expect("some requests");
    assert!(slowest < took * 4 / 5, "a request took {slowest:?} beside a reload of {took:?}");
}

in_each_lane!(after_many_reloads_at_once_the_last_content_runs, flavor = "multi_thread");
async fn after_many_reloads_at_once_the_last_content_runs() {
    let origins = [Origin::plain("a").await, Origin::plain("b").await];
    let text = |n: usize| pool("api", &[&origins[n % 2].text()], QUICK) + &pool(&format!("p{n}"), &["127.0.0.1:1"], "");
    let program = Program::start_ready(&text(0)).await;
    let load = Load::start(program.web, &Plan::post(4, 100));
    let mut posts = tokio::task::JoinSet::new();
    for n in 1..=200 {
        program.write(&text(n));
        program.signal(Signal::SIGHUP);
        if n % 8 == 0 {
            let admin = program.admin;
            posts.spawn(async move { try_fetch(admin, "POST", "/api/v1/reload").await });
        }
    }
    program.write(&text(201));
    program.signal(Signal::SIGHUP);
    while let Some(answer) = posts.join_next().await {
        assert_eq!(answer.unwrap().map(|(status, _)| status), Ok(200));
    }
    let end = tokio::time::Instant::now() + PATIENCE;
    while program.status().await.pools.get("p201").is_none() {
        assert!(tokio::time::Instant::now() < end, "the last content does not run:\n{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = program.status().await;
    assert!(status.generation <= 202, "{}", status.generation);
    assert_eq!(status.pools.0.len(), 2, "and no pool of the other files");
    program.wait_for_state("api", &origins[1].text(), "healthy", PATIENCE).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    program.assert_no_panic();
}

in_each_lane!(a_request_in_flight_finishes_over_any_number_of_reloads, flavor = "multi_thread");
async fn a_request_in_flight_finishes_over_any_number_of_reloads() {
    let body = vec![b'x'; 200_000];
    let long = Reply::ok(&body).pace(10_000, Duration::from_millis(100));
    let a = Origin::new().on("/long").reply(long).start().await;
    let b = Origin::plain("b").await;
    let program = Program::start_ready(&pool("api", &[&a.text(), &b.text()], QUICK)).await;
    let path = format!("/api/v1/pools/api/upstreams/{}/drain", b.text());
    assert_eq!(fetch(program.admin, "POST", &path).await.0, 200);
    let mut client = Client::connect(program.web).await;
    let asked = tokio::spawn(async move { (client.get("/long").await, client) });
    assert_eventually("it is under way", PATIENCE, || a.count("/long") == 1).await;
    let mut reloads = 0;
    while !asked.is_finished() {
        let pools = pool(&format!("p{reloads}"), &["127.0.0.1:1"], "") + &pool("api", &[&b.text()], QUICK);
        apply(&program, &pools).await;
        reloads += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (answer, mut client) = asked.await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    assert!(reloads >= 3, "{reloads}");
    let path = format!("/api/v1/pools/api/upstreams/{}/undrain", b.text());
    assert_eq!(fetch(program.admin, "POST", &path).await.0, 200);
    assert_eq!(client.get("/").await.text(), "hello from b", "its connection continues under the new configuration");
}

in_each_lane!(three_hundred_reloads_under_load_fail_no_request_and_leak_nothing, flavor = "multi_thread");
async fn three_hundred_reloads_under_load_fail_no_request_and_leak_nothing() {
    let (a, b) = (Origin::plain("a").await, Origin::plain("b").await);
    let extra = crate::program::free_address();
    let text = |n: usize| {
        let upstreams: &[&str] = if n.is_multiple_of(2) { &[&a.text(), &b.text()] } else { &[&a.text()] };
        let listener = format!("[listeners.extra]\naddress = \"{extra}\"\npool = \"api\"\n");
        pool("api", upstreams, QUICK)
            + &pool(&format!("p{n}"), &[&b.text()], QUICK)
            + if n.is_multiple_of(3) { &listener } else { "" }
    };
    let program = Program::start_ready(&text(0)).await;
    let load = Load::start(program.web, &Plan::post(4, 100));
    let mut measured = None;
    for n in 1..=300 {
        program.write(&text(n));
        let (status, reply) = program.order_reload().await;
        assert_eq!((status, reply.result), (200, ReloadResult::Applied), "{n}: {reply:?}");
        // So that requests run between the reloads.
        tokio::time::sleep(Duration::from_millis(5)).await;
        if n == 100 {
            measured = Some((program.descriptors(), program.threads(), program.resident()));
        }
    }
    let (descriptors, threads, resident) = measured.unwrap();
    assert_eventually("some load", PATIENCE, || load.count() > 100).await;
    let outcomes = load.stop().await;
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    assert_eq!(program.status().await.generation, 301);
    assert!(program.descriptors() <= descriptors + 20, "{descriptors}, then {}", program.descriptors());
    assert!(program.threads() <= threads + 4, "{threads}, then {}", program.threads());
    let grown = program.resident().saturating_sub(resident);
    assert!(grown < 16 << 20, "200 reloads took {} KiB", grown >> 10);
    program.assert_no_panic();
}
