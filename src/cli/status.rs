//! `roundsman status`: pools and upstreams at a glance.

use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::args::StatusArgs;
use super::client::{self, Ask};
use super::text::{self, Cell, Colour, Paint, colour_of};
use super::{Failure, locate};
use crate::admin::json::{CheckInfo, LastCheckInfo, PoolInfo, StatusReply, StreakInfo, UpstreamInfo, Verdict};

/// The longest reason in the table, in characters; `--json` has the whole.
const WHY_CHARS_MAX: usize = 160;

/// Asks and prints.
pub fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.process)?;
    let answer = client::ask_now(&target, Ask::get("/api/v1/status"))?;
    let status: StatusReply = answer.json(&[StatusCode::OK])?;
    if args.json {
        text::print(&String::from_utf8_lossy(&answer.body))?;
    } else {
        text::print(&render(&status, Timestamp::now(), Paint::for_stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The table.
fn render(status: &StatusReply, now: Timestamp, paint: Paint) -> String {
    let mut out = headline(status, paint);
    if let Some(last) = &status.config.last_reload
        && let Some(error) = &last.error
    {
        let when = text::ago(&last.at, now).map_or_else(String::new, |ago| format!(" {} ago", text::glance(ago)));
        let line = format!("last reload {}{when}: {}", last.result, text::one_line(error));
        out.push_str(&paint.text(colour_of(last.result.as_str()), &line));
        out.push('\n');
    }
    if status.checker.stale {
        let line = "the checker does not run now: verdicts may be out of date\n";
        out.push_str(&paint.text(Some(Colour::Yellow), line));
    }
    for (name, pool) in &status.pools.0 {
        out.push('\n');
        out.push_str(&pool_line(name, pool, paint));
        out.push_str(&text::table(&upstream_rows(pool, now), "  ", paint));
    }
    out
}

fn headline(status: &StatusReply, paint: Paint) -> String {
    let state = status.state.as_str();
    let ready = if status.ready { "ready" } else { "not ready" };
    let up = text::glance(Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default());
    let file = status.config.file.as_deref().map_or_else(String::new, |file| format!(" of {}", text::one_line(file)));
    format!(
        "roundsman {}  {}, {ready}, up {up}  generation {}{file}\n",
        text::one_line(&status.version),
        paint.text(colour_of(state), state),
        status.generation,
    )
}

fn pool_line(name: &str, pool: &PoolInfo, paint: Paint) -> String {
    let word = pool.status.as_str();
    let name = paint.text(Some(Colour::Bold), &text::one_line(name));
    let mut line = format!("{name}  {}  {}/{} healthy", paint.text(colour_of(word), word), pool.healthy, pool.total);
    if pool.fail_open {
        line.push_str(", fail open: upstreams that are not healthy are in use");
    }
    if pool.warming {
        line.push_str(", warming: removed upstreams serve until a new one is healthy");
        if let Some(seconds) = pool.warming_seconds {
            line.push_str(&format!(", {seconds:.0} s at most"));
        }
    }
    if pool.waiting > 0 {
        line.push_str(&format!(", {} requests waiting", pool.waiting));
    }
    line.push('\n');
    line
}

fn upstream_rows(pool: &PoolInfo, now: Timestamp) -> Vec<Vec<Cell>> {
    let dim = |cell: Cell| cell.colour(Some(Colour::Dim));
    let head = vec![
        dim(Cell::left("UPSTREAM")),
        dim(Cell::left("STATE")),
        dim(Cell::right("SINCE")),
        dim(Cell::right("IN FLIGHT")),
        dim(Cell::right("REQUESTS")),
        dim(Cell::left("WHY")),
    ];
    let rows = pool
        .upstreams
        .iter()
        .flat_map(|upstream| std::iter::once(upstream_row(upstream, now)).chain(upstream.checks.iter().map(check_row)));
    std::iter::once(head).chain(rows).collect()
}

/// One of several checks, below its upstream.
fn check_row(check: &CheckInfo) -> Vec<Cell> {
    let failed = |last: &&LastCheckInfo| last.result != Some(Verdict::Pass);
    let reason = check.last_check.as_ref().filter(failed).map(|last| format!("{}: {}", last.code, last.reason));
    let none = || Cell::left("");
    vec![
        Cell::left(format!("  check {}", text::one_line(&check.name))),
        Cell::left(check.state.as_str()).colour(colour_of(check.state.as_str())),
        none(),
        none(),
        none(),
        Cell::left(with_progress(reason.as_deref(), check.streak)),
    ]
}

fn upstream_row(upstream: &UpstreamInfo, now: Timestamp) -> Vec<Cell> {
    let mut state = upstream.state.as_str().to_string();
    for mark in upstream.marks() {
        state.push_str(", ");
        state.push_str(mark);
    }
    let colour = if upstream.eligible || upstream.state != crate::model::HealthState::Healthy {
        colour_of(upstream.state.as_str())
    } else {
        Some(Colour::Yellow)
    };
    vec![
        Cell::left(match &upstream.name {
            Some(name) => format!("{} {name}", upstream.address),
            None => upstream.address.clone(),
        }),
        Cell::left(state).colour(colour),
        Cell::right(text::ago(&upstream.since, now).map_or_else(|| "?".to_string(), text::glance)),
        Cell::right(upstream.in_flight.to_string()),
        Cell::right(upstream.requests_total.to_string()),
        Cell::left(why(upstream)),
    ]
}

/// Why it is not healthy or not eligible; for one on its way, how far it is.
fn why(upstream: &UpstreamInfo) -> String {
    with_progress(upstream.why.as_deref(), upstream.streak)
}

fn with_progress(whole: Option<&str>, streak: Option<StreakInfo>) -> String {
    let mut why: String = whole.unwrap_or("").chars().take(WHY_CHARS_MAX).collect();
    if whole.is_some_and(|whole| whole.len() > why.len()) {
        why.push('…');
    }
    let Some(streak) = streak.filter(|streak| streak.count < streak.needed) else { return why };
    let word = match streak.result {
        Verdict::Pass => "passes",
        Verdict::Fail => "failures",
    };
    let progress = format!("{} of {} {word}", streak.count, streak.needed);
    match why.as_str() {
        "" => progress,
        said if said.contains(&progress) => why,
        _ => format!("{why} ({progress})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn upstream(address: &str, state: &str, eligible: bool, more: serde_json::Value) -> serde_json::Value {
        let mut value = json!({
            "address": address, "state": state, "eligible": eligible, "why": null, "since": "2026-11-21T09:57:55.000Z",
            "weight": 1, "backup": false, "admin": "enabled", "ejected": false, "carried": false, "retiring": false,
            "in_flight": 2, "requests_total": 1234, "connections": 2, "connect_failures_total": 0, "broken_total": 0,
            "streak": { "result": "pass", "count": 30, "needed": 2 }, "checks_total": 30, "transitions_total": 1,
            "last_check": null,
        });
        for (key, changed) in more.as_object().expect("an object") {
            value[key] = changed.clone();
        }
        value
    }

    fn status() -> StatusReply {
        let sick = json!({
            "why": "status 503, expected 200-299; body: \"\u{1b}[2Jdown\"", "in_flight": 0, "requests_total": 9,
            "since": "2026-11-21T09:59:48.000Z", "streak": { "result": "pass", "count": 1, "needed": 2 },
        });
        let drained = json!({ "admin": "draining", "why": "draining", "backup": true });
        serde_json::from_value(json!({
            "version": "0.1.0", "generation": 3, "uptime_seconds": 7384.2, "state": "running", "ready": true,
            "config": { "file": "roundsman.toml", "loaded_at": "2026-11-21T08:00:00.000Z", "last_reload": {
                "result": "refused", "at": "2026-11-21T09:59:00.000Z", "error": "roundsman.toml:3: unknown key" } },
            "checker": { "stale": false, "restarts_total": 0, "probe_panics_total": 0, "probes_in_flight": 0 },
            "pools": { "api": { "status": "degraded", "healthy": 2, "total": 3, "eligible": 1, "fail_open": false,
                "warming": false, "waiting": 0, "upstreams": [
                    upstream("10.0.0.1:8080", "healthy", true, json!({})),
                    upstream("10.0.0.2:8080", "unhealthy", false, sick),
                    upstream("[2001:db8::3]:8080", "healthy", false, drained),
                ] } },
        }))
        .expect("the contract's shape")
    }

    #[test]
    fn the_table_is_read_at_a_glance() {
        let now = "2026-11-21T10:00:00.000Z".parse().unwrap();
        let want = r#"roundsman 0.1.0  running, ready, up 2h 3m  generation 3 of roundsman.toml
last reload refused 1m ago: roundsman.toml:3: unknown key

api  degraded  2/3 healthy
  UPSTREAM            STATE                     SINCE  IN FLIGHT  REQUESTS  WHY
  10.0.0.1:8080       healthy                   2m 5s          2      1234
  10.0.0.2:8080       unhealthy                   12s          0         9  status 503, expected 200-299; body: "\u{1b}[2Jdown" (1 of 2 passes)
  [2001:db8::3]:8080  healthy, draining, backup  2m 5s          2      1234  draining
"#;
        let shown = render(&status(), now, Paint::off());
        let squeeze =
            |text: &str| text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(squeeze(&shown), squeeze(want), "{shown}");
        assert!(!shown.contains('\x1b'));
        let column = |line: &str, word: &str| line.find(word).expect("the word");
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(column(lines[4], "STATE"), column(lines[5], "healthy"), "{shown}");
        assert_eq!(column(lines[4], "WHY"), lines[7].rfind("draining").expect("the word"), "{shown}");
    }

    #[test]
    fn several_checks_stand_below_their_upstream() {
        let now = "2026-11-21T10:00:00.000Z".parse().unwrap();
        let last = json!({ "at": "2026-11-21T09:59:59.000Z", "result": "fail", "code": "L4CON", "status": null,
            "duration_ms": 1.0, "reason": "connection refused" });
        let more = json!({
            "name": "api", "unverified": true, "why": "check tcp: L4CON: connection refused",
            "checks": [
                { "name": "https", "state": "healthy", "streak": null, "last_check": null },
                { "name": "tcp", "state": "unhealthy", "streak": { "result": "fail", "count": 4, "needed": 3 },
                  "last_check": last },
            ],
        });
        let mut status = status();
        let changed = upstream("10.0.0.1:8080", "unhealthy", false, more);
        status.pools.0[0].1.upstreams[0] = serde_json::from_value(changed).unwrap();
        let shown = render(&status, now, Paint::off());
        let words: Vec<String> =
            shown.lines().skip(5).take(3).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            words,
            [
                "10.0.0.1:8080 api unhealthy, unverified 2m 5s 2 1234 check tcp: L4CON: connection refused",
                "check https healthy",
                "check tcp unhealthy L4CON: connection refused",
            ]
        );
    }
}
