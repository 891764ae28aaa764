//! The rules of health on the real program: the test for each row of the tables in health.md. The names are checked: a
//! row whose test is renamed or removed fails.
//!
//! | probes and verdicts | test |
//! |---|---|
//! | first seen: unknown, probed at once, no traffic | `promise::upstreams_added_by_a_reload_get_no_request_before_they_pass` |
//! | the first request waits for the first verdict | `life::start::the_first_request_waits_for_the_first_verdict` |
//! | a probe passes or fails: streaks and thresholds | `health::verdicts_change_at_the_thresholds_and_an_opposite_result_restarts_the_streak` |
//! | fast interval while a streak is open or unknown | `health::probes_use_the_fast_interval_only_while_a_streak_is_open` |
//! | start period: failures do not count | `health::in_the_start_period_failures_do_not_count_until_the_first_pass` |
//! | start period over: failures count | `health::after_the_start_period_failures_count` |
//! | our own lack of resources: no verdict | `faults::own::without_descriptors_verdicts_are_kept_and_little_processor_time_is_used` |
//! | every other connect error is a failure | `health::an_unreachable_network_is_a_failure_with_a_hint` |
//! | no pass or failure for long: unknown, stale | `staleness::without_probes_nothing_is_sent_after_the_verdicts_expire` |
//! | a stopped process: unknown, stale | `health::after_a_long_stop_verdicts_are_stale_and_missed_probes_are_not_repeated` |
//! | after a stop requests wait as at start | `staleness::after_a_stop_requests_wait_for_new_verdicts_and_none_reaches_a_failing_upstream` |
//! | a stopped checker | `staleness::a_stopped_checker_is_reported_and_its_verdicts_expire` |
//! | the data path reports a failure: a hint | `faults::a_failed_request_brings_the_next_probe_forward_and_changes_no_verdict` |
//! | disabled and draining ones are probed | `health::disabled_and_draining_upstreams_are_probed_and_get_verdicts` |
//! | unhealthy: idle connections close, requests in flight finish | `faults::an_unhealthy_verdict_closes_idle_connections_and_lets_requests_in_flight_finish` |
//! | several checks: all, any, a number | `health::several_checks_are_combined_as_require_says` |
//! | a panic of one probe: that one is unknown | `pool::controller::a_panicking_probe_makes_its_upstream_unknown_and_no_other` |
//! | the scheduler dies: verdicts are kept | `pool::controller::a_dead_scheduler_is_restarted_within_a_second_and_verdicts_are_kept` |
//!
//! | reload | test |
//! |---|---|
//! | same pool, address and check: all carried | `reload::carry::the_same_upstream_keeps_state_streak_counters_load_and_orders` |
//! | next due and probes in flight are carried | `reload::carry::reloads_neither_advance_nor_delay_probes` |
//! | a renamed or split pool keeps the verdict | `reload::carry::renamed_and_split_pools_keep_the_verdict` |
//! | timing or thresholds changed | `reload::change::new_thresholds_apply_to_the_open_streak_and_a_shorter_interval_counts_from_the_last_start` |
//! | check changed: state carried, probed at once | `reload::change::a_changed_check_runs_at_once_while_the_old_verdict_is_kept` |
//! | check changed: a late result is dropped | `reload::change::a_late_result_of_the_old_check_is_dropped` |
//! | weight, backup or balance changed | `reload::carry::changes_of_weight_backup_and_balance_do_not_change_health` |
//! | upstream removed | `reload::change::a_removed_upstream_gets_no_new_request_and_finishes_those_in_flight` |
//! | check changed: carried for a while only | `reload::warm::what_is_carried_is_found_out_however_often_the_check_changes` |
//! | the new members could not serve: retiring | `reload::change::removed_upstreams_serve_until_a_new_one_is_healthy` |
//! | the new members as this configuration judges them | `reload::warm::a_reload_that_judges_the_kept_ones_unhealthy_lets_the_removed_serve_on` |
//! | until the new ones alone can serve | `reload::warm::the_removed_serve_until_the_new_can_alone_whatever_backup_is_kept_and_however_many_are_needed` |
//! | retiring ones are under orders | `reload::warm::who_retires_takes_orders_and_comes_back_without_them` |
//! | an upstream leaves the file and comes back | `reload::warm::an_order_ends_with_the_upstream_in_the_file` |
//! | a pool that did not exist before | `reload::change::requests_to_a_new_pool_wait_for_its_first_verdict` |
//! | equal checks share one probe, others are independent | `reload::carry::equal_checks_share_one_probe_and_different_ones_are_independent` |
//!
//! The two rows of `pool::controller` are tested there, with a prober that panics: no file and no upstream can make the
//! real prober panic, and the program has no switch for it.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use roundsman::admin::json::{UpstreamInfo, Verdict};
use roundsman::model::HealthState;
use tokio::time::Instant;

use crate::client::get;
use crate::lanes::each::in_each_lane;
use crate::origin::{Origin, Reply};
use crate::program::{Program, QUICK, fetch, pool};
use crate::support::assert_eventually;

/// Ten times what a slow machine needs; nothing that goes well waits this long.
const PATIENCE: Duration = Duration::from_secs(20);

fn check(keys: &str) -> String {
    format!("type = \"http\"\npath = \"/healthz\"\njitter = 0\n{keys}\n")
}

async fn only(program: &Program) -> UpstreamInfo {
    program.pool("api").await.upstreams.remove(0)
}

/// Arrivals of probes, as times since the first.
fn arrivals(origin: &Origin) -> Vec<Duration> {
    let seen = origin.requests("/healthz");
    seen.iter().map(|request| request.at - seen[0].at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_change_at_the_thresholds_and_an_opposite_result_restarts_the_streak() {
    // Passes and failures, and the state and the streak after each.
    use HealthState::{Healthy, Unhealthy, Unknown};
    let steps = [
        (true, 1, Unknown),
        (true, 2, Unknown),
        (false, 1, Unknown),
        (true, 1, Unknown),
        (true, 2, Unknown),
        (true, 3, Healthy),
        (false, 1, Healthy),
        (true, 1, Healthy),
        (false, 1, Healthy),
        (false, 2, Unhealthy),
        (true, 1, Unhealthy),
        (true, 2, Unhealthy),
        (false, 1, Unhealthy),
        (true, 1, Unhealthy),
        (true, 2, Unhealthy),
        (true, 3, Healthy),
    ];
    let mut origin = Origin::new().on("/healthz");
    for (pass, ..) in steps {
        origin = origin.reply(if pass { 200 } else { 503 });
    }
    let origin = origin.start().await;
    let keys = "interval = \"120ms\"\nfast_interval = \"60ms\"\nhealthy_threshold = 3\nunhealthy_threshold = 2";
    let program = Program::start(&pool("api", &[&origin.text()], &check(keys))).await;
    let (end, mut seen) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        let now = only(&program).await;
        let done = usize::try_from(now.checks_total).expect("small");
        if done > steps.len() {
            break;
        }
        if done > 0 && seen.last() != Some(&done) {
            let (pass, count, state) = steps[done - 1];
            let streak = now.streak.expect("a run");
            assert_eq!((streak.result == Verdict::Pass, streak.count, now.state), (pass, count, state), "after {done}");
            assert_eq!(streak.needed, if pass { 3 } else { 2 });
            assert_eq!(now.eligible, state == Healthy, "after {done}");
            seen.push(done);
        }
        assert!(Instant::now() < end, "{now:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(seen.len() > steps.len() / 2, "too few of the steps were seen: {seen:?}");
    let changes = program.transitions("api", &origin.text()).await;
    let changes: Vec<_> = changes.iter().map(|change| (change.from, change.to)).collect();
    assert_eq!(changes, [(Unknown, Healthy), (Healthy, Unhealthy), (Unhealthy, Healthy)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_use_the_fast_interval_only_while_a_streak_is_open() {
    let origin = Origin::plain("a").await;
    let keys = "interval = \"2s\"\nfast_interval = \"50ms\"\nhealthy_threshold = 4\nunhealthy_threshold = 4";
    let program = Program::start(&pool("api", &[&origin.text()], &check(keys))).await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    let unknown = arrivals(&origin);
    assert_eq!(unknown.len(), 4, "{unknown:?}");
    // The fifth probe comes at the upstream's own slot, the sixth an interval later.
    assert_eventually("it rests", PATIENCE, || origin.count("/healthz") == 6).await;
    origin.set("/healthz", 503);
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    let all = arrivals(&origin);
    assert_eq!(all.len(), 10, "{all:?}");
    let gaps: Vec<Duration> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (fast, rest) = (Duration::from_millis(50), Duration::from_secs(2));
    // The time from the start of a probe to its arrival varies by less than half of either interval.
    for gap in [0, 1, 2, 6, 7, 8] {
        assert!((fast / 2..rest / 2).contains(&gaps[gap]), "gap {gap} is a fast interval: {gaps:?}");
    }
    for gap in [4, 5] {
        assert!((rest * 3 / 4..rest * 4).contains(&gaps[gap]), "gap {gap} is an interval: {gaps:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_start_period_failures_do_not_count_until_the_first_pass() {
    let origin = Origin::new().on("/healthz").reply(503).start().await;
    let keys = "interval = \"60s\"\nfast_interval = \"40ms\"\nstart_period = \"60s\"\nhealthy_threshold = 1\n\
                unhealthy_threshold = 1";
    let program = Program::start(&pool("api", &[&origin.text()], &check(keys))).await;
    // The interval is a minute, so that these probes come at the fast interval.
    assert_eventually("it hurries", PATIENCE, || origin.count("/healthz") >= 12).await;
    let now = only(&program).await;
    assert_eq!((now.state, now.transitions_total, now.eligible), (HealthState::Unknown, 0, false), "{now:?}");
    assert!(now.checks_total >= 10 && now.last_check.is_some_and(|last| last.status == Some(503)));
    origin.set("/healthz", 200);
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    // The start period is not over, but the upstream has passed: the next failure counts. A failed request brings the
    // next probe forward.
    origin.set("/healthz", 503);
    origin.set("/", Reply::reset());
    let end = Instant::now() + PATIENCE;
    while only(&program).await.state != HealthState::Unhealthy {
        assert!(Instant::now() < end, "{:?}", only(&program).await);
        let _ = fetch(program.web, "GET", "/").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_start_period_failures_count() {
    let origin = Origin::new().on("/healthz").reply(503).start().await;
    let keys = "interval = \"60s\"\nfast_interval = \"40ms\"\nstart_period = \"700ms\"\nunhealthy_threshold = 3";
    let program = Program::start(&pool("api", &[&origin.text()], &check(keys))).await;
    program.wait_for_state("api", &origin.text(), "unhealthy", PATIENCE).await;
    let seen = arrivals(&origin);
    let last = seen.last().expect("it was probed");
    assert!(*last >= Duration::from_millis(650), "the three failures that count come after the period: {seen:?}");
    assert!(seen.len() > 3, "earlier failures did not count: {seen:?}");
}

/// Linux answers a connect to a broadcast address with ENETUNREACH, whatever its routes: 127.255.255.255 is the
/// loopback's.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_network_is_a_failure_with_a_hint() {
    let unreachable = "127.255.255.255:8080";
    let program = Program::start(&pool("api", &[unreachable], QUICK)).await;
    program.wait_for_state("api", unreachable, "unhealthy", PATIENCE).await;
    let last = only(&program).await.last_check.expect("it was probed");
    assert_eq!((last.code.as_str(), last.result), ("L4CON", Some(Verdict::Fail)), "{last:?}");
    assert!(last.reason.contains("no route from this machine"), "{last:?}");
}

/// The process is stopped for longer than a verdict is valid without probes.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_stop_verdicts_are_stale_and_missed_probes_are_not_repeated() {
    let origin = Origin::plain("a").await;
    let keys = "interval = \"1s\"\nfast_interval = \"1s\"\nhealthy_threshold = 2";
    let program = Program::start_ready(&pool("api", &[&origin.text()], &check(keys))).await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    // No probe is in flight: its response would end a probe.
    let probes = only(&program).await.checks_total;
    let end = Instant::now() + PATIENCE;
    while only(&program).await.checks_total == probes {
        assert!(Instant::now() < end, "no probe ends");
    }
    program.signal(Signal::SIGSTOP);
    let before = origin.count("/healthz");
    tokio::time::sleep(Duration::from_millis(30_500)).await;
    assert_eq!(origin.count("/healthz"), before, "the stopped process sends no probe");
    program.signal(Signal::SIGCONT);
    let woken = Instant::now();
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    let changes = program.transitions("api", &origin.text()).await;
    let states: Vec<_> = changes.iter().map(|change| (change.from, change.to)).collect();
    use HealthState::{Healthy, Unknown};
    assert_eq!(states, [(Unknown, Healthy), (Healthy, Unknown), (Unknown, Healthy)], "{changes:?}");
    assert!(changes[1].reason.contains("stale") || changes[1].code.as_deref() == Some("stale"), "{:?}", changes[1]);
    let (made, took) = (origin.count("/healthz") - before, woken.elapsed());
    assert!(made <= took.as_secs() + 2, "{made} probes in {took:?} after 30 missed ones");
    program.assert_no_panic();
}

in_each_lane!(disabled_and_draining_upstreams_are_probed_and_get_verdicts, flavor = "multi_thread");
async fn disabled_and_draining_upstreams_are_probed_and_get_verdicts() {
    let (out, other) = (Origin::plain("out").await, Origin::plain("other").await);
    let program = Program::start_ready(&pool(
        "api",
        &[&out.text(), &other.text()],
        &check(QUICK.trim_end_matches("jitter = 0\n")),
    ))
    .await;
    let order = async |word: &str| {
        let path = format!("/api/v1/pools/api/upstreams/{}/{word}", out.text());
        assert_eq!(fetch(program.admin, "POST", &path).await.0, 200, "{word}");
    };
    for (word, back) in [("disable", "enable"), ("drain", "undrain")] {
        program.wait_for_state("api", &out.text(), "healthy", PATIENCE).await;
        order(word).await;
        let served = out.count("/");
        for (status, state) in [(503, "unhealthy"), (200, "healthy"), (503, "unhealthy"), (200, "healthy")] {
            out.set("/healthz", status);
            program.wait_for_state("api", &out.text(), state, PATIENCE).await;
            let now = program.upstream("api", &out.text()).await.expect("status lists it");
            assert!(!now.eligible, "{word}: {now:?}");
            assert_eq!(get(program.web, "/").await.text(), "hello from other", "{word}");
        }
        assert_eq!(out.count("/"), served, "{word}");
        order(back).await;
        let end = Instant::now() + PATIENCE;
        while out.count("/") == served {
            assert_eq!(get(program.web, "/").await.status, 200);
            assert!(Instant::now() < end, "it does not serve again after {back}");
        }
    }
    program.assert_no_panic();
}

/// Three checks on three paths of one upstream, two of which fail or pass in turn.
#[tokio::test(flavor = "multi_thread")]
async fn several_checks_are_combined_as_require_says() {
    let paths = ["/one", "/two", "/three"];
    // How many of the three pass, and whether that is enough for `all`, `any`, and 2.
    let table = [(3, [true, true, true]), (2, [false, true, true]), (1, [false, true, false]), (0, [false; 3])];
    for (column, require) in ["\"all\"", "\"any\"", "2"].into_iter().enumerate() {
        let origin = Origin::plain("a").await;
        let list: Vec<String> = paths.iter().map(|path| format!("{{ type = \"http\", path = \"{path}\" }}")).collect();
        let check = format!("{QUICK}require = {require}\nchecks = [{}]\n", list.join(", "));
        let program = Program::start(&pool("api", &[&origin.text()], &check)).await;
        // Down and up again, so that each verdict is reached in both directions.
        for (passing, enough) in table.iter().chain(table.iter().rev()) {
            for (index, path) in paths.iter().enumerate() {
                origin.set(path, if index < *passing { 200 } else { 503 });
            }
            let end = Instant::now() + PATIENCE;
            let wanted = |passes| if passes { HealthState::Healthy } else { HealthState::Unhealthy };
            loop {
                let now = only(&program).await;
                let each: Vec<_> = now.checks.iter().map(|check| check.state).collect();
                if each == [0, 1, 2].map(|index| wanted(index < *passing)) {
                    let context = format!("{passing} of three pass, require = {require}: {now:?}");
                    assert_eq!(now.state, wanted(enough[column]), "{context}");
                    assert_eq!(now.eligible, enough[column], "{context}");
                    break;
                }
                assert!(Instant::now() < end, "{passing} should pass, require = {require}: {now:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        program.assert_no_panic();
    }
}

/// The rows of the tables above: the rule, and the path of its test.
fn rows() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/health.rs")).expect("this");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix("` |")?.split_once(" | `"));
    rows.map(|(row, test)| (row.to_owned(), test.to_owned())).collect()
}

#[test]
fn every_row_of_the_tables_names_an_existing_test() {
    let rows = rows();
    assert!(rows.len() >= 25, "{rows:?}");
    for (row, test) in &rows {
        assert_exists(row, test);
    }
}

#[test]
fn every_row_of_what_happens_when_names_an_existing_test() {
    let text = std::fs::read_to_string("docs/what-happens-when.md").expect("the document");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| when …")).collect();
    assert!(rows.len() >= 30, "{}", rows.len());
    for row in rows {
        let test = row.trim_end_matches(" |").rsplit(" | ").next().expect("a cell").trim_matches('`');
        assert_exists(row, test);
    }
}

/// A test of this path is declared.
fn assert_exists(row: &str, test: &str) {
    let (module, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{row}: {test} is no path of a test"));
    let place = module.replace("::", "/");
    let files = [format!("tests/it/{place}.rs"), format!("src/{place}.rs"), format!("src/{place}/tests.rs")];
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect::<Vec<_>>();
    assert!(!texts.is_empty(), "{row}: no module {module}");
    let declared = |text: &String| {
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let wanted = [format!("fn {name}("), format!("async fn {name}(")];
        let at = lines.iter().position(|line| wanted.iter().any(|start| line.starts_with(start.as_str())));
        let in_lanes = ["in_each_lane", "once"].map(|of| format!("{of}!({name}"));
        let words: String = text.split_whitespace().collect();
        in_lanes.iter().any(|call| words.contains(call.as_str()))
            || at.is_some_and(|at| at > 0 && lines[at - 1].starts_with("#[") && lines[at - 1].contains("test"))
    };
    assert!(texts.iter().any(declared), "{row}: no test {name} in {module}");
}
