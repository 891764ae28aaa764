//! `explain` without a pool where there are several: each pool in trouble, the worst first, up to a few; or, where all
//! is well, a line for each pool. Both end with how to ask for one.

use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Value, json};

use super::super::client::Answer;
use super::super::locate::Target;
use super::super::status::{pool_line, summary};
use super::super::text::{Colour, Paint, one_line};
use super::super::{Failure, table::wrap};
use super::{ask_pool, render_pool};
use crate::admin::json::{PoolInfo, PoolWord, StatusReply};

/// Pools explained in full. Each costs a request and fills half a screen.
const EXPLAINED_MAX: usize = 5;
/// Lines of healthy pools.
const LINES_MAX: usize = 20;

/// The explanations of several pools.
pub struct Several<'a> {
    status: &'a StatusReply,
    /// The worst first.
    explained: Vec<Answer>,
}

impl<'a> Several<'a> {
    /// Asks for those in trouble.
    pub fn ask(target: &Target, status: &'a StatusReply) -> Result<Several<'a>, Failure> {
        let mut explained = vec![];
        for (name, _) in troubled(status).into_iter().take(EXPLAINED_MAX) {
            let answer = ask_pool(target, name)?;
            // A reload may have removed it since.
            if answer.status != StatusCode::NOT_FOUND {
                explained.push(answer);
            }
        }
        Ok(Several { status, explained })
    }

    /// As text for a terminal with `columns` columns.
    pub fn render(&self, now: SystemTime, columns: usize, paint: Paint) -> Result<String, Failure> {
        let pools = &self.status.pools.0;
        let mut blocks = vec![];
        match summary(pools) {
            Some(summary) => {
                blocks.push(lines(&summary, columns, paint, Some(Colour::Yellow)));
                for answer in &self.explained {
                    blocks.push(render_pool(&answer.json(&[StatusCode::OK])?, columns, paint));
                }
            }
            None => {
                let one = |(name, pool): &(String, PoolInfo)| pool_line(name, pool, now, paint) + "\n";
                let mut all: String = pools.iter().take(LINES_MAX).map(one).collect();
                if let Some(more) = pools.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
                    all.push_str(&format!("… and {more} more\n"));
                }
                blocks.push(all);
            }
        }
        blocks.push(lines(&self.more(), columns, paint, Some(Colour::Dim)));
        Ok(blocks.join("\n"))
    }

    /// How to ask for the other pools.
    fn more(&self) -> String {
        let troubled = troubled(self.status);
        let (left, first) = match troubled.get(EXPLAINED_MAX) {
            Some((name, _)) => (troubled.len() - EXPLAINED_MAX, *name),
            None => {
                let well = self.status.pools.0.iter().find(|(_, pool)| pool.status == PoolWord::Healthy);
                (0, well.map_or("POOL", |(name, _)| name.as_str()))
            }
        };
        let command = format!("`roundsman explain {}`", one_line(first));
        match (left, troubled.len()) {
            (0, 0) => format!("One pool in full, for example: {command}"),
            (0, all) if all == self.status.pools.0.len() => "One pool alone: `roundsman explain POOL`".to_owned(),
            (0, _) => format!("The other pools are healthy. One of them in full, for example: {command}"),
            (1, _) => format!("1 more pool is in trouble: {command}"),
            (left, _) => format!("{left} more pools are in trouble; the next one: {command}"),
        }
    }

    /// As JSON: `pools` are the explanations as the API returns them, `others` the remaining pools by name and status.
    pub fn json(&self) -> Result<String, Failure> {
        let explained = self.explained.iter().map(|answer| answer.json(&[StatusCode::OK]));
        let explained: Vec<Value> = explained.collect::<Result<_, _>>()?;
        let is_explained = |name: &str| explained.iter().any(|pool| pool["pool"] == name);
        let others = self.status.pools.0.iter().filter(|(name, _)| !is_explained(name));
        let others: Vec<Value> = others.map(|(name, pool)| json!({ "pool": name, "status": pool.status })).collect();
        Ok(format!("{}\n", json!({ "pools": explained, "others": others })))
    }
}

/// The pools that are not healthy, the worst first, otherwise in file order.
fn troubled(status: &StatusReply) -> Vec<(&str, PoolWord)> {
    let troubled = status.pools.0.iter().filter(|(_, pool)| pool.status != PoolWord::Healthy);
    let mut troubled: Vec<(&str, PoolWord)> = troubled.map(|(name, pool)| (name.as_str(), pool.status)).collect();
    troubled.sort_by_key(|(_, status)| status.urgency());
    troubled
}

fn lines(text: &str, columns: usize, paint: Paint, colour: Option<Colour>) -> String {
    wrap(text, columns).iter().map(|line| paint.text(colour, line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(words: &[&str]) -> StatusReply {
        let pool = |word: &str| {
            let healthy = usize::from(word != "unhealthy");
            json!({ "status": word, "healthy": healthy, "total": 1, "eligible": healthy, "fail_open": false,
                    "warming": false, "waiting": 0, "upstreams": [] })
        };
        let pools: serde_json::Map<String, Value> =
            words.iter().enumerate().map(|(number, word)| (format!("p{number:02}"), pool(word))).collect();
        serde_json::from_value(json!({
            "version": "0.1.0", "generation": 3, "pid": 1, "uptime_seconds": 1.0, "state": "running", "ready": true,
            "config": { "file": null, "loaded_at": "2026-11-21T08:00:00.000Z", "last_reload": null },
            "checker": { "stale": false, "restarts_total": 0, "probe_panics_total": 0, "probes_in_flight": 0 },
            "pools": pools,
        }))
        .expect("the shape of the API")
    }

    fn explained(pool: &str) -> Answer {
        let body = json!({
            "pool": pool, "now": "2026-11-21T10:03:05.000Z", "status": "unhealthy", "text": format!("Pool {pool} is unhealthy."),
            "healthy": 0, "total": 1, "eligible": 0, "needed": 1, "requests": "r", "out": [], "next": null,
            "key_of_tomorrow": 1,
        });
        Answer::of("GET /api/v1/pools/api/explain", StatusCode::OK, body.to_string())
    }

    fn shown(status: &StatusReply, columns: usize) -> String {
        let explained = troubled(status).iter().take(EXPLAINED_MAX).map(|(pool, _)| explained(pool)).collect();
        let now = humantime::parse_rfc3339("2026-11-21T10:03:05Z").unwrap();
        Several { status, explained }.render(now, columns, Paint::off()).unwrap()
    }

    #[test]
    fn the_pools_in_trouble_come_with_the_way_to_the_others() {
        for (words, want) in [
            (
                &["healthy", "degraded", "unhealthy"][..],
                "2 of 3 pools are in trouble: p02 is unhealthy, p01 is degraded\n\nPool p02 is unhealthy.\n\n\
                 Pool p01 is unhealthy.\n\nThe other pools are healthy. One of them in full, for example: \
                 `roundsman explain p00`\n",
            ),
            (
                &["unhealthy", "unhealthy"],
                "2 of 2 pools are in trouble: p00 is unhealthy, p01 is unhealthy\n\nPool p00 is unhealthy.\n\n\
                 Pool p01 is unhealthy.\n\nOne pool alone: `roundsman explain POOL`\n",
            ),
            (
                &["healthy", "healthy"],
                "p00  healthy  1/1 healthy\np01  healthy  1/1 healthy\n\nOne pool in full, for example: \
                 `roundsman explain p00`\n",
            ),
        ] {
            assert_eq!(shown(&status(words), 200), want);
        }
        for (pools, last) in [
            (6, "1 more pool is in trouble: `roundsman explain p05`"),
            (90, "85 more pools are in trouble; the next one: `roundsman explain p05`"),
        ] {
            let many = shown(&status(&vec!["unhealthy"; pools]), 80);
            assert_eq!(many.lines().last(), Some(last), "{many}");
            assert!(many.lines().count() < 20 && many.lines().all(|line| line.len() <= 80), "{many}");
        }
        let healthy = shown(&status(&["healthy"; 90]), 80);
        assert!(healthy.contains("… and 70 more\n") && healthy.lines().count() < 25, "{healthy}");
    }

    #[test]
    fn json_has_every_pool_once() {
        let status = status(&["healthy", "degraded", "unhealthy"]);
        let several = Several { status: &status, explained: vec![explained("p02"), explained("p01")] };
        let value: Value = serde_json::from_str(&several.json().unwrap()).unwrap();
        assert_eq!((&value["pools"][0]["pool"], &value["pools"][0]["key_of_tomorrow"]), (&"p02".into(), &1.into()));
        assert_eq!(value["others"], json!([{ "pool": "p00", "status": "healthy" }]));
        assert_eq!(value["pools"].as_array().map(Vec::len), Some(2));
    }
}
