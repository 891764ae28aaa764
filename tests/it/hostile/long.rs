//! Long runs of the real binary: thousands of probes of good, bad and hostile upstreams do not grow memory or
//! descriptors.

use std::time::Duration;

use tokio::time::Instant;

use super::{PATIENCE, all_hostile};
use crate::origin::{Origin, refusing_address};
use crate::program::{Program, pool};
use crate::support::assert_eventually;

/// How much two measurements of one process may differ: memory that the allocator keeps for its threads.
const NOISE: u64 = 4 << 20;

/// Probes of all upstreams of pool `api` that have ended.
async fn probes(program: &Program) -> u64 {
    program.pool("api").await.upstreams.iter().map(|upstream| upstream.checks_total).sum()
}

async fn after_probes(program: &Program, more: u64, within: Duration) -> u64 {
    let (goal, end) = (probes(program).await + more, Instant::now() + within);
    loop {
        let now = probes(program).await;
        if now >= goal {
            return now;
        }
        assert!(Instant::now() < end, "{now} of {goal} probes after {within:?}:\n{}", program.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_hostile_probes_do_not_grow_memory_or_descriptors() {
    let origins: Vec<Origin> = all_hostile().iter().map(super::Hostile::start).collect();
    let addresses: Vec<String> = origins.iter().map(Origin::text).collect();
    let check = "type = \"http\"\npath = \"/healthz\"\ninterval = \"100ms\"\ntimeout = \"60ms\"\nfast_interval = \"100ms\"\n\
                 expect = { body = { contains = \"ready\" } }\n";
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let program = Program::start(&pool("api", &addresses, check)).await;
    after_probes(&program, 500, PATIENCE * 3).await;
    let before = (program.resident(), program.threads());
    after_probes(&program, 500, PATIENCE * 3).await;
    let after = (program.resident(), program.threads());
    assert!(after.0 <= before.0 + NOISE, "{before:?} bytes and threads before 500 hostile probes, {after:?} after");
    assert!(after.1 <= before.1 + 1, "{before:?} bytes and threads before 500 hostile probes, {after:?} after");
    // Each upstream has at most one connection; the process has a few descriptors besides.
    assert!(program.descriptors() <= 40 + addresses.len(), "{} descriptors", program.descriptors());
    for upstream in program.pool("api").await.upstreams {
        assert!(!upstream.eligible && upstream.state.as_str() == "unhealthy", "{upstream:?}");
        let last = upstream.last_check.expect("it was probed");
        assert!(last.reason.len() <= 2_048, "{} bytes of reason", last.reason.len());
        assert!(last.duration_ms < 1_000.0, "{last:?}");
    }
    program.assert_no_panic();
}

/// Ten upstreams of each kind at 10 ms: good, with the wrong status, refusing, and with a verdict that changes all the
/// time.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_four_thousand_probes_do_not_grow_memory_or_descriptors() {
    let good = Origin::plain("good").await;
    let bad = Origin::new().on("/healthz").reply(503).start().await;
    let flapping = Origin::plain("flapping").await;
    let mut addresses = vec![good.text(), bad.text(), flapping.text()];
    let more: Vec<Origin> = (0..17).map(|number| Origin::new().named(&format!("n{number}")).start_blocking()).collect();
    addresses.extend(more.iter().map(Origin::text));
    addresses.extend((0..10).map(|_| refusing_address().to_string()));
    let check =
        "type = \"http\"\npath = \"/healthz\"\ninterval = \"10ms\"\ntimeout = \"10ms\"\nfast_interval = \"10ms\"\n";
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let program = Program::start(&pool("api", &addresses, check)).await;
    let turning = async {
        loop {
            for status in [503, 200] {
                flapping.set("/healthz", status);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let watching = async {
        // The ring of events is full and every table has its final size before the count begins.
        after_probes(&program, 12_000, PATIENCE * 6).await;
        let before = (program.resident(), program.descriptors(), program.threads());
        after_probes(&program, 24_000, PATIENCE * 6).await;
        (before, (program.resident(), program.descriptors(), program.threads()))
    };
    let (before, after) = tokio::select! {
        figures = watching => figures,
        () = turning => unreachable!("it changes for ever"),
    };
    assert!(
        after.0 <= before.0 + NOISE,
        "(memory, descriptors, threads) {before:?} before 24,000 probes, {after:?} after"
    );
    // Each probe in flight holds one, at either measurement.
    assert!(after.1 <= before.1 + addresses.len(), "(memory, descriptors, threads) {before:?}, {after:?} after");
    assert!(after.2 <= before.2 + 1, "(memory, descriptors, threads) {before:?}, {after:?} after");
    let flapping = program.upstream("api", &flapping.text()).await.expect("status lists it");
    assert!(flapping.transitions_total > 4, "the flapping one changed: {flapping:?}");
    assert_eventually("calm descriptors", PATIENCE, || program.descriptors() <= 40 + addresses.len()).await;
    program.assert_no_panic();
}
