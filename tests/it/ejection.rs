//! Ejection by live traffic, on the real program: checks pass, and requests fail.

use std::time::Duration;

use serde_json::Value;

use crate::client::get;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One HTTP check a minute, of which one pass is enough.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
                    healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// A program with a pool of these origins, all of them healthy.
async fn with(origins: &[&Origin], keys: &str) -> Program {
    let upstreams: Vec<String> = origins.iter().map(|origin| origin.text()).collect();
    let upstreams: Vec<&str> = upstreams.iter().map(String::as_str).collect();
    let program = Program::start_ready(&(pool("api", &upstreams, RARE) + keys)).await;
    for address in &upstreams {
        program.wait_for_state("api", address, "healthy", PATIENCE).await;
    }
    program
}

/// Waits until the origin is ejected, or is not.
async fn wait_for(program: &Program, origin: &Origin, ejected: bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while program.upstream("api", &origin.text()).await.expect("it is there").ejected != ejected {
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}:\n{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

in_each_lane!(
    an_upstream_that_fails_requests_and_passes_its_checks_gets_at_most_one_in_a_hundred,
    flavor = "multi_thread"
);
async fn an_upstream_that_fails_requests_and_passes_its_checks_gets_at_most_one_in_a_hundred() {
    for (path, reply) in [("/503", Reply::status(503)), ("/reset", Reply::reset())] {
        let bad = Origin::new().on(path).reply(reply).start().await;
        let (one, two) = (Origin::plain("one").await, Origin::plain("two").await);
        let program = with(&[&bad, &one, &two], "").await;
        for _ in 0..15 {
            get(program.web, path).await;
        }
        wait_for(&program, &bad, true).await;
        let before = bad.count(path);
        assert!((5..=10).contains(&before), "{path}: {before} of 15");
        for number in 0..500 {
            assert_eq!(get(program.web, path).await.status, 200, "{path} {number}");
        }
        assert_eq!(bad.count(path), before, "{path}: none of 500 goes there");

        let info = program.upstream("api", &bad.text()).await.expect("it is there");
        let ejection = info.ejection.clone().expect("it is ejected");
        let failure = path.trim_start_matches('/');
        let reason = format!("its last 5 requests failed ({failure})");
        assert!(!info.eligible && info.state.as_str() == "healthy", "{info:?}");
        assert_eq!((ejection.reason.as_str(), ejection.count, info.ejections_total), (reason.as_str(), 1, 1));
        assert!((0.1..=10.0).contains(&ejection.seconds_left), "{ejection:?}");
        let why = info.why.expect("it says why");
        assert!(why.starts_with("ejected for ") && why.ends_with(&reason), "{why}");
        let (code, explained, _) = program.command(&["explain", "api", &bad.text()]).await;
        assert_eq!(code, Some(0));
        assert!(explained.contains("It takes no requests: live traffic ejected it, because its last 5"), "{explained}");
        let series = |name: &str| format!("{name}{{pool=\"api\",upstream=\"{}\"}}", bad.text());
        assert_eq!(program.metric(&series("roundsman_upstream_ejected")).await, Some(1.0));
        assert_eq!(program.metric(&series("roundsman_upstream_ejections_total")).await, Some(1.0));
        let (_, status, _) = program.command(&["status", "api"]).await;
        assert!(status.contains("ejected"), "{status}");
        let events = serde_json::to_value(program.events(0).await).expect("it is JSON");
        let ejected: Vec<&Value> =
            events["events"].as_array().expect("a list").iter().filter(|event| event["kind"] == "ejected").collect();
        assert_eq!(ejected.len(), 1, "{events}");
        let text = format!("api {}  ejected for 10.0 s: {reason}", bad.text());
        assert_eq!((ejected[0]["on"].as_bool(), ejected[0]["text"].as_str()), (Some(true), Some(text.as_str())));
        assert!(program.log().contains("\"Upstream ejected\""), "{}", program.log());
        program.assert_no_panic();
    }
}

in_each_lane!(the_last_upstream_is_never_ejected, flavor = "multi_thread");
async fn the_last_upstream_is_never_ejected() {
    let bad = || Origin::new().on("/x").reply(Reply::reset()).start();
    let (one, two) = (bad().await, bad().await);
    let program = with(&[&one, &two], "[pools.api.retry]\nretries = 0\n").await;
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(get(program.web, "/x").await.status);
    }
    assert!(
        statuses.iter().all(|status| *status == 502),
        "no request is refused for lack of an upstream: {statuses:?}"
    );
    assert_eq!(one.count("/x") + two.count("/x"), 60);
    // One of two is ejected, and not the other.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let (last, out) = loop {
        let one_is_out = program.upstream("api", &one.text()).await.expect("it is there").ejected;
        let two_is_out = program.upstream("api", &two.text()).await.expect("it is there").ejected;
        match (one_is_out, two_is_out) {
            (true, false) => break (&two, &one),
            (false, true) => break (&one, &two),
            _ => assert!(tokio::time::Instant::now() < deadline, "{}", program.log()),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // The other one is drained: the one that was ejected serves at once.
    let (code, _, error) = program.command(&["drain", "api", &last.text(), "--force"]).await;
    assert_eq!(code, Some(0), "{error}");
    out.unset("/x");
    assert_eq!(get(program.web, "/x").await.status, 200);
    assert!(program.log().contains("\"why\":\"last\""), "{}", program.log());
    program.assert_no_panic();
}

in_each_lane!(an_ejection_ends_and_a_reload_keeps_it_until_then, flavor = "multi_thread");
async fn an_ejection_ends_and_a_reload_keeps_it_until_then() {
    let bad = Origin::new().on("/x").reply(Reply::reset()).start().await;
    let good = Origin::plain("good").await;
    let keys = |passive: &str| format!("[pools.api.passive]\n{passive}\n");
    let text = |passive: &str| pool("api", &[&bad.text(), &good.text()], RARE) + &keys(passive);
    let long = "consecutive_failures = 2\nejection = { base = \"1h\", max = \"2h\" }";
    let program = with(&[&bad, &good], &keys(long)).await;
    let fail = async || {
        for _ in 0..4 {
            get(program.web, "/x").await;
        }
    };
    fail().await;
    wait_for(&program, &bad, true).await;
    let (status, reply) = program.reload(&(text(long) + "[pools.api.timeouts]\nidle = \"9s\"\n")).await;
    assert_eq!(status, 200, "{reply:?}");
    assert!(program.upstream("api", &bad.text()).await.expect("it is there").ejected, "a reload keeps it");
    let (status, reply) = program.reload(&text("consecutive_failures = 0")).await;
    assert_eq!(status, 200, "{reply:?}");
    wait_for(&program, &bad, false).await;
    fail().await;
    assert!(!program.upstream("api", &bad.text()).await.expect("it is there").ejected, "it is off");
    let (status, reply) = program.reload(&text("consecutive_failures = 2\nejection = { base = \"1s\" }")).await;
    assert_eq!(status, 200, "{reply:?}");
    fail().await;
    wait_for(&program, &bad, true).await;
    wait_for(&program, &bad, false).await;
    program.assert_no_panic();
}

in_each_lane!(a_dead_upstream_is_ejected_before_its_checks_notice_and_let_back_by_them, flavor = "multi_thread");
async fn a_dead_upstream_is_ejected_before_its_checks_notice_and_let_back_by_them() {
    let (dead, good) = (Origin::plain("dead").await, Origin::plain("good").await);
    let keys = "[pools.api.passive]\nconsecutive_failures = 2\nejection = { base = \"1h\", max = \"1h\" }\n";
    let upstreams = [dead.text(), good.text()];
    // Two failures are needed, and the interval is long: what the first hint brings forward is one probe.
    let check = RARE.replace("unhealthy_threshold = 1", "unhealthy_threshold = 9").replace("100ms", "50s");
    let text = pool("api", &[&upstreams[0], &upstreams[1]], &check) + keys;
    let program = Program::start_ready(&text).await;
    for address in &upstreams {
        program.wait_for_state("api", address, "healthy", PATIENCE).await;
    }
    dead.kill();
    for number in 0..20 {
        assert_eq!(get(program.web, "/x").await.status, 200, "request {number}: tried again where it can be served");
    }
    wait_for(&program, &dead, true).await;
    assert_eq!(program.upstream("api", &dead.text()).await.expect("it is there").state.as_str(), "healthy");
    dead.revive();
    // A shorter interval, so that the next checks come soon.
    let soon = check.replace("60s", "10s").replace("50s", "100ms").replace("timeout = \"10s\"", "timeout = \"5s\"");
    let (status, reply) = program.reload(&(pool("api", &[&upstreams[0], &upstreams[1]], &soon) + keys)).await;
    assert_eq!(status, 200, "{reply:?}");
    wait_for(&program, &dead, false).await;
    assert!(program.log().contains("\"why\":\"passes\""), "{}", program.log());
    program.assert_no_panic();
}
