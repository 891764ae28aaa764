//! The stage of the fault tests: the real program, backends that are processes of their own, steady load, an observer, and one
//! judgement of everything that was seen ([`rules`]) after each fault. `README.md` beside this file has the commands.

mod acts;
mod backend;
mod rules;

use std::collections::HashMap;
use std::time::Duration;

use roundsman::admin::json::EventWhat;
use roundsman::model::HealthState;
use serde_json::Value;
use tokio::time::Instant;

use self::backend::Backend;
use self::rules::{Arrival, Change, Evidence, Figures, Line, Request, judge};
use crate::load::{Load, Outcome, Plan};
use crate::program::{Program, fetch};
use crate::storm::model::At;
use crate::storm::watch::{Clock, Watch};
use crate::support::{assert_eventually, skipped};

/// Ten times what a slow machine needs; nothing that goes well waits this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the process may take to give back what load and faults took.
const CALM: Duration = Duration::from_secs(15);

/// What the paths of load begin with.
const LOADS: [&str; 3] = ["/n/", "/drip/", "/slow/"];

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// As documented: for figures, on a quiet machine. Otherwise short, in the suite.
    pub full: bool,
    /// Requests per second.
    pub rate: u32,
    /// How often a fault is repeated.
    pub rounds: usize,
}

impl Form {
    fn of_this_run() -> Form {
        match std::env::var("ROUNDSMAN_FAULTS").as_deref() {
            Ok("full") => Form { full: true, rate: 2_000, rounds: 5 },
            Ok(other) => panic!("ROUNDSMAN_FAULTS={other}: it is \"full\" or not set"),
            Err(_) => Form { full: false, rate: 1_000, rounds: 1 },
        }
    }

    /// The check of the figures, or one that a busy machine keeps.
    fn check(self) -> &'static str {
        match self.full {
            true => {
                "type = \"http\"\npath = \"/healthz\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nhealthy_threshold = 2\n\
                 unhealthy_threshold = 2\n"
            }
            false => crate::program::STEADY,
        }
    }
}

/// See the head of this file.
pub struct Stage {
    name: &'static str,
    pub form: Form,
    pub program: Program,
    pub backends: Vec<Backend>,
    watch: Watch,
    clock: Clock,
    loads: Vec<Load>,
    figures: Figures,
    /// Requests of load that have ended.
    ended: Vec<Outcome>,
    dir: tempfile::TempDir,
}

/// What a scenario looks at after the judgement.
pub struct Seen {
    pub evidence: Evidence,
    pub outcomes: Vec<Outcome>,
}

impl Stage {
    /// Starts three healthy backends and the program in front of them, with `keys` in its pool. `None`: python3 is missing.
    pub async fn start(name: &'static str, keys: &str) -> Option<Stage> {
        Stage::start_with(name, keys, "").await
    }

    /// The same with these tables in the file.
    pub async fn start_with(name: &'static str, keys: &str, tables: &str) -> Option<Stage> {
        Stage::start_by(name, keys, async |text| Program::start_ready(&(text + tables)).await).await
    }

    /// The same with so many descriptors.
    pub async fn start_with_descriptors(name: &'static str, most: u32) -> Option<Stage> {
        Stage::start_by(name, "", async |text| Program::start_ready_with_descriptors(&text, most).await).await
    }

    async fn start_by(name: &'static str, keys: &str, start: impl AsyncFnOnce(String) -> Program) -> Option<Stage> {
        if std::process::Command::new("python3").arg("--version").output().is_err() {
            skipped("the fault tests need python3");
            return None;
        }
        let (form, dir) = (Form::of_this_run(), tempfile::tempdir().expect("a directory"));
        let backends: Vec<Backend> = ["a", "b", "c"].iter().map(|name| Backend::start(dir.path(), name)).collect();
        let clock = Clock::new();
        let program = start(file(&backends, keys, form)).await;
        let watch = Watch::start(program.admin, clock);
        for backend in &backends {
            program.wait_for_state("api", &backend.address.to_string(), "healthy", PATIENCE).await;
        }
        // What is made once and kept.
        for _ in &backends {
            assert_eq!(fetch(program.web, "GET", "/warm/0").await.0, 200);
        }
        program.order_reload().await;
        let figures = figures(&program);
        let (loads, ended) = (Vec::new(), Vec::new());
        Some(Stage { name, form, program, backends, watch, clock, loads, figures, ended, dir })
    }

    /// The pool with these keys.
    pub fn file(&self, keys: &str) -> String {
        file(&self.backends, keys, self.form)
    }

    pub fn address(&self, backend: usize) -> String {
        self.backends[backend].address.to_string()
    }

    /// Begins steady load: GETs, and a tenth of the rate of POSTs; a few clients get their answers slowly. Returns when it flows.
    pub async fn load(&mut self) {
        let Form { rate, .. } = self.form;
        let plans = [
            Plan { answer: Some(right), ..Plan::numbered_get(32, rate * 9 / 10) },
            Plan { answer: Some(right), ..Plan::numbered_post(8, rate / 10) },
            Plan { answer: Some(right), path: "/drip/{n}", ..Plan::get(4, 16) },
        ];
        self.loads.extend(plans.iter().map(|plan| Load::start(self.program.web, plan)));
        self.flows(200).await;
    }

    /// Waits until so many more requests have ended.
    pub async fn flows(&self, more: usize) {
        let count = || self.loads.iter().map(Load::count).sum::<usize>();
        let enough = count() + more;
        assert_eventually("the load goes on", PATIENCE, || count() >= enough).await;
    }

    /// Has its requests judged with the others.
    pub fn keep(&mut self, load: Load) {
        self.loads.push(load);
    }

    /// A figure for the table.
    pub fn note(&self, text: &str) {
        println!("{}: {text}", self.name);
    }

    /// What wall-clock limits are multiplied by.
    pub fn lenience(&self) -> u32 {
        if self.form.full { 1 } else { 10 }
    }

    /// This moment.
    pub fn now(&self) -> At {
        self.clock.now()
    }

    /// Each upstream with its state and how often that has changed.
    pub async fn verdicts(&self) -> Vec<(String, HealthState, u64)> {
        let upstreams = self.program.pool("api").await.upstreams.into_iter();
        upstreams.map(|upstream| (upstream.address, upstream.state, upstream.transitions_total)).collect()
    }

    /// Lets it go on for so long.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits for the verdict; how long it took.
    pub async fn until(&self, backend: usize, state: &str) -> Duration {
        let begin = Instant::now();
        self.program.wait_for_state("api", &self.address(backend), state, PATIENCE).await;
        begin.elapsed()
    }

    /// Sends no further request, and waits for those in flight.
    pub async fn stop_load(&mut self) {
        for load in self.loads.drain(..) {
            self.ended.extend(load.stop().await);
        }
    }

    /// Ends the load, waits for calm, judges, and returns what was seen.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub async fn judged(mut self) -> Seen {
        self.stop_load().await;
        let after = self.calm().await;
        assert!(self.program.is_alive(), "{}", self.program.log());
        let before = self.figures;
        self.judge(Some([before, after])).await
    }

    /// The same where the process has ended.
    pub async fn judged_after_its_end(mut self) -> Seen {
        self.stop_load().await;
        self.judge(None).await
    }

    /// What the process holds once it is calm, or when its time for that is over.
    async fn calm(&self) -> Figures {
        let end = Instant::now() + CALM;
        loop {
            let now = figures(&self.program);
            if now.is_as(&self.figures) || Instant::now() > end {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn judge(mut self, figures: Option<[Figures; 2]>) -> Seen {
        let outcomes = std::mem::take(&mut self.ended);
        let known = outcomes.len();
        let log = self.program.dir().join("access.log");
        // It is written off the request path.
        let answered = outcomes.iter().filter(|outcome| outcome.answer.is_ok()).count();
        assert_eventually("every request has its line", PATIENCE, || lines_of(&log).count() >= answered).await;
        self.program.assert_no_panic();
        let moment = |at: Instant| at.saturating_duration_since(self.clock.start);
        let numbers: HashMap<String, usize> =
            self.backends.iter().enumerate().map(|(index, backend)| (backend.address.to_string(), index)).collect();
        let requests = outcomes.iter().map(|outcome| Request {
            path: outcome.path.clone(),
            sent: moment(outcome.at),
            ended: moment(outcome.at + outcome.took),
            answer: outcome.answer.clone(),
            wrong: outcome.wrong,
        });
        let arrivals = self.backends.iter().enumerate().flat_map(|(backend, process)| {
            let clock = self.clock;
            let ours = process.arrived().into_iter().filter(|seen| is_load(&seen.path));
            ours.map(move |seen| Arrival { at: clock.moment_of(seen.at), backend, post: seen.post, path: seen.path })
        });
        let lines = lines_of(&log).map(|value| line(&value, &self.clock, &numbers));
        let lines = lines.filter(|line| is_load(&line.path));
        let seen = std::mem::take(&mut *self.watch.seen.lock());
        let change = |what: &EventWhat| match what {
            EventWhat::Transition { upstream, to, .. } => Some((numbers.get(upstream)?, *to == HealthState::Healthy)),
            EventWhat::UpstreamAdded { upstream, .. } | EventWhat::UpstreamRemoved { upstream, .. } => {
                Some((numbers.get(upstream)?, false))
            }
            _ => None,
        };
        let changes = seen.events.iter().filter_map(|event| {
            let (backend, healthy) = change(&event.what)?;
            Some(Change { at: self.clock.moment(&event.at), backend: *backend, healthy })
        });
        let evidence = Evidence {
            requests: requests.collect(),
            arrivals: arrivals.collect(),
            lines: lines.collect(),
            changes: changes.collect(),
            backends: self.backends.len(),
            hiccups: seen.hiccups,
            statuses: seen.statuses.iter().map(|asked| (asked.asked, asked.answered - asked.asked)).collect(),
            figures,
            lenience: self.lenience(),
        };
        let violations = judge(&evidence);
        assert!(
            violations.is_empty(),
            "{} ({known} requests) broke:\n{}\n{}",
            self.name,
            violations.join("\n"),
            self.program.log()
        );
        println!("{}: {}", self.name, summary(&evidence));
        drop(self.dir);
        Seen { evidence, outcomes }
    }
}

/// A row of the table.
fn summary(evidence: &Evidence) -> String {
    let plain = evidence.requests.iter().filter(|request| !request.path.starts_with("/drip/"));
    let took: Vec<Duration> = plain.map(|request| request.ended - request.sent).collect();
    let of = |share: f64| longest(took.clone(), share);
    let failed = evidence.requests.iter().filter(|request| request.answer != Ok(200)).count();
    let status = evidence.statuses.iter().map(|(_, took)| *took).max().unwrap_or_default();
    format!(
        "{} requests, {failed} not 200; p50 {:.1?}, p99 {:.1?}, the longest {:.1?}; status at most {status:.1?}",
        took.len(),
        of(0.5),
        of(0.99),
        of(1.0),
    )
}

/// The longest of the shortest `share` of them.
fn longest(mut times: Vec<Duration>, share: f64) -> Duration {
    times.sort_unstable();
    let at = (times.len() as f64 * share) as usize;
    times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl Seen {
    /// Requests with another answer than 200, but for those whose answers are in pieces: these may break off.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.answer != Ok(200) && !outcome.path.starts_with("/drip/"))
    }

    /// Requests with this beginning of their path and another answer than 200, as text.
    pub fn failed(&self, path: &str) -> Vec<String> {
        let bad = self.outcomes.iter().filter(|o| o.path.starts_with(path) && o.answer != Ok(200));
        bad.map(|o| format!("{} {:?} after {:?}", o.path, o.answer, o.took)).collect()
    }
}

fn is_load(path: &str) -> bool {
    LOADS.iter().any(|load| path.starts_with(load))
}

/// The body of the good answer to a numbered path.
fn right(path: &str) -> Vec<u8> {
    format!("{} ", path.rsplit('/').next().unwrap_or_default()).repeat(100).into_bytes()
}

fn figures(program: &Program) -> Figures {
    Figures { descriptors: program.descriptors(), threads: program.threads(), resident: program.resident() }
}

fn file(backends: &[Backend], keys: &str, form: Form) -> String {
    let upstreams: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.address)).collect();
    format!(
        "[access_log]\nto = \"./access.log\"\n[pools.api]\nupstreams = [{}]\ntimeouts.connect = \"250ms\"\n{keys}\n\
         [pools.api.health]\n{}\n",
        upstreams.join(", "),
        form.check()
    )
}

fn lines_of(log: &std::path::Path) -> impl Iterator<Item = Value> + use<> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    // The last one may be half written.
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let values =
        text[..whole].lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    values.collect::<Vec<Value>>().into_iter()
}

fn line(value: &Value, clock: &Clock, numbers: &HashMap<String, usize>) -> Line {
    let began = clock.moment(value["time"].as_str().expect("a time"));
    let took = value["duration_ms"].as_f64().expect("a number");
    let attempts = value["attempts"].as_array().expect("a list").iter();
    let attempts = attempts.filter_map(|tried| numbers.get(tried["upstream"].as_str()?).copied());
    Line {
        path: value["path"].as_str().expect("a path").to_owned(),
        began,
        // The time is cut to milliseconds.
        ended: began + Duration::from_secs_f64(took / 1_000.0) + Duration::from_millis(1),
        status: value["status"].as_i64().expect("a status"),
        attempts: attempts.collect(),
    }
}
