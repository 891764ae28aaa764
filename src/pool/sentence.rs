//! An event in words for people: the log on a terminal and `roundsman events` print the same. Pure.
//!
//! `POOL UPSTREAM  WHAT: WHY; WHAT ENDS IT`. Text from outside is escaped; the only line ends are ours, before the
//! mistakes of a refused configuration.

use std::fmt::Display;
use std::time::Duration;

use super::changes::Changes;
use super::events::{EventKind, Transition, WarmingPhase};
use super::outage::Way;
use super::passive::EjectionEnd;
use super::traffic::{Over, Requests};
use crate::model::quote::Visible;
use crate::model::units::{Measured, glance};
use crate::model::{Address, Name};

/// The most mistakes of a refused configuration; a command shows all.
const MISTAKES_MAX: usize = 20;
/// The most addresses in a list.
const ADDRESSES_MAX: usize = 16;

/// The sentence of an event.
pub fn sentence(kind: &EventKind) -> String {
    match kind {
        EventKind::Transition(change) => transition(change),
        EventKind::Ordered { pool, upstream, to, lasts, reason, by } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {}", Visible(reason)) };
            let lasts = lasts.map_or_else(String::new, |lasts| format!(" for {}", time(lasts)));
            of_upstream(pool, upstream, format!("now {to}{lasts}{}{reason}", asked_by(by)))
        }
        EventKind::OutageBegan { pool, way, reason, remedy } => {
            let what = match way {
                Way::Refuse => "refuses requests".to_owned(),
                Way::FailOpen => "fails open (uses every enabled upstream, healthy or not)".to_owned(),
                Way::OtherPool(other) => format!("sends its requests to pool {other}"),
            };
            of_pool(pool, format!("{what}: {}; {}", Visible(reason), Visible(remedy)))
        }
        EventKind::OutageEnded { pool, serves: true, lasted, .. } => {
            of_pool(pool, format!("serves again after {}", time(*lasted)))
        }
        EventKind::OutageEnded { pool, way, serves: false, lasted } => {
            let what = match way {
                Way::Refuse => "no longer refuses requests".to_owned(),
                Way::FailOpen => "no longer fails open".to_owned(),
                Way::OtherPool(other) => format!("no longer sends its requests to pool {other}"),
            };
            of_pool(pool, format!("{what}, after {}", time(*lasted)))
        }
        EventKind::BelowHalf { pool, on, able, total } => {
            let what = if *on { "fewer than half of its upstreams" } else { "at least half of its upstreams again" };
            of_pool(pool, format!("serves with {what}: {able} of {total} can serve"))
        }
        EventKind::Warming { pool, phase } => of_pool(pool, warming(phase)),
        EventKind::Reload { result, generation, error, by, changes } => {
            reload(result, *generation, error.as_deref(), by, changes)
        }
        EventKind::UpstreamAdded { pool, upstream } => of_upstream(pool, upstream, "added"),
        EventKind::UpstreamRemoved { pool, upstream } => of_upstream(pool, upstream, "removed"),
        EventKind::UpstreamsChanged { added, removed } => {
            format!("More upstreams were added or removed: {added} added, {removed} removed")
        }
        EventKind::Addresses { pool, added, removed } => {
            let (added, removed) = (addresses('+', added), addresses('-', removed));
            of_pool(pool, format!("addresses changed:{added}{removed}"))
        }
        EventKind::RequestsFail { pool, upstream, window } => of_upstream(pool, upstream, failing_and_passing(window)),
        EventKind::RequestsFailOver { pool, upstream, over, window } => {
            let what = match over {
                Over::Succeeds => {
                    format!("no longer fails nearly all requests: {} of its last {}", window.failed(), window.ended)
                }
                Over::NoLongerPasses => {
                    "no longer passes its checks; before that it failed nearly all requests".to_owned()
                }
                Over::FewRequests => "gets too few requests to know whether it still fails them".to_owned(),
            };
            of_upstream(pool, upstream, what)
        }
        EventKind::RequestsFailMore { began, ended } => {
            format!("More upstreams fail nearly all requests and pass their checks: {began} began, {ended} ended")
        }
        EventKind::Ejected { pool, upstream, ejected } => {
            let (lasts, reason) = (time(ejected.lasts()), ejected.reason());
            of_upstream(pool, upstream, format!("ejected for {lasts}: {reason}"))
        }
        EventKind::EjectionEnded { pool, upstream, why, lasted } => {
            let after = time(*lasted);
            let what = match why {
                EjectionEnd::Over => format!("no longer ejected after {after}"),
                EjectionEnd::Last => format!("ejection lifted: last: no other upstream can serve, after {after}"),
                EjectionEnd::MinHealthy => format!("ejection lifted: min_healthy requires it, after {after}"),
                EjectionEnd::Passes => format!("ejection lifted: its checks connect to it again, after {after}"),
                EjectionEnd::Recovered => format!("ejection lifted: its checks pass again, after {after}"),
                EjectionEnd::Off => format!("ejection lifted: passive is off now, after {after}"),
            };
            of_upstream(pool, upstream, what)
        }
        EventKind::Degraded { pool, upstream, weight: Some(weight) } => {
            let percent = weight.as_f64() * 100.0;
            of_upstream(pool, upstream, format!("degraded: healthy, with {percent:.0} % of its weight"))
        }
        EventKind::Degraded { pool, upstream, weight: None } => of_upstream(pool, upstream, "no longer degraded"),
        EventKind::ProbePanic { pool, upstream } => {
            of_upstream(pool, upstream, "its probe panicked; its state is unknown now")
        }
        EventKind::CheckerRestart => "The checker crashed and was restarted".to_owned(),
    }
}

fn of_pool(pool: &Name, what: impl Display) -> String {
    format!("{pool}  {what}")
}

fn of_upstream(pool: &Name, upstream: &Address, what: impl Display) -> String {
    format!("{pool} {}  {what}", Visible(&upstream.to_string()))
}

fn transition(change: &Transition) -> String {
    let Transition { pool, upstream, from, to, code, reason, healthy_left, .. } = change;
    let code = code.map_or_else(String::new, |code| format!("{code} "));
    of_upstream(pool, upstream, format!("{from} → {to}  {code}{}  ({healthy_left} healthy)", Visible(reason)))
}

/// ` (signal HUP)`.
fn asked_by(by: &str) -> String {
    if by.is_empty() { String::new() } else { format!(" ({})", Visible(by)) }
}

fn warming(phase: &WarmingPhase) -> String {
    match phase {
        WarmingPhase::Began { at_most, progress, .. } => progress.sentence(*at_most),
        WarmingPhase::Ended { lasted } => {
            format!("upstreams of the new configuration serve, after {}; the removed ones are gone", time(*lasted))
        }
        WarmingPhase::Failed { lasted, reason, remedy } => {
            let (after, reason, remedy) = (time(*lasted), Visible(reason), Visible(remedy));
            format!("removed upstreams are gone after {after}, and the new ones cannot serve: {reason}; {remedy}")
        }
    }
}

fn reload(result: &str, generation: u64, error: Option<&str>, by: &str, changes: &Changes) -> String {
    let (by, is) = (asked_by(by), if result == "refused" { " is still running" } else { "" });
    let mut text = match (result, generation) {
        // The first configuration is no reload.
        ("applied", 1) => format!("Configuration loaded, generation 1{by}"),
        _ => format!("Reload {result}, generation {generation}{is}{by}"),
    };
    changes.lists().for_each(|list| text.push_str(&format!("; {}", Visible(&list))));
    let mistakes: Vec<&str> = error.map(|error| error.lines().collect()).unwrap_or_default();
    match mistakes.as_slice() {
        [] => {}
        [only] => text.push_str(&format!(": {}", Visible(only))),
        several => {
            text.push_str(&format!(": {} mistakes", several.len()));
            for mistake in several.iter().take(MISTAKES_MAX) {
                text.push_str(&format!("\n    {}", Visible(mistake)));
            }
            if several.len() > MISTAKES_MAX {
                let more = several.len() - MISTAKES_MAX;
                text.push_str(&format!("\n    and {more} more; `roundsman check` shows all"));
            }
        }
    }
    text
}

/// What an upstream does that fails these requests and passes its checks.
pub(super) fn failing_and_passing(window: &Requests) -> String {
    format!("{}, and passes its checks", failing(window))
}

/// `answers 5xx to 10 of its last 12 requests`, `fails 10 of its last 12 requests (6 answered with 5xx, 4 broken)`.
fn failing(window: &Requests) -> String {
    let Requests { ended, server_errors, broken, connect_failures } = *window;
    let failed = window.failed();
    if (broken, connect_failures) == (0, 0) {
        return format!("answers 5xx to {failed} of its last {ended} requests");
    }
    let ways = [(server_errors, "answered with 5xx"), (broken, "broken"), (connect_failures, "without a connection")];
    let ways = ways.into_iter().filter(|(count, _)| *count > 0).map(|(count, way)| format!("{count} {way}"));
    format!("fails {failed} of its last {ended} requests ({})", ways.collect::<Vec<_>>().join(", "))
}

/// Each address with its sign, and how many more there are.
fn addresses(sign: char, all: &[Address]) -> String {
    let shown = all.iter().take(ADDRESSES_MAX);
    let mut text: String = shown.map(|address| format!(" {sign}{}", Visible(&address.to_string()))).collect();
    if all.len() > ADDRESSES_MAX {
        text.push_str(&format!(" and {} more", all.len() - ADDRESSES_MAX));
    }
    text
}

/// Below a minute with a fraction.
fn time(lasted: Duration) -> String {
    if lasted < Duration::from_secs(60) { Measured(lasted).to_string() } else { glance(lasted) }
}

#[cfg(test)]
mod tests;
