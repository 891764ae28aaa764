//! Operators' orders on the real program: how long they hold, in which pools, and waiting for what is in flight.

use std::time::Duration;

use serde_json::Value;

use crate::client::get;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, pool};
use crate::support::assert_eventually;

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check a minute; one pass is enough.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
                    healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

async fn with(pools: &[(&str, &[&Origin])]) -> Program {
    let texts = pools.iter().map(|(name, origins)| {
        let upstreams: Vec<String> = origins.iter().map(|origin| origin.text()).collect();
        pool(name, &upstreams.iter().map(String::as_str).collect::<Vec<_>>(), RARE)
    });
    let program = Program::start_ready(&texts.collect::<String>()).await;
    for (name, origins) in pools {
        for origin in *origins {
            program.wait_for_state(name, &origin.text(), "healthy", PATIENCE).await;
        }
    }
    program
}

/// The upstream in the status, as JSON.
async fn shown(program: &Program, pool: &str, origin: &Origin) -> Value {
    let info = program.upstream(pool, &origin.text()).await.expect("it is there");
    serde_json::to_value(info).expect("it is JSON")
}

in_each_lane!(an_order_ends_by_itself_and_status_says_whose_it_is_and_until_when, flavor = "multi_thread");
async fn an_order_ends_by_itself_and_status_says_whose_it_is_and_until_when() {
    let (one, two) = (Origin::plain("one").await, Origin::plain("two").await);
    let program = with(&[("api", &[&one, &two])]).await;
    let (code, out, err) =
        program.command(&["drain", "api", &one.text(), "--for", "2s", "--reason", "kernel upgrade"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("draining, was enabled") && out.contains("it ends by itself after 2s"), "{out}");
    let info = shown(&program, "api", &one).await;
    let order = &info["admin_order"];
    assert!(order["by"].as_str().is_some_and(|by| by.starts_with("command from 127.0.0.1:")), "{order}");
    assert!(order["reason"] == "kernel upgrade" && order["at"].is_string() && order["until"].is_string(), "{order}");
    assert!(info["why"].as_str().is_some_and(|why| why.starts_with("draining, ordered ")), "{info}");
    let (_, explained, _) = program.command(&["explain", "api", &one.text()]).await;
    assert!(explained.contains("kernel upgrade; ends in "), "{explained}");
    for _ in 0..10 {
        assert_eq!(get(program.web, "/x").await.text(), "hello from two");
    }
    // A reload does not end it, and the time does.
    let reloaded = pool("api", &[&one.text(), &two.text()], RARE) + "[pools.api.timeouts]\nidle = \"9s\"\n";
    assert_eq!(program.reload(&reloaded).await.0, 200);
    assert_eq!(shown(&program, "api", &one).await["admin"], "draining");
    let over = "the time of the order is over";
    assert_eventually("it ends", PATIENCE, || program.log().contains(over)).await;
    let before = one.count("/x");
    for _ in 0..10 {
        get(program.web, "/x").await;
    }
    assert!(one.count("/x") > before, "it takes requests again");
    let texts: Vec<String> = program.events(0).await.events.into_iter().map(|event| event.text).collect();
    let address = one.text();
    assert!(
        texts.iter().any(|text| text.starts_with(&format!("api {address}  now draining for 2.0 s (command"))),
        "{texts:?}"
    );
    assert!(texts.contains(&format!("api {address}  now enabled ({over})")), "{texts:?}");
    program.assert_no_panic();
}

in_each_lane!(a_drain_waits_until_nothing_is_in_flight, flavor = "multi_thread");
async fn a_drain_waits_until_nothing_is_in_flight() {
    let slow = Origin::new().on("/slow").reply(Reply::ok("slow").delay(Duration::from_secs(4))).start().await;
    let other = Origin::plain("other").await;
    let program = with(&[("api", &[&slow, &other])]).await;
    let web = program.web;
    let requests: Vec<_> = (0..4).map(|_| tokio::spawn(async move { get(web, "/slow").await.text() })).collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while slow.count("/slow") < 2 {
        assert!(tokio::time::Instant::now() < deadline, "{}", program.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let impatient = ["drain", "api", &slow.text(), "--wait", "--timeout", "300ms"];
    let (code, out, err) = program.command(&impatient).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("2 requests still in flight after 300ms") && err.contains("`roundsman undrain`"), "{err}");
    let disable = ["disable", "api", &slow.text(), "--wait", "--timeout", "100ms"];
    let (code, out, err) = program.command(&disable).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(err.contains("2 requests still in flight after 100ms") && err.contains("`roundsman enable`"), "{err}");
    let (code, out, err) = program.command(&["drain", "api", &slow.text(), "--wait", "--timeout", "1m"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("requests in flight\n") && out.contains("nothing is in flight, after "), "{out}");
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.expect("it ends"));
    }
    assert_eq!(answers.iter().filter(|answer| *answer == "slow").count(), 2, "they have finished: {answers:?}");
    assert_eq!(slow.open_connections(), 0, "idle connections to it close at once");
    program.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_is_ordered_at_run_time_and_an_order_in_every_pool_is_all_or_nothing() {
    let (one, two) = (Origin::plain("one").await, Origin::plain("two").await);
    let program = with(&[("api", &[&one, &two]), ("alone", &[&one])]).await;
    let (code, out, err) = program.command(&["weight", "api", &one.text(), "3", "--for", "1h"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&format!("api {}: weight 3, was 1", one.text())), "{out}");
    let before = (one.count("/x"), two.count("/x"));
    for _ in 0..40 {
        get(program.web, "/x").await;
    }
    assert_eq!((one.count("/x") - before.0, two.count("/x") - before.1), (30, 10));
    let info = shown(&program, "api", &one).await;
    assert!(info["weight"] == 3 && info["weight_order"]["until"].is_string(), "{info}");
    let (_, said, _) = program.command(&["explain", "api", &one.text()]).await;
    assert!(said.contains("Its weight is 3, ordered ") && said.contains("; ends in 59m"), "{said}");
    let (_, table, _) = program.command(&["status", "api"]).await;
    let row = table.lines().find(|line| line.contains(&one.text())).expect("a row");
    assert!(table.contains("WEIGHT") && row.trim_end().ends_with(" 3"), "{table}");
    let (code, _, err) = program.command(&["weight", "api", &one.text(), "0"]).await;
    assert!(code == Some(2) && err.contains("1..=1000"), "{err}");
    // In the second pool it is the only one.
    let (code, out, err) = program.command(&["drain", "--all-pools", &one.text()]).await;
    assert!(code == Some(1) && err.contains("no upstream of pool alone would serve"), "{out}{err}");
    assert_eq!(shown(&program, "api", &one).await["admin"], "enabled", "nothing was changed");
    let (code, out, err) = program.command(&["drain", "--all-pools", &one.text(), "--force"]).await;
    assert_eq!(code, Some(0), "{err}");
    for pool in ["api", "alone"] {
        assert!(out.contains(&format!("{pool} {}: draining, was enabled", one.text())), "{out}");
        assert_eq!(shown(&program, pool, &one).await["admin"], "draining");
    }
    let (code, _, err) = program.command(&["enable", "--all-pools", "api", &one.text()]).await;
    assert!(code == Some(2) && err.contains("without a pool"), "{err}");
    assert_eq!(program.command(&["enable", "--all-pools", &one.text()]).await.0, Some(0));
    assert_eq!(shown(&program, "alone", &one).await["admin"], "enabled");
    program.assert_no_panic();
}
