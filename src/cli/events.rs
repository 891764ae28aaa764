//! `roundsman events`: prints the events of all pools or of one, oldest first; with `--follow` also new ones as they
//! happen.

use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::args::EventsArgs;
use super::client::{self, Ask};
use super::locate::{self, Target};
use super::text::{self, Paint, colour_of, one_line};
use super::{Failure, identity};
use crate::admin::json::{ChangesInfo, EventInfo, EventWhat, EventsReply, OutageInfo, StatusReply, WarmingWord};
use crate::model::lookup;

/// How long the process may hold a request that waits for an event.
const WAIT_SECONDS: u64 = 20;
/// How long `--follow` waits for a process that does not respond.
const LOST_MAX: Duration = Duration::from_secs(60);

/// Prints events; with `--follow` until interrupted.
pub fn run(args: &EventsArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.process.process())?;
    let since = args.since.and_then(|since| Timestamp::now().checked_sub(since).ok());
    let choice = Choice { pool: args.pool.as_deref(), since };
    let print = |events: &[EventInfo]| print_events(events, choice, args.json);
    let runtime = client::runtime()?;
    runtime.block_on(async {
        let process = if args.json { String::new() } else { identity::line(&target).await? };
        let mut after = args.after;
        let first = fetch(&target, after, 0).await?;
        if let Some(pool) = args.pool.as_deref()
            && !first.events.iter().any(|event| choice.of_pool(event))
        {
            find_pool(&target, pool).await?;
        }
        text::print(&process)?;
        print(&first.events)?;
        if args.follow {
            after = first.last;
            follow(&target, after, print).await?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Which events are printed.
#[derive(Debug, Clone, Copy)]
struct Choice<'a> {
    pool: Option<&'a str>,
    since: Option<Timestamp>,
}

impl Choice<'_> {
    fn takes(&self, event: &EventInfo) -> bool {
        let old = |since| event.at.parse::<Timestamp>().is_ok_and(|at| at < since);
        self.of_pool(event) && !self.since.is_some_and(old)
    }

    /// Events of the whole process, such as reloads, belong to no pool.
    fn of_pool(&self, event: &EventInfo) -> bool {
        self.pool.is_none_or(|pool| pool_of(&event.what).as_deref() == Some(pool))
    }
}

/// The pool of an event, read from its JSON, so that every kind of event with a pool is covered.
fn pool_of(what: &EventWhat) -> Option<String> {
    let value = serde_json::to_value(what).ok()?;
    value.get("pool")?.as_str().map(str::to_owned)
}

/// Checks the name of a pool without events: it may be misspelt.
async fn find_pool(target: &Target, pool: &str) -> Result<(), Failure> {
    let answer = client::ask(target, Ask::get("/api/v1/status")).await;
    let status: StatusReply = answer.map_err(|error| Failure::Runtime(error.to_string()))?.json(&[StatusCode::OK])?;
    match status.pools.get(pool) {
        Some(_) => Ok(()),
        None => Err(Failure::NotFound(lookup::no_pool(pool, status.pools.0.into_iter().map(|(name, _)| name)))),
    }
}

async fn fetch(target: &Target, after: u64, wait: u64) -> Result<EventsReply, Failure> {
    let path = format!("/api/v1/events?after={after}&wait={wait}");
    let ask = Ask::get(&path).within(client::TIMEOUT + Duration::from_secs(wait));
    let answer = client::ask(target, ask).await.map_err(|error| Failure::Runtime(error.to_string()))?;
    answer.json(&[StatusCode::OK])
}

/// Continues after a restart of the process; fails if the process stays down.
async fn follow(
    target: &Target,
    mut after: u64,
    print: impl Fn(&[EventInfo]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut answered = Instant::now();
    let mut lost = false;
    loop {
        match fetch(target, after, WAIT_SECONDS).await {
            Ok(reply) => {
                if reply.last < after {
                    text::complain("the process was restarted");
                }
                let missed = reply.events.first().map_or(0, |event| event.seq.saturating_sub(after + 1));
                if missed > 0 && reply.last > after {
                    text::complain(&format!("{missed} events were missed"));
                }
                print(&reply.events)?;
                if reply.events.is_empty() && answered.elapsed() < Duration::from_secs(1) {
                    // Too many requests wait already, so this one was answered at once.
                    sleep(Duration::from_secs(1)).await;
                }
                (after, answered, lost) = (reply.last, Instant::now(), false);
            }
            Err(failure) if answered.elapsed() > LOST_MAX + Duration::from_secs(WAIT_SECONDS) => return Err(failure),
            Err(failure) => {
                if !lost {
                    text::complain(&format!("{failure}; retrying"));
                }
                lost = true;
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Names in one list of a line.
const LISTED_MAX: usize = 16;

fn print_events(events: &[EventInfo], choice: Choice<'_>, json: bool) -> Result<(), Failure> {
    let paint = Paint::for_stdout();
    for event in events.iter().filter(|event| choice.takes(event)) {
        let line = if json {
            serde_json::to_string(event).map_err(|error| Failure::Runtime(error.to_string()))?
        } else {
            render(event, paint)
        };
        text::print(&format!("{line}\n"))?;
    }
    Ok(())
}

/// One line of text; a reload with several mistakes has further lines, which are indented.
fn render(event: &EventInfo, paint: Paint) -> String {
    let at = text::date(&event.at);
    let word = |word: &str| paint.text(colour_of(word), &one_line(word));
    let what = match &event.what {
        EventWhat::Transition { pool, upstream, from, to, code, reason, healthy_left, .. } => {
            let code = code.as_deref().map_or_else(String::new, |code| format!("{} ", one_line(code)));
            let (pool, upstream, reason) = (one_line(pool), one_line(upstream), one_line(reason));
            let (from, to) = (from.as_str(), word(to.as_str()));
            format!("{pool} {upstream}  {from} → {to}  {code}{reason}  ({healthy_left} healthy)")
        }
        EventWhat::Admin { pool, upstream, to, reason } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {}", one_line(reason)) };
            let (pool, upstream, to) = (one_line(pool), one_line(upstream), word(to.as_str()));
            format!("{pool} {upstream}  now {to} (ordered by an operator){reason}")
        }
        EventWhat::Refusing(info) => outage(info, "refuses requests", paint),
        EventWhat::FailOpen(info) => outage(info, "fails open", paint),
        EventWhat::OtherPool(info) => {
            let other = info.other.as_deref().map_or_else(|| "another pool".to_owned(), one_line);
            outage(info, &format!("uses pool {other}"), paint)
        }
        EventWhat::BelowHalf { pool, on, able, total } => {
            let again = if *on { "serves with fewer than half" } else { "serves with at least half again" };
            format!("{}  {again}: {able} of its {total} upstreams can serve", one_line(pool))
        }
        EventWhat::Warming { pool, phase, retiring, at_most_seconds, reason, next, .. } => {
            let what = match phase {
                WarmingWord::Began => {
                    let (count, most) = (retiring.unwrap_or(0), at_most_seconds.unwrap_or(0.0));
                    format!("warming began: {count} removed upstreams serve, at most {most:.0} s")
                }
                WarmingWord::Ended => "warming ended: the upstreams of the configuration serve".to_owned(),
                WarmingWord::Failed => {
                    let why = [reason, next].into_iter().flatten().map(|text| one_line(text)).collect::<Vec<_>>();
                    format!("{}: {}", paint.text(colour_of("unhealthy"), "warming failed"), why.join("; "))
                }
            };
            format!("{}  {what}", one_line(pool))
        }
        EventWhat::Reload { result, generation, error, by, changes } => {
            let by = if by.is_empty() { String::new() } else { format!(" ({})", one_line(by)) };
            let error =
                error.as_deref().map_or_else(String::new, |error| format!(": {}", text::several(error, "    ")));
            let changes = changes.as_ref().map(changed).unwrap_or_default();
            format!("reload {}, generation {generation}{by}{error}{changes}", word(result))
        }
        EventWhat::UpstreamAdded { pool, upstream } => format!("{} {}  added", one_line(pool), one_line(upstream)),
        EventWhat::UpstreamRemoved { pool, upstream } => format!("{} {}  removed", one_line(pool), one_line(upstream)),
        EventWhat::UpstreamsChanged { added, removed } => {
            format!("more upstreams changed: {added} added, {removed} removed")
        }
        EventWhat::Addresses { pool, added, removed } => {
            let signed = |sign: char, all: &[String]| -> String {
                let mut text: String = all.iter().take(LISTED_MAX).map(|a| format!(" {sign}{}", one_line(a))).collect();
                if all.len() > LISTED_MAX {
                    text.push_str(&format!(" and {} more", all.len() - LISTED_MAX));
                }
                text
            };
            format!("{}  addresses changed:{}{}", one_line(pool), signed('+', added), signed('-', removed))
        }
        EventWhat::ProbePanic { pool, upstream } => {
            format!("{} {}  its probe panicked; its state is unknown now", one_line(pool), one_line(upstream))
        }
        EventWhat::CheckerRestart => "the checker crashed and was restarted".to_string(),
    };
    format!("{at}  {what}")
}

/// `api  refuses requests: REASON; NEXT`, `api  serves again after 12 s`.
fn outage(info: &OutageInfo, what: &str, paint: Paint) -> String {
    let pool = one_line(&info.pool);
    if info.on {
        let why = [&info.reason, &info.next].into_iter().flatten().map(|text| one_line(text)).collect::<Vec<_>>();
        return format!("{pool}  {}: {}", paint.text(colour_of("unhealthy"), what), why.join("; "));
    }
    let after = info.lasted_seconds.map_or_else(String::new, |seconds| format!(" after {seconds:.1} s"));
    match info.serves {
        Some(false) => format!("{pool}  no longer {what}{after}"),
        Some(true) | None => format!("{pool}  {}{after}", paint.text(colour_of("healthy"), "serves again")),
    }
}

/// `; pools added: b; upstreams added: api 10.0.0.3:80`.
fn changed(changes: &ChangesInfo) -> String {
    let lists = [
        ("pools added", &changes.pools_added),
        ("pools removed", &changes.pools_removed),
        ("pools changed", &changes.pools_changed),
        ("upstreams added", &changes.upstreams_added),
        ("upstreams removed", &changes.upstreams_removed),
    ];
    let mut text = String::new();
    for (what, list) in lists.into_iter().filter(|(_, list)| list.count > 0) {
        let names = list.names.iter().take(LISTED_MAX).map(|name| one_line(name)).collect::<Vec<_>>();
        text.push_str(&format!("; {what}: {}", names.join(", ")));
        if list.count > names.len() {
            text.push_str(&format!(" and {} more", list.count - names.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_event_is_one_line() {
        let at = "2026-11-21T10:00:00.123Z";
        let table = [
            (
                json!({ "kind": "transition", "pool": "api", "upstream": "10.0.0.1:80", "from": "healthy",
                        "to": "unhealthy", "code": "L4CON", "reason": "connect: refused\n", "duration_ms": 0.4,
                        "healthy_left": 2 }),
                "api 10.0.0.1:80  healthy → unhealthy  L4CON connect: refused\\n  (2 healthy)",
            ),
            (
                json!({ "kind": "admin", "pool": "api", "upstream": "10.0.0.1:80", "to": "draining", "reason": "upgrade" }),
                "api 10.0.0.1:80  now draining (ordered by an operator): upgrade",
            ),
            (
                json!({ "kind": "refusing", "pool": "api", "on": true, "reason": "neither of its 2 upstreams can serve",
                        "next": "this ends when an upstream passes its checks" }),
                "api  refuses requests: neither of its 2 upstreams can serve; this ends when an upstream passes its \
                 checks",
            ),
            (
                json!({ "kind": "refusing", "pool": "api", "on": false, "serves": true, "lasted_seconds": 12.34 }),
                "api  serves again after 12.3 s",
            ),
            (
                json!({ "kind": "fail_open", "pool": "api", "on": false, "serves": false, "lasted_seconds": 3.0 }),
                "api  no longer fails open after 3.0 s",
            ),
            (
                json!({ "kind": "other_pool", "pool": "api", "on": true, "other": "spare", "reason": "r", "next": "n" }),
                "api  uses pool spare: r; n",
            ),
            (
                json!({ "kind": "below_half", "pool": "api", "on": true, "able": 1, "total": 3 }),
                "api  serves with fewer than half: 1 of its 3 upstreams can serve",
            ),
            (
                json!({ "kind": "warming", "pool": "api", "phase": "began", "retiring": 2, "at_most_seconds": 30.0 }),
                "api  warming began: 2 removed upstreams serve, at most 30 s",
            ),
            (
                json!({ "kind": "warming", "pool": "api", "phase": "failed", "reason": "r", "next": "n" }),
                "api  warming failed: r; n",
            ),
            (
                json!({ "kind": "reload", "result": "applied", "generation": 3, "error": null, "by": "signal HUP",
                        "changes": { "pools_added": { "count": 1, "names": ["b"] },
                                     "pools_removed": { "count": 0, "names": [] },
                                     "pools_changed": { "count": 0, "names": [] },
                                     "upstreams_added": { "count": 3, "names": ["b 10.0.0.1:80", "b 10.0.0.2:80"] },
                                     "upstreams_removed": { "count": 0, "names": [] } } }),
                "reload applied, generation 3 (signal HUP); pools added: b; upstreams added: b 10.0.0.1:80, b \
                 10.0.0.2:80 and 1 more",
            ),
            (json!({ "kind": "upstream_added", "pool": "api", "upstream": "10.0.0.1:80" }), "api 10.0.0.1:80  added"),
            (
                json!({ "kind": "upstream_removed", "pool": "api", "upstream": "10.0.0.1:80" }),
                "api 10.0.0.1:80  removed",
            ),
            (
                json!({ "kind": "upstreams_changed", "added": 9950, "removed": 0 }),
                "more upstreams changed: 9950 added, 0 removed",
            ),
            (
                json!({ "kind": "reload", "result": "refused", "generation": 3, "error": "bad" }),
                "reload refused, generation 3: bad",
            ),
            (
                json!({ "kind": "reload", "result": "refused", "generation": 3, "error": "a:1: bad\nb:2: worse" }),
                "reload refused, generation 3: 2 mistakes\n    a:1: bad\n    b:2: worse",
            ),
            (
                json!({ "kind": "addresses", "pool": "api", "added": ["10.0.0.3:80"], "removed": ["10.0.0.1:80"] }),
                "api  addresses changed: +10.0.0.3:80 -10.0.0.1:80",
            ),
            (json!({ "kind": "checker_restart" }), "the checker crashed and was restarted"),
        ];
        for (mut value, want) in table {
            value["seq"] = 1.into();
            value["at"] = at.into();
            let event: EventInfo = serde_json::from_value(value).unwrap();
            assert_eq!(render(&event, Paint::off()), format!("2026-11-21 10:00:00.123Z  {want}"));
        }
    }

    #[test]
    fn events_are_chosen_by_pool_and_by_time() {
        let event = |at: &str, mut value: serde_json::Value| -> EventInfo {
            value["seq"] = 1.into();
            value["at"] = at.into();
            serde_json::from_value(value).unwrap()
        };
        let of_api = |at| event(at, json!({ "kind": "addresses", "pool": "api", "added": [], "removed": [] }));
        let reload = event("2026-11-21T10:00:00.000Z", json!({ "kind": "checker_restart" }));
        let all = Choice { pool: None, since: None };
        let api = Choice { pool: Some("api"), since: Some("2026-11-21T10:00:00Z".parse().unwrap()) };
        let web = Choice { pool: Some("web"), since: None };
        for (choice, event, takes) in [
            (all, &reload, true),
            (all, &of_api("2026-11-21T09:59:59.999Z"), true),
            (api, &of_api("2026-11-21T09:59:59.999Z"), false),
            (api, &of_api("2026-11-21T10:00:00.000Z"), true),
            (api, &reload, false),
            (web, &of_api("2026-11-21T10:00:00.000Z"), false),
        ] {
            assert_eq!(choice.takes(event), takes, "{choice:?} {event:?}");
        }
    }
}
