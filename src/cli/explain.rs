//! `roundsman explain`: explains the state of a pool or an upstream of the running process; without either, of the pools
//! in trouble ([`several`]).

mod several;

use std::process::ExitCode;
use std::time::SystemTime;

use http::StatusCode;

use self::several::Several;
use super::args::ExplainArgs;
use super::client::{self, Answer, Ask};
use super::locate::Target;
use super::table::wrap;
use super::text::{self, Colour, Paint, colour_of, one_line};
use super::{Failure, identity, locate, steps};
use crate::admin::json::{CheckExplainInfo, PoolExplainReply, StatusReply, TransitionInfo, UpstreamExplainReply};
use crate::admin::target::encode_segment;
use crate::model::Address;
use crate::model::units::counted;

/// The width of a paragraph, at most.
const COLUMNS: usize = 100;

/// Fetches the explanation and prints it.
pub fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.process)?;
    let process = if args.json { String::new() } else { identity::line_now(&target)? };
    let (answer, one) = match (&args.pool, &args.upstream) {
        (Some(pool), Some(upstream)) => (ask_upstream(&target, pool, upstream)?, true),
        (Some(word), None) => ask_word(&target, word)?,
        (None, _) => {
            let status = ask_status(&target)?;
            match only_pool(&status) {
                Some(only) => (ask_pool(&target, only)?, false),
                None => return run_several(&target, &status, args.json, &process),
            }
        }
    };
    let shown = show(&answer, one, Paint::for_stdout())?;
    let body = || String::from_utf8_lossy(&answer.body).into_owned();
    text::print(&if args.json { body() } else { process + &shown })?;
    Ok(ExitCode::SUCCESS)
}

fn run_several(target: &Target, status: &StatusReply, json: bool, process: &str) -> Result<ExitCode, Failure> {
    let several = Several::ask(target, status)?;
    let rendered = || several.render(SystemTime::now(), columns(), Paint::for_stdout());
    text::print(&if json { several.json()? } else { format!("{process}{}", rendered()?) })?;
    Ok(ExitCode::SUCCESS)
}

fn ask_status(target: &Target) -> Result<StatusReply, Failure> {
    client::ask_now(target, Ask::get("/api/v1/status"))?.json(&[StatusCode::OK])
}

fn ask_pool(target: &Target, pool: &str) -> Result<Answer, Failure> {
    client::ask_now(target, Ask::get(&format!("/api/v1/pools/{}/explain", encode_segment(pool))))
}

fn ask_upstream(target: &Target, pool: &str, upstream: &str) -> Result<Answer, Failure> {
    let (pool, upstream) = (encode_segment(pool), encode_segment(upstream));
    client::ask_now(target, Ask::get(&format!("/api/v1/pools/{pool}/upstreams/{upstream}/explain")))
}

/// A single argument is a pool, or an upstream if there is only one pool. Returns the response and whether it is about
/// an upstream.
fn ask_word(target: &Target, word: &str) -> Result<(Answer, bool), Failure> {
    let of_pool = ask_pool(target, word)?;
    if of_pool.status == StatusCode::NOT_FOUND
        && let Some(only) = only_pool(&ask_status(target)?)
    {
        let of_upstream = ask_upstream(target, only, word)?;
        if of_upstream.status == StatusCode::OK || word.parse::<Address>().is_ok() {
            return Ok((of_upstream, true));
        }
    }
    Ok((of_pool, false))
}

/// The name of the pool, if there is only one.
fn only_pool(status: &StatusReply) -> Option<&str> {
    match status.pools.0.as_slice() {
        [(only, _)] => Some(only),
        _ => None,
    }
}

/// The width of the output.
fn columns() -> usize {
    text::screen().map_or(COLUMNS, |(columns, _)| columns.min(COLUMNS))
}

fn show(answer: &Answer, one: bool, paint: Paint) -> Result<String, Failure> {
    let now = SystemTime::now();
    Ok(if one {
        render_upstream(&answer.json(&[StatusCode::OK])?, now, paint)
    } else {
        render_pool(&answer.json(&[StatusCode::OK])?, columns(), paint)
    })
}

/// One paragraph, and the command that shows more.
fn render_pool(reply: &PoolExplainReply, columns: usize, paint: Paint) -> String {
    let mut out = wrap(&one_line(&reply.text), columns).join("\n") + "\n";
    let word = reply.status.as_str();
    if let Some(colour) = colour_of(word) {
        // The first occurrence is the state of the pool.
        out = out.replacen(word, &paint.text(Some(colour), word), 1);
    }
    if let Some(first) = reply.out.first().and_then(|out| out.upstreams.first()) {
        let more = format!("\nMore: roundsman explain {} {}\n", one_line(&reply.pool), one_line(first));
        out.push_str(&paint.text(Some(Colour::Dim), more.trim_end()));
        out.push('\n');
    }
    out
}

fn render_upstream(reply: &UpstreamExplainReply, now: SystemTime, paint: Paint) -> String {
    let state = reply.state.as_str();
    let name = reply.name.as_deref().map_or(String::new(), |name| format!(" ({})", one_line(name)));
    let title = format!("{} {}{name}", one_line(&reply.pool), one_line(&reply.upstream));
    let mut out = format!("{}  {}", paint.text(Some(Colour::Bold), &title), paint.text(colour_of(state), state));
    out.push_str(&format!(" since {}\n", when(&reply.since, now)));
    out.push_str(&format!("{}\n", one_line(&reply.eligibility)));
    if let Some(why) = &reply.why {
        // The hint has its own line.
        let hint = reply.hint.as_ref().map(|hint| format!(" ({hint})"));
        let why = hint.map_or_else(|| why.clone(), |hint| why.replacen(&hint, "", 1));
        out.push_str(&format!("Why: {}\n", one_line(&why)));
    }
    if let Some(hint) = &reply.hint {
        out.push_str(&format!("Hint: {}\n", one_line(hint)));
    }
    if let Some(require) = &reply.require {
        out.push_str(&format!("Require: {}\n", one_line(require)));
    }
    if let Some(last) = &reply.last_malformed {
        let (count, at) =
            (counted(reply.malformed_total, "malformed response", "malformed responses"), when(&last.at, now));
        out.push_str(&format!("Requests got {count}, the last at {at}: {}\n", one_line(&last.reason)));
    }
    let several = reply.checks.len() > 1;
    for check in &reply.checks {
        out.push('\n');
        out.push_str(&render_check(check, several, now, paint));
    }
    out.push_str(&render_transitions(&reply.transitions, paint));
    out
}

fn render_check(check: &CheckExplainInfo, several: bool, now: SystemTime, paint: Paint) -> String {
    let name = paint.text(Some(Colour::Bold), &format!("check {}", one_line(&check.name)));
    let state = check.state.as_str();
    let decides = if several && check.decides { ", decides the state" } else { "" };
    let mut out = format!("{name}  {}{decides}\n", paint.text(colour_of(state), state));
    if let Some(preset) = &check.preset {
        out.push_str(&format!("  {:<9}  {}\n", "preset", one_line(preset)));
    }
    for (word, text) in [("probe", &check.probe), ("how often", &check.timing), ("streak", &check.needs)] {
        out.push_str(&format!("  {word:<9}  {}\n", one_line(text)));
    }
    out.push_str(&format!("  {:<9}  {}\n", "next", one_line(&check.next)));
    match &check.last_check {
        None => out.push_str("  no probe has finished yet\n"),
        Some(last) => {
            out.push_str(&format!("  last probe: finished {}, took {} ms\n", when(&last.at, now), last.duration_ms));
            out.push_str(&steps::render(&check.steps, "    ", paint));
        }
    }
    out
}

fn render_transitions(transitions: &[TransitionInfo], paint: Paint) -> String {
    if transitions.is_empty() {
        return "\nIts state has not changed yet.\n".to_owned();
    }
    let mut out = format!("\n{}\n", paint.text(Some(Colour::Bold), "last changes (newest last)"));
    for change in transitions {
        let (from, to) = (change.from.as_str(), change.to.as_str());
        let code = change.code.as_deref().map_or_else(String::new, |code| format!("{} ", one_line(code)));
        let to = paint.text(colour_of(to), to);
        out.push_str(&format!("  {}  {from} → {to}  {code}{}\n", text::date(&change.at), one_line(&change.reason)));
    }
    out
}

/// `2026-11-21 10:00:00.123Z (3m 5s ago)`.
fn when(at: &str, now: SystemTime) -> String {
    let ago = text::ago(at, now).map_or_else(String::new, |ago| format!(" ({} ago)", text::glance(ago)));
    format!("{}{ago}", text::date(at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-11-21T10:03:05.000Z").unwrap()
    }

    #[test]
    fn an_upstream_is_shown_from_its_state_to_its_last_change() {
        let reply: UpstreamExplainReply = serde_json::from_value(json!({
            "pool": "api", "upstream": "10.0.0.2:80", "name": "api.internal", "now": "2026-11-21T10:03:05.000Z",
            "state": "unhealthy", "since": "2026-11-21T10:00:00.000Z", "eligible": false,
            "eligibility": "It takes no requests: its checks failed.", "why": "L7STS: status 503\u{1b}[2J",
            "admin": "enabled", "require": "both checks must be healthy", "malformed_total": 2,
            "last_malformed": { "at": "2026-11-21T10:03:00.000Z", "reason": "malformed head: a field without a name" },
            "checks": [{
                "name": "http", "preset": "rails", "probe": "http: GET /healthz; expects 200-299", "timing": "every 10 s",
                "target": "10.0.0.2:80", "state": "unhealthy", "decides": true,
                "streak": { "result": "fail", "count": 9, "needed": 3 },
                "needs": "9 failures in a row; 2 passes in a row make it healthy",
                "next": "is due in 0.8 s: the interval is 10 s", "next_due": "2026-11-21T10:03:05.800Z", "in_flight": false,
                "last_check": { "at": "2026-11-21T10:03:04.000Z", "result": "fail", "code": "L7STS", "status": 503,
                                "duration_ms": 1.9, "reason": "status 503" },
                "steps": [{ "step": "connect", "ok": true, "text": "connected" },
                          { "step": "verdict", "ok": false, "text": "fail, L7STS: status 503" }],
            }, {
                "name": "tcp", "probe": "tcp: connect and close", "timing": "every 10 s", "target": "10.0.0.2:80",
                "state": "unknown", "decides": false, "streak": null, "needs": "no result yet", "next": "is due now: first",
                "next_due": null, "in_flight": false, "last_check": null, "steps": [],
            }],
            "transitions": [{ "at": "2026-11-21T10:00:00.000Z", "from": "healthy", "to": "unhealthy", "code": "L7STS",
                              "reason": "status 503" }],
        }))
        .expect("the shape of the API");
        assert_eq!(
            render_upstream(&reply, now(), Paint::off()),
            "api 10.0.0.2:80 (api.internal)  unhealthy since 2026-11-21 10:00:00.000Z (3m 5s ago)\n\
             It takes no requests: its checks failed.\n\
             Why: L7STS: status 503\\u{1b}[2J\n\
             Require: both checks must be healthy\n\
             Requests got 2 malformed responses, the last at 2026-11-21 10:03:00.000Z (5s ago): malformed head: a field \
             without a name\n\
             \n\
             check http  unhealthy, decides the state\n  \
             preset     rails\n  \
             probe      http: GET /healthz; expects 200-299\n  \
             how often  every 10 s\n  \
             streak     9 failures in a row; 2 passes in a row make it healthy\n  \
             next       is due in 0.8 s: the interval is 10 s\n  \
             last probe: finished 2026-11-21 10:03:04.000Z (1s ago), took 1.9 ms\n    \
             ✓ connect  connected\n    \
             ✗ verdict  fail, L7STS: status 503\n\
             \n\
             check tcp  unknown\n  \
             probe      tcp: connect and close\n  \
             how often  every 10 s\n  \
             streak     no result yet\n  \
             next       is due now: first\n  \
             no probe has finished yet\n\
             \n\
             last changes (newest last)\n  \
             2026-11-21 10:00:00.000Z  healthy → unhealthy  L7STS status 503\n"
        );
        let why = Some("L7STS: status 401 (a has changed since)".to_owned());
        let hinted = UpstreamExplainReply { why, hint: Some("a has changed since".into()), ..reply.clone() };
        let shown = render_upstream(&hinted, now(), Paint::off());
        assert!(shown.contains("\nWhy: L7STS: status 401\nHint: a has changed since\n"), "{shown}");
        let quiet = UpstreamExplainReply {
            checks: vec![],
            transitions: vec![],
            why: None,
            require: None,
            last_malformed: None,
            ..reply
        };
        assert!(render_upstream(&quiet, now(), Paint::off()).ends_with("\nIts state has not changed yet.\n"));
    }

    #[test]
    fn a_pool_is_one_paragraph_and_a_pointer() {
        let reply: PoolExplainReply = serde_json::from_value(json!({
            "pool": "api", "now": "2026-11-21T10:03:05.000Z", "status": "degraded",
            "text": format!("Pool api is degraded: 1 of 2 upstreams is healthy. {}\u{1b}[2J", "word ".repeat(40)),
            "healthy": 1, "total": 2, "eligible": 1, "needed": 1, "requests": "Requests go to 10.0.0.1:80.",
            "out": [{ "why": "unhealthy", "code": "L4CON", "reason": "refused", "count": 1, "upstreams": ["10.0.0.2:80"] }],
            "next": null,
        }))
        .expect("the shape of the API");
        let shown = render_pool(&reply, 60, Paint::off());
        assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
        assert!(
            !shown.contains('\u{1b}') && shown.starts_with("Pool api is degraded: 1 of 2 upstreams is healthy. word")
        );
        assert!(shown.ends_with("\nMore: roundsman explain api 10.0.0.2:80\n"), "{shown}");
        let healthy = render_pool(&PoolExplainReply { out: vec![], ..reply }, 60, Paint::off());
        assert!(!healthy.contains("More:"), "{healthy}");
    }
}
