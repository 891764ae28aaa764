//! `roundsman status`: pools and upstreams as tables; all, one pool, or only unhealthy ones; once, or repeated every
//! second.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::Value;

use super::args::StatusArgs;
use super::client::{self, Answer, Ask};
use super::table::{Cell, Column, Row, table, wrap};
use super::text::{self, Colour, Paint, colour_of};
use super::{Failure, identity, locate, watch};
use crate::admin::json::{
    CheckInfo, LastCheckInfo, LastReloadInfo, PoolInfo, PoolWord, StatusReply, StreakInfo, UpstreamInfo, Verdict,
};
use crate::model::{HealthState, lookup};

/// The longest reason in the table, in characters; `--json` has the full text.
const WHY_CHARS_MAX: usize = 160;

/// The most pools that the summary names.
const POOLS_NAMED_MAX: usize = 6;

/// The part of a status to show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// Only this pool.
    pub pool: Option<&'a str>,
    /// Only what is not healthy or takes no requests.
    pub unhealthy: bool,
    /// The worst pools first, and not in the order of the file: where the end may not be seen.
    pub worst_first: bool,
}

/// Fetches the status and prints it, with `--watch` until interrupted.
pub fn run(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.process)?;
    let choice = Choice { pool: args.pool.as_deref(), unhealthy: args.unhealthy, worst_first: args.watch };
    let show = |answer: &Answer| {
        if args.json { as_json(answer, choice) } else { for_people(answer, choice, Paint::for_stdout()) }
    };
    if args.watch {
        return watch::run(&target, "/api/v1/status", args.json, show);
    }
    text::print(&show(&client::ask_now(&target, Ask::get("/api/v1/status"))?)?)?;
    Ok(ExitCode::SUCCESS)
}

fn for_people(answer: &Answer, choice: Choice<'_>, paint: Paint) -> Result<String, Failure> {
    let mut status: StatusReply = answer.json(&[StatusCode::OK])?;
    let names: Vec<String> = status.pools.0.iter().map(|(name, _)| name.clone()).collect();
    let total = names.len();
    choose(&mut status, choice, names)?;
    if choice.worst_first {
        status.pools.0.sort_by_key(|(_, pool)| pool.status.urgency());
    }
    let columns = text::screen().map(|(columns, _)| columns);
    let mut out = render(&status, SystemTime::now(), columns, paint);
    if choice.unhealthy && status.pools.0.is_empty() {
        let all = match (choice.pool, total) {
            (Some(pool), _) => format!("pool {} is healthy", text::one_line(pool)),
            (None, 1) => "the only pool is healthy".to_owned(),
            (None, 2) => "both pools are healthy".to_owned(),
            (None, total) => format!("all {total} pools are healthy"),
        };
        out.push_str(&format!("\n{}\n", paint.text(Some(Colour::Green), &all)));
    }
    Ok(out)
}

/// Removes the pools and upstreams that were not chosen.
fn choose(status: &mut StatusReply, choice: Choice<'_>, names: Vec<String>) -> Result<(), Failure> {
    if let Some(pool) = choice.pool {
        status.pools.0.retain(|(name, _)| name == pool);
        if status.pools.0.is_empty() {
            let file = if pool.ends_with(".toml") || pool.contains('/') {
                "; use -c FILE for a configuration file"
            } else {
                ""
            };
            return Err(Failure::NotFound(format!("{}{file}", lookup::no_pool(pool, names.into_iter()))));
        }
    }
    if choice.unhealthy {
        status.pools.0.iter_mut().for_each(|(_, pool)| pool.upstreams.retain(needs_attention));
        status.pools.0.retain(|(_, pool)| pool.status != PoolWord::Healthy || !pool.upstreams.is_empty());
    }
    Ok(())
}

/// Whether an upstream is not healthy, or takes no requests.
fn needs_attention(upstream: &UpstreamInfo) -> bool {
    upstream.state != HealthState::Healthy || !upstream.eligible
}

/// The JSON of the API, reduced to the chosen part. Keys unknown to this version are kept.
fn as_json(answer: &Answer, choice: Choice<'_>) -> Result<String, Failure> {
    let mut status: StatusReply = answer.json(&[StatusCode::OK])?;
    if choice.pool.is_none() && !choice.unhealthy {
        return Ok(String::from_utf8_lossy(&answer.body).into_owned());
    }
    let names: Vec<String> = status.pools.0.iter().map(|(name, _)| name.clone()).collect();
    choose(&mut status, choice, names)?;
    let mut whole: Value = answer.json(&[StatusCode::OK])?;
    if let Some(pools) = whole.get_mut("pools").and_then(Value::as_object_mut) {
        pools.retain(|name, _| status.pools.get(name).is_some());
        for (name, pool) in pools.iter_mut() {
            let shown = status.pools.get(name).map_or(&[][..], |pool| &pool.upstreams);
            let shows = |address: Option<&str>| shown.iter().any(|upstream| Some(&*upstream.address) == address);
            if let Some(upstreams) = pool.get_mut("upstreams").and_then(Value::as_array_mut) {
                upstreams.retain(|upstream| shows(upstream.get("address").and_then(Value::as_str)));
            }
        }
    }
    Ok(format!("{whole}\n"))
}

/// The tables, for a terminal with `columns` columns; `None` if stdout is not a terminal.
fn render(status: &StatusReply, now: SystemTime, columns: Option<usize>, paint: Paint) -> String {
    let mut out = fold(&headline(status, paint), columns, paint, None);
    if let Some(last) = &status.config.last_reload
        && let Some(error) = &last.error
    {
        out.push_str(&fold(&last_reload(last, error, now), columns, paint, colour_of(last.result.as_str())));
    }
    if status.checker.stale {
        let line = "the checker is not running: verdicts may be out of date";
        out.push_str(&fold(line, columns, paint, Some(Colour::Yellow)));
    }
    if let Some(summary) = summary(&status.pools.0) {
        out.push_str(&fold(&summary, columns, paint, Some(Colour::Yellow)));
    }
    for (name, pool) in &status.pools.0 {
        out.push('\n');
        out.push_str(&fold(&pool_line(name, pool, now, paint), columns, paint, None));
        if !pool.upstreams.is_empty() {
            out.push_str(&table(columns_of(pool), "WHY", &upstream_rows(pool, now), "  ", columns, paint));
        }
    }
    out
}

/// Wraps each line of a text at `columns` and colours it; continuation lines are indented.
fn fold(text: &str, columns: Option<usize>, paint: Paint, colour: Option<Colour>) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let wide = columns.is_some_and(|columns| text::visible_width(line) > columns);
        let indent = line.len() - line.trim_start().len() + if wide { 2 } else { 0 };
        let parts = match columns {
            Some(columns) if wide => wrap(line, columns.saturating_sub(indent)),
            Some(_) | None => vec![line.trim_start().to_owned()],
        };
        for (number, part) in parts.iter().enumerate() {
            let indent = " ".repeat(if number == 0 && wide { indent - 2 } else { indent });
            out.push_str(&format!("{indent}{}\n", paint.text(colour, part)));
        }
    }
    out
}

fn last_reload(last: &LastReloadInfo, error: &str, now: SystemTime) -> String {
    let when = text::ago(&last.at, now).map_or_else(String::new, |ago| format!(" {} ago", text::glance(ago)));
    format!("last reload {}{when}: {}", last.result, text::several(error, "  "))
}

fn headline(status: &StatusReply, paint: Paint) -> String {
    let state = status.state.as_str();
    let ready = if status.ready { "ready" } else { "not ready" };
    let up = text::glance(Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default());
    let file = status.config.file.as_deref().map_or_else(String::new, |file| format!(" of {}", text::one_line(file)));
    let process = match status.pid {
        // An older version.
        0 => String::new(),
        pid => format!("  process {pid}{}", identity::listens(&status.listeners)),
    };
    format!(
        "roundsman {}  {}, {ready}, up {up}  generation {}{file}{process}",
        text::one_line(&status.version),
        paint.text(colour_of(state), state),
        status.generation,
    )
}

/// Which of several pools are in trouble, the worst first; `None` where there is one, whose own line says it, or where all is well.
pub fn summary(pools: &[(String, PoolInfo)]) -> Option<String> {
    let mut troubled: Vec<_> = pools.iter().filter(|(_, pool)| pool.status != PoolWord::Healthy).collect();
    troubled.sort_by_key(|(_, pool)| pool.status.urgency());
    if troubled.is_empty() || pools.len() == 1 {
        return None;
    }
    let named = |(name, pool): &&(String, PoolInfo)| format!("{} is {}", text::one_line(name), pool.status);
    let mut list: Vec<String> = troubled.iter().take(POOLS_NAMED_MAX).map(named).collect();
    if let Some(more) = troubled.len().checked_sub(POOLS_NAMED_MAX).filter(|more| *more > 0) {
        list.push(format!("{more} more"));
    }
    let verb = if troubled.len() == 1 { "is" } else { "are" };
    Some(format!("{} of {} pools {verb} in trouble: {}", troubled.len(), pools.len(), list.join(", ")))
}

/// One pool on one line.
pub fn pool_line(name: &str, pool: &PoolInfo, now: SystemTime, paint: Paint) -> String {
    let word = pool.status.as_str();
    let name = paint.text(Some(Colour::Bold), &text::one_line(name));
    let mut line = format!("{name}  {}  {}/{} healthy", paint.text(colour_of(word), word), pool.healthy, pool.total);
    match pool.serving() {
        None => {}
        Some(0) => line.push_str(", none takes requests"),
        Some(1) => line.push_str(", 1 takes requests"),
        Some(some) => line.push_str(&format!(", {some} take requests")),
    }
    match pool.failing() {
        0 => {}
        1 => line.push_str(", 1 fails its requests"),
        several => line.push_str(&format!(", {several} fail their requests")),
    }
    if let Some((outage, since)) = pool.outage().zip(pool.down_since.as_ref()) {
        let time = text::ago(since, now).map_or_else(String::new, |ago| format!(" (for {})", text::glance(ago)));
        line.push_str(&format!(", {}{time}", text::one_line(&outage)));
    }
    if pool.warming {
        line.push_str(", warming: removed upstreams serve until a new one is healthy");
        if let Some(seconds) = pool.warming_seconds {
            line.push_str(&format!(", at most {seconds:.0} s"));
        }
    }
    if pool.waiting > 0 {
        line.push_str(&format!(", {} requests waiting", pool.waiting));
    }
    line
}

/// Columns that do not fit the terminal are left out, those with the greatest `spare` first; the state always stays.
const COLUMNS: [Column; 8] = [
    Column { head: "UPSTREAM", right: false, spare: 0 },
    Column { head: "STATE", right: false, spare: 0 },
    Column { head: "SINCE", right: true, spare: 1 },
    Column { head: "FLIGHT", right: true, spare: 4 },
    Column { head: "REQUESTS", right: true, spare: 3 },
    Column { head: "ERRORS", right: true, spare: 2 },
    Column { head: "LATENCY", right: true, spare: 5 },
    WEIGHT,
];

/// The weight that each takes now; only where one takes more or less than 1.
const WEIGHT: Column = Column { head: "WEIGHT", right: true, spare: 6 };

fn columns_of(pool: &PoolInfo) -> &'static [Column] {
    let weighs = pool.upstreams.iter().any(|upstream| upstream.weight_now() != 1.0);
    &COLUMNS[..COLUMNS.len() - usize::from(!weighs)]
}

fn upstream_rows(pool: &PoolInfo, now: SystemTime) -> Vec<Row> {
    let columns = columns_of(pool).len();
    let rows = pool
        .upstreams
        .iter()
        .flat_map(|upstream| std::iter::once(upstream_row(upstream, now)).chain(upstream.checks.iter().map(check_row)));
    rows.map(|mut row| {
        row.cells.resize(columns, Cell::default());
        row
    })
    .collect()
}

/// One of several checks, below its upstream.
fn check_row(check: &CheckInfo) -> Row {
    let failed = |last: &&LastCheckInfo| last.result != Some(Verdict::Pass);
    let reason = check.last_check.as_ref().filter(failed).map(|last| format!("{}: {}", last.code, last.reason));
    let cells = vec![
        Cell::new(format!("  check {}", check.name)),
        Cell::new(check.state.as_str()).colour(colour_of(check.state.as_str())),
    ];
    Row { cells, note: with_progress(reason.as_deref(), check.streak) }
}

fn upstream_row(upstream: &UpstreamInfo, now: SystemTime) -> Row {
    let mut state = upstream.state.as_str().to_string();
    for mark in upstream.marks() {
        state.push_str(", ");
        state.push_str(mark);
    }
    let colour = if upstream.eligible || upstream.state != HealthState::Healthy {
        colour_of(upstream.state.as_str())
    } else {
        Some(Colour::Yellow)
    };
    let errors = upstream.errors_total();
    let cells = vec![
        Cell::new(match upstream.name_beside() {
            Some(name) => format!("{} {name}", upstream.address),
            None => upstream.address.clone(),
        }),
        Cell::new(state).colour(colour),
        Cell::new(text::ago(&upstream.since, now).map_or_else(|| "?".to_string(), text::glance)),
        Cell::new(upstream.in_flight.to_string()),
        Cell::new(upstream.requests_total.to_string()),
        Cell::new(errors.to_string()).colour((errors > 0).then_some(Colour::Yellow)),
        Cell::new(upstream.latency().map_or_else(|| "-".to_owned(), text::short)),
        Cell::new(weight(upstream)),
    ];
    Row { cells, note: why(upstream) }
}

/// With at most two digits after the point, and without those that are 0.
fn weight(upstream: &UpstreamInfo) -> String {
    let text = format!("{:.2}", upstream.weight_now());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Why it is not healthy or not eligible, and the progress of a streak below its threshold.
fn why(upstream: &UpstreamInfo) -> String {
    with_progress(upstream.why.as_deref(), upstream.streak)
}

fn with_progress(whole: Option<&str>, streak: Option<StreakInfo>) -> String {
    let why = shortened(whole.unwrap_or(""));
    let Some(streak) = streak.filter(|streak| streak.count < streak.needed) else { return why };
    let word = match streak.result {
        Verdict::Pass => "passes",
        Verdict::Fail => "failures",
    };
    let progress = format!("{} of {} {word}", streak.count, streak.needed);
    match why.as_str() {
        "" => progress,
        text if text.contains(&progress) => why,
        _ => format!("{why} ({progress})"),
    }
}

/// At most [`WHY_CHARS_MAX`] characters, without the middle rather than without the hint at the end.
fn shortened(why: &str) -> String {
    let count = |text: &str| text.chars().count();
    if count(why) <= WHY_CHARS_MAX {
        return why.to_owned();
    }
    let hint = why.rfind(" (").map(|at| &why[at..]).filter(|hint| hint.ends_with(')'));
    let hint = hint.filter(|hint| count(hint) <= WHY_CHARS_MAX * 3 / 4).unwrap_or("");
    let head: String = why.chars().take(WHY_CHARS_MAX - count(hint)).collect();
    format!("{head}…{hint}")
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
            "why": "status 503, expected 200-299; body: \"\u{1b}[2Jdown\"", "in_flight": 0, "requests_total": 9, "broken_total": 7,
            "since": "2026-11-21T09:59:48.000Z", "streak": { "result": "pass", "count": 1, "needed": 2 },
        });
        let checked = json!({ "at": "2026-11-21T09:59:59.000Z", "result": "pass", "code": "L7OK", "status": 200,
            "duration_ms": 1.9, "reason": "200 in 1.9 ms" });
        let drained = json!({ "admin": "draining", "why": "draining", "backup": true });
        serde_json::from_value(json!({
            "version": "0.1.0", "generation": 3, "pid": 4242, "uptime_seconds": 7384.2, "state": "running", "ready": true,
            "listeners": [{ "name": "web", "address": "127.0.0.1:8080" }, { "name": "x", "address": "unix:/run/web.sock" }],
            "config": { "file": "roundsman.toml", "loaded_at": "2026-11-21T08:00:00.000Z", "last_reload": {
                "result": "refused", "at": "2026-11-21T09:59:00.000Z", "error": "roundsman.toml:3: unknown key\nroundsman.toml:9: bad" } },
            "checker": { "stale": false, "restarts_total": 0, "probe_panics_total": 0, "probes_in_flight": 0 },
            "pools": { "api": { "status": "degraded", "healthy": 2, "total": 3, "eligible": 1, "fail_open": false,
                "warming": false, "waiting": 0, "upstreams": [
                    upstream("10.0.0.1:8080", "healthy", true, json!({ "last_check": checked })),
                    upstream("10.0.0.2:8080", "unhealthy", false, sick),
                    upstream("[2001:db8::3]:8080", "healthy", false, drained),
                ] } },
        }))
        .expect("the contract's shape")
    }

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-11-21T10:00:00.000Z").unwrap()
    }

    fn answer(status: &StatusReply) -> Answer {
        Answer::of("GET /api/v1/status", StatusCode::OK, serde_json::to_vec(status).unwrap())
    }

    #[test]
    fn without_a_terminal_every_upstream_is_one_complete_line() {
        let want = r#"roundsman 0.1.0  running, ready, up 2h 3m  generation 3 of roundsman.toml  process 4242, listens on 127.0.0.1:8080, unix:/run/web.sock
last reload refused 1m ago: 2 mistakes
  roundsman.toml:3: unknown key
  roundsman.toml:9: bad

api  degraded  2/3 healthy, 1 takes requests
  UPSTREAM            STATE                       SINCE  FLIGHT  REQUESTS  ERRORS  LATENCY  WHY
  10.0.0.1:8080       healthy                     2m 5s       2      1234       0   1.9 ms
  10.0.0.2:8080       unhealthy                     12s       0         9       7        -  status 503, expected 200-299; body: "\u{1b}[2Jdown" (1 of 2 passes)
  [2001:db8::3]:8080  healthy, draining, backup  2m 5s       2      1234       0        -  draining
"#;
        let shown = render(&status(), now(), None, Paint::off());
        let squeeze =
            |text: &str| text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(squeeze(&shown), squeeze(want), "{shown}");
        assert!(!shown.contains('\x1b'));
        let column = |line: &str, word: &str| line.find(word).expect("the word");
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(column(lines[6], "STATE"), column(lines[7], "healthy"), "{shown}");
        assert_eq!(column(lines[6], "WHY"), lines[9].rfind("draining").expect("the word"), "{shown}");
    }

    #[test]
    fn weights_are_a_column_where_one_is_not_1() {
        let mut status = status();
        let upstreams = &mut status.pools.0[0].1.upstreams;
        upstreams[0].weight = 3;
        upstreams[0].degraded = Some(0.25);
        upstreams[2].weight = 100;
        let shown = render(&status, now(), None, Paint::off());
        let rows: Vec<Vec<&str>> = shown.lines().skip(6).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][6..9], ["LATENCY", "WEIGHT", "WHY"], "{shown}");
        assert_eq!(rows[1][1..4], ["healthy,", "degraded", "2m"], "{shown}");
        assert_eq!(rows[1].last(), Some(&"0.75"), "{shown}");
        assert_eq!(rows[2][7], "1", "{shown}");
        assert!(rows[3].contains(&"100"), "{shown}");
    }

    #[test]
    fn a_long_reason_keeps_its_hint() {
        let (body, hint) = ("x".repeat(300), "(Authorization is read from /run/token, which has changed since)");
        for (why, end) in [
            (format!("L7STS: status 401; body: \"{body}\" {hint}"), format!("xx… {hint}")),
            (format!("L7STS: status 401; body: \"{body}\""), "xxx…".to_owned()),
            (format!("L7STS: status 401; ({body})"), "xxx…".to_owned()),
            (format!("L7STS: status 401 {hint}"), format!("status 401 {hint}")),
        ] {
            let short = shortened(&why);
            assert!(short.starts_with("L7STS: status 401") && short.ends_with(&end), "{short}");
            assert!(short.chars().count() <= WHY_CHARS_MAX + 1, "{short}");
        }
    }

    #[test]
    fn every_line_fits_the_terminal() {
        for columns in [30, 40, 60, 80, 100, 200] {
            for paint in [Paint::off(), Paint::on()] {
                let shown = render(&status(), now(), Some(columns), paint);
                for line in shown.lines() {
                    assert!(text::visible_width(line) <= columns, "{columns}: {line:?}\n{shown}");
                }
                for word in ["unhealthy", "expected", "roundsman.toml:9:", "2/3"] {
                    assert!(shown.contains(word), "{word} is missing at {columns}:\n{shown}");
                }
            }
        }
        let shown = render(&status(), now(), Some(80), Paint::off());
        assert!(shown.contains("REQUESTS  ERRORS\n"), "80 columns have room for requests and errors:\n{shown}");
    }

    #[test]
    fn one_pool_or_only_unhealthy_ones_can_be_shown() {
        let mut two = status();
        let mut well = two.pools.0[0].1.clone();
        (well.status, well.upstreams) = (PoolWord::Healthy, well.upstreams[..1].to_vec());
        two.pools.0.push(("web".into(), well));
        let answer = answer(&two);
        let show = |pool, unhealthy| for_people(&answer, Choice { pool, unhealthy, worst_first: false }, Paint::off());
        let web = show(Some("web"), false).unwrap();
        assert!(web.contains("\nweb  healthy") && !web.contains("api"), "{web}");
        let bad = show(None, true).unwrap();
        assert!(bad.contains("10.0.0.2:8080") && bad.contains("[2001:db8::3]:8080"), "{bad}");
        assert!(!bad.contains("10.0.0.1:8080") && !bad.contains("\nweb  "), "{bad}");
        assert!(show(Some("web"), true).unwrap().ends_with("\n\npool web is healthy\n"));
        let none = show(Some("apy"), false).unwrap_err().to_string();
        assert_eq!(none, "there is no pool \"apy\"; did you mean api?; the pools are api, web");
        let file = show(Some("roundsman.toml"), false).unwrap_err().to_string();
        assert!(file.ends_with("; use -c FILE for a configuration file"), "{file}");
        two.pools.0.remove(0);
        let fine =
            for_people(&self::answer(&two), Choice { pool: None, unhealthy: true, worst_first: false }, Paint::off())
                .unwrap();
        assert!(fine.ends_with("\n\nthe only pool is healthy\n"), "{fine}");
    }

    #[test]
    fn an_outage_is_on_the_line_of_its_pool_and_trouble_comes_first_if_the_end_may_not_be_seen() {
        let pool = |word: &str, healthy: usize, eligible: usize, more: Value| -> PoolInfo {
            let mut value = json!({ "status": word, "healthy": healthy, "total": 3, "eligible": eligible, "fail_open": false,
                "warming": false, "waiting": 0, "upstreams": [] });
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(value).unwrap()
        };
        let since = "2026-11-21T09:59:00.000Z";
        let mut status = status();
        status.pools.0 = vec![
            ("web".into(), pool("healthy", 3, 2, json!({}))),
            ("api".into(), pool("degraded", 0, 3, json!({ "fail_open": true, "down_since": since }))),
            ("old".into(), pool("unhealthy", 3, 0, json!({ "down_since": since }))),
            ("low".into(), pool("unhealthy", 1, 0, json!({ "down_since": since, "other_pool": "web" }))),
        ];
        let lines = |status: &StatusReply, worst_first| {
            let choice = Choice { pool: None, unhealthy: false, worst_first };
            let shown = for_people(&answer(status), choice, Paint::off()).unwrap();
            shown.lines().map(str::to_owned).filter(|line| !line.is_empty()).skip(4).collect::<Vec<_>>()
        };
        // The ages depend on the day, so only what is around them is compared.
        let bare = |line: &String| line.split(" (for ").next().unwrap_or_default().to_owned();
        let shown: Vec<String> = lines(&status, false).iter().map(bare).collect();
        assert_eq!(
            shown,
            [
                "3 of 4 pools are in trouble: old is unhealthy, low is unhealthy, api is degraded",
                "web  healthy  3/3 healthy, 2 take requests",
                "api  degraded  0/3 healthy, fail open: upstreams that are not healthy are in use",
                "old  unhealthy  3/3 healthy, none takes requests, refuses requests",
                "low  unhealthy  1/3 healthy, none takes requests, its requests go to pool web",
            ]
        );
        let first = |shown: &[String]| shown[1].split(' ').next().unwrap().to_owned();
        assert_eq!((first(&shown), first(&lines(&status, true))), ("web".to_owned(), "old".to_owned()));
        let old = pool_line("old", &status.pools.0[2].1, now(), Paint::off());
        assert_eq!(old, "old  unhealthy  3/3 healthy, none takes requests, refuses requests (for 1m)");
        status.pools.0.truncate(1);
        assert_eq!(lines(&status, false).len(), 1, "all is well");
        let failing = json!({ "why": "answers 5xx to 10 of its last 10 requests, and passes its checks" });
        let failing = |count: usize| {
            let of = |i| upstream("10.0.0.1:80", "healthy", true, if i < count { failing.clone() } else { json!({}) });
            let all: Vec<Value> = (0..3).map(of).collect();
            pool_line("web", &pool("healthy", 3, 3, json!({ "upstreams": all })), now(), Paint::off())
        };
        let shown = [failing(0), failing(1), failing(2)];
        let want = ["", ", 1 fails its requests", ", 2 fail their requests"];
        assert_eq!(shown, want.map(|end| format!("web  healthy  3/3 healthy{end}")));
    }

    #[test]
    fn json_has_the_chosen_part_with_every_key() {
        let mut value = serde_json::to_value(status()).unwrap();
        value["pools"]["api"]["key_of_tomorrow"] = 1.into();
        let answer = Answer::of("GET /api/v1/status", StatusCode::OK, value.to_string());
        let show = |pool, unhealthy| as_json(&answer, Choice { pool, unhealthy, worst_first: false }).unwrap();
        assert_eq!(show(None, false), value.to_string(), "as it came");
        let bad: Value = serde_json::from_str(&show(Some("api"), true)).unwrap();
        assert_eq!((&bad["generation"], &bad["pools"]["api"]["key_of_tomorrow"]), (&3.into(), &1.into()));
        let addresses: Vec<_> =
            bad["pools"]["api"]["upstreams"].as_array().unwrap().iter().map(|upstream| &upstream["address"]).collect();
        assert_eq!(addresses, ["10.0.0.2:8080", "[2001:db8::3]:8080"]);
    }

    #[test]
    fn several_checks_are_below_their_upstream() {
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
        let shown = render(&status, now(), None, Paint::off());
        let words: Vec<String> =
            shown.lines().skip(7).take(3).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            words,
            [
                "10.0.0.1:8080 api unhealthy, unverified 2m 5s 2 1234 0 - check tcp: L4CON: connection refused",
                "check https healthy",
                "check tcp unhealthy L4CON: connection refused",
            ]
        );
    }
}
