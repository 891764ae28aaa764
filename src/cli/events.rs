//! `roundsman events`: prints the events of all pools or of one, oldest first; with `--follow` also new ones as they
//! happen.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::time::{Instant, sleep};

use super::args::EventsArgs;
use super::client::{self, Ask};
use super::locate::{self, Target};
use super::text::{self, Paint, Visible, colour_of};
use super::{Failure, identity};
use crate::admin::json::{EventInfo, EventWhat, EventsReply, OutageInfo, StatusReply, WarmingWord};
use crate::model::lookup;

/// How long the process may hold a request that waits for an event.
const WAIT_SECONDS: u64 = 20;
/// How long `--follow` waits for a process that does not respond.
const LOST_MAX: Duration = Duration::from_secs(60);

/// Prints events; with `--follow` until interrupted.
pub fn run(args: &EventsArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.process.process())?;
    let since = args.since.and_then(|since| SystemTime::now().checked_sub(since));
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
    since: Option<SystemTime>,
}

impl Choice<'_> {
    fn takes(&self, event: &EventInfo) -> bool {
        let old = |since| humantime::parse_rfc3339(&event.at).is_ok_and(|at| at < since);
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

/// The text of the event, as the log on a terminal has it; the mistakes of a refused configuration have lines of their own.
fn render(event: &EventInfo, paint: Paint) -> String {
    let text = Visible(&event.text).to_string();
    let text = match emphasis(&event.what) {
        // The first occurrence may be in a name, so that the place is found with what is in front of it.
        Some((before, word, colour)) => {
            let place = format!("{before}{word}");
            text.replacen(&place, &format!("{before}{}", paint.text(colour_of(colour), word)), 1)
        }
        None => text,
    };
    format!("{}  {text}", text::date(&event.at))
}

/// The word of an event's text that stands out, what is in front of it, and the state whose colour it has.
fn emphasis(what: &EventWhat) -> Option<(&'static str, &str, &str)> {
    let outage = |info: &OutageInfo, began| match (info.on, info.serves) {
        (true, _) => Some(("  ", began, "unhealthy")),
        (false, Some(true) | None) => Some(("  ", "serves again", "healthy")),
        (false, Some(false)) => None,
    };
    match what {
        EventWhat::Transition { to, .. } => Some(("→ ", to.as_str(), to.as_str())),
        EventWhat::Admin(ordered) => Some(("  now ", ordered.to.as_str(), ordered.to.as_str())),
        EventWhat::Refusing(info) => outage(info, "refuses requests"),
        EventWhat::FailOpen(info) => outage(info, "fails open"),
        EventWhat::OtherPool(info) => outage(info, "sends its requests to pool"),
        EventWhat::Warming { phase: WarmingWord::Failed, .. } => {
            Some(("  ", "removed upstreams are gone", "unhealthy"))
        }
        EventWhat::Ejected { on: true, .. } => Some(("  ", "ejected", "degraded")),
        EventWhat::Degraded { on: true, .. } => Some(("  ", "degraded", "degraded")),
        EventWhat::RequestsFail { on: true, .. } => Some((", and ", "passes its checks", "degraded")),
        EventWhat::Reload { result, .. } => Some(("Reload ", result, result)),
        EventWhat::RequestsFail { .. }
        | EventWhat::Weight(_)
        | EventWhat::RequestsFailMore { .. }
        | EventWhat::BelowHalf { .. }
        | EventWhat::Warming { .. }
        | EventWhat::UpstreamAdded { .. }
        | EventWhat::UpstreamRemoved { .. }
        | EventWhat::UpstreamsChanged { .. }
        | EventWhat::Addresses { .. }
        | EventWhat::Ejected { .. }
        | EventWhat::Degraded { .. }
        | EventWhat::ProbePanic { .. }
        | EventWhat::CheckerRestart => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_its_text_with_the_date_and_in_colour() {
        let event = |text: &str, mut value: serde_json::Value| -> EventInfo {
            value["seq"] = 1.into();
            value["at"] = "2026-11-21T10:00:00.123Z".into();
            value["text"] = text.into();
            serde_json::from_value(value).unwrap()
        };
        let outage =
            |on: bool, serves: Option<bool>| json!({ "kind": "refusing", "pool": "api", "on": on, "serves": serves });
        for (text, value, painted) in [
            (
                "healthy a:1  healthy → unhealthy  L4CON",
                json!({ "kind": "transition", "pool": "healthy", "upstream": "a:1", "from": "healthy", "to": "unhealthy",
                        "code": "L4CON", "reason": "", "duration_ms": 0.4, "healthy_left": 2 }),
                "→ \x1b[31munhealthy\x1b[0m",
            ),
            (
                "api a:1  now draining (signal HUP)",
                json!({ "kind": "admin", "pool": "api", "upstream": "a:1", "to": "draining" }),
                "now \x1b[33mdraining\x1b[0m",
            ),
            ("api  refuses requests: r; n", outage(true, None), "\x1b[31mrefuses requests\x1b[0m"),
            ("api  serves again after 2.0 s", outage(false, Some(true)), "\x1b[32mserves again\x1b[0m"),
            (
                "Reload refused, generation 3: 2 mistakes\n    a:1: bad\n    b:2: worse\u{1b}",
                json!({ "kind": "reload", "result": "refused", "generation": 3, "error": "bad" }),
                "Reload \x1b[31mrefused\x1b[0m",
            ),
            ("The checker crashed", json!({ "kind": "checker_restart" }), "The checker crashed"),
        ] {
            let event = event(text, value);
            let escaped = text.replace('\u{1b}', "\\u{1b}");
            assert_eq!(render(&event, Paint::off()), format!("2026-11-21 10:00:00.123Z  {escaped}"));
            assert!(render(&event, Paint::on()).contains(painted), "{}", render(&event, Paint::on()));
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
        let api = Choice { pool: Some("api"), since: Some(humantime::parse_rfc3339("2026-11-21T10:00:00Z").unwrap()) };
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
