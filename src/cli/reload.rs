//! `roundsman reload`: prints the result of a reload, and every mistake if it was refused.

use std::process::ExitCode;

use http::StatusCode;

use super::args::ReloadArgs;
use super::client::{self, Ask};
use super::text::{self, Paint, colour_of, one_line};
use super::{Failure, identity, locate};
use crate::admin::json::{ReloadReply, ReloadResult};
use crate::app::load::EXIT_BAD_CONFIG;
use crate::pool::Changes;

/// Orders a reload and prints its result. The exit status is 78 for a bad configuration, 1 if a valid one could not be
/// applied (a port in use).
pub fn run(args: &ReloadArgs) -> Result<ExitCode, Failure> {
    let target = locate::find(&args.process.process())?;
    let process = if args.json { String::new() } else { identity::line_now(&target)? };
    let path = if args.dry_run { "/api/v1/reload?dry_run=true" } else { "/api/v1/reload" };
    let answer = client::ask_now(&target, Ask::post(path).within(client::RELOAD_TIMEOUT))?;
    let reply: ReloadReply = answer.json(&[StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY])?;
    if args.json {
        text::print(&String::from_utf8_lossy(&answer.body))?;
    } else {
        text::print(&format!("{process}{}", render(&reply, Paint::for_stdout())))?;
    }
    Ok(match reply.result {
        ReloadResult::Applied | ReloadResult::Unchanged => ExitCode::SUCCESS,
        // An error without a place in the file is not a mistake in it: a port in use, a process that is stopping.
        ReloadResult::Refused if reply.errors.iter().all(|mistake| mistake.file.is_none()) => ExitCode::FAILURE,
        ReloadResult::Refused => ExitCode::from(EXIT_BAD_CONFIG),
    })
}

fn render(reply: &ReloadReply, paint: Paint) -> String {
    let mut out: String = reply.errors.iter().map(|mistake| one_line(&mistake.sentence()) + "\n").collect();
    let generation = reply.generation;
    let line = match (reply.result, reply.dry_run) {
        (ReloadResult::Applied, false) => format!("applied: generation {generation} is running"),
        (ReloadResult::Unchanged, false) => format!("unchanged: generation {generation} is still running"),
        (ReloadResult::Refused, false) => format!("refused: nothing changed, generation {generation} is still running"),
        (ReloadResult::Applied, true) => "valid: a reload would apply it".to_string(),
        (ReloadResult::Unchanged, true) => "valid: a reload would change nothing".to_string(),
        (ReloadResult::Refused, true) => "refused: a reload would change nothing".to_string(),
    };
    if reply.errors.is_empty()
        && let Some(error) = &reply.error
    {
        out.push_str(&text::several(error, "  "));
        out.push('\n');
    }
    out.push_str(&paint.text(colour_of(reply.result.as_str()), &line));
    out.push('\n');
    for list in reply.changes.iter().flat_map(Changes::lists) {
        out.push_str(&format!("  {}\n", one_line(&list)));
    }
    if !reply.warming.is_empty() {
        let pools = reply.warming.iter().map(|pool| one_line(pool)).collect::<Vec<_>>().join(", ");
        let most = reply.warming_seconds.0.iter().map(|(_, seconds)| *seconds).reduce(f64::max);
        let most = most.map_or_else(String::new, |seconds| format!(", at most {seconds:.0} s"));
        out.push_str(&format!("warming: {pools} (removed upstreams serve until a new one is healthy{most})\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(result: &str, dry_run: bool, errors: serde_json::Value) -> ReloadReply {
        let warming = if result == "applied" { json!(["api"]) } else { json!([]) };
        serde_json::from_value(json!({
            "result": result, "at": "2026-11-21T10:00:00.000Z", "error": null, "dry_run": dry_run, "generation": 4,
            "warming": warming, "warming_seconds": { "api": 29.6 }, "errors": errors, "last_reload": null,
        }))
        .unwrap()
    }

    #[test]
    fn a_refusal_shows_every_mistake_with_its_place() {
        let errors = json!([
            { "file": "r.toml", "line": 31, "column": 1, "key": "pools.api.health.intervall", "message": "unknown key",
              "expected": null, "suggestion": "interval", "severity": "error" },
            { "file": "r.toml", "line": null, "column": null, "key": null, "message": "cannot\u{1b} be read",
              "expected": "a file", "suggestion": null, "severity": "error" },
        ]);
        let want = "r.toml:31:1: error: pools.api.health.intervall: unknown key; did you mean `interval`?\n\
                    r.toml: error: cannot\\u{1b} be read; expected a file\n\
                    refused: nothing changed, generation 4 is still running\n";
        assert_eq!(render(&reply("refused", false, errors), Paint::off()), want);
    }

    #[test]
    fn a_refusal_without_places_has_a_line_for_each_reason() {
        let mut refused = reply("refused", false, json!([]));
        refused.error = Some("listener web: in use\nlistener api: in use".into());
        let want = "2 mistakes\n  listener web: in use\n  listener api: in use\n\
                    refused: nothing changed, generation 4 is still running\n";
        assert_eq!(render(&refused, Paint::off()), want);
    }

    #[test]
    fn a_reload_says_what_it_changes() {
        let list = |names: &[&str], count: usize| json!({ "count": count, "names": names });
        let mut applied = reply("applied", false, json!([]));
        applied.warming = vec![];
        applied.changes = serde_json::from_value(json!({
            "pools_added": list(&[], 0), "pools_removed": list(&["old\u{1b}"], 1), "pools_changed": list(&["api"], 1),
            "upstreams_added": list(&["api 10.0.0.3:80", "api 10.0.0.4:80"], 900), "upstreams_removed": list(&[], 0),
        }))
        .unwrap();
        let changed = "  pools removed: old\\u{1b}\n  pools changed: api\n  upstreams added: api 10.0.0.3:80, api \
                       10.0.0.4:80 and 898 more\n";
        assert_eq!(render(&applied, Paint::off()), format!("applied: generation 4 is running\n{changed}"));
        let trial = ReloadReply { dry_run: true, ..applied };
        assert_eq!(render(&trial, Paint::off()), format!("valid: a reload would apply it\n{changed}"));
    }

    #[test]
    fn an_applied_reload_names_the_warming_pools() {
        let want = "applied: generation 4 is running\n\
                    warming: api (removed upstreams serve until a new one is healthy, at most 30 s)\n";
        assert_eq!(render(&reply("applied", false, json!([])), Paint::off()), want);
        let trial = render(&reply("unchanged", true, json!([])), Paint::off());
        assert_eq!(trial, "valid: a reload would change nothing\n");
    }
}
